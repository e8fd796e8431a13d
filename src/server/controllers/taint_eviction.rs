//! Decides: pods leave nodes whose NoExecute taints they do not tolerate, or no longer.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use serde_json::json;

use super::action::{Action, Controller, Enqueue, Moment, Name, Note, Plan, Write};
use super::stores::{Stores, row};
use super::{owners, pods};
use crate::client::request::{Class, Request, Verb};

/// Keys are nodes.
pub struct TaintEviction;

fn evicting(node: &Node) -> Vec<&Taint> {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    taints.iter().filter(|t| t.effect == "NoExecute").collect()
}

impl Controller for TaintEviction {
    fn name(&self) -> &'static str {
        "taint-eviction"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.nodes.subscribe(move |change| {
            if change.each().any(|n| !evicting(n).is_empty())
                && let Some(node) = change.new
            {
                queue.add("", node.metadata.name.as_deref().unwrap_or_default());
            }
        });
        let (queue, nodes) = (enqueue.clone(), Arc::clone(&stores.nodes));
        stores.pods.subscribe(move |change| {
            let Some(pod) = change.new.filter(|p| !pods::node_name(p).is_empty()) else { return };
            let name = pods::node_name(pod);
            let moved = change.old.is_none_or(|old| pods::node_name(old) != name);
            if moved && nodes.get("", name).is_some_and(|n| !evicting(&n).is_empty()) {
                queue.add("", name);
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(node) = stores.nodes.get("", &key.name) else { return plan };
        let taints = evicting(&node);
        if taints.is_empty() {
            return plan;
        }
        for pod in stores.pods.all().iter().filter(|p| pods::node_name(p) == &*key.name) {
            if pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
            match stays(&taints, tolerations, moment.now) {
                Some(left) if left.is_zero() => evict(pod, moment.now, &mut plan),
                Some(left) => plan.look_after(left),
                None => {}
            }
        }
        plan
    }
}

/// How long the pod may stay; `None` for ever. The shortest of the tolerations that cover its taints counts, from the
/// time that the taint was added.
#[must_use]
pub fn stays(taints: &[&Taint], tolerations: &[Toleration], now: Timestamp) -> Option<Duration> {
    let mut left: Option<Duration> = None;
    for taint in taints {
        let covering: Vec<&Toleration> = tolerations.iter().filter(|t| covers(t, taint)).collect();
        if covering.is_empty() {
            return Some(Duration::ZERO);
        }
        let Some(seconds) = covering.iter().filter_map(|t| t.toleration_seconds).min() else { continue };
        let since = taint.time_added.as_ref().map_or(now, |t| t.0);
        let due = since.checked_add(SignedDuration::from_secs(seconds.max(0))).unwrap_or(Timestamp::MAX);
        let rest = Duration::try_from(due.duration_since(now)).unwrap_or(Duration::ZERO);
        left = Some(left.map_or(rest, |l| l.min(rest)));
    }
    left
}

fn covers(t: &Toleration, taint: &Taint) -> bool {
    let (effect, key) = (t.effect.as_deref().unwrap_or_default(), t.key.as_deref().unwrap_or_default());
    let exists = t.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && (exists || t.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
}

fn evict(pod: &Pod, now: Timestamp, plan: &mut Plan) {
    let meta = &pod.metadata;
    let (ns, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let uid = meta.uid.as_deref().unwrap_or_default();
    plan.push(Action::Event(Note {
        regarding: owners::object_reference(row("pods"), meta),
        warning: false,
        reason: "TaintManagerEviction",
        message: format!("Marking for deletion Pod {ns}/{name}"),
        component: "taint-eviction-controller",
        action: "",
    }));
    let body = json!({ "metadata": { "uid": uid }, "status": { "conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
        "lastTransitionTime": owners::whole_second(now) }] } });
    let mut write = Write::new(Request::new(Verb::StrategicPatch, row("pods"), ns, name, body).on("status"));
    write.fine = &[Class::NotFound, Class::Conflict];
    plan.push(write);
    plan.push(Write::delete(Request::delete(row("pods"), ns, name, uid)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_pod_stays() {
        let now = Timestamp::from_second(1000).unwrap();
        let taint = |key: &str, added: i64| -> Taint {
            serde_json::from_value(json!({ "key": key, "effect": "NoExecute",
                "timeAdded": Timestamp::from_second(added).unwrap().to_string() }))
            .unwrap()
        };
        let tolerate = |value| -> Toleration { serde_json::from_value(value).unwrap() };
        let (a, b) = (taint("a", 900), taint("b", 990));
        let forever = tolerate(json!({ "operator": "Exists" }));
        let a300 = tolerate(json!({ "key": "a", "operator": "Exists", "tolerationSeconds": 300 }));
        let b20 = tolerate(json!({ "key": "b", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 20 }));
        let s = |n| Some(Duration::from_secs(n));
        assert_eq!(stays(&[&a], &[], now), s(0));
        assert_eq!(stays(&[&a], std::slice::from_ref(&b20), now), s(0));
        assert_eq!(stays(&[&a], std::slice::from_ref(&forever), now), None);
        assert_eq!(stays(&[&a], std::slice::from_ref(&a300), now), s(200));
        assert_eq!(stays(&[&a, &b], &[a300.clone(), b20], now), s(10));
        assert_eq!(stays(&[&a], &[a300], now + SignedDuration::from_secs(500)), s(0));
    }
}
