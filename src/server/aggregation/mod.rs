//! Effects: the servers behind `APIService`s that name a Service: extension servers, to which requests for a group and
//! version are passed on (kube-aggregator).
//!
//! - [`table`]: which groups and versions are whose
//! - [`fetch`]: what the API server asks an extension server for itself
//! - [`documents`]: what an extension server says of its resources
//! - [`availability`]: whether one can be reached, decided
//! - [`follow`]: the loop that finds out, as long as there are any
//!
//! Without extension servers a request costs a look at a table that is empty. Connections are kept for a while and used
//! again (HTTP/1.1, which can be upgraded).

pub mod availability;
pub mod documents;
pub mod fetch;
pub mod follow;
pub mod table;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Http;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

use self::documents::Discovered;
use self::fetch::Documents;
use self::table::{Remote, Table, Trust};
use super::objects::{Derived, Objects, SharedObjects};
use super::webhook::ServiceTarget;
use super::webhook::connect::{self, Connector};
use super::webhook::{resolve, trust};
use crate::pki::live::Live;
use crate::pki::tls;

/// Storage name of the `APIService`s.
pub const API_SERVICES: &str = "apiregistration.k8s.io/apiservices";
/// Ways to extension servers that are kept open. Beyond it all are forgotten at once.
const OPEN_MAX: usize = 200;
/// Connections without a request that are kept to each endpoint, and for how long.
const IDLE_MAX: usize = 2;
const IDLE_TIME: Duration = Duration::from_secs(90);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of every request.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
type Https = Http<Connector, Body>;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// The Service leads nowhere.
    #[error("{0}")]
    Nowhere(String),
    /// The `APIService` makes no sense.
    #[error("{0}")]
    Unusable(String),
    /// No connection, or no answer on it; in Go's words.
    #[error("{0}")]
    Broken(String),
}

/// The way to every extension server, and what they say of themselves.
pub struct Aggregator {
    objects: SharedObjects,
    table: Derived<Table, 1>,
    /// Shown to extension servers.
    identity: Option<Arc<Live>>,
    open: Mutex<HashMap<(ServiceTarget, Trust), Https>>,
    /// By the name of the `APIService`.
    discovered: RwLock<HashMap<Box<str>, Arc<Discovered>>>,
    documents: Documents,
}

impl Aggregator {
    #[must_use]
    pub fn new(objects: SharedObjects, identity: Option<Arc<Live>>) -> Arc<Self> {
        let table = Derived::new(&objects, [API_SERVICES], |objects| Table::of(&objects.list(API_SERVICES, None)));
        Arc::new(Self {
            objects,
            table,
            identity,
            open: Mutex::default(),
            discovered: RwLock::default(),
            documents: Documents::default(),
        })
    }

    /// The extension servers as they are registered now.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        self.table.get()
    }

    #[must_use]
    pub fn objects(&self) -> &dyn Objects {
        &*self.objects
    }

    /// What was last found out about the resources of an `APIService`; `None` when they are not known now.
    #[must_use]
    pub fn discovered(&self, name: &str) -> Option<Arc<Discovered>> {
        self.discovered.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// `host:port` of a ready endpoint.
    ///
    /// # Errors
    /// Why there is none, in upstream's words.
    pub fn endpoint(&self, remote: &Remote) -> Result<String, Unsent> {
        let (host, port) = resolve::endpoint(&*self.objects, &remote.target).map_err(Unsent::Nowhere)?;
        Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    }

    /// Sends a request to an endpoint of an extension server: its path and query stay, its host does not.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(
        &self,
        remote: &Remote,
        trust: &Trust,
        endpoint: &str,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Unsent> {
        let unusable = |e: &dyn std::fmt::Display| Unsent::Unusable(e.to_string());
        let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme("https").authority(endpoint).path_and_query(path);
        *request.uri_mut() = uri.build().map_err(|e| unusable(&e))?;
        *request.version_mut() = http::Version::HTTP_11;
        request.headers_mut().insert(HOST, HeaderValue::from_str(endpoint).map_err(|e| unusable(&e))?);
        let https = self.connections(remote, trust)?;
        https.request(request).await.map_err(|e| Unsent::Broken(connect::words(&e)))
    }

    fn connections(&self, remote: &Remote, trust: &Trust) -> Result<Https, Unsent> {
        let key = (remote.target.clone(), trust.clone());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(https) = open.get(&key) {
            return Ok(https.clone());
        }
        let tls = self.tls(trust).map_err(Unsent::Unusable)?;
        let connector = Connector::named(Arc::new(tls), &remote.target.host()).map_err(Unsent::Unusable)?;
        let https = Http::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_idle_timeout(IDLE_TIME)
            .build(connector);
        if open.len() >= OPEN_MAX {
            open.clear();
        }
        open.insert(key, https.clone());
        Ok(https)
    }

    fn tls(&self, trust: &Trust) -> Result<ClientConfig, String> {
        let mut config = match trust {
            Trust::Anyone => tls::unverified().map_err(|e| e.to_string())?,
            Trust::Bundle(bundle) => ClientConfig::clone(&*trust::config(bundle)?),
        };
        if let Some(identity) = &self.identity {
            config.client_auth_cert_resolver = identity.clone();
        }
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// `None` says that nothing is known now.
    fn keep(&self, name: &str, found: Option<Arc<Discovered>>) {
        let mut discovered = self.discovered.write().unwrap_or_else(PoisonError::into_inner);
        match found {
            Some(found) => drop(discovered.insert(name.into(), found)),
            None => drop(discovered.remove(name)),
        }
    }

    /// An `APIService` is gone, or another server's.
    fn forget(&self, remote: &Remote) {
        self.keep(&remote.name, None);
        self.documents.forget(&remote.name);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(target, _), _| *target != remote.target);
    }
}
