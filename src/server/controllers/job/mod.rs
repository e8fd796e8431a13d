//! Decides: a Job runs pods until enough of them have succeeded (upstream's `pkg/controller/job`).
//!
//! - [`view`]: what its pods come to; [`indexes`]: which indexes are done
//! - [`ending`]: whether it ends, and why; [`policy`]: what its policies say of pods and indexes
//! - [`manage`]: which pods it makes and removes; [`backoff`]: how long it waits after failures
//! - [`tracking`]: how the ends of pods are counted, and the status
//! - [`orphans`]: pods that nobody counts any more

pub mod backoff;
pub mod ending;
pub mod indexes;
mod manage;
pub mod orphans;
pub mod policy;
mod tracking;
mod view;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use self::backoff::Failures;
use self::ending::Ending;
use self::manage::Changes;
use self::view::View;
use super::action::{Action, Controller, Enqueue, Moment, Name, Note, Plan, Write};
use super::owners::{self, Claim};
use super::pod_control::{self, PodControl};
use super::pods;
use super::stores::{Stores, row};
use crate::client::request::Class;
use crate::client::store::Meta as _;

/// The manager that this controller is, if a Job names one.
const MANAGER: &str = "kubernetes.io/job-controller";
/// Counts of pods follow at once, and then at most this often (upstream: once a second).
const PAUSE: SignedDuration = SignedDuration::from_millis(500);

#[derive(Default)]
pub struct JobController {
    /// Of Jobs that have not ended.
    memory: Mutex<HashMap<Name, Memory>>,
}

/// What is kept of a Job between two plans. Losing it makes pods and writes come earlier, nothing worse.
#[derive(Default)]
struct Memory {
    /// Of the Job.
    uid: Box<str>,
    failures: Failures,
    /// When its status was written last.
    written: Option<Timestamp>,
}

/// What a plan is made from.
pub struct Observed {
    pub job: Arc<Job>,
    /// All pods of its namespace.
    pub pods: Vec<Arc<Pod>>,
}

/// A plan that only brings counts up to date may come later.
pub struct Planned {
    pub plan: Plan,
    pub urgent: bool,
}

