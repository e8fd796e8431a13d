//! Decides: where each pod goes. Takes observations, keeps snapshot and queue, and answers with placements.

mod promises;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use tokio::time::Instant;

use self::promises::Binding;
use super::plugins::dynamic_resources::{self, Release};
use super::plugins::extended_resources::Variants;
use super::plugins::{Cycle, Happened, Refusers};
use super::pod::{PodInfo, Wants};
use super::preempt::{Budget, Candidate, Preemption, preempt};
use super::profile::Profile;
use super::promises::{ClaimId, Promise};
use super::queue::Queue;
use super::search::{Diagnosis, best, feasible};
use super::selector::{Labels, Selector};
use super::snapshot::Snapshot;
use crate::config::scheduler::{self, Scheduler};

/// What came of one attempt.
#[derive(Debug)]
pub enum Attempt {
    /// Reserved there; to be bound. `made`: the claim of its extended resources, of no use if it is not.
    Place { pod: Arc<PodInfo>, node: String, made: Option<ClaimId> },
    /// Reserved there; its claims are to be told first. It is placed when they are bound.
    Promise { pod: Arc<PodInfo>, node: String, promises: Vec<Promise> },
    /// Its claims could not be bound, as a plugin says. It is tried again.
    Unbindable { pod: Arc<PodInfo>, plugin: &'static str, why: String, made: Option<ClaimId> },
    /// Fits nowhere as it is.
    Refused(Box<Refused>),
}

/// To be told in an Event, and in the pod's condition when that does not say so already.
#[derive(Debug)]
pub struct Refused {
    pub pod: Arc<PodInfo>,
    pub message: String,
    /// A new `status.nominatedNodeName`; empty to clear it.
    pub nominate: Option<String>,
    /// Pods that have to go for it, to be deleted. [`State::preempted`] is told how it went.
    pub victims: Vec<Arc<PodInfo>>,
    /// A claim that keeps the pod from other nodes, to give up its devices or to go.
    pub release: Option<Release>,
    /// Less important pods whose nomination for the same node ends.
    pub displaced: Vec<Arc<PodInfo>>,
}

/// Pods of other schedulers are placed but never scheduled by this one.
pub const SCHEDULER: &str = scheduler::DEFAULT;

#[derive(Default)]
pub struct State {
    pub snapshot: Snapshot,
    queue: Queue,
    /// None for the default one alone.
    profiles: Vec<Arc<Profile>>,
    /// Pods to be scheduled, by uid.
    pending: HashMap<String, Arc<PodInfo>>,
    /// Pods placed by us that the watch does not show as bound yet.
    assumed: HashSet<String>,
    /// Pending pods that are nominated for a node.
    nominees: HashSet<String>,
    /// Pods whose victims are being deleted just now, and whether they were woken meanwhile.
    preempting: HashMap<String, bool>,
    /// By namespace and name.
    budgets: BTreeMap<(String, String), Budget>,
    /// Placed pods that wait for their claims, by uid.
    binding: HashMap<String, Binding>,
    /// What came of them.
    ready: VecDeque<Attempt>,
    attempts: usize,
    /// Where the next search begins among the nodes.
    start: usize,
}

impl State {
    #[must_use]
    pub fn new(config: &Scheduler) -> Self {
        let queue = Queue::new(config.first_backoff, config.last_backoff);
        Self { queue, profiles: Profile::all(config), ..Self::default() }
    }

    /// Puts the profile of its scheduler's name to a pod; false when that is somebody else's name.
    fn adopt(&self, wants: &mut Wants) -> bool {
        if self.profiles.is_empty() {
            return wants.scheduler == SCHEDULER;
        }
        wants.profile = self.profiles.iter().find(|p| p.name == wants.scheduler).map(Arc::clone);
        wants.profile.is_some()
    }

