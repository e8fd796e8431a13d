//! Two nodes and the tunnel between them.

use std::net::Ipv4Addr;

use skiff::net::overlay::plan::{DEVICE, Peer};

use super::machines::{Node, cable, possible};

#[test]
fn pods_of_two_nodes_reach_each_other() {
    if !possible() {
        return;
    }
    let ips = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
    let one = Node::new("one", ips[0], 1);
    let two = Node::new("two", ips[1], 2);
    cable((&one.machine, "eth0", "192.0.2.1"), (&two.machine, "eth0", "192.0.2.2"));
    let peer = |node: &Node| Peer { address: Some(node.settings.node_ip), pod_cidr: node.pod_cidr };
    one.converge(&[peer(&two)]);
    two.converge(&[peer(&one)]);
    let (a, a_ip) = one.pod("a");
    let (b, b_ip) = two.pod("b");
    assert!(a.pings(b_ip) && b.pings(a_ip));
    assert!(one.machine.pings(b_ip), "a node reaches pods of another");
    assert!(a.exec(&format!("ping -c1 -W2 -M do -s 1422 {b_ip}")).0, "the largest packet fits");
    b.serve(8080);
    assert_eq!(a.ask((b_ip, 8080)).unwrap(), format!("{} {a_ip}", b.name), "pods are seen as themselves");

    // An agent that starts again changes nothing.
    let before = one.machine.ip("-d link show skiff.vxlan");
    one.converge(&[peer(&two)]);
    assert_eq!(one.machine.ip("-d link show skiff.vxlan"), before);

    // The other node went away.
    assert!(one.machine.ip("route").contains("10.42.2.0/24 via 10.42.2.0 dev skiff.vxlan proto static onlink"));
    one.converge(&[]);
    assert!(!one.machine.ip("route").contains("10.42.2.0"));
    assert!(!one.machine.ip(&format!("neigh show dev {DEVICE}")).contains("10.42.2.0"));
    let (_, fdb) = one.machine.exec(&format!("bridge fdb show dev {DEVICE}"));
    assert!(!fdb.contains("192.0.2.2"), "{fdb}");
    one.converge(&[peer(&two)]);
    assert!(a.pings(b_ip), "and came back");
}

#[test]
fn everything_can_be_taken_away() {
    if !possible() {
        return;
    }
    let node = Node::new("node", Ipv4Addr::new(192, 0, 2, 1), 0);
    node.machine.ip("address add 192.0.2.1/32 dev lo");
    node.converge(&[]);
    let (_pod, _) = node.pod("pod");
    let cluster = skiff::config::Cluster {
        cluster_cidr: super::machines::CLUSTER,
        service_cidr: super::machines::SERVICES,
        cluster_dns: Ipv4Addr::new(10, 43, 0, 10),
        cluster_domain: "cluster.local".to_owned(),
        node_ports: (30000, 32767),
    };
    for _ in 0..2 {
        assert_eq!(node.machine.run(|| skiff::net::cleanup(&cluster)), Vec::<String>::new());
    }
    let links = node.machine.ip("-o link");
    assert!(links.lines().all(|l| !l.contains("cni0") && !l.contains("veth") && !l.contains("skiff")), "{links}");
    assert_eq!(node.machine.ip("route"), "");
    assert_eq!(node.machine.exec("nft list ruleset").1, "");
}
