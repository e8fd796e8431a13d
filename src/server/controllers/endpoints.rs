//! Decides: the Endpoints object of each Service with a selector.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::action::{Controller, Enqueue, Moment, Name, Plan, Report, Write};
use super::service_pods as behind;
use super::stores::{Stores, row};
use super::{owners, pods};
use crate::client::request::{Class, Request, Verb};

const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
/// Addresses of one object, as upstream (`maxCapacity`); what does not fit is in the slices.
const MAX_ADDRESSES: usize = 1000;
const OVER_CAPACITY: (&str, &str) = ("endpoints.kubernetes.io/over-capacity", "truncated");

pub struct EndpointsController;

impl Controller for EndpointsController {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        behind::wire(stores, enqueue);
        let queue = enqueue.clone();
        stores.endpoints.subscribe(move |change| {
            for object in change.each() {
                let (namespace, name) = (object.metadata.namespace.as_deref(), object.metadata.name.as_deref());
                queue.add(namespace.unwrap_or_default(), name.unwrap_or_default());
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, _moment: Moment<'_>) -> Plan {
        let existing = stores.endpoints.get(&key.namespace, &key.name);
        let Some(service) = stores.services.get(&key.namespace, &key.name) else {
            return abandoned(existing.as_deref());
        };
        if behind::selector(&service).is_none() {
            return Plan::nothing();
        }
        let selected = stores.pods.find(&key.namespace, |p| behind::selects(&service, p));
        plan(&service, &selected, existing.as_deref())
    }
}

/// Endpoints that this controller made go with their Service; hand-made ones stay.
fn abandoned(existing: Option<&Endpoints>) -> Plan {
    let mut plan = Plan::default();
    let Some(existing) = existing else { return plan };
    let meta = &existing.metadata;
    let ours = meta.labels.as_ref().is_some_and(|l| l.get(MANAGED_BY.0).is_some_and(|v| v == MANAGED_BY.1));
    if ours && meta.deletion_timestamp.is_none() {
        let (ns, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        plan.push(Write::delete(Request::delete(row("endpoints"), ns, name, meta.uid.as_deref().unwrap_or_default())));
    }
    plan
}

/// Writes the object when it differs from what is there.
#[must_use]
pub fn plan(service: &Service, selected: &[Arc<Pod>], existing: Option<&Endpoints>) -> Plan {
    let mut plan = Plan::default();
    let mut subsets = subsets(service, selected);
    let truncated = truncate(&mut subsets);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.0.into(), MANAGED_BY.1.into());
    if behind::is_headless(service) {
        labels.insert(behind::HEADLESS.into(), String::new());
    } else {
        labels.remove(behind::HEADLESS);
    }
    let mut annotations = existing.and_then(|e| e.metadata.annotations.clone()).unwrap_or_default();
    let same = existing.is_some_and(|old| {
        old.subsets.as_deref().unwrap_or_default() == subsets
            && old.metadata.labels.as_ref() == Some(&labels)
            && annotations.contains_key(OVER_CAPACITY.0) == truncated
    });
    if same {
        return plan;
    }
    let since = trigger_time(service, selected, existing).map(|at| at.to_string());
    for (key, value) in [(OVER_CAPACITY.0, truncated.then(|| OVER_CAPACITY.1.into())), (behind::TRIGGER_TIME, since)] {
        match value {
            Some(value) => annotations.insert(key.into(), value),
            None => annotations.remove(key),
        };
    }
    let (ns, name) = (behind::ns(service), behind::name(service));
    let mut body = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": { "name": name, "namespace": ns, "labels": labels, "annotations": annotations },
        "subsets": subsets,
    });
    match existing {
        None => {
            let meta = ObjectMeta { name: Some(name.into()), namespace: Some(ns.into()), ..ObjectMeta::default() };
            let failed =
                ("FailedToCreateEndpoint", format!("Failed to create endpoint for service {ns}/{name}: {{error}}"));
            let mut write = Write::new(Request::create(row("endpoints"), ns, body)).reported(report(&meta, failed));
            write.fine = &[Class::AlreadyExists];
            plan.push(write);
        }
        Some(old) => {
            body["metadata"]["resourceVersion"] = json!(old.metadata.resource_version);
            body["metadata"]["ownerReferences"] = json!(old.metadata.owner_references);
            let failed = ("FailedToUpdateEndpoint", format!("Failed to update endpoint {ns}/{name}: {{error}}"));
            let update = Request::new(Verb::Update, row("endpoints"), ns, name, body);
            plan.push(Write::new(update).reported(report(&old.metadata, failed)));
        }
    }
    plan
}

