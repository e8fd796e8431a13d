//! Decides: the nftables table that makes Services reachable. Like upstream's nftables proxy, with fewer rules: an
//! endpoint needs a chain of its own only where a client is to stay with it.
//!
//! ```text
//! prerouting, output ─▶ services ─┬─ service-ips (address . protocol . port) ──▶ service-… ─▶ dnat
//!                                 └─ service-nodeports (protocol . port) ─▶ external-… ─┘ (marks for masquerade)
//! input, forward, output ─▶ no-endpoint-services, no-endpoint-nodeports ─▶ reject or drop
//! postrouting ─▶ masquerade: what was marked, and a pod that reaches itself
//! ```

use std::collections::BTreeSet;

use super::model::{Backend, Node, ServicePort};
use crate::net::nft::{Action, Key, Match, Rule, Table, Target};

pub const TABLE: &str = "skiff-proxy";
/// As upstream: packets with this bit are masqueraded when they leave.
pub const MASQUERADE_MARK: u32 = 0x4000;

const SERVICE_KEY: &str = "ipv4_addr . inet_proto . inet_service : verdict";
const NODEPORT_KEY: &str = "inet_proto . inet_service : verdict";
const REJECT: &str = "reject-chain";

#[must_use]
pub fn ruleset(ports: &[ServicePort], node: &Node) -> Table {
    let mut table = Table::new(TABLE);
    frame(&mut table, node);
    for port in ports {
        add_port(&mut table, port, node);
    }
    table
}

/// What is there with no Service at all.
fn frame(table: &mut Table, node: &Node) {
    table.set("cluster-ips", "ipv4_addr");
    table.set("hairpin", "ipv4_addr . ipv4_addr");
    table.map("service-ips", SERVICE_KEY);
    table.map("service-nodeports", NODEPORT_KEY);
    table.map("no-endpoint-services", SERVICE_KEY);
    table.map("no-endpoint-nodeports", NODEPORT_KEY);
    table.map("firewall-ips", SERVICE_KEY);
    let node_ips = table.set("nodeport-ips", "ipv4_addr");
    node_ips.elements.extend(node.addresses.iter().map(|ip| Key::Ip(*ip)));

    let to_cluster_ip = || Match::DestinationInSet("cluster-ips".to_owned());
    let to_node = || Match::DestinationInSet("nodeport-ips".to_owned());
    let jump = |chain: &str| vec![Rule::always(Action::Jump(chain.to_owned()))];
    let no_endpoint = |new: Match| Rule::new([new], Action::ServiceMap("no-endpoint-services".to_owned()));
    let no_endpoint_nodeport =
        || Rule::new([Match::NewConnection, to_node()], Action::PortMap("no-endpoint-nodeports".to_owned()));
    let wrong_port = || Rule::new([Match::NewConnection, to_cluster_ip()], Action::Reject);

    table.chain("nat-prerouting", Some("type nat hook prerouting priority dstnat"), jump("services"));
    table.chain("nat-output", Some("type nat hook output priority -100"), jump("services"));
    table.chain(
        "services",
        None,
        vec![
            Rule::new([to_cluster_ip(), Match::SourceNotIn(node.cluster_cidr)], Action::SetMark(MASQUERADE_MARK)),
            Rule::always(Action::ServiceMap("service-ips".to_owned())),
            Rule::new([to_node()], Action::PortMap("service-nodeports".to_owned())),
        ],
    );
    table.chain(
        "nat-postrouting",
        Some("type nat hook postrouting priority srcnat"),
        vec![
            // To an endpoint that is this machine itself: the answer comes back here anyway.
            Rule::new([Match::OutputDevice("lo")], Action::Return),
            Rule::new([Match::PairInSet("hairpin".to_owned())], Action::Masquerade),
            Rule::new([Match::Marked(MASQUERADE_MARK)], Action::Goto("masquerade-marked".to_owned())),
        ],
    );
    table.chain(
        "masquerade-marked",
        None,
        // Cleared, so that a tunnel's outer packet, which inherits the mark, is left alone.
        vec![Rule::always(Action::ClearMark(MASQUERADE_MARK)), Rule::always(Action::Masquerade)],
    );
    // Before translation: only what no rule will translate is still addressed to the Service.
    table.chain(
        "filter-prerouting",
        Some("type filter hook prerouting priority -110"),
        vec![Rule::new([Match::NewConnection], Action::ServiceMap("firewall-ips".to_owned()))],
    );
    table.chain(
        "filter-input",
        Some("type filter hook input priority -110"),
        vec![no_endpoint_nodeport(), no_endpoint(Match::NewConnection)],
    );
    table.chain(
        "filter-forward",
        Some("type filter hook forward priority -110"),
        vec![no_endpoint(Match::NewConnection), wrong_port()],
    );
    table.chain(
        "filter-output",
        Some("type filter hook output priority -110"),
        vec![no_endpoint_nodeport(), no_endpoint(Match::NewConnection)],
    );
    table.chain("filter-output-translated", Some("type filter hook output priority -90"), vec![wrong_port()]);
    table.chain(REJECT, None, vec![Rule::always(Action::Reject)]);
}

