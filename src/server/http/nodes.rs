//! Effects: requests that a node answers: logs of a container, and streams into one. The server finds the node's
//! kubelet endpoint, shows its own client certificate there and passes bytes through.

use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use tokio_util::sync::CancellationToken;

use super::admit;
use super::body::{self, Body};
pub use super::dial::Nodes;
use super::dial::{Endpoint, Security};
use super::service::Call;
use crate::api::field::{FieldError, Path};
use crate::api::object::ObjectRef;
use crate::api::query::Query;
use crate::api::resource::{self, Resource};
use crate::api::status::{Cause, Details, Status};
use crate::server::authz;
use crate::server::registry::request::Target;

/// How much of a node's error text is shown, in bytes.
const ERROR_TEXT_MAX: usize = 2048;
/// Where the kubelet endpoint listens unless the Node says otherwise.
const KUBELET_PORT: i32 = 10250;
/// Headers of a WebSocket or SPDY handshake; everything else (the client's credentials above all) stays here.
const HANDSHAKE: [HeaderName; 7] = [
    CONNECTION,
    UPGRADE,
    http::header::SEC_WEBSOCKET_KEY,
    http::header::SEC_WEBSOCKET_VERSION,
    http::header::SEC_WEBSOCKET_PROTOCOL,
    http::header::SEC_WEBSOCKET_EXTENSIONS,
    HeaderName::from_static("x-stream-protocol-version"),
];

/// What is to be passed to a node as it is: its kubelet endpoint knows how to answer.
struct Onward {
    path: String,
    /// Named by the request, or the only one.
    endpoint: Endpoint,
}

/// `GET pods/x/log`.
pub(super) async fn log(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let pods = call.pods()?;
    check_log_options(pods, &call.info.name, call.query)?;
    let pod: Pod = call.stored(pods, &call.info.namespace, &call.info.name).await?;
    let container = chosen_container(&pod, call.query.first("container").unwrap_or_default())?;
    let Some(endpoint) = call.kubelet(&pod).await? else {
        // Not scheduled yet: nothing was logged.
        return Ok(plain(StatusCode::OK, body::empty()));
    };
    let mut params = Params::default();
    for name in ["follow", "previous", "timestamps"] {
        if call.query.flag(name).unwrap_or(false) {
            params.add(name, "true");
        }
    }
    for name in ["sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"] {
        if let Some(value) = call.query.first(name).filter(|v| !v.is_empty()) {
            params.add(name, value);
        }
    }
    let path = format!("/containerLogs/{}/{}/{container}{}", call.info.namespace, call.info.name, params.0);
    let get = format!("Get \"https://{}{path}\"", endpoint.address);
    let request = Request::get(path).header(HOST, &endpoint.address).body(body::empty()).map_err(Status::internal)?;
    let response = call.backend.nodes.send(&endpoint, request).await;
    let response = response.map_err(|why| Status::new(500, "", format!("{get}: {why}")))?;
    if response.status().is_success() {
        let stop = call.backend.stop.clone();
        return Ok(plain(StatusCode::OK, until(response.into_body(), stop)));
    }
    let code = response.status();
    let text = error_text(response.into_body()).await;
    Err(match code {
        StatusCode::BAD_REQUEST => Status::bad_request(text),
        StatusCode::NOT_FOUND => Status::new(404, "NotFound", text),
        _ => Status::internal(text),
    })
}

/// `pods/x/exec`, `pods/x/attach` and `pods/x/portforward`: an upgraded connection, passed through byte for byte.
pub(super) async fn connect(call: &Call<'_>, mut request: Request<Body>) -> Result<Response<Body>, Status> {
    if call.query.first("dryRun").is_some() {
        return Err(Status::bad_request("dryRun is not supported"));
    }
    if call.method == Method::GET {
        // A WebSocket starts as a GET, yet running something is more than reading: `create` is asked for as well
        // (AuthorizePodWebsocketUpgradeCreatePermission, on since v1.35).
        let attributes = authz::ResourceAttributes { verb: "create", ..call.resource_attributes() };
        call.backend.authorizer.check(&call.cx.user, &authz::Attributes::Resource(attributes))?;
    }
    admit::connection(call).await?;
    let Onward { path, endpoint } = onward(call).await?;
    if !call.headers.contains_key(UPGRADE) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let mut onward = Request::builder().method(call.method).uri(path).header(HOST, &endpoint.address);
    for name in HANDSHAKE {
        for value in call.headers.get_all(&name) {
            onward = onward.header(&name, value);
        }
    }
    let nodes = &call.backend.nodes;
    let response = nodes.send(&endpoint, onward.body(body::empty()).map_err(Status::internal)?).await;
    let mut response = response.map_err(|why| Status::new(500, "", format!("error dialing backend: {why}")))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // As it is: kubectl puts "unable to upgrade connection" before a text.
        let code = response.status();
        return Ok(plain(code, body::full(error_text(response.into_body()).await)));
    }
    let (theirs, ours) = (hyper::upgrade::on(&mut response), hyper::upgrade::on(&mut request));
    nodes.splice(ours, theirs, call.backend.stop.clone());
    let mut answer = Response::new(body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for name in HANDSHAKE.iter().chain([&http::header::SEC_WEBSOCKET_ACCEPT]) {
        for value in response.headers().get_all(name) {
            answer.headers_mut().append(name, value.clone());
        }
    }
    Ok(answer)
}

