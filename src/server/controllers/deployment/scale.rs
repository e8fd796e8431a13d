//! Decides: sizes of ReplicaSets when the Deployment was resized or is paused, and the write that changes a size.

use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::json;

use super::super::action::{Plan, Report, Write};
use super::super::{owners, stores::row};
use super::sets::{DESIRED, MAX, Sets, annotation, available, set_name, size, sum};
use super::{COMPONENT, ns};
use crate::client::request::{Request, Verb};
use std::sync::Arc;

/// A ReplicaSet was sized for another number of replicas than the Deployment asks for now.
pub fn is_resized(sets: &Sets<'_>) -> bool {
    sets.all().filter(|s| size(s) > 0).any(|s| {
        annotation(s, DESIRED).and_then(|d| d.parse::<i32>().ok()).is_some_and(|desired| desired != sets.replicas())
    })
}

/// Spreads a change of size over the ReplicaSets in proportion to their sizes.
pub fn plan(sets: &Sets<'_>, plan: &mut Plan) {
    let wanted = sets.replicas();
    let active: Vec<&Arc<ReplicaSet>> = sets.all().filter(|s| size(s) > 0).collect();
    let single = match active.len() {
        0 => sets.new.as_ref().or_else(|| sets.old.last()),
        1 => Some(active[0]),
        _ => None,
    };
    if let Some(single) = single {
        return resize(sets, single, wanted, plan);
    }
    if is_saturated(sets) {
        for old in sets.old.iter().filter(|s| size(s) > 0) {
            resize(sets, old, 0, plan);
        }
        return;
    }
    if super::sets::is_rolling(sets.deployment) {
        for (set, to) in proportional(sets, active) {
            resize(sets, &set, to, plan);
        }
    }
}

fn is_saturated(sets: &Sets<'_>) -> bool {
    let wanted = sets.replicas();
    sets.new.as_ref().is_some_and(|new| {
        annotation(new, DESIRED).and_then(|d| d.parse().ok()) == Some(wanted)
            && size(new) == wanted
            && available(new) == wanted
    })
}

/// Larger ones first; of equals the newer grows first and the older shrinks first. The first takes what rounding left.
fn proportional(sets: &Sets<'_>, mut active: Vec<&Arc<ReplicaSet>>) -> Vec<(Arc<ReplicaSet>, i32)> {
    let total = sum(active.iter().map(|s| size(s)));
    let allowed = if sets.replicas() > 0 { sets.most() } else { 0 };
    let to_add = allowed - total;
    active.sort_by(|a, b| {
        let age = a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp);
        size(b).cmp(&size(a)).then(if to_add > 0 { age.reverse() } else { age })
    });
    let mut added = 0;
    let mut sizes: Vec<(Arc<ReplicaSet>, i32)> = Vec::new();
    for set in active {
        let part = proportion(sets, set, to_add, added);
        added += part;
        sizes.push((Arc::clone(set), size(set).saturating_add(part).max(0)));
    }
    if let (Some(first), true) = (sizes.first_mut(), to_add != 0) {
        first.1 = first.1.saturating_add(to_add - added).max(0);
    }
    sizes
}

fn proportion(sets: &Sets<'_>, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if size(set) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let part = fraction(sets, set);
    let allowed = to_add - added;
    if to_add > 0 { part.min(allowed) } else { part.max(allowed) }
}

fn fraction(sets: &Sets<'_>, set: &ReplicaSet) -> i32 {
    if sets.replicas() == 0 {
        return -size(set);
    }
    let before = annotation(set, MAX).and_then(|m| m.parse::<i32>().ok()).filter(|m| *m != 0);
    let status = sets.deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    let Some(before) = before.or((status != 0).then_some(status)) else { return 0 };
    let scaled = f64::from(size(set)) * f64::from(sets.most()) / f64::from(before);
    #[allow(clippy::cast_possible_truncation, reason = "saturates")]
    let rounded = scaled.round() as i32;
    rounded.saturating_sub(size(set))
}

/// Writes size and size annotations of a ReplicaSet when they differ, and tells it.
pub fn resize(sets: &Sets<'_>, set: &ReplicaSet, to: i32, plan: &mut Plan) {
    let from = size(set);
    let (desired, max) = (sets.replicas().to_string(), sets.most().to_string());
    let annotated = annotation(set, DESIRED) == Some(desired.as_str()) && annotation(set, MAX) == Some(max.as_str());
    if from == to && annotated {
        return;
    }
    let body = json!({
        "metadata": {
            "uid": set.metadata.uid,
            "resourceVersion": set.metadata.resource_version,
            "annotations": { DESIRED: desired, MAX: max },
        },
        "spec": { "replicas": to },
    });
    let d = sets.deployment;
    let request = Request::new(Verb::MergePatch, row("apps/replicasets"), ns(d), set_name(set), body);
    let direction = if from < to { "up" } else { "down" };
    let message = format!("Scaled {direction} replica set {} from {from} to {to}", set_name(set));
    plan.push(Write::new(request).reported(Report {
        regarding: owners::object_reference(row("apps/deployments"), &d.metadata),
        component: COMPONENT,
        ok: (from != to).then_some(("ScalingReplicaSet", message)),
        failed: None,
    }));
}
