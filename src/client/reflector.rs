//! Loop: lists one resource, then watches it for ever. One connection per resource.
//!
//! ```text
//! list ──▶ Replace ──▶ watch from revision ──┬─ event: Set / Gone / Bookmark
//!   ▲                        ▲───────────────┤  ended: watch again from the last revision
//!   └──── 410 Gone ──────────────────────────┘
//! ```
//!
//! Objects stay JSON text until [`decode`], the one place where they become types: a kind costs one decoder.
//! Their `managedFields` are cut from the text before.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

use futures::{Stream, StreamExt};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::request::{Error, revision};
use crate::api::resource::{Resource, find_storage};

/// One thing observed, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<T> {
    /// The complete contents as of a revision: what is not among them is gone.
    Replace(Vec<T>, u64),
    /// Added or changed.
    Set(T),
    /// Deleted; the object as it was last, with the revision of the deletion.
    Gone(T),
    /// Nothing else happened up to this revision.
    Bookmark(u64),
}

/// An object as the server sent it, as JSON, but without its `metadata.managedFields`: they are a third of a small
/// object, and nobody on this side reads them.
pub type Raw = Box<str>;

/// Receives what a reflector observes, in order; for whoever keeps sinks of several kinds together.
pub trait Sink: Send + Sync {
    fn observe(&self, event: Event<Raw>);
}

/// What to watch.
#[derive(Clone, Debug)]
pub struct Source {
    pub resource: &'static Resource,
    pub namespace: Option<String>,
    /// Empty for all.
    pub field_selector: String,
}

impl Source {
    #[must_use]
    pub fn all(resource: &'static Resource) -> Self {
        Self { resource, namespace: None, field_selector: String::new() }
    }

    /// All objects of a resource by its storage name, such as `apps/deployments`.
    ///
    /// # Panics
    /// When the resource table lacks it, which the first start shows.
    #[must_use]
    pub fn of(storage: &str) -> Self {
        Self::all(find_storage(storage).expect("the resource table has the kinds that are watched"))
    }

    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    #[must_use]
    pub fn fields(mut self, selector: String) -> Self {
        self.field_selector = selector;
        self
    }
}

/// A watch line longer than this is an error of the server: objects are at most 3 MiB.
const MAX_LINE: usize = 8 << 20;
/// Page of a list, in objects: bounds the memory of one answer.
const PAGE: usize = 500;
/// Quicker than client-go, which waits up to half a minute: a server of this size is back within a second, and
/// whoever watches it should be too.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LAST_DELAY: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct List<'a> {
    metadata: ListMeta,
    #[serde(default, borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
    r#continue: Option<String>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Head<'a> {
    #[serde(borrow)]
    metadata: HeadMeta<'a>,
    code: u16,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct HeadMeta<'a> {
    #[serde(borrow)]
    resource_version: Cow<'a, str>,
    #[serde(borrow)]
    managed_fields: Option<&'a RawValue>,
}

impl Head<'_> {
    /// The text that this is the head of, with `null` for the managed fields.
    fn trimmed(&self, text: &str) -> Raw {
        let Some(fields) = self.metadata.managed_fields else { return text.into() };
        let start = fields.get().as_ptr() as usize - text.as_ptr() as usize;
        [&text[..start], "null", &text[start + fields.get().len()..]].concat().into()
    }
}

/// Feeds a sink until `stop`. `synced` is called after the first complete list.
pub async fn run(
    client: kube::Client,
    source: Source,
    sink: &dyn Sink,
    synced: impl FnOnce() + Send,
    stop: CancellationToken,
) {
    let mut synced = Some(synced);
    let mut events = std::pin::pin!(events(client, source));
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => event,
        };
        let Some(event) = event else { return };
        sink.observe(event);
        // The first event is a list.
        if let Some(synced) = synced.take() {
            synced();
        }
    }
}

/// What happens to one resource, as objects of `K`. Never ends; failures are logged and tried again.
pub fn typed<K: DeserializeOwned + Send>(client: kube::Client, source: Source) -> impl Stream<Item = Event<K>> + Send {
    let resource = source.resource;
    events(client, source).filter_map(move |event| std::future::ready(decode(resource, event)))
}

/// The event with objects as a type. What does not fit is logged and left out: the server checks what it stores.
pub fn decode<K: DeserializeOwned>(resource: &Resource, event: Event<Raw>) -> Option<Event<K>> {
    let object = |raw: Raw| -> Option<K> {
        serde_json::from_str(&raw)
            .inspect_err(|error| tracing::error!(resource = resource.storage, %error, "object cannot be decoded"))
            .ok()
    };
    match event {
        Event::Replace(items, at) => Some(Event::Replace(items.into_iter().filter_map(object).collect(), at)),
        Event::Set(raw) => object(raw).map(Event::Set),
        Event::Gone(raw) => object(raw).map(Event::Gone),
        Event::Bookmark(at) => Some(Event::Bookmark(at)),
    }
}

fn events(client: kube::Client, source: Source) -> impl Stream<Item = Event<Raw>> + Send {
    let reflector = Reflector {
        client,
        source,
        at: None,
        body: None,
        buffer: Vec::new(),
        ready: VecDeque::new(),
        failed: false,
        delay: FIRST_DELAY,
    };
    // A stream keeps a request that has begun when whoever waits for it turns to something else.
    futures::stream::unfold(reflector, |mut reflector| async move {
        let event = reflector.next().await;
        Some((event, reflector))
    })
}

