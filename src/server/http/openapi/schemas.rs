//! Decides: the schema table as OpenAPI schemas, in the dialects of version 2 (definitions) and 3 (components).

use serde_json::{Map, Value, json};

use crate::api::resource::RESOURCES;
use crate::api::schema::{Field, Item, ListType, Shape, Type, Wrap, named};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    V2,
    V3,
}

impl Dialect {
    pub fn reference(self, name: &str) -> Value {
        match self {
            Self::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Self::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }
}

/// Every schema that `roots` need, by name.
pub fn closure(roots: &[&'static Type], dialect: Dialect) -> Map<String, Value> {
    let mut out = Map::new();
    let mut todo = roots.to_vec();
    while let Some(t) = todo.pop() {
        if out.contains_key(t.name) {
            continue;
        }
        out.insert(t.name.into(), of_type(t, dialect));
        for f in t.fields {
            if let Some(t) = f.shape.object() {
                todo.push(t);
            } else if let Some((name, schema)) = scalar(f.shape.item, dialect) {
                out.insert(name.into(), schema);
            }
        }
    }
    out
}

fn of_type(t: &'static Type, dialect: Dialect) -> Value {
    let properties: Map<String, Value> = t.fields.iter().map(|f| (f.name.into(), property(f, dialect))).collect();
    let required: Vec<&str> = t.fields.iter().filter(|f| f.required).map(|f| f.name).collect();
    let mut out = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        out["required"] = required.into();
    }
    if t.atomic {
        out["x-kubernetes-map-type"] = "atomic".into();
    }
    let kinds: Vec<Value> =
        kinds(t).into_iter().map(|(g, v, k)| json!({"group": g, "version": v, "kind": k})).collect();
    if !kinds.is_empty() {
        out["x-kubernetes-group-version-kind"] = kinds.into();
    }
    out
}

/// The kinds that a type is. Options of a request and watch events exist in every group and version.
fn kinds(t: &'static Type) -> Vec<(&'static str, &'static str, &'static str)> {
    let Some((group, version, kind)) = t.gvk else { return Vec::new() };
    if !t.name.starts_with(META) || !matches!(kind, "DeleteOptions" | "WatchEvent") {
        return vec![(group, version, kind)];
    }
    let mut all: Vec<_> = RESOURCES.iter().map(|r| (r.group, r.version, kind)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn property(f: &Field, dialect: Dialect) -> Value {
    let mut out = shape(f.shape, dialect, true);
    match f.list {
        ListType::Unset => {}
        ListType::Atomic => out["x-kubernetes-list-type"] = "atomic".into(),
        ListType::Set => out["x-kubernetes-list-type"] = "set".into(),
        ListType::Map(keys) => {
            out["x-kubernetes-list-type"] = "map".into();
            out["x-kubernetes-list-map-keys"] = keys.into();
        }
    }
    if f.atomic {
        out["x-kubernetes-map-type"] = "atomic".into();
    }
    let strategies = [(f.merge, "merge"), (f.retain_keys, "retainKeys")];
    let strategies: Vec<&str> = strategies.iter().filter(|(on, _)| *on).map(|(_, s)| *s).collect();
    if !strategies.is_empty() {
        out["x-kubernetes-patch-strategy"] = strategies.join(",").into();
    }
    if !f.merge_key.is_empty() {
        out["x-kubernetes-patch-merge-key"] = f.merge_key.into();
    }
    out
}

fn shape(s: Shape, dialect: Dialect, wrapped: bool) -> Value {
    match s.wrap {
        Wrap::One => item(s.item, dialect, wrapped),
        Wrap::List => json!({"type": "array", "items": shape(s.element(), dialect, true)}),
        Wrap::Map | Wrap::MapOfLists => {
            json!({"type": "object", "additionalProperties": shape(s.element(), dialect, true)})
        }
    }
}

/// Version 3 wraps a reference, so that extensions can stand beside it.
fn item(i: Item, dialect: Dialect, wrapped: bool) -> Value {
    let reference = |name: &str| match dialect {
        Dialect::V3 if wrapped => json!({"allOf": [dialect.reference(name)]}),
        _ => dialect.reference(name),
    };
    match i {
        Item::String => json!({"type": "string"}),
        Item::Bool => json!({"type": "boolean"}),
        Item::Int32 => json!({"type": "integer", "format": "int32"}),
        Item::Int64 => json!({"type": "integer", "format": "int64"}),
        Item::Double => json!({"type": "number", "format": "double"}),
        Item::Bytes => json!({"type": "string", "format": "byte"}),
        Item::Any => json!({"type": "object"}),
        Item::Object(t) => reference(t.name),
        Item::Time | Item::MicroTime | Item::Quantity | Item::IntOrString => {
            scalar(i, dialect).map_or(Value::Null, |(name, _)| reference(name))
        }
    }
}

/// Scalars that have a schema of their own.
fn scalar(i: Item, dialect: Dialect) -> Option<(&'static str, Value)> {
    let v3 = dialect == Dialect::V3;
    Some(match i {
        Item::Time => (TIME, json!({"type": "string", "format": "date-time"})),
        Item::MicroTime => (MICRO_TIME, json!({"type": "string", "format": "date-time"})),
        Item::Quantity if v3 => (QUANTITY, json!({"oneOf": [{"type": "string"}, {"type": "number"}]})),
        Item::Quantity => (QUANTITY, json!({"type": "string"})),
        Item::IntOrString if v3 => {
            (INT_OR_STRING, json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}))
        }
        Item::IntOrString => (INT_OR_STRING, json!({"type": "string", "format": "int-or-string"})),
        _ => return None,
    })
}

/// A type of `meta/v1`.
pub fn meta(name: &str) -> Option<&'static Type> {
    named(&format!("{META}{name}"))
}
