//! Decides: the rows of Deployments and ReplicaSets.

use jiff::Timestamp;
use serde_json::Value;

use super::access::{age, at, list, name, number, selector, text};

pub fn deployment(deployment: &Value, now: Timestamp) -> Vec<Value> {
    let ready = format!("{}/{}", number(deployment, "status.readyReplicas"), number(deployment, "spec.replicas"));
    let mut cells = vec![
        name(deployment),
        ready.into(),
        number(deployment, "status.updatedReplicas").into(),
        number(deployment, "status.availableReplicas").into(),
        age(deployment, now),
    ];
    cells.extend(template(deployment));
    cells
}

pub fn replica_set(set: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        name(set),
        number(set, "spec.replicas").into(),
        number(set, "status.replicas").into(),
        number(set, "status.readyReplicas").into(),
        age(set, now),
    ];
    cells.extend(template(set));
    cells
}

/// Containers, images and selector.
fn template(object: &Value) -> [Value; 3] {
    let all = |key: &str| {
        let containers = list(object, "spec.template.spec.containers").iter();
        containers.map(|c| text(c, key)).collect::<Vec<_>>().join(",")
    };
    [all("name").into(), all("image").into(), selector(at(object, "spec.selector")).into()]
}
