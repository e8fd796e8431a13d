//! Decides: pods go that nobody else can end: of nodes that no longer exist or are out of service, those that are being
//! deleted and are on no node, and the oldest of too many that are finished (`pkg/controller/podgc`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::action::{Action, Controller, Enqueue, Moment, Name, Plan, Write};
use super::stores::{Stores, row};
use super::{node_zones, owners, pods};
use crate::client::request::{Class, Request, Verb};
use crate::client::store::Meta as _;

/// A node may be registered again at once under the same name: its pods live on. Upstream's `quarantineTime`.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Finished pods that are kept (`--terminated-pod-gc-threshold`).
const MOST_FINISHED: usize = 12_500;
/// Says, on a node that is not ready, that it is off for certain.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// In place of a namespace, which nodes have not: the key that stands for finished pods.
const FINISHED: &str = "finished";

/// Keys are nodes; the empty one stands for pods without a node.
#[derive(Default)]
pub struct PodGc {
    missing: Mutex<HashMap<Box<str>, Missing>>,
}

#[derive(Clone, Copy)]
struct Missing {
    since: Timestamp,
    /// The server itself says so.
    confirmed: bool,
}

impl Controller for PodGc {
    fn name(&self) -> &'static str {
        "pod-gc"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.nodes.subscribe(move |change| {
            let off = |n: Option<&Arc<Node>>| n.is_some_and(|n| is_out_of_service(n));
            if change.old.is_none() || change.new.is_none() || off(change.old) != off(change.new) {
                for node in change.each() {
                    queue.add("", node.metadata.name.as_deref().unwrap_or_default());
                }
            }
        });
        let (queue, nodes) = (enqueue.clone(), Arc::clone(&stores.nodes));
        // They are only counted while there are not too many.
        let finished = AtomicUsize::new(0);
        stores.pods.subscribe(move |change| {
            let is_finished = |p: Option<&Arc<Pod>>| p.is_some_and(|p| pods::is_terminal(p));
            match (is_finished(change.old), is_finished(change.new)) {
                (false, true) if finished.fetch_add(1, Ordering::Relaxed) >= MOST_FINISHED => queue.add(FINISHED, ""),
                (true, false) => {
                    finished.fetch_sub(1, Ordering::Relaxed);
                }
                _ => {}
            }
            let Some(pod) = change.new else { return };
            let (node, going) = (pods::node_name(pod), pod.metadata.deletion_timestamp.is_some());
            let stranded = !node.is_empty() && nodes.get("", node).is_none_or(|n| going && is_out_of_service(&n));
            if stranded || (node.is_empty() && going) {
                queue.add("", node);
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        if &*key.namespace == FINISHED {
            for pod in too_many(stores.pods.all(), MOST_FINISHED) {
                remove(&pod, moment.now, false, &mut plan);
            }
            return plan;
        }
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if key.name.is_empty() {
            let unscheduled = |p: &Pod| pods::node_name(p).is_empty() && p.metadata.deletion_timestamp.is_some();
            for pod in stores.pods.all().iter().filter(|p| unscheduled(p)) {
                remove(pod, moment.now, false, &mut plan);
            }
            return plan;
        }
        let stranded: Vec<Arc<Pod>> =
            stores.pods.all().into_iter().filter(|p| pods::node_name(p) == &*key.name).collect();
        let node = stores.nodes.get("", &key.name);
        if node.as_ref().is_some_and(|n| is_out_of_service(n)) {
            for pod in stranded.iter().filter(|p| p.metadata.deletion_timestamp.is_some()) {
                remove(pod, moment.now, false, &mut plan);
            }
        }
        if node.is_some() || stranded.is_empty() {
            missing.remove(&key.name);
            return plan;
        }
        let state = *missing.entry(key.name.clone()).or_insert(Missing { since: moment.now, confirmed: false });
        let passed = Duration::try_from(moment.now.duration_since(state.since)).unwrap_or_default();
        if passed < QUARANTINE {
            plan.look_after(QUARANTINE.saturating_sub(passed));
        } else if state.confirmed {
            for pod in &stranded {
                remove(pod, moment.now, true, &mut plan);
            }
        } else {
            plan.push(Action::Read(Request::new(Verb::Get, row("nodes"), "", &key.name, Value::Null)));
        }
        plan
    }

    fn learn(&self, key: &Name, _request: &Request, answer: Option<Value>) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        match (answer, missing.get_mut(&key.name)) {
            (None, Some(state)) => state.confirmed = true,
            // It is back; its store event is on the way.
            _ => {
                missing.remove(&key.name);
            }
        }
    }
}

fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    !node_zones::is_ready(node) && taints.iter().any(|t| t.key == OUT_OF_SERVICE)
}

/// The finished pods above `most`: those that a kubelet evicted, then the oldest.
fn too_many(mut pods: Vec<Arc<Pod>>, most: usize) -> Vec<Arc<Pod>> {
    pods.retain(|p| pods::is_terminal(p));
    let excess = pods.len().saturating_sub(most);
    let evicted = |p: &Pod| p.status.as_ref().is_some_and(|s| s.reason.as_deref() == Some("Evicted"));
    let age = |p: &Arc<Pod>| {
        let made = p.metadata.creation_timestamp.as_ref().map(|t| t.0);
        (!(pods::phase(p) == "Failed" && evicted(p)), made, p.metadata.name.clone())
    };
    if excess > 0 {
        pods.sort_by_cached_key(age);
    }
    pods.truncate(excess);
    pods
}

