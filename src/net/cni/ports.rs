//! Decides: host ports of pods as elements of the table `skiff-hostports`.
//!
//! The agent declares the table; the plugin adds and takes away elements only, so that neither needs to know what the
//! other pods have.

use std::net::Ipv4Addr;

use serde::Deserialize;

use crate::net::nft::{Action, Key, Match, Protocol, Rule, Table, Target, ensure};

pub const HOSTPORTS_TABLE: &str = "skiff-hostports";
const HAIRPIN: &str = "hairpin";

/// One entry of `runtimeConfig.portMappings`. containerd writes the names of Go's fields (`HostPort`), for Go's reader
/// does not tell them from those of the convention (`go-cni`, `PortMapping`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    #[serde(default, alias = "HostPort")]
    pub host_port: u16,
    #[serde(alias = "ContainerPort")]
    pub container_port: u16,
    #[serde(default = "tcp", alias = "Protocol")]
    pub protocol: String,
    /// Empty or 0.0.0.0: every address of the machine.
    #[serde(default, rename = "hostIP", alias = "HostIP")]
    pub host_ip: String,
}

fn tcp() -> String {
    "tcp".to_owned()
}

impl PortMapping {
    /// As a line of a reservation file.
    pub fn to_line(&self) -> String {
        let ip = if self.host_ip.is_empty() { "0.0.0.0" } else { &self.host_ip };
        format!("{} {ip} {} {}", self.protocol, self.host_port, self.container_port)
    }

    pub fn from_line(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut next = || words.next();
        let (protocol, ip) = (next()?.to_owned(), next()?);
        let host_ip = if ip == "0.0.0.0" { String::new() } else { ip.to_owned() };
        Some(Self { protocol, host_ip, host_port: next()?.parse().ok()?, container_port: next()?.parse().ok()? })
    }
}

/// The table without elements, or with those of one pod.
#[must_use]
pub fn table(pod: Option<(Ipv4Addr, &[PortMapping])>) -> Table {
    let mut table = Table::new(HOSTPORTS_TABLE);
    let mut prerouting = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        let (any, one) = names(protocol);
        table.map(&any, "inet_service : ipv4_addr . inet_service");
        table.map(&one, "ipv4_addr . inet_service : ipv4_addr . inet_service");
        prerouting.push(Rule::new([Match::Protocol(protocol)], Action::DnatAddressPortMap(protocol, one)));
        prerouting
            .push(Rule::new([Match::DestinationLocal, Match::Protocol(protocol)], Action::DnatPortMap(protocol, any)));
    }
    table.set(HAIRPIN, "ipv4_addr . ipv4_addr");
    // Before the Services, as upstream's port mapping is.
    table.chain("prerouting", Some("type nat hook prerouting priority -105"), prerouting.clone());
    table.chain("output", Some("type nat hook output priority -105"), prerouting);
    table.chain(
        "postrouting",
        Some("type nat hook postrouting priority 95"),
        vec![Rule::new([Match::PairInSet(HAIRPIN.to_owned())], Action::Masquerade)],
    );
    let Some((address, ports)) = pod else { return table };
    table.set(HAIRPIN, "").elements.insert(Key::IpIp(address, address));
    for port in ports {
        let Some(protocol) = Protocol::parse(&port.protocol) else { continue };
        let (any, one) = names(protocol);
        let target = Target::Address(address, port.container_port);
        match port.host_ip.parse::<Ipv4Addr>() {
            Ok(ip) if !ip.is_unspecified() => {
                table.map(&one, "").elements.insert(Key::IpPort(ip, port.host_port), target);
            }
            _ if port.host_ip.contains(':') => {}
            _ => {
                table.map(&any, "").elements.insert(Key::Port(port.host_port), target);
            }
        }
    }
    table
}

/// The transaction that opens a pod's host ports.
#[must_use]
pub fn open(address: Ipv4Addr, ports: &[PortMapping]) -> String {
    ensure(&table(Some((address, ports))))
}

/// The transaction that closes them. Adding first makes deleting what is not there any more succeed.
#[must_use]
pub fn close(address: Ipv4Addr, ports: &[PortMapping]) -> String {
    let with = table(Some((address, ports)));
    let without = table(None);
    format!("{}{}", ensure(&with), crate::net::nft::difference(&with, &without))
}

fn names(protocol: Protocol) -> (String, String) {
    (format!("ports-{}", protocol.name()), format!("ip-ports-{}", protocol.name()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::net::nft::trace::{Outcome, Packet, World, trace};

    const POD: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 7);

    fn mapping(protocol: &str, ip: &str, host_port: u16, container_port: u16) -> PortMapping {
        PortMapping { protocol: protocol.to_owned(), host_ip: ip.to_owned(), host_port, container_port }
    }

    #[test]
    fn mappings_are_read_as_containerd_and_others_write_them() {
        for text in [
            r#"{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":"192.0.2.1"}"#,
            r#"{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"192.0.2.1"}"#,
        ] {
            assert_eq!(serde_json::from_str::<PortMapping>(text).unwrap(), mapping("tcp", "192.0.2.1", 8080, 80));
        }
    }

    #[test]
    fn packets_to_a_host_port_reach_the_pod() {
        let table = table(Some((POD, &[mapping("TCP", "", 8080, 80), mapping("udp", "192.0.2.1", 53, 5353)])));
        let node = Ipv4Addr::new(192, 0, 2, 1);
        let world = World { local: BTreeSet::from([node, Ipv4Addr::new(192, 0, 2, 2)]), ..World::default() };
        let send = |source: Ipv4Addr, destination: Ipv4Addr, protocol, port| {
            trace(&table, &world, &Packet { source, destination, protocol, port }, &["prerouting", "postrouting"])
        };
        let outside = Ipv4Addr::new(198, 51, 100, 9);
        assert_eq!(send(outside, node, Protocol::Tcp, 8080), Outcome::Sent { to: (POD, 80), masqueraded: false });
        assert_eq!(send(POD, node, Protocol::Tcp, 8080), Outcome::Sent { to: (POD, 80), masqueraded: true });
        assert_eq!(send(outside, node, Protocol::Udp, 53), Outcome::Sent { to: (POD, 5353), masqueraded: false });
        assert_eq!(send(outside, Ipv4Addr::new(192, 0, 2, 2), Protocol::Udp, 53), Outcome::Untouched);
        assert_eq!(send(outside, outside, Protocol::Tcp, 8080), Outcome::Untouched);
    }

    #[test]
    fn lines_round_trip() {
        for port in [mapping("tcp", "", 8080, 80), mapping("udp", "192.0.2.1", 53, 5353)] {
            assert_eq!(PortMapping::from_line(&port.to_line()), Some(port));
        }
    }
}
