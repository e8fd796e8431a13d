//! Golden tables of [`super::ruleset`] and what they do to packets.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::*;
use crate::config::Cidr;
use crate::net::nft::trace::{Outcome, Packet, World, trace};
use crate::net::nft::{Protocol, replace};
use crate::net::proxy::model::model;
use crate::net::services::{Endpoint, Key as ServiceKey, Port, Service, Slice, View};

fn node() -> Node {
    Node {
        name: "node-1".to_owned(),
        addresses: vec![Ipv4Addr::new(192, 0, 2, 1)],
        cluster_cidr: Cidr { address: Ipv4Addr::new(10, 42, 0, 0), prefix: 16 },
        cluster_dns: Ipv4Addr::new(10, 43, 0, 10),
    }
}

fn endpoint(address: [u8; 4], node: &str) -> Endpoint {
    Endpoint {
        address: address.into(),
        ready: true,
        serving: true,
        terminating: false,
        node: Some(node.to_owned()),
        hostname: None,
    }
}

fn service(cluster_ip: [u8; 4]) -> Service {
    Service {
        cluster_ip: Some(cluster_ip.into()),
        ports: vec![Port { name: "http".to_owned(), protocol: Protocol::Tcp, port: 80, node_port: None }],
        ..Service::default()
    }
}

fn view(services: Vec<(&str, Service, Vec<Endpoint>)>) -> View {
    let mut view = View { complete: true, ..View::default() };
    for (name, service, endpoints) in services {
        let key = ServiceKey::new("default", name);
        view.services.insert(key.clone(), Arc::new(service));
        let slice = Slice { ports: vec![("http".to_owned(), Protocol::Tcp, 8080)], endpoints };
        view.slices.entry(key).or_default().insert(format!("{name}-1"), Arc::new(slice));
    }
    view
}

fn rules(view: &View) -> Table {
    ruleset(&model(view, &node()), &node())
}

/// The lines of the transaction that the frame alone does not have.
fn beyond_the_frame(table: &Table) -> String {
    let frame = replace(&rules(&View::default()));
    let frame: std::collections::HashSet<&str> = frame.lines().collect();
    replace(table).lines().filter(|line| !frame.contains(line)).map(|l| format!("{l}\n")).collect()
}

const FORWARDED: [&str; 4] = ["filter-prerouting", "nat-prerouting", "filter-forward", "nat-postrouting"];
const TO_NODE: [&str; 3] = ["filter-prerouting", "nat-prerouting", "filter-input"];
const FROM_HOST: [&str; 4] = ["filter-output", "nat-output", "filter-output-translated", "nat-postrouting"];

const POD: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 99);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn send(table: &Table, source: Ipv4Addr, to: ([u8; 4], u16), draw: usize, hooks: &[&str]) -> Outcome {
    let world = World { local: [NODE].into(), draw, ..World::default() };
    let packet = Packet { source, destination: to.0.into(), protocol: Protocol::Tcp, port: to.1 };
    trace(table, &world, &packet, hooks)
}

fn sent(ip: [u8; 4], port: u16, masqueraded: bool) -> Outcome {
    Outcome::Sent { to: (ip.into(), port), masqueraded }
}

