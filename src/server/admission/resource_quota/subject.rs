//! Decides: what one object uses of quotas, in which of their scopes it is, and what they want it to say.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, Pod, PodAffinityTerm, PodSpec, ResourceRequirements,
    ScopedResourceSelectorRequirement as Requirement, Service,
};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::entries::{CLAIMS, COUNT, DEVICE_CLAIMS, OF_STORAGE_CLASS, PODS, REQUESTS, SERVICES, STORAGE};
use super::of_devices;
use crate::api::extended_resource::class_of;
use crate::api::object::Object;
use crate::api::quantity::{Format, Quantity};
use crate::api::quota::Amounts;
use crate::api::storage_class::CLASS_ANNOTATION;
use crate::server::admission::pod_resources::{self, Of};
use crate::server::objects::Objects;
use crate::server::registry::core::pod::qos;
use crate::server::registry::resource_name::{extended, huge_pages};

/// What pods must say when a quota limits it. Upstream calls it a mistake, and keeps it.
const MUST_BE_SAID: &[&str] = &["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// An object of a quota, as far as its kind is measured.
pub enum Subject {
    Pod(Box<Pod>),
    Service(Box<Service>),
    Claim(Box<PersistentVolumeClaim>),
    DeviceClaim(Box<ResourceClaim>),
    /// One more of what is only counted, or of what cannot be read.
    Counted,
}

/// Whether more than the number of these objects is measured.
pub fn is_measured(storage: &str) -> bool {
    [PODS, SERVICES, CLAIMS, DEVICE_CLAIMS].contains(&storage)
}

impl Subject {
    pub fn of_object(object: &Object) -> Self {
        Self::read(&object.key.resource, Form::Text(object))
    }

    pub fn of_value(storage: &str, value: &Value) -> Self {
        Self::read(storage, Form::Tree(value))
    }

    fn read(storage: &str, form: Form<'_>) -> Self {
        let read = match storage {
            PODS => form.typed().map(Self::Pod),
            SERVICES => form.typed().map(Self::Service),
            CLAIMS => form.typed().map(Self::Claim),
            DEVICE_CLAIMS => form.typed().map(Self::DeviceClaim),
            _ => None,
        };
        read.unwrap_or(Self::Counted)
    }

    /// By the names of entries; and when a pod that does not end stops to count.
    pub fn usage(&self, place: Place<'_>, now: Timestamp) -> (Amounts, Option<Timestamp>) {
        match self {
            Self::Pod(pod) => of_pod(pod, now),
            Self::Service(service) => (of_service(service), None),
            Self::Claim(claim) => (of_claim(claim), None),
            Self::DeviceClaim(claim) => (of_devices::of_claim(claim, place, now), None),
            Self::Counted => (Amounts::new(), None),
        }
    }

    pub fn is_in(&self, scope: &Requirement) -> bool {
        match self {
            Self::Pod(pod) => pod_is_in(pod, scope),
            Self::Claim(claim) if scope.scope_name == "VolumeAttributesClass" => {
                let names = attributes_classes(claim);
                if names.is_empty() { holds(scope, None) } else { names.iter().any(|name| holds(scope, Some(name))) }
            }
            _ => false,
        }
    }

    /// What the containers of a pod have to say for entries that limit it, but don't.
    pub fn unsaid<'a>(&self, entries: impl Iterator<Item = &'a str>) -> Option<String> {
        let Self::Pod(pod) = self else { return None };
        let spec = pod.spec.as_ref()?;
        // A pod that says it for all of its containers has said it.
        if spec.resources.as_ref().is_some_and(says_something) {
            return None;
        }
        let mut unsaid: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for entry in entries.filter(|e| MUST_BE_SAID.contains(e)) {
            for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                if !compute(&listed(container, Of::Requests), &listed(container, Of::Limits)).contains_key(entry) {
                    unsaid.entry(entry).or_default().insert(&container.name);
                }
            }
        }
        let told = |(entry, containers): (&&str, &BTreeSet<&str>)| {
            format!("{entry} for: {}", containers.iter().copied().collect::<Vec<_>>().join(","))
        };
        let told: Vec<String> = unsaid.iter().map(told).collect();
        (!told.is_empty()).then(|| format!("must specify {}", told.join("; ")))
    }
}

/// Where an object is, for those whose use depends on others.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub objects: &'a dyn Objects,
    pub namespace: &'a str,
}

