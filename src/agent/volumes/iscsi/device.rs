//! Effects: sessions and disks of iSCSI, as the kernel shows them in sysfs.
//!
//! ```text
//! class/iscsi_session/session1/{targetname,ifacename}
//! class/iscsi_session/session1/device → devices/…/host2/session1        the number of the host: what is scanned
//! devices/…/host2/session1/target2:0:0/2:0:0:<LUN>/block/sdb            the disk
//! class/iscsi_connection/connection1:0/persistent_{address,port}       the portal
//! class/block/sdb/holders/dm-0, class/block/dm-0/dm/uuid               several paths to one disk, joined by multipathd
//! ```
//! Links in `/dev/disk/by-path` say the same, but only where udev makes them, and in other words for hardware transports
//! and IPv6.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::disk::{Disk, bare, endpoint};

/// Of `dm/uuid`: a volume group or an encrypted disk on top is another's.
const MULTIPATH: &str = "mpath-";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// Address and port.
    pub endpoint: (String, String),
    pub host: u32,
    directory: PathBuf,
}

/// `/`, or a folder that looks like it.
#[derive(Clone, Debug)]
pub(super) struct Kernel(pub PathBuf);

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Names in a folder in their order; none when there is no folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

impl Kernel {
    fn class(&self, class: &str) -> PathBuf {
        self.0.join("sys/class").join(class)
    }

    /// The sessions that a disk's target has over its interface.
    pub fn sessions(&self, disk: &Disk) -> Vec<Session> {
        let all = self.class("iscsi_session");
        names(&all).iter().filter_map(|name| self.session(&all.join(name), name, disk)).collect()
    }

    fn session(&self, directory: &Path, name: &str, disk: &Disk) -> Option<Session> {
        // Interfaces of hardware have no name there that open-iscsi knows.
        let interface = read(&directory.join("ifacename")).filter(|interface| !interface.is_empty());
        if read(&directory.join("targetname"))? != disk.iqn
            || interface.is_some_and(|interface| interface != disk.session_interface())
        {
            return None;
        }
        let connection = self.class("iscsi_connection").join(format!("connection{}:0", name.strip_prefix("session")?));
        let endpoint =
            (bare(&read(&connection.join("persistent_address"))?), read(&connection.join("persistent_port"))?);
        let directory = fs::canonicalize(directory.join("device")).ok()?;
        let host = directory.parent()?.file_name()?.to_str()?.strip_prefix("host")?.parse().ok()?;
        Some(Session { endpoint, host, directory })
    }

    pub fn session_at(&self, disk: &Disk, portal: &str) -> Option<Session> {
        let wanted = endpoint(portal);
        self.sessions(disk).into_iter().find(|session| session.endpoint == wanted)
    }

    /// The disk's name by way of one session, once there is a device of that name.
    pub fn disk(&self, session: &Session, lun: i32) -> Option<String> {
        let disks = self.disks(session, lun);
        disks.into_iter().find(|name| self.device(name).exists())
    }

    fn disks(&self, session: &Session, lun: i32) -> Vec<String> {
        let targets = names(&session.directory).into_iter().filter(|name| name.starts_with("target"));
        let units = targets.flat_map(|target| {
            let target = session.directory.join(target);
            names(&target).into_iter().map(move |unit| target.join(unit))
        });
        let is_lun = |unit: &PathBuf| {
            let name = unit.file_name().and_then(|name| name.to_str());
            name.and_then(|name| name.rsplit_once(':')).is_some_and(|(_, number)| number == lun.to_string())
        };
        units.filter(is_lun).flat_map(|unit| names(&unit.join("block"))).collect()
    }

    /// By way of all sessions.
    pub fn all_disks(&self, disk: &Disk) -> Vec<String> {
        self.sessions(disk).iter().flat_map(|session| self.disks(session, disk.lun)).collect()
    }

    pub fn device(&self, name: &str) -> PathBuf {
        self.0.join("dev").join(name)
    }

    /// What joins several paths, this one among them.
    pub fn multipath(&self, disk: &str) -> Option<String> {
        let block = self.class("block");
        names(&block.join(disk).join("holders"))
            .into_iter()
            .find(|holder| read(&block.join(holder).join("dm/uuid")).is_some_and(|uuid| uuid.starts_with(MULTIPATH)))
    }

    /// Looks for one disk, and not for what else the target has.
    pub fn scan(&self, host: u32, lun: i32) -> io::Result<()> {
        write(&self.class("scsi_host").join(format!("host{host}/scan")), &format!("0 0 {lun}"))
    }

    /// Takes a disk away from the kernel.
    pub fn delete(&self, disk: &str) -> io::Result<()> {
        match write(&self.class("block").join(disk).join("device/delete"), "1") {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Whether something is still mounted from it, somewhere, or built on it: open(2) says so for devices with `O_EXCL`.
    /// A mount that was detached while a file in it was open is in no table.
    pub fn is_busy(&self, device: &str) -> bool {
        let opened = fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_EXCL).open(self.device(device));
        opened.is_err_and(|error| error.kind() == ErrorKind::ResourceBusy)
    }

    pub fn mount_table(&self) -> io::Result<String> {
        fs::read_to_string(self.0.join("proc/self/mountinfo"))
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}
