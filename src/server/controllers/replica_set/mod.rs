//! Decides: a ReplicaSet keeps as many pods as it asks for, and so does a ReplicationController, which is seen as one.
//!
//! `plan_*` follow upstream's `pkg/controller/replicaset`; what a lagging cache can do to them is the driver's
//! business, which plans only on stores that have seen earlier writes.

mod rank;
mod status;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;

use super::action::{Action, Controller, Enqueue, Moment, Name, Plan};
use super::owners::{self, Claim};
use super::pod_control::{self, PodControl};
use super::pods;
use super::stores::{self, Stores, row};
use crate::api::resource::Resource;
use crate::client::store::{Kind, Meta as _, Store};

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
        pod_control::follow(stores, enqueue, self.resource(), move |pod| {
            let selects =
                |s: &ReplicaSet| s.spec.as_ref().is_some_and(|s| owners::selects(&s.selector, pod.labels.as_ref()));
            sets.find(pod.namespace(), selects).iter().map(|s| name(s).to_owned()).collect()
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
    let control = control(observed);
    let active = control.claim(&spec.selector, observed.pods.iter().filter(|p| pods::is_active(p)), &mut plan);
    let ends = |p: &&Arc<Pod>| {
        pods::is_terminating(p) && owners::claim(&set.metadata, &spec.selector, &p.metadata) == Claim::Owned
    };
    let terminating = i32::try_from(observed.pods.iter().filter(ends).count()).unwrap_or(i32::MAX);
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
    let (set, control) = (&observed.set, control(observed));
    let wanted = usize::try_from(set.spec.as_ref()?.replicas.unwrap_or(1)).unwrap_or(0);
    let have = active.len();
    if have < wanted {
        let template = set.spec.as_ref()?.template.as_ref()?;
        let write = control.create(control.pod(template));
        return Some(Action::SlowStart(vec![write; (wanted - have).min(BURST)]));
    }
    if have == wanted {
        return None;
    }
    let excess = rank::worst(observed, active, (have - wanted).min(BURST));
    Some(Action::SlowStart(excess.into_iter().map(|pod| control.delete(pod)).collect()))
}

fn control(Observed { of, set, .. }: &Observed) -> PodControl<'_> {
    PodControl { resource: of.resource(), owner: &set.metadata, component: of.component() }
}

#[cfg(test)]
mod tests;
