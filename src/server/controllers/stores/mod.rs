//! Types: what the controllers observe: one store per resource, shared by all of them. Those of custom resources come
//! and go with their definitions.
//!
//! - [`definitions`]: what is kept of CustomResourceDefinitions, APIServices and ReplicationControllers
//! - [`kinds`]: what is kept of everything else

mod definitions;
mod kinds;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass, VolumeAttachment};

pub use self::definitions::{ApiService, Controller, Definition};
use super::api_services::API_SERVICES;
use super::attach_detach::ATTACHMENTS;
use super::certificates::REQUESTS;
use super::cluster_role_aggregation::{self, CLUSTER_ROLES};
use super::disruption::BUDGETS;
use super::horizontal_pod_autoscaler::AUTOSCALERS;
use super::partial::Partial;
use super::policy_status::POLICIES;
use super::resource_claims::CLAIMS;
use super::service_cidr::{ADDRESSES, SERVICE_CIDRS};
use crate::api::resource::custom::{DEFINITIONS, Rows};
use crate::api::resource::{LIST, RESOURCES, Resource, WATCH, find_kind, find_storage};
use crate::client::reflector::{Sink, Source};
use crate::client::store::{Kind, Meta, Store, View};

/// Told of the metadata before and after each change of anything.
type Subscriber = Arc<dyn Fn(&'static Resource, Option<&dyn Meta>, Option<&dyn Meta>) + Send + Sync>;

/// What extension servers that can be reached have, by the name of the `APIService`.
pub type Remote = BTreeMap<String, Vec<&'static Resource>>;

/// The stores of the kinds that controllers read, each named once: field, kind, storage name.
macro_rules! stores {
    ($($field:ident: $kind:ty = $storage:expr),* $(,)?) => {
        pub struct Stores {
            $(pub $field: Arc<Store<$kind>>,)*
            /// Metadata of the objects of definitions and of extension servers, with the rows of the versions that
            /// are served.
            custom: RwLock<Vec<(Rows, Arc<Store<Partial>>)>>,
            remote: RwLock<Remote>,
            everyone: RwLock<Vec<Subscriber>>,
            /// Metadata of every other resource that is listed and watched, Events excepted.
            pub others: Vec<Arc<Store<Partial>>>,
        }

        const TYPED: &[&str] = &[$($storage),*];

        impl Stores {
            fn over(others: Vec<Arc<Store<Partial>>>) -> Self {
                Self {
                    $($field: Arc::new(Store::new(row($storage))),)*
                    custom: RwLock::default(),
                    remote: RwLock::default(),
                    everyone: RwLock::default(),
                    others,
                }
            }

            /// Every store but those of custom resources.
            #[must_use]
            pub fn fed(&self) -> Vec<Fed> {
                let mut fed = vec![$(Fed::of(&self.$field)),*];
                fed.extend(self.others.iter().map(Fed::of));
                fed
            }

            fn subscribe_typed(&self, subscriber: &Subscriber) {
                $(tell(&self.$field, subscriber);)*
            }
        }
    };
}

stores! {
    namespaces: Namespace = "namespaces",
    nodes: Node = "nodes",
    deployments: Deployment = "apps/deployments",
    replica_sets: ReplicaSet = "apps/replicasets",
    replication_controllers: Controller = "replicationcontrollers",
    stateful_sets: StatefulSet = "apps/statefulsets",
    daemon_sets: DaemonSet = "apps/daemonsets",
    controller_revisions: ControllerRevision = "apps/controllerrevisions",
    jobs: Job = "batch/jobs",
    cron_jobs: CronJob = "batch/cronjobs",
    pods: Pod = "pods",
    services: Service = "services",
    endpoints: Endpoints = "endpoints",
    slices: EndpointSlice = "discovery.k8s.io/endpointslices",
    leases: Lease = "coordination.k8s.io/leases",
    claims: PersistentVolumeClaim = "persistentvolumeclaims",
    volumes: PersistentVolume = "persistentvolumes",
    storage_classes: StorageClass = "storage.k8s.io/storageclasses",
    csi_drivers: CSIDriver = "storage.k8s.io/csidrivers",
    attachments: VolumeAttachment = ATTACHMENTS,
    definitions: Definition = DEFINITIONS,
    flow_schemas: FlowSchema = FLOW_SCHEMAS,
    priority_levels: PriorityLevelConfiguration = PRIORITY_LEVELS,
    api_services: ApiService = API_SERVICES,
    resource_quotas: ResourceQuota = "resourcequotas",
    budgets: PodDisruptionBudget = BUDGETS,
    autoscalers: HorizontalPodAutoscaler = AUTOSCALERS,
    certificate_requests: CertificateSigningRequest = REQUESTS,
    addresses: IPAddress = ADDRESSES,
    service_cidrs: ServiceCIDR = SERVICE_CIDRS,
    resource_claims: ResourceClaim = CLAIMS,
    policies: ValidatingAdmissionPolicy = POLICIES,
    cluster_roles: cluster_role_aggregation::Role = CLUSTER_ROLES,
}

pub const FLOW_SCHEMAS: &str = "flowcontrol.apiserver.k8s.io/flowschemas";
pub const PRIORITY_LEVELS: &str = "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations";

/// One store as the driver sees it: fed by a reflector, asked what it has seen.
#[derive(Clone)]
pub struct Fed {
    pub source: Source,
    pub sink: Arc<dyn Sink>,
    pub view: Arc<dyn View>,
}

impl Fed {
    fn of<K: Kind>(store: &Arc<Store<K>>) -> Self {
        Self { source: Source::all(store.resource()), sink: Arc::clone(store) as _, view: Arc::clone(store) as _ }
    }
}

fn tell<K: Kind>(store: &Store<K>, subscriber: &Subscriber) {
    let (subscriber, resource) = (subscriber.clone(), store.resource());
    store.subscribe(move |change| subscriber(resource, change.old.map(|o| o.meta()), change.new.map(|o| o.meta())));
}

/// The row of a storage name that the controllers are written for.
///
/// # Panics
/// When the resource table lacks it, which the first start shows.
#[must_use]
pub fn row(storage: &str) -> &'static Resource {
    find_storage(storage).expect("the resource table has the kinds that controllers work on")
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
        Self::over(others)
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
            tell(&store, subscriber);
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
}

impl Default for Stores {
    fn default() -> Self {
        Self::new()
    }
}

/// Calls `subscriber` with the metadata before and after each change in any store.
pub fn subscribe_all(
    stores: &Stores,
    subscriber: impl Fn(&'static Resource, Option<&dyn Meta>, Option<&dyn Meta>) + Send + Sync + 'static,
) {
    let subscriber: Subscriber = Arc::new(subscriber);
    stores.everyone.write().unwrap_or_else(PoisonError::into_inner).push(subscriber.clone());
    stores.subscribe_typed(&subscriber);
    for store in &stores.others {
        tell(store, &subscriber);
    }
}
