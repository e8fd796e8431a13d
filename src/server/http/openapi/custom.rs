//! Decides: the schemas of custom resources in the OpenAPI documents, from their definitions
//! (`apiextensions-apiserver/pkg/controller/openapi/builder`).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::schemas::{Dialect, META};
use crate::api::resource::Resource;
use crate::server::crd::definition::Version;
use crate::server::registry::Catalog;

/// What the schemas refer to.
pub const TYPES: [&str; 2] = ["ObjectMeta", "ListMeta"];

pub const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should \
    convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
pub const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this \
    from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const CONVENTIONS: &str = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";

/// The custom resources that are served, in every version.
pub fn versions(catalog: &Catalog) -> impl Iterator<Item = &Arc<Version>> {
    catalog.definitions().iter().flat_map(|d| d.served())
}

/// `com.example.v1.CronTab`
pub fn name(row: &Resource) -> String {
    named(row, row.kind)
}

pub fn list_name(row: &Resource) -> String {
    named(row, &format!("{}List", row.kind))
}

fn named(row: &Resource, kind: &str) -> String {
    let mut parts: Vec<&str> = row.group.split('.').rev().collect();
    parts.extend([row.version, kind]);
    parts.join(".")
}

/// The schemas of the objects of a version and of their lists, by name.
pub fn schemas(version: &Version, dialect: Dialect) -> [(String, Value); 2] {
    let row = version.row;
    let meta = |name: &str, description: &str| {
        let reference = dialect.reference(&format!("{META}{name}"));
        match dialect {
            Dialect::V2 => reference,
            Dialect::V3 => json!({"description": description, "allOf": [reference]}),
        }
    };
    let text = |description: &str| json!({"description": description, "type": "string"});
    let kind = |kind: &str| json!([{"group": row.group, "version": row.version, "kind": kind}]);

    let mut own = version.open_api();
    if !own.is_object() {
        own = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    }
    if dialect == Dialect::V2 {
        simplify(&mut own);
    }
    if !own["properties"].is_object() {
        own["properties"] = json!({});
    }
    own["type"] = "object".into();
    own["properties"]["apiVersion"] = text(API_VERSION);
    own["properties"]["kind"] = text(KIND);
    let about = format!("Standard object's metadata. More info: {CONVENTIONS}#metadata");
    own["properties"]["metadata"] = meta("ObjectMeta", &about);
    own["x-kubernetes-group-version-kind"] = kind(row.kind);

    let about = format!("Standard list metadata. More info: {CONVENTIONS}#types-kinds");
    let items = format!("List of {}. More info: {CONVENTIONS}", row.plural);
    let list = json!({
        "description": format!("{} is a list of {}", version.list_kind, row.kind),
        "type": "object", "required": ["items"],
        "properties": {
            "apiVersion": text(API_VERSION), "kind": text(KIND), "metadata": meta("ListMeta", &about),
            "items": {"description": items, "type": "array", "items": dialect.reference(&name(row))},
        },
        "x-kubernetes-group-version-kind": kind(&version.list_kind),
    });
    [(name(row), own), (list_name(row), list)]
}

/// Version 2 has no words for some of it, and old clients stumble over fields that a schema names and does not close
/// (`schema.ToStructuralOpenAPIV2`).
fn simplify(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    for word in ["allOf", "anyOf", "oneOf", "not", "default"] {
        map.remove(word);
    }
    if map.remove("nullable") == Some(true.into()) {
        for word in ["type", "items", "properties", "additionalProperties"] {
            map.remove(word);
        }
    }
    if map.get("x-kubernetes-preserve-unknown-fields") == Some(&true.into()) {
        map.remove("items");
        map.remove("properties");
    }
    for word in ["items", "additionalProperties"] {
        if let Some(inside) = map.get_mut(word) {
            simplify(inside);
        }
    }
    let properties = map.get_mut("properties").and_then(Value::as_object_mut);
    properties.into_iter().flat_map(Map::values_mut).for_each(simplify);
}
