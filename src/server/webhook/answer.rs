//! Decides: what an answer of a webhook says: a JSON document, or an error in the words of upstream's client
//! (`NewGenericServerResponse`).

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::CallError;

pub fn read(code: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<Value, CallError> {
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !code.is_success() {
        let document: Option<Value> = serde_json::from_slice(body).ok();
        // A server of ours says more than its code.
        let status = document.filter(|d| d["kind"] == "Status" && d["status"] != "Success");
        if let Some(message) = status.as_ref().and_then(|s| s["message"].as_str()).filter(|m| !m.is_empty()) {
            return Err(CallError::Answer(message.to_owned()));
        }
        let is_text = kind.is_empty() || kind.starts_with("text/");
        let text = if is_text { String::from_utf8_lossy(body).trim().to_owned() } else { "unknown".into() };
        return Err(CallError::Answer(words(code.as_u16(), &text)));
    }
    if body.is_empty() {
        let code = code.as_u16();
        let message = format!("0-length response with status code: {code} and content type: {kind}");
        return Err(CallError::Answer(message));
    }
    serde_json::from_slice(body)
        .map_err(|e| CallError::Answer(format!("couldn't get version/kind; json parse error: {e}")))
}

fn words(code: u16, text: &str) -> String {
    match code {
        400 => "the server rejected our request for an unknown reason".into(),
        401 => "the server has asked for the client to provide credentials".into(),
        403 | 415 => text.to_owned(),
        404 => "the server could not find the requested resource".into(),
        405 => "the server does not allow this method on the requested resource".into(),
        406 if text.is_empty() || text == "unknown" => {
            "the server was unable to respond with a content type that the client supports".into()
        }
        406 => text.to_owned(),
        409 => "the server reported a conflict".into(),
        422 => "the server rejected our request due to an error in our request".into(),
        429 => "the server has received too many requests and has asked us to try again later".into(),
        503 => "the server is currently unable to handle the request".into(),
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .into()
        }
        500.. => format!("an error on the server ({text:?}) has prevented the request from succeeding"),
        _ => format!("the server responded with the status code {code} but did not return more information"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(code: u16, kind: &'static str, body: &str, expect: Result<Value, &str>) {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
        }
        let got = read(StatusCode::from_u16(code).unwrap(), &headers, body.as_bytes());
        assert_eq!(got, expect.map_err(|e| CallError::Answer(e.into())), "{code} {body}");
    }

    #[test]
    fn answers_are_read_as_upstreams_client_reads_them() {
        check(200, "application/json", r#"{"a": 1}"#, Ok(json!({"a": 1})));
        check(
            200,
            "application/json",
            "",
            Err("0-length response with status code: 200 and content type: application/json"),
        );
        check(
            500,
            "text/plain",
            "boom\n",
            Err("an error on the server (\"boom\") has prevented the request from succeeding"),
        );
        check(
            500,
            "application/octet-stream",
            "boom",
            Err("an error on the server (\"unknown\") has prevented the request from succeeding"),
        );
        check(404, "text/plain", "404 page not found", Err("the server could not find the requested resource"));
        check(400, "", "bad", Err("the server rejected our request for an unknown reason"));
        check(302, "", "", Err("the server responded with the status code 302 but did not return more information"));
        check(503, "", "", Err("the server is currently unable to handle the request"));
        let status = r#"{"kind": "Status", "status": "Failure", "message": "not today"}"#;
        check(403, "application/json", status, Err("not today"));
    }
}
