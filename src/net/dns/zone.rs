//! Decides: what a name of the cluster stands for, as the Kubernetes DNS specification (1.1.0) says and CoreDNS does.
//!
//! ```text
//! <service>.<ns>.svc.<domain>                       cluster address, or all ready endpoints when headless
//! <host>.<service>.<ns>.svc.<domain>                one endpoint; its host name, or its address as 10-42-0-7
//! _<port>._<protocol>.<service>.<ns>.svc.<domain>   SRV
//! 10-42-0-7.<ns>.pod.<domain>                       that address
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};

use super::Settings;
use crate::config::Cidr;
use crate::net::nft::Protocol;
use crate::net::services::{Endpoint, Key, Service, View};

/// Version of the specification, the text of `dns-version.<domain>`.
pub const SCHEMA_VERSION: &str = "1.1.0";

/// One moment of the cluster, with what lookups need.
pub struct Zone {
    view: Arc<View>,
    /// Labels of the cluster domain, lower case: `["cluster", "local"]`.
    pub domain: Vec<String>,
    pub address: Ipv4Addr,
    cluster_cidr: Cidr,
    service_cidr: Cidr,
    /// Seconds since 1970 when it was made; the serial of the zone.
    pub serial: u32,
    /// Names of an address without the domain, made when first asked for.
    reverse: OnceLock<BTreeMap<Ipv4Addr, BTreeSet<String>>>,
}

/// What there is at a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// No such name.
    Nothing,
    /// The name exists: records of some types or of none.
    Node(Records),
    /// Another name, outside or inside of the cluster.
    Alias(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub addresses: Vec<Ipv4Addr>,
    pub services: Vec<Srv>,
    pub text: Option<&'static str>,
    /// The apex: has the SOA and NS records.
    pub apex: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    pub port: u16,
    /// Without the domain.
    pub target: String,
    pub address: Ipv4Addr,
}

/// Who has to answer for a reverse name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reverse {
    /// Without the domain.
    Names(Vec<String>),
    /// An address of this cluster that nobody has.
    Nothing,
    /// Somebody else's address.
    Foreign,
}

impl Zone {
    #[must_use]
    pub fn new(view: Arc<View>, settings: &Settings) -> Self {
        Self {
            view,
            domain: settings.domain.trim_matches('.').to_ascii_lowercase().split('.').map(str::to_owned).collect(),
            address: settings.address,
            cluster_cidr: settings.cluster_cidr,
            service_cidr: settings.service_cidr,
            serial: u32::try_from(crate::clock::now().as_second()).unwrap_or(0),
            reverse: OnceLock::new(),
        }
    }

