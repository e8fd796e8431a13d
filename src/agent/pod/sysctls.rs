//! Decides: which sysctls a pod may set (`pkg/kubelet/sysctl`): those of a namespace of its own that harm nobody else, and
//! those that the node's owner allows.

use k8s_openapi::api::core::v1::Pod;

use super::pod_spec;
use crate::config::kubelet::host::namespace;

/// `pkg/kubelet/sysctl/safe_sysctls.go`
const SAFE: [&str; 12] = [
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

/// Why the pod may not set what it asks for: the first one. `allowed` is `--allowed-unsafe-sysctls`.
#[must_use]
pub fn forbidden(pod: &Pod, allowed: &[String]) -> Option<String> {
    let sysctls = pod_spec(pod).security_context.iter().flat_map(|sc| sc.sysctls.iter().flatten());
    sysctls.into_iter().find_map(|sysctl| why(pod, &sysctl.name.replace('/', "."), allowed))
}

fn why(pod: &Pod, name: &str, allowed: &[String]) -> Option<String> {
    let fits = |pattern: &String| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    if !SAFE.contains(&name) && !allowed.iter().any(fits) {
        return Some(format!("{name:?} not allowlisted"));
    }
    // The node's own would be set.
    let spec = pod_spec(pod);
    match namespace(name) {
        Some(kind @ "ipc") if spec.host_ipc == Some(true) => Some(kind),
        Some(kind @ "net") if spec.host_network == Some(true) => Some(kind),
        _ => None,
    }
    .map(|kind| format!("{name:?} not allowed with host {kind} enabled"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(name: &str, more: Value, allowed: &[&str], expect: Option<&str>) {
        let mut spec = json!({"containers": [], "securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        spec.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).expect("valid");
        let allowed: Vec<String> = allowed.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(forbidden(&pod, &allowed).as_deref(), expect, "{spec} {allowed:?}");
    }

    #[test]
    fn safe_ones_and_allowed_ones() {
        check("net.ipv4.tcp_syncookies", json!({}), &[], None);
        check("net/ipv4/tcp_syncookies", json!({}), &[], None);
        check("kernel.msgmax", json!({}), &[], Some("\"kernel.msgmax\" not allowlisted"));
        check("kernel/msgmax", json!({}), &["kernel.msg*"], None);
        check("net.core.somaxconn", json!({}), &["net.core.somaxconn"], None);
        check(
            "net.core.somaxconn2",
            json!({}),
            &["net.core.somaxconn"],
            Some("\"net.core.somaxconn2\" not allowlisted"),
        );
    }

    #[test]
    fn not_in_the_nodes_namespaces() {
        let told = "not allowed with host";
        let (net, ipc) = (json!({"hostNetwork": true}), json!({"hostIPC": true}));
        let text = format!("\"net.ipv4.tcp_syncookies\" {told} net enabled");
        check("net.ipv4.tcp_syncookies", net.clone(), &[], Some(&text));
        check("net.ipv4.tcp_syncookies", ipc.clone(), &[], None);
        let text = format!("\"kernel.shm_rmid_forced\" {told} ipc enabled");
        check("kernel.shm_rmid_forced", ipc.clone(), &[], Some(&text));
        let text = format!("\"kernel.sem\" {told} ipc enabled");
        check("kernel.sem", ipc, &["kernel.sem"], Some(&text));
        let text = format!("\"net.core.somaxconn\" {told} net enabled");
        check("net.core.somaxconn", net, &["net.*"], Some(&text));
    }
}
