//! Types: where volumes and their records are on disk, as upstream's kubelet has them.
//!
//! ```text
//! plugins/kubernetes.io/csi/<driver>/<sha256 of handle>/{vol_data.json, globalmount}                 staged
//! pods/<uid>/volumes/kubernetes.io~csi/<name>/{vol_data.json, mount}                                 published
//! plugins/kubernetes.io/csi/volumeDevices/<name>/data/vol_data.json, …/staging/<name>                staged, a device
//! plugins/kubernetes.io/csi/volumeDevices/publish/<name>/<uid>                                       published, a device
//! pods/<uid>/volumeDevices/kubernetes.io~csi/<name> → the device                                     its record
//! ```

use std::fmt::Write as _;
use std::fs;
use std::io::{self, ErrorKind, Result};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::pki::files;

const DATA: &str = "vol_data.json";
const PLUGIN: &str = "kubernetes.io~csi";

/// What a record says; upstream's fields, and one of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Record {
    pub driver_name: String,
    pub volume_handle: String,
    #[serde(rename = "specVolID", skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    #[serde(rename = "attachmentID", skip_serializing_if = "String::is_empty")]
    pub attachment: String,
    /// `Persistent` or `Ephemeral`; of published volumes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub volume_lifecycle_mode: String,
    /// Ours: the volume is in `volumesInUse` until it is unstaged.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub in_use: bool,
}

impl Record {
    pub fn unique(&self) -> String {
        unique(&self.driver_name, &self.volume_handle)
    }
}

