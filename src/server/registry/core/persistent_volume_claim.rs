//! Decides: PersistentVolumeClaim. Once made it only grows, takes another VolumeAttributesClass, and is bound once.
//!
//! `dataSource` is the older field of `dataSourceRef`: both are kept equal, and what only the newer one may name is
//! dropped from the older one.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, TypedLocalObjectReference,
    TypedObjectReference,
};
use serde_json::json;

use super::persistent_volume::{CLASS_ANNOTATION_WARNING, same, spec};
use crate::api::field::{FieldError, Path};
use crate::api::quantity::Quantity;
use crate::api::resource::Resource;
use crate::api::storage_class::CLASS_ANNOTATION;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, IMMUTABLE, immutable, invalid, selector, shown};
use crate::server::registry::quantity::{self, List};
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part};

const CLAIM: &str = "PersistentVolumeClaim";
const RESIZES: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

pub struct PersistentVolumeClaimKind;

impl Kind for PersistentVolumeClaimKind {
    type Object = PersistentVolumeClaim;

    fn resource(&self) -> &'static Resource {
        row("v1", "PersistentVolumeClaim")
    }

    fn defaults(&self, claim: &mut PersistentVolumeClaim) {
        let spec = claim.spec.get_or_insert_default();
        spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
        let resources = spec.resources.get_or_insert_default();
        quantity::canonical_list(&mut resources.limits);
        quantity::canonical_list(&mut resources.requests);
        let status = claim.status.get_or_insert_default();
        if status.phase.as_deref().unwrap_or_default().is_empty() {
            status.phase = Some("Pending".into());
        }
        quantity::canonical_list(&mut status.capacity);
        quantity::canonical_list(&mut status.allocated_resources);
    }

    fn prepare_create(&self, _: &Context, claim: &mut PersistentVolumeClaim) {
        let phase = Some("Pending".into());
        claim.status = Some(PersistentVolumeClaimStatus { phase, ..PersistentVolumeClaimStatus::default() });
        data_sources(claim.spec.get_or_insert_default(), None);
    }

    fn prepare_update(&self, _: &Context, part: Part, new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim) {
        if part != Part::Status {
            data_sources(new.spec.get_or_insert_default(), old.spec.as_ref());
        }
    }

    fn validate(&self, claim: &PersistentVolumeClaim) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check(&mut errors, &Path::new("spec"), &claim.spec.clone().unwrap_or_default(), true);
        errors
    }

    fn validate_update(&self, part: Part, new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> Vec<FieldError> {
        if part == Part::Status {
            return status(new);
        }
        let mut errors = Vec::new();
        let before = old.spec.clone().unwrap_or_default();
        let grouped = before.data_source.as_ref().is_some_and(|s| s.api_group.is_some())
            || before.data_source_ref.as_ref().is_some_and(|s| s.api_group.is_some());
        // The group of a source could be anything once.
        check(&mut errors, &Path::new("spec"), &new.spec.clone().unwrap_or_default(), !grouped);
        changes(&mut errors, new, old);
        errors
    }

    fn warnings(&self, claim: &PersistentVolumeClaim) -> Vec<String> {
        let mut warnings = Vec::new();
        if class_annotation(claim).is_some() {
            let at = Path::new("metadata").child("annotations").key(CLASS_ANNOTATION);
            warnings.push(format!("{at}: {CLASS_ANNOTATION_WARNING}"));
        }
        let resources = claim.spec.clone().unwrap_or_default().resources.unwrap_or_default();
        for (field, list) in [("requests", &resources.requests), ("limits", &resources.limits)] {
            let value = storage(list.as_ref());
            if value.milli() % 1000 != 0 {
                let at = Path::new("spec").child("resources").child(field).key("storage");
                let value = value.to_string();
                warnings.push(format!("{at}: fractional byte value {value:?} is invalid, must be an integer"));
            }
        }
        warnings
    }
}

fn class_annotation(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION)).map(String::as_str)
}

/// The storage that a list names, 0 when it names none.
fn storage(list: Option<&List>) -> Quantity {
    list.and_then(|l| l.get("storage")).and_then(|text| quantity::parse(text).ok()).unwrap_or_default()
}

/// Makes both fields say the same; see the top of this file.
fn data_sources(spec: &mut PersistentVolumeClaimSpec, old: Option<&PersistentVolumeClaimSpec>) {
    // Sources of other namespaces are a feature that is off: such a reference is dropped.
    let foreign = spec.data_source_ref.as_ref().is_some_and(|r| r.namespace.as_ref().is_some_and(|n| !n.is_empty()));
    if foreign && old.is_none_or(|o| o.data_source_ref.is_none()) {
        spec.data_source_ref = None;
    }
    let had_one = old.is_some_and(|o| o.data_source.is_some() || o.data_source_ref.is_some());
    if !had_one && spec.data_source_ref.is_none() && spec.data_source.as_ref().is_some_and(|s| !is_old_source(s)) {
        spec.data_source = None;
    }
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(source), None) => {
            let TypedLocalObjectReference { api_group, kind, name } = source.clone();
            spec.data_source_ref = Some(TypedObjectReference { api_group, kind, name, namespace: None });
        }
        (None, Some(source)) if source.namespace.as_ref().is_none_or(String::is_empty) => {
            let TypedObjectReference { api_group, kind, name, .. } = source.clone();
            spec.data_source = Some(TypedLocalObjectReference { api_group, kind, name });
        }
        _ => {}
    }
}

