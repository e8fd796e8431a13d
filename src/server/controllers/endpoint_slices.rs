//! Decides: the EndpointSlices of each Service with a selector.
//!
//! - [`packing`]: which endpoints share a slice; those of a group have the same ports
//! - [`hints`]: which clients an endpoint is for

mod hints;
mod packing;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use serde_json::{Value, json};

use self::hints::{Mode, Slot};
use self::packing::Existing;
use super::action::{Action, Controller, Enqueue, Moment, Name, Note, Plan, Write};
use super::service_pods as behind;
use super::stores::{Stores, row};
use super::{owners, pods};
use crate::client::request::{Request, Verb};
use crate::client::store::Meta as _;

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const SLICES: &str = "discovery.k8s.io/endpointslices";

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
            let capacity = |n: Option<&Arc<Node>>| n.and_then(|n| hints::capacity(n));
            let all = zone(change.old) != zone(change.new);
            // What other nodes can do counts where hints share out all endpoints.
            if all || capacity(change.old) != capacity(change.new) {
                for service in services.all().iter().filter(|s| all || hints::mode(s) == Mode::Auto) {
                    queue.add(behind::ns(service), behind::name(service));
                }
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, _moment: Moment<'_>) -> Plan {
        // Slices of a Service that is gone are collected as its dependents.
        let Some(service) = stores.services.get(&key.namespace, &key.name) else { return Plan::nothing() };
        if behind::selector(&service).is_none() {
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
    let families = families(&observed.service);
    let mut hinted = observed.slices.iter().flat_map(|s| s.endpoints.iter().flatten()).any(|e| e.hints.is_some());
    for family in &families {
        plan_family(observed, family, &mut hinted, &mut plan);
    }
    for slice in observed.slices.iter().filter(|s| !families.contains(&&*s.address_type)) {
        plan.push(remove(slice));
    }
    plan
}

/// The server fills these in; a headless Service that it has yet to fill in may have both.
fn families(service: &Service) -> Vec<&str> {
    let spec = service.spec.as_ref();
    let told = spec.and_then(|s| s.ip_families.as_deref()).unwrap_or_default();
    match spec.and_then(|s| s.cluster_ip.as_deref()) {
        _ if !told.is_empty() => told.iter().map(String::as_str).collect(),
        None | Some("" | "None") => vec!["IPv4", "IPv6"],
        Some(ip) if ip.contains(':') => vec!["IPv6"],
        Some(_) => vec!["IPv4"],
    }
}

/// A slice as it is to be; `slice` is absent for a new one.
struct Draft<'a> {
    slice: Option<&'a EndpointSlice>,
    ports: Ports,
    slot: Slot,
}

fn plan_family(observed: &Observed, family: &str, hinted: &mut bool, plan: &mut Plan) {
    let of_family = observed.slices.iter().filter(|s| s.address_type == family);
    // Those of an earlier Service of that name are being collected.
    let (ours, foreign): (Vec<_>, Vec<_>) = of_family.map(|s| &**s).partition(|s| owned(observed, s));
    let (mut drafts, mut gone) = drafts(observed, family, &ours);
    let note = hint(observed, family, &mut drafts, hinted);
    if drafts.is_empty() {
        // A Service without endpoints has one empty slice.
        drafts.push(Draft { slice: None, ports: Vec::new(), slot: Slot { endpoints: Vec::new(), written: true } });
    }
    // A slice that is not needed takes what would need a new one.
    for draft in drafts.iter_mut().rev().filter(|d| d.slice.is_none()) {
        draft.slice = gone.pop();
    }
    let since = trigger_time(observed, family, &ours);
    let before = plan.actions.len();
    // Nothing new for a Service that is going: its slices are being collected.
    if observed.service.metadata.deletion_timestamp.is_none() {
        for draft in drafts.iter().filter(|d| d.slice.is_none()) {
            let body = body(observed, family, draft, since);
            plan.push(Request::create(row(SLICES), behind::ns(&observed.service), body));
        }
    }
    let written = drafts.iter().filter_map(|draft| rewrite(observed, draft.slice?, draft, since));
    plan.actions.extend(written.map(Action::from));
    plan.actions.extend(gone.into_iter().chain(foreign).map(|slice| remove(slice).into()));
    // Told with what it changes: it would be true each time.
    if plan.actions.len() > before {
        plan.actions.extend(note.map(Action::Event));
    }
}

