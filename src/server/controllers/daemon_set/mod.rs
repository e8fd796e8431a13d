//! Decides: a DaemonSet has one pod on each node that it may run on (`pkg/controller/daemon`).
//!
//! ```text
//! revision of the template ─▶ what each node lacks or has too much ─▶ if that is nothing: the roll-out ─▶ status
//! ```
//!
//! - [`fit`]: which nodes it runs on, and how a pod is pinned to one
//! - [`places`]: its pods by node; what each node lacks
//! - [`rolling`]: how old pods give way to those of the template as it is now
//! - [`history`]: the template's revisions
//! - [`backoff`]: pods that fail over and over are remade ever more slowly

mod backoff;
mod fit;
mod history;
mod places;
mod rolling;
mod status;

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use self::backoff::Backoff;
use self::fit::Fit;
use self::places::{Places, Step};
use super::action::{Action, Controller, Enqueue, Moment, Name, Plan};
use super::pod_control::{self, PodControl};
use super::share::{Round, share};
use super::stores::{Stores, row};
use super::{owners, pods};
use crate::client::store::{Change, Meta as _, Store};

/// Pods made, and pods removed, in one plan (`BurstReplicas`).
const BURST: usize = 250;
/// Keeps the hash of the template: on revisions, and on the pods made from them.
const HASH: &str = "controller-revision-hash";
const COMPONENT: &str = "daemonset-controller";

#[derive(Default)]
pub struct DaemonSetController {
    failed: Mutex<Backoff>,
}

/// What a plan is made from.
pub struct Observed {
    pub set: Arc<DaemonSet>,
    pub nodes: Vec<Arc<Node>>,
    /// All pods of its namespace.
    pub pods: Vec<Arc<Pod>>,
    /// All revisions of its namespace.
    pub revisions: Vec<Arc<ControllerRevision>>,
}

