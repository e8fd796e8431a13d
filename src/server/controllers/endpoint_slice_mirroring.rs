//! Decides: Endpoints that were written by hand, for a Service without a selector, are there as EndpointSlices too
//! (`pkg/controller/endpointslicemirroring`): one slice for each set of ports and family of addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{self as core, EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use serde_json::{Value, json};

use super::action::{Action, Controller, Enqueue, Moment, Name, Note, Plan, Write};
use super::owners;
use super::service_pods::SERVICE_NAME;
use super::stores::{Stores, row};
use crate::client::request::{Request, Verb};
use crate::client::store::Meta as _;

const SLICES: &str = "discovery.k8s.io/endpointslices";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints were locks once: those change every few seconds and have no addresses.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are about the Endpoints, not about what is in them.
const NOT_COPIED: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];
/// Addresses of one set of ports (`--mirroring-max-endpoints-per-subset`).
const MAX_PER_SUBSET: usize = 1000;

/// Keys are Endpoints.
pub struct EndpointSliceMirroring;

impl Controller for EndpointSliceMirroring {
    fn name(&self) -> &'static str {
        "endpointslicemirroring"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.endpoints.subscribe(move |change| {
            if let Some(endpoints) = change.each().find(|e| mirrored(e)) {
                queue.add(endpoints.metadata.namespace(), endpoints.metadata.name());
            }
        });
        let queue = enqueue.clone();
        stores.services.subscribe(move |change| {
            let selecting = |service: Option<&Arc<Service>>| service.map(|s| selects(s));
            let (old, new) = (selecting(change.old), selecting(change.new));
            if let Some(service) = change.each().next().filter(|_| old != new && (old, new) != (None, Some(true))) {
                queue.add(service.metadata.namespace(), service.metadata.name());
            }
        });
        let queue = enqueue.clone();
        stores.slices.subscribe(move |change| {
            for slice in change.each() {
                if let Some(name) = mirror_of(slice) {
                    queue.add(slice.metadata.namespace(), name);
                }
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, _: Moment<'_>) -> Plan {
        let slices = stores.slices.find(&key.namespace, |s| mirror_of(s) == Some(&*key.name) && !s.metadata.deleting());
        let service = stores.services.get(&key.namespace, &key.name).filter(|s| !selects(s));
        let endpoints = stores.endpoints.get(&key.namespace, &key.name).filter(|e| mirrored(e));
        match (endpoints, service) {
            (Some(endpoints), Some(_)) => plan(&endpoints, &slices),
            _ => Plan { actions: slices.iter().map(|s| remove(s).into()).collect(), again: None },
        }
    }
}

fn selects(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.selector.as_ref()).is_some_and(|s| !s.is_empty())
}

fn mirrored(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    let skipped = meta.labels.as_ref().and_then(|l| l.get(SKIP)).is_some_and(|v| v == "true");
    !skipped && !meta.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER))
}

/// The name of the Endpoints that a slice of this controller mirrors.
fn mirror_of(slice: &EndpointSlice) -> Option<&str> {
    let labels = slice.metadata.labels.as_ref()?;
    labels.get(MANAGED_BY).filter(|manager| *manager == MANAGER)?;
    labels.get(SERVICE_NAME).map(String::as_str)
}

/// What a slice is to hold.
#[derive(Debug, PartialEq)]
struct Wanted {
    family: &'static str,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
}

fn plan(endpoints: &Endpoints, slices: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let (mut wanted, skipped) = wanted(endpoints);
    let mut spare: Vec<&Arc<EndpointSlice>> = slices.iter().collect();
    // A slice stays what it is if anything of its ports and family remains.
    let mut pairs = Vec::new();
    wanted.retain_mut(|w| {
        let Some(at) = spare.iter().position(|s| s.address_type == w.family && sorted(s) == w.ports) else {
            return true;
        };
        let of = std::mem::replace(w, Wanted { family: "", ports: Vec::new(), endpoints: Vec::new() });
        pairs.push((spare.remove(at), of));
        false
    });
    // One that nobody needs becomes what would have to be made.
    wanted.retain_mut(|w| {
        let Some(at) = spare.iter().position(|s| s.address_type == w.family) else { return true };
        let of = std::mem::replace(w, Wanted { family: "", ports: Vec::new(), endpoints: Vec::new() });
        pairs.push((spare.remove(at), of));
        false
    });
    if !endpoints.metadata.deleting() {
        for w in &wanted {
            plan.push(Request::create(row(SLICES), endpoints.metadata.namespace(), body(endpoints, w)));
        }
    }
    for (slice, w) in &pairs {
        plan.actions.extend(rewrite(endpoints, slice, w).map(Action::from));
    }
    plan.actions.extend(spare.into_iter().map(|s| remove(s).into()));
    if !plan.actions.is_empty() {
        tell(endpoints, skipped, &mut plan);
    }
    plan
}

fn sorted(slice: &EndpointSlice) -> Vec<EndpointPort> {
    let mut ports = slice.ports.clone().unwrap_or_default();
    ports.sort_by_key(|p| (p.name.clone(), p.port, p.protocol.clone(), p.app_protocol.clone()));
    ports
}

/// Addresses that are not mirrored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Skipped {
    invalid: usize,
    too_many: usize,
}

/// By what makes it the same port.
type Port = (Option<String>, i32, String, Option<String>);
/// Address, and uid of what is behind it.
type Key = (String, String);

