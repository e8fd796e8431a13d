//! Decides: which NUMA nodes all that a container gets should come from: every resource says which nodes it could come from,
//! and the best of what they have in common is taken (`pkg/kubelet/cm/topologymanager/policy.go`).

use std::collections::{BTreeMap, BTreeSet};

use crate::config::placement::Alignment;

/// A set of NUMA nodes, up to node 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mask(u64);

/// One more than the highest node that a [`Mask`] can hold.
pub const NODES: u32 = 64;

impl Mask {
    pub fn of(nodes: impl IntoIterator<Item = u32>) -> Mask {
        Mask(nodes.into_iter().filter(|node| *node < NODES).fold(0, |mask, node| mask | 1 << node))
    }

    #[must_use]
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    #[must_use]
    pub fn contains(self, node: u32) -> bool {
        node < NODES && self.0 & (1 << node) != 0
    }

    fn and(self, other: Mask) -> Mask {
        Mask(self.0 & other.0)
    }
}

/// Every set of these nodes that is not empty, smaller ones first.
#[must_use]
pub fn masks(nodes: &[u32]) -> Vec<Mask> {
    (1..=nodes.len()).flat_map(|size| combinations(nodes, size)).map(Mask::of).collect()
}

/// All choices of so many of the items, in their order.
#[must_use]
pub fn combinations(items: &[u32], size: usize) -> Vec<Vec<u32>> {
    if size == 0 {
        return vec![Vec::new()];
    }
    let mut found = Vec::new();
    for (at, first) in items.iter().enumerate() {
        for rest in combinations(&items[at + 1..], size - 1) {
            found.push(std::iter::once(*first).chain(rest).collect());
        }
    }
    found
}

/// Nodes that a resource could come from; `None` is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hint {
    pub affinity: Option<Mask>,
    pub preferred: bool,
}

/// What one resource says: `None` is that it does not care, an empty list that it cannot be had.
pub type Hints = Option<Vec<Hint>>;

/// Marks those hints that need no more nodes than are needed at all.
#[must_use]
pub fn marked(possible: Vec<Mask>, fewest: u32) -> Hints {
    Some(possible.into_iter().map(|mask| Hint { affinity: Some(mask), preferred: mask.count() == fewest }).collect())
}

/// What is known of the machine's nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    pub distances: BTreeMap<u32, Vec<u64>>,
    /// Of sets of one size, those with short distances are better.
    pub closest: bool,
}

impl Nodes {
    fn all(&self) -> Mask {
        Mask::of(self.distances.keys().copied())
    }

    /// The sum of the distances between all of them.
    fn spread(&self, mask: Mask) -> u64 {
        let place = |node: &u32| self.distances.keys().position(|known| known == node);
        let inside = || self.distances.keys().filter(|node| mask.contains(**node));
        let between = |from: &u32, to: &u32| place(to).and_then(|at| self.distances[from].get(at)).copied();
        inside().flat_map(|from| inside().filter_map(move |to| between(from, to))).sum()
    }
}

/// The nodes to take things from, and whether a pod may start with them.
#[must_use]
pub fn merge(policy: Alignment, nodes: &Nodes, resources: &[Hints]) -> (Hint, bool) {
    if policy == Alignment::None {
        return (Hint { affinity: None, preferred: true }, true);
    }
    let single = policy == Alignment::SingleNumaNode;
    let mut lists: Vec<Vec<Hint>> = resources.iter().map(spelled_out).collect();
    if single {
        for list in &mut lists {
            list.retain(|hint| hint.preferred && hint.affinity.is_none_or(|mask| mask.count() == 1));
        }
    }
    let mut best = best(nodes, &lists, nodes.closest && !single);
    if single && best.affinity == Some(nodes.all()) {
        best.affinity = None;
    }
    (best, policy == Alignment::BestEffort || best.preferred)
}

fn spelled_out(hints: &Hints) -> Vec<Hint> {
    match hints {
        None => vec![Hint { affinity: None, preferred: true }],
        Some(list) if list.is_empty() => vec![Hint { affinity: None, preferred: false }],
        Some(list) => list.clone(),
    }
}

/// What choices of one hint of each resource so far come to. There are as many as sets of nodes, not as many as choices.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Common {
    mask: Mask,
    preferred: bool,
    /// What all of them named, while they are preferred.
    same: Option<Mask>,
}

fn best(nodes: &Nodes, lists: &[Vec<Hint>], closest: bool) -> Hint {
    let all = nodes.all();
    let start = BTreeSet::from([Common { mask: all, preferred: true, same: None }]);
    let choices = lists.iter().fold(start, |choices, list| {
        choices.iter().flat_map(|so_far| list.iter().map(|hint| with(*so_far, hint))).collect()
    });
    let narrowest = |list: &Vec<Hint>| list.iter().filter_map(|hint| hint.affinity).map(Mask::count).min();
    let target = lists.iter().filter_map(narrowest).max().unwrap_or(0);
    let key = |choice: &Common| {
        let count = choice.mask.count();
        // Not preferred: as many nodes as the resource that needs most of them, else fewer, else more.
        let (class, order) = match (choice.preferred, count.cmp(&target)) {
            (true, _) => (0, i64::from(count)),
            (false, std::cmp::Ordering::Equal) => (1, 0),
            (false, std::cmp::Ordering::Less) => (2, -i64::from(count)),
            (false, std::cmp::Ordering::Greater) => (3, i64::from(count)),
        };
        (class, order, if closest { nodes.spread(choice.mask) } else { 0 }, choice.mask)
    };
    let found = choices.iter().filter(|choice| choice.mask.count() > 0).min_by_key(|choice| key(choice));
    found.map_or(Hint { affinity: Some(all), preferred: false }, |choice| Hint {
        affinity: Some(choice.mask),
        preferred: choice.preferred,
    })
}

