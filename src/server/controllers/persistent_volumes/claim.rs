//! Decides: what becomes of a claim.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::matching::{self, class_of_claim, waits_for_consumer};
use super::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE, annotation, claim_ref, is_claimed_by, note_on_claim,
    phase_of_volume, provision, volume_name,
};
use crate::api::quantity::Quantity;
use crate::api::storage_class::IS_DEFAULT;
use crate::client::request::{Request, Verb};
use crate::client::store::Meta as _;
use crate::server::controllers::action::{Action, Plan, Write};
use crate::server::controllers::pods;
use crate::server::controllers::stores::{Stores, row};

const WAITS_FOR_POD: &str = "WaitForPodScheduled";
/// On volumes whose file system is still as large as it says.
const BEFORE_RESIZE: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";

pub fn plan(stores: &Stores, claim: &PersistentVolumeClaim, local_path: bool) -> Plan {
    let mut plan = Plan::default();
    if annotation(claim, BIND_COMPLETED).is_some() {
        bound(stores, claim, &mut plan);
    } else if let Some(name) = volume_name(claim) {
        asks_for(stores, claim, name, &mut plan);
    } else {
        unbound(stores, claim, local_path, &mut plan);
    }
    plan
}

/// The binding was complete once. What is found wrong now is final.
fn bound(stores: &Stores, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    let Some(name) = volume_name(claim) else {
        return lost(
            claim,
            "ClaimLost",
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
            plan,
        );
    };
    match stores.volumes.get("", name) {
        None => {
            lost(claim, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!", plan)
        }
        Some(volume) if claim_ref(&volume).is_none() || is_claimed_by(&volume, claim) => bind(&volume, claim, plan),
        Some(_) => {
            let text = "Two claims are bound to the same volume, this one is bound incorrectly";
            lost(claim, "ClaimMisbound", text, plan);
        }
    }
}

/// The user has named the volume.
fn asks_for(stores: &Stores, claim: &PersistentVolumeClaim, name: &str, plan: &mut Plan) {
    let Some(volume) = stores.volumes.get("", name) else { return pending(claim, plan) };
    if claim_ref(&volume).is_some() && !is_claimed_by(&volume, claim) {
        if annotation(claim, BOUND_BY_CONTROLLER).is_none() {
            let text = format!("volume {name:?} already bound to a different claim.");
            plan.push(Action::Event(note_on_claim(claim, true, "FailedBinding", text)));
        }
        return pending(claim, plan);
    }
    let why = match claim_ref(&volume) {
        // Whoever has named the claim there knows that it fits.
        Some(_) => None,
        None if volume.metadata.deleting() => Some(format!("the volume is marked for deletion {name:?}")),
        None => matching::mismatch(&volume, claim).map(ToOwned::to_owned),
    };
    match why {
        Some(why) => {
            let text = format!("Cannot bind to requested volume {name:?}: {why}");
            plan.push(Action::Event(note_on_claim(claim, true, "VolumeMismatch", text)));
            pending(claim, plan);
        }
        None => bind(&volume, claim, plan),
    }
}

fn unbound(stores: &Stores, claim: &PersistentVolumeClaim, local_path: bool, plan: &mut Plan) {
    if claim.metadata.deletion_timestamp.is_some() {
        return;
    }
    let class_name = class_of_claim(claim).unwrap_or_default();
    let class = stores.storage_classes.get("", class_name);
    let late = class.as_ref().is_some_and(|c| waits_for_consumer(c));
    // Which of the others it gets the scheduler says, who knows the node.
    if let Some(volume) = matching::best(&stores.volumes.all(), claim, late) {
        return bind(volume, claim, plan);
    }
    // A default that came after the claim.
    if class_of_claim(claim).is_none()
        && let Some(class) = default_class(stores)
    {
        let body = json!({ "metadata": { "uid": claim.metadata.uid }, "spec": { "storageClassName": class } });
        plan.push(patch(claim, body));
        return;
    }
    if late && annotation(claim, SELECTED_NODE).is_none() {
        plan.push(waits_for_pod(stores, claim));
    } else if class_name.is_empty() {
        let text = "no persistent volumes available for this claim and no storage class is set".to_owned();
        plan.push(Action::Event(note_on_claim(claim, false, "FailedBinding", text)));
    } else if let Some(class) = class {
        provision::plan(stores, claim, &class, local_path, plan);
    } else {
        let text = format!("storageclass.storage.k8s.io {class_name:?} not found");
        plan.push(Action::Event(note_on_claim(claim, true, "ProvisioningFailed", text)));
    }
    pending(claim, plan);
}

fn waits_for_pod(stores: &Stores, claim: &PersistentVolumeClaim) -> Action {
    let waits = |pod: &Pod| pods::node_name(pod).is_empty() && !pods::is_terminal(pod) && has_claim(pod, claim);
    let found = stores.pods.find(claim.metadata.namespace(), waits);
    let names: Vec<&str> = found.iter().map(|pod| pod.metadata.name()).collect();
    let (reason, text) = match names.as_slice() {
        [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
        [pod] => (WAITS_FOR_POD, format!("waiting for pod {pod} to be scheduled")),
        all => (WAITS_FOR_POD, format!("waiting for pods {} to be scheduled", all.join(","))),
    };
    Action::Event(note_on_claim(claim, false, reason, text))
}

/// Among its volumes, or made for one of them.
fn has_claim(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let (pod_name, name) = (pod.metadata.name(), claim.metadata.name());
    let made = |volume: &str| name.strip_prefix(pod_name).and_then(|rest| rest.strip_prefix('-')) == Some(volume);
    pods::claims(pod).any(|claim| claim == name) || pods::ephemeral_volumes(pod).any(made)
}

/// The newest of those that are marked, by name where they are of one second.
fn default_class(stores: &Stores) -> Option<String> {
    let marked = |c: &&Arc<StorageClass>| {
        let annotations = c.metadata.annotations.as_ref();
        IS_DEFAULT.iter().any(|key| annotations.and_then(|a| a.get(*key)).is_some_and(|v| v == "true"))
    };
    let all = stores.storage_classes.all();
    let newest = all.iter().filter(marked).max_by(|a, b| {
        let made = |c: &StorageClass| c.metadata.creation_timestamp.as_ref().map(|t| t.0);
        made(a).cmp(&made(b)).then_with(|| b.metadata.name().cmp(a.metadata.name()))
    });
    newest.map(|c| c.metadata.name().to_owned())
}

/// What is missing of a binding: the volume's claim, its phase, the claim's volume, its phase.
fn bind(volume: &PersistentVolume, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    let named = claim_ref(volume);
    if named.and_then(|of| of.uid.as_deref()) != Some(claim.metadata.uid()) {
        let reference = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim.metadata.name,
            "namespace": claim.metadata.namespace, "uid": claim.metadata.uid,
            "resourceVersion": claim.metadata.resource_version });
        let mut body = json!({
            "metadata": { "uid": volume.metadata.uid, "resourceVersion": volume.metadata.resource_version },
            "spec": { "claimRef": reference },
        });
        // Whoever named the claim before may unname it; what we have chosen, we may undo.
        if named.is_none() {
            body["metadata"]["annotations"] = json!({ BOUND_BY_CONTROLLER: "yes" });
        }
        plan.push(Request::new(Verb::MergePatch, row("persistentvolumes"), "", volume.metadata.name(), body));
    }
    if phase_of_volume(volume) != "Bound" {
        plan.push(set_phase(volume, "Bound", None));
    }
    let chosen = volume_name(claim) != Some(volume.metadata.name());
    if chosen || annotation(claim, BIND_COMPLETED).is_none() {
        let mut annotations = json!({ BIND_COMPLETED: "yes" });
        if chosen {
            annotations[BOUND_BY_CONTROLLER] = "yes".into();
        }
        let body = json!({ "metadata": { "uid": claim.metadata.uid, "annotations": annotations },
            "spec": { "volumeName": volume.metadata.name } });
        plan.push(patch(claim, body));
    }
    let spec = volume.spec.as_ref();
    let modes = spec.and_then(|s| s.access_modes.as_ref());
    if phase(claim) != "Bound" {
        // What comes after is the driver's resizer's: it may enlarge a volume before its file system.
        let before = annotation(volume, BEFORE_RESIZE).filter(|size| Quantity::parse(size).is_ok());
        let capacity = match before {
            Some(size) => json!({ "storage": size }),
            None => json!(spec.and_then(|s| s.capacity.as_ref())),
        };
        let attributes = spec.and_then(|s| s.volume_attributes_class_name.as_ref());
        let status = json!({ "phase": "Bound", "accessModes": modes, "capacity": capacity,
            "currentVolumeAttributesClassName": attributes });
        plan.push(write_status(claim, &status));
    } else if claim.status.as_ref().and_then(|s| s.access_modes.as_ref()) != modes {
        plan.push(write_status(claim, &json!({ "phase": "Bound", "accessModes": modes })));
    }
}

