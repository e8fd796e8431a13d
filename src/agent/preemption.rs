//! Decides: which pods leave so that a critical one has room (`pkg/kubelet/preemption`): as few as possible, and of them
//! those that lose least: best-effort pods before burstable ones, those before guaranteed ones. Effects: they are told
//! to, and the critical pod's worker waits for them, and nobody else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;

use super::allocation::Lacking;
use super::cgroups::{Qos, qos};
use super::context::NodeContext;
use super::events::Kind as EventKind;
use super::eviction::is_critical;
use super::pod::ending::Ending;
use super::pod::{describe, pod_spec, spec, uid};
use crate::api::amounts::{Amounts, requests};

const REASON: &str = "Preempting";
const MESSAGE: &str = "Preempted in order to admit critical pod";
/// A pod gets half of its grace beyond it, and at least this long in all.
const LEAST: Duration = Duration::from_secs(10);

/// What is still short, by resource.
type Short = Vec<(String, i64)>;

/// The pods that leave.
///
/// # Errors
/// Not even all that may leave would make room.
pub fn plan<'a>(pod: &Pod, others: &'a [Arc<Pod>], lacking: &[Lacking]) -> Result<Vec<&'a Arc<Pod>>, String> {
    let short: Short =
        lacking.iter().map(|row| (row.resource.clone(), row.requested + row.used - row.capacity)).collect();
    let of = |class: Qos| -> Vec<&'a Arc<Pod>> {
        others.iter().filter(|other| may_leave(pod, other) && qos(other) == class).collect()
    };
    let [best_effort, burstable, guaranteed] = [Qos::BestEffort, Qos::Burstable, Qos::Guaranteed].map(of);
    let all = || best_effort.iter().chain(&burstable).chain(&guaranteed).copied();
    let unmet = without(&short, all());
    if !unmet.is_empty() {
        return Err(nobody(&unmet));
    }
    // Each class only for what the others, all that are less important and those that go anyway, do not give.
    let needed = without(&short, best_effort.iter().chain(&burstable).copied());
    let leaving_guaranteed = nearest(guaranteed, needed)?;
    let needed = without(&short, best_effort.iter().chain(&leaving_guaranteed).copied());
    let leaving_burstable = nearest(burstable, needed)?;
    let needed = without(&short, leaving_burstable.iter().chain(&leaving_guaranteed).copied());
    let leaving = nearest(best_effort, needed)?;
    Ok(leaving.into_iter().chain(leaving_burstable).chain(leaving_guaranteed).collect())
}

fn may_leave(pod: &Pod, other: &Pod) -> bool {
    let (own, theirs) = (pod_spec(pod).priority, pod_spec(other).priority);
    (is_critical(pod) && !is_critical(other)) || own.zip(theirs).is_some_and(|(own, theirs)| own > theirs)
}

fn asked(pod: &Pod, resource: &str) -> i64 {
    Amounts { pods: 1, ..requests(pod_spec(pod)) }.get(resource)
}

fn without<'a>(short: &Short, leaving: impl Iterator<Item = &'a Arc<Pod>> + Clone) -> Short {
    let left = |(resource, amount): &(String, i64)| {
        let freed: i64 = leaving.clone().map(|pod| asked(pod, resource)).sum();
        (resource.clone(), amount - freed)
    };
    short.iter().map(left).filter(|(_, amount)| *amount > 0).collect()
}

/// One after the other the pod that leaves least to be wished for, and of several such the one that asks for least.
fn nearest(mut pods: Vec<&Arc<Pod>>, mut short: Short) -> Result<Vec<&Arc<Pod>>, String> {
    let mut leaving = Vec::new();
    while !short.is_empty() {
        let size = |pod: &Pod| (asked(pod, "memory"), asked(pod, "cpu"));
        let best = pods.iter().enumerate().min_by(|(_, a), (_, b)| {
            distance(a, &short).total_cmp(&distance(b, &short)).then_with(|| size(a).cmp(&size(b)))
        });
        let Some((index, _)) = best else { return Err(nobody(&short)) };
        let pod = pods.swap_remove(index);
        short = without(&short, std::iter::once(pod));
        leaving.push(pod);
    }
    Ok(leaving)
}

/// What part of each shortage would be left, squared: each resource counts the same, whatever its unit.
fn distance(pod: &Pod, short: &Short) -> f64 {
    let left = |(resource, amount): &(String, i64)| {
        #[allow(clippy::cast_precision_loss, reason = "a comparison of shares")]
        let share = (amount - asked(pod, resource)).max(0) as f64 / *amount as f64;
        share * share
    };
    short.iter().map(left).sum()
}

fn nobody(short: &Short) -> String {
    let rows: Vec<String> =
        short.iter().map(|(resource, amount)| format!("(res: {resource}, q: {amount}), ")).collect();
    format!("no set of running pods found to reclaim resources: [{}]", rows.concat())
}