/// Where a stream leads, and what the node is asked.
async fn onward(call: &Call<'_>) -> Result<Onward, Status> {
    let info = call.info;
    let pod: Pod = call.stored(call.pods()?, &info.namespace, &info.name).await?;
    let mut params = Params::default();
    let of = format!("{}/{}", info.namespace, info.name);
    let path = if info.subresource == "portforward" {
        let ports: Vec<&str> = call.query.all("ports").collect();
        if !ports.is_empty() {
            params.add("port", &ports.join(","));
        }
        format!("/portForward/{of}")
    } else {
        let container = chosen_container(&pod, call.query.first("container").unwrap_or_default())?;
        for command in call.query.all("command") {
            params.add("command", command);
        }
        for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
            if call.query.flag(ours).unwrap_or(false) {
                params.add(theirs, "1");
            }
        }
        format!("/{}/{of}/{container}", info.subresource)
    };
    let Some(endpoint) = call.kubelet(&pod).await? else {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", info.name)));
    };
    Ok(Onward { path: path + &params.0, endpoint })
}

impl Call<'_> {
    pub(super) fn pods(&self) -> Result<&'static Resource, Status> {
        resource::find("", "v1", "pods").ok_or_else(Status::no_such_resource)
    }

    pub(super) async fn stored<T: serde::de::DeserializeOwned>(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<T, Status> {
        let target = Target { resource, namespace: namespace.into(), name: name.into(), subresource: "" };
        let object: ObjectRef = self.backend.registry.get(self.cx, &target).await?;
        object.typed().map_err(Status::internal)
    }

    /// The kubelet endpoint where a pod runs; `None` when it is not scheduled yet.
    async fn kubelet(&self, pod: &Pod) -> Result<Option<Endpoint>, Status> {
        let name = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default();
        if name.is_empty() {
            return Ok(None);
        }
        self.kubelet_of(name).await.map(|kubelet| Some(kubelet.endpoint()))
    }

    pub(super) async fn kubelet_of(&self, name: &str) -> Result<Kubelet, Status> {
        let nodes = resource::find("", "v1", "nodes").ok_or_else(Status::no_such_resource)?;
        let node: Node = self.stored(nodes, "", name).await?;
        let found = address(&node).map(|(host, port)| Kubelet { node: name.to_owned(), host, port });
        found.ok_or_else(|| {
            Status::internal(format!("no preferred addresses found; known addresses: [] of node {name:?}"))
        })
    }
}

/// One node's kubelet endpoint.
pub(super) struct Kubelet {
    /// Node name: what its serving certificate must be for.
    node: String,
    pub host: String,
    pub port: i32,
}

impl Kubelet {
    pub fn endpoint(&self) -> Endpoint {
        let address = join(&self.host, &self.port.to_string());
        Endpoint { address, security: Security::Node(self.node.clone()) }
    }
}

/// `host:port`, with brackets around IPv6 addresses.
pub(super) fn join(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn address(node: &Node) -> Option<(String, i32)> {
    let status = node.status.as_ref()?;
    let addresses = status.addresses.as_deref().unwrap_or_default();
    let host = ["InternalIP", "ExternalIP", "InternalDNS", "Hostname"]
        .iter()
        .find_map(|kind| addresses.iter().find(|a| a.type_ == **kind).map(|a| a.address.as_str()))?;
    let port = status.daemon_endpoints.as_ref().and_then(|d| d.kubelet_endpoint.as_ref()).map_or(0, |e| e.port);
    Some((host.to_owned(), if port == 0 { KUBELET_PORT } else { port }))
}

fn chosen_container(pod: &Pod, asked: &str) -> Result<String, Status> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let Some(spec) = &pod.spec else { return Err(Status::internal("the pod has no spec")) };
    let names = |containers: &[Container]| containers.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    let main = names(&spec.containers);
    let init = names(spec.init_containers.as_deref().unwrap_or_default());
    let ephemeral = spec.ephemeral_containers.as_deref().unwrap_or_default();
    if !asked.is_empty() {
        let known = main.iter().chain(&init).any(|n| n == asked) || ephemeral.iter().any(|c| c.name == asked);
        return if known {
            Ok(asked.into())
        } else {
            Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")))
        };
    }
    match main.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        many => {
            let mut message =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", many.join(" "));
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(message))
        }
    }
}

