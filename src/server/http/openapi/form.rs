//! Decides: in which form a client gets an OpenAPI document (`kube-openapi/pkg/handler`, `handler3`).

use http::HeaderMap;
use http::header::ACCEPT;

use super::schemas::Dialect;
use crate::server::http::negotiate::weighed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    Protobuf,
}

impl Form {
    /// The form that a client likes best. `None`: it takes neither.
    #[must_use]
    pub fn accepted(headers: &HeaderMap, dialect: Dialect) -> Option<Self> {
        let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty()).unwrap_or("*/*");
        let mut ranges: Vec<(u16, &str)> = accept.split(',').map(|r| weighed(r.trim())).collect();
        ranges.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        ranges.into_iter().filter(|(weight, _)| *weight > 0).find_map(|(_, range)| {
            let name = range.split(';').next()?.trim();
            // The older of the two names is no valid media type, and is what old clients send.
            let (older, newer) = match dialect {
                Dialect::V2 => ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", V2),
                Dialect::V3 => ("application/com.github.proto-openapi.spec.v3@v1.0+protobuf", V3),
            };
            match name {
                "*/*" | "application/*" | "application/json" => Some(Self::Json),
                name if name == older || name == newer => Some(Self::Protobuf),
                _ => None,
            }
        })
    }

    #[must_use]
    pub fn content_type(self, dialect: Dialect) -> &'static str {
        match (self, dialect) {
            (Self::Json, _) => "application/json",
            (Self::Protobuf, Dialect::V2) => V2,
            (Self::Protobuf, Dialect::V3) => V3,
        }
    }
}

const V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const V3: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, dialect: Dialect, expect: Option<Form>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        assert_eq!(Form::accepted(&headers, dialect), expect, "{accept}");
    }

    #[test]
    fn clients_get_the_form_they_ask_for() {
        use Form::{Json, Protobuf};
        let discovery = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
        check(discovery, Dialect::V2, Some(Protobuf));
        check(discovery, Dialect::V3, None);
        check(
            "application/com.github.proto-openapi.spec.v2.v1.0+protobuf, application/json",
            Dialect::V2,
            Some(Protobuf),
        );
        check("application/com.github.proto-openapi.spec.v3@v1.0+protobuf", Dialect::V3, Some(Protobuf));
        check(
            "application/json;q=0.9,application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
            Dialect::V3,
            Some(Protobuf),
        );
        check("application/json, */*", Dialect::V3, Some(Json));
        check("", Dialect::V2, Some(Json));
        check("*/*", Dialect::V2, Some(Json));
        check("text/html, application/*;q=0.5", Dialect::V2, Some(Json));
        check("application/yaml", Dialect::V2, None);
        check("application/json;q=0", Dialect::V2, None);
        assert_eq!(Form::accepted(&HeaderMap::new(), Dialect::V2), Some(Json));
    }
}
