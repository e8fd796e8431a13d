//! Decides: which volumes the pods of a node use, and how attachments of them are named.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, ContainerStatus, Node, PersistentVolume, PersistentVolumeClaim, Pod,
};
use sha2::{Digest as _, Sha256};

use crate::client::store::Meta as _;
use crate::server::controllers::stores::Stores;
use crate::server::controllers::{owners, pods};

/// On nodes that leave it to this controller what is attached to them.
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// Before the driver in the unique names of volumes.
pub const PLUGIN: &str = "kubernetes.io/csi/";

pub fn csi(volume: &PersistentVolume) -> Option<&CSIPersistentVolumeSource> {
    volume.spec.as_ref()?.csi.as_ref()
}

/// As nodes name it in their status.
pub fn unique_name(csi: &CSIPersistentVolumeSource) -> String {
    format!("{PLUGIN}{}^{}", csi.driver, csi.volume_handle)
}

/// Nodes look for it under this name.
pub fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    let mut name = "csi-".to_owned();
    for byte in Sha256::digest(format!("{handle}{driver}{node}")) {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

pub fn is_managed(node: &Node) -> bool {
    node.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MANAGED))
}

/// A driver that is not registered is taken to attach its volumes.
pub fn is_to_be_attached(stores: &Stores, csi: &CSIPersistentVolumeSource) -> bool {
    stores.csi_drivers.get("", &csi.driver).is_none_or(|driver| driver.spec.attach_required != Some(false))
}

/// The node on which a pod uses its volumes.
pub fn node_of(pod: &Pod) -> Option<&str> {
    let stopped = |c: &ContainerStatus| c.state.as_ref().is_some_and(|s| s.terminated.is_some() || s.waiting.is_some());
    let containers = || pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let ended = pods::is_terminal(pod) || (pod.metadata.deleting() && containers().all(stopped));
    Some(pods::node_name(pod)).filter(|node| !node.is_empty() && !ended)
}

/// The claims of a pod, those that were made for it included.
fn claims_of(stores: &Stores, pod: &Pod) -> Vec<Arc<PersistentVolumeClaim>> {
    let namespace = pod.metadata.namespace();
    let named = pods::claims(pod).filter_map(|name| stores.claims.get(namespace, name));
    let made = pods::ephemeral_volumes(pod).filter_map(|volume| {
        let claim = stores.claims.get(namespace, &format!("{}-{volume}", pod.metadata.name()))?;
        let owner = owners::controller_of(&claim.metadata)?;
        (owner.uid == pod.metadata.uid()).then_some(claim)
    });
    named.chain(made).collect()
}

/// The volume of a claim, when each names the other.
fn volume_of(stores: &Stores, claim: &PersistentVolumeClaim) -> Option<Arc<PersistentVolume>> {
    if claim.status.as_ref()?.phase.as_deref() != Some("Bound") {
        return None;
    }
    let volume = stores.volumes.get("", claim.spec.as_ref()?.volume_name.as_deref()?)?;
    let of = volume.spec.as_ref()?.claim_ref.as_ref()?.uid.as_deref()?;
    (of == claim.metadata.uid()).then_some(volume)
}

/// The volumes of CSI drivers that a pod has.
pub fn volumes_of(stores: &Stores, pod: &Pod) -> Vec<Arc<PersistentVolume>> {
    let claims = claims_of(stores, pod);
    claims.iter().filter_map(|claim| volume_of(stores, claim)).filter(|v| csi(v).is_some()).collect()
}

/// The pods that use a volume, by node, the oldest first.
pub fn users(stores: &Stores, volume: &PersistentVolume) -> BTreeMap<String, Vec<Arc<Pod>>> {
    let mut users: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    let Some(of) = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) else { return users };
    if !csi(volume).is_some_and(|csi| is_to_be_attached(stores, csi)) {
        return users;
    }
    let uses = |pod: &Pod| {
        node_of(pod).is_some() && volumes_of(stores, pod).iter().any(|v| v.metadata.name() == volume.metadata.name())
    };
    let mut pods = stores.pods.find(of.namespace.as_deref().unwrap_or_default(), uses);
    pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|t| t.0));
    for pod in pods {
        let node = pods::node_name(&pod).to_owned();
        if stores.nodes.get("", &node).is_some_and(|node| is_managed(&node)) {
            users.entry(node).or_default().push(pod);
        }
    }
    users
}

/// A volume that a node is to have.
pub struct Used {
    /// Name of the PersistentVolume.
    pub name: String,
    pub by: Vec<Arc<Pod>>,
}

/// What the pods of a node use, by unique name.
pub fn used_on(stores: &Stores, node: &str) -> BTreeMap<String, Used> {
    let mut used: BTreeMap<String, Used> = BTreeMap::new();
    if !stores.nodes.get("", node).is_some_and(|node| is_managed(&node)) {
        return used;
    }
    for pod in stores.pods.all().iter().filter(|pod| node_of(pod) == Some(node)) {
        for volume in volumes_of(stores, pod) {
            let Some(csi) = csi(&volume).filter(|csi| is_to_be_attached(stores, csi)) else { continue };
            let name = || volume.metadata.name().to_owned();
            let entry = used.entry(unique_name(csi)).or_insert_with(|| Used { name: name(), by: Vec::new() });
            entry.by.push(Arc::clone(pod));
        }
    }
    used
}
