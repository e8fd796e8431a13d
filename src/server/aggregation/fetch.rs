//! Effects: documents of extension servers that the API server asks for itself: discovery, and OpenAPI. Discovery is asked
//! for by the loop that follows them; OpenAPI only when a client of ours wants it, and then kept for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, ETAG, HeaderValue, IF_NONE_MATCH};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use serde_json::Value;
use tokio::time::Instant;

use super::documents::{self, Discovered};
use super::table::{Entry, Remote, Trust};
use super::{Aggregator, Body, Unsent};
use crate::api::user::{SYSTEM_AUTHENTICATED, SYSTEM_MASTERS, User};
use crate::clock;
use crate::server::authn::request_header;
use crate::server::webhook::connect;

/// Longest document, in bytes. The OpenAPI document of a large API is about a megabyte.
const DOCUMENT_MAX: usize = 8 << 20;
/// How long an extension server may take for discovery, as upstream, and for OpenAPI, where a client of ours waits.
const TIME: Duration = Duration::from_secs(5);
/// How old an OpenAPI document may be before it is asked for again (upstream's `successfulUpdateDelay`).
const OPENAPI_TIME: Duration = Duration::from_secs(60);

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
    application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
const JSON: &str = "application/json";

/// One answer.
pub struct Fetched {
    pub code: StatusCode,
    pub etag: String,
    pub text: bytes::Bytes,
}

/// Who asks holds it, so that others wait for the same answer.
type Cell = Arc<tokio::sync::Mutex<Kept>>;

/// OpenAPI documents, by the name of the `APIService` and the path.
#[derive(Default)]
pub struct Documents(Mutex<HashMap<(Box<str>, &'static str), Cell>>);

#[derive(Default)]
struct Kept {
    asked: Option<Instant>,
    etag: String,
    document: Option<Arc<Value>>,
}

impl Documents {
    fn cell(&self, name: &str, path: &'static str) -> Cell {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry((name.into(), path)).or_default().clone()
    }

    pub fn forget(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _), _| **of != *name);
    }
}

/// Who the API server is when it asks for itself.
#[must_use]
pub fn aggregator() -> User {
    User::new("system:kube-aggregator", &[SYSTEM_MASTERS])
}

impl Aggregator {
    /// # Errors
    /// Why there is no answer, as Go's client would say it; any code is an answer.
    pub async fn get(
        &self,
        remote: &Remote,
        trust: &Trust,
        user: &User,
        path: &str,
        headers: (&'static str, &str),
    ) -> Result<Fetched, String> {
        let endpoint = self.endpoint(remote).map_err(|e| e.to_string())?;
        let (accept, etag) = headers;
        let body: Body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let mut request = Request::get(path).header(ACCEPT, accept).body(body).map_err(|e| e.to_string())?;
        if let Some(etag) = HeaderValue::from_str(etag).ok().filter(|e| !e.is_empty()) {
            request.headers_mut().insert(IF_NONE_MATCH, etag);
        }
        request_header::put(request.headers_mut(), user);
        let failed = |why: &str| format!("Get \"https://{endpoint}{path}\": {why}");
        let exchange = async {
            let answer = self.send(remote, trust, &endpoint, request).await;
            let (parts, body) = answer.map_err(|e| failed(&e.to_string()))?.into_parts();
            let text = Limited::new(body, DOCUMENT_MAX).collect().await.map_err(|e| {
                if e.is::<LengthLimitError>() {
                    failed(&format!("the answer is longer than {DOCUMENT_MAX} bytes"))
                } else {
                    failed(&connect::words(&*e))
                }
            })?;
            let etag = parts.headers.get(ETAG).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
            Ok(Fetched { code: parts.status, etag, text: text.to_bytes() })
        };
        tokio::time::timeout(TIME, exchange).await.unwrap_or_else(|_| Err(failed("context deadline exceeded")))
    }

    /// What an extension server has of a version. `before` is what it last said, for as long as that has not changed.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn discover(&self, remote: &Remote, before: Option<Arc<Discovered>>) -> Result<Arc<Discovered>, String> {
        let user = aggregator();
        let etag = before.as_ref().map_or("", |b| &b.etag);
        let answer = self.get(remote, &remote.trust, &user, "/apis", (AGGREGATED, etag)).await?;
        if let (StatusCode::NOT_MODIFIED, Some(before)) = (answer.code, before) {
            return Ok(before);
        }
        if answer.code == StatusCode::OK {
            let document: Value = serde_json::from_slice(&answer.text).map_err(|e| e.to_string())?;
            if let Some(resources) = documents::aggregated(&document, &remote.group, &remote.version) {
                return Ok(Arc::new(Discovered { resources, etag: answer.etag }));
            }
        } else if !matches!(answer.code, StatusCode::NOT_ACCEPTABLE | StatusCode::NOT_FOUND | StatusCode::FORBIDDEN) {
            let (to, code) = (&remote.target, answer.code.as_u16());
            let at = format!("{}/{}:{}", to.namespace, to.name, to.port);
            return Err(format!("service {at} returned non-success response code: {code}"));
        }
        // It only knows the older form.
        let path = remote.path();
        let answer = self.get(remote, &remote.trust, &user, &path, (JSON, "")).await?;
        if answer.code != StatusCode::OK {
            return Err(format!("failed to download discovery for {path}: {}", answer.code.as_u16()));
        }
        let document: Value = serde_json::from_slice(&answer.text).map_err(|e| e.to_string())?;
        Ok(Arc::new(Discovered { resources: documents::legacy(&document)?, etag: String::new() }))
    }

