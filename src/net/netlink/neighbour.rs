//! Effects: permanent neighbour (ARP) and forwarding (FDB) entries of one device.

use std::net::Ipv4Addr;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use super::{Mac, Result, Socket};

/// An address and a MAC. As ARP entry: who has the address. As FDB entry of a VXLAN device: which machine to send
/// frames for that MAC to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neighbour {
    pub address: Ipv4Addr,
    pub mac: Mac,
}

impl Socket {
    pub fn add_arp(&mut self, index: u32, entry: Neighbour) -> Result<()> {
        let message = arp(index, entry);
        self.change(
            || format!("add the ARP entry of {}", entry.address),
            Message::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    pub fn delete_arp(&mut self, index: u32, entry: Neighbour) -> Result<()> {
        let step = || format!("delete the ARP entry of {}", entry.address);
        absent(self.change(step, Message::DelNeighbour(arp(index, entry)), 0))
    }

    pub fn add_fdb(&mut self, index: u32, entry: Neighbour) -> Result<()> {
        self.change(
            || format!("add the forwarding entry of {}", entry.mac),
            Message::NewNeighbour(fdb(index, entry)),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    pub fn delete_fdb(&mut self, index: u32, entry: Neighbour) -> Result<()> {
        let step = || format!("delete the forwarding entry of {}", entry.mac);
        absent(self.change(step, Message::DelNeighbour(fdb(index, entry)), 0))
    }

    /// The permanent ARP entries of a device.
    pub fn arps(&mut self, index: u32) -> Result<Vec<Neighbour>> {
        self.neighbours(index, AddressFamily::Inet)
    }

    /// The forwarding entries of a VXLAN device.
    pub fn fdbs(&mut self, index: u32) -> Result<Vec<Neighbour>> {
        self.neighbours(index, AddressFamily::Bridge)
    }

    fn neighbours(&mut self, index: u32, family: AddressFamily) -> Result<Vec<Neighbour>> {
        let mut message = NeighbourMessage::default();
        message.header.family = family;
        let answers = self.dump(|| "list neighbours".to_owned(), Message::GetNeighbour(message))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| {
                let Message::NewNeighbour(found) = answer else { return None };
                let wanted = found.header.ifindex == index && found.header.state == NeighbourState::Permanent;
                if wanted { read(&found) } else { None }
            })
            .collect())
    }
}

fn read(found: &NeighbourMessage) -> Option<Neighbour> {
    let (mut address, mut mac) = (None, None);
    for attribute in &found.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(*ip),
            // The address family of a forwarding entry is that of bridges, so its destination is bytes.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                address = <[u8; 4]>::try_from(bytes.as_slice()).ok().map(Ipv4Addr::from);
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some(Neighbour { address: address?, mac: mac? })
}

fn arp(index: u32, entry: Neighbour) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(entry.address)),
        NeighbourAttribute::LinkLayerAddress(entry.mac.0.to_vec()),
    ];
    message
}

fn fdb(index: u32, entry: Neighbour) -> NeighbourMessage {
    let mut message = arp(index, entry);
    message.header.family = AddressFamily::Bridge;
    message.header.flags = NeighbourFlags::Own;
    message
}

fn absent(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_missing() => Ok(()),
        other => other,
    }
}
