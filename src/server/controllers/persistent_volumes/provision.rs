//! Decides: who makes a volume for a claim.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;

use super::claim::patch;
use super::{annotation, local_path, note_on_claim};
use crate::server::controllers::action::{Action, Plan};
use crate::server::controllers::stores::Stores;

/// How drivers outside of the server find what is theirs, and its older name.
const WANTED_FROM: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
/// Before the names of provisioners that came with Kubernetes, of which there is none any more.
pub const IN_TREE: &str = "kubernetes.io/";
/// A class whose volumes are all made by hand.
pub const NOBODY: &str = "kubernetes.io/no-provisioner";

pub fn plan(stores: &Stores, claim: &PersistentVolumeClaim, class: &StorageClass, local_path: bool, plan: &mut Plan) {
    let provisioner = class.provisioner.as_str();
    if provisioner.starts_with(IN_TREE) {
        let text = format!("no volume plugin matched name: {provisioner}");
        plan.push(Action::Event(note_on_claim(claim, true, "ProvisioningFailed", text)));
        return;
    }
    if WANTED_FROM.iter().any(|key| annotation(claim, key) != Some(provisioner)) {
        let [now, before] = WANTED_FROM;
        let annotations = json!({ now: provisioner, before: provisioner });
        plan.push(patch(claim, json!({ "metadata": { "uid": claim.metadata.uid, "annotations": annotations } })));
        // The next plan sees it.
        return;
    }
    if local_path && provisioner == local_path::PROVISIONER {
        return local_path::provision(stores, claim, class, plan);
    }
    let text = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
         system administrator. If volume creation is delayed, please verify that the provisioner is running and \
         correctly registered."
    );
    plan.push(Action::Event(note_on_claim(claim, false, "ExternalProvisioning", text)));
}
