//! Kinds of the `apps` group, one per file, and what they share.

pub mod controller_revision;
pub mod daemon_set;
pub mod deployment;
pub mod replica_set;
pub mod stateful_set;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::core::pod::spec;
use super::format;
use super::metadata::{self, Errors, invalid, not_negative, shown};
use crate::api::field::{FieldError, Path};

/// The selector of a workload and the template that it must select. `kind` is what upstream calls the owner.
fn selector_and_template(
    errors: &mut Errors,
    path: &Path,
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    kind: &str,
) {
    let at = path.child("selector");
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    // An empty selector cannot be told from a missing one here; missing is what happens.
    let empty = metadata::selects_everything(selector);
    if empty {
        errors.push(FieldError::required(&at, ""));
    } else {
        metadata::selector(errors, &at, Some(selector));
    }
    let path = path.child("template");
    if empty || !metadata::matches(selector, labels) {
        let at = path.child("metadata").child("labels");
        let message = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(&at, &shown(&labels), message));
    }
    spec::template(errors, &path, template);
    runs_forever(errors, &path, template, kind);
}

/// Pods of a workload that keeps them running are always restarted and have no deadline.
pub fn runs_forever(errors: &mut Errors, path: &Path, template: &PodTemplateSpec, kind: &str) {
    let path = path.child("spec");
    let pod = template.spec.as_ref();
    let policy = pod.and_then(|p| p.restart_policy.as_deref()).unwrap_or_default();
    if policy != "Always" {
        errors.push(FieldError::not_supported(&path.child("restartPolicy"), &policy, &["Always"]));
    }
    if pod.is_some_and(|p| p.active_deadline_seconds.is_some()) {
        let message = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(FieldError::forbidden(&path.child("activeDeadlineSeconds"), &message));
    }
}

/// Counts of a status that cannot be more than others.
fn at_most(errors: &mut Errors, path: &Path, field: &str, value: Option<i32>, limit: Option<i32>, message: &str) {
    let value = value.unwrap_or_default();
    if value > limit.unwrap_or_default() {
        errors.push(FieldError::invalid(&path.child(field), &value, message));
    }
}

/// The status of what keeps a number of pods: ReplicaSets and ReplicationControllers.
pub struct Counts {
    pub replicas: i32,
    pub fully_labeled: Option<i32>,
    pub ready: Option<i32>,
    pub available: Option<i32>,
    pub observed_generation: Option<i64>,
}

#[must_use]
pub fn replica_counts(counts: &Counts) -> Errors {
    let mut errors = Vec::new();
    let path = Path::new("status");
    let parts = [
        ("fullyLabeledReplicas", counts.fully_labeled),
        ("readyReplicas", counts.ready),
        ("availableReplicas", counts.available),
    ];
    not_negative(&mut errors, &path.child("replicas"), i64::from(counts.replicas));
    for (field, value) in parts {
        not_negative(&mut errors, &path.child(field), i64::from(value.unwrap_or_default()));
    }
    not_negative(&mut errors, &path.child("observedGeneration"), counts.observed_generation.unwrap_or_default());
    for (field, value) in parts {
        at_most(&mut errors, &path, field, value, Some(counts.replicas), "cannot be greater than status.replicas");
    }
    let message = "cannot be greater than readyReplicas";
    at_most(&mut errors, &path, "availableReplicas", counts.available, counts.ready, message);
    errors
}

/// A number, or a percentage of something.
pub fn int_or_percent(errors: &mut Errors, path: &Path, value: &IntOrString) {
    match value {
        IntOrString::Int(number) => not_negative(errors, path, i64::from(*number)),
        IntOrString::String(text) => invalid(errors, path, text, format::percent(text)),
    }
}

/// The number, of a percentage without its sign; 0 when it is neither.
fn number(value: &IntOrString) -> i64 {
    match value {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(text) => text.strip_suffix('%').and_then(|n| n.parse().ok()).unwrap_or_default(),
    }
}

/// No more than 100%.
pub fn at_most_all(errors: &mut Errors, path: &Path, value: &IntOrString) {
    if matches!(value, IntOrString::String(_)) && number(value) > 100 {
        errors.push(FieldError::invalid(path, &shown(value), "must not be greater than 100%"));
    }
}

/// A count of collisions only grows.
fn not_decremented(errors: &mut Errors, path: &Path, count: Option<i32>, before: Option<i32>) {
    if before.is_some() && count < before {
        errors.push(FieldError::invalid(path, &count.unwrap_or_default(), "cannot be decremented"));
    }
}

#[cfg(test)]
mod tests;
