//! Effects: tells when files change (inotify(7)), so that nothing is polled.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::Path;

pub use nix::sys::inotify::AddWatchFlags as Flags;
use nix::sys::inotify::{InitFlags, Inotify, InotifyEvent};
use tokio::io::unix::AsyncFd;

/// Watches files and directories. Dropping it ends the watches.
pub struct Watcher(AsyncFd<Raw>);

struct Raw(Inotify);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watcher {
    /// # Errors
    /// When the user has too many inotify instances (`fs.inotify.max_user_instances`).
    pub fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        #[allow(deprecated, reason = "its successor asks for the same trait and returns a larger error")]
        AsyncFd::new(Raw(inotify)).map(Self)
    }

    /// # Errors
    /// When the path does not exist, or the user has too many watches.
    pub fn add(&self, path: &Path, flags: Flags) -> io::Result<()> {
        self.0.get_ref().0.add_watch(path, flags)?;
        Ok(())
    }

    /// Waits for changes and returns all that came together. Cancel-safe.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub async fn changed(&self) -> io::Result<Vec<InotifyEvent>> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.get_inner().0.read_events() {
                Ok(events) => return Ok(events),
                Err(nix::Error::EAGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
