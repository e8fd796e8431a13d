//! Decides how long a pod stays on a node that is gone: five minutes, unless it says otherwise itself.

use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::api::status::Status;

const SECONDS: i64 = 300;

pub struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn changes(&self) -> &'static [&'static str] {
        &["pods"]
    }

    fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if !attributes.is("pods") || attributes.operation == Operation::Delete || !pod["spec"].is_object() {
            return Ok(());
        }
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            let tolerations = &mut pod["spec"]["tolerations"];
            if !tolerations.is_array() {
                *tolerations = json!([]);
            }
            let Some(list) = tolerations.as_array_mut() else { continue };
            if !list.iter().any(|t| tolerates(t, key)) {
                list.push(json!({
                    "effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": SECONDS,
                }));
            }
        }
        Ok(())
    }
}

fn tolerates(toleration: &Value, key: &str) -> bool {
    let is = |field: &str, value: &str| {
        let text = toleration[field].as_str().unwrap_or_default();
        text.is_empty() || text == value
    };
    is("key", key) && is("effect", "NoExecute")
}
