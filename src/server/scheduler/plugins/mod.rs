//! Decides: the table of plugins, in the order of upstream's default profile
//! (`pkg/scheduler/apis/config/v1/default_plugins.go`). Which of them a pod meets, its profile says.
//!
//! - [`node`]: what a node says of itself: cordoned, name, taints, labels, ports
//! - [`resources`]: what is free; [`image_locality`]: which images are there
//! - [`volumes`]: where claims have, or can get, their volumes; [`volume_limits`]: how many a node can have
//! - [`dynamic_resources`]: where claims have, or can get, their devices; [`extended_resources`]: those that would be made
//!   for a pod that names no claim
//! - [`spread`], [`inter_pod_affinity`]: where other pods are
//!
//! A plugin may refuse nodes, score those that are left, and say which events can help a pod that it refused. What it
//! computes once for an attempt is a field of [`Cycle`].

pub mod dynamic_resources;
pub mod extended_resources;
pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node;
pub mod resources;
pub mod spread;
pub mod volume_limits;
pub mod volumes;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::pod::{PodInfo, Wants};
use super::profile::Profile;
use super::resources::Amounts;
use super::snapshot::{NodeChange, NodeInfo, Snapshot, remove_ports};
use crate::api::host_port::HostPort;

/// Score of the best node.
pub const MAX_SCORE: i64 = 100;

/// Why a plugin refuses a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reasons {
    pub texts: Vec<Cow<'static, str>>,
    /// Removing pods from the node could change it.
    pub resolvable: bool,
}

impl Reasons {
    #[must_use]
    pub fn one(text: &'static str, resolvable: bool) -> Self {
        Self { texts: vec![text.into()], resolvable }
    }
}

/// Why a node was refused, and by which plugin of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub plugin: usize,
    pub reasons: Reasons,
}

/// Something that could help a pod that waits.
#[derive(Clone, Copy, Debug)]
pub enum Happened<'a> {
    /// A pod has come to a node.
    Placed(&'a PodInfo),
    /// A pod that is on a node has other labels, asks for less or has begun to end.
    Changed {
        old: &'a PodInfo,
        new: &'a PodInfo,
        slot: usize,
    },
    /// A pod, or one that was nominated, is no longer on a node.
    Gone {
        pod: &'a PodInfo,
        slot: usize,
    },
    Node {
        slot: usize,
        change: NodeChange,
    },
    /// Its domains may have gone with it.
    NodeGone,
    /// Labels of a namespace.
    Namespace,
    /// A claim, by namespace and name.
    Claim(&'a str, &'a str),
    /// A volume or a class, or the room for volumes.
    Volumes,
    /// What can be attached to a node, or is no longer.
    Limits,
    /// A claim for devices; some of them may be free again.
    DeviceClaim {
        namespace: &'a str,
        name: &'a str,
        released: bool,
    },
    /// What devices are offered.
    Devices,
    /// Which devices a class is of, and what they stand for.
    DeviceClasses,
}

impl Happened<'_> {
    fn kind(self) -> u16 {
        match self {
            Self::Placed(_) => PLACED,
            Self::Changed { .. } => CHANGED,
            Self::Gone { .. } => GONE,
            Self::Node { .. } => NODE,
            Self::NodeGone => NODE_GONE,
            Self::Namespace => NAMESPACE,
            Self::Claim(..) | Self::Volumes => VOLUMES,
            Self::Limits => LIMITS,
            Self::DeviceClaim { .. } | Self::Devices | Self::DeviceClasses => DEVICES,
        }
    }
}

const PLACED: u16 = 1;
const CHANGED: u16 = 2;
const GONE: u16 = 4;
const NODE: u16 = 8;
const NODE_GONE: u16 = 16;
const NAMESPACE: u16 = 32;
const VOLUMES: u16 = 64;
const LIMITS: u16 = 128;
const DEVICES: u16 = 256;

pub type Filter = fn(&Cycle, &Room) -> Result<(), Reasons>;
/// Scores of the given slots, 0 to [`MAX_SCORE`]; `None` when the plugin has nothing to say about this pod.
pub type Scores = fn(&Cycle, &[usize]) -> Option<Vec<i64>>;

/// One row of the table.
pub struct Plugin {
    pub name: &'static str,
    pub filter: Option<Filter>,
    /// Unless what is said to it asks for another one.
    pub score: Option<Scores>,
    /// Kinds of events it asks to hear of.
    events: u16,
    /// Whether an event can help a pod that it refused. May be true too often, never too seldom.
    helps: fn(&PodInfo, &Wants, &Happened, &Snapshot) -> bool,
}