fn with(so_far: Common, hint: &Hint) -> Common {
    let Some(mask) = hint.affinity else {
        let preferred = so_far.preferred && hint.preferred;
        return Common { preferred, same: so_far.same.filter(|_| preferred), ..so_far };
    };
    let preferred = so_far.preferred && hint.preferred && so_far.same.is_none_or(|same| same == mask);
    Common { mask: so_far.mask.and(mask), preferred, same: preferred.then_some(mask) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u32) -> Nodes {
        let row = |node: u32| (0..count).map(|other| if node == other { 10 } else { 20 }).collect();
        Nodes { distances: (0..count).map(|node| (node, row(node))).collect(), closest: false }
    }

    /// `0 0+1- ; *` is a resource with two hints, the second not preferred, and one that does not care; `!` cannot be had.
    fn hints(text: &str) -> Vec<Hints> {
        let one = |word: &str| Hint {
            affinity: Some(Mask::of(word.trim_end_matches('-').split('+').map(|n| n.parse::<u32>().expect("a node")))),
            preferred: !word.ends_with('-'),
        };
        let resource = |text: &str| match text.trim() {
            "*" => None,
            "!" => Some(Vec::new()),
            list => Some(list.split_whitespace().map(one).collect()),
        };
        text.split(';').map(resource).collect()
    }

    fn show((hint, admitted): (Hint, bool)) -> String {
        let mask = hint.affinity.map_or("any".to_owned(), |mask| {
            let of: Vec<String> = (0..NODES).filter(|node| mask.contains(*node)).map(|node| node.to_string()).collect();
            of.join("+")
        });
        let not = if hint.preferred { "" } else { "-" };
        format!("{mask}{not}{}", if admitted { "" } else { " refused" })
    }

    fn check(count: u32, resources: &str, expect: [&str; 3]) {
        let policies = [Alignment::BestEffort, Alignment::Restricted, Alignment::SingleNumaNode];
        let found = policies.map(|policy| show(merge(policy, &nodes(count), &hints(resources))));
        assert_eq!(found, expect, "{resources}");
    }

    /// Cases and results as in upstream's `policy_test.go`.
    #[test]
    fn hints_are_merged() {
        check(2, "*", ["0+1", "0+1", "any"]);
        check(2, "!", ["0+1-", "0+1- refused", "any- refused"]);
        check(2, "0", ["0", "0", "0"]);
        check(2, "0 1 0+1-; *", ["0", "0", "0"]);
        check(2, "0; 0 1", ["0", "0", "0"]);
        check(2, "0 1; 0 1 ", ["0", "0", "0"]);
        check(2, "0; 1", ["0+1-", "0+1- refused", "any- refused"]);
        check(2, "0+1; 0+1", ["0+1", "0+1", "any- refused"]);
        check(2, "0 1 0+1-; 1 0+1-", ["1", "1", "1"]);
        check(2, "0 ; 0+1", ["0-", "0- refused", "any- refused"]);
        check(2, "0 1; 0+1", ["0-", "0- refused", "any- refused"]);
        check(2, "0-; 0 1", ["0-", "0- refused", "any- refused"]);
        check(2, "0 1; !", ["0-", "0- refused", "any- refused"]);
        // As near to what the widest needs as can be.
        check(4, "0+1 0+2 0+3 1+2 1+3 2+3 ; 0+1- 2+3- 0+1+2-", ["0+1-", "0+1- refused", "any- refused"]);
        check(4, "0+1+2- 0+1+2+3-; 0+1+2+3-", ["0+1+2+3-", "0+1+2+3- refused", "any- refused"]);
        check(4, "0 1 2 3; 2+3 0+1", ["0-", "0- refused", "any- refused"]);
    }

    #[test]
    fn near_nodes_are_better_where_asked_for() {
        let mut nodes = nodes(3);
        nodes.distances = [(0, vec![10, 30, 20]), (1, vec![30, 10, 20]), (2, vec![20, 20, 10])].into();
        let pairs = hints("0+1 0+2 1+2");
        assert_eq!(show(merge(Alignment::Restricted, &nodes, &pairs)), "0+1");
        nodes.closest = true;
        assert_eq!(show(merge(Alignment::Restricted, &nodes, &pairs)), "0+2");
        assert_eq!(show(merge(Alignment::None, &nodes, &pairs)), "any");
    }

    #[test]
    fn sets_of_nodes() {
        assert_eq!(masks(&[0, 2]), [Mask::of([0]), Mask::of([2]), Mask::of([0, 2])]);
        assert_eq!(combinations(&[0, 1, 2], 2), [[0, 1], [0, 2], [1, 2]]);
        assert_eq!(masks(&(0..8).collect::<Vec<_>>()).len(), 255);
        assert_eq!(Mask::of([64]).count(), 0);
        // Many resources on many nodes are no more work than sets of nodes.
        let all: Hints = marked(masks(&(0..8).collect::<Vec<_>>()), 1);
        let many = vec![all; 12];
        assert_eq!(show(merge(Alignment::Restricted, &nodes(8), &many)), "0");
    }
}
