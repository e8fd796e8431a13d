//! Decides: the schema table as OpenAPI schemas, in the dialects of version 2 (definitions) and 3 (components).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::api::resource::RESOURCES;
use crate::api::schema::descriptions::{Described, Descriptions};
use crate::api::schema::{Field, Item, ListType, Other, Shape, Type, Wrap, named};

pub const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
/// What is sent by PATCH: any object or list.
pub const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const JSON: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";
const OR_ARRAY: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray";
const OR_BOOL: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool";
const FIELDS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const OR_STRINGS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray";

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

/// Every schema that `roots` need: JSON by name. A root that is not in the table is any object. One schema at a time is
/// more than text.
pub fn closure(roots: impl IntoIterator<Item = &'static str>, dialect: Dialect) -> BTreeMap<String, String> {
    let texts = Descriptions::unpack();
    let mut out = BTreeMap::new();
    let mut todo = Vec::new();
    for root in roots {
        match named(root) {
            Some(t) => todo.push(t),
            None => {
                let mut schema = json!({"type": "object"});
                describe(&mut schema, texts.of(root).map(|d| d.text));
                out.insert(root.to_owned(), schema.to_string());
            }
        }
    }
    while let Some(t) = todo.pop() {
        if out.contains_key(t.name) {
            continue;
        }
        out.insert(t.name.into(), of_type(t, dialect, texts.of(t.name)).to_string());
        for f in t.fields {
            if let Some(t) = f.shape.object() {
                todo.push(t);
            } else if let Some((name, mut schema)) = scalar(f, dialect) {
                describe(&mut schema, texts.of(name).map(|d| d.text));
                out.insert(name.into(), schema.to_string());
            }
        }
    }
    out
}

fn of_type(t: &'static Type, dialect: Dialect, texts: Option<Described<'_>>) -> Value {
    let described = |f: &Field| {
        let mut property = property(f, dialect);
        match texts {
            Some(texts) => describe(&mut property, texts.field(f.name)),
            None => describe(&mut property, of_list(f)),
        }
        (f.name.into(), property)
    };
    let properties: Map<String, Value> = t.fields.iter().map(described).collect();
    let required: Vec<&str> = t.fields.iter().filter(|f| f.required).map(|f| f.name).collect();
    let mut out = json!({"type": "object"});
    match texts {
        Some(texts) => describe(&mut out, Some(texts.text)),
        None => {
            let kind = t.short_name().trim_end_matches("List");
            out["description"] = format!("{kind}List is a list of {kind}.").into();
        }
    }
    if !properties.is_empty() {
        out["properties"] = properties.into();
    }
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

fn describe(schema: &mut Value, text: Option<&str>) {
    if let Some(text) = text.filter(|t| !t.is_empty()) {
        schema["description"] = text.into();
    }
}

/// Lists are generic where the texts come from, and have none there.
fn of_list(f: &Field) -> Option<&'static str> {
    Some(match f.name {
        "apiVersion" => super::custom::API_VERSION,
        "kind" => super::custom::KIND,
        "metadata" => "Where the list was read, and how to go on when there is more.",
        "items" => "The objects of the list.",
        _ => return None,
    })
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
    let mut out = shape(f, f.shape, dialect);
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
    // Upstream leaves defaults out of version 2, where a reference has no room for them.
    if dialect == Dialect::V3
        && let Ok(default) = serde_json::from_str::<Value>(f.default)
    {
        out["default"] = default;
    }
    out
}

fn shape(f: &Field, s: Shape, dialect: Dialect) -> Value {
    match s.wrap {
        Wrap::One => item(f, s.item, dialect),
        Wrap::List => json!({"type": "array", "items": shape(f, s.element(), dialect)}),
        Wrap::Map | Wrap::MapOfLists => {
            json!({"type": "object", "additionalProperties": shape(f, s.element(), dialect)})
        }
    }
}

/// Version 3 wraps a reference, so that extensions can stand beside it.
fn item(f: &Field, i: Item, dialect: Dialect) -> Value {
    let reference = |name: &str| match dialect {
        Dialect::V3 => json!({"allOf": [dialect.reference(name)]}),
        Dialect::V2 => dialect.reference(name),
    };
    match i {
        // As with defaults.
        Item::String if !f.values.is_empty() && dialect == Dialect::V3 => json!({"type": "string", "enum": f.values}),
        Item::String => json!({"type": "string"}),
        Item::Bool => json!({"type": "boolean"}),
        Item::Int32 => json!({"type": "integer", "format": "int32"}),
        Item::Int64 => json!({"type": "integer", "format": "int64"}),
        Item::Double => json!({"type": "number", "format": "double"}),
        Item::Bytes => json!({"type": "string", "format": "byte"}),
        Item::Object(t) => reference(t.name),
        _ => scalar(f, dialect).map_or(Value::Null, |(name, _)| reference(name)),
    }
}

/// Scalars, and what is no single type, that have a schema of their own.
fn scalar(f: &Field, dialect: Dialect) -> Option<(&'static str, Value)> {
    let v3 = dialect == Dialect::V3;
    Some(match f.shape.item {
        Item::Time => (TIME, json!({"type": "string", "format": "date-time"})),
        Item::MicroTime => (MICRO_TIME, json!({"type": "string", "format": "date-time"})),
        Item::Quantity if v3 => (QUANTITY, json!({"oneOf": [{"type": "string"}, {"type": "number"}]})),
        Item::Quantity => (QUANTITY, json!({"type": "string"})),
        Item::IntOrString if v3 => {
            (INT_OR_STRING, json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}))
        }
        Item::IntOrString => (INT_OR_STRING, json!({"type": "string", "format": "int-or-string"})),
        // The table does not tell the two apart; one field is the set of fields that somebody owns.
        Item::Any if f.name == "fieldsV1" => (FIELDS, json!({"type": "object"})),
        Item::Any => (RAW, json!({"type": "object"})),
        // Neither dialect has a word for these.
        Item::Json => (JSON, json!({})),
        Item::Either(_, Other::Array) => (OR_ARRAY, json!({})),
        Item::Either(_, Other::Bool) => (OR_BOOL, json!({})),
        Item::Either(_, Other::Strings) => (OR_STRINGS, json!({})),
        _ => return None,
    })
}

/// A type of `meta/v1`.
pub fn meta(name: &str) -> Option<&'static Type> {
    named(&format!("{META}{name}"))
}
