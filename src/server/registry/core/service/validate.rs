//! Decides: what is wrong with a Service.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use serde_json::json;

use super::{externally_accessible, headless, kind, needs_cluster_ip, needs_health_check_port};
use crate::api::field::{BadValue, FieldError, Path};
use crate::server::registry::core::endpoints::{endpoint_ip, protocol};
use crate::server::registry::core::pod::probes::port as port_or_name;
use crate::server::registry::format;
use crate::server::registry::metadata::{self, Errors, invalid, shown};

const MAX_AFFINITY_SECONDS: i32 = 86_400;
const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";
const ONCE: &str = "may not change once set";

/// Upstream shows the whole port of its internal type.
struct PortPair<'a>(&'a ServicePort);

impl BadValue for PortPair<'_> {
    fn shown(&self) -> String {
        let protocol = self.0.protocol.as_deref().unwrap_or_default();
        let port = self.0.port;
        format!(
            "{{\"Name\":\"\",\"Protocol\":{protocol:?},\"AppProtocol\":null,\"Port\":{port},\"TargetPort\":0,\
             \"NodePort\":0}}"
        )
    }
}

pub fn service(service: &Service) -> Errors {
    let mut errors = Vec::new();
    let path = Path::new("spec");
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && !headless(&spec) && kind(&spec) != "ExternalName" {
        errors.push(FieldError::required(&path.child("ports"), ""));
    }
    by_type(&mut errors, &path, &spec);
    for (i, port) in ports.iter().enumerate() {
        check_port(&mut errors, &path.child("ports").index(i), port, &ports[..i], ports.len() > 1);
    }
    metadata::labels(&mut errors, &path.child("selector"), spec.selector.as_ref());
    affinity(&mut errors, &path, &spec);
    cluster_ips(&mut errors, &path, &spec);
    for (i, ip) in spec.external_ips.iter().flatten().enumerate() {
        let at = path.child("externalIPs").index(i);
        let problems = format::ip(ip);
        if problems.is_empty() {
            endpoint_ip(&mut errors, &at, ip);
        } else {
            invalid(&mut errors, &at, ip, problems);
        }
    }
    match kind(&spec) {
        "" => errors.push(FieldError::required(&path.child("type"), "")),
        "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName" => {}
        other => {
            let known = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
            errors.push(FieldError::not_supported(&path.child("type"), &other, &known));
        }
    }
    port_pairs(&mut errors, &path, &spec, ports);
    load_balancer(&mut errors, &path, &spec);
    traffic(&mut errors, &path, &spec);
    errors
}

fn by_type(errors: &mut Errors, path: &Path, spec: &ServiceSpec) {
    match kind(spec) {
        "LoadBalancer" | "NodePort" if headless(spec) => {
            let message = format!("may not be set to 'None' for {} services", kind(spec));
            errors.push(FieldError::invalid(&path.child("clusterIPs").index(0), &"None", &message));
        }
        "ExternalName" => {
            for (field, set) in [
                ("clusterIPs", spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty())),
                ("ipFamilies", spec.ip_families.as_ref().is_some_and(|f| !f.is_empty())),
                ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ] {
                if set {
                    let message = "may not be set for ExternalName services";
                    errors.push(FieldError::forbidden(&path.child(field), message));
                }
            }
            let name = spec.external_name.as_deref().unwrap_or_default();
            let name = name.strip_suffix('.').unwrap_or(name);
            let at = path.child("externalName");
            if name.is_empty() {
                errors.push(FieldError::required(&at, ""));
            } else {
                invalid(errors, &at, &name, format::dns_subdomain(name));
            }
        }
        _ => {}
    }
}

