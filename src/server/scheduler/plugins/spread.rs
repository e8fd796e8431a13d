//! Decides: `PodTopologySpread`: how evenly the pods that a selector selects are spread over domains.

use std::sync::Arc;

use super::{Cycle, Happened, MAX_SCORE, Reasons, Room, node};
use crate::server::scheduler::filter::tolerates_all;
use crate::server::scheduler::pod::{PodInfo, Spread, Wants};
use crate::server::scheduler::selector::Selector;
use crate::server::scheduler::snapshot::{NodeInfo, Snapshot};
use crate::server::scheduler::topology::Domains;

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// What must hold for the pod, counted for one attempt.
#[derive(Default)]
pub struct Hard {
    constraints: Vec<Counted>,
}

struct Counted {
    constraint: Spread,
    domains: Arc<Domains>,
    /// By slot: the node takes part.
    eligible: Vec<bool>,
    /// Pods by domain; `None` for one without an eligible node.
    counts: Vec<Option<i32>>,
    /// Of the domain with the fewest; none when there are too few domains.
    least: i32,
    /// The pod counts itself.
    own: i32,
}

impl Counted {
    fn find_least(&mut self) {
        let counts = self.counts.iter().flatten();
        let domains = i32::try_from(counts.clone().count()).unwrap_or(i32::MAX);
        self.least = if domains < self.constraint.min_domains { 0 } else { counts.copied().min().unwrap_or(0) };
    }
}

impl Hard {
    #[must_use]
    pub fn new(pod: &PodInfo, wants: &Wants, snapshot: &Snapshot) -> Self {
        let listed = listed_defaults(pod, wants, snapshot);
        let hard: Vec<&Spread> = wants.spread.iter().chain(&listed).filter(|s| s.hard).collect();
        if hard.is_empty() {
            return Self::default();
        }
        let domains: Vec<Arc<Domains>> = hard.iter().map(|s| snapshot.domains(&s.topology_key)).collect();
        let mut on_nodes = OnNodes::default();
        let mut constraints = Vec::with_capacity(hard.len());
        for (constraint, of) in hard.into_iter().zip(&domains) {
            // Nodes that lack the label of any constraint take part in none.
            let eligible: Vec<bool> = (0..snapshot.slot_count())
                .map(|slot| {
                    domains.iter().all(|d| d.of(slot).is_some()) && includes(constraint, wants, snapshot.node(slot))
                })
                .collect();
            let pods = on_nodes.of(&constraint.selector, pod.namespace(), snapshot);
            let mut counts = vec![None; of.count()];
            for slot in (0..eligible.len()).filter(|slot| eligible[*slot]) {
                if let Some(domain) = of.of(slot) {
                    *counts[domain].get_or_insert(0) += pods[slot];
                }
            }
            let mut counted = Counted {
                constraint: constraint.clone(),
                domains: Arc::clone(of),
                eligible,
                counts,
                least: 0,
                own: i32::from(constraint.selector.matches(&pod.cohort.labels)),
            };
            counted.find_least();
            constraints.push(counted);
        }
        Self { constraints }
    }

    /// Counts a pod more or less. One that is being deleted was never counted.
    pub fn adjust(&mut self, pod: &PodInfo, other: &PodInfo, slot: usize, by: i32) {
        if other.namespace() != pod.namespace() || other.deleting {
            return;
        }
        for c in &mut self.constraints {
            let counts = c.eligible[slot]
                && counted(&c.constraint.selector)
                && c.constraint.selector.matches(&other.cohort.labels);
            if let Some(domain) = c.domains.of(slot).filter(|_| counts) {
                *c.counts[domain].get_or_insert(0) += by;
                c.find_least();
            }
        }
    }
}

/// As upstream, a selector that asks for nothing counts nothing.
fn counted(selector: &Selector) -> bool {
    !selector.is_empty()
}

/// Whether the node takes part for this pod.
fn includes(constraint: &Spread, wants: &Wants, of: &NodeInfo) -> bool {
    (!constraint.honors_affinity || node::is_selected(wants, of))
        && (!constraint.honors_taints || tolerates_all(&of.taints, &wants.tolerations))
}

/// Pods on each node that selectors select, counted once for each selector.
#[derive(Default)]
struct OnNodes(Vec<(Selector, Vec<i32>)>);

impl OnNodes {
    fn of(&mut self, selector: &Selector, namespace: &str, snapshot: &Snapshot) -> &[i32] {
        let known = self.0.iter().position(|(s, _)| s == selector);
        let at = known.unwrap_or_else(|| {
            let mut pods = vec![0; snapshot.slot_count()];
            if counted(selector) {
                let alike = snapshot.cohorts().placed();
                for (_, placed) in alike.filter(|(c, _)| c.namespace == namespace && selector.matches(&c.labels)) {
                    for (slot, count) in placed {
                        pods[*slot] += count.staying;
                    }
                }
            }
            self.0.push((selector.clone(), pods));
            self.0.len() - 1
        });
        &self.0[at].1
    }
}

pub fn filter(cycle: &Cycle, room: &Room) -> Result<(), Reasons> {
    for c in &cycle.spread.constraints {
        let Some(domain) = c.domains.of(room.slot) else {
            let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
            return Err(Reasons::one(reason, false));
        };
        if c.counts[domain].unwrap_or(0) + c.own - c.least > c.constraint.max_skew {
            return Err(Reasons::one("node(s) didn't match pod topology spread constraints", true));
        }
    }
    Ok(())
}

