//! Decides: what `matchLabelKeys` and `mismatchLabelKeys` mean for one pod. They become requirements of the label
//! selector when the pod is made, so that whoever counts pods has selectors only (KEP-3243, KEP-3633).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodAffinityTerm, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// A key that the pod does not have says nothing; without a selector nothing matches anyway.
pub fn merge(spec: &mut PodSpec, labels: Option<&BTreeMap<String, String>>) {
    let affinity = spec.affinity.as_mut();
    let (with, apart) = affinity.map(|a| (a.pod_affinity.as_mut(), a.pod_anti_affinity.as_mut())).unwrap_or_default();
    if let Some(with) = with {
        for preferred in with.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten() {
            term(&mut preferred.pod_affinity_term, labels);
        }
        for required in with.required_during_scheduling_ignored_during_execution.iter_mut().flatten() {
            term(required, labels);
        }
    }
    if let Some(apart) = apart {
        for preferred in apart.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten() {
            term(&mut preferred.pod_affinity_term, labels);
        }
        for required in apart.required_during_scheduling_ignored_during_execution.iter_mut().flatten() {
            term(required, labels);
        }
    }
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        require(constraint.label_selector.as_mut(), constraint.match_label_keys.as_deref(), "In", labels);
    }
}

fn term(term: &mut PodAffinityTerm, labels: Option<&BTreeMap<String, String>>) {
    require(term.label_selector.as_mut(), term.match_label_keys.as_deref(), "In", labels);
    require(term.label_selector.as_mut(), term.mismatch_label_keys.as_deref(), "NotIn", labels);
}

fn require(
    selector: Option<&mut LabelSelector>,
    keys: Option<&[String]>,
    operator: &str,
    labels: Option<&BTreeMap<String, String>>,
) {
    let Some(selector) = selector else { return };
    for key in keys.unwrap_or_default() {
        if let Some(value) = labels.and_then(|l| l.get(key)) {
            selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.into(),
                values: Some(vec![value.clone()]),
            });
        }
    }
}
