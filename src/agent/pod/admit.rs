//! Decides: whether the node takes a pod that was bound to it. The scheduler has looked at this before, but a pod may
//! name its node itself, and two may come at once (`pkg/kubelet/lifecycle/predicate.go`).

use k8s_openapi::api::core::v1::{Node, Pod};

use super::{pod_spec, sysctls};
use crate::agent::allocation::Lacking;
use crate::api::host_port;
use crate::api::node_fit::{node_allowed, tolerated};
use crate::config::kubelet::host::Host;
use crate::cri;

const OS_LABEL: &str = "kubernetes.io/os";
const OS: &str = "linux";

/// Why the node does not take a pod: the reason of its status and of the event, and the event's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: &'static str,
    pub message: String,
}

impl Refusal {
    fn new(reason: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { reason, message: message.into() }
    }

    fn predicate(reason: &'static str, why: &str) -> Refusal {
        Refusal::new(reason, format!("Predicate {reason} failed: {why}"))
    }
}

/// Whether the pod is refused for what it is, on any node like this.
#[must_use]
pub fn unsuitable(pod: &Pod, host: &Host) -> Option<Refusal> {
    if let Some(why) = sysctls::forbidden(pod, &host.unsafe_sysctls) {
        return Some(Refusal::new("SysctlForbidden", format!("forbidden sysctl: {why}")));
    }
    if pod.metadata.labels.as_ref().and_then(|labels| labels.get(OS_LABEL)).is_some_and(|os| os != OS) {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Some(Refusal::new("PodOSSelectorNodeLabelDoesNotMatch", message));
    }
    if pod_spec(pod).os.as_ref().is_some_and(|os| os.name != OS) {
        return Some(Refusal::new("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"));
    }
    None
}

/// The node has not what the pod asks for.
#[must_use]
pub fn lacking(lacking: &Lacking) -> Refusal {
    let reason = match lacking.resource.as_str() {
        "cpu" => "OutOfcpu",
        "memory" => "OutOfmemory",
        "pods" => "OutOfpods",
        "ephemeral-storage" => "OutOfephemeral-storage",
        "hugepages-64Ki" => "OutOfhugepages-64Ki",
        "hugepages-2Mi" => "OutOfhugepages-2Mi",
        "hugepages-32Mi" => "OutOfhugepages-32Mi",
        "hugepages-512Mi" => "OutOfhugepages-512Mi",
        "hugepages-1Gi" => "OutOfhugepages-1Gi",
        "hugepages-16Gi" => "OutOfhugepages-16Gi",
        _ => "UnexpectedAdmissionError",
    };
    Refusal::new(reason, lacking.to_string())
}

/// The pod wants no groups but those that it names, and the runtime may give it others.
#[must_use]
pub fn groups(pod: &Pod, health: &cri::Health) -> Option<Refusal> {
    let why = || {
        let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
        Refusal::new("SupplementalGroupsPolicyNotSupported", message)
    };
    (is_strict(pod) && health.supplemental_groups_policy != Some(true)).then(why)
}

#[must_use]
pub fn is_strict(pod: &Pod) -> bool {
    let of_pod = pod_spec(pod).security_context.as_ref();
    of_pod.is_some_and(|sc| sc.supplemental_groups_policy.as_deref() == Some("Strict"))
}

/// No others can leave for a critical pod.
#[must_use]
pub fn no_room(why: &str) -> Refusal {
    let text = "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt";
    Refusal::new("UnexpectedAdmissionError", format!("{text}: {why}"))
}

