//! The whole network of a node, told by an API server that the test plays.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::{Value, json};
use skiff::config;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::machines::{CLUSTER, Machine, Node, SERVICES, possible};

const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 80);

/// What a path lists, and the event that its watch gives when there is one.
struct Api {
    lists: BTreeMap<&'static str, Value>,
    event: watch::Receiver<Option<(&'static str, Value)>>,
}

fn client(api: Arc<Api>) -> kube::Client {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let api = api.clone();
        async move {
            let path = request.uri().path().to_owned();
            let frame = |text: String| Ok::<_, Infallible>(Frame::data(Bytes::from(text)));
            let watching = request.uri().query().is_some_and(|query| query.contains("watch="));
            let body = if watching {
                let mut event = api.event.clone();
                let told = async move {
                    let wanted = event.wait_for(|e| e.as_ref().is_some_and(|(of, _)| *of == path)).await;
                    let text = wanted.ok().and_then(|found| Some(format!("{}\n", found.as_ref()?.1)));
                    match text {
                        Some(text) => frame(text),
                        None => std::future::pending().await,
                    }
                };
                futures::stream::once(told).chain(futures::stream::pending()).boxed()
            } else {
                futures::stream::once(std::future::ready(frame(api.lists[path.as_str()].to_string()))).boxed()
            };
            Ok::<_, Infallible>(http::Response::new(StreamBody::new(body)))
        }
    });
    kube::Client::new(service, "default")
}

fn slice(addresses: &[Ipv4Addr]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "namespace": "default", "name": "web-1", "resourceVersion": "2",
                      "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4",
        "endpoints": addresses.iter().map(|a| json!({ "addresses": [a], "nodeName": "node" })).collect::<Vec<_>>(),
        "ports": [{ "name": "http", "protocol": "TCP", "port": 8080 }],
    })
}

fn list(kind: &str, version: &str, items: &[Value]) -> Value {
    json!({ "apiVersion": version, "kind": format!("{kind}List"), "metadata": { "resourceVersion": "1" },
            "items": items })
}

fn settings(node: &Node) -> (config::Agent, config::Cluster) {
    let cluster = config::Cluster {
        cluster_cidr: CLUSTER,
        service_cidr: SERVICES,
        cluster_dns: Ipv4Addr::new(10, 43, 0, 10),
        cluster_domain: "cluster.local".to_owned(),
        node_ports: (30000, 32767),
    };
    let agent = config::Agent {
        data_dir: node.data.path().to_owned(),
        search_path: String::new(),
        cluster: None,
        server: String::new(),
        token: String::new(),
        node_name: "node".to_owned(),
        node_ip: IpAddr::V4(NODE),
        node_labels: Vec::new(),
        node_taints: Vec::new(),
        runtime_endpoint: None,
        resolv_conf: "/nonexistent".into(),
        follow_address: false,
        kubelet_port: 10250,
        max_pods: 110,
        local_storage: "/nonexistent".into(),
        images: skiff::config::ImageSettings::default(),
        pod_manifests: "/nonexistent".into(),
        kubelet: config::kubelet::Kubelet::default(),
        kubelet_dir: None,
        notify_socket: None,
    };
    (agent, cluster)
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..200 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what} did not happen in time");
}

#[test]
fn a_node_learns_everything_from_the_server() {
    if !possible() {
        return;
    }
    let node = Node::new("node", NODE, 0);
    node.machine.ip("address add 192.0.2.1/32 dev lo");
    let web = json!({
        "metadata": { "namespace": "default", "name": "web" },
        "spec": { "clusterIP": VIP, "clusterIPs": [VIP],
                  "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }] },
    });
    let own = json!({
        "metadata": { "name": "node" },
        "spec": { "podCIDR": "10.42.0.0/24", "podCIDRs": ["10.42.0.0/24"] },
        "status": { "addresses": [{ "type": "InternalIP", "address": NODE }] },
    });
    let (tell, event) = watch::channel(None);
    const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
    let api = Api {
        lists: [
            ("/api/v1/nodes", list("Node", "v1", &[own])),
            ("/api/v1/services", list("Service", "v1", &[web])),
            (SLICES, list("EndpointSlice", "discovery.k8s.io/v1", &[])),
        ]
        .into(),
        event,
    };
    let api = Arc::new(api);
    let (agent, cluster) = settings(&node);
    let stop = CancellationToken::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            node.machine.run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let (publish, _view) = watch::channel(Arc::default());
                runtime.block_on(async {
                    let address = tokio::sync::watch::channel(agent.node_ip).1;
                    skiff::net::run(&agent, &cluster, client(api.clone()), publish, address, stop.clone()).await
                })
            })
        });
        let _stopped = stop.clone().drop_guard();
        let conf = node.data.path().join("agent/etc/cni/net.d/10-skiff.conflist");
        eventually("the plugin's configuration", || conf.exists());
        let (server, server_ip) = node.pod("server");
        server.serve(8080);
        let refused = |from: &Machine| {
            from.ask((VIP, 80)).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        };
        eventually("a Service without endpoints", || refused(&node.machine));
        tell.send_replace(Some((SLICES, json!({ "type": "ADDED", "object": slice(&[server_ip]) }))));
        eventually("a Service with an endpoint", || {
            node.machine.ask((VIP, 80)).is_ok_and(|answer| answer.starts_with(&server.name))
        });
        assert!(node.machine.ip("address show lo").contains("10.43.0.10/32"));
    });
    let (_, rules) = node.machine.exec("nft list table ip skiff-proxy");
    assert!(rules.contains("10.43.0.80"), "stopping leaves traffic alone: {rules}");
}
