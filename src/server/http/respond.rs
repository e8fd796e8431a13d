//! Decides: turns results into HTTP responses: documents, errors as `metav1.Status`, and their headers.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::body::{self, Body};
use super::negotiate::{Encoding, Format, JSON};
use super::pretty;
use crate::api::object::Object;
use crate::api::protobuf;
use crate::api::resource::Resource;
use crate::api::status::{Details, Status};

/// Longest text of one warning, and of all warnings of one response, in bytes; upstream's limits.
const WARNING_MAX: usize = 256;
const WARNINGS_MAX: usize = 4096;

/// A JSON document as the client wants to read it.
#[must_use]
pub fn document(code: StatusCode, json: impl Into<bytes::Bytes>, format: Format) -> Response<Body> {
    let json = json.into();
    let (content_type, body) = match format.encoding {
        Encoding::Yaml => match to_yaml(&json) {
            Ok(yaml) => ("application/yaml", body::full(yaml)),
            Err(e) => return error(&e, JSON),
        },
        // What has no protobuf form is told in JSON.
        Encoding::Protobuf => match to_protobuf(&json) {
            Ok(Some(bytes)) => (protobuf::MEDIA_TYPE, body::full(bytes)),
            Ok(None) => ("application/json", body::full(json)),
            Err(e) => return error(&e, JSON),
        },
        Encoding::Json if format.pretty => ("application/json", body::full(pretty::indent(&json))),
        Encoding::Json => ("application/json", body::full(json)),
    };
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn to_yaml(json: &[u8]) -> Result<String, Status> {
    let value: Value = serde_json::from_slice(json).map_err(Status::internal)?;
    serde_saphyr::to_string(&value).map_err(Status::internal)
}

fn to_protobuf(json: &[u8]) -> Result<Option<Vec<u8>>, Status> {
    Ok(protobuf::encode::object(&serde_json::from_slice(json).map_err(Status::internal)?))
}

#[must_use]
pub fn error(status: &Status, format: Format) -> Response<Body> {
    let code = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = document(code, status.to_json().to_string(), format);
    if let Some(seconds) = status.details().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

#[must_use]
pub fn text(code: StatusCode, text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// The `Status` that a delete answers with when the object is gone.
#[must_use]
pub fn deleted(resource: &Resource, gone: &Object) -> Value {
    let details = Details {
        name: gone.key.name.to_string(),
        group: resource.group.into(),
        kind: resource.plural.into(),
        uid: gone.head.uid.to_string(),
        ..Details::default()
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// Headers that every response carries. Clients must not keep anything: what they may see can change.
pub fn finish(headers: &mut HeaderMap, audit_id: &HeaderValue, warnings: &[String]) {
    headers.insert("audit-id", audit_id.clone());
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    let mut total = 0;
    for text in warnings {
        let value = warning(text);
        total += value.len();
        if total > WARNINGS_MAX {
            break;
        }
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.append(WARNING, value);
        }
    }
}

/// RFC 7234 section 5.5 with the code and the agent that client-go expects: `299 - "text"`.
fn warning(text: &str) -> String {
    let printable: String = text.chars().filter(|c| !c.is_control()).collect();
    let mut cut = printable.len().min(WARNING_MAX);
    while !printable.is_char_boundary(cut) {
        cut -= 1;
    }
    let quoted = printable[..cut].replace('\\', "\\\\").replace('"', "\\\"");
    format!("299 - \"{quoted}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_quoted() {
        assert_eq!(warning("unknown field \"spec.x\"\n"), r#"299 - "unknown field \"spec.x\"""#);
        assert_eq!(warning(&"é".repeat(200)).chars().filter(|c| *c == 'é').count(), 128);
    }

    #[test]
    fn errors_carry_their_code_and_when_to_come_back() {
        let response = error(&Status::too_many_requests("too many requests", 3), JSON);
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[RETRY_AFTER], "3");
    }
}
