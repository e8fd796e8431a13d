//! Effects: calls to webhooks: a JSON document is posted to a URL or to a Service, and a JSON document comes back.
//! Admission and the conversion of custom resources both call through here; extension servers are reached the same way.
//!
//! - [`resolve`]: which endpoint of a Service is asked
//! - [`trust`]: whose certificate is good
//! - [`connect`]: a connection, and upstream's words for why there is none
//! - [`answer`]: what an answer says
//!
//! Connections are kept for a while and used again (HTTP/1.1, as upstream: HTTP/2 would send everything to one pod).
//! Nothing is built before the first call.

mod answer;
pub(in crate::server) mod connect;
pub(in crate::server) mod resolve;
pub(in crate::server) mod trust;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::Client as Http;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use k8s_openapi::api::admissionregistration::v1 as admission;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions;
use serde::Serialize;
use serde_json::Value;

use self::connect::Connector;
use crate::server::objects::SharedObjects;

/// Longest answer, in bytes: what a request to the server may have.
pub const MAX_ANSWER: usize = 3 << 20;
/// Configurations whose connections are kept (upstream's `defaultCacheSize`). Beyond it all are forgotten at once.
const MAX_CONFIGS: usize = 200;
/// Connections without a call that are kept for each configuration, and for how long.
const MAX_IDLE: usize = 2;
const IDLE_TIME: Duration = Duration::from_secs(90);
const AGENT: &str = "kube-apiserver-admission";

/// Where a webhook is, and who signs for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientConfig {
    pub target: Target,
    /// PEM certificates; when empty, the system's authorities are trusted.
    pub ca_bundle: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `https://host[:port]/path`
    Url(String),
    Service(ServiceTarget),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceTarget {
    pub namespace: String,
    pub name: String,
    /// May be empty.
    pub path: String,
    /// Of the Service, not of its pods.
    pub port: u16,
}

/// Why a call came to nothing, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nothing was sent: the configuration makes no sense.
    #[error("{0}")]
    Unusable(String),
    /// No connection, or no answer on it.
    #[error("Post {url:?}: {cause}")]
    Post { url: String, cause: String },
    /// An answer that is none.
    #[error("{0}")]
    Answer(String),
}

/// Every webhook's connections.
pub struct Client {
    objects: SharedObjects,
    open: Mutex<HashMap<ClientConfig, Https>>,
}

type Https = Http<Connector, Full<Bytes>>;

impl Client {
    #[must_use]
    pub fn new(objects: SharedObjects) -> Arc<Self> {
        Arc::new(Self { objects, open: Mutex::default() })
    }

    /// Posts `body` and waits for the answer at most `timeout`. Redirects are not followed.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &self,
        to: &ClientConfig,
        body: &(impl Serialize + Sync),
        timeout: Duration,
    ) -> Result<Value, CallError> {
        let url = to.target.url(timeout)?;
        let failed = |cause: String| CallError::Post { url: url.clone(), cause };
        let uri: Uri = url.parse().map_err(|e| CallError::Unusable(format!("Unparsable URL: {e}")))?;
        let body = serde_json::to_vec(body).map_err(|e| CallError::Unusable(e.to_string()))?;
        let request = Request::post(uri)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, */*")
            .header(USER_AGENT, AGENT)
            .body(Full::from(body))
            .map_err(|e| CallError::Unusable(e.to_string()))?;
        let https = self.connections(to)?;
        let exchange = async {
            let response = https.request(request).await.map_err(|e| failed(connect::words(&e)))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let bytes = body.map_err(|e| {
                if e.is::<LengthLimitError>() {
                    CallError::Answer(format!("the answer of the webhook is longer than {MAX_ANSWER} bytes"))
                } else {
                    CallError::Answer(connect::words(&*e))
                }
            })?;
            answer::read(head.status, &head.headers, &bytes.to_bytes())
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(failed("context deadline exceeded".into())),
        }
    }

    fn connections(&self, to: &ClientConfig) -> Result<Https, CallError> {
        // It is read by others' code what users wrote of whom to trust: the map is whole whatever comes of that.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(https) = open.get(to) {
            return Ok(https.clone());
        }
        let tls = trust::config(&to.ca_bundle).map_err(CallError::Unusable)?;
        let connector = Connector::new(tls, &to.target, self.objects.clone());
        let https = Http::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(MAX_IDLE)
            .pool_idle_timeout(IDLE_TIME)
            .build(connector);
        if open.len() >= MAX_CONFIGS {
            open.clear();
        }
        open.insert(to.clone(), https.clone());
        Ok(https)
    }
}

impl Target {
    /// The address of one call, as error messages show it.
    fn url(&self, timeout: Duration) -> Result<String, CallError> {
        let (base, path) = match self {
            Self::Url(url) if url.is_empty() => {
                return Err(CallError::Unusable("webhook configuration must have either service or URL".into()));
            }
            Self::Url(url) => {
                let rest = url.find("://").map_or(0, |at| at + 3);
                let end = url[rest..].find(['/', '?', '#']).map_or(url.len(), |at| rest + at);
                let path = url[end..].split(['?', '#']).next().unwrap_or_default();
                (url[..end].to_owned(), path)
            }
            Self::Service(s) => (format!("https://{}:{}", s.host(), s.port), s.path.as_str()),
        };
        // Whole seconds, never less than there is.
        let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
        Ok(format!("{base}{}?timeout={seconds}s", joined(path)))
    }
}

impl ServiceTarget {
    /// The name that its certificate must be for.
    #[must_use]
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }
}

/// A path as Go's `path.Join` writes it, through which upstream sends every one: without a slash at its end.
fn joined(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}

/// 443, as upstream.
pub(in crate::server) fn service_port(port: Option<i32>) -> u16 {
    port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0).unwrap_or(443)
}

/// The two groups have a struct each, which say the same.
macro_rules! from_api {
    ($($api:ty),*) => { $(
        impl From<&$api> for ClientConfig {
            fn from(given: &$api) -> Self {
                let target = match &given.service {
                    Some(s) => Target::Service(ServiceTarget {
                        namespace: s.namespace.clone(),
                        name: s.name.clone(),
                        path: s.path.clone().unwrap_or_default(),
                        port: service_port(s.port),
                    }),
                    None => Target::Url(given.url.clone().unwrap_or_default()),
                };
                Self { target, ca_bundle: given.ca_bundle.clone().map(|b| b.0).unwrap_or_default() }
            }
        }
    )* };
}

from_api!(admission::WebhookClientConfig, extensions::WebhookClientConfig);

#[cfg(test)]
mod tests;
