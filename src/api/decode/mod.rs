//! Decides: a request body becomes an object of a known kind: JSON, YAML or protobuf is read, `apiVersion` and `kind` are
//! checked, fields are checked against the schema table. Messages are those of upstream's decoders, because people paste
//! them into search engines.
//!
//! What comes out has only fields that the kind has, of the types that they have, without nulls and what Go leaves out,
//! with quantities and times in their canonical form.

mod conform;
pub mod custom;
mod parse;
mod syntax;

use serde_json::{Value, json};

use super::protobuf;
use super::resource::Resource;
use super::schema::{self, Type};
use super::status::{Cause, Details, Status};

/// Largest body of a write, in bytes, as upstream.
pub const MAX_BODY_BYTES: usize = 3 << 20;
/// Deepest nesting of a body.
pub const MAX_DEPTH: usize = 128;
/// Unknown and duplicate fields that are reported; more of them are counted as read.
const MAX_STRICT_ERRORS: usize = 100;

/// What a body may be written in.
const MEDIA_TYPES: &[&str] = &["application/json", "application/yaml", protobuf::MEDIA_TYPE];

/// `fieldValidation=` of a write; the server's default is `Warn`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Yaml,
    Protobuf,
}

/// The kind that a request's path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
}

impl Expected {
    /// The body of a delete.
    pub const DELETE_OPTIONS: Self = Self { group: "", version: "v1", kind: "DeleteOptions" };

    #[must_use]
    pub fn of(resource: &Resource) -> Self {
        Self { group: resource.group, version: resource.version, kind: resource.kind }
    }

    /// The kind of a subresource's body, which may be another than its parent's.
    #[must_use]
    pub fn at(resource: &Resource, subresource: &str) -> Self {
        match resource.subresource(subresource) {
            Some(s) if s.kind != resource.kind => Self { group: s.group, version: s.version, kind: s.kind },
            _ => Self::of(resource),
        }
    }

    fn api_version(self) -> String {
        join(self.group, self.version)
    }
}

fn join(group: &str, version: &str) -> String {
    if group.is_empty() { version.into() } else { format!("{group}/{version}") }
}

/// Reads the body of a write to `resource`. Returns the object and the warnings for the response.
///
/// # Errors
/// 400 for what is not an object of that kind, 413 over [`MAX_BODY_BYTES`], 415 for other content types.
pub fn object(
    bytes: &[u8],
    content_type: &str,
    resource: &Resource,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    kind(bytes, content_type, Expected::of(resource), validation)
}

/// As [`object`], for any kind in the schema table: subresource bodies, `DeleteOptions`.
///
/// # Errors
/// As [`object`].
pub fn kind(
    bytes: &[u8],
    content_type: &str,
    expected: Expected,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    if bytes.len() > MAX_BODY_BYTES {
        return Err(Status::too_large(MAX_BODY_BYTES));
    }
    let format = format(content_type)?;
    let unrecognized = |why: String| {
        let kind = expected.kind;
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {why} ({})",
            summary(bytes)
        ))
    };
    let mismatched = |e: Mismatch| match e {
        Mismatch::Unrecognized(why) => unrecognized(why),
        Mismatch::Other(status) => status,
    };
    let unfit = |why: String| {
        let Expected { kind, version, .. } = expected;
        Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
    };
    let (value, duplicates, schema) = match format {
        Format::Protobuf => {
            let envelope = protobuf::envelope(bytes).map_err(|e| unrecognized(e.to_string()))?;
            let named = json!({"apiVersion": envelope.api_version, "kind": envelope.kind});
            let schema = check_kind(&named, expected).map_err(mismatched)?;
            let value = protobuf::decode(envelope.object, schema).map_err(|e| unfit(e.to_string()))?;
            (value, Vec::new(), schema)
        }
        Format::Json | Format::Yaml => {
            let document = if format == Format::Json { parse::json(bytes) } else { parse::yaml(bytes) };
            let document = document.map_err(unrecognized)?;
            let schema = check_kind(&document.value, expected).map_err(mismatched)?;
            (document.value, document.duplicates, schema)
        }
    };
    typed(value, &duplicates, schema, expected, validation).map_err(unfit)
}

/// Reads a YAML (or JSON) document of any kind. With it comes what is wrong with fields that are there twice, of which
/// the last counts, in the words of Go's YAML package.
///
/// # Errors
/// What is wrong, and where.
pub fn document(bytes: &[u8]) -> Result<(Value, Option<String>), String> {
    // Most clients send JSON, which is YAML too.
    let is_json = bytes.first() == Some(&b'{');
    let document = if is_json { parse::json(bytes).or_else(|_| parse::yaml(bytes)) } else { parse::yaml(bytes) };
    let parse::Document { value, duplicates } = document?;
    Ok((value, if duplicates.is_empty() { None } else { parse::first_duplicate(bytes) }))
}

/// Checks the result of a patch and puts it in form: unknown fields that the patch brought, types, nulls. `again` makes
/// the result once more, for the message when it does not fit.
///
/// # Errors
/// 422 as upstream: the patch, not the body, is what was wrong.
pub fn patched(
    value: Value,
    again: impl FnOnce() -> Result<Value, Status>,
    resource: &Resource,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let expected = Expected::of(resource);
    let schema = schema::of(resource).ok_or_else(|| Status::internal(format!("no schema of {}", resource.kind)))?;
    typed(value, &[], schema, expected, validation).map_err(|why| invalid_patch(again, &why))
}

