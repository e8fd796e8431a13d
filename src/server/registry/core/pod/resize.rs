//! Decides: which resources of a pod may change while it runs (`ValidatePodResize`): CPU and memory, of the pod and of
//! its containers, without changing its QoS class.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};

use super::{MIRROR, keep_metadata, qos};
use crate::api::field::{FieldError, Path};
use crate::server::registry::metadata::Errors;
use crate::server::registry::quantity::List;

const ONLY: &str = "only cpu and memory resources are mutable";

/// What a write of `pods/resize` can change.
pub const CHANGES: &[&[&str]] = &[
    &["spec", "containers", "*", "resources"],
    &["spec", "containers", "*", "resizePolicy"],
    &["spec", "initContainers", "*", "resources"],
    &["spec", "initContainers", "*", "resizePolicy"],
    &["spec", "resources"],
];

/// Drops every other change. Containers that are others, or in another order, stay as they are for validation to say so
/// (`dropNonResizeUpdates`).
pub fn prepare(new: &mut Pod, old: &Pod) {
    let (Some(after), Some(before)) = (new.spec.take(), &old.spec) else { return };
    let init = |spec: &PodSpec| spec.init_containers.clone().unwrap_or_default();
    let (new_init, old_init) = (init(&after), init(before));
    if after.containers.len() != before.containers.len() || new_init.len() != old_init.len() {
        new.spec = Some(after);
        return;
    }
    let mut spec = before.clone();
    spec.resources = after.resources;
    spec.containers = only_resources(after.containers, &before.containers);
    if !old_init.is_empty() {
        spec.init_containers = Some(only_resources(new_init, &old_init));
    }
    new.spec = Some(spec);
    keep_metadata(&mut new.metadata, &old.metadata);
}

fn only_resources(new: Vec<Container>, old: &[Container]) -> Vec<Container> {
    if new.iter().zip(old).any(|(a, b)| a.name != b.name) {
        return new;
    }
    let merged = new.into_iter().zip(old).map(|(new, old)| Container {
        resources: new.resources,
        resize_policy: new.resize_policy,
        ..old.clone()
    });
    merged.collect()
}

/// `errors` of the pod as it would be.
#[must_use]
pub fn validate(mut errors: Errors, new: &Pod, old: &Pod) -> Errors {
    let whole = |why: &str| vec![FieldError::forbidden(&Path::default(), why)];
    if old.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR)) {
        return whole("static pods cannot be resized");
    }
    let (Some(after), Some(before)) = (&new.spec, &old.spec) else { return errors };
    if before.os.as_ref().is_some_and(|os| os.name == "windows") {
        return whole("windows pods cannot be resized");
    }
    let path = Path::new("spec");
    let class = |pod: &Pod| pod.status.as_ref().and_then(|s| s.qos_class.clone()).filter(|c| !c.is_empty());
    if class(old).unwrap_or_else(|| qos::class(before).into()) != qos::class(after) {
        let message = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(&path, &class(new).unwrap_or_default(), message));
    }
    if !node_resizes(old) {
        errors.push(FieldError::forbidden(&path, "Pod running on node without support for resize"));
    }
    let mut rest = after.clone();
    pod_level(&mut errors, &path, &mut rest, before);
    let claimed = old.status.as_ref().and_then(|s| s.node_allocatable_resource_claim_statuses.as_ref());
    if claimed.is_some_and(|c| !c.is_empty()) {
        errors.push(FieldError::forbidden(&path, "pods with node allocatable resource claims cannot be resized"));
    }
    let init = |spec: &PodSpec| spec.init_containers.clone().unwrap_or_default();
    let (new_init, old_init) = (init(after), init(before));
    let known = errors.len();
    same_containers(&mut errors, &path.child("containers"), &after.containers, &before.containers);
    same_containers(&mut errors, &path.child("initContainers"), &new_init, &old_init);
    if errors.len() > known {
        return errors;
    }
    for (field, new, old) in
        [("initContainers", &new_init, &old_init), ("containers", &after.containers, &before.containers)]
    {
        for (i, (new, old)) in new.iter().zip(old).enumerate() {
            let at = path.child(field).index(i).child("resources");
            removed(&mut errors, &at, "resource", new.resources.as_ref(), old.resources.as_ref());
        }
    }
    for (new, old) in rest.containers.iter_mut().zip(&before.containers) {
        only_cpu_and_memory(new, old);
        if new != old {
            errors.push(FieldError::forbidden(&path, ONLY));
        }
    }
    for (i, (new, old)) in rest.init_containers.iter_mut().flatten().zip(&old_init).enumerate() {
        init_container(&mut errors, &path.child("initContainers").index(i), new, old);
    }
    if errors.is_empty() && rest != *before {
        errors.push(FieldError::forbidden(&path, ONLY));
    }
    errors
}

