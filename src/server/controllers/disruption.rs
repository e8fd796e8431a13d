//! Decides: how many pods of a PodDisruptionBudget may be evicted now (`pkg/controller/disruption`).
//!
//! ```text
//! expected   minAvailable, a number: the pods there are; else what their controllers want
//! desired    minAvailable, or expected - maxUnavailable
//! healthy    ready, and neither being deleted nor about to be
//! allowed    healthy - desired, if anything is expected at all
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value, json};

use super::action::{Action, Controller, Enqueue, Moment, Name, Note, Plan};
use super::share::{Round, share};
use super::stores::{Stores, row};
use super::{owners, pods};
use crate::client::request::{Request, Verb};

pub const BUDGETS: &str = "policy/poddisruptionbudgets";
/// A pod that was to be evicted and is still there after this long stays (`DeletionTimeout`).
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);
const ALLOWED: &str = "DisruptionAllowed";
const COMPONENT: &str = "controllermanager";

/// Keys are budgets.
#[derive(Default)]
pub struct DisruptionController {
    /// What the controllers of pods want, of those that only the server can say it of; by path. Used once.
    scales: Mutex<HashMap<Name, HashMap<String, Option<i32>>>>,
}

impl Controller for DisruptionController {
    fn name(&self) -> &'static str {
        "disruption"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.budgets.subscribe(move |change| {
            if let Some(budget) = change.new {
                queue.add(namespace(budget), name(budget));
            }
        });
        let (queue, budgets) = (enqueue.clone(), Arc::clone(&stores.budgets));
        stores.pods.subscribe(move |change| {
            for pod in change.each() {
                for budget in budgets.list(pod.metadata.namespace.as_deref().unwrap_or_default()) {
                    if covers(&budget, pod) {
                        queue.add(namespace(&budget), name(&budget));
                    }
                }
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let mut scales = self.scales.lock().unwrap_or_else(PoisonError::into_inner);
        let known = scales.remove(key).unwrap_or_default();
        let mut plan = Plan::default();
        let Some(budget) = stores.budgets.get(&key.namespace, &key.name) else { return plan };
        let covered = stores.pods.find(&key.namespace, |pod| covers(&budget, pod));
        match expected(stores, &budget, &covered, &known) {
            Counted::Unknown(requests) => plan.actions.extend(requests.into_iter().map(Action::Read)),
            Counted::Failed(why) => fail_safe(&budget, &why, moment, &mut plan),
            Counted::Pods(expected) => settle(&budget, &covered, expected, moment, &mut plan),
        }
        plan
    }

    fn learn(&self, key: &Name, request: &Request, answer: Option<Value>) {
        let replicas = answer.and_then(|scale| i32::try_from(scale["spec"]["replicas"].as_i64()?).ok());
        let mut scales = self.scales.lock().unwrap_or_else(PoisonError::into_inner);
        scales.entry(key.clone()).or_default().insert(place(request), replicas);
    }
}

fn namespace(budget: &PodDisruptionBudget) -> &str {
    budget.metadata.namespace.as_deref().unwrap_or_default()
}

fn name(budget: &PodDisruptionBudget) -> &str {
    budget.metadata.name.as_deref().unwrap_or_default()
}

/// No selector covers nothing, an empty one everything (`policy/v1`).
fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector: Option<&LabelSelector> = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.is_some_and(|s| owners::is_empty(s) || owners::selects(s, pod.metadata.labels.as_ref()))
}

fn place(request: &Request) -> String {
    format!("{}/{}", request.resource.storage, request.name)
}

/// How many pods there should be, and how many of them healthy.
#[derive(Debug, PartialEq)]
enum Counted {
    Pods(Expected),
    /// The server has to be asked first.
    Unknown(Vec<Request>),
    Failed(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Expected {
    pods: i32,
    healthy: i32,
    /// Pods without a controller, which a percentage cannot count.
    unmanaged: usize,
}

fn expected(
    stores: &Stores,
    budget: &PodDisruptionBudget,
    covered: &[Arc<Pod>],
    known: &HashMap<String, Option<i32>>,
) -> Counted {
    let spec = budget.spec.clone().unwrap_or_default();
    let there = i32::try_from(covered.len()).unwrap_or(i32::MAX);
    let of_scale = |healthy: &dyn Fn(i32) -> Option<i32>| match scale(stores, covered, known) {
        Counted::Pods(found) => match healthy(found.pods) {
            Some(healthy) => Counted::Pods(Expected { healthy: healthy.max(0), ..found }),
            None => Counted::Failed("invalid value for IntOrString: invalid type: string is not a percentage".into()),
        },
        other => other,
    };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => of_scale(&|pods| Some(pods - share(most, pods, Round::Up)?)),
        (None, Some(IntOrString::Int(least))) => Counted::Pods(Expected { pods: there, healthy: *least, unmanaged: 0 }),
        (None, Some(least)) => of_scale(&|pods| share(least, pods, Round::Up)),
        (None, None) => Counted::Pods(Expected::default()),
    }
}

/// The replicas that the controllers of pods want, each controller once.
fn scale(stores: &Stores, covered: &[Arc<Pod>], known: &HashMap<String, Option<i32>>) -> Counted {
    let mut scales: BTreeMap<String, i32> = BTreeMap::new();
    let (mut unmanaged, mut asked) = (0, BTreeMap::new());
    for pod in covered {
        let Some(owner) = owners::controller_of(&pod.metadata) else {
            unmanaged += 1;
            continue;
        };
        let space = pod.metadata.namespace.as_deref().unwrap_or_default();
        if let Some((uid, replicas)) = workload(stores, space, owner) {
            scales.insert(uid, replicas);
            continue;
        }
        let Some(resource) = stores.kind(&owner.api_version, &owner.kind) else {
            let pod = pod.metadata.name.as_deref().unwrap_or_default();
            return Counted::Failed(format!("found no controllers for pod {pod:?}"));
        };
        if resource.subresource("scale").is_none() {
            let dot = if resource.group.is_empty() { "" } else { "." };
            let (plural, group) = (resource.plural, resource.group);
            return Counted::Failed(format!("{plural}{dot}{group} does not implement the scale subresource"));
        }
        let request = Request::new(Verb::Get, resource, space, &owner.name, Value::Null).on("scale");
        match known.get(&place(&request)) {
            Some(Some(replicas)) => {
                scales.insert(owner.uid.clone(), *replicas);
            }
            Some(None) => {
                let pod = pod.metadata.name.as_deref().unwrap_or_default();
                return Counted::Failed(format!("found no controllers for pod {pod:?}"));
            }
            None => {
                asked.insert(place(&request), request);
            }
        }
    }
    if !asked.is_empty() {
        return Counted::Unknown(asked.into_values().collect());
    }
    let pods = scales.values().copied().fold(0, i32::saturating_add);
    Counted::Pods(Expected { pods, healthy: 0, unmanaged })
}

/// The replicas of a controller that is followed here, by the uid of who decides about them: of a ReplicaSet that may be
/// a Deployment.
fn workload(stores: &Stores, space: &str, owner: &OwnerReference) -> Option<(String, i32)> {
    let replicas = |n: Option<i32>| n.unwrap_or(1);
    match (&*owner.api_version, &*owner.kind) {
        ("apps/v1", "ReplicaSet") => {
            let set = stores.replica_sets.get(space, &owner.name)?;
            if set.metadata.uid.as_ref() != Some(&owner.uid) {
                return None;
            }
            if let Some(named) = owners::controller_named(&set.metadata, "apps", "Deployment") {
                let deployment = stores.deployments.get(space, named)?;
                let wanted = deployment.spec.as_ref().and_then(|s| s.replicas);
                return Some((deployment.metadata.uid.clone()?, replicas(wanted)));
            }
            Some((owner.uid.clone(), replicas(set.spec.as_ref().and_then(|s| s.replicas))))
        }
        ("apps/v1", "StatefulSet") => {
            let set = stores.stateful_sets.get(space, &owner.name)?;
            let same = set.metadata.uid.as_ref() == Some(&owner.uid);
            same.then(|| (owner.uid.clone(), replicas(set.spec.as_ref().and_then(|s| s.replicas))))
        }
        ("v1", "ReplicationController") => {
            let controller = stores.replication_controllers.get(space, &owner.name)?;
            let same = controller.0.metadata.uid.as_ref() == Some(&owner.uid);
            same.then(|| (owner.uid.clone(), replicas(controller.0.spec.as_ref().and_then(|s| s.replicas))))
        }
        _ => None,
    }
}

/// Pods that were to be evicted and may yet be, and when the first of them is given up.
fn disrupted(
    budget: &PodDisruptionBudget,
    covered: &[Arc<Pod>],
    moment: Moment<'_>,
    plan: &mut Plan,
) -> BTreeMap<String, Time> {
    let listed = budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref());
    let mut kept = BTreeMap::new();
    for pod in covered.iter().filter(|p| p.metadata.deletion_timestamp.is_none()) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let Some(since) = listed.and_then(|l| l.get(&name)) else { continue };
        let until = since.0.checked_add(DELETION_TIMEOUT).unwrap_or(Timestamp::MAX);
        if until < moment.now {
            let budget = format!("{}/{}", namespace(budget), self::name(budget));
            let message = format!("Pod was expected by PDB {budget} to be deleted but it wasn't");
            plan.push(note(owners::object_reference(row("pods"), &pod.metadata), true, "NotDeleted", message));
            continue;
        }
        plan.look_after(
            Duration::try_from(until.duration_since(moment.now)).unwrap_or_default() + Duration::from_secs(1),
        );
        kept.insert(name, since.clone());
    }
    kept
}

