//! Extension servers: a real HTTPS server in this process, which only answers the API server's front proxy, and what
//! clients of the API see of it.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use skiff::api::user::User;
use skiff::pki::live::{Live, Loaded};
use skiff::pki::tls;
use skiff::server::aggregation::{API_SERVICES, follow};
use skiff::server::http::body::{self, Body};
use skiff::server::http::nodes::Nodes;
use skiff::server::http::service::Identity;
use skiff::server::http::{Service, client};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{Answer, Server};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const THINGS: &str = "/apis/ext.example.com/v1/namespaces/default/things";
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

type Lines = Arc<Mutex<Option<mpsc::Receiver<Bytes>>>>;

/// How an extension server speaks of itself.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Speaks {
    Aggregated,
    /// The older form only.
    Legacy,
}

#[derive(Clone)]
struct Behind {
    speaks: Speaks,
    /// What answers instead, if anything does: a whole API.
    api: Option<Service>,
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    /// The events of the one watch.
    events: Lines,
}

/// A server, and an extension server that it may pass requests on to.
pub(crate) struct Lab {
    pub server: Server,
    port: u16,
    ca_bundle: String,
    behind: Behind,
    events: mpsc::Sender<Bytes>,
    pub listening: JoinSet<()>,
    _following: JoinSet<()>,
}

fn reply(code: StatusCode, said: &Value) -> Response<Body> {
    let mut response = Response::new(body::full(said.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

fn resources() -> Value {
    json!([{"resource": "things", "singularResource": "thing", "scope": "Namespaced", "verbs": ["get", "list"],
        "responseKind": {"group": "ext.example.com", "version": "v1", "kind": "Thing"}}])
}

async fn answer(mut request: Request<Incoming>, behind: Behind) -> Result<Response<Body>, hyper::Error> {
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    behind.seen.lock().unwrap().push((request.uri().to_string(), request.headers().clone()));
    if let Some(api) = &behind.api {
        let (mut parts, text) = request.into_parts();
        let text = text.collect().await?.to_bytes();
        // Whom it believes, and what they may, is shown by others.
        parts.extensions.insert(Identity(User::new("admin", &["system:masters"])));
        return Ok(api.respond(Request::from_parts(parts, body::full(text))).await);
    }
    let accept = request.headers().get("accept").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    Ok(match path.as_str() {
        "/apis" if behind.speaks == Speaks::Aggregated && accept.contains("APIGroupDiscoveryList") => reply(
            StatusCode::OK,
            &json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": [
                {"metadata": {"name": "ext.example.com"}, "versions": [{"version": "v1", "resources": resources()}]}]}),
        ),
        "/apis" => reply(StatusCode::NOT_ACCEPTABLE, &json!({})),
        "/apis/ext.example.com/v1" => reply(
            StatusCode::OK,
            &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "ext.example.com/v1", "resources": [
                {"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing", "verbs": ["get", "list"]}]}),
        ),
        "/openapi/v3" => {
            let url = "/openapi/v3/apis/ext.example.com/v1?hash=AB";
            reply(
                StatusCode::OK,
                &json!({"paths": {
                "apis/ext.example.com/v1": {"serverRelativeURL": url}, "version": {"serverRelativeURL": "/no"}}}),
            )
        }
        "/openapi/v3/apis/ext.example.com/v1" => reply(StatusCode::OK, &json!({"openapi": "3.0.0", "of": "theirs"})),
        "/openapi/v2" => reply(
            StatusCode::OK,
            &json!({"swagger": "2.0", "paths": {
                "/apis/ext.example.com/v1/things": {"get": {"schema": {"$ref": "#/definitions/io.k8s.api.core.v1.Pod"}}}},
                "definitions": {"io.k8s.api.core.v1.Pod": {"type": "string"}}}),
        ),
        THINGS if query.contains("watch") => {
            let events = behind.events.lock().unwrap().take().unwrap();
            Response::new(StreamBody::new(events.map(|line| Ok(Frame::data(line)))).boxed_unsync())
        }
        _ if path.ends_with("/exec") => {
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
            let mut response = reply(StatusCode::SWITCHING_PROTOCOLS, &json!(null));
            *response.body_mut() = body::empty();
            for (name, value) in [("connection", "Upgrade"), ("upgrade", "websocket")] {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        }
        _ => {
            let method = request.method().to_string();
            let text = request.into_body().collect().await?.to_bytes();
            reply(StatusCode::ACCEPTED, &json!({"method": method, "body": String::from_utf8_lossy(&text)}))
        }
    })
}