/// Nodes that can resize say what the containers have.
fn node_resizes(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    let running = statuses.iter().find(|c| c.state.as_ref().is_some_and(|s| s.running.is_some()));
    running.is_none_or(|c| c.resources.is_some())
}

fn same_containers(errors: &mut Errors, path: &Path, new: &[Container], old: &[Container]) {
    let what = path.to_string().replace("spec.", "");
    if new.len() != old.len() {
        errors.push(FieldError::forbidden(path, &format!("{what} may not be added or removed on resize")));
        return;
    }
    for (i, _) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new.name != old.name) {
        let message = format!("{what} may not be renamed or reordered on resize");
        errors.push(FieldError::forbidden(&path.index(i).child("name"), &message));
    }
}

/// `spec.resources`
fn pod_level(errors: &mut Errors, path: &Path, new: &mut PodSpec, old: &PodSpec) {
    let filled = |list: &Option<List>| list.as_ref().is_some_and(|l| !l.is_empty());
    let set = |spec: &PodSpec| spec.resources.as_ref().is_some_and(|r| filled(&r.requests) || filled(&r.limits));
    if !set(new) && !set(old) {
        return;
    }
    let at = path.child("resources");
    if old.resources.is_some() && new.resources.is_none() {
        errors.push(FieldError::forbidden(&at, "pod-level resources cannot be removed"));
        return;
    }
    if old.resources.is_some() {
        removed(errors, &at, "pod-level resource", new.resources.as_ref(), old.resources.as_ref());
    }
    if let Some(resources) = &mut new.resources {
        keep_cpu_and_memory(resources, old.resources.as_ref());
    }
    let nothing = |r: &ResourceRequirements| r.limits.is_none() && r.requests.is_none() && r.claims.is_none();
    if old.resources.is_none() && new.resources.as_ref().is_some_and(nothing) {
        new.resources = None;
    }
    if new.resources != old.resources {
        errors.push(FieldError::forbidden(path, &format!("{ONLY} at pod-level")));
    }
}

fn init_container(errors: &mut Errors, path: &Path, new: &mut Container, old: &Container) {
    let changed = new != old;
    only_cpu_and_memory(new, old);
    if new != old {
        let message = "only cpu and memory resources for init or sidecar containers are mutable";
        errors.push(FieldError::forbidden(path, message));
    }
    if changed && new.restart_policy.as_deref() != Some("Always") {
        let restarts = new.resize_policy.iter().flatten().filter(|p| p.restart_policy == "RestartContainer");
        let message = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
        restarts.for_each(|_| errors.push(FieldError::forbidden(path, message)));
    }
}

fn removed(
    errors: &mut Errors,
    path: &Path,
    what: &str,
    new: Option<&ResourceRequirements>,
    old: Option<&ResourceRequirements>,
) {
    let gone = |get: fn(&ResourceRequirements) -> Option<&List>| {
        let (new, old) = (new.and_then(get), old.and_then(get));
        old.into_iter().flat_map(List::keys).any(|name| new.is_none_or(|n| !n.contains_key(name)))
    };
    if gone(|r| r.requests.as_ref()) {
        errors.push(FieldError::forbidden(&path.child("requests"), &format!("{what} requests cannot be removed")));
    }
    if gone(|r| r.limits.as_ref()) {
        errors.push(FieldError::forbidden(&path.child("limits"), &format!("{what} limits cannot be removed")));
    }
}

/// Takes the change of CPU and memory back, so that what still differs is what may not. Claims are lost: a container that
/// has any cannot be resized.
fn only_cpu_and_memory(new: &mut Container, old: &Container) {
    let mut resources = new.resources.take().unwrap_or_default();
    resources.claims = None;
    keep_cpu_and_memory(&mut resources, old.resources.as_ref());
    new.resources = Some(resources);
}

fn keep_cpu_and_memory(new: &mut ResourceRequirements, old: Option<&ResourceRequirements>) {
    let keep = |new: &mut Option<List>, old: Option<&List>| {
        let mut list = new.take().unwrap_or_default();
        for name in ["cpu", "memory"] {
            list.remove(name);
            list.extend(old.and_then(|o| o.get(name)).map(|value| (name.to_owned(), value.clone())));
        }
        *new = Some(list).filter(|l| !l.is_empty());
    };
    keep(&mut new.limits, old.and_then(|o| o.limits.as_ref()));
    keep(&mut new.requests, old.and_then(|o| o.requests.as_ref()));
}
