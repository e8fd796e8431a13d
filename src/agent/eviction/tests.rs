//! Tests: stories of a node that runs short, with a runtime, an API and gauges in memory.

use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::signals::{Gauges, Observation, Signals};
use crate::agent::tests::Node;
use crate::config::eviction::Signal;
use crate::cri::{Images as _, Usage};

const FULL: i64 = 4000 << 20;

/// Gauges that show what they are told; nothing, until then.
#[derive(Default)]
pub struct FakeGauges {
    signals: Mutex<Signals>,
    /// Shown once.
    dip: Mutex<Option<(Signal, Observation)>>,
    pressed: Notify,
}

impl FakeGauges {
    /// So little is left for one look: whatever is done about it is enough.
    fn dip(&self, signal: Signal, mebibytes: i64) {
        let seen = Observation { available: mebibytes << 20, capacity: FULL };
        *self.dip.lock().expect("no panic while held") = Some((signal, seen));
        self.pressed.notify_one();
    }

    /// Of 4000 MiB so many are left.
    fn set(&self, signal: Signal, mebibytes: i64) {
        let seen = Observation { available: mebibytes << 20, capacity: FULL };
        self.signals.lock().expect("no panic while held").insert(signal, seen);
        self.pressed.notify_one();
    }
}

#[async_trait]
impl Gauges for FakeGauges {
    fn read(&self, _: Option<&Path>) -> Signals {
        let mut signals = self.signals.lock().expect("no panic while held").clone();
        signals.extend(self.dip.lock().expect("no panic while held").take());
        signals
    }

    fn has_imagefs(&self, _: &Path) -> bool {
        false
    }

    fn imagefs(&self, _: &Path) -> Option<Observation> {
        self.read(None).get(&Signal::ImagefsAvailable).copied()
    }

    async fn pressed(&self) {
        self.pressed.notified().await;
    }
}

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/ns/pods/{name}")
}

fn pod(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    (spec["nodeName"], spec["restartPolicy"]) = (json!("n1"), json!("Always"));
    spec["terminationGracePeriodSeconds"] = json!(30);
    json!({"apiVersion": "v1", "kind": "Pod", "spec": spec, "status": {"phase": "Pending"},
        "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": 1}})
}

fn container() -> Value {
    json!({"name": "web", "image": "busybox:1", "imagePullPolicy": "IfNotPresent"})
}

fn story() -> (Node, Arc<FakeGauges>) {
    let mut node = Node::new();
    let gauges = Arc::new(FakeGauges::default());
    node.gauges = gauges.clone();
    for signal in Signal::ALL {
        gauges.set(signal, 900);
    }
    (node, gauges)
}

async fn is_running(node: &Node, name: &str) {
    let running = || node.api.get(&path(name)).filter(|pod| pod["status"]["phase"] == "Running");
    node.until("it runs", running).await;
}

async fn condition(node: &Node, kind: &str, status: &str) {
    let has = |object: &Value| {
        let all = object["status"]["conditions"].as_array();
        all.is_some_and(|all| all.iter().any(|c| c["type"] == kind && c["status"] == status))
    };
    node.until(kind, || node.api.get("/api/v1/nodes/n1").filter(has)).await;
}

async fn event(node: &Node, text: &str) {
    node.until(text, || node.api.events().iter().any(|event| event == text).then_some(())).await;
}

#[tokio::test]
async fn when_memory_is_short_the_pod_that_takes_most_goes_and_no_other() {
    let (mut node, gauges) = story();
    node.start();
    for name in ["small", "big"] {
        node.api.put(&path(name), pod(name, json!({"containers": [container()]})));
        is_running(&node, name).await;
    }
    condition(&node, "MemoryPressure", "False").await;
    let used = |bytes: u64| Usage { memory_bytes: bytes, ..Usage::default() };
    node.runtime.set_usage("uid-small", "web", used(10 << 20));
    node.runtime.set_usage("uid-big", "web", used(20 << 20));
    gauges.dip(Signal::MemoryAvailable, 50);
    let failed = || node.api.get(&path("big")).filter(|pod| pod["status"]["phase"] == "Failed");
    let evicted = node.until("it is evicted", failed).await;
    let status = &evicted["status"];
    let message = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container web was \
                   using 20Mi, request is 0, has larger consumption of memory. ";
    assert_eq!((&status["reason"], &status["message"]), (&json!("Evicted"), &json!(message)));
    let conditions = status["conditions"].as_array().expect("conditions");
    let disruption = conditions.iter().find(|c| c["type"] == "DisruptionTarget").expect("told");
    assert_eq!((&disruption["status"], &disruption["reason"]), (&json!("True"), &json!("TerminationByKubelet")));
    assert!(status["containerStatuses"][0]["state"]["terminated"].is_object(), "{status}");
    event(&node, "EvictionThresholdMet: Attempting to reclaim memory").await;
    event(&node, &format!("Evicted: {message}")).await;
    event(&node, "NodeHasInsufficientMemory: Node n1 status is now: NodeHasInsufficientMemory").await;
    condition(&node, "MemoryPressure", "True").await;

    // The condition outlives the shortage: what asks for nothing is refused, what asks for something is not.
    node.api.put(&path("late"), pod("late", json!({"containers": [container()]})));
    let refused = || node.api.get(&path("late")).filter(|pod| pod["status"]["phase"] == "Failed");
    let refused = node.until("it is refused", refused).await;
    assert_eq!(refused["status"]["reason"], "Evicted");
    assert_eq!(refused["status"]["message"], "Pod was rejected: The node had condition: [MemoryPressure]. ");
    let mut modest = container();
    modest["resources"] = json!({"requests": {"memory": "1Mi"}});
    node.api.put(&path("modest"), pod("modest", json!({"containers": [modest]})));
    is_running(&node, "modest").await;
    is_running(&node, "small").await;
    node.halt().await;
}

