//! Decides and effects: where pods live in the control group tree, and their limits.
//!
//! ```text
//! kubepods/pod<uid>             Guaranteed
//! kubepods/burstable/pod<uid>   Burstable
//! kubepods/besteffort/pod<uid>  BestEffort
//! ```
//! The runtime makes the containers' groups below. Where the tree cannot be written (a container, a restricted
//! user), pods run without these limits and the log says so once.

mod amounts;
mod exclusive;
mod oom;
mod pids;
pub mod reserved;
mod resize;
mod whole;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;

use self::amounts::{CPU_PERIOD_MICROSECONDS, MIN_SHARES, quota, shares, weight};
pub use self::amounts::{PodResources, Qos, bytes, container_resources, milli, pod_resources, qos};
use super::pod::uid;

/// Which layout this machine has.
#[derive(Clone, Debug)]
enum Layout {
    /// One directory per controller.
    V1 {
        cpu: PathBuf,
        memory: PathBuf,
    },
    V2 {
        root: PathBuf,
    },
    /// Nothing that can be written.
    None,
}

pub struct Cgroups {
    layout: Layout,
    /// CPU requests of the pods that are here, for the groups' own shares.
    requests: Mutex<HashMap<String, (Qos, i64)>>,
    /// Whole CPUs of Guaranteed pods are theirs alone.
    exclusive_cpus: bool,
    /// Processes and threads that a pod may have.
    pids: Option<i64>,
}

impl Cgroups {
    /// Finds the layout and makes the groups of the classes.
    #[must_use]
    pub fn new(root: &Path) -> Cgroups {
        let layout = match detect(root) {
            Some(layout) => layout,
            None => {
                tracing::warn!(root = %root.display(), "control groups cannot be written: pods run without limits of their own");
                Layout::None
            }
        };
        let cgroups = Cgroups { layout, requests: Mutex::default(), exclusive_cpus: false, pids: None };
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            if let Err(error) = cgroups.make(qos.group()) {
                tracing::warn!(%error, group = qos.group(), "control group not made");
            }
        }
        cgroups
    }

    #[must_use]
    pub fn is_v2(&self) -> bool {
        matches!(self.layout, Layout::V2 { .. })
    }

    /// Where a controller's files of a group are: all in one directory in version 2.
    #[must_use]
    pub fn files(&self, controller: &str, group: &str) -> Option<PathBuf> {
        let below = group.trim_start_matches('/');
        match &self.layout {
            Layout::V1 { cpu, .. } => Some(cpu.parent()?.join(controller).join(below)),
            Layout::V2 { root } => Some(root.join(below)),
            Layout::None => None,
        }
    }

    /// The parent of the pod's containers; `None` leaves it to the runtime.
    #[must_use]
    pub fn parent(&self, pod: &Pod) -> Option<String> {
        let writable = !matches!(self.layout, Layout::None);
        writable.then(|| format!("{}/pod{}", qos(pod).group(), uid(pod)))
    }

    /// Makes the pod's group and sets its limits.
    pub fn apply(&self, pod: &Pod) {
        let Some(group) = self.parent(pod) else { return };
        let made = self.make(&group).and_then(|()| self.limit(&group, &self.resources(pod)));
        if let Err(error) = made.and_then(|()| self.limit_pids(&group)) {
            tracing::warn!(%error, group, "control group of the pod not set up");
        }
        self.count(pod);
    }

    /// Removes the pod's group; its containers are gone.
    pub fn remove(&self, pod: &Pod) {
        if let Some(group) = self.parent(pod) {
            self.remove_group(&group);
        }
        let requests = {
            let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            requests.remove(uid(pod));
            burstable_milli(&requests)
        };
        self.share(requests);
    }

    /// The uids of all pods that have a group, whoever made it.
    #[must_use]
    pub fn pods(&self) -> HashSet<String> {
        let classes = [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort].map(Qos::group);
        let directories = classes.into_iter().flat_map(|group| self.directories(group));
        let entries = directories.flat_map(|directory| std::fs::read_dir(directory).into_iter().flatten().flatten());
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| name.strip_prefix("pod").map(str::to_owned)).collect()
    }

    /// For a pod that is not known any more: tries all classes.
    pub fn remove_by_uid(&self, pod_uid: &str) {
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            self.remove_group(&format!("{}/pod{pod_uid}", qos.group()));
        }
    }

    fn remove_group(&self, group: &str) {
        for directory in self.directories(group) {
            remove_tree(&directory, 3);
        }
    }

    fn directories(&self, group: &str) -> Vec<PathBuf> {
        let below = group.trim_start_matches('/');
        match &self.layout {
            Layout::V1 { cpu, memory } => {
                // The runtime also makes groups in the other controllers' trees.
                let siblings = cpu.parent().and_then(|root| std::fs::read_dir(root).ok());
                let mut found: Vec<PathBuf> = siblings
                    .into_iter()
                    .flatten()
                    .flatten()
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path().join(below))
                    .collect();
                found.extend([cpu.join(below), memory.join(below)]);
                found
            }
            Layout::V2 { root } => vec![root.join(below)],
            Layout::None => Vec::new(),
        }
    }

    fn make(&self, group: &str) -> std::io::Result<()> {
        let below = group.trim_start_matches('/');
        match &self.layout {
            Layout::V1 { cpu, memory } => {
                std::fs::create_dir_all(cpu.join(below))?;
                std::fs::create_dir_all(memory.join(below))
            }
            Layout::V2 { root } => {
                let mut directory = root.clone();
                for part in Path::new(below) {
                    // Children get only what their parent passes on.
                    enable_controllers(&directory);
                    directory.push(part);
                    match std::fs::create_dir(&directory) {
                        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
                        _ => {}
                    }
                }
                enable_controllers(&directory);
                Ok(())
            }
            Layout::None => Ok(()),
        }
    }

    fn limit(&self, group: &str, resources: &PodResources) -> std::io::Result<()> {
        let below = group.trim_start_matches('/');
        let shares = shares(resources.cpu_request_milli);
        let quota = resources.cpu_limit_milli.map(quota);
        match &self.layout {
            Layout::V1 { cpu, memory } => {
                write(&cpu.join(below).join("cpu.shares"), shares.to_string())?;
                if let Some(quota) = quota {
                    write(&cpu.join(below).join("cpu.cfs_quota_us"), quota.to_string())?;
                }
                if let Some(limit) = resources.memory_limit_bytes {
                    write(&memory.join(below).join("memory.limit_in_bytes"), limit.to_string())?;
                }
                Ok(())
            }
            Layout::V2 { root } => {
                let group = root.join(below);
                write(&group.join("cpu.weight"), weight(shares).to_string())?;
                if let Some(quota) = quota {
                    write(&group.join("cpu.max"), format!("{quota} {CPU_PERIOD_MICROSECONDS}"))?;
                }
                if let Some(limit) = resources.memory_limit_bytes {
                    write(&group.join("memory.max"), limit.to_string())?;
                    // One process of a container dies, not a random one.
                    let _ = write(&group.join("memory.oom.group"), "0");
                }
                Ok(())
            }
            Layout::None => Ok(()),
        }
    }

    /// Burstable pods together weigh what they ask for; the rest get next to nothing under pressure.
    fn share(&self, burstable_milli: i64) {
        let groups = [(Qos::Burstable, shares(burstable_milli)), (Qos::BestEffort, MIN_SHARES)];
        for (qos, shares) in groups {
            let below = qos.group().trim_start_matches('/');
            let written = match &self.layout {
                Layout::V1 { cpu, .. } => std::fs::write(cpu.join(below).join("cpu.shares"), shares.to_string()),
                Layout::V2 { root } => std::fs::write(root.join(below).join("cpu.weight"), weight(shares).to_string()),
                Layout::None => Ok(()),
            };
            if let Err(error) = written {
                tracing::debug!(%error, group = below, "shares not set");
            }
        }
    }
}

