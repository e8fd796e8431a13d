//! Services in the kernel: real connections through rules made from a view.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;

use skiff::net::nft::{self, Protocol, Table};
use skiff::net::proxy::conntrack;
use skiff::net::proxy::model::{Node as ProxyNode, model};
use skiff::net::proxy::ruleset::ruleset;
use skiff::net::services::{Endpoint, Key, Port, Service, Slice, View};

use super::machines::{CLUSTER, Machine, Node, cable, possible, question, question_udp};

const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 80);

fn on() -> ProxyNode {
    ProxyNode {
        name: "node".to_owned(),
        addresses: vec![NODE],
        cluster_cidr: CLUSTER,
        cluster_dns: Ipv4Addr::new(10, 43, 0, 10),
    }
}

fn web() -> Service {
    let port = |protocol| Port { name: protocol_name(protocol), protocol, port: 80, node_port: Some(30080) };
    Service { cluster_ip: Some(VIP), ports: vec![port(Protocol::Tcp), port(Protocol::Udp)], ..Service::default() }
}

fn protocol_name(protocol: Protocol) -> String {
    format!("over-{}", protocol.name())
}

fn view(service: Service, endpoints: &[Ipv4Addr]) -> View {
    let mut view = View { complete: true, ..View::default() };
    add(&mut view, "web", service, endpoints);
    view
}

fn add(view: &mut View, name: &str, service: Service, endpoints: &[Ipv4Addr]) {
    let key = Key::new("default", name);
    view.services.insert(key.clone(), Arc::new(service));
    let endpoint = |address: &Ipv4Addr| Endpoint {
        address: *address,
        ready: true,
        serving: true,
        terminating: false,
        node: Some("node".to_owned()),
        hostname: None,
    };
    let ports = [Protocol::Tcp, Protocol::Udp].map(|p| (protocol_name(p), p, 8080)).into();
    let slice = Slice { ports, endpoints: endpoints.iter().map(endpoint).collect() };
    view.slices.entry(key).or_default().insert("s".to_owned(), Arc::new(slice));
}

fn table(view: &View) -> Table {
    ruleset(&model(view, &on()), &on())
}

fn apply(node: &Node, transaction: &str) {
    node.machine.run(|| nft::apply::apply(transaction)).unwrap();
}

/// A node with an outside machine and three pods, two of which serve.
struct Scene {
    node: Node,
    outside: Machine,
    pods: Vec<(Machine, Ipv4Addr)>,
    client: (Machine, Ipv4Addr),
}

fn scene() -> Scene {
    let node = Node::new("node", NODE, 0);
    let outside = Machine::new("outside");
    cable((&node.machine, "eth0", "192.0.2.1"), (&outside, "eth0", "192.0.2.9"));
    node.converge(&[]);
    let pods = vec![node.pod("a"), node.pod("b")];
    for (pod, _) in &pods {
        pod.serve(8080);
    }
    let client = node.pod("client");
    Scene { node, outside, pods, client }
}

impl Scene {
    fn addresses(&self) -> Vec<Ipv4Addr> {
        self.pods.iter().map(|(_, address)| *address).collect()
    }
}

#[test]
fn connections_reach_endpoints_from_everywhere() {
    if !possible() {
        return;
    }
    let scene = scene();
    let (client, client_ip) = &scene.client;
    apply(&scene.node, &nft::replace(&table(&view(web(), &scene.addresses()))));

    let mut names = BTreeSet::new();
    for _ in 0..40 {
        let answer = client.ask((VIP, 80)).unwrap();
        assert!(answer.ends_with(&format!(" {client_ip}")), "pods are seen as themselves: {answer}");
        names.insert(answer);
    }
    assert_eq!(names.len(), 2, "all endpoints are used");
    client.ask_udp((VIP, 80)).unwrap();
    scene.node.machine.ask((VIP, 80)).expect("from the node, which has no default route");
    scene.node.machine.ask_udp((VIP, 80)).unwrap();
    for _ in 0..10 {
        scene.pods[0].0.ask((VIP, 80)).expect("a pod reaches itself, too");
    }
    let from_outside = scene.outside.ask((NODE, 30080)).unwrap();
    assert!(from_outside.ends_with(" 10.42.0.1"), "masqueraded: {from_outside}");
    scene.outside.ask_udp((NODE, 30080)).unwrap();
    scene.node.machine.ask((NODE, 30080)).expect("a NodePort from the node itself");
    client.ask((NODE, 30080)).expect("a NodePort from a pod");
    let refused = client.ask((VIP, 81)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "no such port");
}

