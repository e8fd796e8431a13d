//! Decides: what a pod asks for and what a node has, as numbers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodSpec, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::api::quantity;

/// Amounts by resource: millicores for `cpu`, units (bytes, devices, pods) for everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    pub cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    pub pods: i64,
    /// Huge pages and extended resources, by name.
    pub others: BTreeMap<String, i64>,
}

/// What a container counts for in scores when it asks for nothing: 100 millicores and 200 MiB, as upstream.
const DEFAULT_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 << 20;

type List = BTreeMap<String, Quantity>;

impl Amounts {
    #[must_use]
    pub fn parse(list: Option<&List>) -> Self {
        let mut amounts = Self::default();
        for (name, text) in list.into_iter().flatten() {
            // The API has validated them; what cannot be read counts as nothing.
            if let Ok(quantity) = quantity::Quantity::parse(&text.0) {
                *amounts.of(name) = if name == "cpu" { quantity.milli() } else { quantity.value() };
            }
        }
        amounts
    }

    fn of(&mut self, name: &str) -> &mut i64 {
        match name {
            "cpu" => &mut self.cpu,
            "memory" => &mut self.memory,
            "ephemeral-storage" => &mut self.ephemeral_storage,
            "pods" => &mut self.pods,
            _ => self.others.entry(name.to_owned()).or_insert(0),
        }
    }

    #[must_use]
    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            "pods" => self.pods,
            _ => self.others.get(name).copied().unwrap_or(0),
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    fn max(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.cpu = with(self.cpu, other.cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = with(self.pods, other.pods);
        for (name, n) in &other.others {
            let mine = self.of(name);
            *mine = with(*mine, *n);
        }
    }
}

/// What a pod takes of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub requests: Amounts,
    /// CPU and memory as they count in scores: containers that ask for nothing count too, so that they spread.
    pub scored: (i64, i64),
}

/// What the scheduler reserves for a pod as its spec has it.
#[must_use]
pub fn requests(spec: &PodSpec) -> Amounts {
    total(spec, None, false)
}

/// What a pod takes: a resize under way counts with the larger of what is asked for and what is there.
#[must_use]
pub fn taken(spec: &PodSpec, status: &PodStatus) -> Taken {
    let scored = total(spec, Some(status), true);
    Taken { requests: total(spec, Some(status), false), scored: (scored.cpu, scored.memory) }
}

/// Containers and sidecars together, or the largest step of the initialization, whichever is more; pod-level requests
/// instead where they are set; overhead on top.
fn total(spec: &PodSpec, status: Option<&PodStatus>, with_defaults: bool) -> Amounts {
    let of = |c: &Container| of_container(c, status, with_defaults);
    let mut total = Amounts::default();
    for c in &spec.containers {
        total.add(&of(c));
    }
    let (mut sidecars, mut init) = (Amounts::default(), Amounts::default());
    for c in spec.init_containers.iter().flatten() {
        let mut step = of(c);
        if c.restart_policy.as_deref() == Some("Always") {
            total.add(&step);
            sidecars.add(&step);
            step = sidecars.clone();
        } else {
            step.add(&sidecars);
        }
        init.max(&step);
    }
    total.max(&init);
    let of_pod = of_whole_pod(spec, status);
    for name in requested(spec.resources.as_ref()).into_iter().flatten().map(|(name, _)| name) {
        *total.of(name) = of_pod.get(name);
    }
    total.add(&Amounts::parse(spec.overhead.as_ref()));
    total
}

fn requested(resources: Option<&ResourceRequirements>) -> Option<&List> {
    resources.and_then(|r| r.requests.as_ref())
}

/// The node cannot do it now or ever: what was asked for does not count.
fn infeasible(status: &PodStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|c| c.type_ == "PodResizePending" && c.reason.as_deref() == Some("Infeasible"))
}

fn of_container(c: &Container, status: Option<&PodStatus>, with_defaults: bool) -> Amounts {
    let asked = requested(c.resources.as_ref());
    let mut amounts = Amounts::parse(asked);
    let mut lists: Vec<&List> = asked.into_iter().collect();
    if let Some((status, known)) = status.and_then(|s| Some((s, status_of(s, &c.name)?))) {
        let actual = requested(known.resources.as_ref());
        if infeasible(status) {
            amounts = Amounts::default();
        }
        amounts.max(&Amounts::parse(actual));
        amounts.max(&Amounts::parse(known.allocated_resources.as_ref()));
        lists.extend(actual.into_iter().chain(&known.allocated_resources));
    }
    // An explicit zero is an answer too.
    let unsaid = |name: &str| with_defaults && !lists.iter().any(|l| l.contains_key(name));
    if unsaid("cpu") {
        amounts.cpu = DEFAULT_CPU;
    }
    if unsaid("memory") {
        amounts.memory = DEFAULT_MEMORY;
    }
    amounts
}

