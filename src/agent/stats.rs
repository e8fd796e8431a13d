//! Effects and decides: what containers and the node use, measured when somebody asks: `/stats/summary` of the kubelet
//! (`k8s.io/kubelet/pkg/apis/stats/v1alpha1`).
//!
//! A rate needs two samples. Nothing samples by the clock: the second one is that of the request, the first one that of
//! an earlier request, or, when there was none lately, one of a second ago.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::context::NodeContext;
use super::eviction::signals;
use super::metrics::groups;
use super::metrics::volumes::{self, Answer};
use super::pod::table::PodEntry;
use super::pod::{host_network, namespace};
use super::volumes::Filled;
use crate::clock;
use crate::cri::{Error, Runtime, Usage};

/// An earlier sample is of use up to this age. Whoever asks regularly (the autoscaler does every 15 seconds) waits for
/// nothing.
const OLDEST: Duration = Duration::from_secs(60);
/// An earlier sample is replaced at this age: rates over less time are rough.
const FRESH: Duration = Duration::from_secs(10);
/// The time between two samples when there is no earlier one.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Sample {
    at: Instant,
    node: NodeUsage,
    /// By container id.
    containers: Arc<HashMap<String, Usage>>,
}

/// Counters of the whole machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeUsage {
    pub cpu_nanoseconds: u64,
    pub usage_bytes: u64,
    pub working_set_bytes: u64,
    available_bytes: u64,
    pub swap_bytes: u64,
    swap_available_bytes: u64,
}

/// Counters of a network device: bytes, packets, errors and dropped packets of each direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub name: String,
    pub received: [u64; 4],
    pub sent: [u64; 4],
}

/// What is known of a pod and its containers beside CPU and memory.
#[derive(Clone, Debug, Default)]
struct PodFacts {
    devices: Vec<Device>,
    processes: u64,
    /// Bytes of logs by container.
    logs: HashMap<String, u64>,
    /// As the summary has them.
    volumes: Vec<Value>,
    /// Bytes in those that are on the node's disk and go with the pod.
    ephemeral_bytes: u64,
}

/// Measures on request.
pub struct Sampler {
    runtime: Arc<dyn Runtime>,
    last: Mutex<Option<Sample>>,
}

impl Sampler {
    #[must_use]
    pub fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self { runtime, last: Mutex::default() }
    }

    /// The summary of a node and of its pods as they are now; who wants no more than CPU and memory waits for no disk.
    ///
    /// # Errors
    /// When the runtime does not answer.
    pub(super) async fn summary(
        &self,
        cx: &NodeContext,
        entries: &[PodEntry],
        only_cpu_and_memory: bool,
    ) -> Result<Value, Error> {
        if only_cpu_and_memory {
            let (before, after) = self.measure().await?;
            let pods: Vec<_> = entries.iter().map(|entry| (entry.full(), None)).collect();
            return Ok(render(&cx.config.node_name, &pods, &before, &after, clock::now()));
        }
        let (measured, filled) = tokio::join!(self.measure(), cx.volume_figures.measure(cx, entries));
        let (before, after) = measured?;
        let of = |entry: &PodEntry| (entry.full(), Some(facts(cx, entry).with_volumes(entry, &filled)));
        let pods: Vec<_> = entries.iter().map(of).collect();
        let mut summary = render(&cx.config.node_name, &pods, &before, &after, clock::now());
        let node = &mut summary["node"];
        let time = node["cpu"]["time"].clone();
        let disk = Filled::file_system(&cx.config.data_dir).map_or_else(|_| json!({}), |disk| disk.render(&time));
        node["runtime"] = json!({ "imageFs": disk });
        node["fs"] = disk;
        node["network"] = devices(&network(1), &time);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let tasks = load.split(' ').nth(3).and_then(|t| t.split('/').nth(1)?.parse::<i64>().ok());
        node["rlimit"] = json!({ "time": time, "maxpid": signals::most_tasks(), "curproc": tasks });
        Ok(summary)
    }

    /// Who asks meanwhile waits for the same.
    async fn measure(&self) -> Result<(Sample, Sample), Error> {
        let mut last = self.last.lock().await;
        let now = self.sample().await?;
        match &*last {
            Some(before) if now.at.duration_since(before.at) <= OLDEST && now.at.duration_since(before.at) >= PAUSE => {
                let before = before.clone();
                if now.at.duration_since(before.at) >= FRESH {
                    *last = Some(now.clone());
                }
                Ok((before, now))
            }
            _ => {
                tokio::time::sleep(PAUSE).await;
                let later = self.sample().await?;
                *last = Some(now.clone());
                Ok((now, later))
            }
        }
    }

    async fn sample(&self) -> Result<Sample, Error> {
        let containers = self.runtime.usage().await?;
        let containers = containers.into_iter().map(|u| (u.container_id.clone(), u)).collect();
        Ok(Sample { at: clock::instant(), node: NodeUsage::read(), containers: Arc::new(containers) })
    }
}

