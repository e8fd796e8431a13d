//! Effects: [`Runtime`] and [`Images`] over CRI v1 gRPC on a Unix socket. One channel, which reconnects by itself
//! when the runtime restarts.

mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response};

use self::words::{described, image, listed, pod_selector, sandbox};
use super::containerd::Supervised;
use super::v1::image_service_client::ImageServiceClient;
use super::v1::runtime_service_client::RuntimeServiceClient;
use super::{
    Container, Error, ExecResult, Handler, Health, Image, Images, Result, Runtime, RuntimeEvent, Sandbox,
    StreamOptions, Usage, Version, events, image_names, v1,
};

/// Calls that only read: a runtime that takes longer than this hangs.
const READ_DEADLINE: Duration = Duration::from_secs(10);
/// Calls that start or stop something. Setting up a network can wait for IPAM.
const WRITE_DEADLINE: Duration = Duration::from_secs(120);
/// A pull may be slow; without any progress the runtime itself gives up earlier.
const PULL_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// Starts under way at once, for each core. Each is a handful of processes of the runtime: more of them at once take
/// memory that a small board lacks, and end later (50 pods on 2 cores: 4.7 s by fours, 5.3 s all at once).
const STARTS_PER_CORE: usize = 2;
/// A start that waited this long for others goes ahead: what hangs must not hold up the rest.
const TURN_LIMIT: Duration = Duration::from_secs(30);
/// Lists of hundreds of containers exceed tonic's 4 MiB.
const MESSAGE_LIMIT: usize = 32 * 1024 * 1024;

/// A CRI client. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    endpoint: String,
    channel: Channel,
    starts: Arc<Semaphore>,
    /// Why the runtime cannot be reached, when its supervisor knows better than the socket.
    problem: Option<watch::Receiver<Option<String>>>,
}

/// A channel to a Unix socket. Nothing is connected until the first call.
pub fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    // The authority is required by HTTP/2 and ignored by the server.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(&socket).await.map(TokioIo::new) }
    }))
}

impl Client {
    /// `socket` is the path of the runtime's Unix socket.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            endpoint: format!("unix://{}", socket.display()),
            channel: channel(socket),
            starts: Arc::new(Semaphore::new(cores * STARTS_PER_CORE)),
            problem: None,
        }
    }

    /// A client of a runtime that we supervise: its supervisor explains why it is down.
    #[must_use]
    pub fn supervised(runtime: &Supervised) -> Self {
        Self { problem: Some(runtime.problem.clone()), ..Self::new(&runtime.socket) }
    }

    fn unreachable(&self, message: String) -> Error {
        let known = self.problem.as_ref().and_then(|p| p.borrow().clone());
        Error::Unreachable { endpoint: self.endpoint.clone(), message: known.unwrap_or(message) }
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_LIMIT)
    }

    fn image_service(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_LIMIT)
    }

    /// Waits for this start's turn, which lasts as long as what is returned.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        tokio::time::timeout(TURN_LIMIT, self.starts.acquire()).await.ok()?.ok()
    }

    /// Waits for one call, within a deadline, and puts its failure in our words.
    async fn call<T>(
        &self,
        call: &'static str,
        deadline: Duration,
        future: impl Future<Output = std::result::Result<Response<T>, tonic::Status>>,
    ) -> Result<T> {
        match tokio::time::timeout(deadline, future).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failure(call, &status)),
            Err(_) => Err(Error::TimedOut { call, after: deadline }),
        }
    }

    fn failure(&self, call: &'static str, status: &tonic::Status) -> Error {
        let message = status.message().to_owned();
        match status.code() {
            Code::NotFound => Error::NotFound(message),
            Code::Unavailable => self.unreachable(message),
            Code::DeadlineExceeded => Error::TimedOut { call, after: WRITE_DEADLINE },
            // A connection that broke during the call surfaces as a transport error.
            Code::Unknown if std::error::Error::source(status).is_some() => self.unreachable(message),
            // What `kubectl describe` shows on any cluster: the gRPC code stays in front.
            code => Error::Failed { call, message: format!("rpc error: code = {code:?} desc = {message}") },
        }
    }
}

/// Nothing to undo is success: stop and remove are idempotent.
fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::NotFound(_)) => Ok(()),
        other => other,
    }
}

fn image_spec(reference: &str) -> v1::ImageSpec {
    v1::ImageSpec { image: reference.to_owned(), ..Default::default() }
}

