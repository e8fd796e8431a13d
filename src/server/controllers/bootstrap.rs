//! Decides: the objects that every cluster has: system namespaces, priority classes, the `kubernetes` and `kube-dns`
//! Services. Made when they are missing, at start and whenever somebody deletes one.

use std::net::IpAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::ControllersConfig;
use super::action::{Controller, Enqueue, Moment, Name, Plan, Write};
use super::persistent_volumes::LOCAL_PATH;
use super::stores::{Stores, row};
use crate::api::priority_class::SYSTEM_CLASSES;
use crate::api::resource::Resource;
use crate::api::storage_class::IS_DEFAULT;
use crate::client::request::{Class, Request, Verb};
use crate::client::store::{Kind as _, View};
use crate::config::Cluster;

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
    cluster: Cluster,
    advertised: watch::Receiver<IpAddr>,
    port: u16,
    local_storage: bool,
}

impl Bootstrap {
    #[must_use]
    pub fn new(config: &ControllersConfig) -> Self {
        Self {
            cluster: config.cluster.clone(),
            advertised: config.advertised.clone(),
            port: config.port,
            local_storage: config.local_storage,
        }
    }

    /// The table, as it is with the address of now.
    fn wanted(&self) -> Vec<Wanted> {
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
        wanted.extend(api_service(&self.cluster, *self.advertised.borrow(), self.port));
        wanted.push(dns_service(&self.cluster));
        wanted.extend(self.local_storage.then(local_storage_class));
        wanted
    }
}

