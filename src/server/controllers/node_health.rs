//! Decides: a node whose kubelet is silent for too long becomes Unknown, and its pods not ready.
//!
//! Leases are renewed every ten seconds on every node. A renewal is only noted here; it plans nothing and writes
//! nothing, unless the node had been given up. One timer per node looks whether renewals stopped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, ObjectReference, Pod};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::action::{Action, Controller, Enqueue, Moment, Name, Note, Plan, Write};
use super::stores::{Stores, row};
use super::{owners, pods};
use crate::client::request::{Class, Request, Verb};
use crate::clock;

/// Silence after which a node is given up (`--node-monitor-grace-period`).
pub const GRACE: Duration = Duration::from_secs(50);
/// The same for one that has yet to say how it is (`--node-startup-grace-period`).
const STARTUP_GRACE: Duration = Duration::from_secs(60);
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
const LEASES: &str = "kube-node-lease";
const COMPONENT: &str = "node-controller";

/// When each node was last heard of, by our own clock: clocks of nodes may differ. The monotonic one: a board without a
/// battery has its wall clock set by years while it runs, and all of its nodes would have been silent for years.
type Heard = Arc<Mutex<HashMap<Box<str>, Instant>>>;

#[derive(Default)]
pub struct NodeHealth {
    heard: Heard,
    /// Uids of the nodes that Events told of.
    known: Mutex<HashMap<Box<str>, String>>,
}

fn lock(heard: &Heard) -> MutexGuard<'_, HashMap<Box<str>, Instant>> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

