//! Decides: which container the kernel ends first when memory is out (`pkg/kubelet/qos/policy.go`).

use k8s_openapi::api::core::v1::{Container, Pod};

use super::amounts::amount;
use super::{Qos, qos};
use crate::agent::pod::{Role, containers, pod_spec};

const GUARANTEED: i64 = -997;
const BEST_EFFORT: i64 = 1000;
/// The priority of `system-node-critical`.
const NODE_CRITICAL: i32 = 2_000_001_000;

/// `oom_score_adj` of a container's processes.
#[must_use]
pub fn score(pod: &Pod, container: &Container, node_memory_bytes: i64) -> i64 {
    if pod_spec(pod).priority.is_some_and(|priority| priority >= NODE_CRITICAL) {
        return GUARANTEED;
    }
    match qos(pod) {
        Qos::Guaranteed => return GUARANTEED,
        Qos::BestEffort => return BEST_EFFORT,
        Qos::Burstable => {}
    }
    // A container that uses more than it asked for is above 1000, and goes first.
    let of = |request: i64| 1000 - 1000 * request / node_memory_bytes.max(1);
    let share = unnamed(pod);
    let mut score = of(memory(container) + share);
    let is_sidecar = containers(pod).any(|(role, other)| role == Role::Sidecar && other.name == container.name);
    if is_sidecar {
        // It is not to go before those that it serves.
        let least = pod_spec(pod).containers.iter().map(memory).min().unwrap_or(0);
        score = score.min(of(least + share));
    }
    score.clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
}

/// Each container's part of what the pod as a whole asks for beyond its containers.
fn unnamed(pod: &Pod) -> i64 {
    let requests = pod_spec(pod).resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let Some(whole) = requests.and_then(|requests| requests.get("memory")) else { return 0 };
    let running = || containers(pod).filter(|(role, _)| *role != Role::Init).map(|(_, container)| container);
    let count = i64::try_from(running().count()).unwrap_or(1).max(1);
    (super::bytes(&whole.0) - running().map(memory).sum::<i64>()).max(0) / count
}

fn memory(container: &Container) -> i64 {
    amount(container, false, "memory").unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(spec: Value, expect: i64) {
        let mut pod =
            json!({"spec": {"containers": [{"name": "other", "resources": {"requests": {"memory": "500"}}}]}});
        pod["spec"].as_object_mut().expect("a map").extend(spec.as_object().expect("a map").clone());
        let pod: Pod = serde_json::from_value(pod).expect("valid");
        let (_, container) = containers(&pod).find(|(_, container)| container.name != "other").expect("there");
        assert_eq!(score(&pod, container, 1000), expect, "{spec}");
    }

    fn asks(memory: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"memory": memory}}})
    }

    #[test]
    fn scores() {
        let other = || json!({"name": "other", "resources": {"requests": {"memory": "500"}}});
        let with = |container: Value| json!({"containers": [container, other()]});
        check(with(asks("300")), 700);
        check(with(asks("1000")), 3);
        check(with(asks("1")), 999);
        check(json!({"containers": [{"name": "c"}]}), 1000);
        let both = json!({"cpu": "1", "memory": "1"});
        check(json!({"containers": [{"name": "c", "resources": {"limits": both}}]}), -997);
        check(json!({"priority": 2_000_001_000, "containers": [{"name": "c"}]}), -997);
        // 200 of the pod's 1000 are nobody's: half for each.
        let mut whole = with(asks("300"));
        whole["resources"] = json!({"requests": {"memory": "1000"}});
        check(whole, 600);
        let mut sidecar = asks("100");
        sidecar["restartPolicy"] = json!("Always");
        check(json!({"initContainers": [sidecar], "containers": [other()]}), 500);
    }
}