/// Of `/proc/stat` (proc(5)): `USER_HZ`.
pub(super) fn ticks_per_second() -> u64 {
    let found = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    found.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(100)
}

impl NodeUsage {
    pub fn read() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/proc/stat"), &read("/proc/meminfo"), ticks_per_second())
    }

    /// CPU time that was not idle. Memory as cAdvisor counts it: neither free nor pages of files that are not in use.
    fn parse(stat: &str, meminfo: &str, ticks_per_second: u64) -> Self {
        let line = stat.lines().find_map(|l| l.strip_prefix("cpu "));
        let fields: Vec<u64> = line.into_iter().flat_map(str::split_whitespace).map_while(|f| f.parse().ok()).collect();
        let of = |index: usize| fields.get(index).copied().unwrap_or(0);
        // user nice system idle iowait irq softirq steal; guests are counted as users already.
        let ticks = of(0) + of(1) + of(2) + of(5) + of(6) + of(7);
        let kilobytes = |name: &str| {
            let line = meminfo.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        let total = kilobytes("MemTotal");
        let free = kilobytes("MemFree");
        let unused = free + kilobytes("Inactive(file)");
        let swap = kilobytes("SwapFree");
        Self {
            cpu_nanoseconds: ticks.saturating_mul(1_000_000_000 / ticks_per_second),
            usage_bytes: total.saturating_sub(free),
            working_set_bytes: total.saturating_sub(unused),
            available_bytes: unused.min(total),
            swap_bytes: kilobytes("SwapTotal").saturating_sub(swap),
            swap_available_bytes: swap,
        }
    }
}

/// Nanoseconds of CPU time in a second.
fn rate(before: u64, after: u64, seconds: f64) -> u64 {
    #[expect(clippy::cast_precision_loss, clippy::cast_sign_loss, clippy::cast_possible_truncation)]
    // A double holds the nanoseconds of a hundred days exactly, and a rate need not be exact.
    let rate = (after.saturating_sub(before) as f64 / seconds) as u64;
    rate
}