impl Controller for NodeHealth {
    fn name(&self) -> &'static str {
        "node-health"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let heard = Arc::clone(&self.heard);
        stores.leases.subscribe(move |change| {
            let Some(lease) = change.new.filter(|l| l.metadata.namespace.as_deref() == Some(LEASES)) else { return };
            let renewed =
                |l: &k8s_openapi::api::coordination::v1::Lease| l.spec.as_ref().and_then(|s| s.renew_time.clone());
            if change.old.is_none_or(|old| renewed(old) != renewed(lease)) {
                let name = lease.metadata.name.as_deref().unwrap_or_default();
                lock(&heard).insert(name.into(), clock::instant());
            }
        });
        let (heard, queue) = (Arc::clone(&self.heard), enqueue.clone());
        stores.nodes.subscribe(move |change| {
            for node in change.each() {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                let beat = |n: &Node| condition(n, "Ready").and_then(|c| c.last_heartbeat_time.clone());
                match (change.old, change.new) {
                    (_, None) => {
                        lock(&heard).remove(name);
                    }
                    (Some(old), Some(new)) if beat(old) == beat(new) => {}
                    (_, Some(_)) => {
                        lock(&heard).insert(name.into(), clock::instant());
                    }
                }
                queue.add("", name);
            }
        });
        let (queue, nodes) = (enqueue.clone(), Arc::clone(&stores.nodes));
        stores.pods.subscribe(move |change| {
            let Some(pod) = change.new else { return };
            let name = pods::node_name(pod);
            let came = !name.is_empty() && change.old.is_none_or(|old| pods::node_name(old) != name);
            let is_silent = |n: &Node| condition(n, "Ready").is_some_and(|c| c.status == "Unknown");
            if came && nodes.get("", name).is_some_and(|n| is_silent(&n)) {
                queue.add("", name);
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let found = stores.nodes.get("", &key.name);
        let uid = found.as_ref().and_then(|n| n.metadata.uid.clone());
        let told = self.introduce(&key.name, uid);
        let Some(node) = found else { return Plan { actions: told, again: None } };
        let heard = *lock(&self.heard).entry(key.name.clone()).or_insert_with(clock::instant);
        let on_node = || {
            let all = stores.pods.all();
            all.into_iter().filter(|p| pods::node_name(p) == &*key.name).collect()
        };
        let mut plan = plan(&node, heard.elapsed(), on_node, moment.now);
        plan.actions.splice(0..0, told);
        plan
    }
}

impl NodeHealth {
    /// Tells of nodes that come and go.
    fn introduce(&self, name: &str, uid: Option<String>) -> Vec<Action> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(name) == uid.as_ref() {
            return Vec::new();
        }
        let event = |uid: &String, reason, what: String| {
            let regarding = ObjectReference {
                kind: Some("Node".into()),
                api_version: Some("v1".into()),
                name: Some(name.into()),
                uid: Some(uid.clone()),
                ..ObjectReference::default()
            };
            let message = format!("Node {name} event: {what}");
            Action::Event(Note { regarding, warning: false, reason, message, component: COMPONENT, action: "" })
        };
        let gone = known.remove(name);
        let gone = gone.iter().map(|old| event(old, "RemovingNode", format!("Removing Node {name} from Controller")));
        let came = uid.iter().map(|new| event(new, "RegisteredNode", format!("Registered Node {name} in Controller")));
        let told = gone.chain(came).collect();
        known.extend(uid.map(|uid| (name.into(), uid)));
        told
    }
}

/// Waits while the node is heard of; gives it up when it was silent for too long.
#[must_use]
pub fn plan(node: &Node, silent: Duration, on_node: impl FnOnce() -> Vec<Arc<Pod>>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let grace = if condition(node, "Ready").is_some() { GRACE } else { STARTUP_GRACE };
    if silent < grace {
        plan.look_after((grace - silent).max(Duration::from_millis(100)));
        return plan;
    }
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let unknown: Vec<Value> = CONDITIONS.iter().filter_map(|kind| given_up(node, kind, now)).collect();
    if !unknown.is_empty() {
        let was_ready = condition(node, "Ready").is_some_and(|c| c.status == "True");
        let body = json!({ "metadata": { "uid": node.metadata.uid }, "status": { "conditions": unknown } });
        plan.push(Request::new(Verb::StrategicPatch, row("nodes"), "", name, body).on("status"));
        if was_ready {
            let message = format!("Node {name} status is now: NodeNotReady");
            let regarding = owners::object_reference(row("nodes"), &node.metadata);
            let note =
                Note { regarding, warning: false, reason: "NodeNotReady", message, component: COMPONENT, action: "" };
            plan.push(Action::Event(note));
        }
    }
    for pod in on_node().iter().filter(|p| pods::is_ready(p)) {
        unready(pod, now, &mut plan);
    }
    plan
}

fn given_up(node: &Node, kind: &str, now: Timestamp) -> Option<Value> {
    let now = owners::whole_second(now);
    match condition(node, kind) {
        None => Some(json!({
            "type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
            "message": "Kubelet never posted node status.",
            "lastHeartbeatTime": node.metadata.creation_timestamp, "lastTransitionTime": now,
        })),
        Some(c) if c.status != "Unknown" => Some(json!({
            "type": kind, "status": "Unknown", "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
            "lastHeartbeatTime": c.last_heartbeat_time, "lastTransitionTime": now,
        })),
        Some(_) => None,
    }
}

/// Takes the pod out of its Services: its node cannot say any more whether it is ready.
fn unready(pod: &Pod, now: Timestamp, plan: &mut Plan) {
    let meta = &pod.metadata;
    let (ns, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let body = json!({ "metadata": { "uid": meta.uid }, "status": { "conditions": [
        { "type": "Ready", "status": "False", "lastTransitionTime": owners::whole_second(now) }] } });
    let mut write = Write::new(Request::new(Verb::StrategicPatch, row("pods"), ns, name, body).on("status"));
    write.fine = &[Class::NotFound, Class::Conflict];
    plan.push(write);
    plan.push(Action::Event(Note {
        regarding: owners::object_reference(row("pods"), meta),
        warning: true,
        reason: "NodeNotReady",
        message: "Node is not ready".into(),
        component: COMPONENT,
        action: "",
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(conditions: Value) -> Node {
        serde_json::from_value(
            json!({ "metadata": { "name": "n", "uid": "u" }, "status": { "conditions": conditions } }),
        )
        .unwrap()
    }

    #[test]
    fn a_silent_node_is_given_up_after_the_grace_period_and_once() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let ago = Duration::from_secs;
        let healthy = node(json!(
            CONDITIONS.map(|t| json!({ "type": t, "status": if t == "Ready" { "True" } else { "False" } }))
        ));
        let p = plan(&healthy, ago(40), Vec::new, now);
        assert_eq!((p.actions.len(), p.again), (0, Some(Duration::from_secs(10))));
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "ns" },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }))
        .unwrap();
        let p = plan(&healthy, ago(50), || vec![Arc::new(pod)], now);
        assert_eq!(p.again, None, "nothing to wait for: a renewal or a new status brings it back");
        let [Action::Write(status), Action::Event(_), Action::Write(pod), Action::Event(_)] = &p.actions[..] else {
            panic!("{:?}", p.actions)
        };
        let conditions = status.request.body["status"]["conditions"].as_array().unwrap();
        assert!(conditions.iter().all(|c| c["reason"] == "NodeStatusUnknown") && conditions.len() == 4);
        assert_eq!(pod.request.body["status"]["conditions"][0]["status"], "False");
        let gone = node(json!(CONDITIONS.map(|t| json!({ "type": t, "status": "Unknown" }))));
        assert_eq!(plan(&gone, ago(400), Vec::new, now), Plan::nothing());
        let never = plan(&node(json!([])), ago(51), Vec::new, now);
        assert_eq!((never.actions.len(), never.again), (0, Some(Duration::from_secs(9))), "it may still be starting");
        let never = plan(&node(json!([])), ago(61), Vec::new, now);
        let Action::Write(write) = &never.actions[0] else { panic!() };
        assert_eq!(write.request.body["status"]["conditions"][0]["reason"], "NodeStatusNeverUpdated");
    }

    #[test]
    fn a_clock_that_is_set_silences_nobody() {
        let (health, stores) = (NodeHealth::default(), Stores::new());
        stores.nodes.put(node(json!([{ "type": "Ready", "status": "True" }])));
        let at = |second| {
            let moment = Moment { now: Timestamp::from_second(second).unwrap(), failure: None };
            let plan = health.plan(&stores, &Name::new("", "n"), moment);
            plan.actions.iter().filter(|a| matches!(a, Action::Write(_))).count()
        };
        assert_eq!((at(0), at(1_800_000_000), at(0)), (0, 0, 0));
    }

    #[test]
    fn nodes_are_introduced_once() {
        let health = NodeHealth::default();
        let check = |uid: Option<&str>, want: &[&str]| {
            let told = health.introduce("n", uid.map(str::to_owned));
            let message = |action: &Action| match action {
                Action::Event(note) => note.message.clone(),
                _ => panic!("{action:?}"),
            };
            assert_eq!(told.iter().map(message).collect::<Vec<_>>(), want);
        };
        let (came, gone) =
            ("Node n event: Registered Node n in Controller", "Node n event: Removing Node n from Controller");
        check(Some("u"), &[came]);
        check(Some("u"), &[]);
        check(Some("v"), &[gone, came]);
        check(None, &[gone]);
        check(None, &[]);
    }
}
