//! Decides: the status of a Deployment: counts, conditions, revision.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use serde_json::json;

use super::super::action::{Action, Plan};
use super::super::owners;
use super::super::stores::row;
use super::sets::{REVISION, Sets, available, set_name, sum};
use super::{name, ns};
use crate::client::request::{Request, Verb};

/// A status being drawn up; written only when it differs from what is there.
pub struct StatusDraft<'a> {
    d: &'a Deployment,
    status: DeploymentStatus,
    revision: Option<String>,
    now: Timestamp,
}

/// All wanted pods are of the new template and available, and nothing else runs.
pub fn is_complete(d: &Deployment, status: Option<&DeploymentStatus>) -> bool {
    let wanted = d.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    status.is_some_and(|s| {
        s.updated_replicas.unwrap_or(0) == wanted
            && s.replicas.unwrap_or(0) == wanted
            && s.available_replicas.unwrap_or(0) == wanted
            && s.observed_generation.unwrap_or(0) >= d.metadata.generation.unwrap_or(0)
    })
}

fn deadline(d: &Deployment) -> Option<i32> {
    d.spec.as_ref()?.progress_deadline_seconds.filter(|s| *s != i32::MAX)
}

impl<'a> StatusDraft<'a> {
    pub fn new(d: &'a Deployment, now: Timestamp) -> Self {
        Self { d, status: d.status.clone().unwrap_or_default(), revision: None, now }
    }

    fn condition(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.status.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
    }

    fn remove(&mut self, kind: &str) {
        if let Some(conditions) = &mut self.status.conditions {
            conditions.retain(|c| c.type_ != kind);
        }
    }