/// An authority of client certificates, and one that it has signed.
fn front_proxy() -> (rustls_pki_types::CertificateDer<'static>, Arc<Live>) {
    let key = || rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let (ca_key, leaf_key) = (key(), key());
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let signed = ca.self_signed(&ca_key).unwrap();
    let mut leaf = rcgen::CertificateParams::default();
    leaf.distinguished_name.push(rcgen::DnType::CommonName, "system:auth-proxy");
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = leaf.signed_by(&leaf_key, &rcgen::Issuer::from_params(&ca, &ca_key)).unwrap();
    let loaded = Loaded::parse(leaf.pem(), leaf_key.serialize_pem()).unwrap();
    (signed.der().clone(), Live::new(loaded))
}

impl Lab {
    async fn new(speaks: Speaks) -> Self {
        Self::with(speaks, None).await
    }

    async fn with(speaks: Speaks, api: Option<Service>) -> Self {
        let (authority, identity) = front_proxy();
        let pair = rcgen::generate_simple_self_signed(vec!["ext.default.svc".to_owned()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider()).build().unwrap();
        let config = rustls::ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![pair.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (events, lines) = mpsc::channel(4);
        let events_of_it = Arc::new(Mutex::new(Some(lines)));
        let behind = Behind { speaks, api, seen: Arc::default(), events: events_of_it };
        let (acceptor, served) = (TlsAcceptor::from(Arc::new(config)), behind.clone());
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), served.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let service = service_fn(|request| answer(request, behind.clone()));
                    let builder = hyper::server::conn::http1::Builder::new();
                    let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
                });
            }
        });
        let server = Server::of(Nodes::new(tls::unverified().unwrap()), 600, Some(identity)).await;
        let mut following = JoinSet::new();
        let asks = client(&server.service, User::new("system:apiserver", &["system:masters"]));
        let (aggregator, cache) = (server.aggregator.clone(), server.cache.clone());
        following.spawn(follow::follow(aggregator, cache, asks, CancellationToken::new()));
        let ca_bundle = STANDARD.encode(pair.cert.pem());
        Self { server, port, ca_bundle, behind, events, listening, _following: following }
    }

    /// With an extension server that can be reached.
    async fn reached(speaks: Speaks) -> Self {
        Self::registered(Self::new(speaks).await).await
    }

    /// With one behind which is a whole API.
    pub async fn before(api: Service) -> Self {
        Self::registered(Self::with(Speaks::Aggregated, Some(api)).await).await
    }

    async fn registered(lab: Self) -> Self {
        lab.service().await;
        lab.register(&lab.ca_bundle, "v1").await;
        lab.condition("v1", "Passed").await;
        lab
    }

    /// Loopback addresses are no endpoints to the API, so this Service is a name for another host.
    async fn service(&self) {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ext"},
            "spec": {"type": "ExternalName", "externalName": "localhost"}});
        assert_eq!(self.server.post("/api/v1/namespaces/default/services", &service).await.code, 201);
    }

    async fn register(&self, ca_bundle: &str, version: &str) {
        let service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": format!("{version}.ext.example.com")},
            "spec": {"group": "ext.example.com", "version": version, "groupPriorityMinimum": 17900, "versionPriority": 15,
                "caBundle": ca_bundle, "service": {"namespace": "default", "name": "ext", "port": self.port}}});
        let made = self.server.post(SERVICES, &service).await;
        assert_eq!(made.code, 201, "{}", made.text);
    }

    /// Waits until the condition `Available` has a reason, and returns it.
    pub async fn condition(&self, version: &str, reason: &str) -> Value {
        let path = format!("{SERVICES}/{version}.ext.example.com");
        let mut changes = self.server.cache.subscribe(API_SERVICES);
        let waited = async {
            loop {
                let service = self.server.get(&path).await.json();
                let found = service.pointer("/status/conditions/0");
                if let Some(found) = found.filter(|c| c["reason"] == reason) {
                    return found.clone();
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(DEADLINE, waited).await.expect("the condition in time")
    }

    /// The headers of the last request for a path.
    fn last(&self, path: &str) -> HeaderMap {
        let seen = self.behind.seen.lock().unwrap();
        seen.iter().rev().find(|(uri, _)| uri.starts_with(path)).expect("it was asked").1.clone()
    }
}

fn all(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
}

fn names(answer: &Answer, list: &str, name: &str) -> Vec<String> {
    let list = answer.json()[list].take();
    let items = list.as_array().unwrap_or_else(|| panic!("{}", answer.text)).iter();
    items.map(|i| i.pointer(name).unwrap().as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn requests_are_passed_on_with_the_name_of_who_asks() {
    let mut lab = Lab::reached(Speaks::Aggregated).await;
    let forged = [
        ("authorization", "Bearer secret"),
        ("x-remote-user", "somebody"),
        ("x-remote-uid", "7"),
        ("x-remote-group", "system:masters"),
        ("x-remote-extra-scopes", "all"),
        ("x-mine", "stays"),
    ];
    let mut user = User::new("alice", &["system:masters", "dev"]);
    user.uid = "u1".into();
    user.extra.insert("acme.com/project".into(), vec!["p".into()]);
    lab.server.user = Some(user);
    let answer = lab.server.ask("POST", &format!("{THINGS}?dryRun=All"), &forged, "a body").await;
    assert_eq!((answer.code, answer.json()), (202, json!({"method": "POST", "body": "a body"})));
    let headers = lab.last(&format!("{THINGS}?dryRun=All"));
    assert_eq!(
        (all(&headers, "x-remote-user"), all(&headers, "x-remote-uid")),
        (vec!["alice".into()], vec!["u1".into()])
    );
    assert_eq!(all(&headers, "x-remote-group"), ["system:masters", "dev"]);
    assert_eq!(all(&headers, "x-remote-extra-acme.com%2fproject"), ["p"]);
    assert!(!headers.contains_key("x-remote-extra-scopes") && !headers.contains_key("authorization"));
    assert_eq!(all(&headers, "x-mine"), ["stays"]);
    assert_eq!(all(&headers, "host"), [format!("localhost:{}", lab.port)]);

    // Who may not, is told so here.
    lab.server.user = Some(User::new("bob", &["system:authenticated"]));
    let before = lab.behind.seen.lock().unwrap().len();
    let refused = lab.server.get(THINGS).await;
    assert_eq!(refused.code, 403, "{}", refused.text);
    assert!(refused.message().contains("things.ext.example.com is forbidden"), "{}", refused.text);
    assert_eq!(lab.behind.seen.lock().unwrap().len(), before);
}

#[tokio::test]
async fn a_watch_passes_line_by_line() {
    let mut lab = Lab::reached(Speaks::Aggregated).await;
    lab.events.send(Bytes::from_static(b"one\n")).await.unwrap();
    let response = lab.server.respond("GET", &format!("{THINGS}?watch=true"), &[], "").await;
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one\n");
    lab.events.send(Bytes::from_static(b"two\n")).await.unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "two\n");
    lab.events.close_channel();
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_connection_may_change_its_protocol() {
    let lab = Lab::reached(Speaks::Aggregated).await;
    // A whole connection, for an upgrade is about one.
    let (ours, theirs) = tokio::io::duplex(1024);
    let (service, user) = (lab.server.service.clone(), lab.server.user.clone().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(skiff::server::http::service::Identity(user.clone()));
            let service = service.clone();
            async move {
                let request = request.map(|b| b.map_err(Into::into).boxed_unsync());
                Ok::<_, std::convert::Infallible>(service.respond(request).await)
            }
        });
        let builder = hyper::server::conn::http1::Builder::new();
        builder.serve_connection(TokioIo::new(theirs), service).with_upgrades().await.unwrap();
    });
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.unwrap();
    tasks.spawn(async move { connection.with_upgrades().await.unwrap() });
    let request = Request::get(format!("{THINGS}/a/exec"))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("x-remote-user", "somebody")
        .body(body::empty())
        .unwrap();
    let mut response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 101);
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    stream.write_all(b"ping").await.unwrap();
    let mut word = [0; 4];
    stream.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"PING");
    assert_eq!(all(&lab.last(&format!("{THINGS}/a/exec")), "x-remote-user"), ["admin"]);
}