/// What `dataSource` could always name: another claim, or a snapshot.
fn is_old_source(source: &TypedLocalObjectReference) -> bool {
    let group = source.api_group.as_deref().unwrap_or_default();
    matches!((group, source.kind.as_str()), ("", CLAIM) | ("snapshot.storage.k8s.io", "VolumeSnapshot"))
}

fn check(errors: &mut Errors, path: &Path, claim: &PersistentVolumeClaimSpec, check_groups: bool) {
    let modes = claim.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.push(FieldError::required(&path.child("accessModes"), "at least 1 access mode is required"));
    }
    selector(errors, &path.child("selector"), claim.selector.as_ref());
    spec::access_modes(errors, &path.child("accessModes"), modes);
    let at = path.child("resources").key("storage");
    match claim.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage")) {
        None => errors.push(FieldError::required(&at, "")),
        Some(text) => {
            if let Some(value) = spec::parsed(errors, &at, text) {
                spec::positive(errors, &at, value);
            }
        }
    }
    let class = |errors: &mut Errors, field: &str, name: Option<&String>| {
        if let Some(name) = name.filter(|n| !n.is_empty()) {
            invalid(errors, &path.child(field), name, format::dns_subdomain(name));
        }
    };
    class(errors, "storageClassName", claim.storage_class_name.as_ref());
    spec::volume_mode(errors, &path.child("volumeMode"), claim.volume_mode.as_deref());
    sources(errors, path, claim, check_groups);
    class(errors, "volumeAttributesClassName", claim.volume_attributes_class_name.as_ref());
}

fn sources(errors: &mut Errors, path: &Path, claim: &PersistentVolumeClaimSpec, check_groups: bool) {
    if let Some(s) = &claim.data_source {
        source(errors, &path.child("dataSource"), (s.api_group.as_deref(), &s.kind, &s.name), check_groups);
    }
    let Some(other) = &claim.data_source_ref else { return };
    let at = path.child("dataSourceRef");
    source(errors, &at, (other.api_group.as_deref(), &other.kind, &other.name), check_groups);
    let namespace = other.namespace.as_deref().unwrap_or_default();
    if !namespace.is_empty() {
        invalid(errors, &at.child("namespace"), &namespace, format::dns_label(namespace));
    }
    let Some(one) = &claim.data_source else { return };
    // Upstream shows a path as the bad value, which has nothing that JSON could show.
    if !namespace.is_empty() {
        let message = "may not be specified when dataSourceRef.namespace is specified";
        errors.push(FieldError::invalid(path, &json!({}), message));
    } else if (&one.api_group, &one.kind, &one.name) != (&other.api_group, &other.kind, &other.name) {
        errors.push(FieldError::invalid(path, &json!({}), "must match dataSourceRef"));
    }
}

fn source(errors: &mut Errors, path: &Path, (group, kind, name): (Option<&str>, &str, &str), check_group: bool) {
    for (field, text) in [("name", name), ("kind", kind)] {
        if text.is_empty() {
            errors.push(FieldError::required(&path.child(field), ""));
        }
    }
    let group = group.unwrap_or_default();
    if group.is_empty() && kind != CLAIM {
        let message = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(path, &kind, message));
    }
    if !group.is_empty() && check_group {
        invalid(errors, &path.child("apiGroup"), &group, format::dns_subdomain(group));
    }
}

