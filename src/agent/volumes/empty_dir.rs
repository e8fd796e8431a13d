//! Effects: `emptyDir` volumes, on disk or in memory.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::{Failure, teardown};

pub(super) fn make(
    directory: &Path,
    memory: bool,
    size_bytes: Option<i64>,
    fs_group: Option<i64>,
) -> Result<(), Failure> {
    // A container may have changed owner and mode since: only a new directory gets ours.
    if directory.is_dir() && (!memory || teardown::is_mount_point(directory)) {
        return Ok(());
    }
    std::fs::create_dir_all(directory).map_err(Failure::io(directory))?;
    if memory {
        let options = size_bytes.map(|size| format!("size={size}"));
        let mounted = mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), options.as_deref());
        mounted.map_err(|errno| Failure::io(directory)(errno.into()))?;
    }
    let group = fs_group.and_then(|gid| u32::try_from(gid).ok());
    if group.is_some() {
        chown(directory, None, group).map_err(Failure::io(directory))?;
    }
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(mode)).map_err(Failure::io(directory))
}
