//! Decides: what becomes of a claim.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::matching::{self, class_of_claim, waits_for_consumer};
use super::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE, annotation, claim_ref, is_claimed_by, note_on_claim,
    phase_of_volume, provision, volume_name,
};
use crate::api::storage_class::IS_DEFAULT;
use crate::client::request::{Request, Verb};
use crate::client::store::Meta as _;
use crate::server::controllers::action::{Action, Plan, Write};
use crate::server::controllers::stores::{Stores, row};

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
    match matching::mismatch(&volume, claim) {
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
    let Some(class_name) = class_of_claim(claim) else {
        // A default that came after the claim.
        if let Some(class) = default_class(stores) {
            let body = json!({ "metadata": { "uid": claim.metadata.uid }, "spec": { "storageClassName": class } });
            plan.push(patch(claim, body));
            return;
        }
        return without_class(stores, claim, plan);
    };
    let class = stores.storage_classes.get("", class_name);
    let waits = class.as_ref().is_some_and(|c| waits_for_consumer(c)) && annotation(claim, SELECTED_NODE).is_none();
    if let Some(volume) = matching::best(&stores.volumes.all(), claim, waits) {
        return bind(volume, claim, plan);
    }
    if class_name.is_empty() {
        return without_class(stores, claim, plan);
    }
    if waits {
        let text = "waiting for first consumer to be created before binding".to_owned();
        plan.push(Action::Event(note_on_claim(claim, false, "WaitForFirstConsumer", text)));
    } else if let Some(class) = class {
        provision::plan(stores, claim, &class, local_path, plan);
    } else {
        let text = format!("storageclass.storage.k8s.io {class_name:?} not found");
        plan.push(Action::Event(note_on_claim(claim, true, "ProvisioningFailed", text)));
    }
    pending(claim, plan);
}

fn without_class(stores: &Stores, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    if let Some(volume) = matching::best(&stores.volumes.all(), claim, false) {
        return bind(volume, claim, plan);
    }
    let text = "no persistent volumes available for this claim and no storage class is set".to_owned();
    plan.push(Action::Event(note_on_claim(claim, false, "FailedBinding", text)));
    pending(claim, plan);
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
    if phase(claim) != "Bound" {
        let spec = volume.spec.as_ref();
        let mut status = json!({ "phase": "Bound", "accessModes": spec.and_then(|s| s.access_modes.as_ref()),
            "capacity": spec.and_then(|s| s.capacity.as_ref()) });
        if let Some(attributes) = spec.and_then(|s| s.volume_attributes_class_name.as_ref()) {
            status["currentVolumeAttributesClassName"] = attributes.as_str().into();
        }
        plan.push(write_status(claim, &status));
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
