//! Decides that nothing is scheduled to a node before it has been seen ready.

use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::api::status::Status;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn changes(&self) -> &'static [&'static str] {
        &["nodes"]
    }

    fn mutate(&self, attributes: &Attributes<'_>, node: &mut Value) -> Result<(), Status> {
        if !attributes.is("nodes") || attributes.operation != Operation::Create || !node.is_object() {
            return Ok(());
        }
        if !node["spec"].is_object() {
            node["spec"] = json!({});
        }
        let taint = json!({"key": NOT_READY, "effect": "NoSchedule"});
        match &mut node["spec"]["taints"] {
            Value::Array(taints) => {
                if !taints.iter().any(|t| t["key"] == taint["key"] && t["effect"] == taint["effect"]) {
                    taints.push(taint);
                }
            }
            taints => *taints = json!([taint]),
        }
        Ok(())
    }
}
