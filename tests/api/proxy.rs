//! The `proxy` subresources: what reaches the other side, and what of its answer reaches the client. Every address leads
//! to one server of the test.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use skiff::api::user::User;
use skiff::server::http::nodes::Nodes;
use skiff::server::http::service::{Identity, Peer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::subresources::{PODS, pod};
use crate::{Answer, Server};

const MERGE: &str = "application/merge-patch+json";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

type Reply = Response<BoxBody<Bytes, Infallible>>;

fn reply(code: StatusCode, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    let mut response = Response::builder().status(code);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Full::new(body.into()).boxed()).unwrap()
}

/// Says what it was asked; some paths have answers of their own.
async fn answer(mut request: Request<Incoming>) -> Result<Reply, Infallible> {
    let page = [("content-type", "text/html; charset=utf-8")];
    Ok(match request.uri().path() {
        "/redirect" => reply(StatusCode::FOUND, &[("location", "/elsewhere?x=1")], ""),
        "/page" => reply(StatusCode::OK, &page, "<a href=\"/next\">next</a><a href=\"near\">near</a>"),
        "/headers" => {
            let said = [
                ("access-control-allow-origin", "*"),
                ("keep-alive", "5"),
                ("cache-control", "max-age=5"),
                ("x-own", "1"),
            ];
            reply(StatusCode::IM_A_TEAPOT, &said, "short and stout")
        }
        "/pieces" => {
            let pieces = (0..3).map(|i| Ok(Frame::data(Bytes::from(format!("piece {i}\n")))));
            Response::new(StreamBody::new(futures::stream::iter(pieces)).boxed())
        }
        "/chat" if request.headers().contains_key("upgrade") => {
            let upgraded = hyper::upgrade::on(&mut request);
            // Its task ends with the connection.
            let mut tasks = JoinSet::new();
            tasks.spawn(async move {
                let mut stream = TokioIo::new(upgraded.await.unwrap());
                let mut word = [0; 4];
                stream.read_exact(&mut word).await.unwrap();
                stream.write_all(&word.map(|b| b.to_ascii_uppercase())).await.unwrap();
            });
            tasks.detach_all();
            let said = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-protocol", "chat")];
            reply(StatusCode::SWITCHING_PROTOCOLS, &said, "")
        }
        "/no-chat" => reply(StatusCode::OK, &[], "no"),
        _ => {
            let headers: Value = request
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
                .collect::<serde_json::Map<_, _>>()
                .into();
            let (method, uri) = (request.method().to_string(), request.uri().to_string());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let said =
                json!({"method": method, "uri": uri, "headers": headers, "body": String::from_utf8_lossy(&body)});
            reply(StatusCode::OK, &[("content-type", "application/json")], said.to_string())
        }
    })
}

