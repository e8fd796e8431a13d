//! Decides: which old ReplicaSets go, beyond `revisionHistoryLimit`.

use super::super::action::{Plan, Write};
use super::super::stores::row;
use super::ns;
use super::sets::{Sets, revision, set_name, size};
use crate::client::request::Request;

pub fn plan(sets: &Sets<'_>, plan: &mut Plan) {
    let Some(limit) = sets.spec.revision_history_limit.filter(|l| *l != i32::MAX) else { return };
    let mut alive: Vec<_> = sets.old.iter().filter(|s| s.metadata.deletion_timestamp.is_none()).collect();
    let excess = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    alive.sort_by_key(|s| revision(s));
    for set in alive.into_iter().take(excess) {
        let status = set.status.clone().unwrap_or_default();
        let unobserved = set.metadata.generation.unwrap_or(0) > status.observed_generation.unwrap_or(0);
        if status.replicas == 0 && size(set) == 0 && !unobserved {
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            let request = Request::delete(row("apps/replicasets"), ns(sets.deployment), set_name(set), uid);
            plan.push(Write::delete(request));
        }
    }
}
