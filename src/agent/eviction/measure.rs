//! Effects: what pods use of memory, disk and process numbers, measured when a decision needs it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Volume};

use super::UsageByPod;
use crate::agent::context::NodeContext;
use crate::agent::pod::table::PodEntry;
use crate::agent::pod::{name, namespace, pod_spec, uid};
use crate::config::eviction::Signal;
use crate::cri::State;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub bytes: i64,
    pub inodes: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfContainer {
    pub memory_bytes: i64,
    /// What it wrote over its image.
    pub rootfs: Disk,
    pub logs: Disk,
}

/// Of one pod. What was not wanted is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Running ones, by name.
    pub containers: BTreeMap<String, OfContainer>,
    /// Volumes on the node's disk that go with the pod, by name.
    pub volumes: BTreeMap<String, Disk>,
    pub processes: i64,
}

impl Usage {
    #[must_use]
    pub fn memory_bytes(&self) -> i64 {
        self.containers.values().map(|c| c.memory_bytes).sum()
    }

    /// Of the chosen parts.
    #[must_use]
    pub fn disk(&self, rootfs: bool, logs_and_volumes: bool) -> Disk {
        let of_containers = self
            .containers
            .values()
            .flat_map(|c| [rootfs.then_some(c.rootfs), logs_and_volumes.then_some(c.logs)].into_iter().flatten());
        let of_volumes = self.volumes.values().copied().filter(|_| logs_and_volumes);
        of_containers.chain(of_volumes).fold(Disk::default(), Disk::and)
    }
}

impl Disk {
    fn and(self, other: Disk) -> Disk {
        Disk { bytes: self.bytes.saturating_add(other.bytes), inodes: self.inodes.saturating_add(other.inodes) }
    }
}

/// What is to be measured; directories are walked for disk only.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    runtime: bool,
    disk: bool,
    processes: bool,
}

impl Wanted {
    pub const LIMITS: Wanted = Wanted { runtime: true, disk: true, processes: false };

    #[must_use]
    pub fn for_signal(signal: Signal) -> Wanted {
        match signal {
            Signal::MemoryAvailable | Signal::AllocatableMemoryAvailable => {
                Wanted { runtime: true, disk: false, processes: false }
            }
            Signal::PidAvailable => Wanted { runtime: false, disk: false, processes: true },
            _ => Wanted::LIMITS,
        }
    }
}

/// Directories of one pod that are walked.
struct Walk {
    uid: String,
    logs: Vec<(String, PathBuf)>,
    volumes: Vec<(String, PathBuf)>,
}

pub async fn pods(cx: &NodeContext, entries: &[PodEntry], wanted: Wanted) -> UsageByPod {
    let mut found: UsageByPod = entries.iter().map(|entry| (uid(&entry.pod).to_owned(), Usage::default())).collect();
    if wanted.runtime {
        of_runtime(cx, entries, &mut found).await;
    }
    if wanted.processes {
        for entry in entries {
            if let Some(usage) = found.get_mut(uid(&entry.pod)) {
                usage.processes = cx.cgroups.processes(&entry.pod).unwrap_or(0);
            }
        }
    }
    if wanted.disk {
        let walks: Vec<Walk> = entries.iter().map(|entry| walk_of(cx, entry)).collect();
        let walked = tokio::task::spawn_blocking(move || walks.into_iter().map(walk).collect::<Vec<_>>()).await;
        for (uid, logs, volumes) in walked.unwrap_or_default() {
            let Some(usage) = found.get_mut(&uid) else { continue };
            for (name, disk) in logs {
                usage.containers.entry(name).or_default().logs = disk;
            }
            usage.volumes = volumes;
        }
    }
    found
}

/// Memory and writable layers. A pod of which the runtime knows nothing stays in the list: it uses nothing.
async fn of_runtime(cx: &NodeContext, entries: &[PodEntry], found: &mut UsageByPod) {
    let all = match cx.runtime.usage().await {
        Ok(all) => all,
        Err(error) => return tracing::warn!(%error, "the runtime does not say what containers use"),
    };
    let by_id: HashMap<&str, _> = all.iter().map(|usage| (usage.container_id.as_str(), usage)).collect();
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    for entry in entries {
        let Some(usage) = found.get_mut(uid(&entry.pod)) else { continue };
        for container in entry.containers.iter().filter(|container| container.state == State::Running) {
            let Some(of) = by_id.get(container.id.as_str()) else { continue };
            let rootfs = Disk { bytes: number(of.layer_bytes), inodes: number(of.layer_inodes) };
            let of = OfContainer { memory_bytes: number(of.memory_bytes), rootfs, logs: Disk::default() };
            usage.containers.insert(container.name.clone(), of);
        }
    }
}

