//! Decides: writes `generated.rs` from the OpenAPI document of the reference and the tags of Go's structs. A test: it
//! compares, and rewrites the file with `SKIFF_UPDATE=1`. Without the Go sources (`SKIFF_PROTO`) it keeps the protobuf
//! numbers that the table has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;

use super::Field;
use super::tags::{Sources, Tag};
use crate::api::resource::RESOURCES;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
/// What every API server speaks beside its resources.
const META_KINDS: [&str; 7] =
    ["APIGroup", "APIGroupList", "APIResourceList", "APIVersions", "DeleteOptions", "Status", "WatchEvent"];
const WIDTH: usize = 120;

/// Go names of definitions that are no structs, and how the table writes them.
fn special(name: &str) -> Option<&'static str> {
    Some(match name {
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => "QUANTITY",
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => "INTORSTRING",
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => "TIME",
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => "MICROTIME",
        "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1" | "io.k8s.apimachinery.pkg.runtime.RawExtension" => "ANY",
        n if n.ends_with("apiextensions.v1.JSON") => "JSON",
        n if n.ends_with("apiextensions.v1.JSONSchemaPropsOrArray") => "or_array(&APIEXTENSIONS_V1_JSONSCHEMAPROPS)",
        n if n.ends_with("apiextensions.v1.JSONSchemaPropsOrBool") => "or_bool(&APIEXTENSIONS_V1_JSONSCHEMAPROPS)",
        n if n.ends_with("apiextensions.v1.JSONSchemaPropsOrStringArray") => {
            "or_strings(&APIEXTENSIONS_V1_JSONSCHEMAPROPS)"
        }
        _ => return None,
    })
}

/// `io.k8s.api.core.v1.PodSpec` → `CORE_V1_PODSPEC`.
fn identifier(name: &str) -> String {
    let mut parts: Vec<&str> = name.rsplitn(4, '.').take(3).collect();
    parts.reverse();
    parts.join("_").to_uppercase().replace('-', "_")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn reference(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str().and_then(|r| r.strip_prefix("#/definitions/"))
}

fn shape(schema: &Value) -> String {
    if let Some(name) = reference(schema) {
        return special(name).map_or_else(|| format!("of(&{})", identifier(name)), str::to_owned);
    }
    match (text(schema, "type"), text(schema, "format")) {
        ("array", _) => format!("list({})", shape(&schema["items"])),
        ("object", _) if schema["additionalProperties"].is_object() => {
            format!("map({})", shape(&schema["additionalProperties"]))
        }
        ("object" | "", _) => "ANY".into(),
        ("string", "byte") => "BYTES".into(),
        ("string", _) => "STRING".into(),
        ("boolean", _) => "BOOL".into(),
        ("integer", "int32") => "INT32".into(),
        ("integer", _) => "INT64".into(),
        ("number", _) => "DOUBLE".into(),
        other => panic!("a shape that the table has no word for: {other:?}"),
    }
}

fn field(name: &str, schema: &Value, required: bool, tag: &Tag) -> String {
    let shape = shape(schema);
    let mut out = format!("f({name:?}, {shape})");
    if tag.number != 0 {
        write!(out, ".at({})", tag.number).unwrap();
    }
    if !tag.inside.is_empty() {
        write!(out, ".inside(&{:?})", tag.inside).unwrap();
    }
    // Go leaves out neither empty structs nor what writes itself, such as a quantity.
    let scalar = matches!(shape.as_str(), "STRING" | "BOOL" | "INT32" | "INT64" | "DOUBLE" | "BYTES");
    let several = shape.starts_with("list(") || shape.starts_with("map(");
    if tag.omits_zero && (scalar || several) {
        out += ".omits_zero()";
    }
    let plain_struct = !tag.pointer && !tag.omitzero && !scalar && !several;
    if tag.always || (tag.number != 0 && plain_struct) {
        out += ".always()";
    }
    if tag.pointer {
        out += ".pointer()";
    }
    if !tag.default.is_empty() {
        write!(out, ".default({:?})", tag.default).unwrap();
    }
    if !tag.values.is_empty() {
        write!(out, ".values(&{:?})", tag.values).unwrap();
    }
    let keys = schema["x-kubernetes-list-map-keys"].as_array();
    match text(schema, "x-kubernetes-list-type") {
        "" => {}
        "atomic" => out += ".list_atomic()",
        "set" => out += ".list_set()",
        "map" => write!(out, ".list_map(&{})", Value::from(keys.cloned().unwrap_or_default())).unwrap(),
        other => panic!("list type {other}"),
    }
    if text(schema, "x-kubernetes-map-type") == "atomic" {
        out += ".atomic()";
    }
    for strategy in text(schema, "x-kubernetes-patch-strategy").split(',') {
        match strategy {
            // `replace` is what happens without a strategy.
            "" | "replace" => {}
            "merge" => write!(out, ".merge({:?})", text(schema, "x-kubernetes-patch-merge-key")).unwrap(),
            "retainKeys" => out += ".retain_keys()",
            other => panic!("patch strategy {other}"),
        }
    }
    out + if required { ".required()" } else { "" }
}

fn gvks(definition: &Value) -> impl Iterator<Item = (&str, &str, &str)> {
    let list = definition["x-kubernetes-group-version-kind"].as_array();
    list.into_iter().flatten().map(|g| (text(g, "group"), text(g, "version"), text(g, "kind")))
}

fn referenced(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            found.extend(reference(schema).map(str::to_owned));
            map.values().for_each(|v| referenced(v, found));
        }
        Value::Array(list) => list.iter().for_each(|v| referenced(v, found)),
        _ => {}
    }
}