/// Whether an event can change a count that the pod was refused for.
pub fn helps(pod: &PodInfo, wants: &Wants, happened: &Happened, snapshot: &Snapshot) -> bool {
    if wants.spread.is_empty() {
        // It was refused for what its profile says of pods that say nothing.
        return true;
    }
    let mut hard = wants.spread.iter().filter(|s| s.hard);
    let counts = |other: &PodInfo, and: &dyn Fn(&Selector) -> bool| {
        other.namespace() == pod.namespace()
            && wants.spread.iter().any(|s| s.hard && s.selector.matches(&other.cohort.labels) && and(&s.selector))
    };
    match happened {
        Happened::Placed(other) | Happened::Gone { pod: other, .. } => counts(other, &|_| true),
        Happened::Changed { old, new, .. } => {
            let ends = !old.deleting && new.deleting;
            counts(old, &|s| ends || !s.matches(&new.cohort.labels)) || counts(new, &|s| !s.matches(&old.cohort.labels))
        }
        // A domain more or fewer, or a node that takes part now.
        Happened::Node { slot, change } => {
            let labels = &snapshot.node(*slot).labels;
            change.labels || change.taints || (change.added && hard.any(|s| labels.contains_key(&s.topology_key)))
        }
        Happened::NodeGone => true,
        Happened::Namespace
        | Happened::Claim(..)
        | Happened::Volumes
        | Happened::Limits
        | Happened::DeviceClaim { .. }
        | Happened::Devices
        | Happened::DeviceClasses => false,
    }
}

/// What the profile has for pods that say nothing of it and belong to a Service or an owner.
fn listed_defaults(pod: &PodInfo, wants: &Wants, snapshot: &Snapshot) -> Vec<Spread> {
    let listed = wants.profile().args.default_constraints.as_deref().unwrap_or_default();
    if listed.is_empty() || !wants.spread.is_empty() {
        return Vec::new();
    }
    let selector = snapshot.workloads.selector(pod.namespace(), &pod.cohort.labels, wants.owner.as_ref());
    if selector.is_empty() {
        return Vec::new();
    }
    let of = |constraint| Spread { selector: selector.clone(), ..Spread::new(constraint, &pod.cohort.labels) };
    listed.iter().map(of).collect()
}

/// The same where the profile has nothing (upstream's system defaults).
fn defaults(cycle: &Cycle) -> Vec<Spread> {
    let (pod, wants) = (cycle.pod, cycle.wants);
    let selector = cycle.snapshot.workloads.selector(pod.namespace(), &pod.cohort.labels, wants.owner.as_ref());
    if selector.is_empty() {
        return Vec::new();
    }
    let one = |key: &str, max_skew: i32| Spread {
        hard: false,
        topology_key: key.into(),
        max_skew,
        min_domains: 1,
        selector: selector.clone(),
        honors_affinity: true,
        honors_taints: false,
    };
    vec![one(HOSTNAME, 3), one(ZONE, 5)]
}

/// The fewer pods are in the domains of a node, the better. Domains of keys with many of them weigh more.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "counts of pods")]
pub fn scores(cycle: &Cycle, slots: &[usize]) -> Option<Vec<i64>> {
    let silent = cycle.wants.spread.is_empty();
    let by_default = silent && cycle.profile.args.default_constraints.is_none();
    let mut constraints = match silent {
        true if by_default => defaults(cycle),
        true => listed_defaults(cycle.pod, cycle.wants, cycle.snapshot),
        false => cycle.wants.spread.clone(),
    };
    constraints.retain(|s| !s.hard);
    if constraints.is_empty() {
        return None;
    }
    let domains: Vec<Arc<Domains>> = constraints.iter().map(|s| cycle.snapshot.domains(&s.topology_key)).collect();
    // By default a node without a zone is spread by its name all the same.
    let takes_part = |slot: usize| by_default || domains.iter().all(|d| d.of(slot).is_some());
    let mut on_nodes = OnNodes::default();
    let mut raw = vec![0.0_f64; slots.len()];
    for (constraint, of) in constraints.iter().zip(&domains) {
        let pods = on_nodes.of(&constraint.selector, cycle.pod.namespace(), cycle.snapshot);
        let per_node = constraint.topology_key == HOSTNAME;
        let mut counts = vec![None; of.count() + 1];
        let domain = |slot: usize| of.of(slot).unwrap_or(of.count());
        let candidates = slots.iter().copied().filter(|slot| takes_part(*slot));
        let size = if per_node {
            candidates.count()
        } else {
            candidates.for_each(|slot| counts[domain(slot)] = Some(0));
            for slot in (0..cycle.snapshot.slot_count()).filter(|slot| takes_part(*slot)) {
                let there = cycle.snapshot.node(slot);
                if let Some(count) =
                    counts[domain(slot)].as_mut().filter(|_| there.known && includes(constraint, cycle.wants, there))
                {
                    *count += pods[slot];
                }
            }
            counts.iter().flatten().count()
        };
        let weight = (size as f64 + 2.0).ln();
        for (score, slot) in raw.iter_mut().zip(slots.iter().copied()) {
            let Some(domain) = of.of(slot).filter(|_| takes_part(slot)) else { continue };
            let count = if per_node { pods[slot] } else { counts[domain].unwrap_or(0) };
            *score += f64::from(count) * weight + f64::from(constraint.max_skew - 1);
        }
    }
    let raw: Vec<Option<i64>> =
        raw.iter().zip(slots).map(|(score, slot)| takes_part(*slot).then(|| score.round() as i64)).collect();
    let (least, most) = (raw.iter().flatten().min().copied()?, raw.iter().flatten().max().copied()?);
    let normal = |score: Option<i64>| match score {
        None => 0,
        Some(_) if most == 0 => MAX_SCORE,
        Some(score) => MAX_SCORE * (most + least - score) / most,
    };
    Some(raw.into_iter().map(normal).collect())
}
