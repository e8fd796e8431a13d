//! Decides: what is wrong with a pod spec, in a pod or in a template (`ValidatePodSpec`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};

use super::containers::{self, Around};
use super::{MIRROR, ephemeral, security, volumes};
use crate::api::field::{FieldError, Path};
use crate::server::registry::core::scheduling;
use crate::server::registry::format;
use crate::server::registry::metadata::{self, Errors, invalid, or_default, shown};
use crate::server::registry::quantity;

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
/// All search paths with a space between, in characters.
const MAX_SEARCH_LENGTH: usize = 2048;
const MAX_HOSTNAME: usize = 64;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// `is_pod` is false in a template, where host ports may still be filled in.
pub fn validate(errors: &mut Errors, path: &Path, spec: &PodSpec, is_pod: bool) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.push(FieldError::required(&path.child("terminationGracePeriodSeconds"), ""));
    }
    let known = volumes::validate(errors, &path.child("volumes"), spec.volumes.as_deref().unwrap_or_default());
    let claims = spec.resource_claims.iter().flatten().map(|c| c.name.as_str()).collect();
    let around = Around { spec, volumes: known, claims };
    containers::validate(errors, path, &around);
    ephemeral::validate(errors, &path.child("ephemeralContainers"), &around);
    host_network(errors, path, spec, is_pod);
    policies(errors, path, spec);
    metadata::labels(errors, &path.child("nodeSelector"), spec.node_selector.as_ref());
    security::pod(errors, path, spec);
    if let Some(affinity) = &spec.affinity {
        scheduling::affinity(errors, &path.child("affinity"), affinity);
    }
    dns(errors, path, spec);
    gates(errors, path, spec);
    let constraints = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    scheduling::topology_spread(errors, &path.child("topologySpreadConstraints"), constraints);
    names(errors, path, spec);
    if let Some(seconds) = spec.active_deadline_seconds {
        let most = i64::from(i32::MAX);
        if !(1..=most).contains(&seconds) {
            let at = path.child("activeDeadlineSeconds");
            errors.push(FieldError::invalid(&at, &seconds, &format::between(1, most)));
        }
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    scheduling::tolerations(errors, &path.child("tolerations"), tolerations);
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let at = path.child("hostAliases").index(i);
        invalid(errors, &at.child("ip"), &alias.ip, format::ip(&alias.ip));
        for (j, name) in alias.hostnames.iter().flatten().enumerate() {
            invalid(errors, &at.child("hostnames").index(j), name, format::dns_subdomain(name));
        }
    }
    for (name, value) in spec.overhead.iter().flatten() {
        quantity::validate(errors, &path.child("overhead").child("limits").key(name), name, value);
    }
    if let Some(os) = &spec.os {
        let at = path.child("os");
        match os.name.as_str() {
            "" => errors.push(FieldError::required(&at.child("name"), "")),
            "linux" | "windows" => {}
            other => errors.push(FieldError::not_supported(&at, &other, &["linux", "windows"])),
        }
    }
}

fn host_network(errors: &mut Errors, path: &Path, spec: &PodSpec, is_pod: bool) {
    if spec.host_network != Some(true) {
        return;
    }
    for (i, container) in spec.containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let host = port.host_port.unwrap_or_default();
            if (is_pod || host != 0) && host != port.container_port {
                let at = path.child("containers").index(i).child("ports").index(j).child("hostPort");
                let message = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(&at, &host, message));
            }
        }
    }
}

fn policies(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    for (field, value, known) in [
        ("restartPolicy", &spec.restart_policy, &["Always", "OnFailure", "Never"][..]),
        ("dnsPolicy", &spec.dns_policy, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"][..]),
    ] {
        match value.as_deref().unwrap_or_default() {
            "" => errors.push(FieldError::required(&path.child(field), "")),
            value if known.contains(&value) => {}
            other => errors.push(FieldError::not_supported(&path.child(field), &other, known)),
        }
    }
    if let Some(policy) = &spec.preemption_policy {
        scheduling::preemption_policy(errors, &path.child("preemptionPolicy"), policy);
    }
}

fn dns(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    let path = path.child("dnsConfig");
    let none = spec.dns_policy.as_deref() == Some("None");
    let Some(config) = &spec.dns_config else {
        if none {
            errors.push(FieldError::required(&path, "must provide `dnsConfig` when `dnsPolicy` is None"));
        }
        return;
    };
    let servers = config.nameservers.as_deref().unwrap_or_default();
    let at = path.child("nameservers");
    if none && servers.is_empty() {
        let message = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(&at, message));
        return;
    }
    if servers.len() > MAX_NAMESERVERS {
        let message = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.push(FieldError::invalid(&at, &shown(&servers), &message));
    }
    for (i, server) in servers.iter().enumerate() {
        invalid(errors, &at.index(i), server, format::ip(server));
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    let at = path.child("searches");
    if searches.len() > MAX_SEARCHES {
        let message = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.push(FieldError::invalid(&at, &shown(&searches), &message));
    }
    if searches.join(" ").len() > MAX_SEARCH_LENGTH {
        let message =
            format!("must not have more than {MAX_SEARCH_LENGTH} characters (including spaces) in the search list");
        errors.push(FieldError::invalid(&at, &shown(&searches), &message));
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, s)| *s != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        invalid(errors, &at.index(i), &search, format::dns_subdomain_with_underscore(search));
    }
    for (i, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_deref().unwrap_or_default().is_empty() {
            errors.push(FieldError::required(&path.child("options").index(i), "must not be empty"));
        }
    }
}