/// Its containers can never report again, so the pod is failed first. `orphaned`: its node is gone.
fn remove(pod: &Pod, now: Timestamp, orphaned: bool, plan: &mut Plan) {
    let meta = &pod.metadata;
    let (ns, name, uid) = (meta.namespace(), meta.name(), meta.uid());
    if !pods::is_terminal(pod) {
        let mut status = json!({ "phase": "Failed" });
        if orphaned {
            status["conditions"] = json!([{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists", "lastTransitionTime": owners::whole_second(now) }]);
        }
        let body = json!({ "metadata": { "uid": uid }, "status": status });
        let mut write = Write::new(Request::new(Verb::StrategicPatch, row("pods"), ns, name, body).on("status"));
        write.fine = &[Class::NotFound, Class::Conflict];
        plan.push(write);
    }
    plan.push(Write::delete(Request::delete(row("pods"), ns, name, uid).at_once()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, more: &Value) -> Pod {
        let mut pod = json!({ "metadata": { "name": name, "namespace": "ns", "uid": name },
            "spec": { "nodeName": node, "containers": [] }, "status": { "phase": "Running" } });
        for (at, value) in more.as_object().unwrap() {
            let (parent, key) = at.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        serde_json::from_value(pod).unwrap()
    }

    fn node(name: &str, ready: &str, taints: &Value) -> Node {
        serde_json::from_value(json!({ "metadata": { "name": name }, "spec": { "taints": taints },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] } }))
        .unwrap()
    }

    /// What is done about the pods of a key, in a line each.
    fn check(gc: &PodGc, stores: &Stores, key: &str, second: i64, want: &[&str]) {
        let moment = Moment { now: Timestamp::from_second(second).unwrap(), failure: None };
        let plan = gc.plan(stores, &Name::new("", key), moment);
        let line = |action: &Action| match action {
            Action::Read(request) => format!("read {}", request.name),
            Action::Write(write) if write.request.verb == Verb::Delete => {
                assert_eq!(write.request.body["gracePeriodSeconds"], 0);
                format!("delete {}", write.request.name)
            }
            Action::Write(write) => {
                let status = &write.request.body["status"];
                assert_eq!(status["phase"], "Failed");
                let why = status["conditions"][0]["reason"].as_str().unwrap_or_default();
                format!("fail {} {why}", write.request.name).trim_end().to_owned()
            }
            _ => panic!("{action:?}"),
        };
        assert_eq!(plan.actions.iter().map(line).collect::<Vec<_>>(), want, "{key} at {second}");
    }

    #[test]
    fn who_goes() {
        let (gc, stores) = (PodGc::default(), Stores::new());
        let going = json!({ "/metadata/deletionTimestamp": "2026-01-01T00:00:00Z" });
        stores.pods.put(pod("stranded", "gone", &json!({})));
        stores.pods.put(pod("done", "gone", &json!({ "/status/phase": "Succeeded" })));
        stores.pods.put(pod("waiting", "", &json!({})));
        stores.pods.put(pod("unscheduled", "", &going));
        check(&gc, &stores, "", 0, &["fail unscheduled", "delete unscheduled"]);
        check(&gc, &stores, "gone", 0, &[]);
        check(&gc, &stores, "gone", 40, &["read gone"]);
        let asked = Request::new(Verb::Get, row("nodes"), "", "gone", Value::Null);
        gc.learn(&Name::new("", "gone"), &asked, None);
        check(&gc, &stores, "gone", 40, &["delete done", "fail stranded DeletionByPodGC", "delete stranded"]);
        let off = json!([{ "key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute" }]);
        for (name, ready, taints) in
            [("off", "Unknown", &off), ("back", "True", &off), ("silent", "Unknown", &json!([]))]
        {
            stores.nodes.put(node(name, ready, taints));
            stores.pods.put(pod(&format!("{name}-stays"), name, &json!({})));
            stores.pods.put(pod(&format!("{name}-going"), name, &going));
        }
        check(&gc, &stores, "off", 50, &["fail off-going", "delete off-going"]);
        check(&gc, &stores, "back", 50, &[]);
        check(&gc, &stores, "silent", 50, &[]);
    }

    #[test]
    fn of_finished_pods_the_evicted_go_first_and_then_the_oldest() {
        let made = |name: &str, at: &str, phase: &str, reason: Option<&str>| {
            let more = json!({ "/metadata/creationTimestamp": format!("2026-01-0{at}T00:00:00Z"), "/status/phase": phase,
                "/status/reason": reason });
            Arc::new(pod(name, "n", &more))
        };
        let all = vec![
            made("old", "1", "Succeeded", None),
            made("older", "1", "Failed", None),
            made("young", "3", "Failed", None),
            made("evicted", "4", "Failed", Some("Evicted")),
            made("running", "1", "Running", None),
        ];
        let names = |most| {
            let gone = too_many(all.clone(), most);
            gone.iter().map(|p| p.metadata.name.clone().unwrap()).collect::<Vec<_>>()
        };
        assert!(names(4).is_empty());
        assert_eq!(names(3), ["evicted"]);
        assert_eq!(names(1), ["evicted", "old", "older"]);
    }
}
