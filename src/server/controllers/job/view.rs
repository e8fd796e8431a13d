//! Decides: what a Job's pods come to: which are active, which ended and are not yet counted, which indexes are done.
//!
//! A pod has the tracking finalizer until its end is counted, so a pod without it never counts.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;

use super::backoff::{Failures, finished_at};
use super::indexes::Indexes;
use super::policy::{self, Verdict};
use crate::client::store::Meta as _;
use crate::server::controllers::pods;

/// The finalizer that keeps a pod until its end is counted.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label of a pod of an indexed Job.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often an index failed before this pod of it, with a limit for each index.
pub const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// The same for failures that a policy ignores: they count for the pause before the next pod.
pub const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

pub struct View<'a> {
    pub job: &'a Job,
    pub spec: &'a JobSpec,
    pub now: Timestamp,
    /// Its pods, by index and name.
    pub pods: Vec<&'a Arc<Pod>>,
    pub active: Vec<&'a Arc<Pod>>,
    pub ready: i32,
    pub terminating: i32,
    /// Pods whose end the status has written down, by uid.
    pub uncounted_succeeded: HashSet<&'a str>,
    pub uncounted_failed: HashSet<&'a str>,
    /// With those that are not counted yet.
    pub succeeded: i32,
    pub failed: i32,
    /// By the status.
    pub completed_before: Indexes,
    /// With those of pods that are not counted yet.
    pub completed: Indexes,
    /// `None` without a limit for each index.
    pub failed_indexes: Option<Indexes>,
    /// The last failed pod of each index that is to be tried again: the next one takes over its counts, so it is kept
    /// until there is a next one.
    pub replaced: BTreeMap<i32, &'a Arc<Pod>>,
}

impl<'a> View<'a> {
    pub fn new(job: &'a Job, spec: &'a JobSpec, mut pods: Vec<&'a Arc<Pod>>, now: Timestamp) -> Self {
        pods.sort_by_key(|pod| (index(pod), pod.metadata.name.as_deref()));
        let active: Vec<_> = pods.iter().copied().filter(|p| pods::is_active(p)).collect();
        let mut view = Self {
            job,
            spec,
            now,
            ready: count(active.iter().filter(|p| pods::is_ready(p))),
            terminating: count(pods.iter().filter(|p| pods::is_terminating(p))),
            pods,
            active,
            uncounted_succeeded: uncounted(job, |u| u.succeeded.as_ref()),
            uncounted_failed: uncounted(job, |u| u.failed.as_ref()),
            succeeded: 0,
            failed: 0,
            completed_before: Indexes::default(),
            completed: Indexes::default(),
            failed_indexes: None,
            replaced: BTreeMap::new(),
        };
        view.count_pods();
        if view.is_indexed() {
            view.count_indexes();
        }
        view
    }

