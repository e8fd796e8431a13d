//! Decides: whether the volumes of a pod's claims are, or can be, where a node is: `VolumeRestrictions`,
//! `VolumeBinding` and `VolumeZone` (`pkg/scheduler/framework/plugins/{volumerestrictions,volumebinding,volumezone}`).

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use super::{Cycle, Reasons, Room};
use crate::client::store::Meta as _;
use crate::server::controllers::persistent_volumes::NOBODY;
use crate::server::controllers::persistent_volumes::matching::{self, class_of_claim, waits_for_consumer};
use crate::server::scheduler::filter::term_matches;
use crate::server::scheduler::pod::PodInfo;
use crate::server::scheduler::promises::{ClaimId, Promise};
use crate::server::scheduler::snapshot::{NodeInfo, Snapshot};
use crate::server::scheduler::volumes::bound_to;

/// Labels of volumes that say where they are; a value may name several places, joined by two underscores.
const PLACES: [&str; 4] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

/// What the claims of a pod ask for, computed once for an attempt.
#[derive(Default)]
pub struct Needs {
    /// Why the pod fits nowhere, whatever the nodes are; and whether another pod's end could change it.
    pub refusal: Option<(&'static str, String)>,
    bound: Vec<Arc<PersistentVolume>>,
    /// Claims that get a volume when it is known which node.
    open: Vec<(Arc<PersistentVolumeClaim>, Arc<StorageClass>)>,
}

const NO_VOLUME: &str = "node(s) didn't find available persistent volumes to bind";

pub const BINDING: &str = "VolumeBinding";
pub const RESTRICTIONS: &str = "VolumeRestrictions";

impl Needs {
    pub fn new(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let mut needs = Self::default();
        for used in &pod.claims {
            if let Err((plugin, why)) = needs.add(pod, snapshot, &used.name, used.ephemeral) {
                needs.refusal = Some((plugin, why));
                break;
            }
        }
        // So that each gets the smallest that is large enough.
        needs.open.sort_by_key(|(claim, _)| matching::wanted(claim));
        needs
    }

    fn add(
        &mut self,
        pod: &PodInfo,
        snapshot: &Snapshot,
        name: &str,
        ephemeral: bool,
    ) -> Result<(), (&'static str, String)> {
        let known = &snapshot.volumes;
        let Some(claim) = known.claim(pod.namespace(), name) else {
            let why = if ephemeral {
                format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
            } else {
                format!("persistentvolumeclaim {name:?} not found")
            };
            return Err((BINDING, why));
        };
        if ephemeral && !claim.metadata.owners().iter().any(|o| o.uid == pod.uid && o.controller == Some(true)) {
            let why = format!("PVC {}/{name} was not created for pod {0}/{}", pod.namespace(), pod.name);
            return Err((BINDING, why));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err((BINDING, format!("persistentvolumeclaim {name:?} is being deleted")));
        }
        let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
        let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
        if phase == Some("Lost") {
            let why = format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {named:?}");
            return Err((BINDING, why));
        }
        let modes = claim.spec.as_ref().and_then(|s| s.access_modes.as_deref()).unwrap_or_default();
        if modes.iter().any(|m| m == "ReadWriteOncePod") && is_used(pod, snapshot, name) {
            let why = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
            return Err((RESTRICTIONS, why.to_owned()));
        }
        if let Some(volume) = bound_to(claim) {
            let Some(volume) = known.volume(volume) else {
                let why = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
                return Err((BINDING, why.to_owned()));
            };
            self.bound.push(Arc::clone(volume));
            return Ok(());
        }
        // One that the user has bound to a volume by hand is on its way.
        let class = class_of_claim(claim).and_then(|class| known.class(class)).filter(|c| waits_for_consumer(c));
        match class {
            Some(class) if named.is_empty() => self.open.push((Arc::clone(claim), Arc::clone(class))),
            _ => return Err((BINDING, "pod has unbound immediate PersistentVolumeClaims".to_owned())),
        }
        Ok(())
    }

    /// What has to be written for the pod to run on the node.
    ///
    /// # Errors
    /// Why a claim gets no volume there.
    pub fn promises(&self, snapshot: &Snapshot, node: &NodeInfo) -> Result<Vec<Promise>, &'static str> {
        let mut taken: Vec<&str> = Vec::new();
        let mut promises = Vec::new();
        for (claim, class) in &self.open {
            let key = ClaimId::of(&claim.metadata);
            if let Some(chosen) = snapshot.volumes.node_of(claim) {
                if chosen != node.name {
                    return Err(NO_VOLUME);
                }
                // Said already, or by the pod that has just been placed.
                can_be_made(claim, class, snapshot, node)?;
                continue;
            }
            let candidates: Vec<Arc<PersistentVolume>> = snapshot
                .volumes
                .free_for(claim.metadata.uid())
                .filter(|v| !taken.contains(&v.metadata.name()) && is_reachable(v, node))
                .cloned()
                .collect();
            if let Some(volume) = matching::best(&candidates, claim, false) {
                let Some(volume) = snapshot.volumes.volume(volume.metadata.name()) else { return Err(NO_VOLUME) };
                let meta = &volume.metadata;
                taken.push(meta.name());
                let (volume, revision) = (meta.name().to_owned(), meta.resource_version.clone().unwrap_or_default());
                promises.push(Promise::Volume { claim: key, volume, revision });
            } else {
                can_be_made(claim, class, snapshot, node)?;
                promises.push(Promise::Node { claim: key, node: node.name.clone() });
            }
        }
        Ok(promises)
    }

    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.open.is_empty()
    }
}

