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

fn mode(mode: Option<&String>) -> &str {
    mode.map_or("Filesystem", String::as_str)
}

/// Why the volume cannot serve the claim, although one names the other; in upstream's words.
#[must_use]
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let (of, by) = (volume.spec.as_ref()?, claim.spec.as_ref()?);
    let modes = by.access_modes.iter().flatten();
    let has = |m: &String| of.access_modes.as_ref().is_some_and(|all| all.contains(m));
    let attributes = |name: Option<&String>| name.map_or("", String::as_str).to_owned();
    if capacity(volume) < wanted(claim) {
        Some("requested PV is too small")
    } else if class_of_volume(volume) != class_of_claim(claim).unwrap_or_default() {
        Some("storageClassName does not match")
    } else if mode(of.volume_mode.as_ref()) != mode(by.volume_mode.as_ref()) {
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
    let fits = |v: &&Arc<PersistentVolume>| v.metadata.deletion_timestamp.is_none() && mismatch(v, claim).is_none();
    let named = volumes.iter().filter(|v| is_claimed_by(v, claim)).find(fits);
    if named.is_some() || only_named {
        return named;
    }
    let free = |v: &&Arc<PersistentVolume>| claim_ref(v).is_none() && phase_of_volume(v) == "Available";
    let fitting = volumes.iter().filter(free).filter(fits).filter(|v| is_selected(v, claim));
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
