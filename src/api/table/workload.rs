//! Decides: the rows of workloads.

use jiff::Timestamp;
use serde_json::Value;

use super::access::{age, at, labels, list, name, number, selector, text};

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

pub fn stateful_set(set: &Value, now: Timestamp) -> Vec<Value> {
    let ready = format!("{}/{}", number(set, "status.readyReplicas"), number(set, "spec.replicas"));
    let [names, images, _] = template(set);
    vec![name(set), ready.into(), age(set, now), names, images]
}

pub fn daemon_set(set: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![name(set)];
    let counts = [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    ];
    cells.extend(counts.map(|field| number(&set["status"], field).into()));
    cells.push(labels(at(set, "spec.template.spec.nodeSelector")).into());
    cells.push(age(set, now));
    cells.extend(template(set));
    cells
}

pub fn replication_controller(controller: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = replica_set(controller, now);
    cells.pop();
    cells.push(labels(at(controller, "spec.selector")).into());
    cells
}

pub fn controller_revision(revision: &Value, now: Timestamp) -> Vec<Value> {
    let owner = list(revision, "metadata.ownerReferences").iter().find(|o| o["controller"] == true);
    let controller = owner.map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let group = text(owner, "apiVersion").split_once('/').map_or("", |(group, _)| group);
            let dot = if group.is_empty() { "" } else { "." };
            format!("{}{dot}{group}/{}", text(owner, "kind").to_lowercase(), text(owner, "name"))
        },
    );
    vec![name(revision), controller.into(), number(revision, "revision").into(), age(revision, now)]
}

pub fn pod_template(object: &Value) -> Vec<Value> {
    // As if it were a workload of that template.
    let workload = serde_json::json!({"spec": {"template": object["template"]}});
    let [names, images, _] = template(&workload);
    vec![name(object), names, images, labels(at(object, "template.metadata.labels")).into()]
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
