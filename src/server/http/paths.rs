//! Effects: paths that name no object: version, metrics, discovery, OpenAPI, and what a node asks before it has an
//! identity.

use std::sync::Arc;

use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH, LAST_MODIFIED, LOCATION, VARY,
};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::body::{self, Body};
use super::discovery::merge::{self, Listed};
use super::negotiate::JSON;
use super::openapi::{Dialect, Form};
use super::service::{Backend, Call, is_read};
use super::{discovery, openapi, respond};
use crate::api::status::{Details, Status};
use crate::api::user::User;
use crate::api::version;
use crate::clock;
use crate::server::authn::claims::ISSUER;
use crate::server::authn::join::JoinServer;
use crate::server::flow::dump;
use crate::server::registry::Catalog;

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

/// How long a document may be kept whose hash is in its URL.
const YEAR: jiff::SignedDuration = jiff::SignedDuration::from_hours(365 * 24);

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
        ["debug", "api_priority_and_fairness", what] => fairness(call, what),
        ["api"] => Ok(groups(call, true, &[])),
        ["apis"] => Ok(groups(call, false, &[])),
        ["api", version] => known(call, discovery::resources(catalog(call).rows(), "", version)),
        ["apis", group] => known(call, discovery::group(catalog(call).rows(), group)),
        ["apis", group, version] => known(call, discovery::resources(catalog(call).rows(), group, version)),
        ["openapi", "v2"] => openapi_v2(call),
        ["openapi", "v3"] => Ok(tagged(call, openapi::index(&catalog(call)).to_string().into_bytes())),
        ["openapi", "v3", "api", version] => openapi_v3(call, "", version),
        ["openapi", "v3", "apis", group, version] => openapi_v3(call, group, version),
        [".well-known", "openid-configuration"] => Ok(public(&issuer(call.backend), "application/json")),
        ["openid", "v1", "jwks"] => Ok(public(&call.backend.tokens.0.keys().jwks(), "application/jwk-set+json")),
        [""] => Ok(respond::document(StatusCode::OK, json!({"paths": PATHS}).to_string(), call.format)),
        _ => Err(Status::no_such_resource()),
    }
}

/// `/apis` and `/apis/<group>` with the groups of extension servers.
pub(super) fn listed(call: &Call<'_>, group: Option<&str>, listed: &[Listed]) -> Result<Response<Body>, Status> {
    match group {
        None => Ok(groups(call, false, listed)),
        Some(name) => known(call, merge::group(discovery::group(catalog(call).rows(), name), name, listed)),
    }
}

