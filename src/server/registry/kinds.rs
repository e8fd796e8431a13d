//! Decides: which kind serves which row of the resource table.

use std::sync::Arc;

use super::apps::deployment::DeploymentKind;
use super::apps::replica_set::ReplicaSetKind;
use super::coordination::LeaseKind;
use super::core::config_map::ConfigMapKind;
use super::core::endpoints::EndpointsKind;
use super::core::namespace::NamespaceKind;
use super::core::node::NodeKind;
use super::core::pod::PodKind;
use super::core::secret::SecretKind;
use super::core::service::ServiceKind;
use super::core::service_account::ServiceAccountKind;
use super::discovery::EndpointSliceKind;
use super::events::EventKind;
use super::rbac::bindings::{ClusterRoleBindingKind, RoleBindingKind};
use super::rbac::roles::{ClusterRoleKind, RoleKind};
use super::scheduling::PriorityClassKind;
use super::strategy::{Kind, Strategy, Typed};
use crate::api::resource::{self, Resource};
use crate::config;
use crate::server::cache::Cache;

/// The row of a built-in kind.
///
/// # Panics
/// When the resource table has no such row, which would be our bug.
#[must_use]
pub fn row(api_version: &str, kind: &str) -> &'static Resource {
    resource::find_kind(api_version, kind).expect("every built-in kind has a row")
}

fn typed(kind: impl Kind) -> Box<dyn Strategy> {
    Box::new(Typed(kind))
}

/// One strategy for each row that is stored. What the Services in the cache hold of addresses and ports is taken
/// at once, so the cache must be filled.
#[must_use]
pub fn strategies(config: &config::Cluster, cache: &Arc<Cache>) -> Vec<Box<dyn Strategy>> {
    let (services, _) = cache.list("services", None);
    let services = services.iter().filter_map(|object| object.typed().ok());
    vec![
        typed(NamespaceKind),
        typed(NodeKind),
        typed(PodKind),
        typed(ServiceKind::new(config, services)),
        typed(EndpointsKind),
        typed(EndpointSliceKind),
        typed(ConfigMapKind),
        typed(SecretKind),
        typed(ServiceAccountKind),
        typed(EventKind::Core),
        typed(EventKind::Events),
        typed(LeaseKind),
        typed(DeploymentKind),
        typed(ReplicaSetKind),
        typed(RoleKind),
        typed(RoleBindingKind),
        typed(ClusterRoleKind),
        typed(ClusterRoleBindingKind),
        typed(PriorityClassKind),
    ]
}

#[cfg(test)]
mod tests;
