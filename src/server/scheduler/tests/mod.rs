//! Tables of what the scheduler decides, and what they share: a cluster made of a few words.

mod bench;
mod csi;
mod devices;
pub mod dice;
mod filters;
mod preemption;
mod profiles;
mod scores;
mod simulation;
mod volumes;
mod wakes;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::state::{Attempt, Refused, State};
use crate::clock;

/// Takes what is in `from` over what is in `into`.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// A node of a zone, changed as told.
fn node(name: &str, zone: &str, cpu: &str, change: Value) -> Node {
    let mut value = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "status": { "allocatable": { "cpu": cpu, "memory": "4Gi", "pods": "110", "ephemeral-storage": "10Gi" } },
    });
    if !zone.is_empty() {
        value["metadata"]["labels"]["topology.kubernetes.io/zone"] = zone.into();
    }
    merge(&mut value, &change);
    serde_json::from_value(value).unwrap()
}

/// A pod with one container, changed as told.
fn pod(name: &str, change: Value) -> Pod {
    let mut value = json!({
        "metadata": { "name": name, "namespace": "ns", "uid": name },
        "spec": { "containers": [{ "name": "c" }] },
    });
    merge(&mut value, &change);
    serde_json::from_value(value).unwrap()
}

/// The change that puts a pod on a node.
fn on(node: &str, mut change: Value) -> Value {
    merge(&mut change, &json!({ "spec": { "nodeName": node } }));
    change
}

/// The change that asks for CPU.
fn cpu(amount: &str) -> Value {
    json!({ "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": amount } } }] } })
}

fn app(name: &str) -> Value {
    json!({ "metadata": { "labels": { "app": name } } })
}

fn both(mut a: Value, b: &Value) -> Value {
    merge(&mut a, b);
    a
}

/// A required term about the pods of an app.
fn term(app: &str, key: &str) -> Value {
    json!({ "topologyKey": key, "labelSelector": { "matchLabels": { "app": app } } })
}

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

fn near(app: &str, key: &str) -> Value {
    json!({ "spec": { "affinity":
        { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term(app, key)] } } } })
}

fn apart(app: &str, key: &str) -> Value {
    json!({ "spec": { "affinity":
        { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term(app, key)] } } } })
}

/// A constraint about the pods of an app, changed as told.
fn spread(app: &str, key: &str, change: Value) -> Value {
    let mut constraint = json!({ "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": { "matchLabels": { "app": app } } });
    merge(&mut constraint, &change);
    json!({ "spec": { "topologySpreadConstraints": [constraint] } })
}

/// A state, and a clock that tests move.
struct World {
    state: State,
    now: Instant,
}

impl World {
    fn new(nodes: &[Node], pods: &[Pod]) -> Self {
        let mut world = Self { state: State::default(), now: clock::instant() };
        nodes.iter().for_each(|n| world.node(n.clone()));
        pods.iter().for_each(|p| world.pod(p.clone()));
        world
    }

    fn node(&mut self, node: Node) {
        self.state.observe_node(node, self.now);
    }

    fn pod(&mut self, pod: Pod) {
        self.state.observe_pod(pod, self.now);
    }

    fn later(&mut self, by: Duration) {
        self.now += by;
    }

    fn attempt(&mut self) -> Option<Attempt> {
        self.state.attempt(self.now)
    }

    /// Where the next pod goes, or why nowhere.
    fn outcome(&mut self) -> Option<Result<String, String>> {
        self.attempt().map(|attempt| match attempt {
            Attempt::Place { node, .. } => Ok(node),
            Attempt::Promise { node, promises, .. } => Ok(format!("{node} after {}", promises.len())),
            Attempt::Unbindable { why, .. } => Err(why),
            Attempt::Refused(refused) => Err(refused.message),
        })
    }

    fn refused(&mut self) -> Refused {
        match self.attempt() {
            Some(Attempt::Refused(refused)) => *refused,
            other => panic!("not refused: {other:?}"),
        }
    }
}
