//! Loop: lists one resource, then watches it for ever, and tells a sink. One task, one connection per resource.
//!
//! ```text
//! list ──▶ replace ──▶ watch from revision ──┬─ event: upsert / remove / bookmark
//!   ▲                        ▲───────────────┤  ended: watch again from the last revision
//!   └──── 410 Gone ──────────────────────────┘
//! ```

use std::time::Duration;

use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::request::{Error, revision};
use crate::api::resource::Resource;

/// Receives what a reflector observes, in order.
pub trait Sink: Send + Sync {
    /// The complete contents as of `at`.
    fn replace(&self, items: &[Box<RawValue>], at: u64);
    fn upsert(&self, raw: &RawValue);
    fn remove(&self, raw: &RawValue);
    fn bookmark(&self, at: u64);
}

/// What to watch.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    pub resource: &'static Resource,
    pub namespace: Option<&'static str>,
    /// Empty for all.
    pub field_selector: &'static str,
}

/// A watch line longer than this is an error of the server: objects are at most 3 MiB.
const MAX_LINE: usize = 8 << 20;
/// Page of a list, in objects: bounds the memory of one answer.
const PAGE: usize = 500;
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LAST_DELAY: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    #[serde(default)]
    items: Option<Vec<Box<RawValue>>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
    r#continue: Option<String>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Versioned {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    code: u16,
}

enum Ended {
    /// Watch again from here.
    Resume(u64),
    /// The revision is too old: list again.
    Relist,
}

/// Runs until `stop`. `synced` is called after the first complete list.
pub async fn run(
    client: kube::Client,
    source: Source,
    sink: &dyn Sink,
    synced: impl FnOnce() + Send,
    stop: CancellationToken,
) {
    let mut synced = Some(synced);
    let mut at: Option<u64> = None;
    let mut delay = FIRST_DELAY;
    loop {
        let step = async {
            match at {
                None => list(&client, source, sink).await.map(Ended::Resume),
                Some(from) => watch(&client, source, sink, from).await,
            }
        };
        let result = tokio::select! {
            () = stop.cancelled() => return,
            result = step => result,
        };
        let pause = match result {
            Ok(Ended::Resume(revision)) => {
                if let Some(synced) = synced.take() {
                    synced();
                }
                // A watch that ends at once and without news must not become a busy loop.
                let pause = (at == Some(revision)).then_some(delay);
                at = Some(revision);
                pause
            }
            Ok(Ended::Relist) => {
                at = None;
                None
            }
            Err(error) => {
                if matches!(&error, Error::Status(s) if s.code == 410) {
                    at = None;
                }
                tracing::debug!(resource = source.resource.storage, %error, "watch failed");
                Some(delay)
            }
        };
        if let Some(pause) = pause {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => delay = (delay * 2).min(LAST_DELAY),
            }
        } else {
            delay = FIRST_DELAY;
        }
    }
}

fn path(source: Source, query: &str) -> String {
    let mut path = source.resource.path(source.namespace);
    path.push('?');
    path.push_str(query);
    if !source.field_selector.is_empty() {
        path.push_str("&fieldSelector=");
        path.push_str(&source.field_selector.replace('=', "%3D").replace(',', "%2C"));
    }
    path
}

fn get(path: String) -> Result<http::Request<Vec<u8>>, Error> {
    http::Request::get(path)
        .header(http::header::ACCEPT, "application/json")
        .body(Vec::new())
        .map_err(|e| Error::Transport(e.to_string()))
}

async fn list(client: &kube::Client, source: Source, sink: &dyn Sink) -> Result<u64, Error> {
    let mut items = Vec::new();
    let mut next = String::new();
    loop {
        let mut query = format!("limit={PAGE}");
        if !next.is_empty() {
            query.push_str("&continue=");
            query.push_str(&escape(&next));
        }
        let text = client.request_text(get(path(source, &query))?).await?;
        let page: List = serde_json::from_str(&text).map_err(|e| Error::Transport(e.to_string()))?;
        items.extend(page.items.unwrap_or_default());
        match page.metadata.r#continue.filter(|c| !c.is_empty()) {
            Some(c) => next = c,
            None => {
                let at = revision(&page.metadata.resource_version);
                sink.replace(&items, at);
                return Ok(at);
            }
        }
    }
}

/// Percent-encodes a continue token, which is opaque.
fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
    }
    out
}

async fn watch(client: &kube::Client, source: Source, sink: &dyn Sink, from: u64) -> Result<Ended, Error> {
    // An hour: long enough that an idle cluster stays idle; the server may close earlier.
    let query = format!("watch=true&allowWatchBookmarks=true&timeoutSeconds=3600&resourceVersion={from}");
    let response = client.send(get(path(source, &query))?.map(kube::client::Body::from)).await?;
    let status = response.status();
    let mut body = response.into_body();
    if !status.is_success() {
        let bytes = body.collect().await.map_err(|e| Error::Transport(e.to_string()))?.to_bytes();
        return match serde_json::from_slice::<kube::core::Status>(&bytes) {
            Ok(mut answer) => {
                answer.code = status.as_u16();
                Err(Error::Status(answer.boxed()))
            }
            Err(_) => Err(Error::Transport(format!("watch was answered with {status}"))),
        };
    }
    let mut at = from;
    let mut buffer: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { break };
        let Ok(data) = frame.into_data() else { continue };
        buffer.extend_from_slice(&data);
        let mut start = 0;
        while let Some(length) = buffer[start..].iter().position(|b| *b == b'\n') {
            let line = &buffer[start..start + length];
            start += length + 1;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match deliver(line, sink)? {
                Some(Ended::Resume(revision)) => at = at.max(revision),
                Some(Ended::Relist) => return Ok(Ended::Relist),
                None => {}
            }
        }
        buffer.drain(..start);
        if buffer.len() > MAX_LINE {
            return Err(Error::Transport(format!("watch event is longer than {MAX_LINE} bytes")));
        }
    }
    Ok(Ended::Resume(at))
}

fn deliver(line: &[u8], sink: &dyn Sink) -> Result<Option<Ended>, Error> {
    let event: Event<'_> = serde_json::from_slice(line).map_err(|e| Error::Transport(e.to_string()))?;
    let head: Versioned = serde_json::from_str(event.object.get()).map_err(|e| Error::Transport(e.to_string()))?;
    let at = revision(&head.metadata.resource_version);
    match event.kind {
        "ADDED" | "MODIFIED" => sink.upsert(event.object),
        "DELETED" => sink.remove(event.object),
        "BOOKMARK" => sink.bookmark(at),
        // An ERROR event: 410 asks for a new list, and nothing else is ever worth resuming from.
        _ => {
            tracing::debug!(code = head.code, "watch ended with an error event");
            return Ok(Some(Ended::Relist));
        }
    }
    Ok(Some(Ended::Resume(at)))
}
