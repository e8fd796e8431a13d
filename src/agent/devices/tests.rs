//! Tests: device plugins that come, change, go and refuse, and pods that want their devices.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::fake::FakePlugin;
use super::{Count, Devices, registration};

const GPU: &str = "example.com/gpu";

struct Host {
    directory: tempfile::TempDir,
    devices: Devices,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Host {
    async fn start(directory: tempfile::TempDir) -> Host {
        let devices = Devices::new(&directory.path().join("devices.json"));
        let stop = CancellationToken::new();
        let sockets = directory.path().join("plugins");
        std::fs::create_dir_all(&sockets).expect("made");
        let mut tasks = JoinSet::new();
        tasks.spawn(registration::run(devices.clone(), sockets.clone(), stop.clone()));
        while !sockets.join("kubelet.sock").exists() {
            tokio::task::yield_now().await;
        }
        Host { directory, devices, tasks, stop }
    }

    async fn new() -> Host {
        Host::start(tempfile::tempdir().expect("temporary directory")).await
    }

    /// The agent stops and another one starts.
    async fn restart(self) -> Host {
        self.stop.cancel();
        self.tasks.join_all().await;
        self.devices.stop().await;
        Host::start(self.directory).await
    }

    fn sockets(&self) -> PathBuf {
        self.directory.path().join("plugins")
    }

    async fn plugin(&self, names: &[&str]) -> FakePlugin {
        let plugin = FakePlugin::start(&self.sockets(), GPU).expect("started");
        plugin.offer(names);
        plugin.register().await.expect("registered");
        plugin
    }

    async fn until(&self, capacity: usize, allocatable: usize) {
        let mut counts = self.devices.counts();
        let expect = Count { capacity, allocatable };
        let seen = counts.wait_for(|counts| counts.get(GPU) == Some(&expect));
        let seen = tokio::time::timeout(Duration::from_secs(400), seen).await.is_ok();
        assert!(seen, "not {expect:?}: {:?}", self.devices.counts().borrow());
    }

    /// The variable of a container, or why the pod is refused.
    async fn allocate(&self, pod: &Pod) -> String {
        match self.devices.allocate(pod, false).await {
            Err(error) => error,
            Ok(()) => {
                let mut lines = Vec::new();
                for (_, container) in crate::agent::pod::containers(pod) {
                    let additions = self.devices.additions(pod, container).await.expect("a start");
                    lines.push(additions.env.first().map(|(_, value)| value.clone()).unwrap_or_default());
                }
                lines.join(" ")
            }
        }
    }
}

fn container(name: &str, gpus: usize) -> Value {
    json!({"name": name, "resources": {"limits": {GPU: gpus.to_string()}}})
}

fn pod(uid: &str, init: &[Value], containers: &[Value]) -> Pod {
    let spec = json!({"initContainers": init, "containers": containers});
    serde_json::from_value(json!({"metadata": {"name": uid, "uid": uid}, "spec": spec})).expect("a pod")
}

#[tokio::test]
async fn pods_get_devices_until_there_are_none() {
    let host = Host::new().await;
    let mut plugin = host.plugin(&["a", "b", "c"]).await;
    host.until(3, 3).await;
    // Its favourites are the last ones.
    assert_eq!(host.allocate(&pod("u1", &[], &[container("c", 2)])).await, "b,c");
    assert_eq!(host.allocate(&pod("u2", &[], &[container("c", 1)])).await, "a");
    let refused = "requested number of devices unavailable for example.com/gpu. Requested: 1, Available: 0";
    assert_eq!(host.allocate(&pod("u3", &[], &[container("c", 1)])).await, refused);
    host.devices.release("u2");
    assert_eq!(host.allocate(&pod("u4", &[], &[container("c", 1)])).await, "a");
    let mut calls = Vec::new();
    while let Ok(call) = plugin.calls.try_recv() {
        calls.push(call);
    }
    let expected = [
        "Allocate b,c",
        "PreStartContainer b,c",
        "Allocate a",
        "PreStartContainer a",
        "Allocate a",
        "PreStartContainer a",
    ];
    assert_eq!(calls, expected);
}

#[tokio::test]
async fn a_pod_waits_for_one_that_was_deleted_by_force() {
    let host = Host::new().await;
    let _plugin = host.plugin(&["a"]).await;
    host.until(1, 1).await;
    assert_eq!(host.allocate(&pod("u1", &[], &[container("c", 1)])).await, "a");
    host.devices.leaving("u1");
    let next = pod("u2", &[], &[container("c", 1)]);
    let (found, ()) = tokio::join!(host.allocate(&next), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        host.devices.release("u1");
    });
    assert_eq!(found, "a");
}

