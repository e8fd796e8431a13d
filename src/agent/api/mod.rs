//! Loop: the kubelet endpoint: logs of containers and streams into them, what runs here and what it uses, for the API
//! server and for monitoring (`k8s.io/kubelet` `pkg/kubelet/server`).
//!
//! - [`access`]: who asks, and whether they may
//! - [`streams`]: exec, attach, run, port-forward; [`container_logs`], [`node_logs`]
//! - [`configuration`]: `/configz`; [`answer`]: what is answered

mod access;
mod answer;
mod configuration;
mod container_logs;
mod node_logs;
mod streams;

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::access::Access;
use self::answer::{Body, Refusal, json, plain, text};
use super::context::NodeContext;
use super::metrics;
use super::pod::table::PodEntry;
use super::stats::Sampler;
use super::volumes::local;
use crate::api::query::{self, Query};
use crate::cri::{self, State};
use crate::pki::peer::PeerCertificate;

/// Connections at once.
const CONNECTIONS_MAX: usize = 512;
/// Streams into containers and their ports at once: each is a connection that was taken over, and one to the runtime.
const STREAMS_MAX: usize = 512;
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// A connection without a request for this long is closed.
const HEADER_TIME: Duration = Duration::from_secs(90);
/// Size of all headers and the command of one request, in bytes.
const HEADERS_MAX: usize = 128 * 1024;
/// How long streams may take to end when the agent stops.
const DRAIN_TIME: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Where checkpoints of containers are written, below the agent's directory.
const CHECKPOINTS: &str = "agent/checkpoints";

/// The kubelet endpoint.
pub struct Api {
    pub socket: TcpListener,
    /// Asks for client certificates and verifies those that it gets; renewed in place.
    pub tls: Arc<ServerConfig>,
    pub cx: Arc<NodeContext>,
}

