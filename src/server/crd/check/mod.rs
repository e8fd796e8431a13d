//! Decides: whether a schema can be accepted, with everything that upstream says when a `CustomResourceDefinition` is
//! created with it: that it is structural ([`shape`], [`complete`]), that its defaults are what it says ([`defaults`]),
//! and that only keywords that Kubernetes supports are used as it supports them ([`keywords`], [`rules`]).
//!
//! The rules themselves (CEL) are compiled elsewhere: [`visit_rules`] leads to all of them.

mod complete;
mod defaults;
mod keywords;
mod patterns;
mod props;
mod rules;
mod shape;

use serde_json::Value;

use self::props::Props;
use super::compile;
use super::shown::{Shown, Text};
use crate::api::field::{FieldError, Path};

pub use self::rules::{Site, visit_rules};

/// Everything that is wrong with an `openAPIV3Schema` that stands at `path`, in upstream's order. There the path is
/// `spec.validation.openAPIV3Schema` when the schemas of all versions are the same, and else
/// `spec.versions[0].schema.openAPIV3Schema`.
#[must_use]
pub fn check(schema: &Value, path: &Path) -> Vec<FieldError> {
    let Some(props) = Props::of(schema) else { return Vec::new() };
    let mut errors = Vec::new();
    if props.truth("nullable") {
        errors.push(FieldError::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    let unsupported = compile::unsupported(schema);
    if unsupported.is_none() {
        let mut structural = shape::check(props, path);
        if structural.is_empty() {
            structural = defaults::check(&compile::lenient(schema), path);
        }
        errors.extend(structural);
    }
    errors.extend(keywords::check(schema, path));
    if let Some(why) = unsupported.filter(|_| errors.is_empty()) {
        errors.push(FieldError::invalid(path, &"", &why));
    }
    if errors.is_empty() {
        errors = patterns::check(props, path);
    }
    errors
}

/// What the root of a schema may have when its kind has a status subresource. The schema of the status is that of the
/// field `status`, so that nothing beside it may say something about the status.
const BESIDE_STATUS: &[(&str, &str)] = &[
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];

/// What upstream says first, before [`check`], of the schema of a version with a status subresource.
#[must_use]
pub fn check_status_root(schema: &Value, path: &Path) -> Option<FieldError> {
    let props = Props::of(schema)?;
    let more = |key: &str| !BESIDE_STATUS.iter().any(|(name, _)| *name == key);
    let first = ["id", "$schema", "$ref"].iter().any(|key| props.is_set(key));
    let kind = props.text("type");
    if !first && !kind.is_empty() && kind != "object" {
        let detail =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        return Some(FieldError::invalid(&path.child("type"), &Text(kind), detail));
    }
    if !props.keys().any(|key| more(key) && props.is_set(key)) {
        return None;
    }
    let allowed: Vec<&str> = BESIDE_STATUS.iter().map(|(_, name)| *name).collect();
    let detail = format!(
        "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
        allowed.join(" ")
    );
    Some(FieldError::invalid(path, &Shown(schema), &detail))
}

#[cfg(test)]
mod tests;
