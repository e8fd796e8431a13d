//! Decides: each node gets a /24 of the cluster CIDR for its pods.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use super::action::{Action, Controller, Enqueue, Moment, Name, Note, Plan};
use super::owners;
use super::stores::{Stores, row};
use crate::client::request::{Request, Verb};
use crate::config::Cidr;

/// Prefix length of one node's range (`--node-cidr-mask-size-ipv4`).
const NODE_PREFIX: u8 = 24;

pub struct NodeIpam {
    cluster: Cidr,
    /// Ranges given by plans that the store may not show yet, by node.
    given: Mutex<HashMap<Box<str>, String>>,
}

impl NodeIpam {
    #[must_use]
    pub fn new(cluster: Cidr) -> Self {
        Self { cluster, given: Mutex::default() }
    }
}

/// The first range that is not used.
fn first_free(cluster: Cidr, used: &HashSet<String>) -> Option<String> {
    let ranges = 1_u32.checked_shl(u32::from(NODE_PREFIX.checked_sub(cluster.prefix)?))?;
    let base = u32::from(cluster.address);
    (0..ranges)
        .map(|i| format!("{}/{NODE_PREFIX}", Ipv4Addr::from(base + (i << (32 - NODE_PREFIX)))))
        .find(|range| !used.contains(range))
}

impl Controller for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.nodes.subscribe(move |change| {
            let has = |n: &Arc<k8s_openapi::api::core::v1::Node>| n.spec.as_ref().is_some_and(|s| s.pod_cidr.is_some());
            if change.new.is_none_or(|n| !has(n)) {
                for node in change.each() {
                    queue.add("", node.metadata.name.as_deref().unwrap_or_default());
                }
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, _moment: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let nodes = stores.nodes.all();
        given.retain(|name, _| nodes.iter().any(|n| n.metadata.name.as_deref() == Some(name)));
        let Some(node) = nodes.iter().find(|n| n.metadata.name.as_deref() == Some(&*key.name)) else { return plan };
        if node.spec.as_ref().is_some_and(|s| s.pod_cidr.is_some()) {
            return plan;
        }
        let ranges = nodes.iter().filter_map(|n| n.spec.as_ref()?.pod_cidr.clone());
        let others = given.iter().filter(|(name, _)| **name != key.name).map(|(_, range)| range.clone());
        let used: HashSet<String> = ranges.chain(others).collect();
        let mine = given.get(&key.name).filter(|r| !used.contains(*r)).cloned();
        match mine.or_else(|| first_free(self.cluster, &used)) {
            Some(range) => {
                given.insert(key.name.clone(), range.clone());
                let body = json!({ "metadata": { "uid": node.metadata.uid },
                    "spec": { "podCIDR": range, "podCIDRs": [range] } });
                plan.push(Request::new(Verb::MergePatch, row("nodes"), "", &key.name, body));
            }
            None => plan.push(Action::Event(Note {
                regarding: owners::object_reference(row("nodes"), &node.metadata),
                warning: false,
                reason: "CIDRNotAvailable",
                message: format!("Node {} status is now: CIDRNotAvailable", key.name),
                component: "cidrAllocator",
                action: "",
            })),
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_given_in_order_and_run_out() {
        let cidr = |prefix| Cidr { address: Ipv4Addr::new(10, 42, 0, 0), prefix };
        let used = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        for (prefix, taken, want) in [
            (16, used(&[]), Some("10.42.0.0/24")),
            (16, used(&["10.42.0.0/24", "10.42.2.0/24"]), Some("10.42.1.0/24")),
            (23, used(&["10.42.0.0/24", "10.42.1.0/24"]), None),
            (24, used(&[]), Some("10.42.0.0/24")),
            (25, used(&[]), None),
        ] {
            assert_eq!(first_free(cidr(prefix), &taken).as_deref(), want, "/{prefix} {taken:?}");
        }
    }
}
