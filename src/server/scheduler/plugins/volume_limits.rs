//! Decides: whether a node can have more volumes attached: `NodeVolumeLimits`
//! (`pkg/scheduler/framework/plugins/nodevolumelimits/csi.go`). Volumes that pods on the node use count, and those that
//! are attached to it for others; each once.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::{Cycle, Happened, Reasons, Room, Wants};
use crate::client::store::Meta as _;
use crate::server::controllers::persistent_volumes::matching::class_of_claim;
use crate::server::scheduler::pod::PodInfo;
use crate::server::scheduler::snapshot::Snapshot;

/// A volume of a driver: its handle, or the claim that it is to be made for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counted {
    driver: String,
    volume: Result<String, String>,
}

/// The volumes that a pod brings.
#[must_use]
pub fn volumes_of(pod: &PodInfo, snapshot: &Snapshot) -> BTreeSet<Counted> {
    let claims = pod.claims.iter().filter_map(|used| snapshot.volumes.claim(pod.namespace(), &used.name));
    claims.filter_map(|claim| counted(claim, snapshot)).collect()
}

fn counted(claim: &PersistentVolumeClaim, snapshot: &Snapshot) -> Option<Counted> {
    let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
    if let Some(volume) = snapshot.volumes.volume(name) {
        let csi = volume.spec.as_ref()?.csi.as_ref()?;
        return Some(Counted { driver: csi.driver.clone(), volume: Ok(csi.volume_handle.clone()) });
    }
    let class = snapshot.volumes.class(class_of_claim(claim)?)?;
    let claim = format!("{}/{}", claim.metadata.namespace(), claim.metadata.name());
    Some(Counted { driver: class.provisioner.clone(), volume: Err(claim) })
}

pub fn limits(cycle: &Cycle, room: &Room) -> Result<(), Reasons> {
    let limits = cycle.snapshot.csi.limits(&room.node.name);
    let Some(limits) = limits.filter(|l| cycle.brought.iter().any(|v| l.contains_key(&v.driver))) else {
        return Ok(());
    };
    let mut there: BTreeSet<Counted> = BTreeSet::new();
    for pod in room.pods_with_claims() {
        there.extend(volumes_of(pod, cycle.snapshot));
    }
    for attachment in cycle.snapshot.csi.attachments(&room.node.name) {
        let volume = cycle.snapshot.volumes.volume(&attachment.volume);
        if let Some(csi) = volume.and_then(|v| v.spec.as_ref()?.csi.as_ref()) {
            there.insert(Counted { driver: attachment.driver.clone(), volume: Ok(csi.volume_handle.clone()) });
        }
    }
    let mut more: BTreeMap<&str, usize> = BTreeMap::new();
    for volume in cycle.brought.difference(&there) {
        *more.entry(&volume.driver).or_default() += 1;
    }
    let is_exceeded = |(driver, count): (&str, usize)| {
        limits.get(driver).is_some_and(|limit| there.iter().filter(|v| v.driver == driver).count() + count > *limit)
    };
    if more.into_iter().any(is_exceeded) {
        return Err(Reasons::one("node(s) exceed max volume count", true));
    }
    Ok(())
}

pub fn helps(pod: &PodInfo, _: &Wants, happened: &Happened, _: &Snapshot) -> bool {
    match happened {
        Happened::Gone { pod: gone, .. } => !gone.claims.is_empty(),
        Happened::Claim(namespace, name) => {
            pod.namespace() == *namespace && pod.claims.iter().any(|claim| claim.name == *name)
        }
        Happened::Limits => true,
        _ => false,
    }
}
