//! Decides: which pools of devices a node can reach, and whether they can be allocated from.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{Device, ResourceSlice};

use super::Id;
use crate::server::scheduler::filter::term_matches;
use crate::server::scheduler::snapshot::NodeInfo;

/// A device that a node can reach.
#[derive(Clone, Copy)]
pub struct Offered<'a> {
    pub id: Id<'a>,
    pub device: &'a Device,
    pub slice: &'a ResourceSlice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Slices are still to come.
    Incomplete,
    /// They contradict each other.
    Invalid,
}

/// A pool as one node sees it.
pub struct Pool<'a> {
    pub driver: &'a str,
    pub name: &'a str,
    pub trouble: Option<Trouble>,
    /// Those that the node can reach; none when there is trouble.
    pub devices: Vec<Offered<'a>>,
    /// All slices of the newest generation.
    pub slices: Vec<&'a ResourceSlice>,
}

/// Slices of the newest generation of each pool, by driver and name.
#[derive(Default)]
pub struct Pools<'a>(BTreeMap<(&'a str, &'a str), Vec<&'a ResourceSlice>>);

impl<'a> Pools<'a> {
    /// Slices in the order in which they are to be tried.
    #[must_use]
    pub fn new(slices: impl Iterator<Item = &'a ResourceSlice>) -> Self {
        let mut pools: BTreeMap<(&str, &str), Vec<&ResourceSlice>> = BTreeMap::new();
        for slice in slices {
            let spec = &slice.spec;
            let known = pools.entry((&spec.driver, &spec.pool.name)).or_default();
            let newest = known.first().map_or(i64::MIN, |s| s.spec.pool.generation);
            if spec.pool.generation > newest {
                known.clear();
            }
            if spec.pool.generation >= newest {
                known.push(slice);
            }
        }
        Self(pools)
    }

    /// The pools that have something for a node. Those whose devices have to be prepared for a node come last.
    #[must_use]
    pub fn on(&self, node: &NodeInfo) -> Vec<Pool<'a>> {
        let pools = self.0.iter().filter(|(_, slices)| slices.iter().any(|s| targets(s, node)));
        let mut pools: Vec<Pool> = pools.map(|((driver, name), slices)| pool(driver, name, slices, node)).collect();
        let prepared = |d: &Offered| d.device.binding_conditions.as_ref().is_some_and(|c| !c.is_empty());
        pools.sort_by_key(|pool| pool.devices.iter().any(prepared));
        pools
    }
}

fn matches(selector: &NodeSelector, node: &NodeInfo) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// A place that is given as name, for all, or by selector.
fn is_at(name: Option<&String>, all: Option<bool>, selector: Option<&NodeSelector>, node: &NodeInfo) -> bool {
    match name.filter(|n| !n.is_empty()) {
        Some(name) => *name == node.name,
        None => all == Some(true) || selector.is_some_and(|s| matches(s, node)),
    }
}

fn reaches(slice: &ResourceSlice, device: &Device, node: &NodeInfo) -> bool {
    let spec = &slice.spec;
    if spec.per_device_node_selection == Some(true) {
        is_at(device.node_name.as_ref(), device.all_nodes, device.node_selector.as_ref(), node)
    } else {
        is_at(spec.node_name.as_ref(), spec.all_nodes, spec.node_selector.as_ref(), node)
    }
}

fn targets(slice: &ResourceSlice, node: &NodeInfo) -> bool {
    let spec = &slice.spec;
    if spec.shared_counters.is_some() {
        // Whoever uses the pool needs them.
        return spec.node_name.as_ref().is_none_or(|name| *name == node.name);
    }
    if spec.per_device_node_selection == Some(true) {
        return spec.devices.iter().flatten().any(|d| reaches(slice, d, node));
    }
    is_at(spec.node_name.as_ref(), spec.all_nodes, spec.node_selector.as_ref(), node)
}

fn pool<'a>(driver: &'a str, name: &'a str, slices: &[&'a ResourceSlice], node: &NodeInfo) -> Pool<'a> {
    let mut pool = Pool { driver, name, trouble: None, devices: Vec::new(), slices: slices.to_vec() };
    let count = slices.first().map_or(0, |s| s.spec.pool.resource_slice_count);
    if usize::try_from(count) != Ok(slices.len()) {
        pool.trouble = Some(Trouble::Incomplete);
        return pool;
    }
    let reachable: Vec<&'a ResourceSlice> = slices.iter().copied().filter(|s| targets(s, node)).collect();
    if !has_unique_names(&reachable) || !counts_what_is_there(slices) {
        pool.trouble = Some(Trouble::Invalid);
        return pool;
    }
    for slice in reachable {
        let devices = slice.spec.devices.iter().flatten().filter(|d| reaches(slice, d, node));
        pool.devices.extend(devices.map(|device| Offered { id: (driver, name, &device.name), device, slice }));
    }
    pool
}

fn has_unique_names(slices: &[&ResourceSlice]) -> bool {
    let mut names = HashSet::new();
    slices.iter().flat_map(|s| s.spec.devices.iter().flatten()).all(|d| names.insert(&d.name))
}

/// Counter sets have names of their own, and devices consume none that are not there.
fn counts_what_is_there(slices: &[&ResourceSlice]) -> bool {
    let mut sets = BTreeMap::new();
    for set in slices.iter().flat_map(|s| s.spec.shared_counters.iter().flatten()) {
        if sets.insert(set.name.as_str(), &set.counters).is_some() {
            return false;
        }
    }
    let devices = slices.iter().flat_map(|s| s.spec.devices.iter().flatten());
    devices.flat_map(|d| d.consumes_counters.iter().flatten()).all(|consumed| {
        let set = sets.get(consumed.counter_set.as_str());
        set.is_some_and(|set| consumed.counters.keys().all(|name| set.contains_key(name)))
    })
}
