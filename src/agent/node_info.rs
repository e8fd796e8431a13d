//! Effects: what this machine is and has, read from /proc, /sys and the file system.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::NodeSystemInfo;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::volumes::fields::Allocatable;
use crate::cri;

pub const KUBELET_VERSION: &str = "v1.36.2+skiff1";
/// Of the disk, kept from pods: below it the node is under disk pressure. The same share as k3s has.
pub const DISK_RESERVE_PERCENT: u64 = 5;
/// Below this much available memory the node is under memory pressure (the kubelet's `memory.available`).
pub const MEMORY_RESERVE_BYTES: u64 = 100 << 20;

/// What does not change while the machine runs.
#[derive(Clone, Debug)]
pub struct Machine {
    pub cpus: i64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    /// Page size such as `2Mi` to bytes reserved for it.
    pub hugepages: BTreeMap<String, u64>,
    pub system: NodeSystemInfo,
}

/// What does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    pub memory: bool,
    pub disk: bool,
    pub pid: bool,
}

impl Machine {
    #[must_use]
    pub fn read(data_dir: &Path) -> Machine {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Machine {
            cpus: i64::try_from(cpus).unwrap_or(1),
            memory_bytes: meminfo(&text("/proc/meminfo"), "MemTotal"),
            disk_bytes: disk(data_dir).map_or(0, |(total, _)| total),
            hugepages: hugepages(Path::new("/sys/kernel/mm/hugepages")),
            system: system(),
        }
    }

    #[must_use]
    pub fn allocatable(&self) -> Allocatable {
        let hugepages: u64 = self.hugepages.values().sum();
        let disk = self.disk_bytes - self.disk_bytes / 100 * DISK_RESERVE_PERCENT;
        Allocatable {
            cpu_milli: self.cpus * 1000,
            memory_bytes: i64::try_from(self.memory_bytes - hugepages.min(self.memory_bytes)).unwrap_or(i64::MAX),
            ephemeral_storage_bytes: i64::try_from(disk).unwrap_or(i64::MAX),
        }
    }

    /// `capacity` and `allocatable` of the Node.
    #[must_use]
    pub fn resources(&self, max_pods: u32) -> (BTreeMap<String, Quantity>, BTreeMap<String, Quantity>) {
        let kibi = |bytes: u64| format!("{}Ki", bytes / 1024);
        let mut capacity = BTreeMap::from([
            ("cpu".to_owned(), self.cpus.to_string()),
            ("memory".to_owned(), kibi(self.memory_bytes)),
            ("ephemeral-storage".to_owned(), kibi(self.disk_bytes)),
            ("pods".to_owned(), max_pods.to_string()),
        ]);
        for (size, bytes) in &self.hugepages {
            let amount = if *bytes == 0 { "0".to_owned() } else { kibi(*bytes) };
            capacity.insert(format!("hugepages-{size}"), amount);
        }
        let free = self.allocatable();
        let mut allocatable = capacity.clone();
        allocatable.insert("memory".into(), kibi(u64::try_from(free.memory_bytes).unwrap_or(0)));
        allocatable.insert("ephemeral-storage".into(), free.ephemeral_storage_bytes.to_string());
        let quantities = |map: BTreeMap<String, String>| map.into_iter().map(|(k, v)| (k, Quantity(v))).collect();
        (quantities(capacity), quantities(allocatable))
    }
}

