//! Decides: which endpoints each port of each Service has on this node.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::config::Cidr;
use crate::net::nft::Protocol;
use crate::net::services::{Endpoint, Service, View};

/// What the proxy has to know about its node and cluster.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    /// NodePorts are open on these.
    pub addresses: Vec<Ipv4Addr>,
    /// Sources outside are masqueraded on their way to a ClusterIP.
    pub cluster_cidr: Cidr,
    /// Answered by this node itself, so that Services with this address are left out.
    pub cluster_dns: Ipv4Addr,
}

/// An address and a port.
pub type Backend = (Ipv4Addr, u16);

/// One port of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `namespace/name/protocol/port name`
    pub id: String,
    pub protocol: Protocol,
    pub cluster_ip: Ipv4Addr,
    pub port: u16,
    pub node_port: Option<u16>,
    pub external_ips: BTreeSet<Ipv4Addr>,
    pub load_balancer_ips: BTreeSet<Ipv4Addr>,
    pub load_balancer_sources: Vec<Cidr>,
    pub affinity_seconds: Option<u32>,
    pub external_local: bool,
    pub internal_local: bool,
    /// For policy `Cluster`: ready ones, or else those that still serve while they terminate.
    pub cluster: BTreeSet<Backend>,
    /// For policy `Local`: the same, of this node only. Empty when no policy asks for it.
    pub local: BTreeSet<Backend>,
}

impl ServicePort {
    /// Whether there is an endpoint anywhere.
    #[must_use]
    pub fn has_any(&self) -> bool {
        !self.cluster.is_empty() || !self.local.is_empty()
    }

    #[must_use]
    pub fn internal(&self) -> &BTreeSet<Backend> {
        if self.internal_local { &self.local } else { &self.cluster }
    }

    #[must_use]
    pub fn external(&self) -> &BTreeSet<Backend> {
        if self.external_local { &self.local } else { &self.cluster }
    }
}

/// In the order of namespace, name and the Service's own ports.
#[must_use]
pub fn model(view: &View, node: &Node) -> Vec<ServicePort> {
    let mut ports = Vec::new();
    for (key, service) in &view.services {
        let Some(cluster_ip) = service.cluster_ip else { continue };
        if service.headless || service.other_proxy || cluster_ip == node.cluster_dns {
            continue;
        }
        for port in &service.ports {
            let candidates: Vec<(&Endpoint, Backend)> = view
                .slices_of(key)
                .flat_map(|slice| {
                    slice
                        .ports
                        .iter()
                        .filter(|(name, protocol, _)| *name == port.name && *protocol == port.protocol)
                        .flat_map(|(_, _, number)| slice.endpoints.iter().map(|e| (e, (e.address, *number))))
                })
                .collect();
            let local: Vec<_> =
                candidates.iter().filter(|(e, _)| e.node.as_deref() == Some(node.name.as_str())).copied().collect();
            let uses_local = service.internal_local || service.external_local;
            ports.push(ServicePort {
                id: format!("{}/{}/{}/{}", key.namespace, key.name, port.protocol.name(), port.name),
                protocol: port.protocol,
                cluster_ip,
                port: port.port,
                node_port: port.node_port,
                external_ips: service.external_ips.iter().copied().collect(),
                load_balancer_ips: service.load_balancer_ips.iter().copied().collect(),
                load_balancer_sources: service.load_balancer_sources.clone(),
                affinity_seconds: service.affinity_seconds,
                external_local: service.external_local && reaches_from_outside(service),
                internal_local: service.internal_local,
                cluster: usable(&candidates),
                local: if uses_local { usable(&local) } else { BTreeSet::new() },
            });
        }
    }
    ports
}

/// Ready endpoints; when there are none, those that still serve while they terminate.
fn usable(candidates: &[(&Endpoint, Backend)]) -> BTreeSet<Backend> {
    let ready: BTreeSet<Backend> = candidates.iter().filter(|(e, _)| e.ready).map(|(_, b)| *b).collect();
    if !ready.is_empty() {
        return ready;
    }
    candidates.iter().filter(|(e, _)| e.serving && e.terminating).map(|(_, b)| *b).collect()
}

fn reaches_from_outside(service: &Service) -> bool {
    !service.external_ips.is_empty()
        || !service.load_balancer_ips.is_empty()
        || service.ports.iter().any(|p| p.node_port.is_some())
}
