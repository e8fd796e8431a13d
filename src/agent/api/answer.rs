//! Types: what the kubelet endpoint answers. Kubelets speak plain text.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// An answer that is not 200.
pub struct Refusal(pub StatusCode, pub String);

impl Refusal {
    pub fn bad(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }

    pub fn not_found(text: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, text.into())
    }

    pub fn internal(error: &dyn std::error::Error) -> Self {
        let source = error.source().map_or_else(String::new, |s| format!(": {s}"));
        Self(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}{source}"))
    }

    pub fn response(self) -> Response<Body> {
        let mut response = plain(self.1);
        *response.status_mut() = self.0;
        response
    }
}

pub fn body(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn json(value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(body(value.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub fn plain(text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Figures, in the format that Prometheus reads.
pub fn text(figures: String) -> Response<Body> {
    let mut response = Response::new(body(figures));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=values");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