#[test]
fn without_endpoints_connections_are_refused() {
    if !possible() {
        return;
    }
    let scene = scene();
    apply(&scene.node, &nft::replace(&table(&view(web(), &[]))));
    for (from, to) in [
        (&scene.client.0, (VIP, 80)),
        (&scene.node.machine, (VIP, 80)),
        (&scene.outside, (NODE, 30080)),
        (&scene.node.machine, (NODE, 30080)),
    ] {
        let refused = from.ask(to).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "from {} to {to:?}: {refused}", from.name);
    }
}

#[test]
fn a_client_stays_with_its_endpoint() {
    if !possible() {
        return;
    }
    let scene = scene();
    let service = Service { affinity_seconds: Some(60), ..web() };
    apply(&scene.node, &nft::replace(&table(&view(service, &scene.addresses()))));
    for from in [&scene.client.0, &scene.node.machine] {
        let answers: BTreeSet<String> = (0..20).map(|_| from.ask((VIP, 80)).unwrap()).collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
    }
}

#[test]
fn local_policy_keeps_the_client_address() {
    if !possible() {
        return;
    }
    let scene = scene();
    let service = Service { external_local: true, ..web() };
    apply(&scene.node, &nft::replace(&table(&view(service, &scene.addresses()))));
    let answer = scene.outside.ask((NODE, 30080)).unwrap();
    assert!(answer.ends_with(" 192.0.2.9"), "{answer}");
    scene.node.machine.ask((NODE, 30080)).unwrap();
}

#[test]
fn a_connection_outlives_its_endpoint_s_rules() {
    if !possible() {
        return;
    }
    let scene = scene();
    let (client, _) = &scene.client;
    let before = table(&view(web(), &scene.addresses()[..1]));
    let after = table(&view(web(), &scene.addresses()[1..]));
    apply(&scene.node, &nft::replace(&before));
    let mut stream = client.connect((VIP, 80)).unwrap();
    assert!(question(&mut stream).unwrap().starts_with(&scene.pods[0].0.name));
    apply(&scene.node, &nft::difference(&before, &after));
    assert!(question(&mut stream).unwrap().starts_with(&scene.pods[0].0.name), "goes on");
    assert!(client.ask((VIP, 80)).unwrap().starts_with(&scene.pods[1].0.name), "new ones go elsewhere");
    apply(&scene.node, &nft::replace(&after));
    assert!(question(&mut stream).unwrap().starts_with(&scene.pods[0].0.name), "as after a restart of the agent");
}

#[test]
fn udp_flows_leave_an_endpoint_that_is_gone() {
    if !possible() {
        return;
    }
    let scene = scene();
    let (client, _) = &scene.client;
    let socket = client.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
    let lead_to = |addresses: &[Ipv4Addr]| {
        let ports = model(&view(web(), addresses), &on());
        apply(&scene.node, &nft::replace(&ruleset(&ports, &on())));
        scene.node.machine.run(|| conntrack::forget_stale(&conntrack::backends(&ports, &on()))).unwrap()
    };
    lead_to(&scene.addresses()[..1]);
    assert!(question_udp(&socket, (VIP, 80)).unwrap().starts_with(&scene.pods[0].0.name));
    assert_eq!(lead_to(&scene.addresses()[..1]), 0, "what leads to an endpoint stays");
    assert_eq!(lead_to(&scene.addresses()[1..]), 1);
    assert!(question_udp(&socket, (VIP, 80)).unwrap().starts_with(&scene.pods[1].0.name), "the same socket");
}

