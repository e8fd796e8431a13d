//! Types: the cluster as the scheduler sees it: per node what it has and what is taken, per pod only what matters
//! here. Kept up to date change by change, never rebuilt.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeSelectorTerm, Pod, PreferredSchedulingTerm, Taint, Toleration};

use super::resources::{Amounts, requests};

/// Protocol, address (empty or 0.0.0.0 for all) and port on the node.
pub type HostPort = (String, String, i32);

/// A pod, reduced to what scheduling looks at.
#[derive(Clone, Debug, Default)]
pub struct PodInfo {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub resource_version: String,
    /// Empty until bound.
    pub node: String,
    pub priority: i32,
    pub created: Option<Timestamp>,
    pub finished: bool,
    pub deleting: bool,
    pub requests: Amounts,
    pub host_ports: Vec<HostPort>,
    pub labels: BTreeMap<String, String>,
    /// uid of the managing owner, empty for none.
    pub owner: String,
    /// Only for pods that are to be scheduled.
    pub wants: Option<Box<Wants>>,
}

/// Constraints of a pod that is to be scheduled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wants {
    pub scheduler: String,
    pub gated: bool,
    pub never_preempts: bool,
    pub node_selector: BTreeMap<String, String>,
    /// Alternatives; `None` for no requirement.
    pub affinity: Option<Vec<NodeSelectorTerm>>,
    pub preferred: Vec<PreferredSchedulingTerm>,
    pub tolerations: Vec<Toleration>,
    /// Message of the `PodScheduled` condition when that says Unschedulable.
    pub told: Option<String>,
}

/// A node and what is taken of it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Amounts,
    pub used: Amounts,
    /// As `used`, with defaults for containers that ask for nothing: scores spread such pods too.
    pub scored: Amounts,
    /// Pods on the node by uid, assumed ones included.
    pub pods: HashMap<String, PodInfo>,
    /// False while only pods are known of it.
    pub known: bool,
}

/// What a pod counts for in scores when it asks for nothing: 100 millicores and 200 MiB, as upstream.
const DEFAULT_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 << 20;

impl PodInfo {
    #[must_use]
    pub fn new(pod: Pod) -> Self {
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let meta = pod.metadata;
        let mut host_ports = Vec::new();
        let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        for port in spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten()) {
            if let Some(number) = port.host_port.filter(|p| *p > 0) {
                let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
                host_ports.push((protocol, port.host_ip.clone().unwrap_or_default(), number));
            }
        }
        let owner = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true));
        let node = spec.node_name.clone().unwrap_or_default();
        let requests = requests(&spec);
        let told = status
            .conditions
            .into_iter()
            .flatten()
            .find(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("Unschedulable"))
            .and_then(|c| c.message);
        let affinity = spec.affinity.and_then(|a| a.node_affinity).unwrap_or_default();
        let wants = node.is_empty().then(|| {
            Box::new(Wants {
                scheduler: spec.scheduler_name.unwrap_or_else(|| "default-scheduler".into()),
                gated: spec.scheduling_gates.is_some_and(|g| !g.is_empty()),
                never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
                node_selector: spec.node_selector.unwrap_or_default(),
                affinity: affinity
                    .required_during_scheduling_ignored_during_execution
                    .map(|required| required.node_selector_terms),
                preferred: affinity.preferred_during_scheduling_ignored_during_execution.unwrap_or_default(),
                tolerations: spec.tolerations.unwrap_or_default(),
                told,
            })
        });
        Self {
            owner: owner.map(|o| o.uid.clone()).unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            resource_version: meta.resource_version.unwrap_or_default(),
            node,
            priority: spec.priority.unwrap_or(0),
            created: meta.creation_timestamp.map(|t| t.0),
            finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            deleting: meta.deletion_timestamp.is_some(),
            requests,
            host_ports,
            labels: meta.labels.unwrap_or_default(),
            wants,
        }
    }

    fn scored(&self) -> Amounts {
        let mut scored = self.requests.clone();
        scored.0.entry("cpu".into()).or_insert(DEFAULT_CPU);
        scored.0.entry("memory".into()).or_insert(DEFAULT_MEMORY);
        scored
    }
}

/// Amount that a node's scored use would be with the pod on it.
#[must_use]
pub fn scored_with(node: &NodeInfo, pod: &PodInfo, resource: &str) -> i64 {
    node.scored.get(resource) + pod.scored().get(resource)
}

impl NodeInfo {
    pub fn observe(&mut self, node: Node) {
        let (spec, status) = (node.spec.unwrap_or_default(), node.status.unwrap_or_default());
        self.name = node.metadata.name.unwrap_or_default();
        self.labels = node.metadata.labels.unwrap_or_default();
        self.taints = spec.taints.unwrap_or_default();
        self.unschedulable = spec.unschedulable.unwrap_or(false);
        self.allocatable = Amounts::parse(status.allocatable.as_ref().or(status.capacity.as_ref()));
        self.known = true;
    }

    pub fn add(&mut self, pod: PodInfo) {
        self.remove(&pod.uid);
        self.used.add(&pod.requests);
        self.scored.add(&pod.scored());
        self.pods.insert(pod.uid.clone(), pod);
    }

    pub fn remove(&mut self, uid: &str) -> Option<PodInfo> {
        let pod = self.pods.remove(uid)?;
        self.used.subtract(&pod.requests);
        self.scored.subtract(&pod.scored());
        Some(pod)
    }
}

#[derive(Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, NodeInfo>,
    /// Node of each placed pod by uid, assumed ones included.
    placed: HashMap<String, String>,
}

impl Snapshot {
    /// Nodes that exist, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values().filter(|n| n.known)
    }

    /// True when something that scheduling looks at has changed.
    pub fn observe_node(&mut self, node: Node) -> bool {
        let name = node.metadata.name.clone().unwrap_or_default();
        let mut fresh = NodeInfo::default();
        fresh.observe(node);
        let info = self.nodes.entry(name).or_default();
        let differs = !info.known
            || info.labels != fresh.labels
            || info.taints != fresh.taints
            || info.unschedulable != fresh.unschedulable
            || info.allocatable != fresh.allocatable;
        info.name = fresh.name;
        info.labels = fresh.labels;
        info.taints = fresh.taints;
        info.unschedulable = fresh.unschedulable;
        info.allocatable = fresh.allocatable;
        info.known = true;
        differs
    }

    pub fn forget_node(&mut self, name: &str) {
        let Some(info) = self.nodes.get_mut(name) else { return };
        if info.pods.is_empty() {
            self.nodes.remove(name);
        } else {
            info.known = false;
        }
    }

    pub fn place(&mut self, pod: PodInfo) {
        self.unplace(&pod.uid);
        self.placed.insert(pod.uid.clone(), pod.node.clone());
        self.nodes.entry(pod.node.clone()).or_default().add(pod);
    }

    /// True when room was freed.
    pub fn unplace(&mut self, uid: &str) -> bool {
        let Some(name) = self.placed.remove(uid) else { return false };
        let Some(info) = self.nodes.get_mut(&name) else { return false };
        let freed = info.remove(uid).is_some();
        if info.pods.is_empty() && !info.known {
            self.nodes.remove(&name);
        }
        freed
    }

    #[must_use]
    pub fn is_placed(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    /// With those of which only pods are known.
    pub fn nodes_all(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values()
    }

    pub fn node_names(&self) -> impl Iterator<Item = &String> {
        self.nodes.keys()
    }
}
