//! Effects: which pod has which devices, for monitors on the node: the service `v1.PodResourcesLister` at
//! `pod-resources/kubelet.sock` (`k8s.io/kubelet/pkg/apis/podresources/v1`). Whoever may open the socket may ask.

use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Pod;
use prost::Message;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::context::NodeContext;
use super::devices::Seen;
use super::devices::protocol::{NumaNode, TopologyInfo};
use super::plugins::grpc;
use super::pod::{containers, is_final, name, namespace, uid};
use crate::config::cpu_set::CpuSet;

const LIST: &str = "/v1.PodResourcesLister/List";
const GET: &str = "/v1.PodResourcesLister/Get";
const ALLOCATABLE: &str = "/v1.PodResourcesLister/GetAllocatableResources";

/// Of `List` and `GetAllocatableResources`.
#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub struct GetPodResourcesRequest {
    #[prost(string, tag = "1")]
    pub pod_name: String,
    #[prost(string, tag = "2")]
    pub pod_namespace: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ListPodResourcesResponse {
    #[prost(message, repeated, tag = "1")]
    pub pod_resources: Vec<PodResources>,
}

#[derive(Clone, PartialEq, Message)]
pub struct GetPodResourcesResponse {
    #[prost(message, optional, tag = "1")]
    pub pod_resources: Option<PodResources>,
}

#[derive(Clone, PartialEq, Message)]
pub struct AllocatableResourcesResponse {
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<ContainerDevices>,
    #[prost(int64, repeated, tag = "2")]
    pub cpu_ids: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodResources {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(message, repeated, tag = "3")]
    pub containers: Vec<ContainerResources>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerResources {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub devices: Vec<ContainerDevices>,
    /// Those that it has for itself.
    #[prost(int64, repeated, tag = "3")]
    pub cpu_ids: Vec<i64>,
    #[prost(message, repeated, tag = "5")]
    pub dynamic_resources: Vec<DynamicResource>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerDevices {
    #[prost(string, tag = "1")]
    pub resource_name: String,
    #[prost(string, repeated, tag = "2")]
    pub device_ids: Vec<String>,
    #[prost(message, optional, tag = "3")]
    pub topology: Option<TopologyInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub struct DynamicResource {
    #[prost(string, tag = "2")]
    pub claim_name: String,
    #[prost(string, tag = "3")]
    pub claim_namespace: String,
    #[prost(message, repeated, tag = "4")]
    pub claim_resources: Vec<ClaimResource>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ClaimResource {
    #[prost(message, repeated, tag = "1")]
    pub cdi_devices: Vec<CdiDevice>,
    #[prost(string, tag = "2")]
    pub driver_name: String,
    #[prost(string, tag = "3")]
    pub pool_name: String,
    #[prost(string, tag = "4")]
    pub device_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct CdiDevice {
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Serves in the directory until `stop`.
pub async fn run(cx: Arc<NodeContext>, directory: PathBuf, stop: CancellationToken) {
    let path = directory.join("kubelet.sock");
    // Of an agent that was killed.
    let _ = std::fs::remove_file(&path);
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "nobody can ask which pod has which devices");
            return;
        }
    };
    let service: grpc::Service = Arc::new(move |request| answer(cx.clone(), request).boxed());
    grpc::serve(listener, service, stop).await;
    let _ = std::fs::remove_file(&path);
}

async fn answer(cx: Arc<NodeContext>, request: grpc::HttpRequest) -> grpc::HttpResponse {
    match request.uri().path() {
        LIST => {
            let list = |_: Empty| async move {
                // Those that are over have nothing any more.
                let entries = cx.pods.entries().into_iter().filter(|entry| !is_final(&entry.status));
                let pod_resources = entries.map(|entry| resources(&cx, &entry.pod)).collect();
                Ok(ListPodResourcesResponse { pod_resources })
            };
            grpc::unary(request, list).await
        }
        GET => {
            let get = |asked: GetPodResourcesRequest| async move {
                let GetPodResourcesRequest { pod_name, pod_namespace } = asked;
                let found = cx.pods.find(&pod_namespace, &pod_name);
                let found = found
                    .ok_or_else(|| Status::unknown(format!("pod {pod_name} in namespace {pod_namespace} not found")))?;
                Ok(GetPodResourcesResponse { pod_resources: Some(resources(&cx, &found.pod)) })
            };
            grpc::unary(request, get).await
        }
        ALLOCATABLE => {
            let allocatable = |_: Empty| async move {
                Ok(AllocatableResourcesResponse {
                    devices: of_each(cx.devices.working()),
                    cpu_ids: ids(&cx.exclusive.allocatable()),
                })
            };
            grpc::unary(request, allocatable).await
        }
        _ => grpc::unknown(),
    }
}

fn resources(cx: &NodeContext, pod: &Pod) -> PodResources {
    let containers = containers(pod).map(|(_, container)| ContainerResources {
        name: container.name.clone(),
        devices: of_each(cx.devices.granted(uid(pod), &container.name)),
        cpu_ids: ids(&cx.exclusive.of(uid(pod), &container.name)),
        dynamic_resources: cx.drivers.granted(pod, container).into_iter().map(dynamic).collect(),
    });
    PodResources { name: name(pod).to_owned(), namespace: namespace(pod).to_owned(), containers: containers.collect() }
}

fn ids(cpus: &CpuSet) -> Vec<i64> {
    cpus.iter().map(i64::from).collect()
}

/// One row for each device, and one for each of the nodes that it is at.
fn of_each(devices: Vec<Seen>) -> Vec<ContainerDevices> {
    let rows = |seen: Seen| {
        let Seen { resource, id, nodes } = seen;
        let row = move |node: Option<u32>| ContainerDevices {
            resource_name: resource.clone(),
            device_ids: vec![id.clone()],
            topology: node.map(|node| TopologyInfo { nodes: vec![NumaNode { id: i64::from(node) }] }),
        };
        match nodes {
            None => vec![row(None)],
            Some(nodes) => nodes.into_iter().map(|node| row(Some(node))).collect::<Vec<_>>(),
        }
    };
    devices.into_iter().flat_map(rows).collect()
}

fn dynamic(claim: super::dra::claims::Prepared) -> DynamicResource {
    let each = |(driver, devices): (String, Vec<super::dra::protocol::Device>)| {
        devices.into_iter().map(move |device| ClaimResource {
            cdi_devices: device.cdi_device_ids.into_iter().map(|name| CdiDevice { name }).collect(),
            driver_name: driver.clone(),
            pool_name: device.pool_name,
            device_name: device.device_name,
        })
    };
    DynamicResource {
        claim_name: claim.name,
        claim_namespace: claim.namespace,
        claim_resources: claim.devices.into_iter().flat_map(each).collect(),
    }
}