fn render(node: &str, pods: &[(Pod, Option<PodFacts>)], before: &Sample, after: &Sample, now: Timestamp) -> Value {
    let seconds = after.at.duration_since(before.at).as_secs_f64().max(0.001);
    let time = seconds_of(now);
    let cpu = |rate: u64, total: u64| json!({ "time": time, "usageNanoCores": rate, "usageCoreNanoSeconds": total });
    let memory = |bytes: u64| json!({ "time": time, "workingSetBytes": bytes });
    let pods: Vec<Value> = pods
        .iter()
        .filter_map(|(pod, facts)| {
            let (mut total, mut all_rates, mut bytes) = (0, 0, 0);
            let mut containers = Vec::new();
            let mut disk = facts.as_ref().map_or(0, |facts| facts.ephemeral_bytes);
            for (name, id, started) in running(pod) {
                // One that came between the two samples has no rate yet.
                let (Some(old), Some(new)) = (before.containers.get(id), after.containers.get(id)) else { continue };
                let own = rate(old.cpu_nanoseconds, new.cpu_nanoseconds, seconds);
                total += new.cpu_nanoseconds;
                all_rates += own;
                bytes += new.memory_bytes;
                let mut container = json!({
                    "name": name, "startTime": started.map(|at| at.to_string()), "cpu": cpu(own, new.cpu_nanoseconds),
                    "memory": memory(new.memory_bytes),
                });
                if let Some(facts) = facts {
                    let logs = facts.logs.get(name).copied().unwrap_or(0);
                    disk += new.layer_bytes + logs;
                    container["rootfs"] =
                        json!({ "time": time, "usedBytes": new.layer_bytes, "inodesUsed": new.layer_inodes });
                    container["logs"] = json!({ "time": time, "usedBytes": logs });
                }
                containers.push(container);
            }
            let meta = &pod.metadata;
            let of = json!({ "name": meta.name, "namespace": meta.namespace, "uid": meta.uid });
            (!containers.is_empty()).then(|| {
                let mut summary = json!({
                    "podRef": of, "containers": containers, "cpu": cpu(all_rates, total), "memory": memory(bytes),
                    "startTime": pod.status.as_ref().and_then(|status| status.start_time.clone()),
                });
                let Some(facts) = facts else { return summary };
                summary["ephemeral-storage"] = json!({ "time": time, "usedBytes": disk });
                summary["process_stats"] = json!({ "process_count": facts.processes });
                if !facts.devices.is_empty() {
                    summary["network"] = devices(&facts.devices, &json!(time));
                }
                if !facts.volumes.is_empty() {
                    summary["volume"] = facts.volumes.clone().into();
                }
                summary
            })
        })
        .collect();
    let own = rate(before.node.cpu_nanoseconds, after.node.cpu_nanoseconds, seconds);
    let mut of_node = memory(after.node.working_set_bytes);
    of_node["availableBytes"] = after.node.available_bytes.into();
    of_node["usageBytes"] = after.node.usage_bytes.into();
    let swap = json!({ "time": time, "swapUsageBytes": after.node.swap_bytes,
        "swapAvailableBytes": after.node.swap_available_bytes });
    json!({
        "node": { "nodeName": node, "cpu": cpu(own, after.node.cpu_nanoseconds), "memory": of_node,
            "swap": swap },
        "pods": pods,
        // Ours: over which time the rates are.
        "windowSeconds": seconds,
    })
}

/// Names, ids and starts of the containers that run.
pub(super) fn running(pod: &Pod) -> impl Iterator<Item = (&str, &str, Option<Timestamp>)> {
    let status = pod.status.iter();
    let all = status.flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses)).flatten();
    all.filter_map(|c| {
        let state = c.state.as_ref()?.running.as_ref()?;
        let id = c.container_id.as_deref()?;
        let started = state.started_at.as_ref().map(|time| time.0);
        Some((c.name.as_str(), id.split_once("://").map_or(id, |(_, id)| id), started))
    })
}

impl PodFacts {
    fn with_volumes(mut self, entry: &PodEntry, found: &HashMap<volumes::Key, Answer>) -> PodFacts {
        for (name, volume) in entry.volumes.iter() {
            let Some(Answer { time, filled }) = found.get(&volumes::key(entry, name)) else { continue };
            let mut told = filled.render(&json!(seconds_of(*time)));
            told["name"] = name.as_str().into();
            if let Some(claim) = &volume.claim {
                told["pvcRef"] = json!({ "name": claim, "namespace": namespace(&entry.pod) });
            }
            self.ephemeral_bytes += if volume.ephemeral { filled.used_bytes } else { 0 };
            self.volumes.push(told);
        }
        self
    }
}