pub fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

fn pending(claim: &PersistentVolumeClaim, plan: &mut Plan) {
    if phase(claim) != "Pending" {
        plan.push(write_status(claim, &json!({ "phase": "Pending", "accessModes": null, "capacity": null })));
    }
}

fn lost(claim: &PersistentVolumeClaim, reason: &'static str, message: &str, plan: &mut Plan) {
    if phase(claim) != "Lost" {
        plan.push(write_status(claim, &json!({ "phase": "Lost", "accessModes": null, "capacity": null })));
        plan.push(Action::Event(note_on_claim(claim, true, reason, message.to_owned())));
    }
}

pub fn patch(claim: &PersistentVolumeClaim, body: Value) -> Write {
    let meta = &claim.metadata;
    Write::new(Request::new(Verb::MergePatch, row("persistentvolumeclaims"), meta.namespace(), meta.name(), body))
}

/// Without the version: the same plan may have changed the claim just before.
fn write_status(claim: &PersistentVolumeClaim, status: &Value) -> Write {
    let body = json!({ "metadata": { "uid": claim.metadata.uid }, "status": status });
    let mut write = patch(claim, body);
    write.request.subresource = "status";
    write
}

pub fn set_phase(volume: &PersistentVolume, phase: &str, message: Option<&str>) -> Write {
    let body = json!({ "metadata": { "uid": volume.metadata.uid },
        "status": { "phase": phase, "message": message, "reason": null } });
    let volumes = row("persistentvolumes");
    Write::new(Request::new(Verb::MergePatch, volumes, "", volume.metadata.name(), body).on("status"))
}
