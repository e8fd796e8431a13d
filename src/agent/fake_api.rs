//! Fake: as much of the API as the agent talks to, in memory, for its tests.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::api::{schema, strategic};
use crate::clock;

/// Where the change is at that ends all watches.
const ENDED: &str = "";

/// The path of an object, and the event that watches are sent.
type Change = (String, Value);
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Clones share it. Objects are kept by their path, such as `/api/v1/namespaces/ns/pods/p`.
#[derive(Clone)]
pub struct FakeApi {
    inner: Arc<Mutex<Inner>>,
    changes: broadcast::Sender<Change>,
}

struct Inner {
    /// Of the last change. The empty API has one too.
    revision: u64,
    objects: BTreeMap<String, Value>,
    /// Changes with their revisions, oldest first.
    history: Vec<(u64, Change)>,
    /// Of the last change that is not in the history any more.
    forgotten: u64,
    down: bool,
    /// Method and path of each request that failed because of that.
    missed: Vec<(Instant, String)>,
}

impl Default for FakeApi {
    fn default() -> FakeApi {
        let inner = Inner {
            revision: 1,
            objects: BTreeMap::new(),
            history: Vec::new(),
            forgotten: 0,
            down: false,
            missed: Vec::new(),
        };
        FakeApi { inner: Arc::new(Mutex::new(inner)), changes: broadcast::channel(1024).0 }
    }
}

