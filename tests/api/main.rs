//! The API over HTTP, in this process: requests go through the same service as over the network, above the memory
//! store and with the real kinds, authorization and admission.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use skiff::api::signing::Sign;
use skiff::api::user::User;
use skiff::config::{Cidr, Cluster};
use skiff::pki::live::Live;
use skiff::pki::service_account::Keys;
use skiff::server::admission;
use skiff::server::aggregation::Aggregator;
use skiff::server::authn::Authenticator;
use skiff::server::authn::issue::TokenIssuer;
use skiff::server::authn::verify::Verifier;
use skiff::server::authz::Authorizer;
use skiff::server::cache::Cache;
use skiff::server::controllers::ControllersConfig;
use skiff::server::controllers::extension_authentication::Trusted;
use skiff::server::flow::Fairness;
use skiff::server::http::body::{self, Body};
use skiff::server::http::health::Check;
use skiff::server::http::metrics::Metrics;
use skiff::server::http::nodes::Nodes;
use skiff::server::http::service::Identity;
use skiff::server::http::{Address, Backend, Service, client};
use skiff::server::objects::SharedObjects;
use skiff::server::registry::{Registry, kinds};
use skiff::server::store::Store;
use skiff::server::store::memory::Memory;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

mod aggregation;
mod api_services;
mod apply;
mod autoscaling;
mod bad_input;
mod bad_workloads;
mod collections;
mod conformance;
mod csi;
mod custom;
mod damage;
mod devices;
mod eviction;
mod extension;
mod flow;
mod fuzz;
mod hook;
mod jobs;
mod limits;
mod openapi;
mod options;
mod patches;
mod pods;
mod protobuf;
mod proxy;
mod subresources;
mod verbs;
mod webhooks;

/// A server without a network, and who asks it.
struct Server {
    service: Service,
    user: Option<User>,
    stop: CancellationToken,
    cache: Arc<Cache>,
    aggregator: Arc<Aggregator>,
    _directory: tempfile::TempDir,
}

fn cluster() -> Cluster {
    Cluster {
        cluster_cidr: Cidr { address: [10, 42, 0, 0].into(), prefix: 16 },
        service_cidr: Cidr { address: [10, 43, 0, 0].into(), prefix: 16 },
        cluster_dns: [10, 43, 0, 10].into(),
        cluster_domain: "cluster.local".into(),
        node_ports: (30000, 32767),
    }
}

fn controllers_config(server: &Server) -> ControllersConfig {
    ControllersConfig {
        cluster: cluster(),
        advertised: watch::channel([192, 0, 2, 1].into()).1,
        port: 6443,
        root_ca_pem: "the certificate of the cluster".into(),
        trusted: Trusted::default(),
        control_plane_node: None,
        local_storage: true,
        measure: server.service.backend().registry.measure(),
        type_check: server.service.backend().registry.type_check(),
        sign: Sign::new(|_| Err("there are no keys here".into())),
    }
}

/// One answer.
struct Answer {
    code: u16,
    headers: http::HeaderMap,
    text: String,
}

impl Answer {
    async fn of(response: Response<Body>) -> Self {
        let (code, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Self { code, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl Server {
    /// Asked by an administrator, with the namespace `default`.
    async fn new() -> Self {
        Self::with(Nodes::new(skiff::pki::tls::unverified().unwrap())).await
    }

    /// With another way to nodes and pods.
    async fn with(nodes: Nodes) -> Self {
        Self::of(nodes, 600, None).await
    }

    /// With so many seats for its priority levels, and what is shown to extension servers.
    async fn of(nodes: Nodes, seats: u32, front_proxy: Option<Arc<Live>>) -> Self {
        let server = Self::above(Arc::new(Memory::default()), nodes, seats, front_proxy);
        let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "default"}});
        assert_eq!(server.post("/api/v1/namespaces", &namespace).await.code, 201);
        server
    }

    /// Above a store, and with what that has.
    fn above(store: Arc<dyn Store>, nodes: Nodes, seats: u32, front_proxy: Option<Arc<Live>>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cluster = cluster();
        let cache = Cache::new();
        store.start(cache.clone()).unwrap();
        let objects: SharedObjects = cache.clone();
        let authorizer = Arc::new(Authorizer::new(objects.clone()));
        let verifier = Arc::new(Verifier::new(objects.clone(), Arc::new(Keys::open(directory.path()).unwrap())));
        let webhooks = skiff::server::webhook::Client::new(objects.clone());
        let chain = Arc::new(admission::default_chain(&objects, &authorizer, &webhooks));
        let (stop, metrics) = (CancellationToken::new(), Metrics::default());
        let aggregator = Aggregator::new(objects.clone(), front_proxy);
        let service = Service::new(Backend {
            registry: Registry::new(store, cache.clone(), kinds::strategies(&cluster, &cache), chain),
            authenticator: Arc::new(Authenticator::new(verifier.clone(), "secret".into())),
            authorizer,
            tokens: TokenIssuer(verifier),
            address: Address { ip: watch::channel([10, 1, 2, 3].into()).1, port: 6443 },
            nodes,
            aggregator: aggregator.clone(),
            join: OnceLock::new(),
            checks: vec![Check::new("store", true, || Ok(()))],
            fairness: Fairness::new(&objects, seats, metrics.flow()),
            metrics,
            stop: stop.clone(),
        });
        let user = Some(User::new("admin", &["system:masters", "system:authenticated"]));
        Self { service, user, stop, cache, aggregator, _directory: directory }
    }

    async fn respond(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(user) = &self.user {
            request = request.extension(Identity(user.clone()));
        }
        self.service.respond(request.body(body::full(body)).unwrap()).await
    }

    async fn ask(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        Answer::of(self.respond(method, uri, headers, body).await).await
    }

    async fn get(&self, uri: &str) -> Answer {
        self.ask("GET", uri, &[], "").await
    }

    async fn post(&self, uri: &str, body: &Value) -> Answer {
        self.ask("POST", uri, &[("content-type", "application/json")], body.to_string()).await
    }

    async fn put(&self, uri: &str, body: &Value) -> Answer {
        self.ask("PUT", uri, &[("content-type", "application/json")], body.to_string()).await
    }

    async fn delete(&self, uri: &str, options: &Value) -> Answer {
        self.ask("DELETE", uri, &[("content-type", "application/json")], options.to_string()).await
    }

    async fn patch(&self, uri: &str, kind: &str, body: &Value) -> Answer {
        self.ask("PATCH", uri, &[("content-type", kind)], body.to_string()).await
    }
}

#[tokio::test]
async fn the_in_process_client_is_a_client_like_any_other() {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, PostParams};
    let server = Server::new().await;
    let maps: Api<ConfigMap> = Api::namespaced(client(&server.service, server.user.clone().unwrap()), "default");
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    assert_eq!(maps.get("a").await.unwrap().data.unwrap()["k"], "v");
    let stranger = client(&server.service, User::new("nobody", &[]));
    let refused = Api::<ConfigMap>::namespaced(stranger, "default").get("a").await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(s) if s.code == 403));
}
