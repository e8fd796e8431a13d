//! Effects and decides: what the kernel counts for a control group, of version 1 and 2 (cgroups(7),
//! `Documentation/admin-guide/cgroup-v2.rst`), in the words of cAdvisor.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::agent::cgroups::Cgroups;

/// Counters of one group. What the kernel does not tell is 0, or `None` where 0 would say something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    pub cpu_nanoseconds: u64,
    pub user_nanoseconds: u64,
    pub system_nanoseconds: u64,
    /// Only of a group with a quota.
    pub throttling: Option<Throttling>,
    pub memory_bytes: u64,
    pub working_set_bytes: u64,
    pub rss_bytes: u64,
    pub cache_bytes: u64,
    pub mapped_bytes: u64,
    pub swap_bytes: u64,
    pub peak_bytes: u64,
    pub limit_hits: u64,
    pub faults: u64,
    pub major_faults: u64,
    pub active_file_bytes: u64,
    pub inactive_file_bytes: u64,
    /// `None` when there is no limit.
    pub memory_limit: Option<u64>,
    pub swap_limit: Option<u64>,
    pub cpu_quota: Option<u64>,
    pub cpu_period: u64,
    pub cpu_shares: u64,
    pub kills: u64,
    pub threads: u64,
    pub threads_max: Option<u64>,
    pub processes: Vec<i32>,
    /// Bytes and operations by device.
    pub devices: BTreeMap<String, Device>,
    /// Stalled time in microseconds: of some, and of all; by resource. Where the kernel counts it.
    pub pressure: BTreeMap<&'static str, (u64, u64)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    pub periods: u64,
    pub throttled: u64,
    pub nanoseconds: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// Values of 2^63 and beyond, rounded down to pages, mean that there is no limit.
const UNLIMITED: u64 = 1 << 62;

/// Reads a group. `None` when there is none.
#[must_use]
pub fn read(cgroups: &Cgroups, group: &str) -> Option<Group> {
    let files = |controller: &str| cgroups.files(controller, group);
    match cgroups.is_v2() {
        true => files("").filter(|d| d.is_dir()).map(|directory| version_2(&directory)),
        false => {
            let [cpu, accounting, memory, pids, blkio] = ["cpu", "cpuacct", "memory", "pids", "blkio"].map(files);
            let directories = [cpu?, accounting?, memory?, pids?, blkio?];
            directories[0].is_dir().then(|| version_1(&directories))
        }
    }
}

fn text(directory: &Path, file: &str) -> String {
    std::fs::read_to_string(directory.join(file)).unwrap_or_default()
}

fn one(directory: &Path, file: &str) -> u64 {
    text(directory, file).trim().parse().unwrap_or(0)
}

/// `max`, and anything as large, is none.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|n| *n < UNLIMITED)
}

