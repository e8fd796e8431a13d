//! Effects: how much is left of what the node may run short of, and the kernel's word that memory is.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::config::eviction::Signal;

/// Bytes, inodes or processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    pub available: i64,
    pub capacity: i64,
}

/// What could be read; a signal that is not there meets no threshold.
pub type Signals = BTreeMap<Signal, Observation>;

/// Tells how the node is. Another one stands in for it in tests.
#[async_trait]
pub trait Gauges: Send + Sync + 'static {
    /// `images` is where the runtime keeps images and containers.
    fn read(&self, images: Option<&Path>) -> Signals;
    /// Whether that is another file system than the one of the pods.
    fn has_imagefs(&self, images: &Path) -> bool;
    /// Room on the disk of the images.
    fn imagefs(&self, images: &Path) -> Option<Observation>;
    /// Ends when the kernel reports that processes wait for memory; never where it does not.
    async fn pressed(&self);
}

/// Some process waited this long in the last two seconds, in microseconds. Two seconds is the window that needs no
/// privilege (`Documentation/accounting/psi.rst`).
const TRIGGER: &str = "some 200000 2000000";
const PRESSURE_FILE: &str = "/proc/pressure/memory";

/// Of this machine.
pub struct Machine {
    data_dir: PathBuf,
    /// Files of the group of all pods, when it has less than the machine: its use, its statistics.
    kubepods: Option<Kubepods>,
    psi: Option<AsyncFd<File>>,
}

/// The control group of all pods.
pub struct Kubepods {
    pub directory: PathBuf,
    pub is_v2: bool,
    pub limit_bytes: i64,
}

impl Machine {
    #[must_use]
    pub fn new(data_dir: &Path, kubepods: Option<Kubepods>) -> Machine {
        Machine { data_dir: data_dir.to_owned(), kubepods, psi: psi() }
    }
}

/// `None` where the kernel has no PSI, or keeps it from us: the timer is all there is then.
fn psi() -> Option<AsyncFd<File>> {
    // Outside of a runtime nobody waits.
    tokio::runtime::Handle::try_current().ok()?;
    let mut file = OpenOptions::new().read(true).write(true).open(PRESSURE_FILE).ok()?;
    file.write_all(format!("{TRIGGER}\0").as_bytes()).ok()?;
    #[allow(deprecated, reason = "its successor is unsafe; a File keeps its descriptor")]
    AsyncFd::with_interest(file, Interest::PRIORITY).ok()
}

#[async_trait]
impl Gauges for Machine {
    fn read(&self, images: Option<&Path>) -> Signals {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let mut signals = Signals::new();
        let mut put = |signal, found: Option<Observation>| found.map(|found| signals.insert(signal, found));
        put(Signal::MemoryAvailable, memory(&read("/proc/meminfo")));
        put(Signal::AllocatableMemoryAvailable, self.kubepods.as_ref().and_then(allocatable_memory));
        put(Signal::PidAvailable, processes(&read("/proc/loadavg"), most_tasks()));
        let nodefs = file_system(&self.data_dir);
        let imagefs = images.and_then(file_system).or(nodefs);
        put(Signal::NodefsAvailable, nodefs.map(|f| f.0));
        put(Signal::NodefsInodesFree, nodefs.and_then(|f| f.1));
        put(Signal::ImagefsAvailable, imagefs.map(|f| f.0));
        put(Signal::ImagefsInodesFree, imagefs.and_then(|f| f.1));
        signals
    }

    fn has_imagefs(&self, images: &Path) -> bool {
        let device = |path: &Path| std::fs::metadata(path).ok().map(|m| m.dev());
        match (device(&self.data_dir), device(images)) {
            (Some(node), Some(images)) => node != images,
            _ => false,
        }
    }

    fn imagefs(&self, images: &Path) -> Option<Observation> {
        file_system(images).map(|f| f.0)
    }

    async fn pressed(&self) {
        let Some(psi) = &self.psi else { return std::future::pending().await };
        match psi.ready(Interest::PRIORITY).await {
            Ok(mut ready) => ready.clear_ready(),
            Err(_) => std::future::pending().await,
        }
    }
}

/// As cAdvisor counts the machine: what is neither in use nor in use as pages of files.
fn memory(meminfo: &str) -> Option<Observation> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.split_whitespace().next()?.parse::<i64>().ok()? * 1024)
    };
    let capacity = bytes("MemTotal")?;
    let available = bytes("MemFree")? + bytes("Inactive(file)").unwrap_or(0);
    Some(Observation { available: available.min(capacity), capacity })
}

