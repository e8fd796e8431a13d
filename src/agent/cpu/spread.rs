//! Decides: which CPUs are taken when those that one NUMA node cannot give are to come in equal parts from several
//! (`distribute-cpus-across-numa`, KEP-2902).

use std::collections::BTreeMap;

use super::take::{enough, nodes, packed};
use crate::agent::topology::hint::combinations;
use crate::agent::topology::machine::{Level, Topology};
use crate::config::cpu_set::CpuSet;

/// On machines with more nodes there are too many combinations of them.
const MOST_NODES: usize = 16;

/// So many CPUs of those that are free, `group` of them together (the threads of a core).
///
/// # Errors
/// There are not so many.
pub fn distributed(topology: &Topology, free: &CpuSet, count: usize, group: usize) -> Result<CpuSet, String> {
    let group = group.max(1);
    enough(free, count)?;
    let number = topology.count(Level::Node).max(1);
    if count == 0 || !count.is_multiple_of(group) || number > MOST_NODES {
        return packed(topology, free, count, false);
    }
    let mut of_node = BTreeMap::new();
    let mut order = Vec::new();
    for cpus in nodes(topology, free) {
        if let Some(place) = cpus.first().and_then(|cpu| topology.cpus.get(&cpu)) {
            order.push(place.node);
            of_node.insert(place.node, cpus);
        }
    }
    let groups_per_node = topology.cpus.len().div_ceil(group).div_ceil(number);
    let needed = count.div_ceil(group);
    for size in needed.div_ceil(groups_per_node)..=needed.min(order.len()) {
        if let Some((nodes, remainder)) = balanced(&order, &of_node, size, count, group) {
            return take(topology, of_node, &nodes, &remainder, count, group);
        }
    }
    packed(topology, free, count, false)
}

/// The nodes to take equal parts from, and those of them that give the rest: what leaves the nodes as equal as can be.
fn balanced(
    order: &[u32],
    of_node: &BTreeMap<u32, CpuSet>,
    size: usize,
    count: usize,
    group: usize,
) -> Option<(Vec<u32>, Vec<u32>)> {
    let free = |node: &u32| of_node.get(node).map_or(0, CpuSet::len);
    let each = count / size / group * group;
    let mut best: Option<(usize, Vec<u32>, Vec<u32>)> = None;
    for nodes in combinations(order, size) {
        let whole_groups: usize = nodes.iter().map(|node| free(node) / group * group).sum();
        if whole_groups < count || nodes.iter().any(|node| free(node) < each) {
            continue;
        }
        let left = |node: &u32| free(node) - if nodes.contains(node) { each } else { 0 };
        let after: BTreeMap<u32, usize> = order.iter().map(|node| (*node, left(node))).collect();
        let rest = count - each * size;
        let (score, remainder) = match rest {
            0 => (imbalance(&after), Vec::new()),
            _ => match share_rest(&nodes, &after, rest, group) {
                Some(found) => found,
                None => continue,
            },
        };
        if best.as_ref().is_none_or(|(known, ..)| score < *known) {
            best = Some((score, nodes, remainder));
        }
    }
    best.map(|(_, nodes, remainder)| (nodes, remainder))
}

fn share_rest(nodes: &[u32], after: &BTreeMap<u32, usize>, rest: usize, group: usize) -> Option<(usize, Vec<u32>)> {
    let able: Vec<u32> = nodes.iter().copied().filter(|node| after[node] >= group).collect();
    let mut best: Option<(usize, Vec<u32>)> = None;
    for some in (1..=able.len()).rev().flat_map(|size| combinations(&able, size)) {
        let mut after = after.clone();
        let mut rest = rest;
        while rest > 0 {
            let before = rest;
            for node in &some {
                if rest > 0 && after[node] >= group {
                    *after.entry(*node).or_default() -= group;
                    rest -= group;
                }
            }
            if rest == before {
                break;
            }
        }
        let score = imbalance(&after);
        if rest == 0 && best.as_ref().is_none_or(|(known, _)| score < *known) {
            best = Some((score, some));
        }
    }
    best
}

/// How far the nodes are from having the same: the variance, times the square of how many there are.
fn imbalance(free: &BTreeMap<u32, usize>) -> usize {
    let sum: usize = free.values().sum();
    let squares: usize = free.values().map(|count| count * count).sum();
    (free.len() * squares).saturating_sub(sum * sum)
}

