//! Types: the columns of each kind's table. Priority 1 shows with `-o wide` only.

use serde_json::{Value, json};

use super::{batch, extensions, networking, storage};
use crate::api::resource::Resource;

/// `metav1.TableColumnDefinition`
#[derive(Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// OpenAPI type of the cells.
    pub kind: &'static str,
    /// `name` marks the column that names the row.
    pub format: &'static str,
    pub description: &'static str,
    pub priority: u8,
}

impl Column {
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name, "type": self.kind, "format": self.format,
            "description": self.description, "priority": self.priority,
        })
    }
}

pub(super) const fn text(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 0 }
}

pub(super) const fn number(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "integer", format: "", description, priority: 0 }
}

pub(super) const fn wide(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 1 }
}

pub(super) const NAME: Column =
    Column { format: "name", ..text("Name", "Name of the object, unique within its namespace.") };
pub(super) const AGE: Column = text("Age", "Time since the object was created.");
pub(super) const CONTAINERS: Column = wide("Containers", "Names of each container in the template.");
pub(super) const IMAGES: Column = wide("Images", "Images referenced by each container in the template.");
pub(super) const SELECTOR: Column = wide("Selector", "Label selector of the pods.");

/// The columns of a resource's table.
#[must_use]
pub fn columns(resource: &Resource) -> &'static [Column] {
    match (resource.group, resource.kind) {
        ("", "Pod") => POD,
        ("", "Node") => NODE,
        ("", "Service") => SERVICE,
        ("", "Endpoints") => ENDPOINTS,
        ("discovery.k8s.io", "EndpointSlice") => ENDPOINT_SLICE,
        ("", "Namespace") => NAMESPACE,
        ("", "ConfigMap") => CONFIG_MAP,
        ("", "Secret") => SECRET,
        ("", "ServiceAccount") => SERVICE_ACCOUNT,
        ("" | "events.k8s.io", "Event") => EVENT,
        ("coordination.k8s.io", "Lease") => LEASE,
        ("scheduling.k8s.io", "PriorityClass") => PRIORITY_CLASS,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => BINDING,
        ("apps", "Deployment") => DEPLOYMENT,
        ("apps", "ReplicaSet") | ("", "ReplicationController") => REPLICA_SET,
        ("apps", "StatefulSet") => STATEFUL_SET,
        ("apps", "DaemonSet") => DAEMON_SET,
        ("apps", "ControllerRevision") => CONTROLLER_REVISION,
        ("", "PodTemplate") => POD_TEMPLATE,
        ("batch", "Job") => batch::JOB,
        ("batch", "CronJob") => batch::CRON_JOB,
        ("autoscaling", "HorizontalPodAutoscaler") => batch::AUTOSCALER,
        ("policy", "PodDisruptionBudget") => batch::DISRUPTION_BUDGET,
        ("", "PersistentVolume") => storage::PERSISTENT_VOLUME,
        ("", "PersistentVolumeClaim") => storage::PERSISTENT_VOLUME_CLAIM,
        ("", "ResourceQuota") => storage::RESOURCE_QUOTA,
        ("storage.k8s.io", "StorageClass") => storage::STORAGE_CLASS,
        ("storage.k8s.io", "CSIDriver") => storage::CSI_DRIVER,
        ("storage.k8s.io", "CSINode") => storage::CSI_NODE,
        ("storage.k8s.io", "CSIStorageCapacity") => storage::CSI_STORAGE_CAPACITY,
        ("storage.k8s.io", "VolumeAttachment") => storage::VOLUME_ATTACHMENT,
        ("storage.k8s.io", "VolumeAttributesClass") => storage::VOLUME_ATTRIBUTES_CLASS,
        ("networking.k8s.io", "Ingress") => networking::INGRESS,
        ("networking.k8s.io", "IngressClass") => networking::INGRESS_CLASS,
        ("networking.k8s.io", "NetworkPolicy") => networking::NETWORK_POLICY,
        ("networking.k8s.io", "ServiceCIDR") => networking::SERVICE_CIDR,
        ("networking.k8s.io", "IPAddress") => networking::IP_ADDRESS,
        ("node.k8s.io", "RuntimeClass") => networking::RUNTIME_CLASS,
        ("certificates.k8s.io", "CertificateSigningRequest") => networking::SIGNING_REQUEST,
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration") => {
            extensions::WEBHOOKS
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => extensions::VALIDATING_POLICY,
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => extensions::MUTATING_POLICY,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding") => {
            extensions::POLICY_BINDING
        }
        ("apiregistration.k8s.io", "APIService") => extensions::API_SERVICE,
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => extensions::FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => extensions::PRIORITY_LEVEL,
        ("resource.k8s.io", "DeviceClass" | "ResourceClaimTemplate") => extensions::NAMED,
        ("resource.k8s.io", "ResourceClaim") => extensions::RESOURCE_CLAIM,
        ("resource.k8s.io", "ResourceSlice") => extensions::RESOURCE_SLICE,
        _ => PLAIN,
    }
}

