//! Effects: gives what is in a volume to the group of `fsGroup` (`pkg/volume/volume_linux.go`).

use std::io::Result;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// Owner and group read and write.
const FILE: u32 = 0o660;
/// They enter, too, and what is made inside is the group's.
const FOLDER: u32 = 0o2770;

/// Readable and writable for the group, folders handing it on. `always`: even when the folder itself is right already.
///
/// # Errors
/// The file system says no; some may be given by then.
pub fn give(path: &Path, fs_group: Option<i64>, always: bool) -> Result<()> {
    let Some(group) = fs_group.and_then(|gid| u32::try_from(gid).ok()) else { return Ok(()) };
    let found = std::fs::metadata(path)?;
    let right = found.gid() == group && found.mode() & FOLDER == FOLDER;
    if right && !always {
        return Ok(());
    }
    give_all(path, group)
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
            // The mode of a link is that of what it leads to, which may be anywhere.
            if !kind.is_symlink() {
                grant(&entry.path(), FILE)?;
            }
        }
    }
    lchown(path, None, Some(group))?;
    grant(path, FOLDER)
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
    fn a_group_gets_what_is_in_a_volume() {
        let root = tempfile::tempdir().unwrap();
        let (inner, outside) = (root.path().join("v/a"), root.path().join("outside"));
        std::fs::create_dir_all(&inner).unwrap();
        for file in [inner.join("f"), outside.clone()] {
            std::fs::write(&file, "x").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        std::os::unix::fs::symlink(&outside, inner.join("link")).unwrap();
        let own = Some(i64::from(std::fs::metadata(root.path()).unwrap().gid()));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        let volume = root.path().join("v");
        give(&volume, None, true).unwrap();
        assert_eq!(mode(&inner.join("f")), 0o600, "no group, no change");
        give(&volume, own, true).unwrap();
        assert_eq!((mode(&inner.join("f")), mode(&inner) & FOLDER), (0o660, FOLDER));
        assert_eq!(mode(&outside), 0o600, "a link is not followed");

        std::fs::set_permissions(inner.join("f"), std::fs::Permissions::from_mode(0o600)).unwrap();
        give(&volume, own, false).unwrap();
        assert_eq!(mode(&inner.join("f")), 0o600, "OnRootMismatch: the folder itself was right");
        give(&volume, own, true).unwrap();
        assert_eq!(mode(&inner.join("f")), 0o660);
    }
}
