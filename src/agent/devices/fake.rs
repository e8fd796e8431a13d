//! Fake: a device plugin, for tests: it offers what it is told to, and gives each device as a node of its own and all
//! their names in a variable.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::stream;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::protocol::{
    self, AllocateRequest, AllocateResponse, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationResponse, Device, DevicePluginOptions, DeviceSpec, Empty, ListAndWatchResponse,
    NumaNode, PreStartContainerRequest, PreferredAllocationRequest, PreferredAllocationResponse, RegisterRequest,
    TopologyInfo,
};
use crate::agent::plugins::grpc;

/// Calls that a test has not looked at yet.
const CALLS: usize = 64;

/// Runs while it is kept; its socket stays, as that of one which was killed.
pub struct FakePlugin {
    resource: String,
    directory: PathBuf,
    offered: watch::Sender<Vec<Device>>,
    /// What it was asked: `Allocate a,b`.
    pub calls: mpsc::Receiver<String>,
    _tasks: JoinSet<()>,
}

impl FakePlugin {
    /// Serves at a socket in the directory of device plugins. Within a runtime.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(directory: &Path, resource: &str) -> std::io::Result<FakePlugin> {
        let socket = directory.join(Self::socket(resource));
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)?;
        let (offered, list) = watch::channel(Vec::new());
        let (log, calls) = mpsc::channel(CALLS);
        let service: grpc::Service = Arc::new(move |request| answer(request, list.clone(), log.clone()).boxed());
        let mut tasks = JoinSet::new();
        tasks.spawn(grpc::serve(listener, service, CancellationToken::new()));
        let (resource, directory) = (resource.to_owned(), directory.to_owned());
        Ok(FakePlugin { resource, directory, offered, calls, _tasks: tasks })
    }

    fn socket(resource: &str) -> String {
        format!("{}.sock", resource.replace('/', "-"))
    }

    /// Tells the agent that it is there.
    ///
    /// # Errors
    /// What the agent said.
    pub async fn register(&self) -> Result<(), grpc::Error> {
        let request = RegisterRequest {
            version: protocol::VERSION.into(),
            endpoint: Self::socket(&self.resource),
            resource_name: self.resource.clone(),
            options: None,
        };
        let channel = grpc::channel(&self.directory.join("kubelet.sock"));
        let _: Empty = grpc::call(&channel, protocol::REGISTER, request, Duration::from_secs(10)).await?;
        Ok(())
    }

    /// What it offers from now on; names that begin with `!` do not work, and `gpu@1` is at NUMA node 1.
    pub fn offer(&self, names: &[&str]) {
        let device = |name: &&str| {
            let (id, node) = name.split_once('@').unwrap_or((name, ""));
            Device {
                id: id.trim_start_matches('!').to_owned(),
                health: if name.starts_with('!') { "Unhealthy" } else { protocol::HEALTHY }.to_owned(),
                topology: node.parse().ok().map(|id| TopologyInfo { nodes: vec![NumaNode { id }] }),
            }
        };
        self.offered.send_replace(names.iter().map(device).collect());
    }
}

async fn answer(
    request: grpc::HttpRequest,
    list: watch::Receiver<Vec<Device>>,
    log: mpsc::Sender<String>,
) -> grpc::HttpResponse {
    let note = move |text: String| {
        let _ = log.try_send(text);
    };
    match request.uri().path() {
        protocol::OPTIONS => {
            let options = DevicePluginOptions { pre_start_required: true, get_preferred_allocation_available: true };
            grpc::unary(request, |_: Empty| async move { Ok(options) }).await
        }
        protocol::LIST_AND_WATCH => {
            let lists = stream::unfold((list, true), |(mut list, first)| async move {
                if !first {
                    list.changed().await.ok()?;
                }
                let devices = list.borrow_and_update().clone();
                Some((Ok(ListAndWatchResponse { devices }), (list, false)))
            });
            grpc::streamed(request, |_: Empty| lists).await
        }
        // The last ones are its favourites.
        protocol::PREFERRED => {
            let prefer = |asked: PreferredAllocationRequest| async move {
                let container_responses = asked.container_requests.into_iter().map(|of| {
                    let size = usize::try_from(of.allocation_size).unwrap_or(0);
                    let device_ids = of.available_device_ids.into_iter().rev().take(size).collect();
                    ContainerPreferredAllocationResponse { device_ids }
                });
                Ok(PreferredAllocationResponse { container_responses: container_responses.collect() })
            };
            grpc::unary(request, prefer).await
        }
        protocol::ALLOCATE => {
            let allocate = |asked: AllocateRequest| async move {
                let ids: Vec<String> = asked.container_requests.iter().map(|of| of.devices_ids.join(",")).collect();
                note(format!("Allocate {}", ids.join(" ")));
                if ids.iter().any(|ids| ids.contains("broken")) {
                    return Err(Status::unknown("the device does not answer"));
                }
                let container_responses = asked.container_requests.into_iter().map(allocated).collect();
                Ok(AllocateResponse { container_responses })
            };
            grpc::unary(request, allocate).await
        }
        protocol::PRE_START => {
            let start = |asked: PreStartContainerRequest| async move {
                note(format!("PreStartContainer {}", asked.devices_ids.join(",")));
                Ok(Empty {})
            };
            grpc::unary(request, start).await
        }
        _ => grpc::unknown(),
    }
}

fn allocated(of: ContainerAllocateRequest) -> ContainerAllocateResponse {
    let node = |id: &String| DeviceSpec {
        container_path: format!("/dev/{id}"),
        host_path: "/dev/null".into(),
        permissions: "rw".into(),
    };
    ContainerAllocateResponse {
        envs: [("VISIBLE_DEVICES".to_owned(), of.devices_ids.join(","))].into(),
        devices: of.devices_ids.iter().map(node).collect(),
        annotations: [("example.com/devices".to_owned(), of.devices_ids.join(","))].into(),
        ..ContainerAllocateResponse::default()
    }
}
