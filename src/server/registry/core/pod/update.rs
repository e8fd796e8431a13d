//! Decides: which changes of a pod are allowed (`ValidatePodUpdate`, `ValidatePodStatusUpdate`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, Toleration};
use serde::Serialize;

use super::{MIRROR, claims};
use crate::api::field::{FieldError, Path};
use crate::server::registry::format;
use crate::server::registry::metadata::{Errors, immutable, invalid, or_default, shown};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be \
    set to 1 if it was previously negative)";

/// The annotation that ties a mirror pod to its file never changes.
pub fn mirror(errors: &mut Errors, new: &Pod, old: &Pod) {
    let get = |pod: &Pod| pod.metadata.annotations.as_ref().and_then(|a| a.get(MIRROR).cloned());
    let message = match (get(new), get(old)) {
        (Some(_), None) => "may not add mirror pod annotation",
        (new, old) if new != old => "may not remove or update mirror pod annotation",
        _ => return,
    };
    let path = Path::new("metadata").child("annotations").key(MIRROR);
    errors.push(FieldError::forbidden(&path, message));
}

pub fn spec(new: &Pod, old: &Pod) -> Errors {
    let mut errors = Vec::new();
    let path = Path::new("spec");
    let (new, old) = (or_default(new.spec.as_ref()), or_default(old.spec.as_ref()));
    let init = |spec: &PodSpec| spec.init_containers.clone().unwrap_or_default();
    for (field, after, before) in [
        ("containers", new.containers.len(), old.containers.len()),
        ("initContainers", init(&new).len(), init(&old).len()),
    ] {
        if after != before {
            errors.push(FieldError::forbidden(&path.child(field), "pod updates may not add or remove containers"));
            return errors;
        }
    }
    deadline(
        &mut errors,
        &path.child("activeDeadlineSeconds"),
        new.active_deadline_seconds,
        old.active_deadline_seconds,
    );
    let (after, before) = (new.tolerations.as_deref(), old.tolerations.as_deref());
    only_added(&mut errors, &path.child("tolerations"), after.unwrap_or_default(), before.unwrap_or_default());
    let gates = old.scheduling_gates.as_deref().unwrap_or_default();
    for (i, gate) in new.scheduling_gates.iter().flatten().enumerate().filter(|(_, g)| !gates.contains(g)) {
        let message = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
        errors.push(FieldError::forbidden(&path.child("schedulingGates").index(i).child("name"), &message));
    }

    let mut rest = new.into_owned();
    let images = |to: &mut [Container], from: &[Container]| {
        to.iter_mut().zip(from).for_each(|(t, f)| t.image.clone_from(&f.image));
    };
    images(&mut rest.containers, &old.containers);
    images(rest.init_containers.as_deref_mut().unwrap_or_default(), old.init_containers.as_deref().unwrap_or_default());
    rest.active_deadline_seconds = old.active_deadline_seconds;
    rest.scheduling_gates.clone_from(&old.scheduling_gates);
    rest.tolerations.clone_from(&old.tolerations);
    let negative = old.termination_grace_period_seconds.is_some_and(|s| s < 0);
    if negative && rest.termination_grace_period_seconds == Some(1) {
        rest.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    if !gates.is_empty() {
        gated(&mut errors, &path, &mut rest, &old);
    }
    if rest != *old {
        let message = format!("pod updates may not change fields other than {UPDATABLE}\n{}", difference(&*old, &rest));
        errors.push(FieldError::forbidden(&path, &message));
    }
    errors
}

/// A pod that waits at a gate may still narrow down where it can run.
fn gated(errors: &mut Errors, path: &Path, rest: &mut PodSpec, old: &PodSpec) {
    if rest.node_selector != old.node_selector {
        let empty = BTreeMap::new();
        let after = rest.node_selector.as_ref().unwrap_or(&empty);
        let kept = old.node_selector.iter().flatten().all(|(k, v)| after.get(k) == Some(v));
        if !kept {
            let message = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(&path.child("nodeSelector"), &shown(after), message));
        }
        rest.node_selector.clone_from(&old.node_selector);
    }
}

