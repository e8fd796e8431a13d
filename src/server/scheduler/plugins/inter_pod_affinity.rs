//! Decides: `InterPodAffinity`: near which pods, and far from which. What pods on nodes say counts for new ones too.

use std::sync::Arc;

use super::{Cycle, Happened, MAX_SCORE, Reasons, Room};
use crate::server::scheduler::cohorts::{Cohort, Namespaces, PerNode, Term};
use crate::server::scheduler::pod::{PodInfo, Wants};
use crate::server::scheduler::snapshot::Snapshot;
use crate::server::scheduler::topology::Domains;

/// Pods by domain of one topology key.
struct Counts {
    domains: Arc<Domains>,
    pods: Vec<i32>,
}

impl Counts {
    fn new(key: &str, snapshot: &Snapshot) -> Self {
        let domains = snapshot.domains(key);
        let pods = vec![0; domains.count()];
        Self { domains, pods }
    }

    fn add(&mut self, slot: usize, by: i32) {
        if let Some(domain) = self.domains.of(slot) {
            self.pods[domain] += by;
        }
    }

    /// `None` where the node lacks the label.
    fn at(&self, slot: usize) -> Option<i32> {
        self.domains.of(slot).map(|domain| self.pods[domain])
    }
}

/// What must hold for the pod, counted for one attempt.
#[derive(Default)]
pub struct Required {
    /// For each term of the pod's affinity: pods that match all of its terms.
    with: Vec<Counts>,
    /// For each term of its anti-affinity: pods that match it.
    apart: Vec<Counts>,
    /// Pods whose anti-affinity means this one, by topology key.
    of_others: Vec<(String, Counts)>,
    /// The pod matches its own affinity, so that it may be the first.
    may_be_first: bool,
}

fn matches_all(terms: &[Term], pods: &Cohort, namespaces: &Namespaces) -> bool {
    !terms.is_empty() && terms.iter().all(|t| t.matches(pods, namespaces))
}

impl Required {
    #[must_use]
    pub fn new(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let (own, names) = (&pod.cohort.affinity, &snapshot.namespaces);
        let counts = |terms: &[Term]| terms.iter().map(|t| Counts::new(&t.topology_key, snapshot)).collect();
        let mut required = Self {
            with: counts(&own.required),
            apart: counts(&own.anti_required),
            of_others: Vec::new(),
            may_be_first: matches_all(&own.required, &pod.cohort, names),
        };
        if !own.required.is_empty() || !own.anti_required.is_empty() {
            for (cohort, placed) in snapshot.cohorts().placed() {
                required.count_own(pod, cohort, snapshot, &mut placed.iter().map(|(slot, count)| (*slot, count.all)));
            }
        }
        for (cohort, placed) in snapshot.cohorts().placed_with_terms() {
            required.count_others(pod, cohort, snapshot, &mut placed.iter().map(|(slot, count)| (*slot, count.all)));
        }
        required
    }

    /// Pods of a cohort for the pod's own terms.
    fn count_own(
        &mut self,
        pod: &PodInfo,
        cohort: &Cohort,
        snapshot: &Snapshot,
        placed: &mut dyn Iterator<Item = (usize, i32)>,
    ) {
        let (own, names) = (&pod.cohort.affinity, &snapshot.namespaces);
        let with = matches_all(&own.required, cohort, names);
        let apart: Vec<bool> = own.anti_required.iter().map(|t| t.matches(cohort, names)).collect();
        if !with && !apart.contains(&true) {
            return;
        }
        for (slot, by) in placed {
            if with {
                self.with.iter_mut().for_each(|c| c.add(slot, by));
            }
            self.apart.iter_mut().zip(&apart).filter(|(_, m)| **m).for_each(|(c, _)| c.add(slot, by));
        }
    }

    /// Pods of a cohort for what they say of the pod.
    fn count_others(
        &mut self,
        pod: &PodInfo,
        cohort: &Cohort,
        snapshot: &Snapshot,
        placed: &mut dyn Iterator<Item = (usize, i32)>,
    ) {
        let meant = |t: &&Term| t.matches(&pod.cohort, &snapshot.namespaces);
        let keys: Vec<usize> = cohort
            .affinity
            .anti_required
            .iter()
            .filter(meant)
            .map(|t| {
                let known = self.of_others.iter().position(|(key, _)| *key == t.topology_key);
                known.unwrap_or_else(|| {
                    self.of_others.push((t.topology_key.clone(), Counts::new(&t.topology_key, snapshot)));
                    self.of_others.len() - 1
                })
            })
            .collect();
        if !keys.is_empty() {
            for (slot, by) in placed {
                keys.iter().for_each(|key| self.of_others[*key].1.add(slot, by));
            }
        }
    }

    pub fn adjust(&mut self, pod: &PodInfo, other: &PodInfo, slot: usize, by: i32, snapshot: &Snapshot) {
        self.count_own(pod, &other.cohort, snapshot, &mut std::iter::once((slot, by)));
        self.count_others(pod, &other.cohort, snapshot, &mut std::iter::once((slot, by)));
    }

