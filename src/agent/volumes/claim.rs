//! Effects: `persistentVolumeClaim` and `ephemeral` volumes: the claim is looked up, then its volume, and that one is
//! set up by what it is.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube::Api;

use super::{Failure, Job, iscsi, nfs};
use crate::agent::context::NodeContext;
use crate::agent::csi;
use crate::agent::pod::{name, namespace, pod_spec, uid};
use crate::api::local_storage;
use crate::client::request;

const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On volumes that are folders of a node: which one.
const NODE: &str = "local.path.provisioner/selected-node";

/// The name of the claim of a volume, and whether it is mounted read-only; `None` for volumes of other types.
pub(super) fn claim_of(pod: &Pod, volume: &Volume) -> Option<(String, bool)> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some((source.claim_name.clone(), source.read_only == Some(true))),
        (None, Some(_)) => Some((format!("{}-{}", name(pod), volume.name), false)),
        _ => None,
    }
}

/// What the volume of a claim is, and whether the pod may only read it.
pub(super) enum Of {
    /// A folder or a device of this node.
    Node(Job, bool),
    /// Of an NFS server: the name of the PersistentVolume first.
    Share(String, nfs::Share),
    /// Of an iSCSI target.
    Disk(Box<iscsi::Wanted>),
    /// Of a CSI driver: the name of the PersistentVolume, and what the driver is told.
    Driver(String, Box<csi::Source>),
}

pub(super) async fn fetch(cx: &NodeContext, pod: &Pod, volume: &Volume) -> Result<Option<Of>, Failure> {
    let Some((claim_name, read_only)) = claim_of(pod, volume) else { return Ok(None) };
    let fail = |why: String| Failure::Claim { claim: format!("{}/{claim_name}", namespace(pod)), why };
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cx.client.clone(), namespace(pod));
    let claim = claims.get(&claim_name).await.map_err(request::Error::from);
    let claim = claim.map_err(|e| fail(format!("failed to fetch PVC from API server: {e}")))?;
    if volume.ephemeral.is_some() {
        let owners = claim.metadata.owner_references.iter().flatten();
        if !owners.into_iter().any(|o| o.controller == Some(true) && o.uid == uid(pod)) {
            return Err(fail(format!("PVC was not created for pod {}/{}", namespace(pod), name(pod))));
        }
    }
    let bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).filter(|n| bound && !n.is_empty());
    let Some(named) = named.map(str::to_owned) else { return Err(fail("PVC is not bound".into())) };
    let volumes: Api<PersistentVolume> = Api::all(cx.client.clone());
    let found = volumes.get(&named).await.map_err(request::Error::from);
    let found = found.map_err(|e| fail(format!("failed to fetch PV {named:?}: {e}")))?;
    let of = found.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).and_then(|of| of.uid.as_deref());
    if of != claim.metadata.uid.as_deref() {
        return Err(fail(format!("PV {named:?} is bound to another claim")));
    }
    let groups = pod_spec(pod).security_context.as_ref().and_then(|sc| sc.fs_group_change_policy.as_deref());
    let always = groups != Some("OnRootMismatch");
    if let Some(source) = csi::persistent(csi::Claimed { claim, volume: found.clone(), read_only }) {
        return Ok(Some(Of::Driver(named, Box::new(source))));
    }
    let options = mount_options(&found);
    if let Some(wanted) = iscsi::persistent(pod, &found, options.clone(), read_only) {
        return Ok(Some(Of::Disk(Box::new(wanted))));
    }
    if let Some(source) = found.spec.as_ref().and_then(|spec| spec.nfs.as_ref()) {
        let share = nfs::Share {
            server: source.server.clone(),
            path: source.path.clone(),
            read_only: read_only || source.read_only == Some(true),
            options,
        };
        return Ok(Some(Of::Share(named, share)));
    }
    job(cx, &found, always).map_err(fail).map(|job| Some(Of::Node(job, read_only)))
}

/// The annotation is how they were given before there was a field, and still comes first.
fn mount_options(volume: &PersistentVolume) -> Vec<String> {
    let annotation = volume.metadata.annotations.as_ref().and_then(|all| all.get(MOUNT_OPTIONS));
    match (annotation, &volume.spec) {
        (Some(given), _) => given.split(',').map(str::to_owned).collect(),
        (None, Some(spec)) => spec.mount_options.clone().unwrap_or_default(),
        (None, None) => Vec::new(),
    }
}

fn job(cx: &NodeContext, volume: &PersistentVolume, always: bool) -> Result<Job, String> {
    let spec = volume.spec.clone().unwrap_or_default();
    let block = spec.volume_mode.as_deref() == Some("Block");
    if let Some(local) = spec.local {
        if block {
            return Ok(Job::Device { path: local.path.into() });
        }
        return Ok(Job::Local { path: local.path.into(), always });
    }
    let Some(source) = spec.host_path else {
        return Err(
            "the volume's type is not supported: there are hostPath, local, nfs, iscsi and those of CSI drivers".into(),
        );
    };
    if block {
        return Err("hostPath volumes are no devices: volumeMode is Filesystem".into());
    }
    let annotation = |key: &str| volume.metadata.annotations.as_ref()?.get(key).map(String::as_str);
    // On any other node the folder would be another one, and empty.
    if annotation(PROVISIONED_BY).is_some() && annotation(NODE).is_some_and(|n| n != cx.config.node_name) {
        return Err(format!("the volume is on node {}", annotation(NODE).unwrap_or_default()));
    }
    let path = std::path::PathBuf::from(&source.path);
    let of_ours = path.parent() == Some(&cx.config.local_storage)
        && path.file_name().and_then(|n| n.to_str()).is_some_and(local_storage::is_folder);
    if of_ours {
        return Ok(Job::LocalPath { path });
    }
    Ok(Job::HostPath { path, kind: source.type_.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_annotation_is_the_older_word() {
        let options = |annotations: serde_json::Value, options: serde_json::Value| {
            let volume = json!({"metadata": {"annotations": annotations}, "spec": {"mountOptions": options}});
            mount_options(&serde_json::from_value(volume).unwrap())
        };
        assert_eq!(options(json!({}), json!(["noatime", "nfsvers=4.2"])), ["noatime", "nfsvers=4.2"]);
        assert_eq!(options(json!({(MOUNT_OPTIONS): "ro,soft"}), json!(["noatime"])), ["ro", "soft"]);
        assert_eq!(options(json!({}), json!(null)), [""; 0]);
    }
}
