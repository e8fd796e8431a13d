//! Decides: whether a schema is structural: every field has a type outside of `allOf`, `anyOf`, `oneOf` and `not`, and inside
//! of those there is nothing but limits (`apiextensions-apiserver/pkg/apiserver/schema/validation.go`).

use super::complete;
use super::props::Props;
use crate::api::field::{FieldError, Path};
use crate::server::crd::pattern::Pattern;
use crate::server::crd::shown::Text;

type Errors = Vec<FieldError>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Sorted by what they say, as upstream.
pub(super) fn check(schema: Props, path: &Path) -> Errors {
    let mut errors = Vec::new();
    invariants(schema, Level::Root, path, &mut errors);
    complete::check(schema, path, &mut errors);
    errors.sort_by_key(ToString::to_string);
    errors
}

fn invariants(schema: Props, level: Level, path: &Path, errors: &mut Errors) {
    let kind = schema.kind();
    match schema.one("items") {
        None if kind == "array" => errors.push(FieldError::required(&path.child("items"), "must be specified")),
        None => {}
        Some(items) => invariants(items, Level::Item, &path.child("items"), errors),
    }
    for (name, property) in schema.properties() {
        invariants(property, Level::Field, &path.child("properties").key(name), errors);
    }
    let additional = path.child("additionalProperties");
    let has_additional = schema.given("additionalProperties").is_some();
    if has_additional && level == Level::Root {
        errors.push(FieldError::forbidden(&additional, "must not be used at the root"));
    }
    if let Some(inner) = schema.one("additionalProperties") {
        invariants(inner, Level::Field, &additional, errors);
    }
    extensions(schema, path, errors);
    let skip_any = is_int_or_string(schema);
    let skip_first = schema.many("allOf").next().is_some_and(is_int_or_string);
    limits(schema, skip_any, skip_first, path, errors);
    types(schema, level, path, errors);
    let embedded = schema.truth("x-kubernetes-embedded-resource");
    if embedded && has_additional {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(FieldError::forbidden(&additional, detail));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(FieldError::invalid(&path.child("type"), &Text(kind), "must be object at the root"));
    }
    metadata(schema, level, path, errors);
    if embedded && !schema.truth("x-kubernetes-preserve-unknown-fields") && !schema.has_properties() {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                      x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(&path.child("properties"), detail));
    }
}

/// `x-kubernetes-int-or-string` is the only type that alternatives may say again, and only like this.
fn is_int_or_string(schema: Props) -> bool {
    let list = schema.list("anyOf");
    let mut any = schema.many("anyOf");
    list.len() == 2
        && any.next().is_some_and(|s| s.is_only_type("integer"))
        && any.next().is_some_and(|s| s.is_only_type("string"))
}

fn extensions(schema: Props, path: &Path, errors: &mut Errors) {
    if !schema.truth("x-kubernetes-int-or-string") {
        return;
    }
    for other in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
        if schema.truth(other) {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            errors.push(FieldError::invalid(&path.child(other), &true, detail));
        }
    }
}

fn types(schema: Props, level: Level, path: &Path, errors: &mut Errors) {
    let kind = schema.kind();
    let path = path.child("type");
    if schema.truth("x-kubernetes-embedded-resource") && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if kind.is_empty() {
            FieldError::required(&path, detail)
        } else {
            FieldError::invalid(&path, &Text(kind), detail)
        });
    } else if kind.is_empty()
        && !schema.truth("x-kubernetes-int-or-string")
        && !schema.truth("x-kubernetes-preserve-unknown-fields")
    {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(FieldError::required(&path, detail));
    }
}

/// Of `metadata` only the name may be restricted: the rest of it is every object's.
fn metadata(schema: Props, level: Level, path: &Path, errors: &mut Errors) {
    let checked = level == Level::Root || schema.truth("x-kubernetes-embedded-resource");
    let at = |name: &str| path.child("properties").key(name);
    let of_kind = |name: &str, kind: &str, errors: &mut Errors| {
        if let Some(property) = schema.property(name).filter(|p| checked && p.kind() != kind) {
            let detail = format!("must be {kind}");
            errors.push(FieldError::invalid(&at(name).child("type"), &Text(property.kind()), &detail));
        }
    };
    of_kind("kind", "string", errors);
    of_kind("apiVersion", "string", errors);
    of_kind("metadata", "object", errors);
    if level != Level::Root {
        return;
    }
    let Some(metadata) = schema.property("metadata") else { return };
    let names = metadata.properties().all(|(name, _)| matches!(name, "name" | "generateName"));
    let rest = metadata.keys().any(|key| !matches!(key, "type" | "default" | "properties") && metadata.is_set(key));
    if !names || rest {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(FieldError::forbidden(&at("metadata"), detail));
    }
}

/// The alternatives of a schema, and its pattern.
fn limits(schema: Props, skip_any: bool, skip_first: bool, path: &Path, errors: &mut Errors) {
    if !skip_any {
        for (i, inner) in schema.many("anyOf").enumerate() {
            nested(inner, false, &path.child("anyOf").index(i), errors);
        }
    }
    for (i, inner) in schema.many("allOf").enumerate() {
        nested(inner, skip_first && i == 0, &path.child("allOf").index(i), errors);
    }
    for (i, inner) in schema.many("oneOf").enumerate() {
        nested(inner, false, &path.child("oneOf").index(i), errors);
    }
    if let Some(not) = schema.one("not") {
        nested(not, false, &path.child("not"), errors);
    }
    let pattern = schema.text("pattern");
    if let Err(why) = Pattern::parse(pattern) {
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        errors.push(FieldError::invalid(&path.child("pattern"), &Text(pattern), &detail));
    }
}

/// What may not be said inside of alternatives, and in which words that is said.
const NOT_NESTED: &[(&str, &str)] = &[
    ("type", "must be empty to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
];

fn nested(schema: Props, skip_any: bool, path: &Path, errors: &mut Errors) {
    limits(schema, skip_any, false, path, errors);
    if let Some(items) = schema.one("items") {
        nested(items, false, &path.child("items"), errors);
    }
    for (name, property) in schema.properties() {
        nested(property, false, &path.child("properties").key(name), errors);
    }
    for (key, detail) in NOT_NESTED {
        let given = if *key == "default" { schema.given(key).is_some() } else { schema.is_set(key) };
        if given {
            errors.push(FieldError::forbidden(&path.child(key), detail));
        }
    }
    for key in ["x-kubernetes-list-type", "x-kubernetes-map-type"] {
        if schema.given(key).is_some() {
            errors.push(FieldError::forbidden(&path.child(key), "must be undefined to be structural"));
        }
    }
    if schema.given("additionalProperties").is_some_and(|a| *a != serde_json::Value::Bool(false)) {
        let detail = "must be undefined to be structural";
        errors.push(FieldError::forbidden(&path.child("additionalProperties"), detail));
    }
    if schema.property("metadata").is_some() {
        let path = path.child("properties").key("metadata");
        errors.push(FieldError::forbidden(&path, "must not be specified in a nested context"));
    }
}
