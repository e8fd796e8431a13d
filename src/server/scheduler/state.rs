//! Decides: where each pod goes. Takes observations, keeps snapshot and queue, and answers with placements.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use tokio::time::Instant;

use super::filter::{Refusal, filter};
use super::queue::{Helps, Queue};
use super::score::{Selectors, best};
use super::snapshot::{NodeInfo, PodInfo, Snapshot};

/// What came of one attempt.
#[derive(Debug)]
pub enum Attempt {
    /// Reserved there; to be bound.
    Place { pod: Box<PodInfo>, node: String },
    /// To be told in an Event, and in the pod's condition when that does not say so already.
    Refused { pod: Box<PodInfo>, message: String },
}

/// Pods of other schedulers are placed but never scheduled by this one.
const SCHEDULER: &str = "default-scheduler";

#[derive(Default)]
pub struct State {
    pub snapshot: Snapshot,
    queue: Queue,
    /// Pods to be scheduled, by uid.
    pending: HashMap<String, PodInfo>,
    /// Pods placed by us that the watch does not show as bound yet.
    assumed: HashSet<String>,
    /// Selectors by namespace and name of their Service.
    services: HashMap<String, BTreeMap<String, BTreeMap<String, String>>>,
    attempts: usize,
}

impl State {
    pub fn observe_pod(&mut self, pod: Pod, now: Instant) {
        let pod = PodInfo::new(pod);
        if pod.finished {
            return self.forget_pod(&pod.uid, now);
        }
        if !pod.node.is_empty() {
            self.assumed.remove(&pod.uid);
            self.pending.remove(&pod.uid);
            self.queue.remove(&pod.uid);
            return self.snapshot.place(pod);
        }
        // A late sight of a pod that we have just placed.
        if self.assumed.contains(&pod.uid) {
            return;
        }
        let Some(wants) = &pod.wants else { return };
        if wants.scheduler != SCHEDULER || wants.gated || pod.deleting {
            self.pending.remove(&pod.uid);
            return self.queue.remove(&pod.uid);
        }
        let known = self.pending.get(&pod.uid);
        if known.is_none_or(|old| !same_wants(old, &pod)) {
            self.queue.add(&pod.uid, pod.priority, pod.created);
        }
        self.pending.insert(pod.uid.clone(), pod);
    }

    pub fn forget_pod(&mut self, uid: &str, now: Instant) {
        self.assumed.remove(uid);
        self.pending.remove(uid);
        self.queue.remove(uid);
        if self.snapshot.unplace(uid) {
            self.queue.wake(Helps::RoomFreed, now);
        }
    }

    pub fn observe_node(&mut self, node: Node, now: Instant) {
        if self.snapshot.observe_node(node) {
            self.queue.wake(Helps::Node, now);
        }
    }

    pub fn forget_node(&mut self, name: &str) {
        self.snapshot.forget_node(name);
    }

    pub fn observe_service(&mut self, service: Service) {
        let (ns, name) = (service.metadata.namespace.unwrap_or_default(), service.metadata.name.unwrap_or_default());
        match service.spec.and_then(|s| s.selector).filter(|s| !s.is_empty()) {
            Some(selector) => {
                self.services.entry(ns).or_default().insert(name, selector);
            }
            None => self.forget_service(&ns, &name),
        }
    }

    pub fn forget_service(&mut self, namespace: &str, name: &str) {
        if let Some(of_namespace) = self.services.get_mut(namespace) {
            of_namespace.remove(name);
            if of_namespace.is_empty() {
                self.services.remove(namespace);
            }
        }
    }

    pub fn forget_services(&mut self) {
        self.services.clear();
    }

