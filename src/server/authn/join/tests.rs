//! A server and agents that really talk TLS over loopback.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::agent::join as agent;
use crate::config::{self, Cidr};
use crate::pki::live::Loaded;
use crate::pki::service_account::Keys;
use crate::pki::{peer::PeerCertificate, peer::facts, token::JoinToken};
use crate::server::authn::{Authenticator, verify::Verifier};
use crate::server::objects::fake::Fake;

fn cluster() -> Cluster {
    Cluster {
        cluster_cidr: Cidr { address: Ipv4Addr::new(10, 42, 0, 0), prefix: 16 },
        service_cidr: Cidr { address: Ipv4Addr::new(10, 43, 0, 0), prefix: 16 },
        cluster_dns: Ipv4Addr::new(10, 43, 0, 10),
        cluster_domain: "cluster.local".into(),
        node_ports: (30000, 32767),
    }
}

fn server_config(dir: &Path) -> config::Server {
    config::Server {
        data_dir: dir.into(),
        cluster: cluster(),
        listen: SocketAddr::from(([127, 0, 0, 1], 6443)),
        advertise_address: Ipv4Addr::new(192, 0, 2, 1).into(),
        follow_address: false,
        tls_san: vec!["api.example.org".into(), "192.0.2.7".into()],
        kubeconfig: dir.join("etc/skiff.yaml"),
        kubeconfig_mode: 0o600,
        token: Some("s3cret".into()),
        agent: None,
        local_storage: true,
        seats: 600,
        scheduler: config::scheduler::Scheduler::default(),
        notify_socket: None,
    }
}

fn agent_config(dir: &Path, server: &str, token: &str, node: &str) -> config::Agent {
    config::Agent {
        data_dir: dir.into(),
        search_path: String::new(),
        cluster: None,
        server: server.into(),
        token: token.into(),
        node_name: node.into(),
        node_ip: Ipv4Addr::new(192, 0, 2, 9).into(),
        node_labels: Vec::new(),
        node_taints: Vec::new(),
        runtime_endpoint: None,
        resolv_conf: "/etc/resolv.conf".into(),
        follow_address: false,
        kubelet_port: 10250,
        max_pods: 110,
        local_storage: "/nonexistent".into(),
        images: crate::config::ImageSettings::default(),
        pod_manifests: "/nonexistent".into(),
        kubelet: config::kubelet::Kubelet::default(),
        kubelet_dir: None,
        notify_socket: None,
    }
}

/// Get, create and replace of objects by path.
fn api(objects: Arc<Mutex<BTreeMap<String, Value>>>) -> Client {
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let objects = objects.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let path = parts.uri.path().to_owned();
            let mut objects = objects.lock().unwrap();
            let (code, answer) = match parts.method {
                Method::GET => match objects.get(&path) {
                    Some(object) => (200, object.clone()),
                    None => (
                        404,
                        json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "not found",
                                         "status": "Failure"}),
                    ),
                },
                method => {
                    let object: Value = serde_json::from_slice(&body).unwrap();
                    let name = object["metadata"]["name"].as_str().unwrap();
                    let key = if method == Method::POST { format!("{path}/{name}") } else { path };
                    objects.insert(key, object.clone());
                    (201, object)
                }
            };
            let body = kube::client::Body::from(serde_json::to_vec(&answer).unwrap());
            Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    Client::new(service, "default")
}

struct Bench {
    address: SocketAddr,
    pki: Arc<ServerPki>,
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    _tasks: JoinSet<()>,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Arc::new(ServerPki::open(&server_config(dir.path()), clock::now()).unwrap());
        let objects = Arc::default();
        let join = Arc::new(JoinServer::new(pki.clone(), &cluster(), api(Arc::clone(&objects))));
        let verifier = Verifier::new(Fake::new([]), Arc::new(Keys::open(dir.path()).unwrap()));
        let authenticator = Arc::new(Authenticator::new(Arc::new(verifier), pki.join_secret.clone()));
        let acceptor = TlsAcceptor::from(Arc::new(pki.serving_tls().unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, join, authenticator) = (acceptor.clone(), join.clone(), authenticator.clone());
                connections.spawn(async move {
                    if let Ok(tls) = acceptor.accept(tcp).await {
                        connection(tls, join, authenticator).await;
                    }
                });
            }
        });
        Self { address, pki, objects, _tasks: tasks, dir }
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    fn token(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("server/node-token")).unwrap()
    }

    async fn join(&self, dir: &Path, token: &str, node: &str) -> Result<agent::Joined, agent::Error> {
        let config = agent_config(dir, &self.url(), token, node);
        tokio::time::timeout(Duration::from_secs(20), agent::join(&config)).await.expect("an answer in time")
    }
}