/// Ports that lead to the same addresses share a slice; who is not ready on one of two equal ports is not ready.
fn wanted(endpoints: &Endpoints) -> (Vec<Wanted>, Skipped) {
    let mut addresses: BTreeMap<Key, &EndpointAddress> = BTreeMap::new();
    let mut by_port: BTreeMap<Option<Port>, BTreeMap<Key, bool>> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        for (address, ready) in of_subset(subset) {
            let uid = address.target_ref.as_ref().and_then(|t| t.uid.clone()).unwrap_or_default();
            let key = (address.ip.clone(), uid);
            addresses.entry(key.clone()).or_insert(address);
            for port in ports(subset) {
                let before = by_port.entry(port).or_default().entry(key.clone()).or_insert(ready);
                *before &= ready;
            }
        }
    }
    let mut by_addresses: BTreeMap<BTreeMap<Key, bool>, Vec<Port>> = BTreeMap::new();
    for (port, at) in by_port {
        by_addresses.entry(at).or_default().extend(port);
    }
    let (mut all, mut skipped) = (Vec::new(), Skipped::default());
    for (at, ports) in by_addresses {
        // Those that are ready first: if some have to be left out, then others.
        let (ready, unready): (Vec<_>, Vec<_>) = at.into_iter().partition(|(_, ready)| *ready);
        let mut families = [("IPv4", Vec::new()), ("IPv6", Vec::new())];
        let mut count = 0;
        for (key, ready) in ready.into_iter().chain(unready) {
            if count == MAX_PER_SUBSET {
                skipped.too_many += 1;
                continue;
            }
            match endpoint(addresses[&key], ready) {
                Some((v6, endpoint)) => {
                    families[usize::from(v6)].1.push(endpoint);
                    count += 1;
                }
                None => skipped.invalid += 1,
            }
        }
        let ports: Vec<EndpointPort> = ports.into_iter().map(slice_port).collect();
        let full = families.into_iter().filter(|(_, endpoints)| !endpoints.is_empty());
        all.extend(full.map(|(family, endpoints)| Wanted { family, ports: ports.clone(), endpoints }));
    }
    (all, skipped)
}

fn of_subset(subset: &EndpointSubset) -> impl Iterator<Item = (&EndpointAddress, bool)> {
    let ready = subset.addresses.iter().flatten().map(|a| (a, true));
    ready.chain(subset.not_ready_addresses.iter().flatten().map(|a| (a, false)))
}

/// `None` stands for no port at all.
fn ports(subset: &EndpointSubset) -> Vec<Option<Port>> {
    let key = |p: &core::EndpointPort| {
        let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into());
        Some((Some(p.name.clone().unwrap_or_default()), p.port, protocol, p.app_protocol.clone()))
    };
    let all: Vec<_> = subset.ports.iter().flatten().map(key).collect();
    if all.is_empty() { vec![None] } else { all }
}

fn slice_port((name, port, protocol, app_protocol): Port) -> EndpointPort {
    EndpointPort { name, port: Some(port), protocol: Some(protocol), app_protocol }
}

/// With whether it is of IPv6.
fn endpoint(address: &EndpointAddress, ready: bool) -> Option<(bool, Endpoint)> {
    let ip: IpAddr = address.ip.parse::<IpAddr>().ok()?.to_canonical();
    let endpoint = Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|h| !h.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    };
    Some((ip.is_ipv6(), endpoint))
}

fn labels(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), endpoints.metadata.name().into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

fn annotations(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !NOT_COPIED.contains(&name.as_str()));
    annotations
}

fn body(endpoints: &Endpoints, wanted: &Wanted) -> Value {
    let meta = &endpoints.metadata;
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", meta.name()),
            "namespace": meta.namespace(),
            "labels": labels(endpoints),
            "annotations": annotations(endpoints),
            "ownerReferences": [owners::reference(row("endpoints"), meta)],
        },
        "addressType": wanted.family,
        "endpoints": wanted.endpoints,
        "ports": wanted.ports,
    })
}

fn rewrite(endpoints: &Endpoints, slice: &EndpointSlice, wanted: &Wanted) -> Option<Request> {
    let meta = &slice.metadata;
    let same = slice.endpoints.as_deref().unwrap_or_default() == wanted.endpoints
        && sorted(slice) == wanted.ports
        && meta.labels.clone().unwrap_or_default() == labels(endpoints)
        && meta.annotations.clone().unwrap_or_default() == annotations(endpoints);
    if same {
        return None;
    }
    let mut body = body(endpoints, wanted);
    body["metadata"]["name"] = json!(meta.name);
    body["metadata"]["uid"] = json!(meta.uid);
    body["metadata"]["resourceVersion"] = json!(meta.resource_version);
    Some(Request::new(Verb::Update, row(SLICES), meta.namespace(), meta.name(), body))
}

fn remove(slice: &EndpointSlice) -> Write {
    let meta = &slice.metadata;
    Write::delete(Request::delete(row(SLICES), meta.namespace(), meta.name(), meta.uid()))
}

fn tell(endpoints: &Endpoints, skipped: Skipped, plan: &mut Plan) {
    let mut note = |reason, message| {
        let regarding = owners::object_reference(row("endpoints"), &endpoints.metadata);
        let component = "endpoint-slice-mirroring-controller";
        plan.push(Action::Event(Note { regarding, warning: true, reason, message, component, action: "" }));
    };
    if skipped.invalid > 0 {
        let message = format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", skipped.invalid);
        note("InvalidIPAddress", message);
    }
    if skipped.too_many > 0 {
        let all = skipped.too_many + skipped.invalid;
        let message = format!(
            "A max of {MAX_PER_SUBSET} addresses can be mirrored to EndpointSlices per Endpoints subset. {all} addresses \
             were skipped"
        );
        note("TooManyAddressesToMirror", message);
    }
}

#[cfg(test)]
mod tests;