/// Differences lead to what replacing leads to.
#[test]
fn updates_step_by_step_end_where_a_new_table_begins() {
    if !possible() {
        return;
    }
    let node = Node::new("node", NODE, 0);
    let ip = |last| Ipv4Addr::new(10, 42, 0, last);
    let other = || Service { cluster_ip: Some(Ipv4Addr::new(10, 43, 0, 81)), affinity_seconds: Some(60), ..web() };
    let mut both = view(web(), &[ip(2), ip(3)]);
    let mut second = other();
    second.ports.iter_mut().for_each(|p| p.node_port = Some(30081));
    add(&mut both, "other", second, &[ip(4), ip(5)]);
    let steps = [
        view(web(), &[]),
        view(web(), &[ip(2)]),
        view(web(), &[ip(2), ip(3)]),
        view(Service { external_local: true, internal_local: true, ..web() }, &[ip(3)]),
        both,
        view(other(), &[ip(4)]),
        view(other(), &[]),
        View { complete: true, ..View::default() },
    ];
    let listed = || node.machine.exec("nft -s list table ip skiff-proxy").1;
    let mut old = table(&View::default());
    apply(&node, &nft::replace(&old));
    for (number, step) in steps.iter().enumerate() {
        let new = table(step);
        apply(&node, &nft::difference(&old, &new));
        let stepped = listed();
        apply(&node, &nft::replace(&new));
        assert_eq!(sorted(&stepped), sorted(&listed()), "step {number}");
        old = new;
    }
}

/// nft lists chains in the order they were made; elements of a line in the order of hashes.
fn sorted(listing: &str) -> Vec<String> {
    let mut chunks: Vec<String> = listing
        .trim_start_matches("table ip skiff-proxy {")
        .split("\n\n")
        .map(|chunk| {
            let mut words: Vec<&str> = chunk.split_whitespace().collect();
            if chunk.contains("elements") {
                words.iter_mut().for_each(|w| *w = w.trim_end_matches(','));
                words.sort_unstable();
            }
            words.join(" ").trim_end_matches(" }").to_owned()
        })
        .collect();
    chunks.sort();
    chunks
}

#[test]
fn a_thousand_services() {
    if !possible() {
        return;
    }
    let node = Node::new("node", NODE, 0);
    let mut many = View { complete: true, ..View::default() };
    for n in 0..1000u32 {
        let mut service = web();
        service.cluster_ip = Some(Ipv4Addr::from_bits(Ipv4Addr::new(10, 43, 16, 0).to_bits() + n));
        service.ports.iter_mut().for_each(|p| p.node_port = None);
        let endpoints: Vec<_> = (0..3).map(|e| Ipv4Addr::from_bits(0x0a2a_0100 + n * 3 + e)).collect();
        add(&mut many, &format!("service-{n}"), service, &endpoints);
    }
    #[allow(clippy::disallowed_methods, reason = "a figure that is printed")]
    let now = std::time::Instant::now;
    let start = now();
    let old = table(&many);
    let transaction = nft::replace(&old);
    println!("1000 services: rules made in {:?}, {} bytes", start.elapsed(), transaction.len());
    let start = now();
    apply(&node, &transaction);
    println!("1000 services: applied in {:?}", start.elapsed());
    add(&mut many, "service-500", web(), &[Ipv4Addr::new(10, 42, 0, 200)]);
    let start = now();
    let new = table(&many);
    let transaction = nft::difference(&old, &new);
    println!("one changed: rules made in {:?}, {} bytes", start.elapsed(), transaction.len());
    let start = now();
    apply(&node, &transaction);
    println!("one changed: applied in {:?}", start.elapsed());
    assert!(transaction.len() < 2000, "{transaction}");
}