async fn connection(
    tls: tokio_rustls::server::TlsStream<TcpStream>,
    join: Arc<JoinServer>,
    authenticator: Arc<Authenticator>,
) {
    let peer = tls.get_ref().1.peer_certificates().map(|c| PeerCertificate::parse(&c[0]).unwrap());
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let (peer, join, authenticator) = (peer.clone(), join.clone(), authenticator.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let response = match parts.uri.path() {
                "/cacerts" => join.cacerts(),
                "/v1-skiff/join" => match authenticator.authenticate(&parts.headers, peer.as_ref()) {
                    Ok(user) => join.join(&user, &body).await,
                    Err(status) => {
                        respond(StatusCode::UNAUTHORIZED, "application/json", status.to_json().to_string().into())
                    }
                },
                // Tells who asks.
                _ => {
                    let user = authenticator.authenticate(&parts.headers, peer.as_ref()).unwrap();
                    respond(StatusCode::OK, "application/json", serde_json::to_vec(&user).unwrap().into())
                }
            };
            Ok::<_, std::convert::Infallible>(response.map(Full::new))
        }
    });
    let _ = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new())
        .serve_connection(TokioIo::new(tls), service)
        .await;
}

async fn whoami(joined: &agent::Joined) -> User {
    let request = Request::get("/whoami").body(Vec::new()).unwrap();
    joined.client().unwrap().request(request).await.unwrap()
}

#[tokio::test]
async fn a_node_joins_restarts_and_renews() {
    let bench = Bench::start().await;
    let dir = tempfile::tempdir().unwrap();
    let joined = bench.join(dir.path(), &bench.token(), "n1").await.unwrap();
    assert_eq!(ClusterFacts::from(&joined.cluster), ClusterFacts::from(&cluster()));
    let user = whoami(&joined).await;
    assert_eq!(
        (user.name.as_str(), user.groups),
        ("system:node:n1", vec![SYSTEM_NODES.into(), "system:authenticated".into()])
    );

    // The API server reaches the kubelet by the node's name, and is recognised by it.
    let acceptor = TlsAcceptor::from(Arc::new(joined.kubelet_tls().unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(bench.pki.kubelet_tls().unwrap()));
    let dial = async |name: &'static str| {
        let tcp = TcpStream::connect(address).await.unwrap();
        connector.connect(name.try_into().unwrap(), tcp).await
    };
    let accept = async || {
        let tls = acceptor.accept(listener.accept().await.unwrap().0).await.ok()?;
        tls.get_ref().1.peer_certificates().map(|c| PeerCertificate::parse(&c[0]).unwrap().user)
    };
    let (client, seen) = tokio::join!(dial("n1"), accept());
    assert!(client.is_ok());
    assert_eq!(seen.unwrap().name, "system:apiserver");
    let (client, _) = tokio::join!(dial("n2"), accept());
    assert!(client.is_err(), "another node's name");

    // A restart needs no server: same certificates, from the files.
    let config = agent_config(dir.path(), "https://127.0.0.1:1", &bench.token(), "n1");
    let again = agent::join(&config).await.unwrap();
    let (old, new) = (joined.client_certificate.current(), again.client_certificate.current());
    assert_eq!(old.certificate_pem, new.certificate_pem);

    // Gone files are made anew, by the same machine.
    std::fs::remove_file(dir.path().join("agent/client-kubelet.crt")).unwrap();
    let renewed = bench.join(dir.path(), &bench.token(), "n1").await.unwrap();
    assert_ne!(old.certificate_pem, renewed.client_certificate.current().certificate_pem);
    // A client that exists already shows the new certificate in new connections.
    joined.client_certificate.swap(
        Loaded::parse(
            renewed.client_certificate.current().certificate_pem.clone(),
            renewed.client_certificate.current().key_pem.clone(),
        )
        .unwrap(),
    );
    let id = |u: &User| u.extra["authentication.kubernetes.io/credential-id"].clone();
    assert_eq!(id(&whoami(&joined).await), id(&whoami(&renewed).await));
}

