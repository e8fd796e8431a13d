//! Decides: volumes on the nodes' own disks: a folder each, made by the node when a pod first uses it, removed by the
//! node when the volume goes. Provisioner, paths and events are those of `rancher.io/local-path`, which k3s brings.
//!
//! The folder is `<the node's storage folder>/<volume>_<namespace>_<claim>`: all three are names of the API, so none
//! holds a slash or begins with a dot, and the node takes nothing else for a folder of its own.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::claim::patch;
use super::{PROVISIONED_BY, SELECTED_NODE, annotation, claim_ref, note_on_claim, phase_of_volume};
use crate::api::local_storage::{self, PATH_ANNOTATION};
use crate::client::request::{Class, Request, Verb};
use crate::client::store::Meta as _;
use crate::server::controllers::action::{Action, Note, Plan, Report, Write};
use crate::server::controllers::owners;
use crate::server::controllers::stores::{Stores, row};

pub const PROVISIONER: &str = "rancher.io/local-path";
/// On volumes whose folder is removed with them, until it is.
pub const HELD: &str = "kubernetes.io/pv-controller";
const NODE: &str = "local.path.provisioner/selected-node";
const HOSTNAME: &str = "kubernetes.io/hostname";

pub fn provision(stores: &Stores, claim: &PersistentVolumeClaim, class: &StorageClass, plan: &mut Plan) {
    let node = match choose_node(stores, claim) {
        Ok(Some(node)) => node,
        Ok(None) => {
            // The scheduler chooses again.
            let annotations = json!({ SELECTED_NODE: null });
            plan.push(patch(claim, json!({ "metadata": { "uid": claim.metadata.uid, "annotations": annotations } })));
            return;
        }
        Err(why) => return failed(claim, why, plan),
    };
    let Some(folder) = node.metadata.annotations.as_ref().and_then(|a| a.get(PATH_ANNOTATION)) else {
        let why = format!("node {} does not say where it keeps local volumes", node.metadata.name());
        return failed(claim, &why, plan);
    };
    let folder = folder.trim_end_matches('/');
    if let Err(why) = supported(claim, class, node.metadata.name(), folder) {
        return failed(claim, &why, plan);
    }
    let name = format!("pvc-{}", claim.metadata.uid());
    let path = local_storage::folder(&name, claim.metadata.namespace(), claim.metadata.name());
    let body = volume(claim, class, &node, &name, &format!("{folder}/{path}"));
    let regarding = owners::object_reference(row("persistentvolumeclaims"), &claim.metadata);
    let mut write = Write::new(Request::create(row("persistentvolumes"), "", body)).reported(Report {
        regarding,
        component: PROVISIONER,
        ok: Some(("ProvisioningSucceeded", format!("Successfully provisioned volume {name}"))),
        failed: Some((
            "ProvisioningFailed",
            format!("failed to provision volume with StorageClass {:?}: {{error}}", class.metadata.name()),
        )),
    });
    write.fine = &[Class::AlreadyExists];
    plan.push(write);
}

/// The node that the scheduler has chosen, or the only one. `None` when the chosen one is gone.
fn choose_node(stores: &Stores, claim: &PersistentVolumeClaim) -> Result<Option<std::sync::Arc<Node>>, &'static str> {
    if let Some(name) = annotation(claim, SELECTED_NODE) {
        return Ok(stores.nodes.get("", name));
    }
    match stores.nodes.all().as_slice() {
        [only] => Ok(Some(only.clone())),
        _ => Err("configuration error, no node was specified"),
    }
}

/// `folder`: where the node keeps its volumes. It is the one path of `rancher.io/local-path`'s configuration.
fn supported(claim: &PersistentVolumeClaim, class: &StorageClass, node: &str, folder: &str) -> Result<(), String> {
    let spec = claim.spec.clone().unwrap_or_default();
    if spec.selector.is_some() {
        return Err("claim.Spec.Selector is not supported".into());
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err("block volumes are not supported".into());
    }
    if spec.data_source.is_some() || spec.data_source_ref.is_some() {
        return Err("a data source is not supported".into());
    }
    let single = |m: &String| m == "ReadWriteOnce" || m == "ReadWriteOncePod";
    if !spec.access_modes.iter().flatten().all(single) {
        return Err("NodePath only supports ReadWriteOnce and ReadWriteOncePod (1.22+) access modes".into());
    }
    for (name, value) in class.parameters.iter().flatten() {
        match name.as_str() {
            "nodePath" if value.trim_end_matches('/') == folder => {}
            "nodePath" => return Err(format!("config doesn't contain path {value} on node {node}")),
            // A node takes no folder for a volume's own but one of that volume's name.
            _ => return Err(format!("parameter {name:?} of the storage class is not supported")),
        }
    }
    Ok(())
}

