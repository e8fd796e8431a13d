//! Effects: volumes that are kept in memory: `emptyDir` of that medium, and secrets and tokens, which nobody is to find on
//! the disk. Nor in its swap, where the kernel can be told so (tmpfs(5): `noswap`, since Linux 6.4).

use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::{Failure, atomic, teardown};

const KIND: &str = "tmpfs";

/// What this machine has for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InMemory {
    /// Nothing that could be mounted: secrets are on the disk, as readable as the rest of the pod's.
    #[default]
    No,
    /// It may be written to swap.
    Swappable,
    Kept,
}

impl InMemory {
    /// Asks the kernel, in a new folder in `directory`.
    #[must_use]
    pub fn probe(directory: &Path) -> InMemory {
        let folder = directory.join("in-memory");
        // One that was killed in the middle may have left it mounted.
        let made = teardown::remove(&folder).and_then(|()| std::fs::create_dir_all(&folder));
        if let Err(error) = made {
            tracing::warn!(%error, folder = %folder.display(), "cannot find out what can be kept in memory");
            return InMemory::No;
        }
        let can = |way: &InMemory| mount_at(&folder, way.options(0)).is_ok() && teardown::unmount(&folder).is_ok();
        let found = [InMemory::Kept, InMemory::Swappable].into_iter().find(can).unwrap_or_default();
        if let Err(error) = teardown::remove(&folder) {
            tracing::warn!(%error, folder = %folder.display(), "folder not removed");
        }
        if found == InMemory::No {
            tracing::warn!("nothing can be kept in memory here: secrets of pods are on the disk");
        }
        found
    }

    /// `size_bytes` of 0 is no limit but the kernel's, half of the memory.
    fn options(self, size_bytes: i64) -> String {
        let size = (size_bytes > 0).then(|| format!("size={size_bytes}"));
        let kept = (self == InMemory::Kept).then(|| "noswap".to_owned());
        size.into_iter().chain(kept).collect::<Vec<_>>().join(",")
    }

    /// Mounts a new volume.
    pub(super) fn mount(self, directory: &Path, size_bytes: i64) -> Result<(), Failure> {
        mount_at(directory, self.options(size_bytes)).map_err(Failure::io(directory))
    }

    /// Makes the folder for files of a volume. One with files in it is left where it is: containers that have it would not
    /// see what is mounted over it.
    pub(super) fn prepare(self, directory: &Path) -> Result<(), Failure> {
        if self == InMemory::No || atomic::is_written(directory) || teardown::is_mount_point(directory) {
            return Ok(());
        }
        std::fs::create_dir_all(directory).map_err(Failure::io(directory))?;
        self.mount(directory, 0)
    }
}

fn mount_at(directory: &Path, options: String) -> std::io::Result<()> {
    mount(Some(KIND), directory, Some(KIND), MsFlags::empty(), Some(options.as_str())).map_err(std::io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_the_kernel() {
        let asked = |way: InMemory| [way.options(0), way.options(4096)];
        assert_eq!(asked(InMemory::Swappable), ["", "size=4096"]);
        assert_eq!(asked(InMemory::Kept), ["noswap", "size=4096,noswap"]);
    }
}