#[tokio::test]
async fn a_name_is_taken_until_its_node_is_deleted() {
    let bench = Bench::start().await;
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    bench.join(first.path(), &bench.token(), "n1").await.unwrap();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    bench.objects.lock().unwrap().insert("/api/v1/nodes/n1".into(), node);
    let error = bench.join(second.path(), &bench.token(), "n1").await.unwrap_err().to_string();
    assert!(error.contains("the name \"n1\" belongs to another machine"), "{error}");
    bench.objects.lock().unwrap().remove("/api/v1/nodes/n1");
    bench.join(second.path(), &bench.token(), "n1").await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let bench = Bench::start().await;
    let check = async |token: &str, node: &str, expect: &str| {
        let dir = tempfile::tempdir().unwrap();
        let error = bench.join(dir.path(), token, node).await.unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    let pem = bench.pki.server_ca.pem();
    check(&JoinToken::render("node", "wrong", pem), "n1", "refuses the token").await;
    check(&JoinToken::render("node", "s3cret", "other"), "n1", "has another certificate authority than the token says")
        .await;
    check(&bench.token(), "Not_A_Name", "is not a lowercase RFC 1123 subdomain").await;
    check("", "n1", "invalid token: it is empty").await;
    let dir = tempfile::tempdir().unwrap();
    assert!(bench.join(dir.path(), "s3cret", "n1").await.is_ok(), "a bare secret trusts on first use");
}

#[tokio::test]
async fn a_nodes_certificate_joins_for_itself_only() {
    let bench = Bench::start().await;
    let request = JoinRequest {
        node_name: "n2".into(),
        node_password: "0123456789abcdef".into(),
        addresses: Vec::new(),
        client_request: String::new(),
        serving_request: String::new(),
    };
    let server = JoinServer::new(bench.pki.clone(), &cluster(), api(bench.objects.clone()));
    let body = serde_json::to_vec(&request).unwrap();
    let code = async |user: &User, body: &[u8]| server.join(user, body).await.status().as_u16();
    assert_eq!(code(&User::new("system:node:n1", &[SYSTEM_NODES]), &body).await, 403);
    assert_eq!(code(&User::anonymous(), &body).await, 401);
    let token = User::new("system:bootstrap:join", &[SYSTEM_BOOTSTRAPPERS]);
    assert_eq!(code(&token, b"{").await, 400);
    assert_eq!(code(&token, &vec![b' '; MAX_BODY + 1]).await, 413);
    assert_eq!(code(&token, &body).await, 400, "no certificate request");
}

#[tokio::test]
async fn certificates_of_the_server() {
    let bench = Bench::start().await;
    let dial = async |name: &'static str| {
        let config = crate::pki::tls::client(None, bench.pki.server_ca.der(), &[b"h2"]).unwrap();
        let tcp = TcpStream::connect(bench.address).await.unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name.try_into().unwrap(), tcp).await.is_ok()
    };
    for name in ["kubernetes", "kubernetes.default.svc.cluster.local", "localhost", "10.43.0.1", "127.0.0.1"] {
        assert!(dial(name).await, "{name}");
    }
    assert!(dial("api.example.org").await && dial("192.0.2.7").await && dial("192.0.2.1").await);
    assert!(!dial("example.org").await);

    // A node's serving certificate doesn't pass for the API server's, even where it names the same address.
    let dir = tempfile::tempdir().unwrap();
    let joined = bench.join(dir.path(), &bench.token(), "n1").await.unwrap();
    let node = joined.serving_certificate.current();
    let der = <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(
        node.certificate_pem.as_bytes(),
    )
    .unwrap();
    assert!(!crate::pki::tls::signed_by(&der, bench.pki.server_ca.der()));
    assert!(crate::pki::tls::signed_by(&der, bench.pki.kubelet_ca.der()));
}