/// As the API writes time.
fn seconds_of(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What the files of the kernel and the logs say of a pod.
fn facts(cx: &NodeContext, entry: &PodEntry) -> PodFacts {
    let mut facts = PodFacts::default();
    let pod = entry.full();
    for container in &entry.containers {
        let size = std::fs::metadata(&container.log_path).map_or(0, |metadata| metadata.len());
        *facts.logs.entry(container.name.clone()).or_default() += size;
    }
    let Some(parent) = cx.cgroups.parent(&pod) else { return facts };
    let mut any = None;
    for (_, id, _) in running(&pod) {
        let group = groups::read(&cx.cgroups, &format!("{parent}/{id}")).unwrap_or_default();
        facts.processes += group.processes.len() as u64;
        any = any.or(group.processes.first().copied());
    }
    if let Some(process) = any.filter(|_| !host_network(&pod)) {
        facts.devices = network(process);
    }
    facts
}

/// The devices of the network that a process is in, without its loopback (proc(5), `/proc/<pid>/net/dev`).
pub(super) fn network(process: i32) -> Vec<Device> {
    parse_network(&std::fs::read_to_string(format!("/proc/{process}/net/dev")).unwrap_or_default())
}

fn parse_network(text: &str) -> Vec<Device> {
    let device = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let fields: Vec<u64> = rest.split_whitespace().map_while(|field| field.parse().ok()).collect();
        let part = |from: usize| fields.get(from..from + 4).and_then(|part| part.try_into().ok());
        Some(Device { name: name.trim().to_owned(), received: part(0)?, sent: part(8)? })
    };
    text.lines().filter_map(device).filter(|device| device.name != "lo").collect()
}

