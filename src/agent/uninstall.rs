//! Effects: `skiff uninstall`: ends skiff and every pod and removes what it made on this machine. Works while it runs,
//! with nothing of it running, and after any crash.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use serde_json::Value;

use super::context::Paths;
use super::running;
use super::volumes::iscsi::Iscsi;
use super::volumes::teardown;
use crate::config::Server;
use crate::cri::containerd::Layout;

/// Where programs are looked for when no agent is configured.
const SEARCH_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    #[error("{0} is not a data directory of skiff; nothing was removed")]
    NotOurs(PathBuf),
    #[error(transparent)]
    Stuck(#[from] running::Stuck),
    #[error("cannot remove {path}")]
    Remove {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Ends skiff and pods, unmounts, removes network devices and rules, the kubeconfig and the data directory.
///
/// # Errors
/// When something resists; running it again goes on where it stopped.
pub async fn run(config: Server) -> Result<(), UninstallError> {
    let data_dir = &config.data_dir;
    let ours = ["server", "agent"].iter().any(|d| data_dir.join(d).is_dir());
    if data_dir.exists() && !ours {
        return Err(UninstallError::NotOurs(data_dir.clone()));
    }
    running::end_skiff(data_dir).await?;
    let namespaces = network_namespaces(data_dir);
    running::end_pods(data_dir).await?;
    // Of pods and plug-ins; in the data directory when that is not the default one.
    let kubelet_dir = config.agent.as_ref().and_then(|agent| agent.kubelet_dir.as_deref());
    let paths = Paths::new(data_dir, kubelet_dir);
    // Before anything is detached: a disk goes only once all is written to it.
    let search_path = config.agent.as_ref().map_or(SEARCH_PATH, |agent| agent.search_path.as_str());
    if let Err(error) = Iscsi::new(&paths.kubelet, search_path).remove_all().await {
        tracing::warn!(error, "an iSCSI volume stays logged in");
    }
    unmount_below(data_dir);
    for namespace in namespaces {
        // A file that a namespace was mounted on; the mount went with the machine if it was started anew since.
        let _ = umount2(&namespace, MntFlags::MNT_DETACH);
        remove(&namespace)?;
    }
    remove_cgroups();
    for left in crate::net::cleanup(&config.cluster) {
        tracing::warn!(left, "not removed");
    }
    // What is mounted there may be somebody's data: nothing is deleted through a mount.
    if paths.is_ours() {
        teardown::remove(&paths.kubelet).map_err(|source| UninstallError::Remove { path: paths.kubelet, source })?;
    }
    for path in [data_dir, &config.kubeconfig] {
        remove(path)?;
    }
    println!("skiff: removed {} and every pod", data_dir.display());
    Ok(())
}

fn remove(path: &Path) -> Result<(), UninstallError> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(UninstallError::Remove { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// The network namespaces of our pods, by what containerd told runc: other pods of this machine are not ours.
fn network_namespaces(data_dir: &Path) -> BTreeSet<PathBuf> {
    let bundles = Layout::new(data_dir).tasks();
    let bundle = |entry: fs::DirEntry| -> Option<PathBuf> {
        let spec: Value = serde_json::from_slice(&fs::read(entry.path().join("config.json")).ok()?).ok()?;
        let mut namespaces = spec["linux"]["namespaces"].as_array()?.iter();
        let path = Path::new(namespaces.find(|n| n["type"] == "network")?["path"].as_str()?);
        // Pods on the host's network name that of a process, which is none of our files.
        let named = ["/run/netns", "/var/run/netns"].iter().any(|dir| path.parent() == Some(Path::new(dir)));
        named.then(|| path.to_owned())
    };
    fs::read_dir(bundles).into_iter().flatten().flatten().filter_map(bundle).collect()
}

/// Volumes, snapshots and the pods' shared memory, the deepest first.
fn unmount_below(data_dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // Field 5 is the mount point (proc(5)), with octal escapes for blanks, which our paths do not have.
    let points = mounts.lines().filter_map(|l| l.split(' ').nth(4)).map(Path::new);
    let mut points: Vec<&Path> = points.filter(|p| p.starts_with(data_dir)).collect();
    points.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    for point in points {
        if let Err(error) = umount2(point, MntFlags::MNT_DETACH) {
            tracing::warn!(path = %point.display(), %error, "not unmounted");
        }
    }
}

/// Empty cgroups of pods, on every hierarchy. Those in use by others cannot be removed, so trying is harmless.
fn remove_cgroups() {
    fn remove_tree(dir: &Path) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                remove_tree(&entry.path());
            }
        }
        let _ = fs::remove_dir(dir);
    }
    let root = Path::new("/sys/fs/cgroup");
    remove_tree(&root.join("kubepods"));
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        remove_tree(&entry.path().join("kubepods"));
    }
}
