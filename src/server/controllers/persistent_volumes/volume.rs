//! Decides: what becomes of a volume.

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use serde_json::json;

use super::claim::set_phase;
use super::provision::IN_TREE;
use super::{
    BOUND_BY_CONTROLLER, PROVISIONED_BY, annotation, claim_ref, local_path, matching, note_on_claim, note_on_volume,
    phase_of_volume, volume_name,
};
use crate::client::request::{Request, Verb};
use crate::client::store::Meta as _;
use crate::server::controllers::action::{Action, Moment, Plan, Write};
use crate::server::controllers::stores::{Stores, row};

/// `exists`: what the server itself has said of the claim of a uid, if it was asked. The two watches may lag differently,
/// and data is deleted for the lack of a claim.
pub fn plan(
    stores: &Stores,
    volume: &PersistentVolume,
    local_path: bool,
    exists: &dyn Fn(&str) -> Option<bool>,
    moment: Moment<'_>,
) -> Plan {
    let mut plan = Plan::default();
    let of_local_path = local_path && annotation(volume, PROVISIONED_BY) == Some(local_path::PROVISIONER);
    if of_local_path && let Some(write) = local_path::hold(volume, policy(volume)) {
        plan.push(write);
        return plan;
    }
    let Some(of) = claim_ref(volume) else {
        phase(volume, "Available", &mut plan);
        return plan;
    };
    let uid = of.uid.as_deref().unwrap_or_default();
    if uid.is_empty() {
        // Kept for a claim that has not come yet.
        phase(volume, "Available", &mut plan);
        return plan;
    }
    let (namespace, name) = (of.namespace.as_deref().unwrap_or_default(), of.name.as_deref().unwrap_or_default());
    let claim = stores.claims.get(namespace, name).filter(|c| c.metadata.uid() == uid);
    match claim {
        // The claim's own plan goes on with it.
        Some(claim) if volume_name(&claim).is_none() => {
            if matching::modes_differ(volume, &claim) {
                misfits(volume, &claim, &mut plan);
            }
        }
        Some(claim) if volume_name(&claim) == Some(volume.metadata.name()) => phase(volume, "Bound", &mut plan),
        // It has taken another volume.
        Some(_) if is_deleted_with_claim(volume) && annotation(volume, PROVISIONED_BY).is_some() => {
            released(stores, volume, local_path, moment, &mut plan);
        }
        Some(_) => unbind(volume, &mut plan),
        None => match exists(uid) {
            _ if matches!(phase_of_volume(volume), "Released" | "Failed") => {
                released(stores, volume, local_path, moment, &mut plan);
            }
            Some(false) => released(stores, volume, local_path, moment, &mut plan),
            // The claim's watch will show it.
            Some(true) => {}
            None => plan.push(Action::Read(ask(of))),
        },
    }
    plan
}

/// The claim's own plan does not take it.
fn misfits(volume: &PersistentVolume, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    let (volume_name, claim_name) = (volume.metadata.name(), claim.metadata.name());
    let of_volume = format!(
        "Cannot bind PersistentVolume to requested PersistentVolumeClaim {claim_name:?} due to incompatible volumeMode."
    );
    let of_claim = format!(
        "Cannot bind PersistentVolume {volume_name:?} to requested PersistentVolumeClaim due to incompatible volumeMode."
    );
    plan.push(Action::Event(note_on_volume(volume, true, "VolumeMismatch", of_volume)));
    plan.push(Action::Event(note_on_claim(claim, true, "VolumeMismatch", of_claim)));
}

/// Asks for the claim. Its uid goes along, for the answer.
fn ask(of: &ObjectReference) -> Request {
    let (namespace, name) = (of.namespace.as_deref().unwrap_or_default(), of.name.as_deref().unwrap_or_default());
    // A GET has no body that a server would read.
    let body = json!({ "uid": of.uid });
    Request::new(Verb::Get, row("persistentvolumeclaims"), namespace, name, body)
}

pub fn uid_asked_for(request: &Request) -> &str {
    request.body["uid"].as_str().unwrap_or_default()
}

fn phase(volume: &PersistentVolume, wanted: &str, plan: &mut Plan) {
    if phase_of_volume(volume) != wanted {
        plan.push(set_phase(volume, wanted, None));
    }
}

fn unbind(volume: &PersistentVolume, plan: &mut Plan) {
    let meta = &volume.metadata;
    let mut body = json!({ "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version } });
    if annotation(volume, BOUND_BY_CONTROLLER).is_some() {
        body["metadata"]["annotations"] = json!({ BOUND_BY_CONTROLLER: null });
        body["spec"] = json!({ "claimRef": null });
    } else {
        // The user has kept it for a claim of that name: for the next one.
        body["spec"] = json!({ "claimRef": { "uid": null, "resourceVersion": null } });
    }
    plan.push(Request::new(Verb::MergePatch, row("persistentvolumes"), "", meta.name(), body));
    phase(volume, "Available", plan);
}

fn policy(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain")
}

fn is_deleted_with_claim(volume: &PersistentVolume) -> bool {
    policy(volume) == "Delete"
}

fn released(stores: &Stores, volume: &PersistentVolume, local_path: bool, moment: Moment<'_>, plan: &mut Plan) {
    if phase_of_volume(volume) != "Failed" {
        phase(volume, "Released", plan);
    }
    match policy(volume) {
        "Delete" if local_path && annotation(volume, PROVISIONED_BY) == Some(local_path::PROVISIONER) => {
            delete_local(stores, volume, moment, plan);
        }
        "Delete" => match annotation(volume, PROVISIONED_BY) {
            Some(by) if by.starts_with(IN_TREE) => {
                fail(volume, "VolumeFailedDelete", &format!("no volume plugin matched name: {by}"), plan);
            }
            // Its driver deletes it.
            by if by.is_some() || is_csi(volume) => {}
            _ => {
                let why = "no deletable volume plugin matched";
                let name = volume.metadata.name();
                let why = format!("error getting deleter volume plugin for volume {name:?}: {why}");
                fail(volume, "VolumeFailedDelete", &why, plan);
            }
        },
        "Recycle" => fail(volume, "VolumeFailedRecycle", "No recycler plugin found for the volume!", plan),
        _ => {}
    }
}

fn is_csi(volume: &PersistentVolume) -> bool {
    volume.spec.as_ref().is_some_and(|s| s.csi.is_some())
}

fn delete_local(stores: &Stores, volume: &PersistentVolume, moment: Moment<'_>, plan: &mut Plan) {
    // Why it did not work is said before it is tried again.
    if let Some(failure) = moment.failure {
        fail(volume, "VolumeFailedDelete", &failure.message, plan);
    }
    // With the node, its disk is gone too.
    plan.actions.extend(local_path::remove(stores, volume).map(Action::from));
    if local_path::is_held(volume) {
        plan.push(local_path::let_go(volume));
    }
    let meta = &volume.metadata;
    if meta.deletion_timestamp.is_none() {
        plan.push(Write::delete(Request::delete(row("persistentvolumes"), "", meta.name(), meta.uid())));
    }
}

fn fail(volume: &PersistentVolume, reason: &'static str, message: &str, plan: &mut Plan) {
    let known: Option<&str> = volume.status.as_ref().and_then(|s| s.message.as_deref());
    if phase_of_volume(volume) != "Failed" || known != Some(message) {
        plan.push(set_phase(volume, "Failed", Some(message)));
        plan.push(Action::Event(note_on_volume(volume, true, reason, message.to_owned())));
    }
}
