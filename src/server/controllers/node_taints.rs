//! Decides: the taints that a node's conditions ask for.
//!
//! Those that keep pods away are there at once. Those that make pods leave come to one node after the other, as
//! [`node_zones`] says: when many nodes are silent, it may be the network, and their pods may be well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::json;

use super::action::{Controller, Enqueue, Moment, Name, Plan};
use super::node_zones::{self, Pace, Zone};
use super::owners;
use super::stores::{Stores, row};
use crate::client::request::{Request, Verb};
use crate::client::store::Meta as _;

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

/// Keys are nodes.
#[derive(Default)]
pub struct NodeTaints {
    /// Of each zone, which node was given up last and when.
    last: Mutex<HashMap<Zone, (Box<str>, Timestamp)>>,
}

impl Controller for NodeTaints {
    fn name(&self) -> &'static str {
        "node-taints"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let (queue, nodes) = (enqueue.clone(), Arc::clone(&stores.nodes));
        stores.nodes.subscribe(move |change| {
            if let Some(node) = change.new {
                queue.add("", node.metadata.name());
            }
            // What becomes of a node depends on the others.
            let state = |n: Option<&Arc<Node>>| n.map(|n| (node_zones::is_ready(n), node_zones::zone(n)));
            if state(change.old) != state(change.new) {
                for node in nodes.all().iter().filter(|n| !node_zones::is_ready(n)) {
                    queue.add("", node.metadata.name());
                }
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(node) = stores.nodes.get("", &key.name) else { return plan };
        let evict = self.evict(&stores.nodes.all(), &node, moment.now, &mut plan);
        if let Some(taints) = wanted(&node, evict, moment.now) {
            let body = json!({
                "metadata": { "uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version },
                "spec": { "taints": taints },
            });
            plan.push(Request::new(Verb::MergePatch, row("nodes"), "", &key.name, body));
        }
        plan
    }
}

/// Whether pods are to leave a node that is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evict {
    Yes,
    /// If they are to leave already; it may be for another reason now.
    AsBefore,
    No,
}

impl NodeTaints {
    fn evict(&self, nodes: &[Arc<Node>], node: &Node, now: Timestamp, plan: &mut Plan) -> Evict {
        if node_zones::is_ready(node) {
            return Evict::No;
        }
        let (zone, name) = (node_zones::zone(node), node.metadata.name());
        let pace = match node_zones::pace(nodes, &zone) {
            Pace::CallOff => return Evict::No,
            _ if evicts(node) => return Evict::AsBefore,
            Pace::Hold => return Evict::AsBefore,
            Pace::Every(pace) => pace,
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // Its turn is its own until the taint is seen: the write may have failed.
        if let Some((whose, when)) = last.get(&zone).filter(|(whose, _)| **whose != *name) {
            let due = SignedDuration::try_from(pace).ok().and_then(|p| when.checked_add(p).ok()).unwrap_or(now);
            if now < due {
                tracing::debug!(node = name, after = %whose, "waits for its turn to be given up");
                plan.look_after(due.duration_since(now).try_into().unwrap_or(pace));
                return Evict::AsBefore;
            }
        }
        last.insert(zone, (name.into(), now));
        Evict::Yes
    }
}

/// Pods are to leave it because it is not ready.
fn evicts(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    taints.iter().any(|t| t.effect == "NoExecute" && is_ours(t))
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
pub fn wanted(node: &Node, evict: Evict, now: Timestamp) -> Option<Vec<Taint>> {
    let evict = evict == Evict::Yes || (evict == Evict::AsBefore && evicts(node));
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for (kind, status, key) in BY_CONDITION {
        if conditions.iter().any(|c| c.type_ == *kind && c.status == *status) {
            keys.push((key, "NoSchedule"));
            if *kind == "Ready" && evict {
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
        check_evicting(Evict::Yes, spec, conditions, want);
    }

    fn check_evicting(evict: Evict, spec: Value, conditions: Value, want: Option<&[&str]>) {
        let shown = format!("{spec} {conditions}");
        let node: Node = serde_json::from_value(
            json!({ "metadata": { "name": "n" }, "spec": spec, "status": { "conditions": conditions } }),
        )
        .unwrap();
        let got = wanted(&node, evict, Timestamp::UNIX_EPOCH).map(|taints| {
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

    #[test]
    fn pods_leave_when_it_is_time() {
        let unknown = json!([{ "type": "Ready", "status": "Unknown" }]);
        let taint = |key, effect| json!({ "key": key, "effect": effect });
        let (unreachable, both) = ("unreachable:NoSchedule", ["unreachable:NoSchedule", "unreachable:NoExecute"]);
        check_evicting(Evict::AsBefore, json!({}), unknown.clone(), Some(&[unreachable]));
        check_evicting(Evict::No, json!({}), unknown.clone(), Some(&[unreachable]));
        let not_ready = json!({ "taints": [taint(NOT_READY, "NoExecute")] });
        check_evicting(Evict::AsBefore, not_ready.clone(), unknown.clone(), Some(&both));
        check_evicting(Evict::No, not_ready, unknown, Some(&[unreachable]));
    }

    /// A node of a zone; `spec` may have taints.
    fn node(name: &str, status: &str, taints: Value) -> Arc<Node> {
        Arc::new(
            serde_json::from_value(json!({ "metadata": { "name": name }, "spec": { "taints": taints },
                "status": { "conditions": [{ "type": "Ready", "status": status }] } }))
            .unwrap(),
        )
    }

    #[test]
    fn one_node_after_the_other_is_given_up() {
        let all = [
            node("a", "Unknown", json!([])),
            node("b", "Unknown", json!([])),
            node("c", "True", json!([])),
            node("d", "Unknown", json!([{ "key": NOT_READY, "effect": "NoExecute" }])),
            node("e", "True", json!([])),
            node("f", "True", json!([])),
        ];
        let taints = NodeTaints::default();
        let at = |node: usize, second: i64| {
            let (mut plan, now) = (Plan::default(), Timestamp::from_second(second).unwrap());
            (taints.evict(&all, &all[node], now, &mut plan), plan.again.map(|d| d.as_secs()))
        };
        assert_eq!(at(2, 0), (Evict::No, None), "it is ready");
        assert_eq!(at(0, 100), (Evict::Yes, None));
        assert_eq!(at(0, 101), (Evict::Yes, None), "the write may have failed");
        assert_eq!(at(1, 103), (Evict::AsBefore, Some(8)));
        assert_eq!(at(3, 103), (Evict::AsBefore, None), "it is given up already");
        assert_eq!(at(1, 111), (Evict::Yes, None));
        let silent = &all[..2];
        let mut plan = Plan::default();
        assert_eq!(taints.evict(silent, &all[0], Timestamp::UNIX_EPOCH, &mut plan), Evict::No, "all are silent");
        assert_eq!(plan, Plan::nothing());
    }
}