pub const PLUGINS: &[Plugin] = &[
    Plugin {
        name: "NodeUnschedulable",
        filter: Some(node::unschedulable),
        score: None,
        events: NODE,
        helps: node::unschedulable_helps,
    },
    Plugin { name: "NodeName", filter: Some(node::name), score: None, events: NODE, helps: node::name_helps },
    Plugin {
        name: "TaintToleration",
        filter: Some(node::taints),
        score: Some(node::taint_scores),
        events: NODE,
        helps: node::taints_helps,
    },
    Plugin {
        name: NODE_AFFINITY,
        filter: Some(node::affinity),
        score: Some(node::affinity_scores),
        events: NODE,
        helps: node::affinity_helps,
    },
    Plugin { name: "NodePorts", filter: Some(node::ports), score: None, events: NODE | GONE, helps: node::ports_helps },
    Plugin {
        name: "NodeResourcesFit",
        filter: Some(resources::fit),
        score: Some(resources::least_allocated),
        events: NODE | GONE | CHANGED | DEVICES,
        helps: resources::helps,
    },
    Plugin { name: volumes::RESTRICTIONS, filter: None, score: None, events: VOLUMES | GONE, helps: volumes::helps },
    Plugin {
        name: "NodeVolumeLimits",
        filter: Some(volume_limits::limits),
        score: None,
        events: VOLUMES | GONE | LIMITS,
        helps: volume_limits::helps,
    },
    Plugin {
        name: volumes::BINDING,
        filter: Some(volumes::binding),
        score: None,
        events: VOLUMES | NODE,
        helps: volumes::helps,
    },
    Plugin {
        name: "VolumeZone",
        filter: Some(volumes::zone),
        score: None,
        events: VOLUMES | NODE,
        helps: volumes::helps,
    },
    Plugin {
        name: "PodTopologySpread",
        filter: Some(spread::filter),
        score: Some(spread::scores),
        events: NODE | NODE_GONE | PLACED | CHANGED | GONE,
        helps: spread::helps,
    },
    Plugin {
        name: "InterPodAffinity",
        filter: Some(inter_pod_affinity::filter),
        score: Some(inter_pod_affinity::scores),
        events: NODE | NODE_GONE | PLACED | CHANGED | GONE | NAMESPACE,
        helps: inter_pod_affinity::helps,
    },
    Plugin {
        name: dynamic_resources::NAME,
        filter: Some(dynamic_resources::filter),
        score: Some(dynamic_resources::scores),
        events: DEVICES | NODE,
        helps: dynamic_resources::helps,
    },
    Plugin {
        name: "NodeResourcesBalancedAllocation",
        filter: None,
        score: Some(resources::balanced_allocation),
        events: 0,
        helps: |_, _, _, _| false,
    },
    Plugin {
        name: "ImageLocality",
        filter: None,
        score: Some(image_locality::scores),
        events: 0,
        helps: |_, _, _, _| false,
    },
];

pub const NODE_AFFINITY: &str = "NodeAffinity";

/// The plugins that refused a pod, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusers(u32);

impl Refusers {
    pub fn add(&mut self, plugin: usize) {
        self.0 |= 1 << plugin;
    }

    /// # Panics
    /// When there is no plugin of that name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let mut refusers = Self::default();
        refusers.add(PLUGINS.iter().position(|p| p.name == name).expect("a plugin of the table"));
        refusers
    }

    pub fn join(&mut self, other: Self) {
        self.0 |= other.0;
    }

    fn each(self) -> impl Iterator<Item = &'static Plugin> {
        PLUGINS.iter().enumerate().filter(move |(i, _)| self.0 & (1 << i) != 0).map(|(_, plugin)| plugin)
    }

    /// Those that ask for events of this kind.
    #[must_use]
    pub fn that_hear_of(happened: &Happened) -> Self {
        let mut all = Self::default();
        PLUGINS.iter().enumerate().filter(|(_, p)| p.events & happened.kind() != 0).for_each(|(i, _)| all.add(i));
        all
    }

    #[must_use]
    pub fn any_of(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// Whether the event can help a pod that these refused.
    #[must_use]
    pub fn are_helped(self, pod: &PodInfo, happened: &Happened, snapshot: &Snapshot) -> bool {
        let Some(wants) = &pod.wants else { return false };
        self.each().any(|p| p.events & happened.kind() != 0 && (p.helps)(pod, wants, happened, snapshot))
    }
}

/// One attempt: the pod, and what is computed once for all nodes.
pub struct Cycle<'a> {
    pub pod: &'a PodInfo,
    pub wants: &'a Wants,
    pub profile: &'a Profile,
    pub snapshot: &'a Snapshot,
    /// Nodes that exist.
    pub node_count: usize,
    /// Pods nominated for the nodes in these slots that are at least as important: they count as if they were there.
    pub nominated: HashMap<usize, Vec<Arc<PodInfo>>>,
    pub volumes: volumes::Needs,
    /// The volumes that the pod brings, those that are to be made for it included.
    pub brought: BTreeSet<volume_limits::Counted>,
    pub devices: dynamic_resources::Needs<'a>,
    spread: spread::Hard,
    affinity: inter_pod_affinity::Required,
}

