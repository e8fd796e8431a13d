//! Decides: claims and volumes find each other, and part (`pkg/controller/volume/persistentvolume`).
//!
//! ```text
//! claim   Pending ─▶ a volume that fits, or is made for it ─▶ Bound ─▶ its volume is gone or another's: Lost
//! volume  Available ─▶ Bound ─▶ its claim is gone: Released ─▶ Retain: stays │ Delete: data, then the object, go
//!                                                                 └▶ cannot be deleted: Failed, tried again
//! ```
//!
//! A binding is written in four steps: the volume's claim, its phase, the claim's volume, its phase. Each step is found
//! again by the next plan, so a crash between any two of them does no harm: what counts is the volume's `claimRef`.
//!
//! - [`claim`], [`volume`]: the two state machines
//! - [`matching`]: which volume fits a claim
//! - [`provision`]: volumes made for claims; those of the nodes' own disks ([`local_path`]) are made here

mod claim;
mod local_path;
pub mod matching;
mod provision;
mod volume;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use serde_json::Value;

use super::action::{Controller, Enqueue, Moment, Name, Note, Plan};
use super::stores::{Stores, row};
use super::{owners, pods};
use crate::client::request::Request;
use crate::client::store::Meta as _;

pub use self::local_path::PROVISIONER as LOCAL_PATH;
pub use self::provision::NOBODY;

const COMPONENT: &str = "persistentvolume-controller";
/// On claims whose binding was completed once.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On what was bound without the user saying so.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Where the scheduler wants the first pod of a claim (`WaitForFirstConsumer`).
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Keys with a namespace are claims, those without are volumes.
pub struct PersistentVolumes {
    /// What the server itself has said of claims that a watch did not show, by uid: whether they exist.
    asked: Arc<Mutex<HashMap<String, bool>>>,
    /// Volumes on the nodes' own disks are made and removed.
    local_path: bool,
}

impl PersistentVolumes {
    /// `local_path`: whether volumes on the nodes' own disks are made and removed here.
    #[must_use]
    pub fn new(local_path: bool) -> Self {
        Self { local_path, asked: Arc::default() }
    }
}

