//! Decides: tables as nft's own syntax: whole, or as the difference to what was applied before.

use std::fmt::{self, Display, Formatter, Write};

use super::{Action, Chain, Key, Map, Match, Rule, Set, Table, Target};

/// Elements of one `add element` command. nft reads a command into memory whole.
const ELEMENTS_PER_COMMAND: usize = 500;
/// Largest number of clients that a set with a time-out remembers.
const TIMEOUT_SET_SIZE: u32 = 65_535;

/// Replaces the table by `table`, whether it exists or not. A new table appears and the old one goes in one step.
#[must_use]
pub fn replace(table: &Table) -> String {
    let name = table.name;
    let mut out = format!("add table ip {name}\ndelete table ip {name}\nadd table ip {name}\n");
    declare(&mut out, table);
    for (chain, content) in &table.chains {
        add_rules(&mut out, name, chain, &content.rules);
    }
    fill(&mut out, table);
    out
}

/// Makes sure that the table, its chains and their rules are there, and keeps all elements that others added.
#[must_use]
pub fn ensure(table: &Table) -> String {
    let name = table.name;
    let mut out = format!("add table ip {name}\n");
    declare(&mut out, table);
    for (chain, content) in &table.chains {
        let _ = writeln!(out, "flush chain ip {name} {chain}");
        add_rules(&mut out, name, chain, &content.rules);
    }
    fill(&mut out, table);
    out
}

fn fill(out: &mut String, table: &Table) {
    for (set, content) in &table.sets {
        let keys: Vec<String> = content.elements.iter().map(Key::to_string).collect();
        elements(out, "add", table.name, set, &keys);
    }
    for (map, content) in &table.maps {
        let pairs: Vec<String> = content.elements.iter().map(|(k, t)| format!("{k} : {t}")).collect();
        elements(out, "add", table.name, map, &pairs);
    }
}

/// What turns `old`, which is in the kernel, into `new`; empty when they are equal. The kernel checks each command in
/// order: declare first, take references away before what they refer to.
#[must_use]
pub fn difference(old: &Table, new: &Table) -> String {
    if old == new {
        return String::new();
    }
    let name = new.name;
    let incompatible = |a: &Set, b: &Set| a.types != b.types || a.timeout_seconds != b.timeout_seconds;
    if new.sets.iter().any(|(set, content)| old.sets.get(set).is_some_and(|o| incompatible(o, content)))
        || new.maps.iter().any(|(map, content)| old.maps.get(map).is_some_and(|o| o.types != content.types))
        || new.chains.iter().any(|(chain, content)| old.chains.get(chain).is_some_and(|o| o.hook != content.hook))
    {
        return replace(new);
    }

    let mut out = String::new();
    let mut fresh = Table::new(name);
    fresh.sets = new.sets.iter().filter(|(n, _)| !old.sets.contains_key(*n)).map(clone).collect();
    fresh.maps = new.maps.iter().filter(|(n, _)| !old.maps.contains_key(*n)).map(clone).collect();
    fresh.chains = new.chains.iter().filter(|(n, _)| !old.chains.contains_key(*n)).map(clone).collect();
    declare(&mut out, &fresh);

    for (map, content) in &old.maps {
        let wanted = new.maps.get(map);
        let gone: Vec<String> = content
            .elements
            .iter()
            .filter(|(key, target)| wanted.and_then(|w| w.elements.get(key)) != Some(target))
            .map(|(key, _)| key.to_string())
            .collect();
        elements(&mut out, "delete", name, map, &gone);
    }
    for (set, content) in &old.sets {
        let wanted = new.sets.get(set);
        let gone: Vec<String> = content
            .elements
            .iter()
            .filter(|key| wanted.is_none_or(|w| !w.elements.contains(key)))
            .map(Key::to_string)
            .collect();
        elements(&mut out, "delete", name, set, &gone);
    }
    // A chain can only be deleted when nothing refers to it, and a chain that stays may refer to one that goes; so
    // first all contents, then the chains.
    for (chain, content) in &old.chains {
        if new.chains.get(chain) != Some(content) {
            let _ = writeln!(out, "flush chain ip {name} {chain}");
        }
    }
    for (chain, content) in &new.chains {
        if old.chains.get(chain) != Some(content) {
            add_rules(&mut out, name, chain, &content.rules);
        }
    }
    for chain in old.chains.keys().filter(|chain| !new.chains.contains_key(*chain)) {
        let _ = writeln!(out, "delete chain ip {name} {chain}");
    }
    for map in old.maps.keys().filter(|map| !new.maps.contains_key(*map)) {
        let _ = writeln!(out, "delete map ip {name} {map}");
    }
    for set in old.sets.keys().filter(|set| !new.sets.contains_key(*set)) {
        let _ = writeln!(out, "delete set ip {name} {set}");
    }
    for (set, content) in &new.sets {
        let had = old.sets.get(set);
        let more: Vec<String> = content
            .elements
            .iter()
            .filter(|key| had.is_none_or(|h| !h.elements.contains(key)))
            .map(Key::to_string)
            .collect();
        elements(&mut out, "add", name, set, &more);
    }
    for (map, content) in &new.maps {
        let had = old.maps.get(map);
        let more: Vec<String> = content
            .elements
            .iter()
            .filter(|(key, target)| had.and_then(|h| h.elements.get(key)) != Some(target))
            .map(|(key, target)| format!("{key} : {target}"))
            .collect();
        elements(&mut out, "add", name, map, &more);
    }
    out
}

