//! Decides: the two policies of a Job: which failures of pods count, and when enough has succeeded.

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule, SuccessPolicy, SuccessPolicyRule,
};

use super::{indexes, is_indexed, wrong};
use crate::api::field::{FieldError, Path};
use crate::server::registry::format;
use crate::server::registry::metadata::{Errors, invalid, not_negative, shown};

const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const MAX_CONDITIONS: usize = 20;
/// `succeededIndexes` of a rule, in bytes.
const MAX_INDEXES: usize = 64 * 1024;

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: &[&str] = &["In", "NotIn"];
const STATUSES: &[&str] = &["False", "True", "Unknown"];

/// A word of a few. Upstream lists them as Go prints a list when the word is missing.
fn one_of(errors: &mut Errors, path: &Path, value: &str, known: &[&str]) {
    if value.is_empty() {
        let list: Vec<String> = known.iter().map(|k| format!("{k:?}")).collect();
        errors.push(FieldError::required(path, &format!("valid values: [{}]", list.join(" "))));
    } else if !known.contains(&value) {
        errors.push(FieldError::not_supported(path, &value, known));
    }
}

pub fn failure(errors: &mut Errors, path: &Path, spec: &JobSpec, policy: &PodFailurePolicy) {
    let rules = path.child("rules");
    if policy.rules.len() > MAX_RULES {
        errors.push(FieldError::too_many(&rules, policy.rules.len(), MAX_RULES));
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        failure_rule(errors, &rules.index(i), spec, rule);
    }
}

fn failure_rule(errors: &mut Errors, path: &Path, spec: &JobSpec, rule: &PodFailurePolicyRule) {
    let action = path.child("action");
    if rule.action == "FailIndex" && spec.backoff_limit_per_index.is_none() {
        errors.push(FieldError::invalid(&action, &rule.action, "requires the backoffLimitPerIndex to be set"));
    }
    one_of(errors, &action, &rule.action, ACTIONS);
    if let Some(codes) = &rule.on_exit_codes {
        exit_codes(errors, &path.child("onExitCodes"), spec, codes);
    }
    let conditions = rule.on_pod_conditions.as_deref().unwrap_or_default();
    pod_conditions(errors, &path.child("onPodConditions"), conditions);
    match (rule.on_exit_codes.is_some(), !conditions.is_empty()) {
        (true, true) => {
            errors.push(wrong(path, "specifying both OnExitCodes and OnPodConditions is not supported"));
        }
        (false, false) => {
            errors.push(wrong(path, "specifying one of OnExitCodes and OnPodConditions is required"));
        }
        _ => {}
    }
}

fn pod_conditions(errors: &mut Errors, path: &Path, patterns: &[PodFailurePolicyOnPodConditionsPattern]) {
    if patterns.len() > MAX_CONDITIONS {
        errors.push(FieldError::too_many(path, patterns.len(), MAX_CONDITIONS));
    }
    for (i, pattern) in patterns.iter().enumerate() {
        let at = path.index(i);
        invalid(errors, &at.child("type"), &pattern.type_, format::qualified_name(&pattern.type_));
        one_of(errors, &at.child("status"), pattern.status.as_deref().unwrap_or_default(), STATUSES);
    }
}

fn exit_codes(errors: &mut Errors, path: &Path, spec: &JobSpec, requirement: &PodFailurePolicyOnExitCodesRequirement) {
    one_of(errors, &path.child("operator"), &requirement.operator, OPERATORS);
    if let Some(name) = &requirement.container_name {
        let pod = spec.template.spec.iter();
        let mut containers = pod.flat_map(|p| p.containers.iter().chain(p.init_containers.iter().flatten()));
        if !containers.any(|c| c.name == *name) {
            let message = "must be one of the container or initContainer names in the pod template";
            errors.push(FieldError::invalid(&path.child("containerName"), name, message));
        }
    }
    let (at, values) = (path.child("values"), &requirement.values);
    if values.is_empty() {
        errors.push(FieldError::invalid(&at, &shown(values), "at least one value is required"));
    } else if values.len() > MAX_EXIT_CODES {
        // Nor is each of them compared with all others then.
        errors.push(FieldError::too_many(&at, values.len(), MAX_EXIT_CODES));
        return;
    }
    for (i, value) in values.iter().enumerate() {
        if requirement.operator == "In" && *value == 0 {
            errors.push(FieldError::invalid(&at.index(i), value, "must not be 0 for the In operator"));
        }
        if values[..i].contains(value) {
            errors.push(FieldError::duplicate(&at.index(i), value));
        }
    }
    if !values.is_sorted() {
        errors.push(FieldError::invalid(&at, &shown(values), "must be ordered"));
    }
}

pub fn success(errors: &mut Errors, path: &Path, spec: &JobSpec, policy: &SuccessPolicy) {
    if !is_indexed(spec) {
        errors.push(FieldError::invalid(path, &shown(policy), "requires indexed completion mode"));
        return;
    }
    let rules = path.child("rules");
    if policy.rules.is_empty() {
        let message = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(&rules, message));
    }
    if policy.rules.len() > MAX_RULES {
        errors.push(FieldError::too_many(&rules, policy.rules.len(), MAX_RULES));
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        success_rule(errors, &rules.index(i), spec.completions.unwrap_or_default(), rule);
    }
}

fn success_rule(errors: &mut Errors, path: &Path, completions: i32, rule: &SuccessPolicyRule) {
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        let message = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(FieldError::required(path, message));
    }
    let mut listed = 0;
    if let Some(text) = &rule.succeeded_indexes {
        let at = path.child("succeededIndexes");
        if text.len() > MAX_INDEXES {
            errors.push(FieldError::too_long(&at, MAX_INDEXES));
        }
        match indexes::count(text, completions) {
            Ok(count) => listed = count,
            Err(problem) => {
                errors.push(FieldError::invalid(&at, text, &format!("error parsing succeededIndexes: {problem}")));
            }
        }
    }
    let Some(count) = rule.succeeded_count else { return };
    let at = path.child("succeededCount");
    not_negative(errors, &at, i64::from(count));
    if count > completions {
        let message = format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.push(FieldError::invalid(&at, &count, &message));
    }
    if rule.succeeded_indexes.is_some() && count > listed {
        let message = format!(
            "must be less than or equal to {listed} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.push(FieldError::invalid(&at, &count, &message));
    }
}
