//! Types: nftables rulesets as values. [`render`] turns a table, or the difference of two, into one transaction;
//! [`apply`] runs it; [`trace`] says what a table does to a packet, for tests.
//!
//! A table is owned whole: whatever is in it and not in the value is removed. The transaction is nft's own syntax on
//! the standard input of one `nft -f -`; it is what a person would type, so an error message can be understood.

pub mod apply;
mod render;
pub mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::config::Cidr;

pub use render::{difference, ensure, replace};

/// A table of family `ip`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub name: &'static str,
    pub sets: BTreeMap<String, Set>,
    pub maps: BTreeMap<String, Map>,
    pub chains: BTreeMap<String, Chain>,
}

impl Table {
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, sets: BTreeMap::new(), maps: BTreeMap::new(), chains: BTreeMap::new() }
    }

    pub fn set(&mut self, name: &str, types: &'static str) -> &mut Set {
        self.sets.entry(name.to_owned()).or_insert_with(|| Set {
            types,
            timeout_seconds: None,
            elements: BTreeSet::new(),
        })
    }

    pub fn map(&mut self, name: &str, types: &'static str) -> &mut Map {
        self.maps.entry(name.to_owned()).or_insert_with(|| Map { types, elements: BTreeMap::new() })
    }

    pub fn chain(&mut self, name: &str, hook: Option<&'static str>, rules: Vec<Rule>) {
        self.chains.insert(name.to_owned(), Chain { hook, rules });
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Such as `ipv4_addr . ipv4_addr`.
    pub types: &'static str,
    /// Makes a set that rules add to; it has no elements of ours then.
    pub timeout_seconds: Option<u32>,
    pub elements: BTreeSet<Key>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Such as `inet_proto . inet_service : verdict`.
    pub types: &'static str,
    pub elements: BTreeMap<Key, Target>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Such as `type nat hook prerouting priority dstnat`; none for a chain that is jumped to.
    pub hook: Option<&'static str>,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// From the API's `TCP`, `UDP`, `SCTP`, any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|p| p.name().eq_ignore_ascii_case(text))
    }
}

/// An element of a set, or a key of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Ip(Ipv4Addr),
    IpIp(Ipv4Addr, Ipv4Addr),
    IpProtoPort(Ipv4Addr, Protocol, u16),
    IpPort(Ipv4Addr, u16),
    ProtoPort(Protocol, u16),
    Port(u16),
}

/// What a map gives for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Goto(String),
    Drop,
    Address(Ipv4Addr, u16),
}

/// Conditions from left to right, then what to do. A rule whose condition fails is passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub when: Vec<Match>,
    pub then: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    SourceIn(Cidr),
    SourceNotIn(Cidr),
    DestinationNotIn(Cidr),
    SourceIs(Ipv4Addr),
    SourceInSet(String),
    DestinationInSet(String),
    /// `ip saddr . ip daddr` is in the set.
    PairInSet(String),
    Protocol(Protocol),
    /// The source is an address of this machine.
    SourceLocal,
    DestinationLocal,
    NewConnection,
    /// All bits of the mask are set.
    Marked(u32),
    OutputDevice(&'static str),
    NotOutputDevice(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Jump(String),
    Goto(String),
    Return,
    Drop,
    /// With "ICMP port unreachable", which connecting programs see as "connection refused".
    Reject,
    SetMark(u32),
    ClearMark(u32),
    Masquerade,
    /// To the verdict of `ip daddr . protocol . destination port`.
    ServiceMap(String),
    /// To the verdict of `protocol . destination port`.
    PortMap(String),
    /// To one of these, by chance.
    Choose(Vec<String>),
    /// Rewrites the destination to one of these, by chance. The rule has to match the protocol.
    Dnat(Vec<(Ipv4Addr, u16)>),
    /// Remembers the source address in the set, then rewrites the destination.
    DnatRemembered(String, Ipv4Addr, u16),
    /// Rewrites to what the map gives for the destination port of this protocol.
    DnatPortMap(Protocol, String),
    /// Rewrites to what the map gives for destination address and port.
    DnatAddressPortMap(Protocol, String),
}

impl Rule {
    #[must_use]
    pub fn new(when: impl Into<Vec<Match>>, then: Action) -> Self {
        Self { when: when.into(), then }
    }

    /// A rule without a condition.
    #[must_use]
    pub fn always(then: Action) -> Self {
        Self { when: Vec::new(), then }
    }
}