impl FakeApi {
    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { api.answer(request).await }
        });
        kube::Client::new(service, "default")
    }

    pub fn put(&self, path: &str, object: Value) {
        let mut inner = self.lock();
        let kind = if inner.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        let object = self.announce(&mut inner, path, kind, object);
        inner.objects.insert(path.to_owned(), object);
    }

    pub fn remove(&self, path: &str) -> Option<Value> {
        let mut inner = self.lock();
        let object = inner.objects.remove(path)?;
        Some(self.announce(&mut inner, path, "DELETED", object))
    }

    /// Watches from before now are told to list again, as after a compaction.
    pub fn forget_history(&self) {
        let mut inner = self.lock();
        inner.history.clear();
        inner.forgotten = inner.revision;
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(path).cloned()
    }

    /// Reasons and messages of the events so far.
    pub fn events(&self) -> Vec<String> {
        let inner = self.lock();
        let events = inner.objects.iter().filter(|(path, _)| path.contains("/events/"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        events.map(|(_, event)| format!("{}: {}", text(&event["reason"]), text(&event["message"]))).collect()
    }

    /// Every request fails until told otherwise, and watches end.
    pub fn set_down(&self, down: bool) {
        self.lock().down = down;
        if down {
            let _ = self.changes.send((ENDED.to_owned(), Value::Null));
        }
    }

    /// What was asked in vain, such as `GET /api/v1/pods`, and when.
    pub fn missed(&self) -> Vec<(Instant, String)> {
        self.lock().missed.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while held")
    }

    /// Returns the object with the revision of the change. Whoever asks for changes since an earlier one misses none: both
    /// are under the same lock.
    fn announce(&self, inner: &mut Inner, path: &str, kind: &str, mut object: Value) -> Value {
        inner.revision += 1;
        object["metadata"]["resourceVersion"] = json!(inner.revision.to_string());
        let change = (path.to_owned(), json!({"type": kind, "object": object}));
        inner.history.push((inner.revision, change.clone()));
        let _ = self.changes.send(change);
        object
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let content_type =
            head.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let mut inner = self.lock();
        if inner.down {
            inner.missed.push((clock::instant(), format!("{} {path}", head.method)));
            return Ok(status(503, "ServiceUnavailable"));
        }
        drop(inner);
        Ok(match head.method {
            Method::GET if query.contains("watch=true") => self.watch(&path, &query),
            Method::GET => self.read(&path, &query),
            Method::POST if path.ends_with("/token") => token(),
            Method::POST => self.create(&path, body),
            Method::PATCH => self.patch(&path, &content_type, &body),
            Method::DELETE => match self.remove(&path) {
                Some(object) => answer(200, &object),
                None => status(404, "NotFound"),
            },
            _ => status(405, "MethodNotAllowed"),
        })
    }

    fn read(&self, path: &str, query: &str) -> Response<Body> {
        if let Some(object) = self.get(path) {
            return answer(200, &object);
        }
        if !is_collection(path) {
            return status(404, "NotFound");
        }
        let inner = self.lock();
        let items: Vec<&Value> =
            inner.objects.iter().filter(|(at, _)| belongs(at, path, query)).map(|(_, object)| object).collect();
        let revision = inner.revision.to_string();
        answer(
            200,
            &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": revision}, "items": items}),
        )
    }

    /// What has changed since the revision that is asked for, then what changes.
    fn watch(&self, path: &str, query: &str) -> Response<Body> {
        let (path, query) = (path.to_owned(), query.to_owned());
        let since = query.split('&').find_map(|part| part.strip_prefix("resourceVersion=")?.parse::<u64>().ok());
        let inner = self.lock();
        let since = since.unwrap_or(inner.revision);
        if since < inner.forgotten {
            return status(410, "Expired");
        }
        let missed: Vec<Change> =
            inner.history.iter().filter(|(at, _)| *at > since).map(|(_, change)| change.clone()).collect();
        let changes = futures::stream::unfold(self.changes.subscribe(), |mut changes| async {
            let change = changes.recv().await.ok().filter(|(at, _)| at != ENDED)?;
            Some((change, changes))
        });
        drop(inner);
        let lines = futures::stream::iter(missed).chain(changes).filter_map(move |(at, event)| {
            let line = belongs(&at, &path, &query).then(|| Ok(Frame::data(Bytes::from(format!("{event}\n")))));
            async move { line }
        });
        Response::new(StreamBody::new(lines).boxed_unsync())
    }

    fn create(&self, path: &str, mut body: Value) -> Response<Body> {
        let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let at = format!("{path}/{name}");
        if self.get(&at).is_some() {
            return status(409, "AlreadyExists");
        }
        body["metadata"]["uid"] = json!(format!("uid-of-{name}"));
        self.put(&at, body.clone());
        answer(201, &body)
    }

    fn patch(&self, path: &str, content_type: &str, body: &Value) -> Response<Body> {
        let at = path.strip_suffix("/status").unwrap_or(path);
        let Some(mut object) = self.get(at) else { return status(404, "NotFound") };
        if content_type.contains("strategic") {
            let kind = object["kind"].as_str().unwrap_or_default();
            let schema = schema::find("", "v1", kind).expect("only kinds of the core group are patched so");
            object = strategic::merge(&object, body, schema).expect("a patch that makes sense");
        } else {
            json_patch::merge(&mut object, body);
        }
        self.put(at, object.clone());
        answer(200, &object)
    }
}

/// Whether the object at `at` is in the collection `path`, by the one field selector that names an object.
fn belongs(at: &str, path: &str, query: &str) -> bool {
    let Some((parent, name)) = at.rsplit_once('/') else { return false };
    let named = query.split('&').find_map(|part| part.strip_prefix("fieldSelector=metadata.name%3D"));
    let resource = |text: &str| text.rsplit('/').next().map(str::to_owned);
    let inside = parent == path || (!path.contains("/namespaces/") && resource(parent) == resource(path));
    inside && named.is_none_or(|wanted| wanted == name)
}

/// Whether the last part of the path is a resource, and not the name of an object.
fn is_collection(path: &str) -> bool {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let rest = parts.get(if parts[0] == "api" { 2 } else { 3 }..).unwrap_or_default();
    let rest = if rest.len() > 2 && rest[0] == "namespaces" { &rest[2..] } else { rest };
    rest.len() == 1
}

fn token() -> Response<Body> {
    let expires = crate::clock::now().checked_add(jiff::SignedDuration::from_hours(1)).expect("in range");
    answer(
        201,
        &json!({"metadata": {}, "spec": {"audiences": []}, "status": {"token": "t0ken", "expirationTimestamp": expires.to_string()}}),
    )
}

fn answer(code: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(Full::from(body.to_string()).boxed_unsync());
    *response.status_mut() = http::StatusCode::from_u16(code).expect("a status code");
    response
}

fn status(code: u16, reason: &str) -> Response<Body> {
    answer(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason}),
    )
}
