//! Decides: whether the node takes a pod that was bound to it. The scheduler has looked at this before, but a pod may
//! name its node itself, and two may come at once (`pkg/kubelet/lifecycle/predicate.go`).

use k8s_openapi::api::core::v1::{ContainerPort, Pod};

use super::containers;

/// Why the node does not take a pod: the reason of its status and of the event, and the event's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: &'static str,
    pub message: &'static str,
}

/// Whether the pod is refused. `others` are those that the node has taken and that have not ended.
#[must_use]
pub fn refusal<'a>(pod: &Pod, others: impl IntoIterator<Item = &'a Pod>) -> Option<Refusal> {
    let wanted: Vec<&ContainerPort> = host_ports(pod).collect();
    if wanted.is_empty() {
        return None;
    }
    let taken = |other: &Pod| host_ports(other).any(|theirs| wanted.iter().any(|ours| clash(ours, theirs)));
    others.into_iter().any(taken).then_some(Refusal { reason: "NodePorts", message: "Predicate NodePorts failed" })
}

fn host_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let ports = containers(pod).flat_map(|(_, container)| container.ports.iter().flatten());
    ports.filter(|port| port.host_port.is_some_and(|port| port > 0))
}

/// The same port at the same address; no address is every address.
fn clash(one: &ContainerPort, other: &ContainerPort) -> bool {
    let protocol = |port: &ContainerPort| port.protocol.clone().unwrap_or_else(|| "TCP".into());
    let address = |port: &ContainerPort| port.host_ip.clone().filter(|ip| !ip.is_empty() && ip != "0.0.0.0");
    let (ours, theirs) = (address(one), address(other));
    one.host_port == other.host_port
        && protocol(one) == protocol(other)
        && (ours.is_none() || theirs.is_none() || ours == theirs)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(port: Value) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "ports": [port]}]}})).unwrap()
    }

    #[test]
    fn a_port_of_the_node_is_for_one_pod() {
        let port = |ip: &str| json!({"containerPort": 1, "hostPort": 80, "hostIP": ip});
        let udp = json!({"containerPort": 1, "hostPort": 80, "protocol": "UDP"});
        for (one, other, clash) in [
            (port(""), port(""), true),
            (port(""), port("192.0.2.1"), true),
            (port("0.0.0.0"), port("192.0.2.1"), true),
            (port("192.0.2.1"), port("192.0.2.1"), true),
            (port("192.0.2.1"), port("192.0.2.2"), false),
            (port(""), udp, false),
            (port(""), json!({"containerPort": 80}), false),
            (port(""), json!({"containerPort": 80, "hostPort": 81}), false),
        ] {
            let refused = refusal(&pod(one.clone()), [&pod(other.clone())]);
            assert_eq!(refused.is_some(), clash, "{one} {other}");
            assert_eq!(refusal(&pod(other), [&pod(one)]), refused);
        }
        assert_eq!(refusal(&pod(port("")), []), None);
    }
}