fn deadline(errors: &mut Errors, path: &Path, new: Option<i64>, old: Option<i64>) {
    let most = i64::from(i32::MAX);
    match (new, old) {
        (Some(seconds), _) if !(0..=most).contains(&seconds) => {
            errors.push(FieldError::invalid(path, &seconds, &format::between(0, most)));
        }
        (Some(after), Some(before)) if before < after => {
            errors.push(FieldError::invalid(path, &after, "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            let message = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(path, &"null", message));
        }
        _ => {}
    }
}

fn only_added(errors: &mut Errors, path: &Path, new: &[Toleration], old: &[Toleration]) {
    let same = |a: &Toleration, b: &Toleration| {
        Toleration { toleration_seconds: None, ..a.clone() } == Toleration { toleration_seconds: None, ..b.clone() }
    };
    if !old.iter().all(|before| new.iter().any(|after| same(after, before))) {
        let message = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(path, message));
    }
}

/// Lines that differ between two of a kind, in the form of a diff.
pub(super) fn difference<T: Serialize>(old: &T, new: &T) -> String {
    let lines = |of: &T| serde_json::to_string_pretty(of).unwrap_or_default();
    let (old, new) = (lines(old), lines(new));
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let mut text = String::new();
    for (sign, side) in [("-", &old), ("+", &new)] {
        for line in &side[head..side.len() - tail] {
            text.push_str(&format!("{sign}{line}\n"));
        }
    }
    text
}

pub fn status(new: &Pod, old: &Pod) -> Errors {
    let mut errors = Vec::new();
    let path = Path::new("status");
    let (after, before) = (or_default(new.status.as_ref()), or_default(old.status.as_ref()));
    let (spec, old_spec) = (or_default(new.spec.as_ref()), or_default(old.spec.as_ref()));
    for (i, condition) in after.conditions.iter().flatten().enumerate() {
        let at = path.child("conditions").index(i);
        if condition.observed_generation.is_some_and(|g| g < 0) {
            let generation = condition.observed_generation.unwrap_or_default();
            let message = "must be a non-negative integer";
            errors.push(FieldError::invalid(&at.child("observedGeneration"), &generation, message));
        }
        invalid(&mut errors, &at.child("Type"), &condition.type_, format::qualified_name(&condition.type_));
    }
    if spec.node_name != old_spec.node_name {
        errors.push(FieldError::forbidden(&path.child("nodeName"), "may not be changed directly"));
    }
    if let Some(node) = after.nominated_node_name.as_deref().filter(|n| !n.is_empty())
        && after.nominated_node_name != before.nominated_node_name
    {
        let at = path.child("nominatedNodeName");
        invalid(&mut errors, &at, &node, format::dns_subdomain(node));
        if old_spec.node_name.as_deref().is_some_and(|n| !n.is_empty()) {
            let message = "may not be set on pods that are already bound to a node";
            errors.push(FieldError::forbidden(&at, message));
        }
    }
    claims::check(&mut errors, &path, &after, &spec);
    immutable(&mut errors, &path.child("qosClass"), &after.qos_class, &before.qos_class);
    transitions(
        &mut errors,
        &path.child("containerStatuses"),
        &after.container_statuses,
        &before.container_statuses,
        &old_spec,
    );
    transitions(
        &mut errors,
        &path.child("initContainerStatuses"),
        &after.init_container_statuses,
        &before.init_container_statuses,
        &old_spec,
    );
    // Those are never started again.
    let never = PodSpec { restart_policy: Some("Never".into()), ..PodSpec::default() };
    transitions(
        &mut errors,
        &path.child("ephemeralContainerStatuses"),
        &after.ephemeral_container_statuses,
        &before.ephemeral_container_statuses,
        &never,
    );
    for (i, ip) in after.pod_ips.iter().flatten().enumerate() {
        invalid(&mut errors, &path.child("podIPs").index(i), &ip.ip, format::ip(&ip.ip));
    }
    if let Some(first) = after.host_ips.iter().flatten().next()
        && after.host_ip.as_deref() != Some(first.ip.as_str())
    {
        let at = path.child("hostIPs").index(0).child("ip");
        errors.push(FieldError::invalid(&at, &first.ip, "must be equal to `hostIP`"));
    }
    errors
}

type Statuses = Option<Vec<ContainerStatus>>;

/// A container that is over and will not be restarted cannot run again.
fn transitions(errors: &mut Errors, path: &Path, new: &Statuses, old: &Statuses, spec: &PodSpec) {
    for (i, before) in old.iter().flatten().enumerate() {
        let Some(ended) = before.state.as_ref().and_then(|s| s.terminated.as_ref()) else { continue };
        let Some(after) = new.iter().flatten().find(|s| s.name == before.name) else { continue };
        let still = after.state.as_ref().is_some_and(|s| s.terminated.is_some());
        if !still && !restarts(spec, &before.name, ended.exit_code) {
            let message = "may not be transitioned to non-terminated state";
            errors.push(FieldError::forbidden(&path.index(i).child("state"), message));
        }
    }
}

/// Whether a container that ended with this code is started again.
fn restarts(spec: &PodSpec, name: &str, code: i32) -> bool {
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let container = all.find(|c| c.name == name);
    let rules = container.and_then(|c| c.restart_policy_rules.as_deref()).unwrap_or_default();
    for rule in rules {
        let Some(codes) = &rule.exit_codes else { continue };
        let named = codes.values.as_ref().is_some_and(|v| v.contains(&code));
        if (codes.operator == "In") == named {
            return true;
        }
    }
    let policy = container.and_then(|c| c.restart_policy.as_deref()).or(spec.restart_policy.as_deref());
    match policy.unwrap_or("Always") {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    }
}
