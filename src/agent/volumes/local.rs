//! Effects: volumes that are folders of this node: `local` ones, which are there, and those of `local-path`, which are
//! made at first use and removed when the volume goes.

use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use super::{Failure, ownership, teardown};
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

/// A `local` volume is there, and its pod's `fsGroup` has what is in it. `always`: even when the folder itself is right.
pub(super) fn give(path: &Path, fs_group: Option<i64>, always: bool) -> std::result::Result<(), Failure> {
    let found = std::fs::metadata(path).map_err(Failure::io(path))?;
    if !found.is_dir() {
        return Err(Failure::HostPath(format!("{} is not a directory", path.display())));
    }
    ownership::give(path, fs_group, always).map_err(Failure::io(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

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
    fn a_local_volume_is_a_folder_that_is_there() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("f"), "x").unwrap();
        assert!(give(root.path(), None, false).is_ok());
        assert!(give(&root.path().join("f"), None, false).is_err(), "not a directory");
        assert!(give(&root.path().join("absent"), None, false).is_err());
    }
}
