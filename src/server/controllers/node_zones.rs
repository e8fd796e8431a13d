//! Decides: how fast nodes may be given up for good, by the state of their zones.
//!
//! ```text
//! a node is silent   its zone                                  evictions of its pods begin
//!                    most nodes answer                         on one node in 10 s
//!                    55 % and at least 3 are silent            on one node in 100 s if it has more than 50, else not
//!                    all are silent                            on one node in 10 s
//!                    so is every other: it must be us          not, and those that began are called off
//! ```
//!
//! As upstream's `handleDisruption`, with the defaults of its flags.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;

use super::service_pods::ZONE;

const REGION: &str = "topology.kubernetes.io/region";
/// Nodes with this label say nothing about their zone.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";
/// `--node-eviction-rate` 0.1, `--secondary-node-eviction-rate` 0.01: nodes in a second.
const PACE: Duration = Duration::from_secs(10);
const SLOW_PACE: Duration = Duration::from_secs(100);
/// `--large-cluster-size-threshold`
const LARGE: usize = 50;
/// `--unhealthy-zone-threshold`, in hundredths.
const UNHEALTHY: usize = 55;

/// Region and zone.
pub type Zone = (String, String);

#[must_use]
pub fn zone(node: &Node) -> Zone {
    let label = |key| node.metadata.labels.as_ref().and_then(|l| l.get(key)).cloned().unwrap_or_default();
    (label(REGION), label(ZONE))
}

#[must_use]
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// What may be done to the nodes of a zone that do not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// One, and after that time the next.
    Every(Duration),
    /// None that is not given up already.
    Hold,
    /// None at all.
    CallOff,
}

#[must_use]
pub fn pace(nodes: &[Arc<Node>], of: &Zone) -> Pace {
    let mut zones: BTreeMap<Zone, (usize, usize)> = BTreeMap::new();
    let excluded = |n: &Node| n.metadata.labels.as_ref().is_some_and(|l| l.contains_key(EXCLUDED));
    for node in nodes.iter().filter(|n| !excluded(n)) {
        let (ready, silent) = zones.entry(zone(node)).or_default();
        *if is_ready(node) { ready } else { silent } += 1;
    }
    if !zones.is_empty() && zones.values().all(|(ready, _)| *ready == 0) {
        return Pace::CallOff;
    }
    let (ready, silent) = zones.get(of).copied().unwrap_or_default();
    let all = ready + silent;
    let partly = ready > 0 && silent > 2 && silent * 100 >= all * UNHEALTHY;
    match (partly, all > LARGE) {
        (false, _) => Pace::Every(PACE),
        (true, true) => Pace::Every(SLOW_PACE),
        (true, false) => Pace::Hold,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Zones, each with how many nodes answer and how many do not.
    fn check(zones: &[(&str, usize, usize)], want: Pace) {
        let node = |zone: &str, status: &str| -> Arc<Node> {
            let node = json!({ "metadata": { "labels": { ZONE: zone } },
                "status": { "conditions": [{ "type": "Ready", "status": status }] } });
            Arc::new(serde_json::from_value(node).unwrap())
        };
        let mut nodes = Vec::new();
        for (zone, ready, silent) in zones {
            nodes.extend((0..*ready).map(|_| node(zone, "True")));
            nodes.extend((0..*silent).map(|_| node(zone, "Unknown")));
        }
        assert_eq!(pace(&nodes, &(String::new(), "a".into())), want, "{zones:?}");
    }

    #[test]
    fn the_state_of_zones_sets_the_pace() {
        let (normal, slow) = (Pace::Every(PACE), Pace::Every(SLOW_PACE));
        check(&[("a", 3, 1)], normal);
        check(&[("a", 1, 2)], normal);
        check(&[("a", 5, 6)], normal);
        check(&[("a", 2, 3)], Pace::Hold);
        check(&[("a", 22, 28)], Pace::Hold);
        check(&[("a", 22, 29)], slow);
        check(&[("a", 26, 29)], normal);
        check(&[("a", 0, 1)], Pace::CallOff);
        check(&[("a", 0, 4), ("b", 0, 1)], Pace::CallOff);
        check(&[("a", 0, 4), ("b", 1, 0)], normal);
        check(&[("b", 1, 0)], normal);
        check(&[], normal);
    }

    #[test]
    fn excluded_nodes_do_not_count() {
        let node = |labels| -> Arc<Node> {
            let node = json!({ "metadata": { "labels": labels },
                "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
            Arc::new(serde_json::from_value(node).unwrap())
        };
        let mut silent = (*node(json!({}))).clone();
        silent.status = None;
        let nodes = [Arc::new(silent), node(json!({ EXCLUDED: "" }))];
        assert_eq!(pace(&nodes, &zone(&nodes[0])), Pace::CallOff);
    }
}
