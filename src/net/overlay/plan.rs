//! Decides: which tunnel device, routes, ARP and forwarding entries a node needs, and how to get there.
//!
//! Each node's end of the tunnel has the first address of its pod network (10.42.1.0) and a MAC made from it, so that
//! nothing has to be exchanged but the Node objects. Per peer: a route to its pods via that address, an ARP entry for
//! it, and a forwarding entry that says which machine has that MAC.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::config::Cidr;
use crate::net::netlink::{Link, Mac, Neighbour, Route, Vxlan};

pub use crate::config::TUNNEL as DEVICE;
const VNI: u32 = 1;
/// UDP.
const PORT: u16 = 8472;
/// Outer IPv4, UDP and VXLAN headers and the inner Ethernet header, bytes.
pub const OVERHEAD: u32 = 50;

/// Another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `InternalIP` of the Node.
    pub address: Option<Ipv4Addr>,
    pub pod_cidr: Cidr,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub vxlan: Vxlan,
    pub mac: Mac,
    pub mtu: u32,
    /// Of the device, /32.
    pub address: Ipv4Addr,
    pub routes: BTreeSet<(Ipv4Addr, u8)>,
    pub arps: BTreeSet<Neighbour>,
    pub fdbs: BTreeSet<Neighbour>,
}

/// What the kernel has. Entries of our device only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub link: Option<Link>,
    pub addresses: BTreeSet<(Ipv4Addr, u8)>,
    pub routes: BTreeSet<Route>,
    pub arps: BTreeSet<Neighbour>,
    pub fdbs: BTreeSet<Neighbour>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    DeleteDevice,
    /// The device's entries are planned in a second round, when its index is known.
    MakeDevice,
    SetMtu(u32),
    SetUp,
    DeleteRoute(Route),
    DeleteArp(Neighbour),
    DeleteFdb(Neighbour),
    DeleteAddress(Ipv4Addr, u8),
    AddAddress(Ipv4Addr),
    AddFdb(Neighbour),
    AddArp(Neighbour),
    AddRoute(Route),
}

#[must_use]
pub fn wanted(own: Cidr, node_ip: Ipv4Addr, mtu: u32, peers: &[Peer]) -> Wanted {
    let mut wanted = Wanted {
        vxlan: Vxlan { vni: VNI, port: PORT, local: node_ip },
        mac: Mac::of(own.address),
        mtu,
        address: own.address,
        routes: BTreeSet::new(),
        arps: BTreeSet::new(),
        fdbs: BTreeSet::new(),
    };
    for peer in peers {
        // A Node of another name with our own address or network is a leftover of a renamed node.
        let Some(machine) = peer.address.filter(|address| *address != node_ip) else { continue };
        if peer.pod_cidr == own {
            continue;
        }
        let end = peer.pod_cidr.address;
        wanted.routes.insert((end, peer.pod_cidr.prefix));
        wanted.arps.insert(Neighbour { address: end, mac: Mac::of(end) });
        wanted.fdbs.insert(Neighbour { address: machine, mac: Mac::of(end) });
    }
    wanted
}

