//! Effects: requests that are an extension server's are passed on to it, with the name of who asks; documents of discovery
//! and OpenAPI speak of its groups too (`kube-aggregator/pkg/apiserver`).
//!
//! Errors are plain text, as upstream's: kubectl looks at their code. Bodies pass piece by piece.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::Value;
use tokio::time::Instant;

use super::body::{self, Body};
use super::discovery::merge::Listed;
use super::openapi::remote;
use super::proxy::{self, headers, links::Links};
use super::service::{Call, is_long_running, is_read};
use super::{openapi, paths, respond, turn};
use crate::api::status::Status;
use crate::clock;
use crate::server::aggregation::Unsent;
use crate::server::aggregation::table::{Entry, Table};
use crate::server::authn::request_header;
use crate::server::flow::Turn;

/// How long discovery may take: a server that hangs must not hold up what kubectl does with the others (upstream's
/// `aggregatedDiscoveryTimeout`).
const DISCOVERY_TIME: Duration = Duration::from_secs(5);

/// What extension servers have to do with a request.
pub(super) enum Part {
    /// It is one's.
    Server(Entry),
    /// It is for a document that speaks of them.
    Document(Arc<Table>),
}

/// `None` for almost every request. Called after authorization.
pub(super) fn part(call: &Call<'_>) -> Option<Part> {
    let table = call.backend.aggregator.table();
    if table.entries().is_empty() {
        return None;
    }
    let info = call.info;
    let server = |group: &str, version: &str| table.find(group, version).cloned().map(Part::Server);
    if info.is_resource {
        return server(&info.group, &info.version);
    }
    let segments: Vec<&str> = info.path.trim_matches('/').split('/').collect();
    match segments.as_slice() {
        ["apis", group, version] | ["openapi", "v3", "apis", group, version] => server(group, version),
        ["apis"] | ["openapi", "v2" | "v3"] if is_read(call.method) => Some(Part::Document(table)),
        ["apis", group] if is_read(call.method) => {
            let of_it = table.entries().iter().any(|e| e.remote.group == *group);
            of_it.then_some(Part::Document(table))
        }
        _ => None,
    }
}

impl Part {
    /// `turn` is held until the answer has passed. `until` is for what ends by itself.
    pub async fn respond(
        self,
        call: &Call<'_>,
        request: Request<Body>,
        turn: Option<Turn>,
        until: Instant,
    ) -> Result<Response<Body>, Status> {
        match self {
            Self::Server(entry) => pass(call, &entry, request, turn, until).await,
            Self::Document(table) => document(call, &table).await,
        }
    }
}

fn text(code: StatusCode, text: &str) -> Response<Body> {
    respond::text(code, format!("{text}\n"))
}

fn failed(unsent: &Unsent, what: &str) -> Response<Body> {
    match unsent {
        Unsent::Nowhere(why) => {
            tracing::debug!(why, "an extension server has no endpoint");
            text(StatusCode::SERVICE_UNAVAILABLE, "service unavailable")
        }
        Unsent::Unusable(why) => text(StatusCode::INTERNAL_SERVER_ERROR, why),
        Unsent::Broken(why) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{what}: {why}")),
    }
}