fn allocatable_memory(group: &Kubepods) -> Option<Observation> {
    let (usage, inactive) = match group.is_v2 {
        true => ("memory.current", "inactive_file "),
        false => ("memory.usage_in_bytes", "total_inactive_file "),
    };
    let used: i64 = std::fs::read_to_string(group.directory.join(usage)).ok()?.trim().parse().ok()?;
    let stat = std::fs::read_to_string(group.directory.join("memory.stat")).ok()?;
    let inactive = stat.lines().find_map(|line| line.strip_prefix(inactive)?.trim().parse::<i64>().ok());
    let working_set = used.saturating_sub(inactive.unwrap_or(0)).max(0);
    Some(Observation { available: group.limit_bytes.saturating_sub(working_set), capacity: group.limit_bytes })
}

/// `0.1 0.1 0.1 1/345 678`: the fourth field has the number of all tasks (proc(5)).
fn processes(loadavg: &str, most: Option<i64>) -> Option<Observation> {
    let running: i64 = loadavg.split_whitespace().nth(3)?.split('/').nth(1)?.parse().ok()?;
    most.map(|capacity| Observation { available: capacity - running, capacity })
}

/// How many processes and threads the machine can have: there are ids for so many, and room for so many, which on a small
/// machine is far less (proc(5)).
#[must_use]
pub fn most_tasks() -> Option<i64> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    lowest([read("/proc/sys/kernel/pid_max"), read("/proc/sys/kernel/threads-max")])
}

fn lowest(limits: [String; 2]) -> Option<i64> {
    limits.iter().filter_map(|text| text.trim().parse().ok()).min()
}

/// Bytes and inodes of the file system that holds a directory, or will. Some have no inodes to count, as btrfs.
fn file_system(directory: &Path) -> Option<(Observation, Option<Observation>)> {
    let present = directory.ancestors().find(|path| path.exists())?;
    let found = nix::sys::statvfs::statvfs(present).ok()?;
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let bytes = Observation {
        available: number(found.blocks_available().saturating_mul(found.fragment_size())),
        capacity: number(found.blocks().saturating_mul(found.fragment_size())),
    };
    let inodes = Observation { available: number(found.files_available()), capacity: number(found.files()) };
    Some((bytes, (inodes.capacity > 0).then_some(inodes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_is_free_and_what_files_do_not_need() {
        let table = "MemTotal:  1000 kB\nMemFree:  200 kB\nMemAvailable: 700 kB\nInactive(file):   300 kB\n";
        assert_eq!(memory(table), Some(Observation { available: 500 * 1024, capacity: 1000 * 1024 }));
        assert_eq!(memory("MemFree: 5 kB\n"), None);
    }

    #[test]
    fn processes_count_against_the_lower_limit() {
        let most = lowest(["32768\n".to_owned(), "1000\n".to_owned()]);
        let found = processes("0.00 0.01 0.05 2/300 4711\n", most);
        assert_eq!(found, Some(Observation { available: 700, capacity: 1000 }));
        assert_eq!(processes("", Some(1)), None);
        assert_eq!(lowest([String::new(), "7\n".to_owned()]), Some(7));
    }

    #[test]
    fn the_group_of_all_pods_is_read_in_both_layouts() {
        for (is_v2, usage, stat) in [
            (true, "memory.current", "inactive_file 30\n"),
            (false, "memory.usage_in_bytes", "total_inactive_file 30\n"),
        ] {
            let directory = tempfile::tempdir().expect("temporary directory");
            std::fs::write(directory.path().join(usage), "100\n").expect("written");
            std::fs::write(directory.path().join("memory.stat"), format!("anon 1\n{stat}")).expect("written");
            let group = Kubepods { directory: directory.path().to_owned(), is_v2, limit_bytes: 200 };
            assert_eq!(allocatable_memory(&group), Some(Observation { available: 130, capacity: 200 }));
        }
    }

    #[test]
    fn this_machine_has_memory_processes_and_a_disk() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let signals = Machine::new(directory.path(), None).read(None);
        for signal in [Signal::MemoryAvailable, Signal::PidAvailable, Signal::NodefsAvailable, Signal::ImagefsAvailable]
        {
            let found = signals.get(&signal).unwrap_or_else(|| panic!("{signal}"));
            assert!(0 < found.available && found.available <= found.capacity, "{signal} {found:?}");
        }
    }
}
