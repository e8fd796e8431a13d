//! Types: the domains of a topology key, numbered: which nodes are in the same zone, on the same host.

use std::collections::HashMap;

use super::snapshot::NodeInfo;

/// The domains of one topology key.
#[derive(Debug, Default)]
pub struct Domains {
    /// By the slot of the node; `None` where the node lacks the label or is not known.
    of: Vec<Option<usize>>,
    count: usize,
}

impl Domains {
    #[must_use]
    pub fn new(key: &str, nodes: &[NodeInfo]) -> Self {
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut of = Vec::with_capacity(nodes.len());
        for node in nodes {
            let value = node.labels.get(key).filter(|_| node.known);
            of.push(value.map(|value| {
                let next = numbers.len();
                *numbers.entry(value).or_insert(next)
            }));
        }
        Self { of, count: numbers.len() }
    }

    /// The domain of the node in `slot`.
    #[must_use]
    pub fn of(&self, slot: usize) -> Option<usize> {
        self.of.get(slot).copied().flatten()
    }

    /// How many there are; their numbers are less than that.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}
