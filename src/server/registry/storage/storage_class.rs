//! Decides: StorageClass. Only who may use it, and whether its volumes may grow, changes later.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::TopologySelectorTerm;
use k8s_openapi::api::storage::v1::StorageClass;

use super::{driver, fixed, fixed_parameters, parameters};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::core::node_labels;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, immutable, invalid};
use crate::server::registry::strategy::{Kind, Part};

const RECLAIM_POLICIES: &[&str] = &["Delete", "Retain"];
const BINDING_MODES: &[&str] = &["Immediate", "WaitForFirstConsumer"];

pub struct StorageClassKind;

impl Kind for StorageClassKind {
    type Object = StorageClass;

    fn resource(&self) -> &'static Resource {
        row("storage.k8s.io/v1", "StorageClass")
    }

    fn defaults(&self, class: &mut StorageClass) {
        class.reclaim_policy.get_or_insert_with(|| "Delete".into());
        class.volume_binding_mode.get_or_insert_with(|| "Immediate".into());
    }

    fn validate(&self, class: &StorageClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        driver(&mut errors, &Path::new("provisioner"), &class.provisioner);
        parameters(&mut errors, &Path::new("parameters"), class.parameters.as_ref());
        let policy = class.reclaim_policy.as_deref().unwrap_or_default();
        if !policy.is_empty() && !RECLAIM_POLICIES.contains(&policy) {
            errors.push(FieldError::not_supported(&Path::new("reclaimPolicy"), &policy, RECLAIM_POLICIES));
        }
        let mode = class.volume_binding_mode.as_deref().unwrap_or_default();
        if !BINDING_MODES.contains(&mode) {
            errors.push(FieldError::not_supported(&Path::new("volumeBindingMode"), &mode, BINDING_MODES));
        }
        let terms = class.allowed_topologies.as_deref().unwrap_or_default();
        topologies(&mut errors, &Path::new("allowedTopologies"), terms);
        errors
    }

    fn validate_update(&self, _: Part, new: &StorageClass, old: &StorageClass) -> Vec<FieldError> {
        let mut errors = self.validate(new);
        fixed_parameters(&mut errors, new.parameters.as_ref(), old.parameters.as_ref());
        fixed(&mut errors, "provisioner", &new.provisioner, &old.provisioner);
        fixed(&mut errors, "reclaimPolicy", &new.reclaim_policy, &old.reclaim_policy);
        let path = Path::new("volumeBindingMode");
        immutable(&mut errors, &path, &new.volume_binding_mode, &old.volume_binding_mode);
        errors
    }

    fn warnings(&self, class: &StorageClass) -> Vec<String> {
        let mut warnings = Vec::new();
        for (i, term) in class.allowed_topologies.iter().flatten().enumerate() {
            for (j, requirement) in term.match_label_expressions.iter().flatten().enumerate() {
                if let Some(why) = node_labels::deprecation(&requirement.key) {
                    let list = Path::new("allowedTopologies").index(i).child("matchLabelExpressions");
                    warnings.push(format!("{}: {why}", list.index(j).child("key")));
                }
            }
        }
        warnings
    }
}

/// The values that a term allows for each key.
type Allowed<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

fn topologies(errors: &mut Errors, path: &Path, terms: &[TopologySelectorTerm]) {
    // Upstream compares each term to as many empty ones as there are terms, before those that came earlier.
    let mut seen = vec![Allowed::new(); terms.len()];
    for (i, term) in terms.iter().enumerate() {
        let at = path.index(i).child("matchLabelExpressions");
        let allowed = topology(errors, &at, term);
        for _ in seen.iter().filter(|earlier| **earlier == allowed) {
            errors.push(FieldError::duplicate(&at, &""));
        }
        seen.push(allowed);
    }
}

fn topology<'a>(errors: &mut Errors, path: &Path, term: &'a TopologySelectorTerm) -> Allowed<'a> {
    let mut allowed = Allowed::new();
    for (i, requirement) in term.match_label_expressions.iter().flatten().enumerate() {
        let at = path.index(i);
        let mut values = BTreeSet::new();
        if requirement.values.is_empty() {
            errors.push(FieldError::required(&at.child("values"), ""));
        }
        for (j, value) in requirement.values.iter().enumerate() {
            if !values.insert(value.as_str()) {
                errors.push(FieldError::duplicate(&at.child("values").index(j), value));
            }
        }
        invalid(errors, &at.child("key"), &requirement.key, format::qualified_name(&requirement.key));
        if allowed.insert(requirement.key.as_str(), values).is_some() {
            errors.push(FieldError::duplicate(&at.child("key"), &requirement.key));
        }
    }
    allowed
}
