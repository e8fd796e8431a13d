//! Types: every error a client can see, as `metav1.Status`. The one place that maps errors to HTTP codes, reasons
//! and upstream's messages (`k8s.io/apimachinery/pkg/api/errors`).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::field::FieldError;
use super::resource::Resource;

/// Cause of a refusal: the namespace is being deleted (`NamespaceTerminatingCause` in `k8s.io/api/core/v1`).
pub const NAMESPACE_TERMINATING: &str = "NamespaceTerminating";

/// A failed request. Boxed inside so that `Result<T, Status>` stays small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status(Box<Body>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Body {
    pub code: u16,
    pub reason: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    /// `metadata.continue`: how to go on after a list that expired. Empty is absent.
    #[serde(skip)]
    pub continue_token: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The plural resource for most errors, the Kind for `Invalid`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Also sent as the `Retry-After` header; 0 is absent.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cause {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Status {
    #[must_use]
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self(Box::new(Body { code, reason: reason.into(), message: message.into(), ..Body::default() }))
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        let details = self.0.details.get_or_insert_default();
        details.group = resource.group.into();
        details.kind = resource.plural.into();
        details.name = name.into();
        self
    }

    fn qualified(resource: &Resource) -> String {
        if resource.group.is_empty() {
            resource.plural.into()
        } else {
            format!("{}.{}", resource.plural, resource.group)
        }
    }

    #[must_use]
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} not found", Self::qualified(resource));
        Self::new(404, "NotFound", message).about(resource, name)
    }

    /// A path that names no resource at all.
    #[must_use]
    pub fn no_such_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource").with_details(Details::default())
    }

    #[must_use]
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", Self::qualified(resource));
        Self::new(409, "AlreadyExists", message).about(resource, name)
    }

    #[must_use]
    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", Self::qualified(resource));
        Self::new(409, "Conflict", message).about(resource, name)
    }

    /// The message every client-go loop knows.
    #[must_use]
    pub fn modified(resource: &Resource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    #[must_use]
    pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let what = Self::qualified(resource);
        let message = if name.is_empty() {
            format!("{what} is forbidden: {why}")
        } else {
            format!("{what} {name:?} is forbidden: {why}")
        };
        Self::new(403, "Forbidden", message).about(resource, name)
    }

    /// A refusal for a path that names no resource, such as `/metrics`.
    #[must_use]
    pub fn forbidden_path(why: &str) -> Self {
        Self::new(403, "Forbidden", format!("forbidden: {why}")).with_details(Details::default())
    }

    /// `errors` must not be empty.
    #[must_use]
    pub fn invalid(resource: &Resource, name: &str, errors: &[FieldError]) -> Self {
        Self::invalid_kind((resource.group, resource.kind), name, errors)
    }

    /// The same of options, as `DeleteOptions`.
    #[must_use]
    pub fn invalid_options(kind: &str, errors: &[FieldError]) -> Self {
        Self::invalid_kind(("meta.k8s.io", kind), "", errors)
    }

    fn invalid_kind((group, kind): (&str, &str), name: &str, errors: &[FieldError]) -> Self {
        let dot = if group.is_empty() { "" } else { "." };
        let all: Vec<String> = errors.iter().map(FieldError::to_string).collect();
        let list = if let [one] = all.as_slice() { one.clone() } else { format!("[{}]", all.join(", ")) };
        let causes = errors
            .iter()
            .map(|e| Cause { reason: e.reason.cause().into(), message: e.message.clone(), field: e.path.to_string() })
            .collect();
        Self::new(422, "Invalid", format!("{kind}{dot}{group} {name:?} is invalid: {list}")).with_details(Details {
            name: name.into(),
            group: group.into(),
            kind: kind.into(),
            causes,
            ..Details::default()
        })
    }

    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    #[must_use]
    pub fn method_not_allowed(method: &str) -> Self {
        Self::new(405, "MethodNotAllowed", format!("{method} is not supported on resources of kind"))
    }

    /// 405 for a verb that a resource does not have.
    #[must_use]
    pub fn verb_not_supported(resource: &Resource, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind {:?}", Self::qualified(resource));
        Self::new(405, "MethodNotAllowed", message).about(resource, "")
    }

    #[must_use]
    pub fn not_acceptable(offered: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", offered.join(", "));
        Self::new(406, "NotAcceptable", message)
    }

    #[must_use]
    pub fn unsupported_media_type(given: &str, supported: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {} (got {given:?})",
            supported.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// `limit` in bytes.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    /// A watch or a continue token from before what the watch cache still holds.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    #[must_use]
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(429, "TooManyRequests", message).with_details(Details { retry_after_seconds, ..Details::default() })
    }

    #[must_use]
    pub fn internal(message: impl fmt::Display) -> Self {
        let message = message.to_string();
        let causes = vec![Cause { message: message.clone(), ..Cause::default() }];
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
            .with_details(Details { causes, ..Details::default() })
    }

    #[must_use]
    pub fn unavailable(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(503, "ServiceUnavailable", message)
            .with_details(Details { retry_after_seconds, ..Details::default() })
    }

    #[must_use]
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", message)
    }

    /// The disk is full: reads go on, writes are refused until there is room.
    #[must_use]
    pub fn insufficient_storage(message: impl Into<String>) -> Self {
        Self::new(507, "InsufficientStorage", message)
    }

    #[must_use]
    pub fn with_details(mut self, details: Details) -> Self {
        self.0.details = Some(details);
        self
    }

    #[must_use]
    pub fn with_continue(mut self, token: String) -> Self {
        self.0.continue_token = token;
        self
    }

    #[must_use]
    pub fn code(&self) -> u16 {
        self.0.code
    }

    #[must_use]
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    #[must_use]
    pub fn details(&self) -> Option<&Details> {
        self.0.details.as_ref()
    }

    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.0.reason == "Conflict"
    }

    /// The `metav1.Status` document: what the body of the response holds.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut body = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.0.message, "code": self.0.code,
        });
        // An error that nobody classified has none.
        if !self.0.reason.is_empty() {
            body["reason"] = self.0.reason.as_str().into();
        }
        if !self.0.continue_token.is_empty() {
            body["metadata"]["continue"] = self.0.continue_token.as_str().into();
        }
        if let Some(details) = &self.0.details {
            body["details"] = serde_json::to_value(details).unwrap_or_default();
        }
        body
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Status {}
