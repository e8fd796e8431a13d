//! Decides: the ResourceClaims of pods (`pkg/controller/resourceclaim`).
//!
//! ```text
//! pod with a template ─▶ claim made, owned by the pod ─▶ its name in the pod's status ─▶ scheduler: allocated, reserved
//!                                                                                              │
//! claim of its own: deleted ◀── nobody uses it: allocation removed ◀── reservation removed ◀── pod finished or gone
//! ```
//!
//! What the scheduler makes for the extended resources of a pod ends with the pod too.
//!
//! - [`of_pod`]: claims from templates, and reservations of pods that the scheduler did not place
//! - [`of_claim`]: who still uses a claim

mod of_claim;
mod of_pod;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Pod, PodResourceClaim};
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::Value;

use super::action::{Controller, Enqueue, Moment, Name, Plan};
use super::stores::Stores;
use super::{owners, pods};
use crate::client::request::Request;
use crate::client::store::{Kind as _, Meta as _};

pub const CLAIMS: &str = "resource.k8s.io/resourceclaims";
const TEMPLATES: &str = "resource.k8s.io/resourceclaimtemplates";
/// Which of its pod's claims a claim was made for.
const POD_CLAIM: &str = "resource.kubernetes.io/pod-claim-name";
/// On claims that are allocated.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// Before the names of claims among the keys: no name of an object has a colon.
const CLAIM: &str = "claim:";

/// Keys are pods, and claims.
#[derive(Default)]
pub struct ResourceClaims {
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// What the server said, by key and name: a template, or a pod. Used once.
    answers: HashMap<Name, HashMap<String, Option<Value>>>,
    /// Claims whose allocation was removed here, with their uids: they need their finalizer no more.
    released: HashMap<Name, String>,
}

/// What a claim of a pod comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named<'a> {
    /// It was found not to need one.
    NotNeeded,
    /// Its name is not in the pod's status yet.
    NotYet,
    Claim {
        name: &'a str,
        /// Made from a template, so it must be the pod's own.
        own: bool,
    },
}

fn named<'a>(pod: &'a Pod, claim: &'a PodResourceClaim) -> Named<'a> {
    if let Some(name) = claim.resource_claim_name.as_deref() {
        return Named::Claim { name, own: false };
    }
    let statuses = pod.status.as_ref().and_then(|s| s.resource_claim_statuses.as_deref()).unwrap_or_default();
    match statuses.iter().find(|s| s.name == claim.name) {
        None => Named::NotYet,
        Some(status) => match status.resource_claim_name.as_deref() {
            None => Named::NotNeeded,
            Some(name) => Named::Claim { name, own: true },
        },
    }
}

fn claims_of(pod: &Pod) -> &[PodResourceClaim] {
    pod.spec.as_ref().and_then(|s| s.resource_claims.as_deref()).unwrap_or_default()
}

/// The claims of the pod that have a name by now.
fn used_by(pod: &Pod) -> impl Iterator<Item = &str> {
    let named = claims_of(pod).iter().filter_map(|claim| match named(pod, claim) {
        Named::Claim { name, .. } => Some(name),
        Named::NotNeeded | Named::NotYet => None,
    });
    let extended = pod.status.as_ref().and_then(|s| s.extended_resource_claim_status.as_ref());
    named.chain(extended.map(|status| status.resource_claim_name.as_str()))
}

/// It will not run any more.
fn is_done(pod: &Pod) -> bool {
    pods::is_terminal(pod) || (pod.metadata.deletion_timestamp.is_some() && pods::node_name(pod).is_empty())
}

impl ResourceClaims {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Controller for ResourceClaims {
    fn name(&self) -> &'static str {
        "resource-claim"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.pods.subscribe(move |change| {
            let gone = change.new.is_none_or(|new| change.old.is_some_and(|old| old.metadata.uid != new.metadata.uid));
            for pod in change.each() {
                let space = pod.metadata.namespace();
                if gone || is_done(pod) {
                    used_by(pod).for_each(|name| queue.add(space, &format!("{CLAIM}{name}")));
                }
                if !claims_of(pod).is_empty() {
                    queue.add(space, pod.metadata.name());
                }
            }
        });
        let (queue, pods) = (enqueue.clone(), Arc::clone(&stores.pods));
        stores.resource_claims.subscribe(move |change| {
            let Some(claim) = change.new.or(change.old) else { return };
            let (space, name) = (claim.metadata.namespace(), claim.metadata.name());
            queue.add(space, &format!("{CLAIM}{name}"));
            if let Some(pod) = owners::controller_named(&claim.metadata, "", "Pod") {
                queue.add(space, pod);
            }
            for pod in pods.find(space, |p| used_by(p).any(|used| used == name)) {
                queue.add(space, pod.metadata.name());
            }
        });
        let (queue, pods) = (enqueue.clone(), Arc::clone(&stores.pods));
        if let Some(templates) = stores.other(TEMPLATES) {
            templates.subscribe(move |change| {
                let Some(template) = change.new.filter(|_| change.old.is_none()) else { return };
                let (space, name) = (template.meta().namespace(), template.meta().name());
                let waits =
                    |p: &Pod| claims_of(p).iter().any(|c| c.resource_claim_template_name.as_deref() == Some(name));
                for pod in pods.find(space, waits) {
                    queue.add(space, pod.metadata.name());
                }
            });
        }
    }

    fn plan(&self, stores: &Stores, key: &Name, _moment: Moment<'_>) -> Plan {
        let mut memory = self.memory();
        let answers = memory.answers.remove(key).unwrap_or_default();
        let space = &*key.namespace;
        if let Some(name) = key.name.strip_prefix(CLAIM) {
            let mut released = memory.released.remove(key);
            let Some(claim) = stores.resource_claims.get(space, name) else { return Plan::nothing() };
            let plan = of_claim::plan(&claim, |pod| stores.pods.get(space, pod), &answers, &mut released);
            memory.released.extend(released.map(|uid| (key.clone(), uid)));
            return plan;
        }
        let pod = stores.pods.get(space, &key.name).filter(|p| pods::is_active(p) && !claims_of(p).is_empty());
        let Some(pod) = pod else { return Plan::nothing() };
        let made = stores.resource_claims.find(space, |c| is_of(c, &pod) && made_for(c).is_some());
        of_pod::plan(&pod, |name| stores.resource_claims.get(space, name), &made, &answers)
    }

    fn learn(&self, key: &Name, request: &Request, answer: Option<Value>) {
        self.memory().answers.entry(key.clone()).or_default().insert(request.name.clone(), answer);
    }
}

/// The claim was made for just this pod.
fn is_of(claim: &ResourceClaim, pod: &Pod) -> bool {
    owners::controller_of(&claim.metadata).is_some_and(|o| Some(&o.uid) == pod.metadata.uid.as_ref())
}

fn made_for(claim: &ResourceClaim) -> Option<&str> {
    claim.metadata.annotations.as_ref()?.get(POD_CLAIM).map(String::as_str)
}

#[cfg(test)]
mod tests;