fn volume(claim: &PersistentVolumeClaim, class: &StorageClass, node: &Node, name: &str, path: &str) -> Value {
    let spec = claim.spec.as_ref();
    let requests = spec.and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    let hostname = node.metadata.labels.as_ref().and_then(|l| l.get(HOSTNAME)).map_or(node.metadata.name(), |h| h);
    let policy = class.reclaim_policy.as_deref().unwrap_or("Delete");
    let finalizers = (policy == "Delete").then_some([HELD]);
    let terms = json!([{ "matchExpressions": [{ "key": HOSTNAME, "operator": "In", "values": [hostname] }] }]);
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": { "name": name, "finalizers": finalizers,
            "annotations": { PROVISIONED_BY: PROVISIONER, NODE: node.metadata.name } },
        "spec": {
            "capacity": { "storage": requests.and_then(|r| r.get("storage")) },
            "accessModes": spec.and_then(|s| s.access_modes.as_ref()),
            "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": policy,
            "storageClassName": class.metadata.name,
            "mountOptions": class.mount_options,
            "claimRef": { "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim.metadata.name,
                "namespace": claim.metadata.namespace, "uid": claim.metadata.uid,
                "resourceVersion": claim.metadata.resource_version },
            "hostPath": { "path": path, "type": "DirectoryOrCreate" },
            "nodeAffinity": { "required": { "nodeSelectorTerms": terms } },
        },
    })
}

fn failed(claim: &PersistentVolumeClaim, why: &str, plan: &mut Plan) {
    let class = super::matching::class_of_claim(claim).unwrap_or_default();
    let text = format!("failed to provision volume with StorageClass {class:?}: {why}");
    let note = note_on_claim(claim, true, "ProvisioningFailed", text);
    plan.push(Action::Event(Note { component: PROVISIONER, ..note }));
}

/// Holds a volume whose folder goes with it, were it deleted before its claim, and no other volume.
pub fn hold(volume: &PersistentVolume, policy: &str) -> Option<Write> {
    let deleting = volume.metadata.deleting();
    // Of a volume that nobody claims nothing is removed.
    let goes_with_it = policy == "Delete" && !(deleting && claim_ref(volume).is_none());
    let lacks = !is_held(volume) && !deleting && !matches!(phase_of_volume(volume), "Released" | "Failed");
    match goes_with_it {
        true if lacks => Some(finalizer(volume, json!({ "finalizers": [HELD] }))),
        false if is_held(volume) => Some(let_go(volume)),
        _ => None,
    }
}

pub fn is_held(volume: &PersistentVolume) -> bool {
    volume.metadata.finalizers().iter().any(|finalizer| finalizer == HELD)
}

pub fn let_go(volume: &PersistentVolume) -> Write {
    finalizer(volume, json!({ "$deleteFromPrimitiveList/finalizers": [HELD] }))
}

/// The list is changed, not replaced: another controller changes it too.
fn finalizer(volume: &PersistentVolume, mut metadata: Value) -> Write {
    metadata["uid"] = volume.metadata.uid().into();
    let body = json!({ "metadata": metadata });
    let name = volume.metadata.name();
    let mut write = Write::new(Request::new(Verb::StrategicPatch, row("persistentvolumes"), "", name, body));
    write.fine = &[Class::NotFound];
    write
}

/// Has the node remove the folder; nothing when the node, and its disk with it, is no more.
pub fn remove(stores: &Stores, volume: &PersistentVolume) -> Option<Write> {
    let node = annotation(volume, NODE)?;
    stores.nodes.get("", node)?;
    let of = claim_ref(volume)?;
    let folder = local_storage::folder(volume.metadata.name(), of.namespace.as_deref()?, of.name.as_deref()?);
    // Through the API server to the node's own endpoint.
    let name = format!("{node}/proxy{}/{folder}", local_storage::ENDPOINT);
    Some(Write::new(Request::new(Verb::Delete, row("nodes"), "", &name, Value::Null)))
}