/// `ValidatePodLogOptions`.
fn check_log_options(pods: &Resource, name: &str, query: &Query) -> Result<(), Status> {
    let number = |key| query.integer(key).map_err(Status::bad_request);
    let (tail, limit, since) = (number("tailLines")?, number("limitBytes")?, number("sinceSeconds")?);
    let since_time = query.first("sinceTime").filter(|t| !t.is_empty());
    let mut errors = Vec::new();
    let mut least = |key: &str, value: Option<i64>, least: i64, why: &str| {
        if let Some(n) = value.filter(|n| *n < least) {
            errors.push(FieldError::invalid(&Path::new(key), &n, why));
        }
    };
    least("tailLines", tail, 0, "must be greater than or equal to 0");
    least("limitBytes", limit, 1, "must be greater than 0");
    if since_time.is_none() {
        least("sinceSeconds", since, 1, "must be greater than 0");
    } else if since.is_some() {
        let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(FieldError::forbidden(&Path::default(), why));
    }
    if let Some(text) = since_time
        && text.parse::<jiff::Timestamp>().is_err()
    {
        return Err(Status::bad_request(format!("parsing time {text:?} as RFC 3339 failed")));
    }
    if errors.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = errors.iter().map(FieldError::to_string).collect();
    let list = if let [one] = all.as_slice() { one.clone() } else { format!("[{}]", all.join(", ")) };
    let causes = errors
        .iter()
        .map(|e| Cause { reason: e.reason.cause().into(), message: e.message.clone(), field: e.path.to_string() })
        .collect();
    let details = Details {
        name: name.into(),
        group: pods.group.into(),
        kind: "PodLogOptions".into(),
        causes,
        ..Details::default()
    };
    Err(Status::new(422, "Invalid", format!("PodLogOptions {name:?} is invalid: {list}")).with_details(details))
}

/// A query string under construction.
#[derive(Default)]
struct Params(String);

impl Params {
    fn add(&mut self, key: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => self.0.push(char::from(byte)),
                _ => self.0.push_str(&format!("%{byte:02X}")),
            }
        }
    }
}

fn plain(code: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// A body that also ends when the server stops.
pub(super) fn until(body: Incoming, stop: CancellationToken) -> Body {
    use futures::StreamExt;
    let frames = http_body_util::BodyStream::new(body).map(|frame| frame.map_err(Into::into));
    http_body_util::StreamBody::new(frames.take_until(stop.cancelled_owned())).boxed_unsync()
}

async fn error_text(body: Incoming) -> String {
    let limited = http_body_util::Limited::new(body, ERROR_TEXT_MAX);
    match limited.collect().await {
        Ok(collected) => String::from_utf8_lossy(&collected.to_bytes()).trim_end().to_owned(),
        Err(e) => format!("unable to read error from server response: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).expect("a pod")
    }

    #[test]
    fn container_must_be_named_when_there_are_several() {
        let one = pod(json!({"containers": [{"name": "a"}]}));
        assert_eq!(chosen_container(&one, ""), Ok("a".into()));
        let two = pod(json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}));
        let message = |asked| chosen_container(&two, asked).unwrap_err().message().to_owned();
        assert_eq!(
            message(""),
            "a container name must be specified for pod web, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(message("c"), "container c is not valid for pod web");
        assert_eq!(chosen_container(&two, "i"), Ok("i".into()));
    }

    #[test]
    fn kubelet_endpoint_comes_from_the_node() {
        let node = |status| serde_json::from_value::<Node>(json!({"status": status})).expect("a node");
        let full = node(json!({
            "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.0.0.2"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10260}},
        }));
        let at = |node| address(&node).map(|(host, port)| join(&host, &port.to_string()));
        assert_eq!(at(full).as_deref(), Some("10.0.0.2:10260"));
        let v6 = node(json!({"addresses": [{"type": "InternalIP", "address": "fd00::2"}]}));
        assert_eq!(at(v6).as_deref(), Some("[fd00::2]:10250"));
        assert_eq!(address(&node(json!({}))), None);
    }

    #[test]
    fn log_options_are_refused_in_upstreams_words() {
        let pods = resource::find("", "v1", "pods").expect("a row");
        let refused = |q| check_log_options(pods, "web", &Query::parse(q)).unwrap_err().message().to_owned();
        assert_eq!(
            refused("tailLines=-1"),
            "PodLogOptions \"web\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"
        );
        assert!(refused("sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z").contains("at most one of"));
        assert!(check_log_options(pods, "web", &Query::parse("tailLines=0&limitBytes=1&sinceSeconds=1")).is_ok());
    }
}