/// There is one server: what is said of others is left over from its own earlier addresses.
fn api_service(cluster: &Cluster, address: IpAddr, port: u16) -> [Wanted; 3] {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    // The first address of the range is the API's, as the certificates say too.
    let first = std::net::Ipv4Addr::from(u32::from(cluster.service_cidr.address) + 1);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "kubernetes", "namespace": "default",
            "labels": { "component": "apiserver", "provider": "kubernetes" } },
        "spec": { "type": "ClusterIP", "clusterIP": first, "clusterIPs": [first], "sessionAffinity": "None",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": port }] },
    });
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": { "name": "kubernetes", "namespace": "default",
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" } },
        "subsets": [{ "addresses": [{ "ip": address }],
            "ports": [{ "name": "https", "port": port, "protocol": "TCP" }] }],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "kubernetes", "namespace": "default",
            "labels": { "kubernetes.io/service-name": "kubernetes" } },
        "addressType": family,
        "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
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
fn dns_service(cluster: &Cluster) -> Wanted {
    let address = cluster.cluster_dns;
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
        let wanted = self.wanted();
        for index in 0..wanted.len() {
            enqueue.add("", &index.to_string());
        }
        let keys = |storage: &str| -> Vec<(usize, &'static str, &'static str)> {
            let all = wanted.iter().enumerate();
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
        let (queue, inside) = (enqueue.clone(), wanted.iter().map(|w| w.namespace).collect::<Vec<_>>());
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

    fn follow(&self, enqueue: Enqueue) -> Option<BoxFuture<'static, ()>> {
        let mut advertised = self.advertised.clone();
        let about: Vec<usize> = self.wanted().iter().enumerate().filter(|(_, w)| w.exact).map(|(i, _)| i).collect();
        Some(Box::pin(async move {
            while advertised.changed().await.is_ok() {
                about.iter().for_each(|index| enqueue.add("", &index.to_string()));
            }
        }))
    }

    fn plan(&self, stores: &Stores, key: &Name, _moment: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let table = self.wanted();
        let Some(wanted) = key.name.parse::<usize>().ok().and_then(|i| table.get(i)) else { return plan };
        let (ns, name) = (wanted.namespace, wanted.name);
        // Its namespace is made by this controller too and must be there first.
        if !ns.is_empty() && stores.namespaces.get("", ns).is_none() {
            return plan;
        }
        match wanted.resource.storage {
            "namespaces" if stores.namespaces.get("", name).is_some() => {}
            "services" if stores.services.get(ns, name).is_some() => {}
            "endpoints" => exact(wanted, stores.endpoints.get(ns, name).map(|e| endpoints_value(&e)), &mut plan),
            "discovery.k8s.io/endpointslices" => match stores.slices.get(ns, name) {
                // What family it is of cannot be changed; when it is gone, it is made anew.
                Some(slice) if wanted.body["addressType"] != *slice.address_type => {
                    let uid = slice.metadata.uid.as_deref().unwrap_or_default();
                    plan.push(Write::delete(Request::delete(wanted.resource, ns, name, uid)));
                }
                slice => exact(wanted, slice.map(|s| slice_value(&s)), &mut plan),
            },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::controllers::action::Action;
    use crate::server::controllers::driver::queue::Queue;

    fn bootstrap(advertised: watch::Receiver<IpAddr>) -> Bootstrap {
        let cluster = Cluster {
            cluster_cidr: "10.42.0.0/16".parse().unwrap(),
            service_cidr: "10.43.0.0/16".parse().unwrap(),
            cluster_dns: [10, 43, 0, 10].into(),
            cluster_domain: "cluster.local".into(),
            node_ports: (30000, 32767),
        };
        Bootstrap { cluster, advertised, port: 6443, local_storage: false }
    }

    fn place(bootstrap: &Bootstrap, storage: &str) -> Name {
        let at = bootstrap.wanted().iter().position(|w| w.exact && w.resource.storage == storage).unwrap();
        Name::new("", &at.to_string())
    }

    /// What it does about an object that is there.
    fn plan(bootstrap: &Bootstrap, stores: &Stores, storage: &str) -> Vec<(Verb, Value)> {
        let moment = Moment { now: "2026-01-01T00:00:00Z".parse().unwrap(), failure: None };
        let one = |action: Action| match action {
            Action::Write(write) => (write.request.verb, write.request.body),
            other => panic!("{other:?}"),
        };
        bootstrap.plan(stores, &place(bootstrap, storage), moment).actions.into_iter().map(one).collect()
    }

    fn stores_with(bootstrap: &Bootstrap) -> Stores {
        let stores = Stores::new();
        stores.namespaces.put(serde_json::from_value(json!({ "metadata": { "name": "default" } })).unwrap());
        for mut wanted in bootstrap.wanted() {
            wanted.body["metadata"]["uid"] = json!("u");
            match wanted.resource.storage {
                "endpoints" => stores.endpoints.put(serde_json::from_value(wanted.body).unwrap()),
                "discovery.k8s.io/endpointslices" => stores.slices.put(serde_json::from_value(wanted.body).unwrap()),
                _ => {}
            }
        }
        stores
    }

    const ENDPOINTS: &str = "endpoints";
    const SLICES: &str = "discovery.k8s.io/endpointslices";

    #[test]
    fn another_address_of_the_server_is_followed() {
        let (tell, advertised) = watch::channel(IpAddr::from([192, 0, 2, 1]));
        let bootstrap = bootstrap(advertised);
        let stores = stores_with(&bootstrap);
        assert_eq!(plan(&bootstrap, &stores, ENDPOINTS), []);
        assert_eq!(plan(&bootstrap, &stores, SLICES), []);

        tell.send_replace([192, 0, 2, 77].into());
        let ports = json!([{ "name": "https", "port": 6443, "protocol": "TCP" }]);
        let subsets = json!([{ "addresses": [{ "ip": "192.0.2.77" }], "ports": ports }]);
        assert_eq!(plan(&bootstrap, &stores, ENDPOINTS), [(Verb::MergePatch, json!({ "subsets": subsets }))]);
        let endpoints = json!([{ "addresses": ["192.0.2.77"], "conditions": { "ready": true } }]);
        let want = json!({ "endpoints": endpoints, "ports": ports });
        assert_eq!(plan(&bootstrap, &stores, SLICES), [(Verb::MergePatch, want)]);

        // One of the other family takes another slice.
        tell.send_replace("2001:db8::1".parse().unwrap());
        let deletes = json!({ "preconditions": { "uid": "u" } });
        assert_eq!(plan(&bootstrap, &stores, SLICES), [(Verb::Delete, deletes)]);
        stores.slices.take("default", "kubernetes");
        let [(Verb::Create, slice)] = &plan(&bootstrap, &stores, SLICES)[..] else { panic!("it is made anew") };
        assert_eq!(
            (&slice["addressType"], &slice["endpoints"][0]["addresses"][0]),
            (&json!("IPv6"), &json!("2001:db8::1"))
        );
    }

    #[tokio::test]
    async fn the_objects_that_say_it_are_looked_at_when_it_changes() {
        let (tell, advertised) = watch::channel(IpAddr::from([192, 0, 2, 1]));
        let bootstrap = bootstrap(advertised);
        let queue = Arc::new(Queue::new(std::collections::HashSet::new()));
        let follow = bootstrap.follow(Enqueue { queue: queue.clone(), controller: 0 }).unwrap();
        tell.send_replace([192, 0, 2, 77].into());
        drop(tell);
        follow.await;
        let mut found = [queue.next().await.name, queue.next().await.name];
        found.sort();
        let mut want = [ENDPOINTS, SLICES].map(|storage| place(&bootstrap, storage));
        want.sort();
        assert_eq!(found, want);
    }
}
