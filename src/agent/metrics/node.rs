//! Effects: `/metrics`: this agent and the pods in its care (`pkg/kubelet/metrics`), as far as they can be seen from what
//! is there. The process's own figures are named as client libraries name them.

use super::figures::{Figures, Kind, number};
use super::volumes;
use crate::agent::context::NodeContext;
use crate::api::version;
use crate::cri::State;

/// Pages are as large as the kernel says; nearly always this.
const PAGE: u64 = 4096;

pub async fn render(cx: &NodeContext) -> String {
    let mut figures = Figures::default();
    let entries = cx.pods.entries();
    figures.family("kubelet_node_name", Kind::Gauge, "The node's name. The count is always 1.");
    figures.put("kubelet_node_name", &[("node", &cx.config.node_name)], 1.0, None);
    figures.family("kubelet_running_pods", Kind::Gauge, "Number of pods that have a running pod sandbox.");
    let running = entries.iter().filter(|entry| entry.sandbox_id.is_some()).count();
    figures.put("kubelet_running_pods", &[], number(running as u64), None);
    figures.family("kubelet_desired_pods", Kind::Gauge, "Number of pods that this node is meant to run.");
    figures.put("kubelet_desired_pods", &[("static", "")], number(entries.len() as u64), None);
    figures.family("kubelet_running_containers", Kind::Gauge, "Number of containers, by state.");
    let states = [
        (State::Created, "created"),
        (State::Running, "running"),
        (State::Exited, "exited"),
        (State::Unknown, "unknown"),
    ];
    for (state, name) in states {
        let count = entries.iter().flat_map(|entry| &entry.containers).filter(|c| c.state == state).count();
        figures.put("kubelet_running_containers", &[("container_state", name)], number(count as u64), None);
    }
    figures.family("kubernetes_build_info", Kind::Gauge, "The version that this is, with a constant value of 1.");
    let git = version::git_version();
    let labels = [
        ("build_date", version::DATE),
        ("git_commit", version::COMMIT),
        ("git_tree_state", version::TREE_STATE),
        ("git_version", &git),
        ("major", "1"),
        ("minor", "36"),
    ];
    figures.put("kubernetes_build_info", &labels, 1.0, None);
    let name = "kubelet_preemptions";
    figures.family(name, Kind::Counter, "Cumulative number of pod preemptions by preemption resource");
    for (resource, count) in cx.preemptions.by_resource() {
        figures.put(name, &[("preemption_signal", &resource)], number(count), None);
    }
    placement(cx, &mut figures);
    volumes::render(&mut figures, &entries, &cx.volume_figures.measure(cx, &entries).await);
    process(&mut figures);
    figures.render()
}

/// Only of a node with the policies that are counted.
fn placement(cx: &NodeContext, figures: &mut Figures) {
    let mut all = Vec::new();
    if let Some(counts) = cx.exclusive.counts() {
        let (shared, exclusive) = (counts.shared_milli as u64, counts.exclusive as u64);
        all.extend([
            (
                "kubelet_cpu_manager_pinning_requests_total",
                Kind::Counter,
                "The number of cpu core allocations which required pinning.",
                counts.requests,
            ),
            (
                "kubelet_cpu_manager_pinning_errors_total",
                Kind::Counter,
                "The number of cpu core allocations which required pinning failed.",
                counts.errors,
            ),
            (
                "kubelet_cpu_manager_shared_pool_size_millicores",
                Kind::Gauge,
                "The size of the shared CPU pool for non-guaranteed QoS pods, in millicores.",
                shared,
            ),
            (
                "kubelet_cpu_manager_exclusive_cpu_allocation_count",
                Kind::Gauge,
                "The total number of CPUs exclusively allocated to containers running on this node",
                exclusive,
            ),
        ]);
    }
    if let Some((requests, errors)) = cx.aligner.counts() {
        all.extend([
            (
                "kubelet_topology_manager_admission_requests_total",
                Kind::Counter,
                "The number of admission requests where resources have to be aligned.",
                requests,
            ),
            (
                "kubelet_topology_manager_admission_errors_total",
                Kind::Counter,
                "The number of admission request failures where resources could not be aligned.",
                errors,
            ),
        ]);
    }
    for (name, kind, help, value) in all {
        figures.family(name, kind, help);
        figures.put(name, &[], number(value), None);
    }
    aligned(cx, figures);
}

/// What had to lie together, and does: in one core or cache, by the CPUs' policy, or in one NUMA node, by the other.
fn aligned(cx: &NodeContext, figures: &mut Figures) {
    // Caches are a wish: nothing fails for want of one.
    let mut rows: Vec<(&str, &str, u64, Option<u64>)> = Vec::new();
    if let Some(counts) = cx.exclusive.counts() {
        rows.push(("container", "physical_cpu", counts.whole_cores, Some(counts.no_whole_cores)));
        rows.push(("container", "uncore_cache", counts.one_cache, None));
    }
    let of_nodes = cx.aligner.aligned().into_iter().flatten();
    rows.extend(of_nodes.map(|(scope, given, failed)| (scope, "numa_node", given, Some(failed))));
    if rows.is_empty() {
        return;
    }
    let given = "kubelet_container_aligned_compute_resources_count";
    let help = "Cumulative number of aligned compute resources allocated to containers by alignment type.";
    figures.family(given, Kind::Counter, help);
    let failed = "kubelet_container_aligned_compute_resources_failure_count";
    let help = "Cumulative number of failures to allocate aligned compute resources to containers by alignment type.";
    figures.family(failed, Kind::Counter, help);
    for (scope, boundary, count, failures) in rows {
        let labels = [("boundary", boundary), ("scope", scope)];
        figures.put(given, &labels, number(count), None);
        if let Some(failures) = failures {
            figures.put(failed, &labels, number(failures), None);
        }
    }
}

/// Of proc(5), `stat`: fields are counted from 1 there.
fn process(figures: &mut Figures) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name may hold anything, so look behind the last parenthesis: what follows starts with field 3.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let hertz = number(crate::agent::stats::ticks_per_second());
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0);
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
    let (most, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap_or_default();
    let all = [
        (
            "process_cpu_seconds_total",
            Kind::Counter,
            "Total user and system CPU time in seconds.",
            number(field(14) + field(15)) / hertz,
        ),
        ("process_resident_memory_bytes", Kind::Gauge, "Resident memory size in bytes.", number(field(24) * PAGE)),
        ("process_virtual_memory_bytes", Kind::Gauge, "Virtual memory size in bytes.", number(field(23))),
        (
            "process_start_time_seconds",
            Kind::Gauge,
            "Start time of the process since the epoch in seconds.",
            number(boot) + number(field(22)) / hertz,
        ),
        ("process_open_fds", Kind::Gauge, "Number of open file descriptors.", number(files)),
        ("process_max_fds", Kind::Gauge, "Maximum number of open file descriptors.", number(most)),
    ];
    for (name, kind, help, value) in all {
        figures.family(name, kind, help);
        figures.put(name, &[], value, None);
    }
}
