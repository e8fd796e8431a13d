//! Effects: removes a pod's directory. Mounts below it go first: nothing is ever deleted through a mount.

use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

/// Unmounts everything below `directory`, then removes it. Fine when there is none.
pub fn remove(directory: &Path) -> Result<()> {
    unmount_below(directory)?;
    if let Some(left) = mounts_below(directory)?.first() {
        let message = format!("{} is still mounted", left.display());
        return Err(Error::new(ErrorKind::ResourceBusy, message));
    }
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Unmounts everything below `directory`, the deepest first.
///
/// # Errors
/// What the kernel says of the first that stays.
pub fn unmount_below(directory: &Path) -> Result<()> {
    mounts_below(directory)?.iter().try_for_each(|mount| unmount(mount))
}

pub(super) fn unmount(path: &Path) -> Result<()> {
    // Detached: a file still open in it must not keep the pod from going away.
    umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).map_err(Error::from)
}

/// Whether something is mounted right there.
#[must_use]
pub fn is_mount_point(path: &Path) -> bool {
    let real = std::fs::canonicalize(path);
    real.is_ok_and(|real| mounts_below(&real).is_ok_and(|mounts| mounts.contains(&real)))
}

/// Deepest and newest first.
pub(super) fn mounts_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let real = match std::fs::canonicalize(directory) {
        Ok(real) => real,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut found: Vec<PathBuf> = mount_points(&table).filter(|path| path.starts_with(&real)).collect();
    found.reverse();
    Ok(found)
}

/// The fifth field of each line of `/proc/<pid>/mountinfo` (proc(5)); blanks are written as octal escapes.
fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(|field| {
        let text = field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
        PathBuf::from(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_mounts_is_removed() {
        let root = tempfile::tempdir().expect("temporary directory");
        let pod = root.path().join("uid");
        std::fs::create_dir_all(pod.join("volumes/x")).expect("made");
        remove(&pod).expect("removed");
        assert!(!pod.exists());
        remove(&pod).expect("nothing to remove");
    }

    #[test]
    fn mount_points_are_unescaped() {
        let table = "25 1 0:23 / /proc rw - proc proc rw\n26 1 0:24 / /a\\040b rw - tmpfs tmpfs rw\n";
        assert_eq!(mount_points(table).collect::<Vec<_>>(), [Path::new("/proc"), Path::new("/a b")]);
    }
}
