//! Effects: removes a pod's directory. Mounts below it go first: nothing is ever deleted through a mount.
//!
//! The server of a mount may be away for good. So nothing here looks at what is mounted, and no call is waited for without
//! end (`UnmountWithForce` of `mount-utils`).

use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};

use super::patience;

/// What a server is given to take what is not written yet, as upstream's `unMountTimeout` of NFS.
const PATIENCE: Duration = Duration::from_secs(60);
const TABLE: &str = "/proc/self/mountinfo";
/// Where volumes are mounted by commands of the host: one may be about to end.
const MOUNTED_BY_COMMANDS: [&str; 2] = ["volumes/kubernetes.io~nfs", "volumes/kubernetes.io~iscsi"];

/// Unmounts everything below `directory`, then removes it. Fine when there is none.
pub fn remove(directory: &Path) -> Result<()> {
    unmount_below(directory)?;
    if let Some(left) = mounts_below(directory)?.first() {
        let message = format!("{} is still mounted", left.display());
        return Err(Error::new(ErrorKind::ResourceBusy, message));
    }
    for folder in MOUNTED_BY_COMMANDS {
        remove_mount_points(&directory.join(folder))?;
    }
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Nothing can be mounted any more where no folder is, and the folder of a mount is not removed: so what comes after this
/// deletes nothing of a server that was mounted at the last moment.
fn remove_mount_points(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        match std::fs::remove_dir(entry?.path()) {
            // Of this disk, as nothing is mounted there: it is not busy.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty || error.kind() == ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Unmounts everything below `directory`, the deepest first.
///
/// # Errors
/// What the kernel says of the first that stays.
pub fn unmount_below(directory: &Path) -> Result<()> {
    mounts_below(directory)?.iter().try_for_each(|mount| unmount(mount))
}

pub(super) fn unmount(path: &Path) -> Result<()> {
    let path = &real(path).unwrap_or_else(|| path.to_owned());
    let count = || {
        let table = std::fs::read_to_string(TABLE)?;
        Ok(mount_points(&table).filter(|point| point == path).count())
    };
    let of_call = path.to_owned();
    let ask = |flags: MntFlags| {
        let path = of_call.clone();
        patience::within(PATIENCE, move || umount2(&path, flags).map_err(Error::from))
    };
    unmount_by(path, count, ask)
}

/// `count`: how many mounts there are at the path; `ask`: answers `None` when the call does not come back.
fn unmount_by(
    path: &Path,
    count: impl Fn() -> Result<usize>,
    ask: impl Fn(MntFlags) -> Option<Result<()>>,
) -> Result<()> {
    // Detached: a file still open in it must not keep the pod from going away.
    let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
    let before = count()?;
    if let Some(answer) = ask(flags) {
        return answer;
    }
    if count()? < before {
        tracing::warn!(path = %path.display(), "unmounted, but its server does not take what is not written yet");
        return Ok(());
    }
    // What waits for the server fails then.
    match ask(flags | MntFlags::MNT_FORCE) {
        Some(answer) => answer,
        None if count()? < before => Ok(()),
        None => {
            let message = format!("{} is not unmounted: its server does not answer", path.display());
            Err(Error::new(ErrorKind::TimedOut, message))
        }
    }
}

/// Whether something is mounted right there. Not even its own folder is looked at, only the one around it.
#[must_use]
pub fn is_mount_point(path: &Path) -> bool {
    let Some(real) = real(path) else { return false };
    std::fs::read_to_string(TABLE).is_ok_and(|table| mount_points(&table).any(|point| point == real))
}

/// The name that the kernel has for it.
pub(super) fn real(path: &Path) -> Option<PathBuf> {
    Some(std::fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?))
}

/// Deepest and newest first.
pub(super) fn mounts_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let real = match std::fs::canonicalize(directory) {
        Ok(real) => real,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let table = std::fs::read_to_string(TABLE)?;
    let mut found: Vec<PathBuf> = mount_points(&table).filter(|path| path.starts_with(&real)).collect();
    found.reverse();
    Ok(found)
}

/// The fifth field of each line of `/proc/<pid>/mountinfo` (proc(5)); blanks are written as octal escapes.
pub(super) fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
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
    fn what_is_mounted_by_commands_is_removed_as_a_mount_point_first() {
        let root = tempfile::tempdir().expect("temporary directory");
        let (nfs, folder) = (root.path().join("volumes/kubernetes.io~nfs"), root.path().join("volumes/x"));
        for made in [nfs.join("empty"), nfs.join("full/inside"), folder.clone()] {
            std::fs::create_dir_all(made).expect("made");
        }
        remove_mount_points(&nfs).expect("removed");
        assert!(!nfs.join("empty").exists() && nfs.join("full/inside").exists() && folder.exists());
        remove(root.path()).expect("removed");
        assert!(!root.path().exists());
    }

    #[test]
    fn a_server_that_is_away_keeps_nothing() {
        let answers = |mounts: &[usize], answers: &[Option<bool>]| {
            let (mounts, answers) =
                (std::cell::RefCell::new(mounts.to_vec()), std::cell::RefCell::new(answers.to_vec()));
            let asked = std::cell::RefCell::new(Vec::new());
            let result = unmount_by(
                Path::new("/m"),
                || Ok(mounts.borrow_mut().remove(0)),
                |flags| {
                    asked.borrow_mut().push(flags.contains(MntFlags::MNT_FORCE));
                    assert!(flags.contains(MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW));
                    let answer = answers.borrow_mut().remove(0)?;
                    Some(if answer { Ok(()) } else { Err(Error::from(ErrorKind::PermissionDenied)) })
                },
            );
            (result.map_err(|error| error.kind()), asked.into_inner())
        };
        assert_eq!(answers(&[1], &[Some(true)]), (Ok(()), vec![false]));
        assert_eq!(answers(&[1], &[Some(false)]), (Err(ErrorKind::PermissionDenied), vec![false]));
        assert_eq!(answers(&[2, 1], &[None]), (Ok(()), vec![false]), "gone, though it did not come back");
        assert_eq!(answers(&[1, 1], &[None, Some(true)]), (Ok(()), vec![false, true]), "forced");
        assert_eq!(answers(&[1, 1, 0], &[None, None]), (Ok(()), vec![false, true]));
        assert_eq!(answers(&[1, 1, 1], &[None, None]), (Err(ErrorKind::TimedOut), vec![false, true]));
    }

    #[test]
    fn mount_points_are_unescaped() {
        let table = "25 1 0:23 / /proc rw - proc proc rw\n26 1 0:24 / /a\\040b rw - tmpfs tmpfs rw\n";
        assert_eq!(mount_points(table).collect::<Vec<_>>(), [Path::new("/proc"), Path::new("/a b")]);
    }
}
