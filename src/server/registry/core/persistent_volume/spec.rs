//! Decides: what is wrong with the spec of a PersistentVolume, and the checks that it shares with those of claims.

use k8s_openapi::api::core::v1::PersistentVolumeSpec;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::sources;
use crate::api::field::{FieldError, Path};
use crate::api::quantity::Quantity;
use crate::server::registry::core::scheduling;
use crate::server::registry::format;
use crate::server::registry::metadata::{Errors, invalid, shown};
use crate::server::registry::quantity;

const NOT_INLINE: &str = "may not be specified in the context of inline volumes";
const POD_MODE: &str = "ReadWriteOncePod";
const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", POD_MODE];
const RECLAIM_POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];
const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];

/// Where a spec was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// In a PersistentVolume.
    Object { name: &'a str },
    /// In a VolumeAttachment, for a volume that a pod defines: there is no object, and nothing that binds it.
    Inline,
}

pub fn validate(errors: &mut Errors, path: &Path, spec: &PersistentVolumeSpec, place: Place<'_>) {
    let inline = place == Place::Inline;
    if inline {
        not_inline(errors, path, spec);
    }
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.push(FieldError::required(&path.child("accessModes"), ""));
    }
    access_modes(errors, &path.child("accessModes"), modes);
    if !inline {
        capacity(errors, &path.child("capacity"), spec);
    }
    reclaim_policy(errors, &path.child("persistentVolumeReclaimPolicy"), spec, inline);
    if let Some(affinity) = spec.node_affinity.as_ref().filter(|_| !inline) {
        let at = path.child("nodeAffinity").child("required");
        match &affinity.required {
            Some(required) => scheduling::node_selector(errors, &at, required),
            None => errors.push(FieldError::required(&at, "must specify required node constraints")),
        }
    } else if spec.node_affinity.is_some() {
        errors.push(FieldError::forbidden(&path.child("nodeAffinity"), NOT_INLINE));
    }
    let name = if let Place::Object { name } = place { name } else { "" };
    sources::validate(errors, path, spec, name, inline);
    let recycled = spec.persistent_volume_reclaim_policy.as_deref() == Some("Recycle");
    if recycled && spec.host_path.as_ref().is_some_and(|h| is_root(&h.path)) {
        let message = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden(&path.child("persistentVolumeReclaimPolicy"), message));
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|c| !c.is_empty()) {
        let at = path.child("storageClassName");
        if inline {
            errors.push(FieldError::forbidden(&at, NOT_INLINE));
        } else {
            invalid(errors, &at, &class, format::dns_subdomain(class));
        }
    }
    match spec.volume_mode.as_deref() {
        Some(mode) if inline && mode != "Filesystem" => {
            let message = "may not specify volumeMode other than Filesystem in the context of inline volumes";
            errors.push(FieldError::forbidden(&path.child("volumeMode"), message));
        }
        mode => volume_mode(errors, &path.child("volumeMode"), mode),
    }
    if let Some(class) = spec.volume_attributes_class_name.as_deref().filter(|_| !inline) {
        attributes_class(errors, path, spec, class);
    }
}

fn not_inline(errors: &mut Errors, path: &Path, spec: &PersistentVolumeSpec) {
    if spec.claim_ref.is_some() {
        errors.push(FieldError::forbidden(&path.child("claimRef"), NOT_INLINE));
    }
    if spec.capacity.as_ref().is_some_and(|c| !c.is_empty()) {
        errors.push(FieldError::forbidden(&path.child("capacity"), NOT_INLINE));
    }
    if spec.csi.is_none() {
        let message = "has to be specified in the context of inline volumes";
        errors.push(FieldError::required(&path.child("csi"), message));
    }
}

pub fn access_modes(errors: &mut Errors, path: &Path, modes: &[String]) {
    for mode in modes.iter().filter(|m| !ACCESS_MODES.contains(&m.as_str())) {
        errors.push(FieldError::not_supported(path, mode, ACCESS_MODES));
    }
    let known = || modes.iter().filter(|m| ACCESS_MODES.contains(&m.as_str()));
    if known().any(|m| m == POD_MODE) && known().any(|m| m != POD_MODE) {
        errors.push(FieldError::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}

pub fn volume_mode(errors: &mut Errors, path: &Path, mode: Option<&str>) {
    if let Some(mode) = mode.filter(|m| !VOLUME_MODES.contains(m)) {
        errors.push(FieldError::not_supported(path, &mode, VOLUME_MODES));
    }
}

fn capacity(errors: &mut Errors, path: &Path, spec: &PersistentVolumeSpec) {
    let capacity = spec.capacity.clone().unwrap_or_default();
    if capacity.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    if capacity.len() != 1 || !capacity.contains_key("storage") {
        errors.push(FieldError::not_supported(path, &shown(&spec.capacity), &["storage"]));
    }
    for (resource, value) in &capacity {
        let at = path.key(resource);
        if let Some(value) = parsed(errors, &at, value) {
            basic(errors, &at, value);
            positive(errors, &at, value);
        }
    }
}

/// A quantity that can be read; an error when it cannot.
pub fn parsed(errors: &mut Errors, path: &Path, text: &Text) -> Option<Quantity> {
    match quantity::parse(text) {
        Ok(value) => Some(value),
        Err(error) => {
            errors.push(FieldError::invalid(path, &text.0, &error.to_string()));
            None
        }
    }
}

/// Whole units must not be negative.
pub fn basic(errors: &mut Errors, path: &Path, value: Quantity) {
    if value.value() < 0 {
        errors.push(FieldError::invalid(path, &value.value(), "must be a valid resource quantity"));
    }
}

pub fn positive(errors: &mut Errors, path: &Path, value: Quantity) {
    if value.is_negative() || value.is_zero() {
        errors.push(FieldError::invalid(path, &value.to_string(), "must be greater than zero"));
    }
}

fn reclaim_policy(errors: &mut Errors, path: &Path, spec: &PersistentVolumeSpec, inline: bool) {
    match spec.persistent_volume_reclaim_policy.as_deref().unwrap_or_default() {
        "" | "Retain" => {}
        _ if inline => {
            errors.push(FieldError::forbidden(path, "may only be Retain in the context of inline volumes"));
        }
        known if RECLAIM_POLICIES.contains(&known) => {}
        other => errors.push(FieldError::not_supported(path, &other, RECLAIM_POLICIES)),
    }
}

fn is_root(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| matches!(part, "" | "." | ".."))
}

fn attributes_class(errors: &mut Errors, path: &Path, spec: &PersistentVolumeSpec, class: &str) {
    let at = path.child("volumeAttributesClassName");
    if class.is_empty() {
        errors.push(FieldError::required(&at, "an empty string is disallowed"));
    } else {
        invalid(errors, &at, &class, format::dns_subdomain(class));
    }
    if spec.csi.is_none() {
        let message = "has to be specified when using volumeAttributesClassName";
        errors.push(FieldError::required(&path.child("csi"), message));
    }
}
