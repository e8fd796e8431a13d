//! Types: what the controllers observe: one store per resource, shared by all of them.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Container, Endpoints, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use crate::api::resource::{LIST, RESOURCES, Resource, WATCH, find_storage};
use crate::client::reflector::{Sink, Source};
use crate::client::store::{Kind, Store, View};

/// Metadata of an object of any kind.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Partial {
    #[serde(default)]
    pub metadata: ObjectMeta,
}

pub struct Stores {
    pub pods: Arc<Store<Pod>>,
    pub replica_sets: Arc<Store<ReplicaSet>>,
    pub deployments: Arc<Store<Deployment>>,
    pub services: Arc<Store<Service>>,
    pub endpoints: Arc<Store<Endpoints>>,
    pub slices: Arc<Store<EndpointSlice>>,
    pub nodes: Arc<Store<Node>>,
    pub namespaces: Arc<Store<Namespace>>,
    pub leases: Arc<Store<Lease>>,
    /// Metadata of every other resource that is listed and watched, Events excepted.
    pub others: Vec<Arc<Store<Partial>>>,
}

/// One store as the driver sees it: fed by a reflector, asked what it has seen.
#[derive(Clone)]
pub struct Fed {
    pub source: Source,
    pub sink: Arc<dyn Sink>,
    pub view: Arc<dyn View>,
}

const TYPED: &[&str] = &[
    "pods",
    "apps/replicasets",
    "apps/deployments",
    "services",
    "endpoints",
    "discovery.k8s.io/endpointslices",
    "nodes",
    "namespaces",
    "coordination.k8s.io/leases",
];

/// The row of a storage name that the controllers are written for.
///
/// # Panics
/// When the resource table lacks it, which the first start shows.
#[must_use]
pub fn row(storage: &str) -> &'static Resource {
    find_storage(storage).expect("the resource table has the kinds that controllers work on")
}

fn store<K: Kind>(storage: &str) -> Arc<Store<K>> {
    Arc::new(Store::new(row(storage)))
}

impl Stores {
    #[must_use]
    pub fn new() -> Self {
        let mut seen: Vec<&str> = Vec::new();
        let mut others = Vec::new();
        for resource in RESOURCES {
            let watched = resource.has(LIST) && resource.has(WATCH) && !resource.storage.is_empty();
            // Events have no dependents and no owners worth following, and there are many.
            if !watched || TYPED.contains(&resource.storage) || resource.storage == "events" {
                continue;
            }
            if !seen.contains(&resource.storage) {
                seen.push(resource.storage);
                others.push(Arc::new(Store::new(resource)));
            }
        }
        Self {
            pods: store("pods"),
            replica_sets: store("apps/replicasets"),
            deployments: store("apps/deployments"),
            services: store("services"),
            endpoints: store("endpoints"),
            slices: store("discovery.k8s.io/endpointslices"),
            nodes: store("nodes"),
            namespaces: store("namespaces"),
            leases: store("coordination.k8s.io/leases"),
            others,
        }
    }

    /// Metadata of a resource that has no typed store.
    #[must_use]
    pub fn other(&self, storage: &str) -> Option<&Arc<Store<Partial>>> {
        self.others.iter().find(|s| s.resource().storage == storage)
    }

    /// The store of a resource, whatever its kind; `None` for Events.
    #[must_use]
    pub fn view(&self, storage: &str) -> Option<Arc<dyn View>> {
        self.fed().into_iter().find(|f| f.source.resource.storage == storage).map(|f| f.view)
    }

    #[must_use]
    pub fn fed(&self) -> Vec<Fed> {
        fn one<K: Kind>(store: &Arc<Store<K>>) -> Fed {
            Fed { source: Source::all(store.resource()), sink: Arc::clone(store) as _, view: Arc::clone(store) as _ }
        }
        let mut fed = vec![
            one(&self.namespaces),
            one(&self.nodes),
            one(&self.deployments),
            one(&self.replica_sets),
            one(&self.pods),
            one(&self.services),
            one(&self.endpoints),
            one(&self.slices),
            one(&self.leases),
        ];
        fed.extend(self.others.iter().map(one));
        fed
    }
}

impl Default for Stores {
    fn default() -> Self {
        Self::new()
    }
}

/// Calls `subscriber` with the metadata before and after each change in any store.
pub fn subscribe_all(
    stores: &Stores,
    subscriber: impl Fn(&'static Resource, Option<&ObjectMeta>, Option<&ObjectMeta>) + Send + Sync + Clone + 'static,
) {
    macro_rules! each {
        ($($store:expr),*) => { $({
            let (subscriber, resource) = (subscriber.clone(), $store.resource());
            $store.subscribe(move |change| {
                subscriber(resource, change.old.map(|o| o.meta()), change.new.map(|o| o.meta()));
            });
        })* };
    }
    each!(
        stores.namespaces,
        stores.nodes,
        stores.deployments,
        stores.replica_sets,
        stores.pods,
        stores.services,
        stores.endpoints,
        stores.slices,
        stores.leases
    );
    for store in &stores.others {
        each!(store);
    }
}

macro_rules! kinds {
    ($($kind:ty => |$object:ident| $trim:expr),* $(,)?) => { $(
        impl Kind for $kind {
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
            fn trim(&mut self) {
                let $object = self;
                $trim
            }
        }
    )* };
}

kinds! {
    Pod => |pod| trim_pod(pod),
    ReplicaSet => |_o| (),
    Deployment => |_o| (),
    Service => |_o| (),
    Endpoints => |_o| (),
    EndpointSlice => |_o| (),
    Node => |node| trim_node(node),
    Namespace => |_o| (),
    Lease => |_o| (),
    Partial => |o| { o.metadata.annotations = None; },
}

/// Keeps what ReplicaSets, Endpoints, eviction and garbage collection look at.
fn trim_pod(pod: &mut Pod) {
    if let Some(spec) = &mut pod.spec {
        spec.volumes = None;
        spec.ephemeral_containers = None;
        spec.affinity = None;
        spec.topology_spread_constraints = None;
        for list in [Some(&mut spec.containers), spec.init_containers.as_mut()].into_iter().flatten() {
            for c in list.iter_mut() {
                *c = Container {
                    name: std::mem::take(&mut c.name),
                    ports: c.ports.take(),
                    restart_policy: c.restart_policy.take(),
                    ..Container::default()
                };
            }
            list.shrink_to_fit();
        }
    }
    if let Some(status) = &mut pod.status {
        status.ephemeral_container_statuses = None;
        status.init_container_statuses = None;
        for c in status.container_statuses.iter_mut().flatten() {
            c.last_state = None;
            c.image_id = String::new();
            c.volume_mounts = None;
            c.resources = None;
        }
    }
}

fn trim_node(node: &mut Node) {
    if let Some(status) = &mut node.status {
        status.images = None;
        status.node_info = None;
    }
}
