//! Decides: which pods stand behind a Service, and on which ports; shared by Endpoints and EndpointSlices.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::action::Enqueue;
use super::pods;
use super::stores::Stores;
use crate::client::store::Meta as _;

pub const HEADLESS: &str = "service.kubernetes.io/headless";
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Since when what is written has been so, for whoever measures how long it takes to come through.
pub const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Services and pods concern both controllers alike.
pub fn wire(stores: &Arc<Stores>, enqueue: &Enqueue) {
    let queue = enqueue.clone();
    stores.services.subscribe(move |change| {
        for service in change.each() {
            queue.add(ns(service), name(service));
        }
    });
    let (queue, services) = (enqueue.clone(), Arc::clone(&stores.services));
    stores.pods.subscribe(move |change| {
        if let (Some(old), Some(new)) = (change.old, change.new)
            && !matters(old, new)
        {
            return;
        }
        for pod in change.each() {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            for service in services.find(namespace, |s| selects(s, pod)) {
                queue.add(namespace, name(&service));
            }
        }
    });
}

/// Most updates of pods (probe times, restarts) change no endpoint.
fn matters(old: &Pod, new: &Pod) -> bool {
    let key = |p: &Pod| {
        let spec = p.spec.as_ref();
        (
            (ips(p), pods::is_ready(p), pods::is_terminal(p), p.metadata.deletion_timestamp.is_some()),
            (p.metadata.labels.clone(), p.metadata.uid.clone(), pods::node_name(p).to_owned()),
            spec.and_then(|s| s.hostname.clone()),
            spec.and_then(|s| s.subdomain.clone()),
        )
    };
    key(old) != key(new)
}

pub fn ns(service: &Service) -> &str {
    service.metadata.namespace.as_deref().unwrap_or_default()
}

pub fn name(service: &Service) -> &str {
    service.metadata.name.as_deref().unwrap_or_default()
}

/// A Service without a selector selects nothing: its endpoints are somebody else's.
pub fn selects(service: &Service, pod: &Pod) -> bool {
    let Some(selector) = selector(service) else { return false };
    let labels = pod.metadata.labels.as_ref();
    selector.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
}

pub fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    spec.selector.as_ref().filter(|s| !external && !s.is_empty())
}

pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

pub fn publishes_unready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true)
}

pub fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default()
}

/// Addresses of the pod, all families.
pub fn ips(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all: Vec<String> = status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    if all.is_empty() { status.pod_ip.iter().filter(|ip| !ip.is_empty()).cloned().collect() } else { all }
}

/// Address of the pod in a family: the first without (false) or with (true) colons.
pub fn ip(pod: &Pod, v6: bool) -> Option<String> {
    ips(pod).into_iter().find(|ip| ip.contains(':') == v6)
}

/// The first of the pods whose readiness is not what was written of it, by when it became so. A Service that nothing was
/// written of has been there since it was made.
///
/// Upstream remembers these times of all pods (`TriggerTimeTracker`); what was written tells the same.
pub fn trigger_time<'a>(
    service: &Service,
    any_written: bool,
    pods: impl Iterator<Item = &'a Arc<Pod>>,
    written: &HashMap<&str, bool>,
) -> Option<Timestamp> {
    if !any_written {
        return service.metadata.creation_timestamp.as_ref().map(|t| t.0);
    }
    let changed = pods.filter(|p| written.get(p.metadata.uid()) != Some(&pods::is_ready(p)));
    changed.filter_map(|p| Some(pods::condition(p, "Ready")?.last_transition_time.as_ref()?.0)).min()
}

/// `ShouldPodBeInEndpoints`: finished pods never, terminating ones only where the reader can tell them apart.
pub fn belongs(pod: &Pod, terminating_too: bool) -> bool {
    !pods::is_terminal(pod) && (terminating_too || pod.metadata.deletion_timestamp.is_none())
}

/// The pod's port behind a Service's port; `None` when the pod does not name such a port.
pub fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match port.target_port.as_ref() {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(n)) => Some(*n),
        Some(IntOrString::String(wanted)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars =
                spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let protocol = protocol(port.protocol.as_ref());
            spec.containers
                .iter()
                .chain(sidecars)
                .flat_map(|c| c.ports.iter().flatten())
                .find(|p| p.name.as_ref() == Some(wanted) && self::protocol(p.protocol.as_ref()) == protocol)
                .map(|p| p.container_port)
        }
    }
}

pub fn protocol(protocol: Option<&String>) -> &str {
    protocol.map_or("TCP", String::as_str)
}

pub fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The host name that the Service's domain lists the pod under.
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let ours = spec.subdomain.as_deref() == Some(name(service));
    spec.hostname.clone().filter(|h| ours && !h.is_empty())
}
