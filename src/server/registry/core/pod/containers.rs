//! Decides: containers and init containers of a pod.

use k8s_openapi::api::core::v1::{Container, ContainerPort, ContainerRestartRule, PodSpec};

use super::probes::{self, Role};
use super::volumes::{self, Volumes};
use super::{env, security};
use crate::api::field::{FieldError, Path};
use crate::server::registry::core::endpoints;
use crate::server::registry::format;
use crate::server::registry::metadata::{Errors, invalid};
use crate::server::registry::quantity;

const SIDECAR_ONLY: &str = "may not be set for init containers without restartPolicy=Always";
const MAX_RESTART_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

/// What the containers of one pod share.
pub struct Around<'a> {
    pub spec: &'a PodSpec,
    pub volumes: Volumes<'a>,
    pub claims: Vec<&'a str>,
}

pub fn validate(errors: &mut Errors, path: &Path, around: &Around<'_>) {
    let spec = around.spec;
    let at = path.child("containers");
    if spec.containers.is_empty() {
        errors.push(FieldError::required(&at, ""));
    }
    for (i, container) in spec.containers.iter().enumerate() {
        let here = at.index(i);
        common(errors, &here, container, around);
        if spec.containers[..i].iter().any(|c| c.name == container.name) {
            errors.push(FieldError::duplicate(&here.child("name"), &container.name));
        }
        hooks_and_probes(errors, &here, container, spec);
        let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
        restart_policy(errors, &here, container.restart_policy.as_deref(), rules);
    }
    host_ports(errors, &at, &spec.containers);

    let at = path.child("initContainers");
    let init = spec.init_containers.as_deref().unwrap_or_default();
    for (i, container) in init.iter().enumerate() {
        let here = at.index(i);
        common(errors, &here, container, around);
        let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
        restart_policy(errors, &here, container.restart_policy.as_deref(), rules);
        let taken = |c: &Container| c.name == container.name;
        if !container.name.is_empty() && (spec.containers.iter().any(taken) || init[..i].iter().any(taken)) {
            errors.push(FieldError::duplicate(&here.child("name"), &container.name));
        }
        // Init containers run one by one: only within one can ports collide.
        host_ports(errors, &at, std::slice::from_ref(container));
        if container.restart_policy.as_deref() == Some("Always") {
            hooks_and_probes(errors, &here, container, spec);
            continue;
        }
        for (field, set) in [
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ] {
            if set {
                errors.push(FieldError::forbidden(&here.child(field), SIDECAR_ONLY));
            }
        }
    }
}

pub(super) fn common(errors: &mut Errors, path: &Path, container: &Container, around: &Around<'_>) {
    if container.name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    } else {
        invalid(errors, &path.child("name"), &container.name, format::dns_label(&container.name));
    }
    if container.image.as_deref().unwrap_or_default().is_empty() {
        errors.push(FieldError::required(&path.child("image"), ""));
    }
    let at = path.child("terminationMessagePolicy");
    match container.termination_message_policy.as_deref().unwrap_or_default() {
        "File" | "FallbackToLogsOnError" => {}
        "" => errors.push(FieldError::required(&at, "")),
        other => errors.push(FieldError::not_supported(&at, &other, &["FallbackToLogsOnError", "File"])),
    }
    ports(errors, &path.child("ports"), container.ports.as_deref().unwrap_or_default());
    env::variables(errors, &path.child("env"), container.env.as_deref().unwrap_or_default());
    env::sources(errors, &path.child("envFrom"), container.env_from.as_deref().unwrap_or_default());
    volumes::mounts(errors, path, container, &around.volumes);
    pull_policy(errors, &path.child("imagePullPolicy"), container.image_pull_policy.as_deref());
    if let Some(resources) = &container.resources {
        quantity::requirements(errors, &path.child("resources"), resources, &around.claims);
    }
    resize_policy(errors, &path.child("resizePolicy"), container, around.spec);
    let host_users = around.spec.host_users != Some(false);
    security::container(errors, &path.child("securityContext"), container.security_context.as_ref(), host_users);
}

fn hooks_and_probes(errors: &mut Errors, path: &Path, container: &Container, spec: &PodSpec) {
    if let Some(lifecycle) = &container.lifecycle {
        let os = spec.os.as_ref().map(|os| os.name.as_str());
        let grace = spec.termination_grace_period_seconds;
        probes::lifecycle(errors, &path.child("lifecycle"), lifecycle, grace, os);
    }
    for (field, role, probe) in [
        ("livenessProbe", Role::Liveness, &container.liveness_probe),
        ("readinessProbe", Role::Readiness, &container.readiness_probe),
        ("startupProbe", Role::Startup, &container.startup_probe),
    ] {
        probes::probe(errors, &path.child(field), role, probe.as_ref());
    }
}

