//! Loop: the kubelet endpoint: logs of containers and streams into them, for the API server (`k8s.io/kubelet`
//! `pkg/kubelet/server`). Everything but `/healthz` asks for a client certificate of the cluster.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::stats::Sampler;
use super::streaming::log_line::Options;
use super::streaming::{exec, log_file};
use super::volumes::local;
use crate::api::query::{self, Query};
use crate::clock;
use crate::cri::{self, Runtime, StreamOptions};

/// Connections at once.
const CONNECTIONS_MAX: usize = 512;
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// A connection without a request for this long is closed.
const HEADER_TIME: Duration = Duration::from_secs(90);
/// Size of all headers and the command of one request, in bytes.
const HEADERS_MAX: usize = 128 * 1024;
/// How long streams may take to end when the agent stops.
const DRAIN_TIME: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// The pods of this node with their current status.
pub trait Pods: Send + Sync + 'static {
    fn find(&self, namespace: &str, name: &str) -> Option<Pod>;
    fn all(&self) -> Vec<Pod>;
}

/// The kubelet endpoint.
pub struct Api {
    pub socket: TcpListener,
    /// Asks for client certificates and verifies those that it gets; renewed in place.
    pub tls: Arc<ServerConfig>,
    pub pods: Arc<dyn Pods>,
    pub runtime: Arc<dyn Runtime>,
    pub node_name: String,
    /// The folder of the `local-path` volumes.
    pub local_storage: PathBuf,
}

/// What every request is answered from. Cheap to clone.
#[derive(Clone)]
struct Backend {
    pods: Arc<dyn Pods>,
    runtime: Arc<dyn Runtime>,
    sampler: Arc<Sampler>,
    node_name: Arc<str>,
    local_storage: Arc<PathBuf>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// An answer that is not 200: kubelets speak plain text.
struct Refusal(StatusCode, String);

impl Refusal {
    fn bad(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }

