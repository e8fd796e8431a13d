//! Decides: `NodeResourcesFit` with its `LeastAllocated` score, and `NodeResourcesBalancedAllocation`.

use super::{Cycle, Happened, MAX_SCORE, Reasons, Room};
use crate::server::scheduler::pod::{PodInfo, Wants};
use crate::server::scheduler::resources::Amounts;
use crate::server::scheduler::snapshot::{NodeInfo, Snapshot};

pub fn fit(cycle: &Cycle, room: &Room) -> Result<(), Reasons> {
    let missing = missing(&cycle.pod.taken.requests, &room.used, room.pods, &room.node.allocatable);
    if missing.texts.is_empty() { Ok(()) } else { Err(missing) }
}

/// The first three in upstream's order, then the others by name.
fn missing(wanted: &Amounts, used: &Amounts, pods: usize, has: &Amounts) -> Reasons {
    let mut reasons = Reasons { texts: Vec::new(), resolvable: true };
    if i64::try_from(pods).unwrap_or(i64::MAX) >= has.pods {
        reasons.texts.push("Too many pods".into());
    }
    let mut check = |name: &str, wanted: i64, used: i64, has: i64| {
        if wanted > 0 && wanted > has - used {
            reasons.texts.push(format!("Insufficient {name}").into());
            // More than the whole node: removing pods would not help.
            reasons.resolvable &= wanted <= has;
        }
    };
    check("cpu", wanted.cpu, used.cpu, has.cpu);
    check("memory", wanted.memory, used.memory, has.memory);
    check("ephemeral-storage", wanted.ephemeral_storage, used.ephemeral_storage, has.ephemeral_storage);
    for (name, wanted) in &wanted.others {
        check(name, *wanted, used.get(name), has.get(name));
    }
    reasons
}

/// A pod that left, asks for less, or a node with other amounts: when the pod would fit there now.
pub fn helps(pod: &PodInfo, _: &Wants, happened: &Happened, snapshot: &Snapshot) -> bool {
    let fits = |slot: &usize| {
        let node = snapshot.node(*slot);
        missing(&pod.taken.requests, &node.used, node.pods.len(), &node.allocatable).texts.is_empty()
    };
    match happened {
        Happened::Gone { slot, .. } => fits(slot),
        Happened::Changed { old, new, slot } => old.taken != new.taken && fits(slot),
        Happened::Node { slot, change } => (change.added || change.allocatable) && fits(slot),
        _ => false,
    }
}

/// Free share with the pod on the node, mean of CPU and memory.
pub fn least_allocated(cycle: &Cycle, slots: &[usize]) -> Option<Vec<i64>> {
    let (cpu, memory) = cycle.pod.taken.scored;
    let free = |has: i64, used: i64| if used > has { 0 } else { (has - used) * MAX_SCORE / has };
    let score = |slot: &usize| {
        let node = cycle.snapshot.node(*slot);
        let resources =
            [(node.allocatable.cpu, node.scored.0 + cpu), (node.allocatable.memory, node.scored.1 + memory)];
        // What a node does not have does not count.
        let there = resources.iter().filter(|(has, _)| *has > 0);
        let (sum, n) = there.fold((0, 0), |(sum, n), (has, used)| (sum + free(*has, *used), n + 1));
        if n == 0 { 0 } else { sum / n }
    };
    Some(slots.iter().map(score).collect())
}

/// Whether the used shares of CPU and memory come nearer to each other with the pod: 75 for no change, 100 for the
/// greatest gain, 50 for the greatest loss (v1.36). A pod that asks for neither has no say.
pub fn balanced_allocation(cycle: &Cycle, slots: &[usize]) -> Option<Vec<i64>> {
    let wanted = &cycle.pod.taken.requests;
    let score = |slot: &usize| {
        let node = cycle.snapshot.node(*slot);
        let with = balance(node, node.used.cpu + wanted.cpu, node.used.memory + wanted.memory);
        let without = balance(node, node.used.cpu, node.used.memory);
        MAX_SCORE / 2 + (MAX_SCORE / 2 + with - without) / 2
    };
    (wanted.cpu != 0 || wanted.memory != 0).then(|| slots.iter().map(score).collect())
}

/// The standard deviation of two shares is half their distance; of one it is none.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "shares, and a number up to 100")]
fn balance(node: &NodeInfo, cpu: i64, memory: i64) -> i64 {
    let (has_cpu, has_memory) = (node.allocatable.cpu, node.allocatable.memory);
    if has_cpu == 0 || has_memory == 0 {
        return MAX_SCORE;
    }
    let share = |used: i64, has: i64| (used as f64 / has as f64).min(1.0);
    let deviation = (share(cpu, has_cpu) - share(memory, has_memory)).abs() / 2.0;
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}
