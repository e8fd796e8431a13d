//! Types: the cluster as the scheduler sees it: per node what it has and what is taken. Kept up to date change by
//! change, never rebuilt.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerImage, Node, Taint};

use super::cohorts::{Cohort, Cohorts, Namespaces};
use super::csi::Csi;
use super::devices::Devices;
use super::pod::PodInfo;
use super::promises::Promise;
use super::resources::Amounts;
use super::topology::Domains;
use super::volumes::Volumes;
use super::workloads::Workloads;
use crate::api::host_port::HostPort;

/// A node and what is taken of it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Amounts,
    pub used: Amounts,
    /// CPU and memory with defaults for containers that ask for nothing: scores spread such pods too.
    pub scored: (i64, i64),
    /// Pods on the node by uid, assumed ones included.
    pub pods: HashMap<String, Arc<PodInfo>>,
    pub ports: Vec<HostPort>,
    /// Numbers of the images it has, in order, with their bytes.
    images: Vec<(u32, i64)>,
    /// False while only pods are known of it.
    pub known: bool,
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

    fn add(&mut self, pod: Arc<PodInfo>) {
        self.used.add(&pod.taken.requests);
        self.scored.0 += pod.taken.scored.0;
        self.scored.1 += pod.taken.scored.1;
        self.ports.extend(pod.host_ports.iter().cloned());
        self.pods.insert(pod.uid.clone(), pod);
    }

    fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(uid)?;
        self.used.subtract(&pod.taken.requests);
        self.scored.0 -= pod.taken.scored.0;
        self.scored.1 -= pod.taken.scored.1;
        remove_ports(&mut self.ports, &pod);
        Some(pod)
    }

    /// Bytes of an image that the node has.
    #[must_use]
    pub fn image(&self, number: u32) -> Option<i64> {
        self.images.binary_search_by_key(&number, |(n, _)| *n).ok().map(|at| self.images[at].1)
    }
}

/// Takes the ports of a pod out of a list, each once.
pub fn remove_ports(ports: &mut Vec<HostPort>, pod: &PodInfo) {
    for port in &pod.host_ports {
        if let Some(at) = ports.iter().position(|p| p == port) {
            ports.swap_remove(at);
        }
    }
}

/// What of a node has changed, as far as scheduling looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeChange {
    pub added: bool,
    pub labels: bool,
    pub taints: bool,
    pub allocatable: bool,
}

impl NodeChange {
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// An image that nodes have.
struct Image {
    number: u32,
    /// How many nodes.
    on: usize,
}

/// Topology keys that are kept numbered at once. Pods name any they like; real clusters know three.
const KEYS: usize = 32;

#[derive(Default)]
pub struct Snapshot {
    /// By slot. A slot is given to another node only when its node and all its pods are gone.
    nodes: Vec<NodeInfo>,
    free: Vec<usize>,
    slots: HashMap<String, usize>,
    /// Slots of the nodes that exist, the zones taking turns; empty when it has to be made again.
    order: Vec<usize>,
    /// Slot of each placed pod by uid, assumed ones included.
    placed: HashMap<String, usize>,
    cohorts: Cohorts,
    /// Cohorts after the last sweep.
    swept: usize,
    images: HashMap<String, Image>,
    next_image: u32,
    domains: RefCell<HashMap<String, Arc<Domains>>>,
    pub namespaces: Namespaces,
    pub workloads: Workloads,
    pub volumes: Volumes,
    pub csi: Csi,
    pub devices: Devices,
}

impl Snapshot {
    #[must_use]
    pub fn node(&self, slot: usize) -> &NodeInfo {
        &self.nodes[slot]
    }

    #[must_use]
    pub fn slot(&self, node: &str) -> Option<usize> {
        self.slots.get(node).copied()
    }

    /// Slots are less than this.
    #[must_use]
    pub fn slot_count(&self) -> usize {
        self.nodes.len()
    }

    /// Names of nodes, also of those of which only pods are known.
    pub fn node_names(&self) -> impl Iterator<Item = &String> {
        self.slots.keys()
    }