/// Takes the critical pod in, whom others make room for, and tells these to end. Returns all that it has to wait for:
/// some may be on their way out for another.
///
/// # Errors
/// Not even all that may leave would make room.
pub fn begin(cx: &NodeContext, pod: &Arc<Pod>) -> Result<Vec<Arc<Pod>>, String> {
    let (mut leaving, staying) = cx.ledger.leaving_and_staying();
    let lacking = cx.ledger.lacking_later(pod);
    let chosen: Vec<Arc<Pod>> = plan(pod, &staying, &lacking)?.into_iter().cloned().collect();
    for other in &chosen {
        tracing::info!(pod = describe(other), "ends to make room for a critical pod");
        cx.events.pod(other, EventKind::Warning, REASON, MESSAGE);
        let ending = Ending { reason: REASON, message: MESSAGE.to_owned(), grace: grace(other), disruption: true };
        cx.pods.end(uid(other), ending);
        cx.ledger.leaves(uid(other));
        cx.preemptions.count(lacking.first().map_or("", |first| &first.resource));
    }
    cx.ledger.adopt(pod);
    leaving.extend(chosen);
    Ok(leaving)
}

/// Waits until all of them have ended, but for those that take longer than they may.
pub async fn ended(cx: Arc<NodeContext>, leaving: Vec<Arc<Pod>>) {
    let each = leaving.iter().map(|pod| async {
        let limit = (grace(pod) + grace(pod) / 2).max(LEAST);
        if tokio::time::timeout(limit, cx.pods.ended(uid(pod))).await.is_err() {
            tracing::warn!(pod = describe(pod), "a pod that makes room did not end in time");
        }
        cx.ledger.release(uid(pod));
    });
    join_all(each).await;
}

fn grace(pod: &Pod) -> Duration {
    Duration::from_secs(u64::try_from(spec::grace_seconds(pod)).unwrap_or(0))
}

/// How many pods had to go, by the resource that was short.
#[derive(Default)]
pub struct Counts(Mutex<BTreeMap<String, u64>>);

impl Counts {
    fn count(&self, resource: &str) {
        *self.lock().entry(resource.to_owned()).or_default() += 1;
    }

    /// As they are now.
    #[must_use]
    pub fn by_resource(&self) -> BTreeMap<String, u64> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A pod by its name, requests of CPU and memory, and more of its spec; `limited` ones are guaranteed.
    fn pod(name: &str, cpu: &str, memory: &str, limited: bool, priority: i32) -> Arc<Pod> {
        let amounts = json!({"cpu": cpu, "memory": memory});
        let resources = match (cpu, limited) {
            ("", _) => json!({}),
            (_, true) => json!({"requests": amounts, "limits": amounts}),
            (_, false) => json!({"requests": amounts}),
        };
        let pod: Value = json!({"metadata": {"name": name, "uid": name},
            "spec": {"priority": priority, "containers": [{"name": "c", "resources": resources}]}});
        Arc::new(serde_json::from_value(pod).expect("valid"))
    }

    fn short(resource: &str, by: i64) -> Lacking {
        Lacking { resource: resource.into(), requested: by + 5, used: 10, capacity: 15 }
    }

    fn check(others: &[Arc<Pod>], lacking: &[Lacking], expect: Result<&[&str], &str>) {
        let critical = pod("critical", "1", "1Gi", true, 2_000_001_000);
        let found = plan(&critical, others, lacking);
        let names = found.map(|pods| pods.iter().map(|pod| uid(pod).to_owned()).collect::<Vec<_>>());
        let names = names.as_ref().map(|names| names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(names.as_deref().map_err(|why| why.as_str()), expect);
    }

    #[test]
    fn as_few_as_possible_and_the_least_important() {
        let others = [
            pod("best", "", "", false, 0),
            pod("small", "100m", "100Mi", false, 0),
            pod("big", "500m", "500Mi", false, 0),
            pod("same", "500m", "600Mi", false, 0),
            pod("sure", "900m", "2Gi", true, 0),
            pod("other", "900m", "2Gi", true, 2_000_001_000),
        ];
        // One that fits is better than two that do, and the smaller one of two that fit.
        check(&others, &[short("cpu", 300)], Ok(&["big"]));
        check(&others, &[short("cpu", 100)], Ok(&["small"]));
        check(&others, &[short("cpu", 600)], Ok(&["big", "small"]));
        check(&others, &[short("pods", 1)], Ok(&["best"]));
        // All that is less important is not enough: of it goes only what is still needed beside the guaranteed one.
        check(&others, &[short("cpu", 1400)], Ok(&["big", "sure"]));
        check(&others, &[short("memory", 550 << 20)], Ok(&["same"]));
        let none = "no set of running pods found to reclaim resources: [(res: cpu, q: 3000), ]";
        check(&others, &[short("cpu", 5000)], Err(none));
        check(&others, &[], Ok(&[]));
    }
}