#[test]
fn the_frame() {
    let expected = "\
add table ip skiff-proxy
delete table ip skiff-proxy
add table ip skiff-proxy
add set ip skiff-proxy cluster-ips { type ipv4_addr; }
add set ip skiff-proxy hairpin { type ipv4_addr . ipv4_addr; }
add set ip skiff-proxy nodeport-ips { type ipv4_addr; }
add map ip skiff-proxy firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
add map ip skiff-proxy no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
add map ip skiff-proxy no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
add map ip skiff-proxy service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
add map ip skiff-proxy service-nodeports { type inet_proto . inet_service : verdict; }
add chain ip skiff-proxy filter-forward { type filter hook forward priority -110; }
add chain ip skiff-proxy filter-input { type filter hook input priority -110; }
add chain ip skiff-proxy filter-output { type filter hook output priority -110; }
add chain ip skiff-proxy filter-output-translated { type filter hook output priority -90; }
add chain ip skiff-proxy filter-prerouting { type filter hook prerouting priority -110; }
add chain ip skiff-proxy masquerade-marked
add chain ip skiff-proxy nat-output { type nat hook output priority -100; }
add chain ip skiff-proxy nat-postrouting { type nat hook postrouting priority srcnat; }
add chain ip skiff-proxy nat-prerouting { type nat hook prerouting priority dstnat; }
add chain ip skiff-proxy reject-chain
add chain ip skiff-proxy services
add rule ip skiff-proxy filter-forward ct state new ip daddr . meta l4proto . th dport vmap @no-endpoint-services
add rule ip skiff-proxy filter-forward ct state new ip daddr @cluster-ips reject
add rule ip skiff-proxy filter-input ct state new ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
add rule ip skiff-proxy filter-input ct state new ip daddr . meta l4proto . th dport vmap @no-endpoint-services
add rule ip skiff-proxy filter-output ct state new ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
add rule ip skiff-proxy filter-output ct state new ip daddr . meta l4proto . th dport vmap @no-endpoint-services
add rule ip skiff-proxy filter-output-translated ct state new ip daddr @cluster-ips reject
add rule ip skiff-proxy filter-prerouting ct state new ip daddr . meta l4proto . th dport vmap @firewall-ips
add rule ip skiff-proxy masquerade-marked meta mark set meta mark & 0xffffbfff
add rule ip skiff-proxy masquerade-marked masquerade fully-random
add rule ip skiff-proxy nat-output jump services
add rule ip skiff-proxy nat-postrouting oifname \"lo\" return
add rule ip skiff-proxy nat-postrouting ip saddr . ip daddr @hairpin masquerade fully-random
add rule ip skiff-proxy nat-postrouting meta mark & 0x00004000 == 0x00004000 goto masquerade-marked
add rule ip skiff-proxy nat-prerouting jump services
add rule ip skiff-proxy reject-chain reject
add rule ip skiff-proxy services ip daddr @cluster-ips ip saddr != 10.42.0.0/16 meta mark set meta mark | 0x00004000
add rule ip skiff-proxy services ip daddr . meta l4proto . th dport vmap @service-ips
add rule ip skiff-proxy services ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
add element ip skiff-proxy nodeport-ips { 192.0.2.1 }
";
    assert_eq!(replace(&rules(&View::default())), expected);
}

#[test]
fn cluster_ip() {
    let ends = vec![endpoint([10, 42, 0, 5], "node-1"), endpoint([10, 42, 1, 6], "node-2")];
    let table = rules(&view(vec![("web", service([10, 43, 0, 80]), ends)]));
    assert_eq!(
        beyond_the_frame(&table),
        "\
add chain ip skiff-proxy service-default/web/tcp/http
add rule ip skiff-proxy service-default/web/tcp/http meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.42.0.5 . 8080, 1 : 10.42.1.6 . 8080 }
add element ip skiff-proxy cluster-ips { 10.43.0.80 }
add element ip skiff-proxy hairpin { 10.42.0.5 . 10.42.0.5, 10.42.1.6 . 10.42.1.6 }
add element ip skiff-proxy service-ips { 10.43.0.80 . tcp . 80 : goto service-default/web/tcp/http }
"
    );
    let vip = ([10, 43, 0, 80], 80);
    assert_eq!(send(&table, POD, vip, 0, &FORWARDED), sent([10, 42, 0, 5], 8080, false));
    assert_eq!(send(&table, POD, vip, 1, &FORWARDED), sent([10, 42, 1, 6], 8080, false));
    assert_eq!(send(&table, NODE, vip, 1, &FROM_HOST), sent([10, 42, 1, 6], 8080, true));
    assert_eq!(send(&table, OUTSIDE, vip, 1, &FORWARDED), sent([10, 42, 1, 6], 8080, true));
    let itself = Ipv4Addr::new(10, 42, 0, 5);
    assert_eq!(send(&table, itself, vip, 0, &FORWARDED), sent([10, 42, 0, 5], 8080, true));
    assert_eq!(send(&table, POD, ([10, 43, 0, 80], 81), 0, &FORWARDED), Outcome::Rejected, "no such port");
    assert_eq!(send(&table, NODE, ([10, 43, 0, 80], 81), 0, &FROM_HOST), Outcome::Rejected);
    assert_eq!(send(&table, POD, ([10, 43, 0, 81], 80), 0, &FORWARDED), Outcome::Untouched);
}

