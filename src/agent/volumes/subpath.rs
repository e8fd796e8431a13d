//! Effects: `subPath` mounts. The container controls what is below its volume, so that a path in it is resolved by the
//! kernel without ever leaving the volume, and the runtime is given a bind mount of what was found, not the path.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, mkdirat};

use super::{patience, teardown};
use crate::supervisor::chain;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to create subPath directory for volumeMount \"{volume}\": {source}")]
    Resolve {
        volume: String,
        #[source]
        source: nix::Error,
    },
    #[error("failed to prepare subPath for volumeMount \"{volume}\" of container \"{container}\"")]
    Bind {
        volume: String,
        container: String,
        #[source]
        source: std::io::Error,
    },
}

/// What the volume's server is given to find a path.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same as [`bind`], of `(volume, container)`, for a volume whose server may be away.
///
/// # Errors
/// As the event words it.
pub async fn bind_patiently(
    (volume, container): (String, String),
    volume_path: PathBuf,
    sub_path: String,
    target: PathBuf,
) -> Result<PathBuf, String> {
    let late =
        format!("failed to prepare subPath for volumeMount \"{volume}\" of container \"{container}\": no answer");
    let bound = move || Ok(bind(&volume, &container, &volume_path, &sub_path, &target));
    match patience::wait_within(PATIENCE, bound).await {
        Some(Ok(bound)) => bound.map_err(|error| chain(&error)),
        Some(Err(error)) => Err(error.to_string()),
        None => Err(late),
    }
}

/// Binds `sub_path` of the volume at `volume_path` to `target`, making directories that are missing.
pub fn bind(
    volume: &str,
    container: &str,
    volume_path: &Path,
    sub_path: &str,
    target: &Path,
) -> Result<PathBuf, Error> {
    let found = resolve(volume_path, Path::new(sub_path))
        .map_err(|source| Error::Resolve { volume: volume.to_owned(), source })?;
    let failed = |source| Error::Bind { volume: volume.to_owned(), container: container.to_owned(), source };
    // A restarted container may find another file by that name: the old mount goes.
    if teardown::is_mount_point(target) {
        teardown::unmount(target).map_err(failed)?;
    }
    let source = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    let parent = target.parent().unwrap_or(target);
    std::fs::create_dir_all(parent).map_err(failed)?;
    if std::fs::metadata(&source).map_err(failed)?.is_dir() {
        std::fs::create_dir_all(target).map_err(failed)?;
    } else {
        std::fs::OpenOptions::new().create(true).append(true).open(target).map_err(failed)?;
    }
    mount(Some(&source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|errno| failed(errno.into()))?;
    Ok(target.to_owned())
}

fn resolve(volume: &Path, sub_path: &Path) -> nix::Result<OwnedFd> {
    if !sub_path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(nix::Error::EINVAL);
    }
    let root = nix::fcntl::open(volume, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let beneath = |path: &Path| {
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_BENEATH);
        openat2(&root, path, how)
    };
    match beneath(sub_path) {
        Err(nix::Error::ENOENT) => {}
        other => return other,
    }
    let mut made = PathBuf::new();
    for part in sub_path.components() {
        let parent = if made.as_os_str().is_empty() {
            root.try_clone().map_err(|_| nix::Error::EMFILE)?
        } else {
            beneath(&made)?
        };
        made.push(part);
        if beneath(&made).err() == Some(nix::Error::ENOENT) {
            mkdirat(&parent, Path::new(part.as_os_str()), Mode::from_bits_truncate(0o755))?;
        }
    }
    beneath(sub_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_do_not_lead_out() {
        let root = tempfile::tempdir().expect("temporary directory");
        std::os::unix::fs::symlink("/etc", root.path().join("out")).expect("linked");
        std::os::unix::fs::symlink("in", root.path().join("inner")).expect("linked");
        assert!(resolve(root.path(), Path::new("in/side")).is_ok(), "made");
        assert!(root.path().join("in/side").is_dir());
        assert!(resolve(root.path(), Path::new("inner/side")).is_ok(), "a link that stays inside");
        assert!(resolve(root.path(), Path::new("out/passwd")).is_err());
        assert!(resolve(root.path(), Path::new("../x")).is_err());
        assert!(resolve(root.path(), Path::new("/etc")).is_err());
    }
}