    pub fn observe_pod(&mut self, pod: Pod, now: Instant) {
        let mut pod = PodInfo::new(pod);
        if pod.finished {
            return self.forget_pod(&pod.uid, now);
        }
        let cohort = std::mem::take(&mut pod.cohort);
        pod.cohort = self.snapshot.shared(Arc::unwrap_or_clone(cohort));
        if !pod.node.is_empty() {
            return self.observe_placed(pod, now);
        }
        // A late sight of a pod that we have just placed.
        if self.assumed.contains(&pod.uid) {
            return;
        }
        let Some(wants) = &mut pod.wants else { return };
        if !self.adopt(wants) || (wants.gated && wants.profile().gates) || pod.deleting {
            return self.drop_pending(&pod.uid, now);
        }
        let known = self.pending.get(&pod.uid).cloned();
        if known.as_ref().is_none_or(|old| !old.wants_the_same(&pod)) {
            self.queue.add(&pod.uid, pod.priority, pod.created);
        }
        let nominated = pod.nominated.clone();
        if let Some(old) = &known {
            pod.nominated.clone_from(&old.nominated);
        }
        let uid = pod.uid.clone();
        let unsaid = known.is_some_and(|old| old.told_nomination == nominated);
        pod.told_nomination.clone_from(&nominated);
        self.pending.insert(uid.clone(), Arc::new(pod));
        // What we have nominated ourselves holds until the API says something else than before.
        if !unsaid {
            self.nominate(&uid, &nominated, now);
        }
    }

    fn observe_placed(&mut self, pod: PodInfo, now: Instant) {
        self.assumed.remove(&pod.uid);
        self.end_nomination(&pod.uid, Some(&pod.node), now);
        self.forget_pending(&pod.uid);
        let pod = Arc::new(PodInfo { wants: None, ..pod });
        let before = self.snapshot.unplace(&pod.uid);
        let slot = self.snapshot.place(Arc::clone(&pod));
        let old = match before {
            Some((old, was)) if was == slot => old,
            elsewhere => {
                if let Some((old, was)) = elsewhere {
                    self.happened(&Happened::Gone { pod: &old, slot: was }, now);
                }
                return self.happened(&Happened::Placed(&pod), now);
            }
        };
        if old.cohort != pod.cohort || old.taken != pod.taken || old.deleting != pod.deleting {
            self.happened(&Happened::Changed { old: &old, new: &pod, slot }, now);
        }
    }

    pub fn forget_pod(&mut self, uid: &str, now: Instant) {
        self.assumed.remove(uid);
        self.withdraw(uid, now);
        self.drop_pending(uid, now);
        if let Some((pod, slot)) = self.snapshot.unplace(uid) {
            self.happened(&Happened::Gone { pod: &pod, slot }, now);
        }
    }

    fn drop_pending(&mut self, uid: &str, now: Instant) {
        self.end_nomination(uid, None, now);
        self.forget_pending(uid);
    }

    fn forget_pending(&mut self, uid: &str) {
        self.pending.remove(uid);
        self.queue.remove(uid);
    }

    pub fn observe_node(&mut self, node: Node, now: Instant) {
        let (slot, change) = self.snapshot.observe_node(node);
        if change.any() {
            self.happened(&Happened::Node { slot, change }, now);
        }
    }

    pub fn forget_node(&mut self, name: &str, now: Instant) {
        if self.snapshot.forget_node(name).is_some() {
            self.happened(&Happened::NodeGone, now);
        }
    }

    /// `None` for a namespace that is gone.
    pub fn observe_namespace(&mut self, name: &str, labels: Option<Labels>, now: Instant) {
        let before = match labels.clone() {
            Some(labels) => self.snapshot.namespaces.insert(name.to_owned(), labels),
            None => self.snapshot.namespaces.remove(name),
        };
        if before.unwrap_or_default() != labels.unwrap_or_default() {
            self.happened(&Happened::Namespace, now);
        }
    }

    /// Budgets say whom to spare, not whether anyone may go: no pod waits for one.
    pub fn observe_budget(&mut self, budget: PodDisruptionBudget) {
        let (namespace, name) =
            (budget.metadata.namespace.unwrap_or_default(), budget.metadata.name.unwrap_or_default());
        let status = budget.status.unwrap_or_default();
        let known = Budget {
            namespace: namespace.clone(),
            selector: Selector::new(budget.spec.and_then(|s| s.selector).as_ref()),
            allowed: status.disruptions_allowed.unwrap_or(0),
            disrupted: status.disrupted_pods.into_iter().flatten().map(|(pod, _)| pod).collect(),
        };
        self.budgets.insert((namespace, name), known);
    }

