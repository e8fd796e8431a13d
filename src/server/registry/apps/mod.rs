//! Kinds of the `apps` group, one per file, and what they share.

pub mod deployment;
pub mod replica_set;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::core::pod::spec;
use super::metadata::{self, Errors, shown};
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
    let path = path.child("spec");
    let pod = template.spec.clone().unwrap_or_default();
    let policy = pod.restart_policy.as_deref().unwrap_or_default();
    if policy != "Always" {
        errors.push(FieldError::not_supported(&path.child("restartPolicy"), &policy, &["Always"]));
    }
    if pod.active_deadline_seconds.is_some() {
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

#[cfg(test)]
mod tests;
