//! Types: plugins of the node: programs, most of them in pods, that offer drivers and devices through Unix sockets.
//!
//! ```text
//! <root>/plugins_registry/*.sock   a plugin says what it is: [`registry`] hands it to the handler of its type
//! <root>/device-plugins/           older device plugins announce themselves at kubelet.sock there
//! <root>/plugins/                  where drivers keep their own sockets
//! ```
//! [`grpc`] is what all of them speak.

pub mod grpc;
pub mod registry;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use self::registry::{Handlers, Registry};
use super::context::NodeContext;
use super::csi;
use super::devices::{capacity, registration};
use super::pod_resources;

/// Messages, client and server of `pluginregistration.v1`.
#[allow(clippy::all, missing_docs, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("pluginregistration");
}

/// Types of plugins, as they name themselves.
pub const CSI: &str = "CSIPlugin";
pub const DEVICE: &str = "DevicePlugin";
pub const DRA: &str = "DRAPlugin";

/// What a plugin said of itself (`pluginregistration.PluginInfo`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// One of [`CSI`], [`DEVICE`], [`DRA`], or what nobody here knows.
    pub kind: String,
    /// Of the driver, or of the resource.
    pub name: String,
    /// The socket to talk to; the one it registered with unless it said otherwise.
    pub endpoint: PathBuf,
    /// Versions of the plugin's service, such as `v1beta1` or `v1.DRAPlugin`.
    pub versions: Vec<String>,
}

/// Takes the plugins of one type. Calls for one plugin come one after the other.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Takes the plugin. A name that is here already is replaced: its socket has moved. Dropped in the middle when the
    /// socket vanishes meanwhile; [`Handler::deregister`] follows then as well.
    ///
    /// # Errors
    /// Why not, for the plugin to log. It is asked again later.
    async fn register(&self, plugin: &Plugin) -> Result<(), String>;

    /// The socket that it registered with is gone.
    async fn deregister(&self, plugin: &Plugin);
}

/// Looks after the plugins of this node until `stop`.
pub async fn run(cx: Arc<NodeContext>, stop: CancellationToken) {
    let directories = &cx.paths.plugins;
    if let Err(error) = directories.make() {
        tracing::warn!(%error, root = %directories.root.display(), "no folders for plugins: they will find no kubelet");
    }
    let registry = Registry { directory: directories.registry(), handlers: handlers(&cx) };
    tokio::join!(
        registry.run(stop.clone()),
        registration::run(cx.devices.clone(), directories.devices(), stop.clone()),
        capacity::run(&cx, stop.clone()),
        cx.drivers.run(stop.clone()),
        pod_resources::run(cx.clone(), directories.pod_resources(), stop),
    );
    tokio::join!(cx.devices.stop(), cx.drivers.stop());
}

/// Who takes the plugins of each type.
fn handlers(cx: &Arc<NodeContext>) -> Handlers {
    let (devices, drivers) = (Arc::new(cx.devices.clone()), Arc::new(cx.drivers.clone()));
    Handlers::from([(CSI, Arc::new(csi::Register(cx.clone())) as Arc<dyn Handler>), (DEVICE, devices), (DRA, drivers)])
}

/// The directories that plugins' manifests mount below `/var/lib/kubelet`.
#[derive(Clone, Debug)]
pub struct Directories {
    pub root: PathBuf,
}

impl Directories {
    #[must_use]
    pub fn new(root: &Path) -> Directories {
        Directories { root: root.to_owned() }
    }

    #[must_use]
    pub fn registry(&self) -> PathBuf {
        self.root.join("plugins_registry")
    }

    #[must_use]
    pub fn devices(&self) -> PathBuf {
        self.root.join("device-plugins")
    }

    #[must_use]
    pub fn drivers(&self) -> PathBuf {
        self.root.join("plugins")
    }

    #[must_use]
    pub fn pod_resources(&self) -> PathBuf {
        self.root.join("pod-resources")
    }

    /// Makes what is missing.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn make(&self) -> std::io::Result<()> {
        for directory in [self.registry(), self.devices(), self.drivers(), self.pod_resources()] {
            std::fs::create_dir_all(directory)?;
        }
        Ok(())
    }
}
