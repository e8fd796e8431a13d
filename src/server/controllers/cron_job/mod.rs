//! Decides: a CronJob starts a Job at each time of its schedule (upstream's `pkg/controller/cronjob`).
//!
//! - [`starts`]: which time is due, and which comes next
//! - [`history`]: which Jobs that ended are kept
//!
//! A Job is named after the minute that it is for, so that nobody can start it twice; the time is in an annotation.
//! Its start is written down right after it is made, and once it is seen it is among the active ones.

mod history;
mod starts;

use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use self::starts::Starts;
use super::action::{Action, Controller, Enqueue, Moment, Name, Note, Plan, Report, Write};
use super::job::ending;
use super::owners;
use super::stores::{Stores, row};
use crate::api::schedule::{Schedule, is_zone};
use crate::client::request::{Class, Request};
use crate::client::store::Meta as _;

const COMPONENT: &str = "cronjob-controller";
/// The time that a Job is for.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Timers measure what passes, not what a clock shows: a board without a clock of its own may learn only after its
/// start what time it is. So the clock is looked at this often.
const CLOCK_CHECK: SignedDuration = SignedDuration::from_mins(10);

pub struct CronJobController;

/// What a plan is made from.
pub struct Observed {
    pub cron_job: Arc<CronJob>,
    /// The Jobs that it manages.
    pub jobs: Vec<Arc<Job>>,
    /// Those of the namespace that it does not: one may have a name that it wants.
    pub others: Vec<Arc<Job>>,
    /// Where no zone is named.
    pub local: TimeZone,
}

