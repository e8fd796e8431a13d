//! Effects: volumes that are folders of this node: `local` ones, which are there, and those of `local-path`, which are
//! made at first use and removed when the volume goes.

use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use super::{Failure, teardown};
use crate::api::local_storage;

/// Whoever the container runs as may write (rancher's provisioner does the same); the folder around it is the
/// administrator's only.
const MODE: u32 = 0o777;

/// Makes the folder of a `local-path` volume, unless it is there.
pub(super) fn make(path: &Path) -> std::result::Result<(), Failure> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(around) = path.parent() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(around).map_err(Failure::io(around))?;
    }
    std::fs::create_dir(path).map_err(Failure::io(path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE)).map_err(Failure::io(path))
}

/// Removes the folder of a `local-path` volume. Fine when there is none.
///
/// # Errors
/// It is no such folder, something is mounted below it, or the file system says no.
pub fn remove(storage: &Path, folder: &str) -> Result<()> {
    let path = storage.join(folder);
    let wrong = |what: &str| Error::new(ErrorKind::InvalidInput, format!("{} {what}", path.display()));
    if !local_storage::is_folder(folder) {
        return Err(wrong("is not the folder of a volume"));
    }
    match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.is_dir() => return Err(wrong("is not a folder")),
        Ok(_) => {}
    }
    if let Some(mount) = teardown::mounts_below(&path)?.first() {
        let text = format!("{} is mounted: nothing is deleted through a mount", mount.display());
        return Err(Error::new(ErrorKind::ResourceBusy, text));
    }
    std::fs::remove_dir_all(&path)
}

/// Gives what is in a `local` volume to the group of `fsGroup`: readable and writable, folders handing the group on.
/// `always`: even when the folder itself is right already.
pub(super) fn give(path: &Path, fs_group: Option<i64>, always: bool) -> std::result::Result<(), Failure> {
    let found = std::fs::metadata(path).map_err(Failure::io(path))?;
    if !found.is_dir() {
        return Err(Failure::HostPath(format!("{} is not a directory", path.display())));
    }
    let Some(group) = fs_group.and_then(|gid| u32::try_from(gid).ok()) else { return Ok(()) };
    let right = found.gid() == group && found.mode() & 0o2070 == 0o2070;
    if right && !always {
        return Ok(());
    }
    give_all(path, group).map_err(Failure::io(path))
}

fn give_all(path: &Path, group: u32) -> Result<()> {
    // Depth first: the folder itself says last that all is done.
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            give_all(&entry.path(), group)?;
        } else {
            lchown(entry.path(), None, Some(group))?;
            if kind.is_file() {
                grant(&entry.path(), 0o060)?;
            }
        }
    }
    lchown(path, None, Some(group))?;
    grant(path, 0o2070)
}

fn grant(path: &Path, bits: u32) -> Result<()> {
    let mode = std::fs::metadata(path)?.mode();
    if mode & bits == bits {
        return Ok(());
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o7777 | bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_and_only_they_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let storage = root.path().join("storage");
        let folder = storage.join("pvc-1_ns_data");
        make(&folder).unwrap();
        assert_eq!(std::fs::metadata(&folder).unwrap().mode() & 0o7777, MODE);
        assert_eq!(std::fs::metadata(&storage).unwrap().mode() & 0o7777, 0o700);
        std::fs::write(folder.join("kept"), "x").unwrap();
        make(&folder).unwrap();
        assert!(folder.join("kept").exists(), "what is there stays");

        let outside = root.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, storage.join("pvc-2_ns_data")).unwrap();
        std::os::unix::fs::symlink(&outside, folder.join("link")).unwrap();
        for wrong in ["..", "../outside", "outside", "pvc-2_ns_data", ""] {
            assert!(remove(&storage, wrong).is_err(), "{wrong}");
        }
        remove(&storage, "pvc-1_ns_data").unwrap();
        assert!(!folder.exists() && outside.exists());
        remove(&storage, "pvc-1_ns_data").unwrap();
    }

    #[test]
    fn a_group_gets_what_is_in_a_local_volume() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("f"), "x").unwrap();
        std::fs::set_permissions(inner.join("f"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let own = std::fs::metadata(root.path()).unwrap().gid();
        give(root.path(), Some(i64::from(own)), true).unwrap();
        assert_eq!(std::fs::metadata(inner.join("f")).unwrap().mode() & 0o777, 0o660);
        assert_eq!(std::fs::metadata(&inner).unwrap().mode() & 0o2070, 0o2070);
        assert!(give(&inner.join("f"), None, false).is_err(), "not a directory");
        assert!(give(&root.path().join("absent"), None, false).is_err());
    }
}