impl<'a> Cycle<'a> {
    #[must_use]
    pub fn new(
        pod: &'a PodInfo,
        wants: &'a Wants,
        snapshot: &'a Snapshot,
        variants: &'a extended_resources::Variants,
        node_count: usize,
    ) -> Self {
        let spread = spread::Hard::new(pod, wants, snapshot);
        let affinity = inter_pod_affinity::Required::new(pod, snapshot);
        let profile = wants.profile();
        let volumes = match profile.filters_by(volumes::BINDING) {
            true => volumes::Needs::new(pod, snapshot),
            false => volumes::Needs::default(),
        };
        let brought = volume_limits::volumes_of(pod, snapshot);
        let devices = match profile.filters_by(dynamic_resources::NAME) {
            true => dynamic_resources::Needs::new(pod, wants, snapshot, variants),
            false => dynamic_resources::Needs::default(),
        };
        let nominated = HashMap::new();
        Self { pod, wants, profile, snapshot, node_count, nominated, volumes, brought, devices, spread, affinity }
    }

    /// Counts a pod that comes to a node (`1`) or leaves it (`-1`) in this attempt only.
    pub fn adjust(&mut self, other: &PodInfo, slot: usize, by: i32) {
        self.spread.adjust(self.pod, other, slot, by);
        self.affinity.adjust(self.pod, other, slot, by, self.snapshot);
    }

    /// Whether the pod can run there with those that are nominated, and without them.
    ///
    /// # Errors
    /// When the pod cannot run on the node.
    pub fn fits(&mut self, room: &mut Room) -> Result<(), Refusal> {
        if let Some(nominated) = self.nominated.get(&room.slot).cloned() {
            for other in &nominated {
                room.add(other);
                self.adjust(other, room.slot, 1);
            }
            let verdict = self.filter(room);
            for other in &nominated {
                room.remove(other);
                self.adjust(other, room.slot, -1);
            }
            verdict?;
        }
        self.filter(room)
    }

    /// Asks every plugin of the profile, in order; the first that refuses says why.
    fn filter(&self, room: &Room) -> Result<(), Refusal> {
        for (plugin, filter) in &self.profile.filters {
            filter(self, room).map_err(|reasons| Refusal { plugin: *plugin, reasons })?;
        }
        Ok(())
    }
}

/// A node and what would be taken of it with pods added or removed.
#[derive(Clone)]
pub struct Room<'a> {
    pub slot: usize,
    pub node: &'a NodeInfo,
    pub used: Cow<'a, Amounts>,
    pub pods: usize,
    pub ports: Cow<'a, [HostPort]>,
    /// Of the pods added and removed, those that have claims.
    come: Vec<Arc<PodInfo>>,
    gone: Vec<String>,
}

impl<'a> Room<'a> {
    #[must_use]
    pub fn new(slot: usize, node: &'a NodeInfo) -> Self {
        let (used, ports) = (Cow::Borrowed(&node.used), Cow::Borrowed(node.ports.as_slice()));
        Self { slot, node, used, pods: node.pods.len(), ports, come: Vec::new(), gone: Vec::new() }
    }

    pub fn add(&mut self, pod: &Arc<PodInfo>) {
        self.used.to_mut().add(&pod.taken.requests);
        self.pods += 1;
        if !pod.host_ports.is_empty() {
            self.ports.to_mut().extend(pod.host_ports.iter().cloned());
        }
        if !pod.claims.is_empty() {
            match self.gone.iter().position(|uid| *uid == pod.uid) {
                Some(at) => drop(self.gone.swap_remove(at)),
                None => self.come.push(Arc::clone(pod)),
            }
        }
    }

    pub fn remove(&mut self, pod: &PodInfo) {
        self.used.to_mut().subtract(&pod.taken.requests);
        self.pods -= 1;
        if !pod.host_ports.is_empty() {
            remove_ports(self.ports.to_mut(), pod);
        }
        if !pod.claims.is_empty() {
            match self.come.iter().position(|other| other.uid == pod.uid) {
                Some(at) => drop(self.come.swap_remove(at)),
                None => self.gone.push(pod.uid.clone()),
            }
        }
    }

    pub fn pods_with_claims(&self) -> impl Iterator<Item = &Arc<PodInfo>> {
        let there = self.node.pods.values().filter(|pod| !pod.claims.is_empty() && !self.gone.contains(&pod.uid));
        there.chain(&self.come)
    }
}

/// The most gets [`MAX_SCORE`], the others their share of it (upstream's `DefaultNormalizeScore`).
#[must_use]
pub fn most(counts: Vec<i64>) -> Vec<i64> {
    let max = counts.iter().copied().max().unwrap_or(0);
    counts.into_iter().map(|n| if max == 0 { 0 } else { MAX_SCORE * n / max }).collect()
}

/// The reverse of [`most`].
#[must_use]
pub fn fewest(counts: Vec<i64>) -> Vec<i64> {
    most(counts).into_iter().map(|n| MAX_SCORE - n).collect()
}
