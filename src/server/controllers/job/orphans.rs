//! Decides: pods that no Job counts lose the tracking finalizer: their Job is gone or has ended, or they have none.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::{MANAGER, ending, tracking, view};
use crate::client::store::Meta as _;
use crate::server::controllers::action::{Controller, Enqueue, Moment, Name, Plan};
use crate::server::controllers::owners;
use crate::server::controllers::stores::Stores;

/// Keys are pods.
pub struct TrackedOrphans;

impl Controller for TrackedOrphans {
    fn name(&self) -> &'static str {
        "job-orphans"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.pods.subscribe(move |change| {
            for pod in change.new.into_iter().filter(|p| view::is_tracked(p)) {
                queue.add(pod.metadata.namespace(), pod.metadata.name());
            }
        });
        let (queue, pods) = (enqueue.clone(), Arc::clone(&stores.pods));
        stores.jobs.subscribe(move |change| {
            let gone = change.old.filter(|old| change.new.is_none_or(|new| new.metadata.uid != old.metadata.uid));
            for job in gone.into_iter().chain(change.new.filter(|job| has_ended(job))) {
                for pod in pods.find(job.metadata.namespace(), |pod| view::is_tracked(pod) && is_of(pod, job)) {
                    queue.add(pod.metadata.namespace(), pod.metadata.name());
                }
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, _: Moment<'_>) -> Plan {
        let Some(pod) = stores.pods.get(&key.namespace, &key.name) else { return Plan::nothing() };
        let job = owners::controller_of(&pod.metadata).and_then(|o| stores.jobs.get(&key.namespace, &o.name));
        plan(&pod, job.as_deref())
    }
}

fn has_ended(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|s| ending::finished(s).is_some())
}

fn is_of(pod: &Pod, job: &Job) -> bool {
    owners::controller_of(&pod.metadata).is_some_and(|o| o.kind == "Job" && Some(&o.uid) == job.metadata.uid.as_ref())
}

/// `job`: the one of the name of the pod's owner, if it has one.
#[must_use]
pub fn plan(pod: &Pod, job: Option<&Job>) -> Plan {
    let mut plan = Plan::default();
    if !view::is_tracked(pod) {
        return plan;
    }
    let owned = owners::controller_of(&pod.metadata);
    let of_job = owners::controller_named(&pod.metadata, "batch", "Job").is_some();
    let counts = |job: &Job| {
        let managed = job.spec.as_ref().and_then(|s| s.managed_by.as_deref());
        // Another manager does its own counting.
        !has_ended(job) || managed.is_some_and(|m| m != MANAGER)
    };
    let kept = if of_job { job.is_some_and(|job| is_of(pod, job) && counts(job)) } else { owned.is_some() };
    if !kept {
        let mut write = tracking::untrack(pod);
        // As it was seen: it may be adopted meanwhile, and then the finalizer is its new owner's.
        write.request.body["metadata"]["resourceVersion"] = pod.metadata.resource_version.clone().into();
        plan.push(write);
    }
    plan
}
