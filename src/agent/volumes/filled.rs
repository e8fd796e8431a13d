//! Types and effects: how full a volume is, and how that is found (`pkg/volume/metrics_*.go`).

use std::collections::BTreeMap;
use std::io::{Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Volume};
use nix::sys::statvfs::statvfs;
use serde_json::{Value, json};

use super::claim::claim_of;
use super::{Mounted, MountedVolume};
use crate::agent::eviction::measure;
use crate::agent::pod::pod_spec;

/// How a volume is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The files in it are counted: it has no file system of its own.
    Files,
    /// The whole file system.
    FileSystem,
    /// Of a device the size is all that is known.
    Device,
    /// Its driver says it of the volume with this handle.
    Driver { driver: String, handle: String },
}

/// A volume of a pod that can be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measurable {
    pub path: PathBuf,
    pub by: By,
    /// The claim's name; the namespace is the pod's.
    pub claim: Option<String>,
    /// It is on the node's disk and goes with the pod.
    pub ephemeral: bool,
}

/// Those of a pod, by name.
pub type AllMeasurable = BTreeMap<String, Measurable>;

/// Bytes and inodes. What is not known is 0, as upstream's summary has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    pub capacity_bytes: u64,
    pub available_bytes: u64,
    pub used_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
    pub inodes_used: u64,
}

impl Filled {
    /// Of the file system that `path` is on (statvfs(3)).
    ///
    /// # Errors
    /// The kernel's.
    pub fn file_system(path: &Path) -> std::io::Result<Filled> {
        let disk = statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
        Ok(Filled {
            capacity_bytes: bytes(disk.blocks()),
            available_bytes: bytes(disk.blocks_available()),
            used_bytes: bytes(disk.blocks().saturating_sub(disk.blocks_free())),
            inodes: disk.files(),
            inodes_free: disk.files_free(),
            inodes_used: disk.files().saturating_sub(disk.files_free()),
        })
    }

    /// What there is room for is the file system's, what is used are the files below `path`.
    fn files(path: &Path) -> std::io::Result<Filled> {
        let used = measure::disk_usage(path);
        let number = |n: i64| u64::try_from(n).unwrap_or(0);
        let (used_bytes, inodes_used) = (number(used.bytes), number(used.inodes));
        Ok(Filled { used_bytes, inodes_used, ..Filled::file_system(path)? })
    }

    fn device(path: &Path) -> std::io::Result<Filled> {
        let capacity_bytes = std::fs::File::open(path)?.seek(SeekFrom::End(0))?;
        Ok(Filled { capacity_bytes, ..Filled::default() })
    }

    /// `FsStats` of the summary.
    #[must_use]
    pub fn render(&self, time: &Value) -> Value {
        json!({
            "time": time,
            "availableBytes": self.available_bytes,
            "capacityBytes": self.capacity_bytes,
            "usedBytes": self.used_bytes,
            "inodes": self.inodes,
            "inodesFree": self.inodes_free,
            "inodesUsed": self.inodes_used,
        })
    }
}

impl By {
    /// Blocks for as long as the disk takes. `None` where a driver is to be asked.
    #[must_use]
    pub fn measure(&self, path: &Path) -> Option<std::io::Result<Filled>> {
        match self {
            By::Files => Some(Filled::files(path)),
            By::FileSystem => Some(Filled::file_system(path)),
            By::Device => Some(Filled::device(path)),
            By::Driver { .. } => None,
        }
    }
}

/// Which of the pod's volumes can be measured.
pub(super) fn measurable(pod: &Pod, mounted: &Mounted) -> AllMeasurable {
    let one = |volume: &Volume| {
        let MountedVolume { path, by, .. } = mounted.volumes.get(&volume.name)?;
        let claim = claim_of(pod, volume).map(|(name, _)| name);
        let ephemeral = measure::plugin(volume).is_some();
        Some((volume.name.clone(), Measurable { path: path.clone(), by: by.clone()?, claim, ephemeral }))
    };
    pod_spec(pod).volumes.iter().flatten().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_are_the_files_and_the_room_is_the_disks() {
        let folder = tempfile::tempdir().expect("temporary directory");
        std::fs::write(folder.path().join("file"), vec![1; 100_000]).expect("written");
        let whole = Filled::file_system(folder.path()).expect("measured");
        let files = By::Files.measure(folder.path()).expect("no driver's").expect("measured");
        assert!((100_000..300_000).contains(&files.used_bytes), "{files:?}");
        assert_eq!((files.inodes_used, files.capacity_bytes), (2, whole.capacity_bytes));
        assert!(whole.capacity_bytes >= whole.used_bytes && whole.capacity_bytes >= whole.available_bytes);
        let device = By::Device.measure(&folder.path().join("file")).expect("no driver's").expect("measured");
        assert_eq!(device, Filled { capacity_bytes: 100_000, ..Filled::default() });
        for by in [By::Files, By::FileSystem, By::Device] {
            assert!(by.measure(&folder.path().join("missing")).expect("no driver's").is_err(), "{by:?}");
        }
        assert!(By::Driver { driver: "d".into(), handle: "h".into() }.measure(folder.path()).is_none());
    }

    #[test]
    fn claims_are_named_and_what_cannot_be_measured_is_left_out() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [], "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "own", "ephemeral": {}},
            {"name": "scratch", "emptyDir": {}}, {"name": "fast", "emptyDir": {"medium": "Memory"}},
            {"name": "host", "hostPath": {"path": "/"}}, {"name": "settings", "configMap": {"name": "s"}},
            {"name": "later", "emptyDir": {}}]}}))
            .expect("a pod");
        let of = |by: Option<By>| MountedVolume { path: "/v".into(), by, ..MountedVolume::default() };
        let volumes = [
            ("data", Some(By::FileSystem)),
            ("own", Some(By::FileSystem)),
            ("scratch", Some(By::Files)),
            ("fast", Some(By::Files)),
            ("host", None),
            ("settings", Some(By::Files)),
        ];
        let volumes = volumes.map(|(name, by)| (name.to_owned(), of(by))).into();
        let found = measurable(&pod, &Mounted { volumes, ..Mounted::default() });
        let found: Vec<_> = found.iter().map(|(name, m)| (name.as_str(), m.claim.as_deref(), m.ephemeral)).collect();
        let expect = [
            ("data", Some("c"), false),
            ("fast", None, false),
            ("own", Some("p-own"), false),
            ("scratch", None, true),
            ("settings", None, true),
        ];
        assert_eq!(found, expect);
    }
}
