//! Decides: which pods a Job that goes on makes and removes.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::backoff::{self, Failures, finished_at};
use super::indexes::Indexes;
use super::policy::Verdict;
use super::view::{FAILURES, IGNORED_FAILURES, INDEX, TRACKING, View, all_failures, counted, index};
use crate::client::store::Meta as _;
use crate::server::controllers::action::Plan;
use crate::server::controllers::pod_control::PodControl;
use crate::server::controllers::pods;

/// Pods made or removed in one plan, whatever is asked for (upstream's `MaxPodCreateDeletePerSync`).
pub const MOST: usize = 500;
/// The server adds five letters to a name of at most this many bytes.
const MAX_PREFIX: usize = 58;
/// The variable in which a container finds its index.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// Pods to remove or to make. Never both at once: removing comes first.
#[derive(Default)]
pub struct Changes<'a> {
    /// These end without being counted.
    pub remove: Vec<&'a Arc<Pod>>,
    pub create: Vec<Value>,
}

/// `plan` looks again when a pause after failures ends.
pub fn changes<'a>(view: &View<'a>, control: &PodControl<'_>, failures: &Failures, plan: &mut Plan) -> Changes<'a> {
    let mut changes = Changes::default();
    if view.is_suspended() {
        changes.remove.clone_from(&view.active);
        return changes;
    }
    let (wanted, have) = (wanted(view), view.active.len());
    changes.remove = excess(view, have.saturating_sub(wanted));
    changes.remove.truncate(MOST);
    if !changes.remove.is_empty() {
        return changes;
    }
    let ending = if view.replaces_failed_only() { usize::try_from(view.terminating).unwrap_or(0) } else { 0 };
    let missing = wanted.saturating_sub(have + ending).min(MOST);
    if missing == 0 {
        return changes;
    }
    if view.limit_per_index().is_none() {
        let wait = failures.wait(view.now);
        if !wait.is_zero() {
            plan.look_after(wait);
            return changes;
        }
    }
    if view.is_indexed() {
        let due = due(view, missing, plan);
        changes.create.extend(due.into_iter().map(|index| indexed_pod(view, control, index)));
    } else {
        let mut pod = control.pod(&view.spec.template);
        track(&mut pod);
        changes.create = vec![pod; missing];
    }
    changes
}

/// How many pods should be active.
fn wanted(view: &View<'_>) -> usize {
    let parallelism = view.spec.parallelism.unwrap_or(1);
    let wanted = match view.spec.completions {
        Some(completions) => parallelism.min(completions - view.succeeded),
        // A queue of work: once one pod has found it empty no more are made, and those that run may finish.
        None if view.succeeded > 0 => return view.active.len(),
        None => parallelism,
    };
    usize::try_from(wanted).unwrap_or(0)
}

/// `at_least` active pods that are missed least. In an indexed Job, those of no index, of one that it does not have, and all
/// but one of each index go anyway.
fn excess<'a>(view: &View<'a>, at_least: usize) -> Vec<&'a Arc<Pod>> {
    let mut rest = view.active.clone();
    rest.sort_by_key(|pod| rank(pod));
    if !view.is_indexed() {
        rest.truncate(at_least);
        return rest;
    }
    let mut best: BTreeMap<i32, &'a Arc<Pod>> = BTreeMap::new();
    let mut gone = Vec::new();
    for pod in rest {
        match view.place(pod) {
            // Ordered by rank: the later one is the one to keep.
            Some(place) => gone.extend(best.insert(place, pod)),
            None => gone.push(pod),
        }
    }
    let mut kept: Vec<&'a Arc<Pod>> = best.into_values().collect();
    kept.sort_by_key(|pod| rank(pod));
    kept.truncate(at_least.saturating_sub(gone.len()));
    gone.extend(kept);
    gone
}

type Rank<'a> = (bool, u8, bool, Reverse<Timestamp>, Reverse<i32>, Reverse<Option<Timestamp>>, &'a str);

