//! Decides: what is wrong with the spec of a Job, its selector apart (`validateJobSpec`).

use k8s_openapi::api::batch::v1::JobSpec;

use super::{MANY_COMPLETIONS, MANY_PODS, is_indexed, policies};
use crate::api::field::{FieldError, Path};
use crate::server::registry::core::pod;
use crate::server::registry::format;
use crate::server::registry::metadata::{Errors, domain_prefixed_path, not_negative};

/// Pods at once, and failed indexes: with more, the lists of indexes in the status could become too long.
const MAX_INDEXES: i32 = 100_000;
const MAX_MANAGED_BY: usize = 63;

pub fn validate(errors: &mut Errors, path: &Path, spec: &JobSpec) {
    for (field, value) in [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ] {
        not_negative(errors, &path.child(field), value.unwrap_or_default());
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        let at = path.child("backoffLimitPerIndex");
        errors.push(FieldError::required(&at, "when maxFailedIndexes is specified"));
    }
    if let Some(manager) = &spec.managed_by {
        managed_by(errors, &path.child("managedBy"), manager);
    }
    completion_mode(errors, path, spec);
    if let Some(policy) = &spec.pod_failure_policy {
        policies::failure(errors, &path.child("podFailurePolicy"), spec, policy);
    }
    if let Some(policy) = &spec.success_policy {
        policies::success(errors, &path.child("successPolicy"), spec, policy);
    }
    replacement(errors, &path.child("podReplacementPolicy"), spec);
    pod::spec::template(errors, &path.child("template"), &spec.template);
    restart_policy(errors, &path.child("template").child("spec").child("restartPolicy"), spec);
}

/// `acme.io/foo`
fn managed_by(errors: &mut Errors, path: &Path, manager: &str) {
    if manager.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    domain_prefixed_path(errors, path, manager);
    if manager.len() > MAX_MANAGED_BY {
        errors.push(FieldError::too_long(path, MAX_MANAGED_BY));
    }
}

fn completion_mode(errors: &mut Errors, path: &Path, spec: &JobSpec) {
    let mode = spec.completion_mode.as_deref();
    match mode.unwrap_or("NonIndexed") {
        "Indexed" => indexed(errors, path, spec),
        "NonIndexed" => {
            for (field, value) in
                [("backoffLimitPerIndex", spec.backoff_limit_per_index), ("maxFailedIndexes", spec.max_failed_indexes)]
            {
                if let Some(value) = value {
                    errors.push(FieldError::invalid(&path.child(field), &value, "requires indexed completion mode"));
                }
            }
        }
        other => {
            errors.push(FieldError::not_supported(&path.child("completionMode"), &other, &["NonIndexed", "Indexed"]));
        }
    }
}

fn indexed(errors: &mut Errors, path: &Path, spec: &JobSpec) {
    let mut at_most = |field: &str, value: Option<i32>, limit: i32, detail: &str| {
        if let Some(value) = value.filter(|v| *v > limit) {
            let message = format!("must be less than or equal to {detail}");
            errors.push(FieldError::invalid(&path.child(field), &value, &message));
        }
    };
    let detail = format!("{MAX_INDEXES} when completion mode is Indexed");
    at_most("parallelism", spec.parallelism, MAX_INDEXES, &detail);
    at_most("maxFailedIndexes", spec.max_failed_indexes, spec.completions.unwrap_or(i32::MAX), "completions");
    at_most("maxFailedIndexes", spec.max_failed_indexes, MAX_INDEXES, &MAX_INDEXES.to_string());
    let many = spec.completions.is_some_and(|c| c > MANY_COMPLETIONS) && spec.backoff_limit_per_index.is_some();
    if many {
        let detail =
            format!("{MANY_PODS} when completions are above {MANY_COMPLETIONS} and used with backoff limit per index");
        at_most("parallelism", spec.parallelism, MANY_PODS, &detail);
        at_most("maxFailedIndexes", spec.max_failed_indexes, MANY_PODS, &detail);
    }
    if spec.completions.is_none() {
        errors.push(FieldError::required(&path.child("completions"), "when completion mode is Indexed"));
    }
    if many && spec.max_failed_indexes.is_none() {
        let message = format!("must be specified when completions is above {MANY_COMPLETIONS}");
        errors.push(FieldError::required(&path.child("maxFailedIndexes"), &message));
    }
}

fn replacement(errors: &mut Errors, path: &Path, spec: &JobSpec) {
    let Some(policy) = spec.pod_replacement_policy.as_deref() else { return };
    // Whether a failure counts is known only once the pod has failed.
    let known = if spec.pod_failure_policy.is_some() { &["Failed"][..] } else { &["Failed", "TerminatingOrFailed"] };
    if !known.contains(&policy) {
        errors.push(FieldError::not_supported(path, &policy, known));
    }
}

fn restart_policy(errors: &mut Errors, path: &Path, spec: &JobSpec) {
    let policy = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or_default();
    match policy {
        // What a template that does not say was given.
        "" | "Always" => errors.push(FieldError::required(path, "valid values: \"OnFailure\", \"Never\"")),
        "Never" => {}
        "OnFailure" => {
            if spec.pod_failure_policy.is_some() {
                let message = "only \"Never\" is supported when podFailurePolicy is specified";
                errors.push(FieldError::invalid(path, &policy, message));
            }
        }
        other => errors.push(FieldError::not_supported(path, &other, &["OnFailure", "Never"])),
    }
}

/// The pods of an indexed Job have the index in their host name, which must still be one.
pub fn host_names(errors: &mut Errors, name: &str, spec: &JobSpec) {
    let Some(completions) = spec.completions.filter(|c| *c > 0 && is_indexed(spec)) else { return };
    let longest = format!("{name}-{}", completions - 1);
    if !format::dns_label(&longest).is_empty() {
        let message = format!("will not able to create pod with invalid DNS label: {longest}");
        errors.push(FieldError::invalid(&Path::new("metadata").child("name"), &name, &message));
    }
}
