//! Effects: `pods/eviction`: deletes a pod if its disruption budget allows it (`EvictionREST` of upstream's pod storage).
//!
//! ```text
//! pod ─┬─ over, not begun, or going already ──────────────────────────▶ delete
//!      ├─ of no budget ───────────────────────────────────────────────▶ delete
//!      ├─ not ready, so that its budget does not count on it ─────────▶ delete, if it is still as it was seen
//!      └─ of a budget that counts on it ─┬─ takes one of its disruptions ▶ delete
//!                                        └─ it has none ────────────────▶ 429
//! ```
//!
//! A crash between taking a disruption and deleting the pod costs the budget one disruption for a while: its controller
//! forgets pods that were to be disrupted and are still there.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;

use super::managed::Ownership;
use super::request::{Context, DeleteOptions, Deleted, Preconditions, Target, WriteOptions};
use super::strategy::Part;
use super::{Entry, Failed, MAX_ATTEMPTS, Registry, attributes, meta};
use crate::api::object::{Object, ObjectRef};
use crate::api::resource::Resource;
use crate::api::selector::LabelSelector;
use crate::api::status::{Cause, Details, Status};
use crate::api::user::{SYSTEM_MASTERS, User};
use crate::clock;
use crate::server::admission::Operation;
use crate::server::admission::webhooks::Options;
use crate::server::registry::delete;
use crate::server::registry::kinds::row;

/// Disruptions of one budget that its controller has not seen happen; with more of them nothing is evicted.
const MAX_DISRUPTED: usize = 2000;
/// When to come back while the budget's controller is at work, in seconds.
const RETRY_AFTER: u32 = 10;
/// The cause of a refusal (`DisruptionBudgetCause` in `k8s.io/api/policy/v1`).
const CAUSE: &str = "DisruptionBudget";
const ALLOWED: &str = "DisruptionAllowed";
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// Refusals are about the singular, as upstream words them.
static BUDGET: Resource = Resource::unstored("policy", "poddisruptionbudget", "poddisruptionbudget", "");

/// How a pod may go.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// Whatever its budget says.
    Free,
    /// Its budget does not count on it, as long as it stays as it was seen.
    Unhealthy { budget: String },
    /// Its budget has to give a disruption.
    Counted { budget: String },
}

impl Registry {
    pub(super) async fn evict(
        &self,
        cx: &Context,
        t: &Target,
        mut eviction: Value,
        o: &WriteOptions,
    ) -> Result<ObjectRef, Status> {
        let entry = &*self.entry(t)?;
        meta::enter_namespace(t, &mut eviction)?;
        let asked = attributes(cx, t, Operation::Create, None, o.dry_run);
        eviction = self.admit_document(t, asked, Options::Write(o), eviction).await?;
        if meta::text(&eviction, "name") != t.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let options = delete_options(&eviction, o)?;
        // Who names a revision is told when it is not the one; nobody else has to know.
        let pinned = options.preconditions.as_ref().is_some_and(|p| p.resource_version.is_some());

        for _ in 0..MAX_ATTEMPTS {
            let seen = self.find(entry, t)?;
            let pod: Pod = seen.typed().map_err(Status::internal)?;
            let mut options = options.clone();
            let way = if ignores_budget(&pod) { Way::Free } else { self.way(&pod, &seen)? };
            let as_seen = match &way {
                Way::Free => phase(&pod) == "Pending" && pod.metadata.deletion_timestamp.is_none(),
                Way::Unhealthy { .. } => true,
                Way::Counted { budget } => {
                    self.disrupt(&t.namespace, budget, &t.name, !options.dry_run.is_empty()).await?;
                    false
                }
            };
            if as_seen && !pinned {
                let expected = options.preconditions.get_or_insert_default();
                expected.resource_version = Some(seen.revision.to_string());
            }
            match (self.condition_and_delete(cx, t, entry, options).await, way) {
                (Err(status), Way::Free) if status.is_conflict() && as_seen && !pinned => {}
                (Err(status), Way::Unhealthy { budget }) if status.is_conflict() && !pinned => {
                    return Err(busy(&budget));
                }
                (other, _) => return other,
            }
        }
        Err(Status::modified(t.resource, &t.name))
    }

