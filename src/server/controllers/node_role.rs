//! Decides: the node beside the server is marked as the control plane. A node may not say so of itself
//! (NodeRestriction), so the server does.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use super::action::{Controller, Enqueue, Moment, Name, Plan};
use super::stores::{Stores, row};
use crate::client::request::{Request, Verb};

/// What `kubectl get nodes` shows under ROLES.
const LABEL: &str = "node-role.kubernetes.io/control-plane";

pub struct NodeRole {
    /// The node of this process, if it runs an agent.
    name: Option<String>,
}

impl NodeRole {
    #[must_use]
    pub fn new(name: Option<String>) -> Self {
        Self { name }
    }
}

fn is_marked(node: &Node) -> bool {
    node.metadata.labels.as_ref().is_some_and(|l| l.contains_key(LABEL))
}

impl Controller for NodeRole {
    fn name(&self) -> &'static str {
        "node-role"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let Some(name) = self.name.clone() else { return };
        let queue = enqueue.clone();
        stores.nodes.subscribe(move |change| {
            if change.new.is_some_and(|n| n.metadata.name.as_deref() == Some(&*name) && !is_marked(n)) {
                queue.add("", &name);
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, _moment: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        if let Some(node) = stores.nodes.get("", &key.name).filter(|n| !is_marked(n)) {
            let body = json!({ "metadata": { "uid": node.metadata.uid, "labels": { LABEL: "true" } } });
            plan.push(Request::new(Verb::MergePatch, row("nodes"), "", &key.name, body));
        }
        plan
    }
}
