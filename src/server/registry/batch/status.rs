//! Decides: what the status of a Job may say. Anyone may run a Job (`managedBy`), so what clients count on is checked
//! here: a Job that has finished stays finished, and has nothing left that runs.
//!
//! A rule applies only when something that it is about changed: a status that broke it before can still be written, and
//! a change of the spec leaves the controller time to catch up.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};

use super::{indexes, is_indexed, wrong};
use crate::api::field::{FieldError, Path};
use crate::server::registry::metadata::{Errors, not_negative, or_default, shown};

const COMPLETE: &str = "Complete";
const FAILED: &str = "Failed";
const FAILURE_TARGET: &str = "FailureTarget";
const SUCCESS_CRITERIA: &str = "SuccessCriteriaMet";

/// Whether a condition is there and true.
pub fn is(status: &JobStatus, condition: &str) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == condition && c.status == "True")
}

fn finished(status: &JobStatus) -> bool {
    is(status, COMPLETE) || is(status, FAILED)
}

pub fn validate(new: &Job, old: &Job) -> Errors {
    let mut errors = Vec::new();
    let spec = or_default(new.spec.as_ref());
    let (new, old) = (or_default(new.status.as_ref()), or_default(old.status.as_ref()));
    let path = Path::new("status");
    counts(&mut errors, &path, &new);
    conditions(&mut errors, &path.child("conditions"), &spec, &new, &old);
    times(&mut errors, &path, &spec, &new, &old);
    leftovers(&mut errors, &path, &new, &old);
    indexed(&mut errors, &path, &spec, &new, &old);
    transitions(&mut errors, &path, &spec, &new, &old);
    errors
}

fn counts(errors: &mut Errors, path: &Path, status: &JobStatus) {
    for (field, value) in [
        ("active", status.active),
        ("succeeded", status.succeeded),
        ("failed", status.failed),
        ("ready", status.ready),
        ("terminating", status.terminating),
    ] {
        not_negative(errors, &path.child(field), i64::from(value.unwrap_or_default()));
    }
    let Some(pods) = &status.uncounted_terminated_pods else { return };
    let mut seen = BTreeSet::new();
    for (field, list) in [("succeeded", &pods.succeeded), ("failed", &pods.failed)] {
        for (i, uid) in list.iter().flatten().enumerate() {
            let at = path.child("uncountedTerminatedPods").child(field).index(i);
            if uid.is_empty() {
                errors.push(FieldError::invalid(&at, uid, "must not be empty"));
            } else if !seen.insert(uid) {
                errors.push(FieldError::duplicate(&at, uid));
            }
        }
    }
}

