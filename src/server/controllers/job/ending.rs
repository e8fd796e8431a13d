//! Decides: whether a Job ends, and why.
//!
//! ```text
//!            a limit is passed, a policy says so     ┌─▶ FailureTarget ──────┐  pods are deleted, counted,
//! it runs ───────────────────────────────────────────┤                       ├─ and have ended ─▶ Failed | Complete
//!            enough pods or indexes succeeded        └─▶ SuccessCriteriaMet ─┘
//! ```
//!
//! What was decided stays decided: it is written down before the last pods go.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};

use super::policy::{self, Verdict};
use super::view::View;
use crate::server::controllers::action::Plan;
use crate::server::controllers::pods;

pub const FAILURE_TARGET: &str = "FailureTarget";
pub const SUCCESS_CRITERIA: &str = "SuccessCriteriaMet";

/// How a Job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub success: bool,
    pub reason: String,
    pub message: String,
    /// The status says so already.
    pub decided: bool,
}

impl Ending {
    fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self { success: false, reason: reason.into(), message: message.into(), decided: false }
    }

    fn success(reason: &str, message: impl Into<String>) -> Self {
        Self { success: true, reason: reason.into(), message: message.into(), decided: false }
    }

    fn of(condition: &JobCondition, success: bool) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Self { success, reason: text(&condition.reason), message: text(&condition.message), decided: true }
    }

    /// The condition that says so before the pods have ended.
    #[must_use]
    pub fn interim(&self) -> &'static str {
        if self.success { SUCCESS_CRITERIA } else { FAILURE_TARGET }
    }

    #[must_use]
    pub fn terminal(&self) -> &'static str {
        if self.success { "Complete" } else { "Failed" }
    }
}

#[must_use]
pub fn true_condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == "True")
}

/// The condition of a Job that has ended.
#[must_use]
pub fn finished(status: &JobStatus) -> Option<&JobCondition> {
    true_condition(status, "Complete").or_else(|| true_condition(status, "Failed"))
}

/// What ends the Job although pods may still run. `plan` looks again at its deadline.
pub fn early(view: &View<'_>, status: &JobStatus, plan: &mut Plan) -> Option<Ending> {
    if let Some(condition) = true_condition(status, SUCCESS_CRITERIA) {
        return Some(Ending::of(condition, true));
    }
    if let Some(condition) = true_condition(status, FAILURE_TARGET) {
        return Some(Ending::of(condition, false));
    }
    let refused = view.pods.iter().filter(|p| view.is_failed(p)).find_map(|p| match view.verdict(p) {
        Verdict::FailJob(message) => Some(message),
        _ => None,
    });
    if let Some(message) = refused {
        return Some(Ending::failure("PodFailurePolicy", message));
    }
    let limit = view.spec.backoff_limit.unwrap_or(6);
    if view.failed > limit || restarts_exceed(view, limit) {
        return Some(Ending::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    match time_left(view, status) {
        Some(left) if left.is_zero() => {
            return Some(Ending::failure("DeadlineExceeded", "Job was active longer than specified deadline"));
        }
        Some(left) => plan.look_after(left),
        None => {}
    }
    if view.is_indexed() { of_indexes(view) } else { None }
}

fn of_indexes(view: &View<'_>) -> Option<Ending> {
    let completions = view.spec.completions.unwrap_or(0);
    if let Some(failed) = view.failed_indexes.as_ref().map(super::indexes::Indexes::total) {
        if view.spec.max_failed_indexes.is_some_and(|most| failed > most) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(Ending::failure("MaxFailedIndexesExceeded", message));
        }
        if failed > 0 && failed.saturating_add(view.completed.total()) >= completions {
            return Some(Ending::failure("FailedIndexes", "Job has failed indexes"));
        }
    }
    let met = policy::success(view.spec.success_policy.as_ref(), completions, &view.completed)?;
    Some(Ending::success("SuccessPolicy", met))
}

/// Whether all is done, with so many pods that are still active.
#[must_use]
pub fn complete(view: &View<'_>, active: i32) -> Option<Ending> {
    let enough = view.spec.completions.map_or(view.succeeded > 0, |completions| view.succeeded >= completions);
    (enough && active == 0).then(|| Ending::success("CompletionsReached", "Reached expected number of succeeded pods"))
}

/// Containers that are restarted in place fail without their pod failing.
fn restarts_exceed(view: &View<'_>, limit: i32) -> bool {
    let template = view.spec.template.spec.as_ref();
    if template.and_then(|s| s.restart_policy.as_deref()) != Some("OnFailure") {
        return false;
    }
    let running = view.pods.iter().filter(|p| matches!(pods::phase(p), "Running" | "Pending"));
    let statuses = running.filter_map(|p| p.status.as_ref());
    let containers = statuses.flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses).flatten());
    let restarts = containers.fold(0_i32, |sum, c| sum.saturating_add(c.restart_count));
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// `None` without a deadline, and while it is suspended.
fn time_left(view: &View<'_>, status: &JobStatus) -> Option<Duration> {
    let seconds = view.spec.active_deadline_seconds.filter(|_| !view.is_suspended())?;
    let start = status.start_time.as_ref()?.0;
    let left = SignedDuration::from_secs(seconds).checked_sub(view.now.duration_since(start))?;
    Some(Duration::try_from(left).unwrap_or(Duration::ZERO))
}