#[tokio::test]
async fn a_full_disk_is_first_cleared_of_images_that_nobody_uses() {
    let (mut node, gauges) = story();
    node.runtime.add_image("unused:1", 10 << 20);
    node.runtime.add_image(crate::cri::pause::NAME, 1);
    node.settings.image_gc.min_age = std::time::Duration::ZERO;
    let cx = node.start();
    node.api.put(&path("p"), pod("p", json!({"containers": [container()]})));
    is_running(&node, "p").await;
    // One reads an image, another waits for something else before it can.
    node.runtime.add_image("read:1", 10 << 20);
    node.runtime.add_image("awaited:1", 10 << 20);
    let image = |name: &str| json!({"name": "image", "image": {"reference": name, "pullPolicy": "IfNotPresent"}});
    let mut reader = container();
    reader["volumeMounts"] = json!([{"name": "image", "mountPath": "/image"}]);
    node.api.put(&path("reader"), pod("reader", json!({"containers": [reader], "volumes": [image("read:1")]})));
    is_running(&node, "reader").await;
    let missing = json!({"name": "missing", "configMap": {"name": "missing"}});
    let volumes = json!([image("awaited:1"), missing]);
    node.api.put(&path("waiter"), pod("waiter", json!({"containers": [reader], "volumes": volumes})));
    let waits = || cx.pods.find("ns", "waiter");
    node.until("it waits", waits).await;
    let freed = gauges.clone();
    // As if the image had been what filled the disk.
    node.runtime.on_image_removed(move || freed.set(Signal::NodefsAvailable, 900));
    gauges.set(Signal::NodefsAvailable, 10);
    event(&node, "EvictionThresholdMet: Attempting to reclaim ephemeral-storage").await;
    condition(&node, "DiskPressure", "True").await;
    let left = node.runtime.images().await.expect("listed");
    let mut left: Vec<&str> = left.iter().flat_map(|image| &image.tags).map(String::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["awaited:1", "busybox:1", "read:1", crate::cri::pause::NAME], "what is in use or pinned stays");
    is_running(&node, "p").await;
    event(&node, "NodeHasDiskPressure: Node n1 status is now: NodeHasDiskPressure").await;
    assert!(!node.api.events().iter().any(|event| event.starts_with("Evicted")), "{:?}", node.api.events());
    node.halt().await;
}

#[tokio::test]
async fn a_pod_that_fills_its_empty_dir_is_evicted() {
    let (mut node, gauges) = story();
    node.start();
    let mut mounts = container();
    mounts["volumeMounts"] = json!([{"name": "scratch", "mountPath": "/scratch"}]);
    let volume = json!({"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}});
    node.api.put(&path("p"), pod("p", json!({"containers": [mounts], "volumes": [volume]})));
    is_running(&node, "p").await;
    let volumes = node.directory.path().join("agent/pods/uid-p/volumes");
    std::fs::write(volumes.join("kubernetes.io~empty-dir/scratch/big"), vec![7; 2 << 20]).expect("written");
    gauges.pressed.notify_one();
    let message = "Usage of EmptyDir volume \"scratch\" exceeds the limit \"1Mi\". ";
    event(&node, &format!("Evicted: {message}")).await;
    let failed = || node.api.get(&path("p")).filter(|pod| pod["status"]["phase"] == "Failed");
    let status = node.until("it failed", failed).await["status"].clone();
    assert_eq!((&status["reason"], &status["message"]), (&json!("Evicted"), &json!(message)));
    let conditions = status["conditions"].as_array().expect("conditions");
    assert!(!conditions.iter().any(|c| c["type"] == "DisruptionTarget"), "its own doing");
    node.until("its files are gone", || (!volumes.exists()).then_some(())).await;
    node.halt().await;
}

#[tokio::test]
async fn critical_pods_stay_whatever_is_short() {
    let (mut node, gauges) = story();
    node.start();
    let spec = json!({"containers": [container()], "priority": 2_000_000_000});
    node.api.put(&path("critical"), pod("critical", spec));
    is_running(&node, "critical").await;
    gauges.set(Signal::PidAvailable, 0);
    // There is no threshold for it.
    gauges.set(Signal::MemoryAvailable, 1);
    event(&node, "EvictionThresholdMet: Attempting to reclaim memory").await;
    condition(&node, "MemoryPressure", "True").await;
    condition(&node, "PIDPressure", "False").await;
    is_running(&node, "critical").await;
    assert!(!node.api.events().iter().any(|event| event.starts_with("Evicted")));
    node.halt().await;
}