fn report(about: &ObjectMeta, failed: (&'static str, String)) -> Report {
    let regarding = owners::object_reference(row("endpoints"), about);
    Report { regarding, component: "endpoint-controller", ok: None, failed: Some(failed) }
}

fn trigger_time(service: &Service, selected: &[Arc<Pod>], existing: Option<&Endpoints>) -> Option<Timestamp> {
    let mut written = HashMap::new();
    for subset in existing.and_then(|e| e.subsets.as_ref()).into_iter().flatten() {
        for (list, ready) in [(&subset.addresses, true), (&subset.not_ready_addresses, false)] {
            let uids = list.iter().flatten().filter_map(|a| a.target_ref.as_ref()?.uid.as_deref());
            written.extend(uids.map(|uid| (uid, ready)));
        }
    }
    let there = selected.iter().filter(|p| behind::belongs(p, behind::publishes_unready(service)));
    behind::trigger_time(service, existing.is_some(), there, &written)
}

/// Leaves out what is too much: those that are not ready first, and of each subset the same share. True when there was
/// too much.
fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|s| count(&s.addresses)).sum();
    let unready: usize = subsets.iter().map(|s| count(&s.not_ready_addresses)).sum();
    if ready + unready <= MAX_ADDRESSES {
        return false;
    }
    let of_ready = ready > MAX_ADDRESSES;
    let (total, most) = if of_ready { (ready, MAX_ADDRESSES) } else { (unready, MAX_ADDRESSES - ready) };
    let mut room = most;
    for subset in subsets {
        if of_ready {
            subset.not_ready_addresses = None;
        }
        let list = if of_ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        let share = (count(list) * most).div_ceil(total).min(room);
        if let Some(addresses) = list {
            addresses.truncate(share);
            room -= addresses.len();
        }
        // An empty list is none: that is how it comes back.
        list.take_if(|l| l.is_empty());
    }
    true
}

/// Ports that lead to the same addresses share a subset.
fn subsets(service: &Service, selected: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    type Addresses = (Vec<EndpointAddress>, Vec<EndpointAddress>);
    let unready_too = behind::publishes_unready(service);
    let v6 = wants_v6(service);
    // By the port's place in the Service and its number on the pods; `None`: headless without ports.
    let mut by_port: BTreeMap<Option<(usize, i32)>, Addresses> = BTreeMap::new();
    for pod in selected.iter().filter(|p| behind::belongs(p, unready_too)) {
        let Some(ip) = behind::ip(pod, v6) else { continue };
        let address = EndpointAddress {
            ip,
            node_name: Some(pods::node_name(pod).to_owned()).filter(|n| !n.is_empty()),
            target_ref: Some(behind::target_ref(pod)),
            hostname: behind::hostname(service, pod),
        };
        let ready = unready_too || pods::is_ready(pod);
        let mut add = |key| {
            let (good, bad) = by_port.entry(key).or_default();
            if ready { good } else { bad }.push(address.clone());
        };
        if behind::ports(service).is_empty() && behind::is_headless(service) {
            add(None);
        }
        for (index, port) in behind::ports(service).iter().enumerate() {
            if let Some(number) = behind::target_port(port, pod) {
                add(Some((index, number)));
            }
        }
    }
    let mut subsets: Vec<EndpointSubset> = Vec::new();
    for (key, (mut good, mut bad)) in by_port {
        for list in [&mut good, &mut bad] {
            list.sort_by_key(|a| {
                (a.ip.parse::<std::net::IpAddr>().ok(), a.target_ref.as_ref().and_then(|t| t.uid.clone()))
            });
        }
        let (good, bad) = ((!good.is_empty()).then_some(good), (!bad.is_empty()).then_some(bad));
        let port = key.map(|(index, number)| endpoint_port(service, index, number));
        let same = subsets.iter_mut().find(|s| s.addresses == good && s.not_ready_addresses == bad);
        match same {
            Some(subset) => subset.ports.get_or_insert_default().extend(port),
            None => {
                subsets.push(EndpointSubset { addresses: good, not_ready_addresses: bad, ports: port.map(|p| vec![p]) })
            }
        }
    }
    subsets
}

fn wants_v6(service: &Service) -> bool {
    let families = service.spec.as_ref().and_then(|s| s.ip_families.as_ref());
    families.and_then(|f| f.first()).is_some_and(|f| f == "IPv6")
}