fn walk_of(cx: &NodeContext, entry: &PodEntry) -> Walk {
    let pod: &Pod = &entry.pod;
    let logs = cx.paths.pod_logs(namespace(pod), name(pod), uid(pod));
    let running = entry.containers.iter().filter(|container| container.state == State::Running);
    let volumes = pod_spec(pod).volumes.iter().flatten().filter_map(|volume| {
        plugin(volume).map(|plugin| (volume.name.clone(), cx.paths.volume(uid(pod), plugin, &volume.name)))
    });
    Walk {
        uid: uid(pod).to_owned(),
        logs: running.map(|container| (container.name.clone(), logs.join(&container.name))).collect(),
        volumes: volumes.collect(),
    }
}

/// Where volumes lie that are on the node's disk and go with their pod.
#[must_use]
pub fn plugin(volume: &Volume) -> Option<&'static str> {
    match volume {
        Volume { empty_dir: Some(source), .. } if is_on_disk(source.medium.as_deref()) => Some("empty-dir"),
        Volume { config_map: Some(_), .. } => Some("configmap"),
        _ => None,
    }
}

pub(super) fn is_on_disk(medium: Option<&str>) -> bool {
    medium.unwrap_or_default().is_empty()
}

type Walked = (String, Vec<(String, Disk)>, BTreeMap<String, Disk>);

fn walk(walk: Walk) -> Walked {
    let logs = walk.logs.into_iter().map(|(name, path)| (name, disk_usage(&path)));
    let volumes = walk.volumes.into_iter().map(|(name, path)| (name, disk_usage(&path)));
    (walk.uid, logs.collect(), volumes.collect())
}

/// As `du -x`: blocks, each file once, no other file system. What vanishes meanwhile uses nothing.
#[must_use]
pub fn disk_usage(directory: &Path) -> Disk {
    let Ok(root) = std::fs::symlink_metadata(directory) else { return Disk::default() };
    let mut total = Disk::default();
    let mut linked = HashSet::new();
    let mut directories = vec![(directory.to_owned(), root)];
    while let Some((path, metadata)) = directories.pop() {
        total = total.and(of_file(&metadata));
        let device = metadata.dev();
        for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
            // Of the entry itself: links are not followed.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != device {
                continue;
            }
            if metadata.is_dir() {
                directories.push((entry.path(), metadata));
            } else if metadata.nlink() < 2 || linked.insert(metadata.ino()) {
                total = total.and(of_file(&metadata));
            }
        }
    }
    total
}

fn of_file(metadata: &std::fs::Metadata) -> Disk {
    // `st_blocks` counts 512 bytes, whatever the file system's block is (stat(2)).
    Disk { bytes: i64::try_from(metadata.blocks()).unwrap_or(i64::MAX).saturating_mul(512), inodes: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_once_and_links_are_not_followed() {
        let root = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir(at("below")).expect("made");
        std::fs::write(at("below/file"), vec![1; 100_000]).expect("written");
        std::fs::hard_link(at("below/file"), at("again")).expect("linked");
        std::os::unix::fs::symlink("/", at("everything")).expect("linked");
        let usage = disk_usage(root.path());
        assert_eq!(usage.inodes, 4, "two directories, a file and a link");
        assert!((100_000..300_000).contains(&usage.bytes), "{usage:?}");
        assert_eq!(disk_usage(&at("missing")), Disk::default());
    }

    #[test]
    fn parts_add_up() {
        let disk = |bytes| Disk { bytes, inodes: 1 };
        let container = OfContainer { memory_bytes: 7, rootfs: disk(100), logs: disk(10) };
        let usage = Usage {
            containers: [("a".to_owned(), container.clone()), ("b".to_owned(), container)].into(),
            volumes: [("v".to_owned(), disk(1))].into(),
            processes: 0,
        };
        assert_eq!(usage.memory_bytes(), 14);
        assert_eq!(usage.disk(true, true), Disk { bytes: 221, inodes: 5 });
        assert_eq!(usage.disk(true, false), Disk { bytes: 200, inodes: 2 });
        assert_eq!(usage.disk(false, true), Disk { bytes: 21, inodes: 3 });
    }
}
