//! Decides: the JSON paths of a CustomResourceDefinition: of the scale, of columns, of selectable fields.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceSubresources, SelectableField,
};
use serde_json::{Value, json};

use crate::api::field::{FieldError, Path};
use crate::server::registry::metadata::Errors;

const TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
const FORMATS: &[&str] = &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const MAX_SELECTABLE: usize = 8;

pub fn subresources(errors: &mut Errors, path: &Path, subresources: Option<&CustomResourceSubresources>) {
    let Some(scale) = subresources.and_then(|s| s.scale.as_ref()) else { return };
    let path = path.child("scale");
    let selector = scale.label_selector_path.as_deref().filter(|p| !p.is_empty());
    let fields = [
        ("specReplicasPath", Some(scale.spec_replicas_path.as_str()), &[".spec."][..], "under .spec"),
        ("statusReplicasPath", Some(scale.status_replicas_path.as_str()), &[".status."], "under .status"),
        ("labelSelectorPath", selector, &[".spec.", ".status."], "under either .spec or .status"),
    ];
    for (field, text, roots, place) in fields {
        let at = path.child(field);
        match text {
            None => {}
            Some("") => errors.push(FieldError::required(&at, "")),
            Some(text) if !starts_with_dot(errors, &at, text) => {}
            Some(text) if !roots.iter().any(|root| text.starts_with(root)) => {
                errors.push(FieldError::invalid(&at, &text, &format!("should be a json path {place}")));
            }
            Some(_) => {}
        }
    }
}

/// The only thing that is checked of simple paths: whoever follows one finds what is there.
fn starts_with_dot(errors: &mut Errors, path: &Path, text: &str) -> bool {
    let starts = text.starts_with('.');
    if !starts {
        errors.push(FieldError::invalid(path, &text, "must be a simple json path starting with ."));
    }
    starts
}

pub fn columns(errors: &mut Errors, path: &Path, columns: &[CustomResourceColumnDefinition]) {
    for (i, column) in columns.iter().enumerate() {
        let at = path.index(i);
        if column.name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        }
        let types = format!("must be one of {}", TYPES.join(","));
        match column.type_.as_str() {
            "" => errors.push(FieldError::required(&at.child("type"), &types)),
            kind if TYPES.contains(&kind) => {}
            kind => errors.push(FieldError::invalid(&at.child("type"), &kind, &types)),
        }
        if let Some(format) = column.format.as_deref().filter(|f| !f.is_empty() && !FORMATS.contains(f)) {
            let message = format!("must be one of {}", FORMATS.join(","));
            errors.push(FieldError::invalid(&at.child("format"), &format, &message));
        }
        // Upstream spells the field this way.
        let at = at.child("JSONPath");
        if column.json_path.is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else {
            starts_with_dot(errors, &at, &column.json_path);
        }
    }
}

/// `before` are the fields that were there: as many as they were may stay.
pub fn selectable(
    errors: &mut Errors,
    path: &Path,
    fields: &[SelectableField],
    schema: &Value,
    before: Option<&[SelectableField]>,
) {
    let mut unique: Vec<&str> = Vec::new();
    for (i, field) in fields.iter().enumerate() {
        let (at, text) = (path.index(i).child("jsonPath"), field.json_path.as_str());
        if text.is_empty() {
            errors.push(FieldError::required(&at, ""));
            continue;
        }
        let found = match follow(text, schema) {
            Ok(found) => found,
            Err(why) => {
                errors.push(FieldError::invalid(&at, &text, &format!("is an invalid path: {why}")));
                continue;
            }
        };
        if text.split('.').nth(1) == Some("metadata") {
            errors.push(FieldError::invalid(&at, &text, "must not point to fields in metadata"));
        }
        if !matches!(found["type"].as_str(), Some("string" | "boolean" | "integer")) {
            let message = "must point to a field of type string, boolean or integer. Enum string fields and strings \
                           with formats are allowed.";
            errors.push(FieldError::invalid(&at, &text, message));
        }
        if unique.contains(&text) {
            errors.push(FieldError::duplicate(&at, &text));
        } else {
            unique.push(text);
        }
    }
    let as_before = before.is_some_and(|before| before.len() > MAX_SELECTABLE && before == fields);
    if unique.len() > MAX_SELECTABLE && !as_before {
        errors.push(FieldError::too_many(path, unique.len(), MAX_SELECTABLE));
    }
}

/// The schema that a path leads to (`ValidFieldPath`, without array notation).
fn follow<'a>(path: &str, mut schema: &'a Value) -> Result<&'a Value, String> {
    const NOT_A_FIELD: &str = "does not refer to a valid field";
    let mut rest = path;
    while !rest.is_empty() {
        if rest.starts_with('[') {
            return Err("array notation is not allowed".into());
        }
        let Some(after) = rest.strip_prefix('.') else {
            let word = rest.split(['.', '[', ']']).next().filter(|w| !w.is_empty()).unwrap_or("]");
            return Err(format!("expected [ or . but got: {word}"));
        };
        if after.is_empty() {
            return Err("unexpected end of JSON path".into());
        }
        let end = after.find(['.', '[', ']']).map_or(after.len(), |at| at.max(1));
        let (name, tail) = after.split_at(end);
        let properties = schema["properties"].as_object().filter(|p| !p.is_empty());
        schema = match (properties, &schema["additionalProperties"]) {
            (Some(properties), _) => properties.get(name).ok_or(NOT_A_FIELD)?,
            (None, additional @ Value::Object(_)) => additional,
            _ => return Err(NOT_A_FIELD.into()),
        };
        rest = tail;
    }
    Ok(schema)
}

/// Subresources in upstream's internal form.
pub fn internal(subresources: Option<&CustomResourceSubresources>) -> String {
    let Some(subresources) = subresources else { return "null".into() };
    let scale = subresources.scale.as_ref().map_or("null".into(), |s| {
        format!(
            "{{\"SpecReplicasPath\":{:?},\"StatusReplicasPath\":{:?},\"LabelSelectorPath\":{}}}",
            s.spec_replicas_path,
            s.status_replicas_path,
            json!(s.label_selector_path)
        )
    });
    let status = if subresources.status.is_some() { "{}" } else { "null" };
    format!("{{\"Status\":{status},\"Scale\":{scale}}}")
}