fn check_port(errors: &mut Errors, path: &Path, port: &ServicePort, before: &[ServicePort], named: bool) {
    let name = port.name.as_deref().unwrap_or_default();
    let at = path.child("name");
    if !name.is_empty() {
        invalid(errors, &at, &name, format::dns_label(name));
        if before.iter().any(|p| p.name.as_deref() == Some(name)) {
            errors.push(FieldError::duplicate(&at, &name));
        }
    } else if named {
        errors.push(FieldError::required(&at, ""));
    }
    invalid(errors, &path.child("port"), &port.port, format::port_number(port.port));
    protocol(errors, &path.child("protocol"), port.protocol.as_deref());
    port_or_name(errors, &path.child("targetPort"), &port.target_port.clone().unwrap_or_default());
    if let Some(application) = &port.app_protocol {
        invalid(errors, &path.child("appProtocol"), application, format::qualified_name(application));
    }
}

fn affinity(errors: &mut Errors, path: &Path, spec: &ServiceSpec) {
    let at = path.child("sessionAffinityConfig");
    match spec.session_affinity.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required(&path.child("sessionAffinity"), "")),
        "None" => {
            if spec.session_affinity_config.is_some() {
                let message = "must not be set when session affinity is None";
                errors.push(FieldError::forbidden(&at, message));
            }
        }
        "ClientIP" => {
            let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
            let Some(seconds) = config.and_then(|c| c.timeout_seconds) else {
                errors.push(FieldError::required(&at, "when session affinity type is ClientIP"));
                return;
            };
            if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds) {
                let at = at.child("clientIP").child("timeoutSeconds");
                let message = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
                errors.push(FieldError::invalid(&at, &seconds, &message));
            }
        }
        other => {
            errors.push(FieldError::not_supported(&path.child("sessionAffinity"), &other, &["ClientIP", "None"]));
        }
    }
}

fn cluster_ips(errors: &mut Errors, path: &Path, spec: &ServiceSpec) {
    if kind(spec) == "ExternalName" {
        return;
    }
    let at = path.child("clusterIPs");
    let ips = spec.cluster_ips.clone().unwrap_or_default();
    match spec.cluster_ip.as_deref().unwrap_or_default() {
        "" if !ips.is_empty() => {
            errors.push(FieldError::invalid(&at, &shown(&ips), "must be empty when `clusterIP` is not specified"));
        }
        "" => {}
        _ if ips.is_empty() => errors.push(FieldError::required(&at, "")),
        one if ips[0] != one => {
            errors.push(FieldError::invalid(&at, &shown(&ips), "first value must match `clusterIP`"));
        }
        _ => {}
    }
    families(errors, path, spec);
    let before = errors.len();
    for (i, ip) in ips.iter().enumerate() {
        if i == 0 && ip == "None" {
            if ips.len() > 1 {
                let message = "'None' must be the first and only value";
                errors.push(FieldError::invalid(&at, &shown(&ips), message));
            }
            continue;
        }
        invalid(errors, &at.index(i), ip, format::ip(ip));
    }
    if ips.len() > 2 {
        errors.push(FieldError::invalid(&at, &shown(&ips), "may only hold up to 2 values"));
    }
    if errors.len() > before {
        return;
    }
    let v6 = ips.iter().filter(|ip| ip.contains(':')).count();
    if v6 > 1 || ips.len() - v6 > 1 {
        let message = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(&at, &shown(&ips), message));
    }
    let families = spec.ip_families.as_deref().unwrap_or_default();
    for (i, (ip, family)) in ips.iter().zip(families).enumerate().filter(|_| !headless(spec)) {
        let expected = if ip.contains(':') { "IPv6" } else { "IPv4" };
        if family != expected {
            let message = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.push(FieldError::invalid(&at.index(i), ip, &message));
        }
    }
}

