//! Finalizers that nobody removes: whoever waits for them waits, and does nothing.

use super::*;
use crate::conformance::Cluster;

#[tokio::test(start_paused = true)]
async fn workloads_that_cannot_go_are_left_as_they_are() {
    let cluster = Cluster::new().await;
    let job = json!({"manualSelector": true, "template": {"spec": {"restartPolicy": "Never"}}});
    let (none, set) = (json!({}), json!({"serviceName": "s"}));
    let kinds = [
        (format!("{APPS}/deployments"), "deployment", &none),
        (format!("{APPS}/replicasets"), "replicaset", &none),
        (format!("{APPS}/statefulsets"), "statefulset", &set),
        (format!("{APPS}/daemonsets"), "daemonset", &none),
        (format!("{BATCH}/jobs"), "job", &job),
    ];
    for (uri, name, more) in &kinds {
        made(&cluster, uri, name, &json!({"app": name}), more).await;
        let held = json!({"metadata": {"finalizers": [FINALIZER]}});
        cluster.patched(&format!("{uri}/{name}"), MERGE, &held).await;
    }
    wait_for("pods", async || (cluster.items(PODS).await.len() == 4).then_some(())).await;
    is_quiet(&cluster).await;
    let before: BTreeSet<String> = cluster.items(PODS).await.iter().map(|p| uid(p).to_owned()).collect();
    for (uri, name, _) in &kinds {
        cluster.deleted(&format!("{uri}/{name}"), &json!({"propagationPolicy": "Background"})).await;
    }
    is_quiet(&cluster).await;
    for (uri, name, _) in &kinds {
        let meta = cluster.get(&format!("{uri}/{name}")).await.json()["metadata"].clone();
        assert_eq!(meta["finalizers"], json!([FINALIZER]));
    }
    // Their pods go when they are gone: an owner that ends in the background is an owner yet.
    let after: BTreeSet<String> = cluster.items(PODS).await.iter().map(|p| uid(p).to_owned()).collect();
    assert_eq!(after, before);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_cannot_go_is_replaced_once() {
    let cluster = Cluster::new().await;
    let uri = format!("{APPS}/replicasets");
    node(&cluster, "n").await;
    let on_node = json!({"metadata": {"finalizers": [FINALIZER]}, "spec": {"nodeName": "n"}});
    let spec = json!({"replicas": 2, "template": on_node});
    let set = made(&cluster, &uri, "r", &json!({"app": "r"}), &spec).await;
    has_pods(&cluster, &set, 2).await;
    let pod = cluster.items(PODS).await.remove(0);
    let name = pod["metadata"]["name"].as_str().unwrap();
    cluster.deleted(&format!("{PODS}/{name}"), &json!({"gracePeriodSeconds": 0})).await;
    has_pods(&cluster, &set, 3).await;
    is_quiet(&cluster).await;
    let status = cluster.get(&format!("{uri}/r")).await.json()["status"].clone();
    assert_eq!((&status["replicas"], &status["terminatingReplicas"]), (&json!(2), &json!(1)), "{status}");
    // All of them, and the set in the foreground: it waits for each.
    cluster.deleted(&format!("{uri}/r"), &json!({"propagationPolicy": "Foreground"})).await;
    is_quiet(&cluster).await;
    assert_eq!(pods_of(&cluster, &set).await.len(), 3);
    assert_eq!(cluster.get(&format!("{uri}/r")).await.code, 200);
    for pod in cluster.items(PODS).await {
        let uri = format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap());
        cluster.patched(&uri, MERGE, &json!({"metadata": {"finalizers": null}})).await;
        // Nobody is on the node who would end it.
        cluster.delete(&uri, &json!({"gracePeriodSeconds": 0})).await;
    }
    cluster.await_gone(&format!("{uri}/r")).await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_cannot_go_says_what_it_waits_for() {
    let cluster = Cluster::new().await;
    cluster.made("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await;
    let map = json!({"metadata": {"name": "m", "finalizers": [FINALIZER]}});
    cluster.made("/api/v1/namespaces/n/configmaps", &map).await;
    cluster.deleted("/api/v1/namespaces/n", &json!({})).await;
    let remaining = condition(&cluster, "/api/v1/namespaces/n", "NamespaceFinalizersRemaining").await;
    let said = "Some content in the namespace has finalizers remaining: example.com/never in 1 resource instances";
    assert_eq!((&remaining["reason"], &remaining["message"]), (&json!("SomeFinalizersRemain"), &json!(said)));
    is_quiet(&cluster).await;
    let released = json!({"metadata": {"finalizers": null}});
    cluster.patched("/api/v1/namespaces/n/configmaps/m", MERGE, &released).await;
    cluster.await_gone("/api/v1/namespaces/n").await;
}