#[tokio::test]
async fn one_that_cannot_be_reached_says_so() {
    let mut lab = Lab::new(Speaks::Aggregated).await;
    lab.register(&lab.ca_bundle, "v1").await;
    let condition = lab.condition("v1", "ServiceNotFound").await;
    assert_eq!(
        (&condition["status"], &condition["message"]),
        (&json!("False"), &json!("service/ext in \"default\" is not present"))
    );
    let answer = lab.server.get(THINGS).await;
    assert_eq!((answer.code, answer.text.as_str()), (503, "service unavailable\n"));
    assert_eq!(all(&answer.headers, "content-type"), ["text/plain; charset=utf-8"]);
    let aggregated = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let stale = lab.server.ask("GET", "/apis", &aggregated, "").await;
    assert_eq!(
        stale.json()["items"][1]["versions"],
        json!([{"version": "v1", "freshness": "Stale"}]),
        "{}",
        stale.text
    );

    lab.service().await;
    let condition = lab.condition("v1", "Passed").await;
    assert_eq!((&condition["status"], &condition["message"]), (&json!("True"), &json!("all checks passed")));
    assert_eq!(lab.server.get(THINGS).await.code, 202);
    assert_eq!(all(&lab.last("/apis/ext.example.com/v1"), "x-remote-user").len(), 1);

    // Nobody listens any more; a change of the Service makes the loop look.
    lab.listening.shutdown().await;
    let changed = json!({"metadata": {"annotations": {"a": "b"}}});
    let path = "/api/v1/namespaces/default/services/ext";
    assert_eq!(lab.server.patch(path, "application/merge-patch+json", &changed).await.code, 200);
    let condition = lab.condition("v1", "FailedDiscoveryCheck").await;
    let url = format!("https://localhost:{}/apis/ext.example.com/v1", lab.port);
    let message = condition["message"].as_str().unwrap();
    let prefix = format!("failing or missing response from {url}: Get \"{url}\": dial tcp ");
    assert!(message.starts_with(&prefix) && message.ends_with("connect: connection refused"), "{message}");
    assert_eq!(lab.server.get("/apis/ext.example.com/v1").await.code, 503);
    let stale = lab.server.ask("GET", "/apis", &aggregated, "").await;
    assert_eq!(stale.json()["items"][1]["versions"][0]["freshness"], "Stale");

    assert_eq!(lab.server.delete(&format!("{SERVICES}/v1.ext.example.com"), &json!({})).await.code, 200);
    assert_eq!(lab.server.get(THINGS).await.code, 404);
    assert_eq!(lab.server.get("/apis/ext.example.com").await.code, 404);
}

