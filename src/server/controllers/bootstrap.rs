//! Decides: the objects that every cluster has: system namespaces, priority classes, the `kubernetes` and `kube-dns`
//! Services. Made when they are missing, at start and whenever somebody deletes one.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::ControllersConfig;
use super::action::{Controller, Enqueue, Moment, Name, Plan, Write};
use super::persistent_volumes::LOCAL_PATH;
use super::stores::{Stores, row};
use crate::api::priority_class::SYSTEM_CLASSES;
use crate::api::resource::Resource;
use crate::api::storage_class::IS_DEFAULT;
use crate::client::request::{Class, Request, Verb};
use crate::client::store::{Kind as _, View};

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// One object that must exist.
struct Wanted {
    resource: &'static Resource,
    namespace: &'static str,
    name: &'static str,
    body: Value,
    /// Brought back to this form when it differs: it says where the API is, which may change.
    exact: bool,
}

/// The key of each object is its place in the table.
pub struct Bootstrap {
    wanted: Vec<Wanted>,
}

impl Bootstrap {
    #[must_use]
    pub fn new(config: &ControllersConfig) -> Self {
        let mut wanted = Vec::new();
        for name in NAMESPACES {
            wanted.push(Wanted {
                resource: row("namespaces"),
                namespace: "",
                name,
                body: json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }),
                exact: false,
            });
        }
        for (name, value, description) in SYSTEM_CLASSES {
            wanted.push(Wanted {
                resource: row("scheduling.k8s.io/priorityclasses"),
                namespace: "",
                name,
                body: json!({
                    "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": { "name": name },
                    "value": value, "globalDefault": false, "description": description,
                }),
                exact: false,
            });
        }
        wanted.extend(api_service(config));
        wanted.push(dns_service(config));
        wanted.extend(config.local_storage.then(local_storage_class));
        Self { wanted }
    }
}

fn api_service(config: &ControllersConfig) -> [Wanted; 3] {
    let address = config.advertise_address.to_string();
    let family = if config.advertise_address.is_ipv4() { "IPv4" } else { "IPv6" };
    // The first address of the range is the API's, as the certificates say too.
    let first = std::net::Ipv4Addr::from(u32::from(config.cluster.service_cidr.address) + 1);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "kubernetes", "namespace": "default",
            "labels": { "component": "apiserver", "provider": "kubernetes" } },
        "spec": { "type": "ClusterIP", "clusterIP": first, "clusterIPs": [first], "sessionAffinity": "None",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": config.port }] },
    });
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": { "name": "kubernetes", "namespace": "default",
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" } },
        "subsets": [{ "addresses": [{ "ip": address }],
            "ports": [{ "name": "https", "port": config.port, "protocol": "TCP" }] }],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "kubernetes", "namespace": "default",
            "labels": { "kubernetes.io/service-name": "kubernetes" } },
        "addressType": family,
        "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "port": config.port, "protocol": "TCP" }],
    });
    [("services", service, false), ("endpoints", endpoints, true), ("discovery.k8s.io/endpointslices", slice, true)]
        .map(|(storage, body, exact)| Wanted {
            resource: row(storage),
            namespace: "default",
            name: "kubernetes",
            body,
            exact,
        })
}

/// As k3s brings it: the default class, until somebody says otherwise.
fn local_storage_class() -> Wanted {
    let body = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": { "name": "local-path",
            "annotations": { IS_DEFAULT[0]: "true" } },
        "provisioner": LOCAL_PATH,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    let resource = row("storage.k8s.io/storageclasses");
    Wanted { resource, namespace: "", name: "local-path", body, exact: false }
}

/// Every node answers on the cluster DNS address itself, so the Service selects no pods.
fn dns_service(config: &ControllersConfig) -> Wanted {
    let address = config.cluster.cluster_dns;
    let body = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "kube-dns", "namespace": "kube-system", "labels": {
            "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS" } },
        "spec": { "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "sessionAffinity": "None",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "ports": [
            { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53 },
            { "name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53 },
        ] },
    });
    Wanted { resource: row("services"), namespace: "kube-system", name: "kube-dns", body, exact: false }
}

