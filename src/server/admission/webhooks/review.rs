//! Decides: the AdmissionReview that a webhook is sent, and what its answer says (`webhook/request` of upstream).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Seen;
use super::config::Version;
use crate::api::resource::Resource;
use crate::api::status::{Body, Details, Status};
use crate::server::admission::{Attributes, Operation};

const JSON_PATCH: &str = "JSONPatch";

/// What an answer that is one says.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `Err` is the refusal that the client sees.
    pub allowed: Result<(), Status>,
    pub warnings: Vec<String>,
    /// A JSON patch as text; empty when nothing is to change.
    pub patch: Vec<u8>,
    pub patch_type: String,
}

/// `row` is the version that the webhook knows; `object` and `old` are in it.
#[must_use]
pub fn request(
    uid: &str,
    version: Version,
    seen: &Seen<'_>,
    row: &Resource,
    object: Option<Value>,
    old: Option<Value>,
) -> Value {
    let a = seen.attributes;
    let mut request = json!({
        "uid": uid,
        "kind": kind(a, row),
        "resource": resource(row),
        "requestKind": kind(a, a.resource),
        "requestResource": resource(a.resource),
        "operation": a.operation.name(),
        "userInfo": a.cx.user,
        "object": object,
        "oldObject": old,
        "dryRun": a.dry_run,
        "options": seen.options.document(a.operation, a.dry_run),
    });
    let name = if a.name.is_empty() && a.operation == Operation::Create {
        seen.object.and_then(|o| o["metadata"]["name"].as_str()).unwrap_or_default()
    } else {
        a.name
    };
    let namespace = if a.resource.storage == "namespaces" { name } else { a.namespace };
    let texts = [
        ("subResource", a.subresource),
        ("requestSubResource", a.subresource),
        ("name", name),
        ("namespace", namespace),
    ];
    for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        request[field] = text.into();
    }
    json!({"kind": "AdmissionReview", "apiVersion": version.api_version(), "request": request})
}

/// `request` as expressions see it.
#[must_use]
pub fn without_objects(seen: &Seen<'_>, row: &Resource) -> Value {
    let mut request = request("", Version::V1, seen, row, None, None)["request"].take();
    for field in ["object", "oldObject", "uid"] {
        request.as_object_mut().and_then(|r| r.remove(field));
    }
    request
}

impl Version {
    fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "admission.k8s.io/v1",
            Self::V1Beta1 => "admission.k8s.io/v1beta1",
        }
    }
}

fn kind(a: &Attributes<'_>, row: &Resource) -> Value {
    let sub = row.subresource(a.subresource).filter(|s| !s.kind.is_empty());
    let (group, version, kind) = sub.map_or((row.group, row.version, row.kind), |s| (s.group, s.version, s.kind));
    json!({"group": group, "version": version, "kind": kind})
}

fn resource(row: &Resource) -> Value {
    json!({"group": row.group, "version": row.version, "resource": row.plural})
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Review {
    kind: String,
    api_version: String,
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Response {
    uid: String,
    allowed: bool,
    /// The API calls the result of the review `status`.
    #[serde(rename = "status")]
    result: Option<Outcome>,
    patch: Option<String>,
    patch_type: Option<String>,
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Outcome {
    code: i64,
    reason: String,
    message: String,
    details: Option<Details>,
}

/// What the answer to the request `uid` says.
///
/// # Errors
/// Why it is none.
pub fn response(name: &str, uid: &str, version: Version, mutating: bool, answer: Value) -> Result<Verdict, String> {
    let review: Review = serde_json::from_value(answer).map_err(|e| e.to_string())?;
    let response = review.response.ok_or("webhook response was absent")?;
    let patch = response.patch.unwrap_or_default();
    let patch = STANDARD.decode(&patch).map_err(|e| format!("illegal base64 data in response.patch: {e}"))?;
    // v1beta1 was never checked.
    if version == Version::V1 {
        if response.uid != uid {
            return Err(format!("expected response.uid={uid:?}, got {:?}", response.uid));
        }
        let wanted = version.api_version();
        if review.api_version != wanted || review.kind != "AdmissionReview" {
            let got = shown(&review.api_version);
            let kind = review.kind;
            return Err(format!("expected webhook response of {wanted}, Kind=AdmissionReview, got {got}, Kind={kind}"));
        }
        let patch_type = response.patch_type.as_deref();
        match (mutating, patch.is_empty(), patch_type) {
            (true, false, None) => return Err("webhook returned response.patch but not response.patchType".into()),
            (true, true, Some(_)) => return Err("webhook returned response.patchType but not response.patch".into()),
            (true, _, Some("")) => return Err("webhook returned invalid response.patchType of \"\"".into()),
            (false, false, _) => return Err("validating webhook may not return response.patch".into()),
            (false, _, Some(_)) => return Err("validating webhook may not return response.patchType".into()),
            _ => {}
        }
    }
    let patch_type = if version == Version::V1 { response.patch_type.unwrap_or_default() } else { JSON_PATCH.into() };
    let allowed = if response.allowed { Ok(()) } else { Err(denial(name, response.result.unwrap_or_default())) };
    Ok(Verdict { allowed, warnings: response.warnings.unwrap_or_default(), patch, patch_type })
}

impl Verdict {
    /// # Errors
    /// When the patch is of a kind that nobody knows.
    pub fn check_patch_type(&self) -> Result<(), String> {
        if self.patch_type == JSON_PATCH {
            Ok(())
        } else {
            Err(format!("unsupported patch type {:?}", self.patch_type))
        }
    }
}

/// A group and version as Go prints one that may be empty.
fn shown(api_version: &str) -> String {
    match api_version.split_once('/') {
        None if api_version.is_empty() => "/".into(),
        None => format!("/{api_version}"),
        Some(_) => api_version.to_owned(),
    }
}

/// What the client is told of a refusal: the webhook's own status, under its name (`ToStatusErr`).
fn denial(name: &str, outcome: Outcome) -> Status {
    let denied = format!("admission webhook {name:?} denied the request");
    let message = match (outcome.message.is_empty(), outcome.reason.is_empty()) {
        (false, _) => format!("{denied}: {}", outcome.message),
        (true, false) => format!("{denied}: {}", outcome.reason),
        (true, true) => format!("{denied} without explanation"),
    };
    // A refusal is no success, whatever it says of itself.
    let code = u16::try_from(outcome.code).ok().filter(|c| *c >= 400).unwrap_or(400);
    let Body { reason, .. } = Body { reason: outcome.reason, ..Body::default() };
    let status = Status::new(code, &reason, message);
    match outcome.details {
        Some(details) => status.with_details(details),
        None => status,
    }
}

/// The refusal of a dry run that the webhook would not know to be one.
#[must_use]
pub fn no_dry_run(name: &str) -> Status {
    Status::bad_request(format!("admission webhook {name:?} does not support dry run"))
}