#[async_trait]
impl Runtime for Client {
    async fn version(&self) -> Result<Version> {
        let mut rpc = self.runtime();
        let request = v1::VersionRequest { version: "v1".into() };
        let v = self.call("Version", READ_DEADLINE, rpc.version(request)).await?;
        Ok(Version { name: v.runtime_name, version: v.runtime_version })
    }

    async fn health(&self) -> Result<Health> {
        let mut rpc = self.runtime();
        let response = self.call("Status", READ_DEADLINE, rpc.status(v1::StatusRequest { verbose: false })).await?;
        let handler = |found: v1::RuntimeHandler| {
            let can = found.features.unwrap_or_default();
            Handler {
                name: found.name,
                recursive_read_only: can.recursive_read_only_mounts,
                user_namespaces: can.user_namespaces,
            }
        };
        let mut handlers: Vec<Handler> = response.runtime_handlers.into_iter().map(handler).collect();
        handlers.sort_by(|a, b| a.name.cmp(&b.name));
        let supplemental_groups_policy = response.features.map(|can| can.supplemental_groups_policy);
        let mut health = Health { handlers, supplemental_groups_policy, ..Health::default() };
        let mut why = Vec::new();
        for condition in response.status.unwrap_or_default().conditions {
            match condition.r#type.as_str() {
                "RuntimeReady" => health.runtime_ready = condition.status,
                "NetworkReady" => health.network_ready = condition.status,
                _ => continue,
            }
            if !condition.status {
                why.push(format!(
                    "{}=false reason:{} message:{}",
                    condition.r#type, condition.reason, condition.message
                ));
            }
        }
        health.message = why.join(", ");
        Ok(health)
    }

    async fn run_sandbox(&self, config: &v1::PodSandboxConfig, handler: &str) -> Result<String> {
        let mut rpc = self.runtime();
        let _turn = self.turn().await;
        let request = v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.into() };
        let response = self.call("RunPodSandbox", WRITE_DEADLINE, rpc.run_pod_sandbox(request)).await?;
        Ok(response.pod_sandbox_id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let mut rpc = self.runtime();
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: id.into() };
        gone_is_fine(self.call("StopPodSandbox", WRITE_DEADLINE, rpc.stop_pod_sandbox(request)).await.map(drop))
    }

    async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let mut rpc = self.runtime();
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.into() };
        gone_is_fine(self.call("RemovePodSandbox", WRITE_DEADLINE, rpc.remove_pod_sandbox(request)).await.map(drop))
    }

    async fn sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<Sandbox>> {
        let mut rpc = self.runtime();
        let filter = v1::PodSandboxFilter { label_selector: pod_selector(pod_uid), ..Default::default() };
        let request = v1::ListPodSandboxRequest { filter: Some(filter) };
        let response = self.call("ListPodSandbox", READ_DEADLINE, rpc.list_pod_sandbox(request)).await?;
        Ok(response.items.into_iter().map(|s| sandbox(s.id, s.metadata, s.state, s.created_at)).collect())
    }

    async fn sandbox_status(&self, id: &str) -> Result<Sandbox> {
        let mut rpc = self.runtime();
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
        let response = self.call("PodSandboxStatus", READ_DEADLINE, rpc.pod_sandbox_status(request)).await?;
        let s = response.status.ok_or_else(|| Error::NotFound(format!("sandbox {id}")))?;
        let network = s.network.unwrap_or_default();
        let mut sandbox = sandbox(s.id, s.metadata, s.state, s.created_at);
        let additional = network.additional_ips.into_iter().map(|ip| ip.ip);
        sandbox.ips = std::iter::once(network.ip).chain(additional).filter(|ip| !ip.is_empty()).collect();
        Ok(sandbox)
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &v1::ContainerConfig,
        sandbox: &v1::PodSandboxConfig,
    ) -> Result<String> {
        let mut rpc = self.runtime();
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.into(),
            config: Some(config.clone()),
            sandbox_config: Some(sandbox.clone()),
        };
        let response = self.call("CreateContainer", WRITE_DEADLINE, rpc.create_container(request)).await?;
        Ok(response.container_id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let mut rpc = self.runtime();
        let _turn = self.turn().await;
        let request = v1::StartContainerRequest { container_id: id.into() };
        self.call("StartContainer", WRITE_DEADLINE, rpc.start_container(request)).await.map(drop)
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let mut rpc = self.runtime();
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = v1::StopContainerRequest { container_id: id.into(), timeout };
        let deadline = grace.saturating_add(WRITE_DEADLINE);
        gone_is_fine(self.call("StopContainer", deadline, rpc.stop_container(request)).await.map(drop))
    }

    async fn update_container(&self, id: &str, resources: v1::LinuxContainerResources) -> Result<()> {
        let mut rpc = self.runtime();
        let request = v1::UpdateContainerResourcesRequest {
            container_id: id.into(),
            linux: Some(resources),
            ..v1::UpdateContainerResourcesRequest::default()
        };
        let answer = rpc.update_container_resources(request);
        self.call("UpdateContainerResources", WRITE_DEADLINE, answer).await.map(drop)
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let mut rpc = self.runtime();
        let request = v1::RemoveContainerRequest { container_id: id.into() };
        gone_is_fine(self.call("RemoveContainer", WRITE_DEADLINE, rpc.remove_container(request)).await.map(drop))
    }

    async fn containers(&self, pod_uid: Option<&str>) -> Result<Vec<Container>> {
        let mut rpc = self.runtime();
        let filter = v1::ContainerFilter { label_selector: pod_selector(pod_uid), ..Default::default() };
        let request = v1::ListContainersRequest { filter: Some(filter) };
        let response = self.call("ListContainers", READ_DEADLINE, rpc.list_containers(request)).await?;
        Ok(response.containers.into_iter().map(listed).collect())
    }

    async fn container_status(&self, id: &str) -> Result<Container> {
        let mut rpc = self.runtime();
        let request = v1::ContainerStatusRequest { container_id: id.into(), verbose: false };
        let response = self.call("ContainerStatus", READ_DEADLINE, rpc.container_status(request)).await?;
        response.status.map(described).ok_or_else(|| Error::NotFound(format!("container {id}")))
    }

    async fn reopen_log(&self, id: &str) -> Result<()> {
        let mut rpc = self.runtime();
        let request = v1::ReopenContainerLogRequest { container_id: id.into() };
        self.call("ReopenContainerLog", READ_DEADLINE, rpc.reopen_container_log(request)).await.map(drop)
    }

    async fn usage(&self) -> Result<Vec<Usage>> {
        let mut rpc = self.runtime();
        let request = v1::ListContainerStatsRequest { filter: None };
        let response = self.call("ListContainerStats", READ_DEADLINE, rpc.list_container_stats(request)).await?;
        let usage = |s: v1::ContainerStats| Usage {
            container_id: s.attributes.unwrap_or_default().id,
            cpu_nanoseconds: s.cpu.and_then(|c| c.usage_core_nano_seconds).map_or(0, |v| v.value),
            memory_bytes: s.memory.and_then(|m| m.working_set_bytes).map_or(0, |v| v.value),
            layer_bytes: s.writable_layer.as_ref().and_then(|l| l.used_bytes).map_or(0, |v| v.value),
            layer_inodes: s.writable_layer.as_ref().and_then(|l| l.inodes_used).map_or(0, |v| v.value),
        };
        Ok(response.stats.into_iter().map(usage).collect())
    }

    async fn exec(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecResult> {
        let mut rpc = self.runtime();
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let request = v1::ExecSyncRequest { container_id: id.into(), cmd: command.to_vec(), timeout: seconds };
        let deadline = if timeout.is_zero() { PULL_DEADLINE } else { timeout + READ_DEADLINE };
        let response = self.call("ExecSync", deadline, rpc.exec_sync(request)).await?;
        Ok(ExecResult { exit_code: response.exit_code, stdout: response.stdout, stderr: response.stderr })
    }

    async fn exec_url(&self, id: &str, command: &[String], options: StreamOptions) -> Result<String> {
        let mut rpc = self.runtime();
        let StreamOptions { stdin, stdout, stderr, tty } = options;
        let request = v1::ExecRequest { container_id: id.into(), cmd: command.to_vec(), tty, stdin, stdout, stderr };
        Ok(self.call("Exec", READ_DEADLINE, rpc.exec(request)).await?.url)
    }

    async fn attach_url(&self, id: &str, options: StreamOptions) -> Result<String> {
        let mut rpc = self.runtime();
        let StreamOptions { stdin, stdout, stderr, tty } = options;
        let request = v1::AttachRequest { container_id: id.into(), stdin, tty, stdout, stderr };
        Ok(self.call("Attach", READ_DEADLINE, rpc.attach(request)).await?.url)
    }

    async fn port_forward_url(&self, sandbox_id: &str, ports: &[u16]) -> Result<String> {
        let mut rpc = self.runtime();
        let port = ports.iter().copied().map(i32::from).collect();
        let request = v1::PortForwardRequest { pod_sandbox_id: sandbox_id.into(), port };
        Ok(self.call("PortForward", READ_DEADLINE, rpc.port_forward(request)).await?.url)
    }

    async fn checkpoint(&self, id: &str, file: &Path, timeout: Duration) -> Result<()> {
        let mut rpc = self.runtime();
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let location = file.display().to_string();
        let request = v1::CheckpointContainerRequest { container_id: id.into(), location, timeout: seconds };
        let deadline = if timeout.is_zero() { WRITE_DEADLINE } else { timeout.saturating_add(READ_DEADLINE) };
        self.call("CheckpointContainer", deadline, rpc.checkpoint_container(request)).await.map(drop)
    }

    async fn events(&self) -> Result<BoxStream<'static, RuntimeEvent>> {
        match events::containerd(self.channel.clone(), self.clone()).await {
            Ok(stream) => return Ok(stream),
            // Another runtime does not have containerd's services; any other failure is real.
            Err(status) if status.code() == Code::Unimplemented => {}
            Err(status) => return Err(self.failure("Subscribe", &status)),
        }
        let mut rpc = self.runtime();
        let request = Request::new(v1::GetEventsRequest {});
        let stream = rpc.get_container_events(request).await.map_err(|s| self.failure("GetContainerEvents", &s))?;
        Ok(events::cri(stream.into_inner()))
    }
}