/// A server, and the other side of all its proxies.
struct Lab {
    server: Server,
    _behind: JoinSet<()>,
    dialed: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Lab {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let mut behind = JoinSet::new();
        behind.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let builder = hyper::server::conn::http1::Builder::new();
                    let _ = builder.serve_connection(TokioIo::new(stream), service_fn(answer)).with_upgrades().await;
                });
            }
        });
        Self::leading_to(at, behind).await
    }

    async fn leading_to(at: SocketAddr, behind: JoinSet<()>) -> Self {
        let dialed: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
        let seen = dialed.clone();
        let nodes = Nodes::new(skiff::pki::tls::unverified().unwrap()).through(Arc::new(move |address| {
            seen.lock().unwrap().push(address);
            Box::pin(TcpStream::connect(at))
        }));
        let server = Server::with(nodes).await;
        let account = json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default"}});
        assert_eq!(server.post("/api/v1/namespaces/default/serviceaccounts", &account).await.code, 201);
        let lab = Self { server, _behind: behind, dialed };
        lab.pod("web", "10.42.0.5").await;
        lab
    }

    async fn pod(&self, name: &str, ip: &str) {
        let mut pod = pod(name);
        pod["spec"]["nodeName"] = json!("n1");
        pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 8080}]);
        assert_eq!(self.server.post(PODS, &pod).await.code, 201);
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
        let written = self.server.patch(&format!("{PODS}/{name}/status"), MERGE, &status).await;
        assert_eq!(written.code, 200, "{}", written.text);
    }

    async fn node(&self, name: &str, address: &str) {
        let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name}});
        assert_eq!(self.server.post("/api/v1/nodes", &node).await.code, 201);
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
        assert_eq!(self.server.patch(&format!("/api/v1/nodes/{name}/status"), MERGE, &status).await.code, 200);
    }

    fn last_dialed(&self) -> String {
        self.dialed.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

fn header(said: &Answer, name: &str) -> String {
    said.json()["headers"][name].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_request_reaches_a_pod_as_it_was_sent() {
    let lab = Lab::new().await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let uri = format!("{PODS}/web/proxy/a/b?q=1&q=%2F");
        let headers = [
            ("host", "server:6443"),
            ("authorization", "Bearer secret"),
            ("impersonate-user", "x"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("x-mine", "2"),
        ];
        let body = if method == "GET" { "" } else { "text" };
        let said = lab.server.ask(method, &uri, &headers, body).await;
        assert_eq!(said.code, 200, "{method}: {}", said.text);
        assert_eq!(
            (&said.json()["method"], &said.json()["uri"], &said.json()["body"]),
            (&json!(method), &json!("/a/b?q=1&q=%2F"), &json!(body))
        );
        for (name, expect) in [
            ("host", "server:6443"),
            ("x-forwarded-uri", &format!("{PODS}/web/proxy/a/b")),
            ("x-mine", "2"),
            ("authorization", ""),
            ("impersonate-user", ""),
            ("x-hop", ""),
        ] {
            assert_eq!(header(&said, name), expect, "{method} {name}");
        }
        assert_eq!(lab.last_dialed(), "10.42.0.5:8080");
    }
    let head = lab.server.ask("HEAD", &format!("{PODS}/web/proxy/page"), &[], "").await;
    assert_eq!((head.code, head.text.as_str()), (200, ""));
    for (name, expect) in [("web:9090", "10.42.0.5:9090"), ("http:web:", "10.42.0.5:8080")] {
        assert_eq!(lab.server.get(&format!("{PODS}/{name}/proxy/")).await.code, 200, "{name}");
        assert_eq!(lab.last_dialed(), expect);
    }
    let climbing = lab.server.get(&format!("{PODS}/web/proxy/a/../../../b/")).await;
    assert_eq!(climbing.json()["uri"], "/b/");
}

#[tokio::test]
async fn who_asked_is_told() {
    let lab = Lab::new().await;
    let peer = Peer { address: "192.0.2.7:1234".parse().unwrap(), certificate: None };
    let request = Request::get(format!("{PODS}/web/proxy/x"))
        .header("x-forwarded-for", "198.51.100.1")
        .extension(peer)
        .extension(Identity(lab.server.user.clone().unwrap()))
        .body(skiff::server::http::body::empty())
        .unwrap();
    let response = lab.server.service.respond(request).await;
    let said: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(said["headers"]["x-forwarded-for"], "198.51.100.1, 192.0.2.7");
}

#[tokio::test]
async fn answers_lead_back_through_the_proxy() {
    let lab = Lab::new().await;
    let at = |path: &str| format!("{PODS}/web/proxy{path}");
    let slash = lab.server.get(&at("?q=1")).await;
    assert_eq!((slash.code, slash.headers["location"].to_str().unwrap()), (301, at("/?q=1").as_str()));
    assert_eq!(lab.server.post(&at(""), &json!({})).await.code, 200, "what is sent is not redirected");

    let redirect = lab.server.get(&at("/redirect")).await;
    assert_eq!((redirect.code, redirect.headers["location"].to_str().unwrap()), (302, at("/elsewhere?x=1").as_str()));
    let page = lab.server.get(&at("/page")).await;
    assert_eq!(page.text, format!("<a href=\"{}\">next</a><a href=\"near\">near</a>", at("/next")));
    assert!(!page.headers.contains_key("content-length"));

    let said = lab.server.get(&at("/headers")).await;
    assert_eq!((said.code, said.text.as_str(), said.headers["x-own"].to_str().unwrap()), (418, "short and stout", "1"));
    for name in ["access-control-allow-origin", "keep-alive"] {
        assert!(!said.headers.contains_key(name), "{name}");
    }
    let kept: Vec<_> = said.headers.get_all("cache-control").iter().collect();
    assert_eq!(kept, ["no-cache, private", "max-age=5"]);
    assert_eq!(lab.server.get(&at("/pieces")).await.text, "piece 0\npiece 1\npiece 2\n");
}

#[tokio::test]
async fn a_service_is_one_of_its_ready_pods() {
    let lab = Lab::new().await;
    let uri = |name: &str| format!("{SERVICES}/{name}/proxy/x");
    let refused = async |name: &str, code: u16, message: &str| {
        let refused = lab.server.get(&uri(name)).await;
        assert_eq!((refused.code, refused.message().as_str()), (code, message), "{name}");
    };
    refused("web", 404, "services \"web\" not found").await;
    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "web"},
        "spec": {"ports": [{"name": "main", "port": 80}, {"name": "other", "port": 81}]}});
    assert_eq!(lab.server.post(SERVICES, &service).await.code, 201);
    refused("web:main", 503, "no endpoints available for service \"web:main\"").await;
    refused("web:82", 503, "no service port 82 found for service \"web\"").await;
    refused("ftp:web:main", 400, "invalid service request \"ftp:web:main\"").await;

    let of = |name: &str| json!({"kind": "Pod", "name": name, "namespace": "default"});
    let slice = json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
    "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
    "ports": [{"name": "main", "port": 8080}],
    "endpoints": [
        {"addresses": ["10.42.0.5"], "conditions": {"ready": true}, "targetRef": of("web")},
        {"addresses": ["10.42.0.6"], "conditions": {"ready": false}, "targetRef": of("web")},
        // Someone means to lead the server elsewhere.
        {"addresses": ["10.0.0.99"], "conditions": {"ready": true}, "targetRef": of("web")},
        {"addresses": ["10.0.0.98"], "conditions": {"ready": true}},
    ]});
    let made = lab.server.post(SLICES, &slice).await;
    assert_eq!(made.code, 201, "{}", made.text);
    for name in ["web:main", "web:80", "http:web:main"] {
        for _ in 0..8 {
            assert_eq!(lab.server.get(&uri(name)).await.code, 200, "{name}");
            assert_eq!(lab.last_dialed(), "10.42.0.5:8080");
        }
    }
    refused("web", 503, "no endpoints available for service \"web\"").await;
    refused("web:other", 503, "no endpoints available for service \"web:other\"").await;
}