impl Controller for PersistentVolumes {
    fn name(&self) -> &'static str {
        "persistent-volumes"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let (queue, volumes, asked) = (enqueue.clone(), Arc::clone(&stores.volumes), Arc::clone(&self.asked));
        stores.claims.subscribe(move |change| {
            for claim in change.each() {
                queue.add(claim.metadata.namespace(), claim.metadata.name());
                if let Some(volume) = volume_name(claim) {
                    queue.add("", volume);
                }
            }
            if let (Some(claim), None) = (change.old, change.new) {
                asked.lock().unwrap_or_else(PoisonError::into_inner).remove(claim.metadata.uid());
                for volume in volumes.all().iter().filter(|v| is_claimed_by(v, claim)) {
                    queue.add("", volume.metadata.name());
                }
            }
        });
        let (queue, claims, asked) = (enqueue.clone(), Arc::clone(&stores.claims), Arc::clone(&self.asked));
        stores.volumes.subscribe(move |change| {
            if let (Some(of), None) = (change.old.and_then(|v| claim_ref(v)?.uid.as_deref()), change.new) {
                asked.lock().unwrap_or_else(PoisonError::into_inner).remove(of);
            }
            for volume in change.each() {
                queue.add("", volume.metadata.name());
                if let Some(of) = claim_ref(volume) {
                    queue.add(of.namespace.as_deref().unwrap_or_default(), of.name.as_deref().unwrap_or_default());
                }
            }
            // A volume that is free now may be what a claim waits for.
            if change.new.is_some_and(|v| claim_ref(v).is_none() && phase_of_volume(v) == "Available") {
                wake_unbound(&claims.all(), &queue);
            }
        });
        let (queue, claims) = (enqueue.clone(), Arc::clone(&stores.claims));
        stores.storage_classes.subscribe(move |change| {
            if change.new.is_some() {
                wake_unbound(&claims.all(), &queue);
            }
        });
        // The claim says for which pod it waits.
        let (queue, claims) = (enqueue.clone(), Arc::clone(&stores.claims));
        stores.pods.subscribe(move |change| {
            let Some(pod) = change.new.filter(|pod| change.old.is_none() && pods::node_name(pod).is_empty()) else {
                return;
            };
            for name in pods::claims(pod) {
                if claims.get(pod.metadata.namespace(), name).is_some_and(|claim| volume_name(&claim).is_none()) {
                    queue.add(pod.metadata.namespace(), name);
                }
            }
        });
        // What could not be removed from a node that was away is tried again when it is back.
        let (queue, volumes) = (enqueue.clone(), Arc::clone(&stores.volumes));
        stores.nodes.subscribe(move |change| {
            if change.old.is_some() != change.new.is_some() {
                for volume in volumes.all().iter().filter(|v| phase_of_volume(v) == "Failed") {
                    queue.add("", volume.metadata.name());
                }
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        if key.namespace.is_empty() {
            let Some(volume) = stores.volumes.get("", &key.name) else { return Plan::nothing() };
            let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            return volume::plan(stores, &volume, self.local_path, &|uid| asked.get(uid).copied(), moment);
        }
        match stores.claims.get(&key.namespace, &key.name) {
            Some(claim) => claim::plan(stores, &claim, self.local_path),
            None => Plan::nothing(),
        }
    }

    /// Whether the claim of a volume is there.
    fn learn(&self, key: &Name, request: &Request, answer: Option<Value>) {
        let uid = volume::uid_asked_for(request);
        let exists = answer.is_some_and(|claim| claim["metadata"]["uid"].as_str() == Some(uid));
        tracing::debug!(volume = %key.name, claim = request.name, exists, "asked for the claim of a volume");
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), exists);
    }
}

fn wake_unbound(claims: &[Arc<PersistentVolumeClaim>], queue: &Enqueue) {
    for claim in claims.iter().filter(|c| volume_name(c).is_none()) {
        queue.add(claim.metadata.namespace(), claim.metadata.name());
    }
}

fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

fn phase_of_volume(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

fn annotation<'a>(meta: &'a impl Annotated, key: &str) -> Option<&'a str> {
    meta.annotations()?.get(key).map(String::as_str)
}

/// Claims and volumes.
trait Annotated {
    fn annotations(&self) -> Option<&std::collections::BTreeMap<String, String>>;
}

impl Annotated for PersistentVolume {
    fn annotations(&self) -> Option<&std::collections::BTreeMap<String, String>> {
        self.metadata.annotations.as_ref()
    }
}

impl Annotated for PersistentVolumeClaim {
    fn annotations(&self) -> Option<&std::collections::BTreeMap<String, String>> {
        self.metadata.annotations.as_ref()
    }
}

/// The volume says that it belongs to the claim: by name, and by uid if it names one.
fn is_claimed_by(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_some_and(|of| {
        of.name.as_deref() == Some(claim.metadata.name())
            && of.namespace.as_deref() == Some(claim.metadata.namespace())
            && of.uid.as_deref().is_none_or(|uid| uid.is_empty() || uid == claim.metadata.uid())
    })
}

fn note_on_claim(claim: &PersistentVolumeClaim, warning: bool, reason: &'static str, message: String) -> Note {
    let regarding = owners::object_reference(row("persistentvolumeclaims"), &claim.metadata);
    Note { regarding, warning, reason, message, component: COMPONENT, action: "" }
}

fn note_on_volume(volume: &PersistentVolume, warning: bool, reason: &'static str, message: String) -> Note {
    let regarding = owners::object_reference(row("persistentvolumes"), &volume.metadata);
    Note { regarding, warning, reason, message, component: COMPONENT, action: "" }
}

#[cfg(test)]
mod tests;
