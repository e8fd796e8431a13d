//! Decides: which keywords of OpenAPI a schema may use, and how (`ValidateCustomResourceDefinitionOpenAPISchema` in
//! `apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go`).

use std::collections::HashSet;

use serde_json::Value;

use super::props::Props;
use super::rules;
use crate::api::field::{FieldError, Path};
use crate::server::crd::prune::is_meta;
use crate::server::crd::shown::{Shown, Text};

type Errors = Vec<FieldError>;

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];

/// What a schema inherits from those around it.
#[derive(Clone, Default)]
struct Around {
    /// Why there may be no default.
    no_default: Option<String>,
    in_meta: bool,
}

pub(super) fn check(schema: &Value, path: &Path) -> Errors {
    let mut errors = Vec::new();
    one(schema, path, &Around::default(), true, &mut errors);
    errors
}

fn one(value: &Value, path: &Path, around: &Around, root: bool, errors: &mut Errors) {
    let Some(schema) = Props::of(value) else { return };
    supported(schema, path, around, errors);
    if schema.truth("uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(&path.child("uniqueItems"), detail));
    }
    inside(schema, path, around, root, errors);
    if schema.given("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let path = path.child("x-kubernetes-preserve-unknown-fields");
        errors.push(FieldError::invalid(&path, &false, "must be true or undefined"));
    }
    map_type(schema, path, errors);
    list_type(schema, path, errors);
    if schema.text("x-kubernetes-list-type") == "map" {
        list_map(schema, path, errors);
    }
    nullable_keys(schema, path, errors);
    rules::check(value, path, errors);
}

fn supported(schema: Props, path: &Path, around: &Around, errors: &mut Errors) {
    let kind = schema.kind();
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(&path.child("type"), &Text(kind), TYPES));
    }
    let mut forbid = |key: &str, detail: &str| errors.push(FieldError::forbidden(&path.child(key), detail));
    if let Some(reason) = around.no_default.as_ref().filter(|_| schema.given("default").is_some()) {
        forbid("default", &format!("must not be set {reason}"));
    }
    let unsupported = |key: &str| match key {
        "additionalItems" | "dependencies" | "$ref" => schema.given(key).is_some(),
        _ => schema.is_set(key),
    };
    for key in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if unsupported(key) {
            forbid(key, &format!("{key} is not supported"));
        }
    }
    if kind == "null" {
        forbid("type", "type cannot be set to null, use nullable as an alternative");
    }
    if !schema.list("items").is_empty() {
        forbid("items", "items must be a schema object and not an array");
    }
    if around.in_meta && schema.truth("x-kubernetes-embedded-resource") {
        forbid("x-kubernetes-embedded-resource", "must not be used inside of resource meta");
    }
}

/// The schemas in a schema.
fn inside(schema: Props, path: &Path, around: &Around, root: bool, errors: &mut Errors) {
    if let Some(additional) = schema.given("additionalProperties") {
        let path = path.child("additionalProperties");
        if schema.has_properties() && *additional != Value::Bool(true) {
            let detail = "additionalProperties and properties are mutual exclusive";
            errors.push(FieldError::forbidden(&path, detail));
        }
        let mut inner = around.clone();
        if around.in_meta {
            inner.no_default = Some("inside additionalProperties applying to object metadata".into());
        }
        one(additional, &path, &inner, false, errors);
    }
    let holds_meta = root || schema.truth("x-kubernetes-embedded-resource");
    for (name, property) in values(schema, "properties") {
        let mut inner = around.clone();
        if holds_meta && is_meta(name) {
            inner.in_meta = true;
            if root {
                inner.no_default = Some(format!("in top-level {name}"));
            }
        }
        one(property, &path.child("properties").key(name), &inner, false, errors);
    }
    if let Some(not) = schema.given("not") {
        one(not, &path.child("not"), around, false, errors);
    }
    for key in ["allOf", "oneOf", "anyOf"] {
        for (i, inner) in schema.list(key).iter().enumerate() {
            one(inner, &path.child(key).index(i), around, false, errors);
        }
    }
    for (name, inner) in values(schema, "definitions") {
        one(inner, &path.child("definitions").key(name), around, false, errors);
    }
    match schema.given("items") {
        Some(Value::Array(list)) => {
            for (i, inner) in list.iter().enumerate() {
                one(inner, &path.child("items").index(i), around, false, errors);
            }
        }
        Some(items) => one(items, &path.child("items"), around, false, errors),
        None => {}
    }
    for (name, inner) in values(schema, "dependencies") {
        one(inner, &path.child("dependencies").key(name), around, false, errors);
    }
}

fn values<'a>(schema: Props<'a>, key: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    schema.given(key).and_then(Value::as_object).into_iter().flatten().map(|(name, v)| (name.as_str(), v))
}

