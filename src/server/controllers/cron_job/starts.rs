//! Decides: which time of a schedule is due: the last one that has come. Those before it were missed, and stay so.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::schedule::Schedule;

/// With more than that many missed an Event asks whether the clock is right.
const MANY_MISSED: usize = 100;

pub struct Starts<'a> {
    schedule: &'a Schedule,
    zone: &'a TimeZone,
    /// The last start, or the creation: what came before is done with.
    since: Timestamp,
    deadline: Option<SignedDuration>,
}

impl<'a> Starts<'a> {
    pub fn new(cron_job: &CronJob, last: Option<&Time>, schedule: &'a Schedule, zone: &'a TimeZone) -> Self {
        let since = last.or(cron_job.metadata.creation_timestamp.as_ref()).map_or(Timestamp::UNIX_EPOCH, |t| t.0);
        let deadline = cron_job.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        Self { schedule, zone, since, deadline }
    }

    /// The time to start a Job for now. A clock that was set back does not start anything again.
    pub fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let at = self.schedule.latest(self.since, now, self.zone)?;
        (at > self.earliest(now)).then_some(at)
    }

    /// `None` when there will be none.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        self.schedule.next(self.since, self.since.max(now), self.zone)
    }

    /// Whether so many times have come by now that something must be wrong.
    pub fn too_many(&self, now: Timestamp) -> bool {
        let mut at = self.earliest(now);
        for _ in 0..=MANY_MISSED {
            match self.schedule.next(self.since, at, self.zone).filter(|next| *next <= now) {
                Some(next) => at = next,
                None => return false,
            }
        }
        true
    }

    /// What came until then is not to be started any more.
    fn earliest(&self, now: Timestamp) -> Timestamp {
        let late = self.deadline.and_then(|deadline| now.checked_sub(deadline).ok());
        late.map_or(self.since, |late| late.max(self.since))
    }
}
