//! Decides: what a CustomResourceDefinition may have for a schema, beyond what a schema is.

use serde_json::Value;

use super::types::Spec;
use crate::api::field::{FieldError, Path};
use crate::server::crd::{check, compile, rules};

/// Formats of texts, without their dashes, which do not matter.
const FORMATS: &[&str] = &[
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

/// A root schema. `path` is that of the `CustomResourceValidation` which holds it.
pub fn check(schema: &Value, path: &Path, has_status: bool) -> Vec<FieldError> {
    let at = path.child("openAPIV3Schema");
    let mut errors: Vec<FieldError> =
        check::check_status_root(schema, &at).filter(|_| has_status).into_iter().collect();
    errors.extend(check::check(schema, &at));
    if errors.is_empty()
        && let Ok(structural) = compile::compile(schema)
    {
        errors = rules::compile(&structural, &at).1;
    }
    errors
}

/// Every schema in a schema, itself first.
fn walk<'a>(schema: &'a Value, visit: &mut impl FnMut(&'a Value)) {
    visit(schema);
    for field in ["items", "allOf", "anyOf", "oneOf", "not", "additionalProperties", "additionalItems"] {
        match &schema[field] {
            Value::Array(list) => list.iter().for_each(|s| walk(s, visit)),
            one @ Value::Object(_) => walk(one, visit),
            _ => {}
        }
    }
    for field in ["properties", "patternProperties", "definitions", "dependencies"] {
        let schemas = schema[field].as_object().into_iter().flat_map(|map| map.values());
        schemas.filter(|s| s.is_object()).for_each(|s| walk(s, visit));
    }
}

pub fn has_defaults(schema: &Value) -> bool {
    let mut found = false;
    walk(schema, &mut |s| found |= s.get("default").is_some());
    found
}

/// Formats that nobody checks, of what all versions have in common once.
pub fn unknown_formats(spec: &Spec) -> Vec<&str> {
    let mut out = Vec::new();
    let mut seen: Vec<&Value> = Vec::new();
    for schema in spec.versions.iter().filter_map(super::types::Version::json_schema) {
        if seen.contains(&schema) {
            continue;
        }
        seen.push(schema);
        walk(schema, &mut |s| {
            let format = s["format"].as_str().unwrap_or_default();
            let known = match s["type"].as_str().unwrap_or_default() {
                "" | "string" => FORMATS.contains(&format.replace('-', "").as_str()),
                "integer" => matches!(format, "int32" | "int64"),
                "number" => matches!(format, "float" | "double"),
                _ => false,
            };
            if !format.is_empty() && !known {
                out.push(format);
            }
        });
    }
    out
}
