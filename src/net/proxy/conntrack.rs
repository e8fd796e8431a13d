//! Decides: which tracked UDP flows no longer lead to an endpoint. TCP notices by itself that its peer is gone; UDP goes
//! on sending, and every packet keeps the kernel's memory of the old translation alive.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::model::{Backend, Node, ServicePort};
use crate::net::netlink::{self, Conntrack, Flow};
use crate::net::nft::Protocol;

/// What clients send to by UDP, and the endpoints that may answer.
pub type Backends = BTreeMap<(Ipv4Addr, u16), BTreeSet<Backend>>;

#[must_use]
pub fn backends(ports: &[ServicePort], node: &Node) -> Backends {
    let mut backends = Backends::new();
    for port in ports.iter().filter(|port| port.protocol == Protocol::Udp) {
        let mut add = |front, ends: &mut dyn Iterator<Item = &Backend>| {
            backends.entry(front).or_default().extend(ends.copied());
        };
        add((port.cluster_ip, port.port), &mut port.internal().iter());
        // Pods and the machine itself may be led elsewhere than clients from outside.
        for ip in port.external_ips.union(&port.load_balancer_ips) {
            add((*ip, port.port), &mut port.cluster.union(&port.local));
        }
        for ip in node.addresses.iter().filter(|_| port.node_port.is_some()) {
            add((*ip, port.node_port.unwrap_or_default()), &mut port.cluster.union(&port.local));
        }
    }
    backends
}

/// A flow to a Service that none of its endpoints answers. One that was never translated is stale as soon as there is an
/// endpoint: it began when there was none.
#[must_use]
pub fn is_stale(flow: &Flow, backends: &Backends) -> bool {
    let Some(ends) = backends.get(&flow.destination) else { return false };
    if ends.is_empty() && flow.answers_from == flow.destination {
        return false;
    }
    !ends.contains(&flow.answers_from)
}

/// Returns how many there were.
pub fn forget_stale(backends: &Backends) -> netlink::Result<usize> {
    if backends.is_empty() {
        return Ok(0);
    }
    let mut conntrack = Conntrack::open()?;
    let stale: Vec<Flow> = conntrack.udp_flows()?.into_iter().filter(|flow| is_stale(flow, backends)).collect();
    for flow in &stale {
        conntrack.forget(flow)?;
    }
    Ok(stale.len())
}