/// Lines of a name and a number.
fn table(text: &str) -> BTreeMap<&str, u64> {
    let pair = |line: &'_ str| -> Option<(usize, u64)> {
        let (name, value) = line.split_once(' ')?;
        Some((name.len(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(|line| pair(line).map(|(end, value)| (&line[..end], value))).collect()
}

fn processes(text: &str) -> Vec<i32> {
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn version_1([cpu, accounting, memory, pids, blkio]: &[PathBuf; 5]) -> Group {
    let stat = text(memory, "memory.stat");
    let stat = table(&stat);
    let of = |name: &str| stat.get(name).copied().unwrap_or(0);
    let scheduler = text(cpu, "cpu.stat");
    let scheduler = table(&scheduler);
    let quota = limit(&text(cpu, "cpu.cfs_quota_us"));
    let usage = one(memory, "memory.usage_in_bytes");
    // Both counters are in ticks of USER_HZ, as in /proc/stat.
    let ticks = text(accounting, "cpuacct.stat");
    let ticks = table(&ticks);
    let time =
        |name: &str| ticks.get(name).map_or(0, |n| n * (1_000_000_000 / crate::agent::stats::ticks_per_second()));
    let counted = |name: &str| scheduler.get(name).copied().unwrap_or(0);
    let control = text(memory, "memory.oom_control");
    let both = one(memory, "memory.memsw.usage_in_bytes");
    Group {
        cpu_nanoseconds: one(accounting, "cpuacct.usage"),
        user_nanoseconds: time("user"),
        system_nanoseconds: time("system"),
        throttling: quota.map(|_| Throttling {
            periods: counted("nr_periods"),
            throttled: counted("nr_throttled"),
            nanoseconds: counted("throttled_time"),
        }),
        memory_bytes: usage,
        working_set_bytes: usage.saturating_sub(of("total_inactive_file")),
        rss_bytes: of("total_rss"),
        cache_bytes: of("total_cache"),
        mapped_bytes: of("total_mapped_file"),
        swap_bytes: stat.get("total_swap").copied().unwrap_or_else(|| both.saturating_sub(usage)),
        peak_bytes: one(memory, "memory.max_usage_in_bytes"),
        limit_hits: one(memory, "memory.failcnt"),
        faults: of("total_pgfault"),
        major_faults: of("total_pgmajfault"),
        active_file_bytes: of("total_active_file"),
        inactive_file_bytes: of("total_inactive_file"),
        memory_limit: limit(&text(memory, "memory.limit_in_bytes")),
        swap_limit: limit(&text(memory, "memory.memsw.limit_in_bytes")),
        cpu_quota: quota,
        cpu_period: one(cpu, "cpu.cfs_period_us"),
        cpu_shares: one(cpu, "cpu.shares"),
        kills: table(&control).get("oom_kill").copied().unwrap_or(0),
        threads: one(pids, "pids.current"),
        threads_max: limit(&text(pids, "pids.max")),
        processes: processes(&text(cpu, "cgroup.procs")),
        devices: version_1_devices(
            &text(blkio, "blkio.throttle.io_service_bytes"),
            &text(blkio, "blkio.throttle.io_serviced"),
        ),
        pressure: BTreeMap::new(),
    }
}

/// `8:0 Read 4096`
fn version_1_devices(bytes: &str, operations: &str) -> BTreeMap<String, Device> {
    let mut devices: BTreeMap<String, Device> = BTreeMap::new();
    for (text, is_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let mut fields = line.split(' ');
            let (Some(device), Some(kind), Some(count)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let Ok(count) = count.parse() else { continue };
            let of = devices.entry(device.to_owned()).or_default();
            match (kind, is_bytes) {
                ("Read", true) => of.read_bytes = count,
                ("Write", true) => of.written_bytes = count,
                ("Read", false) => of.reads = count,
                ("Write", false) => of.writes = count,
                _ => {}
            }
        }
    }
    devices
}

fn version_2(directory: &Path) -> Group {
    let read = |file: &str| text(directory, file);
    let (cpu, memory, events) = (read("cpu.stat"), read("memory.stat"), read("memory.events"));
    let (cpu, memory, events) = (table(&cpu), table(&memory), table(&events));
    let time = |name: &str| cpu.get(name).map_or(0, |microseconds| microseconds * 1000);
    let of = |name: &str| memory.get(name).copied().unwrap_or(0);
    let max = read("cpu.max");
    let (quota, period) = max.trim().split_once(' ').unwrap_or(("max", "100000"));
    let (quota, usage) = (limit(quota), one(directory, "memory.current"));
    let pressure = ["cpu", "memory", "io"].into_iter().filter_map(|name| {
        let text = read(&format!("{name}.pressure"));
        (!text.is_empty()).then(|| (name, (stalled(&text, "some"), stalled(&text, "full"))))
    });
    let count = |name: &str| cpu.get(name).copied().unwrap_or(0);
    Group {
        cpu_nanoseconds: time("usage_usec"),
        user_nanoseconds: time("user_usec"),
        system_nanoseconds: time("system_usec"),
        throttling: quota.map(|_| Throttling {
            periods: count("nr_periods"),
            throttled: count("nr_throttled"),
            nanoseconds: time("throttled_usec"),
        }),
        memory_bytes: usage,
        working_set_bytes: usage.saturating_sub(of("inactive_file")),
        rss_bytes: of("anon"),
        cache_bytes: of("file"),
        mapped_bytes: of("file_mapped"),
        swap_bytes: one(directory, "memory.swap.current"),
        peak_bytes: one(directory, "memory.peak"),
        limit_hits: events.get("max").copied().unwrap_or(0),
        faults: of("pgfault"),
        major_faults: of("pgmajfault"),
        active_file_bytes: of("active_file"),
        inactive_file_bytes: of("inactive_file"),
        memory_limit: limit(&read("memory.max")),
        swap_limit: limit(&read("memory.swap.max")),
        cpu_quota: quota,
        cpu_period: period.parse().unwrap_or(0),
        cpu_shares: shares(one(directory, "cpu.weight")),
        kills: events.get("oom_kill").copied().unwrap_or(0),
        threads: one(directory, "pids.current"),
        threads_max: limit(&read("pids.max")),
        processes: processes(&read("cgroup.procs")),
        devices: version_2_devices(&read("io.stat")),
        pressure: pressure.collect(),
    }
}

/// The shares that a weight came from, as version 1 would show them.
fn shares(weight: u64) -> u64 {
    if weight == 0 { 0 } else { 2 + (weight - 1) * 262_142 / 9999 }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=123`
fn stalled(text: &str, which: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(which)).unwrap_or_default();
    line.rsplit("total=").next().and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`
fn version_2_devices(text: &str) -> BTreeMap<String, Device> {
    let device = |line: &str| {
        let (name, rest) = line.split_once(' ')?;
        let mut device = Device::default();
        for (key, value) in rest.split(' ').filter_map(|field| field.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => device.read_bytes = value,
                "wbytes" => device.written_bytes = value,
                "rios" => device.reads = value,
                "wios" => device.writes = value,
                _ => {}
            }
        }
        Some((name.to_owned(), device))
    };
    text.lines().filter_map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            std::fs::write(directory.join(name), content).expect("written");
        }
    }

    #[test]
    fn version_1_is_read() {
        let root = tempfile::tempdir().expect("temporary directory");
        let directory = root.path();
        files(
            directory,
            &[
                ("cpuacct.usage", "5000\n"),
                ("cpu.stat", "nr_periods 10\nnr_throttled 3\nthrottled_time 77\n"),
                ("cpu.cfs_quota_us", "50000\n"),
                ("cpu.cfs_period_us", "100000\n"),
                ("cpu.shares", "512\n"),
                ("memory.usage_in_bytes", "1000\n"),
                ("memory.stat", "cache 1\ntotal_cache 300\ntotal_rss 600\ntotal_inactive_file 200\ntotal_pgfault 9\n"),
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
                ("pids.current", "4\n"),
                ("pids.max", "max\n"),
                ("cgroup.procs", "12\n13\n"),
                ("blkio.throttle.io_service_bytes", "8:0 Read 4096\n8:0 Write 512\n8:0 Total 4608\nTotal 4608\n"),
                ("blkio.throttle.io_serviced", "8:0 Read 1\n8:0 Write 2\n"),
            ],
        );
        let group = version_1(&[(); 5].map(|()| directory.to_owned()));
        assert_eq!((group.cpu_nanoseconds, group.cpu_quota, group.cpu_shares), (5000, Some(50_000), 512));
        assert_eq!(group.throttling, Some(Throttling { periods: 10, throttled: 3, nanoseconds: 77 }));
        assert_eq!((group.working_set_bytes, group.rss_bytes, group.cache_bytes), (800, 600, 300));
        assert_eq!((group.memory_limit, group.kills, group.faults), (None, 2, 9));
        assert_eq!((group.threads, group.threads_max, group.processes), (4, None, vec![12, 13]));
        let device = Device { read_bytes: 4096, written_bytes: 512, reads: 1, writes: 2 };
        assert_eq!(group.devices, [("8:0".to_owned(), device)].into());
    }

    #[test]
    fn version_2_is_read() {
        let root = tempfile::tempdir().expect("temporary directory");
        let directory = root.path();
        files(
            directory,
            &[
                (
                    "cpu.stat",
                    "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 1\nnr_throttled 1\nthrottled_usec 9\n",
                ),
                ("cpu.max", "max 100000\n"),
                ("cpu.weight", "20\n"),
                ("memory.current", "1000\n"),
                ("memory.max", "4096\n"),
                ("memory.stat", "anon 600\nfile 300\ninactive_file 200\npgfault 9\n"),
                ("memory.events", "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\n"),
                ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
                ("cpu.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=123\nfull avg10=0.00 total=45\n"),
            ],
        );
        let group = version_2(directory);
        assert_eq!((group.cpu_nanoseconds, group.user_nanoseconds, group.throttling), (5000, 3000, None));
        assert_eq!((group.cpu_quota, group.cpu_period, group.cpu_shares), (None, 100_000, 500));
        assert_eq!(
            (group.working_set_bytes, group.memory_limit, group.limit_hits, group.kills),
            (800, Some(4096), 7, 1)
        );
        assert_eq!(group.devices["8:0"], Device { read_bytes: 1, written_bytes: 2, reads: 3, writes: 4 });
        assert_eq!(group.pressure, [("cpu", (123, 45))].into());
    }
}
