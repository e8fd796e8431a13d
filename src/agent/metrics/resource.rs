//! Effects: `/metrics/resource`: CPU time and memory of the node, its pods and their containers
//! (`pkg/kubelet/metrics/collectors/resource_metrics.go`).

use std::collections::HashMap;

use super::figures::{Figures, Kind, number, seconds};
use super::groups;
use crate::agent::context::NodeContext;
use crate::agent::pod::{name, namespace};
use crate::agent::stats::{NodeUsage, running};
use crate::clock;
use crate::cri::Usage;

const FAMILIES: [(&str, Kind, &str); 11] = [
    ("node_cpu_usage_seconds_total", Kind::Counter, "Cumulative cpu time consumed by the node in core-seconds"),
    ("node_memory_working_set_bytes", Kind::Gauge, "Current working set of the node in bytes"),
    (
        "node_swap_usage_bytes",
        Kind::Gauge,
        "Current swap usage of the node in bytes. Reported only on non-windows systems",
    ),
    (
        "container_cpu_usage_seconds_total",
        Kind::Counter,
        "Cumulative cpu time consumed by the container in core-seconds",
    ),
    ("container_memory_working_set_bytes", Kind::Gauge, "Current working set of the container in bytes"),
    (
        "container_swap_usage_bytes",
        Kind::Gauge,
        "Current amount of the container swap usage in bytes. Reported only on non-windows systems",
    ),
    ("container_start_time_seconds", Kind::Gauge, "Start time of the container since unix epoch in seconds"),
    ("pod_cpu_usage_seconds_total", Kind::Counter, "Cumulative cpu time consumed by the pod in core-seconds"),
    ("pod_memory_working_set_bytes", Kind::Gauge, "Current working set of the pod in bytes"),
    (
        "pod_swap_usage_bytes",
        Kind::Gauge,
        "Current amount of the pod swap usage in bytes. Reported only on non-windows systems",
    ),
    ("resource_scrape_error", Kind::Gauge, "1 if there was an error while getting container metrics, 0 otherwise"),
];

pub async fn render(cx: &NodeContext) -> String {
    let mut figures = Figures::default();
    for (name, kind, help) in FAMILIES {
        figures.family(name, kind, help);
    }
    let usage = cx.runtime.usage().await;
    figures.put("resource_scrape_error", &[], if usage.is_ok() { 0.0 } else { 1.0 }, None);
    let at = Some(clock::now().as_millisecond());
    let node = NodeUsage::read();
    figures.put("node_cpu_usage_seconds_total", &[], seconds(node.cpu_nanoseconds), at);
    figures.put("node_memory_working_set_bytes", &[], number(node.working_set_bytes), at);
    figures.put("node_swap_usage_bytes", &[], number(node.swap_bytes), at);
    let usage: HashMap<String, Usage> =
        usage.unwrap_or_default().into_iter().map(|u| (u.container_id.clone(), u)).collect();
    for entry in cx.pods.entries() {
        let full = entry.full();
        let of_pod = [("namespace", namespace(&full)), ("pod", name(&full))];
        let (mut cpu, mut memory, mut swap, mut any) = (0, 0, 0, false);
        for (container, id, started) in running(&full) {
            let Some(used) = usage.get(id) else { continue };
            let group = cx.cgroups.parent(&full).and_then(|g| groups::read(&cx.cgroups, &format!("{g}/{id}")));
            let swapped = group.map_or(0, |group| group.swap_bytes);
            let labels = [("container", container), of_pod[0], of_pod[1]];
            figures.put("container_cpu_usage_seconds_total", &labels, seconds(used.cpu_nanoseconds), at);
            figures.put("container_memory_working_set_bytes", &labels, number(used.memory_bytes), at);
            figures.put("container_swap_usage_bytes", &labels, number(swapped), at);
            if let Some(started) = started {
                figures.put("container_start_time_seconds", &labels, started.as_millisecond() as f64 / 1000.0, None);
            }
            cpu += used.cpu_nanoseconds;
            memory += used.memory_bytes;
            swap += swapped;
            any = true;
        }
        if any {
            figures.put("pod_cpu_usage_seconds_total", &of_pod, seconds(cpu), at);
            figures.put("pod_memory_working_set_bytes", &of_pod, number(memory), at);
            figures.put("pod_swap_usage_bytes", &of_pod, number(swap), at);
        }
    }
    figures.render()
}