#[tokio::test]
async fn the_server_renews_while_it_serves() {
    let bench = Bench::start().await;
    let shown = async || {
        let config = crate::pki::tls::client(None, bench.pki.server_ca.der(), &[b"h2"]).unwrap();
        let tcp = TcpStream::connect(bench.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let tls = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        tls.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let day = Duration::from_secs(24 * 60 * 60);
    let now = clock::now();
    let first = shown().await;
    assert!(!bench.pki.renew(now + 274 * day).unwrap());
    assert_eq!(shown().await, first);
    bench.pki.write_kubeconfig().unwrap();
    let path = bench.dir.path().join("etc/skiff.yaml");
    let before = std::fs::read_to_string(&path).unwrap();
    assert!(bench.pki.renew(now + 276 * day).unwrap());
    assert_ne!(shown().await, first);
    assert_ne!(std::fs::read_to_string(&path).unwrap(), before, "the kubeconfig follows");
    let kubeconfig = kube::config::Kubeconfig::read_from(&path).unwrap();
    assert_eq!(kubeconfig.current_context.as_deref(), Some("default"));
    assert_eq!(kubeconfig.clusters[0].cluster.as_ref().unwrap().server.as_deref(), Some("https://127.0.0.1:6443"));
}

#[tokio::test]
async fn another_address_of_the_machine_has_its_certificate_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = config::Server { follow_address: true, ..server_config(dir.path()) };
    let pki = Arc::new(ServerPki::open(&config, clock::now()).unwrap());
    let (tell, address) = watch::channel(config.advertise_address);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(pki.clone().run(address, stop.clone()));
    let file = dir.path().join("server/tls/serving-kube-apiserver.crt");
    let has = |ip: [u8; 4]| {
        let der = CertificateDer::from_pem_slice(&std::fs::read(&file).unwrap()).unwrap();
        facts(&der).unwrap().addresses.contains(&ip.into())
    };
    assert!(has([192, 0, 2, 1]) && !has([192, 0, 2, 77]));
    tell.send_replace([192, 0, 2, 77].into());
    let changed = async {
        while !has([192, 0, 2, 77]) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), changed).await.expect("a certificate for it");
    assert!(!has([192, 0, 2, 1]), "another machine may have that one now");
    assert!(has([10, 43, 0, 1]) && has([192, 0, 2, 7]), "the others stay");
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap();
}

#[test]
fn restarts_keep_certificates_and_new_names_replace_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = server_config(dir.path());
    let open = |config: &config::Server| ServerPki::open(config, clock::now());
    open(&config).unwrap();
    let file = |name: &str| dir.path().join("server/tls").join(name);
    let text = |name: &str| std::fs::read_to_string(file(name)).unwrap();
    let (ca, serving) = (text("server-ca.crt"), text("serving-kube-apiserver.crt"));
    open(&config).unwrap();
    assert_eq!((text("server-ca.crt"), text("serving-kube-apiserver.crt")), (ca.clone(), serving.clone()));
    config.tls_san.push("new.example.org".into());
    open(&config).unwrap();
    assert_eq!(text("server-ca.crt"), ca);
    assert_ne!(text("serving-kube-apiserver.crt"), serving);

    let says = |expect: &str| {
        let error = open(&config).err().unwrap().to_string();
        assert!(error.contains(expect), "{error}");
    };
    let whole = text("client-ca.key");
    std::fs::write(file("client-ca.key"), &whole[..60]).unwrap();
    says("client-ca.key is damaged");
    std::fs::remove_file(file("client-ca.key")).unwrap();
    says("client-ca.crt exists but");
    std::fs::write(file("client-ca.key"), text("server-ca.key")).unwrap();
    says("client-ca.crt is damaged: it belongs to another key");
    std::fs::write(file("client-ca.key"), whole).unwrap();
    // A crash between the two files of a leaf: made again.
    std::fs::write(file("client-admin.key"), text("client-kube-apiserver.key")).unwrap();
    open(&config).unwrap();
    std::fs::write(file("client-admin.crt"), "-----BEGIN CERTIFICATE-----\nxx").unwrap();
    says("client-admin.crt is damaged");
}
