//! The container runtime, reached through CRI v1 and nothing else.
//!
//! Configurations are the protocol's own messages ([`v1`]); what comes back is in our words. [`client`] speaks gRPC,
//! [`containerd`] supervises the daemon, [`image_import`] loads image archives, [`in_use`] tells which images must stay, [`fake`] is for tests.

#![deny(clippy::unwrap_used, clippy::expect_used)]

pub mod client;
pub mod containerd;
pub mod containerd_config;
pub mod events;
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "only tests run it")]
pub mod fake;
pub mod image_archive;
pub mod image_import;
mod image_names;
pub mod images_dir;
pub mod in_use;
pub mod pause;
pub mod records;
pub mod registries;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
/// CRI v1 messages, as `k8s.io/cri-api` defines them.
pub use k8s_cri::v1;

/// A failed call to the runtime.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("container runtime at {endpoint} cannot be reached: {message}")]
    Unreachable { endpoint: String, message: String },
    #[error("{call} did not finish within {}s", after.as_secs())]
    TimedOut { call: &'static str, after: Duration },
    #[error("not found: {0}")]
    NotFound(String),
    /// The message is the runtime's own, as users know it from `kubectl describe`.
    #[error("{message}")]
    Failed { call: &'static str, message: String },
}

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Clone, Debug, Default)]
pub struct Version {
    /// `containerd`
    pub name: String,
    pub version: String,
}

#[derive(Clone, Debug, Default)]
pub struct Health {
    pub runtime_ready: bool,
    pub network_ready: bool,
    /// Why not, from the runtime.
    pub message: String,
    /// The default one has no name.
    pub handlers: Vec<Handler>,
    /// It knows which groups of an image a container is not to have; `None` when it does not say.
    pub supplemental_groups_policy: Option<bool>,
}

/// One of the programs that the runtime makes containers with, and what it can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handler {
    pub name: String,
    /// All that is below a mount can be made read-only.
    pub recursive_read_only: bool,
    /// Pods may have users of their own, on their volumes too.
    pub user_namespaces: bool,
}

impl Health {
    /// What the default handler can do; `None` when the runtime does not say.
    #[must_use]
    pub fn default_handler(&self) -> Option<&Handler> {
        self.handlers.iter().find(|handler| handler.name.is_empty())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Exited,
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Sandbox {
    pub id: String,
    pub pod_uid: String,
    pub namespace: String,
    pub name: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at: jiff::Timestamp,
    /// Filled by [`Runtime::sandbox_status`] only. First is primary.
    pub ips: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Container {
    pub id: String,
    pub sandbox_id: String,
    pub pod_uid: String,
    pub name: String,
    /// Counts restarts of this container within the pod.
    pub attempt: u32,
    pub state: State,
    /// The image as the pod names it.
    pub image: String,
    /// `sha256:…` of the image configuration, or a digest reference.
    pub image_ref: String,
    pub created_at: jiff::Timestamp,
    pub annotations: Vec<(String, String)>,
    /// Filled by [`Runtime::container_status`] only, like everything below.
    pub started_at: Option<jiff::Timestamp>,
    pub finished_at: Option<jiff::Timestamp>,
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`… as the runtime words it.
    pub reason: String,
    pub message: String,
    pub log_path: String,
    /// Images that are mounted into it, as whoever made it named them.
    pub image_mounts: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub struct ExecResult {
    pub exit_code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct StreamOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Something about a pod changed; the worker looks itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeEvent {
    /// A container or sandbox id.
    pub id: String,
}

#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub container_id: String,
    /// Total since start.
    pub cpu_nanoseconds: u64,
    /// The working set.
    pub memory_bytes: u64,
    /// What the container wrote beside its volumes.
    pub layer_bytes: u64,
    pub layer_inodes: u64,
}

/// Pods and containers.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    async fn version(&self) -> Result<Version>;
    async fn health(&self) -> Result<Health>;

    /// `handler` is one that the runtime is configured with; empty for its default.
    async fn run_sandbox(&self, config: &v1::PodSandboxConfig, handler: &str) -> Result<String>;
    async fn stop_sandbox(&self, id: &str) -> Result<()>;
    async fn remove_sandbox(&self, id: &str) -> Result<()>;
    /// All sandboxes, or those of one pod.
    async fn sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<Sandbox>>;
    async fn sandbox_status(&self, id: &str) -> Result<Sandbox>;

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &v1::ContainerConfig,
        sandbox: &v1::PodSandboxConfig,
    ) -> Result<String>;
    async fn start_container(&self, id: &str) -> Result<()>;
    /// Sends the stop signal, then kills after `grace`. Returns when the container is gone.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()>;
    async fn remove_container(&self, id: &str) -> Result<()>;
    /// Other limits for a container that runs.
    async fn update_container(&self, id: &str, resources: v1::LinuxContainerResources) -> Result<()>;
    /// All containers, or those of one pod, exited ones too.
    async fn containers(&self, pod_uid: Option<&str>) -> Result<Vec<Container>>;
    async fn container_status(&self, id: &str) -> Result<Container>;
    async fn reopen_log(&self, id: &str) -> Result<()>;
    async fn usage(&self) -> Result<Vec<Usage>>;

    async fn exec(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecResult>;
    /// URL of the runtime's streaming server for one exec; it speaks SPDY/3.1 and is valid for one minute.
    async fn exec_url(&self, id: &str, command: &[String], options: StreamOptions) -> Result<String>;
    async fn attach_url(&self, id: &str, options: StreamOptions) -> Result<String>;
    /// As [`Runtime::exec_url`], for connections to a sandbox's loopback. `ports` are for clients that do not name them in
    /// their streams.
    async fn port_forward_url(&self, sandbox_id: &str, ports: &[u16]) -> Result<String>;
    /// Writes what a running container is to a file, from which it can be started again.
    async fn checkpoint(&self, id: &str, file: &Path, timeout: Duration) -> Result<()>;

    /// Changes of any pod. Ends when the connection does; the caller lists again and calls anew.
    async fn events(&self) -> Result<BoxStream<'static, RuntimeEvent>>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// `sha256:…` of the configuration.
    pub id: String,
    pub tags: Vec<String>,
    pub digests: Vec<String>,
    pub size_bytes: u64,
    /// The user the image asks for: a number, or a name to be looked up in the image.
    pub uid: Option<i64>,
    pub username: String,
    /// The runtime itself needs it.
    pub pinned: bool,
}

/// Images on the node.
#[async_trait]
pub trait Images: Send + Sync + 'static {
    async fn images(&self) -> Result<Vec<Image>>;
    /// `None` when the node does not have it.
    async fn image(&self, reference: &str) -> Result<Option<Image>>;
    /// Returns the reference to create containers from.
    async fn pull(
        &self,
        reference: &str,
        auth: Option<v1::AuthConfig>,
        sandbox: Option<&v1::PodSandboxConfig>,
    ) -> Result<String>;
    async fn remove_image(&self, reference: &str) -> Result<()>;
    /// Gives an image another name, by which it is known from then on.
    async fn rename(&self, from: &str, to: &str) -> Result<()>;
    /// Where images and the writable layers of containers are.
    async fn directory(&self) -> Result<PathBuf>;
    /// Bytes used by image storage on disk.
    async fn image_bytes(&self) -> Result<u64>;
}
