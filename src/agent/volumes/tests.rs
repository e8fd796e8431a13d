//! Tests: stories of a pod's volumes on a node, with the API and the runtime in memory.

use serde_json::{Value, json};

use crate::agent::tests::{Node, is_ready};

const POD: &str = "/api/v1/namespaces/ns/pods/p";

fn pod(volumes: &Value) -> Value {
    let mounts: Vec<Value> = volumes
        .as_array()
        .expect("a list")
        .iter()
        .map(|volume| json!({"name": volume["name"], "mountPath": format!("/{}", volume["name"])}))
        .collect();
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "ns", "uid": "u1", "generation": 1, "labels": {"a": "1"}},
        "spec": {"nodeName": "n1", "restartPolicy": "Always", "terminationGracePeriodSeconds": 1, "volumes": volumes,
            "containers": [{"name": "web", "image": "busybox:1", "imagePullPolicy": "IfNotPresent", "volumeMounts": mounts}]},
        "status": {"phase": "Pending"}})
}

async fn ready(node: &Node) {
    node.until("ready", || node.api.get(POD).filter(|pod| is_ready(&pod["status"]))).await;
}

fn file(node: &Node, path: &str) -> Option<String> {
    std::fs::read_to_string(node.directory.path().join("agent/pods/u1/volumes").join(path)).ok()
}

#[tokio::test]
async fn labels_that_change_are_written_again() {
    let mut node = Node::new();
    node.start();
    let items = json!([{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]);
    node.api.put(
        POD,
        pod(&json!([{"name": "d", "downwardAPI": {"items": items}},
        {"name": "p", "projected": {"sources": [{"downwardAPI": {"items": items}}]}}])),
    );
    ready(&node).await;
    let paths = ["kubernetes.io~downward-api/d/labels", "kubernetes.io~projected/p/labels"];
    assert_eq!(paths.map(|path| file(&node, path)), [Some("a=\"1\"".to_owned()), Some("a=\"1\"".to_owned())]);
    let mut changed = node.api.get(POD).expect("there");
    changed["metadata"]["labels"] = json!({"a": "2"});
    node.api.put(POD, changed);
    let written = || paths.iter().all(|path| file(&node, path).as_deref() == Some("a=\"2\"")).then_some(());
    node.until("written again", written).await;
    node.halt().await;
}

#[tokio::test]
async fn what_is_immutable_is_not_followed() {
    let mut node = Node::new();
    node.start();
    let path = |name: &str| format!("/api/v1/namespaces/ns/configmaps/{name}");
    let map = |name: &str, value: &str, immutable: bool| {
        node.api.put(
            &path(name),
            json!({"metadata": {"name": name, "namespace": "ns"}, "immutable": immutable, "data": {"k": value}}),
        );
    };
    map("fixed", "1", true);
    map("other", "1", false);
    node.api.put(
        POD,
        pod(&json!([{"name": "f", "configMap": {"name": "fixed"}}, {"name": "o", "configMap": {"name": "other"}}])),
    );
    ready(&node).await;
    // The API would refuse this; a watch would show it.
    map("fixed", "2", true);
    map("other", "2", false);
    node.until("the other is written", || (file(&node, "kubernetes.io~configmap/o/k")? == "2").then_some(())).await;
    assert_eq!(file(&node, "kubernetes.io~configmap/f/k").as_deref(), Some("1"));
    node.halt().await;
}

#[tokio::test]
async fn an_image_is_pulled_once_for_its_volume() {
    let mut node = Node::new();
    node.start();
    node.api.put(
        "/api/v1/namespaces/ns/configmaps/c",
        json!({"metadata": {"name": "c", "namespace": "ns"}, "data": {"k": "1"}}),
    );
    node.api.put(
        POD,
        pod(&json!([{"name": "c", "configMap": {"name": "c"}},
        {"name": "i", "image": {"reference": "test.local/data:1", "pullPolicy": "Always"}}])),
    );
    ready(&node).await;
    assert_eq!(node.calls_of("PullImage test.local/data:1"), 1);
    // Another volume changes.
    node.api.put(
        "/api/v1/namespaces/ns/configmaps/c",
        json!({"metadata": {"name": "c", "namespace": "ns"}, "data": {"k": "2"}}),
    );
    node.until("written", || (file(&node, "kubernetes.io~configmap/c/k")? == "2").then_some(())).await;
    assert_eq!(node.calls_of("PullImage test.local/data:1"), 1);
    node.halt().await;
}