fn owned(observed: &Observed, slice: &EndpointSlice) -> bool {
    let uid = &observed.service.metadata.uid;
    let owners = slice.metadata.owner_references.iter().flatten();
    owners.into_iter().any(|o| Some(&o.uid) == uid.as_ref() && o.kind == "Service" && o.api_version == "v1")
}

/// What the slices are to have, and those that are not needed.
fn drafts<'a>(
    observed: &Observed,
    family: &str,
    ours: &[&'a EndpointSlice],
) -> (Vec<Draft<'a>>, Vec<&'a EndpointSlice>) {
    let groups = wanted(observed, family == "IPv6");
    let keep_hints = hints::mode(&observed.service) == Mode::Auto;
    let labels = labels(&observed.service);
    let ports_of = |slice: &EndpointSlice| sorted(slice.ports.clone().unwrap_or_default());
    let mut drafts: Vec<Draft<'a>> = Vec::new();
    let mut gone: Vec<&EndpointSlice> = ours
        .iter()
        .copied()
        .filter(|s| !groups.iter().any(|(ports, _)| sorted(ports.clone()) == ports_of(s)))
        .collect();
    for (ports, endpoints) in groups {
        let key = sorted(ports.clone());
        let slices: Vec<&EndpointSlice> = ours.iter().copied().filter(|s| ports_of(s) == key).collect();
        let existing: Vec<Existing<'_>> = slices
            .iter()
            .map(|s| Existing {
                endpoints: s.endpoints.as_deref().unwrap_or_default(),
                dirty: s.metadata.labels.as_ref() != Some(&labels),
            })
            .collect();
        let packed = packing::pack(&existing, &endpoints, keep_hints);
        for (slice, endpoints) in slices.into_iter().zip(packed.kept) {
            if endpoints.is_empty() {
                gone.push(slice);
                continue;
            }
            let written = endpoints != slice.endpoints.as_deref().unwrap_or_default();
            let ports = slice.ports.clone().unwrap_or_default();
            drafts.push(Draft { slice: Some(slice), ports, slot: Slot { endpoints, written } });
        }
        let new = packed.new.into_iter().map(|endpoints| Slot { endpoints, written: true });
        drafts.extend(new.map(|slot| Draft { slice: None, ports: ports.clone(), slot }));
    }
    (drafts, gone)
}

