//! Decides: which ports of its node a pod takes, and whether two pods get in each other's way. The scheduler asks before
//! a pod is bound, the node before it is started.

use k8s_openapi::api::core::v1::PodSpec;

/// One `hostPort` of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    protocol: String,
    /// Empty for every address.
    ip: String,
    port: i32,
}

/// Those of the containers that run side by side: init containers that end have theirs before the others come.
#[must_use]
pub fn of(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|p| *p > 0)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            let ip = port.host_ip.clone().filter(|ip| ip != "0.0.0.0" && ip != "::").unwrap_or_default();
            Some(HostPort { protocol, ip, port: number })
        })
        .collect()
}

/// Whether none of the wanted ports is among the taken ones.
#[must_use]
pub fn are_free(wanted: &[HostPort], taken: &[HostPort]) -> bool {
    !wanted.iter().any(|w| taken.iter().any(|t| clash(w, t)))
}

fn clash(a: &HostPort, b: &HostPort) -> bool {
    a.protocol == b.protocol && a.port == b.port && (a.ip == b.ip || a.ip.is_empty() || b.ip.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ports(port: &Value) -> Vec<HostPort> {
        of(&serde_json::from_value(json!({"containers": [{"name": "c", "ports": [port]}]})).unwrap())
    }

    #[test]
    fn a_port_of_the_node_is_for_one_pod() {
        let port = |ip: &str| json!({"containerPort": 1, "hostPort": 80, "hostIP": ip});
        let udp = json!({"containerPort": 1, "hostPort": 80, "protocol": "UDP"});
        for (one, other, clash) in [
            (port(""), port(""), true),
            (port(""), port("192.0.2.1"), true),
            (port("0.0.0.0"), port("192.0.2.1"), true),
            (port("::"), port("192.0.2.1"), true),
            (port("192.0.2.1"), port("192.0.2.1"), true),
            (port("192.0.2.1"), port("192.0.2.2"), false),
            (port(""), udp, false),
            (port(""), json!({"containerPort": 80}), false),
            (port(""), json!({"containerPort": 80, "hostPort": 81}), false),
        ] {
            assert_eq!(are_free(&ports(&one), &ports(&other)), !clash, "{one} {other}");
            assert_eq!(are_free(&ports(&other), &ports(&one)), !clash, "{other} {one}");
        }
    }

    #[test]
    fn of_init_containers_only_sidecars_take_ports() {
        let init = |policy: Value| {
            json!({"containers": [], "initContainers": [{"name": "i", "restartPolicy": policy,
                "ports": [{"containerPort": 1, "hostPort": 80}]}]})
        };
        let count = |policy: Value| of(&serde_json::from_value(init(policy)).unwrap()).len();
        assert_eq!((count(Value::Null), count("Always".into())), (0, 1));
    }
}