#[async_trait]
impl Images for Client {
    async fn images(&self) -> Result<Vec<Image>> {
        let mut rpc = self.image_service();
        let request = v1::ListImagesRequest { filter: None };
        let response = self.call("ListImages", READ_DEADLINE, rpc.list_images(request)).await?;
        Ok(response.images.into_iter().map(image).collect())
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>> {
        let mut rpc = self.image_service();
        let request = v1::ImageStatusRequest { image: Some(image_spec(reference)), verbose: false };
        let response = self.call("ImageStatus", READ_DEADLINE, rpc.image_status(request)).await?;
        Ok(response.image.map(image))
    }

    async fn pull(
        &self,
        reference: &str,
        auth: Option<v1::AuthConfig>,
        sandbox: Option<&v1::PodSandboxConfig>,
    ) -> Result<String> {
        let mut rpc = self.image_service();
        let request =
            v1::PullImageRequest { image: Some(image_spec(reference)), auth, sandbox_config: sandbox.cloned() };
        Ok(self.call("PullImage", PULL_DEADLINE, rpc.pull_image(request)).await?.image_ref)
    }

    async fn remove_image(&self, reference: &str) -> Result<()> {
        let mut rpc = self.image_service();
        let request = v1::RemoveImageRequest { image: Some(image_spec(reference)) };
        gone_is_fine(self.call("RemoveImage", WRITE_DEADLINE, rpc.remove_image(request)).await.map(drop))
    }

    async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let renamed = image_names::rename(self.channel.clone(), from, to);
        match tokio::time::timeout(READ_DEADLINE, renamed).await {
            Ok(renamed) => renamed.map_err(|status| self.failure("rename", &status)),
            Err(_) => Err(Error::TimedOut { call: "rename", after: READ_DEADLINE }),
        }
    }