impl Controller for JobController {
    fn name(&self) -> &'static str {
        "job"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.jobs.subscribe(move |change| {
            change.each().for_each(|job| queue.add(job.metadata.namespace(), job.metadata.name()));
        });
        let jobs = Arc::clone(&stores.jobs);
        pod_control::follow(stores, enqueue, row("batch/jobs"), move |pod| {
            let selector = |job: &Job| job.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
            let selecting = jobs.find(pod.namespace(), |job| owners::selects(&selector(job), pod.labels.as_ref()));
            selecting.iter().map(|job| job.metadata.name().to_owned()).collect()
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let job = stores.jobs.get(&key.namespace, &key.name).filter(|job| is_ours(job));
        let Some(job) = job else {
            memory.remove(key);
            return Plan::nothing();
        };
        let memory = memory.entry(key.clone()).or_default();
        if *memory.uid != *job.metadata.uid() {
            *memory = Memory { uid: job.metadata.uid().into(), ..Memory::default() };
        }
        let observed = Observed { job, pods: stores.pods.list(&key.namespace) };
        let planned = plan(&observed, &mut memory.failures, moment);
        memory.pace(planned, moment)
    }
}

impl Memory {
    fn pace(&mut self, planned: Planned, moment: Moment<'_>) -> Plan {
        let mut plan = planned.plan;
        if plan.actions.is_empty() {
            return plan;
        }
        // After a failure the driver waits by itself.
        let last = self.written.filter(|_| !planned.urgent && moment.failure.is_none());
        let since = last.map(|last| moment.now.duration_since(last));
        if let Some(since) = since.filter(|since| !since.is_negative() && *since < PAUSE) {
            plan.actions.clear();
            plan.look_after(Duration::try_from(PAUSE - since).unwrap_or_default());
        } else {
            self.written = Some(moment.now);
        }
        plan
    }
}

/// Neither ended nor run by someone else.
fn is_ours(job: &Job) -> bool {
    let managed = job.spec.as_ref().and_then(|s| s.managed_by.as_deref());
    managed.is_none_or(|m| m == MANAGER) && job.status.as_ref().is_none_or(|s| ending::finished(s).is_none())
}

/// Claims, makes and removes pods, counts those that ended, and ends the Job.
#[must_use]
pub fn plan(observed: &Observed, failures: &mut Failures, moment: Moment<'_>) -> Planned {
    let (job, mut plan) = (&*observed.job, Plan::default());
    let Some(spec) = &job.spec else { return Planned { plan, urgent: false } };
    let control = PodControl { resource: row("batch/jobs"), owner: &job.metadata, component: "job-controller" };
    if !matches!(spec.completion_mode.as_deref(), None | Some("NonIndexed" | "Indexed")) {
        let message = "Skipped Job sync because completion mode is unknown";
        plan.push(Action::Event(control.event(true, "UnknownCompletionMode", message.into())));
        return Planned { plan, urgent: true };
    }
    let owned = claim(&control, spec, &observed.pods, &mut plan);
    if !plan.actions.is_empty() {
        // Adopted pods count once their owner reference is seen.
        return Planned { plan, urgent: true };
    }
    let view = View::new(job, spec, owned, moment.now);
    view.note(failures);
    decide(&view, &control, failures, moment, plan)
}

fn decide(
    view: &View<'_>,
    control: &PodControl<'_>,
    failures: &Failures,
    moment: Moment<'_>,
    mut plan: Plan,
) -> Planned {
    let old = view.job.status.clone().unwrap_or_default();
    let (mut status, mut events) = (old.clone(), Vec::new());
    if status.start_time.is_none() && !view.is_suspended() {
        status.start_time = Some(owners::whole_second(view.now));
    }
    let early = ending::early(view, &status, &mut plan);
    let mut changes = Changes::default();
    if early.is_some() {
        changes.remove.clone_from(&view.active);
    } else if view.job.metadata.deletion_timestamp.is_none() {
        changes = manage::changes(view, control, failures, &mut plan);
    }
    // What is about to be done is told with it, unless it failed before: then only what is seen is true.
    let failed = moment.failure.is_some_and(|f| f.class != Class::Conflict);
    let nothing = Changes::default();
    foresee(view, if failed { &nothing } else { &changes }, &mut status);
    let ending = early.clone().or_else(|| ending::complete(view, status.active.unwrap_or(0)));
    if ending.is_none() && view.job.metadata.deletion_timestamp.is_none() {
        events.extend(suspension(view, control, &mut status));
    }
    let (mut untrack, full) = tracking::track(view, ending.as_ref(), &mut status);
    if let Some(ending) = &ending {
        let at_rest = untrack.is_empty() && !full && status.active.unwrap_or(0) == 0;
        if tracking::conclude(view, ending, at_rest, &mut status) {
            events.extend(farewell(view, control, ending, &status));
        }
    }
    let untracks = |pods: &[&Arc<Pod>]| slowly(pods.iter().map(|p| tracking::untrack(p)).collect());
    let deletes = slowly(changes.remove.iter().map(|p| control.delete(p)).collect());
    let mut report: Vec<Action> = tracking::write(view, &old, &status).map(Action::from).into_iter().collect();
    let urgent = old.conditions != status.conditions || deletes.is_some() || !changes.create.is_empty();
    if !report.is_empty() {
        report.extend(events.into_iter().map(Action::Event));
    }
    if early.is_some() {
        plan.actions.extend(report.into_iter().chain(deletes).chain(untracks(&untrack)));
        return Planned { plan, urgent };
    }
    // These end uncounted: they lose the finalizer first, or their end would count.
    untrack.retain(|p| !changes.remove.iter().any(|r| r.metadata.uid == p.metadata.uid));
    let tracked: Vec<_> = changes.remove.iter().copied().filter(|p| view::is_tracked(p)).collect();
    let creates = slowly(changes.create.into_iter().map(|pod| control.create(pod)).collect());
    let managing = untracks(&tracked).into_iter().chain(deletes).chain(creates);
    report.extend(untracks(&untrack));
    // What failed before may fail again and end the plan: it must not keep the ends of pods from being counted.
    if failed {
        plan.actions.extend(report.into_iter().chain(managing));
    } else {
        plan.actions.extend(managing.chain(report));
    }
    Planned { plan, urgent }
}

fn slowly(writes: Vec<Write>) -> Option<Action> {
    (!writes.is_empty()).then_some(Action::SlowStart(writes))
}

/// The counts as they are when `changes` are made.
fn foresee(view: &View<'_>, changes: &Changes<'_>, status: &mut JobStatus) {
    let removed = view::count(changes.remove.iter());
    let ready = view::count(changes.remove.iter().filter(|p| pods::is_ready(p)));
    let active = view::count(view.active.iter()) - removed + view::count(changes.create.iter());
    status.active = Some(active);
    status.ready = Some(view.ready - ready);
    status.terminating = Some(view.terminating + removed);
}

/// Those of the pods that are the Job's. The patches that adopt and release also add and remove the finalizer.
fn claim<'a>(control: &PodControl<'_>, spec: &JobSpec, pods: &'a [Arc<Pod>], plan: &mut Plan) -> Vec<&'a Arc<Pod>> {
    let selector = spec.selector.clone().unwrap_or_default();
    let mut owned = Vec::new();
    for pod in pods {
        let write = match owners::claim(control.owner, &selector, &pod.metadata) {
            Claim::Owned => {
                owned.push(pod);
                continue;
            }
            Claim::Foreign => continue,
            Claim::Adopt => {
                let owner = owners::reference(control.resource, control.owner);
                let mut write = owners::adopt(row("pods"), &pod.metadata, &owner);
                write.request.body["metadata"]["finalizers"] = json!([view::TRACKING]);
                write
            }
            Claim::Release => {
                let mut write = owners::release(row("pods"), &pod.metadata, control.owner);
                write.request.body["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!([view::TRACKING]);
                write
            }
        };
        plan.push(write);
    }
    owned
}

/// Says that the Job was suspended or goes on. A Job that is suspended has not started: what may change of it then
/// depends on that, and its deadline counts anew.
fn suspension(view: &View<'_>, control: &PodControl<'_>, status: &mut JobStatus) -> Option<Note> {
    let now = owners::whole_second(view.now);
    let suspended = view.is_suspended();
    let because = if suspended { ("JobSuspended", "Job suspended") } else { ("JobResumed", "Job resumed") };
    if !tracking::set_condition(status, "Suspended", suspended, because, &now) {
        return None;
    }
    status.start_time = (!suspended).then_some(now);
    let reason = if suspended { "Suspended" } else { "Resumed" };
    Some(control.event(false, reason, because.1.into()))
}

/// What is told of a Job that has ended.
fn farewell(view: &View<'_>, control: &PodControl<'_>, ending: &Ending, status: &JobStatus) -> Vec<Note> {
    if !ending.success {
        let reason = REASONS.iter().find(|r| **r == ending.reason).copied().unwrap_or("Failed");
        return vec![control.event(true, reason, ending.message.clone())];
    }
    let mut notes = Vec::new();
    if view.spec.completions.is_some_and(|wanted| status.succeeded.unwrap_or(0) > wanted) {
        let message = "Too many succeeded pods running after completion count reached";
        notes.push(control.event(true, "TooManySucceededPods", message.into()));
    }
    notes.push(control.event(false, "Completed", "Job completed".into()));
    notes
}

/// Why a Job fails; the Event is called the same.
const REASONS: &[&str] =
    &["BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy", "MaxFailedIndexesExceeded", "FailedIndexes"];

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
