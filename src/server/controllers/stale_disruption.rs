//! Decides: a pod that was to be evicted, and was not, is no longer marked so (upstream's `stalePodDisruptionWorker`).

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::action::{Controller, Enqueue, Moment, Name, Plan, Write};
use super::stores::{Stores, row};
use super::{owners, pods};
use crate::client::request::{Class, Request, Verb};
use crate::client::store::Meta as _;

const DISRUPTION_TARGET: &str = "DisruptionTarget";
/// A kubelet may take any time to end what it has marked.
const BY_KUBELET: &str = "TerminationByKubelet";
const TIMEOUT: SignedDuration = SignedDuration::from_mins(2);

/// Keys are pods.
pub struct StaleDisruption;

impl Controller for StaleDisruption {
    fn name(&self) -> &'static str {
        "stale-disruption"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.pods.subscribe(move |change| {
            if let Some(pod) = change.new.filter(|p| stale_since(p).is_some()) {
                queue.add(pod.metadata.namespace(), pod.metadata.name());
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        stores.pods.get(&key.namespace, &key.name).map_or_else(Plan::nothing, |pod| plan(&pod, moment.now))
    }
}

/// When a pod that lives was marked as one that will not.
fn stale_since(pod: &Pod) -> Option<Timestamp> {
    let marked = pods::condition(pod, DISRUPTION_TARGET).filter(|c| c.status == "True")?;
    let lasts = pods::is_active(pod) && marked.reason.as_deref() != Some(BY_KUBELET);
    lasts.then(|| marked.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0))
}

#[must_use]
pub fn plan(pod: &Pod, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(since) = stale_since(pod) else { return plan };
    let due = since.checked_add(TIMEOUT).unwrap_or(Timestamp::MAX);
    if now < due {
        plan.look_after(Duration::try_from(due.duration_since(now)).unwrap_or_default());
        return plan;
    }
    let meta = &pod.metadata;
    let body = json!({ "metadata": { "uid": meta.uid }, "status": { "conditions": [{
        "type": DISRUPTION_TARGET, "status": "False", "reason": null, "message": null,
        "lastTransitionTime": owners::whole_second(now) }] } });
    let patch = Request::new(Verb::StrategicPatch, row("pods"), meta.namespace(), meta.name(), body).on("status");
    plan.push(Write { fine: &[Class::NotFound, Class::Conflict], ..Write::new(patch) });
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::server::controllers::action::Action;

    /// The state of a pod marked at second 1000; what it is told, or when it is looked at again.
    fn check(more: Value, at: i64, want: Result<Option<u64>, &str>) {
        let mut pod = json!({ "metadata": { "name": "p", "namespace": "ns", "uid": "u" }, "status": { "phase": "Running",
            "conditions": [{ "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                "lastTransitionTime": "1970-01-01T00:16:40Z" }] } });
        for (place, value) in more.as_object().unwrap() {
            let (parent, key) = place.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        let plan = plan(&serde_json::from_value(pod).unwrap(), Timestamp::from_second(at).unwrap());
        let got = match &plan.actions[..] {
            [] => Ok(plan.again.map(|d| d.as_secs())),
            [Action::Write(write)] => Err(write.request.body["status"]["conditions"][0].to_string()),
            other => panic!("{other:?}"),
        };
        assert_eq!(got, want.map_err(str::to_owned), "{more} at {at}");
    }

    #[test]
    fn an_eviction_that_came_to_nothing_is_forgotten() {
        let cleared = r#"{"lastTransitionTime":"1970-01-01T00:18:40Z","message":null,"reason":null,"status":"False","type":"DisruptionTarget"}"#;
        check(json!({}), 1001, Ok(Some(119)));
        check(json!({}), 1120, Err(cleared));
        check(json!({ "/status/conditions/0/reason": "TerminationByKubelet" }), 1120, Ok(None));
        check(json!({ "/status/conditions/0/status": "False" }), 1120, Ok(None));
        check(json!({ "/status/phase": "Failed" }), 1120, Ok(None));
        check(json!({ "/metadata/deletionTimestamp": "1970-01-01T00:16:50Z" }), 1120, Ok(None));
        check(json!({ "/status/conditions": [] }), 1120, Ok(None));
    }
}
