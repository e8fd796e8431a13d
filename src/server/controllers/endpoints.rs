//! Decides: the Endpoints object of each Service with a selector.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use serde_json::json;

use super::action::{Controller, Enqueue, Moment, Name, Plan, Write};
use super::pods;
use super::service_pods as behind;
use super::stores::{Stores, row};
use crate::client::request::{Class, Request, Verb};

const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
/// Addresses of one object, as upstream (`MaxEndpointsPerSubset` in total); what does not fit is in the slices.
const MAX_ADDRESSES: usize = 1000;

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
        if behind::selector(&service).is_none() || service.metadata.deletion_timestamp.is_some() {
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
    let subsets = subsets(service, selected);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.0.into(), MANAGED_BY.1.into());
    if behind::is_headless(service) {
        labels.insert(behind::HEADLESS.into(), String::new());
    } else {
        labels.remove(behind::HEADLESS);
    }
    let (ns, name) = (behind::ns(service), behind::name(service));
    let mut body = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": { "name": name, "namespace": ns, "labels": labels },
        "subsets": subsets,
    });
    match existing {
        None => {
            let mut write = Write::new(Request::create(row("endpoints"), ns, body));
            write.fine = &[Class::AlreadyExists];
            plan.push(write);
        }
        Some(old) => {
            let same =
                old.subsets.as_deref().unwrap_or_default() == subsets && old.metadata.labels.as_ref() == Some(&labels);
            if !same {
                body["metadata"]["resourceVersion"] = json!(old.metadata.resource_version);
                body["metadata"]["annotations"] = json!(old.metadata.annotations);
                body["metadata"]["ownerReferences"] = json!(old.metadata.owner_references);
                plan.push(Request::new(Verb::Update, row("endpoints"), ns, name, body));
            }
        }
    }
    plan
}

/// Ports that lead to the same addresses share a subset.
fn subsets(service: &Service, selected: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    type Addresses = (Vec<EndpointAddress>, Vec<EndpointAddress>);
    let unready_too = behind::publishes_unready(service);
    let v6 = wants_v6(service);
    // By the port's place in the Service and its number on the pods; `None`: headless without ports.
    let mut by_port: BTreeMap<Option<(usize, i32)>, Addresses> = BTreeMap::new();
    let mut count = 0;
    for pod in selected.iter().filter(|p| behind::belongs(p, unready_too)) {
        let Some(ip) = behind::ip(pod, v6) else { continue };
        if count == MAX_ADDRESSES {
            break;
        }
        count += 1;
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
}
