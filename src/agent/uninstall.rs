//! Effects: `skiff uninstall`: ends every pod and removes what skiff made on this machine. Works with nothing of
//! skiff running, and after any crash.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::config::Server;
use crate::cri::containerd::Layout;

/// Processes are looked at again until none is left, at most this many times.
const ROUNDS: u32 = 100;
const ROUND: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    #[error("{0} is not a data directory of skiff; nothing was removed")]
    NotOurs(PathBuf),
    #[error("process {0} of a pod does not end; stop it, then run this again")]
    Stuck(i32),
    #[error("cannot remove {path}")]
    Remove {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Ends pods, unmounts, removes network devices and rules, the kubeconfig and the data directory.
///
/// # Errors
/// When something resists; running it again goes on where it stopped.
pub async fn run(config: Server) -> Result<(), UninstallError> {
    let data_dir = &config.data_dir;
    let ours = ["server", "agent"].iter().any(|d| data_dir.join(d).is_dir());
    if data_dir.exists() && !ours {
        return Err(UninstallError::NotOurs(data_dir.clone()));
    }
    let namespaces = network_namespaces(data_dir);
    end_processes(data_dir).await?;
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
    let bundles = Layout::new(data_dir).state().join("io.containerd.runtime.v2.task/k8s.io");
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

/// containerd, the shims (both name our socket or configuration in their command line) and all their descendants.
async fn end_processes(data_dir: &Path) -> Result<(), UninstallError> {
    let layout = Layout::new(data_dir);
    let marks = [layout.socket(), layout.config()];
    for _ in 0..ROUNDS {
        let doomed = descendants(&marks);
        let Some(first) = doomed.first().copied() else { return Ok(()) };
        tracing::debug!(count = doomed.len(), first, "ending processes");
        for pid in doomed {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        tokio::time::sleep(ROUND).await;
    }
    descendants(&marks).first().map_or(Ok(()), |pid| Err(UninstallError::Stuck(*pid)))
}

fn descendants(marks: &[PathBuf]) -> Vec<i32> {
    let mut parents = BTreeMap::new();
    let mut found = Vec::new();
    let own = std::process::id();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // "pid (name) state ppid": the name may hold anything, so look behind the last parenthesis.
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let (state, parent) = (fields.next().unwrap_or_default(), fields.next().and_then(|p| p.parse::<i32>().ok()));
        if state == "Z" || pid.unsigned_abs() == own {
            continue;
        }
        parents.insert(pid, parent.unwrap_or_default());
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if command.split(|b| *b == 0).any(|argument| marks.iter().any(|m| m.as_os_str().as_bytes() == argument)) {
            found.push(pid);
        }
    }
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        found.extend(
            parents
                .iter()
                .filter(|(child, parent)| **parent == pid && !found.contains(child))
                .map(|(c, _)| *c)
                .collect::<Vec<_>>(),
        );
    }
    found
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
