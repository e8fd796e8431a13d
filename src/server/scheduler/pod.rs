//! Types: a pod, reduced to what scheduling looks at.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    NodeSelectorTerm, Pod, PodSpec, PodStatus, PreferredSchedulingTerm, Toleration, TopologySpreadConstraint,
};

use super::cohorts::{Cohort, PodTerms};
use super::devices::extended::{self, Asks};
use super::devices::{self, DeviceClaim};
use super::profile::Profile;
use super::resources::{Taken, taken};
use super::selector::{Labels, Selector};
use super::volumes::{ClaimUse, claims_of};
use super::workloads::OwnerKind;
use crate::api::host_port::{self, HostPort};

#[derive(Clone, Debug, Default)]
pub struct PodInfo {
    pub uid: String,
    pub name: String,
    pub resource_version: String,
    pub generation: i64,
    /// Namespace, labels and affinity to other pods.
    pub cohort: Arc<Cohort>,
    /// Empty until bound.
    pub node: String,
    /// The node it is nominated for; empty for none.
    pub nominated: String,
    /// The same as the API last said it.
    pub told_nomination: String,
    pub priority: i32,
    pub created: Option<Timestamp>,
    pub started: Option<Timestamp>,
    pub finished: bool,
    pub deleting: bool,
    /// The scheduler has chosen it as a victim.
    pub preempted: bool,
    pub taken: Taken,
    pub host_ports: Vec<HostPort>,
    pub claims: Vec<ClaimUse>,
    /// Only for pods that are to be scheduled.
    pub wants: Option<Box<Wants>>,
}

/// Constraints of a pod that is to be scheduled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wants {
    pub scheduler: String,
    /// `None` for the default one.
    pub profile: Option<Arc<Profile>>,
    pub gated: bool,
    pub never_preempts: bool,
    pub node_selector: Labels,
    /// Alternatives; `None` for no requirement.
    pub affinity: Option<Vec<NodeSelectorTerm>>,
    pub preferred: Vec<PreferredSchedulingTerm>,
    pub tolerations: Vec<Toleration>,
    pub spread: Vec<Spread>,
    /// One for each container and image volume, as nodes report them.
    pub images: Vec<String>,
    pub device_claims: Vec<DeviceClaim>,
    /// Of extended resources, which devices may stand for.
    pub extended: Vec<Asks>,
    /// What manages it, when that is of a kind whose selector counts.
    pub owner: Option<(OwnerKind, String)>,
    /// Message of the `PodScheduled` condition when that says Unschedulable.
    pub told: Option<String>,
}

/// A `TopologySpreadConstraint`, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// `DoNotSchedule`
    pub hard: bool,
    pub topology_key: String,
    pub max_skew: i32,
    pub min_domains: i32,
    pub selector: Selector,
    pub honors_affinity: bool,
    pub honors_taints: bool,
}

impl Spread {
    #[must_use]
    pub fn new(constraint: &TopologySpreadConstraint, labels: &Labels) -> Self {
        let mut selector = Selector::new(constraint.label_selector.as_ref());
        // The API server has merged them, unless the pod is older than that.
        let keys = constraint.match_label_keys.iter().flatten();
        selector.and(Selector::exact(keys.filter_map(|key| labels.get_key_value(key))));
        Self {
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            topology_key: constraint.topology_key.clone(),
            max_skew: constraint.max_skew,
            min_domains: constraint.min_domains.unwrap_or(1),
            selector,
            honors_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honors_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }
}

impl PodInfo {
    #[must_use]
    pub fn new(pod: Pod) -> Self {
        let claims = claims_of(&pod);
        let device_claims = devices::claims_of(&pod);
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let meta = pod.metadata;
        let labels = meta.labels.unwrap_or_default();
        let namespace = meta.namespace.unwrap_or_default();
        let node = spec.node_name.clone().unwrap_or_default();
        let manager = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true));
        let owner = manager.and_then(|o| Some((OwnerKind::of(&o.api_version, &o.kind)?, o.name.clone())));
        let affinity = PodTerms::new(spec.affinity.as_ref(), &namespace);
        let taken = taken(&spec, &status);
        let host_ports = host_port::of(&spec);
        let preempted = |c: &k8s_openapi::api::core::v1::PodCondition| {
            c.type_ == "DisruptionTarget" && c.status == "True" && c.reason.as_deref() == Some("PreemptionByScheduler")
        };
        Self {
            uid: meta.uid.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            resource_version: meta.resource_version.unwrap_or_default(),
            generation: meta.generation.unwrap_or(0),
            priority: spec.priority.unwrap_or(0),
            created: meta.creation_timestamp.map(|t| t.0),
            started: status.start_time.as_ref().map(|t| t.0),
            finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            deleting: meta.deletion_timestamp.is_some(),
            preempted: status.conditions.iter().flatten().any(preempted),
            nominated: status.nominated_node_name.clone().unwrap_or_default(),
            told_nomination: status.nominated_node_name.clone().unwrap_or_default(),
            taken,
            host_ports,
            claims,
            wants: node
                .is_empty()
                .then(|| Box::new(Wants { device_claims, ..Wants::new(spec, status, &labels, owner) })),
            node,
            cohort: Arc::new(Cohort { namespace, labels, affinity }),
        }
    }

    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.cohort.namespace
    }

    /// Equal but for what the scheduler itself writes.
    #[must_use]
    pub fn wants_the_same(&self, other: &Self) -> bool {
        let wants = |p: &Self| p.wants.as_ref().map(|w| Wants { told: None, ..(**w).clone() });
        self.priority == other.priority
            && self.taken == other.taken
            && self.cohort == other.cohort
            && self.host_ports == other.host_ports
            && wants(self) == wants(other)
    }
}

impl Wants {
    #[must_use]
    pub fn profile(&self) -> &Profile {
        self.profile.as_deref().unwrap_or_else(|| Profile::default_one())
    }

    fn new(spec: PodSpec, status: PodStatus, labels: &Labels, owner: Option<(OwnerKind, String)>) -> Self {
        let images = images(&spec);
        let extended = extended::asks(&spec);
        let affinity = spec.affinity.and_then(|a| a.node_affinity).unwrap_or_default();
        let told = status
            .conditions
            .into_iter()
            .flatten()
            .find(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("Unschedulable"))
            .and_then(|c| c.message);
        Self {
            scheduler: spec.scheduler_name.unwrap_or_else(|| "default-scheduler".into()),
            profile: None,
            gated: spec.scheduling_gates.is_some_and(|g| !g.is_empty()),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            node_selector: spec.node_selector.unwrap_or_default(),
            affinity: affinity
                .required_during_scheduling_ignored_during_execution
                .map(|required| required.node_selector_terms),
            preferred: affinity.preferred_during_scheduling_ignored_during_execution.unwrap_or_default(),
            tolerations: spec.tolerations.unwrap_or_default(),
            spread: spec.topology_spread_constraints.iter().flatten().map(|c| Spread::new(c, labels)).collect(),
            images,
            device_claims: Vec::new(),
            extended,
            owner,
            told,
        }
    }
}

/// Nodes report images with their tag.
fn images(spec: &PodSpec) -> Vec<String> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers).filter_map(|c| c.image.as_ref());
    let volumes = spec.volumes.iter().flatten().filter_map(|v| v.image.as_ref()?.reference.as_ref());
    let tagged = |name: &String| {
        let after_host = name.rfind('/').map_or(0, |at| at + 1);
        if name[after_host..].contains(':') { name.clone() } else { format!("{name}:latest") }
    };
    containers.chain(volumes).map(tagged).collect()
}
