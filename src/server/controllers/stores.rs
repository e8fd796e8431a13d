//! Types: what the controllers observe: one store per resource, shared by all of them. Those of custom resources come
//! and go with their definitions.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    Container, Endpoints, Namespace, Node, Pod, ReplicationController, ReplicationControllerCondition, ResourceQuota,
    Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinitionNames, CustomResourceDefinitionStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api_services::API_SERVICES;
use super::custom_resources::APPROVED;
use super::disruption::BUDGETS;
use super::partial::Partial;
use crate::api::resource::custom::{self, DEFINITIONS, Rows};
use crate::api::resource::{LIST, RESOURCES, Resource, WATCH, find_kind, find_storage};
use crate::client::reflector::{Sink, Source};
use crate::client::store::{Kind, Meta, Store, View};

/// A `CustomResourceDefinition` without its schemas.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Definition {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: DefinitionSpec,
    #[serde(default)]
    pub status: CustomResourceDefinitionStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DefinitionSpec {
    pub group: String,
    pub scope: String,
    pub names: CustomResourceDefinitionNames,
    pub versions: Vec<DefinitionVersion>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DefinitionVersion {
    pub name: String,
    pub served: bool,
    pub storage: bool,
}

impl Definition {
    /// What it adds to the resource table; `None` before its names are accepted.
    #[must_use]
    pub fn rows(&self) -> Option<Rows> {
        let version = |v: &DefinitionVersion| json!({"name": v.name, "served": v.served, "storage": v.storage});
        let versions: Vec<Value> = self.spec.versions.iter().map(version).collect();
        custom::of(&json!({
            "spec": {"group": self.spec.group, "scope": self.spec.scope, "versions": versions}, "status": self.status,
        }))
    }
}

/// An `APIService` without the certificates of its bundle.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ApiService {
    pub metadata: ObjectMeta,
    pub spec: ApiServiceSpec,
    pub status: ApiServiceStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiServiceSpec {
    pub group: String,
    pub version: String,
    pub group_priority_minimum: i32,
    pub version_priority: i32,
    pub service: Option<Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ApiServiceStatus {
    pub conditions: Vec<Value>,
}

impl ApiService {
    /// An extension server that can be reached.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        let available = |c: &Value| c["type"] == "Available" && c["status"] == "True";
        self.spec.service.is_some() && self.status.conditions.iter().any(available)
    }
}

/// A ReplicationController as the ReplicaSet that says the same: one controller serves both, as upstream.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "ReplicationController")]
pub struct Controller(pub Arc<ReplicaSet>);

impl From<ReplicationController> for Controller {
    fn from(from: ReplicationController) -> Self {
        let ReplicationController { metadata, spec, status } = from;
        let spec = spec.map(|s| ReplicaSetSpec {
            min_ready_seconds: s.min_ready_seconds,
            replicas: s.replicas,
            selector: LabelSelector { match_labels: s.selector, match_expressions: None },
            template: s.template,
        });
        let condition = |c: ReplicationControllerCondition| ReplicaSetCondition {
            last_transition_time: c.last_transition_time,
            message: c.message,
            reason: c.reason,
            status: c.status,
            type_: c.type_,
        };
        let status = status.map(|s| ReplicaSetStatus {
            available_replicas: s.available_replicas,
            conditions: s.conditions.map(|all| all.into_iter().map(condition).collect()),
            fully_labeled_replicas: s.fully_labeled_replicas,
            observed_generation: s.observed_generation,
            ready_replicas: s.ready_replicas,
            replicas: s.replicas,
            terminating_replicas: None,
        });
        let metadata = ObjectMeta { managed_fields: None, ..metadata };
        Self(Arc::new(ReplicaSet { metadata, spec, status }))
    }
}

impl Kind for Controller {
    fn meta(&self) -> &dyn Meta {
        &self.0.metadata
    }
}

/// Told of the metadata before and after each change of anything.
type Subscriber = Arc<dyn Fn(&'static Resource, Option<&dyn Meta>, Option<&dyn Meta>) + Send + Sync>;

/// What extension servers that can be reached have, by the name of the `APIService`.
pub type Remote = BTreeMap<String, Vec<&'static Resource>>;

pub struct Stores {
    pub pods: Arc<Store<Pod>>,
    pub replica_sets: Arc<Store<ReplicaSet>>,
    pub replication_controllers: Arc<Store<Controller>>,
    pub deployments: Arc<Store<Deployment>>,
    pub services: Arc<Store<Service>>,
    pub endpoints: Arc<Store<Endpoints>>,
    pub slices: Arc<Store<EndpointSlice>>,
    pub nodes: Arc<Store<Node>>,
    pub namespaces: Arc<Store<Namespace>>,
    pub leases: Arc<Store<Lease>>,
    pub definitions: Arc<Store<Definition>>,
    pub flow_schemas: Arc<Store<FlowSchema>>,
    pub priority_levels: Arc<Store<PriorityLevelConfiguration>>,
    pub api_services: Arc<Store<ApiService>>,
    pub resource_quotas: Arc<Store<ResourceQuota>>,
    pub budgets: Arc<Store<PodDisruptionBudget>>,
    /// Metadata of the objects of definitions and of extension servers, with the rows of the versions that are served.
    custom: RwLock<Vec<(Rows, Arc<Store<Partial>>)>>,
    remote: RwLock<Remote>,
    everyone: RwLock<Vec<Subscriber>>,
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

pub const FLOW_SCHEMAS: &str = "flowcontrol.apiserver.k8s.io/flowschemas";
pub const PRIORITY_LEVELS: &str = "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations";

const TYPED: &[&str] = &[
    "pods",
    "apps/replicasets",
    "replicationcontrollers",
    "apps/deployments",
    "services",
    "endpoints",
    "discovery.k8s.io/endpointslices",
    "nodes",
    "namespaces",
    "coordination.k8s.io/leases",
    DEFINITIONS,
    FLOW_SCHEMAS,
    PRIORITY_LEVELS,
    API_SERVICES,
    "resourcequotas",
    BUDGETS,
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
            replication_controllers: store("replicationcontrollers"),
            deployments: store("apps/deployments"),
            services: store("services"),
            endpoints: store("endpoints"),
            slices: store("discovery.k8s.io/endpointslices"),
            nodes: store("nodes"),
            namespaces: store("namespaces"),
            leases: store("coordination.k8s.io/leases"),
            definitions: store(DEFINITIONS),
            flow_schemas: store(FLOW_SCHEMAS),
            priority_levels: store(PRIORITY_LEVELS),
            api_services: store(API_SERVICES),
            resource_quotas: store("resourcequotas"),
            budgets: store(BUDGETS),
            custom: RwLock::default(),
            remote: RwLock::default(),
            everyone: RwLock::default(),
            others,
        }
    }

    /// The row of a kind as an owner reference names it, built-in or custom.
    #[must_use]
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<&'static Resource> {
        find_kind(api_version, kind).or_else(|| {
            let custom = self.custom.read().unwrap_or_else(PoisonError::into_inner);
            custom.iter().find_map(|(rows, _)| rows.kind(api_version, kind))
        })
    }

    /// The custom resources that are followed, in their stored version.
    #[must_use]
    pub fn custom(&self) -> Vec<Arc<Store<Partial>>> {
        let custom = self.custom.read().unwrap_or_else(PoisonError::into_inner);
        custom.iter().map(|(_, store)| store.clone()).collect()
    }

    #[must_use]
    pub fn remote(&self) -> Remote {
        self.remote.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True when that is something new.
    pub fn set_remote(&self, remote: Remote) -> bool {
        let mut known = self.remote.write().unwrap_or_else(PoisonError::into_inner);
        let changed = *known != remote;
        *known = remote;
        changed
    }

    /// The groups and versions of extension servers of which it is not known what they have.
    #[must_use]
    pub fn unknown_remote(&self) -> Vec<String> {
        let known = self.remote.read().unwrap_or_else(PoisonError::into_inner);
        let services = self.api_services.all();
        let unknown = services.iter().filter(|s| {
            s.spec.service.is_some() && !known.contains_key(s.metadata.name.as_deref().unwrap_or_default())
        });
        unknown.map(|s| format!("{}/{}", s.spec.group, s.spec.version)).collect()
    }

    /// A store for the objects of a definition. Whoever follows everything follows it too.
    pub fn add_custom(&self, rows: Rows) -> Arc<Store<Partial>> {
        // By a version that is served, for others cannot be asked for.
        let resource = rows.served.first().copied().unwrap_or(rows.stored);
        let store = Arc::new(Store::<Partial>::new(resource));
        for subscriber in self.everyone.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let subscriber = subscriber.clone();
            store.subscribe(move |change| {
                subscriber(resource, change.old.map(|o| o.meta()), change.new.map(|o| o.meta()));
            });
        }
        self.custom.write().unwrap_or_else(PoisonError::into_inner).push((rows, store.clone()));
        store
    }

    /// The definition is gone, or has changed.
    pub fn remove_custom(&self, store: &Arc<Store<Partial>>) {
        store.close();
        self.custom.write().unwrap_or_else(PoisonError::into_inner).retain(|(_, s)| !Arc::ptr_eq(s, store));
    }

    /// Metadata of a resource that has no typed store.
    #[must_use]
    pub fn other(&self, storage: &str) -> Option<&Arc<Store<Partial>>> {
        self.others.iter().find(|s| s.resource().storage == storage)
    }

    /// The store of a resource, whatever its kind; `None` for Events.
    #[must_use]
    pub fn view(&self, storage: &str) -> Option<Arc<dyn View>> {
        let found = self.fed().into_iter().find(|f| f.source.resource.storage == storage).map(|f| f.view);
        found.or_else(|| self.custom().into_iter().find(|s| s.resource().storage == storage).map(|s| s as _))
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
            one(&self.replication_controllers),
            one(&self.pods),
            one(&self.services),
            one(&self.endpoints),
            one(&self.slices),
            one(&self.leases),
            one(&self.definitions),
            one(&self.flow_schemas),
            one(&self.priority_levels),
            one(&self.api_services),
            one(&self.resource_quotas),
            one(&self.budgets),
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
    subscriber: impl Fn(&'static Resource, Option<&dyn Meta>, Option<&dyn Meta>) + Send + Sync + Clone + 'static,
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
        stores.replication_controllers,
        stores.pods,
        stores.services,
        stores.endpoints,
        stores.slices,
        stores.leases,
        stores.definitions,
        stores.flow_schemas,
        stores.priority_levels,
        stores.api_services,
        stores.resource_quotas,
        stores.budgets
    );
    stores.everyone.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(subscriber.clone()));
    for store in &stores.others {
        each!(store);
    }
}

macro_rules! kinds {
    ($($kind:ty => |$object:ident| $trim:expr),* $(,)?) => { $(
        impl Kind for $kind {
            fn meta(&self) -> &dyn Meta {
                &self.metadata
            }
            fn trim(&mut self) {
                self.metadata.managed_fields = None;
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
    FlowSchema => |_o| (),
    PriorityLevelConfiguration => |_o| (),
    ResourceQuota => |_o| (),
    PodDisruptionBudget => |_o| (),
    Definition => |o| {
        if let Some(annotations) = &mut o.metadata.annotations {
            annotations.retain(|name, _| name == APPROVED);
        }
    },
    ApiService => |o| { o.metadata.annotations = None; },
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
