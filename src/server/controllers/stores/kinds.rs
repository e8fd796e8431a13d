//! Types: what is kept of the objects of each kind: what some controller reads.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerStatus, Endpoints, Namespace, Node, NodeAffinity, PersistentVolume,
    PersistentVolumeClaim, Pod, PodSpec, ResourceQuota, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::api::storage::v1::{CSIDriver, CSIDriverSpec, StorageClass, VolumeAttachment};

use super::{ApiService, Definition};
use crate::client::store::{Kind, Meta};
use crate::server::controllers::custom_resources::APPROVED;
use crate::server::controllers::{owners, pods, policy_status};

macro_rules! kinds {
    ($($kind:ty => |$object:ident| $trim:expr),* $(,)?) => { $(
        impl Kind for $kind {
            fn meta(&self) -> &dyn Meta {
                &self.metadata
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
    StatefulSet => |_o| (),
    DaemonSet => |_o| (),
    ControllerRevision => |_o| (),
    Job => |_o| (),
    CronJob => |_o| (),
    CertificateSigningRequest => |_o| (),
    PersistentVolume => |_o| (),
    PersistentVolumeClaim => |_o| (),
    StorageClass => |_o| (),
    CSIDriver => |driver| {
        driver.spec = CSIDriverSpec { attach_required: driver.spec.attach_required, ..CSIDriverSpec::default() };
    },
    VolumeAttachment => |attachment| {
        if let Some(status) = &mut attachment.status {
            status.attachment_metadata = None;
        }
    },
    Service => |_o| (),
    IPAddress => |_o| (),
    ServiceCIDR => |_o| (),
    Endpoints => |_o| (),
    EndpointSlice => |_o| (),
    Node => |node| trim_node(node),
    Namespace => |_o| (),
    Lease => |_o| (),
    FlowSchema => |_o| (),
    PriorityLevelConfiguration => |_o| (),
    ResourceQuota => |_o| (),
    PodDisruptionBudget => |_o| (),
    ResourceClaim => |claim| {
        if let Some(status) = &mut claim.status {
            status.devices = None;
        }
    },
    HorizontalPodAutoscaler => |_o| (),
    ValidatingAdmissionPolicy => |o| {
        o.metadata.annotations = None;
        // What was checked is looked at no more.
        if policy_status::is_checked(o) {
            (o.spec, o.status.get_or_insert_default().type_checking) = (None, None);
        }
    },
    Definition => |o| {
        if let Some(annotations) = &mut o.metadata.annotations {
            annotations.retain(|name, _| name == APPROVED);
        }
    },
    ApiService => |o| { o.metadata.annotations = None; },
}

/// Keeps what workloads, Endpoints, eviction and garbage collection look at. There may be thousands of pods.
fn trim_pod(pod: &mut Pod) {
    let of = |group, kind| owners::controller_named(&pod.metadata, group, kind).is_some();
    let (of_job, of_daemon_set) = (of("batch", "Job"), of("apps", "DaemonSet"));
    let deleting = pod.metadata.deletion_timestamp.is_some();
    pods::keep_claims(pod);
    if let Some(spec) = &mut pod.spec {
        trim_spec(spec, of_daemon_set);
    }
    if let Some(status) = &mut pod.status {
        status.ephemeral_container_statuses = None;
        // Only Jobs look at how these ended.
        status.init_container_statuses.take_if(|_| !of_job);
        // And at each of these; who deletes a pod asks which it restarted, and who detaches volumes which still run.
        if let Some(list) = &mut status.container_statuses {
            list.retain(|c| of_job || deleting || c.restart_count > 0);
            list.shrink_to_fit();
        }
        let all = [status.container_statuses.as_mut(), status.init_container_statuses.as_mut()];
        all.into_iter().flatten().flatten().for_each(trim_container_status);
    }
}

fn trim_spec(spec: &mut PodSpec, of_daemon_set: bool) {
    let whole = std::mem::take(spec);
    // A DaemonSet's pod says there which node it is for.
    let affinity = whole.affinity.filter(|_| of_daemon_set).and_then(|a| a.node_affinity);
    // Only Services look at containers: which ports they have, and which of them stay.
    let with_ports = |list: Vec<Container>| {
        let named = list.into_iter().filter(|c| c.ports.is_some());
        named.map(|c| Container {
            name: c.name,
            ports: c.ports,
            restart_policy: c.restart_policy,
            ..Container::default()
        })
    };
    let init_containers: Vec<Container> = whole.init_containers.map(|c| with_ports(c).collect()).unwrap_or_default();
    *spec = PodSpec {
        active_deadline_seconds: whole.active_deadline_seconds,
        affinity: affinity.map(|of_nodes| Affinity {
            node_affinity: Some(NodeAffinity {
                required_during_scheduling_ignored_during_execution: of_nodes
                    .required_during_scheduling_ignored_during_execution,
                ..NodeAffinity::default()
            }),
            ..Affinity::default()
        }),
        containers: with_ports(whole.containers).collect(),
        host_network: whole.host_network,
        hostname: whole.hostname,
        init_containers: Some(init_containers).filter(|list| !list.is_empty()),
        node_name: whole.node_name,
        readiness_gates: whole.readiness_gates,
        resource_claims: whole.resource_claims,
        restart_policy: whole.restart_policy,
        scheduling_gates: whole.scheduling_gates,
        subdomain: whole.subdomain,
        termination_grace_period_seconds: whole.termination_grace_period_seconds,
        tolerations: whole.tolerations,
        ..PodSpec::default()
    };
    spec.containers.shrink_to_fit();
}

fn trim_container_status(c: &mut ContainerStatus) {
    *c = ContainerStatus {
        name: std::mem::take(&mut c.name),
        ready: c.ready,
        restart_count: c.restart_count,
        state: c.state.take(),
        ..ContainerStatus::default()
    };
}

fn trim_node(node: &mut Node) {
    if let Some(status) = &mut node.status {
        status.images = None;
        status.node_info = None;
    }
}