impl Controller for DaemonSetController {
    fn name(&self) -> &'static str {
        "daemonset"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.daemon_sets.subscribe(move |change| {
            if let Some(set) = change.new {
                queue.add(set.metadata.namespace(), set.metadata.name());
            }
        });
        let sets = Arc::clone(&stores.daemon_sets);
        pod_control::follow(stores, enqueue, row("apps/daemonsets"), move |pod| selecting(&sets, pod));
        let (queue, sets) = (enqueue.clone(), Arc::clone(&stores.daemon_sets));
        stores.nodes.subscribe(move |change| {
            for set in concerned(&sets, change) {
                queue.add(set.metadata.namespace(), set.metadata.name());
            }
        });
        let (queue, sets) = (enqueue.clone(), Arc::clone(&stores.daemon_sets));
        stores.controller_revisions.subscribe(move |change| {
            for revision in change.each() {
                let meta = &revision.metadata;
                match owners::controller_named(meta, "apps", "DaemonSet") {
                    // What is added with an owner was added by the owner.
                    Some(owner) if change.old.is_some() => queue.add(meta.namespace(), owner),
                    None if owners::controller_of(meta).is_none() => {
                        selecting(&sets, meta).iter().for_each(|name| queue.add(meta.namespace(), name));
                    }
                    _ => {}
                }
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let Some(set) = stores.daemon_sets.get(&key.namespace, &key.name) else { return Plan::nothing() };
        let observed = Observed {
            set,
            nodes: stores.nodes.all(),
            pods: stores.pods.list(&key.namespace),
            revisions: stores.controller_revisions.list(&key.namespace),
        };
        plan(&observed, &mut self.failed.lock().unwrap_or_else(PoisonError::into_inner), moment)
    }
}

/// Names of the DaemonSets that select an object.
fn selecting(sets: &Store<DaemonSet>, object: &ObjectMeta) -> Vec<String> {
    let selects =
        |s: &DaemonSet| s.spec.as_ref().is_some_and(|spec| owners::selects(&spec.selector, object.labels.as_ref()));
    sets.find(object.namespace(), selects).iter().map(|s| s.metadata.name().to_owned()).collect()
}

/// The DaemonSets for which a change of a node makes a difference. Nodes report every few seconds that nothing has
/// changed.
fn concerned(sets: &Store<DaemonSet>, change: &Change<'_, Node>) -> Vec<Arc<DaemonSet>> {
    let taints = |n: &Node| n.spec.as_ref().and_then(|s| s.taints.clone()).filter(|t| !t.is_empty());
    if let (Some(old), Some(new)) = (change.old, change.new)
        && old.metadata.labels == new.metadata.labels
        && taints(old) == taints(new)
    {
        return Vec::new();
    }
    let mut sets = sets.all();
    sets.retain(|set| {
        let Some(spec) = &set.spec else { return false };
        let fit = Fit::of(spec);
        let verdict = |node: Option<&Arc<Node>>| node.map_or_else(fit::Verdict::default, |n| fit.on(n));
        verdict(change.old) != verdict(change.new)
    });
    sets
}

/// Claims, makes and removes pods, keeps the history, and reports the status.
#[must_use]
fn plan(observed: &Observed, failed: &mut Backoff, moment: Moment<'_>) -> Plan {
    let set = &observed.set;
    let mut plan = Plan::default();
    // Of one that is being deleted nobody knows what is still there of its pods and revisions.
    let Some(spec) = set.spec.as_ref().filter(|_| set.metadata.deletion_timestamp.is_none()) else { return plan };
    let control = PodControl { resource: row("apps/daemonsets"), owner: &set.metadata, component: COMPONENT };
    if owners::is_empty(&spec.selector) {
        let message = "This daemon set is selecting all pods. A non-empty selector is required.".into();
        plan.push(Action::Event(control.event(true, "SelectingAll", message)));
        return plan;
    }
    let owned = control.claim(&spec.selector, &observed.pods, &mut plan);
    let Some(history) = history::plan(observed, spec, &owned, &mut plan) else { return plan };
    let view = View { spec, hash: &history.hash, now: moment.now };
    let places = Places::new(spec, &observed.nodes, &owned);
    for wait in owned.iter().filter_map(|pod| view.available_in(pod)).filter(|wait| !wait.is_zero()) {
        plan.look_after(wait);
    }
    let report = status::plan(set, &places, view);
    // A failure may end this plan too; the counts should be right all the same.
    let after = if moment.failure.is_some() {
        plan.actions.extend(report);
        None
    } else {
        report
    };
    let mut step = places.step(set, view, failed, &mut plan);
    if step.is_empty() {
        step = rolling::plan(&places, view);
    }
    push(control, view, step, &mut plan);
    plan.actions.extend(history.surplus.into_iter().map(Action::from));
    plan.actions.extend(after);
    plan
}

/// Removals come first: they may make room for what is added.
fn push(control: PodControl<'_>, view: View<'_>, step: Step<'_>, plan: &mut Plan) {
    let removals: Vec<_> = step.remove.iter().take(BURST).map(|pod| control.delete(pod)).collect();
    if !removals.is_empty() {
        plan.push(Action::SlowStart(removals));
    }
    if !step.make.is_empty() {
        let template = fit::template(&view.spec.template, control.owner, view.hash);
        let pod = |node: &&str| control.create(control.pod(&fit::pinned(template.clone(), node)));
        plan.push(Action::SlowStart(step.make.iter().take(BURST).map(pod).collect()));
    }
}

/// What pods are judged by.
#[derive(Clone, Copy)]
struct View<'a> {
    spec: &'a DaemonSetSpec,
    /// Of the template as it is now.
    hash: &'a str,
    now: jiff::Timestamp,
}

impl View<'_> {
    fn is_updated(self, pod: &Pod) -> bool {
        label(&pod.metadata) == Some(self.hash)
    }

    fn available_in(self, pod: &Pod) -> Option<std::time::Duration> {
        pods::available_in(pod, self.spec.min_ready_seconds.unwrap_or(0), self.now)
    }

    fn is_available(self, pod: &Pod) -> bool {
        self.available_in(pod).is_some_and(|wait| wait.is_zero())
    }

    /// Pods that may be had too much of, and pods that may be missing, of `all`, while a roll-out goes on. `None` when
    /// nothing is rolled out.
    fn leeway(self, all: usize) -> Option<(usize, usize)> {
        let strategy = self.spec.update_strategy.as_ref();
        let rolling = strategy.filter(|s| s.type_.as_deref() == Some("RollingUpdate"))?.rolling_update.as_ref();
        let all = i32::try_from(all).unwrap_or(i32::MAX);
        let most = |of: Option<&IntOrString>| {
            let most = of.and_then(|v| share(v, all, Round::Up)).unwrap_or(0);
            usize::try_from(most).unwrap_or(0)
        };
        let surge = most(rolling.and_then(|r| r.max_surge.as_ref()));
        let unavailable = most(rolling.and_then(|r| r.max_unavailable.as_ref()));
        // Neither would never move.
        Some(if surge == 0 { (0, unavailable.max(1)) } else { (surge, unavailable) })
    }

    fn surges(self) -> bool {
        self.leeway(1).is_some_and(|(surge, _)| surge > 0)
    }
}

/// Hash of the template that it was made from.
fn label(meta: &ObjectMeta) -> Option<&str> {
    meta.labels.as_ref()?.get(HASH).map(String::as_str)
}

#[cfg(test)]
mod tests;
