//! Decides: defaults of a Service, and what an update inherits from the Service it replaces.

use k8s_openapi::api::core::v1::{ClientIPConfig, Service, ServiceSpec, SessionAffinityConfig};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{externally_accessible, headless, kind, needs_cluster_ip, needs_health_check_port, needs_node_port};

const AFFINITY_SECONDS: i32 = 10_800;

fn empty(field: &Option<String>) -> bool {
    field.as_deref().unwrap_or_default().is_empty()
}

pub fn defaults(service: &mut Service) {
    let spec = service.spec.get_or_insert_default();
    if empty(&spec.session_affinity) {
        spec.session_affinity = Some("None".into());
    }
    match spec.session_affinity.as_deref() {
        Some("None") => spec.session_affinity_config = None,
        Some("ClientIP") => {
            let set = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
            if set.and_then(|c| c.timeout_seconds).is_none() {
                let client_ip = Some(ClientIPConfig { timeout_seconds: Some(AFFINITY_SECONDS) });
                spec.session_affinity_config = Some(SessionAffinityConfig { client_ip });
            }
        }
        _ => {}
    }
    if empty(&spec.type_) {
        spec.type_ = Some("ClusterIP".into());
    }
    for port in spec.ports.iter_mut().flatten() {
        if empty(&port.protocol) {
            port.protocol = Some("TCP".into());
        }
        match &port.target_port {
            None | Some(IntOrString::Int(0)) => port.target_port = Some(IntOrString::Int(port.port)),
            Some(IntOrString::String(name)) if name.is_empty() => port.target_port = Some(IntOrString::Int(port.port)),
            Some(_) => {}
        }
    }
    if externally_accessible(spec) && empty(&spec.external_traffic_policy) {
        spec.external_traffic_policy = Some("Cluster".into());
    }
    if needs_cluster_ip(spec) {
        spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".into());
    }
    if kind(spec) == "LoadBalancer" {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    let status = service.status.get_or_insert_default();
    for ingress in status.load_balancer.get_or_insert_default().ingress.iter_mut().flatten() {
        if !empty(&ingress.ip) && ingress.ip_mode.is_none() {
            ingress.ip_mode = Some("VIP".into());
        }
    }
}

fn sync(spec: &mut ServiceSpec) {
    let none_listed = spec.cluster_ips.as_ref().is_none_or(Vec::is_empty);
    if !empty(&spec.cluster_ip) && none_listed {
        spec.cluster_ips = spec.cluster_ip.clone().map(|ip| vec![ip]);
    }
}

pub fn create(spec: &mut ServiceSpec) {
    sync(spec);
}

pub fn update(new: &mut ServiceSpec, old: &ServiceSpec) {
    lose_with_type(new, old);
    inherit(new, old);
    // A client that knows only one of the two fields changes only that one.
    if new.cluster_ip != old.cluster_ip && new.cluster_ips == old.cluster_ips {
        new.cluster_ips = new.cluster_ip.clone().filter(|ip| !ip.is_empty()).map(|ip| vec![ip]);
    }
    sync(new);
}

/// Values that the server assigned stay when a client leaves them out.
fn inherit(new: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        if empty(&new.cluster_ip) {
            new.cluster_ip.clone_from(&old.cluster_ip);
        }
        if new.cluster_ips.as_ref().is_none_or(Vec::is_empty) && new.cluster_ip == old.cluster_ip {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
        if new.ip_families.as_ref().is_none_or(Vec::is_empty) {
            new.ip_families.clone_from(&old.ip_families);
        }
        if new.ip_family_policy.is_none() {
            new.ip_family_policy.clone_from(&old.ip_family_policy);
        }
    }
    if needs_node_port(old) && needs_node_port(new) {
        let mut used: Vec<(Option<String>, i32)> = new
            .ports
            .iter()
            .flatten()
            .filter_map(|p| Some((p.protocol.clone(), p.node_port.filter(|n| *n != 0)?)))
            .collect();
        for port in new.ports.iter_mut().flatten().filter(|p| p.node_port.unwrap_or_default() == 0) {
            let mut before = old.ports.iter().flatten();
            let same = before.find(|p| p.protocol == port.protocol && p.port == port.port);
            if let Some(number) = same.and_then(|p| p.node_port)
                && !used.contains(&(port.protocol.clone(), number))
            {
                used.push((port.protocol.clone(), number));
                port.node_port = Some(number);
            }
        }
    }
    if needs_health_check_port(old)
        && needs_health_check_port(new)
        && new.health_check_node_port.unwrap_or_default() == 0
    {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// A client that changes the type and sends the rest back as it was does not mean what belonged to the old type.
fn lose_with_type(new: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if new.cluster_ip == old.cluster_ip && new.cluster_ips == old.cluster_ips {
            new.cluster_ip = None;
            new.cluster_ips = None;
        }
        if new.ip_families == old.ip_families && new.ip_family_policy == old.ip_family_policy {
            new.ip_families = None;
            new.ip_family_policy = None;
        }
        if new.internal_traffic_policy == old.internal_traffic_policy {
            new.internal_traffic_policy = None;
        }
    }
    if needs_node_port(old) && !needs_node_port(new) {
        let numbers =
            |s: &ServiceSpec| s.ports.iter().flatten().map(|p| p.node_port.unwrap_or_default()).collect::<Vec<_>>();
        // Switching off the allocation of a load balancer's ports keeps those it has.
        if numbers(new) == numbers(old) && kind(new) != "LoadBalancer" {
            new.ports.iter_mut().flatten().for_each(|p| p.node_port = None);
        }
    }
    if needs_health_check_port(old)
        && !needs_health_check_port(new)
        && new.health_check_node_port == old.health_check_node_port
    {
        new.health_check_node_port = None;
    }
    if kind(old) == "LoadBalancer" && kind(new) != "LoadBalancer" {
        if new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
    }
    if externally_accessible(old)
        && !externally_accessible(new)
        && new.external_traffic_policy == old.external_traffic_policy
    {
        new.external_traffic_policy = None;
    }
}

/// The families of a Service of a cluster that has IPv4 alone.
pub fn families(spec: &mut ServiceSpec) {
    if !needs_cluster_ip(spec) {
        return;
    }
    let families = spec.ip_families.get_or_insert_default();
    if families.is_empty() {
        families.push("IPv4".into());
    }
    let selects = spec.selector.as_ref().is_some_and(|s| !s.is_empty());
    if headless(spec) && !selects {
        // Whoever writes the endpoints decides about their family.
        let single = spec.ip_family_policy.as_deref() == Some("SingleStack");
        let families = spec.ip_families.get_or_insert_default();
        if !single && families.len() == 1 {
            families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.into());
        }
        let policy = if families.len() > 1 { "RequireDualStack" } else { "SingleStack" };
        spec.ip_family_policy.get_or_insert_with(|| policy.into());
    } else {
        spec.ip_family_policy.get_or_insert_with(|| "SingleStack".into());
    }
}
