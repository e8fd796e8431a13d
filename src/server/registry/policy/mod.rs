//! Decides: PodDisruptionBudget, the one stored kind of the `policy` group.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use super::apps::{at_most_all, int_or_percent};
use super::format;
use super::kinds::row;
use super::metadata::{self, Errors, invalid, not_negative, shown};
use super::request::Context;
use super::strategy::{Kind, NameRule, Part};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;

/// In bytes.
const MAX_REASON: usize = 1024;
const MAX_MESSAGE: usize = 32 * 1024;
const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of \
    alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or \
    'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is \
    '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

pub struct PodDisruptionBudgetKind;

impl Kind for PodDisruptionBudgetKind {
    type Object = PodDisruptionBudget;

    fn resource(&self) -> &'static Resource {
        row("policy/v1", "PodDisruptionBudget")
    }

    /// Upstream checks the name only as it checks the names of all kinds.
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn defaults(&self, budget: &mut PodDisruptionBudget) {
        budget.spec.get_or_insert_default();
        zeros(budget.status.get_or_insert_default());
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn prepare_create(&self, _: &Context, budget: &mut PodDisruptionBudget) {
        let status = budget.status.insert(PodDisruptionBudgetStatus::default());
        zeros(status);
    }

    fn validate(&self, budget: &PodDisruptionBudget) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (path, spec) = (Path::new("spec"), budget.spec.clone().unwrap_or_default());
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            let message = "minAvailable and maxUnavailable cannot be both set";
            errors.push(FieldError::invalid(&path, &shown(&spec), message));
        }
        for (field, value) in [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)] {
            if let Some(value) = value {
                let at = path.child(field);
                int_or_percent(&mut errors, &at, value);
                at_most_all(&mut errors, &at, value);
            }
        }
        metadata::selector(&mut errors, &path.child("selector"), spec.selector.as_ref());
        if let Some(policy) = spec.unhealthy_pod_eviction_policy.as_deref() {
            let (at, known) = (path.child("unhealthyPodEvictionPolicy"), ["AlwaysAllow", "IfHealthyBudget"]);
            if !known.contains(&policy) {
                errors.push(FieldError::not_supported(&at, &policy, &known));
            }
        }
        errors
    }

    fn validate_update(&self, part: Part, new: &PodDisruptionBudget, _: &PodDisruptionBudget) -> Vec<FieldError> {
        if part == Part::Status { status(&new.status.clone().unwrap_or_default()) } else { self.validate(new) }
    }

    /// Two writers of a budget could allow twice what it has.
    fn unconditional_update(&self) -> bool {
        false
    }

    /// Go writes a time that was never set as null, which is no time here: such a pod is not being disrupted.
    fn storage_form(&self, mut object: Value) -> Value {
        if let Some(pods) = object.pointer_mut("/status/disruptedPods").and_then(Value::as_object_mut) {
            pods.retain(|_, time| !time.is_null());
        }
        object
    }
}

/// Counts are written even when they are zero.
fn zeros(status: &mut PodDisruptionBudgetStatus) {
    let counts = [
        &mut status.disruptions_allowed,
        &mut status.current_healthy,
        &mut status.desired_healthy,
        &mut status.expected_pods,
    ];
    for count in counts {
        count.get_or_insert_default();
    }
}

fn status(status: &PodDisruptionBudgetStatus) -> Errors {
    let mut errors = Vec::new();
    let path = Path::new("status");
    conditions(&mut errors, &path.child("conditions"), status.conditions.as_deref().unwrap_or_default());
    for (field, value) in [
        ("disruptionsAllowed", status.disruptions_allowed),
        ("currentHealthy", status.current_healthy),
        ("desiredHealthy", status.desired_healthy),
        ("expectedPods", status.expected_pods),
    ] {
        not_negative(&mut errors, &path.child(field), i64::from(value.unwrap_or_default()));
    }
    errors
}

/// `metav1.Condition`s, at most one of each type.
pub fn conditions(errors: &mut Errors, path: &Path, conditions: &[Condition]) {
    for (i, condition) in conditions.iter().enumerate() {
        let at = path.index(i);
        if conditions[..i].iter().any(|c| c.type_ == condition.type_) {
            errors.push(FieldError::duplicate(&at.child("type"), &condition.type_));
        }
        invalid(errors, &at.child("type"), &condition.type_, format::qualified_name(&condition.type_));
        let known = ["False", "True", "Unknown"];
        if !known.contains(&condition.status.as_str()) {
            errors.push(FieldError::not_supported(&at.child("status"), &condition.status, &known));
        }
        if let Some(generation) = condition.observed_generation.filter(|g| *g < 0) {
            let message = "must be greater than or equal to zero";
            errors.push(FieldError::invalid(&at.child("observedGeneration"), &generation, message));
        }
        reason(errors, &at.child("reason"), &condition.reason);
        if condition.message.len() > MAX_MESSAGE {
            errors.push(FieldError::too_long(&at.child("message"), MAX_MESSAGE));
        }
    }
}

fn reason(errors: &mut Errors, path: &Path, reason: &str) {
    if reason.is_empty() {
        errors.push(FieldError::required(path, "must be set"));
        return;
    }
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let well_formed = reason.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && reason.as_bytes().last().is_some_and(|b| word(*b))
        && reason.bytes().all(|b| word(b) || b == b',' || b == b':');
    if !well_formed {
        errors.push(FieldError::invalid(path, &reason, REASON));
    }
    if reason.len() > MAX_REASON {
        errors.push(FieldError::too_long(path, MAX_REASON));
    }
}

#[cfg(test)]
mod tests;