fn conditions(errors: &mut Errors, path: &Path, spec: &JobSpec, new: &JobStatus, old: &JobStatus) {
    let changed = |condition: &str| is(new, condition) != is(old, condition);
    let (complete, failed) = (is(new, COMPLETE), is(new, FAILED));
    let (target, enough) = (is(new, FAILURE_TARGET), is(new, SUCCESS_CRITERIA));
    for (refused, message) in [
        (
            complete && failed && (changed(COMPLETE) || changed(FAILED)),
            "cannot set Complete=True and Failed=true conditions",
        ),
        (
            complete && target && (changed(COMPLETE) || changed(FAILURE_TARGET)),
            "cannot set Complete=True and FailureTarget=true conditions",
        ),
        (
            failed && !target && (changed(FAILED) || new.failed_indexes != old.failed_indexes),
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            complete && !enough && (changed(COMPLETE) || changed(SUCCESS_CRITERIA)),
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (enough && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (enough && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
        (
            spec.success_policy.is_some() && complete && !enough,
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        ),
        (is(old, SUCCESS_CRITERIA) && !enough, "cannot disable the SuccessCriteriaMet=True condition"),
        (
            is(old, COMPLETE) && !is(old, SUCCESS_CRITERIA) && enough,
            "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
        ),
    ] {
        if refused {
            errors.push(wrong(path, message));
        }
    }
    for condition in [FAILED, COMPLETE, FAILURE_TARGET] {
        if is(old, condition) && !is(new, condition) {
            errors.push(wrong(path, &format!("cannot disable the terminal {condition}=True condition")));
        }
    }
}

fn times(errors: &mut Errors, path: &Path, spec: &JobSpec, new: &JobStatus, old: &JobStatus) {
    let (start, completion) = (path.child("startTime"), path.child("completionTime"));
    let complete = is(new, COMPLETE);
    let started = new.start_time != old.start_time;
    let completed = new.completion_time != old.completion_time;
    let mut refuse =
        |message: &str| errors.push(FieldError::invalid(&completion, &shown(&new.completion_time), message));
    if (complete != is(old, COMPLETE) || completed) && !complete && new.completion_time.is_some() {
        refuse("cannot set completionTime when there is no Complete=True condition");
    }
    if (started || completed)
        && new.start_time.as_ref().zip(new.completion_time.as_ref()).is_some_and(|(start, end)| end < start)
    {
        refuse("completionTime cannot be set before startTime");
    }
    if completed && new.completion_time.is_some() && old.completion_time.is_some() {
        refuse("completionTime cannot be mutated");
    }
    if (complete != is(old, COMPLETE) || completed) && complete && new.completion_time.is_none() {
        errors.push(FieldError::required(&completion, "completionTime is required for Complete jobs"));
    }
    // One that was never to run anything may finish without having started.
    let idle = spec.suspend == Some(true) && spec.completions == Some(0);
    if (finished(new) != finished(old) || started) && finished(new) && !idle && new.start_time.is_none() {
        errors.push(FieldError::required(&start, "startTime is required for finished job"));
    }
    let resumes =
        is(old, "Suspended") && new.conditions.iter().flatten().any(|c| c.type_ == "Suspended" && c.status == "False");
    if started && old.start_time.is_some() && spec.suspend != Some(true) && !resumes {
        errors.push(FieldError::required(&start, "startTime cannot be removed for unsuspended job"));
    }
}

/// What still runs, or still has to be counted.
fn leftovers(errors: &mut Errors, path: &Path, new: &JobStatus, old: &JobStatus) {
    let ends = finished(new) != finished(old);
    let active = new.active.unwrap_or_default();
    let activity = active != old.active.unwrap_or_default();
    if (ends || activity) && finished(new) && active > 0 {
        errors.push(FieldError::invalid(&path.child("active"), &active, "active>0 is invalid for finished job"));
    }
    let uncounted = &new.uncounted_terminated_pods;
    let left = uncounted.iter().flat_map(|u| u.succeeded.iter().chain(&u.failed)).any(|list| !list.is_empty());
    if (ends || *uncounted != old.uncounted_terminated_pods) && finished(new) && left {
        let message = "uncountedTerminatedPods needs to be empty for finished job";
        errors.push(FieldError::invalid(&path.child("uncountedTerminatedPods"), &shown(uncounted), message));
    }
    let terminating = new.terminating.unwrap_or_default();
    if (ends || new.terminating != old.terminating) && finished(new) && terminating > 0 {
        let message = "terminating>0 is invalid for finished job";
        errors.push(FieldError::invalid(&path.child("terminating"), &terminating, message));
    }
    if let Some(ready) = new.ready.filter(|r| (new.ready != old.ready || activity) && *r > active) {
        errors.push(FieldError::invalid(&path.child("ready"), &ready, "cannot set more ready pods than active"));
    }
}

fn indexed(errors: &mut Errors, path: &Path, spec: &JobSpec, new: &JobStatus, old: &JobStatus) {
    let completed = new.completed_indexes.as_deref().unwrap_or_default();
    let completed_changed = completed != old.completed_indexes.as_deref().unwrap_or_default();
    let failed_changed = new.failed_indexes != old.failed_indexes;
    let at = path.child("completedIndexes");
    if completed_changed {
        if let Some(Err(problem)) = spec.completions.map(|c| indexes::count(completed, c)) {
            errors.push(FieldError::invalid(&at, &completed, &format!("error parsing completedIndexes: {problem}")));
        }
        if !completed.is_empty() && !is_indexed(spec) {
            let message = "cannot set non-empty completedIndexes when non-indexed completion mode";
            errors.push(FieldError::invalid(&at, &completed, message));
        }
    }
    let Some(failed) = &new.failed_indexes else { return };
    let at = path.child("failedIndexes");
    if failed_changed {
        let limited = spec.backoff_limit_per_index.is_some();
        if let Some(Err(problem)) = spec.completions.filter(|_| limited).map(|c| indexes::count(failed, c)) {
            errors.push(FieldError::invalid(&at, failed, &format!("error parsing failedIndexes: {problem}")));
        }
        if !limited {
            let message = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            errors.push(FieldError::invalid(&at, failed, message));
        }
    }
    if (failed_changed || completed_changed)
        && let Some(index) = spec.completions.and_then(|c| indexes::overlap(completed, failed, c))
    {
        let message = format!("failedIndexes and completedIndexes overlap at index: {index}");
        errors.push(FieldError::invalid(&at, failed, &message));
    }
}

/// Counters that only grow. One that can be scaled down loses what it had completed above its new size.
fn transitions(errors: &mut Errors, path: &Path, spec: &JobSpec, new: &JobStatus, old: &JobStatus) {
    let elastic = is_indexed(spec) && spec.completions == spec.parallelism;
    for (field, now, before, grows) in
        [("failed", new.failed, old.failed, true), ("succeeded", new.succeeded, old.succeeded, !elastic)]
    {
        let now = now.unwrap_or_default();
        if grows && now < before.unwrap_or_default() {
            let message = format!("cannot decrease the {field} counter");
            errors.push(FieldError::invalid(&path.child(field), &now, &message));
        }
    }
}
