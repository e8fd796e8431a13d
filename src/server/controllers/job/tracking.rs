//! Decides: how the ends of pods are counted: each exactly once, whatever is lost in between.
//!
//! ```text
//! a pod ends ─▶ its uid is in uncountedTerminatedPods ─▶ it loses the finalizer ─▶ it is in `succeeded` or `failed`,
//!               (an indexed one: in completedIndexes)                               and no longer uncounted
//! ```
//!
//! Each step is seen before the next one is planned, or comes after it in the same plan, so each can be repeated.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{JobCondition, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::ending::Ending;
use super::policy::Verdict;
use super::view::{View, is_tracked};
use crate::client::request::{Class, Request, Verb};
use crate::client::store::Meta as _;
use crate::server::controllers::action::Write;
use crate::server::controllers::owners::whole_second;
use crate::server::controllers::pods;
use crate::server::controllers::stores::row;

/// Pods written down in one plan: their uids stay below 20 kB (upstream's `MaxUncountedPods`).
const MOST_UNCOUNTED: usize = 500;

/// Counts in `status` what has lost its finalizer, and writes down what has ended. Returns the pods that may lose it when
/// `status` is written, and whether some had to be left for the next time.
pub fn track<'a>(view: &View<'a>, ending: Option<&Ending>, status: &mut JobStatus) -> (Vec<&'a Arc<Pod>>, bool) {
    let mut uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
    count(view, status, &mut uncounted);
    let (mut untrack, mut done, mut full) = (Vec::new(), 0, false);
    for pod in view.pods.iter().copied().filter(|p| is_tracked(p) && may_go(view, ending, p)) {
        untrack.push(pod);
        let uid = pod.metadata.uid();
        let failed_before = view.uncounted_failed.contains(uid);
        if pods::phase(pod) == "Succeeded" && !failed_before {
            if view.is_indexed() {
                // The index is enough to count it once.
                done += usize::from(view.place(pod).is_some_and(|index| !view.completed_before.has(index)));
            } else if !view.uncounted_succeeded.contains(uid) {
                uncounted.succeeded.get_or_insert_default().push(uid.to_owned());
            }
        } else if view.is_failed(pod) || ending.is_some_and(|e| !e.success) {
            // Of a Job that fails every pod has failed that has not succeeded.
            if !failed_before && view.has_place(pod) && view.verdict(pod) != Verdict::Ignore {
                uncounted.failed.get_or_insert_default().push(uid.to_owned());
            }
        }
        if done + waiting(&uncounted) >= MOST_UNCOUNTED {
            full = true;
            break;
        }
    }
    if view.is_indexed() {
        status.succeeded = Some(view.completed.total());
        status.completed_indexes = Some(view.completed.to_string());
        status.failed_indexes = view.failed_indexes.as_ref().map(ToString::to_string);
    }
    status.uncounted_terminated_pods = Some(uncounted);
    (untrack, full)
}

fn waiting(uncounted: &UncountedTerminatedPods) -> usize {
    uncounted.succeeded.iter().chain(&uncounted.failed).map(Vec::len).sum()
}

/// Whether every pod that was written down is counted.
#[must_use]
pub fn all_counted(status: &JobStatus) -> bool {
    status.uncounted_terminated_pods.as_ref().is_none_or(|u| waiting(u) == 0)
}

/// Those whose finalizer is gone have their number.
fn count(view: &View<'_>, status: &mut JobStatus, uncounted: &mut UncountedTerminatedPods) {
    let tracked: HashSet<&str> = view.pods.iter().filter(|p| is_tracked(p)).map(|p| p.metadata.uid()).collect();
    for (list, counter) in
        [(&mut uncounted.succeeded, &mut status.succeeded), (&mut uncounted.failed, &mut status.failed)]
    {
        let Some(list) = list else { continue };
        let before = list.len();
        list.retain(|uid| tracked.contains(uid.as_str()));
        let gone = i32::try_from(before - list.len()).unwrap_or(i32::MAX);
        *counter = Some(counter.unwrap_or(0).saturating_add(gone));
    }
}

