//! Decides: the next step of a roll-out: the new ReplicaSet, then up or down.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::{Value, json};

use super::super::action::{Plan, Report, Write};
use super::super::hash::hash;
use super::super::stores::row;
use super::super::{owners, pods};
use super::scale::resize;
use super::sets::{
    self, DESIRED, HASH_LABEL, MAX, REVISION, REVISION_HISTORY, Sets, annotation, available, revision, set_name, size,
    sum,
};
use super::status::{self, StatusDraft};
use super::{COMPONENT, Observed, history, name, ns};
use crate::client::request::{Request, Verb};

/// Characters of the `revision-history` annotation.
const HISTORY_LIMIT: usize = 2000;
/// Annotations of a Deployment that its ReplicaSets do not take over.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

pub fn plan(observed: &Observed, sets: &Sets<'_>, draft: &mut StatusDraft<'_>, plan: &mut Plan) {
    if sets::is_rolling(sets.deployment) {
        if !new_set(observed, sets, draft, plan) {
            return;
        }
        if let Some(new) = &sets.new {
            roll(sets, new, plan);
        }
    } else {
        recreate(observed, sets, draft, plan);
    }
    if plan.actions.is_empty() && status::is_complete(sets.deployment, sets.deployment.status.as_ref()) {
        history::plan(sets, plan);
    }
}

fn recreate(observed: &Observed, sets: &Sets<'_>, draft: &mut StatusDraft<'_>, plan: &mut Plan) {
    // The new set, if there is one, must carry its revision before anything moves.
    if sets.new.is_some() && !new_set(observed, sets, draft, plan) {
        return;
    }
    for old in sets.old.iter().filter(|s| size(s) > 0) {
        resize(sets, old, 0, plan);
    }
    if !plan.actions.is_empty() || old_pods_run(observed, sets) {
        return;
    }
    if new_set(observed, sets, draft, plan)
        && let Some(new) = &sets.new
    {
        resize(sets, new, sets.replicas(), plan);
    }
}

fn old_pods_run(observed: &Observed, sets: &Sets<'_>) -> bool {
    if sets.old.iter().any(|s| s.status.as_ref().is_some_and(|s| s.replicas > 0)) {
        return true;
    }
    observed.pods.iter().any(|pod| {
        let owner = owners::controller_of(&pod.metadata).map(|o| o.uid.as_str());
        let ours = owner.is_some() && sets.old.iter().any(|s| s.metadata.uid.as_deref() == owner);
        ours && !pods::is_terminal(pod)
    })
}

fn roll(sets: &Sets<'_>, new: &ReplicaSet, plan: &mut Plan) {
    let wanted = sets.replicas();
    let total = sum(sets.all().map(|s| size(s)));
    let to = if size(new) > wanted {
        wanted
    } else {
        let room = sets.most().saturating_sub(total).max(0);
        size(new) + room.min(wanted - size(new))
    };
    if to != size(new) {
        return resize(sets, new, to, plan);
    }
    shrink_old(sets, new, total, plan);
}

/// Pods that are not available go first: they serve nobody. Then available ones, as far as enough remain.
fn shrink_old(sets: &Sets<'_>, new: &ReplicaSet, total: i32, plan: &mut Plan) {
    // A size that its controller has not seen yet makes the counts beside it meaningless: they follow soon.
    let unobserved = |s: &ReplicaSet| {
        let observed = s.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0);
        observed < s.metadata.generation.unwrap_or(0)
    };
    if sets.all().any(|s| unobserved(s)) {
        return;
    }
    // Pods beyond the size are about to go, available or not.
    let available = |s: &ReplicaSet| available(s).min(size(s));
    let minimum = sets.replicas() - sets.max_unavailable();
    let new_unavailable = size(new) - available(new);
    let mut unhealthy_room = total - minimum - new_unavailable;
    if unhealthy_room <= 0 || sets.old.iter().all(|s| size(s) == 0) {
        return;
    }
    let mut sizes: Vec<(&Arc<ReplicaSet>, i32)> = sets.old.iter().map(|s| (s, size(s))).collect();
    for (set, to) in &mut sizes {
        let unhealthy = (*to - available(set)).max(0).min(unhealthy_room.max(0));
        *to -= unhealthy;
        unhealthy_room -= unhealthy;
    }
    let mut room = sum(sets.all().map(|s| available(s))) - minimum;
    for (_, to) in &mut sizes {
        let down = (*to).min(room.max(0));
        *to -= down;
        room -= down;
    }
    for (set, to) in sizes {
        if to != size(set) {
            resize(sets, set, to, plan);
        }
    }
}

