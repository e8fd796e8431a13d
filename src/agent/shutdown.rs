//! Decides and effects: the machine goes down, and its pods go before it: those of low priority first, each group with
//! its part of `shutdown-grace-period`. Without that setting pods end with the machine, as with the kubelet.
//!
//! The kubelet asks logind to wait for it; skiff is told to stop while the machine goes down, and takes its time then: the
//! service manager is told how long ([`crate::systemd::stopping`]). A stop for another reason leaves all pods running.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;

use super::context::NodeContext;
use super::events::Kind as EventKind;
use super::pod::admit::Refusal;
use super::pod::ending::Ending;
use super::pod::{is_final, pod_spec, spec, uid};
use crate::config::kubelet::Kubelet;

/// From here on pods go last (`scheduling.SystemCriticalPriority`).
const SYSTEM_CRITICAL: i32 = 2_000_000_000;
/// What the service manager is given to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// The API is given to take what became of the pods. It may be gone, and no pod waits for this.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// There while OpenRC stops everything.
const OPENRC_STOPPING: &str = "/run/openrc/rc.stopping";

/// What a pod is told that comes while the node goes down.
#[must_use]
pub fn not_admitted() -> Refusal {
    Refusal { reason: "NodeShutdown", message: "Pod was rejected as the node is shutting down.".to_owned() }
}

/// Pods that end together, and what they get for it.
#[derive(Debug, PartialEq)]
struct Group<'a> {
    pods: Vec<&'a Pod>,
    grace: Duration,
}

/// Whether the machine is on its way down, as its service manager says.
pub async fn machine_goes_down() -> bool {
    if Path::new(OPENRC_STOPPING).exists() {
        return true;
    }
    if !Path::new("/run/systemd/system").exists() {
        return false;
    }
    let asked = tokio::process::Command::new("systemctl").arg("is-system-running").output();
    match tokio::time::timeout(ANSWER, asked).await {
        // It exits with an error when the answer is anything but "running".
        Ok(Ok(output)) => output.stdout.starts_with(b"stopping"),
        _ => false,
    }
}

/// Ends all pods.
pub async fn run(cx: &Arc<NodeContext>) {
    tracing::info!("the machine goes down: pods end first");
    let node = &cx.config.node_name;
    cx.events.node(node, EventKind::Normal, "NodeShutdown", "Shutdown manager detected shutdown event");
    cx.going_down.send_replace(true);
    let mut entries = cx.pods.entries();
    entries.retain(|entry| !is_final(&entry.status));
    for group in groups(entries.iter().map(|entry| &*entry.pod), &cx.config.kubelet) {
        for pod in &group.pods {
            let asked = Duration::from_secs(u64::try_from(spec::grace_seconds(pod)).unwrap_or(0));
            let ending = Ending {
                reason: "Terminated",
                message: "Pod was terminated in response to imminent node shutdown.".into(),
                grace: asked.min(group.grace),
                disruption: true,
            };
            cx.pods.end(uid(pod), ending);
        }
        let all_ended = join_all(group.pods.iter().map(|pod| cx.pods.ended(uid(pod))));
        if tokio::time::timeout(group.grace, all_ended).await.is_err() {
            tracing::warn!(grace = ?group.grace, "some pods did not end in time");
        }
    }
    // Nobody could tell it after the agent has stopped: at the next start the pods would be taken to go on.
    let told = join_all(entries.iter().map(|entry| cx.pods.told_of_end(uid(&entry.pod))));
    if tokio::time::timeout(LAST_WORDS, told).await.is_err() {
        tracing::warn!("the API was not told of the end of all pods");
    }
}

/// From which priority on pods have how long; the lowest go first.
fn steps(kubelet: &Kubelet) -> Vec<(i32, Duration)> {
    if !kubelet.host.shutdown.is_empty() {
        return kubelet.host.shutdown.clone();
    }
    let last = kubelet.shutdown_grace_critical;
    vec![(0, kubelet.shutdown_grace.saturating_sub(last)), (SYSTEM_CRITICAL, last)]
}