fn changes(errors: &mut Errors, new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) {
    let path = Path::new("spec");
    let (after, before) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    let (mut rest, mut was) = (after.clone(), before.clone());
    if before.volume_name.as_ref().is_none_or(String::is_empty) {
        was.volume_name.clone_from(&rest.volume_name);
    }
    storage_class(errors, new, old, &mut rest, &before);
    let requests = |spec: &PersistentVolumeClaimSpec| spec.resources.clone().unwrap_or_default().requests;
    same_amounts(&mut rest, &before);
    let bound = new.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    if bound {
        let size = requests(&before).unwrap_or_default().remove("storage");
        if let Some(list) = rest.resources.as_mut().and_then(|r| r.requests.as_mut())
            && let Some(size) = size
        {
            list.insert("storage".into(), size);
        }
        rest.volume_attributes_class_name.clone_from(&before.volume_attributes_class_name);
    }
    if !same::alike(&shown(&rest), &shown(&was), same::is_empty) {
        let message = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
            bound claims";
        errors.push(FieldError::forbidden(&path, message));
    }
    let (size, capacity) = (storage(requests(&after).as_ref()), old.status.clone().unwrap_or_default().capacity);
    // A claim that could not grow may ask for less again, but for more than it has.
    if size < storage(requests(&before).as_ref()) && size <= storage(capacity.as_ref()) {
        let at = path.child("resources").child("requests").child("storage");
        errors.push(FieldError::forbidden(&at, "field can not be less than status.capacity"));
    }
    immutable(errors, &Path::new("volumeMode"), &after.volume_mode, &before.volume_mode);
    let current = old.status.as_ref().is_some_and(|s| s.current_volume_attributes_class_name.is_some());
    if current && after.volume_attributes_class_name != before.volume_attributes_class_name {
        let to = match after.volume_attributes_class_name.as_deref() {
            None => "nil",
            Some("") => "empty string",
            Some(_) => return,
        };
        let message = format!("update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil");
        errors.push(FieldError::forbidden(&path.child("volumeAttributesClassName"), &message));
    }
}

/// The class of a claim that has none may be set, to that of its annotation when it has one; the annotation stays
/// as it was unless the field takes its place.
fn storage_class(
    errors: &mut Errors,
    new: &PersistentVolumeClaim,
    old: &PersistentVolumeClaim,
    rest: &mut PersistentVolumeClaimSpec,
    before: &PersistentVolumeClaimSpec,
) {
    let (after, was) = (class_annotation(new), class_annotation(old));
    let set = before.storage_class_name.is_none() && rest.storage_class_name.is_some();
    let matches = was.is_none() || was == rest.storage_class_name.as_deref();
    let moved = set && was.is_some() && matches && (after.is_none() || after == was);
    if !moved && after.unwrap_or_default() != was.unwrap_or_default() {
        let at = Path::new("metadata").child("annotations").child(CLASS_ANNOTATION);
        errors.push(FieldError::invalid(&at, &after.unwrap_or_default(), IMMUTABLE));
    }
    if set && matches {
        rest.storage_class_name = None;
    }
}

/// Takes over the old spelling of quantities that did not change: `1Gi` is `1073741824`.
fn same_amounts(new: &mut PersistentVolumeClaimSpec, old: &PersistentVolumeClaimSpec) {
    let Some(new) = &mut new.resources else { return };
    let old = old.resources.clone().unwrap_or_default();
    for (new, old) in [(&mut new.limits, &old.limits), (&mut new.requests, &old.requests)] {
        for (name, text) in new.iter_mut().flatten() {
            let Some(before) = old.as_ref().and_then(|o| o.get(name)) else { continue };
            if let (Ok(a), Ok(b)) = (quantity::parse(text), quantity::parse(before))
                && a == b
            {
                text.clone_from(before);
            }
        }
    }
}

fn status(claim: &PersistentVolumeClaim) -> Errors {
    let mut errors = Vec::new();
    if claim.spec.as_ref().and_then(|s| s.access_modes.as_ref()).is_none_or(Vec::is_empty) {
        errors.push(FieldError::required(&Path::new("Spec").child("accessModes"), ""));
    }
    let status = claim.status.clone().unwrap_or_default();
    let path = Path::new("status");
    for (resource, text) in status.capacity.iter().flatten() {
        let at = path.child("capacity").key(resource);
        if let Some(value) = spec::parsed(&mut errors, &at, text) {
            spec::basic(&mut errors, &at, value);
        }
    }
    let at = path.child("allocatedResourceStatus");
    for (resource, state) in status.allocated_resource_statuses.iter().flatten() {
        resource_key(&mut errors, &at, resource);
        if !RESIZES.contains(&state.as_str()) {
            // Upstream shows the key.
            errors.push(FieldError::not_supported(&at, resource, RESIZES));
        }
    }
    let at = path.child("allocatedResources");
    for (resource, text) in status.allocated_resources.iter().flatten() {
        let before = errors.len();
        resource_key(&mut errors, &at, resource);
        if errors.len() > before {
            continue;
        }
        let here = at.key(resource);
        if let Some(value) = spec::parsed(&mut errors, &here, text) {
            if value.value() < 0 {
                spec::basic(&mut errors, &here, value);
            } else {
                quantity::validate(&mut errors, &here, "storage", text);
            }
        }
    }
    errors
}

/// A resource of a volume: `storage`, or one that Kubernetes does not define.
fn resource_key(errors: &mut Errors, path: &Path, name: &str) {
    let problems = format::qualified_name(name);
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    if !problems.is_empty() {
        invalid(errors, path, &name, problems);
    } else if native && name != "storage" {
        errors.push(FieldError::not_supported(path, &name, &["storage"]));
    }
}

#[cfg(test)]
mod tests;