fn endpoint_port(service: &Service, index: usize, number: i32) -> EndpointPort {
    let port = &behind::ports(service)[index];
    EndpointPort {
        name: port.name.clone().filter(|n| !n.is_empty()),
        port: number,
        protocol: Some(behind::protocol(port.protocol.as_ref()).to_owned()),
        app_protocol: port.app_protocol.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::controllers::action::Action;
    use serde_json::Value;

    fn pod(name: &str, ip: &str, ready: bool, more: Value) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": { "name": name, "namespace": "ns", "uid": name, "labels": { "app": "a" } },
            "spec": { "nodeName": "n1", "containers": [{ "name": "c",
                "ports": [{ "name": "web", "containerPort": 8080, "protocol": "TCP" }] }] },
            "status": { "phase": "Running", "podIP": ip,
                "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] },
        });
        for (path, value) in more.as_object().into_iter().flatten() {
            *pod.pointer_mut(path.rsplit_once('/').unwrap().0).unwrap() = {
                let mut parent = pod.pointer(path.rsplit_once('/').unwrap().0).unwrap().clone();
                parent[path.rsplit_once('/').unwrap().1] = value.clone();
                parent
            };
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn check(spec: Value, pods: &[Arc<Pod>], want: Value) {
        let service: Service =
            serde_json::from_value(json!({ "metadata": { "name": "s", "namespace": "ns", "uid": "s" }, "spec": spec }))
                .unwrap();
        let plan = plan(&service, pods, None);
        let [Action::Write(write)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
        assert_eq!(write.request.body["subsets"], want);
        // What was written is not written again.
        let written: Endpoints = serde_json::from_value(write.request.body.clone()).unwrap();
        assert!(super::plan(&service, pods, Some(&written)).actions.is_empty(), "written again");
    }

    #[test]
    fn subsets_of_ports_and_readiness() {
        let spec = json!({ "selector": { "app": "a" }, "ports": [
            { "name": "http", "port": 80, "targetPort": "web", "protocol": "TCP" },
            { "name": "admin", "port": 81, "targetPort": 9000, "protocol": "TCP" },
        ] });
        let address = |ip: &str, name: &str| {
            json!({ "ip": ip, "nodeName": "n1",
            "targetRef": { "kind": "Pod", "namespace": "ns", "name": name, "uid": name } })
        };
        let ports = json!([
            { "name": "http", "port": 8080, "protocol": "TCP" }, { "name": "admin", "port": 9000, "protocol": "TCP" }]);
        let pods = [
            pod("b", "10.0.0.10", true, json!({})),
            pod("a", "10.0.0.2", true, json!({})),
            pod("c", "10.0.0.3", false, json!({})),
            pod("done", "10.0.0.4", true, json!({ "/status/phase": "Succeeded" })),
            pod("ending", "10.0.0.5", true, json!({ "/metadata/deletionTimestamp": "2026-01-01T00:00:00Z" })),
            pod("starting", "", false, json!({})),
        ];
        check(
            spec.clone(),
            &pods,
            json!([{ "addresses": [address("10.0.0.2", "a"), address("10.0.0.10", "b")],
            "notReadyAddresses": [address("10.0.0.3", "c")], "ports": ports }]),
        );
        let mut all = spec;
        all["publishNotReadyAddresses"] = true.into();
        check(
            all,
            &pods[1..5],
            json!([{ "addresses": [address("10.0.0.2", "a"), address("10.0.0.3", "c"),
            address("10.0.0.5", "ending")], "ports": ports }]),
        );
        check(
            json!({ "selector": { "app": "a" }, "clusterIP": "None" }),
            &pods[..1],
            json!([{ "addresses": [address("10.0.0.10", "b")] }]),
        );
        check(
            json!({ "selector": { "app": "a" }, "ports": [{ "port": 80, "targetPort": "nothing" }] }),
            &pods,
            json!([]),
        );
    }

    #[test]
    fn what_is_too_much_is_left_out_and_said() {
        let service: Service =
            serde_json::from_value(json!({ "metadata": { "name": "s", "namespace": "ns", "uid": "s",
                "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "selector": { "app": "a" }, "ports": [{ "port": 80, "targetPort": 8080 }] } }))
            .unwrap();
        let pods = |count: usize, ready: usize| -> Vec<Arc<Pod>> {
            let pod = |i: usize| pod(&format!("p{i}"), &format!("10.0.{}.{}", i / 250, i % 250), i < ready, json!({}));
            (0..count).map(pod).collect()
        };
        let check = |pods: &[Arc<Pod>], want: (usize, usize), over: bool| {
            let plan = plan(&service, pods, None);
            let [Action::Write(write)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
            let written: Endpoints = serde_json::from_value(write.request.body.clone()).unwrap();
            let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
            let subset = &written.subsets.as_ref().unwrap()[0];
            assert_eq!((count(&subset.addresses), count(&subset.not_ready_addresses)), want);
            let annotations = written.metadata.annotations.clone().unwrap();
            assert_eq!(
                annotations.get("endpoints.kubernetes.io/over-capacity").is_some_and(|v| v == "truncated"),
                over
            );
            assert_eq!(annotations[behind::TRIGGER_TIME], "2026-01-01T00:00:00Z");
            assert!(super::plan(&service, pods, Some(&written)).actions.is_empty(), "written again");
            written
        };
        check(&pods(1000, 900), (900, 100), false);
        check(&pods(1200, 900), (900, 100), true);
        let over = check(&pods(1200, 1100), (1000, 0), true);
        // With fewer pods the annotation goes.
        let plan = plan(&service, &pods(3, 3), Some(&over));
        let [Action::Write(write)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
        assert_eq!(write.request.body["metadata"]["annotations"], json!({}));
    }

    #[test]
    fn subsets_are_cut_by_their_share() {
        let subset = |count: usize, name: &str| EndpointSubset {
            addresses: Some(vec![EndpointAddress::default(); count]),
            ports: Some(vec![EndpointPort { name: Some(name.into()), ..EndpointPort::default() }]),
            ..EndpointSubset::default()
        };
        let mut subsets = [subset(900, "a"), subset(300, "b"), subset(300, "c")];
        assert!(truncate(&mut subsets));
        let sizes = subsets.each_ref().map(|s| s.addresses.as_ref().map_or(0, Vec::len));
        assert_eq!(sizes, [600, 200, 200]);
    }
}