/// Hints that depend on all endpoints together, and what to say about it.
fn hint(observed: &Observed, family: &str, drafts: &mut [Draft<'_>], hinted: &mut bool) -> Option<Note> {
    if hints::mode(&observed.service) != Mode::Auto {
        return None;
    }
    let empty = || Slot { endpoints: Vec::new(), written: false };
    let mut slots: Vec<Slot> = drafts.iter_mut().map(|d| std::mem::replace(&mut d.slot, empty())).collect();
    let failed = hints::allocate(&observed.nodes, &mut slots).err();
    for (draft, mut slot) in drafts.iter_mut().zip(slots) {
        if failed.is_some() {
            slot.endpoints.iter_mut().for_each(|e| e.hints = None);
        }
        draft.slot = slot;
    }
    let (warning, reason, message) = match failed {
        Some(why) => (true, "TopologyAwareHintsDisabled", why),
        None if *hinted => return None,
        None => (false, "TopologyAwareHintsEnabled", "Topology Aware Hints has been enabled".to_owned()),
    };
    *hinted |= !warning;
    Some(Note {
        regarding: owners::object_reference(row("services"), &observed.service.metadata),
        warning,
        reason,
        message: format!("{message}, addressType: {family}"),
        component: "endpoint-slice-controller",
        action: "",
    })
}

fn trigger_time(observed: &Observed, family: &str, ours: &[&EndpointSlice]) -> Option<Timestamp> {
    let serving = |e: &Endpoint| e.conditions.as_ref().and_then(|c| c.serving) == Some(true);
    let endpoints = ours.iter().flat_map(|s| s.endpoints.iter().flatten());
    let written: HashMap<&str, bool> =
        endpoints.filter_map(|e| Some((e.target_ref.as_ref()?.uid.as_deref()?, serving(e)))).collect();
    let v6 = family == "IPv6";
    let there = observed.pods.iter().filter(|p| behind::belongs(p, true) && behind::ip(p, v6).is_some());
    behind::trigger_time(&observed.service, !ours.is_empty(), there, &written)
}

type Ports = Vec<EndpointPort>;

/// The same ports in one order: a Service that names them in another needs no other slices.
fn sorted(mut ports: Ports) -> Ports {
    ports.sort_by(|a, b| (&a.name, a.port, &a.protocol).cmp(&(&b.name, b.port, &b.protocol)));
    ports
}

/// Endpoints by the ports of their pods.
fn wanted(observed: &Observed, v6: bool) -> Vec<(Ports, Vec<Endpoint>)> {
    let service = &observed.service;
    let unready_too = behind::publishes_unready(service);
    let mode = hints::mode(service);
    let nodes: HashMap<&str, &Node> = observed.nodes.iter().map(|n| (n.metadata.name(), &**n)).collect();
    let mut groups: Vec<(Ports, Vec<Endpoint>)> = Vec::new();
    for pod in observed.pods.iter().filter(|p| behind::belongs(p, true)) {
        let Some(ip) = behind::ip(pod, v6) else { continue };
        let node = pods::node_name(pod);
        let known = nodes.get(node);
        if known.is_none() && !node.is_empty() && !unready_too {
            continue;
        }
        let serving = pods::is_ready(pod);
        let terminating = pod.metadata.deletion_timestamp.is_some();
        let mut endpoint = Endpoint {
            addresses: vec![ip],
            conditions: Some(EndpointConditions {
                ready: Some(unready_too || (serving && !terminating)),
                serving: Some(serving),
                terminating: Some(terminating),
            }),
            hostname: behind::hostname(service, pod),
            node_name: (!node.is_empty()).then(|| node.to_owned()),
            zone: known.and_then(|n| n.metadata.labels.as_ref()?.get(behind::ZONE).filter(|z| !z.is_empty()).cloned()),
            target_ref: Some(behind::target_ref(pod)),
            ..Endpoint::default()
        };
        endpoint.hints = hints::near(&endpoint, mode);
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

fn body(observed: &Observed, family: &str, draft: &Draft<'_>, since: Option<Timestamp>) -> Value {
    let service = &observed.service;
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", behind::name(service)),
            "namespace": behind::ns(service),
            "labels": labels(service),
            "annotations": since.map(|at| json!({ behind::TRIGGER_TIME: at.to_string() })),
            "ownerReferences": [owners::reference(row("services"), &service.metadata)],
        },
        "addressType": family,
        "endpoints": draft.slot.endpoints,
        "ports": draft.ports,
    })
}

/// A patch of the slice when its contents or labels differ; keeps name, owners and other annotations.
fn rewrite(observed: &Observed, slice: &EndpointSlice, draft: &Draft<'_>, since: Option<Timestamp>) -> Option<Request> {
    let wanted = labels(&observed.service);
    let has = slice.metadata.labels.clone().unwrap_or_default();
    let same = slice.ports.as_deref().unwrap_or_default() == draft.ports.as_slice()
        && slice.endpoints.as_deref().unwrap_or_default() == draft.slot.endpoints
        && has == wanted;
    if same {
        return None;
    }
    let mut patched = json!(wanted);
    for gone in has.keys().filter(|k| !wanted.contains_key(*k)) {
        patched[gone] = Value::Null;
    }
    let body = json!({
        "metadata": {
            "resourceVersion": slice.metadata.resource_version,
            "labels": patched,
            "annotations": { behind::TRIGGER_TIME: since.map(|at| at.to_string()) },
        },
        "endpoints": draft.slot.endpoints,
        "ports": draft.ports,
    });
    Some(Request::new(Verb::MergePatch, row(SLICES), behind::ns(&observed.service), slice.metadata.name(), body))
}

fn remove(slice: &EndpointSlice) -> Write {
    let meta = &slice.metadata;
    Write::delete(Request::delete(row(SLICES), meta.namespace(), meta.name(), meta.uid()))
}

#[cfg(test)]
mod tests;