struct Reflector {
    client: kube::Client,
    source: Source,
    /// The revision that is known; `None` before a list.
    at: Option<u64>,
    /// The watch that is open.
    body: Option<kube::client::Body>,
    /// The start of a line that has not come to its end.
    buffer: Vec<u8>,
    ready: VecDeque<Event<Raw>>,
    /// The last step; the next one waits for `delay`.
    failed: bool,
    delay: Duration,
}

impl Reflector {
    async fn next(&mut self) -> Event<Raw> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            if std::mem::take(&mut self.failed) {
                // A watch that ends at once must not become a busy loop: only news start the delay over.
                tokio::time::sleep(self.delay).await;
                self.delay = (self.delay * 2).min(LAST_DELAY);
            }
            let step = match (self.at, self.body.is_some()) {
                (None, _) => self.list().await,
                (Some(from), false) => self.open(from).await,
                (Some(_), true) => self.read().await,
            };
            let Err(error) = step else { continue };
            self.body = None;
            self.buffer.clear();
            if matches!(&error, Error::Status(s) if s.code == 410) {
                self.at = None;
            }
            self.failed = true;
            tracing::debug!(resource = self.source.resource.storage, %error, "watch ended");
        }
    }

    async fn list(&mut self) -> Result<(), Error> {
        let mut items = Vec::new();
        let mut next = String::new();
        loop {
            let mut query = format!("limit={PAGE}");
            if !next.is_empty() {
                query.push_str("&continue=");
                query.push_str(&escape(&next));
            }
            let text = self.client.request_text(get(path(&self.source, &query))?).await?;
            let page: List<'_> = serde_json::from_str(&text).map_err(broken)?;
            for item in page.items.unwrap_or_default() {
                // One that is no object is left out when it is decoded.
                let head: Head<'_> = serde_json::from_str(item.get()).unwrap_or_default();
                items.push(head.trimmed(item.get()));
            }
            match page.metadata.r#continue.filter(|c| !c.is_empty()) {
                Some(c) => next = c,
                None => {
                    let at = revision(&page.metadata.resource_version);
                    self.at = Some(at);
                    self.ready.push_back(Event::Replace(items, at));
                    return Ok(());
                }
            }
        }
    }

    async fn open(&mut self, from: u64) -> Result<(), Error> {
        // An hour: long enough that an idle cluster stays idle; the server may close earlier.
        let query = format!("watch=true&allowWatchBookmarks=true&timeoutSeconds=3600&resourceVersion={from}");
        let request = get(path(&self.source, &query))?.map(kube::client::Body::from);
        let response = self.client.send(request).await?;
        let status = response.status();
        let body = response.into_body();
        if status.is_success() {
            self.body = Some(body);
            return Ok(());
        }
        let bytes = body.collect().await.map_err(|e| Error::Transport(e.to_string()))?.to_bytes();
        match serde_json::from_slice::<kube::core::Status>(&bytes) {
            Ok(mut answer) => {
                answer.code = status.as_u16();
                Err(Error::Status(answer.boxed()))
            }
            Err(_) => Err(Error::Transport(format!("watch was answered with {status}"))),
        }
    }

    /// Reads on: what has come becomes events.
    async fn read(&mut self) -> Result<(), Error> {
        let Some(body) = &mut self.body else { return Ok(()) };
        let data = match body.frame().await {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => return Err(Error::Transport(error.to_string())),
            None => return Err(Error::Transport("the server has closed it".to_owned())),
        };
        // Mostly whole lines come, which are read where they are.
        let mut text = Cow::Borrowed(&*data);
        if !self.buffer.is_empty() {
            let mut begun = std::mem::take(&mut self.buffer);
            begun.extend_from_slice(&data);
            text = Cow::Owned(begun);
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &text) {
            let line = text[start..end].trim_ascii();
            start = end + 1;
            if !line.is_empty() {
                self.take(line)?;
            }
        }
        self.buffer = text[start..].to_vec();
        if self.buffer.len() > MAX_LINE {
            return Err(Error::Transport(format!("watch event is longer than {MAX_LINE} bytes")));
        }
        Ok(())
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Error> {
        let line: Line<'_> = serde_json::from_slice(line).map_err(broken)?;
        let text = line.object.get();
        let head: Head<'_> = serde_json::from_str(text).map_err(broken)?;
        let at = revision(&head.metadata.resource_version);
        let event = match line.kind {
            "ADDED" | "MODIFIED" => Event::Set(head.trimmed(text)),
            "DELETED" => Event::Gone(head.trimmed(text)),
            "BOOKMARK" => Event::Bookmark(at),
            // An ERROR event: 410 asks for a new list, and nothing else is ever worth resuming from.
            _ => {
                self.at = None;
                return Err(Error::Transport(format!("an error event with code {}", head.code)));
            }
        };
        self.at = self.at.max(Some(at));
        self.delay = FIRST_DELAY;
        self.ready.push_back(event);
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn broken(error: serde_json::Error) -> Error {
    Error::Transport(error.to_string())
}

fn path(source: &Source, query: &str) -> String {
    let mut path = source.resource.path(source.namespace.as_deref());
    path.push('?');
    path.push_str(query);
    if !source.field_selector.is_empty() {
        path.push_str("&fieldSelector=");
        path.push_str(&escape(&source.field_selector));
    }
    path
}

fn get(path: String) -> Result<http::Request<Vec<u8>>, Error> {
    http::Request::get(path)
        .header(http::header::ACCEPT, "application/json")
        .body(Vec::new())
        .map_err(|e| Error::Transport(e.to_string()))
}

/// Percent-encodes a value of a query.
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

#[cfg(test)]
mod tests;
