//! Decides: which pod goes first: one that uses more than it asked for, then the one of the lowest priority, then the
//! one that is furthest above its request.

use std::cmp::Reverse;

use k8s_openapi::api::core::v1::Pod;

use super::UsageByPod;
use super::measure::Usage;
use crate::agent::pod::table::PodEntry;
use crate::agent::pod::{pod_spec, uid};
use crate::api::amounts::requests;
use crate::config::eviction::Signal;

/// The first one goes. `dedicated`: images and writable layers have a disk of their own.
#[must_use]
pub fn rank(mut pods: Vec<PodEntry>, usage: &UsageByPod, signal: Signal, dedicated: bool) -> Vec<PodEntry> {
    pods.sort_by_cached_key(|entry| {
        let pod: &Pod = &entry.pod;
        let priority = pod_spec(pod).priority.unwrap_or(0);
        // One of which nothing is known goes before the others.
        let Some(of_pod) = usage.get(uid(pod)) else { return (Reverse(2), priority, Reverse(i64::MAX)) };
        let above = above(pod, of_pod, signal, dedicated);
        let exceeds = u8::from(signal != Signal::PidAvailable && above > 0);
        (Reverse(exceeds), priority, Reverse(above))
    });
    pods
}

/// How much of it the pod uses beyond its request.
fn above(pod: &Pod, usage: &Usage, signal: Signal, dedicated: bool) -> i64 {
    let disk = |images: bool| usage.disk(!dedicated || images, !dedicated || !images);
    match signal {
        Signal::MemoryAvailable | Signal::AllocatableMemoryAvailable => usage.memory_bytes() - request(pod, "memory"),
        Signal::PidAvailable => usage.processes,
        Signal::NodefsAvailable => disk(false).bytes - request(pod, "ephemeral-storage"),
        Signal::ImagefsAvailable => disk(true).bytes - request(pod, "ephemeral-storage"),
        // Nobody can ask for inodes.
        Signal::NodefsInodesFree => disk(false).inodes,
        Signal::ImagefsInodesFree => disk(true).inodes,
    }
}

/// What the pod asks for in bytes: its own words, else those of its containers; its overhead on top.
#[must_use]
pub fn request(pod: &Pod, resource: &str) -> i64 {
    requests(pod_spec(pod)).get(resource)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::agent::eviction::measure::{Disk, OfContainer};

    fn entry(name: &str, priority: i32, request: &str) -> PodEntry {
        let resources = json!({"requests": {"memory": request, "ephemeral-storage": request}});
        let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": name},
            "spec": {"priority": priority, "containers": [{"name": "c", "resources": resources}]}}))
        .expect("valid");
        PodEntry {
            pod: Arc::new(pod),
            status: Arc::default(),
            sandbox_id: None,
            containers: Vec::new(),
            volumes: Arc::default(),
        }
    }

    fn usage(memory_bytes: i64, rootfs: i64, logs: i64, processes: i64) -> Usage {
        let disk = |bytes| Disk { bytes, inodes: bytes };
        let container = OfContainer { memory_bytes, rootfs: disk(rootfs), logs: disk(logs) };
        Usage { containers: [("c".to_owned(), container)].into(), processes, ..Usage::default() }
    }

    fn check(signal: Signal, dedicated: bool, expect: &[&str]) {
        let pods = vec![
            entry("modest", 0, "1000"),
            entry("greedy", 0, "100"),
            entry("greedier", 0, "0"),
            entry("important", 10, "0"),
        ];
        let used: UsageByPod = [
            ("modest", usage(900, 900, 0, 5)),
            ("greedy", usage(300, 300, 0, 9)),
            ("greedier", usage(250, 100, 400, 1)),
            ("important", usage(5000, 5000, 5000, 99)),
        ]
        .into_iter()
        .map(|(name, usage)| (name.to_owned(), usage))
        .collect();
        let ranked = rank(pods, &used, signal, dedicated);
        let names: Vec<&str> = ranked.iter().map(|entry| uid(&entry.pod)).collect();
        assert_eq!(names, expect, "{signal} {dedicated}");
    }

    #[test]
    fn those_above_their_request_go_before_those_of_low_priority_and_the_furthest_above_first() {
        check(Signal::MemoryAvailable, false, &["greedier", "greedy", "important", "modest"]);
        check(Signal::NodefsAvailable, false, &["greedier", "greedy", "important", "modest"]);
        check(Signal::NodefsAvailable, true, &["greedier", "important", "greedy", "modest"]);
        check(Signal::ImagefsAvailable, true, &["greedy", "greedier", "important", "modest"]);
        check(Signal::NodefsInodesFree, false, &["modest", "greedier", "greedy", "important"]);
        check(Signal::PidAvailable, false, &["greedy", "modest", "greedier", "important"]);
    }

    #[test]
    fn a_pod_of_which_nothing_is_known_goes_first() {
        let pods = vec![entry("known", 0, "0"), entry("unknown", 10, "0")];
        let used = UsageByPod::from([("known".to_owned(), usage(5, 5, 5, 5))]);
        let ranked = rank(pods, &used, Signal::MemoryAvailable, false);
        assert_eq!(uid(&ranked[0].pod), "unknown");
    }

    #[test]
    fn requests_of_a_pod() {
        let container = |name: &str, memory: &str, policy: Option<&str>| json!({"name": name, "restartPolicy": policy, "resources": {"requests": {"memory": memory}}});
        let mut spec = json!({"containers": [container("a", "10", None)], "overhead": {"memory": "1"},
            "initContainers": [container("s", "5", Some("Always")), container("i", "20", None)]});
        let pod = |spec: &serde_json::Value| serde_json::from_value(json!({"spec": spec})).expect("valid");
        assert_eq!(request(&pod(&spec), "memory"), 26);
        spec["resources"] = json!({"requests": {"memory": "30"}});
        assert_eq!(request(&pod(&spec), "memory"), 31);
    }
}
