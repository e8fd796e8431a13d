//! Effects: bring the kernel of this node to the plan: bridge, tunnel device and its entries, masquerading, and the
//! plugin's configuration last, because it makes the runtime report its network ready.

use std::net::Ipv4Addr;

use super::Settings;
use super::plan::{Action, DEVICE, OVERHEAD, Observed, Peer, Wanted, plan, wanted};
use crate::config::{BRIDGE, Cidr};
use crate::net::netlink::{LOOPBACK, Result, Route, Socket, sysctl};
use crate::net::{cni, host, nft};

/// MTU of a machine whose interface is not known, bytes.
const ETHERNET_MTU: u32 = 1500;
/// Most that a veth device takes, bytes.
const MTU_LIMIT: u32 = 65_535;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Everything a node needs to have pods, given its own pod network and the other nodes. Does nothing where nothing differs.
pub fn converge(settings: &Settings, own: Cidr, peers: &[Peer]) -> std::result::Result<(), Failure> {
    let mut socket = Socket::open()?;
    let mtu = underlay_mtu(&mut socket, settings.node_ip)? - OVERHEAD;
    sysctl::set("net/ipv4/ip_forward", "1")?;
    socket.set_up("lo")?;
    let bridge = cni::ensure_bridge(&mut socket, BRIDGE, own.nth(1), own.prefix, mtu)?;
    host::service_route(&mut socket, settings.service_cidr, bridge, settings.node_ip)?;
    tunnel(&mut socket, &wanted(own, settings.node_ip, mtu, peers))?;
    nft::apply::apply(&nft::ensure(&cni::hostports_table(None)))?;
    nft::apply::apply(&nft::replace(&host::pods_table(own, settings.cluster_cidr)))?;
    if cni::write_conf(&settings.data_dir, own, mtu)? {
        tracing::info!(pod_cidr = %format!("{}/{}", own.address, own.prefix), mtu, "pod network is ready");
    }
    Ok(())
}

/// What fits through the interface that has the node's address.
fn underlay_mtu(socket: &mut Socket, node_ip: Ipv4Addr) -> Result<u32> {
    let index = socket.addresses()?.iter().find(|a| a.address == node_ip).map(|a| a.index);
    let found = match index {
        Some(index) => socket.links()?.into_iter().find(|link| link.index == index).map(|link| link.mtu),
        None => None,
    };
    Ok(found.unwrap_or(ETHERNET_MTU).clamp(576 + OVERHEAD, MTU_LIMIT))
}

fn tunnel(socket: &mut Socket, wanted: &Wanted) -> Result<()> {
    let first = plan(wanted, &observe(socket)?);
    let made = first.contains(&Action::MakeDevice);
    apply(socket, wanted, &first)?;
    if made {
        let second = plan(wanted, &observe(socket)?);
        apply(socket, wanted, &second)?;
    }
    Ok(())
}

fn observe(socket: &mut Socket) -> Result<Observed> {
    let Some(link) = socket.link(DEVICE)? else { return Ok(Observed::default()) };
    let index = link.index;
    Ok(Observed {
        link: Some(link),
        addresses: socket
            .addresses()?
            .into_iter()
            .filter(|a| a.index == index)
            .map(|a| (a.address, a.prefix))
            .collect(),
        routes: socket.routes()?.into_iter().filter(|route| route.index == index).collect(),
        arps: socket.arps(index)?.into_iter().collect(),
        fdbs: socket.fdbs(index)?.into_iter().collect(),
    })
}

fn apply(socket: &mut Socket, wanted: &Wanted, actions: &[Action]) -> Result<()> {
    let index = socket.link(DEVICE)?.map_or(LOOPBACK, |link| link.index);
    for action in actions {
        tracing::debug!(?action, "tunnel");
        match action {
            Action::DeleteDevice => socket.delete_link(DEVICE).map(drop)?,
            Action::MakeDevice => socket.add_vxlan(DEVICE, wanted.vxlan, wanted.mac, wanted.mtu)?,
            Action::SetMtu(mtu) => socket.set_mtu(DEVICE, *mtu)?,
            Action::SetUp => socket.set_up(DEVICE)?,
            Action::DeleteRoute(route) => socket.delete_route(route).map(drop)?,
            Action::DeleteArp(entry) => socket.delete_arp(index, *entry)?,
            Action::DeleteFdb(entry) => socket.delete_fdb(index, *entry)?,
            Action::DeleteAddress(address, prefix) => socket.delete_address(index, *address, *prefix).map(drop)?,
            Action::AddAddress(address) => socket.add_address(index, *address, 32)?,
            Action::AddFdb(entry) => socket.add_fdb(index, *entry)?,
            Action::AddArp(entry) => socket.add_arp(index, *entry)?,
            Action::AddRoute(route) => socket.add_route(&Route { index, ..*route })?,
        }
    }
    Ok(())
}
