//! Effects: one request from its head to its response: who asks, what for, whether they may, and then the verb.
//! The listener and the in-process client both call [`Service::respond`].

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::task::{Context as TaskContext, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::HeaderValue;
use http::{HeaderMap, Method, Request, Response};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::body::Body;
use super::health::{self, Check};
use super::metrics::Metrics;
use super::negotiate::{self, Format, JSON, Offer};
use super::nodes::Nodes;
use super::request_info::RequestInfo;
use super::{aggregation, compress, paths, respond, turn, verbs};
use crate::api::query::Query;
use crate::api::status::Status;
use crate::api::user::User;
use crate::clock;
use crate::pki::join::{CACERTS_PATH, JOIN_PATH};
use crate::server::aggregation::Aggregator;
use crate::server::authn::impersonate::impersonate;
use crate::server::authn::issue::TokenIssuer;
use crate::server::authn::join::JoinServer;
use crate::server::authn::{Authenticator, PeerCertificate};
use crate::server::authz::{self, Authorizer};
use crate::server::flow::Fairness;
use crate::server::flow::config::Schema;
use crate::server::registry::Registry;
use crate::server::registry::request::Context;

/// Attached by the in-process client: who asks, already known.
#[derive(Clone, Debug)]
pub struct Identity(pub User);

/// Attached by the listener: where a request came from.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    pub certificate: Option<Arc<PeerCertificate>>,
}

/// `host:port`. The host may change.
pub struct Address {
    pub ip: watch::Receiver<IpAddr>,
    pub port: u16,
}

impl Address {
    #[must_use]
    pub fn now(&self) -> SocketAddr {
        SocketAddr::new(*self.ip.borrow(), self.port)
    }
}

/// What stands behind the HTTP layer.
pub struct Backend {
    pub registry: Registry,
    pub authenticator: Arc<Authenticator>,
    pub authorizer: Arc<Authorizer>,
    pub tokens: TokenIssuer,
    /// Where clients outside of the cluster reach this server.
    pub address: Address,
    pub nodes: Nodes,
    /// Extension servers.
    pub aggregator: Arc<Aggregator>,
    /// How nodes join. Set once there is a client, which needs this service.
    pub join: OnceLock<JoinServer>,
    pub checks: Vec<Check>,
    pub metrics: Metrics,
    /// Whose turn it is.
    pub fairness: Fairness,
    /// Ends watches; requests in flight go on.
    pub stop: CancellationToken,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Service {
    backend: Arc<Backend>,
}

/// What a request leaves for the headers of its response.
#[derive(Default)]
struct Notes {
    warnings: Vec<String>,
    /// What it was classified as.
    schema: Option<Arc<Schema>>,
}

/// A request whose sender was identified, on its way to the verb.
pub(super) struct Call<'a> {
    pub backend: &'a Backend,
    pub info: &'a RequestInfo,
    pub query: &'a Query,
    pub headers: &'a HeaderMap,
    pub method: &'a Method,
    pub cx: &'a Context,
    /// For errors and for documents that are no objects.
    pub format: Format,
}

impl Service {
    #[must_use]
    pub fn new(backend: Backend) -> Self {
        Self { backend: Arc::new(backend) }
    }

