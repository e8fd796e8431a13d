//! Controllers: each observes the stores, plans purely, and leaves the doing to the [`driver`].
//!
//! - [`action`]: what a plan is made of; the `Controller` trait
//! - [`stores`]: what is observed, one store per resource for all controllers
//! - [`driver`]: the only asynchronous part
//! - [`owners`], [`pods`], [`pod_control`], [`revisions`], [`hash`], [`share`]: what several controllers decide alike
//! - workloads: [`deployment`], [`replica_set`], [`stateful_set`], [`daemon_set`]; what may be evicted of them:
//!   [`disruption`], [`stale_disruption`]; how many pods they have: [`horizontal_pod_autoscaler`]
//! - work that ends: [`job`], [`cron_job`], [`ttl_after_finished`]
//! - Services: [`endpoints`], [`endpoint_slices`], by [`service_pods`]; [`endpoint_slice_mirroring`], [`service_cidr`]
//! - nodes: [`node_health`], [`node_taints`] by [`node_zones`], [`taint_eviction`], [`node_ipam`], [`pod_gc`]
//! - devices: [`resource_claims`]
//! - storage: [`persistent_volumes`], [`attach_detach`], [`volume_expansion`], [`ephemeral_volume`],
//!   [`protection`]
//! - ends: [`namespace`], [`garbage`]
//! - limits of namespaces: [`resource_quota`]
//! - custom resources: [`custom_resources`]
//! - expressions of policies: [`policy_status`]
//! - the cluster itself: [`bootstrap`], [`flow_control`], [`cluster_role_aggregation`], [`certificates`],
//!   [`service_account`], [`root_ca`], [`api_services`], [`extension_authentication`]

pub mod action;
pub mod api_services;
pub mod attach_detach;
pub mod bootstrap;
pub mod certificates;
pub mod cluster_role_aggregation;
pub mod cron_job;
pub mod custom_resources;
pub mod daemon_set;
pub mod deployment;
pub mod disruption;
pub mod driver;
pub mod endpoint_slice_mirroring;
pub mod endpoint_slices;
pub mod endpoints;
pub mod ephemeral_volume;
pub mod extension_authentication;
pub mod flow_control;
pub mod garbage;
pub mod hash;
pub mod horizontal_pod_autoscaler;
pub mod job;
pub mod namespace;
pub mod node_health;
pub mod node_ipam;
mod node_role;
pub mod node_taints;
pub mod node_zones;
pub mod owners;
mod partial;
pub mod persistent_volumes;
pub mod pod_control;
pub mod pod_gc;
pub mod pods;
pub mod policy_status;
pub mod protection;
pub mod replica_set;
pub mod resource_claims;
pub mod resource_quota;
pub mod revisions;
pub mod root_ca;
pub mod service_account;
pub mod service_cidr;
pub mod service_pods;
pub mod share;
pub mod stale_disruption;
pub mod stateful_set;
pub mod stores;
pub mod taint_eviction;
pub mod ttl_after_finished;
pub mod volume_expansion;

#[cfg(test)]
mod simulation;

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::action::Controller;
use self::extension_authentication::{ExtensionAuthentication, Trusted};
use crate::api::quota::Measure;
use crate::api::signing::Sign;
use crate::api::type_check::TypeCheck;
use crate::config::Cluster;

/// What the controllers need to know of the cluster.
#[derive(Clone, Debug)]
pub struct ControllersConfig {
    pub cluster: Cluster,
    /// Where the API is reached, for the `kubernetes` Service; it may change.
    pub advertised: watch::Receiver<IpAddr>,
    pub port: u16,
    /// PEM of the cluster's CA, for `kube-root-ca.crt`.
    pub root_ca_pem: String,
    /// What extension servers are told.
    pub trusted: Trusted,
    /// The node that runs in this process: it is the control plane.
    pub control_plane_node: Option<String>,
    /// Volumes on the nodes' own disks, and a class for them.
    pub local_storage: bool,
    /// What is used of quotas, which the server knows better than anyone who watches.
    pub measure: Measure,
    /// Whether expressions fit the kinds that they are about: the server has the schemas.
    pub type_check: TypeCheck,
    /// Who signs the certificates that were approved.
    pub sign: Sign,
}

/// Nothing ends the controllers but `stop`: what fails is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

/// Runs all controllers until `stop`; returns when every task is gone.
///
/// # Errors
/// None at present.
pub async fn run(client: kube::Client, config: ControllersConfig, stop: CancellationToken) -> Result<(), Error> {
    let stores = Arc::new(stores::Stores::new());
    driver::run(client, stores, all(config), stop).await;
    Ok(())
}

/// Every controller. Their order is of no consequence.
#[must_use]
pub fn all(config: ControllersConfig) -> Vec<Arc<dyn Controller>> {
    let mut all: Vec<Arc<dyn Controller>> = vec![
        Arc::new(bootstrap::Bootstrap::new(&config)),
        Arc::new(flow_control::FlowControl::default()),
        Arc::new(cluster_role_aggregation::ClusterRoleAggregation),
        Arc::new(service_account::ServiceAccounts),
        Arc::new(root_ca::RootCa::new(config.root_ca_pem)),
        Arc::new(ExtensionAuthentication::new(config.trusted)),
        Arc::new(api_services::ApiServices::default()),
        Arc::new(deployment::DeploymentController),
        Arc::new(replica_set::ReplicaSetController::ReplicaSets),
        Arc::new(replica_set::ReplicaSetController::ReplicationControllers),
        Arc::new(stateful_set::StatefulSetController),
        Arc::new(daemon_set::DaemonSetController::default()),
        Arc::new(job::JobController::default()),
        Arc::new(job::orphans::TrackedOrphans),
        Arc::new(ttl_after_finished::TtlAfterFinished),
        Arc::new(cron_job::CronJobController),
        Arc::new(endpoints::EndpointsController),
        Arc::new(endpoint_slices::EndpointSlices),
        Arc::new(endpoint_slice_mirroring::EndpointSliceMirroring),
        Arc::new(node_ipam::NodeIpam::new(config.cluster.cluster_cidr)),
        Arc::new(node_role::NodeRole::new(config.control_plane_node)),
        Arc::new(node_health::NodeHealth::default()),
        Arc::new(node_taints::NodeTaints::default()),
        Arc::new(taint_eviction::TaintEviction::default()),
        Arc::new(pod_gc::PodGc::default()),
        Arc::new(disruption::DisruptionController::default()),
        Arc::new(stale_disruption::StaleDisruption),
        Arc::new(resource_claims::ResourceClaims::default()),
        Arc::new(horizontal_pod_autoscaler::HorizontalPodAutoscalers::default()),
        Arc::new(resource_quota::ResourceQuotas::new(config.measure)),
        Arc::new(policy_status::PolicyStatus::new(config.type_check)),
        Arc::new(persistent_volumes::PersistentVolumes::new(config.local_storage)),
        Arc::new(attach_detach::AttachDetach::default()),
        Arc::new(volume_expansion::VolumeExpansion),
        Arc::new(ephemeral_volume::EphemeralVolumes::default()),
        Arc::new(certificates::Certificates::new(config.sign)),
        Arc::new(service_cidr::ServiceCidrs::new(config.cluster.service_cidr)),
        Arc::new(custom_resources::CustomResources::default()),
        Arc::new(namespace::NamespaceDeletion::default()),
        Arc::new(garbage::GarbageCollector::default()),
    ];
    all.extend(protection::Protection::all().map(|one| Arc::new(one) as Arc<dyn Controller>));
    all
}