#[test]
fn without_endpoints_connections_are_rejected() {
    let mut with_node_port = service([10, 43, 0, 80]);
    with_node_port.ports[0].node_port = Some(30080);
    let mut unready = endpoint([10, 42, 0, 5], "node-1");
    (unready.ready, unready.serving) = (false, false);
    let table = rules(&view(vec![("web", with_node_port, vec![unready])]));
    assert_eq!(
        beyond_the_frame(&table),
        "\
add element ip skiff-proxy cluster-ips { 10.43.0.80 }
add element ip skiff-proxy no-endpoint-nodeports { tcp . 30080 : goto reject-chain }
add element ip skiff-proxy no-endpoint-services { 10.43.0.80 . tcp . 80 : goto reject-chain }
"
    );
    assert_eq!(send(&table, POD, ([10, 43, 0, 80], 80), 0, &FORWARDED), Outcome::Rejected);
    assert_eq!(send(&table, OUTSIDE, ([192, 0, 2, 1], 30080), 0, &TO_NODE), Outcome::Rejected);
}

#[test]
fn node_port_masquerades_what_comes_from_outside() {
    let mut web = service([10, 43, 0, 80]);
    web.ports[0].node_port = Some(30080);
    let table = rules(&view(vec![("web", web, vec![endpoint([10, 42, 1, 6], "node-2")])]));
    assert_eq!(
        beyond_the_frame(&table),
        "\
add chain ip skiff-proxy external-default/web/tcp/http
add chain ip skiff-proxy service-default/web/tcp/http
add rule ip skiff-proxy external-default/web/tcp/http meta mark set meta mark | 0x00004000
add rule ip skiff-proxy external-default/web/tcp/http goto service-default/web/tcp/http
add rule ip skiff-proxy service-default/web/tcp/http meta l4proto tcp dnat ip to 10.42.1.6:8080
add element ip skiff-proxy cluster-ips { 10.43.0.80 }
add element ip skiff-proxy hairpin { 10.42.1.6 . 10.42.1.6 }
add element ip skiff-proxy service-ips { 10.43.0.80 . tcp . 80 : goto service-default/web/tcp/http }
add element ip skiff-proxy service-nodeports { tcp . 30080 : goto external-default/web/tcp/http }
"
    );
    assert_eq!(send(&table, OUTSIDE, ([192, 0, 2, 1], 30080), 0, &FORWARDED), sent([10, 42, 1, 6], 8080, true));
    assert_eq!(send(&table, NODE, ([192, 0, 2, 1], 30080), 0, &FROM_HOST), sent([10, 42, 1, 6], 8080, true));
    assert_eq!(send(&table, OUTSIDE, ([198, 51, 100, 8], 30080), 0, &FORWARDED), Outcome::Untouched, "not our address");
}

#[test]
fn external_policy_local_keeps_the_source() {
    let mut web = service([10, 43, 0, 80]);
    web.ports[0].node_port = Some(30080);
    web.external_local = true;
    let remote = endpoint([10, 42, 1, 6], "node-2");
    let port = ([192, 0, 2, 1], 30080);

    let table = rules(&view(vec![("web", web.clone(), vec![endpoint([10, 42, 0, 5], "node-1"), remote.clone()])]));
    for draw in 0..2 {
        assert_eq!(send(&table, OUTSIDE, port, draw, &FORWARDED), sent([10, 42, 0, 5], 8080, false));
    }
    assert_eq!(send(&table, POD, port, 1, &FORWARDED), sent([10, 42, 1, 6], 8080, false));
    assert_eq!(send(&table, NODE, port, 1, &FROM_HOST), sent([10, 42, 1, 6], 8080, true));

    let table = rules(&view(vec![("web", web, vec![remote])]));
    assert_eq!(send(&table, OUTSIDE, port, 0, &TO_NODE), Outcome::Dropped, "another node has the endpoint");
    assert_eq!(send(&table, POD, port, 0, &FORWARDED), sent([10, 42, 1, 6], 8080, false));
}

