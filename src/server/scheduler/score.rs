//! Decides: which of the feasible nodes is best. Each scorer gives 0 to 100, times its weight, as upstream's defaults.

use super::filter::{term_matches, tolerated};
use super::snapshot::{NodeInfo, PodInfo, Wants, scored_with};

const MAX: i64 = 100;
const LEAST_ALLOCATED: i64 = 1;
const BALANCED_ALLOCATION: i64 = 1;
const TAINT_TOLERATION: i64 = 3;
const NODE_AFFINITY: i64 = 2;
const SPREADING: i64 = 2;

/// What pods belong together, beside those of one owner: selectors of the Services in the pod's namespace.
pub type Selectors<'a> = Vec<&'a std::collections::BTreeMap<String, String>>;

/// The best of `nodes`. Of equals `tie` chooses (upstream: at random).
#[must_use]
pub fn best<'a>(
    pod: &PodInfo,
    wants: &Wants,
    nodes: &[&'a NodeInfo],
    services: &Selectors<'_>,
    tie: usize,
) -> Option<&'a NodeInfo> {
    if nodes.len() < 2 {
        return nodes.first().copied();
    }
    let mut totals = vec![0; nodes.len()];
    let mut add = |weight: i64, scores: Vec<i64>| {
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += weight * score;
        }
    };
    add(LEAST_ALLOCATED, nodes.iter().map(|n| least_allocated(pod, n)).collect());
    add(BALANCED_ALLOCATION, nodes.iter().map(|n| balanced_allocation(pod, n)).collect());
    add(TAINT_TOLERATION, fewest(nodes.iter().map(|n| soft_taints(wants, n)).collect()));
    add(NODE_AFFINITY, most(nodes.iter().map(|n| preferred(wants, n)).collect()));
    add(SPREADING, fewest(nodes.iter().map(|n| alike(pod, n, services)).collect()));
    let top = totals.iter().copied().max()?;
    let ties: Vec<usize> = (0..nodes.len()).filter(|i| totals[*i] == top).collect();
    Some(nodes[ties[tie % ties.len()]])
}

/// Free share after placing the pod, mean of CPU and memory.
fn least_allocated(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let free = |resource: &str| {
        let (has, used) = (node.allocatable.get(resource), scored_with(node, pod, resource));
        if has == 0 || used > has { 0 } else { (has - used) * MAX / has }
    };
    i64::midpoint(free("cpu"), free("memory"))
}

/// The nearer the used shares of CPU and memory are, the better.
fn balanced_allocation(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let used = |resource: &str| {
        let has = node.allocatable.get(resource);
        if has == 0 {
            return 0;
        }
        ((node.used.get(resource) + pod.requests.get(resource)) * MAX / has).min(MAX)
    };
    // The standard deviation of two values is half their distance.
    MAX - (used("cpu") - used("memory")).abs() / 2
}

fn soft_taints(wants: &Wants, node: &NodeInfo) -> i64 {
    let soft = node.taints.iter().filter(|t| t.effect == "PreferNoSchedule");
    i64::try_from(soft.filter(|t| !tolerated(t, &wants.tolerations)).count()).unwrap_or(i64::MAX)
}

fn preferred(wants: &Wants, node: &NodeInfo) -> i64 {
    wants.preferred.iter().filter(|p| term_matches(&p.preference, node)).map(|p| i64::from(p.weight)).sum()
}

/// Pods of the same owner or the same Services already on the node.
fn alike(pod: &PodInfo, node: &NodeInfo, services: &Selectors<'_>) -> i64 {
    let together = |other: &&PodInfo| {
        other.namespace == pod.namespace
            && !other.deleting
            && ((!pod.owner.is_empty() && other.owner == pod.owner)
                || services.iter().any(|s| s.iter().all(|(k, v)| other.labels.get(k) == Some(v))))
    };
    i64::try_from(node.pods.values().filter(together).count()).unwrap_or(i64::MAX)
}

fn fewest(counts: Vec<i64>) -> Vec<i64> {
    let max = counts.iter().copied().max().unwrap_or(0);
    counts.into_iter().map(|n| if max == 0 { MAX } else { MAX - MAX * n / max }).collect()
}

fn most(counts: Vec<i64>) -> Vec<i64> {
    let max = counts.iter().copied().max().unwrap_or(0);
    counts.into_iter().map(|n| if max == 0 { 0 } else { MAX * n / max }).collect()
}