    async fn directory(&self) -> Result<PathBuf> {
        let mut rpc = self.image_service();
        let response = self.call("ImageFsInfo", READ_DEADLINE, rpc.image_fs_info(v1::ImageFsInfoRequest {})).await?;
        let place = response.image_filesystems.into_iter().find_map(|f| f.fs_id).map(|id| PathBuf::from(id.mountpoint));
        place.ok_or_else(|| Error::NotFound("file system of the images".into()))
    }

    async fn image_bytes(&self) -> Result<u64> {
        let mut rpc = self.image_service();
        let response = self.call("ImageFsInfo", READ_DEADLINE, rpc.image_fs_info(v1::ImageFsInfoRequest {})).await?;
        Ok(response.image_filesystems.iter().filter_map(|f| f.used_bytes).map(|b| b.value).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn starts_take_turns_but_not_for_ever() {
        let client = Client::new(Path::new("/nowhere"));
        let mut turns = Vec::new();
        while client.starts.available_permits() > 0 {
            turns.push(client.turn().await.expect("a turn is free"));
        }
        let begin = crate::clock::instant();
        assert!(client.turn().await.is_none(), "those before it hang: it goes ahead");
        assert!(begin.elapsed() >= TURN_LIMIT);
        turns.pop();
        assert!(client.turn().await.is_some());
    }
}
