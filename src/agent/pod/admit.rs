//! Decides: whether the node takes a pod that was bound to it. The scheduler has looked at this before, but a pod may
//! name its node itself, and two may come at once (`pkg/kubelet/lifecycle/predicate.go`, `pkg/kubelet/sysctl`).

use k8s_openapi::api::core::v1::{Node, Pod};

use super::pod_spec;
use crate::agent::allocation::Lacking;
use crate::api::host_port;
use crate::api::node_fit::{node_allowed, tolerated};

const OS_LABEL: &str = "kubernetes.io/os";
const OS: &str = "linux";

/// Sysctls of a namespace of the pod's own that harm nobody else (`pkg/kubelet/sysctl/safe_sysctls.go`).
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

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
pub fn unsuitable(pod: &Pod) -> Option<Refusal> {
    let sysctls = pod_spec(pod).security_context.iter().flat_map(|sc| sc.sysctls.iter().flatten());
    let mut forbidden = sysctls.filter_map(|sysctl| forbidden_sysctl(pod, &sysctl.name));
    if let Some(why) = forbidden.next() {
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

fn forbidden_sysctl(pod: &Pod, name: &str) -> Option<String> {
    let name = name.replace('/', ".");
    let spec = pod_spec(pod);
    let is_ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix));
    if !SAFE_SYSCTLS.contains(&name.as_str()) {
        return Some(format!("{name:?} not allowlisted"));
    }
    if is_ipc && spec.host_ipc == Some(true) {
        return Some(format!("{name:?} not allowed with host ipc enabled"));
    }
    if name.starts_with("net.") && spec.host_network == Some(true) {
        return Some(format!("{name:?} not allowed with host net enabled"));
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
        let found = unsuitable(&pod(spec.clone()));
        assert_eq!(found.as_ref().map(|why| (why.reason, why.message.as_str())), expect, "{spec}");
    }

    #[test]
    fn other_systems_and_unsafe_sysctls_are_refused() {
        check(json!({"os": {"name": "linux"}}), None);
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        check(json!({"os": {"name": "windows"}}), Some(("PodOSNotSupported", message)));
        let with = |name: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        check(with("net.ipv4.tcp_syncookies"), None);
        check(with("net/ipv4/tcp_syncookies"), None);
        let message = "forbidden sysctl: \"kernel.msgmax\" not allowlisted";
        check(with("kernel.msgmax"), Some(("SysctlForbidden", message)));
        let mut on_host = with("net.ipv4.tcp_syncookies");
        on_host["hostNetwork"] = json!(true);
        let message = "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled";
        check(on_host, Some(("SysctlForbidden", message)));
        let mut on_host = with("kernel.shm_rmid_forced");
        on_host["hostIPC"] = json!(true);
        let message = "forbidden sysctl: \"kernel.shm_rmid_forced\" not allowed with host ipc enabled";
        check(on_host, Some(("SysctlForbidden", message)));
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