fn take(
    topology: &Topology,
    mut of_node: BTreeMap<u32, CpuSet>,
    nodes: &[u32],
    remainder: &[u32],
    count: usize,
    group: usize,
) -> Result<CpuSet, String> {
    let mut taken = CpuSet::default();
    let mut take = |node: &u32, count: usize| -> Result<(), String> {
        let free = of_node.entry(*node).or_default();
        let cpus = packed(topology, free, count, false)?;
        *free = free.without(&cpus);
        taken = taken.or(&cpus);
        Ok(())
    };
    let each = count / nodes.len() / group * group;
    for node in nodes {
        take(node, each)?;
    }
    let mut rest = count - each * nodes.len();
    let mut round = remainder.iter().cycle();
    // Every node of the remainder can give one group; those that cannot give another are passed over.
    let mut tries = rest.saturating_mul(remainder.len().max(1));
    while rest > 0 && tries > 0 {
        let Some(node) = round.next() else { break };
        tries -= 1;
        if take(node, group).is_ok() {
            rest -= group;
        }
    }
    if rest > 0 {
        return Err(format!("accounting error, not enough CPUs allocated, remaining: {rest}"));
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::cpu::take::tests::{four_nodes, set, two_sockets};
    use crate::agent::topology::machine::tests::machine;

    fn check(topology: &Topology, free: &str, count: usize, group: usize, expect: &str) {
        let found = distributed(topology, &set(free), count, group);
        let found = found.unwrap_or_else(|error| panic!("{count} of {free}: {error}"));
        assert_eq!(found, set(expect), "{count} of {free} by {group}");
    }

    /// Cases and results as in upstream's `cpu_assignment_test.go`.
    #[test]
    fn equal_parts() {
        let two = two_sockets();
        check(&two, "0-11", 8, 1, "0-3,6-9");
        check(&two, "1-5,7-11", 1, 1, "1");
        check(&two, "1-5,7-11", 1, 2, "2");
        let four = four_nodes();
        for (free, count, group, expect) in [
            ("0-79", 64, 1, "0-7,10-17,20-27,30-37,40-47,50-57,60-67,70-77"),
            ("0-79", 48, 1, "0-7,10-17,20-27,40-47,50-57,60-67"),
            ("1-29,32-39,41-69,72-79", 48, 1, "1-8,10-17,20-27,41-48,50-57,60-67"),
            ("2-29,31-39,42-69,71-79", 48, 1, "10-17,20-27,31-38,50-57,60-67,71-78"),
            ("0-2,10-12,20-22,30-32,40-41,50-51,60-61,70-71", 16, 1, "0-1,10-11,20-21,30-31,40-41,50-51,60-61,70-71"),
            ("0-79", 26, 1, "0-6,10-16,40-45,50-55"),
            ("0-79", 26, 2, "0-6,10-15,40-46,50-55"),
            ("0-79", 62, 1, "0-7,10-17,20-27,30-37,40-47,50-57,60-66,70-76"),
            ("0-79", 62, 2, "0-7,10-17,20-27,30-36,40-47,50-57,60-67,70-76"),
            ("0-8,10-18,20-39,40-48,50-58,60-79", 62, 1, "0-7,10-17,20-27,30-37,40-46,50-56,60-67,70-77"),
            ("0-8,10-18,20-39,40-48,50-58,60-79", 62, 2, "0-7,10-16,20-27,30-37,40-47,50-56,60-67,70-77"),
            ("0-3,10-13,20-23,30-36,40-43,50-53,60-63,70-76", 34, 1, "0-3,10-13,20-23,30-34,40-43,50-53,60-63,70-74"),
        ] {
            check(&four, free, count, group, expect);
        }
    }

    #[test]
    fn as_many_as_asked_for() {
        let machines = [two_sockets(), four_nodes(), machine(2, 8, 32, 2, false, 4), machine(4, 2, 8, 2, false, 2)];
        for topology in machines {
            for (holes, group) in [(3, 1), (4, 2), (7, 1), (5, 2)] {
                let free: CpuSet = topology.all().iter().filter(|cpu| cpu % holes != 1).collect();
                for count in 0..=free.len() {
                    let taken = distributed(&topology, &free, count, group).expect("enough");
                    assert!(taken.len() == count && taken.is_within(&free), "{count} of {free}: {taken}");
                }
                assert!(distributed(&topology, &free, free.len() + 1, group).is_err());
            }
        }
    }
}
