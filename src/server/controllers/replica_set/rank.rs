//! Decides: which pods go first when there are too many (upstream's `ActivePodsWithRanks`).

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::Observed;
use crate::server::controllers::{owners, pods};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods that are missed least, first one first.
pub fn worst<'a>(observed: &Observed, active: &[&'a Arc<Pod>], count: usize) -> Vec<&'a Arc<Pod>> {
    let per_node = related_per_node(observed);
    let newest = active.iter().filter_map(|p| pods::ready_since(p).or(created(p))).max();
    let mut ranked: Vec<(&'a Arc<Pod>, usize)> =
        active.iter().map(|p| (*p, per_node.get(pods::node_name(p)).copied().unwrap_or(0))).collect();
    ranked.sort_by(|a, b| compare(*a, *b, newest));
    ranked.into_iter().take(count).map(|(p, _)| p).collect()
}

/// Active pods on each node of this set and of the sets with the same owner: a roll-out leaves nodes evenly.
fn related_per_node(observed: &Observed) -> HashMap<&str, usize> {
    let mut per_node = HashMap::new();
    for pod in &observed.pods {
        let owner = owners::controller_of(&pod.metadata).map(|o| o.uid.as_str());
        let related = owner.is_some() && observed.siblings.iter().any(|s| s.metadata.uid.as_deref() == owner);
        if related && pods::is_active(pod) {
            *per_node.entry(pods::node_name(pod)).or_insert(0) += 1;
        }
    }
    per_node
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|t| t.0)
}

/// `Less` goes first.
fn compare(a: (&Arc<Pod>, usize), b: (&Arc<Pod>, usize), newest: Option<Timestamp>) -> Ordering {
    let ((p, p_rank), (q, q_rank)) = (a, b);
    let assigned = |pod: &Pod| !pods::node_name(pod).is_empty();
    let phase = |pod: &Pod| match pods::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    assigned(p)
        .cmp(&assigned(q))
        .then_with(|| phase(p).cmp(&phase(q)))
        .then_with(|| pods::is_ready(p).cmp(&pods::is_ready(q)))
        .then_with(|| cost(p).cmp(&cost(q)))
        .then_with(|| Reverse(p_rank).cmp(&Reverse(q_rank)))
        .then_with(|| {
            if pods::is_ready(p) && pods::is_ready(q) {
                younger(pods::ready_since(p), pods::ready_since(q), newest)
            } else {
                Ordering::Equal
            }
        })
        .then_with(|| Reverse(restarts(p)).cmp(&Reverse(restarts(q))))
        .then_with(|| younger(created(p), created(q), newest))
        .then_with(|| p.metadata.uid.cmp(&q.metadata.uid))
}

/// The younger goes first, compared by the logarithm of the age (KEP-2185): nearly equal ages are equal.
fn younger(p: Option<Timestamp>, q: Option<Timestamp>, newest: Option<Timestamp>) -> Ordering {
    let bucket = |t: Option<Timestamp>| match (t, newest) {
        // A pod without a time counts as the youngest.
        (None, _) | (_, None) => -1,
        (Some(t), Some(newest)) => {
            let age = newest.duration_since(t).as_nanos();
            u64::try_from(age).ok().and_then(u64::checked_ilog2).map_or(0, i64::from)
        }
    };
    bucket(p).cmp(&bucket(q))
}

fn cost(pod: &Pod) -> i32 {
    pod.metadata.annotations.as_ref().and_then(|a| a.get(DELETION_COST)?.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|c| c.restart_count).max().unwrap_or(0)
}
