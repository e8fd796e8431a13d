//! Decides: which nodes a pod can run on, which of them is best, and what is told when there is none.

use std::collections::BTreeMap;

use super::plugins::{Cycle, NODE_AFFINITY, Refusal, Refusers, Room, dynamic_resources, node};

/// With fewer nodes all are looked at.
const LEAST_NODES: usize = 100;

/// Why a pod fits nowhere.
#[derive(Debug, Default)]
pub struct Diagnosis {
    pub node_count: usize,
    /// By slot. Nodes that are not here were not looked at, for the reason in `others`.
    pub refusals: Vec<(usize, Refusal)>,
    others: Option<&'static str>,
    /// Nothing about nodes: what it asks for is not there, or contradicts itself.
    pub refusal: Option<String>,
    /// Something is wrong with what it asks for, so that no node can be judged.
    pub error: Option<String>,
    /// What dynamic resources say of a pod that fits nowhere.
    pub of_claims: &'static str,
    pub refusers: Refusers,
}

/// Feasible nodes, and how many were looked at for them.
#[derive(Debug)]
pub struct Found {
    pub slots: Vec<usize>,
    pub looked_at: usize,
}

/// How many feasible nodes are enough to choose from (upstream's `numFeasibleNodesToFind`).
fn enough(nodes: usize, percentage: usize) -> usize {
    if nodes < LEAST_NODES {
        return nodes;
    }
    let percentage = if percentage == 0 { 50_usize.saturating_sub(nodes / 125).max(5) } else { percentage };
    (nodes * percentage / 100).max(LEAST_NODES)
}

/// Looks from `start` on, round the nodes, until there are enough.
///
/// # Errors
/// When there is none.
pub fn feasible(cycle: &mut Cycle, start: usize) -> Result<Found, Diagnosis> {
    let order = cycle.snapshot.order();
    let mut diagnosis = Diagnosis { node_count: order.len(), ..Diagnosis::default() };
    if let Some((plugin, why)) = cycle.volumes.refusal.take().filter(|(plugin, _)| cycle.profile.filters_by(plugin)) {
        diagnosis.refusers = Refusers::named(plugin);
        diagnosis.refusal = Some(why);
        return Err(diagnosis);
    }
    if let Some(why) = cycle.devices.refusal.take() {
        diagnosis.refusers = Refusers::named(dynamic_resources::NAME);
        diagnosis.refusal = Some(why);
        return Err(diagnosis);
    }
    // Where other pods have been put out for it, it goes if it can.
    if let Some(slot) = cycle.snapshot.slot(&cycle.pod.nominated).filter(|slot| cycle.snapshot.node(*slot).known)
        && cycle.fits(&mut Room::new(slot, cycle.snapshot.node(slot))).is_ok()
    {
        return Ok(Found { slots: vec![slot], looked_at: 0 });
    }
    let pinning = cycle.profile.filters_by(NODE_AFFINITY);
    let pinned: Option<Vec<usize>> = node::pinned(cycle.wants).filter(|_| pinning).map(|names| {
        diagnosis.refusal = names.is_empty().then(|| "pod affinity terms conflict".to_owned());
        diagnosis.others = Some("node(s) didn't satisfy plugin(s) [NodeAffinity]");
        diagnosis.refusers = Refusers::named(NODE_AFFINITY);
        let slots = names.iter().filter_map(|name| cycle.snapshot.slot(name));
        slots.filter(|slot| cycle.snapshot.node(*slot).known).collect()
    });
    let mut found = Found { slots: Vec::new(), looked_at: 0 };
    let (among, wanted) = match &pinned {
        Some(slots) => (slots.as_slice(), slots.len()),
        None => (order, enough(order.len(), cycle.profile.percentage_of_nodes_to_score)),
    };
    let first = start.checked_rem(among.len()).unwrap_or(0);
    for slot in among[first..].iter().chain(&among[..first]).copied() {
        if found.slots.len() >= wanted {
            break;
        }
        found.looked_at += 1;
        match cycle.fits(&mut Room::new(slot, cycle.snapshot.node(slot))) {
            Ok(()) => found.slots.push(slot),
            Err(refusal) => {
                diagnosis.error = cycle.devices.error();
                if diagnosis.error.is_some() {
                    diagnosis.refusers = Refusers::named(dynamic_resources::NAME);
                    return Err(diagnosis);
                }
                diagnosis.refusers.add(refusal.plugin);
                diagnosis.refusals.push((slot, refusal));
            }
        }
    }
    if pinned.is_some() {
        // The next pod starts where it would have.
        found.looked_at = 0;
    }
    if found.slots.is_empty() { Err(diagnosis) } else { Ok(found) }
}

/// The best of `slots`. Of equals `tie` chooses (upstream: at random).
#[must_use]
pub fn best(cycle: &Cycle, slots: &[usize], tie: usize) -> Option<usize> {
    if slots.len() < 2 {
        return slots.first().copied();
    }
    let mut totals = vec![0; slots.len()];
    for (weight, scores) in &cycle.profile.scores {
        if let Some(scores) = scores(cycle, slots) {
            totals.iter_mut().zip(scores).for_each(|(total, score)| *total += *weight * score);
        }
    }
    let top = totals.iter().copied().max()?;
    let ties: Vec<usize> = (0..slots.len()).filter(|i| totals[*i] == top).collect();
    Some(slots[ties[tie % ties.len()]])
}

impl Diagnosis {
    /// As upstream's `FitError`: reasons with their counts, sorted as text, then what was tried afterwards.
    #[must_use]
    pub fn message<'a>(&self, afterwards: impl Iterator<Item = &'a str>) -> String {
        if let Some(why) = &self.error {
            return why.clone();
        }
        if self.node_count == 0 {
            return "no nodes available to schedule pods".into();
        }
        let reasons = if let Some(why) = &self.refusal {
            why.clone()
        } else {
            let given = self.refusals.iter().flat_map(|(_, r)| r.reasons.texts.iter().map(|t| &**t));
            let left = self.node_count - self.refusals.len();
            histogram(given.chain(self.others.into_iter().flat_map(|why| std::iter::repeat_n(why, left))))
        };
        let said = format!("0/{} nodes are available: {reasons}.", self.node_count);
        // What post-filters say: dynamic resources, then preemption.
        let afterwards: Vec<&str> = afterwards.collect();
        if afterwards.is_empty() { said } else { format!("{said} {}", afterwards.join(", ")) }
    }
}

/// What was counted, as text.
pub fn histogram<'a>(reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_insert(0) += 1;
    }
    let mut lines: Vec<String> = counts.into_iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    lines.sort();
    lines.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_nodes() {
        for (nodes, want) in [(0, 0), (3, 3), (99, 99), (100, 100), (150, 100), (500, 230), (5000, 500), (10_000, 500)]
        {
            assert_eq!(enough(nodes, 0), want, "{nodes}");
        }
        for (nodes, percentage, want) in [(99, 10, 99), (500, 100, 500), (500, 40, 200), (500, 1, 100)] {
            assert_eq!(enough(nodes, percentage), want, "{percentage} % of {nodes}");
        }
    }
}
