//! Decides: which nodes a pod can run on. One plugin per constraint, in upstream's order; the first that refuses a
//! node says why.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};

use super::snapshot::{HostPort, NodeInfo, PodInfo, Wants};

/// Why a node was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub plugin: &'static str,
    pub reasons: Vec<String>,
    /// Removing pods from the node could change it.
    pub resolvable: bool,
}

/// `Err` with the reasons and whether removing pods could help.
type Verdict = Result<(), (Vec<String>, bool)>;
type Plugin = fn(&PodInfo, &Wants, &NodeInfo) -> Verdict;

pub const NODE_UNSCHEDULABLE: &str = "NodeUnschedulable";
pub const NODE_NAME: &str = "NodeName";
pub const TAINT_TOLERATION: &str = "TaintToleration";
pub const NODE_AFFINITY: &str = "NodeAffinity";
pub const NODE_PORTS: &str = "NodePorts";
pub const NODE_RESOURCES_FIT: &str = "NodeResourcesFit";

const PLUGINS: &[(&str, Plugin)] = &[
    (NODE_UNSCHEDULABLE, node_unschedulable),
    (NODE_NAME, node_name),
    (TAINT_TOLERATION, taint_toleration),
    (NODE_AFFINITY, node_affinity),
    (NODE_PORTS, node_ports),
    (NODE_RESOURCES_FIT, node_resources_fit),
];

/// # Errors
/// When the pod cannot run on the node.
pub fn filter(pod: &PodInfo, wants: &Wants, node: &NodeInfo) -> Result<(), Refusal> {
    for (plugin, run) in PLUGINS {
        run(pod, wants, node).map_err(|(reasons, resolvable)| Refusal { plugin, reasons, resolvable })?;
    }
    Ok(())
}

fn refuse(reason: &str, resolvable: bool) -> Verdict {
    Err((vec![reason.to_owned()], resolvable))
}

fn node_unschedulable(_pod: &PodInfo, wants: &Wants, node: &NodeInfo) -> Verdict {
    let taint =
        Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() };
    if node.unschedulable && !tolerated(&taint, &wants.tolerations) {
        return refuse("node(s) were unschedulable", false);
    }
    Ok(())
}

fn node_name(pod: &PodInfo, _wants: &Wants, node: &NodeInfo) -> Verdict {
    if !pod.node.is_empty() && pod.node != node.name {
        return refuse("node(s) didn't match the requested node name", false);
    }
    Ok(())
}

fn taint_toleration(_pod: &PodInfo, wants: &Wants, node: &NodeInfo) -> Verdict {
    let hard = |t: &&Taint| t.effect == "NoSchedule" || t.effect == "NoExecute";
    if node.taints.iter().filter(hard).any(|t| !tolerated(t, &wants.tolerations)) {
        // Since v1.35 the message names no taint, so that one event counts for many nodes.
        return refuse("node(s) had untolerated taint(s)", false);
    }
    Ok(())
}

/// Whether one of the tolerations covers the taint (`v1.Toleration.ToleratesTaint`).
#[must_use]
pub fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|t| {
        let effect = t.effect.as_deref().unwrap_or_default();
        let key = t.key.as_deref().unwrap_or_default();
        if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
            return false;
        }
        let (mine, theirs) = (t.value.as_deref().unwrap_or_default(), taint.value.as_deref().unwrap_or_default());
        match t.operator.as_deref().unwrap_or_default() {
            "" | "Equal" => mine == theirs,
            "Exists" => true,
            _ => false,
        }
    })
}

fn node_affinity(_pod: &PodInfo, wants: &Wants, node: &NodeInfo) -> Verdict {
    let selected = wants.node_selector.iter().all(|(k, v)| node.labels.get(k) == Some(v));
    let allowed = wants.affinity.as_ref().is_none_or(|terms| terms.iter().any(|t| term_matches(t, node)));
    if selected && allowed { Ok(()) } else { refuse("node(s) didn't match Pod's node affinity/selector", false) }
}

/// An empty term matches nothing.
#[must_use]
pub fn term_matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let name: BTreeMap<String, String> = [("metadata.name".to_owned(), node.name.clone())].into();
    expressions.iter().all(|r| requirement_matches(r, &node.labels))
        && fields.iter().all(|r| requirement_matches(r, &name))
}

fn requirement_matches(r: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&r.key);
    let values = r.values.as_deref().unwrap_or_default();
    let number = |text: Option<&String>| text.and_then(|v| v.parse::<i64>().ok());
    let compare = || Some((number(value)?, number(values.first())?));
    match r.operator.as_str() {
        "In" => value.is_some_and(|v| values.contains(v)),
        "NotIn" => value.is_none_or(|v| !values.contains(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare().is_some_and(|(a, b)| a > b),
        "Lt" => compare().is_some_and(|(a, b)| a < b),
        _ => false,
    }
}

fn node_ports(pod: &PodInfo, _wants: &Wants, node: &NodeInfo) -> Verdict {
    let taken = node.pods.values().flat_map(|p| &p.host_ports);
    if pod.host_ports.is_empty() || !taken.into_iter().any(|t| pod.host_ports.iter().any(|p| clash(p, t))) {
        return Ok(());
    }
    refuse("node(s) didn't have free ports for the requested pod ports", true)
}

fn clash(a: &HostPort, b: &HostPort) -> bool {
    let all = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
    a.0 == b.0 && a.2 == b.2 && (a.1 == b.1 || all(&a.1) || all(&b.1))
}

fn node_resources_fit(pod: &PodInfo, _wants: &Wants, node: &NodeInfo) -> Verdict {
    let mut reasons = Vec::new();
    let mut resolvable = true;
    if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) + 1 > node.allocatable.get("pods") {
        reasons.push("Too many pods".to_owned());
    }
    // The first three in upstream's order, then the others by name.
    let named = ["cpu", "memory", "ephemeral-storage"];
    let others = pod.requests.0.keys().map(String::as_str).filter(|k| !named.contains(k));
    for name in named.into_iter().chain(others) {
        let (wanted, has) = (pod.requests.get(name), node.allocatable.get(name));
        if wanted > 0 && wanted > has - node.used.get(name) {
            reasons.push(format!("Insufficient {name}"));
            // More than the whole node: removing pods would not help.
            resolvable &= wanted <= has;
        }
    }
    if reasons.is_empty() { Ok(()) } else { Err((reasons, resolvable)) }
}