/// Removes before it adds. Routes are added last: a packet never meets a route that leads nowhere.
#[must_use]
pub fn plan(wanted: &Wanted, observed: &Observed) -> Vec<Action> {
    let Some(link) = &observed.link else { return vec![Action::MakeDevice] };
    if link.vxlan != Some(wanted.vxlan) || link.mac != Some(wanted.mac) {
        return vec![Action::DeleteDevice, Action::MakeDevice];
    }
    let mut actions = Vec::new();
    if link.mtu != wanted.mtu {
        actions.push(Action::SetMtu(wanted.mtu));
    }
    if !link.up {
        actions.push(Action::SetUp);
    }
    let routes: BTreeSet<Route> = wanted
        .routes
        .iter()
        .map(|(destination, prefix)| Route {
            destination: *destination,
            prefix: *prefix,
            gateway: Some(*destination),
            index: link.index,
            source: None,
            metric: None,
        })
        .collect();
    actions.extend(observed.routes.difference(&routes).map(|r| Action::DeleteRoute(*r)));
    actions.extend(observed.arps.difference(&wanted.arps).map(|e| Action::DeleteArp(*e)));
    actions.extend(observed.fdbs.difference(&wanted.fdbs).map(|e| Action::DeleteFdb(*e)));
    let address = (wanted.address, 32);
    actions.extend(observed.addresses.iter().filter(|a| **a != address).map(|(a, p)| Action::DeleteAddress(*a, *p)));
    if !observed.addresses.contains(&address) {
        actions.push(Action::AddAddress(wanted.address));
    }
    actions.extend(wanted.fdbs.difference(&observed.fdbs).map(|e| Action::AddFdb(*e)));
    actions.extend(wanted.arps.difference(&observed.arps).map(|e| Action::AddArp(*e)));
    actions.extend(routes.difference(&observed.routes).map(|r| Action::AddRoute(*r)));
    actions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(third: u8) -> Cidr {
        Cidr { address: Ipv4Addr::new(10, 42, third, 0), prefix: 24 }
    }

    fn peer(third: u8) -> Peer {
        Peer { address: Some(Ipv4Addr::new(192, 0, 2, third)), pod_cidr: cidr(third) }
    }

    fn wanted_with(peers: &[Peer]) -> Wanted {
        wanted(cidr(0), Ipv4Addr::new(192, 0, 2, 100), 1450, peers)
    }

    /// What the kernel has after everything wanted was applied.
    fn applied(wanted: &Wanted) -> Observed {
        Observed {
            link: Some(Link {
                index: 7,
                name: DEVICE.to_owned(),
                kind: "vxlan".to_owned(),
                mac: Some(wanted.mac),
                mtu: wanted.mtu,
                up: true,
                master: None,
                vxlan: Some(wanted.vxlan),
            }),
            addresses: [(wanted.address, 32)].into(),
            routes: plan(wanted, &Observed { link: Some(link(wanted)), ..Observed::default() })
                .into_iter()
                .filter_map(|action| if let Action::AddRoute(route) = action { Some(route) } else { None })
                .collect(),
            arps: wanted.arps.clone(),
            fdbs: wanted.fdbs.clone(),
        }
    }

    fn link(wanted: &Wanted) -> Link {
        Link {
            index: 7,
            name: DEVICE.to_owned(),
            kind: "vxlan".to_owned(),
            mac: Some(wanted.mac),
            mtu: wanted.mtu,
            up: true,
            master: None,
            vxlan: Some(wanted.vxlan),
        }
    }

    fn lines(actions: &[Action]) -> Vec<String> {
        actions.iter().map(|action| format!("{action:?}")).collect()
    }

    #[test]
    fn a_new_node_makes_the_device_first() {
        assert_eq!(plan(&wanted_with(&[peer(1)]), &Observed::default()), [Action::MakeDevice]);
    }

    #[test]
    fn nothing_to_do_when_all_is_there() {
        let wanted = wanted_with(&[peer(1), peer(2)]);
        assert_eq!(plan(&wanted, &applied(&wanted)), []);
    }

    #[test]
    fn peers_come_and_go() {
        let before = applied(&wanted_with(&[peer(1), peer(2)]));
        let after = wanted_with(&[peer(2), peer(3)]);
        assert_eq!(
            lines(&plan(&after, &before)),
            [
                "DeleteRoute(Route { destination: 10.42.1.0, prefix: 24, gateway: Some(10.42.1.0), index: 7, source: None, metric: None })",
                "DeleteArp(Neighbour { address: 10.42.1.0, mac: 0a:58:0a:2a:01:00 })",
                "DeleteFdb(Neighbour { address: 192.0.2.1, mac: 0a:58:0a:2a:01:00 })",
                "AddFdb(Neighbour { address: 192.0.2.3, mac: 0a:58:0a:2a:03:00 })",
                "AddArp(Neighbour { address: 10.42.3.0, mac: 0a:58:0a:2a:03:00 })",
                "AddRoute(Route { destination: 10.42.3.0, prefix: 24, gateway: Some(10.42.3.0), index: 7, source: None, metric: None })",
            ]
        );
    }

    #[test]
    fn a_peer_with_a_new_address_keeps_its_route() {
        let before = applied(&wanted_with(&[peer(1)]));
        let moved = Peer { address: Some(Ipv4Addr::new(192, 0, 2, 9)), ..peer(1) };
        assert_eq!(
            lines(&plan(&wanted_with(&[moved]), &before)),
            [
                "DeleteFdb(Neighbour { address: 192.0.2.1, mac: 0a:58:0a:2a:01:00 })",
                "AddFdb(Neighbour { address: 192.0.2.9, mac: 0a:58:0a:2a:01:00 })",
            ]
        );
    }

    #[test]
    fn a_new_own_address_makes_the_device_anew() {
        let before = applied(&wanted_with(&[peer(1)]));
        let after = wanted(cidr(0), Ipv4Addr::new(192, 0, 2, 101), 1450, &[peer(1)]);
        assert_eq!(plan(&after, &before), [Action::DeleteDevice, Action::MakeDevice]);
    }

    #[test]
    fn nodes_without_an_address_and_duplicates_are_left_out() {
        let nowhere = Peer { address: None, ..peer(1) };
        let twin = Peer { pod_cidr: cidr(0), ..peer(2) };
        let wanted = wanted_with(&[nowhere, twin]);
        assert!(wanted.routes.is_empty() && wanted.fdbs.is_empty());
    }
}