/// As upstream: whether it is there is one question, and whether it is the right one another.
#[tokio::test]
async fn one_with_another_certificate_is_not_talked_to() {
    let lab = Lab::new(Speaks::Aggregated).await;
    lab.service().await;
    let other = rcgen::generate_simple_self_signed(vec!["ext.default.svc".to_owned()]).unwrap();
    lab.register(&STANDARD.encode(other.cert.pem()), "v1").await;
    lab.condition("v1", "Passed").await;
    let answer = lab.server.get(THINGS).await;
    let why = "error trying to reach service: tls: failed to verify certificate: x509: certificate signed by unknown \
               authority\n";
    assert_eq!((answer.code, answer.text.as_str()), (503, why));
}

async fn discovered(speaks: Speaks) {
    let lab = Lab::reached(speaks).await;
    let aggregated = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let list = lab.server.ask("GET", "/apis", &aggregated, "").await;
    assert_eq!(names(&list, "items", "/metadata/name")[..3], ["apiregistration.k8s.io", "ext.example.com", "apps"]);
    let version = list.json()["items"][1]["versions"][0].take();
    assert_eq!((&version["freshness"], &version["version"]), (&json!("Current"), &json!("v1")));
    assert_eq!(version["resources"][0]["resource"], "things");
    assert_eq!(version["resources"][0]["responseKind"]["kind"], "Thing");
    assert_eq!(version["resources"][0]["scope"], "Namespaced");
    let etag = list.headers["etag"].to_str().unwrap().to_owned();
    let again = lab.server.ask("GET", "/apis", &[aggregated[0], ("if-none-match", &etag)], "").await;
    assert_eq!(again.code, 304);

    let old = lab.server.get("/apis").await;
    assert_eq!(names(&old, "groups", "/name")[..3], ["apiregistration.k8s.io", "ext.example.com", "apps"]);
    let group = lab.server.get("/apis/ext.example.com").await.json();
    assert_eq!(
        (&group["kind"], &group["preferredVersion"]["groupVersion"]),
        (&json!("APIGroup"), &json!("ext.example.com/v1"))
    );
    // The list of its resources is its own.
    assert_eq!(lab.server.get("/apis/ext.example.com/v1").await.json()["resources"][0]["kind"], "Thing");
    assert_eq!(all(&lab.last("/apis/ext.example.com/v1"), "x-remote-user"), ["admin"]);
}

