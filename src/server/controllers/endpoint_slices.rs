//! Decides: the EndpointSlices of each Service with a selector.
//!
//! Endpoints are grouped by the ports that their pods have; each group fills slices of at most 100. An endpoint stays
//! in its slice as long as it lives, so a change rewrites one slice; slices with room are filled before new ones
//! are made.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use serde_json::{Value, json};

use super::action::{Controller, Enqueue, Moment, Name, Plan, Write};
use super::service_pods as behind;
use super::stores::{Stores, row};
use super::{owners, pods};
use crate::client::request::{Request, Verb};

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const MAX_PER_SLICE: usize = 100;

pub struct EndpointSlices;

/// What a plan is made from.
pub struct Observed {
    pub service: Arc<Service>,
    pub pods: Vec<Arc<Pod>>,
    pub nodes: Vec<Arc<Node>>,
    /// Slices of this controller for the Service, by name.
    pub slices: Vec<Arc<EndpointSlice>>,
}

impl Controller for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpointslice"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        behind::wire(stores, enqueue);
        let queue = enqueue.clone();
        stores.slices.subscribe(move |change| {
            for slice in change.each() {
                if let Some(service) = service_of(slice) {
                    queue.add(slice.metadata.namespace.as_deref().unwrap_or_default(), service);
                }
            }
        });
        // An endpoint tells the zone of its node, and a node's pods count only while it exists.
        let (queue, services) = (enqueue.clone(), Arc::clone(&stores.services));
        stores.nodes.subscribe(move |change| {
            let zone = |n: Option<&Arc<Node>>| {
                n.map(|n| n.metadata.labels.as_ref().and_then(|l| l.get(behind::ZONE)).cloned())
            };
            if zone(change.old) != zone(change.new) {
                for service in services.all() {
                    queue.add(behind::ns(&service), behind::name(&service));
                }
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, _moment: Moment<'_>) -> Plan {
        // Slices of a Service that is gone are collected as its dependents.
        let Some(service) = stores.services.get(&key.namespace, &key.name) else { return Plan::nothing() };
        if behind::selector(&service).is_none() || service.metadata.deletion_timestamp.is_some() {
            return Plan::nothing();
        }
        let observed = Observed {
            pods: stores.pods.find(&key.namespace, |p| behind::selects(&service, p)),
            slices: stores
                .slices
                .find(&key.namespace, |s| service_of(s) == Some(&*key.name) && s.metadata.deletion_timestamp.is_none()),
            nodes: stores.nodes.all(),
            service,
        };
        plan(&observed)
    }
}

/// The Service of a slice that this controller manages.
fn service_of(slice: &EndpointSlice) -> Option<&str> {
    let labels = slice.metadata.labels.as_ref()?;
    (labels.get(MANAGED_BY).map(String::as_str) == Some(MANAGER)).then_some(())?;
    labels.get(behind::SERVICE_NAME).map(String::as_str)
}

/// Makes, rewrites and removes slices of every address family of the Service.
#[must_use]
pub fn plan(observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let spec = observed.service.spec.as_ref();
    let mut families: Vec<String> = spec.and_then(|s| s.ip_families.clone()).unwrap_or_default();
    if families.is_empty() {
        families.push("IPv4".into());
    }
    for slice in observed.slices.iter().filter(|s| !families.contains(&s.address_type)) {
        plan.push(remove(slice));
    }
    for family in &families {
        plan_family(observed, family, &mut plan);
    }
    plan
}

fn plan_family(observed: &Observed, family: &str, plan: &mut Plan) {
    let mut groups = wanted(observed, family == "IPv6");
    let existing: Vec<&Arc<EndpointSlice>> = observed.slices.iter().filter(|s| s.address_type == family).collect();
    // Contents of each existing slice, `None` for one that is no longer needed.
    let mut kept: Vec<Option<(Ports, Vec<Endpoint>)>> = Vec::new();
    for slice in &existing {
        let ports = slice.ports.clone().unwrap_or_default();
        let group = groups.iter_mut().find(|(p, _)| *p == ports);
        kept.push(group.map(|(_, endpoints)| {
            let mut stay = Vec::new();
            for old in slice.endpoints.iter().flatten() {
                if let Some(at) = endpoints.iter().position(|e| same_endpoint(e, old)) {
                    stay.push(endpoints.remove(at));
                }
            }
            (ports, stay)
        }));
    }
    let mut fresh: Vec<(Ports, Vec<Endpoint>)> = Vec::new();
    for (ports, mut endpoints) in groups {
        for (_, content) in kept.iter_mut().flatten().filter(|(p, _)| *p == ports) {
            let room = MAX_PER_SLICE.saturating_sub(content.len()).min(endpoints.len());
            content.extend(endpoints.drain(..room));
        }
        while !endpoints.is_empty() {
            let rest = endpoints.split_off(endpoints.len().min(MAX_PER_SLICE));
            fresh.push((ports.clone(), std::mem::replace(&mut endpoints, rest)));
        }
    }
    for slot in &mut kept {
        if slot.as_ref().is_some_and(|(_, content)| content.is_empty()) {
            *slot = None;
        }
    }
    if fresh.is_empty() && kept.iter().all(Option::is_none) {
        // A Service without endpoints has one empty slice.
        fresh.push((Vec::new(), Vec::new()));
    }
    // A slice that is not needed takes what would need a new one.
    for slot in kept.iter_mut().filter(|slot| slot.is_none()) {
        *slot = fresh.pop();
    }
    for (slice, slot) in existing.iter().zip(kept) {
        match slot {
            None => plan.push(remove(slice)),
            Some((ports, endpoints)) => {
                plan.actions.extend(rewrite(observed, slice, &ports, &endpoints).map(Into::into))
            }
        }
    }
    for (ports, endpoints) in fresh {
        let body = body(observed, family, &ports, &endpoints);
        plan.push(Request::create(row("discovery.k8s.io/endpointslices"), behind::ns(&observed.service), body));
    }
}

type Ports = Vec<EndpointPort>;

fn same_endpoint(a: &Endpoint, b: &Endpoint) -> bool {
    let uid = |e: &Endpoint| e.target_ref.as_ref().and_then(|t| t.uid.clone());
    a.addresses == b.addresses && uid(a) == uid(b)
}

/// Endpoints by the ports of their pods.
fn wanted(observed: &Observed, v6: bool) -> Vec<(Ports, Vec<Endpoint>)> {
    let service = &observed.service;
    let unready_too = behind::publishes_unready(service);
    let mut groups: Vec<(Ports, Vec<Endpoint>)> = Vec::new();
    for pod in observed.pods.iter().filter(|p| behind::belongs(p, true)) {
        let Some(ip) = behind::ip(pod, v6) else { continue };
        let node = pods::node_name(pod);
        let known = observed.nodes.iter().find(|n| n.metadata.name.as_deref() == Some(node));
        if known.is_none() && !node.is_empty() && !unready_too {
            continue;
        }
        let serving = pods::is_ready(pod);
        let terminating = pod.metadata.deletion_timestamp.is_some();
        let endpoint = Endpoint {
            addresses: vec![ip],
            conditions: Some(EndpointConditions {
                ready: Some(unready_too || (serving && !terminating)),
                serving: Some(serving),
                terminating: Some(terminating),
            }),
            hostname: behind::hostname(service, pod),
            node_name: (!node.is_empty()).then(|| node.to_owned()),
            zone: known.and_then(|n| n.metadata.labels.as_ref()?.get(behind::ZONE).cloned()),
            target_ref: Some(behind::target_ref(pod)),
            ..Endpoint::default()
        };
        let ports = pod_ports(service, pod);
        match groups.iter_mut().find(|(p, _)| *p == ports) {
            Some((_, endpoints)) => endpoints.push(endpoint),
            None => groups.push((ports, vec![endpoint])),
        }
    }
    groups
}

fn pod_ports(service: &Service, pod: &Pod) -> Ports {
    let port = |p: &k8s_openapi::api::core::v1::ServicePort| {
        Some(EndpointPort {
            name: Some(p.name.clone().unwrap_or_default()),
            port: Some(behind::target_port(p, pod)?),
            protocol: Some(behind::protocol(p.protocol.as_ref()).to_owned()),
            app_protocol: p.app_protocol.clone(),
        })
    };
    behind::ports(service).iter().filter_map(port).collect()
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(behind::HEADLESS);
    if behind::is_headless(service) {
        labels.insert(behind::HEADLESS.into(), String::new());
    }
    labels.insert(behind::SERVICE_NAME.into(), behind::name(service).into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

fn body(observed: &Observed, family: &str, ports: &Ports, endpoints: &[Endpoint]) -> Value {
    let service = &observed.service;
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", behind::name(service)),
            "namespace": behind::ns(service),
            "labels": labels(service),
            "ownerReferences": [owners::reference(row("services"), &service.metadata)],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": ports,
    })
}

/// A patch of the slice when its contents or labels differ; keeps name, owners and annotations.
fn rewrite(observed: &Observed, slice: &EndpointSlice, ports: &Ports, endpoints: &[Endpoint]) -> Option<Request> {
    let wanted = labels(&observed.service);
    let has = slice.metadata.labels.clone().unwrap_or_default();
    let same = slice.ports.as_deref().unwrap_or_default() == ports.as_slice()
        && slice.endpoints.as_deref().unwrap_or_default() == endpoints
        && has == wanted;
    if same {
        return None;
    }
    let mut patched = json!(wanted);
    for gone in has.keys().filter(|k| !wanted.contains_key(*k)) {
        patched[gone] = Value::Null;
    }
    let body = json!({
        "metadata": { "resourceVersion": slice.metadata.resource_version, "labels": patched },
        "endpoints": endpoints,
        "ports": ports,
    });
    let name = slice.metadata.name.as_deref().unwrap_or_default();
    let ns = behind::ns(&observed.service);
    Some(Request::new(Verb::MergePatch, row("discovery.k8s.io/endpointslices"), ns, name, body))
}

fn remove(slice: &EndpointSlice) -> Write {
    let meta = &slice.metadata;
    Write::delete(Request::delete(
        row("discovery.k8s.io/endpointslices"),
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
        meta.uid.as_deref().unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests;
