//! Decides: a ReplicaSet keeps as many pods as it asks for.
//!
//! `plan_*` follow upstream's `pkg/controller/replicaset`; what a lagging cache can do to them is the driver's
//! business, which plans only on stores that have seen earlier writes.

mod rank;
mod status;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::action::{Action, Controller, Enqueue, Moment, Name, Plan, Report, Write};
use super::owners::{self, Claim};
use super::pods;
use super::stores::{Stores, row};
use crate::client::request::{Class, Request};

const COMPONENT: &str = "replicaset-controller";
/// Pods made or removed in one plan, as upstream's `BurstReplicas`.
const BURST: usize = 500;

pub struct ReplicaSetController;

/// What a plan is made from.
pub struct Observed {
    pub set: Arc<ReplicaSet>,
    /// All pods of its namespace.
    pub pods: Vec<Arc<Pod>>,
    /// ReplicaSets with the same managing owner, this one included: their pods count when nodes are compared.
    pub siblings: Vec<Arc<ReplicaSet>>,
}

impl Controller for ReplicaSetController {
    fn name(&self) -> &'static str {
        "replicaset"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.replica_sets.subscribe(move |change| {
            for set in change.each() {
                queue.add(ns(set), name(set));
            }
        });
        let (queue, sets) = (enqueue.clone(), Arc::clone(&stores.replica_sets));
        stores.pods.subscribe(move |change| {
            for pod in change.each() {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                if let Some(owner) = owners::controller_named(&pod.metadata, "apps", "ReplicaSet") {
                    queue.add(namespace, owner);
                } else if owners::controller_of(&pod.metadata).is_none() {
                    let labels = pod.metadata.labels.as_ref();
                    for set in
                        sets.find(namespace, |s| s.spec.as_ref().is_some_and(|s| owners::selects(&s.selector, labels)))
                    {
                        queue.add(namespace, name(&set));
                    }
                }
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        match observe(stores, key) {
            Some(observed) => plan(&observed, moment),
            None => Plan::nothing(),
        }
    }
}

fn ns(set: &ReplicaSet) -> &str {
    set.metadata.namespace.as_deref().unwrap_or_default()
}

fn name(set: &ReplicaSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

fn observe(stores: &Stores, key: &Name) -> Option<Observed> {
    let set = stores.replica_sets.get(&key.namespace, &key.name)?;
    let siblings = match owners::controller_of(&set.metadata) {
        Some(owner) => stores
            .replica_sets
            .find(&key.namespace, |s| owners::controller_of(&s.metadata).is_some_and(|o| o.uid == owner.uid)),
        None => vec![Arc::clone(&set)],
    };
    Some(Observed { set, pods: stores.pods.list(&key.namespace), siblings })
}

/// Claims, makes and removes pods, and reports the status.
#[must_use]
pub fn plan(observed: &Observed, moment: Moment<'_>) -> Plan {
    let set = &observed.set;
    let Some(spec) = &set.spec else { return Plan::nothing() };
    let mut plan = Plan::default();
    if owners::is_empty(&spec.selector) {
        return plan;
    }
    let owner = owners::reference(row("apps/replicasets"), &set.metadata);
    let mut active: Vec<&Arc<Pod>> = Vec::new();
    let mut terminating = 0;
    for pod in &observed.pods {
        let claim = owners::claim(&set.metadata, &spec.selector, &pod.metadata);
        if pods::is_terminating(pod) {
            terminating += i32::from(claim == Claim::Owned);
        } else if pods::is_active(pod) {
            match claim {
                Claim::Owned => active.push(pod),
                Claim::Adopt => {
                    let mut write = owners::adopt(row("pods"), &pod.metadata, &owner);
                    write.fine = &[Class::NotFound];
                    plan.push(write);
                }
                Claim::Release => plan.push(owners::release(row("pods"), &pod.metadata, &set.metadata)),
                Claim::Foreign => {}
            }
        }
    }
    if !plan.actions.is_empty() {
        // Adopted pods count once their owner reference is seen: planning again then is exact.
        return plan;
    }
    let report = status::plan(set, &active, terminating, moment, &mut plan);
    // A failure must be visible although the same failure may end this plan too.
    if moment.failure.is_some() {
        plan.actions.extend(report.clone());
    }
    if set.metadata.deletion_timestamp.is_none() {
        plan.actions.extend(plan_pods(observed, &active));
    }
    if moment.failure.is_none() {
        plan.actions.extend(report);
    }
    plan
}

fn plan_pods(observed: &Observed, active: &[&Arc<Pod>]) -> Option<Action> {
    let set = &observed.set;
    let wanted = usize::try_from(set.spec.as_ref()?.replicas.unwrap_or(1)).unwrap_or(0);
    let have = active.len();
    if have < wanted {
        let write = create_pod(set);
        return Some(Action::SlowStart(vec![write; (wanted - have).min(BURST)]));
    }
    if have == wanted {
        return None;
    }
    let excess = rank::worst(observed, active, (have - wanted).min(BURST));
    Some(Action::SlowStart(excess.into_iter().map(|pod| delete_pod(set, pod)).collect()))
}

fn report(set: &ReplicaSet) -> Report {
    let regarding = owners::object_reference(row("apps/replicasets"), &set.metadata);
    Report { regarding, component: COMPONENT, ok: None, failed: None }
}

/// A pod of the template, named by the server: `<set>-<five letters>`.
fn create_pod(set: &ReplicaSet) -> Write {
    let template = set.spec.as_ref().and_then(|s| s.template.as_ref());
    let meta = template.and_then(|t| t.metadata.as_ref());
    let body = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": format!("{}-", name(set)),
            "namespace": ns(set),
            "labels": meta.and_then(|m| m.labels.as_ref()),
            "annotations": meta.and_then(|m| m.annotations.as_ref()),
            "finalizers": meta.and_then(|m| m.finalizers.as_ref()),
            "ownerReferences": [owners::reference(row("apps/replicasets"), &set.metadata)],
        },
        "spec": template.and_then(|t| t.spec.as_ref()),
    });
    Write::new(Request::create(row("pods"), ns(set), body)).reported(Report {
        ok: Some(("SuccessfulCreate", "Created pod: {name}".into())),
        failed: Some(("FailedCreate", "Error creating: {error}".into())),
        ..report(set)
    })
}

fn delete_pod(set: &ReplicaSet, pod: &Pod) -> Write {
    let meta = &pod.metadata;
    let uid = meta.uid.as_deref().unwrap_or_default();
    let request = Request::delete(row("pods"), ns(set), meta.name.as_deref().unwrap_or_default(), uid);
    Write::delete(request).reported(Report {
        ok: Some(("SuccessfulDelete", "Deleted pod: {name}".into())),
        failed: Some(("FailedDelete", "Error deleting: {error}".into())),
        ..report(set)
    })
}

#[cfg(test)]
mod tests;
