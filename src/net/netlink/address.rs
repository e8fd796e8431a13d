//! Effects: IPv4 addresses of devices.

use std::net::{IpAddr, Ipv4Addr};

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};

use super::{LOOPBACK, Result, Socket};

/// An IPv4 address of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The device.
    pub index: u32,
    pub address: Ipv4Addr,
    pub prefix: u8,
}

impl Socket {
    /// Adding an address that is there changes nothing.
    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> Result<()> {
        let mut message = request(index, address, prefix);
        if index == LOOPBACK {
            // Never chosen as the source of a packet that leaves the machine.
            message.header.scope = AddressScope::Host;
        }
        if prefix < 31 {
            let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            message.attributes.push(AddressAttribute::Broadcast(Ipv4Addr::from_bits(address.to_bits() | host_bits)));
        }
        self.change(
            || format!("add address {address}/{prefix}"),
            Message::NewAddress(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Says whether there was something to delete.
    pub fn delete_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> Result<bool> {
        let message = request(index, address, prefix);
        match self.change(|| format!("delete address {address}/{prefix}"), Message::DelAddress(message), 0) {
            Ok(()) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// IPv4 addresses of all devices.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let answers = self.dump(|| "list addresses".to_owned(), Message::GetAddress(message))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| {
                let Message::NewAddress(found) = answer else { return None };
                let (index, prefix) = (found.header.index, found.header.prefix_len);
                found.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(IpAddr::V4(address)) => Some(Address { index, address: *address, prefix }),
                    _ => None,
                })
            })
            .collect())
    }
}

fn request(index: u32, address: Ipv4Addr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes =
        vec![AddressAttribute::Local(IpAddr::V4(address)), AddressAttribute::Address(IpAddr::V4(address))];
    message
}
