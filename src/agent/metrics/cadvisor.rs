//! Effects: `/metrics/cadvisor`: the families of cAdvisor that dashboards use, for the machine, the groups of pods, pods
//! and containers (`github.com/google/cadvisor` `metrics/prometheus.go`).

use std::collections::{BTreeSet, HashMap};

use nix::sys::statvfs::statvfs;

use super::figures::{Figures, Kind, number, seconds};
use super::groups::{self, Group};
use crate::agent::context::NodeContext;
use crate::agent::pod::{host_network, name, namespace, table::PodEntry};
use crate::agent::stats::{network, running};
use crate::api::version;
use crate::clock;
use crate::cri::Usage;

const FAMILIES: &[(&str, Kind, &str)] = &[
    (
        "cadvisor_version_info",
        Kind::Gauge,
        "A metric with a constant '1' value labeled by kernel version, OS version and version.",
    ),
    ("container_cpu_cfs_periods_total", Kind::Counter, "Number of elapsed enforcement period intervals."),
    ("container_cpu_cfs_throttled_periods_total", Kind::Counter, "Number of throttled period intervals."),
    (
        "container_cpu_cfs_throttled_seconds_total",
        Kind::Counter,
        "Total time duration the container has been throttled.",
    ),
    ("container_cpu_system_seconds_total", Kind::Counter, "Cumulative system cpu time consumed in seconds."),
    ("container_cpu_usage_seconds_total", Kind::Counter, "Cumulative cpu time consumed in seconds."),
    ("container_cpu_user_seconds_total", Kind::Counter, "Cumulative user cpu time consumed in seconds."),
    ("container_fs_inodes_free", Kind::Gauge, "Number of available Inodes"),
    ("container_fs_inodes_total", Kind::Gauge, "Number of Inodes"),
    (
        "container_fs_limit_bytes",
        Kind::Gauge,
        "Number of bytes that can be consumed by the container on this filesystem.",
    ),
    ("container_fs_reads_bytes_total", Kind::Counter, "Cumulative count of bytes read"),
    ("container_fs_reads_total", Kind::Counter, "Cumulative count of reads completed"),
    ("container_fs_usage_bytes", Kind::Gauge, "Number of bytes that are consumed by the container on this filesystem."),
    ("container_fs_writes_bytes_total", Kind::Counter, "Cumulative count of bytes written"),
    ("container_fs_writes_total", Kind::Counter, "Cumulative count of writes completed"),
    ("container_last_seen", Kind::Gauge, "Last time a container was seen by the exporter"),
    ("container_memory_cache", Kind::Gauge, "Number of bytes of page cache memory."),
    ("container_memory_failcnt", Kind::Counter, "Number of memory usage hits limits"),
    ("container_memory_failures_total", Kind::Counter, "Cumulative count of memory allocation failures."),
    ("container_memory_mapped_file", Kind::Gauge, "Size of memory mapped files in bytes."),
    ("container_memory_max_usage_bytes", Kind::Gauge, "Maximum memory usage recorded in bytes"),
    ("container_memory_rss", Kind::Gauge, "Size of RSS in bytes."),
    ("container_memory_swap", Kind::Gauge, "Container swap usage in bytes."),
    ("container_memory_total_active_file_bytes", Kind::Gauge, "Current total active file in bytes."),
    ("container_memory_total_inactive_file_bytes", Kind::Gauge, "Current total inactive file in bytes."),
    (
        "container_memory_usage_bytes",
        Kind::Gauge,
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
    ),
    ("container_memory_working_set_bytes", Kind::Gauge, "Current working set in bytes."),
    ("container_network_receive_bytes_total", Kind::Counter, "Cumulative count of bytes received"),
    ("container_network_receive_errors_total", Kind::Counter, "Cumulative count of errors encountered while receiving"),
    (
        "container_network_receive_packets_dropped_total",
        Kind::Counter,
        "Cumulative count of packets dropped while receiving",
    ),
    ("container_network_receive_packets_total", Kind::Counter, "Cumulative count of packets received"),
    ("container_network_transmit_bytes_total", Kind::Counter, "Cumulative count of bytes transmitted"),
    (
        "container_network_transmit_errors_total",
        Kind::Counter,
        "Cumulative count of errors encountered while transmitting",
    ),
    (
        "container_network_transmit_packets_dropped_total",
        Kind::Counter,
        "Cumulative count of packets dropped while transmitting",
    ),
    ("container_network_transmit_packets_total", Kind::Counter, "Cumulative count of packets transmitted"),
    ("container_oom_events_total", Kind::Counter, "Count of out of memory events observed for the container"),
    (
        "container_pressure_cpu_stalled_seconds_total",
        Kind::Counter,
        "Total time duration no tasks in the container could make progress due to CPU congestion.",
    ),
    (
        "container_pressure_cpu_waiting_seconds_total",
        Kind::Counter,
        "Total time duration tasks in the container have waited due to CPU congestion.",
    ),
    (
        "container_pressure_io_stalled_seconds_total",
        Kind::Counter,
        "Total time duration no tasks in the container could make progress due to IO congestion.",
    ),
    (
        "container_pressure_io_waiting_seconds_total",
        Kind::Counter,
        "Total time duration tasks in the container have waited due to IO congestion.",
    ),
    (
        "container_pressure_memory_stalled_seconds_total",
        Kind::Counter,
        "Total time duration no tasks in the container could make progress due to memory congestion.",
    ),
    (
        "container_pressure_memory_waiting_seconds_total",
        Kind::Counter,
        "Total time duration tasks in the container have waited due to memory congestion.",
    ),
    ("container_processes", Kind::Gauge, "Number of processes running inside the container."),
    ("container_scrape_error", Kind::Gauge, "1 if there was an error while getting container metrics, 0 otherwise"),
    ("container_spec_cpu_period", Kind::Gauge, "CPU period of the container."),
    ("container_spec_cpu_quota", Kind::Gauge, "CPU quota of the container."),
    ("container_spec_cpu_shares", Kind::Gauge, "CPU share of the container."),
    ("container_spec_memory_limit_bytes", Kind::Gauge, "Memory limit for the container."),
    ("container_spec_memory_swap_limit_bytes", Kind::Gauge, "Memory swap limit for the container."),
    ("container_start_time_seconds", Kind::Gauge, "Start time of the container since unix epoch in seconds."),
    ("container_threads", Kind::Gauge, "Number of threads running inside the container"),
    (
        "container_threads_max",
        Kind::Gauge,
        "Maximum number of threads allowed inside the container, infinity if value is zero",
    ),
    ("machine_cpu_cores", Kind::Gauge, "Number of logical CPU cores."),
    ("machine_cpu_physical_cores", Kind::Gauge, "Number of physical CPU cores."),
    ("machine_cpu_sockets", Kind::Gauge, "Number of CPU sockets."),
    ("machine_memory_bytes", Kind::Gauge, "Amount of memory installed on the machine."),
    ("machine_scrape_error", Kind::Gauge, "1 if there was an error while getting machine metrics, 0 otherwise."),
    ("machine_swap_bytes", Kind::Gauge, "Amount of swap memory available on the machine."),
];

