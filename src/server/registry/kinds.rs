//! Decides: which kind serves which row of the resource table.

use std::sync::Arc;

use super::admissionregistration::mutating_admission_policy::MutatingAdmissionPolicyKind;
use super::admissionregistration::mutating_admission_policy_binding::MutatingAdmissionPolicyBindingKind;
use super::admissionregistration::mutating_webhook_configuration::MutatingWebhookConfigurationKind;
use super::admissionregistration::validating_admission_policy::ValidatingAdmissionPolicyKind;
use super::admissionregistration::validating_admission_policy_binding::ValidatingAdmissionPolicyBindingKind;
use super::admissionregistration::validating_webhook_configuration::ValidatingWebhookConfigurationKind;
use super::apiextensions::custom_resource_definition::CustomResourceDefinitionKind;
use super::apiregistration::api_service::ApiServiceKind;
use super::apps::controller_revision::ControllerRevisionKind;
use super::apps::daemon_set::DaemonSetKind;
use super::apps::deployment::DeploymentKind;
use super::apps::replica_set::ReplicaSetKind;
use super::apps::stateful_set::StatefulSetKind;
use super::autoscaling::HorizontalPodAutoscalerKind;
use super::batch::cron_job::CronJobKind;
use super::batch::job::JobKind;
use super::certificates::signing_request::CertificateSigningRequestKind;
use super::coordination::LeaseKind;
use super::core::config_map::ConfigMapKind;
use super::core::endpoints::EndpointsKind;
use super::core::limit_range::LimitRangeKind;
use super::core::namespace::NamespaceKind;
use super::core::node::NodeKind;
use super::core::persistent_volume::PersistentVolumeKind;
use super::core::persistent_volume_claim::PersistentVolumeClaimKind;
use super::core::pod::PodKind;
use super::core::pod_template::PodTemplateKind;
use super::core::replication_controller::ReplicationControllerKind;
use super::core::resource_quota::ResourceQuotaKind;
use super::core::secret::SecretKind;
use super::core::service::ServiceKind;
use super::core::service_account::ServiceAccountKind;
use super::discovery::EndpointSliceKind;
use super::events::EventKind;
use super::flowcontrol::flow_schema::FlowSchemaKind;
use super::flowcontrol::priority_level_configuration::PriorityLevelConfigurationKind;
use super::networking::ingress::IngressKind;
use super::networking::ingress_class::IngressClassKind;
use super::networking::ip_address::IpAddressKind;
use super::networking::network_policy::NetworkPolicyKind;
use super::networking::service_cidr::ServiceCidrKind;
use super::node::RuntimeClassKind;
use super::policy::PodDisruptionBudgetKind;
use super::rbac::bindings::{ClusterRoleBindingKind, RoleBindingKind};
use super::rbac::roles::{ClusterRoleKind, RoleKind};
use super::resource::device_class::DeviceClassKind;
use super::resource::resource_claim::ResourceClaimKind;
use super::resource::resource_claim_template::ResourceClaimTemplateKind;
use super::resource::resource_slice::ResourceSliceKind;
use super::scheduling::PriorityClassKind;
use super::storage::csi_driver::CSIDriverKind;
use super::storage::csi_node::CSINodeKind;
use super::storage::csi_storage_capacity::CSIStorageCapacityKind;
use super::storage::storage_class::StorageClassKind;
use super::storage::volume_attachment::VolumeAttachmentKind;
use super::storage::volume_attributes_class::VolumeAttributesClassKind;
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
        typed(PodTemplateKind),
        typed(ReplicationControllerKind),
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
        typed(StatefulSetKind),
        typed(DaemonSetKind),
        typed(ControllerRevisionKind),
        typed(RoleKind),
        typed(RoleBindingKind),
        typed(ClusterRoleKind),
        typed(ClusterRoleBindingKind),
        typed(PriorityClassKind),
        typed(JobKind),
        typed(CronJobKind),
        typed(HorizontalPodAutoscalerKind::V2),
        typed(HorizontalPodAutoscalerKind::V1),
        typed(PodDisruptionBudgetKind),
        typed(LimitRangeKind),
        typed(ResourceQuotaKind),
        typed(PersistentVolumeKind),
        typed(PersistentVolumeClaimKind),
        typed(StorageClassKind),
        typed(CSIDriverKind),
        typed(CSINodeKind),
        typed(CSIStorageCapacityKind),
        typed(VolumeAttachmentKind),
        typed(VolumeAttributesClassKind),
        typed(IngressKind),
        typed(IngressClassKind),
        typed(NetworkPolicyKind),
        typed(ServiceCidrKind),
        typed(IpAddressKind),
        typed(RuntimeClassKind),
        typed(CertificateSigningRequestKind),
        typed(MutatingWebhookConfigurationKind),
        typed(ValidatingWebhookConfigurationKind),
        typed(ValidatingAdmissionPolicyKind),
        typed(ValidatingAdmissionPolicyBindingKind),
        typed(MutatingAdmissionPolicyKind),
        typed(MutatingAdmissionPolicyBindingKind),
        typed(CustomResourceDefinitionKind),
        typed(ApiServiceKind),
        typed(FlowSchemaKind),
        typed(PriorityLevelConfigurationKind),
        typed(DeviceClassKind),
        typed(ResourceClaimKind),
        typed(ResourceClaimTemplateKind),
        typed(ResourceSliceKind),
    ]
}

#[cfg(test)]
mod tests;
