//! Types: Services and their endpoints, reduced to what proxy and DNS need. Only IPv4.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service as ApiService;
use k8s_openapi::api::discovery::v1::EndpointSlice as ApiSlice;

use super::nft::Protocol;
use crate::config::Cidr;

/// Label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// A Service with this label is another proxy's business.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// `sessionAffinityConfig.clientIP.timeoutSeconds` when it is not set.
const AFFINITY_SECONDS: i32 = 10_800;

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// Everything at one moment. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub services: BTreeMap<Key, Arc<Service>>,
    /// By Service, then by name of the slice.
    pub slices: BTreeMap<Key, BTreeMap<String, Arc<Slice>>>,
    /// Both lists were read once. Until then nothing may be concluded from what is missing.
    pub complete: bool,
}

impl View {
    pub fn slices_of(&self, service: &Key) -> impl Iterator<Item = &Slice> {
        self.slices.get(service).into_iter().flat_map(BTreeMap::values).map(Arc::as_ref)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// None for a headless or an ExternalName Service.
    pub cluster_ip: Option<Ipv4Addr>,
    pub headless: bool,
    /// Target of an ExternalName Service.
    pub external_name: Option<String>,
    pub external_ips: Vec<Ipv4Addr>,
    pub load_balancer_ips: Vec<Ipv4Addr>,
    pub load_balancer_sources: Vec<Cidr>,
    pub ports: Vec<Port>,
    /// `sessionAffinity: ClientIP`
    pub affinity_seconds: Option<u32>,
    pub external_local: bool,
    pub internal_local: bool,
    pub other_proxy: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Name, protocol, number.
    pub ports: Vec<(String, Protocol, u16)>,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Ipv4Addr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub node: Option<String>,
    pub hostname: Option<String>,
}

impl Service {
    #[must_use]
    pub fn from_api(service: &ApiService) -> Self {
        let Some(spec) = &service.spec else { return Self::default() };
        let labels = service.metadata.labels.as_ref();
        let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
        if kind == "ExternalName" {
            return Self { external_name: spec.external_name.clone(), ..Self::default() };
        }
        let v4 = |texts: &Option<Vec<String>>| -> Vec<Ipv4Addr> {
            texts.iter().flatten().filter_map(|text| text.parse().ok()).collect()
        };
        let all: Vec<&String> = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).collect();
        let ingress = service.status.iter().flat_map(|s| &s.load_balancer).flat_map(|l| &l.ingress).flatten();
        Self {
            cluster_ip: all.iter().find_map(|text| text.parse().ok()),
            headless: all.iter().any(|text| *text == "None"),
            external_name: None,
            external_ips: v4(&spec.external_ips),
            load_balancer_ips: ingress
                .filter(|i| i.ip_mode.as_deref() != Some("Proxy"))
                .filter_map(|i| i.ip.as_ref()?.parse().ok())
                .collect(),
            load_balancer_sources: spec
                .load_balancer_source_ranges
                .iter()
                .flatten()
                .filter_map(|text| parse_cidr(text.trim()))
                .collect(),
            ports: spec
                .ports
                .iter()
                .flatten()
                .filter_map(|port| {
                    Some(Port {
                        name: port.name.clone().unwrap_or_default(),
                        protocol: Protocol::parse(port.protocol.as_deref().unwrap_or("TCP"))?,
                        port: u16::try_from(port.port).ok()?,
                        node_port: port.node_port.and_then(|n| u16::try_from(n).ok()).filter(|n| *n != 0),
                    })
                })
                .collect(),
            affinity_seconds: (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
                let configured = spec
                    .session_affinity_config
                    .as_ref()
                    .and_then(|c| c.client_ip.as_ref())
                    .and_then(|c| c.timeout_seconds);
                u32::try_from(configured.unwrap_or(AFFINITY_SECONDS)).unwrap_or(1).max(1)
            }),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            other_proxy: labels.is_some_and(|l| l.contains_key(OTHER_PROXY)),
        }
    }
}

impl Slice {
    /// The Service it belongs to; `None` for a slice of none, or of another address family.
    #[must_use]
    pub fn owner(slice: &ApiSlice) -> Option<Key> {
        if slice.address_type != "IPv4" {
            return None;
        }
        let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
        Some(Key::new(slice.metadata.namespace.as_deref()?, name))
    }

    #[must_use]
    pub fn from_api(slice: &ApiSlice) -> Self {
        Self {
            ports: slice
                .ports
                .iter()
                .flatten()
                .filter_map(|port| {
                    Some((
                        port.name.clone().unwrap_or_default(),
                        Protocol::parse(port.protocol.as_deref().unwrap_or("TCP"))?,
                        u16::try_from(port.port?).ok()?,
                    ))
                })
                .collect(),
            endpoints: slice
                .endpoints
                .iter()
                .flatten()
                .filter_map(|endpoint| {
                    // "Consumers should handle additional addresses by using only the first."
                    let address = endpoint.addresses.first()?.parse().ok()?;
                    let conditions = endpoint.conditions.clone().unwrap_or_default();
                    let ready = conditions.ready.unwrap_or(true);
                    Some(Endpoint {
                        address,
                        ready,
                        serving: conditions.serving.unwrap_or(ready),
                        terminating: conditions.terminating.unwrap_or(false),
                        node: endpoint.node_name.clone(),
                        hostname: endpoint.hostname.clone().filter(|h| !h.is_empty()),
                    })
                })
                .collect(),
        }
    }
}

/// `10.42.3.0/24`; bits behind the prefix are cleared.
#[must_use]
pub fn parse_cidr(text: &str) -> Option<Cidr> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix): (Ipv4Addr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
    if prefix > 32 {
        return None;
    }
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    Some(Cidr { address: Ipv4Addr::from_bits(address.to_bits() & mask), prefix })
}