/// What the samples of one group are labelled with.
#[derive(Clone, Copy, Default)]
struct Labels<'a> {
    container: &'a str,
    id: &'a str,
    image: &'a str,
    name: &'a str,
    namespace: &'a str,
    pod: &'a str,
}

impl<'a> Labels<'a> {
    /// In the order of their names, with one more.
    fn with(&self, key: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
        let mut all = self.all().to_vec();
        let at = all.iter().position(|(name, _)| *name > key).unwrap_or(all.len());
        all.insert(at, (key, value));
        all
    }

    fn all(&self) -> [(&'a str, &'a str); 6] {
        [
            ("container", self.container),
            ("id", self.id),
            ("image", self.image),
            ("name", self.name),
            ("namespace", self.namespace),
            ("pod", self.pod),
        ]
    }
}

pub async fn render(cx: &NodeContext) -> String {
    let mut figures = Figures::default();
    for (name, kind, help) in FAMILIES {
        figures.family(name, *kind, help);
    }
    machine(&mut figures);
    let usage = cx.runtime.usage().await;
    figures.put("container_scrape_error", &[], if usage.is_ok() { 0.0 } else { 1.0 }, None);
    let usage: HashMap<String, Usage> =
        usage.unwrap_or_default().into_iter().map(|u| (u.container_id.clone(), u)).collect();
    for id in ["/", "/kubepods", "/kubepods/burstable", "/kubepods/besteffort"] {
        if let Some(found) = groups::read(&cx.cgroups, id) {
            group(&mut figures, Labels { id, ..Labels::default() }, &found, id == "/");
        }
    }
    root_disk(&mut figures);
    for entry in cx.pods.entries() {
        pod(cx, &mut figures, &entry, &usage);
    }
    figures.render()
}

