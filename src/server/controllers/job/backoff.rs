//! Decides: how long after failures no pod is made: 10 s, doubled with each in a row, up to 10 min.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use crate::client::store::Meta as _;
use crate::server::controllers::pods;

const FIRST: SignedDuration = SignedDuration::from_secs(10);
const LONGEST: SignedDuration = SignedDuration::from_secs(600);
/// With that many the longest is reached, so that older ones need not be known.
const KEPT: usize = 7;

/// The failures of a Job's pods since its last success. Pods that are deleted are remembered: they would be made again
/// in a hot loop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    succeeded: Option<Timestamp>,
    /// When, and the uid of the pod: the same pod is seen many times. Oldest first.
    failed: Vec<(Timestamp, Box<str>)>,
}

impl Failures {
    pub fn note_success(&mut self, pod: &Pod) {
        self.succeeded = self.succeeded.max(Some(finished_at(pod)));
    }

    pub fn note_failure(&mut self, pod: &Pod) {
        self.failed.retain(|(_, uid)| **uid != *pod.metadata.uid());
        self.failed.push((finished_at(pod), pod.metadata.uid().into()));
    }

    /// When pods may be made again, from now. Zero is now.
    pub fn wait(&mut self, now: Timestamp) -> Duration {
        self.failed.retain(|(at, _)| Some(*at) > self.succeeded);
        self.failed.sort_unstable();
        self.failed.drain(..self.failed.len().saturating_sub(KEPT));
        self.failed.last().map_or(Duration::ZERO, |(last, _)| after(self.failed.len(), *last, now))
    }
}

/// What is left of the pause after so many failures in a row.
#[must_use]
pub fn after(failures: usize, last: Timestamp, now: Timestamp) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let doubled = FIRST * (1 << (failures - 1).min(KEPT - 1));
    let pause = doubled.min(LONGEST);
    // A failure that lies ahead is a clock that was set back: it must not pause a Job for years.
    let left = (pause - now.duration_since(last)).min(pause);
    Duration::try_from(left).unwrap_or(Duration::ZERO)
}

/// When a pod ended, as well as it can be told.
#[must_use]
pub fn finished_at(pod: &Pod) -> Timestamp {
    containers_ended(pod)
        .or_else(|| {
            let unready = pods::condition(pod, "Ready").filter(|c| c.status == "False")?;
            unready.last_transition_time.as_ref().map(|t| t.0)
        })
        .or_else(|| {
            // It was asked to end that long before it must have ended.
            let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
            pod.metadata.deletion_timestamp.as_ref()?.0.checked_sub(grace).ok()
        })
        .or_else(|| pod.metadata.creation_timestamp.as_ref().map(|t| t.0))
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// When the last container ended, if all have.
fn containers_ended(pod: &Pod) -> Option<Timestamp> {
    let mut last = None;
    for container in pod.status.as_ref()?.container_statuses.iter().flatten() {
        let ended = container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0;
        last = last.max(Some(ended));
    }
    last
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn pod(uid: &str, more: Value) -> Pod {
        let mut pod = json!({ "metadata": { "uid": uid, "creationTimestamp": at(0).to_string() } });
        json_patch::merge(&mut pod, &more);
        serde_json::from_value(pod).unwrap()
    }

    fn ended(uid: &str, second: i64) -> Pod {
        let state = json!({ "terminated": { "exitCode": 1, "finishedAt": at(second).to_string() } });
        pod(
            uid,
            json!({ "status": { "containerStatuses": [{ "name": "c", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": state }] } }),
        )
    }

    #[test]
    fn the_end_of_a_pod() {
        assert_eq!(finished_at(&ended("a", 7)), at(7));
        let unready = json!([{ "type": "Ready", "status": "False", "lastTransitionTime": at(5).to_string() }]);
        let running =
            json!([{ "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {} }]);
        let status = json!({ "status": { "conditions": unready, "containerStatuses": running } });
        assert_eq!(finished_at(&pod("a", status)), at(5));
        let deleted =
            json!({ "metadata": { "deletionTimestamp": at(40).to_string(), "deletionGracePeriodSeconds": 30 } });
        assert_eq!(finished_at(&pod("a", deleted)), at(10));
        assert_eq!(finished_at(&pod("a", json!({}))), at(0));
    }

    #[test]
    fn the_pause_doubles_up_to_ten_minutes() {
        for (failures, expect) in [(0, 0), (1, 10), (2, 20), (3, 40), (6, 320), (7, 600), (1000, 600)] {
            assert_eq!(after(failures, at(0), at(0)).as_secs(), expect, "{failures}");
        }
        assert_eq!(after(2, at(0), at(15)).as_secs(), 5);
        assert_eq!(after(2, at(0), at(20)), Duration::ZERO);
        assert_eq!(after(1, at(1_000_000), at(0)).as_secs(), 10, "the clock was set back");
    }

    #[test]
    fn failures_in_a_row_count_and_a_success_ends_the_row() {
        let mut failures = Failures::default();
        assert_eq!(failures.wait(at(0)), Duration::ZERO);
        for _ in 0..3 {
            failures.note_failure(&ended("a", 1));
        }
        assert_eq!(failures.wait(at(1)).as_secs(), 10, "one pod that is seen three times is one failure");
        failures.note_failure(&ended("b", 12));
        assert_eq!(failures.wait(at(12)).as_secs(), 20);
        failures.note_success(&ended("c", 11));
        assert_eq!(failures.wait(at(12)).as_secs(), 10, "one failure was before the success");
        failures.note_success(&ended("d", 12));
        assert_eq!(failures.wait(at(12)), Duration::ZERO);
        for i in 0..100 {
            failures.note_failure(&ended(&i.to_string(), 20 + i));
        }
        assert_eq!((failures.wait(at(119)).as_secs(), failures.failed.len()), (600, KEPT));
    }
}
