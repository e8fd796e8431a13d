//! Types: what everything on this node shares: configuration, connections, directories.

use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::allocation::Ledger;
use super::cgroups::Cgroups;
use super::cpu::Exclusive;
use super::csi::Csi;
use super::devices::Devices;
use super::dra::Drivers;
use super::events::Recorder;
use super::eviction::signals::Gauges;
use super::image_gc::ImageGc;
use super::images::Puller;
use super::limits::Kernel;
use super::metrics::probes::Counts;
use super::metrics::volumes::VolumeFigures;
use super::node_info::Pressure;
use super::objects::Objects;
use super::plugins::Directories;
use super::pod::table::PodTable;
use super::preemption;
use super::topology::Aligner;
use super::users::Users;
use super::volumes::Tokens;
use super::volumes::fields::Allocatable;
use super::volumes::iscsi::Iscsi;
use super::volumes::memory::InMemory;
use crate::net::services::View;
use crate::{config, cri};

/// One per agent, behind an `Arc`.
pub struct NodeContext {
    pub config: config::Agent,
    pub cluster: config::Cluster,
    pub client: kube::Client,
    pub runtime: Arc<dyn cri::Runtime>,
    pub images: Puller,
    pub events: Recorder,
    pub objects: Objects,
    /// The Services that containers are told of.
    pub services: watch::Receiver<Arc<View>>,
    pub cgroups: Cgroups,
    /// Which pod has what of the node.
    pub ledger: Ledger,
    /// What the machine's control groups can do.
    pub kernel: Kernel,
    /// Which container has which CPUs for itself.
    pub exclusive: Exclusive,
    /// How near to each other its devices and CPUs are.
    pub aligner: Aligner,
    pub devices: Devices,
    pub drivers: Drivers,
    pub pods: PodTable,
    pub tokens: Tokens,
    /// What volumes can be kept in memory.
    pub in_memory: InMemory,
    pub probe_counts: Counts,
    pub preemptions: preemption::Counts,
    /// How full volumes are.
    pub volume_figures: VolumeFigures,
    pub csi: Csi,
    pub iscsi: Arc<Iscsi>,
    pub paths: Paths,
    /// What the node gives to pods.
    pub allocatable: Allocatable,
    /// What the node is short of; [`super::eviction`] says it.
    pub pressure: watch::Sender<Pressure>,
    /// The machine goes down; [`super::shutdown`] says it.
    pub going_down: watch::Sender<bool>,
    pub gauges: Arc<dyn Gauges>,
    pub image_gc: ImageGc,
    /// Rounds of imports of image archives.
    pub imports: watch::Receiver<u64>,
    /// All of the machine's memory.
    pub memory_bytes: i64,
    /// Whose ids the users of pods are that have their own.
    pub users: Users,
    /// The address that others reach this node by, as it is now.
    pub address: watch::Receiver<IpAddr>,
}

impl NodeContext {
    #[must_use]
    pub fn node_ip(&self) -> IpAddr {
        *self.address.borrow()
    }

    /// The pod is gone: its tokens and counts are of no use.
    pub fn forget_tokens(&self, pod_uid: &str) {
        let mut tokens = self.tokens.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tokens.retain(|(owner, _, _), _| owner != pod_uid);
        self.probe_counts.forget(pod_uid);
    }
}

/// Where upstream's kubelet has pods and plug-ins.
const LOGS: &str = "/var/log/pods";
const KUBELET: &str = "/var/lib/kubelet";
/// A file in it that says that it is ours.
const MARK: &str = ".skiff";

/// Nobody else's: it is empty, or not there, or ours.
fn is_free(kubelet: &Path) -> bool {
    let is_empty = || std::fs::read_dir(kubelet).map_or(true, |mut entries| entries.next().is_none());
    kubelet.join(MARK).exists() || is_empty()
}

/// Where the agent keeps its files.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Pods and plug-ins, as upstream's kubelet has them: `--kubelet-dir`, else `/var/lib/kubelet`, which the manifests of plug-ins name, or
    /// `<data_dir>/agent` when the data directory is not the default one, or another kubelet has been there.
    pub kubelet: PathBuf,
    /// `pods` in it.
    pub pods: PathBuf,
    /// `/var/log/pods`, or below the data directory when that is not the default one.
    pub logs: PathBuf,
    /// Seccomp profiles that pods name (`localhostProfile`).
    pub seccomp: PathBuf,
    /// Of drivers and device plugins.
    pub plugins: Directories,
}

impl Paths {
    #[must_use]
    pub fn new(data_dir: &Path, kubelet_dir: Option<&Path>) -> Paths {
        let agent = data_dir.join("agent");
        let seccomp = agent.join("seccomp");
        let is_default = data_dir == Path::new(config::settings::DEFAULT_DATA_DIR);
        let logs = if is_default { PathBuf::from(LOGS) } else { agent.join("log/pods") };
        let kubelet = match kubelet_dir {
            Some(given) => given.to_owned(),
            None if is_default && is_free(Path::new(KUBELET)) => PathBuf::from(KUBELET),
            None => agent,
        };
        Paths { pods: kubelet.join("pods"), plugins: Directories::new(&kubelet), kubelet, logs, seccomp }
    }

    /// Whether the folder for pods and plug-ins says so.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.kubelet.join(MARK).exists()
    }

    /// Whether nobody else has logs of pods there: another kubelet, whose folder we leave alone, has them in the same place.
    #[must_use]
    pub fn logs_are_ours(&self) -> bool {
        self.logs != Path::new(LOGS) || self.kubelet == Path::new(KUBELET)
    }

    /// Makes the folder for pods and plug-ins, and says that it is ours.
    ///
    /// # Errors
    /// The file system says no.
    pub fn claim(&self) -> std::io::Result<()> {
        for folder in [&self.pods, &self.kubelet.join("plugins")] {
            std::fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        }
        std::fs::write(self.kubelet.join(MARK), b"")
    }

    #[must_use]
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods.join(uid)
    }

    /// `volumes/kubernetes.io~<plugin>/<name>`, as in the kubelet.
    #[must_use]
    pub fn volume(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
    }

    /// `<namespace>_<name>_<uid>`, as log collectors expect it.
    #[must_use]
    pub fn pod_logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.logs.join(format!("{namespace}_{name}_{uid}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_another_kubelet_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let kubelet = root.path().join("kubelet");
        assert!(is_free(&kubelet), "not there");
        std::fs::create_dir(&kubelet).unwrap();
        assert!(is_free(&kubelet), "empty");
        std::fs::create_dir(kubelet.join("pods")).unwrap();
        assert!(!is_free(&kubelet), "somebody's");
        Paths::new(root.path(), Some(&kubelet)).claim().unwrap();
        assert!(is_free(&kubelet), "ours");
    }

    #[test]
    fn logs_of_another_kubelet_are_not_ours() {
        let default = Path::new(config::settings::DEFAULT_DATA_DIR);
        assert!(!Paths::new(default, Some(Path::new("/elsewhere"))).logs_are_ours());
        assert!(Paths::new(default, Some(Path::new(KUBELET))).logs_are_ours());
        assert!(Paths::new(Path::new("/data"), None).logs_are_ours());
    }
}