impl Pressure {
    #[must_use]
    pub fn read(data_dir: &Path) -> Pressure {
        let available = meminfo(&text("/proc/meminfo"), "MemAvailable");
        let disk = disk(data_dir).is_some_and(|(total, free)| free < total / 100 * DISK_RESERVE_PERCENT);
        // The kubelet's own threshold is a share too; the kernel needs a few to do anything at all.
        let limit: u64 = text("/proc/sys/kernel/pid_max").trim().parse().unwrap_or(u64::MAX);
        let running = text("/proc/loadavg").split([' ', '/']).nth(4).and_then(|n| n.parse::<u64>().ok());
        Pressure {
            memory: available < MEMORY_RESERVE_BYTES,
            disk,
            pid: running.is_some_and(|running| running > limit / 100 * 95),
        }
    }
}

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// A value of /proc/meminfo, which is in KiB, in bytes.
fn meminfo(table: &str, name: &str) -> u64 {
    let line = table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Total and free bytes of the file system that holds the directory.
#[must_use]
pub fn disk(directory: &Path) -> Option<(u64, u64)> {
    let present = directory.ancestors().find(|path| path.exists())?;
    let found = nix::sys::statvfs::statvfs(present).ok()?;
    let block = found.fragment_size();
    Some((found.blocks() * block, found.blocks_available() * block))
}

fn hugepages(directory: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kib = name.strip_prefix("hugepages-").and_then(|rest| rest.strip_suffix("kB"));
        let Some(kib) = kib.and_then(|kib| kib.parse::<u64>().ok()) else { continue };
        let pages = std::fs::read_to_string(entry.path().join("nr_hugepages")).unwrap_or_default();
        let pages: u64 = pages.trim().parse().unwrap_or(0);
        let size = match kib {
            kib if kib % (1 << 20) == 0 => format!("{}Gi", kib >> 20),
            kib if kib % 1024 == 0 => format!("{}Mi", kib >> 10),
            kib => format!("{kib}Ki"),
        };
        found.insert(size, pages * kib * 1024);
    }
    found
}

fn system() -> NodeSystemInfo {
    let trimmed = |path: &str| text(path).trim().to_owned();
    let machine = trimmed("/etc/machine-id");
    let release = text("/etc/os-release");
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    NodeSystemInfo {
        system_uuid: match trimmed("/sys/class/dmi/id/product_uuid") {
            uuid if uuid.is_empty() => machine.clone(),
            uuid => uuid,
        },
        machine_id: machine,
        boot_id: trimmed("/proc/sys/kernel/random/boot_id"),
        kernel_version: trimmed("/proc/sys/kernel/osrelease"),
        os_image: pretty.unwrap_or("Linux").trim_matches('"').to_owned(),
        operating_system: "linux".into(),
        architecture: architecture().into(),
        kubelet_version: KUBELET_VERSION.into(),
        // No kube-proxy of that name; upstream deprecates the field and leaves it empty.
        kube_proxy_version: String::new(),
        ..NodeSystemInfo::default()
    }
}

/// As Go and the node label name it.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `containerd://1.6.20`
#[must_use]
pub fn runtime_version(version: &cri::Version) -> String {
    // Debian's packages add `~ds1` and the like.
    let number = version.version.trim_start_matches('v');
    let number = number.split(['~', '+']).next().unwrap_or(number);
    format!("{}://{number}", version.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_written_as_the_kubelet_does() {
        let machine = Machine {
            cpus: 2,
            memory_bytes: 4096 * 1024,
            disk_bytes: 1_024_000,
            hugepages: [("2Mi".to_owned(), 0), ("1Gi".to_owned(), 1024)].into(),
            system: NodeSystemInfo::default(),
        };
        let (capacity, allocatable) = machine.resources(110);
        let show = |map: &BTreeMap<String, Quantity>| -> String {
            map.iter().map(|(key, value)| format!("{key}={} ", value.0)).collect()
        };
        assert_eq!(
            show(&capacity),
            "cpu=2 ephemeral-storage=1000Ki hugepages-1Gi=1Ki hugepages-2Mi=0 memory=4096Ki pods=110 "
        );
        assert_eq!(
            show(&allocatable),
            "cpu=2 ephemeral-storage=972800 hugepages-1Gi=1Ki hugepages-2Mi=0 memory=4095Ki pods=110 "
        );
    }

    #[test]
    fn memory_table() {
        let table = "MemTotal:       24000 kB\nMemAvailable:     12 kB\n";
        assert_eq!((meminfo(table, "MemTotal"), meminfo(table, "MemAvailable")), (24_576_000, 12_288));
        assert_eq!(meminfo(table, "Mem"), 0);
    }
}
