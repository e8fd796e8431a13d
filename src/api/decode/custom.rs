//! Decides: the body of a write to a custom resource. Its fields are known to the schema of its definition, which the
//! caller brings; here are its envelope and its metadata, which are those of every kind.

use serde_json::Value;

use super::{FieldValidation, Format, MAX_BODY_BYTES, conform, format, parse, settle, summary};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::api::status::Status;

/// Reads the body of a write. `form` puts the object into the form of its schema, and names the fields that it dropped.
/// Returns the object and the warnings for the response.
///
/// # Errors
/// 400 for what is not an object of that kind, 413 over [`MAX_BODY_BYTES`], 415 for other content types than JSON and YAML.
pub fn object(
    bytes: &[u8],
    content_type: &str,
    resource: &Resource,
    validation: FieldValidation,
    form: impl FnOnce(&mut Value) -> Result<Vec<String>, String>,
) -> Result<(Value, Vec<String>), Status> {
    if bytes.len() > MAX_BODY_BYTES {
        return Err(Status::too_large(MAX_BODY_BYTES));
    }
    let kind = resource.kind;
    let unrecognized = |why: String| {
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {why} ({})",
            summary(bytes)
        ))
    };
    let document = match format(content_type)? {
        Format::Json => parse::json(bytes),
        Format::Yaml => parse::yaml(bytes),
        Format::Protobuf => {
            return Err(Status::unsupported_media_type(content_type, &["application/json", "application/yaml"]));
        }
    };
    let parse::Document { value, duplicates } = document.map_err(unrecognized)?;
    if !value.is_object() {
        let what = conform::json_kind(&value);
        return Err(unrecognized(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
        )));
    }
    if value["kind"].as_str().unwrap_or_default().is_empty() {
        return Err(unrecognized(format!("Object 'Kind' is missing in '{value}'")));
    }
    let unfit = |why: String| {
        let version = resource.version;
        Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
    };
    checked(value, resource).and_then(|value| formed(value, &duplicates, validation, form).map_err(unfit))
}

/// Puts the result of a patch in form, as [`object`] does with a body. `again` as in [`super::patched`].
///
/// # Errors
/// 400 and 422, as for a body: a patch may bring anything.
pub fn patched(
    value: Value,
    again: impl FnOnce() -> Result<Value, Status>,
    resource: &Resource,
    validation: FieldValidation,
    form: impl FnOnce(&mut Value) -> Result<Vec<String>, String>,
) -> Result<(Value, Vec<String>), Status> {
    let value = checked(value, resource)?;
    formed(value, &[], validation, form).map_err(|why| super::invalid_patch(again, &why))
}

/// `apiVersion` and `kind` are those of the path.
fn checked(value: Value, resource: &Resource) -> Result<Value, Status> {
    let (given, expected) = (value["apiVersion"].as_str().unwrap_or_default(), resource.api_version());
    if given != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({expected})"
        )));
    }
    let kind = value["kind"].as_str().unwrap_or_default();
    if kind != resource.kind {
        let error = FieldError::invalid(&Path::new("kind"), &kind, &format!("must be {}", resource.kind));
        let name = value["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Status::invalid(resource, name, &[error]));
    }
    Ok(value)
}

fn formed(
    mut value: Value,
    duplicates: &[String],
    validation: FieldValidation,
    form: impl FnOnce(&mut Value) -> Result<Vec<String>, String>,
) -> Result<(Value, Vec<String>), String> {
    let unknown = form(&mut value)?;
    settle(value, &unknown, duplicates, validation)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::resource::custom;

    fn row() -> &'static Resource {
        let definition = json!({
            "spec": {"group": "example.com", "scope": "Namespaced",
                "versions": [{"name": "v1", "served": true, "storage": true}]},
            "status": {"acceptedNames": {"plural": "crontabs", "kind": "CronTab"},
                "conditions": [{"type": "Established", "status": "True"}]},
        });
        custom::of(&definition).unwrap().stored
    }

    fn drop_foo(value: &mut Value) -> Result<Vec<String>, String> {
        let (metadata, mut unknown) = crate::api::decode::metadata(value["metadata"].take())?;
        value["metadata"] = metadata;
        unknown.iter_mut().for_each(|field| field.insert_str(0, "metadata."));
        unknown.extend(value["spec"].as_object_mut().and_then(|s| s.remove("foo")).map(|_| "spec.foo".to_owned()));
        Ok(unknown)
    }

    #[test]
    fn bodies() {
        let whole =
            json!({"apiVersion": "example.com/v1", "kind": "CronTab", "metadata": {"name": "a"}, "spec": {"foo": 1}});
        let with = |at: &str, value: Value| {
            let mut body = whole.clone();
            *body.pointer_mut(at).unwrap() = value;
            body.to_string()
        };
        for (body, validation, expect) in [
            (whole.to_string(), FieldValidation::Ignore, Ok(vec![])),
            (whole.to_string(), FieldValidation::Warn, Ok(vec!["unknown field \"spec.foo\""])),
            (
                whole.to_string(),
                FieldValidation::Strict,
                Err(
                    "CronTab in version \"v1\" cannot be handled as a CronTab: strict decoding error: unknown field \"spec.foo\"",
                ),
            ),
            (
                with("/apiVersion", json!("example.com/v2")),
                FieldValidation::Warn,
                Err(
                    "the API version in the data (example.com/v2) does not match the expected API version (example.com/v1)",
                ),
            ),
            (
                with("/kind", json!("Cron")),
                FieldValidation::Warn,
                Err("CronTab.example.com \"a\" is invalid: kind: Invalid value: \"Cron\": must be CronTab"),
            ),
            (
                with("/metadata", json!({"name": "a", "labels": {"x": 1}})),
                FieldValidation::Warn,
                Err(
                    "CronTab in version \"v1\" cannot be handled as a CronTab: json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string",
                ),
            ),
            (
                with("/metadata", json!({"name": "a", "nope": 1})),
                FieldValidation::Warn,
                Ok(vec!["unknown field \"metadata.nope\"", "unknown field \"spec.foo\""]),
            ),
            (
                "[]".into(),
                FieldValidation::Warn,
                Err(
                    "the object provided is unrecognized (must be of type CronTab): couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type map[string]interface {} (5b5d)",
                ),
            ),
            (
                "{}".into(),
                FieldValidation::Warn,
                Err(
                    "the object provided is unrecognized (must be of type CronTab): Object 'Kind' is missing in '{}' ({})",
                ),
            ),
        ] {
            let got = object(body.as_bytes(), "application/json", row(), validation, drop_foo);
            match (got, expect) {
                (Ok((value, warnings)), Ok(expect)) => {
                    assert_eq!(warnings, expect, "{body}");
                    assert_eq!(value["spec"], json!({}));
                }
                (Err(status), Err(expect)) => assert_eq!(status.message(), expect, "{body}"),
                (got, _) => panic!("{body}: {got:?}"),
            }
        }
        let got = object(b"k8s\0", "application/vnd.kubernetes.protobuf", row(), FieldValidation::Warn, drop_foo);
        assert_eq!(got.unwrap_err().code(), 415);
    }
}
