//! Decides: whether the node takes a pod that was bound to it. The scheduler has looked at this before, but a pod may
//! name its node itself, and two may come at once (`pkg/kubelet/lifecycle/predicate.go`).

use k8s_openapi::api::core::v1::Pod;

use super::pod_spec;
use crate::api::host_port;

/// Why the node does not take a pod: the reason of its status and of the event, and the event's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: &'static str,
    pub message: &'static str,
}

/// Whether the pod is refused. `others` are those that the node has taken and that have not ended.
#[must_use]
pub fn refusal<'a>(pod: &Pod, others: impl IntoIterator<Item = &'a Pod>) -> Option<Refusal> {
    let wanted = host_port::of(pod_spec(pod));
    if wanted.is_empty() {
        return None;
    }
    let taken = |other: &Pod| !host_port::are_free(&wanted, &host_port::of(pod_spec(other)));
    others.into_iter().any(taken).then_some(Refusal { reason: "NodePorts", message: "Predicate NodePorts failed" })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_another_pod_has_is_refused() {
        let pod = |port: i32| -> Pod {
            let ports = json!([{"containerPort": 1, "hostPort": port}]);
            serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "ports": ports}]}})).unwrap()
        };
        let refused = Refusal { reason: "NodePorts", message: "Predicate NodePorts failed" };
        assert_eq!(refusal(&pod(80), [&pod(81), &pod(80)]), Some(refused));
        assert_eq!(refusal(&pod(80), [&pod(81)]), None);
        assert_eq!(refusal(&pod(80), []), None);
        assert_eq!(refusal(&pod(0), [&pod(0)]), None);
    }
}
