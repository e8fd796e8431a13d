//! Decides: CronJob.

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, JobTemplateSpec};

use super::{condition_patterns, spec, warn};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::api::schedule::{self, Schedule};
use crate::server::registry::core::pod::defaults;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, not_negative, or_default, shown};
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part};

/// The names of its Jobs have 11 characters more, and are names of 63 at most.
const MAX_NAME: usize = 52;
/// One part of the name of a time zone, in bytes.
const MAX_ZONE_PART: usize = 14;
const SUCCESSFUL_JOBS: i32 = 3;
const FAILED_JOBS: i32 = 1;
const POLICIES: &[&str] = &["Allow", "Forbid", "Replace"];

pub struct CronJobKind;

impl Kind for CronJobKind {
    type Object = CronJob;

    fn resource(&self) -> &'static Resource {
        row("batch/v1", "CronJob")
    }

    /// The Jobs get the defaults of Jobs when they are made.
    fn defaults(&self, cron_job: &mut CronJob) {
        let spec = &mut cron_job.spec;
        if spec.concurrency_policy.as_deref().unwrap_or_default().is_empty() {
            spec.concurrency_policy = Some("Allow".into());
        }
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(SUCCESSFUL_JOBS);
        spec.failed_jobs_history_limit.get_or_insert(FAILED_JOBS);
        spec.job_template.metadata.get_or_insert_default();
        let job = spec.job_template.spec.get_or_insert_default();
        defaults::template(&mut job.template);
        condition_patterns(job);
        cron_job.status.get_or_insert_default();
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn prepare_create(&self, _: &Context, cron_job: &mut CronJob) {
        cron_job.status = Some(CronJobStatus::default());
    }

    fn validate_create(&self, cron_job: &CronJob) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = &cron_job.spec;
        check(&mut errors, &Path::new("spec"), spec);
        time_zone(&mut errors, &Path::new("spec").child("timeZone"), spec.time_zone.as_deref());
        let name = cron_job.metadata.name.as_deref().unwrap_or_default();
        if name.len() > MAX_NAME {
            let message = format!("must be no more than {MAX_NAME} characters");
            errors.push(FieldError::invalid(&Path::new("metadata").child("name"), &name, &message));
        }
        errors
    }

    fn validate_update(&self, part: Part, new: &CronJob, old: &CronJob) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if part == Part::Status {
            return errors;
        }
        let spec = &new.spec;
        check(&mut errors, &Path::new("spec"), spec);
        // A zone that the machine once knew must not keep anyone from changing the rest.
        if spec.time_zone != old.spec.time_zone {
            time_zone(&mut errors, &Path::new("spec").child("timeZone"), spec.time_zone.as_deref());
        }
        errors
    }

    fn warnings(&self, cron_job: &CronJob) -> Vec<String> {
        let name = cron_job.metadata.name.as_deref().unwrap_or_default();
        let job = or_default(cron_job.spec.job_template.spec.as_ref());
        warn(&Path::new("spec").child("jobTemplate").child("spec"), name, &job)
    }
}

fn check(errors: &mut Errors, path: &Path, spec: &CronJobSpec) {
    let at = path.child("schedule");
    if spec.schedule.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else {
        if let Err(problem) = Schedule::parse(&spec.schedule) {
            errors.push(FieldError::invalid(&at, &spec.schedule, &problem));
        }
        if spec.schedule.contains("TZ") {
            let message = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.push(FieldError::invalid(&at, &spec.schedule, message));
        }
    }
    let deadline = spec.starting_deadline_seconds.unwrap_or_default();
    not_negative(errors, &path.child("startingDeadlineSeconds"), deadline);
    let at = path.child("concurrencyPolicy");
    match spec.concurrency_policy.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required(&at, "")),
        known if POLICIES.contains(&known) => {}
        other => errors.push(FieldError::not_supported(&at, &other, POLICIES)),
    }
    job_template(errors, &path.child("jobTemplate").child("spec"), &spec.job_template);
    for (field, limit) in [
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ] {
        not_negative(errors, &path.child(field), i64::from(limit.unwrap_or_default()));
    }
}

fn job_template(errors: &mut Errors, path: &Path, template: &JobTemplateSpec) {
    let job = or_default(template.spec.as_ref());
    spec::validate(errors, path, &job);
    if let Some(selector) = &job.selector {
        let message = "`selector` will be auto-generated";
        errors.push(FieldError::invalid(&path.child("selector"), &shown(selector), message));
    }
    if job.manual_selector == Some(true) {
        errors.push(FieldError::not_supported(&path.child("manualSelector"), &true, &["nil", "false"]));
    }
}

fn time_zone(errors: &mut Errors, path: &Path, zone: Option<&str>) {
    let Some(zone) = zone else { return };
    if zone.is_empty() {
        errors.push(FieldError::invalid(path, &zone, "timeZone must be nil or non-empty string"));
        return;
    }
    let well_formed = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.len() <= MAX_ZONE_PART
            && !part.starts_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_+".contains(&b))
    };
    let well_formed = zone.split('/').all(well_formed);
    if well_formed && zone.eq_ignore_ascii_case("Local") {
        let message = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(FieldError::invalid(path, &zone, message));
    }
    // The database has no zone `Local`; Go has one.
    if !well_formed || (zone != "Local" && !schedule::is_zone(zone)) {
        errors.push(FieldError::invalid(path, &zone, &format!("unknown time zone {zone}")));
    }
}
