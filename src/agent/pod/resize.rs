//! Decides: what a pod's containers and its control group still lack of what the pod was given, and how it is told.
//!
//! ```text
//! the spec asks ─▶ ledger ─▶ not granted ─▶ PodResizePending (Deferred, Infeasible)
//!                    └─ granted ─▶ PodResizeInProgress ─▶ containers updated, or restarted by their resizePolicy ─▶ done
//! ```

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodStatus, ResourceRequirements};
use serde::Serialize;
use serde_json::{Value, json};

use super::observed::Observed;
use super::{Role, containers, pod_spec};
use crate::agent::allocation::Pending;
use crate::agent::cgroups::{PodResources, bytes, milli, pod_resources};

/// What is in force, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Actual {
    /// What containers run with, by container id.
    pub containers: BTreeMap<String, ResourceRequirements>,
    /// What the pod's control group was set to.
    pub pod: Option<PodResources>,
}

/// A container that takes its new resources while it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    pub id: String,
    pub name: String,
    pub resources: ResourceRequirements,
    /// Its memory limit becomes smaller.
    pub shrinks: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    pub updates: Vec<Update>,
    /// Ids and names of those that take them only when they start.
    pub restarts: Vec<(String, String)>,
    /// The control group of the pod.
    pub pod: bool,
}

impl Changes {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.updates.is_empty() && self.restarts.is_empty() && !self.pod
    }
}

/// What is to be done so that the pod has what it was given.
#[must_use]
pub fn changes(pod: &Pod, observed: &Observed, actual: &Actual) -> Changes {
    let mut changes = Changes { pod: actual.pod.is_some_and(|set| set != pod_resources(pod)), ..Changes::default() };
    for current in observed.running() {
        let spec = containers(pod).find(|(_, container)| container.name == current.name);
        let (Some((role, container)), Some(has)) = (spec, actual.containers.get(&current.id)) else { continue };
        let has = limits(Some(has));
        let wants = limits(container.resources.as_ref());
        if has == wants {
            continue;
        }
        let restarts = |resource| role != Role::Init && restarts(container, resource);
        if (has.cpu() != wants.cpu() && restarts("cpu")) || (has.memory != wants.memory && restarts("memory")) {
            changes.restarts.push((current.id.clone(), container.name.clone()));
            continue;
        }
        changes.updates.push(Update {
            id: current.id.clone(),
            name: container.name.clone(),
            resources: container.resources.clone().unwrap_or_default(),
            shrinks: wants.memory.is_some_and(|wanted| has.memory.is_none_or(|had| wanted < had)),
        });
    }
    changes
}

/// What the kernel is told of a container's resources: a request of memory is nothing to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Limits {
    cpu_request: i64,
    cpu_limit: Option<i64>,
    memory: Option<i64>,
}

impl Limits {
    fn cpu(&self) -> (i64, Option<i64>) {
        (self.cpu_request, self.cpu_limit)
    }
}

fn limits(resources: Option<&ResourceRequirements>) -> Limits {
    let amount = |limit: bool, name: &str| {
        let list = resources.and_then(|r| if limit { r.limits.as_ref() } else { r.requests.as_ref() })?;
        list.get(name).map(|quantity| if name == "cpu" { milli(&quantity.0) } else { bytes(&quantity.0) })
    };
    let cpu_limit = amount(true, "cpu");
    Limits { cpu_request: amount(false, "cpu").or(cpu_limit).unwrap_or(0), cpu_limit, memory: amount(true, "memory") }
}

/// What is told of a container that has `has`, where that is known, and was given `given`: the words of what it was
/// given, as soon as it has as much.
#[must_use]
pub fn shown(has: Option<ResourceRequirements>, given: ResourceRequirements) -> ResourceRequirements {
    has.filter(|has| limits(Some(has)) != limits(Some(&given))).unwrap_or(given)
}

fn restarts(container: &Container, resource: &str) -> bool {
    let mut policies = container.resize_policy.iter().flatten();
    policies.any(|policy| policy.resource_name == resource && policy.restart_policy == "RestartContainer")
}

/// What containers run with when the agent starts: what was told of them, else what they were made with.
#[must_use]
pub fn recall(pod: &Pod, observed: &Observed) -> Actual {
    let none = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&none);
    let all = || status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let of = |current: &crate::cri::Container| {
        let told = all().find(|told| told.container_id.as_deref() == Some(&format!("containerd://{}", current.id)));
        let made = current.annotations.iter().find(|(key, _)| key == MADE_WITH);
        let told = told.and_then(|told| told.resources.clone());
        let spec = containers(pod).find(|(_, container)| container.name == current.name);
        // An agent that knew nothing of resizes has made it as its spec was, which has been the same since.
        let found = told.or_else(|| serde_json::from_str(&made?.1).ok()).or_else(|| spec?.1.resources.clone());
        (current.id.clone(), found.unwrap_or_default())
    };
    Actual { containers: observed.running().map(of).collect(), pod: None }
}

