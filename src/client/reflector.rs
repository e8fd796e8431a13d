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
        self.buffer.extend_from_slice(&data);
        let buffer = std::mem::take(&mut self.buffer);
        let mut start = 0;
        while let Some(length) = buffer[start..].iter().position(|b| *b == b'\n') {
            let line = &buffer[start..start + length];
            start += length + 1;
            if !line.iter().all(u8::is_ascii_whitespace) {
                self.take(line)?;
            }
        }
        self.buffer = buffer;
        self.buffer.drain(..start);
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
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use serde_json::{Value, json};

    use super::*;

    /// A server that gives these answers in turn, each body in pieces, and keeps what it was asked.
    fn server(answers: Vec<(u16, Vec<String>)>) -> (kube::Client, Arc<Mutex<Vec<String>>>) {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let answers = Arc::new(Mutex::new(answers.into_iter()));
        let log = asked.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            log.lock().unwrap().push(request.uri().path_and_query().unwrap().to_string());
            let (code, pieces) = answers.lock().unwrap().next().unwrap_or((503, Vec::new()));
            let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from(piece))));
            let body = StreamBody::new(futures::stream::iter(frames));
            std::future::ready(Ok::<_, Infallible>(http::Response::builder().status(code).body(body).unwrap()))
        });
        (kube::Client::new(service, "default"), asked)
    }

    fn list(revision: u64, next: &str, names: &[&str]) -> (u16, Vec<String>) {
        let items: Vec<Value> = names.iter().map(|name| json!({ "metadata": { "name": name } })).collect();
        let meta = json!({ "resourceVersion": revision.to_string(), "continue": next });
        (200, vec![json!({ "metadata": meta, "items": items }).to_string()])
    }

    fn line(kind: &str, name: &str, revision: u64) -> String {
        let meta = json!({ "name": name, "resourceVersion": revision.to_string() });
        format!("{}\n", json!({ "type": kind, "object": { "metadata": meta } }))
    }

    /// What is observed until the server has no more answers, as text.
    async fn observed(answers: Vec<(u16, Vec<String>)>) -> (Vec<String>, Vec<String>) {
        let number = answers.len();
        let (client, asked) = server(answers);
        let source = Source::of("configmaps").in_namespace("ns").fields("metadata.name=a".into());
        let mut events = std::pin::pin!(typed::<Value>(client, source));
        let mut seen = Vec::new();
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        while asked.lock().unwrap().len() <= number {
            let Ok(event) = tokio::time::timeout(Duration::from_secs(60), events.next()).await else { break };
            seen.push(match event.unwrap() {
                Event::Replace(all, at) => format!("all {} at {at}", all.iter().map(name).collect::<String>()),
                Event::Set(object) => format!("set {}", name(&object)),
                Event::Gone(object) => format!("gone {}", name(&object)),
                Event::Bookmark(at) => format!("bookmark {at}"),
            });
        }
        let mut asked = asked.lock().unwrap().clone();
        asked.truncate(number);
        (seen, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn lists_in_pages_then_resumes_where_the_watch_ended() {
        let whole = [line("ADDED", "c", 8), line("MODIFIED", "a", 9), line("DELETED", "b", 10)].concat();
        let (first, second) = whole.split_at(whole.len() / 2);
        let (seen, asked) = observed(vec![
            list(7, "to/ken", &["a"]),
            list(7, "", &["b"]),
            (200, vec![first.into(), second.into()]),
            (503, Vec::new()),
            (200, vec![line("BOOKMARK", "", 15)]),
            (200, Vec::new()),
        ])
        .await;
        assert_eq!(seen, ["all ab at 7", "set c", "set a", "gone b", "bookmark 15"]);
        let watch = "/api/v1/namespaces/ns/configmaps?watch=true&allowWatchBookmarks=true&timeoutSeconds=3600";
        let fields = "fieldSelector=metadata.name%3Da";
        assert_eq!(
            asked,
            [
                format!("/api/v1/namespaces/ns/configmaps?limit=500&{fields}"),
                format!("/api/v1/namespaces/ns/configmaps?limit=500&continue=to%2Fken&{fields}"),
                format!("{watch}&resourceVersion=7&{fields}"),
                format!("{watch}&resourceVersion=10&{fields}"),
                format!("{watch}&resourceVersion=10&{fields}"),
                format!("{watch}&resourceVersion=15&{fields}"),
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_revision_that_is_too_old_means_a_new_list() {
        let expired = json!({ "type": "ERROR", "object": { "kind": "Status", "code": 410, "reason": "Expired" } });
        let gone = json!({ "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired" });
        let (seen, asked) = observed(vec![
            list(7, "", &["a"]),
            (200, vec![line("ADDED", "b", 8), format!("{expired}\n")]),
            list(20, "", &["b"]),
            (410, vec![gone.to_string()]),
            list(30, "", &[]),
        ])
        .await;
        assert_eq!(seen, ["all a at 7", "set b", "all b at 20", "all  at 30"]);
        assert!(!asked[2].contains("watch") && !asked[4].contains("watch"), "{asked:#?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_does_not_fit_is_left_out() {
        let (client, _) = server(vec![(
            200,
            vec![
                json!({ "metadata": { "resourceVersion": "3" }, "items": [{ "metadata": 5 }, { "metadata": {} }] })
                    .to_string(),
            ],
        )]);
        let mut events =
            std::pin::pin!(typed::<k8s_openapi::api::core::v1::ConfigMap>(client, Source::of("configmaps")));
        let Some(Event::Replace(all, 3)) = events.next().await else { panic!("no list") };
        assert_eq!(all.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn managed_fields_are_cut_from_objects() {
        let object = |fields: Value, revision: &str| {
            let meta = json!({ "managedFields": fields, "name": "é\"", "resourceVersion": revision });
            json!({ "data": { "managedFields": "kept" }, "metadata": meta })
        };
        let fields = json!([{ "manager": "kubectl", "fieldsV1": { "f:data": { "f:a\"": {} } } }]);
        let changed = json!({ "type": "MODIFIED", "object": object(fields.clone(), "4") });
        let listed = json!({ "metadata": { "resourceVersion": "3" }, "items": [object(fields, "3")] });
        let (client, _) = server(vec![(200, vec![listed.to_string()]), (200, vec![format!("{changed}\n")])]);
        let mut events = std::pin::pin!(typed::<Value>(client, Source::of("configmaps")));
        assert_eq!(events.next().await, Some(Event::Replace(vec![object(Value::Null, "3")], 3)));
        assert_eq!(events.next().await, Some(Event::Set(object(Value::Null, "4"))));
    }
}
