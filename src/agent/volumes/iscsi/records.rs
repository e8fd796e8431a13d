//! Effects: what is remembered of iSCSI volumes on disk. An agent that was killed at any point undoes by it what no pod
//! wants any more.
//!
//! ```text
//! plugins/kubernetes.io/iscsi/<key>/iscsi.json      which disk it is, and what was logged in to for it
//! plugins/kubernetes.io/iscsi/<key>/globalmount     its file system
//! plugins/kubernetes.io/iscsi/<key>/pods/<uid>.<volume>       a pod that has it, or wants it
//! pods/<uid>/volumes/kubernetes.io~iscsi/<volume>             its file system again, for the pod
//! pods/<uid>/volumeDevices/kubernetes.io~iscsi/<volume>       the same for a device: a link to it
//! ```

use std::fs;
use std::io::{self, ErrorKind, Result};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::disk::Disk;
use crate::pki::files;

const RECORD: &str = "iscsi.json";
const PLUGIN: &str = "kubernetes.io~iscsi";

/// A pod's volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub uid: String,
    pub volume: String,
}

#[derive(Clone, Debug)]
pub(super) struct Records {
    pub kubelet: PathBuf,
}

/// The folder of one volume.
#[derive(Clone, Debug)]
pub(super) struct Place {
    directory: PathBuf,
}

impl Records {
    pub fn of(&self, disk: &Disk) -> Place {
        Place { directory: self.root().join(disk.key()) }
    }

    fn root(&self) -> PathBuf {
        self.kubelet.join("plugins/kubernetes.io/iscsi")
    }

    pub fn all(&self) -> Vec<Place> {
        names(&self.root()).into_iter().map(|name| Place { directory: self.root().join(name) }).collect()
    }

    /// The other volumes of this node.
    pub fn others(&self, place: &Place) -> Vec<(Place, Disk)> {
        let all = self.all().into_iter().filter(|other| other.directory != place.directory);
        all.filter_map(|other| other.read().map(|disk| (other, disk))).collect()
    }

    /// Where a pod finds the volume.
    pub fn target(&self, user: &User, block: bool) -> PathBuf {
        let kind = if block { "volumeDevices" } else { "volumes" };
        self.kubelet.join("pods").join(&user.uid).join(kind).join(PLUGIN).join(&user.volume)
    }
}

impl Place {
    /// Names the volume among all of this node.
    pub fn key(&self) -> String {
        self.directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    pub fn global(&self) -> PathBuf {
        self.directory.join("globalmount")
    }

    pub fn read(&self) -> Option<Disk> {
        let bytes = fs::read(self.directory.join(RECORD)).ok()?;
        let disk = serde_json::from_slice(&bytes);
        let path = &self.directory;
        disk.inspect_err(|error| tracing::warn!(%error, path = %path.display(), "record of a volume is damaged")).ok()
    }

    /// Whole or not at all.
    pub fn write(&self, disk: &Disk) -> Result<()> {
        make(&self.directory)?;
        files::replace(&self.directory.join(RECORD), &serde_json::to_vec(disk)?, 0o600).map_err(io::Error::other)
    }

    pub fn users(&self) -> Vec<User> {
        let users = names(&self.directory.join("pods")).into_iter();
        let user = |name: String| {
            let (uid, volume) = name.split_once('.')?;
            Some(User { uid: uid.to_owned(), volume: volume.to_owned() })
        };
        users.filter_map(user).collect()
    }

    fn user(&self, user: &User) -> PathBuf {
        self.directory.join("pods").join(format!("{}.{}", user.uid, user.volume))
    }

    pub fn has(&self, user: &User) -> bool {
        self.user(user).exists()
    }

    /// The pod wants the volume from now on.
    pub fn add(&self, user: &User) -> Result<()> {
        let path = self.user(user);
        // The folder goes with its last file, which may be just now.
        loop {
            make(&self.directory.join("pods"))?;
            match fs::write(&path, b"") {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => return other,
            }
        }
    }

    pub fn remove(&self, user: &User) -> Result<()> {
        gone(fs::remove_file(self.user(user)))
    }

    /// Nothing of the volume is left. `false` when a pod came that wants it again.
    pub fn forget(&self) -> Result<bool> {
        match fs::remove_dir(self.directory.join("pods")) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => return Ok(false),
            other => gone(other)?,
        }
        // An empty folder, never a mount.
        gone(fs::remove_dir(self.global()))?;
        gone(fs::remove_file(self.directory.join(RECORD)))?;
        match fs::remove_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(false),
            other => gone(other).map(|()| true),
        }
    }
}

/// Names in a folder; none when there is no folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

pub(super) fn make(folder: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)
}

pub(super) fn gone(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