fn gates(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    for (i, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let at = path.child("readinessGates").index(i).child("conditionType");
        invalid(errors, &at, &gate.condition_type, format::qualified_name(&gate.condition_type));
    }
    let gates = spec.scheduling_gates.as_deref().unwrap_or_default();
    for (i, gate) in gates.iter().enumerate() {
        let at = path.child("schedulingGates").index(i);
        invalid(errors, &at, &gate.name, format::qualified_name(&gate.name));
        if gates[..i].contains(gate) {
            errors.push(FieldError::duplicate(&at, &gate.name));
        }
    }
}

fn names(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    if let Some(name) = &spec.hostname_override {
        let at = path.child("hostnameOverride");
        for (other, set) in [("setHostnameAsFQDN", spec.set_hostname_as_fqdn), ("hostNetwork", spec.host_network)] {
            if set == Some(true) {
                let message = format!("may not be specified when {other} is true");
                errors.push(FieldError::forbidden(&at, &message));
            }
        }
        if name.len() > MAX_HOSTNAME {
            errors.push(FieldError::too_long(&at, MAX_HOSTNAME));
        }
        invalid(errors, &at, name, format::dns_subdomain(name));
    }
    type Rule = fn(&str) -> format::Problems;
    let fields: [(&str, &Option<String>, Rule); 6] = [
        ("serviceAccountName", &spec.service_account_name, format::dns_subdomain),
        ("nodeName", &spec.node_name, format::dns_subdomain),
        ("hostname", &spec.hostname, format::dns_label),
        ("subdomain", &spec.subdomain, format::dns_label),
        ("priorityClassName", &spec.priority_class_name, format::dns_subdomain),
        ("runtimeClassName", &spec.runtime_class_name, format::dns_subdomain),
    ];
    for (field, value, rule) in fields {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            invalid(errors, &path.child(field), &value, rule(value));
        }
    }
}

/// Checks that are for pods and not for templates.
pub fn only_pod(errors: &mut Errors, spec: &PodSpec) {
    let path = Path::new("spec");
    if spec.service_account_name.as_deref().unwrap_or_default().is_empty() {
        for (i, volume) in spec.volumes.iter().flatten().enumerate() {
            let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
            for (j, _) in sources.enumerate().filter(|(_, s)| s.service_account_token.is_some()) {
                let at = path.child("volumes").index(i).child("projected").child("sources").index(j);
                let message = "must not be specified when serviceAccountName is not set";
                errors.push(FieldError::forbidden(&at.child("serviceAccountToken"), message));
            }
        }
    }
    let init = spec.init_containers.as_deref().unwrap_or_default();
    for (field, list) in [("containers", spec.containers.as_slice()), ("initContainers", init)] {
        for (i, container) in list.iter().enumerate() {
            image_of_pod(errors, &path.child(field).index(i), container.image.as_deref());
        }
    }
}

/// Templates may have what has been filled in by hand.
pub fn image_of_pod(errors: &mut Errors, container: &Path, image: Option<&str>) {
    let image = image.unwrap_or_default();
    if image.trim() != image {
        let message = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(&container.child("image"), &image, message));
    }
}

/// Annotations that mean something to the system.
pub fn annotations(errors: &mut Errors, annotations: Option<&BTreeMap<String, String>>, spec: &PodSpec) {
    let path = Path::new("metadata").child("annotations");
    let Some(annotations) = annotations else { return };
    if let Some(value) = annotations.get(MIRROR)
        && spec.node_name.as_deref().unwrap_or_default().is_empty()
    {
        let message = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(FieldError::invalid(&path.key(MIRROR), value, message));
    }
    if let Some(value) = annotations.get(DELETION_COST) {
        let odd = value.starts_with('+') || (value.len() > 1 && value.starts_with('0'));
        if odd || value.parse::<i32>().is_err() {
            errors.push(FieldError::invalid(&path.key(DELETION_COST), value, "must be a 32bit integer"));
        }
    }
}

/// A pod template of a workload.
pub fn template(errors: &mut Errors, path: &Path, template: &PodTemplateSpec) {
    let meta = or_default(template.metadata.as_ref());
    metadata::labels(errors, &path.child("labels"), meta.labels.as_ref());
    metadata::annotations(errors, &path.child("annotations"), meta.annotations.as_ref());
    let spec = or_default(template.spec.as_ref());
    validate(errors, &path.child("spec"), &spec, false);
    if spec.ephemeral_containers.as_ref().is_some_and(|c| !c.is_empty()) {
        let at = path.child("spec").child("ephemeralContainers");
        errors.push(FieldError::forbidden(&at, "ephemeral containers not allowed in pod template"));
    }
}
