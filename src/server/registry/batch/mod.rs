//! Kinds of the `batch` group, one per file, and what they share.
//!
//! - [`spec`], [`policies`]: what is wrong with the spec of a Job, and with the one in a CronJob
//! - [`status`]: what whoever runs a Job may say about it
//! - [`indexes`]: the small language of completion indexes, `1,3-5`

pub mod cron_job;
mod indexes;
pub mod job;
mod policies;
mod spec;
mod status;

use k8s_openapi::api::batch::v1::JobSpec;

use super::core::pod::warnings;
use super::format;
use crate::api::field::{FieldError, Path, Reason};
use crate::server::registry::metadata::or_default;

/// Above this many completions, and with this many pods at once, failed indexes may be too many to write down.
const MANY_COMPLETIONS: i32 = 100_000;
const MANY_PODS: i32 = 10_000;

/// An error about a field whose value says nothing.
fn wrong(path: &Path, detail: &str) -> FieldError {
    FieldError { reason: Reason::Invalid, path: path.clone(), message: format!("Invalid value: {detail}") }
}

fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// A pattern of a condition that names no status means a true one.
fn condition_patterns(spec: &mut JobSpec) {
    let rules = spec.pod_failure_policy.iter_mut().flat_map(|p| &mut p.rules);
    for pattern in rules.flat_map(|r| r.on_pod_conditions.iter_mut().flatten()) {
        if pattern.status.as_deref().unwrap_or_default().is_empty() {
            pattern.status = Some("True".into());
        }
    }
}

/// `path` is that of the Job's spec, `name` that of the Job or CronJob.
fn warn(path: &Path, name: &str, spec: &JobSpec) -> Vec<String> {
    let mut found = Vec::new();
    let problems = format::dns_label(name);
    if !problems.is_empty() {
        found.push(format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS \
             label is recommended: [{}]",
            problems.join(" ")
        ));
    }
    let (completions, parallelism) = (spec.completions.unwrap_or_default(), spec.parallelism.unwrap_or_default());
    if is_indexed(spec) && completions > MANY_COMPLETIONS && parallelism > MANY_PODS {
        found.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than \
             10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    let annotations = spec.template.metadata.as_ref().and_then(|m| m.annotations.as_ref());
    let pod = or_default(spec.template.spec.as_ref());
    found.extend(warnings::of(&path.child("template"), &pod, annotations));
    found
}

#[cfg(test)]
mod tests;