    /// All pods known, for comparing with a complete list.
    #[must_use]
    pub fn pod_uids(&self) -> Vec<String> {
        let placed = self.snapshot.nodes_all().flat_map(|n| n.pods.keys().cloned());
        self.pending.keys().cloned().chain(placed).collect()
    }

    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.queue.deadline()
    }

    /// Tries the next pod, if there is one.
    pub fn attempt(&mut self, now: Instant) -> Option<Attempt> {
        let uid = loop {
            let uid = self.queue.pop(now)?;
            if self.pending.contains_key(&uid) {
                break uid;
            }
        };
        let pod = self.pending.get(&uid)?.clone();
        let wants = pod.wants.clone()?;
        self.attempts = self.attempts.wrapping_add(1);
        let mut feasible: Vec<&NodeInfo> = Vec::new();
        let mut refusals: Vec<Refusal> = Vec::new();
        for node in self.snapshot.nodes() {
            match filter(&pod, &wants, node) {
                Ok(()) => feasible.push(node),
                Err(refusal) => refusals.push(refusal),
            }
        }
        let of_namespace = self.services.get(&pod.namespace);
        let services: Selectors<'_> = of_namespace
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter(|s| s.iter().all(|(k, v)| pod.labels.get(k) == Some(v)))
            .collect();
        if let Some(node) = best(&pod, &wants, &feasible, &services, self.attempts) {
            let node = node.name.clone();
            let mut placed = pod.clone();
            placed.node.clone_from(&node);
            placed.wants = None;
            self.assumed.insert(uid.clone());
            self.snapshot.place(placed);
            return Some(Attempt::Place { pod: Box::new(pod), node });
        }
        let mut plugins: Vec<&'static str> = refusals.iter().map(|r| r.plugin).collect();
        plugins.sort_unstable();
        plugins.dedup();
        if plugins.is_empty() {
            // No nodes at all: only a node can help.
            plugins.push(super::filter::NODE_NAME);
        }
        self.queue.failed(&uid, plugins, now);
        let message = message(&refusals, wants.never_preempts);
        Some(Attempt::Refused { pod: Box::new(pod), message })
    }

    /// The binding of a placed pod failed: it is tried again later, unless it is gone.
    pub fn unbound(&mut self, uid: &str, now: Instant) {
        if self.assumed.remove(uid) {
            self.snapshot.unplace(uid);
            if let Some(pod) = self.pending.get(uid) {
                self.queue.restore(uid, pod.priority, pod.created);
                self.queue.failed(uid, Vec::new(), now);
            }
            self.queue.wake(Helps::RoomFreed, now);
        }
    }
}

/// Equal but for what the scheduler itself writes.
fn same_wants(a: &PodInfo, b: &PodInfo) -> bool {
    let wants = |p: &PodInfo| {
        p.wants.as_ref().map(|w| {
            let mut w = w.clone();
            w.told = None;
            w
        })
    };
    a.priority == b.priority && a.requests == b.requests && a.labels == b.labels && wants(a) == wants(b)
}

/// As upstream's `FitError`: reasons with their counts, sorted as text, then why nothing was preempted.
#[must_use]
pub fn message(refusals: &[Refusal], never_preempts: bool) -> String {
    if refusals.is_empty() {
        return "no nodes available to schedule pods".into();
    }
    let total = refusals.len();
    let reasons = histogram(refusals.iter().flat_map(|r| r.reasons.iter().map(String::as_str)));
    let preemption = if never_preempts {
        "not eligible due to preemptionPolicy=Never.".to_owned()
    } else {
        let why = histogram(refusals.iter().map(|r| {
            if r.resolvable {
                "No preemption victims found for incoming pod"
            } else {
                "Preemption is not helpful for scheduling"
            }
        }));
        format!("0/{total} nodes are available: {why}.")
    };
    // Both are post-filters of upstream's default profile: dynamic resources, then preemption.
    format!("0/{total} nodes are available: {reasons}. no new claims to deallocate, preemption: {preemption}")
}

fn histogram<'a>(reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_insert(0) += 1;
    }
    let mut lines: Vec<String> = counts.into_iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    lines.sort();
    lines.join(", ")
}

#[cfg(test)]
mod tests;