fn pod(cx: &NodeContext, figures: &mut Figures, entry: &PodEntry, usage: &HashMap<String, Usage>) {
    let full = entry.full();
    let Some(parent) = cx.cgroups.parent(&full) else { return };
    let (namespace, pod) = (namespace(&full), name(&full));
    let whole = Labels { id: &parent, namespace, pod, ..Labels::default() };
    if let Some(found) = groups::read(&cx.cgroups, &parent) {
        group(figures, whole, &found, true);
    }
    let mut process = None;
    for (container, id, started) in running(&full) {
        let path = format!("{parent}/{id}");
        let Some(found) = groups::read(&cx.cgroups, &path) else { continue };
        let statuses = [&entry.status.container_statuses, &entry.status.init_container_statuses];
        let status = statuses.into_iter().flatten().flatten().find(|status| status.name == container);
        let image = status.map(|status| status.image.as_str()).unwrap_or_default();
        let labels = Labels { container, id: &path, image, name: id, namespace, pod };
        group(figures, labels, &found, false);
        if let Some(started) = started {
            figures.put(
                "container_start_time_seconds",
                &labels.all(),
                number(started.as_second().unsigned_abs()),
                None,
            );
        }
        if let Some(used) = usage.get(id) {
            figures.put("container_fs_usage_bytes", &labels.with("device", ""), number(used.layer_bytes), None);
        }
        process = process.or(found.processes.first().copied());
    }
    // Pods on the host's network have none of their own.
    let Some(process) = process.filter(|_| !host_network(&full)) else { return };
    let sandbox = entry.sandbox_id.clone().unwrap_or_default();
    let path = format!("{parent}/{sandbox}");
    let labels = Labels { id: &path, image: crate::cri::pause::NAME, name: &sandbox, ..whole };
    for device in network(process) {
        let labels = labels.with("interface", &device.name);
        for (direction, counted) in [("receive", device.received), ("transmit", device.sent)] {
            let [bytes, packets, errors, dropped] = counted;
            for (family, value) in NETWORK
                .iter()
                .filter(|(family, _)| family.contains(direction))
                .map(|(f, n)| (*f, [bytes, packets, errors, dropped][*n]))
            {
                figures.put(family, &labels, number(value), None);
            }
        }
    }
}

/// Families of either direction, and which of its counters they show.
const NETWORK: [(&str, usize); 8] = [
    ("container_network_receive_bytes_total", 0),
    ("container_network_receive_packets_total", 1),
    ("container_network_receive_errors_total", 2),
    ("container_network_receive_packets_dropped_total", 3),
    ("container_network_transmit_bytes_total", 0),
    ("container_network_transmit_packets_total", 1),
    ("container_network_transmit_errors_total", 2),
    ("container_network_transmit_packets_dropped_total", 3),
];