async fn pass(
    call: &Call<'_>,
    entry: &Entry,
    mut request: Request<Body>,
    turn: Option<Turn>,
    until: Instant,
) -> Result<Response<Body>, Status> {
    let (remote, aggregator) = (&entry.remote, &call.backend.aggregator);
    if !entry.available {
        return Ok(text(StatusCode::SERVICE_UNAVAILABLE, "service unavailable"));
    }
    let endpoint = match aggregator.endpoint(remote) {
        Ok(endpoint) => endpoint,
        Err(unsent) => return Ok(failed(&unsent, "")),
    };
    let upgrade = headers::wants_upgrade(call.headers);
    let endless = upgrade || is_long_running(call.info);
    let discovery = clock::instant() + DISCOVERY_TIME;
    let until = if call.info.is_resource { until } else { until.min(discovery) };
    let deadline = (!endless).then_some(until);

    let host = headers::host(&request, &endpoint);
    let mut onward = Request::builder().method(call.method).uri(request.uri().clone());
    if let Some(all) = onward.headers_mut() {
        if upgrade {
            headers::pass_all(call.headers, all)
        } else {
            headers::pass(call.headers, all)
        }
        headers::say_who(all, proxy::peer(&request).as_deref(), &host);
        request_header::put(all, &call.cx.user);
    }
    let body = if upgrade { body::empty() } else { std::mem::replace(request.body_mut(), body::empty()) };
    let onward = onward.body(body).map_err(Status::internal)?;
    let sent = aggregator.send(remote, &remote.trust, &endpoint, onward);
    let answer = match deadline {
        Some(at) => tokio::time::timeout_at(at, sent).await,
        None => Ok(sent.await),
    };
    let what = if upgrade { "error dialing backend" } else { "error trying to reach service" };
    let answer = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(unsent)) => return Ok(failed(&unsent, what)),
        Err(_) if !call.info.is_resource => {
            return Ok(failed(&Unsent::Broken("context deadline exceeded".into()), what));
        }
        Err(_) => return Err(turn::too_late()),
    };
    if upgrade {
        return match proxy::upgraded(call, request, answer) {
            Ok(response) => Ok(response),
            Err(code) => {
                let why = format!("invalid upgrade response: status code {}", code.as_u16());
                Ok(text(StatusCode::SERVICE_UNAVAILABLE, &why))
            }
        };
    }
    let response = proxy::returned(call, answer, Links::new("", &endpoint, &host));
    Ok(response.map(|body| bounded(body, deadline, turn)))
}

/// A body that breaks off at the deadline, and holds its turn until it has passed.
fn bounded(body: Body, deadline: Option<Instant>, turn: Option<Turn>) -> Body {
    let Some(at) = deadline else { return body };
    let pieces = stream::unfold(Some((body, turn)), move |state| async move {
        let (mut body, turn) = state?;
        match tokio::time::timeout_at(at, body.frame()).await {
            Ok(Some(Ok(frame))) => Some((Ok(frame), Some((body, turn)))),
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(None) => None,
            // An end would look as if that was all.
            Err(_) => Some((Err("the request took too long".into()), None)),
        }
    });
    StreamBody::new(pieces.boxed()).boxed_unsync()
}

async fn document(call: &Call<'_>, table: &Table) -> Result<Response<Body>, Status> {
    let aggregator = &call.backend.aggregator;
    let path = call.info.path.trim_matches('/');
    if path.starts_with("apis") {
        let listed: Vec<Listed> = table
            .entries()
            .iter()
            .map(|e| Listed { remote: e.remote.clone(), found: aggregator.discovered(&e.remote.name) })
            .collect();
        return paths::listed(call, path.strip_prefix("apis/"), &listed);
    }
    let entries = table.entries();
    let catalog = call.backend.registry.catalog();
    if path == "openapi/v3" {
        let mut index = openapi::index(&catalog);
        for entry in entries {
            if let Some(theirs) = aggregator.open_api(entry, "/openapi/v3").await {
                remote::list(&mut index, &theirs, &entry.remote);
            }
        }
        return Ok(paths::tagged(call, index.to_string().into_bytes()));
    }
    let mut theirs: Vec<(&Entry, Arc<Value>)> = Vec::new();
    for entry in entries {
        if let Some(document) = aggregator.open_api(entry, "/openapi/v2").await {
            theirs.push((entry, document));
        }
    }
    // As upstream merges them: those of a higher priority first, whose names stay.
    theirs.sort_by(|(a, _), (b, _)| b.remote.priority.cmp(&a.remote.priority).then(a.remote.name.cmp(&b.remote.name)));
    paths::openapi_v2_with(call, |own| {
        let Ok(mut merged) = serde_json::from_slice::<Value>(&own) else { return own };
        for (entry, document) in &theirs {
            remote::merge(&mut merged, document, &entry.remote.path());
        }
        merged.to_string().into_bytes()
    })
}
