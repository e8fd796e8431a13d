//! Decides: the row of a Node.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::access::{age, at, list, name, or, text};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

pub fn cells(node: &Value, now: Timestamp) -> Vec<Value> {
    let ready = list(node, "status.conditions").iter().find(|c| text(c, "type") == "Ready");
    let mut status = match ready.map(|c| text(c, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if at(node, "spec.unschedulable") == true {
        status += ",SchedulingDisabled";
    }
    let info = |key: &str| Value::from(or(text(at(node, "status.nodeInfo"), key), "<unknown>"));
    vec![
        name(node),
        status.into(),
        or(&roles(node), "<none>").into(),
        age(node, now),
        text(node, "status.nodeInfo.kubeletVersion").into(),
        address(node, "InternalIP"),
        address(node, "ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn roles(node: &Value) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in at(node, "metadata.labels").as_object().into_iter().flatten() {
        let role = match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => role,
            None if key == ROLE_LABEL => value.as_str().unwrap_or_default(),
            None => "",
        };
        if !role.is_empty() {
            roles.insert(role);
        }
    }
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address(node: &Value, kind: &str) -> Value {
    let found = list(node, "status.addresses").iter().find(|a| text(a, "type") == kind);
    found.map_or("<none>", |a| text(a, "address")).into()
}
