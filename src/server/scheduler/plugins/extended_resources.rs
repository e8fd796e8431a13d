//! Decides: which extended resources of a pod each node leaves to devices. Nodes that leave the same ones to them have one
//! variant in common: the claim that would be made there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::client::store::Meta as _;
use crate::server::scheduler::devices::extended::{Asks, Unmade};
use crate::server::scheduler::pod::{PodInfo, Wants};
use crate::server::scheduler::snapshot::{NodeInfo, Snapshot};

/// Nothing for nearly all pods.
#[derive(Default)]
pub struct Variants {
    /// What the pod asks for and a class has devices for.
    backed: Vec<String>,
    /// By what of that is left to devices.
    all: Vec<(Vec<String>, Arc<Unmade>)>,
}

impl Variants {
    #[must_use]
    pub fn new(pod: &PodInfo, wants: &Wants, snapshot: &Snapshot) -> Self {
        let names: BTreeSet<&str> = wants.extended.iter().flat_map(Asks::resources).collect();
        let class = |name: &str| snapshot.devices.backing(name).map(|class| class.metadata.name());
        let classes: BTreeMap<&str, &str> = names.into_iter().filter_map(|name| Some((name, class(name)?))).collect();
        let mut variants = Self { backed: classes.keys().map(|name| (*name).to_owned()).collect(), all: Vec::new() };
        if classes.is_empty() {
            return variants;
        }
        let nodes = snapshot.order().iter().map(|slot| snapshot.node(*slot));
        let sets: BTreeSet<Vec<&str>> = nodes.map(|node| variants.left(node).collect()).collect();
        let unmade = |set: &Vec<&str>| {
            let of =
                classes.iter().filter(|(name, _)| set.contains(name)).map(|(name, class)| (*name, *class)).collect();
            Arc::new(Unmade::new(pod, &wants.extended, &of))
        };
        let all = sets.iter().filter(|set| !set.is_empty());
        let all = all.map(|set| (set.iter().map(|name| (*name).to_owned()).collect(), unmade(set))).collect();
        variants.all = all;
        variants
    }

    /// Devices stand for something that the pod asks for.
    #[must_use]
    pub fn is_backed(&self) -> bool {
        !self.backed.is_empty()
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Unmade>> {
        self.all.iter().map(|(_, unmade)| unmade)
    }

    /// The variant of a node, counted from one; zero where nothing is left to devices.
    #[must_use]
    pub fn of(&self, node: &NodeInfo) -> Option<usize> {
        let left: Vec<&str> = self.left(node).collect();
        if left.is_empty() {
            return Some(0);
        }
        self.all.iter().position(|(set, _)| *set == left).map(|at| at + 1)
    }

    fn left(&self, node: &NodeInfo) -> impl Iterator<Item = &str> {
        self.backed.iter().map(String::as_str).filter(|name| node.allocatable.get(name) == 0)
    }
}
