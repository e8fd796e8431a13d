//! Decides: how many replicas one metric asks for (`pkg/controller/podautoscaler/replica_calculator.go`).
//!
//! ```text
//! failed, or being deleted      counts for nothing
//! pending, or not ready yet     unready: if there is too little without it, it counts as using nothing
//! running, and not measured     missing: counts against what is about to happen: as using all when there is too much,
//!                               as using nothing when there is too little
//! the rest                      counts as it is measured
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use crate::server::controllers::pods;

/// A pod that starts uses the CPU as it will not later (`--horizontal-pod-autoscaler-cpu-initialization-period`).
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);
/// A pod that became unready within this time was never ready (`--horizontal-pod-autoscaler-initial-readiness-delay`).
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// What a pod uses, in thousandths, and when and over which time that was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    pub milli: i64,
    pub at: Timestamp,
    pub window: SignedDuration,
}

/// By the name of the pod.
pub type PodMetrics = BTreeMap<String, Measured>;
/// What pods ask for, in thousandths.
pub type Requests = BTreeMap<String, i64>;

/// How far usage may be from what it should be, as a share of that, before anything is done.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub up: f64,
    pub down: f64,
}

impl Tolerance {
    fn covers(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// What is known of a target whatever is measured.
pub struct Calculator<'a> {
    /// Those that the target's selector selects.
    pub pods: &'a [Arc<Pod>],
    /// Replicas that the target should have, and those that it has.
    pub current: i32,
    pub existing: i32,
    pub tolerance: Tolerance,
    pub now: Timestamp,
}

const NO_PODS: &str = "no pods returned by selector while calculating replica count";
const NOT_MEASURED: &str = "did not receive metrics for targeted pods (pods might be unready)";

impl Calculator<'_> {
    /// For a share of what the pods ask for. Replicas, the share now in percent, and what a pod uses on average.
    ///
    /// # Errors
    /// When there is nothing to calculate with, in upstream's words.
    pub fn utilization(
        &self,
        metrics: PodMetrics,
        requests: Result<Requests, String>,
        target: i32,
        cpu: bool,
    ) -> Result<(i32, i32, i64), String> {
        let (groups, metrics) = self.group(metrics, cpu)?;
        let requests = requests?;
        let (percent, average) = utilization(&metrics, &requests)?;
        let ratio = |percent: i32| f64::from(percent) / f64::from(target);
        let again = |metrics: &PodMetrics| utilization(metrics, &requests).map_or(0.0, |(percent, _)| ratio(percent));
        // What is not measured uses what it asked for, or what it should when that is more.
        let all = i128::from(target.max(100));
        let missing = |name: &str| narrow(i128::from(requests.get(name).copied().unwrap_or(0)) * all / 100);
        Ok((self.replicas(&groups, metrics, ratio(percent), again, missing), percent, average))
    }

    /// For an amount per pod. Replicas, and what a pod uses on average.
    ///
    /// # Errors
    /// When there is nothing to calculate with, in upstream's words.
    pub fn average(&self, metrics: PodMetrics, target: i64, cpu: bool) -> Result<(i32, i64), String> {
        let (groups, metrics) = self.group(metrics, cpu)?;
        let average = |metrics: &PodMetrics| {
            let total: i128 = metrics.values().map(|m| i128::from(m.milli)).sum();
            narrow(total / i128::try_from(metrics.len().max(1)).unwrap_or(1))
        };
        let ratio = |metrics: &PodMetrics| float(average(metrics)) / float(target);
        let (now, used) = (ratio(&metrics), average(&metrics));
        Ok((self.replicas(&groups, metrics, now, ratio, |_| target), used))
    }

    /// For an amount of something that is not a pod.
    ///
    /// # Errors
    /// When there are no pods that it could be divided among.
    pub fn value(&self, used: i64, target: i64) -> Result<i32, String> {
        let ratio = float(used) / float(target);
        if self.current == 0 {
            return Ok(ceil(ratio));
        }
        if self.tolerance.covers(ratio) {
            return Ok(self.current);
        }
        if self.pods.is_empty() {
            return Err(format!("unable to calculate ready pods: {NO_PODS}"));
        }
        let ready = self.pods.iter().filter(|pod| pods::phase(pod) == "Running" && pods::is_ready(pod)).count();
        Ok(ceil(ratio * count(ready)))
    }

    /// For an amount of something that is not a pod, divided by the pods. Replicas, and what there is for each.
    #[must_use]
    pub fn value_per_pod(&self, used: i64, target: i64) -> (i32, i64) {
        let ratio = float(used) / (float(target) * f64::from(self.existing));
        let replicas = if self.tolerance.covers(ratio) { self.existing } else { ceil(float(used) / float(target)) };
        // Where there are no pods yet, all of it would be for the first.
        (replicas, whole((float(used) / f64::from(self.existing.max(1))).ceil()))
    }

