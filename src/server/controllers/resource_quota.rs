//! Decides: the status of a quota says what its namespace uses of it. Measured by the server's own ledger, so that what is
//! told and what is refused are one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde_json::{Map, Value, json};

use super::action::{Controller, Enqueue, Moment, Name, Plan};
use super::stores::{Stores, row, subscribe_all};
use crate::api::quota::{Amounts, Measure, Measured};
use crate::client::request::{Request, Verb};

/// A status follows at once, and then at most this often: of a thousand objects that are made together it is written a
/// few times, not a thousand.
const PAUSE: SignedDuration = SignedDuration::from_millis(500);

pub struct ResourceQuotas {
    measure: Measure,
    /// When each status was written last.
    written: Mutex<HashMap<Name, Timestamp>>,
}

impl ResourceQuotas {
    #[must_use]
    pub fn new(measure: Measure) -> Self {
        Self { measure, written: Mutex::default() }
    }
}

impl Controller for ResourceQuotas {
    fn name(&self) -> &'static str {
        "resourcequota"
    }

    /// Any change in a namespace may be one of what its quotas count.
    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let (queue, quotas) = (enqueue.clone(), Arc::clone(&stores.resource_quotas));
        subscribe_all(stores, move |_, old, new| {
            let Some(namespace) = old.or(new).map(|o| o.namespace()).filter(|n| !n.is_empty()) else { return };
            for quota in quotas.list(namespace) {
                queue.add(namespace, quota.metadata.name.as_deref().unwrap_or_default());
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let measured = self.measure.quota(&key.namespace, &key.name);
        let (Some(quota), Some(measured)) = (stores.resource_quotas.get(&key.namespace, &key.name), measured) else {
            written.remove(key);
            return plan;
        };
        if let Some(until) = measured.until {
            let left = Duration::try_from(until.duration_since(moment.now)).unwrap_or_default();
            plan.look_after(left + Duration::from_secs(1));
        }
        if let Some(status) = patch(&quota, &measured) {
            // After a failure the driver waits by itself.
            let last = written.get(key).filter(|_| moment.failure.is_none());
            let since = last.map(|last| moment.now.duration_since(*last));
            if let Some(since) = since.filter(|since| !since.is_negative() && *since < PAUSE) {
                plan.look_after(Duration::try_from(PAUSE - since).unwrap_or_default());
                return plan;
            }
            written.insert(key.clone(), moment.now);
            let body = json!({"metadata": {"uid": quota.metadata.uid}, "status": status});
            let request = Request::new(Verb::MergePatch, row("resourcequotas"), &key.namespace, &key.name, body);
            plan.push(request.on("status"));
        }
        plan
    }
}

/// What has to change of the status, if anything has.
fn patch(quota: &ResourceQuota, measured: &Measured) -> Option<Value> {
    let status = quota.status.clone().unwrap_or_default();
    let hard = changes(&status.hard.unwrap_or_default(), &measured.hard);
    let used = changes(&status.used.unwrap_or_default(), &measured.used);
    (!hard.is_empty() || !used.is_empty()).then(|| json!({"hard": hard, "used": used}))
}

/// A merge patch from one list to the other.
fn changes(there: &BTreeMap<String, Text>, wanted: &Amounts) -> Map<String, Value> {
    let gone = there.keys().filter(|name| !wanted.contains_key(*name)).map(|name| (name.clone(), Value::Null));
    let texts = wanted.iter().map(|(name, amount)| (name, amount.to_string()));
    let new = texts.filter(|(name, text)| there.get(*name).is_none_or(|t| t.0 != *text));
    gone.chain(new.map(|(name, text)| (name.clone(), text.into()))).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ResourceQuotaStatus;

    use super::*;
    use crate::api::quantity::Quantity;
    use crate::server::controllers::action::Action;

    fn amounts(list: &[(&str, &str)]) -> Amounts {
        list.iter().map(|(name, q)| ((*name).to_owned(), Quantity::parse(q).unwrap())).collect()
    }

    fn plan(status: Value, measured: Measured) -> Plan {
        let stores = Stores::new();
        let status: ResourceQuotaStatus = serde_json::from_value(status).unwrap();
        let quota = json!({"metadata": {"name": "q", "namespace": "x", "uid": "u"}, "status": status});
        stores.resource_quotas.put(serde_json::from_value(quota).unwrap());
        let measure = Measure::new(move |_, _| Some(measured.clone()));
        ResourceQuotas::new(measure).plan(
            &stores,
            &Name::new("x", "q"),
            Moment { now: Timestamp::UNIX_EPOCH, failure: None },
        )
    }

    fn check(status: Value, hard: &[(&str, &str)], used: &[(&str, &str)], expect: Value) {
        let plan = plan(status, Measured { hard: amounts(hard), used: amounts(used), until: None });
        let written = plan.actions.first().map_or(Value::Null, |action| match action {
            Action::Write(write) => write.request.body["status"].clone(),
            _ => panic!("{action:?}"),
        });
        assert_eq!(written, expect);
    }

    #[test]
    fn a_status_is_written_when_it_says_something_else() {
        let (hard, used) = (&[("cpu", "1"), ("pods", "5")], &[("cpu", "500m"), ("pods", "0")]);
        let all = json!({"hard": {"cpu": "1", "pods": "5"}, "used": {"cpu": "500m", "pods": "0"}});
        check(json!({}), hard, used, all.clone());
        check(all, hard, used, Value::Null);
        check(
            json!({"hard": {"cpu": "1", "memory": "1Gi"}, "used": {"cpu": "1", "memory": "0"}}),
            hard,
            used,
            json!({"hard": {"memory": null, "pods": "5"}, "used": {"cpu": "500m", "memory": null, "pods": "0"}}),
        );
    }

    #[test]
    fn a_status_is_not_written_all_the_time() {
        let stores = Stores::new();
        let quota = json!({"metadata": {"name": "q", "namespace": "x", "uid": "u"}});
        stores.resource_quotas.put(serde_json::from_value(quota).unwrap());
        let measured = Measured { hard: amounts(&[("cpu", "1")]), ..Measured::default() };
        let controller = ResourceQuotas::new(Measure::new(move |_, _| Some(measured.clone())));
        let at = |milliseconds: i64| {
            let now = Timestamp::from_millisecond(milliseconds).unwrap();
            controller.plan(&stores, &Name::new("x", "q"), Moment { now, failure: None })
        };
        assert_eq!((at(1000).actions.len(), at(1000).actions.len()), (1, 0));
        assert_eq!(at(1100).again, Some(Duration::from_millis(400)));
        assert_eq!(at(1500).actions.len(), 1);
        // A clock that was set back holds nothing up.
        assert_eq!(at(100).actions.len(), 1);
    }

    #[test]
    fn it_looks_again_when_a_pod_stops_to_count() {
        let until = Some(Timestamp::from_second(30).unwrap());
        let plan = plan(json!({}), Measured { until, ..Measured::default() });
        assert_eq!((plan.actions.len(), plan.again), (0, Some(Duration::from_secs(31))));
    }
}
