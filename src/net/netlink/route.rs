//! Effects: IPv4 routes of the main table.

use std::net::Ipv4Addr;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::{Result, Socket};

/// `ip route add <destination>/<prefix> [via <gateway> onlink] dev <index> [src <source>] [metric <metric>]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    pub destination: Ipv4Addr,
    pub prefix: u8,
    pub gateway: Option<Ipv4Addr>,
    /// The device.
    pub index: u32,
    pub source: Option<Ipv4Addr>,
    pub metric: Option<u32>,
}

impl Route {
    #[must_use]
    pub fn default_via(gateway: Ipv4Addr, index: u32) -> Self {
        Self {
            destination: Ipv4Addr::UNSPECIFIED,
            prefix: 0,
            gateway: Some(gateway),
            index,
            source: None,
            metric: None,
        }
    }
}

impl Socket {
    /// Adds a route or replaces the one with the same destination and metric.
    pub fn add_route(&mut self, route: &Route) -> Result<()> {
        let message = request(route);
        self.change(
            || format!("add the route to {}/{}", route.destination, route.prefix),
            Message::NewRoute(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Says whether there was something to delete.
    pub fn delete_route(&mut self, route: &Route) -> Result<bool> {
        let message = request(route);
        let step = || format!("delete the route to {}/{}", route.destination, route.prefix);
        match self.change(step, Message::DelRoute(message), 0) {
            Ok(()) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// IPv4 unicast routes of the main table.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let answers = self.dump(|| "list routes".to_owned(), Message::GetRoute(message))?;
        Ok(answers.into_iter().filter_map(read).collect())
    }
}

fn request(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = route.prefix;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    if route.prefix > 0 {
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(route.destination)));
    }
    if let Some(gateway) = route.gateway {
        message.header.flags = RouteFlags::Onlink;
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
    }
    message.attributes.push(RouteAttribute::Oif(route.index));
    if let Some(source) = route.source {
        message.attributes.push(RouteAttribute::PrefSource(RouteAddress::Inet(source)));
    }
    if let Some(metric) = route.metric {
        message.attributes.push(RouteAttribute::Priority(metric));
    }
    message
}

fn read(message: Message) -> Option<Route> {
    let Message::NewRoute(message) = message else { return None };
    if message.header.table != RouteHeader::RT_TABLE_MAIN || message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix: message.header.destination_prefix_length,
        gateway: None,
        index: 0,
        source: None,
        metric: None,
    };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => route.destination = address,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => route.gateway = Some(address),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => route.source = Some(address),
            RouteAttribute::Oif(index) => route.index = index,
            RouteAttribute::Priority(metric) => route.metric = Some(metric),
            _ => {}
        }
    }
    Some(route)
}