/// `/api` and `/apis`, in the aggregated form when that is asked for.
fn groups(call: &Call<'_>, core: bool, listed: &[Listed]) -> Response<Body> {
    let accept = call.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut response = match discovery::Aggregated::accepted(accept) {
        Some(form) => {
            let mut document = discovery::aggregated(catalog(call).rows(), core, form);
            if !listed.is_empty() {
                merge::aggregated(&mut document, listed);
            }
            let mut response = tagged(call, document.to_string().into_bytes());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
            response
        }
        None => {
            let catalog = catalog(call);
            let rows = catalog.rows();
            let mut document =
                if core { discovery::api(rows, call.backend.address.now()) } else { discovery::apis(rows) };
            if !listed.is_empty() {
                merge::groups(&mut document, listed);
            }
            respond::document(StatusCode::OK, document.to_string(), call.format)
        }
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

fn catalog(call: &Call<'_>) -> Arc<Catalog> {
    call.backend.registry.catalog()
}

pub(super) fn known(call: &Call<'_>, document: Option<Value>) -> Result<Response<Body>, Status> {
    let document = document.ok_or_else(Status::no_such_resource)?;
    Ok(respond::document(StatusCode::OK, document.to_string(), call.format))
}

/// A JSON document that a client which has it need not get again.
pub(super) fn tagged(call: &Call<'_>, json: Vec<u8>) -> Response<Body> {
    let etag = discovery::etag(&json);
    let unchanged = unchanged(call, &etag);
    let mut response = unchanged.unwrap_or_else(|| respond::document(StatusCode::OK, json, JSON));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

/// The answer to a client that has what is there.
fn unchanged(call: &Call<'_>, etag: &str) -> Option<Response<Body>> {
    let given = call.headers.get_all(IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    // Behind a proxy that compresses, a tag comes back as a weak one.
    let has = |tag: &str| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag;
    if !given.flat_map(|v| v.split(',')).any(|tag| has(tag.trim())) {
        return None;
    }
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    Some(response)
}

/// What others need to check the tokens of service accounts (OpenID Connect Discovery 1.0, section 3).
fn issuer(backend: &Backend) -> Value {
    json!({
        "issuer": ISSUER,
        "jwks_uri": format!("https://{}/openid/v1/jwks", backend.address.now()),
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

fn openapi_v2(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let catalog = catalog(call);
    let Some(form) = Form::accepted(call.headers, Dialect::V2) else { return Ok(not_acceptable()) };
    openapi_document(call, form, Dialect::V2, &openapi::v2_hash(&catalog), || openapi::v2(&catalog))
}

/// With what extension servers say: `add` adds it. Such a document is known by what it says.
pub(super) fn openapi_v2_with(call: &Call<'_>, add: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Result<Response<Body>, Status> {
    let Some(form) = Form::accepted(call.headers, Dialect::V2) else { return Ok(not_acceptable()) };
    let document = add(openapi::v2(&catalog(call)));
    let etag = discovery::etag(&document);
    openapi_document(call, form, Dialect::V2, etag.trim_matches('"'), || document)
}

/// A client names the version of the document that it knows of by its hash: that one may be kept for ever.
fn openapi_v3(call: &Call<'_>, group: &str, version: &str) -> Result<Response<Body>, Status> {
    let catalog = catalog(call);
    let current = openapi::hash(&catalog, group, version).ok_or_else(Status::no_such_resource)?;
    let Some(form) = Form::accepted(call.headers, Dialect::V3) else { return Ok(not_acceptable()) };
    match call.query.first("hash").filter(|h| !h.is_empty()) {
        Some(hash) if hash != current => {
            let mut response = Response::new(body::empty());
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            let to = format!("{}?hash={current}", call.info.path);
            let to = HeaderValue::from_str(&to).map_err(Status::internal)?;
            response.headers_mut().insert(LOCATION, to);
            response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
            Ok(response)
        }
        asked => {
            let document = || openapi::v3(&catalog, group, version).unwrap_or_default();
            let mut response = openapi_document(call, form, Dialect::V3, &current, document)?;
            if asked.is_some() {
                let headers = response.headers_mut();
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
                headers.insert(EXPIRES, http_date(clock::now() + YEAR)?);
            }
            Ok(response)
        }
    }
}

/// Made only for a client that does not have it. Both forms have one hash: `Vary` keeps them apart.
fn openapi_document(
    call: &Call<'_>,
    form: Form,
    dialect: Dialect,
    hash: &str,
    json: impl FnOnce() -> Vec<u8>,
) -> Result<Response<Body>, Status> {
    let mut response = if let Some(response) = unchanged(call, &format!("\"{hash}\"")) {
        response
    } else {
        let document = match form {
            Form::Json => json(),
            Form::Protobuf => openapi::to_protobuf(&json(), dialect).map_err(Status::internal)?,
        };
        let mut response = Response::new(body::full(document));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(form.content_type(dialect)));
        headers.insert(LAST_MODIFIED, http_date(clock::now())?);
        response
    };
    let etag = HeaderValue::from_str(&format!("\"{hash}\"")).map_err(Status::internal)?;
    response.headers_mut().insert(ETAG, etag);
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// Upstream says it with the code alone.
fn not_acceptable() -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::NOT_ACCEPTABLE;
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

/// RFC 9110, section 5.6.7.
fn http_date(time: jiff::Timestamp) -> Result<HeaderValue, Status> {
    let text = time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    HeaderValue::from_str(&text).map_err(Status::internal)
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
        "gitVersion": version::git_version(), "gitCommit": version::COMMIT, "gitTreeState": version::TREE_STATE,
        "buildDate": version::DATE,
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

/// Who runs and who waits, as text.
fn fairness(call: &Call<'_>, what: &str) -> Result<Response<Body>, Status> {
    let fairness = &call.backend.fairness;
    let text = match what {
        "dump_priority_levels" => dump::levels(fairness),
        "dump_queues" => dump::queues(fairness),
        "dump_requests" => {
            let details = call.query.first("includeRequestDetails").is_some_and(|v| !v.is_empty());
            dump::requests(fairness, details, (clock::now(), clock::instant()))
        }
        _ => return Err(Status::no_such_resource()),
    };
    Ok(respond::text(StatusCode::OK, text))
}

fn metrics(backend: &Backend) -> Result<Response<Body>, Status> {
    let text = backend.metrics.encode().map_err(Status::internal)?;
    let mut response = respond::text(StatusCode::OK, text);
    let kind = http::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    Ok(response)
}
