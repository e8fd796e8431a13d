//! Effects: holds the groups of what is reserved to it, once, and says so, as `pkg/kubelet/cm` does.

use super::context::NodeContext;
use super::events::Kind;
use crate::config::kubelet::host::Enforced;

/// A group that is not there is its owner's to make: the node goes on without, and says so in an event.
pub fn enforce(cx: &NodeContext) {
    let kubelet = &cx.config.kubelet;
    for (title, kind, part, amounts) in [
        ("System", "system", &kubelet.host.system, &kubelet.system_reserved),
        ("Kube", "kube", &kubelet.host.kube, &kubelet.kube_reserved),
    ] {
        if part.enforced == Enforced::Not {
            continue;
        }
        let (node, group) = (&cx.config.node_name, &part.group);
        match cx.cgroups.enforce_reserved(part, amounts) {
            Ok(()) => {
                let message = format!("Updated limits on {kind} reserved cgroup {group}");
                cx.events.node(node, Kind::Normal, "NodeAllocatableEnforced", message);
            }
            Err(error) => {
                tracing::error!(%error, group, "what is reserved is not enforced");
                let message = format!("Failed to enforce {title} Reserved Cgroup Limits on {group:?}: {error}");
                cx.events.node(node, Kind::Warning, "FailedNodeAllocatableEnforcement", message);
            }
        }
    }
}