    fn replicas(
        &self,
        groups: &Groups,
        mut metrics: PodMetrics,
        ratio: f64,
        again: impl Fn(&PodMetrics) -> f64,
        missing: impl Fn(&str) -> i64,
    ) -> i32 {
        let up_with_unready = !groups.unready.is_empty() && ratio > 1.0;
        if !up_with_unready && groups.missing.is_empty() {
            return if self.tolerance.covers(ratio) { self.current } else { ceil(ratio * count(groups.ready)) };
        }
        let as_using = |milli: i64| Measured { milli, at: self.now, window: SignedDuration::ZERO };
        for name in &groups.missing {
            if ratio < 1.0 {
                metrics.insert(name.clone(), as_using(missing(name)));
            } else if ratio > 1.0 {
                metrics.insert(name.clone(), as_using(0));
            }
        }
        if up_with_unready {
            metrics.extend(groups.unready.iter().map(|name| (name.clone(), as_using(0))));
        }
        let new = again(&metrics);
        let turned = (ratio < 1.0 && new > 1.0) || (ratio > 1.0 && new < 1.0);
        if turned || self.tolerance.covers(new) {
            return self.current;
        }
        let replicas = ceil(new * count(metrics.len()));
        // Pods that only count now must not turn things around either.
        let turned = (new < 1.0 && replicas > self.current) || (new > 1.0 && replicas < self.current);
        if turned { self.current } else { replicas }
    }

    /// Puts the pods in groups; what is left of the metrics is that of pods that count as they are measured.
    fn group(&self, mut metrics: PodMetrics, cpu: bool) -> Result<(Groups, PodMetrics), String> {
        if self.pods.is_empty() {
            return Err(NO_PODS.into());
        }
        let mut groups = Groups::default();
        for pod in self.pods {
            let name = pod.metadata.name.clone().unwrap_or_default();
            if pod.metadata.deletion_timestamp.is_some() || pods::phase(pod) == "Failed" {
                metrics.remove(&name);
            } else if pods::phase(pod) == "Pending" {
                metrics.remove(&name);
                groups.unready.push(name);
            } else {
                match metrics.get(&name) {
                    None => groups.missing.push(name),
                    Some(measured) if cpu && self.is_starting(pod, *measured) => {
                        metrics.remove(&name);
                        groups.unready.push(name);
                    }
                    Some(_) => groups.ready += 1,
                }
            }
        }
        if metrics.is_empty() { Err(NOT_MEASURED.into()) } else { Ok((groups, metrics)) }
    }

    /// Its use of the CPU says nothing yet.
    fn is_starting(&self, pod: &Pod, measured: Measured) -> bool {
        let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref());
        let (Some(ready), Some(started)) = (pods::condition(pod, "Ready"), started) else { return true };
        let unready = ready.status == "False";
        let changed = ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |t| t.0);
        let after = |time: Timestamp, by: SignedDuration| time.saturating_add(by).unwrap_or(Timestamp::MAX);
        if after(started.0, CPU_INITIALIZATION) > self.now {
            unready || measured.at < after(changed, measured.window)
        } else {
            // Never ready since it started.
            unready && after(started.0, INITIAL_READINESS) > changed
        }
    }
}

#[derive(Default)]
struct Groups {
    ready: usize,
    unready: Vec<String>,
    missing: Vec<String>,
}

/// In percent of what is asked for, and what a pod uses on average. Metrics of what is no pod of the target do not count.
fn utilization(metrics: &PodMetrics, requests: &Requests) -> Result<(i32, i64), String> {
    let known = metrics.iter().filter_map(|(name, m)| Some((i128::from(m.milli), i128::from(*requests.get(name)?))));
    let (used, asked, pods) = known.fold((0, 0, 0), |(u, a, n), (used, asked)| (u + used, a + asked, n + 1));
    if asked == 0 {
        return Err("no metrics returned matched known pods".into());
    }
    let percent = i32::try_from(used * 100 / asked).unwrap_or(i32::MAX);
    Ok((percent, narrow(used / pods)))
}

fn narrow(n: i128) -> i64 {
    i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX })
}

#[allow(clippy::cast_precision_loss, reason = "as upstream calculates; amounts beyond 2^53 thousandths are rounded")]
fn float(n: i64) -> f64 {
    n as f64
}

fn count(n: usize) -> f64 {
    float(i64::try_from(n).unwrap_or(i64::MAX))
}

/// Rounded up; what no number of replicas can be is the nearest that can.
#[allow(clippy::cast_possible_truncation, reason = "`as` takes the nearest, and 0 for what is no number")]
fn ceil(n: f64) -> i32 {
    n.ceil() as i32
}

#[allow(clippy::cast_possible_truncation, reason = "`as` takes the nearest, and 0 for what is no number")]
fn whole(n: f64) -> i64 {
    n as i64
}
