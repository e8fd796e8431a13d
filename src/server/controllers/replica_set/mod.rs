//! Decides: a ReplicaSet keeps as many pods as it asks for, and so does a ReplicationController, which is seen as one.
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
use super::stores::{self, Stores, row};
use crate::api::resource::Resource;
use crate::client::request::{Class, Request};
use crate::client::store::{Kind, Store};

/// Pods made or removed in one plan, as upstream's `BurstReplicas`.
const BURST: usize = 500;

/// The sets of one kind. `ReplicaSets` are called so below, whichever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaSetController {
    ReplicaSets,
    ReplicationControllers,
}

use ReplicaSetController::{ReplicaSets, ReplicationControllers};

/// Where the sets are.
#[derive(Clone)]
enum Sets {
    Replica(Arc<Store<ReplicaSet>>),
    Replication(Arc<Store<stores::Controller>>),
}

/// What a plan is made from.
pub struct Observed {
    pub of: ReplicaSetController,
    pub set: Arc<ReplicaSet>,
    /// All pods of its namespace.
    pub pods: Vec<Arc<Pod>>,
    /// ReplicaSets with the same managing owner, this one included: their pods count when nodes are compared.
    pub siblings: Vec<Arc<ReplicaSet>>,
}

impl Controller for ReplicaSetController {
    fn name(&self) -> &'static str {
        match self {
            ReplicaSets => "replicaset",
            ReplicationControllers => "replication-controller",
        }
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let sets = self.sets(stores);
        sets.follow(enqueue);
        let (queue, resource) = (enqueue.clone(), self.resource());
        stores.pods.subscribe(move |change| {
            for pod in change.each() {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                if let Some(owner) = owners::controller_named(&pod.metadata, resource.group, resource.kind) {
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
        match observe(*self, stores, key) {
            Some(observed) => plan(&observed, moment),
            None => Plan::nothing(),
        }
    }
}

impl ReplicaSetController {
    fn resource(self) -> &'static Resource {
        row(match self {
            ReplicaSets => "apps/replicasets",
            ReplicationControllers => "replicationcontrollers",
        })
    }

    fn component(self) -> &'static str {
        match self {
            ReplicaSets => "replicaset-controller",
            ReplicationControllers => "replication-controller",
        }
    }

    fn sets(self, stores: &Stores) -> Sets {
        match self {
            ReplicaSets => Sets::Replica(stores.replica_sets.clone()),
            ReplicationControllers => Sets::Replication(stores.replication_controllers.clone()),
        }
    }
}

impl Sets {
    fn follow(&self, enqueue: &Enqueue) {
        fn changes<K: Kind>(store: &Store<K>, queue: Enqueue) {
            store.subscribe(move |change| change.each().for_each(|s| queue.add(s.meta().namespace(), s.meta().name())));
        }
        match self {
            Self::Replica(store) => changes(store, enqueue.clone()),
            Self::Replication(store) => changes(store, enqueue.clone()),
        }
    }

    fn get(&self, namespace: &str, name: &str) -> Option<Arc<ReplicaSet>> {
        match self {
            Self::Replica(store) => store.get(namespace, name),
            Self::Replication(store) => store.get(namespace, name).map(|c| c.0.clone()),
        }
    }

    fn find(&self, namespace: &str, matches: impl Fn(&ReplicaSet) -> bool) -> Vec<Arc<ReplicaSet>> {
        match self {
            Self::Replica(store) => store.find(namespace, matches),
            Self::Replication(store) => {
                store.find(namespace, |c| matches(&c.0)).into_iter().map(|c| c.0.clone()).collect()
            }
        }
    }
}

fn ns(set: &ReplicaSet) -> &str {
    set.metadata.namespace.as_deref().unwrap_or_default()
}

fn name(set: &ReplicaSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

fn observe(of: ReplicaSetController, stores: &Stores, key: &Name) -> Option<Observed> {
    let sets = of.sets(stores);
    let set = sets.get(&key.namespace, &key.name)?;
    let siblings = match owners::controller_of(&set.metadata) {
        Some(owner) => {
            sets.find(&key.namespace, |s| owners::controller_of(&s.metadata).is_some_and(|o| o.uid == owner.uid))
        }
        None => vec![Arc::clone(&set)],
    };
    Some(Observed { of, set, pods: stores.pods.list(&key.namespace), siblings })
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
    let owner = owners::reference(observed.of.resource(), &set.metadata);
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
    let report = status::plan(observed, &active, terminating, moment, &mut plan);
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
        let write = create_pod(observed);
        return Some(Action::SlowStart(vec![write; (wanted - have).min(BURST)]));
    }
    if have == wanted {
        return None;
    }
    let excess = rank::worst(observed, active, (have - wanted).min(BURST));
    Some(Action::SlowStart(excess.into_iter().map(|pod| delete_pod(observed, pod)).collect()))
}

fn report(Observed { of, set, .. }: &Observed) -> Report {
    let regarding = owners::object_reference(of.resource(), &set.metadata);
    Report { regarding, component: of.component(), ok: None, failed: None }
}

/// A pod of the template, named by the server: `<set>-<five letters>`.
fn create_pod(observed: &Observed) -> Write {
    let Observed { of, set, .. } = observed;
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
            "ownerReferences": [owners::reference(of.resource(), &set.metadata)],
        },
        "spec": template.and_then(|t| t.spec.as_ref()),
    });
    Write::new(Request::create(row("pods"), ns(set), body)).reported(Report {
        ok: Some(("SuccessfulCreate", "Created pod: {name}".into())),
        failed: Some(("FailedCreate", "Error creating: {error}".into())),
        ..report(observed)
    })
}

fn delete_pod(observed: &Observed, pod: &Pod) -> Write {
    let (set, meta) = (&observed.set, &pod.metadata);
    let uid = meta.uid.as_deref().unwrap_or_default();
    let request = Request::delete(row("pods"), ns(set), meta.name.as_deref().unwrap_or_default(), uid);
    Write::delete(request).reported(Report {
        ok: Some(("SuccessfulDelete", "Deleted pod: {name}".into())),
        failed: Some(("FailedDelete", "Error deleting: {error}".into())),
        ..report(observed)
    })
}

#[cfg(test)]
mod tests;