/// Brings the new ReplicaSet up to date, or makes it. False when the plan must end here.
fn new_set(observed: &Observed, sets: &Sets<'_>, draft: &mut StatusDraft<'_>, plan: &mut Plan) -> bool {
    let next = sets.old.iter().map(|s| revision(s)).max().unwrap_or(0).saturating_add(1);
    match &sets.new {
        Some(new) => {
            if let Some(write) = refresh(sets, new, next) {
                plan.push(write);
                return false;
            }
            draft.revision(annotation(new, REVISION).unwrap_or_default());
            draft.found(set_name(new));
            true
        }
        None => {
            create(observed, sets, next, draft, plan);
            false
        }
    }
}

/// Name and hash of the ReplicaSet that is to be made.
pub fn next_name(sets: &Sets<'_>) -> (String, String) {
    let collisions = sets.deployment.status.as_ref().and_then(|s| s.collision_count);
    let hash = hash(&sets.spec.template, collisions);
    (format!("{}-{hash}", name(sets.deployment)), hash)
}

/// Annotations that the new ReplicaSet should have, given those it has.
fn annotations(sets: &Sets<'_>, has: &BTreeMap<String, String>, next: i64) -> BTreeMap<String, String> {
    let mut wanted = has.clone();
    for (k, v) in sets.deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&k.as_str()) {
            wanted.insert(k.clone(), v.clone());
        }
    }
    let old = has.get(REVISION).cloned();
    let old_number = old.as_ref().and_then(|r| r.parse::<i64>().ok()).unwrap_or(0);
    if old_number < next {
        wanted.insert(REVISION.into(), next.to_string());
        if let Some(old) = old {
            let mut history: Vec<&str> = has.get(REVISION_HISTORY).map(|h| h.split(',').collect()).unwrap_or_default();
            history.push(&old);
            while history.len() > 1 && history.iter().map(|h| h.len() + 1).sum::<usize>() > HISTORY_LIMIT {
                history.remove(0);
            }
            wanted.insert(REVISION_HISTORY.into(), history.join(","));
        }
    }
    wanted
}

fn refresh(sets: &Sets<'_>, new: &ReplicaSet, next: i64) -> Option<Write> {
    let has = new.metadata.annotations.clone().unwrap_or_default();
    let wanted = annotations(sets, &has, next);
    let seconds = sets.spec.min_ready_seconds.unwrap_or(0);
    if wanted == has && new.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0) == seconds {
        return None;
    }
    let body = json!({
        "metadata": {
            "uid": new.metadata.uid,
            "resourceVersion": new.metadata.resource_version,
            "annotations": wanted,
        },
        "spec": { "minReadySeconds": seconds },
    });
    let ns = ns(sets.deployment);
    Some(Write::new(Request::new(Verb::MergePatch, row("apps/replicasets"), ns, set_name(new), body)))
}

fn create(observed: &Observed, sets: &Sets<'_>, next: i64, draft: &mut StatusDraft<'_>, plan: &mut Plan) {
    let d = sets.deployment;
    let (set, hash) = next_name(sets);
    if observed.sets.iter().any(|s| set_name(s) == set) {
        // Another template, or somebody else's set, has the name.
        draft.collide();
        return;
    }
    let total = sum(sets.old.iter().map(|s| size(s)));
    let wanted = sets.replicas();
    let replicas = if sets::is_rolling(d) { sets.most().saturating_sub(total).clamp(0, wanted) } else { wanted };
    let mut annotated = annotations(sets, &BTreeMap::new(), next);
    annotated.insert(DESIRED.into(), wanted.to_string());
    annotated.insert(MAX.into(), sets.most().to_string());
    let message = format!("Scaled up replica set {set} from 0 to {replicas}");
    let request = Request::create(row("apps/replicasets"), ns(d), new_body(sets, &set, &hash, replicas, &annotated));
    plan.push(Write::new(request).reported(Report {
        regarding: owners::object_reference(row("apps/deployments"), &d.metadata),
        component: COMPONENT,
        ok: (replicas > 0).then_some(("ScalingReplicaSet", message)),
        failed: Some(("ReplicaSetCreateError", format!("Failed to create new replica set \"{set}\": {{error}}"))),
    }));
    draft.revision(&next.to_string());
    draft.created(&set);
}

fn new_body(sets: &Sets<'_>, set: &str, hash: &str, replicas: i32, annotated: &BTreeMap<String, String>) -> Value {
    let d = sets.deployment;
    let mut template = sets.spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.into(), hash.into());
    let labels = labels.clone();
    let mut selector = sets.spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.into());
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": set,
            "namespace": ns(d),
            "labels": labels,
            "annotations": annotated,
            "ownerReferences": [owners::reference(row("apps/deployments"), &d.metadata)],
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": sets.spec.min_ready_seconds.unwrap_or(0),
            "selector": selector,
            "template": template,
        },
    })
}
