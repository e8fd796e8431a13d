//! Decides: the taints that a node's conditions ask for.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::json;

use super::action::{Controller, Enqueue, Moment, Name, Plan};
use super::owners;
use super::stores::{Stores, row};
use crate::client::request::{Request, Verb};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Condition, the status of it that taints, and the taint (NoSchedule).
const BY_CONDITION: &[(&str, &str, &str)] = &[
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

pub struct NodeTaints;

impl Controller for NodeTaints {
    fn name(&self) -> &'static str {
        "node-taints"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.nodes.subscribe(move |change| {
            if let Some(node) = change.new {
                queue.add("", node.metadata.name.as_deref().unwrap_or_default());
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(node) = stores.nodes.get("", &key.name) else { return plan };
        if let Some(taints) = wanted(&node, moment.now) {
            let body = json!({
                "metadata": { "uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version },
                "spec": { "taints": taints },
            });
            plan.push(Request::new(Verb::MergePatch, row("nodes"), "", &key.name, body));
        }
        plan
    }
}

/// Whether this controller puts the taint on and takes it off.
fn is_ours(taint: &Taint) -> bool {
    let keys = BY_CONDITION.iter().map(|(_, _, key)| *key);
    let no_execute = taint.effect == "NoExecute" && (taint.key == NOT_READY || taint.key == UNREACHABLE);
    let no_schedule =
        taint.effect == "NoSchedule" && (taint.key == UNSCHEDULABLE || keys.into_iter().any(|k| k == taint.key));
    no_execute || no_schedule
}

/// All taints of the node as they should be; `None` when they are.
#[must_use]
pub fn wanted(node: &Node, now: Timestamp) -> Option<Vec<Taint>> {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for (kind, status, key) in BY_CONDITION {
        if conditions.iter().any(|c| c.type_ == *kind && c.status == *status) {
            keys.push((key, "NoSchedule"));
            if *kind == "Ready" {
                keys.push((key, "NoExecute"));
            }
        }
    }
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        keys.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let has = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    // A kubelet registers with the not-ready taint; before it has posted a condition nothing says otherwise.
    if conditions.iter().all(|c| c.type_ != "Ready") {
        for t in has.iter().filter(|t| t.key == NOT_READY) {
            keys.push((NOT_READY, if t.effect == "NoExecute" { "NoExecute" } else { "NoSchedule" }));
        }
    }
    let is_wanted = |t: &Taint| keys.iter().any(|(k, e)| t.key == *k && t.effect == *e);
    let mut taints: Vec<Taint> = has.iter().filter(|t| !is_ours(t) || is_wanted(t)).cloned().collect();
    for (key, effect) in keys {
        if !taints.iter().any(|t| t.key == key && t.effect == effect) {
            taints.push(Taint {
                key: key.into(),
                effect: effect.into(),
                value: None,
                time_added: Some(owners::whole_second(now)),
            });
        }
    }
    (taints != has).then_some(taints)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn check(spec: Value, conditions: Value, want: Option<&[&str]>) {
        let shown = format!("{spec} {conditions}");
        let node: Node = serde_json::from_value(
            json!({ "metadata": { "name": "n" }, "spec": spec, "status": { "conditions": conditions } }),
        )
        .unwrap();
        let got = wanted(&node, Timestamp::UNIX_EPOCH).map(|taints| {
            taints.iter().map(|t| format!("{}:{}", t.key.replace("node.kubernetes.io/", ""), t.effect)).collect()
        });
        assert_eq!(got, want.map(|w| w.iter().map(|s| (*s).to_owned()).collect::<Vec<String>>()), "{shown}");
    }

    #[test]
    fn taints_follow_conditions() {
        let ready = |s: &str| json!([{ "type": "Ready", "status": s }]);
        let not_ready = json!({ "taints": [{ "key": NOT_READY, "effect": "NoSchedule" }] });
        check(json!({}), ready("True"), None);
        check(json!({}), ready("False"), Some(&["not-ready:NoSchedule", "not-ready:NoExecute"]));
        check(json!({}), ready("Unknown"), Some(&["unreachable:NoSchedule", "unreachable:NoExecute"]));
        check(not_ready.clone(), ready("True"), Some(&[]));
        check(not_ready.clone(), json!([]), None);
        check(not_ready, ready("Unknown"), Some(&["unreachable:NoSchedule", "unreachable:NoExecute"]));
        check(json!({ "unschedulable": true }), ready("True"), Some(&["unschedulable:NoSchedule"]));
        check(json!({ "taints": [{ "key": "mine", "effect": "NoExecute" }] }), ready("True"), None);
        let pressure = json!([{ "type": "Ready", "status": "True" }, { "type": "DiskPressure", "status": "True" }]);
        check(json!({}), pressure, Some(&["disk-pressure:NoSchedule"]));
    }
}
