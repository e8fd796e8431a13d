//! Effects: paths that name no object: version, metrics, discovery, OpenAPI, and what a node asks before it has an
//! identity.

use http::{Response, StatusCode};
use serde_json::json;

use super::body::{self, Body};
use super::respond;
use super::service::{Backend, Call, is_read};
use crate::api::status::{Details, Status};
use crate::api::user::User;
use crate::api::version;
use crate::server::authn::join::JoinServer;

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
    match call.info.path.trim_end_matches('/') {
        "/version" => Ok(respond::document(StatusCode::OK, version_document(), call.format)),
        "/metrics" => metrics(call.backend),
        _ => Err(Status::no_such_resource()),
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