    fn status(&self) -> Option<&'a JobStatus> {
        self.job.status.as_ref()
    }

    pub fn is_indexed(&self) -> bool {
        is_indexed(self.spec)
    }

    pub fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    pub fn limit_per_index(&self) -> Option<i32> {
        self.spec.backoff_limit_per_index.filter(|_| self.is_indexed())
    }

    /// Pods that end are replaced when they have ended.
    pub fn replaces_failed_only(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed") || self.spec.pod_failure_policy.is_some()
    }

    pub fn is_failed(&self, pod: &Pod) -> bool {
        let phase = pods::phase(pod);
        // Who is deleted may never get as far as to fail.
        let going = pod.metadata.deletion_timestamp.is_some() && phase != "Succeeded" && !self.replaces_failed_only();
        phase == "Failed" || going
    }

    pub fn verdict(&self, pod: &Pod) -> Verdict {
        policy::verdict(self.spec.pod_failure_policy.as_ref(), pod)
    }

    /// In an indexed Job only pods with an index that it has count.
    pub fn has_place(&self, pod: &Pod) -> bool {
        !self.is_indexed() || self.place(pod).is_some()
    }

    pub fn place(&self, pod: &Pod) -> Option<i32> {
        index(pod).filter(|index| *index < self.spec.completions.unwrap_or(0))
    }

    /// Puts down what the pause before the next pod depends on.
    pub fn note(&self, failures: &mut Failures) {
        for pod in self.pods.iter().filter(|p| self.has_place(p)) {
            if pods::phase(pod) == "Succeeded" {
                failures.note_success(pod);
            } else if self.is_failed(pod) {
                failures.note_failure(pod);
            }
        }
        failures.trim();
    }

    /// Pods that ended and are neither counted nor about to be.
    fn fresh(&self) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.pods.iter().copied().filter(|p| is_tracked(p) && self.has_place(p))
    }

    fn count_pods(&mut self) {
        let old = self.status().cloned().unwrap_or_default();
        let unseen = |set: &HashSet<&str>, pod: &Pod| !set.contains(pod.metadata.uid());
        let succeeded =
            count(self.fresh().filter(|p| pods::phase(p) == "Succeeded" && unseen(&self.uncounted_succeeded, p)));
        let failed =
            count(self.fresh().filter(|p| {
                self.is_failed(p) && unseen(&self.uncounted_failed, p) && self.verdict(p) != Verdict::Ignore
            }));
        let sum = |before: Option<i32>, now: i32, uncounted: i32| before.unwrap_or(0).saturating_add(now + uncounted);
        self.succeeded = sum(old.succeeded, succeeded, count(self.uncounted_succeeded.iter()));
        self.failed = sum(old.failed, failed, count(self.uncounted_failed.iter()));
    }

    /// An index is done or given up, whichever was first: a pod that was given up when it was deleted may succeed yet, and
    /// one that is no longer needed may fail.
    fn count_indexes(&mut self) {
        let completions = self.spec.completions.unwrap_or(0);
        let parse = |text: Option<&String>| Indexes::parse(text.map_or("", String::as_str), completions);
        self.completed_before = parse(self.status().and_then(|s| s.completed_indexes.as_ref()));
        let failed_before = parse(self.status().and_then(|s| s.failed_indexes.as_ref()));
        let succeeded = self.fresh().filter(|p| pods::phase(p) == "Succeeded").filter_map(|p| self.place(p));
        let new: Indexes = succeeded.filter(|index| !failed_before.has(*index)).collect();
        let completed = self.completed_before.union(&new);
        if let Some(limit) = self.limit_per_index() {
            let failed = self.fresh().filter(|p| self.fails_index(p, limit)).filter_map(|p| self.place(p));
            let new: Indexes = failed.filter(|index| !completed.has(*index)).collect();
            let failed = failed_before.union(&new);
            self.replaced = self.to_replace(&completed, &failed);
            self.failed_indexes = Some(failed);
        }
        self.succeeded = completed.total();
        self.completed = completed;
    }

    fn fails_index(&self, pod: &Pod, limit: i32) -> bool {
        self.is_failed(pod)
            && match self.verdict(pod) {
                Verdict::FailIndex => true,
                Verdict::Ignore => false,
                Verdict::Count | Verdict::FailJob(_) => counted(pod, FAILURES) >= limit,
            }
    }

    fn to_replace(&self, completed: &Indexes, failed: &Indexes) -> BTreeMap<i32, &'a Arc<Pod>> {
        let active: Indexes = self.active.iter().filter_map(|p| index(p)).collect();
        let mut last: BTreeMap<i32, &'a Arc<Pod>> = BTreeMap::new();
        for pod in self.fresh().filter(|p| self.is_failed(p)) {
            let Some(index) = self.place(pod) else { continue };
            if completed.has(index) || failed.has(index) || active.has(index) {
                continue;
            }
            let key = |p: &Pod| (all_failures(p), finished_at(p));
            let later = last.get(&index).is_none_or(|known| {
                let ((n, at), (m, then)) = (key(pod), key(known));
                n >= m && at >= then
            });
            if later {
                last.insert(index, pod);
            }
        }
        last
    }
}

fn uncounted<'a>(
    job: &'a Job,
    list: impl Fn(&'a UncountedTerminatedPods) -> Option<&'a Vec<String>>,
) -> HashSet<&'a str> {
    let uncounted = job.status.as_ref().and_then(|s| s.uncounted_terminated_pods.as_ref());
    uncounted.and_then(list).into_iter().flatten().map(String::as_str).collect()
}

#[must_use]
pub fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

#[must_use]
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers().iter().any(|f| f == TRACKING)
}

/// The completion index that a pod says it has.
#[must_use]
pub fn index(pod: &Pod) -> Option<i32> {
    annotation(pod, INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// What an annotation counts. What anybody may have written there that is no count is none.
#[must_use]
pub fn counted(pod: &Pod, name: &str) -> i32 {
    annotation(pod, name).and_then(|text| text.parse().ok()).filter(|n| *n >= 0).unwrap_or(0)
}

/// Failures of its index before this pod.
#[must_use]
pub fn all_failures(pod: &Pod) -> i32 {
    counted(pod, FAILURES).saturating_add(counted(pod, IGNORED_FAILURES))
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

pub fn count<T>(items: impl Iterator<Item = T>) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}