impl Controller for CronJobController {
    fn name(&self) -> &'static str {
        "cronjob"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.cron_jobs.subscribe(move |change| {
            change.each().for_each(|c| queue.add(c.metadata.namespace(), c.metadata.name()));
        });
        let queue = enqueue.clone();
        stores.jobs.subscribe(move |change| {
            for job in change.each() {
                if let Some(owner) = owners::controller_named(&job.metadata, "batch", "CronJob") {
                    queue.add(job.metadata.namespace(), owner);
                }
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let Some(cron_job) = stores.cron_jobs.get(&key.namespace, &key.name) else { return Plan::nothing() };
        let uid = cron_job.metadata.uid.clone();
        let (jobs, others) = stores.jobs.list(&key.namespace).into_iter().partition(|job| {
            owners::controller_of(&job.metadata).is_some_and(|o| o.kind == "CronJob" && Some(&o.uid) == uid.as_ref())
        });
        plan(&Observed { cron_job, jobs, others, local: TimeZone::system() }, moment)
    }
}

/// Keeps the status and the history, and starts what is due.
#[must_use]
pub fn plan(observed: &Observed, moment: Moment<'_>) -> Plan {
    let mut plan = Plan::default();
    let cron_job = &*observed.cron_job;
    let old = cron_job.status.clone().unwrap_or_default();
    let mut status = old.clone();
    let mut notes = follow(observed, &mut status);
    if let Some(write) = write(cron_job, &old, &status) {
        // First of all: a start that fails again and again must not keep it from being written.
        plan.push(write);
        plan.actions.extend(notes.into_iter().map(Action::Event));
        return plan;
    }
    for job in history::excess(cron_job, &observed.jobs) {
        plan.push(delete(cron_job, job));
    }
    let start = due(observed, moment.now, &mut status, &mut notes, &mut plan);
    plan.actions.extend(notes.into_iter().map(Action::Event));
    plan.actions.extend(start.into_iter().flatten().map(Action::Write));
    plan.actions.extend(write(cron_job, &old, &status));
    plan
}

/// Brings the status up to what is seen of the Jobs.
fn follow(observed: &Observed, status: &mut CronJobStatus) -> Vec<Note> {
    let (cron_job, mut notes) = (&*observed.cron_job, Vec::new());
    let mut active = status.active.take().unwrap_or_default();
    for job in &observed.jobs {
        let (uid, name) = (job.metadata.uid.as_ref(), job.metadata.name());
        let at = active.iter().position(|a| a.uid.as_ref() == uid);
        let ended = job.status.as_ref().and_then(ending::finished);
        let scheduled = scheduled(cron_job, job);
        let news = scheduled.is_some_and(|at| status.last_schedule_time.as_ref().is_none_or(|last| last.0 < at));
        if news {
            // The server was stopped after it made the Job.
            status.last_schedule_time = scheduled.map(Time);
        }
        match (at, ended) {
            (None, None) if job.metadata.deletion_timestamp.is_some() => {}
            (None, None) if scheduled.is_some() => {
                active.push(owners::object_reference(row("batch/jobs"), &job.metadata))
            }
            (None, None) => {
                let message = format!("Saw a job that the controller did not create or forgot: {name}");
                notes.push(note(cron_job, true, "UnexpectedJob", message));
            }
            (Some(at), Some(condition)) => {
                active.remove(at);
                let message = format!("Saw completed job: {name}, condition: {}", condition.type_);
                notes.push(note(cron_job, false, "SawCompletedJob", message));
            }
            _ => {}
        }
        if ended.is_some_and(|c| c.type_ == "Complete") {
            let completed = job.status.as_ref().and_then(|s| s.completion_time.clone());
            status.last_successful_time = status.last_successful_time.take().max(completed);
        }
    }
    active.retain(|a| {
        let there = observed.jobs.iter().any(|job| job.metadata.uid == a.uid);
        if !there {
            let message = format!("Active job went missing: {}", a.name.as_deref().unwrap_or_default());
            notes.push(note(cron_job, false, "MissingJob", message));
        }
        there
    });
    status.active = Some(active);
    notes
}

/// The time that a Job of this schedule is for. One that somebody made from the same template has none.
fn scheduled(cron_job: &CronJob, job: &Job) -> Option<Timestamp> {
    let at: Timestamp = job.metadata.annotations.as_ref()?.get(SCHEDULED)?.parse().ok()?;
    (job_name(cron_job, at) == job.metadata.name()).then_some(at)
}

fn job_name(cron_job: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", cron_job.metadata.name(), at.as_second().div_euclid(60))
}

/// The writes that start what is due, if something is. Asks `plan` to look again for the next time.
fn due(
    observed: &Observed,
    now: Timestamp,
    status: &mut CronJobStatus,
    notes: &mut Vec<Note>,
    plan: &mut Plan,
) -> Option<Vec<Write>> {
    let cron_job = &*observed.cron_job;
    let spec = &cron_job.spec;
    if cron_job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let zone = match spec.time_zone.as_deref() {
        None => observed.local.clone(),
        Some(name) => match TimeZone::get(name).ok().filter(|_| is_zone(name)) {
            Some(zone) => zone,
            None => {
                let message = format!("invalid timeZone: {name:?}: unknown time zone {name}");
                notes.push(note(cron_job, true, "UnknownTimeZone", message));
                return None;
            }
        },
    };
    if spec.suspend == Some(true) {
        return None;
    }
    let schedule = match Schedule::parse(&spec.schedule) {
        Ok(schedule) => schedule,
        Err(error) => {
            let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
            notes.push(note(cron_job, true, "UnparseableSchedule", message));
            return None;
        }
    };
    let starts = Starts::new(cron_job, status.last_schedule_time.as_ref(), &schedule, &zone);
    let Some(next) = starts.next(now) else {
        let error = "time difference between two schedules is less than 1 second";
        notes.push(note(cron_job, true, "InvalidSchedule", format!("invalid schedule: {} : {error}", spec.schedule)));
        return None;
    };
    plan.look_after(std::time::Duration::try_from(next.duration_since(now).min(CLOCK_CHECK)).unwrap_or_default());
    let at = starts.due(now)?;
    let name = job_name(cron_job, at);
    if observed.jobs.iter().chain(&observed.others).any(|job| job.metadata.name() == name) {
        return None;
    }
    if starts.too_many(now) {
        let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        notes.push(note(cron_job, true, "TooManyMissedTimes", message.into()));
    }
    let mut writes = Vec::new();
    let active = status.active.get_or_insert_default();
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            notes.push(note(cron_job, false, "JobAlreadyActive", message.into()));
            return None;
        }
        Some("Replace") => {
            let replaced = observed.jobs.iter().filter(|job| active.iter().any(|a| a.uid == job.metadata.uid));
            writes.extend(replaced.map(|job| delete(cron_job, job)));
            active.clear();
        }
        _ => {}
    }
    writes.push(create(cron_job, &name, at, &zone));
    status.last_schedule_time = Some(Time(at));
    Some(writes)
}