fn note(
    regarding: k8s_openapi::api::core::v1::ObjectReference,
    warning: bool,
    reason: &'static str,
    message: String,
) -> Action {
    Action::Event(Note { regarding, warning, reason, message, component: COMPONENT, action: "" })
}

fn settle(budget: &PodDisruptionBudget, covered: &[Arc<Pod>], expected: Expected, moment: Moment<'_>, plan: &mut Plan) {
    let disrupted = disrupted(budget, covered, moment, plan);
    let healthy = covered.iter().filter(|pod| {
        let going = pod.metadata.name.as_ref().is_some_and(|name| disrupted.contains_key(name));
        pod.metadata.deletion_timestamp.is_none() && !going && pods::is_ready(pod)
    });
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    // Nothing is allowed of what is not there yet: the first pods would come under a status that is old.
    let allowed = if expected.pods > 0 { (healthy - expected.healthy).max(0) } else { 0 };
    let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let wanted = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(expected.healthy),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected.pods),
        observed_generation: budget.metadata.generation,
        conditions: Some(condition(budget, status, reason, String::new(), moment.now)),
    };
    if budget.status.as_ref() == Some(&wanted) {
        return;
    }
    if covered.is_empty() {
        plan.push(note(
            owners::object_reference(row(BUDGETS), &budget.metadata),
            false,
            "NoPods",
            "No matching pods found".into(),
        ));
    }
    if expected.unmanaged > 0 {
        let message = "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the status of the \
             PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please \
             set \".spec.minAvailable\" field of the PDB to an integer value.";
        plan.push(note(
            owners::object_reference(row(BUDGETS), &budget.metadata),
            true,
            "UnmanagedPods",
            message.into(),
        ));
    }
    plan.push(write(budget, &wanted));
}