#[test]
fn internal_policy_local() {
    let mut web = service([10, 43, 0, 80]);
    web.internal_local = true;
    let vip = ([10, 43, 0, 80], 80);
    let remote = endpoint([10, 42, 1, 6], "node-2");
    let table = rules(&view(vec![("web", web.clone(), vec![endpoint([10, 42, 0, 5], "node-1"), remote.clone()])]));
    assert_eq!(send(&table, POD, vip, 1, &FORWARDED), sent([10, 42, 0, 5], 8080, false));
    let table = rules(&view(vec![("web", web, vec![remote])]));
    assert_eq!(send(&table, POD, vip, 0, &FORWARDED), Outcome::Dropped);
}

#[test]
fn session_affinity() {
    let mut web = service([10, 43, 0, 80]);
    web.affinity_seconds = Some(10_800);
    let ends = vec![endpoint([10, 42, 0, 5], "node-1"), endpoint([10, 42, 1, 6], "node-2")];
    let table = rules(&view(vec![("web", web, ends)]));
    assert_eq!(
        beyond_the_frame(&table),
        "\
add set ip skiff-proxy affinity-default/web/tcp/http__10.42.0.5/8080 { type ipv4_addr; size 65535; flags dynamic,timeout; timeout 10800s; }
add set ip skiff-proxy affinity-default/web/tcp/http__10.42.1.6/8080 { type ipv4_addr; size 65535; flags dynamic,timeout; timeout 10800s; }
add chain ip skiff-proxy endpoint-default/web/tcp/http__10.42.0.5/8080
add chain ip skiff-proxy endpoint-default/web/tcp/http__10.42.1.6/8080
add chain ip skiff-proxy service-default/web/tcp/http
add rule ip skiff-proxy endpoint-default/web/tcp/http__10.42.0.5/8080 meta l4proto tcp update @affinity-default/web/tcp/http__10.42.0.5/8080 { ip saddr } dnat ip to 10.42.0.5:8080
add rule ip skiff-proxy endpoint-default/web/tcp/http__10.42.1.6/8080 meta l4proto tcp update @affinity-default/web/tcp/http__10.42.1.6/8080 { ip saddr } dnat ip to 10.42.1.6:8080
add rule ip skiff-proxy service-default/web/tcp/http ip saddr @affinity-default/web/tcp/http__10.42.0.5/8080 goto endpoint-default/web/tcp/http__10.42.0.5/8080
add rule ip skiff-proxy service-default/web/tcp/http ip saddr @affinity-default/web/tcp/http__10.42.1.6/8080 goto endpoint-default/web/tcp/http__10.42.1.6/8080
add rule ip skiff-proxy service-default/web/tcp/http numgen random mod 2 vmap { 0 : goto endpoint-default/web/tcp/http__10.42.0.5/8080, 1 : goto endpoint-default/web/tcp/http__10.42.1.6/8080 }
add element ip skiff-proxy cluster-ips { 10.43.0.80 }
add element ip skiff-proxy hairpin { 10.42.0.5 . 10.42.0.5, 10.42.1.6 . 10.42.1.6 }
add element ip skiff-proxy service-ips { 10.43.0.80 . tcp . 80 : goto service-default/web/tcp/http }
"
    );
    let packet = Packet { source: POD, destination: [10, 43, 0, 80].into(), protocol: Protocol::Tcp, port: 80 };
    let remembered = [("affinity-default/web/tcp/http__10.42.1.6/8080".to_owned(), POD)].into();
    let world = World { remembered, draw: 0, ..World::default() };
    assert_eq!(trace(&table, &world, &packet, &FORWARDED), sent([10, 42, 1, 6], 8080, false));
}