fn wanted(definitions: &serde_json::Map<String, Value>) -> BTreeMap<&str, &Value> {
    let mut kinds = BTreeSet::new();
    for r in RESOURCES {
        kinds.insert((r.group, r.version, r.kind.to_owned()));
        kinds.insert((r.group, r.version, format!("{}List", r.kind)));
        kinds.extend(r.subresources.iter().map(|s| (s.group, s.version, s.kind.to_owned())));
    }
    let is_root = |name: &str, definition: &Value| {
        name.strip_prefix(META).is_some_and(|n| META_KINDS.contains(&n))
            || gvks(definition).any(|(g, v, k)| kinds.contains(&(g, v, k.to_owned())))
    };
    let mut todo: Vec<&str> = definitions.iter().filter(|(n, d)| is_root(n, d)).map(|(n, _)| n.as_str()).collect();
    let mut out = BTreeMap::new();
    while let Some(name) = todo.pop() {
        let (name, definition) = definitions.get_key_value(name).expect("every reference has a definition");
        if special(name).is_none() && out.insert(name.as_str(), definition).is_none() {
            let mut found = BTreeSet::new();
            referenced(&definition["properties"], &mut found);
            todo.extend(found.iter().map(|n| definitions.get_key_value(n).expect("defined").0.as_str()));
        }
    }
    out
}

/// The tags of a type's fields: those of the sources, else those that the table has now.
fn tags(name: &str, sources: Option<&mut Sources>) -> BTreeMap<String, Tag> {
    if let Some(tags) = sources.and_then(|sources| sources.tags(name)) {
        return tags;
    }
    let tag = |f: &Field| Tag {
        number: f.number,
        inside: f.inside.to_vec(),
        omits_zero: f.omits_zero,
        always: f.always,
        // What is always there is marked already.
        omitzero: true,
        pointer: f.pointer,
        default: f.default.to_owned(),
        values: f.values.iter().map(|v| (*v).to_owned()).collect(),
    };
    let fields = super::named(name).into_iter().flat_map(|t| t.fields);
    fields.map(|f| (f.name.to_owned(), tag(f))).collect()
}

fn render(document: &Value, mut sources: Option<Sources>) -> String {
    let types = wanted(document["definitions"].as_object().expect("definitions"));
    let mut out = String::from(
        "//! Types: the contents of the schema table. Generated by `generator.rs`; do not edit.\n\n\
         use super::types::*;\n\npub static TYPES: &[&Type] = &[\n",
    );
    let mut line = String::from("   ");
    for name in types.keys() {
        let item = format!(" &{},", identifier(name));
        if line.len() + item.len() > WIDTH {
            writeln!(out, "{line}").unwrap();
            line = String::from("   ");
        }
        line += &item;
    }
    writeln!(out, "{line}\n];").unwrap();
    for (name, definition) in types {
        let mut kinds = gvks(definition);
        let gvk = kinds.next().map_or("None".to_owned(), |gvk| format!("Some({gvk:?})"));
        let atomic = text(definition, "x-kubernetes-map-type") == "atomic";
        let id = identifier(name);
        writeln!(out, "static {id}: Type = Type {{ name: {name:?}, gvk: {gvk}, atomic: {atomic}, fields: &[").unwrap();
        let required: Vec<&str> =
            definition["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let tags = tags(name, sources.as_mut());
        let mut line = String::from("   ");
        // serde_json keeps an object's keys sorted, which is the order that `Type::field` searches.
        for (key, schema) in definition["properties"].as_object().into_iter().flatten() {
            let tag = tags.get(key).cloned().unwrap_or_default();
            let item = format!(" {},", field(key, schema, required.contains(&key.as_str()), &tag));
            if line.len() + item.len() > WIDTH && line.len() > 3 {
                writeln!(out, "{line}").unwrap();
                line = String::from("   ");
            }
            line += &item;
        }
        writeln!(out, "{line}\n] }};").unwrap();
    }
    out
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the environment says whether to write the table, and from what")]
fn the_table_is_what_the_reference_says() {
    let Some(folder) = crate::api::reference::folder() else { return };
    let document = std::fs::read(folder.join("openapi-v2.json")).expect("the reference has it");
    let document: Value = serde_json::from_slice(&document).expect("the reference is JSON");
    let sources = std::env::var("SKIFF_PROTO").ok().map(|folder| Sources::new(folder.into()));
    let expect = render(&document, sources);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/schema/generated.rs");
    if std::env::var("SKIFF_UPDATE").is_ok() {
        std::fs::write(path, expect).expect("the source tree is writable");
        return;
    }
    let actual = std::fs::read_to_string(path).unwrap_or_default();
    assert!(actual == expect, "generated.rs is out of date: run with SKIFF_UPDATE=1");
}