/// An object as it is stored, or as it is about to be.
#[derive(Clone, Copy)]
enum Form<'a> {
    Text(&'a Object),
    Tree(&'a Value),
}

impl Form<'_> {
    fn typed<T: DeserializeOwned>(self) -> Option<Box<T>> {
        let read = match self {
            Self::Text(object) => object.typed().ok(),
            Self::Tree(value) => T::deserialize(value).ok(),
        };
        read.map(Box::new)
    }
}

pub fn one() -> Quantity {
    number(1)
}

pub fn number(n: i64) -> Quantity {
    Quantity::from_units(n, Format::Decimal)
}

fn len<T>(list: Option<&Vec<T>>) -> i64 {
    list.map_or(0, |l| i64::try_from(l.len()).unwrap_or(i64::MAX))
}

fn listed(container: &Container, of: Of) -> Amounts {
    pod_resources::of_container(container, of)
}

fn says_something(resources: &ResourceRequirements) -> bool {
    let known = |name: &String| matches!(&**name, "cpu" | "memory") || huge_pages(name);
    [&resources.requests, &resources.limits].into_iter().flatten().flat_map(BTreeMap::keys).any(known)
}

/// `count/pods` counts every pod, the others those that have not ended.
pub fn of_pod(pod: &Pod, now: Timestamp) -> (Amounts, Option<Timestamp>) {
    let counted = Amounts::from([(format!("{COUNT}{PODS}"), one())]);
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    let (Some(spec), false) = (&pod.spec, matches!(phase, Some("Failed" | "Succeeded"))) else {
        return (counted, None);
    };
    let until = overdue(pod);
    if until.is_some_and(|until| now > until) {
        return (counted, None);
    }
    let spec = with_status(spec, pod);
    let (mut requests, mut limits) =
        (pod_resources::of_pod(&spec, Of::Requests), pod_resources::of_pod(&spec, Of::Limits));
    let overhead = pod_resources::parse(spec.overhead.as_ref());
    pod_resources::add(&mut requests, &overhead);
    for (name, more) in overhead {
        limits.entry(name).and_modify(|limit| *limit += if limit.is_zero() { Quantity::default() } else { more });
    }
    let mut used = compute(&requests, &limits);
    used.extend(counted);
    (used, until)
}

/// When a pod that is being deleted should long be gone: its node may be dead, and what it had is for others.
fn overdue(pod: &Pod) -> Option<Timestamp> {
    let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds?);
    pod.metadata.deletion_timestamp.as_ref()?.0.checked_add(grace).ok()
}

/// The spec, where containers have at least what their nodes gave them: a resize is not done when it is asked for.
fn with_status(spec: &PodSpec, pod: &Pod) -> PodSpec {
    let mut spec = spec.clone();
    let Some(status) = &pod.status else { return spec };
    let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    let statuses = || status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    for container in containers {
        let Some(status) = statuses().find(|s| s.name == container.name) else { continue };
        let given = status.resources.as_ref();
        let wanted = container.resources.get_or_insert_default();
        raise(&mut wanted.requests, given.and_then(|g| g.requests.as_ref()));
        raise(&mut wanted.requests, status.allocated_resources.as_ref());
        raise(&mut wanted.limits, given.and_then(|g| g.limits.as_ref()));
    }
    spec
}

fn raise(list: &mut Option<BTreeMap<String, Text>>, given: Option<&BTreeMap<String, Text>>) {
    for (name, given) in given.into_iter().flatten() {
        let list = list.get_or_insert_default();
        let more = match (list.get(name).map(|q| Quantity::parse(&q.0)), Quantity::parse(&given.0)) {
            (Some(Ok(wanted)), Ok(given)) => given > wanted,
            (None, Ok(_)) => true,
            _ => false,
        };
        if more {
            list.insert(name.clone(), given.clone());
        }
    }
}

/// What a pod, or a container, is charged with for what it asks for.
fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::from([(PODS.to_owned(), one())]);
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(request) = requests.get(name) {
            used.insert(name.to_owned(), *request);
            used.insert(format!("{REQUESTS}{name}"), *request);
        }
        if let Some(limit) = limits.get(name) {
            used.insert(format!("limits.{name}"), *limit);
        }
    }
    for (name, request) in requests {
        if huge_pages(name) {
            used.insert(name.clone(), *request);
        }
        if huge_pages(name) || extended(name) || class_of(name).is_some() {
            used.insert(format!("{REQUESTS}{name}"), *request);
        }
    }
    used
}

