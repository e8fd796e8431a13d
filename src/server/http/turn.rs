//! Effects: how long a request may take, and its turn: which FlowSchema it is for, how many seats it takes, and what
//! those are told who have to go away.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use tokio::time::Instant;

use super::body::Body;
use super::respond;
use super::service::Call;
use crate::api::duration;
use crate::api::query::Query;
use crate::api::resource::Resource;
use crate::api::status::{Details, Status};
use crate::server::flow::Turn;
use crate::server::flow::config::Schema;
use crate::server::flow::gate::Asked;
use crate::server::flow::watches::Registered;
use crate::server::flow::work::{self, Work};

/// How long a request may take at most, watches and streams apart (upstream's `--request-timeout`).
pub const REQUEST_TIME: Duration = Duration::from_secs(60);

/// Seconds after which those who were sent away may try again.
const RETRY_SECONDS: u32 = 1;
const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// `?timeout=`, which can only shorten; nothing and less than nothing ask for no limit of their own.
///
/// # Errors
/// 400 when it is no duration.
pub fn allowed(query: &Query) -> Result<Duration, Status> {
    let Some(text) = query.first("timeout").filter(|t| !t.is_empty()) else { return Ok(REQUEST_TIME) };
    let nanos = duration::parse(text)
        .map_err(|why| Status::bad_request(format!("invalid timeout specified in the request URL - {why}")))?;
    Ok(u64::try_from(nanos).ok().filter(|n| *n > 0).map_or(REQUEST_TIME, Duration::from_nanos).min(REQUEST_TIME))
}

/// A request that took longer than it may.
#[must_use]
pub fn too_late() -> Status {
    Status::timeout("Timeout: request did not complete within the allotted timeout").with_details(Details::default())
}

pub(super) fn classify(call: &Call<'_>) -> Arc<Schema> {
    call.backend.fairness.classify(&asked(call))
}

pub(super) async fn take(call: &Call<'_>, schema: &Arc<Schema>, started: Instant, allowed: Duration) -> Option<Turn> {
    call.backend.fairness.turn(schema, &asked(call), started, allowed, |seats_max| work(call, seats_max)).await
}

/// 429, in plain text as upstream.
#[must_use]
pub fn refusal() -> Response<Body> {
    let mut response = respond::text(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    response.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS.into());
    response
}

/// By their UIDs: names would show users how they are rated.
pub fn tell(headers: &mut HeaderMap<HeaderValue>, schema: &Schema) {
    headers.insert(SCHEMA_UID, schema.uid.clone());
    headers.insert(LEVEL_UID, schema.level_uid.clone());
}

/// A watch that writes are to be told to. Not one of the pods of one node: it is told of few.
pub(super) fn watching(call: &Call<'_>, resource: &'static Resource) -> Option<Registered> {
    let info = call.info;
    let of_node = || info.fields.as_ref().and_then(|f| f.exact("spec.nodeName")).is_some_and(|n| !n.is_empty());
    let watched = !(resource.storage == "pods" && of_node());
    watched.then(|| call.backend.fairness.watches().register(resource.storage, &info.namespace, &info.name))
}

fn asked<'a>(call: &'a Call<'_>) -> Asked<'a> {
    Asked { user: &call.cx.user, attributes: call.attributes(), version: &call.info.version, path: &call.info.path }
}

/// A list costs what it looks at, a write what it makes others look at.
fn work(call: &Call<'_>, seats_max: u32) -> Work {
    let info = call.info;
    let reads = match &*info.verb {
        "list" => true,
        // With what is there at its start.
        "watch" => {
            let from = call.query.first("resourceVersion").unwrap_or_default();
            matches!(from, "" | "0") || call.query.flag("sendInitialEvents") == Some(true)
        }
        "create" | "update" | "patch" | "delete" => false,
        _ => return Work::ONE,
    };
    if (reads && !info.name.is_empty()) || info.subresource == "token" {
        return Work::ONE;
    }
    let row = call.backend.registry.row(&info.group, &info.version, &info.resource);
    let Some(row) = row.filter(|r| !r.storage.is_empty()) else { return Work::ONE };
    if reads {
        work::list(call.backend.registry.cache().count(row.storage), seats_max)
    } else {
        work::write(call.backend.fairness.watches().interested(row.storage, &info.namespace, &info.name), seats_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_may_shorten_their_time() {
        let check = |text: &str, expect: Result<u64, &str>| {
            let found = allowed(&Query::parse(text)).map(|d| u64::try_from(d.as_millis()).unwrap());
            assert_eq!(found.map_err(|s| s.message().to_owned()), expect.map_err(str::to_owned), "{text}");
        };
        check("", Ok(60_000));
        check("timeout=", Ok(60_000));
        check("timeout=1.5s", Ok(1_500));
        check("timeout=2m", Ok(60_000));
        check("timeout=0s", Ok(60_000));
        check("timeout=-3s", Ok(60_000));
        check("timeout=5", Err("invalid timeout specified in the request URL - time: missing unit in duration \"5\""));
        check("timeout=x", Err("invalid timeout specified in the request URL - time: invalid duration \"x\""));
    }
}