/// What cannot be counted allows nothing.
fn fail_safe(budget: &PodDisruptionBudget, why: &str, moment: Moment<'_>, plan: &mut Plan) {
    let before = budget.status.clone().unwrap_or_default();
    let wanted = PodDisruptionBudgetStatus {
        disruptions_allowed: Some(0),
        conditions: Some(condition(budget, "False", "SyncFailed", why.into(), moment.now)),
        ..before.clone()
    };
    if before == wanted {
        return;
    }
    let message = format!("Failed to calculate the number of expected pods: {why}");
    let about = owners::object_reference(row(BUDGETS), &budget.metadata);
    plan.push(note(about, true, "CalculateExpectedPodCountFailed", message));
    plan.push(write(budget, &wanted));
}

fn condition(
    budget: &PodDisruptionBudget,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> Vec<Condition> {
    let mut all = budget.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let before = all.iter().position(|c| c.type_ == ALLOWED);
    let since = before.map(|i| &all[i]).filter(|c| c.status == status).map(|c| c.last_transition_time.clone());
    let new = Condition {
        type_: ALLOWED.into(),
        status: status.into(),
        reason: reason.into(),
        message,
        observed_generation: budget.metadata.generation,
        last_transition_time: since.unwrap_or_else(|| owners::whole_second(now)),
    };
    match before {
        Some(i) => all[i] = new,
        None => all.push(new),
    }
    all
}

/// Of just the state that was observed: the API server takes disruptions from the same status.
fn write(budget: &PodDisruptionBudget, wanted: &PodDisruptionBudgetStatus) -> Action {
    let mut status = serde_json::to_value(wanted).unwrap_or_default();
    let there = budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref());
    let kept = wanted.disrupted_pods.as_ref();
    let gone = there.into_iter().flatten().filter(|(name, _)| kept.is_none_or(|k| !k.contains_key(*name)));
    let gone: Map<String, Value> = gone.map(|(name, _)| (name.clone(), Value::Null)).collect();
    if !gone.is_empty() {
        if !status["disruptedPods"].is_object() {
            status["disruptedPods"] = json!({});
        }
        status["disruptedPods"].as_object_mut().into_iter().for_each(|map| map.extend(gone.clone()));
    }
    let body = json!({
        "metadata": {"uid": budget.metadata.uid, "resourceVersion": budget.metadata.resource_version},
        "status": status,
    });
    Request::new(Verb::MergePatch, row(BUDGETS), namespace(budget), name(budget), body).on("status").into()
}

#[cfg(test)]
mod tests;