    fn internal(error: &dyn std::error::Error) -> Self {
        let source = error.source().map_or_else(String::new, |s| format!(": {s}"));
        Self(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}{source}"))
    }
}

impl Api {
    /// Serves until `stop`; streams end with it.
    ///
    /// # Errors
    /// Never at present; the signature is that of every component.
    pub async fn run(self, stop: CancellationToken) -> std::io::Result<()> {
        let tasks = TaskTracker::new();
        let backend = Backend {
            pods: self.pods,
            sampler: Arc::new(Sampler::new(self.runtime.clone())),
            runtime: self.runtime,
            node_name: self.node_name.into(),
            local_storage: Arc::new(self.local_storage),
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
    // The verifier accepts certificates of the cluster's client authority for kubelets only.
    let known = tls.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
    let service = hyper::service::service_fn(move |request| {
        let backend = backend.clone();
        async move {
            Ok::<_, Infallible>(backend.respond(request, known).await.unwrap_or_else(|Refusal(code, text)| {
                let mut response = plain(text);
                *response.status_mut() = code;
                response
            }))
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
    async fn respond(&self, request: Request<Incoming>, known: bool) -> Result<Response<Body>, Refusal> {
        let path = query::decode(request.uri().path(), false).unwrap_or_default();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        if parts == ["healthz"] {
            return Ok(plain("ok"));
        }
        if !known {
            return Err(Refusal(StatusCode::UNAUTHORIZED, "Unauthorized".into()));
        }
        let query = Query::parse(request.uri().query().unwrap_or_default());
        match (request.method(), parts.as_slice()) {
            (&Method::GET, ["pods"]) => self.list(),
            (&Method::GET, ["stats", "summary"]) => {
                let summary = self.sampler.summary(&self.node_name, &self.pods.all()).await;
                summary.map(|s| json(&s)).map_err(|error| Refusal::internal(&error))
            }
            (&Method::GET, ["containerLogs", namespace, pod, container]) => {
                self.logs(namespace, pod, container, &query).await
            }
            (&Method::GET | &Method::POST, [verb @ ("exec" | "attach"), namespace, pod, container]) => {
                let id = self.container(namespace, pod, container)?;
                let exec = *verb == "exec";
                self.session(exec, &id, &query, request).await
            }
            // Not a kubelet's: how the server has a volume's folder removed.
            (&Method::DELETE, ["localVolumes", folder]) => self.remove_volume((*folder).to_owned()).await,
            _ => Err(Refusal(StatusCode::NOT_FOUND, "404 page not found\n".into())),
        }
    }

    fn list(&self) -> Result<Response<Body>, Refusal> {
        let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self.pods.all()});
        Ok(json(&list))
    }

    async fn remove_volume(&self, folder: String) -> Result<Response<Body>, Refusal> {
        let (storage, name) = (Arc::clone(&self.local_storage), folder.clone());
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

    async fn logs(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
        query: &Query,
    ) -> Result<Response<Body>, Refusal> {
        let options = Options::parse(query, clock::now()).map_err(Refusal::bad)?;
        let not_found = |text| Refusal(StatusCode::NOT_FOUND, text);
        let pod = self.pods.find(namespace, name).ok_or_else(|| not_found(format!("pod {name:?} not found\n")))?;
        if !names(&pod).any(|n| n == container) {
            return Err(not_found(format!("container {container:?} not found in pod {name:?}\n")));
        }
        let id = logged(&pod, name, container, options.previous).map_err(Refusal::bad)?;
        let status = match self.runtime.container_status(&id).await {
            Ok(status) => status,
            Err(cri::Error::NotFound(_)) => {
                return Err(Refusal::bad(format!("unable to retrieve container logs for containerd://{id}")));
            }
            Err(error) => return Err(Refusal::internal(&error)),
        };
        let source = log_file::Container { id, runtime: self.runtime.clone() };
        let lines = match log_file::stream(status.log_path.as_ref(), &options, source).await {
            Ok(lines) => lines,
            Err(e) => {
                let text = format!("failed to try resolving symlinks in path {:?}: {e}", status.log_path);
                return Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, text));
            }
        };
        let stopped = self.stop.clone().cancelled_owned();
        let frames = lines.take_until(stopped).map(|piece| piece.map(Frame::data));
        let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok(response)
    }

    /// The running container of that name.
    fn container(&self, namespace: &str, name: &str, container: &str) -> Result<String, Refusal> {
        let pod = self.pods.find(namespace, name);
        let pod = pod.ok_or_else(|| Refusal(StatusCode::NOT_FOUND, "pod does not exist".into()))?;
        let id = statuses(&pod).find(|s| s.name == container).and_then(|s| s.container_id.as_deref()).map(bare_id);
        id.filter(|id| !id.is_empty())
            .map(str::to_owned)
            .ok_or_else(|| Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({container:?})")))
    }

    /// Connects a client that asks for a WebSocket with a command in a container, or with its main process.
    async fn session(
        &self,
        exec: bool,
        id: &str,
        query: &Query,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let asked = |key| query.first(key).is_some_and(|v| v == "1" || v == "true");
        let mut options =
            StreamOptions { stdin: asked("input"), stdout: asked("output"), stderr: asked("error"), tty: asked("tty") };
        // A terminal has one output.
        options.stderr &= !options.tty;
        if !options.stdin && !options.stdout && !options.stderr {
            return Err(Refusal::bad("you must specify at least 1 of stdin, stdout, stderr"));
        }
        let (response, protocol) = exec::accept(&request).map_err(Refusal::bad)?;
        let url = if exec {
            let command: Vec<String> = query.all("command").map(str::to_owned).collect();
            self.runtime.exec_url(id, &command, options).await
        } else {
            self.runtime.attach_url(id, options).await
        };
        let url = url.map_err(|e| Refusal::internal(&e))?;
        let runtime = exec::connect(&url, options).await.map_err(|e| Refusal::internal(&e))?;
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let moved = async {
                let client = hyper::upgrade::on(request).await.map_err(|e| e.to_string())?;
                exec::bridge(TokioIo::new(client), protocol, runtime).await.map_err(|e| e.to_string())
            };
            if let Some(Err(error)) = stop.run_until_cancelled(moved).await {
                tracing::debug!(error, "a stream to a container broke off");
            }
        });
        Ok(response.map(|()| body("")))
    }
}

fn body(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

fn json(value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(body(value.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn plain(text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
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

/// The container whose log is meant (`validateContainerLogStatus`).
fn logged(pod: &Pod, name: &str, container: &str, previous: bool) -> Result<String, String> {
    let Some(status) = statuses(pod).find(|s| s.name == container) else {
        return Err(format!("container {container:?} in pod {name:?} is not available"));
    };
    let ended = |state: &Option<ContainerState>| {
        let id = state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.container_id.clone().unwrap_or_default());
        id.map(|id| bare_id(&id).to_owned())
    };
    let last = ended(&status.last_state);
    let current = bare_id(status.container_id.as_deref().unwrap_or_default()).to_owned();
    let state = status.state.as_ref();
    let known = |id: Option<String>| id.filter(|id| !id.is_empty());
    if previous {
        return known(last)
            .ok_or_else(|| format!("previous terminated container {container:?} in pod {name:?} not found"));
    }
    if state.is_some_and(|s| s.running.is_some()) {
        return Ok(current);
    }
    if let Some(id) = ended(&status.state) {
        // When the next container could not be made, its state has no id.
        return known(Some(id))
            .or(known(last))
            .ok_or_else(|| format!("container {container:?} in pod {name:?} is terminated"));
    }
    if last.is_some() {
        return known(last).ok_or_else(|| format!("container {container:?} in pod {name:?} is terminated"));
    }
    let waits = format!("container {container:?} in pod {name:?} is waiting to start");
    Err(match state.and_then(|s| s.waiting.as_ref()).map(|w| w.reason.as_deref().unwrap_or_default()) {
        Some("ErrImagePull") => format!("{waits}: image can't be pulled"),
        Some("ImagePullBackOff") => format!("{waits}: trying and failing to pull image"),
        Some(reason) => format!("{waits}: {reason}"),
        None => format!("{waits} - no logs yet"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: serde_json::Value, previous: bool, expect: Result<&str, &str>) {
        let mut full = json!({"name": "c", "ready": false, "restartCount": 0, "image": "", "imageID": ""});
        full.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
        let pod = json!({"status": {"containerStatuses": [full]}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let found = logged(&pod, "p", "c", previous);
        assert_eq!(found.as_deref().map_err(String::as_str), expect);
    }

    #[test]
    fn the_log_of_the_right_container_is_found() {
        let running = json!({"containerID": "containerd://two", "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 1, "containerID": "containerd://one"}}});
        check(running.clone(), false, Ok("two"));
        check(running, true, Ok("one"));
        let crashed = json!({"containerID": "containerd://one", "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "containerID": "containerd://one"}}});
        check(crashed.clone(), false, Ok("one"));
        check(crashed, true, Ok("one"));
        let done = json!({"state": {"terminated": {"exitCode": 0, "containerID": "containerd://one"}}});
        check(done.clone(), false, Ok("one"));
        check(done, true, Err("previous terminated container \"c\" in pod \"p\" not found"));
        let waiting = |reason: &str| json!({"state": {"waiting": {"reason": reason}}});
        let text = "container \"c\" in pod \"p\" is waiting to start: ContainerCreating";
        check(waiting("ContainerCreating"), false, Err(text));
        let text = "container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image";
        check(waiting("ImagePullBackOff"), false, Err(text));
        check(json!({}), false, Err("container \"c\" in pod \"p\" is waiting to start - no logs yet"));
    }
}