    /// Whether Services and endpoints are known; before that "no such name" would be a lie.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.view.complete
    }

    /// The labels before the cluster domain; `None` for a name that is not ours. `labels` are lower case.
    #[must_use]
    pub fn within<'l>(&self, labels: &'l [String]) -> Option<&'l [String]> {
        labels.strip_suffix(self.domain.as_slice())
    }

    /// `labels`: those before the domain.
    #[must_use]
    pub fn find(&self, labels: &[String]) -> Found {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let empty = Found::Node(Records::default());
        match labels.as_slice() {
            [] => Found::Node(Records { apex: true, ..Records::default() }),
            ["svc" | "pod"] | ["dns"] => empty,
            ["ns", "dns"] => addresses(vec![self.address]),
            ["dns-version"] => Found::Node(Records { text: Some(SCHEMA_VERSION), ..Records::default() }),
            [namespace, "svc" | "pod"] => {
                if self.has_namespace(namespace) {
                    empty
                } else {
                    Found::Nothing
                }
            }
            [address, _, "pod"] => dashed(address).map_or(Found::Nothing, |address| addresses(vec![address])),
            [service, namespace, "svc"] => self.service(&Key::new(namespace, service)),
            [host, service, namespace, "svc"] if !host.starts_with('_') => {
                self.endpoint(&Key::new(namespace, service), host)
            }
            // Leads to SRV records, without having any.
            [protocol, service, namespace, "svc"] => match protocol_label(protocol) {
                Some(protocol) => self.ports(&Key::new(namespace, service), Some(protocol), None, true),
                None => Found::Nothing,
            },
            [port, protocol, service, namespace, "svc"] => match (port.strip_prefix('_'), protocol_label(protocol)) {
                (Some(port), Some(protocol)) => {
                    self.ports(&Key::new(namespace, service), Some(protocol), Some(port), false)
                }
                _ => Found::Nothing,
            },
            _ => Found::Nothing,
        }
    }

    /// The names of an address.
    #[must_use]
    pub fn names(&self, address: Ipv4Addr) -> Reverse {
        match self.reverse.get_or_init(|| self.reverse()).get(&address) {
            Some(names) => Reverse::Names(names.iter().cloned().collect()),
            None if self.cluster_cidr.contains(address) || self.service_cidr.contains(address) => Reverse::Nothing,
            None => Reverse::Foreign,
        }
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        let from = Key::new(namespace, "");
        self.view.services.range(from..).next().is_some_and(|(key, _)| key.namespace == namespace)
    }

    fn service(&self, key: &Key) -> Found {
        let Some(service) = self.view.services.get(key) else { return Found::Nothing };
        if let Some(target) = &service.external_name {
            return Found::Alias(target.clone());
        }
        let mut records = match self.ports(key, None, None, false) {
            Found::Node(records) => records,
            other => return other,
        };
        records.addresses = match service.cluster_ip {
            Some(address) => vec![address],
            None => {
                let all: BTreeSet<Ipv4Addr> = self.ready(key).map(|e| e.address).collect();
                all.into_iter().collect()
            }
        };
        // As the specification has it since 1.1.0: a headless Service without ready endpoints does not exist.
        if records.addresses.is_empty() { Found::Nothing } else { Found::Node(records) }
    }

    fn endpoint(&self, key: &Key, host: &str) -> Found {
        if !self.view.services.contains_key(key) {
            return Found::Nothing;
        }
        let all: BTreeSet<Ipv4Addr> = self.ready(key).filter(|e| host_of(e) == host).map(|e| e.address).collect();
        if all.is_empty() { Found::Nothing } else { addresses(all.into_iter().collect()) }
    }

    /// SRV records of the ports that match. `bare`: whether they exist is all that is asked.
    fn ports(&self, key: &Key, protocol: Option<Protocol>, name: Option<&str>, bare: bool) -> Found {
        let Some(service) = self.view.services.get(key) else { return Found::Nothing };
        let matches = |n: &str, p: Protocol| {
            protocol.is_none_or(|wanted| wanted == p) && name.is_none_or(|wanted| wanted.eq_ignore_ascii_case(n))
        };
        let services = match service.cluster_ip {
            Some(address) => cluster_ports(key, service, address, &matches),
            None => self.endpoint_ports(key, &matches),
        };
        if services.is_empty() && protocol.is_some() {
            return Found::Nothing;
        }
        Found::Node(Records { services: if bare { Vec::new() } else { services }, ..Records::default() })
    }

    fn endpoint_ports(&self, key: &Key, matches: &dyn Fn(&str, Protocol) -> bool) -> Vec<Srv> {
        let mut found = Vec::new();
        for slice in self.view.slices_of(key) {
            for (_, _, port) in slice.ports.iter().filter(|(name, protocol, _)| matches(name, *protocol)) {
                for endpoint in slice.endpoints.iter().filter(|e| e.ready) {
                    found.push(Srv {
                        port: *port,
                        target: format!("{}.{}.{}.svc", host_of(endpoint), key.name, key.namespace),
                        address: endpoint.address,
                    });
                }
            }
        }
        found
    }

    fn ready(&self, key: &Key) -> impl Iterator<Item = &Endpoint> {
        self.view.slices_of(key).flat_map(|slice| &slice.endpoints).filter(|endpoint| endpoint.ready)
    }

    fn reverse(&self) -> BTreeMap<Ipv4Addr, BTreeSet<String>> {
        let mut names: BTreeMap<Ipv4Addr, BTreeSet<String>> = BTreeMap::new();
        for (key, service) in &self.view.services {
            let own = format!("{}.{}.svc", key.name, key.namespace);
            for endpoint in self.ready(key) {
                names.entry(endpoint.address).or_default().insert(format!("{}.{own}", host_of(endpoint)));
            }
            if let Some(address) = service.cluster_ip {
                names.entry(address).or_default().insert(own);
            }
        }
        names
    }
}

fn cluster_ports(
    key: &Key,
    service: &Service,
    address: Ipv4Addr,
    matches: &dyn Fn(&str, Protocol) -> bool,
) -> Vec<Srv> {
    let target = format!("{}.{}.svc", key.name, key.namespace);
    service
        .ports
        .iter()
        .filter(|port| matches(&port.name, port.protocol))
        .map(|port| Srv { port: port.port, target: target.clone(), address })
        .collect()
}

fn addresses(addresses: Vec<Ipv4Addr>) -> Found {
    Found::Node(Records { addresses, ..Records::default() })
}

fn host_of(endpoint: &Endpoint) -> String {
    match &endpoint.hostname {
        Some(hostname) => hostname.to_ascii_lowercase(),
        None => endpoint.address.to_string().replace('.', "-"),
    }
}

fn dashed(label: &str) -> Option<Ipv4Addr> {
    label.replace('-', ".").parse().ok()
}

fn protocol_label(label: &str) -> Option<Protocol> {
    Protocol::parse(label.strip_prefix('_')?)
}