fn add_port(table: &mut Table, port: &ServicePort, node: &Node) {
    let id = &port.id;
    let cluster_chain = format!("service-{id}");
    let local_chain = format!("local-{id}");
    let external_chain = format!("external-{id}");
    let firewall_chain = format!("firewall-{id}");

    let outside: BTreeSet<_> = port.external_ips.union(&port.load_balancer_ips).copied().collect();
    let is_external = !outside.is_empty() || port.node_port.is_some();
    let uses_local = port.internal_local || (port.external_local && is_external);
    // With an external policy `Local` the machine itself and its pods still reach every endpoint.
    let uses_cluster = !port.internal_local || is_external;

    table.set("cluster-ips", "").elements.insert(Key::Ip(port.cluster_ip));
    for (ip, _) in port.cluster.union(&port.local) {
        table.set("hairpin", "").elements.insert(Key::IpIp(*ip, *ip));
    }
    if uses_cluster && !port.cluster.is_empty() {
        balance(table, &cluster_chain, port, &port.cluster);
    }
    if uses_local && !port.local.is_empty() {
        balance(table, &local_chain, port, &port.local);
    }
    if is_external && port.has_any() {
        table.chain(&external_chain, None, external(port, node, &cluster_chain, &local_chain));
    }

    // A Service that has endpoints, but none on this node, loses packets silently: another node may answer.
    let without = |backends: &BTreeSet<Backend>| match (port.has_any(), backends.is_empty()) {
        (false, _) => Some(Target::Goto(REJECT.to_owned())),
        (true, true) => Some(Target::Drop),
        (true, false) => None,
    };
    let internal_chain = if port.internal_local { &local_chain } else { &cluster_chain };
    let key = |ip| Key::IpProtoPort(ip, port.protocol, port.port);
    match without(port.internal()) {
        None => insert(table, "service-ips", key(port.cluster_ip), Target::Goto(internal_chain.clone())),
        Some(verdict) => insert(table, "no-endpoint-services", key(port.cluster_ip), verdict),
    }
    for ip in outside {
        if port.has_any() {
            insert(table, "service-ips", key(ip), Target::Goto(external_chain.clone()));
        }
        if let Some(verdict) = without(port.external()) {
            insert(table, "no-endpoint-services", key(ip), verdict);
        }
    }
    if let Some(node_port) = port.node_port {
        let key = Key::ProtoPort(port.protocol, node_port);
        if port.has_any() {
            insert(table, "service-nodeports", key, Target::Goto(external_chain));
        }
        if let Some(verdict) = without(port.external()) {
            insert(table, "no-endpoint-nodeports", key, verdict);
        }
    }
    if !port.load_balancer_sources.is_empty() && !port.load_balancer_ips.is_empty() {
        let mut rules: Vec<Rule> =
            port.load_balancer_sources.iter().map(|net| Rule::new([Match::SourceIn(*net)], Action::Return)).collect();
        rules.push(Rule::always(Action::Drop));
        table.chain(&firewall_chain, None, rules);
        for ip in &port.load_balancer_ips {
            insert(table, "firewall-ips", key(*ip), Target::Goto(firewall_chain.clone()));
        }
    }
}

/// What happens to packets for an external address or a NodePort.
fn external(port: &ServicePort, node: &Node, cluster: &str, local: &str) -> Vec<Rule> {
    let to_cluster = || Action::Goto(cluster.to_owned());
    if !port.external_local {
        // The answer has to come back through this node.
        return vec![Rule::always(Action::SetMark(MASQUERADE_MARK)), Rule::always(to_cluster())];
    }
    let mut rules = Vec::new();
    if !port.cluster.is_empty() {
        rules.push(Rule::new([Match::SourceIn(node.cluster_cidr)], to_cluster()));
        rules.push(Rule::new([Match::SourceLocal], Action::SetMark(MASQUERADE_MARK)));
        rules.push(Rule::new([Match::SourceLocal], to_cluster()));
    }
    if !port.local.is_empty() {
        rules.push(Rule::always(Action::Goto(local.to_owned())));
    }
    rules
}

/// A chain that sends a new connection to one of the endpoints.
fn balance(table: &mut Table, chain: &str, port: &ServicePort, backends: &BTreeSet<Backend>) {
    let this_protocol = || Match::Protocol(port.protocol);
    let Some(seconds) = port.affinity_seconds else {
        let all = backends.iter().copied().collect();
        table.chain(chain, None, vec![Rule::new([this_protocol()], Action::Dnat(all))]);
        return;
    };
    let mut rules = Vec::new();
    let mut endpoints = Vec::new();
    for (ip, number) in backends {
        let remembered = format!("affinity-{}__{ip}/{number}", port.id);
        let endpoint = format!("endpoint-{}__{ip}/{number}", port.id);
        table.set(&remembered, "ipv4_addr").timeout_seconds = Some(seconds);
        table.chain(
            &endpoint,
            None,
            vec![Rule::new([this_protocol()], Action::DnatRemembered(remembered.clone(), *ip, *number))],
        );
        rules.push(Rule::new([Match::SourceInSet(remembered)], Action::Goto(endpoint.clone())));
        endpoints.push(endpoint);
    }
    rules.push(Rule::always(Action::Choose(endpoints)));
    table.chain(chain, None, rules);
}

fn insert(table: &mut Table, map: &str, key: Key, target: Target) {
    // Two Services can claim one external address and port; the first keeps it, as everywhere in Kubernetes.
    table.map(map, "").elements.entry(key).or_insert(target);
}

#[cfg(test)]
#[path = "ruleset_tests.rs"]
mod tests;