#[tokio::test]
async fn its_groups_are_discovered_among_the_others() {
    discovered(Speaks::Aggregated).await;
}

#[tokio::test]
async fn one_that_knows_the_older_form_only_is_discovered_too() {
    discovered(Speaks::Legacy).await;
}

#[tokio::test]
async fn its_openapi_documents_are_among_the_others() {
    let lab = Lab::reached(Speaks::Aggregated).await;
    let index = lab.server.get("/openapi/v3").await.json();
    let url = index["paths"]["apis/ext.example.com/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    assert_eq!(url, "/openapi/v3/apis/ext.example.com/v1?hash=AB");
    assert!(index["paths"]["apis/apps/v1"].is_object() && index["paths"]["version"].is_null());
    assert_eq!(lab.server.get(&url).await.json(), json!({"openapi": "3.0.0", "of": "theirs"}));
    let merged = lab.server.get("/openapi/v2").await.json();
    let definitions = &merged["definitions"];
    assert_eq!(definitions["io.k8s.api.core.v1.Pod_v2"], json!({"type": "string"}));
    assert_eq!(definitions["io.k8s.api.core.v1.Pod"]["type"], "object");
    let reference = &merged["paths"]["/apis/ext.example.com/v1/things"]["get"]["schema"]["$ref"];
    assert_eq!(*reference, "#/definitions/io.k8s.api.core.v1.Pod_v2");
    // Asked for once in a while only.
    lab.server.get("/openapi/v2").await;
    let seen = lab.behind.seen.lock().unwrap();
    assert_eq!(seen.iter().filter(|(uri, _)| uri == "/openapi/v2").count(), 1);
}