/// `outer` groups hold others: what is said of processes is said of the inner ones.
fn group(figures: &mut Figures, labels: Labels<'_>, g: &Group, outer: bool) {
    let all = labels.all();
    let cpu = labels.with("cpu", "total");
    figures.put("container_cpu_usage_seconds_total", &cpu, seconds(g.cpu_nanoseconds), None);
    if let Some(t) = g.throttling {
        figures.put("container_cpu_cfs_periods_total", &all, number(t.periods), None);
        figures.put("container_cpu_cfs_throttled_periods_total", &all, number(t.throttled), None);
        figures.put("container_cpu_cfs_throttled_seconds_total", &all, seconds(t.nanoseconds), None);
    }
    if let Some(quota) = g.cpu_quota {
        figures.put("container_spec_cpu_quota", &all, number(quota), None);
    }
    let plain = [
        ("container_cpu_user_seconds_total", seconds(g.user_nanoseconds)),
        ("container_cpu_system_seconds_total", seconds(g.system_nanoseconds)),
        ("container_memory_usage_bytes", number(g.memory_bytes)),
        ("container_memory_working_set_bytes", number(g.working_set_bytes)),
        ("container_memory_rss", number(g.rss_bytes)),
        ("container_memory_cache", number(g.cache_bytes)),
        ("container_memory_mapped_file", number(g.mapped_bytes)),
        ("container_memory_swap", number(g.swap_bytes)),
        ("container_memory_max_usage_bytes", number(g.peak_bytes)),
        ("container_memory_failcnt", number(g.limit_hits)),
        ("container_memory_total_active_file_bytes", number(g.active_file_bytes)),
        ("container_memory_total_inactive_file_bytes", number(g.inactive_file_bytes)),
        ("container_oom_events_total", number(g.kills)),
        ("container_spec_cpu_period", number(g.cpu_period)),
        ("container_spec_cpu_shares", number(g.cpu_shares)),
        ("container_spec_memory_limit_bytes", number(g.memory_limit.unwrap_or(0))),
        ("container_spec_memory_swap_limit_bytes", number(g.swap_limit.unwrap_or(0))),
        ("container_last_seen", number(clock::now().as_second().unsigned_abs())),
    ];
    for (family, value) in plain {
        figures.put(family, &all, value, None);
    }
    if !outer {
        figures.put("container_processes", &all, number(g.processes.len() as u64), None);
        figures.put("container_threads", &all, number(g.threads), None);
        figures.put("container_threads_max", &all, number(g.threads_max.unwrap_or(0)), None);
    }
    for (kind, count) in [("pgfault", g.faults), ("pgmajfault", g.major_faults)] {
        // "failure_type" and "scope" stand where the order of names has them.
        let labels = [all[0], ("failure_type", kind), all[1], all[2], all[3], all[4], all[5], ("scope", "container")];
        figures.put("container_memory_failures_total", &labels, number(count), None);
    }
    for (number_of_device, device) in &g.devices {
        let name = device_name(number_of_device);
        let labels = labels.with("device", &name);
        figures.put("container_fs_reads_bytes_total", &labels, number(device.read_bytes), None);
        figures.put("container_fs_writes_bytes_total", &labels, number(device.written_bytes), None);
        figures.put("container_fs_reads_total", &labels, number(device.reads), None);
        figures.put("container_fs_writes_total", &labels, number(device.writes), None);
    }
    for (resource, (some, full)) in &g.pressure {
        let names = match *resource {
            "cpu" => ["container_pressure_cpu_waiting_seconds_total", "container_pressure_cpu_stalled_seconds_total"],
            "memory" => {
                ["container_pressure_memory_waiting_seconds_total", "container_pressure_memory_stalled_seconds_total"]
            }
            _ => ["container_pressure_io_waiting_seconds_total", "container_pressure_io_stalled_seconds_total"],
        };
        for (name, microseconds) in names.into_iter().zip([some, full]) {
            figures.put(name, &all, number(*microseconds) / 1e6, None);
        }
    }
}

/// `8:0` → `/dev/sda`
fn device_name(number: &str) -> String {
    let link = std::fs::read_link(format!("/sys/dev/block/{number}")).unwrap_or_default();
    link.file_name().map_or_else(|| number.to_owned(), |name| format!("/dev/{}", name.to_string_lossy()))
}