    /// Same status and reason: nothing changes. Same status: the transition time stays.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let old = self.condition(kind).cloned();
        if old.as_ref().is_some_and(|c| c.status == status && c.reason.as_deref() == Some(reason)) {
            return;
        }
        let now = owners::whole_second(self.now);
        let transition = old.filter(|c| c.status == status).and_then(|c| c.last_transition_time);
        self.remove(kind);
        self.status.conditions.get_or_insert_default().push(DeploymentCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_update_time: Some(now.clone()),
            last_transition_time: transition.or(Some(now)),
        });
    }

    pub fn check_paused(&mut self) {
        if deadline(self.d).is_none() {
            return;
        }
        let reason = self.condition("Progressing").and_then(|c| c.reason.as_deref());
        if reason == Some("ProgressDeadlineExceeded") {
            return;
        }
        let was_paused = reason == Some("DeploymentPaused");
        let paused = self.d.spec.as_ref().and_then(|s| s.paused) == Some(true);
        if paused && !was_paused {
            self.set("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused".into());
        } else if !paused && was_paused {
            self.set("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed".into());
        }
    }

    /// The name of the ReplicaSet that is to be made is taken.
    pub fn collide(&mut self) {
        self.status.collision_count = Some(self.status.collision_count.unwrap_or(0).saturating_add(1));
    }

    pub fn revision(&mut self, revision: &str) {
        let has = self.d.metadata.annotations.as_ref().and_then(|a| a.get(REVISION)).map(String::as_str);
        if has != Some(revision) && !revision.is_empty() {
            self.revision = Some(revision.into());
        }
    }

    pub fn found(&mut self, set: &str) {
        if deadline(self.d).is_some() && self.condition("Progressing").is_none() {
            self.set("Progressing", "True", "FoundNewReplicaSet", format!("Found new replica set \"{set}\""));
        }
    }

    pub fn created(&mut self, set: &str) {
        if deadline(self.d).is_some() {
            self.set("Progressing", "True", "NewReplicaSetCreated", format!("Created new replica set \"{set}\""));
        }
    }

    pub fn refused(&mut self, set: &str, error: &str) {
        if deadline(self.d).is_some() {
            let message = format!("Failed to create new replica set \"{set}\": {error}");
            self.set("Progressing", "False", "ReplicaSetCreateError", message);
        }
    }

    pub fn count(&mut self, sets: &Sets<'_>) {
        let all = |f: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| {
            sum(sets.all().filter_map(|s| s.status.as_ref()).map(f))
        };
        let total = all(|s| s.replicas);
        let is_available = sum(sets.all().map(|s| available(s)));
        self.status.observed_generation = self.d.metadata.generation;
        self.status.replicas = Some(total);
        self.status.updated_replicas =
            Some(sets.new.as_ref().and_then(|s| s.status.as_ref()).map_or(0, |s| s.replicas));
        self.status.ready_replicas = Some(all(|s| s.ready_replicas.unwrap_or(0)));
        self.status.available_replicas = Some(is_available);
        self.status.unavailable_replicas = Some((total - is_available).max(0));
        self.status.terminating_replicas = Some(all(|s| s.terminating_replicas.unwrap_or(0)));
        if is_available >= sets.replicas() - sets.max_unavailable() {
            let message = "Deployment has minimum availability.".into();
            self.set("Available", "True", "MinimumReplicasAvailable", message);
        } else {
            let message = "Deployment does not have minimum availability.".into();
            self.set("Available", "False", "MinimumReplicasUnavailable", message);
        }
    }

    /// Whether the roll-out moves; asks `plan` to look again when the deadline for that passes.
    pub fn progress(&mut self, sets: &Sets<'_>, plan: &mut Plan) {
        let now = self.now;
        if deadline(self.d).is_none() {
            self.remove("Progressing");
        } else {
            self.progressing(sets, now);
        }
        let failure = sets
            .new
            .iter()
            .chain(&sets.old)
            .flat_map(|s| s.status.iter().filter_map(|s| s.conditions.as_ref()).flatten())
            .find(|c| c.type_ == "ReplicaFailure" && c.status == "True");
        match failure {
            Some(c) => {
                let (reason, message) = (c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default());
                self.set("ReplicaFailure", &c.status, &reason, message);
            }
            None => self.remove("ReplicaFailure"),
        }
        if let Some(delay) = self.stuck_in(now) {
            plan.look_after(delay);
        }
    }

    fn progressing(&mut self, sets: &Sets<'_>, now: Timestamp) {
        let current = self.condition("Progressing").cloned();
        let done = self.status.replicas == self.status.updated_replicas
            && current.as_ref().is_some_and(|c| c.reason.as_deref() == Some("NewReplicaSetAvailable"));
        if done {
            return;
        }
        let subject = match &sets.new {
            Some(new) => format!("ReplicaSet \"{}\"", set_name(new)),
            None => format!("Deployment \"{}\"", name(self.d)),
        };
        if is_complete(self.d, Some(&self.status)) {
            let message = format!("{subject} has successfully progressed.");
            self.set("Progressing", "True", "NewReplicaSetAvailable", message);
        } else if self.moved() {
            // Replaced even when status and reason stay, so that the update time tells of the last progress.
            self.remove("Progressing");
            self.set("Progressing", "True", "ReplicaSetUpdated", format!("{subject} is progressing."));
            let since = current.filter(|c| c.status == "True").and_then(|c| c.last_transition_time);
            let last = self.status.conditions.as_mut().and_then(|c| c.last_mut());
            if let (Some(since), Some(last)) = (since, last) {
                last.last_transition_time = Some(since);
            }
        } else if self.timed_out(now) {
            let message = format!("{subject} has timed out progressing.");
            self.set("Progressing", "False", "ProgressDeadlineExceeded", message);
        }
    }

    fn moved(&self) -> bool {
        let n = |v: Option<i32>| v.unwrap_or(0);
        let (new, old) = (&self.status, self.d.status.clone().unwrap_or_default());
        n(new.updated_replicas) > n(old.updated_replicas)
            || n(new.replicas) - n(new.updated_replicas) < n(old.replicas) - n(old.updated_replicas)
            || n(new.ready_replicas) > n(old.ready_replicas)
            || n(new.available_replicas) > n(old.available_replicas)
    }

    fn due(&self) -> Option<Timestamp> {
        let since = self.condition("Progressing")?.last_update_time.as_ref()?.0;
        since.checked_add(SignedDuration::from_secs(i64::from(deadline(self.d)?))).ok()
    }

    fn timed_out(&self, now: Timestamp) -> bool {
        match self.condition("Progressing").and_then(|c| c.reason.as_deref()) {
            None | Some("NewReplicaSetAvailable") => false,
            Some("ProgressDeadlineExceeded") => true,
            Some(_) => self.due().is_some_and(|due| now > due),
        }
    }

    fn stuck_in(&self, now: Timestamp) -> Option<Duration> {
        let reason = self.condition("Progressing")?.reason.as_deref()?;
        // None of these times out any more: what became unavailable after the roll-out is not the roll-out's.
        let over = matches!(reason, "ProgressDeadlineExceeded" | "NewReplicaSetAvailable");
        if over || is_complete(self.d, Some(&self.status)) {
            return None;
        }
        // One second more: the time in the condition is cut to whole seconds.
        let left = self.due()?.duration_since(now) + SignedDuration::from_secs(1);
        Some(Duration::try_from(left).unwrap_or(Duration::from_secs(1)))
    }

    pub fn write(self) -> Option<Action> {
        let normal = |s: &DeploymentStatus| {
            let n = |v: Option<i32>| v.unwrap_or(0);
            (
                (n(s.replicas), n(s.updated_replicas), n(s.ready_replicas), n(s.available_replicas)),
                (n(s.unavailable_replicas), n(s.terminating_replicas), n(s.collision_count)),
                s.observed_generation.unwrap_or(0),
                s.conditions.clone().unwrap_or_default(),
            )
        };
        let same = self.d.status.as_ref().is_some_and(|old| normal(old) == normal(&self.status));
        if same && self.revision.is_none() {
            return None;
        }
        let s = &self.status;
        let mut body = json!({
            "metadata": { "uid": self.d.metadata.uid, "resourceVersion": self.d.metadata.resource_version },
            // A merge patch keeps what it does not name: every count is named.
            "status": {
                "observedGeneration": s.observed_generation,
                "replicas": s.replicas,
                "updatedReplicas": s.updated_replicas,
                "readyReplicas": s.ready_replicas,
                "availableReplicas": s.available_replicas,
                "unavailableReplicas": s.unavailable_replicas,
                "terminatingReplicas": s.terminating_replicas,
                "collisionCount": s.collision_count,
                "conditions": s.conditions,
            },
        });
        if let Some(revision) = &self.revision {
            // Upstream too writes this annotation with the status: with the spec it would raise the generation.
            body["metadata"]["annotations"] = json!({ REVISION: revision });
        }
        let request = Request::new(Verb::MergePatch, row("apps/deployments"), ns(self.d), name(self.d), body);
        Some(request.on("status").into())
    }
}