/// What every request is answered from. Cheap to clone.
#[derive(Clone)]
struct Backend {
    cx: Arc<NodeContext>,
    access: Arc<Access>,
    sampler: Arc<Sampler>,
    streams: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Api {
    /// Serves until `stop`; streams end with it.
    ///
    /// # Errors
    /// Never at present; the signature is that of every component.
    pub async fn run(self, stop: CancellationToken) -> std::io::Result<()> {
        let tasks = TaskTracker::new();
        let backend = Backend {
            access: Arc::new(Access::new(self.cx.client.clone(), &self.cx.config.node_name)),
            sampler: Arc::new(Sampler::new(self.cx.runtime.clone())),
            cx: self.cx,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        let acceptor = TlsAcceptor::from(self.tls);
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Some(Ok(slot)) = stop.run_until_cancelled(slots.clone().acquire_owned()).await {
            let Some(accepted) = stop.run_until_cancelled(self.socket.accept()).await else { break };
            match accepted {
                Ok((stream, peer)) => {
                    let (acceptor, backend, stop) = (acceptor.clone(), backend.clone(), stop.clone());
                    tasks.spawn(async move {
                        let _slot = slot;
                        let served = connection(stream, acceptor, backend);
                        if let Some(Err(error)) = stop.run_until_cancelled(served).await {
                            tracing::debug!(%peer, error, "connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        tasks.close();
        if tokio::time::timeout(DRAIN_TIME, tasks.wait()).await.is_err() {
            tracing::warn!(streams = tasks.len(), "streams did not end in time");
        }
        Ok(())
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, backend: Backend) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let tls = match tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await {
        Ok(tls) => tls.map_err(|e| format!("TLS handshake: {e}"))?,
        Err(_) => return Err("TLS handshake: timed out".into()),
    };
    let shown = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = shown.map(PeerCertificate::parse).transpose().map_err(|e| e.to_string())?.map(Arc::new);
    let service = hyper::service::service_fn(move |request| {
        let (backend, peer) = (backend.clone(), peer.clone());
        async move {
            let answered = backend.respond(request, peer.as_deref()).await;
            Ok::<_, Infallible>(answered.unwrap_or_else(Refusal::response))
        }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADERS_MAX)
        .serve_connection(TokioIo::new(tls), service)
        .with_upgrades()
        .await
        .map_err(|e| e.to_string())
}

impl Backend {
    async fn respond(
        &self,
        request: Request<Incoming>,
        peer: Option<&PeerCertificate>,
    ) -> Result<Response<Body>, Refusal> {
        let path = query::decode(request.uri().path(), false).unwrap_or_default();
        let user = self.access.user(peer, request.headers()).await?;
        self.access.check(&user, request.method(), &path).await?;
        self.answer(&path, request).await
    }

    async fn answer(&self, path: &str, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        match (request.method(), parts.as_slice()) {
            (&Method::GET | &Method::HEAD, ["healthz"] | ["healthz", "ping" | "log" | "syncloop"]) => Ok(plain("ok")),
            (&Method::GET, ["pods"]) => Ok(self.list()),
            (&Method::GET, ["runningpods"]) => self.running().await,
            (&Method::GET, ["configz"]) => Ok(json(&configuration::configz(&self.cx))),
            (&Method::GET, ["stats", "summary"]) => {
                let entries = self.cx.pods.entries();
                let summary =
                    self.sampler.summary(&self.cx, &entries, query.flag("only_cpu_and_memory") == Some(true)).await;
                summary.map(|s| json(&s)).map_err(|error| Refusal::internal(&error))
            }
            (&Method::GET, ["metrics"]) => Ok(text(metrics::node::render(&self.cx).await)),
            (&Method::GET, ["metrics", "resource"]) => Ok(text(metrics::resource::render(&self.cx).await)),
            (&Method::GET, ["metrics", "cadvisor"]) => Ok(text(metrics::cadvisor::render(&self.cx).await)),
            (&Method::GET, ["metrics", "probes"]) => Ok(text(metrics::probes::render(&self.cx))),
            (&Method::GET | &Method::HEAD, ["logs", below @ ..]) => node_logs::serve(below, path.ends_with('/')).await,
            (&Method::GET, ["containerLogs", namespace, pod, container]) => {
                self.logs(namespace, pod, container, &query).await
            }
            (
                &Method::GET | &Method::POST,
                [verb @ ("exec" | "attach"), namespace, pod, container]
                | [verb @ ("exec" | "attach"), namespace, pod, _, container],
            ) => {
                let id = self.container(namespace, pod, container)?;
                self.session(*verb == "exec", &id, &query, request).await
            }
            (&Method::GET | &Method::POST, ["portForward", namespace, pod] | ["portForward", namespace, pod, _]) => {
                self.port_forward(namespace, pod, &query, request).await
            }
            (&Method::POST, ["run", namespace, pod, container] | ["run", namespace, pod, _, container]) => {
                self.run(namespace, pod, container, &query).await
            }
            (&Method::POST, ["checkpoint", namespace, pod, container]) => {
                self.checkpoint(namespace, pod, container, &query).await
            }
            // Not a kubelet's: how the server has a volume's folder removed.
            (&Method::DELETE, ["localVolumes", folder]) => self.remove_volume((*folder).to_owned()).await,
            _ => Err(Refusal::not_found("404 page not found\n")),
        }
    }

    fn list(&self) -> Response<Body> {
        json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self.cx.pods.pods()}))
    }

    /// The pods as the runtime knows them.
    async fn running(&self) -> Result<Response<Body>, Refusal> {
        let runtime = &self.cx.runtime;
        let (sandboxes, containers) = tokio::join!(runtime.sandboxes(None), runtime.containers(None));
        let failed = |error: cri::Error| Refusal::internal(&error);
        let (sandboxes, containers) = (sandboxes.map_err(failed)?, containers.map_err(failed)?);
        let items: Vec<Value> = sandboxes
            .iter()
            .filter(|sandbox| sandbox.ready)
            .map(|sandbox| {
                let own = containers.iter().filter(|c| c.sandbox_id == sandbox.id && c.state == State::Running);
                let own: Vec<Value> = own.map(|c| json!({"name": c.name, "image": c.image, "resources": {}})).collect();
                json!({
                    "metadata": {"name": sandbox.name, "namespace": sandbox.namespace, "uid": sandbox.pod_uid},
                    "spec": {"containers": own}, "status": {},
                })
            })
            .collect();
        Ok(json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})))
    }

    async fn checkpoint(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        query: &Query,
    ) -> Result<Response<Body>, Refusal> {
        let entry = self.pod(namespace, pod)?;
        let missing = || Refusal::not_found(format!("container {container} does not exist"));
        let id = current(&entry, container).ok_or_else(missing)?;
        let timeout = query.integer("timeout").map_err(|_| Refusal::bad("timeout value is invalid"))?.unwrap_or(0);
        let directory = self.cx.config.data_dir.join(CHECKPOINTS);
        let failed = |why: &dyn std::fmt::Display| {
            let text = format!("checkpointing of {namespace}/{pod}/{container} failed ({why})");
            Refusal(StatusCode::INTERNAL_SERVER_ERROR, text)
        };
        make_private(&directory).map_err(|error| failed(&error))?;
        let time = crate::clock::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let file = directory.join(format!("checkpoint-{pod}_{namespace}-{container}-{time}.tar"));
        let timeout = Duration::from_secs(u64::try_from(timeout).unwrap_or(0));
        self.cx.runtime.checkpoint(&id, &file, timeout).await.map_err(|error| failed(&error))?;
        Ok(json(&json!({"items": [file]})))
    }

    async fn remove_volume(&self, folder: String) -> Result<Response<Body>, Refusal> {
        let (storage, name) = (self.cx.config.local_storage.clone(), folder.clone());
        let removed = tokio::task::spawn_blocking(move || local::remove(&storage, &name)).await;
        match removed.map_err(std::io::Error::other).and_then(|r| r) {
            Ok(()) => {
                tracing::info!(folder, "local volume removed");
                Ok(json(&json!({})))
            }
            Err(error) => {
                tracing::warn!(folder, %error, "local volume not removed");
                Err(Refusal::internal(&error))
            }
        }
    }

    fn pod(&self, namespace: &str, name: &str) -> Result<PodEntry, Refusal> {
        self.cx.pods.find(namespace, name).ok_or_else(|| Refusal::not_found("pod does not exist"))
    }

    /// The running container of that name.
    fn container(&self, namespace: &str, name: &str, container: &str) -> Result<String, Refusal> {
        let entry = self.pod(namespace, name)?;
        let missing = || Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({container:?})"));
        current(&entry, container).ok_or_else(missing)
    }
}

/// A checkpoint holds the memory of a container.
fn make_private(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// The container that the status names.
fn current(entry: &PodEntry, container: &str) -> Option<String> {
    let statuses = [
        &entry.status.container_statuses,
        &entry.status.init_container_statuses,
        &entry.status.ephemeral_container_statuses,
    ];
    let mut all = statuses.into_iter().flatten().flatten();
    let id = bare_id(all.find(|s| s.name == container)?.container_id.as_deref()?);
    (!id.is_empty()).then(|| id.to_owned())
}

fn names(pod: &Pod) -> impl Iterator<Item = &str> {
    let spec = pod.spec.iter();
    spec.flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()))
        .map(|c| c.name.as_str())
        .chain(pod.spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten()).map(|c| c.name.as_str()))
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|s| {
        let (main, init, ephemeral) =
            (&s.container_statuses, &s.init_container_statuses, &s.ephemeral_container_statuses);
        main.iter().chain(init).chain(ephemeral).flatten()
    })
}

/// `containerd://abc` → `abc`.
fn bare_id(id: &str) -> &str {
    id.split_once("://").map_or(id, |(_, id)| id)
}
