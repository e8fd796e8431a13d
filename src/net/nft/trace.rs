//! Decides: what a table does to a packet. Covers what the tables here use, so that a test can say "from there to this
//! address, where does it go, and is it masqueraded" without a kernel. (The kernel tests check the same for real.)

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::{Action, Key, Match, Protocol, Rule, Table, Target};

/// A packet that opens a connection.
#[derive(Clone, Debug)]
pub struct Packet {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: Protocol,
    pub port: u16,
}

/// What surrounds the packet.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The machine's own addresses.
    pub local: BTreeSet<Ipv4Addr>,
    /// Clients that sets with a time-out remember, by set name.
    pub remembered: BTreeSet<(String, Ipv4Addr)>,
    /// Stands for chance: `numgen random mod n` gives this modulo n.
    pub draw: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Goes on unchanged.
    Untouched,
    Dropped,
    Rejected,
    Sent {
        to: (Ipv4Addr, u16),
        masqueraded: bool,
    },
}

enum Step {
    /// Look at the chain that jumped here.
    Return,
    Dropped,
    Rejected,
    /// A NAT rule matched, or the packet was accepted: this hook is through.
    Stop,
}

struct Tracer<'a> {
    table: &'a Table,
    world: &'a World,
    packet: Packet,
    mark: u32,
    masqueraded: bool,
    depth: usize,
}

/// Chains jumped into one another, as in the kernel (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;

/// Sends the packet through base chains in this order, as the hooks would.
///
/// # Panics
/// When a rule refers to something that the table does not have, as the kernel would refuse the table.
#[must_use]
pub fn trace(table: &Table, world: &World, packet: &Packet, hooks: &[&str]) -> Outcome {
    let mut tracer = Tracer { table, world, packet: packet.clone(), mark: 0, masqueraded: false, depth: 0 };
    for hook in hooks {
        match tracer.chain(hook) {
            Step::Dropped => return Outcome::Dropped,
            Step::Rejected => return Outcome::Rejected,
            Step::Return | Step::Stop => {}
        }
    }
    let to = (tracer.packet.destination, tracer.packet.port);
    if to == (packet.destination, packet.port) && !tracer.masqueraded {
        return Outcome::Untouched;
    }
    Outcome::Sent { to, masqueraded: tracer.masqueraded }
}

impl Tracer<'_> {
    fn chain(&mut self, name: &str) -> Step {
        assert!(self.depth < DEPTH, "chains jump in a circle at {name}");
        let table = self.table;
        let chain = table.chains.get(name).unwrap_or_else(|| panic!("no chain {name}"));
        self.depth += 1;
        let step = chain.rules.iter().find_map(|rule| self.rule(rule)).unwrap_or(Step::Return);
        self.depth -= 1;
        step
    }

    /// `None`: go on with the next rule.
    fn rule(&mut self, rule: &Rule) -> Option<Step> {
        if !rule.when.iter().all(|condition| self.matches(condition)) {
            return None;
        }
        match &rule.then {
            Action::Jump(chain) => match self.chain(chain) {
                Step::Return => None,
                other => Some(other),
            },
            Action::Goto(chain) => Some(self.chain(chain)),
            Action::Return => Some(Step::Return),
            Action::Drop => Some(Step::Dropped),
            Action::Reject => Some(Step::Rejected),
            Action::SetMark(bits) => {
                self.mark |= bits;
                None
            }
            Action::ClearMark(bits) => {
                self.mark &= !bits;
                None
            }
            Action::Masquerade => {
                self.masqueraded = true;
                Some(Step::Stop)
            }
            Action::ServiceMap(map) => {
                self.verdict(map, Key::IpProtoPort(self.packet.destination, self.packet.protocol, self.packet.port))
            }
            Action::PortMap(map) => self.verdict(map, Key::ProtoPort(self.packet.protocol, self.packet.port)),
            Action::Choose(chains) => Some(self.chain(&chains[self.world.draw % chains.len()])),
            Action::Dnat(endpoints) => Some(self.dnat(endpoints[self.world.draw % endpoints.len()])),
            Action::DnatRemembered(set, ip, port) => {
                assert!(self.table.sets[set].timeout_seconds.is_some());
                Some(self.dnat((*ip, *port)))
            }
            Action::DnatPortMap(protocol, map) => self.mapped(*protocol, map, Key::Port(self.packet.port)),
            Action::DnatAddressPortMap(protocol, map) => {
                self.mapped(*protocol, map, Key::IpPort(self.packet.destination, self.packet.port))
            }
        }
    }

    fn verdict(&mut self, map: &str, key: Key) -> Option<Step> {
        let table = self.table;
        match table.maps[map].elements.get(&key)? {
            Target::Goto(chain) => Some(self.chain(chain)),
            Target::Drop => Some(Step::Dropped),
            Target::Address(..) => panic!("{map} has no verdicts"),
        }
    }

    fn mapped(&mut self, protocol: Protocol, map: &str, key: Key) -> Option<Step> {
        match self.table.maps[map].elements.get(&key)? {
            Target::Address(ip, port) if self.packet.protocol == protocol => Some(self.dnat((*ip, *port))),
            _ => None,
        }
    }

    fn dnat(&mut self, to: (Ipv4Addr, u16)) -> Step {
        (self.packet.destination, self.packet.port) = to;
        Step::Stop
    }

    fn matches(&self, condition: &Match) -> bool {
        let has = |set: &str, key: Key| self.table.sets[set].elements.contains(&key);
        let Packet { source, destination, protocol, .. } = self.packet;
        match condition {
            Match::SourceIn(net) => net.contains(source),
            Match::SourceNotIn(net) => !net.contains(source),
            Match::DestinationNotIn(net) => !net.contains(destination),
            Match::SourceIs(ip) => source == *ip,
            Match::SourceInSet(set) => {
                has(set, Key::Ip(source)) || self.world.remembered.contains(&(set.clone(), source))
            }
            Match::DestinationInSet(set) => has(set, Key::Ip(destination)),
            Match::PairInSet(set) => has(set, Key::IpIp(source, destination)),
            Match::Protocol(wanted) => protocol == *wanted,
            Match::SourceLocal => self.world.local.contains(&source),
            Match::DestinationLocal => self.world.local.contains(&destination),
            Match::NewConnection => true,
            Match::Marked(mask) => self.mark & mask == *mask,
            // The device follows from the destination: our own addresses are behind `lo`.
            Match::OutputDevice(device) => *device == "lo" && self.world.local.contains(&destination),
            Match::NotOutputDevice(device) => !(*device == "lo" && self.world.local.contains(&destination)),
        }
    }
}