impl Controller for Bootstrap {
    fn name(&self) -> &'static str {
        "bootstrap"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        for index in 0..self.wanted.len() {
            enqueue.add("", &index.to_string());
        }
        let keys = |storage: &str| -> Vec<(usize, &'static str, &'static str)> {
            let all = self.wanted.iter().enumerate();
            all.filter(|(_, w)| w.resource.storage == storage).map(|(i, w)| (i, w.namespace, w.name)).collect()
        };
        macro_rules! watch {
            ($store:expr) => {{
                let (queue, keys) = (enqueue.clone(), keys($store.resource().storage));
                $store.subscribe(move |change| {
                    for object in change.each() {
                        let meta = object.meta();
                        for (index, ..) in
                            keys.iter().filter(|(_, ns, name)| (meta.namespace(), meta.name()) == (*ns, *name))
                        {
                            queue.add("", &index.to_string());
                        }
                    }
                });
            }};
        }
        watch!(stores.namespaces);
        let (queue, inside) = (enqueue.clone(), self.wanted.iter().map(|w| w.namespace).collect::<Vec<_>>());
        stores.namespaces.subscribe(move |change| {
            // A namespace came: what belongs into it can be made now.
            let (None, Some(new)) = (change.old, change.new) else { return };
            for (index, _) in inside.iter().enumerate().filter(|(_, ns)| new.metadata.name.as_deref() == Some(**ns)) {
                queue.add("", &index.to_string());
            }
        });
        watch!(stores.services);
        watch!(stores.endpoints);
        watch!(stores.slices);
        watch!(stores.storage_classes);
        if let Some(priorities) = stores.other("scheduling.k8s.io/priorityclasses") {
            watch!(priorities);
        }
    }

    fn plan(&self, stores: &Stores, key: &Name, _moment: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(wanted) = key.name.parse::<usize>().ok().and_then(|i| self.wanted.get(i)) else { return plan };
        let (ns, name) = (wanted.namespace, wanted.name);
        // Its namespace is made by this controller too and must be there first.
        if !ns.is_empty() && stores.namespaces.get("", ns).is_none() {
            return plan;
        }
        match wanted.resource.storage {
            "namespaces" if stores.namespaces.get("", name).is_some() => {}
            "services" if stores.services.get(ns, name).is_some() => {}
            "endpoints" => exact(wanted, stores.endpoints.get(ns, name).map(|e| endpoints_value(&e)), &mut plan),
            "discovery.k8s.io/endpointslices" => {
                exact(wanted, stores.slices.get(ns, name).map(|s| slice_value(&s)), &mut plan);
            }
            "storage.k8s.io/storageclasses" if stores.storage_classes.get("", name).is_some() => {}
            storage if stores.other(storage).is_some_and(|s| s.get(ns, name).is_some()) => {}
            _ => create(wanted, &mut plan),
        }
        plan
    }
}

fn create(wanted: &Wanted, plan: &mut Plan) {
    let mut write = Write::new(Request::create(wanted.resource, wanted.namespace, wanted.body.clone()));
    write.fine = &[Class::AlreadyExists];
    plan.push(write);
}

fn endpoints_value(endpoints: &Endpoints) -> Value {
    json!({ "subsets": endpoints.subsets })
}

fn slice_value(slice: &EndpointSlice) -> Value {
    json!({ "endpoints": slice.endpoints, "ports": slice.ports })
}

fn exact(wanted: &Wanted, has: Option<Value>, plan: &mut Plan) {
    let Some(has) = has else { return create(wanted, plan) };
    let Some(has) = has.as_object() else { return };
    let differs = wanted.exact && has.iter().any(|(k, v)| wanted.body.get(k) != Some(v));
    if differs {
        let body: Value =
            has.keys().map(|k| (k.clone(), wanted.body[k].clone())).collect::<serde_json::Map<_, _>>().into();
        plan.push(Request::new(Verb::MergePatch, wanted.resource, wanted.namespace, wanted.name, body));
    }
}
