//! Effects: the file system of a disk: made when the disk is empty, checked, mounted once for the node and bound for each
//! pod (`formatAndMountSensitive` of `mount-utils`).

use std::path::Path;

use super::command;
use super::device::Kernel;
use crate::agent::volumes::teardown::{mount_points, real};
use crate::agent::volumes::tools::{self, Failed, Runner, Why};

/// What blkid(8) exits with when it finds nothing.
const NOTHING_FOUND: i32 = 2;
/// fsck(8): errors were corrected; errors are left.
const CORRECTED: i32 = 1;
const UNCORRECTED: i32 = 4;

/// What is to be mounted how.
#[derive(Clone, Copy)]
pub(super) struct Mount<'a> {
    pub device: &'a Path,
    pub fs_type: &'a str,
    pub options: &'a [String],
    pub read_only: bool,
}

/// The mounts of this machine, and who changes them.
#[derive(Clone, Copy)]
pub(super) struct Mounter<'a> {
    pub kernel: &'a Kernel,
    pub runner: &'a dyn Runner,
}

/// Whether the newest mount at a path may only be read; `None` when there is none.
fn is_read_only(table: &str, path: &Path) -> Option<bool> {
    let mounts = table.lines().zip(mount_points(table));
    let (line, _) = mounts.filter(|(_, point)| point == path).last()?;
    // The file system's own options are the last field (proc(5)).
    line.rsplit(' ').next().map(|options| options.split(',').any(|option| option == "ro"))
}

impl Mounter<'_> {
    pub fn is_mounted(&self, path: &Path) -> bool {
        self.read_only(path).is_some()
    }

    fn read_only(&self, path: &Path) -> Option<bool> {
        is_read_only(&self.kernel.mount_table().ok()?, &real(path)?)
    }

    async fn mount(&self, call: tools::Call) -> Result<(), String> {
        tools::mount(self.runner, &call).await
    }

    /// The global mount. One that may only be read becomes writable for a pod that writes.
    pub async fn mount_device(&self, mount: Mount<'_>, target: &Path) -> Result<(), String> {
        match self.read_only(target) {
            Some(true) if !mount.read_only => {
                return self.mount(command::mount_writable(&target.display().to_string())).await;
            }
            Some(_) => return Ok(()),
            None => {}
        }
        let fs_type = command::fs_type(mount.fs_type)?;
        self.prepare(mount, fs_type, target).await?;
        let device = mount.device.display().to_string();
        let call = command::mount(&device, &target.display().to_string(), fs_type, mount.options, mount.read_only);
        self.mount(call).await
    }

    /// A disk is made ready; what is on it stays.
    async fn prepare(&self, mount: Mount<'_>, fs_type: &str, target: &Path) -> Result<(), String> {
        let device = mount.device.display().to_string();
        let found =
            self.format(&device).await.map_err(|why| format!("failed to get disk format of disk {device}: {why}"))?;
        if found.is_empty() {
            if mount.read_only {
                return Err(format!(
                    "cannot mount unformatted disk {device} as we are manipulating it in read-only mode"
                ));
            }
            tracing::info!(device, fs_type, "an empty disk gets a file system");
            let made = self.runner.run(&command::make_file_system(&device, fs_type)).await;
            return made.map(drop).map_err(|Failed { why, output }| {
                format!(
                    "format of disk {device:?} failed: type:({fs_type:?}) target:({:?}) options:({:?}) errcode:({why}) output:({output})",
                    target.display().to_string(),
                    mount.options
                )
            });
        }
        if found != fs_type {
            tracing::warn!(device, found, fs_type, "the disk has another file system than the volume says");
        }
        if mount.read_only {
            return Ok(());
        }
        self.check(&device).await
    }

    /// What is on the disk; empty when there is nothing.
    async fn format(&self, device: &str) -> Result<String, String> {
        match self.runner.run(&command::probe(device)).await {
            Ok(output) => command::found_format(&output),
            Err(failed) if failed.status() == Some(NOTHING_FOUND) => Ok(String::new()),
            Err(failed) => Err(failed.to_string()),
        }
    }

    /// As upstream: only errors that are left keep a disk from being mounted.
    async fn check(&self, device: &str) -> Result<(), String> {
        let Err(failed) = self.runner.run(&command::check_file_system(device)).await else { return Ok(()) };
        match failed.why {
            Why::Status(UNCORRECTED) => {
                Err(format!("'fsck' found errors on device {device} but could not correct them: {}", failed.output))
            }
            Why::Status(CORRECTED) => {
                tracing::info!(device, "errors of the file system were corrected");
                Ok(())
            }
            why => {
                tracing::warn!(device, error = %why, output = failed.output, "the file system was not checked");
                Ok(())
            }
        }
    }

    /// The pod's mount of the global one.
    pub async fn bind(&self, global: &Path, target: &Path, read_only: bool) -> Result<(), String> {
        let (global, target) = (global.display().to_string(), target.display().to_string());
        self.mount(command::bind(&global, &target, read_only)).await
    }

    /// Waits until all is written. Fine when nothing is mounted there.
    pub async fn unmount(&self, target: &Path) -> Result<(), String> {
        while self.is_mounted(target) {
            let name = target.display().to_string();
            self.runner.run(&command::unmount(&name)).await.map_err(|Failed { why, output }| {
                format!("unmount failed: {why}\nUnmounting arguments: {name}\nOutput: {output}")
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_mount_counts_and_its_file_system() {
        let table = "25 1 8:16 / /a rw,relatime shared:1 - ext4 /dev/sdb ro\n\
             26 1 8:16 / /b ro,relatime - ext4 /dev/sdb rw\n\
             27 25 8:32 / /a rw - ext4 /dev/sdc rw,stripe=4\n";
        assert_eq!(is_read_only(table, Path::new("/a")), Some(false), "another one was mounted over it");
        assert_eq!(is_read_only(table, Path::new("/b")), Some(false), "only this mount of it is read-only");
        assert_eq!(is_read_only(table, Path::new("/c")), None);
    }
}
