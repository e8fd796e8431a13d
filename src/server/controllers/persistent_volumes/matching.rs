//! Decides: which volume fits a claim: the smallest that is large enough.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{annotation, claim_ref, is_claimed_by, phase_of_volume};
use crate::api::quantity;
use crate::api::storage_class::CLASS_ANNOTATION;
use crate::client::store::Meta as _;
use crate::server::controllers::owners;

/// Its volumes are bound or made when it is known where the first pod runs.
#[must_use]
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// The class that a claim asks for, "" for none; `None` when it leaves that open.
#[must_use]
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> Option<&str> {
    annotation(claim, CLASS_ANNOTATION).or_else(|| claim.spec.as_ref()?.storage_class_name.as_deref())
}

fn class_of_volume(volume: &PersistentVolume) -> &str {
    annotation(volume, CLASS_ANNOTATION)
        .or_else(|| volume.spec.as_ref()?.storage_class_name.as_deref())
        .unwrap_or_default()
}

/// Bytes, rounded up; 0 for what cannot be read.
fn storage(list: Option<&std::collections::BTreeMap<String, Quantity>>) -> i64 {
    let text = list.and_then(|l| l.get("storage"));
    text.and_then(|q| quantity::Quantity::parse(&q.0).ok()).map_or(0, |q| q.value())
}

#[must_use]
pub fn capacity(volume: &PersistentVolume) -> i64 {
    storage(volume.spec.as_ref().and_then(|s| s.capacity.as_ref()))
}

/// Bytes that a claim asks for.
#[must_use]
pub fn wanted(claim: &PersistentVolumeClaim) -> i64 {
    storage(claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref()))
}

/// One is a device, the other a file system.
#[must_use]
pub fn modes_differ(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let is_block = |mode: Option<&String>| mode.is_some_and(|mode| mode == "Block");
    is_block(volume.spec.as_ref().and_then(|s| s.volume_mode.as_ref()))
        != is_block(claim.spec.as_ref().and_then(|s| s.volume_mode.as_ref()))
}

/// Why the volume cannot serve the claim, in upstream's words.
#[must_use]
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let of_class = class_of_volume(volume) != class_of_claim(claim).unwrap_or_default();
    of_class.then_some("storageClassName does not match").or_else(|| misfit(volume, claim))
}

/// The same whatever the class: a volume that names the claim need not have its class.
fn misfit(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let (of, by) = (volume.spec.as_ref()?, claim.spec.as_ref()?);
    let modes = by.access_modes.iter().flatten();
    let has = |m: &String| of.access_modes.as_ref().is_some_and(|all| all.contains(m));
    let attributes = |name: Option<&String>| name.map_or("", String::as_str).to_owned();
    if capacity(volume) < wanted(claim) {
        Some("requested PV is too small")
    } else if modes_differ(volume, claim) {
        Some("incompatible volumeMode")
    } else if !modes.clone().all(has) {
        Some("incompatible accessMode")
    } else if attributes(of.volume_attributes_class_name.as_ref())
        != attributes(by.volume_attributes_class_name.as_ref())
    {
        Some("volumeAttributesClassName does not match")
    } else {
        None
    }
}

/// A volume that names the claim, else, unless `only_named`, the smallest free one that fits.
#[must_use]
pub fn best<'a>(
    volumes: &'a [Arc<PersistentVolume>],
    claim: &PersistentVolumeClaim,
    only_named: bool,
) -> Option<&'a Arc<PersistentVolume>> {
    let stays = |v: &&Arc<PersistentVolume>| v.metadata.deletion_timestamp.is_none();
    let named = volumes.iter().filter(|v| is_claimed_by(v, claim) && misfit(v, claim).is_none()).find(stays);
    if named.is_some() || only_named {
        return named;
    }
    let free = |v: &&Arc<PersistentVolume>| claim_ref(v).is_none() && phase_of_volume(v) == "Available";
    let fits = |v: &&Arc<PersistentVolume>| mismatch(v, claim).is_none() && is_selected(v, claim);
    let fitting = volumes.iter().filter(free).filter(stays).filter(fits);
    fitting.min_by(|a, b| {
        let key = |v: &PersistentVolume| capacity(v);
        // Of equals, the one with fewer ways to be used is missed least.
        let modes = |v: &PersistentVolume| v.spec.as_ref().and_then(|s| s.access_modes.as_ref()).map_or(0, Vec::len);
        key(a).cmp(&key(b)).then(modes(a).cmp(&modes(b))).then_with(|| a.metadata.name().cmp(b.metadata.name()))
    })
}

fn is_selected(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let selector = claim.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.is_none_or(|s| owners::is_empty(s) || owners::selects(s, volume.metadata.labels.as_ref()))
}