/// The annotation of a container that says what resources it was made with.
pub const MADE_WITH: &str = "skiff.io/resources";

/// What [`MADE_WITH`] says.
#[must_use]
pub fn made_with(container: &Container) -> String {
    serde_json::to_string(&container.resources.clone().unwrap_or_default()).unwrap_or_default()
}

/// How far the resize of a pod has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub pending: Option<Pending>,
    /// A granted resize that is not in force yet.
    pub under_way: Option<UnderWay>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// Of the pod that asked for it.
    pub generation: Option<i64>,
    /// Why the last try failed.
    pub error: Option<String>,
}

pub const CONDITIONS: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// The conditions that tell it; without times.
#[must_use]
pub fn conditions(progress: &Progress) -> Vec<PodCondition> {
    let condition = |kind: &str, generation, reason: Option<&str>, message: Option<&str>| PodCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: reason.map(str::to_owned),
        message: message.map(str::to_owned),
        observed_generation: generation,
        ..PodCondition::default()
    };
    let pending = progress.pending.as_ref();
    let pending = pending.map(|p| condition(CONDITIONS[0], p.generation, Some(p.reason), Some(&p.message)));
    let under_way = progress.under_way.as_ref().map(|at| {
        let error = at.error.as_deref();
        condition(CONDITIONS[1], at.generation, error.map(|_| "Error"), error)
    });
    pending.into_iter().chain(under_way).collect()
}

/// Takes from the API the conditions that hold no more: a patch that does not name them would leave them there.
pub fn take_back(patch: &mut Value, before: &[&PodStatus], now: &PodStatus) {
    let has = |status: &PodStatus, kind: &str| status.conditions.iter().flatten().any(|c| c.type_ == kind);
    let gone = CONDITIONS.iter().filter(|kind| !has(now, kind) && before.iter().any(|status| has(status, kind)));
    let gone: Vec<Value> = gone.map(|kind| json!({"type": kind, "$patch": "delete"})).collect();
    if let Some(conditions) = patch["status"]["conditions"].as_array_mut() {
        conditions.extend(gone);
    }
}

