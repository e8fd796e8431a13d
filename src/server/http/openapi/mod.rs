//! Decides: the OpenAPI documents, made from the schema table and the resource table. kubectl reads version 3 to validate, to
//! explain and to merge; version 2 is there for older tools. (Found by watching what kubectl 1.30 and 1.36 ask for in
//! create, apply, diff and explain: never version 2 while version 3 answers, so that its protobuf form is not needed.)
//!
//! A document is a pure function of the binary, is made when somebody asks and is not kept: clients keep it, by its hash,
//! which is part of the URL. Only the hashes stay in memory.

mod operations;
mod schemas;

use std::sync::OnceLock;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::discovery;
use crate::api::version;

pub use schemas::Dialect;

/// `/openapi/v3`: where each group's document is. The hash changes with the document, so that clients may keep it for ever.
#[must_use]
pub fn index() -> Value {
    let paths: Map<String, Value> = hashes()
        .iter()
        .map(|h| {
            let path = path(h.group, h.version);
            let url = format!("/openapi/v3/{path}?hash={}", h.hash);
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

/// `/openapi/v3/api/v1` (with an empty group) and `/openapi/v3/apis/<group>/<version>`. `None` when there is no such version.
#[must_use]
pub fn v3(group: &str, version: &str) -> Option<Vec<u8>> {
    let version = discovery::versions(group).into_iter().find(|v| *v == version)?;
    let group = std::iter::once("").chain(discovery::groups()).find(|g| *g == group)?;
    let (paths, used) = operations::paths(&[(group, version)], Dialect::V3);
    let schemas = schemas::closure(&used, Dialect::V3);
    let scheme = json!({"BearerToken": {
        "description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey",
    }});
    let document = json!({
        "openapi": "3.0.0", "info": info(), "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": scheme},
    });
    Some(document.to_string().into_bytes())
}

/// The hash that [`index`] gives a document: what `?hash=` must equal for the answer to be cached for ever.
#[must_use]
pub fn hash(group: &str, version: &str) -> Option<&'static str> {
    hashes().iter().find(|h| h.group == group && h.version == version).map(|h| h.hash.as_str())
}

/// `/openapi/v2` as JSON. Its protobuf form is not offered (406).
#[must_use]
pub fn v2() -> Vec<u8> {
    let (paths, used) = operations::paths(&group_versions(), Dialect::V2);
    let scheme = json!({"BearerToken": {
        "description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey",
    }});
    let document = json!({
        "swagger": "2.0", "info": info(), "paths": paths, "definitions": schemas::closure(&used, Dialect::V2),
        "securityDefinitions": scheme, "security": [{"BearerToken": []}],
    });
    document.to_string().into_bytes()
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": version::git_version()})
}

/// `api/v1`, `apis/apps/v1`
fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn group_versions() -> Vec<(&'static str, &'static str)> {
    let groups = std::iter::once("").chain(discovery::groups());
    groups.flat_map(|g| discovery::versions(g).into_iter().map(move |v| (g, v))).collect()
}

struct Hash {
    group: &'static str,
    version: &'static str,
    hash: String,
}

fn hashes() -> &'static [Hash] {
    static HASHES: OnceLock<Vec<Hash>> = OnceLock::new();
    HASHES.get_or_init(|| {
        let hash = |(group, version)| {
            let digest = Sha256::digest(v3(group, version).unwrap_or_default());
            let hash = digest.iter().map(|b| format!("{b:02X}")).collect();
            Hash { group, version, hash }
        };
        group_versions().into_iter().map(hash).collect()
    })
}

#[cfg(test)]
mod tests;