/// Whether the node does not suit the pod by its labels, or keeps it away by a taint.
#[must_use]
pub fn unsuited_node(pod: &Pod, node: &Node) -> Option<Refusal> {
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    if !node_allowed(pod_spec(pod), name, &labels) {
        return Some(Refusal::predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"));
    }
    let tolerations = pod_spec(pod).tolerations.as_deref().unwrap_or_default();
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let mut taints = taints.filter(|taint| taint.effect == "NoExecute");
    let kept_away = taints.any(|taint| !tolerated(taint, tolerations));
    kept_away.then(|| Refusal::predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate"))
}

/// Whether the pod wants ports of the node that `others` have: those that the node has taken and that have not ended.
#[must_use]
pub fn ports<'a>(pod: &Pod, others: impl IntoIterator<Item = &'a Pod>) -> Option<Refusal> {
    let wanted = host_port::of(pod_spec(pod));
    if wanted.is_empty() {
        return None;
    }
    let taken = |other: &Pod| !host_port::are_free(&wanted, &host_port::of(pod_spec(other)));
    let why = "node(s) didn't have free ports for the requested pod ports";
    others.into_iter().any(taken).then(|| Refusal::predicate("NodePorts", why))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        let mut full = json!({"containers": []});
        full.as_object_mut().expect("a map").extend(spec.as_object().expect("a map").clone());
        serde_json::from_value(json!({"spec": full})).expect("valid")
    }

    #[test]
    fn what_another_pod_has_is_refused() {
        let pod = |port: i32| {
            let ports = json!([{"containerPort": 1, "hostPort": port}]);
            pod(json!({"containers": [{"name": "c", "ports": ports}]}))
        };
        let message =
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports".to_owned();
        assert_eq!(ports(&pod(80), [&pod(81), &pod(80)]), Some(Refusal { reason: "NodePorts", message }));
        assert_eq!(ports(&pod(80), [&pod(81)]), None);
        assert_eq!(ports(&pod(80), []), None);
        assert_eq!(ports(&pod(0), [&pod(0)]), None);
    }

    fn check(spec: Value, expect: Option<(&str, &str)>) {
        let found = unsuitable(&pod(spec.clone()), &Host::default());
        assert_eq!(found.as_ref().map(|why| (why.reason, why.message.as_str())), expect, "{spec}");
    }

    #[test]
    fn other_systems_and_unsafe_sysctls_are_refused() {
        check(json!({"os": {"name": "linux"}}), None);
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        check(json!({"os": {"name": "windows"}}), Some(("PodOSNotSupported", message)));
        let message = "forbidden sysctl: \"kernel.msgmax\" not allowlisted";
        let sysctls = json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]});
        check(json!({"securityContext": sysctls}), Some(("SysctlForbidden", message)));
    }

    #[test]
    fn groups_that_nobody_can_keep_away_are_refused() {
        let check = |policy: &str, supported: Option<bool>| {
            let health = cri::Health { supplemental_groups_policy: supported, ..cri::Health::default() };
            groups(&pod(json!({"securityContext": {"supplementalGroupsPolicy": policy}})), &health)
                .map(|why| why.reason)
        };
        assert_eq!(check("Strict", Some(true)), None);
        assert_eq!(check("Merge", None), None);
        for supported in [None, Some(false)] {
            assert_eq!(check("Strict", supported), Some("SupplementalGroupsPolicyNotSupported"));
        }
    }

    #[test]
    fn labels_and_taints_of_the_node() {
        let node = json!({"metadata": {"name": "n1", "labels": {"disk": "ssd"}}, "spec": {"taints": [
            {"key": "soft", "effect": "NoSchedule"}, {"key": "out", "effect": "NoExecute"}]}});
        let node: Node = serde_json::from_value(node).expect("valid");
        let check = |spec: Value, expect: Option<&str>| {
            let found = unsuited_node(&pod(spec.clone()), &node);
            assert_eq!(found.as_ref().map(|why| why.message.as_str()), expect, "{spec}");
        };
        let tolerations = json!([{"key": "out", "operator": "Exists"}]);
        check(json!({"tolerations": tolerations}), None);
        check(json!({"tolerations": tolerations, "nodeSelector": {"disk": "ssd"}}), None);
        let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        check(json!({"tolerations": tolerations, "nodeSelector": {"disk": "hdd"}}), Some(message));
        let message = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
        check(json!({}), Some(message));
    }

    #[test]
    fn what_the_node_lacks() {
        let short = |resource: &str| Lacking { resource: resource.into(), requested: 2, used: 1, capacity: 2 };
        let message = "Node didn't have enough resource: cpu, requested: 2, used: 1, capacity: 2";
        assert_eq!(lacking(&short("cpu")), Refusal { reason: "OutOfcpu", message: message.into() });
        assert_eq!(lacking(&short("hugepages-2Mi")).reason, "OutOfhugepages-2Mi");
    }
}