fn invalid_patch(again: impl FnOnce() -> Result<Value, Status>, why: &str) -> Status {
    let shown = match again() {
        Ok(document) => document.to_string(),
        Err(status) => return status,
    };
    let message = format!("Invalid value: {shown:?}: {why}");
    let cause = Cause { reason: "FieldValueInvalid".into(), message: message.clone(), field: "patch".into() };
    Status::new(422, "Invalid", format!(" \"\" is invalid: patch: {message}"))
        .with_details(Details { causes: vec![cause], ..Details::default() })
}

/// Checks `metadata` of an object whose kind the schema table does not have, and puts it in form. Returns it with the
/// paths of the fields that were dropped, from `metadata` on.
///
/// # Errors
/// What is wrong, in the words of Go's JSON package.
pub fn metadata(value: Value) -> Result<(Value, Vec<String>), String> {
    const NAME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    if !value.is_object() && !value.is_null() {
        let what = conform::json_kind(&value);
        return Err(format!("json: cannot unmarshal {what} into Go value of type v1.ObjectMeta"));
    }
    let schema = schema::named(NAME).ok_or_else(|| format!("no schema of {NAME}"))?;
    conform::object(value, schema).map(|outcome| (outcome.value, outcome.unknown))
}

fn typed(
    value: Value,
    duplicates: &[String],
    schema: &'static Type,
    expected: Expected,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), String> {
    let outcome = conform::object(value, schema)?;
    let mut value = outcome.value;
    value["apiVersion"] = expected.api_version().into();
    value["kind"] = expected.kind.into();
    settle(value, &outcome.unknown, duplicates, validation)
}

/// The object and the warnings about it, unless these are errors to who writes it.
fn settle(
    value: Value,
    unknown: &[String],
    duplicates: &[String],
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), String> {
    let mut problems: Vec<String> = unknown.iter().map(|f| format!("unknown field {f:?}")).collect();
    problems.extend(duplicates.iter().map(|f| format!("duplicate field {f:?}")));
    problems.truncate(MAX_STRICT_ERRORS);
    match validation {
        FieldValidation::Ignore => Ok((value, Vec::new())),
        FieldValidation::Strict if !problems.is_empty() => {
            Err(format!("strict decoding error: {}", problems.join(", ")))
        }
        _ => Ok((value, problems)),
    }
}

fn format(content_type: &str) -> Result<Format, Status> {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.as_str() {
        "" | "application/json" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        protobuf::MEDIA_TYPE => Ok(Format::Protobuf),
        _ => Err(Status::unsupported_media_type(&media, MEDIA_TYPES)),
    }
}

enum Mismatch {
    Unrecognized(String),
    Other(Status),
}

/// Compares `apiVersion` and `kind` with what the path asks for; what is missing is taken from there.
fn check_kind(value: &Value, expected: Expected) -> Result<&'static Type, Mismatch> {
    const META: &str =
        r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let unread = |why: String| Mismatch::Unrecognized(format!("couldn't get version/kind; json parse error: {why}"));
    if !value.is_object() && !value.is_null() {
        let what = conform::json_kind(value);
        return Err(unread(format!("json: cannot unmarshal {what} into Go value of type {META}")));
    }
    let text = |key: &str| match &value[key] {
        Value::Null => Ok(""),
        Value::String(s) => Ok(s.as_str()),
        other => {
            let what = conform::json_kind(other);
            Err(unread(format!("json: cannot unmarshal {what} into Go struct field .{key} of type string")))
        }
    };
    let (api_version, kind) = (text("apiVersion")?, text("kind")?);
    let (group, version) = match api_version {
        "" => (expected.group, expected.version),
        other => other.split_once('/').unwrap_or(("", other)),
    };
    let kind = if kind.is_empty() { expected.kind } else { kind };
    let wanted = schema::find(expected.group, expected.version, expected.kind)
        .ok_or_else(|| Mismatch::Other(Status::internal(format!("no schema of {}", expected.kind))))?;
    // DeleteOptions exists in every group and version.
    // The older form of an eviction is the same, and is still taken (`EvictionREST.AcceptsGroupVersion`).
    let older = kind == "Eviction" && (group, version) == ("policy", "v1beta1");
    if kind == expected.kind
        && (kind == "DeleteOptions" || older || (group, version) == (expected.group, expected.version))
    {
        return Ok(wanted);
    }
    let wrong = |why: String| {
        let message = format!("{kind} in version {version:?} cannot be handled as a {}: {why}", expected.kind);
        Mismatch::Other(Status::bad_request(message))
    };
    let given = join(group, version);
    match schema::find(group, version, kind) {
        None => Err(wrong(format!(
            "no kind {kind:?} is registered for version {given:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        ))),
        Some(_) if kind == expected.kind => Err(Mismatch::Other(Status::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({})",
            expected.api_version()
        )))),
        Some(other) => {
            let package = expected.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
            Err(wrong(format!("converting ({}) to ({package}.{}): unknown conversion", other.go_name(), expected.kind)))
        }
    }
}

/// The start of a body, as it is shown in the error: as text when it looks like JSON, else in hexadecimal.
fn summary(bytes: &[u8]) -> String {
    const SHOWN: usize = 30;
    let (head, more) = if bytes.len() > SHOWN { (&bytes[..SHOWN], " ...") } else { (bytes, "") };
    match bytes.first() {
        None => "<empty>".into(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => head.iter().map(|b| format!("{b:02x}")).collect::<String>() + more,
    }
}

#[cfg(test)]
mod tests;