fn families(errors: &mut Errors, path: &Path, spec: &ServiceSpec) {
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let at = path.child("ipFamilies");
    let selects = spec.selector.as_ref().is_some_and(|s| !s.is_empty());
    let any = headless(spec) && !selects;
    for (i, family) in families.iter().enumerate() {
        let here = at.index(i);
        match family.as_str() {
            "IPv4" => {}
            "IPv6" if any => {}
            "IPv6" => errors.push(FieldError::invalid(&here, family, "not configured on this cluster")),
            other => errors.push(FieldError::not_supported(&here, &other, &["IPv4", "IPv6"])),
        }
        if families[..i].contains(family) {
            errors.push(FieldError::duplicate(&here, family));
        }
    }
    let at = path.child("ipFamilyPolicy");
    match spec.ip_family_policy.as_deref() {
        None | Some("SingleStack" | "PreferDualStack") => {}
        Some("RequireDualStack") if any => {}
        Some(policy @ "RequireDualStack") => {
            let message = "this cluster is not configured for dual-stack services";
            errors.push(FieldError::invalid(&at, &policy, message));
        }
        Some(other) => {
            let known = ["PreferDualStack", "RequireDualStack", "SingleStack"];
            errors.push(FieldError::not_supported(&at, &other, &known));
        }
    }
}

fn port_pairs(errors: &mut Errors, path: &Path, spec: &ServiceSpec, ports: &[ServicePort]) {
    let set = |p: &ServicePort| p.node_port.filter(|n| *n != 0);
    for (i, port) in ports.iter().enumerate().filter(|_| kind(spec) == "ClusterIP") {
        if set(port).is_some() {
            let at = path.child("ports").index(i).child("nodePort");
            errors.push(FieldError::forbidden(&at, "may not be used when `type` is 'ClusterIP'"));
        }
    }
    for (i, port) in ports.iter().enumerate() {
        let Some(number) = set(port) else { continue };
        if ports[..i].iter().any(|p| p.protocol == port.protocol && set(p) == Some(number)) {
            let at = path.child("ports").index(i).child("nodePort");
            errors.push(FieldError::duplicate(&at, &number));
        }
    }
    for (i, port) in ports.iter().enumerate() {
        if ports[..i].iter().any(|p| p.protocol == port.protocol && p.port == port.port) {
            errors.push(FieldError::duplicate(&path.child("ports").index(i), &PortPair(port)));
        }
    }
}

fn load_balancer(errors: &mut Errors, path: &Path, spec: &ServiceSpec) {
    let balanced = kind(spec) == "LoadBalancer";
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let at = path.child("LoadBalancerSourceRanges");
    if !ranges.is_empty() && !balanced {
        errors.push(FieldError::forbidden(&at, ONLY_LOAD_BALANCER));
    }
    for (i, range) in ranges.iter().enumerate() {
        let range = range.trim();
        invalid(errors, &at.index(i), &range, format::cidr(range));
    }
    if !balanced && spec.allocate_load_balancer_node_ports.is_some() {
        errors.push(FieldError::forbidden(&path.child("allocateLoadBalancerNodePorts"), ONLY_LOAD_BALANCER));
    }
    if let Some(class) = &spec.load_balancer_class {
        let at = path.child("loadBalancerClass");
        if balanced {
            invalid(errors, &at, class, format::qualified_name(class));
        } else {
            errors.push(FieldError::forbidden(&at, ONLY_LOAD_BALANCER));
        }
    }
}

fn traffic(errors: &mut Errors, path: &Path, spec: &ServiceSpec) {
    let at = path.child("externalTrafficPolicy");
    let policy = spec.external_traffic_policy.as_deref().unwrap_or_default();
    match (externally_accessible(spec), policy) {
        (false, "") | (true, "Cluster" | "Local") => {}
        (false, policy) => {
            let message = "may only be set for externally-accessible services";
            errors.push(FieldError::invalid(&at, &policy, message));
        }
        (true, "") => errors.push(FieldError::required(&at, "")),
        (true, other) => errors.push(FieldError::not_supported(&at, &other, &["Cluster", "Local"])),
    }
    let at = path.child("healthCheckNodePort");
    let port = spec.health_check_node_port.unwrap_or_default();
    match (needs_health_check_port(spec), port) {
        (false, 0) => {}
        (false, port) => {
            let message = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(FieldError::invalid(&at, &port, message));
        }
        (true, 0) => errors.push(FieldError::required(&at, "")),
        (true, port) => invalid(errors, &at, &port, format::port_number(port)),
    }
    let at = path.child("internalTrafficPolicy");
    match spec.internal_traffic_policy.as_deref() {
        None if needs_cluster_ip(spec) => errors.push(FieldError::required(&at, "")),
        None | Some("Cluster" | "Local") => {}
        Some(other) => errors.push(FieldError::not_supported(&at, &other, &["Cluster", "Local"])),
    }
    let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    if let Some(distribution) = spec.traffic_distribution.as_deref().filter(|d| !known.contains(d)) {
        errors.push(FieldError::not_supported(&path.child("trafficDistribution"), &distribution, &known));
    }
}

