//! Namespaces: their labels, finalizers and status, and in which order what they hold goes with them.

use serde_json::{Value, json};

use super::{Cluster, MERGE, STRATEGIC, map, pod};
use crate::Server;

const NAMESPACES: &str = "/api/v1/namespaces";

async fn made(server: &Server, name: &str) -> Value {
    server.made(NAMESPACES, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await
}

#[tokio::test]
async fn a_namespace_is_patched_and_updated() {
    let server = Server::new().await;
    let before = made(&server, "ns").await;
    let at = format!("{NAMESPACES}/ns");
    let patched = server.patched(&at, STRATEGIC, &json!({"metadata": {"labels": {"testLabel": "testValue"}}})).await;
    let revision = |o: &Value| o["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(revision(&patched) > revision(&before));
    let mut found = server.get(&at).await.json();
    assert_eq!(found["metadata"]["labels"]["testLabel"], "testValue");
    found["metadata"]["labels"]["ns"] = "updated".into();
    assert_eq!(server.replaced(&at, &found).await["metadata"]["labels"]["ns"], "updated");
}

#[tokio::test]
async fn the_status_of_a_namespace_is_patched_and_updated() {
    let server = Server::new().await;
    made(&server, "ns").await;
    let at = format!("{NAMESPACES}/ns/status");
    assert_eq!(server.get(&at).await.json()["status"]["phase"], "Active");
    let condition =
        |kind: &str, message: &str| json!({"type": kind, "status": "True", "reason": "E2E", "message": message});
    let patch = json!({"metadata": {"annotations": {"patched-status": "ns"}}, "status": {"conditions": [condition("StatusPatch", "Patched")]}});
    let patched = server.patched(&at, MERGE, &patch).await;
    assert_eq!(patched["metadata"]["annotations"]["patched-status"], "ns");
    let last = |o: &Value| o["status"]["conditions"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last(&patched)["reason"], &last(&patched)["message"]), (&json!("E2E"), &json!("Patched")));
    let mut update = server.get(&at).await.json();
    update["status"]["conditions"].as_array_mut().unwrap().push(condition("StatusUpdate", "Updated"));
    let updated = server.replaced(&at, &update).await;
    assert_eq!((&last(&updated)["type"], &last(&updated)["message"]), (&json!("StatusUpdate"), &json!("Updated")));
}

/// Through the path of its own; a namespace that is not ending stays as it is.
#[tokio::test]
async fn a_finalizer_comes_and_goes() {
    let server = Server::new().await;
    made(&server, "ns").await;
    let at = format!("{NAMESPACES}/ns");
    let mut found = server.get(&at).await.json();
    found["spec"]["finalizers"].as_array_mut().unwrap().push("e2e.example.com/fakeFinalizer".into());
    let updated = server.replaced(&format!("{at}/finalize"), &found).await;
    assert_eq!(updated["spec"]["finalizers"], json!(["kubernetes", "e2e.example.com/fakeFinalizer"]));
    let mut found = server.get(&at).await.json();
    assert_eq!(found["spec"], updated["spec"]);
    found["spec"]["finalizers"] = json!(["kubernetes"]);
    let updated = server.replaced(&format!("{at}/finalize"), &found).await;
    assert_eq!(updated["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(server.get(&at).await.json()["status"]["phase"], "Active");
}

/// Pods and Services go with their namespace; one of the same name begins empty.
#[tokio::test]
async fn a_namespace_takes_with_it_what_it_holds() {
    let cluster = Cluster::new().await;
    made(&cluster, "ns").await;
    let at = format!("{NAMESPACES}/ns");
    cluster.await_there(&format!("{at}/serviceaccounts/default")).await;
    cluster.made(&format!("{at}/pods"), &pod("test-pod")).await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "test-service"},
        "spec": {"selector": {"foo": "bar"}, "ports": [{"port": 80, "targetPort": 80}]}});
    cluster.made(&format!("{at}/services"), &service).await;
    cluster.deleted(&at, &json!({})).await;
    cluster.await_gone(&at).await;
    made(&cluster, "ns").await;
    for gone in ["pods/test-pod", "services/test-service"] {
        assert_eq!(cluster.get(&format!("{at}/{gone}")).await.code, 404, "{gone}");
    }
}

/// As long as a pod is left, nothing else is touched.
#[tokio::test]
async fn pods_go_before_everything_else() {
    let cluster = Cluster::new().await;
    made(&cluster, "ns").await;
    let at = format!("{NAMESPACES}/ns");
    cluster.await_there(&format!("{at}/serviceaccounts/default")).await;
    let mut held = pod("test-pod");
    held["metadata"]["finalizers"] = json!(["e2e.example.com/finalizer"]);
    cluster.made(&format!("{at}/pods"), &held).await;
    cluster.made(&format!("{at}/configmaps"), &map("test-configmap")).await;
    cluster.deleted(&at, &json!({})).await;
    let told = |n: &Value| {
        let conditions = n["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is = |kind: &str| conditions.iter().any(|c| c["type"] == kind);
        n["status"]["phase"] == "Terminating"
            && is("NamespaceDeletionContentFailure")
            && is("NamespaceFinalizersRemaining")
    };
    cluster.await_object(&at, told).await;
    cluster.await_object(&format!("{at}/pods/test-pod"), |p| p["metadata"]["deletionTimestamp"].is_string()).await;
    let kept = cluster.get(&format!("{at}/configmaps/test-configmap")).await.json();
    assert_eq!(
        (&kept["metadata"]["name"], &kept["metadata"]["deletionTimestamp"]),
        (&json!("test-configmap"), &Value::Null)
    );
    let mut ending = cluster.get(&format!("{at}/pods/test-pod")).await.json();
    ending["metadata"]["finalizers"] = json!([]);
    cluster.replaced(&format!("{at}/pods/test-pod"), &ending).await;
    cluster.await_gone(&at).await;
}
