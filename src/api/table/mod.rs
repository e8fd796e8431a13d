//! Decides: the `Table` (`meta.k8s.io/v1`) that `kubectl get` asks for: columns and rows per kind, as upstream's printers
//! write them. Rows are computed from an object's JSON and the time; nothing is kept.

mod access;
mod batch;
mod columns;
pub mod custom;
pub mod duration;
mod extensions;
pub mod json_path;
mod network;
mod networking;
mod node;
mod object;
mod pod;
mod storage;
mod workload;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::resource::Resource;

pub use columns::{Column, columns};

/// `includeObject=` of a table request: what each row carries beside its cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    None,
    #[default]
    Metadata,
    Object,
}

impl Include {
    /// `None` for a word that is none of the three.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// As many as [`columns`].
    pub cells: Vec<Value>,
    /// Finished pods say so here.
    pub conditions: Vec<Value>,
}

/// The row of an object.
#[must_use]
pub fn row(resource: &Resource, object: &Value, now: Timestamp) -> Row {
    let mut conditions = Vec::new();
    let cells = match (resource.group, resource.kind) {
        ("", "Pod") => {
            conditions = pod::conditions(object);
            pod::cells(object, now)
        }
        ("", "Node") => node::cells(object, now),
        ("", "Service") => network::service(object, now),
        ("", "Endpoints") => network::endpoints(object, now),
        ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice(object, now),
        ("", "Namespace") => object::namespace(object, now),
        ("", "ConfigMap") => object::config_map(object, now),
        ("", "Secret") => object::secret(object, now),
        ("", "ServiceAccount") => object::service_account(object, now),
        ("" | "events.k8s.io", "Event") => object::event(object, now),
        ("coordination.k8s.io", "Lease") => object::lease(object, now),
        ("scheduling.k8s.io", "PriorityClass") => object::priority_class(object, now),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => object::binding(object, now),
        ("apps", "Deployment") => workload::deployment(object, now),
        ("apps", "ReplicaSet") => workload::replica_set(object, now),
        ("apps", "StatefulSet") => workload::stateful_set(object, now),
        ("apps", "DaemonSet") => workload::daemon_set(object, now),
        ("apps", "ControllerRevision") => workload::controller_revision(object, now),
        ("", "ReplicationController") => workload::replication_controller(object, now),
        ("", "PodTemplate") => workload::pod_template(object),
        ("batch", "Job") => batch::job(object, now),
        ("batch", "CronJob") => batch::cron_job(object, now),
        ("autoscaling", "HorizontalPodAutoscaler") => batch::autoscaler(object, now),
        ("policy", "PodDisruptionBudget") => batch::disruption_budget(object, now),
        ("", "PersistentVolume") => storage::persistent_volume(object, now),
        ("", "PersistentVolumeClaim") => storage::persistent_volume_claim(object, now),
        ("", "ResourceQuota") => storage::resource_quota(object, now),
        ("storage.k8s.io", "StorageClass") => storage::storage_class(object, now),
        ("storage.k8s.io", "CSIDriver") => storage::csi_driver(object, now),
        ("storage.k8s.io", "CSINode") => storage::csi_node(object, now),
        ("storage.k8s.io", "CSIStorageCapacity") => storage::csi_storage_capacity(object),
        ("storage.k8s.io", "VolumeAttachment") => storage::volume_attachment(object, now),
        ("storage.k8s.io", "VolumeAttributesClass") => storage::volume_attributes_class(object, now),
        ("networking.k8s.io", "Ingress") => networking::ingress(object, now),
        ("networking.k8s.io", "IngressClass") => networking::ingress_class(object, now),
        ("networking.k8s.io", "NetworkPolicy") => networking::network_policy(object, now),
        ("networking.k8s.io", "ServiceCIDR") => networking::service_cidr(object, now),
        ("networking.k8s.io", "IPAddress") => networking::ip_address(object),
        ("node.k8s.io", "RuntimeClass") => networking::runtime_class(object, now),
        ("certificates.k8s.io", "CertificateSigningRequest") => networking::signing_request(object, now),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration") => {
            extensions::webhooks(object, now)
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            extensions::policy(object, "spec.validations", now)
        }
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => {
            extensions::policy(object, "spec.mutations", now)
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding") => {
            extensions::policy_binding(object, now)
        }
        ("apiregistration.k8s.io", "APIService") => extensions::api_service(object, now),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => extensions::flow_schema(object, now),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => extensions::priority_level(object, now),
        ("resource.k8s.io", "DeviceClass" | "ResourceClaimTemplate") => extensions::named(object, now),
        ("resource.k8s.io", "ResourceClaim") => extensions::resource_claim(object, now),
        ("resource.k8s.io", "ResourceSlice") => extensions::resource_slice(object, now),
        _ => object::plain(object),
    };
    Row { cells, conditions }
}

/// A row as JSON, with what the request wants to see of the object.
#[must_use]
pub fn row_json(resource: &Resource, object: &Value, now: Timestamp, include: Include) -> Value {
    let row = row(resource, object, now);
    let shown = match include {
        Include::None => Value::Null,
        Include::Object => object.clone(),
        Include::Metadata => json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
        }),
    };
    let mut out = json!({"cells": row.cells, "object": shown});
    if !row.conditions.is_empty() {
        out["conditions"] = row.conditions.into();
    }
    out
}

/// The column definitions as JSON.
#[must_use]
pub fn columns_json(resource: &Resource) -> Value {
    columns(resource).iter().map(Column::to_json).collect()
}

/// A whole table. `metadata` is the list's (or, for a single object, its resourceVersion).
#[must_use]
pub fn table<'a>(
    resource: &Resource,
    objects: impl IntoIterator<Item = &'a Value>,
    metadata: &Value,
    include: Include,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = objects.into_iter().map(|o| row_json(resource, o, now, include)).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns_json(resource), "rows": rows,
    })
}

#[cfg(test)]
mod tests;
