//! Decides: `NodeResourcesFit` with its scores, `LeastAllocated` by default, and `NodeResourcesBalancedAllocation`.

use super::{Cycle, Happened, MAX_SCORE, Reasons, Room};
use crate::config::scheduler::args::{Fit, Strategy};
use crate::server::scheduler::devices::Devices;
use crate::server::scheduler::devices::extended::Asks;
use crate::server::scheduler::pod::{PodInfo, Wants};
use crate::server::scheduler::resources::Amounts;
use crate::server::scheduler::snapshot::{NodeInfo, Snapshot};

pub fn fit(cycle: &Cycle, room: &Room) -> Result<(), Reasons> {
    let args = &cycle.profile.args.fit;
    let devices = &cycle.snapshot.devices;
    let missing = missing(&cycle.pod.taken.requests, (&room.used, room.pods), &room.node.allocatable, args, devices);
    if missing.texts.is_empty() { Ok(()) } else { Err(missing) }
}

/// Somebody else sees to it that there is enough of it: an extended resource.
fn is_ignored(name: &str, args: &Fit) -> bool {
    let of_group = |group: &String| name.split_once('/').is_some_and(|(prefix, _)| prefix == group);
    args.ignored.iter().any(|ignored| ignored == name) || args.ignored_groups.iter().any(of_group)
}

/// The first three in upstream's order, then the others by name. What the node has nothing of may be had as devices:
/// that is for `DynamicResources` to see.
fn missing(wanted: &Amounts, (used, pods): (&Amounts, usize), has: &Amounts, args: &Fit, devices: &Devices) -> Reasons {
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
    for (name, wanted) in wanted.others.iter().filter(|(name, _)| !is_ignored(name, args)) {
        if *wanted == 0 || has.get(name) > 0 || devices.backing(name).is_none() {
            check(name, *wanted, used.get(name), has.get(name));
        }
    }
    reasons
}

/// A pod that left, asks for less, or a node with other amounts: when the pod would fit there now. Or devices that stand
/// for what it asks for.
pub fn helps(pod: &PodInfo, wants: &Wants, happened: &Happened, snapshot: &Snapshot) -> bool {
    let args = &wants.profile().args.fit;
    let fits = |slot: &usize| {
        let node = snapshot.node(*slot);
        let used = (&node.used, node.pods.len());
        missing(&pod.taken.requests, used, &node.allocatable, args, &snapshot.devices).texts.is_empty()
    };
    match happened {
        Happened::Gone { slot, .. } => fits(slot),
        Happened::Changed { old, new, slot } => old.taken != new.taken && fits(slot),
        Happened::Node { slot, change } => (change.added || change.allocatable) && fits(slot),
        Happened::DeviceClasses => {
            let mut resources = wants.extended.iter().flat_map(Asks::resources);
            resources.any(|name| snapshot.devices.backing(name).is_some())
        }
        _ => false,
    }
}

fn free_share(used: i64, has: i64) -> i64 {
    if used > has { 0 } else { (has - used) * MAX_SCORE / has }
}

/// Free share with the pod on the node, mean of CPU and memory.
pub fn least_allocated(cycle: &Cycle, slots: &[usize]) -> Option<Vec<i64>> {
    let (cpu, memory) = cycle.pod.taken.scored;
    let score = |slot: &usize| {
        let node = cycle.snapshot.node(*slot);
        let resources =
            [(node.allocatable.cpu, node.scored.0 + cpu), (node.allocatable.memory, node.scored.1 + memory)];
        // What a node does not have does not count.
        let there = resources.iter().filter(|(has, _)| *has > 0);
        let (sum, n) = there.fold((0, 0), |(sum, n), (has, used)| (sum + free_share(*used, *has), n + 1));
        if n == 0 { 0 } else { sum / n }
    };
    Some(slots.iter().map(score).collect())
}

/// What a node has of a resource, and what would be taken of it. Of an extended resource only for pods that ask for it; what
/// the node has nothing of may be there as devices.
fn has_and_takes(cycle: &Cycle, node: &NodeInfo, name: &str, scored: bool) -> (i64, i64) {
    let (wanted, has) = (&cycle.pod.taken.requests, node.allocatable.get(name));
    let pod = &cycle.pod.taken;
    match name {
        "cpu" if scored => (has, node.scored.0 + pod.scored.0),
        "memory" if scored => (has, node.scored.1 + pod.scored.1),
        "cpu" | "memory" | "ephemeral-storage" => (has, node.used.get(name) + wanted.get(name)),
        _ if wanted.get(name) == 0 => (0, 0),
        _ if has == 0 => {
            let devices = cycle.devices.standing_for(name, node, &cycle.snapshot.devices.programs);
            devices.map_or((0, 0), |(has, taken)| (has, taken + wanted.get(name)))
        }
        _ => (has, node.used.get(name) + wanted.get(name)),
    }
}

