//! Effects: a network namespace by its path, and running something inside it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use super::{Error, Result};

/// `NSFS_MAGIC`, see `statfs(2)`.
const NSFS: i64 = 0x6e73_6673;

#[derive(Debug)]
pub struct Namespace {
    file: File,
    path: String,
}

impl Namespace {
    /// `None` when there is no namespace at that path (any more).
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let shown = path.display().to_string();
        let file = match File::open(path) {
            Ok(file) => file,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::File { step: "open namespace", path: shown, source }),
        };
        // The path outlives the namespace as an empty file when the runtime was killed between unmount and unlink.
        match nix::sys::statfs::fstatfs(&file) {
            #[allow(clippy::unnecessary_cast, reason = "the type differs between C libraries")]
            Ok(found) if found.filesystem_type().0 as i64 == NSFS => Ok(Some(Self { file, path: shown })),
            Ok(_) => Ok(None),
            Err(errno) => Err(Error::File { step: "examine namespace", path: shown, source: errno.into() }),
        }
    }

    /// Whether a path leads to a living namespace.
    #[must_use]
    pub fn exists(path: &Path) -> bool {
        matches!(Self::open(path), Ok(Some(_)))
    }

    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Runs `work` on a thread of its own that has entered the namespace; no other thread is affected.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let entered = |source: std::io::Error| Error::File { step: "enter namespace", path: self.path.clone(), source };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .spawn_scoped(scope, || {
                    setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)?;
                    Ok::<T, std::io::Error>(work())
                })
                .map_err(entered)?;
            match thread.join() {
                Ok(result) => result.map_err(entered),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}