/// Another pod has the claim, on any node.
fn is_used(pod: &PodInfo, snapshot: &Snapshot, claim: &str) -> bool {
    let of_pod = |other: &PodInfo| {
        other.uid != pod.uid && other.namespace() == pod.namespace() && other.claims.iter().any(|c| c.name == claim)
    };
    snapshot.placed_uids().filter_map(|uid| snapshot.placed(uid)).any(|other| of_pod(other))
}

fn terms(volume: &PersistentVolume) -> Option<&[NodeSelectorTerm]> {
    let affinity = volume.spec.as_ref()?.node_affinity.as_ref()?;
    Some(&affinity.required.as_ref()?.node_selector_terms)
}

/// By its node affinity.
#[must_use]
pub fn is_reachable(volume: &PersistentVolume, node: &NodeInfo) -> bool {
    terms(volume).is_none_or(|terms| terms.iter().any(|t| term_matches(t, node)))
}

/// By the topologies of a class.
fn allows(class: &StorageClass, node: &NodeInfo) -> bool {
    let Some(terms) = class.allowed_topologies.as_ref().filter(|t| !t.is_empty()) else { return true };
    terms.iter().any(|term| {
        let of_label = |e: &k8s_openapi::api::core::v1::TopologySelectorLabelRequirement| {
            node.labels.get(&e.key).is_some_and(|v| e.values.contains(v))
        };
        term.match_label_expressions.iter().flatten().all(of_label)
    })
}

/// Whether a volume can be made for the claim where the node reaches it.
fn can_be_made(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    snapshot: &Snapshot,
    node: &NodeInfo,
) -> Result<(), &'static str> {
    let driver = class.provisioner.as_str();
    if driver == NOBODY || !allows(class, node) {
        return Err(NO_VOLUME);
    }
    if !snapshot.csi.has_room(driver, class.metadata.name(), matching::wanted(claim), &node.labels) {
        return Err("node(s) did not have enough free storage");
    }
    Ok(())
}

pub fn binding(cycle: &Cycle, room: &Room) -> Result<(), Reasons> {
    let needs = &cycle.volumes;
    let mut texts: Vec<Cow<'static, str>> = Vec::new();
    if !needs.bound.iter().all(|v| is_reachable(v, room.node)) {
        texts.push("node(s) didn't match PersistentVolume's node affinity".into());
    }
    if let Err(why) = needs.promises(cycle.snapshot, room.node) {
        texts.push(why.into());
    }
    if texts.is_empty() { Ok(()) } else { Err(Reasons { texts, resolvable: false }) }
}

/// Volumes of older drivers say where they are by labels only. Nodes without any such label are not asked.
pub fn zone(cycle: &Cycle, room: &Room) -> Result<(), Reasons> {
    let labels = &room.node.labels;
    if cycle.volumes.bound.is_empty() || !PLACES.iter().any(|p| labels.contains_key(*p)) {
        return Ok(());
    }
    let reachable = |volume: &Arc<PersistentVolume>| {
        let places = volume.metadata.labels.as_ref();
        PLACES
            .iter()
            .filter_map(|p| Some((p, places?.get(*p)?)))
            .all(|(place, names)| labels.get(*place).is_some_and(|here| names.split("__").any(|name| name == here)))
    };
    if cycle.volumes.bound.iter().all(reachable) {
        return Ok(());
    }
    Err(Reasons::one("node(s) had no available volume zone", false))
}

/// Whether the claims of a pod that was placed on a node are bound by now. `Err` says what keeps them from it for good.
/// `written`: the revision of what the scheduler wrote on them.
pub fn settled(pod: &PodInfo, snapshot: &Snapshot, node: &str, written: Option<u64>) -> Result<bool, String> {
    let slot = snapshot.slot(node);
    for used in &pod.claims {
        let name = &used.name;
        let Some(claim) = snapshot.volumes.claim(pod.namespace(), name) else {
            return Err(format!("persistentvolumeclaim {name:?} not found"));
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        let Some(volume) = bound_to(claim) else {
            let seen = written.is_some_and(|at| claim.metadata.revision() >= at);
            // Whoever makes volumes takes the node back when it cannot make one there.
            let named = claim.spec.as_ref().is_some_and(|s| s.volume_name.is_some());
            if seen && !named && snapshot.volumes.node_of(claim).is_none() && !is_promised(claim, snapshot) {
                return Err(format!("selectedNode annotation reset for PVC {name:?}"));
            }
            return Ok(false);
        };
        let Some(volume) = snapshot.volumes.volume(volume) else { return Ok(false) };
        if slot.is_none_or(|slot| !is_reachable(volume, snapshot.node(slot))) {
            return Err(format!("pv {:?} node affinity doesn't match node {node:?}", volume.metadata.name()));
        }
    }
    Ok(true)
}

/// A volume names the claim already.
fn is_promised(claim: &PersistentVolumeClaim, snapshot: &Snapshot) -> bool {
    let of = |v: &PersistentVolume| v.spec.as_ref().and_then(|s| s.claim_ref.as_ref()?.uid.clone());
    snapshot.volumes.free_for(claim.metadata.uid()).any(|v| of(v).as_deref() == Some(claim.metadata.uid()))
}

pub fn helps(pod: &PodInfo, _: &super::Wants, happened: &super::Happened, snapshot: &Snapshot) -> bool {
    match happened {
        super::Happened::Claim(namespace, name) => {
            pod.namespace() == *namespace && pod.claims.iter().any(|claim| claim.name == *name)
        }
        // Only the claim itself helps a pod whose claim is not there.
        _ => pod.claims.iter().all(|claim| snapshot.volumes.claim(pod.namespace(), &claim.name).is_some()),
    }
}