    /// Every label must be there; and pods in each of their domains, unless the pod is the first of its kind.
    fn near(&self, slot: usize) -> bool {
        let mut there = true;
        for counts in &self.with {
            let Some(pods) = counts.at(slot) else { return false };
            there &= pods > 0;
        }
        there || (self.may_be_first && self.with.iter().all(|c| c.pods.iter().all(|n| *n <= 0)))
    }
}

pub fn filter(cycle: &Cycle, room: &Room) -> Result<(), Reasons> {
    let required = &cycle.affinity;
    let some = |counts: &Counts| counts.at(room.slot).is_some_and(|pods| pods > 0);
    if !required.near(room.slot) {
        return Err(Reasons::one("node(s) didn't match pod affinity rules", false));
    }
    if required.apart.iter().any(some) {
        return Err(Reasons::one("node(s) didn't match pod anti-affinity rules", true));
    }
    if required.of_others.iter().any(|(_, counts)| some(counts)) {
        return Err(Reasons::one("node(s) didn't satisfy existing pods anti-affinity rules", true));
    }
    Ok(())
}

/// Whether an event can change what the pod was refused for.
pub fn helps(pod: &PodInfo, _: &Wants, happened: &Happened, snapshot: &Snapshot) -> bool {
    let (own, names) = (&pod.cohort.affinity, &snapshot.namespaces);
    let with = |other: &PodInfo| matches_all(&own.required, &other.cohort, names);
    let apart = |other: &PodInfo| own.anti_required.iter().any(|t| t.matches(&other.cohort, names));
    let of_other = |other: &PodInfo| other.cohort.affinity.anti_required.iter().any(|t| t.matches(&pod.cohort, names));
    match happened {
        Happened::Placed(other) => with(other),
        // The last that it had to be near may have gone: then it may be the first itself.
        Happened::Gone { pod: other, .. } => apart(other) || of_other(other) || with(other),
        Happened::Changed { old, new, .. } => {
            with(old) != with(new)
                || own.anti_required.iter().any(|t| t.matches(&old.cohort, names) && !t.matches(&new.cohort, names))
        }
        Happened::Node { change, .. } => change.added || change.labels,
        // Its pods count no more.
        Happened::NodeGone => true,
        // Terms of pods on nodes may ask for namespaces as well as its own.
        Happened::Namespace => true,
        Happened::Claim(..)
        | Happened::Volumes
        | Happened::Limits
        | Happened::DeviceClaim { .. }
        | Happened::Devices
        | Happened::DeviceClasses => false,
    }
}

/// The sum of what preferred terms give and take: the pod's own, and those of pods on nodes that mean it.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "as upstream reckons")]
pub fn scores(cycle: &Cycle, slots: &[usize]) -> Option<Vec<i64>> {
    let (pod, snapshot, args) = (&cycle.pod.cohort, cycle.snapshot, &cycle.profile.args);
    if args.ignore_preferred_terms_of_existing_pods && pod.affinity.preferred.is_empty() {
        return None;
    }
    let names = &snapshot.namespaces;
    let mut sums: Vec<(&str, Arc<Domains>, Vec<i64>)> = Vec::new();
    let mut add = |key, weight: i64, placed: &PerNode| {
        let at = sums.iter().position(|(k, ..)| *k == key).unwrap_or_else(|| {
            let domains = snapshot.domains(key);
            let none = vec![0; domains.count()];
            sums.push((key, domains, none));
            sums.len() - 1
        });
        let (_, domains, sums) = &mut sums[at];
        for (slot, count) in placed {
            if let Some(domain) = domains.of(*slot) {
                sums[domain] += weight * i64::from(count.all);
            }
        }
    };
    if !pod.affinity.preferred.is_empty() {
        for (cohort, placed) in snapshot.cohorts().placed() {
            for (weight, term) in pod.affinity.preferred.iter().filter(|(_, t)| t.matches(cohort, names)) {
                add(term.topology_key.as_str(), *weight, placed);
            }
        }
    }
    for (cohort, placed) in snapshot.cohorts().placed_with_terms() {
        // What a pod on a node needs is worth something to those that it asks for.
        let required = cohort.affinity.required.iter().map(|t| (args.hard_pod_affinity_weight, t));
        let preferred = cohort.affinity.preferred.iter().map(|(weight, t)| (*weight, t));
        for (weight, term) in required.chain(preferred).filter(|(_, t)| t.matches(pod, names)) {
            add(term.topology_key.as_str(), weight, placed);
        }
    }
    if sums.is_empty() {
        return None;
    }
    let total = |slot: &usize| -> i64 {
        sums.iter().filter_map(|(_, domains, sums)| domains.of(*slot).map(|domain| sums[domain])).sum()
    };
    let totals: Vec<i64> = slots.iter().map(total).collect();
    let (least, most) = (totals.iter().min().copied()?, totals.iter().max().copied()?);
    let share = |n: i64| {
        if most == least { 0 } else { (MAX_SCORE as f64 * ((n - least) as f64 / (most - least) as f64)) as i64 }
    };
    Some(totals.into_iter().map(share).collect())
}
