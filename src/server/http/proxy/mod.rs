//! Effects: the `proxy` subresources of pods, services and nodes: a request is passed on, and what comes back is
//! changed so that its links lead through the proxy again (`k8s.io/apimachinery/pkg/util/proxy`).
//!
//! - [`place`]: where a request goes
//! - [`headers`]: what may not pass, and what is said of who asked
//! - [`links`], [`html`]: redirects and pages; [`coding`]: pages that are compressed
//!
//! Bodies pass piece by piece in both directions; of a page no more than one tag is held.

pub mod coding;
pub mod headers;
pub mod html;
pub mod links;
pub mod place;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;

use self::coding::Coding;
use self::html::Html;
use self::links::Links;
use self::place::Place;
use super::admit;
use super::body::{self, Body};
use super::nodes::until;
use super::service::{Call, Peer};
use crate::api::status::Status;
use crate::server::registry::request::Target;

pub(super) async fn run(call: &Call<'_>, target: &Target, request: Request<Body>) -> Result<Response<Body>, Status> {
    if call.query.first("dryRun").is_some() {
        return Err(Status::bad_request("dryRun is not supported"));
    }
    admit::connection(call).await?;
    let place = place::find(call, target).await?;
    let asked = &call.info.path;
    let mut path = place::rest(&call.info.rest, asked.ends_with('/'));
    if headers::wants_upgrade(call.headers) {
        return upgrade(call, &place, &path, request).await;
    }
    if !path.ends_with('/') && asked.ends_with('/') {
        path.push('/');
    }
    // Without the slash at the end every relative link of the page would miss the proxy.
    if path.is_empty() && matches!(*call.method, Method::GET | Method::HEAD) {
        return moved(asked, request.uri().query());
    }
    let prefix = asked.strip_suffix(path.as_str()).unwrap_or(asked);
    let host = headers::host(&request, &place.host);
    let links = Links::new(prefix, &place.host, &host);

    let mut onward = Request::builder().method(call.method).uri(uri(&path, request.uri().query()));
    if let Some(all) = onward.headers_mut() {
        headers::pass(call.headers, all);
        headers::say_who(all, peer(&request).as_deref(), &host);
        let forwarded = links.forwarded(&path);
        all.insert("x-forwarded-uri", HeaderValue::from_str(&forwarded).map_err(Status::internal)?);
    }
    let onward = onward.body(request.into_body()).map_err(Status::internal)?;
    let answer = call
        .backend
        .nodes
        .send(&place.endpoint, onward)
        .await
        .map_err(|why| Status::new(503, "ServiceUnavailable", format!("error trying to reach service: {why}")))?;
    Ok(returned(call, answer, links))
}

fn moved(asked: &str, query: Option<&str>) -> Result<Response<Body>, Status> {
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    let to = HeaderValue::from_str(&format!("{asked}/{query}")).map_err(Status::internal)?;
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, to);
    Ok(response)
}

fn uri(path: &str, query: Option<&str>) -> String {
    let path = links::escaped(if path.is_empty() { "/" } else { path });
    query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"))
}

/// The address that the request came from.
pub(super) fn peer(request: &Request<Body>) -> Option<String> {
    request.extensions().get::<Peer>().map(|p| p.address.ip().to_canonical().to_string())
}

/// The answer of the other side, as the client may have it.
pub(super) fn returned(call: &Call<'_>, answer: Response<Incoming>, links: Links) -> Response<Body> {
    let (parts, body) = answer.into_parts();
    let mut given = parts.headers;
    headers::drop_hop_by_hop(&mut given);
    headers::drop_cors(&mut given);
    let mut page = None;
    if let Some(to) = given.get(LOCATION).and_then(|v| v.to_str().ok()) {
        if let Some(to) = links.rewritten(to).and_then(|to| HeaderValue::from_str(&to).ok()) {
            given.insert(LOCATION, to);
        }
    } else if is_page(&given) {
        page = Coding::of(given.get(CONTENT_ENCODING).map_or(b"", |v| v.as_bytes()));
    }
    let stop = call.backend.stop.clone();
    let body = match page {
        None => until(body, stop),
        Some(coding) => {
            given.remove(CONTENT_LENGTH);
            rewritten(until(body, stop), coding, Html::new(links))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = parts.status;
    // As upstream, which says so of every answer before it knows what else there is to say.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    append(response.headers_mut(), given);
    response
}

fn append(to: &mut HeaderMap, from: HeaderMap) {
    let mut last = None;
    for (name, value) in from {
        last = name.or(last);
        if let Some(name) = &last {
            to.append(name, value);
        }
    }
}

fn is_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim() == "text/html"
}

/// A page whose links are rewritten while it passes.
fn rewritten(body: Body, coding: Coding, html: Html) -> Body {
    let pieces = stream::unfold(Some((body, coding, html)), |state| async move {
        let (mut body, mut coding, mut html) = state?;
        loop {
            let (out, more) = match body.frame().await {
                None => (coding.end(&mut html), false),
                Some(Err(error)) => return Some((Err(error), None)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => (coding.push(&data, &mut html), true),
                    // Trailers would speak of the page as it was.
                    Err(_) => continue,
                },
            };
            return match out {
                Err(error) => Some((Err(error.into()), None)),
                Ok(out) if out.is_empty() && more => continue,
                Ok(out) => Some((Ok(Frame::data(Bytes::from(out))), more.then_some((body, coding, html)))),
            };
        }
    });
    StreamBody::new(pieces.boxed()).boxed_unsync()
}

/// A WebSocket, or another protocol that begins as a request: passed through byte for byte.
async fn upgrade(call: &Call<'_>, place: &Place, path: &str, request: Request<Body>) -> Result<Response<Body>, Status> {
    let host = headers::host(&request, &place.host);
    let mut onward = Request::builder().method(call.method).uri(uri(path, request.uri().query()));
    if let Some(all) = onward.headers_mut() {
        headers::pass_all(call.headers, all);
        headers::say_who(all, peer(&request).as_deref(), &host);
    }
    let onward = onward.body(body::empty()).map_err(Status::internal)?;
    let unclassified = |why: String| Status::new(500, "", why);
    let nodes = &call.backend.nodes;
    let answer = nodes
        .send(&place.endpoint, onward)
        .await
        .map_err(|why| unclassified(format!("error dialing backend: {why}")))?;
    upgraded(call, request, answer)
        .map_err(|code| unclassified(format!("invalid upgrade response: status code {}", code.as_u16())))
}

/// Joins two connections whose protocol changes, or passes on that the other side refuses.
///
/// # Errors
/// The code of an answer that does neither.
pub(super) fn upgraded(
    call: &Call<'_>,
    mut request: Request<Body>,
    mut answer: Response<Incoming>,
) -> Result<Response<Body>, StatusCode> {
    let code = answer.status();
    if code != StatusCode::SWITCHING_PROTOCOLS && code.as_u16() < 400 {
        return Err(code);
    }
    if code == StatusCode::SWITCHING_PROTOCOLS {
        let (theirs, ours) = (hyper::upgrade::on(&mut answer), hyper::upgrade::on(&mut request));
        call.backend.nodes.splice(ours, theirs, call.backend.stop.clone());
    }
    let (parts, body) = answer.into_parts();
    let refused = code != StatusCode::SWITCHING_PROTOCOLS;
    let mut response = Response::new(if refused { until(body, call.backend.stop.clone()) } else { body::empty() });
    *response.status_mut() = code;
    let mut given = parts.headers;
    if refused {
        headers::drop_hop_by_hop(&mut given);
    }
    append(response.headers_mut(), given);
    Ok(response)
}