/// As the Node's status names volumes.
pub(super) fn unique(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

/// The SHA-256 of a text, which is a name that a folder can have.
#[must_use]
pub fn hex(text: &str) -> String {
    let mut name = String::with_capacity(64);
    for byte in Sha256::digest(text) {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// The folders of a volume, whether it is a device or not.
#[derive(Clone, Debug)]
pub(super) struct Places {
    kubelet: PathBuf,
    /// Of the PersistentVolume, or of the pod's volume when there is none.
    name: String,
    driver: String,
    handle: String,
    pub block: bool,
}

impl Places {
    pub fn new(kubelet: &Path, record: &Record, name: &str, block: bool) -> Places {
        Places {
            kubelet: kubelet.to_owned(),
            name: name.replace('/', "~"),
            driver: record.driver_name.clone(),
            handle: record.volume_handle.clone(),
            block,
        }
    }

    fn plugin(&self) -> PathBuf {
        self.kubelet.join("plugins/kubernetes.io/csi")
    }

    /// Where the driver stages the volume.
    pub fn staging(&self) -> PathBuf {
        match self.block {
            true => self.plugin().join("volumeDevices/staging").join(&self.name),
            false => self.plugin().join(&self.driver).join(hex(&self.handle)).join("globalmount"),
        }
    }

    /// The record that outlives the pods.
    pub fn staged_record(&self) -> PathBuf {
        match self.block {
            true => self.plugin().join("volumeDevices").join(&self.name).join("data").join(DATA),
            false => self.plugin().join(&self.driver).join(hex(&self.handle)).join(DATA),
        }
    }

    /// Where the driver publishes it for a pod.
    pub fn target(&self, uid: &str) -> PathBuf {
        match self.block {
            true => self.plugin().join("volumeDevices/publish").join(&self.name).join(uid),
            false => self.of_pod(uid).join("mount"),
        }
    }

    /// Says that the volume is, or may be, published for the pod.
    pub fn record(&self, uid: &str) -> PathBuf {
        match self.block {
            true => self.of_pod(uid),
            false => self.of_pod(uid).join(DATA),
        }
    }

    fn of_pod(&self, uid: &str) -> PathBuf {
        let kind = if self.block { "volumeDevices" } else { "volumes" };
        self.kubelet.join("pods").join(uid).join(kind).join(PLUGIN).join(&self.name)
    }

    /// Writes the record that the volume is about to be published.
    pub fn write(&self, uid: &str, record: &Record) -> Result<()> {
        let path = self.record(uid);
        if !self.block {
            return write(&path, record);
        }
        make_around(&path)?;
        make_around(&self.target(uid))?;
        match std::os::unix::fs::symlink(self.target(uid), &path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes what is left of a published volume once the driver has undone it.
    pub fn forget(&self, uid: &str) -> Result<()> {
        gone(fs::remove_file(self.record(uid)))?;
        if self.block {
            return Ok(());
        }
        gone(fs::remove_dir(self.of_pod(uid)))
    }

    /// The same for a staged one.
    pub fn forget_staged(&self) -> Result<()> {
        let record = self.staged_record();
        let staging = self.staging();
        // A driver may leave a file or the folder, which are both its place and not the volume's contents.
        match fs::symlink_metadata(&staging) {
            Ok(found) if found.is_dir() => gone(fs::remove_dir(&staging))?,
            Ok(_) => gone(fs::remove_file(&staging))?,
            Err(_) => {}
        }
        gone(fs::remove_file(&record))?;
        let around = record.parent().unwrap_or(&record);
        gone(fs::remove_dir(around))?;
        if self.block {
            // `volumeDevices/<name>`, and the folder of what was published.
            gone(fs::remove_dir(around.parent().unwrap_or(around)))?;
            gone(fs::remove_dir(self.plugin().join("volumeDevices/publish").join(&self.name)))?;
        }
        Ok(())
    }
}

fn make_around(path: &Path) -> Result<()> {
    make(path.parent().unwrap_or(path))
}

pub(super) fn make(folder: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)
}

fn gone(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whole or not at all, and on the disk before a driver is called.
pub(super) fn write(path: &Path, record: &Record) -> Result<()> {
    make_around(path)?;
    files::replace(path, &serde_json::to_vec(record)?, 0o600).map_err(io::Error::other)
}

pub(super) fn read(path: &Path) -> Option<Record> {
    let bytes = fs::read(path).ok()?;
    let record = serde_json::from_slice(&bytes);
    record.inspect_err(|error| tracing::warn!(%error, path = %path.display(), "record of a volume is damaged")).ok()
}

/// A volume that a pod has, or had: by its record.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub record: Record,
    pub places: Places,
}

/// Names in a folder; none when there is no folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Volumes of a pod on disk.
pub(super) fn of_pod(kubelet: &Path, uid: &str) -> Vec<Found> {
    let pod = kubelet.join("pods").join(uid);
    let mut found = Vec::new();
    let mounted = pod.join("volumes").join(PLUGIN);
    for name in names(&mounted) {
        if let Some(record) = read(&mounted.join(&name).join(DATA)) {
            found.push(Found { places: Places::new(kubelet, &record, &name, false), record });
        }
    }
    for name in names(&pod.join("volumeDevices").join(PLUGIN)) {
        let data = kubelet.join("plugins/kubernetes.io/csi/volumeDevices").join(&name).join("data").join(DATA);
        if let Some(record) = read(&data) {
            found.push(Found { places: Places::new(kubelet, &record, &name, true), record });
        }
    }
    found
}

/// UIDs of pods with a folder here.
pub(super) fn pods(kubelet: &Path) -> Vec<String> {
    names(&kubelet.join("pods"))
}

/// Pods for which the volume is, or may be, published.
pub(super) fn users(kubelet: &Path, unique: &str) -> Vec<String> {
    let uses = |uid: &String| of_pod(kubelet, uid).iter().any(|found| found.record.unique() == unique);
    pods(kubelet).into_iter().filter(uses).collect()
}

/// Volumes that are, or may be, staged.
pub(super) fn staged(kubelet: &Path) -> Vec<Found> {
    let plugin = kubelet.join("plugins/kubernetes.io/csi");
    let mut found = Vec::new();
    for driver in names(&plugin).into_iter().filter(|name| name != "volumeDevices") {
        for volume in names(&plugin.join(&driver)) {
            if let Some(record) = read(&plugin.join(&driver).join(&volume).join(DATA)) {
                found.push(Found { places: Places::new(kubelet, &record, &record.name, false), record });
            }
        }
    }
    let devices = plugin.join("volumeDevices");
    for name in names(&devices).into_iter().filter(|name| !["staging", "publish"].contains(&name.as_str())) {
        if let Some(record) = read(&devices.join(&name).join("data").join(DATA)) {
            found.push(Found { places: Places::new(kubelet, &record, &name, true), record });
        }
    }
    found
}
