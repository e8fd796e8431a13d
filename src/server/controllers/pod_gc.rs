//! Decides: pods of nodes that no longer exist go, and so do unscheduled pods that are being deleted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::action::{Action, Controller, Enqueue, Moment, Name, Plan, Write};
use super::stores::{Stores, row};
use super::{owners, pods};
use crate::client::request::{Class, Request, Verb};

/// A node may be registered again at once under the same name: its pods live on. Upstream's `quarantineTime`.
const QUARANTINE: Duration = Duration::from_secs(40);

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
            if change.old.is_none() || change.new.is_none() {
                for node in change.each() {
                    queue.add("", node.metadata.name.as_deref().unwrap_or_default());
                }
            }
        });
        let (queue, nodes) = (enqueue.clone(), Arc::clone(&stores.nodes));
        stores.pods.subscribe(move |change| {
            let Some(pod) = change.new else { return };
            let node = pods::node_name(pod);
            let stranded = !node.is_empty() && nodes.get("", node).is_none();
            if stranded || (node.is_empty() && pod.metadata.deletion_timestamp.is_some()) {
                queue.add("", node);
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if key.name.is_empty() {
            let unscheduled = |p: &Pod| pods::node_name(p).is_empty() && p.metadata.deletion_timestamp.is_some();
            for pod in stores.pods.all().iter().filter(|p| unscheduled(p)) {
                remove(pod, None, &mut plan);
            }
            return plan;
        }
        let stranded: Vec<Arc<Pod>> =
            stores.pods.all().into_iter().filter(|p| pods::node_name(p) == &*key.name).collect();
        if stores.nodes.get("", &key.name).is_some() || stranded.is_empty() {
            missing.remove(&key.name);
            return plan;
        }
        let state = *missing.entry(key.name.clone()).or_insert(Missing { since: moment.now, confirmed: false });
        let passed = Duration::try_from(moment.now.duration_since(state.since)).unwrap_or_default();
        if passed < QUARANTINE {
            plan.look_after(QUARANTINE.saturating_sub(passed));
        } else if state.confirmed {
            for pod in &stranded {
                remove(pod, Some(moment.now), &mut plan);
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

/// `failed_at`: its containers can never report again, so the pod is failed first.
fn remove(pod: &Pod, failed_at: Option<Timestamp>, plan: &mut Plan) {
    let meta = &pod.metadata;
    let (ns, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let uid = meta.uid.as_deref().unwrap_or_default();
    if let Some(now) = failed_at.filter(|_| !pods::is_terminal(pod)) {
        let body = json!({ "metadata": { "uid": uid }, "status": { "phase": "Failed", "conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists", "lastTransitionTime": owners::whole_second(now) }] } });
        let mut write = Write::new(Request::new(Verb::StrategicPatch, row("pods"), ns, name, body).on("status"));
        write.fine = &[Class::NotFound, Class::Conflict];
        plan.push(write);
    }
    plan.push(Write::delete(Request::delete(row("pods"), ns, name, uid).at_once()));
}
