//! Decides: a Job that names a time to live is deleted so long after it has ended, and its pods with it.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::Job;

use super::action::{Controller, Enqueue, Moment, Name, Plan, Write};
use super::job::ending;
use super::stores::{Stores, row};
use crate::client::request::Request;
use crate::client::store::Meta as _;

/// As upstream: the Job is there until its pods are gone.
const PROPAGATION: &str = "Foreground";

pub struct TtlAfterFinished;

impl Controller for TtlAfterFinished {
    fn name(&self) -> &'static str {
        "ttl-after-finished"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.jobs.subscribe(move |change| {
            let has_ttl = |job: &&Arc<Job>| job.spec.as_ref().is_some_and(|s| s.ttl_seconds_after_finished.is_some());
            for job in change.new.into_iter().filter(has_ttl) {
                queue.add(job.metadata.namespace(), job.metadata.name());
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        stores.jobs.get(&key.namespace, &key.name).map_or_else(Plan::nothing, |job| plan(&job, moment))
    }
}

/// Deletes the Job, or says when.
#[must_use]
pub fn plan(job: &Job, moment: Moment<'_>) -> Plan {
    let mut plan = Plan::default();
    let meta = &job.metadata;
    let Some(left) = time_left(job, moment).filter(|_| meta.deletion_timestamp.is_none()) else { return plan };
    if left.is_positive() {
        plan.look_after(Duration::try_from(left).unwrap_or_default());
        return plan;
    }
    let mut request = Request::delete(row("batch/jobs"), meta.namespace(), meta.name(), meta.uid());
    request.body["propagationPolicy"] = PROPAGATION.into();
    // As it was seen: its time to live may have been prolonged.
    request.body["preconditions"]["resourceVersion"] = meta.resource_version.clone().into();
    plan.push(Write::delete(request));
    plan
}

/// `None` for a Job that has not ended, or says not when, or may stay.
fn time_left(job: &Job, moment: Moment<'_>) -> Option<SignedDuration> {
    let ttl = SignedDuration::from_secs(job.spec.as_ref()?.ttl_seconds_after_finished?.into());
    let ended = ending::finished(job.status.as_ref()?)?.last_transition_time.as_ref()?.0;
    ttl.checked_sub(moment.now.duration_since(ended))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::server::controllers::action::Action;

    /// A Job that ended at noon and may stay for a hundred seconds; `more` is merged over it.
    fn job(more: Value) -> Job {
        let mut job = json!({
            "metadata": { "namespace": "ns", "name": "j", "uid": "u", "resourceVersion": "7" },
            "spec": { "ttlSecondsAfterFinished": 100, "template": {} },
            "status": { "conditions": [
                { "type": "FailureTarget", "status": "True", "lastTransitionTime": "2026-01-01T11:00:00Z" },
                { "type": "Failed", "status": "True", "lastTransitionTime": "2026-01-01T12:00:00Z" },
            ] },
        });
        json_patch::merge(&mut job, &more);
        serde_json::from_value(job).unwrap()
    }

    fn check(now: &str, more: Value, deleted: bool, again: Option<u64>) -> Plan {
        let plan = plan(&job(more), Moment { now: now.parse().unwrap(), failure: None });
        assert_eq!((plan.actions.len() == 1, plan.again.map(|d| d.as_secs())), (deleted, again), "{now}");
        plan
    }

    #[test]
    fn a_job_goes_exactly_when_its_time_is_over() {
        check("2026-01-01T12:00:00Z", json!({}), false, Some(100));
        check("2026-01-01T12:01:39Z", json!({}), false, Some(1));
        let plan = check("2026-01-01T12:01:40Z", json!({}), true, None);
        let Action::Write(write) = &plan.actions[0] else { panic!("{plan:?}") };
        let wanted =
            json!({ "preconditions": { "uid": "u", "resourceVersion": "7" }, "propagationPolicy": "Foreground" });
        assert_eq!(write.request.body, wanted);
        check("2026-01-01T12:00:00Z", json!({ "spec": { "ttlSecondsAfterFinished": 0 } }), true, None);
        // The clock was set back.
        check("2026-01-01T11:59:00Z", json!({}), false, Some(160));
    }

    #[test]
    fn a_job_stays_that_runs_or_ends_or_has_no_time_to_live() {
        let late = "2027-01-01T00:00:00Z";
        check(late, json!({ "spec": { "ttlSecondsAfterFinished": null } }), false, None);
        check(late, json!({ "status": null }), false, None);
        let target =
            json!([{ "type": "FailureTarget", "status": "True", "lastTransitionTime": "2026-01-01T11:00:00Z" }]);
        check(late, json!({ "status": { "conditions": target } }), false, None);
        check(late, json!({ "metadata": { "deletionTimestamp": late } }), false, None);
        let complete = json!([{ "type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T11:00:00Z" }]);
        check(late, json!({ "status": { "conditions": complete } }), true, None);
    }
}