fn ports(errors: &mut Errors, path: &Path, ports: &[ContainerPort]) {
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            let problems = format::port_name(name);
            if problems.is_empty() && ports[..i].iter().any(|p| p.name.as_deref() == Some(name)) {
                errors.push(FieldError::duplicate(&at.child("name"), &name));
            }
            invalid(errors, &at.child("name"), &name, problems);
        }
        if port.container_port == 0 {
            errors.push(FieldError::required(&at.child("containerPort"), ""));
        } else {
            let problems = format::port_number(port.container_port);
            invalid(errors, &at.child("containerPort"), &port.container_port, problems);
        }
        if let Some(host) = port.host_port.filter(|p| *p != 0) {
            invalid(errors, &at.child("hostPort"), &host, format::port_number(host));
        }
        endpoints::protocol(errors, &at.child("protocol"), port.protocol.as_deref());
    }
}

fn host_ports(errors: &mut Errors, path: &Path, containers: &[Container]) {
    let mut taken = Vec::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let Some(number) = port.host_port.filter(|p| *p != 0) else { continue };
            let text = |field: &Option<String>| field.clone().unwrap_or_default();
            let key = format!("{}/{}/{number}", text(&port.protocol), text(&port.host_ip));
            if taken.contains(&key) {
                let at = path.index(i).child("ports").index(j).child("hostPort");
                errors.push(FieldError::duplicate(&at, &key));
            } else {
                taken.push(key);
            }
        }
    }
}

pub fn pull_policy(errors: &mut Errors, path: &Path, policy: Option<&str>) {
    match policy.unwrap_or_default() {
        "Always" | "IfNotPresent" | "Never" => {}
        "" => errors.push(FieldError::required(path, "")),
        other => errors.push(FieldError::not_supported(path, &other, &["Always", "IfNotPresent", "Never"])),
    }
}

fn resize_policy(errors: &mut Errors, path: &Path, container: &Container, spec: &PodSpec) {
    let policies = container.resize_policy.as_deref().unwrap_or_default();
    for (i, policy) in policies.iter().enumerate() {
        if policies[..i].iter().any(|p| p.resource_name == policy.resource_name) {
            errors.push(FieldError::duplicate(&path.index(i), &policy.resource_name));
        }
        for (value, known) in
            [(&policy.resource_name, ["cpu", "memory"]), (&policy.restart_policy, ["NotRequired", "RestartContainer"])]
        {
            if value.is_empty() {
                errors.push(FieldError::required(path, ""));
            } else if !known.contains(&value.as_str()) {
                errors.push(FieldError::not_supported(path, value, &known));
            }
        }
        if spec.restart_policy.as_deref() == Some("Never") && policy.restart_policy != "NotRequired" {
            let message = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path, &policy.restart_policy, message));
        }
    }
}

fn restart_policy(errors: &mut Errors, path: &Path, policy: Option<&str>, rules: &[ContainerRestartRule]) {
    let at = path.child("restartPolicy");
    match policy {
        None if rules.is_empty() => return,
        None => errors.push(FieldError::required(&at, "must specify restartPolicy when restart rules are used")),
        Some("Always" | "Never" | "OnFailure") => {}
        Some(other) => errors.push(FieldError::not_supported(&at, &other, &["Always", "Never", "OnFailure"])),
    }
    let at = path.child("restartPolicyRules");
    if rules.len() > MAX_RESTART_RULES {
        errors.push(FieldError::too_many(&at, rules.len(), MAX_RESTART_RULES));
    }
    for (i, rule) in rules.iter().enumerate() {
        let here = at.index(i);
        if !matches!(rule.action.as_str(), "Restart" | "RestartAllContainers") {
            let known = ["Restart", "RestartAllContainers"];
            errors.push(FieldError::not_supported(&here.child("action"), &rule.action, &known));
        }
        let here = here.child("exitCodes");
        let Some(codes) = &rule.exit_codes else {
            errors.push(FieldError::required(&here, "must be specified"));
            continue;
        };
        if !matches!(codes.operator.as_str(), "In" | "NotIn") {
            errors.push(FieldError::not_supported(&here.child("operator"), &codes.operator, &["In", "NotIn"]));
        }
        let count = codes.values.as_ref().map_or(0, Vec::len);
        if count > MAX_EXIT_CODES {
            errors.push(FieldError::too_many(&here.child("values"), count, MAX_EXIT_CODES));
        }
    }
}
