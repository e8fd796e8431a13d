//! Decides: PersistentVolume. Where its data is never changes; its status says since when it has its phase.
//!
//! - [`defaults`]: what is filled in
//! - [`spec`], [`sources`], [`drivers`]: what is wrong with a spec, also with one that a VolumeAttachment carries
//! - [`same`]: when two specs are alike

pub mod defaults;
pub mod drivers;
pub mod same;
mod sources;
pub mod spec;

use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus, VolumeNodeAffinity,
};

use super::node_labels;
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::api::storage_class::CLASS_ANNOTATION;
use crate::clock;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, IMMUTABLE, immutable, shown};
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part};

/// The annotation that named a class before there was a field.
pub const CLASS_ANNOTATION_WARNING: &str = "deprecated since v1.8; use \"storageClassName\" attribute instead";

pub struct PersistentVolumeKind;

impl Kind for PersistentVolumeKind {
    type Object = PersistentVolume;

    fn resource(&self) -> &'static Resource {
        row("v1", "PersistentVolume")
    }

    fn defaults(&self, volume: &mut PersistentVolume) {
        defaults::volume(volume.spec.get_or_insert_default());
        let status = volume.status.get_or_insert_default();
        if status.phase.as_deref().unwrap_or_default().is_empty() {
            status.phase = Some("Pending".into());
        }
    }

    fn prepare_create(&self, _: &Context, volume: &mut PersistentVolume) {
        volume.status = Some(PersistentVolumeStatus {
            phase: Some("Pending".into()),
            last_phase_transition_time: Some(clock::time()),
            ..PersistentVolumeStatus::default()
        });
    }

    fn prepare_update(&self, _: &Context, part: Part, new: &mut PersistentVolume, old: &PersistentVolume) {
        if part != Part::Status {
            return;
        }
        let before = old.status.clone().unwrap_or_default();
        let status = new.status.get_or_insert_default();
        let given = &status.last_phase_transition_time;
        if status.phase == before.phase {
            if given.is_none() {
                status.last_phase_transition_time = before.last_phase_transition_time;
            }
        } else if given.is_none() || *given == before.last_phase_transition_time {
            status.last_phase_transition_time = Some(clock::time());
        }
    }

    fn validate(&self, volume: &PersistentVolume) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let of = spec::Place::Object { name };
        spec::validate(&mut errors, &Path::new("spec"), &volume.spec.clone().unwrap_or_default(), of);
        errors
    }

    fn validate_update(&self, part: Part, new: &PersistentVolume, old: &PersistentVolume) -> Vec<FieldError> {
        if part == Part::Status {
            return Vec::new();
        }
        let mut errors = self.validate(new);
        changes(&mut errors, &new.spec.clone().unwrap_or_default(), &old.spec.clone().unwrap_or_default());
        errors
    }

    fn warnings(&self, volume: &PersistentVolume) -> Vec<String> {
        let mut warnings = Vec::new();
        if volume.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(CLASS_ANNOTATION)) {
            let at = Path::new("metadata").child("annotations").key(CLASS_ANNOTATION);
            warnings.push(format!("{at}: {CLASS_ANNOTATION_WARNING}"));
        }
        warn(&mut warnings, &Path::new("spec"), &volume.spec.clone().unwrap_or_default());
        warnings
    }
}

fn changes(errors: &mut Errors, new: &PersistentVolumeSpec, old: &PersistentVolumeSpec) {
    let path = Path::new("spec");
    let mut source = shown(new);
    let secret = |spec: &PersistentVolumeSpec| spec.csi.as_ref().map(|csi| csi.controller_expand_secret_ref.is_some());
    // A volume that became expandable may learn the secret for it.
    if secret(old) == Some(false)
        && secret(new) == Some(true)
        && let Some(csi) = source["csi"].as_object_mut()
    {
        csi.remove("controllerExpandSecretRef");
    }
    if !same::alike(&same::source(source), &same::source(shown(old)), same::is_zero) {
        let message = "spec.persistentvolumesource is immutable after creation";
        errors.push(FieldError::forbidden(&path.child("persistentvolumesource"), message));
    }
    // Upstream leaves `spec` out of these two paths.
    immutable(errors, &Path::new("volumeMode"), &new.volume_mode, &old.volume_mode);
    if old.node_affinity.is_some() && !renewed(new.node_affinity.as_ref(), old.node_affinity.as_ref()) {
        let message = format!("{IMMUTABLE}, except for updating from beta label to GA");
        errors.push(FieldError::invalid(&Path::new("nodeAffinity"), &shown(&new.node_affinity), &message));
    }
    if old.volume_attributes_class_name.is_some() && new.volume_attributes_class_name.is_none() {
        let message = "update from non-nil value to nil is forbidden";
        errors.push(FieldError::forbidden(&path.child("volumeAttributesClassName"), message));
    }
}

/// Whether two affinities are alike, but for labels that have their new name in the newer one.
fn renewed(new: Option<&VolumeNodeAffinity>, old: Option<&VolumeNodeAffinity>) -> bool {
    let mut old = old.cloned();
    let terms = |affinity: &VolumeNodeAffinity| affinity.required.clone().unwrap_or_default().node_selector_terms;
    let wanted = new.map(terms).unwrap_or_default();
    if let Some(required) = old.as_mut().and_then(|o| o.required.as_mut()) {
        for (term, wanted) in required.node_selector_terms.iter_mut().zip(&wanted) {
            renew(term.match_expressions.as_mut(), wanted.match_expressions.as_ref());
            renew(term.match_fields.as_mut(), wanted.match_fields.as_ref());
        }
    }
    same::alike(&shown(&new), &shown(&old), same::is_empty)
}

fn renew(old: Option<&mut Vec<NodeSelectorRequirement>>, new: Option<&Vec<NodeSelectorRequirement>>) {
    for (old, new) in old.into_iter().flatten().zip(new.into_iter().flatten()) {
        if node_labels::replacement(&old.key) == Some(new.key.as_str()) {
            old.key.clone_from(&new.key);
        }
    }
}

fn warn(warnings: &mut Vec<String>, path: &Path, spec: &PersistentVolumeSpec) {
    if spec.persistent_volume_reclaim_policy.as_deref() == Some("Recycle") {
        warnings.push(format!(
            "{}: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic \
             provisioning.",
            path.child("persistentVolumeReclaimPolicy")
        ));
    }
    let terms = spec.node_affinity.as_ref().and_then(|a| a.required.as_ref()).map(|r| r.node_selector_terms.as_slice());
    let at = path.child("nodeAffinity").child("required").child("nodeSelectorTerms");
    for (i, term) in terms.unwrap_or_default().iter().enumerate() {
        for (j, requirement) in term.match_expressions.iter().flatten().enumerate() {
            if let Some(why) = node_labels::deprecation(&requirement.key) {
                let here = at.index(i).child("matchExpressions").index(j).child("key");
                warnings.push(format!("{here}: {} is {why}", requirement.key));
            }
        }
    }
    for (field, used, message) in [
        ("cephfs", spec.cephfs.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
        (
            "photonPersistentDisk",
            spec.photon_persistent_disk.is_some(),
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        ("scaleIO", spec.scale_io.is_some(), "deprecated in v1.16, non-functional in v1.22+"),
        ("storageOS", spec.storageos.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", spec.glusterfs.is_some(), "deprecated in v1.25, non-functional in v1.26+"),
        ("rbd", spec.rbd.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
    ] {
        if used {
            warnings.push(format!("{}: {message}", path.child(field)));
        }
    }
}

#[cfg(test)]
pub mod tests;