fn clone<V: Clone>((name, value): (&String, &V)) -> (String, V) {
    (name.clone(), value.clone())
}

fn declare(out: &mut String, table: &Table) {
    let name = table.name;
    for (set, Set { types, timeout_seconds, .. }) in &table.sets {
        let _ = match timeout_seconds {
            None => writeln!(out, "add set ip {name} {set} {{ type {types}; }}"),
            Some(seconds) => writeln!(
                out,
                "add set ip {name} {set} {{ type {types}; size {TIMEOUT_SET_SIZE}; flags dynamic,timeout; timeout \
                 {seconds}s; }}"
            ),
        };
    }
    for (map, Map { types, .. }) in &table.maps {
        let _ = writeln!(out, "add map ip {name} {map} {{ type {types}; }}");
    }
    for (chain, Chain { hook, .. }) in &table.chains {
        let _ = match hook {
            None => writeln!(out, "add chain ip {name} {chain}"),
            Some(hook) => writeln!(out, "add chain ip {name} {chain} {{ {hook}; }}"),
        };
    }
}

fn add_rules(out: &mut String, table: &str, chain: &str, rules: &[Rule]) {
    for rule in rules {
        let _ = writeln!(out, "add rule ip {table} {chain} {rule}");
    }
}

fn elements(out: &mut String, verb: &str, table: &str, container: &str, elements: &[String]) {
    for some in elements.chunks(ELEMENTS_PER_COMMAND) {
        let _ = writeln!(out, "{verb} element ip {table} {container} {{ {} }}", some.join(", "));
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::IpIp(a, b) => write!(f, "{a} . {b}"),
            Self::IpProtoPort(ip, protocol, port) => write!(f, "{ip} . {} . {port}", protocol.name()),
            Self::IpPort(ip, port) => write!(f, "{ip} . {port}"),
            Self::ProtoPort(protocol, port) => write!(f, "{} . {port}", protocol.name()),
            Self::Port(port) => write!(f, "{port}"),
        }
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Drop => f.write_str("drop"),
            Self::Address(ip, port) => write!(f, "{ip} . {port}"),
        }
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for condition in &self.when {
            write!(f, "{condition} ")?;
        }
        write!(f, "{}", self.then)
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::SourceIn(net) => write!(f, "ip saddr {}/{}", net.address, net.prefix),
            Self::SourceNotIn(net) => write!(f, "ip saddr != {}/{}", net.address, net.prefix),
            Self::DestinationNotIn(net) => write!(f, "ip daddr != {}/{}", net.address, net.prefix),
            Self::SourceIs(ip) => write!(f, "ip saddr {ip}"),
            Self::SourceInSet(set) => write!(f, "ip saddr @{set}"),
            Self::DestinationInSet(set) => write!(f, "ip daddr @{set}"),
            Self::PairInSet(set) => write!(f, "ip saddr . ip daddr @{set}"),
            Self::Protocol(protocol) => write!(f, "meta l4proto {}", protocol.name()),
            Self::SourceLocal => f.write_str("fib saddr type local"),
            Self::DestinationLocal => f.write_str("fib daddr type local"),
            Self::NewConnection => f.write_str("ct state new"),
            Self::Marked(mask) => write!(f, "meta mark & {mask:#010x} == {mask:#010x}"),
            Self::OutputDevice(device) => write!(f, "oifname \"{device}\""),
            Self::NotOutputDevice(device) => write!(f, "oifname != \"{device}\""),
        }
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Return => f.write_str("return"),
            Self::Drop => f.write_str("drop"),
            Self::Reject => f.write_str("reject"),
            Self::SetMark(bits) => write!(f, "meta mark set meta mark | {bits:#010x}"),
            Self::ClearMark(bits) => write!(f, "meta mark set meta mark & {:#010x}", !bits),
            Self::Masquerade => f.write_str("masquerade fully-random"),
            Self::ServiceMap(map) => write!(f, "ip daddr . meta l4proto . th dport vmap @{map}"),
            Self::PortMap(map) => write!(f, "meta l4proto . th dport vmap @{map}"),
            Self::Choose(chains) => {
                let to: Vec<String> = chains.iter().enumerate().map(|(i, c)| format!("{i} : goto {c}")).collect();
                write!(f, "numgen random mod {} vmap {{ {} }}", chains.len(), to.join(", "))
            }
            Self::Dnat(endpoints) => match endpoints.as_slice() {
                [(ip, port)] => write!(f, "dnat ip to {ip}:{port}"),
                _ => {
                    let to: Vec<String> =
                        endpoints.iter().enumerate().map(|(i, (ip, port))| format!("{i} : {ip} . {port}")).collect();
                    write!(f, "dnat ip to numgen random mod {} map {{ {} }}", endpoints.len(), to.join(", "))
                }
            },
            Self::DnatRemembered(set, ip, port) => write!(f, "update @{set} {{ ip saddr }} dnat ip to {ip}:{port}"),
            Self::DnatPortMap(protocol, map) => write!(f, "dnat ip to {} dport map @{map}", protocol.name()),
            Self::DnatAddressPortMap(protocol, map) => {
                write!(f, "dnat ip to ip daddr . {} dport map @{map}", protocol.name())
            }
        }
    }
}