fn note(cron_job: &CronJob, warning: bool, reason: &'static str, message: String) -> Note {
    let regarding = owners::object_reference(row("batch/cronjobs"), &cron_job.metadata);
    Note { regarding, warning, reason, message, component: COMPONENT, action: "" }
}

fn report(cron_job: &CronJob, ok: (&'static str, &str), failed: (&'static str, &str)) -> Report {
    let regarding = owners::object_reference(row("batch/cronjobs"), &cron_job.metadata);
    let told = |(reason, message): (&'static str, &str)| Some((reason, message.to_owned()));
    Report { regarding, component: COMPONENT, ok: told(ok), failed: told(failed) }
}

fn delete(cron_job: &CronJob, job: &Job) -> Write {
    let meta = &job.metadata;
    let mut request = Request::delete(row("batch/jobs"), meta.namespace(), meta.name(), meta.uid());
    request.body["propagationPolicy"] = "Background".into();
    let (ok, failed) = (("SuccessfulDelete", "Deleted job {name}"), ("FailedDelete", "Deleted job: {error}"));
    Write::delete(request).reported(report(cron_job, ok, failed))
}

fn create(cron_job: &CronJob, name: &str, at: Timestamp, zone: &TimeZone) -> Write {
    let template = &cron_job.spec.job_template;
    let meta = template.metadata.clone().unwrap_or_default();
    let namespace = cron_job.metadata.namespace();
    let mut annotations = meta.annotations.unwrap_or_default();
    let zone = if cron_job.spec.time_zone.is_some() { zone } else { &TimeZone::UTC };
    annotations.insert(SCHEDULED.into(), rfc3339(at, zone));
    let body = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": meta.labels,
            "annotations": annotations,
            "ownerReferences": [owners::reference(row("batch/cronjobs"), &cron_job.metadata)],
        },
        "spec": template.spec,
    });
    let (ok, failed) = (("SuccessfulCreate", "Created job {name}"), ("FailedCreate", "Error creating job: {error}"));
    let mut write =
        Write::new(Request::create(row("batch/jobs"), namespace, body)).reported(report(cron_job, ok, failed));
    // Somebody has taken the name in this moment: what is there is for this time.
    write.fine = &[Class::AlreadyExists];
    write
}

/// As Go writes it: with a `Z` where the clock shows UTC.
fn rfc3339(at: Timestamp, zone: &TimeZone) -> String {
    let clock = at.to_zoned(zone.clone());
    if clock.offset().seconds() == 0 { at.to_string() } else { clock.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string() }
}

fn write(cron_job: &CronJob, old: &CronJobStatus, status: &CronJobStatus) -> Option<Action> {
    let full = |status: &CronJobStatus| {
        json!({
            "active": status.active.as_ref().filter(|a| !a.is_empty()),
            "lastScheduleTime": status.last_schedule_time,
            "lastSuccessfulTime": status.last_successful_time,
        })
    };
    let wanted: Value = full(status);
    if full(old) == wanted {
        return None;
    }
    Some(Write::status(row("batch/cronjobs"), &cron_job.metadata, wanted).into())
}

#[cfg(test)]
mod tests;
