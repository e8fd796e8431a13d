//! Decides: a Deployment moves its pods from old ReplicaSets to the one of its template.
//!
//! ```text
//! claim ─▶ paused? ─▶ resized? ── scale proportionally
//!             │yes        │no
//!             ▼           ▼
//!          scale only   new ReplicaSet (found or made) ─▶ Recreate: old to 0, wait, new up
//!                                                      └▶ RollingUpdate: new up | old down, one step at a time
//!                                                              └▶ complete: old ReplicaSets beyond the limit go
//! every path ends with the status
//! ```
//!
//! Follows upstream's `pkg/controller/deployment`. A plan changes sizes at most one step and leaves the next to the
//! plan that the change will cause.

mod history;
mod rollout;
mod scale;
mod sets;
mod status;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use self::sets::Sets;
use self::status::StatusDraft;
use super::action::{Action, Controller, Enqueue, Moment, Name, Note, Plan};
use super::owners;
use super::pods;
use super::stores::{Stores, row};
use crate::client::request::Class;

const COMPONENT: &str = "deployment-controller";

pub struct DeploymentController;

/// What a plan is made from.
pub struct Observed {
    pub deployment: Arc<Deployment>,
    /// All ReplicaSets of its namespace.
    pub sets: Vec<Arc<ReplicaSet>>,
    /// Pods of its namespace that ReplicaSets own; only looked at for `Recreate`.
    pub pods: Vec<Arc<Pod>>,
}

impl Controller for DeploymentController {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.deployments.subscribe(move |change| {
            for d in change.each() {
                queue.add(ns(d), name(d));
            }
        });
        let (queue, deployments) = (enqueue.clone(), Arc::clone(&stores.deployments));
        stores.replica_sets.subscribe(move |change| {
            for set in change.each() {
                let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
                if let Some(owner) = owners::controller_named(&set.metadata, "apps", "Deployment") {
                    queue.add(namespace, owner);
                } else if owners::controller_of(&set.metadata).is_none() {
                    let labels = set.metadata.labels.as_ref();
                    let selects =
                        |d: &Deployment| d.spec.as_ref().is_some_and(|s| owners::selects(&s.selector, labels));
                    for d in deployments.find(namespace, selects) {
                        queue.add(namespace, name(&d));
                    }
                }
            }
        });
        // Recreate waits for the last old pod to end, which changes no ReplicaSet.
        let (queue, deployments, sets) =
            (enqueue.clone(), Arc::clone(&stores.deployments), Arc::clone(&stores.replica_sets));
        stores.pods.subscribe(move |change| {
            let Some(pod) = change.old else { return };
            if change.new.is_some_and(|p| !pods::is_terminal(p)) {
                return;
            }
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let Some(set) = owners::controller_named(&pod.metadata, "apps", "ReplicaSet") else { return };
            let Some(set) = sets.get(namespace, set) else { return };
            let Some(owner) = owners::controller_named(&set.metadata, "apps", "Deployment") else { return };
            if deployments.get(namespace, owner).is_some_and(|d| !sets::is_rolling(&d)) {
                queue.add(namespace, owner);
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let Some(deployment) = stores.deployments.get(&key.namespace, &key.name) else { return Plan::nothing() };
        let pods = if sets::is_rolling(&deployment) { Vec::new() } else { stores.pods.list(&key.namespace) };
        plan(&Observed { deployment, sets: stores.replica_sets.list(&key.namespace), pods }, moment)
    }
}

fn ns(d: &Deployment) -> &str {
    d.metadata.namespace.as_deref().unwrap_or_default()
}

fn name(d: &Deployment) -> &str {
    d.metadata.name.as_deref().unwrap_or_default()
}

/// One step towards the template and the size that the Deployment asks for.
#[must_use]
pub fn plan(observed: &Observed, moment: Moment<'_>) -> Plan {
    let d = &observed.deployment;
    let Some(spec) = &d.spec else { return Plan::nothing() };
    let mut plan = Plan::default();
    if owners::is_empty(&spec.selector) {
        let regarding = owners::object_reference(row("apps/deployments"), &d.metadata);
        let message = "This deployment is selecting all pods. A non-empty selector is required.".to_owned();
        let note = Note { regarding, warning: true, reason: "SelectingAll", message, component: COMPONENT, action: "" };
        plan.push(Action::Event(note));
        return plan;
    }
    let owned = claim(observed, &mut plan);
    if !plan.actions.is_empty() {
        // Adopted sets are counted once their owner reference is seen.
        return plan;
    }
    let sets = Sets::new(d, owned);
    if let Some(write) = refusal(&sets, moment) {
        // It is tried again when that is seen.
        plan.push(write);
        return plan;
    }
    let mut draft = StatusDraft::new(d, moment.now);
    if d.metadata.deletion_timestamp.is_some() {
        draft.count(&sets);
        plan.actions.extend(draft.write());
        return plan;
    }
    draft.check_paused();
    if spec.paused == Some(true) {
        scale::plan(&sets, &mut plan);
        history::plan(&sets, &mut plan);
        draft.count(&sets);
    } else if scale::is_resized(&sets) {
        scale::plan(&sets, &mut plan);
        draft.count(&sets);
    } else {
        rollout::plan(observed, &sets, &mut draft, &mut plan);
        draft.count(&sets);
        draft.progress(&sets, &mut plan);
    }
    plan.actions.extend(draft.write());
    plan
}

/// Says why there is no ReplicaSet of the template, unless it is said already.
fn refusal(sets: &Sets<'_>, moment: Moment<'_>) -> Option<Action> {
    let failure = moment.failure.filter(|f| matches!(f.class, Class::Permanent | Class::Retry))?;
    if sets.new.is_some() || sets.spec.paused == Some(true) || sets.deployment.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let mut draft = StatusDraft::new(sets.deployment, moment.now);
    draft.refused(&rollout::next_name(sets).0, &failure.message);
    draft.count(sets);
    draft.write()
}

fn claim(observed: &Observed, plan: &mut Plan) -> Vec<Arc<ReplicaSet>> {
    let d = &observed.deployment;
    let Some(spec) = &d.spec else { return Vec::new() };
    let by = (row("apps/deployments"), &d.metadata);
    let of = (row("apps/replicasets"), (|s: &ReplicaSet| &s.metadata) as fn(&ReplicaSet) -> &ObjectMeta);
    owners::claim_all(by, &spec.selector, of, &observed.sets, plan).into_iter().cloned().collect()
}

#[cfg(test)]
mod tests;