fn status_of<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let mut all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.find(|s| s.name == name)
}

fn of_whole_pod(spec: &PodSpec, status: Option<&PodStatus>) -> Amounts {
    let mut amounts = Amounts::parse(requested(spec.resources.as_ref()));
    if let Some(status) = status {
        let mut actual = Amounts::parse(requested(status.resources.as_ref()));
        actual.max(&Amounts::parse(status.allocated_resources.as_ref()));
        if infeasible(status) && actual != Amounts::default() {
            return actual;
        }
        amounts.max(&actual);
    }
    amounts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(value: Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn amounts_are_read_and_rounded_up() {
        for (text, cpu, other) in [
            ("1", 1000, 1),
            ("500m", 500, 1),
            ("1.5", 1500, 2),
            ("100u", 1, 1),
            ("2Ki", 2_048_000, 2048),
            ("1.5Gi", 1_610_612_736_000, 1_610_612_736),
            ("12e3", 12_000_000, 12_000),
            ("3E", 3_000_000_000_000_000_000, 3_000_000_000_000_000_000),
        ] {
            let list: List = [("cpu".into(), Quantity(text.into())), ("memory".into(), Quantity(text.into()))].into();
            let amounts = Amounts::parse(Some(&list));
            assert_eq!(amounts.memory, other, "{text}");
            if text != "3E" {
                assert_eq!(amounts.cpu, cpu, "{text}");
            }
        }
    }

    fn asks(name: &str, cpu: &str) -> Value {
        json!({ "name": name, "resources": { "requests": { "cpu": cpu } } })
    }

    #[test]
    fn init_containers_sidecars_and_overhead_count() {
        let c = |cpu: &str| asks("c", cpu);
        let sidecar = json!({ "name": "s", "restartPolicy": "Always", "resources": { "requests": { "cpu": "200m" } } });
        let cases = [
            (json!({ "containers": [c("1"), c("500m")] }), 1500),
            (json!({ "containers": [c("1")], "initContainers": [c("3"), c("2")] }), 3000),
            (json!({ "containers": [c("1")], "initContainers": [sidecar, c("100m")] }), 1200),
            (json!({ "containers": [c("1")], "initContainers": [sidecar, c("3")] }), 3200),
            (json!({ "containers": [c("1")], "overhead": { "cpu": "10m" } }), 1010),
            (json!({ "containers": [c("1")], "resources": { "requests": { "cpu": "4" } } }), 4000),
            (json!({ "containers": [c("1")], "resources": { "requests": { "memory": "4" } } }), 1000),
        ];
        for (value, want) in cases {
            assert_eq!(requests(&spec(value.clone())).cpu, want, "{value}");
        }
    }

    #[test]
    fn a_resize_counts_with_the_larger_until_it_is_refused_for_good() {
        let spec = spec(json!({ "containers": [asks("a", "2"), asks("b", "1")] }));
        let check = |statuses: Value, conditions: Value, want: i64| {
            let status = json!({ "containerStatuses": statuses, "conditions": conditions });
            let status: PodStatus = serde_json::from_value(status).unwrap();
            assert_eq!(taken(&spec, &status).requests.cpu, want, "{status:?}");
        };
        let status = |name: &str, actual: &str, allocated: &str| {
            json!({ "name": name, "ready": true, "restartCount": 0, "image": "", "imageID": "",
                "resources": { "requests": { "cpu": actual } }, "allocatedResources": { "cpu": allocated } })
        };
        let refused = json!([{ "type": "PodResizePending", "status": "True", "reason": "Infeasible" }]);
        check(json!([]), json!([]), 3000);
        check(json!([status("a", "1", "1")]), json!([]), 3000);
        check(json!([status("a", "3", "1")]), json!([]), 4000);
        check(json!([status("a", "1", "4")]), json!([]), 5000);
        check(json!([status("a", "1", "500m")]), refused, 2000);
    }

    #[test]
    fn what_asks_for_nothing_counts_in_scores() {
        let check = |value: Value, want: (i64, i64)| {
            assert_eq!(taken(&spec(value.clone()), &PodStatus::default()).scored, want, "{value}");
        };
        check(json!({ "containers": [{ "name": "a" }, { "name": "b" }] }), (200, 400 << 20));
        check(json!({ "containers": [asks("a", "1"), { "name": "b" }] }), (1100, 400 << 20));
        check(json!({ "containers": [asks("a", "0")] }), (0, 200 << 20));
        check(json!({ "containers": [{ "name": "a" }], "resources": { "requests": { "memory": "1" } } }), (100, 1));
    }
}