/// `NodeResourcesFit` scores as its profile says: by other resources, their weights, and what is thought best of them.
pub fn by_strategy(cycle: &Cycle, slots: &[usize]) -> Option<Vec<i64>> {
    let Fit { strategy, resources, .. } = &cycle.profile.args.fit;
    let share = |has: i64, takes: i64| match strategy {
        Strategy::LeastAllocated => free_share(takes, has),
        Strategy::MostAllocated => takes.min(has) * MAX_SCORE / has,
        Strategy::RequestedToCapacityRatio(shape) => on_line(shape, if takes > has { 100 } else { takes * 100 / has }),
    };
    let by_shape = matches!(strategy, Strategy::RequestedToCapacityRatio(_));
    let score = |slot: &usize| {
        let node = cycle.snapshot.node(*slot);
        let (mut sum, mut weights) = (0, 0);
        for (name, weight) in resources {
            let (has, takes) = has_and_takes(cycle, node, name, true);
            if has == 0 {
                continue;
            }
            let share = share(has, takes);
            // As upstream: what a shape gives nothing for does not count at all.
            if share > 0 || !by_shape {
                sum += share * weight;
                weights += weight;
            }
        }
        match (weights, by_shape) {
            (0, _) => 0,
            (_, true) => (2 * sum + weights) / (2 * weights),
            (_, false) => sum / weights,
        }
    };
    Some(slots.iter().map(score).collect())
}

/// The score at a share on the line through the points of a shape, level before the first and after the last.
fn on_line(shape: &[(i64, i64)], share: i64) -> i64 {
    let scaled = |score: i64| score * (MAX_SCORE / 10);
    let Some(at) = shape.iter().position(|(utilization, _)| share <= *utilization) else {
        return shape.last().map_or(0, |(_, score)| scaled(*score));
    };
    let (to, high) = shape[at];
    let Some((from, low)) = at.checked_sub(1).map(|before| shape[before]) else { return scaled(high) };
    scaled(low) + (scaled(high) - scaled(low)) * (share - from) / (to - from)
}

/// Whether the used shares of CPU and memory come nearer to each other with the pod: 75 for no change, 100 for the
/// greatest gain, 50 for the greatest loss (v1.36). A pod that asks for neither has no say.
pub fn balanced_allocation(cycle: &Cycle, slots: &[usize]) -> Option<Vec<i64>> {
    let wanted = &cycle.pod.taken.requests;
    let score = |slot: &usize| {
        let node = cycle.snapshot.node(*slot);
        let with = balance(node, node.used.cpu + wanted.cpu, node.used.memory + wanted.memory);
        let without = balance(node, node.used.cpu, node.used.memory);
        gain(with, without)
    };
    (wanted.cpu != 0 || wanted.memory != 0).then(|| slots.iter().map(score).collect())
}

fn gain(with: i64, without: i64) -> i64 {
    MAX_SCORE / 2 + (MAX_SCORE / 2 + with - without) / 2
}

/// The same for the resources that the profile names.
#[allow(clippy::cast_precision_loss, reason = "shares")]
pub fn balanced_over(cycle: &Cycle, slots: &[usize]) -> Option<Vec<i64>> {
    let (names, wanted) = (&cycle.profile.args.balanced, &cycle.pod.taken.requests);
    let score = |slot: &usize| {
        let node = cycle.snapshot.node(*slot);
        let shares = |with: bool| {
            let share = |name: &String| {
                let (has, takes) = has_and_takes(cycle, node, name, false);
                let used = if with { takes } else { takes - wanted.get(name) };
                (has != 0).then(|| (used as f64 / has as f64).min(1.0))
            };
            evenness(&names.iter().filter_map(share).collect::<Vec<f64>>())
        };
        gain(shares(true), shares(false))
    };
    names.iter().any(|name| wanted.get(name) != 0).then(|| slots.iter().map(score).collect())
}

/// The more, the smaller the standard deviation of the shares is.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "shares, and a number up to 100")]
fn evenness(shares: &[f64]) -> i64 {
    let deviation = match shares {
        [] | [_] => 0.0,
        [a, b] => ((a - b) / 2.0).abs(),
        more => {
            let mean = more.iter().sum::<f64>() / more.len() as f64;
            (more.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / more.len() as f64).sqrt()
        }
    };
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
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
