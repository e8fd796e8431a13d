//! HorizontalPodAutoscalers with the real registry and the real controllers, where there are no nodes that measure.

use serde_json::{Value, json};

use crate::conformance::{Cluster, wait_for};
use crate::custom;

const AUTOSCALERS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const EVENTS: &str = "/api/v1/namespaces/default/events";
const APPS: &str = "/apis/apps/v1/namespaces/default";

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [
        {"name": "c", "image": "c:1", "resources": {"requests": {"cpu": "100m"}}}]}})
}

async fn deployment(cluster: &Cluster, replicas: i32) -> Value {
    let spec = json!({"replicas": replicas, "selector": {"matchLabels": {"app": "a"}}, "template": template()});
    cluster.made(&format!("{APPS}/deployments"), &json!({"metadata": {"name": "a"}, "spec": spec})).await
}

async fn autoscale(cluster: &Cluster, name: &str, api_version: &str, kind: &str) {
    let spec = json!({"scaleTargetRef": {"apiVersion": api_version, "kind": kind, "name": "a"},
        "minReplicas": 2, "maxReplicas": 3});
    cluster.made(AUTOSCALERS, &json!({"metadata": {"name": name}, "spec": spec})).await;
}

/// The status, once a condition has a reason.
async fn says(cluster: &Cluster, name: &str, kind: &str, reason: &str) -> Value {
    let has = |autoscaler: &Value| {
        let conditions = autoscaler["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|c| c["type"] == kind && c["reason"] == reason)
    };
    cluster.await_object(&format!("{AUTOSCALERS}/{name}"), has).await["status"].clone()
}

async fn told(cluster: &Cluster, name: &str, reason: &str) -> String {
    let what = format!("{reason} of {name}");
    wait_for(&what, async || {
        let events = cluster.items(EVENTS).await;
        let found = events.iter().find(|e| e["involvedObject"]["name"] == name && e["reason"] == reason)?;
        Some(found["message"].as_str().unwrap().to_owned())
    })
    .await
}

#[tokio::test]
async fn without_metrics_it_says_so_and_does_no_harm() {
    let cluster = Cluster::new().await;
    let before = deployment(&cluster, 3).await;
    cluster.await_object(&format!("{APPS}/deployments/a"), |d| d["status"]["replicas"] == 3).await;
    autoscale(&cluster, "h", "apps/v1", "Deployment").await;
    let status = says(&cluster, "h", "ScalingActive", "FailedGetResourceMetric").await;
    assert_eq!((&status["currentReplicas"], &status["desiredReplicas"]), (&json!(3), &json!(0)), "{status}");
    assert_eq!((&status["lastScaleTime"], &status["observedGeneration"]), (&Value::Null, &json!(1)), "{status}");
    let error = "failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource \
                 metrics API";
    let [able, active] = status["conditions"].as_array().unwrap().as_slice() else { panic!("{status}") };
    assert_eq!((&able["type"], &able["status"]), (&json!("AbleToScale"), &json!("True")));
    assert_eq!(active["message"], format!("the HPA was unable to compute the replica count: {error}"));
    assert_eq!(told(&cluster, "h", "FailedGetResourceMetric").await, error);
    let all = told(&cluster, "h", "FailedComputeMetricsReplicas").await;
    assert!(all.starts_with("invalid metrics (1 invalid out of 1), first error is: failed to get cpu"), "{all}");
    let after = cluster.get(&format!("{APPS}/deployments/a")).await.json();
    assert_eq!(after["spec"], before["spec"]);
    assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"]);
}

#[tokio::test]
async fn whatever_has_a_scale_is_kept_within_bounds() {
    let cluster = Cluster::new().await;
    cluster.define(&custom::definition()).await;
    deployment(&cluster, 5).await;
    // What is written at the same time as a scale is a reason to try again 15 seconds later.
    cluster.await_object(&format!("{APPS}/deployments/a"), |d| d["status"]["unavailableReplicas"] == 5).await;
    let one = json!({"replicas": 1, "serviceName": "s", "selector": {"matchLabels": {"app": "b"}},
        "template": {"metadata": {"labels": {"app": "b"}}, "spec": template()["spec"]}});
    cluster.made(&format!("{APPS}/statefulsets"), &json!({"metadata": {"name": "a"}, "spec": one})).await;
    let tabs = "/apis/example.com/v1/namespaces/default/crontabs";
    let tab = json!({"apiVersion": "example.com/v1", "kind": "CronTab", "metadata": {"name": "a"},
        "spec": {"cronSpec": "* * * * *", "replicas": 9}});
    cluster.made(tabs, &tab).await;
    let above = "New size: 3; reason: Current number of replicas above Spec.MaxReplicas";
    let below = "New size: 2; reason: Current number of replicas below Spec.MinReplicas";
    let (deployments, sets) = (format!("{APPS}/deployments"), format!("{APPS}/statefulsets"));
    for (name, version, kind, uri, replicas, message) in [
        ("d", "apps/v1", "Deployment", deployments.as_str(), 3, above),
        ("s", "apps/v1", "StatefulSet", sets.as_str(), 2, below),
        ("t", "example.com/v1", "CronTab", tabs, 3, above),
    ] {
        autoscale(&cluster, name, version, kind).await;
        cluster.await_object(&format!("{uri}/a"), |o| o["spec"]["replicas"] == replicas).await;
        let status = says(&cluster, name, "AbleToScale", "SucceededRescale").await;
        assert_eq!(status["desiredReplicas"], replicas, "{status}");
        assert!(status["lastScaleTime"].is_string(), "{status}");
        assert_eq!(told(&cluster, name, "SuccessfulRescale").await, message);
    }
    autoscale(&cluster, "n", "example.com/v1", "Toaster").await;
    says(&cluster, "n", "AbleToScale", "FailedGetScale").await;
    let error = "no matches for kind \"Toaster\" in group \"example.com\"";
    assert_eq!(told(&cluster, "n", "FailedGetScale").await, error);
}