    #[must_use]
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Never fails: errors are responses.
    pub async fn respond(&self, request: Request<Body>) -> Response<Body> {
        let started = clock::instant();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
        let format = negotiate::negotiate(request.headers(), &query, Offer::Plain).unwrap_or(JSON);
        let compressed = compress::accepted(request.headers());
        let audit_id = audit_id(request.headers());
        let long_running = is_long_running(&info);
        let mut notes = Notes::default();

        let answer = std::panic::AssertUnwindSafe(self.answer(&info, &query, format, request, started, &mut notes));
        let mut response = match answer.catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => respond::error(&status, format),
            Err(_) => {
                tracing::error!(verb = %info.verb, path = info.path, "a request panicked");
                let status = Status::internal("this request caused apiserver to panic. Look in the logs for details");
                respond::error(&status, format)
            }
        };
        if compressed && !long_running {
            response = compress::large(response);
        }
        respond::finish(response.headers_mut(), &audit_id, &notes.warnings);
        if let Some(schema) = &notes.schema {
            turn::tell(response.headers_mut(), schema);
        }
        let took = clock::instant() - started;
        let row = self.backend.registry.row(&info.group, &info.version, &info.resource);
        self.backend.metrics.answered(&info, row, response.status().as_u16(), took, long_running);
        tracing::debug!(verb = %info.verb, path = info.path, code = response.status().as_u16(), ?took, "request");
        response
    }

    async fn answer(
        &self,
        info: &RequestInfo,
        query: &Query,
        format: Format,
        request: Request<Body>,
        started: Instant,
        notes: &mut Notes,
    ) -> Result<Response<Body>, Status> {
        let backend = &*self.backend;
        let (parts, body) = request.into_parts();
        let long_running = is_long_running(info);
        let allowed = if long_running { turn::REQUEST_TIME } else { turn::allowed(query)? };
        if is_read(&parts.method) && info.path == CACERTS_PATH {
            return paths::authority(backend);
        }
        let user = self.identify(&parts)?;
        if parts.method == Method::POST && info.path == JOIN_PATH {
            return paths::join(backend, &user, body).await;
        }
        let cx = Context::new(user);
        let call = Call { backend, info, query, headers: &parts.headers, method: &parts.method, cx: &cx, format };
        // What lasts has no turn, except a watch until it is under way.
        let turn = if long_running && info.verb != "watch" {
            None
        } else {
            let schema = notes.schema.insert(turn::classify(&call));
            match turn::take(&call, schema, started, allowed).await {
                Some(turn) => Some(turn),
                None => return Ok(turn::refusal()),
            }
        };
        backend.authorizer.check(&call.cx.user, &call.attributes())?;
        if let Some(part) = aggregation::part(&call) {
            // Boxed: hardly any request comes here, and every one would have to be as large as this.
            let request = Request::from_parts(parts.clone(), body);
            return Box::pin(part.respond(&call, request, turn, started + allowed)).await;
        }
        let result = if long_running {
            let request = Request::from_parts(parts.clone(), body);
            verbs::stream(&call, request, turn).await
        } else {
            let mutating = !matches!(*call.method, Method::GET | Method::HEAD | Method::OPTIONS);
            let _counted = backend.metrics.in_flight(mutating);
            // Boxed: the state of any verb is kilobytes, which every request would be moved around with.
            let in_time = tokio::time::timeout_at(started + allowed, Box::pin(ordinary(&call, body))).await;
            in_time.unwrap_or_else(|_| Err(turn::too_late()))
        };
        notes.warnings = std::mem::take(&mut *cx.warnings.lock().map_err(Status::internal)?);
        result
    }

    fn identify(&self, parts: &http::request::Parts) -> Result<User, Status> {
        if let Some(Identity(user)) = parts.extensions.get::<Identity>() {
            return Ok(user.clone());
        }
        let certificate = parts.extensions.get::<Peer>().and_then(|p| p.certificate.as_deref());
        let user = self.backend.authenticator.authenticate(&parts.headers, certificate)?;
        impersonate(user, &parts.headers, &self.backend.authorizer)
    }
}

fn audit_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get("audit-id").filter(|v| v.len() <= 64).cloned();
    given.unwrap_or_else(|| {
        let mut text = uuid::Uuid::encode_buffer();
        HeaderValue::from_str(uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text))
            .unwrap_or(HeaderValue::from_static("unknown"))
    })
}

pub(super) fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

async fn ordinary(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    if is_read(call.method)
        && let Some(response) = health::respond(&call.info.path, call.query, &call.backend.checks)
    {
        return Ok(response);
    }
    if call.info.is_resource { verbs::run(call, body).await } else { paths::run(call) }
}

/// Watches, logs and streams last as long as they last.
pub(super) fn is_long_running(info: &RequestInfo) -> bool {
    info.verb == "watch" || matches!(info.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
}

impl Call<'_> {
    /// What authorization judges.
    pub fn attributes(&self) -> authz::Attributes<'_> {
        let info = self.info;
        if info.is_resource {
            authz::Attributes::Resource(self.resource_attributes())
        } else {
            authz::Attributes::Path { verb: &info.verb, path: &info.path }
        }
    }

    pub fn resource_attributes(&self) -> authz::ResourceAttributes<'_> {
        let info = self.info;
        authz::ResourceAttributes {
            verb: &info.verb,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            fields: info.fields.as_ref(),
        }
    }
}

impl tower::Service<Request<Body>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.respond(request).await) })
    }
}