/// The smallest goes first (upstream's `ActivePods`).
fn rank(pod: &Pod) -> Rank<'_> {
    let phase = match pods::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let ready_since = if pods::is_ready(pod) { pods::ready_since(pod) } else { None };
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    let restarts = statuses.into_iter().flatten().map(|c| c.restart_count).max().unwrap_or(0);
    (
        !pods::node_name(pod).is_empty(),
        phase,
        pods::is_ready(pod),
        Reverse(ready_since.unwrap_or(Timestamp::MAX)),
        Reverse(restarts),
        Reverse(pod.metadata.creation_timestamp.as_ref().map(|t| t.0)),
        pod.metadata.uid(),
    )
}

/// The first `count` indexes without a pod, less those that have to wait.
fn due(view: &View<'_>, count: usize, plan: &mut Plan) -> Vec<i32> {
    let busy =
        view.pods.iter().filter(|p| pods::is_active(p) || (view.replaces_failed_only() && pods::is_terminating(p)));
    let mut done = view.completed.union(&busy.filter_map(|p| index(p)).collect::<Indexes>());
    if let Some(failed) = &view.failed_indexes {
        done = done.union(failed);
    }
    let mut due = done.missing(count, view.spec.completions.unwrap_or(0));
    due.retain(|index| {
        let wait = view.replaced.get(index).map_or(Duration::ZERO, |pod| {
            let failures = usize::try_from(all_failures(pod)).unwrap_or(0) + 1;
            backoff::after(failures, finished_at(pod), view.now)
        });
        if !wait.is_zero() {
            plan.look_after(wait);
        }
        wait.is_zero()
    });
    due
}

fn indexed_pod(view: &View<'_>, control: &PodControl<'_>, index: i32) -> Value {
    let mut pod = control.pod(&view.spec.template);
    track(&mut pod);
    let (name, number) = (view.job.metadata.name(), index.to_string());
    let after = format!("-{index}-");
    let mut prefix = name.to_owned();
    prefix.truncate(MAX_PREFIX.saturating_sub(after.len()));
    let meta = &mut pod["metadata"];
    meta["generateName"] = format!("{prefix}{after}").into();
    meta["labels"][INDEX] = number.as_str().into();
    meta["annotations"][INDEX] = number.as_str().into();
    if view.limit_per_index().is_some() {
        let (failed, ignored) = view.replaced.get(&index).map_or((0, 0), |pod| {
            let (failed, ignored) = (counted(pod, FAILURES), counted(pod, IGNORED_FAILURES));
            match view.verdict(pod) {
                Verdict::Ignore => (failed, ignored.saturating_add(1)),
                _ => (failed.saturating_add(1), ignored),
            }
        });
        meta["annotations"][FAILURES] = failed.to_string().into();
        if ignored > 0 {
            meta["annotations"][IGNORED_FAILURES] = ignored.to_string().into();
        }
    }
    pod["spec"]["hostname"] = format!("{name}-{index}").into();
    for list in ["containers", "initContainers"] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            tell_index(container);
        }
    }
    pod
}

/// A variable of that name in the template is left alone.
fn tell_index(container: &mut Value) {
    let env = &mut container["env"];
    if env.as_array().is_some_and(|all| all.iter().any(|v| v["name"] == INDEX_VARIABLE)) {
        return;
    }
    let path = format!("metadata.labels['{INDEX}']");
    let variable = json!({ "name": INDEX_VARIABLE, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    match env.as_array_mut() {
        Some(all) => all.push(variable),
        None => *env = json!([variable]),
    }
}

/// A pod is made with the finalizer, or its end could be missed.
fn track(pod: &mut Value) {
    let finalizers = &mut pod["metadata"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(all) if all.iter().any(|f| f == TRACKING) => {}
        Some(all) => all.push(TRACKING.into()),
        None => *finalizers = json!([TRACKING]),
    }
}
