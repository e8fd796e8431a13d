//! Decides: the status of a ReplicaSet, and when it will change by the clock alone.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::super::action::{Action, Moment, Plan, Write};
use super::super::{owners, pods};
use super::{Observed, ReplicaSetController};
use crate::client::request::Class;

/// The status write, if the status differs. Asks `plan` to look again when a pod becomes available by waiting.
pub fn plan(
    Observed { of, set, .. }: &Observed,
    active: &[&Arc<Pod>],
    terminating: i32,
    moment: Moment<'_>,
    plan: &mut Plan,
) -> Option<Action> {
    // A ReplicationController does not count those that end.
    let terminating = (*of == ReplicaSetController::ReplicaSets).then_some(terminating);
    let wanted = calculate(set, active, terminating, moment, plan);
    if set.status.as_ref().is_some_and(|s| same(s, &wanted)) {
        return None;
    }
    Some(Write::status(of.resource(), &set.metadata, full(&wanted)).into())
}

/// A merge patch keeps what it does not name, so counts that became zero are written as zero and no conditions as null.
fn full(status: &ReplicaSetStatus) -> serde_json::Value {
    json!({
        "replicas": status.replicas,
        "fullyLabeledReplicas": status.fully_labeled_replicas,
        "readyReplicas": status.ready_replicas,
        "availableReplicas": status.available_replicas,
        "terminatingReplicas": status.terminating_replicas,
        "observedGeneration": status.observed_generation,
        "conditions": status.conditions,
    })
}

/// Absent and zero are the same count.
fn same(a: &ReplicaSetStatus, b: &ReplicaSetStatus) -> bool {
    let key = |s: &ReplicaSetStatus| {
        (
            s.replicas,
            s.fully_labeled_replicas.unwrap_or(0),
            s.ready_replicas.unwrap_or(0),
            s.available_replicas.unwrap_or(0),
            s.terminating_replicas.unwrap_or(0),
            s.observed_generation.unwrap_or(0),
            s.conditions.clone().unwrap_or_default(),
        )
    };
    key(a) == key(b)
}

fn calculate(
    set: &ReplicaSet,
    active: &[&Arc<Pod>],
    terminating: Option<i32>,
    moment: Moment<'_>,
    plan: &mut Plan,
) -> ReplicaSetStatus {
    let spec = set.spec.clone().unwrap_or_default();
    let template = spec.template.as_ref().and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.as_ref());
    let (mut labeled, mut ready, mut available) = (0, 0, 0);
    for pod in active {
        let labels = pod.metadata.labels.as_ref();
        let has = |k: &String, v: &String| labels.and_then(|l| l.get(k)) == Some(v);
        labeled += i32::from(template.is_none_or(|t| t.iter().all(|(k, v)| has(k, v))));
        ready += i32::from(pods::is_ready(pod));
        match pods::available_in(pod, spec.min_ready_seconds.unwrap_or(0), moment.now) {
            Some(wait) if wait.is_zero() => available += 1,
            Some(wait) => plan.look_after(wait),
            None => {}
        }
    }
    ReplicaSetStatus {
        replicas: i32::try_from(active.len()).unwrap_or(i32::MAX),
        fully_labeled_replicas: Some(labeled),
        ready_replicas: Some(ready),
        available_replicas: Some(available),
        terminating_replicas: terminating,
        observed_generation: set.metadata.generation,
        conditions: conditions(set, active.len(), moment),
    }
}

/// `ReplicaFailure` is there exactly while pods cannot be made or removed.
fn conditions(set: &ReplicaSet, have: usize, moment: Moment<'_>) -> Option<Vec<ReplicaSetCondition>> {
    let old = set.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let wanted = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    let have = i32::try_from(have).unwrap_or(i32::MAX);
    let failure = moment.failure.filter(|f| have != wanted && f.class != Class::Conflict && f.class != Class::NotFound);
    let mut conditions: Vec<_> = old.iter().filter(|c| c.type_ != "ReplicaFailure").cloned().collect();
    if let Some(failure) = failure {
        let before = old.into_iter().find(|c| c.type_ == "ReplicaFailure");
        let now = owners::whole_second(moment.now);
        conditions.push(before.unwrap_or_else(|| ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(if have < wanted { "FailedCreate" } else { "FailedDelete" }.into()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(now),
        }));
    }
    (!conditions.is_empty()).then_some(conditions)
}