/// Kinds without a printer, roles among them.
const PLAIN: &[Column] = &[NAME, Column { kind: "date", ..text("Created At", "Time when the object was created.") }];

const POD: &[Column] = &[
    NAME,
    text("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    text("Status", "The aggregate status of the containers in this pod."),
    text(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    AGE,
    wide("IP", "Address of the pod."),
    wide("Node", "Node that the pod is bound to."),
    wide("Nominated Node", "Node that the pod waits for after a preemption."),
    wide("Readiness Gates", "Conditions beyond its containers that the pod's readiness waits for."),
];

const NODE: &[Column] = &[
    NAME,
    text("Status", "The status of the node"),
    text("Roles", "The roles of the node"),
    AGE,
    text("Version", "Version of the node's agent."),
    wide("Internal-IP", "Address within the cluster's network."),
    wide("External-IP", "Address outside of the cluster's network."),
    wide("OS-Image", "Operating system of the node."),
    wide("Kernel-Version", "Kernel of the node."),
    wide("Container-Runtime", "Container runtime and its version."),
];

const SERVICE: &[Column] = &[
    NAME,
    text("Type", "How the service is exposed."),
    text("Cluster-IP", "Virtual address of the service."),
    text("External-IP", "Addresses outside of the cluster."),
    text("Port(s)", "Ports that the service serves."),
    AGE,
    SELECTOR,
];

const ENDPOINTS: &[Column] = &[NAME, text("Endpoints", "Addresses and ports that are ready."), AGE];

const ENDPOINT_SLICE: &[Column] = &[
    NAME,
    text("AddressType", "Type of the addresses in this slice."),
    text("Ports", "Ports of each endpoint."),
    text("Endpoints", "Addresses in this slice."),
    AGE,
];

const NAMESPACE: &[Column] = &[NAME, text("Status", "The status of the namespace"), AGE];

const CONFIG_MAP: &[Column] = &[NAME, text("Data", "Number of entries."), AGE];

const SECRET: &[Column] =
    &[NAME, text("Type", "What the secret is used for."), text("Data", "Number of entries."), AGE];

const SERVICE_ACCOUNT: &[Column] = &[NAME, text("Secrets", "Number of secrets it may use."), AGE];

const EVENT: &[Column] = &[
    text("Last Seen", "Time since it last happened."),
    text("Type", "Normal or Warning."),
    text("Reason", "A short word for why it happened."),
    text("Object", "What it happened to."),
    wide("Subobject", "The part of the object."),
    wide("Source", "Who reported it."),
    text("Message", "What happened."),
    wide("First Seen", "Time since it first happened."),
    wide("Count", "How often it happened."),
    Column { priority: 1, ..NAME },
];

const LEASE: &[Column] = &[NAME, text("Holder", "Who holds the lease."), AGE];

const PRIORITY_CLASS: &[Column] = &[
    NAME,
    number("Value", "The priority itself."),
    Column { kind: "boolean", ..text("Global-Default", "Pods that name no class get this one.") },
    AGE,
    text("PreemptionPolicy", "Whether pods of this class evict others."),
];

const BINDING: &[Column] = &[
    NAME,
    text("Role", "The role that is granted."),
    AGE,
    wide("Users", "Users in the roleBinding"),
    wide("Groups", "Groups in the roleBinding"),
    wide("ServiceAccounts", "ServiceAccounts in the roleBinding"),
];

const DEPLOYMENT: &[Column] = &[
    NAME,
    text("Ready", "Number of the pod with ready state"),
    text("Up-to-date", "Number of pods of the newest template."),
    text("Available", "Number of pods ready for long enough."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const REPLICA_SET: &[Column] = &[
    NAME,
    number("Desired", "Number of pods wanted."),
    number("Current", "Number of pods that exist."),
    number("Ready", "Number of pods that are ready."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const STATEFUL_SET: &[Column] = &[NAME, text("Ready", "Number of the pod with ready state"), AGE, CONTAINERS, IMAGES];

const DAEMON_SET: &[Column] = &[
    NAME,
    number("Desired", "Number of nodes that should run the pod."),
    number("Current", "Number of nodes that run the pod and should."),
    number("Ready", "Number of nodes whose pod is ready."),
    number("Up-to-date", "Number of nodes that run the newest template."),
    number("Available", "Number of nodes whose pod is ready for long enough."),
    text("Node Selector", "Labels of the nodes that run the pod."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const CONTROLLER_REVISION: &[Column] =
    &[NAME, text("Controller", "What the state belongs to."), number("Revision", "Its number."), AGE];

const POD_TEMPLATE: &[Column] = &[
    NAME,
    text("Containers", "Names of each container in the template."),
    text("Images", "Images referenced by each container in the template."),
    text("Pod Labels", "Labels of the pods."),
];