    pub fn forget_budget(&mut self, namespace: &str, name: &str) {
        self.budgets.remove(&(namespace.to_owned(), name.to_owned()));
    }

    pub fn forget_budgets(&mut self) {
        self.budgets.clear();
    }

    /// All pods known, for comparing with a complete list.
    #[must_use]
    pub fn pod_uids(&self) -> Vec<String> {
        self.pending.keys().chain(self.snapshot.placed_uids()).cloned().collect()
    }

    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.binding.values().map(|b| b.until).chain(self.queue.deadline()).min()
    }

    /// More can be attached to nodes.
    pub fn limits_changed(&mut self, now: Instant) {
        self.happened(&Happened::Limits, now);
    }

    /// Wakes the pods that an event can help.
    fn happened(&mut self, happened: &Happened, now: Instant) {
        let Self { queue, pending, snapshot, .. } = self;
        queue.wake(Refusers::that_hear_of(happened), now, |uid, refusers| {
            pending.get(uid).is_some_and(|pod| refusers.are_helped(pod, happened, snapshot))
        });
    }

    /// Notes for which node a pending pod is nominated.
    fn nominate(&mut self, uid: &str, node: &str, now: Instant) {
        if self.pending.get(uid).is_none_or(|pod| pod.nominated == node) {
            if !node.is_empty() {
                self.nominees.insert(uid.to_owned());
            }
            return;
        }
        self.end_nomination(uid, Some(node), now);
        if let Some(pod) = self.pending.get_mut(uid) {
            node.clone_into(&mut Arc::make_mut(pod).nominated);
        }
        if !node.is_empty() {
            self.nominees.insert(uid.to_owned());
        }
    }

    /// The pod takes no room any more where it was nominated, unless it is nominated or placed there again.
    fn end_nomination(&mut self, uid: &str, again: Option<&str>, now: Instant) {
        if !self.nominees.remove(uid) {
            return;
        }
        let Some(pod) = self.pending.get(uid).cloned() else { return };
        let slot = self.snapshot.slot(&pod.nominated);
        if let Some(slot) = slot.filter(|_| again != Some(pod.nominated.as_str())) {
            self.happened(&Happened::Gone { pod: &pod, slot }, now);
        }
    }

    /// Tries the next pod, if there is one.
    pub fn attempt(&mut self, now: Instant) -> Option<Attempt> {
        if self.binding.values().any(|b| b.until <= now) {
            self.settle(now);
        }
        if let Some(done) = self.ready.pop_front() {
            return Some(done);
        }
        let pod = loop {
            let uid = self.queue.pop(now)?;
            if let Some(woken) = self.preempting.get_mut(&uid) {
                *woken = true;
                continue;
            }
            let Some(pod) = self.pending.get(&uid).filter(|_| !self.assumed.contains(&uid)) else { continue };
            if pod.wants.as_deref().is_some_and(|wants| dynamic_resources::waits(pod, wants, &self.snapshot)) {
                self.queue.waits(&uid, Refusers::named(dynamic_resources::NAME), now);
                continue;
            }
            break Arc::clone(pod);
        };
        let wants = pod.wants.as_deref()?;
        self.attempts = self.attempts.wrapping_add(1);
        self.snapshot.arrange();
        let nodes = self.snapshot.order().len();
        let variants = Variants::new(&pod, wants, &self.snapshot);
        let mut cycle = Cycle::new(&pod, wants, &self.snapshot, &variants, nodes);
        for other in self.nominees.iter().filter(|uid| **uid != pod.uid).filter_map(|uid| self.pending.get(uid)) {
            if let Some(slot) = self.snapshot.slot(&other.nominated).filter(|_| other.priority >= pod.priority) {
                cycle.nominated.entry(slot).or_default().push(Arc::clone(other));
            }
        }
        match feasible(&mut cycle, self.start) {
            Ok(found) => {
                let slot = best(&cycle, &found.slots, self.attempts)?;
                self.start = (self.start + found.looked_at) % nodes.max(1);
                let (needs, node) = (&cycle.volumes, self.snapshot.node(slot));
                let mut promises = if needs.is_settled() { None } else { needs.promises(&self.snapshot, node).ok() };
                if let Some(of_devices) = cycle.devices.promises(&pod, slot, node) {
                    promises.get_or_insert_default().extend(of_devices);
                }
                Some(self.placed(&pod, slot, promises, now))
            }
            Err(mut diagnosis) => {
                let (said, release) = cycle.devices.after_all(&pod);
                let profile = wants.profile();
                diagnosis.of_claims = if profile.releases { said } else { "" };
                let release = release.filter(|_| profile.releases);
                let budgets: Vec<&Budget> = self.budgets.values().collect();
                let outcome = match &diagnosis.error {
                    Some(_) => Preemption::NotEligible(""),
                    None if !profile.preempts => Preemption::Off,
                    None => preempt(&mut cycle, &diagnosis, &budgets, self.attempts),
                };
                Some(self.refused(&pod, &diagnosis, outcome, release, now))
            }
        }
    }

