//! Decides: the OpenAPI documents, made from the schema table and the resource table. kubectl reads version 3 to
//! validate, to explain and to merge; version 2 is there for older tools. (Found by watching what kubectl 1.30 and 1.36
//! ask for in create, apply, diff and explain: never version 2 while version 3 answers.)
//!
//! A document is a pure function of the binary and the definitions, is made when somebody asks, as text from the first
//! schema on, and is not kept: clients keep it, by its hash, which is part of the URL. The hash is that of what the
//! document is made of, so that none has to be made to know it. Only the hashes stay in memory.
//!
//! - [`operations`], [`parameters`]: paths, from the resource table
//! - [`schemas`]: the schema table, with upstream's descriptions; [`custom`]: those of definitions
//! - [`form`], [`protobuf`]: either document in the form that client-go's discovery asks for

mod custom;
mod form;
mod operations;
mod parameters;
mod protobuf;
pub mod remote;
mod schemas;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::discovery::{self, Rows};
use crate::api::resource::{MEASURED_GROUP, Resource};
use crate::api::schema::{self, descriptions};
use crate::api::version;
use crate::server::registry::Catalog;

pub use form::Form;
pub use protobuf::encode as to_protobuf;
pub use schemas::Dialect;

/// `/openapi/v3`: where each group's document is. The hash changes with the document, so that clients may keep it for
/// ever.
#[must_use]
pub fn index(catalog: &Catalog) -> Value {
    let paths: Map<String, Value> = group_versions(&described(catalog))
        .into_iter()
        .map(|(group, version)| {
            let path = path(group, version);
            let hash = hash(catalog, group, version).unwrap_or_default();
            let url = format!("/openapi/v3/{path}?hash={hash}");
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

/// `/openapi/v3/api/v1` (with an empty group) and `/openapi/v3/apis/<group>/<version>`. `None` when there is no such
/// version.
#[must_use]
pub fn v3(catalog: &Catalog, group: &str, version: &str) -> Option<Vec<u8>> {
    let of_it = |r: &&Resource| r.group == group && r.version == version;
    let rows: Vec<&'static Resource> = described(catalog).into_iter().filter(of_it).collect();
    if rows.is_empty() {
        return None;
    }
    let operations = operations::of(&rows, Dialect::V3);
    let mut schemas = schemas::closure(operations.used, Dialect::V3);
    for version in custom::versions(catalog).filter(|v| of_it(&v.row)) {
        schemas.extend(custom::schemas(version, Dialect::V3).map(|(name, schema)| (name, schema.to_string())));
    }
    let mut out = format!("{{\"openapi\":\"3.0.0\",\"info\":{},\"paths\":", info());
    append(&mut out, operations.paths);
    out += ",\"components\":{\"schemas\":";
    append(&mut out, schemas);
    out += &format!(",\"securitySchemes\":{}}}}}", scheme());
    Some(out.into_bytes())
}

/// The hash that [`index`] gives a document: what `?hash=` must equal for the answer to be cached for ever.
#[must_use]
pub fn hash(catalog: &Catalog, group: &str, version: &str) -> Option<String> {
    let built_in = built_in().iter().find(|h| h.group == group && h.version == version).map(|h| &h.hash);
    // What a definition makes of a document is said by its digest: nothing has to be made to know it.
    let digests = catalog.definitions().iter().filter(|d| {
        let mut served = d.served();
        served.any(|v| v.row.group == group && v.row.version == version)
    });
    let digests: Vec<u8> = digests.flat_map(|d| *d.digest()).collect();
    match (built_in, digests.is_empty()) {
        (built_in, true) => built_in.cloned(),
        (built_in, false) => {
            let own = [version::git_version().as_bytes(), built_in.map_or(&[], String::as_bytes), &digests].concat();
            Some(hex(&Sha256::digest(own)))
        }
    }
}

/// `/openapi/v2`
#[must_use]
pub fn v2(catalog: &Catalog) -> Vec<u8> {
    let operations = operations::of(&described(catalog), Dialect::V2);
    let mut definitions = schemas::closure(operations.used, Dialect::V2);
    for version in custom::versions(catalog) {
        definitions.extend(custom::schemas(version, Dialect::V2).map(|(name, schema)| (name, schema.to_string())));
    }
    let mut out = format!("{{\"swagger\":\"2.0\",\"info\":{},\"paths\":", info());
    append(&mut out, operations.paths);
    out += ",\"definitions\":";
    append(&mut out, definitions);
    let (parameters, security) = (Value::Object(operations.parameters), json!([{"BearerToken": []}]));
    out += &format!(",\"parameters\":{parameters},\"securityDefinitions\":{},\"security\":{security}}}", scheme());
    out.into_bytes()
}

/// The hash of [`v2`].
#[must_use]
pub fn v2_hash(catalog: &Catalog) -> String {
    let digests: Vec<u8> = catalog.definitions().iter().flat_map(|d| *d.digest()).collect();
    hex(&Sha256::digest([table().as_slice(), b"v2", &digests].concat()))
}

/// An object whose values are JSON. Each goes when it has been written.
fn append(out: &mut String, entries: BTreeMap<String, String>) {
    out.reserve(entries.iter().map(|(name, json)| name.len() + json.len() + 4).sum());
    let mut separator = '{';
    for (name, json) in entries {
        out.push(separator);
        *out += &Value::String(name).to_string();
        out.push(':');
        *out += &json;
        separator = ',';
    }
    *out += if separator == '{' { "{}" } else { "}" };
}

fn scheme() -> Value {
    json!({"BearerToken": {
        "description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey",
    }})
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": version::git_version()})
}

/// `api/v1`, `apis/apps/v1`
fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The rows that have schemas.
fn described(catalog: &Catalog) -> Vec<&'static Resource> {
    catalog.rows().iter().copied().filter(|r| r.group != MEASURED_GROUP).collect()
}

fn group_versions(rows: Rows<'_>) -> Vec<(&'static str, &'static str)> {
    let groups = std::iter::once("").chain(discovery::groups(rows));
    groups.flat_map(|g| discovery::versions(rows, g).into_iter().map(move |v| (g, v))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

struct Hash {
    group: &'static str,
    version: &'static str,
    hash: String,
}

/// Those of the documents without custom resources.
fn built_in() -> &'static [Hash] {
    static HASHES: OnceLock<Vec<Hash>> = OnceLock::new();
    HASHES.get_or_init(|| {
        let hash = |(group, version): (&'static str, &'static str)| {
            let of_it = [table().as_slice(), path(group, version).as_bytes()].concat();
            Hash { group, version, hash: hex(&Sha256::digest(of_it)) }
        };
        group_versions(&described(&Catalog::default())).into_iter().map(hash).collect()
    })
}

/// What every document is made of: the release, the two tables and the texts.
fn table() -> &'static [u8; 32] {
    static DIGEST: OnceLock<[u8; 32]> = OnceLock::new();
    DIGEST.get_or_init(|| {
        let mut all = Sha256::new();
        all.update(version::git_version());
        all.update(descriptions::PACKED);
        for row in described(&Catalog::default()) {
            all.update(format!("{row:?}"));
        }
        for t in schema::TYPES {
            all.update(t.name);
            for f in t.fields {
                all.update([f.name, &f.shape.go_name(), f.merge_key, f.default, ""].join("\n"));
                all.update([u8::from(f.required), u8::from(f.atomic), u8::from(f.merge), u8::from(f.retain_keys)]);
                all.update(format!("{:?}", f.list));
            }
        }
        all.finalize().into()
    })
}

#[cfg(test)]
mod tests;
