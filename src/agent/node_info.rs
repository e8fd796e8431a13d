//! Effects: what this machine is and has, read from /proc, /sys and the file system.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{NodeSwapStatus, NodeSystemInfo};

use crate::cri;

pub const KUBELET_VERSION: &str = "v1.36.2+skiff1";
/// What does not change while the machine runs.
#[derive(Clone, Debug)]
pub struct Machine {
    pub cpus: i64,
    pub memory_bytes: u64,
    pub swap_bytes: u64,
    pub disk_bytes: u64,
    /// Page size such as `2Mi` to bytes reserved for it.
    pub hugepages: BTreeMap<String, u64>,
    pub system: NodeSystemInfo,
}

/// What the node is short of, as its conditions say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    pub memory: bool,
    pub disk: bool,
    pub pid: bool,
}

impl Machine {
    #[must_use]
    pub fn read(data_dir: &Path) -> Machine {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let memory = text("/proc/meminfo");
        let swap_bytes = meminfo(&memory, "SwapTotal");
        // A node without swap says nothing of it.
        let swap = i64::try_from(swap_bytes).ok().filter(|bytes| *bytes > 0);
        let swap = swap.map(|capacity| NodeSwapStatus { capacity: Some(capacity) });
        Machine {
            cpus: i64::try_from(cpus).unwrap_or(1),
            memory_bytes: meminfo(&memory, "MemTotal"),
            swap_bytes,
            disk_bytes: disk(data_dir).map_or(0, |(total, _)| total),
            hugepages: hugepages(Path::new("/sys/kernel/mm/hugepages")),
            system: NodeSystemInfo { swap, ..system() },
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
    fn memory_table() {
        let table = "MemTotal:       24000 kB\nMemAvailable:     12 kB\n";
        assert_eq!((meminfo(table, "MemTotal"), meminfo(table, "MemAvailable")), (24_576_000, 12_288));
        assert_eq!(meminfo(table, "Mem"), 0);
    }
}