    /// Which budget covers a pod, and whether it counts on it.
    fn way(&self, pod: &Pod, seen: &Object) -> Result<Way, Status> {
        let budgets = self.0.cache.list(row("policy/v1", "PodDisruptionBudget").storage, Some(&seen.key.namespace)).0;
        let mut covering = Vec::new();
        for object in budgets {
            let budget: PodDisruptionBudget = object.typed().map_err(Status::internal)?;
            // What is no selector selects nothing.
            let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
            let selector = selector.and_then(|s| LabelSelector::from_meta(s).ok());
            if selector.is_some_and(|s| s.matches(|label| seen.label(label))) {
                covering.push((object.key.name.to_string(), budget));
            }
        }
        match covering.len() {
            0 => Ok(Way::Free),
            1 => Ok(way(pod, covering.remove(0))),
            _ => Err(Status::new(
                500,
                "",
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            )),
        }
    }

    /// Takes one disruption from a budget, for a pod.
    async fn disrupt(&self, namespace: &str, budget: &str, pod: &str, dry_run: bool) -> Result<(), Status> {
        let resource = row("policy/v1", "PodDisruptionBudget");
        let t = Target { resource, namespace: namespace.into(), name: budget.into(), subresource: "status" };
        let entry = &*self.entry(&t)?;
        // As upstream, whose API server is a client of its own here.
        let cx = Context::new(User::new("system:apiserver", &[SYSTEM_MASTERS]));
        for _ in 0..MAX_ATTEMPTS {
            let old = self.find(entry, &t)?;
            let mut budget: PodDisruptionBudget = old.typed().map_err(Status::internal)?;
            decrement(&mut budget, pod, clock::now())?;
            if dry_run {
                return Ok(());
            }
            let new = serde_json::to_value(budget).map_err(Status::internal)?;
            let before = entry.live(&old).await?;
            let written = (Part::Status, Ownership::Changed { manager: "kube-apiserver" });
            match self.replace(&cx, &t, entry, written, (&old, before), new, &WriteOptions::default()).await {
                Err(Failed::Conflict) => {}
                Err(Failed::Refused(status)) => return Err(status),
                Ok(_) => return Ok(()),
            }
        }
        Err(Status::modified(resource, budget))
    }

    /// Writes to the pod why it goes, and deletes it. Admission has seen the eviction, and sees neither of these.
    async fn condition_and_delete(
        &self,
        cx: &Context,
        t: &Target,
        entry: &Entry,
        mut options: DeleteOptions,
    ) -> Result<ObjectRef, Status> {
        if options.dry_run.is_empty() {
            let marked = self.mark_disrupted(cx, t, entry, &options).await?;
            if let Some(Preconditions { resource_version: Some(revision), .. }) = &mut options.preconditions {
                *revision = marked.revision.to_string();
            }
        }
        match self.remove(cx, t, options, false).await? {
            Deleted::Gone(pod) | Deleted::Marked(pod) => Ok(pod),
        }
    }

    async fn mark_disrupted(
        &self,
        cx: &Context,
        t: &Target,
        entry: &Entry,
        options: &DeleteOptions,
    ) -> Result<ObjectRef, Status> {
        let status = Target { subresource: "status", ..t.clone() };
        for _ in 0..MAX_ATTEMPTS {
            let old = self.find(entry, t)?;
            delete::check_preconditions(t, options, &old)?;
            let mut pod: Pod = old.typed().map_err(Status::internal)?;
            disrupted(&mut pod);
            let new = serde_json::to_value(pod).map_err(Status::internal)?;
            let before = entry.live(&old).await?;
            let written = (Part::Status, Ownership::Kept);
            match self.replace(cx, &status, entry, written, (&old, before), new, &WriteOptions::default()).await {
                Err(Failed::Conflict) => {}
                Err(Failed::Refused(status)) => return Err(status),
                Ok(pod) => return Ok(pod),
            }
        }
        Err(Status::modified(t.resource, &t.name))
    }
}

/// The options of the delete, which are in the eviction; a dry run may be asked for in either place.
fn delete_options(eviction: &Value, o: &WriteOptions) -> Result<DeleteOptions, Status> {
    let mut options = match eviction.get("deleteOptions").filter(|v| !v.is_null()) {
        Some(given) => value_of(given)?,
        None => DeleteOptions::default(),
    };
    if o.dry_run && options.dry_run.is_empty() {
        options.dry_run = vec!["All".into()];
    }
    Ok(options)
}

