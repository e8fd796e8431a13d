//! What becomes of dependents, with the real controllers at work.

use serde_json::{Value, json};

use super::{Cluster, MERGE, name, pod, wait_for};

const PODS: &str = "/api/v1/namespaces/default/pods";
const CONTROLLERS: &str = "/api/v1/namespaces/default/replicationcontrollers";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";

fn reference(owner: &Value, kind: &str, version: &str, is_controller: bool) -> Value {
    let mut reference =
        json!({"apiVersion": version, "kind": kind, "name": name(owner), "uid": owner["metadata"]["uid"]});
    if is_controller {
        reference["controller"] = true.into();
        reference["blockOwnerDeletion"] = true.into();
    }
    reference
}

/// A controller, once it has its pods.
async fn controller(cluster: &Cluster, name: &str, replicas: usize) -> Value {
    let labels = json!({"app": name});
    let body = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": labels, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": "c:1"}]}}}});
    let made = cluster.made(CONTROLLERS, &body).await;
    let of = [reference(&made, "ReplicationController", "v1", true)];
    wait_for("its pods", async || {
        let owned = pods(cluster).await.into_iter().filter(|p| p["metadata"]["ownerReferences"] == json!(of));
        (owned.count() == replicas).then_some(())
    })
    .await;
    made
}

async fn pods(cluster: &Cluster) -> Vec<Value> {
    cluster.items(PODS).await
}

async fn await_no_pods(cluster: &Cluster) {
    wait_for("no pods", async || pods(cluster).await.is_empty().then_some(())).await;
}

#[tokio::test]
async fn in_the_background_pods_follow_their_controller() {
    let cluster = Cluster::new().await;
    controller(&cluster, "rc", 2).await;
    cluster.deleted(&format!("{CONTROLLERS}/rc"), &json!({"propagationPolicy": "Background"})).await;
    assert_eq!(cluster.get(&format!("{CONTROLLERS}/rc")).await.code, 404, "it does not wait for them");
    await_no_pods(&cluster).await;
}

#[tokio::test]
async fn orphans_stay_without_an_owner() {
    let cluster = Cluster::new().await;
    controller(&cluster, "rc", 2).await;
    cluster.deleted(&format!("{CONTROLLERS}/rc"), &json!({"propagationPolicy": "Orphan"})).await;
    cluster.await_gone(&format!("{CONTROLLERS}/rc")).await;
    let left = pods(&cluster).await;
    let of = |p: &Value| (p["metadata"]["ownerReferences"].is_null(), p["metadata"]["deletionTimestamp"].is_null());
    assert_eq!(left.iter().map(of).collect::<Vec<_>>(), [(true, true); 2]);
}

#[tokio::test]
async fn in_the_foreground_the_owner_waits_for_its_pods() {
    let cluster = Cluster::new().await;
    controller(&cluster, "rc", 10).await;
    let held = format!("{PODS}/{}", name(&pods(&cluster).await[0]));
    cluster.patched(&held, MERGE, &json!({"metadata": {"finalizers": ["example.com/held"]}})).await;
    cluster.deleted(&format!("{CONTROLLERS}/rc"), &json!({"propagationPolicy": "Foreground"})).await;
    wait_for("one pod", async || (pods(&cluster).await.len() == 1).then_some(())).await;
    let waiting = cluster.get(&format!("{CONTROLLERS}/rc")).await.json();
    assert!(waiting["metadata"]["deletionTimestamp"].is_string(), "{waiting}");
    assert_eq!(waiting["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    cluster.patched(&held, MERGE, &json!({"metadata": {"finalizers": null}})).await;
    cluster.await_gone(&format!("{CONTROLLERS}/rc")).await;
    assert_eq!(pods(&cluster).await, Vec::<Value>::new());
}

#[tokio::test]
async fn who_has_another_owner_stays() {
    let cluster = Cluster::new().await;
    controller(&cluster, "to-be-deleted", 10).await;
    let second = controller(&cluster, "to-stay", 0).await;
    let other = reference(&second, "ReplicationController", "v1", false);
    for pod in pods(&cluster).await.iter().take(5) {
        let owners = json!({"metadata": {"ownerReferences": [other]}});
        cluster.patched(&format!("{PODS}/{}", name(pod)), super::STRATEGIC, &owners).await;
    }
    cluster.deleted(&format!("{CONTROLLERS}/to-be-deleted"), &json!({"propagationPolicy": "Foreground"})).await;
    cluster.await_gone(&format!("{CONTROLLERS}/to-be-deleted")).await;
    let left = wait_for("half of the pods", async || {
        let left = pods(&cluster).await;
        (left.len() == 5).then_some(left)
    })
    .await;
    for pod in left {
        let meta = &pod["metadata"];
        assert_eq!((&meta["ownerReferences"], &meta["deletionTimestamp"]), (&json!([other]), &Value::Null), "{pod}");
    }
}

#[tokio::test]
async fn a_circle_of_owners_goes_too() {
    let cluster = Cluster::new().await;
    let mut made = Vec::new();
    for name in ["pod1", "pod2", "pod3"] {
        made.push(cluster.made(PODS, &pod(name)).await);
    }
    for (one, owner) in [(0, 2), (1, 0), (2, 1)] {
        let owners = json!({"metadata": {"ownerReferences": [reference(&made[owner], "Pod", "v1", true)]}});
        cluster.patched(&format!("{PODS}/{}", name(&made[one])), super::STRATEGIC, &owners).await;
    }
    cluster.deleted(&format!("{PODS}/pod1"), &json!({"propagationPolicy": "Foreground"})).await;
    await_no_pods(&cluster).await;
}

async fn deployed(cluster: &Cluster) {
    let mut deployment = crate::patches::deployment();
    deployment["spec"]["replicas"] = 2.into();
    cluster.made(DEPLOYMENTS, &deployment).await;
    wait_for("its pods", async || (pods(cluster).await.len() == 2).then_some(())).await;
}

#[tokio::test]
async fn a_deployment_takes_its_set_and_its_pods() {
    let cluster = Cluster::new().await;
    deployed(&cluster).await;
    assert_eq!(cluster.items(SETS).await.len(), 1);
    cluster.deleted(&format!("{DEPLOYMENTS}/web"), &json!({"propagationPolicy": "Background"})).await;
    wait_for("no set", async || cluster.items(SETS).await.is_empty().then_some(())).await;
    await_no_pods(&cluster).await;
}

#[tokio::test]
async fn a_deployment_leaves_its_set_and_its_pods() {
    let cluster = Cluster::new().await;
    deployed(&cluster).await;
    cluster.deleted(&format!("{DEPLOYMENTS}/web"), &json!({"propagationPolicy": "Orphan"})).await;
    cluster.await_gone(&format!("{DEPLOYMENTS}/web")).await;
    let sets = cluster.items(SETS).await;
    assert_eq!((sets.len(), &sets[0]["metadata"]["ownerReferences"]), (1, &Value::Null));
    let left = pods(&cluster).await;
    assert_eq!(left.len(), 2);
    for pod in left {
        assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], sets[0]["metadata"]["uid"]);
    }
}