/// Each pod in the highest step that it reaches, or the first. A group of no pods takes no time.
fn groups<'a>(pods: impl Iterator<Item = &'a Pod>, kubelet: &Kubelet) -> Vec<Group<'a>> {
    let steps = steps(kubelet);
    let mut all: Vec<Group> = steps.iter().map(|(_, grace)| Group { pods: Vec::new(), grace: *grace }).collect();
    for pod in pods {
        let priority = pod_spec(pod).priority.unwrap_or(0);
        let above = steps.partition_point(|(from, _)| *from <= priority);
        if let Some(group) = all.get_mut(above.saturating_sub(1)) {
            group.pods.push(pod);
        }
    }
    all.into_iter().filter(|group| !group.pods.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::agent::tests::Node;
    use crate::config::kubelet::host::Host;

    #[test]
    fn critical_pods_go_last_with_their_part_of_the_time() {
        let pod = |priority: i32| -> Pod {
            serde_json::from_value(json!({"spec": {"priority": priority, "containers": []}})).expect("valid")
        };
        let kubelet = Kubelet {
            shutdown_grace: Duration::from_secs(30),
            shutdown_grace_critical: Duration::from_secs(10),
            ..Kubelet::default()
        };
        let (low, high, critical) = (pod(-5), pod(1_000_000), pod(2_000_001_000));
        let expect = [
            Group { pods: vec![&high, &low], grace: Duration::from_secs(20) },
            Group { pods: vec![&critical], grace: Duration::from_secs(10) },
        ];
        assert_eq!(groups([&high, &critical, &low].into_iter(), &kubelet), expect);
        assert_eq!(groups([&critical].into_iter(), &kubelet), expect[1..]);
        let steps = [(10, 5), (1_000_000, 7)].map(|(priority, grace)| (priority, Duration::from_secs(grace)));
        let host = Host { shutdown: steps.to_vec(), ..Host::default() };
        let kubelet = Kubelet { host, ..Kubelet::default() };
        let expect = [
            Group { pods: vec![&low], grace: Duration::from_secs(5) },
            Group { pods: vec![&high, &critical], grace: Duration::from_secs(7) },
        ];
        assert_eq!(groups([&high, &critical, &low].into_iter(), &kubelet), expect);
    }

    #[tokio::test]
    async fn pods_end_before_the_machine_and_none_is_taken_any_more() {
        let mut node = Node::new();
        node.settings.shutdown_grace = Duration::from_secs(30);
        let path = |name: &str| format!("/api/v1/namespaces/ns/pods/{name}");
        let pod = |name: &str| {
            json!({"apiVersion": "v1", "kind": "Pod", "status": {"phase": "Pending"},
                "metadata": {"name": name, "namespace": "ns", "uid": name},
                "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "busybox:1"}]}})
        };
        let cx = node.start();
        node.api.put(&path("p"), pod("p"));
        let in_phase =
            |name: &str, phase: &str| node.api.get(&path(name)).filter(|pod| pod["status"]["phase"] == phase);
        node.until("it runs", || in_phase("p", "Running")).await;
        run(&cx).await;
        // Told by then: the agent stops next.
        let status = in_phase("p", "Failed").expect("told")["status"].clone();
        assert_eq!(status["reason"], "Terminated");
        assert_eq!(status["message"], "Pod was terminated in response to imminent node shutdown.");
        node.api.put(&path("late"), pod("late"));
        let late = node.until("it is refused", || in_phase("late", "Failed")).await;
        assert_eq!(late["status"]["reason"], "NodeShutdown");
        let is_told = |node: &serde_json::Value| {
            let all = node["status"]["conditions"].as_array();
            all.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["message"] == "node is shutting down"))
        };
        node.until("the node says so", || node.api.get("/api/v1/nodes/n1").filter(is_told)).await;
        node.halt().await;
    }
}