fn value_of(given: &Value) -> Result<DeleteOptions, Status> {
    serde_json::from_value(given.clone())
        .map_err(|e| Status::bad_request(format!("unable to decode DeleteOptions: {e}")))
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// No budget counts on a pod that is over, or that has not begun (`canIgnorePDB`).
fn ignores_budget(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed" | "Pending") || pod.metadata.deletion_timestamp.is_some()
}

fn way(pod: &Pod, (name, budget): (String, PodDisruptionBudget)) -> Way {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
    let policy = budget.spec.as_ref().and_then(|s| s.unhealthy_pod_eviction_policy.as_deref());
    let status = budget.status.unwrap_or_default();
    let (healthy, desired) = (status.current_healthy.unwrap_or_default(), status.desired_healthy.unwrap_or_default());
    let undisrupted = healthy >= desired && desired > 0;
    if !ready && (policy == Some("AlwaysAllow") || undisrupted) {
        Way::Unhealthy { budget: name }
    } else {
        Way::Counted { budget: name }
    }
}

/// `checkAndDecrement`
fn decrement(budget: &mut PodDisruptionBudget, pod: &str, now: Timestamp) -> Result<(), Status> {
    let name = budget.metadata.name.clone().unwrap_or_default();
    let generation = budget.metadata.generation.unwrap_or_default();
    let status = budget.status.get_or_insert_default();
    let allowed = status.disruptions_allowed.unwrap_or_default();
    if status.observed_generation.unwrap_or_default() < generation {
        return Err(busy(&name));
    }
    if allowed < 0 {
        return Err(Status::forbidden(&BUDGET, &name, "pdb disruptions allowed is negative"));
    }
    if status.disrupted_pods.as_ref().is_some_and(|p| p.len() > MAX_DISRUPTED) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(&BUDGET, &name, why));
    }
    let conditions = status.conditions.get_or_insert_default();
    if allowed == 0 {
        let healthy = status.current_healthy.unwrap_or_default();
        let desired = status.desired_healthy.unwrap_or_default();
        return Err(refused(why_not(&name, conditions, healthy, desired), 0));
    }
    if allowed == 1 {
        insufficient(conditions, status.observed_generation, now);
    }
    if conditions.is_empty() {
        status.conditions = None;
    }
    status.disruptions_allowed = Some(allowed - 1);
    status.disrupted_pods.get_or_insert_default().insert(pod.to_owned(), Time(now));
    Ok(())
}

/// Numbers say nothing when the controller of the budget could not count.
fn why_not(name: &str, conditions: &[Condition], healthy: i32, desired: i32) -> String {
    let said = conditions.iter().find(|c| c.type_ == ALLOWED && c.status == "False" && !c.message.is_empty());
    let not = format!("The disruption budget {name} does not allow evicting pods currently");
    match said {
        Some(c) if c.reason == "SyncFailed" => format!("{not} because it failed sync: {}", c.message),
        _ if healthy <= desired => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently")
        }
        Some(c) => format!("{not} ({}): {}", c.reason, c.message),
        None => not,
    }
}

fn refused(why: String, retry_after_seconds: u32) -> Status {
    let causes = vec![Cause { reason: CAUSE.into(), message: why, field: String::new() }];
    Status::too_many_requests(REFUSED, retry_after_seconds).with_details(Details {
        causes,
        retry_after_seconds,
        ..Details::default()
    })
}

/// The budget is about to change.
fn busy(budget: &str) -> Status {
    refused(format!("The disruption budget {budget} is still being processed by the server."), RETRY_AFTER)
}

/// Sets the condition `DisruptionAllowed=False` (`UpdateDisruptionAllowedCondition`).
fn insufficient(conditions: &mut Vec<Condition>, observed_generation: Option<i64>, now: Timestamp) {
    let condition = Condition {
        type_: ALLOWED.into(),
        status: "False".into(),
        reason: "InsufficientPods".into(),
        message: String::new(),
        observed_generation: observed_generation.filter(|g| *g != 0),
        last_transition_time: Time(now),
    };
    match conditions.iter_mut().find(|c| c.type_ == ALLOWED) {
        Some(old) if old.status == condition.status => {
            let last_transition_time = old.last_transition_time.clone();
            *old = Condition { last_transition_time, ..condition };
        }
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

/// Sets the condition `DisruptionTarget=True`.
fn disrupted(pod: &mut Pod) {
    let observed_generation = pod.metadata.generation;
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    let mut condition = PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some("EvictionByEvictionAPI".into()),
        message: Some("Eviction API: evicting".into()),
        observed_generation,
        last_transition_time: Some(clock::time()),
        last_probe_time: None,
    };
    match conditions.iter_mut().find(|c| c.type_ == condition.type_) {
        Some(old) => {
            if old.status == condition.status {
                condition.last_transition_time.clone_from(&old.last_transition_time);
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests;
