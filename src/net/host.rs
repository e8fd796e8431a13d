//! Effects: what the machine itself needs besides: the route to Services, masquerading of pods, and taking all away.

use std::net::Ipv4Addr;

use super::netlink::{self, LOOPBACK, Route, Socket};
use super::nft::{self, Action, Match, Rule, Table};
use super::{cni, proxy};
use crate::config::{BRIDGE, Cidr, Cluster, TUNNEL};

/// Masquerades what pods send to the world.
pub const PODS_TABLE: &str = "skiff-pods";
const MULTICAST: Cidr = Cidr { address: Ipv4Addr::new(224, 0, 0, 0), prefix: 4 };

/// The table that gives packets from pods to the world the machine's address.
#[must_use]
pub fn pods_table(own: Cidr, cluster: Cidr) -> Table {
    let mut table = Table::new(PODS_TABLE);
    table.chain(
        "postrouting",
        Some("type nat hook postrouting priority srcnat"),
        vec![Rule::new(
            [Match::SourceIn(own), Match::DestinationNotIn(cluster), Match::DestinationNotIn(MULTICAST)],
            Action::Masquerade,
        )],
    );
    table
}

/// A machine without a default route could not even begin to send to a Service: translation comes after routing. The
/// packet is routed again with its new destination, so that the device hardly matters; it is the bridge, because the
/// kernel sends no ICMP error for what goes out by `lo`, and a rejected connection would hang (tried on 6.18).
pub fn service_route(socket: &mut Socket, services: Cidr, bridge: u32, node_ip: Ipv4Addr) -> netlink::Result<()> {
    let local = socket.addresses()?.iter().any(|found| found.address == node_ip);
    let route = Route {
        destination: services.address,
        prefix: services.prefix,
        gateway: None,
        index: bridge,
        source: Some(node_ip).filter(|ip| local && !ip.is_loopback()),
        metric: None,
    };
    if socket.routes()?.contains(&route) { Ok(()) } else { socket.add_route(&route) }
}

/// Gives `lo` the cluster DNS address.
pub fn add_dns_address(address: Ipv4Addr) -> netlink::Result<()> {
    let mut socket = Socket::open()?;
    socket.set_up("lo")?;
    if socket.addresses()?.iter().any(|found| found.address == address) {
        return Ok(());
    }
    socket.add_address(LOOPBACK, address, 32)
}

/// Removes everything this module ever makes: tables, devices with their routes, the address on `lo`. Goes on after a failure and
/// returns all of them.
#[must_use]
pub fn cleanup(cluster: &Cluster) -> Vec<String> {
    let mut failures = Vec::new();
    let mut note = |error: &dyn std::error::Error| failures.push(crate::supervisor::chain(error));
    for table in [proxy::ruleset::TABLE, cni::HOSTPORTS_TABLE, PODS_TABLE] {
        match nft::apply::delete_table(table) {
            Ok(()) | Err(nft::apply::Error::NotInstalled) => {}
            Err(error) => note(&error),
        }
    }
    let links = || -> netlink::Result<()> {
        let mut socket = Socket::open()?;
        if let Some(bridge) = socket.link(BRIDGE)? {
            for pod in socket.links()?.into_iter().filter(|l| l.master == Some(bridge.index) && l.kind == "veth") {
                socket.delete_link(&pod.name)?;
            }
        }
        socket.delete_link(BRIDGE)?;
        socket.delete_link(TUNNEL)?;
        socket.delete_address(LOOPBACK, cluster.cluster_dns, 32)?;
        Ok(())
    };
    if let Err(error) = links() {
        note(&error);
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::nft::Protocol;
    use crate::net::nft::trace::{Outcome, Packet, World, trace};

    #[test]
    fn only_what_leaves_the_cluster_is_masqueraded() {
        let own = Cidr { address: Ipv4Addr::new(10, 42, 3, 0), prefix: 24 };
        let cluster = Cidr { address: Ipv4Addr::new(10, 42, 0, 0), prefix: 16 };
        let table = pods_table(own, cluster);
        assert_eq!(
            table.chains["postrouting"].rules[0].to_string(),
            "ip saddr 10.42.3.0/24 ip daddr != 10.42.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random"
        );
        let masqueraded = |source: [u8; 4], destination: [u8; 4]| {
            let packet =
                Packet { source: source.into(), destination: destination.into(), protocol: Protocol::Tcp, port: 443 };
            trace(&table, &World::default(), &packet, &["postrouting"]) != Outcome::Untouched
        };
        assert!(masqueraded([10, 42, 3, 7], [198, 51, 100, 1]));
        assert!(!masqueraded([10, 42, 3, 7], [10, 42, 9, 1]));
        assert!(!masqueraded([10, 42, 3, 7], [224, 0, 0, 251]));
        assert!(!masqueraded([192, 0, 2, 1], [198, 51, 100, 1]));
    }
}