    fn refused(
        &mut self,
        pod: &Arc<PodInfo>,
        diagnosis: &Diagnosis,
        outcome: Preemption,
        release: Option<Release>,
        now: Instant,
    ) -> Attempt {
        let mut refusers = diagnosis.refusers;
        if diagnosis.node_count == 0 {
            // Only a node can help.
            refusers.join(Refusers::named("NodeName"));
        }
        self.queue.failed(&pod.uid, Some(refusers), now);
        let mut refused = Refused {
            pod: Arc::clone(pod),
            message: String::new(),
            nominate: None,
            victims: Vec::new(),
            release,
            displaced: Vec::new(),
        };
        let why = match outcome {
            Preemption::Off => None,
            Preemption::NotEligible(why) => Some(format!("preemption: {why}")),
            Preemption::Nowhere(why) => {
                refused.nominate = (!pod.nominated.is_empty()).then(String::new);
                Some(format!("preemption: {why}"))
            }
            Preemption::Chosen(candidate) => {
                self.preempt(&mut refused, candidate, now);
                None
            }
        };
        if let Some(node) = &refused.nominate {
            self.nominate(&pod.uid, node, now);
        }
        let chosen = refused.nominate.as_ref().is_some_and(|node| !node.is_empty());
        let why = [diagnosis.of_claims, why.as_deref().unwrap_or_default()].into_iter().filter(|said| !said.is_empty());
        refused.message = diagnosis.message(why.filter(|_| !chosen));
        Attempt::Refused(Box::new(refused))
    }

    fn preempt(&mut self, refused: &mut Refused, candidate: Candidate, now: Instant) {
        let node = self.snapshot.node(candidate.slot).name.clone();
        refused.victims = candidate.victims.into_iter().filter(|v| !v.deleting).collect();
        if !refused.victims.is_empty() {
            self.preempting.insert(refused.pod.uid.clone(), false);
        }
        let lesser = |p: &&Arc<PodInfo>| p.nominated == node && p.priority < refused.pod.priority;
        let nominees = self.nominees.iter().filter_map(|uid| self.pending.get(uid));
        refused.displaced = nominees.filter(lesser).map(Arc::clone).collect();
        for other in &refused.displaced {
            self.nominate(&other.uid, "", now);
            // It looks for another place at once.
            self.queue.add(&other.uid, other.priority, other.created);
        }
        refused.nominate = Some(node);
    }

    /// The victims of a pod are deleted, or could not be. Until now it was not tried again: it would have chosen
    /// others.
    pub fn preempted(&mut self, uid: &str, deleted: bool) {
        let woken = self.preempting.remove(uid).unwrap_or_default();
        if let Some(pod) = self.pending.get(uid).filter(|_| woken || !deleted) {
            self.queue.add(uid, pod.priority, pod.created);
        }
    }
}
