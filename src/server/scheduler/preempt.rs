//! Decides: which pods have to go so that a more important one can run (upstream's `DefaultPreemption`).
//!
//! A dry run for each node where removing pods could help: take away all that matter less, see whether the pod fits,
//! then give back as many as it leaves room for, the most important and those with a budget first.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::plugins::{Cycle, Room};
use super::pod::PodInfo;
use super::search::{Diagnosis, histogram};
use super::selector::Selector;

const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

/// A `PodDisruptionBudget`, as far as it protects pods here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    pub namespace: String,
    pub selector: Selector,
    pub allowed: i32,
    /// Names of pods that the API has counted already.
    pub disrupted: BTreeSet<String>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum Preemption {
    /// Its profile does not preempt.
    Off,
    /// The pod may not, or not now: what was nominated stays.
    NotEligible(&'static str),
    /// No node would do; why.
    Nowhere(String),
    Chosen(Candidate),
}

/// A node, and who has to leave it, the most important first.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub slot: usize,
    pub victims: Vec<Arc<PodInfo>>,
    /// Victims that a budget does not allow.
    pub violations: usize,
}

/// Looks for the node where it costs least. `offset` says where to begin.
pub fn preempt(cycle: &mut Cycle, diagnosis: &Diagnosis, budgets: &[&Budget], offset: usize) -> Preemption {
    if let Some(why) = not_eligible(cycle, diagnosis) {
        return Preemption::NotEligible(why);
    }
    let hopeful: Vec<usize> =
        diagnosis.refusals.iter().filter(|(_, r)| r.reasons.resolvable).map(|(slot, _)| *slot).collect();
    let args = cycle.profile.args.preemption;
    let wanted = (hopeful.len() * args.percentage / 100).max(args.absolute);
    let first = offset.checked_rem(hopeful.len()).unwrap_or(0);
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut reasons: Vec<Cow<'static, str>> = Vec::new();
    let mut tried = 0;
    for slot in hopeful[first..].iter().chain(&hopeful[..first]) {
        if candidates.len() >= wanted && candidates.iter().any(|c| c.violations == 0) {
            break;
        }
        tried += 1;
        match dry_run(cycle, *slot, budgets) {
            Ok(candidate) => candidates.push(candidate),
            Err(why) => reasons.extend(why),
        }
    }
    if let Some(best) = cheapest(candidates) {
        return Preemption::Chosen(best);
    }
    let unhelpful = std::iter::repeat_n(NOT_HELPFUL, diagnosis.node_count - tried);
    let why = histogram(reasons.iter().map(|r| &**r).chain(unhelpful));
    Preemption::Nowhere(format!("0/{} nodes are available: {why}.", diagnosis.node_count))
}

/// Victims of an earlier attempt may still be ending: their room is waited for.
fn not_eligible(cycle: &Cycle, diagnosis: &Diagnosis) -> Option<&'static str> {
    if cycle.wants.never_preempts {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let slot = cycle.snapshot.slot(&cycle.pod.nominated)?;
    let hopeful = diagnosis.refusals.iter().any(|(of, r)| *of == slot && r.reasons.resolvable);
    let mut pods = cycle.snapshot.node(slot).pods.values();
    let ending = pods.any(|p| p.priority < cycle.pod.priority && p.deleting && p.preempted);
    (hopeful && ending).then_some("not eligible due to a terminating pod on the nominated node.")
}

/// More important first: higher priority, then the longer running (upstream's `MoreImportantPod`).
fn importance(pod: &PodInfo) -> (Reverse<i32>, bool, Option<Timestamp>, &str) {
    (Reverse(pod.priority), pod.started.is_none(), pod.started, &pod.uid)
}

fn dry_run(cycle: &mut Cycle, slot: usize, budgets: &[&Budget]) -> Result<Candidate, Vec<Cow<'static, str>>> {
    let node = cycle.snapshot.node(slot);
    let mut lesser: Vec<Arc<PodInfo>> =
        node.pods.values().filter(|p| p.priority < cycle.pod.priority).map(Arc::clone).collect();
    if lesser.is_empty() {
        return Err(vec![NO_VICTIMS.into()]);
    }
    lesser.sort_by(|a, b| importance(a).cmp(&importance(b)));
    let mut room = Room::new(slot, node);
    for pod in &lesser {
        room.remove(pod);
        cycle.adjust(pod, slot, -1);
    }
    let outcome = cycle.fits(&mut room).map_err(|refusal| refusal.reasons.texts);
    let mut victims: Vec<Arc<PodInfo>> = Vec::new();
    let mut violations = 0;
    if outcome.is_ok() {
        let (violating, others) = by_budgets(&lesser, budgets);
        let in_budget = violating.len();
        for (i, pod) in violating.into_iter().chain(others).enumerate() {
            room.add(&pod);
            cycle.adjust(&pod, slot, 1);
            if cycle.fits(&mut room).is_err() {
                room.remove(&pod);
                cycle.adjust(&pod, slot, -1);
                violations += usize::from(i < in_budget);
                victims.push(pod);
            }
        }
    } else {
        victims.clone_from(&lesser);
    }
    // The next node is tried with everything as it is.
    for pod in &victims {
        cycle.adjust(pod, slot, 1);
    }
    outcome?;
    victims.sort_by(|a, b| importance(a).cmp(&importance(b)));
    Ok(Candidate { slot, victims, violations })
}

/// Pods that some budget does not allow to go, and those that may.
fn by_budgets(pods: &[Arc<PodInfo>], budgets: &[&Budget]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut left: BTreeMap<usize, i32> = BTreeMap::new();
    pods.iter().cloned().partition(|pod| {
        let labels = &pod.cohort.labels;
        let mut violates = false;
        for (i, budget) in budgets.iter().enumerate() {
            let concerns = budget.namespace == pod.namespace()
                && !labels.is_empty()
                && !budget.selector.is_empty()
                && budget.selector.matches(labels)
                && !budget.disrupted.contains(&pod.name);
            if concerns {
                let left = left.entry(i).or_insert(budget.allowed);
                *left -= 1;
                violates |= *left < 0;
            }
        }
        violates
    })
}

/// Fewest violations of budgets, then the least important first victim, the lowest sum of priorities, the fewest
/// victims, the shortest run of the most important ones; then the first.
fn cheapest(candidates: Vec<Candidate>) -> Option<Candidate> {
    let cost = |c: &Candidate| {
        let highest = c.victims.first().map_or(i32::MIN, |p| p.priority);
        // Above zero, so that more victims cost more whatever their priority.
        let sum: i64 = c.victims.iter().map(|p| i64::from(p.priority) + i64::from(i32::MAX) + 1).sum();
        let starts = c.victims.iter().filter(|p| p.priority == highest).map(|p| (p.started.is_none(), p.started));
        (c.violations, highest, sum, c.victims.len(), Reverse(starts.min()))
    };
    candidates.into_iter().filter(|c| !c.victims.is_empty()).min_by_key(cost)
}
