//! Decides: the status of a StatefulSet, and when it will change by the clock alone.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use serde_json::{Value, json};

use super::members::{self, Members};
use super::pods;
use crate::client::store::Meta as _;
use crate::server::controllers::action::{Action, Plan, Write};
use crate::server::controllers::stores::row;

/// The status write, if the status differs. Asks `plan` to look again when a pod becomes available by waiting.
pub fn plan(set: &StatefulSet, members: &Members<'_>, plan: &mut Plan) -> Option<Action> {
    let mut wanted = count(set, members, plan);
    complete(members, &mut wanted);
    let before = set.status.clone().unwrap_or_default();
    (document(&before) != document(&wanted)).then(|| write(set, &wanted))
}

/// The name of the revision that is to be made belongs to something else.
pub fn collided(set: &StatefulSet) -> Action {
    let mut status = set.status.clone().unwrap_or_default();
    status.collision_count = Some(status.collision_count.unwrap_or(0).saturating_add(1));
    write(set, &status)
}

fn write(set: &StatefulSet, status: &StatefulSetStatus) -> Action {
    Write::status(row("apps/statefulsets"), &set.metadata, document(status)).into()
}

fn count(set: &StatefulSet, members: &Members<'_>, plan: &mut Plan) -> StatefulSetStatus {
    let (mut replicas, mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0, 0);
    for pod in members.replicas.values().chain(members.condemned.values()) {
        replicas += 1;
        ready += i32::from(pods::phase(pod) == "Running" && pods::is_ready(pod));
        match members.available_in(pod) {
            Some(wait) if wait.is_zero() => available += 1,
            Some(wait) => plan.look_after(wait),
            None => {}
        }
        if pod.metadata.deletion_timestamp.is_none() {
            let revision = members::revision(pod);
            current += i32::from(revision == Some(members.current.metadata.name()));
            updated += i32::from(revision == Some(members.update.metadata.name()));
        }
    }
    let before = set.status.clone().unwrap_or_default();
    StatefulSetStatus {
        available_replicas: Some(available),
        collision_count: before.collision_count.or(Some(0)),
        conditions: before.conditions,
        current_replicas: Some(current),
        current_revision: members.current.metadata.name.clone(),
        observed_generation: set.metadata.generation,
        ready_replicas: Some(ready),
        replicas,
        update_revision: members.update.metadata.name.clone(),
        updated_replicas: Some(updated),
    }
}

/// Once every member is of the new revision and ready, that one is the current one.
fn complete(members: &Members<'_>, status: &mut StatefulSetStatus) {
    let wanted = members::wanted(members.spec);
    let all = [Some(status.replicas), status.updated_replicas, status.ready_replicas];
    if !members::is_on_delete(members.spec) && all.iter().all(|n| *n == Some(wanted)) {
        status.current_replicas = status.updated_replicas;
        status.current_revision.clone_from(&status.update_revision);
    }
}

/// A merge patch keeps what it does not name, so counts that became zero are written as zero.
fn document(status: &StatefulSetStatus) -> Value {
    let count = |n: Option<i32>| n.unwrap_or(0);
    json!({
        "availableReplicas": count(status.available_replicas),
        "collisionCount": count(status.collision_count),
        "conditions": status.conditions,
        "currentReplicas": count(status.current_replicas),
        "currentRevision": status.current_revision,
        "observedGeneration": status.observed_generation,
        "readyReplicas": count(status.ready_replicas),
        "replicas": status.replicas,
        "updateRevision": status.update_revision,
        "updatedReplicas": count(status.updated_replicas),
    })
}