/// The first device is the pod's own, or that of the default route.
fn devices(all: &[Device], time: &Value) -> Value {
    let one = |d: &Device| {
        json!({ "name": d.name, "rxBytes": d.received[0], "rxErrors": d.received[2], "txBytes": d.sent[0],
            "txErrors": d.sent[2] })
    };
    let mut network = all.iter().find(|d| d.name == "eth0").or(all.first()).map_or_else(|| json!({}), one);
    network["time"] = time.clone();
    network["interfaces"] = all.iter().map(one).collect();
    network
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::volumes::{By, Measurable};

    #[test]
    fn the_machine_is_read_as_cadvisor_reads_it() {
        let stat = "cpu  100 20 30 4000 50 6 7 8 9 10\ncpu0 1 2 3 4\n";
        let meminfo = "MemTotal:  1000 kB\nMemFree:  200 kB\nMemAvailable: 700 kB\nInactive(file):   300 kB\n";
        let usage = NodeUsage::parse(stat, meminfo, 100);
        assert_eq!(usage.cpu_nanoseconds, 171 * 10_000_000);
        assert_eq!((usage.working_set_bytes, usage.available_bytes), (500 * 1024, 500 * 1024));
        assert_eq!(NodeUsage::parse("", "", 100), NodeUsage::default());
    }

    #[tokio::test(start_paused = true)]
    async fn rates_are_those_between_two_samples() {
        let container = |id: &str, cpu: u64, memory: u64| {
            let usage =
                Usage { container_id: id.into(), cpu_nanoseconds: cpu, memory_bytes: memory, ..Usage::default() };
            (id.to_owned(), usage)
        };
        let at = clock::instant();
        let sample = |seconds: u64, cpu: u64, all: Vec<(String, Usage)>| Sample {
            at: at + Duration::from_secs(seconds),
            node: NodeUsage {
                cpu_nanoseconds: cpu,
                usage_bytes: 9,
                working_set_bytes: 7,
                available_bytes: 3,
                ..NodeUsage::default()
            },
            containers: Arc::new(all.into_iter().collect()),
        };
        let before = sample(0, 0, vec![container("a", 1_000_000_000, 1)]);
        let after = sample(10, 20_000_000_000, vec![container("a", 6_000_000_000, 4096), container("new", 5, 5)]);
        let status = |id: &str| {
            let state = if id == "old" { json!({}) } else { json!({ "running": {} }) };
            json!({ "name": id, "containerID": format!("containerd://{id}"), "image": "", "imageID": "", "ready": true,
                "restartCount": 0, "state": state })
        };
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "n" },
            "status": { "containerStatuses": [status("a"), status("new"), status("old")] } }))
        .unwrap();
        let idle: Pod = serde_json::from_value(json!({ "metadata": { "name": "q" } })).unwrap();
        let summary = render(
            "n1",
            &[pod, idle].map(|pod| (pod, None)),
            &before,
            &after,
            "2026-01-01T00:00:00.5Z".parse().unwrap(),
        );
        assert_eq!(summary["node"]["cpu"]["usageNanoCores"], 2_000_000_000);
        assert_eq!(
            summary["node"]["memory"],
            json!({ "time": "2026-01-01T00:00:00Z", "workingSetBytes": 7, "availableBytes": 3, "usageBytes": 9 })
        );
        let pods = summary["pods"].as_array().unwrap();
        assert_eq!(pods.len(), 1, "a pod of which nothing is known is left out");
        assert_eq!(pods[0]["containers"].as_array().unwrap().len(), 1);
        assert_eq!(pods[0]["containers"][0]["cpu"]["usageNanoCores"], 500_000_000);
        assert_eq!(
            (&pods[0]["cpu"]["usageCoreNanoSeconds"], &pods[0]["memory"]["workingSetBytes"]),
            (&json!(6_000_000_000_u64), &json!(4096))
        );
        assert_eq!(summary["windowSeconds"], 10.0);
        assert_eq!((&pods[0]["ephemeral-storage"], &pods[0]["volume"]), (&Value::Null, &Value::Null), "not asked for");
    }

    #[test]
    fn volumes_are_told_with_their_claims_and_count_as_what_the_pod_keeps() {
        let time: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let volume = |claim: Option<&str>, ephemeral| Measurable {
            path: "/v".into(),
            by: By::Files,
            claim: claim.map(str::to_owned),
            ephemeral,
        };
        let all = [("data", volume(Some("c"), false)), ("own", volume(None, true)), ("new", volume(None, true))];
        let entry = PodEntry {
            pod: Arc::new(serde_json::from_value(json!({ "metadata": { "uid": "u", "namespace": "n" } })).unwrap()),
            status: Arc::default(),
            sandbox_id: None,
            containers: Vec::new(),
            volumes: Arc::new(all.map(|(name, volume)| (name.to_owned(), volume)).into()),
        };
        let filled = Filled { used_bytes: 5, inodes: 7, ..Filled::default() };
        let found = ["data", "own"].map(|name| (volumes::key(&entry, name), Answer { time, filled })).into();
        let facts = PodFacts::default().with_volumes(&entry, &found);
        assert_eq!((facts.volumes.len(), facts.ephemeral_bytes), (2, 5), "one was not measured yet");
        let expect = json!({ "name": "data", "pvcRef": { "name": "c", "namespace": "n" }, "time": "2026-01-01T00:00:00Z",
            "availableBytes": 0, "capacityBytes": 0, "usedBytes": 5, "inodes": 7, "inodesFree": 0, "inodesUsed": 0 });
        assert_eq!(facts.volumes[0], expect);
        assert!(facts.volumes[1].get("pvcRef").is_none());
    }

    #[test]
    fn network_devices_are_read() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop\n    \
                    lo:     1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 100 2 3 4 0 0 0 0 500 6 7 8 0 0 0 0\n";
        let device = Device { name: "eth0".into(), received: [100, 2, 3, 4], sent: [500, 6, 7, 8] };
        assert_eq!(parse_network(text), [device]);
    }
}
