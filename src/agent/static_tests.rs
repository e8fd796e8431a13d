//! Tests: stories of pods that lie as manifests on the node.

use serde_json::{Value, json};

use super::mirror::{HASH, MIRROR, SOURCE};
use super::static_pods::manifest;
use super::tests::Node;

const PATH: &str = "/api/v1/namespaces/ns/pods/web-n1";

fn write(node: &Node, image: &str) {
    let directory = node.directory.path().join("pod-manifests");
    std::fs::create_dir_all(&directory).expect("made");
    std::fs::write(directory.join("web.yaml"), manifest("web", image).to_string()).expect("written");
}

fn started(node: &Node) -> usize {
    node.runtime.calls().iter().filter(|call| call.starts_with("StartContainer")).count()
}

fn is_ready(mirror: &Value) -> bool {
    let conditions = mirror["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

#[tokio::test]
async fn a_static_pod_runs_without_a_server_and_is_shown_once_there_is_one() {
    let mut node = Node::new();
    node.start();
    node.until("registered", || node.api.get("/api/v1/nodes/n1")).await;
    node.halt().await;
    write(&node, "busybox:1");
    node.api.set_down(true);
    node.start();
    node.until("it runs", || (started(&node) == 1).then_some(())).await;
    assert!(node.api.get(PATH).is_none());
    node.api.set_down(false);
    let mirror = node.until("it is shown", || node.api.get(PATH).filter(is_ready)).await;
    let annotations = &mirror["metadata"]["annotations"];
    assert_eq!((&annotations[SOURCE], &annotations[MIRROR]), (&json!("file"), &annotations[HASH]));
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "uid-of-n1", "controller": true}]);
    assert_eq!(mirror["metadata"]["ownerReferences"], owner);
    assert_eq!(mirror["spec"]["nodeName"], "n1");

    // Deleting the mirror deletes nothing else.
    node.api.remove(PATH);
    node.until("it is shown again", || node.api.get(PATH).filter(is_ready)).await;
    let mut going = node.api.get(PATH).expect("there");
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    node.api.put(PATH, going);
    let is_new = |mirror: &Value| is_ready(mirror) && mirror["metadata"]["deletionTimestamp"].is_null();
    node.until("and again", || node.api.get(PATH).filter(is_new)).await;
    assert_eq!(started(&node), 1, "nothing restarted");
    assert!(!node.runtime.calls().iter().any(|call| call.starts_with("StopContainer")));
    node.halt().await;
}

#[tokio::test]
async fn a_static_pod_follows_its_manifest() {
    let mut node = Node::new();
    node.runtime.add_image("busybox:2", 1);
    node.start();
    node.until("registered", || node.api.get("/api/v1/nodes/n1")).await;
    let directory = node.directory.path().join("pod-manifests");
    node.until("the folder is made", || directory.exists().then_some(())).await;
    write(&node, "busybox:1");
    let first = node.until("it is shown", || node.api.get(PATH).filter(is_ready)).await;
    std::fs::write(directory.join("broken.yaml"), "kind: [").expect("written");
    write(&node, "busybox:2");
    let hash = |mirror: &Value| mirror["metadata"]["annotations"][MIRROR].clone();
    let changed = |mirror: &Value| is_ready(mirror) && hash(mirror) != hash(&first);
    let second = node.until("it is another", || node.api.get(PATH).filter(changed)).await;
    assert_eq!(second["spec"]["containers"][0]["image"], "busybox:2");
    assert_eq!(started(&node), 2);

    // An agent that starts again finds it running.
    node.halt().await;
    node.start();
    let before = node.runtime.calls().len();
    let looked = |call: &String| call.starts_with("ContainerStatus");
    node.until("looked at", || node.runtime.calls()[before..].iter().any(looked).then_some(())).await;
    std::fs::remove_file(directory.join("web.yaml")).expect("removed");
    node.until("the mirror is gone", || node.api.get(PATH).is_none().then_some(())).await;
    assert_eq!(started(&node), 2, "a restart of the agent restarted nothing");
    let removed = |call: &String| call.starts_with("RemovePodSandbox");
    node.until("nothing is left", || (node.runtime.calls().iter().filter(|c| removed(c)).count() == 2).then_some(()))
        .await;
    node.halt().await;
}

#[tokio::test]
async fn mirrors_of_pods_that_are_gone_are_deleted() {
    let mut node = Node::new();
    let annotations = json!({SOURCE: "file", HASH: "old", MIRROR: "old"});
    let metadata = json!({"name": "web-n1", "namespace": "ns", "uid": "m", "annotations": annotations});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {"phase": "Running"},
        "spec": {"nodeName": "n1", "containers": [{"name": "web", "image": "busybox:1"}]}});
    node.api.put(PATH, pod);
    node.start();
    node.until("it is gone", || node.api.get(PATH).is_none().then_some(())).await;
    assert_eq!(started(&node), 0, "a mirror is never run");
    node.halt().await;
}
