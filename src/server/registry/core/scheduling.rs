//! Decides: what says where a pod may run: affinity, tolerations, topology spread, node selectors.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, Toleration,
    TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::api::field::{FieldError, Path};
use crate::server::registry::format;
use crate::server::registry::metadata::{Errors, invalid, selector};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const WEIGHT: &str = "must be in the range 1-100";

pub fn preemption_policy(errors: &mut Errors, path: &Path, policy: &str) {
    match policy {
        "PreemptLowerPriority" | "Never" => {}
        "" => errors.push(FieldError::required(path, "")),
        other => errors.push(FieldError::not_supported(path, &other, &["PreemptLowerPriority", "Never"])),
    }
}

pub fn taint_effect(errors: &mut Errors, path: &Path, effect: &str) {
    let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    if !known.contains(&effect) {
        errors.push(FieldError::not_supported(path, &effect, &known));
    }
}

pub fn tolerations(errors: &mut Errors, path: &Path, tolerations: &[Toleration]) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let at = path.index(i);
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let (key, operator) = (text(&toleration.key), text(&toleration.operator));
        let (value, effect) = (text(&toleration.value), text(&toleration.effect));
        if !key.is_empty() {
            invalid(errors, &at.child("key"), &key, format::qualified_name(&key));
        } else if operator != "Exists" {
            let message = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&at.child("operator"), &operator, message));
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let message = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&at.child("effect"), &effect, message));
        }
        match operator.as_str() {
            "" | "Equal" => {
                let problems = format::label_value(&value);
                if !problems.is_empty() {
                    errors.push(FieldError::invalid(&at.child("operator"), &value, &problems.join(";")));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    let message = "value must be empty when `operator` is 'Exists'";
                    errors.push(FieldError::invalid(&at.child("operator"), &value, message));
                }
            }
            other => errors.push(FieldError::not_supported(&at.child("operator"), &other, &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            taint_effect(errors, &at.child("effect"), &effect);
        }
    }
}

pub fn topology_spread(errors: &mut Errors, path: &Path, constraints: &[TopologySpreadConstraint]) {
    for (i, constraint) in constraints.iter().enumerate() {
        let at = path.index(i);
        if constraint.max_skew <= 0 {
            let message = "must be greater than zero";
            errors.push(FieldError::invalid(&at.child("maxSkew"), &constraint.max_skew, message));
        }
        if constraint.topology_key.is_empty() {
            errors.push(FieldError::required(&at.child("topologyKey"), "can not be empty"));
        }
        let action = constraint.when_unsatisfiable.as_str();
        let known = ["DoNotSchedule", "ScheduleAnyway"];
        if !known.contains(&action) {
            errors.push(FieldError::not_supported(&at.child("whenUnsatisfiable"), &action, &known));
        }
        let twin = constraints[i + 1..].iter().any(|c| {
            c.topology_key == constraint.topology_key && c.when_unsatisfiable == constraint.when_unsatisfiable
        });
        if twin {
            let pair = format!("{{{}, {action}}}", constraint.topology_key);
            errors.push(FieldError::duplicate(&at.child("{topologyKey, whenUnsatisfiable}"), &pair));
        }
        if let Some(least) = constraint.min_domains {
            if least <= 0 {
                errors.push(FieldError::invalid(&at.child("minDomains"), &least, "must be greater than zero"));
            }
            if action != "DoNotSchedule" {
                let message = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(FieldError::invalid(&at.child("minDomains"), &least, &message));
            }
        }
        for (field, policy) in [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ] {
            if let Some(policy) = policy.as_deref().filter(|p| !matches!(*p, "Honor" | "Ignore")) {
                errors.push(FieldError::not_supported(&at.child(field), &policy, &["Honor", "Ignore"]));
            }
        }
        let keys = constraint.match_label_keys.as_deref();
        label_keys(errors, &at.child("matchLabelKeys"), keys, constraint.label_selector.as_ref());
        twice(errors, &at.child("matchLabelKeys"), keys.unwrap_or_default(), constraint.label_selector.as_ref());
        selector(errors, &at.child("labelSelector"), constraint.label_selector.as_ref());
    }
}

fn label_keys(errors: &mut Errors, path: &Path, keys: Option<&[String]>, of: Option<&LabelSelector>) {
    let keys = keys.unwrap_or_default();
    if !keys.is_empty() && of.is_none() {
        errors.push(FieldError::forbidden(path, "must not be specified when labelSelector is not set"));
        return;
    }
    for (i, key) in keys.iter().enumerate() {
        invalid(errors, &path.index(i), key, format::qualified_name(key));
    }
}

/// A pod's selector has the requirements of its `matchLabelKeys` at its end already: a key that was there before is in
/// both.
fn twice(errors: &mut Errors, path: &Path, keys: &[String], of: Option<&LabelSelector>) {
    let mut seen: BTreeSet<&str> =
        of.iter().flat_map(|s| s.match_labels.iter().flatten()).map(|(k, _)| k.as_str()).collect();
    for requirement in of.iter().flat_map(|s| s.match_expressions.iter().flatten()) {
        let again = !seen.insert(&requirement.key);
        if let Some(i) = keys.iter().position(|k| again && *k == requirement.key) {
            let message = "exists in both matchLabelKeys and labelSelector";
            errors.push(FieldError::invalid(&path.index(i), &keys[i], message));
        }
    }
}

