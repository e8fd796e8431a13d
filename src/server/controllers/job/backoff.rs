//! Decides: how long after failures no pod is made: 10 s, doubled with each in a row, up to 10 min.

use std::collections::HashMap;
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
    /// When, by the uid of the pod: the same pod is seen many times.
    failed: HashMap<Box<str>, Timestamp>,
}

impl Failures {
    pub fn note_success(&mut self, pod: &Pod) {
        self.succeeded = self.succeeded.max(Some(finished_at(pod)));
    }

    pub fn note_failure(&mut self, pod: &Pod) {
        self.failed.insert(pod.metadata.uid().into(), finished_at(pod));
    }

    /// Forgets what makes no difference any more.
    pub fn trim(&mut self) {
        self.failed.retain(|_, at| Some(*at) > self.succeeded);
        if self.failed.len() > KEPT {
            let mut all: Vec<_> = self.failed.drain().map(|(uid, at)| (at, uid)).collect();
            all.sort_unstable();
            self.failed.extend(all.into_iter().rev().take(KEPT).map(|(at, uid)| (uid, at)));
        }
    }

    /// When pods may be made again, from now. Zero is now.
    #[must_use]
    pub fn wait(&self, now: Timestamp) -> Duration {
        let last = self.failed.values().max();
        last.map_or(Duration::ZERO, |last| after(self.failed.len(), *last, now))
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
        let mut note = |success: bool, pods: &[Pod], now: i64| {
            for pod in pods {
                if success { failures.note_success(pod) } else { failures.note_failure(pod) }
            }
            failures.trim();
            (failures.wait(at(now)).as_secs(), failures.failed.len())
        };
        assert_eq!(note(false, &[], 0), (0, 0));
        assert_eq!(note(false, &[ended("a", 1), ended("a", 1)], 1), (10, 1), "one pod that is seen twice");
        assert_eq!(note(false, &[ended("b", 12)], 12), (20, 2));
        assert_eq!(note(true, &[ended("c", 11)], 12), (10, 1), "one failure was before the success");
        assert_eq!(note(true, &[ended("d", 12)], 12), (0, 0));
        let many: Vec<Pod> = (0..100).map(|i| ended(&i.to_string(), 20 + i)).collect();
        assert_eq!(note(false, &many, 119), (600, KEPT));
    }
}