    /// A document of OpenAPI, as an extension server last gave it. One client asks and others wait for it.
    pub async fn open_api(&self, entry: &Entry, path: &'static str) -> Option<Arc<Value>> {
        let remote = &entry.remote;
        let cell = self.documents.cell(&remote.name, path);
        let mut kept = cell.lock().await;
        let now = clock::instant();
        if !entry.available || kept.asked.is_some_and(|at| now < at + OPENAPI_TIME) {
            return kept.document.clone();
        }
        kept.asked = Some(now);
        let user = User::new("system:aggregator", &[SYSTEM_AUTHENTICATED]);
        let answer = self.get(remote, &remote.trust, &user, path, (JSON, &kept.etag)).await;
        match answer.map(|a| (a.code, serde_json::from_slice::<Value>(&a.text), a.etag)) {
            Ok((StatusCode::OK, Ok(document), etag)) => {
                kept.etag = etag;
                kept.document = Some(Arc::new(document));
            }
            Ok((StatusCode::NOT_MODIFIED, ..)) => {}
            // It has none.
            Ok((StatusCode::NOT_FOUND, ..)) => *kept = Kept { asked: kept.asked, ..Kept::default() },
            Ok((code, ..)) => {
                tracing::debug!(apiservice = %remote.name, path, code = code.as_u16(), "no OpenAPI document")
            }
            Err(error) => tracing::debug!(apiservice = %remote.name, path, error, "no OpenAPI document"),
        }
        kept.document.clone()
    }

    /// Asks whether an extension server answers for a version at all: whoever it is, and whatever it says.
    ///
    /// # Errors
    /// Why not, in upstream's words.
    pub async fn probe(&self, remote: &Remote) -> Result<(), String> {
        let endpoint = self.endpoint(remote).map_err(|e: Unsent| e.to_string())?;
        let path = remote.path();
        let url = format!("https://{endpoint}{path}");
        let failed = |why: String| format!("failing or missing response from {url}: {why}");
        let answer = self.get(remote, &Trust::Anyone, &aggregator(), &path, (JSON, "")).await.map_err(failed)?;
        if answer.code.is_success() {
            return Ok(());
        }
        Err(failed(format!("bad status from {url}: {}", answer.code.as_u16())))
    }
}
