//! Decides: the status of a DaemonSet.

use k8s_openapi::api::apps::v1::DaemonSet;
use serde_json::{Value, json};

use super::View;
use super::places::Places;
use crate::server::controllers::action::{Action, Write};
use crate::server::controllers::pods;
use crate::server::controllers::stores::row;

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    desired: i32,
    current: i32,
    misscheduled: i32,
    ready: i32,
    updated: i32,
    available: i32,
}

/// The status write, if the status differs.
pub fn plan(set: &DaemonSet, places: &Places<'_>, view: View<'_>) -> Option<Action> {
    let counts = count(places, view);
    let unavailable = counts.desired - counts.available;
    let before = set.status.clone().unwrap_or_default();
    let told = Counts {
        desired: before.desired_number_scheduled,
        current: before.current_number_scheduled,
        misscheduled: before.number_misscheduled,
        ready: before.number_ready,
        updated: before.updated_number_scheduled.unwrap_or(0),
        available: before.number_available.unwrap_or(0),
    };
    let observed = before.observed_generation.unwrap_or(0) >= set.metadata.generation.unwrap_or(0);
    if told == counts && before.number_unavailable.unwrap_or(0) == unavailable && observed {
        return None;
    }
    // A merge patch keeps what it does not name, so counts that became zero are written as zero.
    let status = json!({
        "desiredNumberScheduled": counts.desired,
        "currentNumberScheduled": counts.current,
        "numberMisscheduled": counts.misscheduled,
        "numberReady": counts.ready,
        "updatedNumberScheduled": counts.updated,
        "numberAvailable": counts.available,
        "numberUnavailable": unavailable,
        "observedGeneration": set.metadata.generation,
    });
    Some(write(set, status))
}

/// The name of the next revision belongs to another: the next hash will differ.
pub fn collision(set: &DaemonSet) -> Action {
    let count = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
    write(set, json!({ "collisionCount": count.saturating_add(1) }))
}

fn write(set: &DaemonSet, status: Value) -> Action {
    Write::status(row("apps/daemonsets"), &set.metadata, status).into()
}

/// Of each node the oldest pod counts.
fn count(places: &Places<'_>, view: View<'_>) -> Counts {
    let mut counts = Counts::default();
    for place in places.0.values().filter(|place| place.verdict.is_some()) {
        let oldest = place.pods.first();
        if !place.runs() {
            counts.misscheduled += i32::from(oldest.is_some());
            continue;
        }
        counts.desired += 1;
        let Some(pod) = oldest else { continue };
        counts.current += 1;
        counts.ready += i32::from(pods::is_ready(pod));
        counts.available += i32::from(view.is_available(pod));
        counts.updated += i32::from(view.is_updated(pod));
    }
    counts
}