#[tokio::test]
async fn nodes_are_reached_on_other_ports_unless_they_are_this_machine() {
    let lab = Lab::new().await;
    lab.node("n1", "10.1.2.3").await;
    lab.node("local", "127.0.0.1").await;
    let said = lab.server.get("/api/v1/nodes/n1:9100/proxy/metrics").await;
    assert_eq!((said.code, lab.last_dialed().as_str()), (200, "10.1.2.3:9100"), "{}", said.text);
    assert_eq!(header(&said, "x-forwarded-uri"), "/api/v1/nodes/n1:9100/proxy/metrics");
    let refused = lab.server.get("/api/v1/nodes/local:22/proxy/").await;
    assert_eq!((refused.code, refused.message().as_str()), (400, "address not allowed"));
    assert_eq!(lab.server.get("/api/v1/nodes/none/proxy/").await.message(), "nodes \"none\" not found");
    lab.pod("local", "127.0.0.1").await;
    lab.pod("link", "169.254.169.254").await;
    for name in ["local", "link"] {
        let refused = lab.server.get(&format!("{PODS}/{name}/proxy/")).await;
        assert_eq!((refused.code, refused.message().as_str()), (400, "address not allowed"), "{name}");
    }
}

/// The other side is the kubelet endpoint of node `n1`, which speaks TLS and is shown the server's certificate.
async fn with_kubelet() -> Lab {
    let signed = rcgen::generate_simple_self_signed(["n1".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()).into();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let mut behind = JoinSet::new();
    behind.spawn(async move {
        loop {
            let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            assert_eq!(stream.get_ref().1.server_name(), Some("n1"));
            let builder = hyper::server::conn::http1::Builder::new();
            let _ = builder.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        }
    });
    let lab = Lab::leading_to(at, behind).await;
    lab.node("n1", "10.1.2.3").await;
    lab
}

#[tokio::test]
async fn a_node_without_a_port_is_its_kubelet() {
    let lab = with_kubelet().await;
    for name in ["n1", "n1:10250", "https:n1:10250"] {
        let said = lab.server.get(&format!("/api/v1/nodes/{name}/proxy/healthz?verbose")).await;
        assert_eq!((said.code, &said.json()["uri"]), (200, &json!("/healthz?verbose")), "{name}: {}", said.text);
        assert_eq!(lab.last_dialed(), "10.1.2.3:10250");
    }
}

#[tokio::test]
async fn ports_are_forwarded_by_the_node_of_the_pod() {
    let mut lab = with_kubelet().await;
    let uri = format!("{PODS}/web/portforward");
    let upgrade =
        [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "portforward.k8s.io")];
    // This kubelet upgrades nothing, and its answer is passed on.
    let said = lab.server.ask("POST", &format!("{uri}?ports=80&ports=81"), &upgrade, "").await;
    assert_eq!(said.json()["uri"], "/portForward/default/web?port=80%2C81");
    assert_eq!(header(&said, "x-stream-protocol-version"), "portforward.k8s.io");
    let said = lab.server.ask("GET", &uri, &upgrade, "").await;
    assert_eq!(said.json()["uri"], "/portForward/default/web");
    assert_eq!(lab.last_dialed(), "10.1.2.3:10250");
    let plain = lab.server.get(&uri).await;
    assert_eq!((plain.code, plain.message().as_str()), (400, "Upgrade request required"));
    assert_eq!(lab.server.post(PODS, &pod("waiting")).await.code, 201);
    let waiting = lab.server.ask("POST", &format!("{PODS}/waiting/portforward"), &upgrade, "").await;
    assert_eq!((waiting.code, waiting.message().as_str()), (400, "pod waiting does not have a host assigned"));
    let dry = lab.server.ask("POST", &format!("{uri}?dryRun=All"), &upgrade, "").await;
    assert_eq!(dry.message(), "dryRun is not supported");
    lab.server.user = Some(User::new("jane", &["system:authenticated"]));
    let refused = lab.server.ask("GET", &uri, &upgrade, "").await;
    assert!(refused.message().contains("cannot get resource \"pods/portforward\""), "{}", refused.text);
}