pub fn update(new: &Service, old: &Service) -> Errors {
    let mut errors = Vec::new();
    let path = Path::new("spec");
    let (after, before) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    let named = kind(&after) == "ExternalName" || kind(&before) == "ExternalName";
    if !named {
        let ips = |spec: &ServiceSpec| spec.cluster_ips.clone().unwrap_or_default();
        let (after_ips, before_ips) = (ips(&after), ips(&before));
        if !(headless(&after) && headless(&before)) {
            for (i, ip) in before_ips.iter().enumerate() {
                let at = path.child("clusterIPs").index(i);
                if after_ips.is_empty() {
                    let message = "primary clusterIP can not be unset";
                    errors.push(FieldError::invalid(&at, &json!(after_ips), message));
                } else if after_ips.get(i).is_some_and(|other| other != ip) {
                    errors.push(FieldError::invalid(&at, &json!(after_ips), ONCE));
                }
            }
        }
        let families = |spec: &ServiceSpec| spec.ip_families.clone().unwrap_or_default();
        let changed = families(&after).first() != families(&before).first();
        if changed && !headless(&after) && !headless(&before) && !families(&before).is_empty() {
            let at = path.child("ipFamilies").index(0);
            errors.push(FieldError::invalid(&at, &json!(families(&after)), ONCE));
        }
    }
    if kind(&after) == "LoadBalancer"
        && kind(&before) == "LoadBalancer"
        && after.load_balancer_class != before.load_balancer_class
    {
        let at = path.child("loadBalancerClass");
        errors.push(FieldError::invalid(&at, &shown(&after.load_balancer_class), ONCE));
    }
    if needs_health_check_port(&after)
        && needs_health_check_port(&before)
        && after.health_check_node_port != before.health_check_node_port
    {
        errors.push(FieldError::forbidden(&path.child("healthCheckNodePort"), "field is immutable"));
    }
    errors.extend(service(new));
    errors
}

pub fn status(service: &Service) -> Errors {
    let mut errors = Vec::new();
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let spec = service.spec.clone().unwrap_or_default();
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.clone()).unwrap_or_default();
    let ingress = balancer.ingress.unwrap_or_default();
    if kind(&spec) != "LoadBalancer" && !ingress.is_empty() {
        errors.push(FieldError::forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'"));
        return errors;
    }
    for (i, point) in ingress.iter().enumerate() {
        let at = path.index(i);
        let ip = point.ip.as_deref().unwrap_or_default();
        if !ip.is_empty() {
            invalid(&mut errors, &at.child("ip"), &ip, format::ip(ip));
        }
        let mode = at.child("ipMode");
        match point.ip_mode.as_deref() {
            None if !ip.is_empty() => {
                errors.push(FieldError::required(&mode, "must be specified when `ip` is set"));
            }
            Some(_) if ip.is_empty() => {
                errors.push(FieldError::forbidden(&mode, "may not be specified when `ip` is not set"));
            }
            None | Some("VIP" | "Proxy") => {}
            Some(other) => errors.push(FieldError::not_supported(&mode, &other, &["Proxy", "VIP"])),
        }
        if let Some(host) = point.hostname.as_deref().filter(|h| !h.is_empty()) {
            let at = at.child("hostname");
            invalid(&mut errors, &at, &host, format::dns_subdomain(host));
            if host.parse::<std::net::IpAddr>().is_ok() {
                errors.push(FieldError::invalid(&at, &host, "must be a DNS name, not an IP address"));
            }
        }
    }
    errors
}