/// The root file system, and the device that it is on.
fn root_disk(figures: &mut Figures) {
    let Ok(disk) = statvfs("/") else { return };
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let device = mounts.lines().filter_map(|line| line.split_once(' ')).find(|(_, rest)| rest.starts_with("/ "));
    let device = device.map_or("", |(device, _)| device);
    let labels = Labels { id: "/", ..Labels::default() };
    let labels = labels.with("device", device);
    let size = disk.fragment_size();
    let bytes = |blocks: u64| number(blocks.saturating_mul(size));
    figures.put("container_fs_limit_bytes", &labels, bytes(disk.blocks()), None);
    figures.put("container_fs_usage_bytes", &labels, bytes(disk.blocks().saturating_sub(disk.blocks_free())), None);
    figures.put("container_fs_inodes_total", &labels, number(disk.files()), None);
    figures.put("container_fs_inodes_free", &labels, number(disk.files_free()), None);
}

fn machine(figures: &mut Figures) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (info, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let cores = info.lines().filter(|line| line.starts_with("processor")).count() as u64;
    let values = |name: &str| info.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
    let (sockets, ids) = (values("physical id"), values("core id"));
    let physical: BTreeSet<_> = sockets.iter().zip(&ids).collect();
    let packages: BTreeSet<_> = sockets.iter().collect();
    let kilobytes = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    // Boards without these lines have one socket, and no two threads share a core.
    let or = |found: usize, other: u64| if found == 0 { other } else { found as u64 };
    figures.put("machine_cpu_cores", &[], number(cores), None);
    figures.put("machine_cpu_physical_cores", &[], number(or(physical.len(), cores)), None);
    figures.put("machine_cpu_sockets", &[], number(or(packages.len(), 1)), None);
    figures.put("machine_memory_bytes", &[], number(kilobytes("MemTotal")), None);
    figures.put("machine_swap_bytes", &[], number(kilobytes("SwapTotal")), None);
    figures.put("machine_scrape_error", &[], 0.0, None);
    let kernel = read("/proc/sys/kernel/osrelease");
    let version = version::git_version();
    let labels = [("cadvisorVersion", version.as_str()), ("kernelVersion", kernel.trim())];
    figures.put("cadvisor_version_info", &labels, 1.0, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_the_labels_that_dashboards_ask_for() {
        let mut figures = Figures::default();
        for (name, kind, help) in FAMILIES {
            figures.family(name, *kind, help);
        }
        let labels =
            Labels { container: "c", id: "/kubepods/podu/x", image: "i:1", name: "x", namespace: "n", pod: "p" };
        let found = Group { cpu_nanoseconds: 1_500_000_000, working_set_bytes: 7, faults: 3, ..Group::default() };
        group(&mut figures, labels, &found, false);
        let text = figures.render();
        for line in [
            "container_cpu_usage_seconds_total{container=\"c\",cpu=\"total\",id=\"/kubepods/podu/x\",image=\"i:1\",name=\"x\",namespace=\"n\",pod=\"p\"} 1.5\n",
            "container_memory_working_set_bytes{container=\"c\",id=\"/kubepods/podu/x\",image=\"i:1\",name=\"x\",namespace=\"n\",pod=\"p\"} 7\n",
            "container_memory_failures_total{container=\"c\",failure_type=\"pgfault\",id=\"/kubepods/podu/x\",image=\"i:1\",name=\"x\",namespace=\"n\",pod=\"p\",scope=\"container\"} 3\n",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
        assert!(!text.contains("container_cpu_cfs_periods_total{"), "no quota, no throttling");
    }

    #[test]
    fn every_family_is_named_once_and_in_order() {
        let names: Vec<&str> = FAMILIES.iter().map(|(name, _, _)| *name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
        assert!(NETWORK.iter().all(|(name, _)| names.contains(name)));
    }
}