/// An extension is there, so the type has to be this.
fn needs_type(schema: Props, extension: &str, wanted: &str, path: &Path, errors: &mut Errors) -> bool {
    let kind = schema.kind();
    if schema.given(extension).is_none() || kind == wanted {
        return true;
    }
    let (path, detail) = (path.child("type"), format!("must be {wanted} if {extension} is specified"));
    errors.push(if kind.is_empty() {
        FieldError::required(&path, &detail)
    } else {
        FieldError::invalid(&path, &Text(kind), &detail)
    });
    false
}

fn map_type(schema: Props, path: &Path, errors: &mut Errors) {
    const KEY: &str = "x-kubernetes-map-type";
    needs_type(schema, KEY, "object", path, errors);
    let supported = ["atomic", "granular"];
    if schema.given(KEY).is_some() && !supported.contains(&schema.text(KEY)) {
        errors.push(FieldError::not_supported(&path.child(KEY), &Text(schema.text(KEY)), &supported));
    }
}

fn list_type(schema: Props, path: &Path, errors: &mut Errors) {
    const KEY: &str = "x-kubernetes-list-type";
    let list_type = schema.text(KEY);
    let is_list = needs_type(schema, KEY, "array", path, errors);
    if let Some(items) = schema.one("items").filter(|_| is_list && list_type == "set") {
        let of_items = items.given(KEY).unwrap_or(&Value::Null);
        let wrong = match items.kind() {
            "array" => (!matches!(items.text(KEY), "" | "atomic")).then_some(KEY),
            "object" => (items.text("x-kubernetes-map-type") != "atomic").then_some("x-kubernetes-map-type"),
            _ => None,
        };
        if let Some(key) = wrong {
            // Upstream shows the list type also where the map type is what is wrong.
            let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
            errors.push(FieldError::invalid(&path.child("items").child(key), &Shown(of_items), detail));
        }
    }
    let supported = ["atomic", "set", "map"];
    if schema.given(KEY).is_some() && !supported.contains(&list_type) {
        errors.push(FieldError::not_supported(&path.child(KEY), &Text(list_type), &supported));
    }
    if schema.is_set("x-kubernetes-list-map-keys") && list_type != "map" {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(if schema.given(KEY).is_none() {
            FieldError::required(&path.child(KEY), detail)
        } else {
            FieldError::invalid(&path.child(KEY), &Text(list_type), detail)
        });
    }
}

/// A list that is a map, and the fields that name its items.
fn list_map(schema: Props, path: &Path, errors: &mut Errors) {
    const KEYS: &str = "x-kubernetes-list-map-keys";
    let keys = schema.given(KEYS).unwrap_or(&Value::Null);
    let at = path.child("items");
    if !schema.is_set(KEYS) {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::required(&path.child(KEYS), detail));
    }
    let Some(items) = schema.one("items") else {
        errors.push(match schema.given("items") {
            None => FieldError::required(&at, "must have a schema if x-kubernetes-list-type is map"),
            Some(items) => {
                let detail = "must only have a single schema if x-kubernetes-list-type is map";
                FieldError::invalid(&at, &Shown(items), detail)
            }
        });
        return;
    };
    if items.kind() != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(&at.child("type"), &Text(items.kind()), detail));
        return;
    }
    let mut seen = HashSet::new();
    for key in schema.texts(KEYS) {
        match items.property(key) {
            Some(property) if matches!(property.kind(), "array" | "object") => {
                let at = at.child("properties").key(key).child("type");
                let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                errors.push(FieldError::invalid(&at, &Text(items.kind()), detail));
            }
            Some(_) => {}
            None => {
                let detail = "entries must all be names of item properties";
                errors.push(FieldError::invalid(&path.child(KEYS), &Shown(keys), detail));
            }
        }
        if !seen.insert(key) {
            errors.push(FieldError::invalid(&path.child(KEYS), &Shown(keys), "must not contain duplicate entries"));
        }
    }
}

/// What names an item is always there.
fn nullable_keys(schema: Props, path: &Path, errors: &mut Errors) {
    let list_type = schema.text("x-kubernetes-list-type");
    let Some(items) = schema.one("items").filter(|_| matches!(list_type, "set" | "map")) else { return };
    let at = path.child("items");
    if items.truth("nullable") {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.push(FieldError::forbidden(&at.child("nullable"), &detail));
    }
    if list_type == "set" {
        return;
    }
    for key in schema.texts("x-kubernetes-list-map-keys") {
        let Some(property) = items.property(key) else { continue };
        let at = at.child("properties").key(key);
        if property.given("default").is_none() && !items.texts("required").any(|r| r == key) {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required \
                          property";
            errors.push(FieldError::required(&at.child("default"), detail));
        }
        if property.truth("nullable") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(FieldError::forbidden(&at.child("nullable"), detail));
        }
    }
}