#[test]
fn terminating_endpoints_serve_only_when_no_other_does() {
    let mut leaving = endpoint([10, 42, 0, 5], "node-1");
    (leaving.ready, leaving.terminating) = (false, true);
    let vip = ([10, 43, 0, 80], 80);
    let table = rules(&view(vec![("web", service([10, 43, 0, 80]), vec![leaving.clone()])]));
    assert_eq!(send(&table, POD, vip, 0, &FORWARDED), sent([10, 42, 0, 5], 8080, false));
    let both = vec![leaving, endpoint([10, 42, 1, 6], "node-2")];
    let table = rules(&view(vec![("web", service([10, 43, 0, 80]), both)]));
    for draw in 0..2 {
        assert_eq!(send(&table, POD, vip, draw, &FORWARDED), sent([10, 42, 1, 6], 8080, false));
    }
}

#[test]
fn external_addresses_and_source_ranges() {
    let mut web = service([10, 43, 0, 80]);
    web.external_ips = vec![[203, 0, 113, 5].into()];
    web.load_balancer_ips = vec![[203, 0, 113, 6].into()];
    web.load_balancer_sources = vec![Cidr { address: [198, 51, 100, 0].into(), prefix: 24 }];
    let table = rules(&view(vec![("web", web, vec![endpoint([10, 42, 0, 5], "node-1")])]));
    let to = sent([10, 42, 0, 5], 8080, true);
    assert_eq!(send(&table, OUTSIDE, ([203, 0, 113, 5], 80), 0, &FORWARDED), to);
    assert_eq!(send(&table, OUTSIDE, ([203, 0, 113, 6], 80), 0, &FORWARDED), to);
    let stranger = Ipv4Addr::new(203, 0, 113, 99);
    assert_eq!(send(&table, stranger, ([203, 0, 113, 5], 80), 0, &FORWARDED), to);
    assert_eq!(send(&table, stranger, ([203, 0, 113, 6], 80), 0, &FORWARDED), Outcome::Dropped);
}

#[test]
fn services_that_are_not_for_this_proxy() {
    let mut headless = service([10, 43, 0, 80]);
    (headless.headless, headless.cluster_ip) = (true, None);
    let mut other = service([10, 43, 0, 81]);
    other.other_proxy = true;
    let ends = || vec![endpoint([10, 42, 0, 5], "node-1")];
    let table = rules(&view(vec![
        ("headless", headless, ends()),
        ("other", other, ends()),
        ("kube-dns", service([10, 43, 0, 10]), ends()),
    ]));
    assert_eq!(beyond_the_frame(&table), "");
}

#[test]
fn an_update_is_as_large_as_its_difference() {
    use crate::net::nft::difference;
    let web = |last| vec![endpoint([10, 42, 0, 5], "node-1"), endpoint([10, 42, 1, last], "node-2")];
    let other = || ("other", service([10, 43, 0, 90]), web(9));
    let old = rules(&view(vec![("web", service([10, 43, 0, 80]), web(6)), other()]));
    let new = rules(&view(vec![("web", service([10, 43, 0, 80]), web(7)), other()]));
    assert_eq!(difference(&old, &old), "");
    assert_eq!(
        difference(&old, &new),
        "\
delete element ip skiff-proxy hairpin { 10.42.1.6 . 10.42.1.6 }
flush chain ip skiff-proxy service-default/web/tcp/http
add rule ip skiff-proxy service-default/web/tcp/http meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.42.0.5 . 8080, 1 : 10.42.1.7 . 8080 }
add element ip skiff-proxy hairpin { 10.42.1.7 . 10.42.1.7 }
"
    );
    let without = rules(&view(vec![other()]));
    assert_eq!(
        difference(&new, &without),
        "\
delete element ip skiff-proxy service-ips { 10.43.0.80 . tcp . 80 }
delete element ip skiff-proxy cluster-ips { 10.43.0.80 }
delete element ip skiff-proxy hairpin { 10.42.1.7 . 10.42.1.7 }
flush chain ip skiff-proxy service-default/web/tcp/http
delete chain ip skiff-proxy service-default/web/tcp/http
"
    );
}