/// Whether a pod's end is known, or does not matter any more.
fn may_go(view: &View<'_>, ending: Option<&Ending>, pod: &Arc<Pod>) -> bool {
    if view.job.metadata.deletion_timestamp.is_some() || ending.is_some() || pods::phase(pod) == "Succeeded" {
        return true;
    }
    let kept = || view.replaced.values().any(|p| p.metadata.uid == pod.metadata.uid);
    view.is_failed(pod) && !kept()
}

/// Takes the finalizer away, and whatever else happens to the list of finalizers, nothing else.
#[must_use]
pub fn untrack(pod: &Pod) -> Write {
    let meta = &pod.metadata;
    let body =
        json!({ "metadata": { "uid": meta.uid, "$deleteFromPrimitiveList/finalizers": [super::view::TRACKING] } });
    let mut write = Write::new(Request::new(Verb::StrategicPatch, row("pods"), meta.namespace(), meta.name(), body));
    // Gone, or another pod of that name.
    write.fine = &[Class::NotFound, Class::Conflict];
    write
}

/// Sets a condition; true when that is something new. None is added to say that it is false.
pub fn set_condition(status: &mut JobStatus, kind: &str, is: bool, because: (&str, &str), now: &Time) -> bool {
    let value = if is { "True" } else { "False" };
    let wanted = JobCondition {
        type_: kind.into(),
        status: value.into(),
        reason: Some(because.0.into()),
        message: Some(because.1.into()),
        last_probe_time: Some(now.clone()),
        last_transition_time: Some(now.clone()),
    };
    let same = |c: &JobCondition| c.status == value && c.reason == wanted.reason && c.message == wanted.message;
    match status.conditions.iter_mut().flatten().find(|c| c.type_ == kind) {
        Some(there) if same(there) => false,
        Some(there) => {
            *there = wanted;
            true
        }
        None if !is => false,
        None => {
            status.conditions.get_or_insert_default().push(wanted);
            true
        }
    }
}

/// The write that makes `status` the Job's, if it differs from `old`.
#[must_use]
pub fn write(view: &View<'_>, old: &JobStatus, status: &JobStatus) -> Option<Write> {
    let wanted = full(status);
    if full(old) == wanted {
        return None;
    }
    Some(Write::status(row("batch/jobs"), &view.job.metadata, wanted))
}

/// A merge patch keeps what it does not name, so all is named, and what is empty is null.
fn full(status: &JobStatus) -> Value {
    let number = |n: Option<i32>| n.filter(|n| *n != 0);
    let list = |of: Option<&Vec<String>>| of.filter(|l| !l.is_empty()).cloned();
    let uncounted = status.uncounted_terminated_pods.as_ref();
    json!({
        "active": number(status.active),
        "ready": status.ready,
        "terminating": status.terminating,
        "succeeded": number(status.succeeded),
        "failed": number(status.failed),
        "completedIndexes": status.completed_indexes.as_ref().filter(|text| !text.is_empty()),
        "failedIndexes": status.failed_indexes,
        "startTime": status.start_time,
        "completionTime": status.completion_time,
        "conditions": status.conditions,
        "uncountedTerminatedPods": {
            "succeeded": list(uncounted.and_then(|u| u.succeeded.as_ref())),
            "failed": list(uncounted.and_then(|u| u.failed.as_ref())),
        },
    })
}

/// Writes down how the Job ends; the end itself when nothing is left to wait for. True for the latter.
pub fn conclude(view: &View<'_>, ending: &Ending, at_rest: bool, status: &mut JobStatus) -> bool {
    let now = whole_second(view.now);
    let because = (ending.reason.as_str(), ending.message.as_str());
    if !ending.decided {
        set_condition(status, ending.interim(), true, because, &now);
        return false;
    }
    if !at_rest || !all_counted(status) || status.terminating.unwrap_or(0) > 0 {
        return false;
    }
    set_condition(status, ending.terminal(), true, because, &now);
    // The server wants to know of a start, and none after the end. One that is suspended has none yet, and a clock may
    // have been set back.
    let start = status.start_time.get_or_insert_with(|| now.clone()).clone();
    if ending.success {
        status.completion_time = Some(now.max(start));
    }
    true
}