    /// Slots of the nodes that exist, as of the last [`Snapshot::arrange`].
    #[must_use]
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// Puts the nodes in order if they have changed. Zones take turns, so that the first hundred are of all zones
    /// (upstream's `nodeTree`).
    pub fn arrange(&mut self) {
        if self.order.is_empty() {
            let mut zones: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
            let mut known: Vec<usize> = (0..self.nodes.len()).filter(|s| self.nodes[*s].known).collect();
            known.sort_unstable_by_key(|slot| &self.nodes[*slot].name);
            for slot in known {
                let label = |key: &str| self.nodes[slot].labels.get(key).map_or("", String::as_str);
                let zone = (label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"));
                zones.entry(zone).or_default().push(slot);
            }
            let longest = zones.values().map(Vec::len).max().unwrap_or(0);
            let turns = (0..longest).flat_map(|turn| zones.values().filter_map(move |zone| zone.get(turn)));
            self.order = turns.copied().collect();
        }
    }

    /// What has changed, and in which slot.
    pub fn observe_node(&mut self, mut node: Node) -> (usize, NodeChange) {
        let images = node.status.as_mut().and_then(|s| s.images.take()).unwrap_or_default();
        let mut fresh = NodeInfo::default();
        fresh.observe(node);
        let slot = self.slot_of(&fresh.name);
        self.set_images(slot, images);
        let info = &mut self.nodes[slot];
        let change = NodeChange {
            added: !info.known,
            labels: info.labels != fresh.labels,
            taints: info.taints != fresh.taints || info.unschedulable != fresh.unschedulable,
            allocatable: info.allocatable != fresh.allocatable,
        };
        info.labels = fresh.labels;
        info.taints = fresh.taints;
        info.unschedulable = fresh.unschedulable;
        info.allocatable = fresh.allocatable;
        info.known = true;
        if change.added || change.labels {
            self.topology_changed();
        }
        (slot, change)
    }

    /// The slot it had.
    pub fn forget_node(&mut self, name: &str) -> Option<usize> {
        let slot = self.slot(name)?;
        self.set_images(slot, Vec::new());
        self.nodes[slot].known = false;
        self.topology_changed();
        self.release(slot);
        Some(slot)
    }

    fn slot_of(&mut self, name: &str) -> usize {
        if let Some(slot) = self.slots.get(name) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(NodeInfo::default());
            self.nodes.len() - 1
        });
        self.nodes[slot] = NodeInfo { name: name.to_owned(), ..NodeInfo::default() };
        self.slots.insert(name.to_owned(), slot);
        slot
    }

    fn release(&mut self, slot: usize) {
        let node = &self.nodes[slot];
        if !node.known && node.pods.is_empty() {
            self.slots.remove(&node.name);
            self.nodes[slot] = NodeInfo::default();
            self.free.push(slot);
        }
    }

    fn topology_changed(&mut self) {
        self.order.clear();
        self.domains.borrow_mut().clear();
    }

    /// The domains of a topology key as the nodes are now.
    #[must_use]
    pub fn domains(&self, key: &str) -> Arc<Domains> {
        let mut known = self.domains.borrow_mut();
        if let Some(domains) = known.get(key) {
            return Arc::clone(domains);
        }
        if known.len() >= KEYS {
            known.clear();
        }
        let domains = Arc::new(Domains::new(key, &self.nodes));
        known.insert(key.to_owned(), Arc::clone(&domains));
        domains
    }

    fn set_images(&mut self, slot: usize, images: Vec<ContainerImage>) {
        let mut named: BTreeMap<String, i64> = BTreeMap::new();
        for image in images {
            let bytes = image.size_bytes.unwrap_or(0);
            named.extend(image.names.into_iter().flatten().map(|name| (name, bytes)));
        }
        let mut numbers: Vec<(u32, i64)> = Vec::with_capacity(named.len());
        for (name, bytes) in named {
            let next = self.next_image;
            let image = self.images.entry(name).or_insert_with(|| {
                self.next_image = next.wrapping_add(1);
                Image { number: next, on: 0 }
            });
            image.on += 1;
            numbers.push((image.number, bytes));
        }
        numbers.sort_unstable();
        let before = std::mem::replace(&mut self.nodes[slot].images, numbers);
        if !before.is_empty() {
            let gone: HashSet<u32> = before.iter().map(|(n, _)| *n).collect();
            self.images.retain(|_, image| {
                image.on -= usize::from(gone.contains(&image.number));
                image.on > 0
            });
        }
    }

    /// Number of an image, and how many nodes have it.
    #[must_use]
    pub fn image(&self, name: &str) -> Option<(u32, usize)> {
        self.images.get(name).map(|image| (image.number, image.on))
    }

    #[must_use]
    pub fn cohorts(&self) -> &Cohorts {
        &self.cohorts
    }

    /// The one cohort that all alike pods share.
    pub fn shared(&mut self, cohort: Cohort) -> Arc<Cohort> {
        if self.cohorts.len() > 2 * self.swept + 64 {
            self.cohorts.sweep();
            self.swept = self.cohorts.len();
        }
        self.cohorts.shared(cohort)
    }

    pub fn place(&mut self, pod: Arc<PodInfo>) -> usize {
        self.unplace(&pod.uid);
        let slot = self.slot_of(&pod.node);
        self.placed.insert(pod.uid.clone(), slot);
        self.cohorts.place(&pod.cohort, slot, pod.deleting);
        self.nodes[slot].add(pod);
        slot
    }

    /// The pod that was there, and in which slot.
    pub fn unplace(&mut self, uid: &str) -> Option<(Arc<PodInfo>, usize)> {
        let slot = self.placed.remove(uid)?;
        let pod = self.nodes[slot].remove(uid)?;
        self.cohorts.unplace(&pod.cohort, slot, pod.deleting);
        self.release(slot);
        Some((pod, slot))
    }

    /// Counts what is about to be written.
    pub fn promise(&mut self, promise: &Promise) {
        match promise {
            Promise::Devices(reservation) => self.devices.promise(reservation),
            of_volumes => self.volumes.promise(of_volumes),
        }
    }

    #[must_use]
    pub fn placed(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.nodes[*self.placed.get(uid)?].pods.get(uid)
    }

    /// uids of all placed pods.
    pub fn placed_uids(&self) -> impl Iterator<Item = &String> {
        self.placed.keys()
    }
}