fn of_service(service: &Service) -> Amounts {
    let spec = service.spec.as_ref();
    let ports = spec.and_then(|s| s.ports.as_ref());
    // Those of a new Service are not given yet, so the intent counts.
    let (node_ports, balancers) = match spec.and_then(|s| s.type_.as_deref()) {
        Some("NodePort") => (len(ports), 0),
        Some("LoadBalancer") if spec.and_then(|s| s.allocate_load_balancer_node_ports) == Some(false) => {
            let named = ports.into_iter().flatten().filter(|p| p.node_port.is_some_and(|n| n != 0)).count();
            (i64::try_from(named).unwrap_or(i64::MAX), 1)
        }
        Some("LoadBalancer") => (len(ports), 1),
        _ => (0, 0),
    };
    Amounts::from([
        (format!("{COUNT}{SERVICES}"), one()),
        (SERVICES.to_owned(), one()),
        ("services.nodeports".to_owned(), number(node_ports)),
        ("services.loadbalancers".to_owned(), number(balancers)),
    ])
}

fn of_claim(claim: &PersistentVolumeClaim) -> Amounts {
    let mut used = Amounts::from([(format!("{COUNT}{CLAIMS}"), one()), (CLAIMS.to_owned(), one())]);
    let annotated = claim.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION));
    let named = claim.spec.as_ref().and_then(|s| s.storage_class_name.as_ref());
    let class = annotated.or(named).filter(|class| !class.is_empty());
    let asked = claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    let given = claim.status.as_ref().and_then(|s| s.allocated_resources.as_ref());
    let storage = |list: Option<&BTreeMap<String, Text>>| Quantity::parse(&list?.get("storage")?.0).ok();
    if let Some(asked) = storage(asked) {
        // What an expansion that failed was given stays charged. Only whole bytes, as quotas hold no others.
        let size = whole(storage(given).map_or(asked, |given| given.max(asked)));
        used.insert(STORAGE.to_owned(), size);
        if let Some(class) = class {
            used.insert(format!("{class}{OF_STORAGE_CLASS}{STORAGE}"), size);
        }
    }
    if let Some(class) = class {
        used.insert(format!("{class}{OF_STORAGE_CLASS}{CLAIMS}"), one());
    }
    used
}

fn whole(quantity: Quantity) -> Quantity {
    let rounded = Quantity::from_units(quantity.value(), quantity.format());
    if rounded == quantity { quantity } else { rounded }
}

fn attributes_classes(claim: &PersistentVolumeClaim) -> BTreeSet<&str> {
    let wanted = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref());
    let status = claim.status.as_ref();
    let current = status.and_then(|s| s.current_volume_attributes_class_name.as_deref());
    let target = status.and_then(|s| s.modify_volume_status.as_ref()?.target_volume_attributes_class_name.as_deref());
    [wanted, current, target].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

fn pod_is_in(pod: &Pod, scope: &Requirement) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let terminating = spec.active_deadline_seconds.is_some_and(|s| s >= 0);
    let best_effort = || qos::class(spec) == "BestEffort";
    match &*scope.scope_name {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => holds(scope, spec.priority_class_name.as_deref().filter(|name| !name.is_empty())),
        "CrossNamespacePodAffinity" => looks_elsewhere(spec),
        _ => false,
    }
}

/// The requirement of a label selector, of the value of a scope.
fn holds(scope: &Requirement, value: Option<&str>) -> bool {
    let listed = |value: &str| scope.values.iter().flatten().any(|v| v == value);
    match &*scope.operator {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

/// Its affinity is about pods of other namespaces.
fn looks_elsewhere(spec: &PodSpec) -> bool {
    let Some(affinity) = &spec.affinity else { return false };
    let (with, without) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
    let required = [
        with.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
        without.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
    ];
    let preferred = [
        with.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
        without.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
    ];
    let preferred = preferred.into_iter().flatten().flatten().map(|w| &w.pod_affinity_term);
    let elsewhere = |term: &PodAffinityTerm| {
        term.namespace_selector.is_some() || term.namespaces.as_ref().is_some_and(|n| !n.is_empty())
    };
    required.into_iter().flatten().flatten().chain(preferred).any(elsewhere)
}
