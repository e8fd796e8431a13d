//! Pods attached by the plugin, looked at with `ip` and used.

use std::net::Ipv4Addr;

use super::machines::{Machine, Node, address_of, cable, possible};

const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

#[test]
fn pods_are_attached_checked_and_detached() {
    if !possible() {
        return;
    }
    let node = Node::new("node", NODE, 0);
    node.converge(&[]);
    let a = Machine::new("a");
    #[allow(clippy::disallowed_methods, reason = "a figure that is printed")]
    let start = std::time::Instant::now();
    let result = node.cni("ADD", &a, "[]").unwrap();
    println!("ADD took {:?}", start.elapsed());
    let address = address_of(&result);
    assert_eq!(address, Ipv4Addr::new(10, 42, 0, 2));
    let (b, other) = node.pod("b");

    assert!(a.pings(other) && b.pings(address), "pods reach each other");
    assert!(a.pings(Ipv4Addr::new(10, 42, 0, 1)), "pods reach the gateway");
    assert!(node.machine.pings(address), "the node reaches pods");
    assert!(a.pings(Ipv4Addr::LOCALHOST), "lo is up");
    assert!(a.ip("-4 addr show eth0").contains("inet 10.42.0.2/32"), "{}", a.ip("addr"));
    assert!(a.ip("link show eth0").contains("0a:58:0a:2a:00:02"), "{}", a.ip("link"));
    assert!(a.ip("route").starts_with("default via 10.42.0.1 dev eth0"), "{}", a.ip("route"));
    assert!(a.ip("link show eth0").contains("mtu 1450"));
    let host = serde_json::from_str::<serde_json::Value>(&result).unwrap()["interfaces"][1]["name"].clone();
    let shown = node.machine.ip(&format!("-d link show {}", host.as_str().unwrap()));
    assert!(shown.contains("master cni0") && shown.contains("hairpin on"), "{shown}");

    node.cni("CHECK", &a, "[]").unwrap();
    a.ip("route del default");
    let refused = node.cni("CHECK", &a, "[]").unwrap_err();
    assert!(refused.contains("there is no default route via 10.42.0.1"), "{refused}");

    // Asked again, as after a crash of the runtime: the same address.
    assert_eq!(address_of(&node.cni("ADD", &Machine::new("c"), "[]").unwrap()), Ipv4Addr::new(10, 42, 0, 4));
    for _ in 0..2 {
        node.cni("DEL", &a, "[]").unwrap();
    }
    assert!(!a.ip("link").contains("eth0"));
    assert!(!node.machine.ip("link").contains(host.as_str().unwrap()));
    assert!(node.cni("CHECK", &a, "[]").unwrap_err().contains("no address is reserved"));
}

#[test]
fn a_second_add_of_one_pod_replaces_the_first() {
    if !possible() {
        return;
    }
    let node = Node::new("node", NODE, 0);
    node.converge(&[]);
    let (a, address) = node.pod("a");
    assert_eq!(address_of(&node.cni("ADD", &a, "[]").unwrap()), address);
    assert!(node.machine.pings(address));
}

#[test]
fn addresses_of_vanished_pods_are_used_again_when_all_are_taken() {
    if !possible() {
        return;
    }
    let mut node = Node::new("node", NODE, 0);
    node.pod_cidr.prefix = 30;
    node.converge(&[]);
    let (gone, first) = node.pod("gone");
    let living = Machine::new("living");
    let refused = node.cni("ADD", &living, "[]").unwrap_err();
    assert!(refused.contains("no IP addresses available in range 10.42.0.2-10.42.0.2"), "{refused}");
    drop(gone);
    assert_eq!(address_of(&node.cni("ADD", &living, "[]").unwrap()), first);
    assert!(node.machine.pings(first));
}

#[test]
fn host_ports_lead_to_the_pod() {
    if !possible() {
        return;
    }
    let node = Node::new("node", NODE, 0);
    let outside = Machine::new("outside");
    cable((&node.machine, "eth0", "192.0.2.1"), (&outside, "eth0", "192.0.2.9"));
    node.converge(&[]);
    let pod = Machine::new("pod");
    let ports = r#"[{"hostPort":8080,"containerPort":80,"protocol":"TCP","hostIP":""},
                    {"HostPort":5353,"ContainerPort":80,"Protocol":"udp","HostIP":""},{"hostPort":0,"containerPort":9,"protocol":"TCP"}]"#;
    let address = address_of(&node.cni("ADD", &pod, ports).unwrap());
    pod.serve(80);
    let (other, _) = node.pod("other");
    assert_eq!(outside.ask((NODE, 8080)).unwrap(), format!("{} 192.0.2.9", pod.name));
    assert_eq!(outside.ask_udp((NODE, 5353)).unwrap(), format!("{} 192.0.2.9", pod.name));
    assert!(node.machine.ask((NODE, 8080)).unwrap().starts_with(&pod.name));
    assert!(other.ask((NODE, 8080)).unwrap().starts_with(&pod.name));
    assert!(pod.ask((NODE, 8080)).unwrap().starts_with(&pod.name), "a pod reaches itself");
    node.converge(&[]);
    assert!(outside.ask((NODE, 8080)).is_ok(), "a restart of the agent keeps host ports");

    for _ in 0..2 {
        node.cni("DEL", &pod, ports).unwrap();
    }
    assert!(outside.ask((NODE, 8080)).is_err());
    let (_, rules) = node.machine.exec("nft list table ip skiff-hostports");
    assert!(!rules.contains(&address.to_string()), "{rules}");
}

#[test]
fn loopback_is_a_plugin_of_its_own() {
    if !possible() {
        return;
    }
    let pod = Machine::new("pod");
    pod.ip("link set lo down");
    let path = pod.path();
    let environment = move |name: &str| match name {
        "CNI_COMMAND" => Some("ADD".to_owned()),
        "CNI_CONTAINERID" => Some("a".to_owned()),
        "CNI_NETNS" => Some(path.clone()),
        "CNI_IFNAME" => Some("lo".to_owned()),
        _ => None,
    };
    let conf = br#"{"cniVersion":"0.3.1","name":"cni-loopback","type":"loopback"}"#;
    skiff::net::cni::request(&environment, conf).unwrap();
    assert!(pod.pings(Ipv4Addr::LOCALHOST));
}