#[tokio::test]
async fn what_init_containers_had_is_used_again() {
    let host = Host::new().await;
    let _plugin = host.plugin(&["a", "b", "c"]).await;
    host.until(3, 3).await;
    let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"limits": {GPU: "1"}}});
    let shared = pod("u1", &[container("i", 2), sidecar], &[container("c", 2)]);
    // Two for the first; the sidecar keeps one of them, and so there is one more for the last.
    assert_eq!(host.allocate(&shared).await, "b,c b a,c");
}

#[tokio::test]
async fn health_is_told_and_minded() {
    let host = Host::new().await;
    let plugin = host.plugin(&["a", "b"]).await;
    host.until(2, 2).await;
    plugin.offer(&["a", "!b"]);
    host.until(2, 1).await;
    assert_eq!(host.allocate(&pod("u1", &[], &[container("c", 1)])).await, "a");
    plugin.offer(&["!a", "!b"]);
    host.until(2, 0).await;
    let refused = "no healthy devices present; cannot allocate unhealthy devices example.com/gpu";
    assert_eq!(host.allocate(&pod("u2", &[], &[container("c", 1)])).await, refused);
    // Who has it keeps it.
    assert_eq!(host.allocate(&pod("u1", &[], &[container("c", 1)])).await, "a");
}

#[tokio::test]
async fn a_plugin_that_refuses_leaves_nothing_taken() {
    let host = Host::new().await;
    let plugin = host.plugin(&["broken"]).await;
    host.until(1, 1).await;
    let refused = "rpc error: code = Unknown desc = the device does not answer";
    assert_eq!(host.allocate(&pod("u1", &[], &[container("c", 1)])).await, refused);
    plugin.offer(&["a"]);
    while host.allocate(&pod("u2", &[], &[container("c", 1)])).await != "a" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_agent_that_starts_again_knows_who_has_what() {
    let host = Host::new().await;
    let plugin = host.plugin(&["a", "b"]).await;
    host.until(2, 2).await;
    let first = pod("u1", &[], &[container("c", 1)]);
    assert_eq!(host.allocate(&first).await, "b");
    let host = host.restart().await;
    // Not known to be there until it says so.
    assert_eq!(host.devices.counts().borrow().get(GPU), Some(&Count::default()));
    host.devices.allocate(&first, true).await.expect("it runs already");
    let additions = host.devices.additions(&first, &first.spec.as_ref().expect("a spec").containers[0]).await;
    assert_eq!(additions.expect("the plugin is not needed for it").env[0].1, "b");
    drop(plugin);
    let _plugin = host.plugin(&["a", "b"]).await;
    host.until(2, 2).await;
    assert_eq!(host.allocate(&pod("u2", &[], &[container("c", 1)])).await, "a");
    host.devices.retain(|uid| uid == "u2");
    assert_eq!(host.allocate(&pod("u3", &[], &[container("c", 1)])).await, "b");
}

#[tokio::test]
async fn devices_of_a_plugin_that_is_gone_count_for_five_minutes() {
    let host = Host::new().await;
    let plugin = host.plugin(&["a", "b"]).await;
    host.until(2, 2).await;
    drop(plugin);
    host.until(2, 0).await;
    let plugin = host.plugin(&["a", "b", "c"]).await;
    host.until(3, 3).await;
    drop(plugin);
    host.until(3, 0).await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(299)).await;
    assert_eq!(host.devices.counts().borrow()[GPU].capacity, 3);
    host.until(0, 0).await;
}

#[tokio::test]
async fn what_no_plugin_offers_is_not_ours() {
    let host = Host::new().await;
    assert_eq!(host.allocate(&pod("u1", &[], &[container("c", 1)])).await, "");
    assert!(!host.directory.path().join("devices.json").exists(), "nothing is written for nothing");
}

#[tokio::test]
async fn what_a_claim_gives_no_plugin_is_asked_for() {
    let host = Host::new().await;
    let plugin = host.plugin(&["a"]).await;
    host.until(1, 1).await;
    drop(plugin);
    host.until(1, 0).await;
    let mut claimed = pod("u1", &[], &[container("c", 1), container("d", 0)]);
    assert_eq!(
        host.allocate(&claimed).await,
        "no healthy devices present; cannot allocate unhealthy devices example.com/gpu"
    );
    let mapping = json!({"containerName": "c", "resourceName": GPU, "requestName": "container-0-request-0"});
    let status = json!({"extendedResourceClaimStatus": {"resourceClaimName": "x", "requestMappings": [mapping]}});
    claimed.status = Some(serde_json::from_value(status).expect("a status"));
    assert_eq!(host.allocate(&claimed).await, " ");
}