fn write(file: &Path, text: impl AsRef<[u8]>) -> std::io::Result<()> {
    let named = |error: std::io::Error| std::io::Error::new(error.kind(), format!("{}: {error}", file.display()));
    std::fs::write(file, text).map_err(named)
}

fn burstable_milli(requests: &HashMap<String, (Qos, i64)>) -> i64 {
    requests.values().filter(|(qos, _)| *qos == Qos::Burstable).map(|(_, milli)| milli).sum()
}

fn detect(root: &Path) -> Option<Layout> {
    let layout = if root.join("cgroup.controllers").exists() {
        Layout::V2 { root: root.to_owned() }
    } else {
        let cpu = ["cpu", "cpu,cpuacct"].map(|name| root.join(name)).into_iter().find(|path| path.is_dir())?;
        Layout::V1 { cpu, memory: root.join("memory") }
    };
    let probe = match &layout {
        Layout::V1 { cpu, .. } => cpu.join("kubepods"),
        Layout::V2 { root } => root.join("kubepods"),
        Layout::None => return None,
    };
    std::fs::create_dir_all(probe).ok().map(|()| layout)
}

fn enable_controllers(directory: &Path) {
    // One at a time: a controller that is missing must not keep the others away.
    for controller in ["cpu", "memory", "pids", "cpuset", "io", "hugetlb"] {
        let _ = std::fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn remove_tree(directory: &Path, depth: u32) {
    if depth > 0 {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_tree(&entry.path(), depth - 1);
            }
        }
    }
    let _ = std::fs::remove_dir(directory);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A folder as the kernel has it, of version 2 or 1.
    pub(super) fn tree(is_v2: bool) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("temporary directory");
        if is_v2 {
            std::fs::write(root.path().join("cgroup.controllers"), "cpu memory pids").expect("written");
        } else {
            for controller in ["cpu", "memory", "pids"] {
                std::fs::create_dir(root.path().join(controller)).expect("made");
            }
        }
        root
    }

    #[test]
    fn a_version_2_tree() {
        let root = tree(true);
        let cgroups = Cgroups::new(root.path());
        let both = json!({"cpu": "500m", "memory": "64Mi"});
        let pod = json!({"metadata": {"uid": "u1"}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": both, "limits": both}}]}});
        let pod: Pod = serde_json::from_value(pod).expect("valid");
        cgroups.apply(&pod);
        let read = |file: &str| std::fs::read_to_string(root.path().join("kubepods/podu1").join(file)).ok();
        assert_eq!(read("cpu.max").as_deref(), Some("50000 100000"));
        assert_eq!(read("memory.max").as_deref(), Some("67108864"));
        assert_eq!(cgroups.parent(&pod).as_deref(), Some("/kubepods/podu1"));
        std::fs::create_dir(root.path().join("kubepods/besteffort/podu2")).expect("made");
        assert_eq!(cgroups.pods(), HashSet::from(["u1".to_owned(), "u2".to_owned()]), "and not the classes");
    }
}