#[tokio::test]
async fn what_cannot_be_reached_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    drop(listener);
    let lab = Lab::leading_to(at, JoinSet::new()).await;
    let refused = lab.server.get(&format!("{PODS}/web/proxy/x")).await;
    assert_eq!(
        refused.json(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 503,
            "reason": "ServiceUnavailable",
            "message": "error trying to reach service: dial tcp 10.42.0.5:8080: connect: connection refused"})
    );
    let upgrade = [("connection", "Upgrade"), ("upgrade", "websocket")];
    let refused = lab.server.ask("GET", &format!("{PODS}/web/proxy/chat"), &upgrade, "").await;
    assert_eq!(
        (refused.code, refused.message().as_str()),
        (500, "error dialing backend: dial tcp 10.42.0.5:8080: connect: connection refused")
    );
    let dry = lab.server.get(&format!("{PODS}/web/proxy/x?dryRun=All")).await;
    assert_eq!((dry.code, dry.message().as_str()), (400, "dryRun is not supported"));
    assert_eq!(lab.server.ask("TRACE", &format!("{PODS}/web/proxy/x"), &[], "").await.code, 405);
}

#[tokio::test]
async fn websockets_pass_through() {
    let lab = Lab::new().await;
    let refused = [("connection", "Upgrade"), ("upgrade", "websocket")];
    let refused = lab.server.ask("GET", &format!("{PODS}/web/proxy/no-chat"), &refused, "").await;
    assert_eq!((refused.code, refused.message().as_str()), (500, "invalid upgrade response: status code 200"));

    // Only a real connection can be upgraded.
    let (mut client, theirs) = tokio::io::duplex(4096);
    let (service, user) = (lab.server.service.clone(), lab.server.user.clone().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let respond = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Identity(user.clone()));
            let service = service.clone();
            let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            async move { Ok::<_, Infallible>(service.respond(request).await) }
        });
        let builder = hyper::server::conn::http1::Builder::new();
        let _ = builder.serve_connection(TokioIo::new(theirs), respond).with_upgrades().await;
    });
    let handshake = format!(
        "GET {PODS}/web/proxy/chat?x HTTP/1.1\r\nhost: s\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-protocol: chat\r\nauthorization: Bearer x\r\n\r\n"
    );
    client.write_all(handshake.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("sec-websocket-protocol: chat\r\n"), "{head}");
    client.write_all(b"ping").await.unwrap();
    let mut said = [0; 4];
    client.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"PING");
}

#[tokio::test]
async fn the_right_follows_from_the_method() {
    let mut lab = Lab::new().await;
    lab.server.user = Some(User::new("jane", &["system:authenticated"]));
    for (method, verb) in [
        ("GET", "get"),
        ("HEAD", "get"),
        ("POST", "create"),
        ("PUT", "update"),
        ("PATCH", "patch"),
        ("DELETE", "delete"),
    ] {
        let refused = lab.server.ask(method, &format!("{PODS}/web:80/proxy/x"), &[("user-agent", "x")], "").await;
        assert_eq!(refused.code, 403, "{method}");
        let expect = format!(
            "pods \"web:80\" is forbidden: User \"jane\" cannot {verb} resource \"pods/proxy\" in API group \"\" in the \
             namespace \"default\""
        );
        if method != "HEAD" {
            assert_eq!(refused.message(), expect);
        }
    }
    assert_eq!(lab.last_dialed(), "", "nobody was asked");
}