/// What events of a resize say behind their first words.
#[must_use]
pub fn summary(pod: &Pod, error: &str) -> String {
    #[derive(Serialize)]
    struct Of<'a> {
        name: &'a str,
        resources: ResourceRequirements,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Summary<'a> {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        init_containers: Vec<Of<'a>>,
        containers: Vec<Of<'a>>,
        generation: i64,
        #[serde(skip_serializing_if = "str::is_empty")]
        error: &'a str,
    }
    fn of(container: &Container) -> Of<'_> {
        Of { name: &container.name, resources: container.resources.clone().unwrap_or_default() }
    }
    let spec = pod_spec(pod);
    let summary = Summary {
        init_containers: spec.init_containers.iter().flatten().map(of).collect(),
        containers: spec.containers.iter().map(of).collect(),
        generation: pod.metadata.generation.unwrap_or(0),
        error,
    };
    serde_json::to_string(&summary).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pod::plan::tests::record;

    fn pod(resources: Value, policy: Value) -> Pod {
        let containers = json!([{"name": "web", "resources": resources, "resizePolicy": policy}, {"name": "other"}]);
        serde_json::from_value(json!({"metadata": {"uid": "u", "generation": 3}, "spec": {"containers": containers}}))
            .expect("valid")
    }

    fn resources(cpu: &str, memory: &str) -> Value {
        json!({"requests": {"cpu": cpu, "memory": "1Mi"}, "limits": {"memory": memory}})
    }

    fn check(before: Value, after: Value, policy: Value, expect: &str) {
        let pod = pod(after, policy);
        let observed =
            Observed { sandboxes: vec![], containers: vec![record("web 0 running"), record("other 0 running")] };
        let before = serde_json::from_value(before).expect("valid");
        let containers =
            BTreeMap::from([("web0".to_owned(), before), ("other0".to_owned(), ResourceRequirements::default())]);
        let changes = changes(&pod, &observed, &Actual { containers, pod: Some(pod_resources(&pod)) });
        let updates =
            changes.updates.iter().map(|u| format!("update {}{}", u.id, if u.shrinks { " down" } else { "" }));
        let restarts = changes.restarts.iter().map(|(id, _)| format!("restart {id}"));
        assert_eq!(updates.chain(restarts).collect::<Vec<_>>().join(", "), expect);
        assert!(!changes.pod);
    }

    #[test]
    fn what_changes_and_how() {
        let old = || resources("100m", "64Mi");
        let none = || json!([]);
        let restart = |name: &str| json!([{"resourceName": name, "restartPolicy": "RestartContainer"}]);
        check(old(), old(), none(), "");
        check(old(), resources("0.1", "67108864"), none(), "");
        check(old(), resources("200m", "64Mi"), none(), "update web0");
        check(old(), resources("100m", "128Mi"), none(), "update web0");
        check(old(), resources("100m", "32Mi"), none(), "update web0 down");
        check(old(), resources("100m", "128Mi"), restart("memory"), "restart web0");
        check(old(), resources("200m", "64Mi"), restart("memory"), "update web0");
        check(old(), resources("200m", "64Mi"), restart("cpu"), "restart web0");
        // A request of memory is for the scheduler only.
        let more = json!({"requests": {"cpu": "100m", "memory": "2Mi"}, "limits": {"memory": "64Mi"}});
        check(old(), more, restart("memory"), "");
    }

    #[test]
    fn what_is_told() {
        let check = |has: Value, given: Value, expect: Value| {
            let read = |value: &Value| serde_json::from_value(value.clone()).expect("valid");
            assert_eq!(shown(Some(read(&has)), read(&given)), read(&expect));
        };
        let (old, new) = (resources("100m", "64Mi"), resources("200m", "64Mi"));
        check(old.clone(), new.clone(), old.clone());
        check(new.clone(), new.clone(), new);
        // What the kernel knows nothing of is as good as there.
        let more = json!({"requests": {"cpu": "0.1", "memory": "2Mi"}, "limits": {"memory": "64Mi"}});
        check(old, more.clone(), more);
    }

    #[test]
    fn what_is_known_after_a_restart_of_the_agent() {
        let mut running = record("web 0 running");
        let made = resources("50m", "16Mi");
        running.annotations.push((MADE_WITH.into(), made.to_string()));
        let mut observed = Observed { sandboxes: vec![], containers: vec![running] };
        let mut pod = pod(resources("1", "1Gi"), json!([]));
        let known_of = |pod: &Pod, observed: &Observed| {
            serde_json::to_value(&recall(pod, observed).containers["web0"]).expect("serializes")
        };
        let known = |pod: &Pod| known_of(pod, &observed);
        assert_eq!(known(&pod), made, "nothing was told");
        let told = |id: &str| {
            json!({"containerStatuses": [{"name": "web", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "containerID": format!("containerd://{id}"), "resources": resources("70m", "20Mi")}]})
        };
        pod.status = serde_json::from_value(told("web0")).expect("valid");
        assert_eq!(known(&pod), resources("70m", "20Mi"));
        pod.status = serde_json::from_value(told("another")).expect("valid");
        assert_eq!(known(&pod), made, "another container was told of");
        observed.containers[0].annotations.clear();
        assert_eq!(known_of(&pod, &observed), resources("1", "1Gi"), "nobody knows: as its spec is");
    }

    #[test]
    fn a_condition_that_is_over_is_taken_back() {
        let progress = Progress { pending: None, under_way: Some(UnderWay { generation: Some(3), error: None }) };
        let with = PodStatus { conditions: Some(conditions(&progress)), ..PodStatus::default() };
        let without = PodStatus { conditions: Some(Vec::new()), ..PodStatus::default() };
        let patched = |before: &[&PodStatus], now: &PodStatus| {
            let mut patch = json!({"status": {"conditions": []}});
            take_back(&mut patch, before, now);
            patch["status"]["conditions"].clone()
        };
        assert_eq!(patched(&[&without, &with], &without), json!([{"type": "PodResizeInProgress", "$patch": "delete"}]));
        assert_eq!(patched(&[&with], &with), json!([]));
        assert_eq!(patched(&[&without], &without), json!([]));
    }

    #[test]
    fn events_say_what_was_asked_for() {
        let pod = pod(json!({"limits": {"memory": "1Gi"}}), json!([]));
        assert_eq!(
            summary(&pod, ""),
            r#"{"containers":[{"name":"web","resources":{"limits":{"memory":"1Gi"}}},{"name":"other","resources":{}}],"generation":3}"#
        );
        assert!(summary(&pod, "no room").ends_with(r#""generation":3,"error":"no room"}"#));
    }
}
