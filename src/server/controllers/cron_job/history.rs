//! Decides: which Jobs that ended are too many to keep: of those that succeeded and those that failed, the oldest.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, Job};

use crate::server::controllers::job::ending;

pub fn excess<'a>(cron_job: &CronJob, jobs: &'a [Arc<Job>]) -> Vec<&'a Arc<Job>> {
    let spec = &cron_job.spec;
    let mut excess = Vec::new();
    for (kind, limit) in [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)]
    {
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
        let ended = |job: &Job| job.status.as_ref().and_then(ending::finished).is_some_and(|c| c.type_ == kind);
        let mut ended: Vec<&Arc<Job>> =
            jobs.iter().filter(|job| job.metadata.deletion_timestamp.is_none() && ended(job)).collect();
        // By start and name; those that never started are the youngest.
        ended.sort_by_key(|job| {
            let start = job.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
            (start.is_none(), start, job.metadata.name.as_deref())
        });
        let count = ended.len().saturating_sub(limit);
        excess.extend(ended.into_iter().take(count));
    }
    excess
}