pub fn affinity(errors: &mut Errors, path: &Path, affinity: &Affinity) {
    if let Some(node) = &affinity.node_affinity {
        let path = path.child("nodeAffinity");
        if let Some(required) = &node.required_during_scheduling_ignored_during_execution {
            node_selector(errors, &path.child(REQUIRED), required);
        }
        for (i, term) in node.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate() {
            let at = path.child(PREFERRED).index(i);
            if !(1..=100).contains(&term.weight) {
                errors.push(FieldError::invalid(&at.child("weight"), &term.weight, WEIGHT));
            }
            node_term(errors, &at.child("preference"), &term.preference, true);
        }
    }
    let pod = affinity.pod_affinity.as_ref().map(|a| {
        (
            "podAffinity",
            &a.required_during_scheduling_ignored_during_execution,
            &a.preferred_during_scheduling_ignored_during_execution,
        )
    });
    let anti = affinity.pod_anti_affinity.as_ref().map(|a| {
        (
            "podAntiAffinity",
            &a.required_during_scheduling_ignored_during_execution,
            &a.preferred_during_scheduling_ignored_during_execution,
        )
    });
    for (field, required, preferred) in pod.into_iter().chain(anti) {
        let path = path.child(field);
        for (i, term) in required.iter().flatten().enumerate() {
            pod_term(errors, &path.child(REQUIRED).index(i), term);
        }
        for (i, WeightedPodAffinityTerm { pod_affinity_term, weight }) in preferred.iter().flatten().enumerate() {
            let at = path.child(PREFERRED).index(i);
            if !(1..=100).contains(weight) {
                errors.push(FieldError::invalid(&at.child("weight"), weight, WEIGHT));
            }
            pod_term(errors, &at.child("podAffinityTerm"), pod_affinity_term);
        }
    }
}

fn pod_term(errors: &mut Errors, path: &Path, term: &PodAffinityTerm) {
    selector(errors, &path.child("labelSelector"), term.label_selector.as_ref());
    selector(errors, &path.child("namespaceSelector"), term.namespace_selector.as_ref());
    for name in term.namespaces.iter().flatten() {
        invalid(errors, &path.child("namespace"), name, format::dns_label(name));
    }
    for (field, keys) in [("matchLabelKeys", &term.match_label_keys), ("mismatchLabelKeys", &term.mismatch_label_keys)]
    {
        label_keys(errors, &path.child(field), keys.as_deref(), term.label_selector.as_ref());
    }
    let (keys, apart) = (term.match_label_keys.as_deref(), term.mismatch_label_keys.as_deref());
    // Upstream names the term here, with the key's place behind it.
    twice(errors, path, keys.unwrap_or_default(), term.label_selector.as_ref());
    for (i, key) in keys.unwrap_or_default().iter().enumerate() {
        if apart.unwrap_or_default().contains(key) {
            let message = "exists in both matchLabelKeys and mismatchLabelKeys";
            errors.push(FieldError::invalid(&path.child("matchLabelKeys").index(i), key, message));
        }
    }
    let at = path.child("topologyKey");
    if term.topology_key.is_empty() {
        errors.push(FieldError::required(&at, "can not be empty"));
    }
    invalid(errors, &at, &term.topology_key, format::qualified_name(&term.topology_key));
}

/// Terms of which one must fit a node.
pub fn node_selector(errors: &mut Errors, path: &Path, selector: &NodeSelector) {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.push(FieldError::required(&path, "must have at least one node selector term"));
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        node_term(errors, &path.index(i), term, false);
    }
}

/// `any_value`: a preference may name values that no label can have.
fn node_term(errors: &mut Errors, path: &Path, term: &NodeSelectorTerm, any_value: bool) {
    for (i, requirement) in term.match_expressions.iter().flatten().enumerate() {
        let at = path.child("matchExpressions").index(i);
        operator(errors, &at, requirement);
        invalid(errors, &at.child("key"), &requirement.key, format::qualified_name(&requirement.key));
        for (j, value) in requirement.values.iter().flatten().enumerate().filter(|_| !any_value) {
            invalid(errors, &at.child("values").index(j), value, format::label_value(value));
        }
    }
    for (i, requirement) in term.match_fields.iter().flatten().enumerate() {
        node_field(errors, &path.child("matchFields").index(i), requirement);
    }
}

fn operator(errors: &mut Errors, path: &Path, requirement: &NodeSelectorRequirement) {
    let values = path.child("values");
    let count = requirement.values.as_ref().map_or(0, Vec::len);
    match requirement.operator.as_str() {
        "In" | "NotIn" if count == 0 => {
            errors.push(FieldError::required(&values, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if count > 0 => {
            let message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(&values, message));
        }
        "Gt" | "Lt" if count != 1 => {
            let message = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(&values, message));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(FieldError::invalid(&path.child("operator"), &other, "not a valid selector operator")),
    }
}

/// Fields of a node that can be selected: its name.
fn node_field(errors: &mut Errors, path: &Path, requirement: &NodeSelectorRequirement) {
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() == 1 => {}
        "In" | "NotIn" => {
            let message = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(FieldError::required(&path.child("values"), message));
        }
        other => errors.push(FieldError::invalid(&path.child("operator"), &other, "not a valid selector operator")),
    }
    if requirement.key != "metadata.name" {
        let message = "not a valid field selector key";
        errors.push(FieldError::invalid(&path.child("key"), &requirement.key, message));
        return;
    }
    for (i, value) in values.iter().enumerate() {
        invalid(errors, &path.child("values").index(i), value, format::dns_subdomain(value));
    }
}
