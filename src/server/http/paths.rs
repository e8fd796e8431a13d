//! Effects: paths that name no object: version, metrics, discovery, OpenAPI, and what a node asks before it has an
//! identity.

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, LOCATION, VARY};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::body::{self, Body};
use super::negotiate::{JSON, Offer, negotiate};
use super::service::{Backend, Call, is_read};
use super::{discovery, openapi, respond};
use crate::api::status::{Details, Status};
use crate::api::user::User;
use crate::api::version;
use crate::server::authn::claims::ISSUER;
use crate::server::authn::join::JoinServer;

/// What `/` lists.
const PATHS: [&str; 12] = [
    "/.well-known/openid-configuration",
    "/api",
    "/api/v1",
    "/apis",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/readyz",
    "/version",
];

/// After authorization.
pub(super) fn run(call: &Call<'_>) -> Result<Response<Body>, Status> {
    if !is_read(call.method) {
        return Err(Status::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
        .with_details(Details::default()));
    }
    let path = call.info.path.trim_matches('/');
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["version"] => Ok(respond::document(StatusCode::OK, version_document(), call.format)),
        ["metrics"] => metrics(call.backend),
        ["api"] => Ok(groups(call, true)),
        ["apis"] => Ok(groups(call, false)),
        ["api", version] => known(call, discovery::resources("", version)),
        ["apis", group] => known(call, discovery::group(group)),
        ["apis", group, version] => known(call, discovery::resources(group, version)),
        ["openapi", "v2"] => openapi_v2(call),
        ["openapi", "v3"] => known(call, Some(openapi::index())),
        ["openapi", "v3", "api", version] => openapi_v3(call, "", version),
        ["openapi", "v3", "apis", group, version] => openapi_v3(call, group, version),
        [".well-known", "openid-configuration"] => Ok(public(&issuer(call.backend), "application/json")),
        ["openid", "v1", "jwks"] => Ok(public(&call.backend.tokens.0.keys().jwks(), "application/jwk-set+json")),
        [""] => Ok(respond::document(StatusCode::OK, json!({"paths": PATHS}).to_string(), call.format)),
        _ => Err(Status::no_such_resource()),
    }
}

/// `/api` and `/apis`, in the aggregated form when that is asked for.
fn groups(call: &Call<'_>, core: bool) -> Response<Body> {
    let accept = call.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut response = match discovery::Aggregated::accepted(accept) {
        Some(form) => {
            let mut response = tagged(call, discovery::aggregated(core, form).to_string().into_bytes());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
            response
        }
        None => {
            let document = if core { discovery::api(&call.backend.address) } else { discovery::apis() };
            respond::document(StatusCode::OK, document.to_string(), call.format)
        }
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

fn known(call: &Call<'_>, document: Option<Value>) -> Result<Response<Body>, Status> {
    let document = document.ok_or_else(Status::no_such_resource)?;
    Ok(respond::document(StatusCode::OK, document.to_string(), call.format))
}

/// A JSON document that a client which has it need not get again.
fn tagged(call: &Call<'_>, json: Vec<u8>) -> Response<Body> {
    tagged_as(call, &discovery::etag(&json), || json)
}

/// The same, made only for a client that does not have it.
fn tagged_as(call: &Call<'_>, etag: &str, json: impl FnOnce() -> Vec<u8>) -> Response<Body> {
    let has = call.headers.get_all(IF_NONE_MATCH).iter().any(|v| v.as_bytes() == etag.as_bytes());
    let mut response = if has {
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        respond::document(StatusCode::OK, json(), JSON)
    };
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

/// What others need to check the tokens of service accounts (OpenID Connect Discovery 1.0, section 3).
fn issuer(backend: &Backend) -> Value {
    json!({
        "issuer": ISSUER,
        "jwks_uri": format!("https://{}/openid/v1/jwks", backend.address),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

/// A document of keys, which may be kept for a while: a key that is replaced goes on verifying.
fn public(document: &Value, content_type: &'static str) -> Response<Body> {
    let mut response = Response::new(body::full(document.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

/// Only JSON: clients that ask for protobuf alone go on without.
fn openapi_v2(call: &Call<'_>) -> Result<Response<Body>, Status> {
    negotiate(call.headers, call.query, Offer::Plain)?;
    Ok(tagged(call, openapi::v2()))
}

/// A client names the version of the document that it knows of by its hash: that one may be kept for ever.
fn openapi_v3(call: &Call<'_>, group: &str, version: &str) -> Result<Response<Body>, Status> {
    negotiate(call.headers, call.query, Offer::Plain)?;
    let current = openapi::hash(group, version).ok_or_else(Status::no_such_resource)?;
    match call.query.first("hash").filter(|h| !h.is_empty()) {
        Some(hash) if hash != current => {
            let mut response = Response::new(body::empty());
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            let to = format!("{}?hash={current}", call.info.path);
            let to = HeaderValue::from_str(&to).map_err(Status::internal)?;
            response.headers_mut().insert(LOCATION, to);
            Ok(response)
        }
        asked => {
            let document = || openapi::v3(group, version).unwrap_or_default();
            let mut response = tagged_as(call, &format!("\"{current}\""), document);
            if asked.is_some() {
                let forever = HeaderValue::from_static("public, immutable");
                response.headers_mut().insert(CACHE_CONTROL, forever);
            }
            Ok(response)
        }
    }
}

/// For anyone: what a join token's hash is compared with.
pub(super) fn authority(backend: &Backend) -> Result<Response<Body>, Status> {
    Ok(joining(backend)?.cacerts().map(body::full))
}

/// A node asks for its certificates. Whoever holds the join token may; the answer checks that itself.
pub(super) async fn join(backend: &Backend, user: &User, body: Body) -> Result<Response<Body>, Status> {
    let body = body::read(body).await?;
    Ok(joining(backend)?.join(user, &body).await.map(body::full))
}

fn joining(backend: &Backend) -> Result<&JoinServer, Status> {
    backend.join.get().ok_or_else(|| Status::unavailable("the server is starting", 1))
}

fn version_document() -> String {
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": version::git_version(), "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": format!("linux/{}", architecture()),
    })
    .to_string()
}

/// Go's name of the machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn metrics(backend: &Backend) -> Result<Response<Body>, Status> {
    let text = backend.metrics.encode().map_err(Status::internal)?;
    let mut response = respond::text(StatusCode::OK, text);
    let kind = http::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    Ok(response)
}
