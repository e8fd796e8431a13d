//! Decides: each namespace has the ConfigMap `kube-root-ca.crt`, by which pods trust the API.
//!
//! The store keeps only metadata of ConfigMaps (their contents may be large and nobody else wants them), so the
//! content of this one is read from the server, once for each revision of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::action::{Action, Controller, Enqueue, Moment, Name, Plan, Write};
use super::stores::{Stores, row};
use crate::client::request::{Class, Request, Verb, revision};
use crate::client::store::Kind as _;

const CONFIG_MAP: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

/// Keys are namespaces.
pub struct RootCa {
    pem: String,
    /// Revision last read of each namespace's ConfigMap, and whether its content was right.
    read: Mutex<HashMap<Box<str>, (u64, bool)>>,
}

impl RootCa {
    #[must_use]
    pub fn new(pem: String) -> Self {
        Self { pem, read: Mutex::default() }
    }
}

impl Controller for RootCa {
    fn name(&self) -> &'static str {
        "root-ca"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.namespaces.subscribe(move |change| {
            for namespace in change.each() {
                queue.add("", namespace.metadata.name.as_deref().unwrap_or_default());
            }
        });
        let queue = enqueue.clone();
        if let Some(maps) = stores.other("configmaps") {
            maps.subscribe(move |change| {
                for map in change.each().map(|m| m.meta()).filter(|m| m.name() == CONFIG_MAP) {
                    queue.add("", map.namespace());
                }
            });
        }
    }

    fn plan(&self, stores: &Stores, key: &Name, _moment: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let namespace = stores.namespaces.get("", &key.name);
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if namespace.is_none_or(|n| n.metadata.deletion_timestamp.is_some()) {
            read.remove(&key.name);
            return plan;
        }
        let Some(map) = stores.other("configmaps").and_then(|s| s.get(&key.name, CONFIG_MAP)) else {
            let mut write = Write::new(Request::create(row("configmaps"), &key.name, self.body(&key.name)));
            write.fine = &[Class::AlreadyExists];
            plan.push(write);
            return plan;
        };
        match read.get(&key.name) {
            Some((revision, right)) if map.meta().revision() == *revision => {
                if !right {
                    let body = json!({ "data": { "ca.crt": self.pem } });
                    plan.push(Request::new(Verb::MergePatch, row("configmaps"), &key.name, CONFIG_MAP, body));
                }
            }
            _ => {
                plan.push(Action::Read(Request::new(Verb::Get, row("configmaps"), &key.name, CONFIG_MAP, Value::Null)));
            }
        }
        plan
    }

    fn learn(&self, key: &Name, _request: &Request, answer: Option<Value>) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Some(map) => {
                let revision = revision(map["metadata"]["resourceVersion"].as_str().unwrap_or_default());
                let right = map["data"]["ca.crt"].as_str() == Some(self.pem.as_str());
                read.insert(key.name.clone(), (revision, right));
            }
            None => {
                read.remove(&key.name);
            }
        }
    }
}

impl RootCa {
    fn body(&self, namespace: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": CONFIG_MAP, "namespace": namespace,
                "annotations": { "kubernetes.io/description": DESCRIPTION } },
            "data": { "ca.crt": self.pem },
        })
    }
}
