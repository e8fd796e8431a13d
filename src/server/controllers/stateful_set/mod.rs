//! Decides: a StatefulSet keeps one pod per ordinal, each with its name, its claims and its revision of the template.
//!
//! ```text
//! claim pods and revisions ─▶ revision of the template ─▶ members, by ordinal, lowest first:
//!     ended ─▶ deleted; absent ─▶ claims, then the pod; not available ─▶ wait (OrderedReady only)
//! all there ─▶ those beyond the last ordinal go, highest first ─▶ outdated ones go, highest first
//! every path ends with the status
//! ```
//!
//! Follows upstream's `pkg/controller/statefulset`. With `OrderedReady` a plan does one step; with `Parallel` it does
//! all that can be done.

mod claims;
mod members;
mod status;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use self::members::Members;
use super::action::{Controller, Enqueue, Moment, Name, Plan};
use super::pod_control::{self, PodControl};
use super::revisions::{self, Current, History};
use super::stores::{Stores, row};
use super::{owners, pods};
use crate::client::store::Meta as _;

/// On ControllerRevisions.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// On pods: the name of their revision.
const REVISION_LABEL: &str = "controller-revision-hash";

pub struct StatefulSetController;

/// What a plan is made from.
pub struct Observed {
    pub set: Arc<StatefulSet>,
    /// All pods of its namespace, by name.
    pub pods: Vec<Arc<Pod>>,
    /// All revisions of its namespace.
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// All claims of its namespace, by name, when it has templates for some.
    pub claims: Vec<Arc<PersistentVolumeClaim>>,
}

impl Controller for StatefulSetController {
    fn name(&self) -> &'static str {
        "statefulset"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.stateful_sets.subscribe(move |change| {
            change.each().for_each(|s| queue.add(s.metadata.namespace(), s.metadata.name()));
        });
        let sets = Arc::clone(&stores.stateful_sets);
        pod_control::follow(stores, enqueue, row("apps/statefulsets"), move |pod| {
            let selects = |s: &StatefulSet| {
                members::ordinal(s.metadata.name(), pod.name()).is_some()
                    && s.spec.as_ref().is_some_and(|s| owners::selects(&s.selector, pod.labels.as_ref()))
            };
            sets.find(pod.namespace(), selects).iter().map(|s| s.metadata.name().to_owned()).collect()
        });
        let (queue, sets) = (enqueue.clone(), Arc::clone(&stores.stateful_sets));
        stores.claims.subscribe(move |change| {
            // A claim in the way may be gone, one in use may have been deleted, or lost its owners.
            let Some(claim) = change.old else { return };
            let meta = &claim.metadata;
            for set in sets.find(meta.namespace(), |s| claims::is_of(s, meta.name())) {
                queue.add(meta.namespace(), set.metadata.name());
            }
        });
        let queue = enqueue.clone();
        stores.controller_revisions.subscribe(move |change| {
            for revision in change.each() {
                if let Some(owner) = owners::controller_named(&revision.metadata, "apps", "StatefulSet") {
                    queue.add(revision.metadata.namespace(), owner);
                }
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let Some(set) = stores.stateful_sets.get(&key.namespace, &key.name) else { return Plan::nothing() };
        let has_claims = set.spec.as_ref().is_some_and(|s| !claims::templates(s).is_empty());
        let observed = Observed {
            set,
            pods: stores.pods.list(&key.namespace),
            revisions: stores.controller_revisions.list(&key.namespace),
            claims: if has_claims { stores.claims.list(&key.namespace) } else { Vec::new() },
        };
        plan(&observed, moment)
    }
}

/// The next step, or steps, towards what the set asks for.
#[must_use]
pub fn plan(observed: &Observed, moment: Moment<'_>) -> Plan {
    let set = &observed.set;
    let mut plan = Plan::default();
    let Some(spec) = set.spec.as_ref().filter(|s| !owners::is_empty(&s.selector)) else { return plan };
    let control = control(set);
    let named = observed.pods.iter().filter(|p| members::ordinal(set.metadata.name(), p.metadata.name()).is_some());
    let owned = control.claim(&spec.selector, named, &mut plan);
    let history = history(set, spec);
    let revisions = history.owned(&observed.revisions, &mut plan);
    if !plan.actions.is_empty() {
        return plan;
    }
    let update = match history.current(&observed.revisions, &revisions) {
        Current::Known(revision) => revision,
        Current::Write(write) => {
            plan.push(*write);
            return plan;
        }
        Current::Taken => {
            plan.push(status::collided(set));
            return plan;
        }
    };
    let before = set.status.as_ref().and_then(|s| s.current_revision.as_deref());
    let current = revisions.iter().find(|r| r.metadata.name.as_deref() == before).unwrap_or(&update);
    let members = Members::new(observed, control, &owned, current, &update, moment.now);
    let report = status::plan(set, &members, &mut plan);
    // A failure may end this plan too: what is known is said first.
    if moment.failure.is_some() {
        plan.actions.extend(report.clone());
    }
    if set.metadata.deletion_timestamp.is_none() {
        members.plan(&mut plan);
    }
    if moment.failure.is_none() {
        plan.actions.extend(report);
    }
    let used = |r: &ControllerRevision| {
        let name = r.metadata.name();
        [current, &update].iter().any(|kept| kept.metadata.name() == name)
            || owned.iter().any(|pod| members::revision(pod) == Some(name))
    };
    plan.actions.extend(revisions::surplus(&revisions, spec.revision_history_limit, used).into_iter().map(Into::into));
    plan
}

fn control(set: &StatefulSet) -> PodControl<'_> {
    PodControl { resource: row("apps/statefulsets"), owner: &set.metadata, component: "statefulset-controller" }
}

fn history<'a>(set: &'a StatefulSet, spec: &'a StatefulSetSpec) -> History<'a> {
    History {
        resource: row("apps/statefulsets"),
        owner: &set.metadata,
        selector: &spec.selector,
        template: &spec.template,
        label: HASH_LABEL,
        collisions: set.status.as_ref().and_then(|s| s.collision_count),
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
