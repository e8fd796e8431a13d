//! Decides: each namespace has a ServiceAccount `default`.

use std::sync::Arc;

use serde_json::json;

use super::action::{Controller, Enqueue, Moment, Name, Plan, Write};
use super::stores::{Stores, row};
use crate::client::request::{Class, Request};
use crate::client::store::Kind as _;

/// Keys are namespaces.
pub struct ServiceAccounts;

impl Controller for ServiceAccounts {
    fn name(&self) -> &'static str {
        "serviceaccount"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.namespaces.subscribe(move |change| {
            if let Some(namespace) = change.new {
                queue.add("", namespace.metadata.name.as_deref().unwrap_or_default());
            }
        });
        let queue = enqueue.clone();
        if let Some(accounts) = stores.other("serviceaccounts") {
            accounts.subscribe(move |change| {
                if let (Some(old), None) = (change.old, change.new)
                    && old.meta().name() == "default"
                {
                    queue.add("", old.meta().namespace());
                }
            });
        }
    }

    fn plan(&self, stores: &Stores, key: &Name, _moment: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let alive = stores.namespaces.get("", &key.name).is_some_and(|n| n.metadata.deletion_timestamp.is_none());
        let has = stores.other("serviceaccounts").is_some_and(|s| s.get(&key.name, "default").is_some());
        if alive && !has {
            let body = json!({ "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": { "name": "default", "namespace": key.name } });
            let mut write = Write::new(Request::create(row("serviceaccounts"), &key.name, body));
            write.fine = &[Class::AlreadyExists];
            plan.push(write);
        }
        plan
    }
}
