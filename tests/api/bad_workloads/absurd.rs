//! More pods than there can be.

use super::*;
use crate::conformance::Cluster;

const MOST: i32 = i32::MAX;
const REFUSED: &str = "exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3";

fn labels(name: &str) -> Value {
    json!({"app": name})
}

/// A cluster whose namespace takes three pods.
async fn limited() -> Cluster {
    let cluster = Cluster::new().await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "3"}}});
    cluster.made(&format!("{NAMESPACE}/resourcequotas"), &quota).await;
    let counted = |q: &Value| q["status"]["used"]["pods"] == "0";
    cluster.await_object(&format!("{NAMESPACE}/resourcequotas/q"), counted).await;
    cluster
}

/// Three pods, and few tries to have a fourth; deleted, it is over.
async fn held(uri: &str, kind: &str, more: &Value) {
    let cluster = limited().await;
    let before = Requests::so_far(&cluster).await;
    made(&cluster, uri, "w", &labels("w"), more).await;
    wait_for("three pods", async || (cluster.items(PODS).await.len() == 3).then_some(())).await;
    let (name, failure) = if kind == "Deployment" {
        let sets = cluster.items(&format!("{APPS}/replicasets")).await;
        (sets[0]["metadata"]["name"].as_str().unwrap().to_owned(), true)
    } else {
        ("w".to_owned(), matches!(kind, "ReplicaSet" | "ReplicationController"))
    };
    let why = told(&cluster, &name, "FailedCreate").await;
    assert!(why.ends_with(REFUSED), "{why}");
    if failure {
        let condition = condition(&cluster, &format!("{uri}/w"), "ReplicaFailure").await;
        assert_eq!(condition["reason"], "FailedCreate");
        assert!(condition["message"].as_str().unwrap().ends_with(REFUSED), "{condition}");
    }
    tokio::time::sleep(HOUR).await;
    let since = Requests::since(&cluster, &before).await;
    assert!(since.of("CREATE pods") < TRIES + 5, "{kind}: {:?}", since.0);
    is_almost_quiet(&cluster, &["CREATE pods"]).await;
    cluster.deleted(&format!("{uri}/w"), &json!({"propagationPolicy": "Background"})).await;
    wait_for("no pods", async || cluster.items(PODS).await.is_empty().then_some(())).await;
    is_quiet(&cluster).await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_holds_a_replica_set() {
    held(&format!("{APPS}/replicasets"), "ReplicaSet", &json!({"replicas": MOST})).await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_holds_a_deployment() {
    held(&format!("{APPS}/deployments"), "Deployment", &json!({"replicas": MOST})).await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_holds_a_stateful_set() {
    let spec = json!({"replicas": MOST, "serviceName": "s", "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": MOST}}, "ordinals": {"start": MOST - 10}});
    held(&format!("{APPS}/statefulsets"), "StatefulSet", &spec).await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_holds_a_job() {
    let job = json!({"manualSelector": true, "parallelism": MOST, "completions": MOST, "backoffLimit": MOST,
        "template": {"spec": {"restartPolicy": "Never"}}});
    held(&format!("{BATCH}/jobs"), "Job", &job).await;
}

/// In real time: a paused clock stands still as long as something is done.
#[tokio::test]
async fn with_nothing_to_stop_it_a_replica_set_goes_on_until_it_is_deleted() {
    let cluster = Cluster::new().await;
    let uri = format!("{APPS}/replicasets");
    let before = Requests::so_far(&cluster).await;
    let set = made(&cluster, &uri, "w", &labels("w"), &json!({"replicas": MOST})).await;
    // What it does at once is less than what there is of it to be seen later: one plan makes 500.
    let made_so_far = async || Requests::since(&cluster, &before).await.of("CREATE pods");
    wait_for("many pods", async || (made_so_far().await > 100).then_some(())).await;
    // Others are answered meanwhile, and what they ask for is done.
    let other = made(&cluster, &uri, "other", &labels("other"), &json!({"replicas": 2})).await;
    let other_pods = has_pods(&cluster, &other, 2).await;
    cluster.deleted(&format!("{uri}/w"), &json!({"propagationPolicy": "Background"})).await;
    let at_its_end = made_so_far().await;
    has_pods(&cluster, &set, 0).await;
    tokio::time::pause();
    is_quiet(&cluster).await;
    assert!(pods_of(&cluster, &set).await.is_empty(), "what was under way when it was deleted goes too");
    assert_eq!(pods_of(&cluster, &other).await, other_pods);
    let late = made_so_far().await - at_its_end;
    assert!(late <= 500, "{late} pods were made for a set that was gone");
}

#[tokio::test(start_paused = true)]
async fn an_indexed_job_of_the_largest_size_makes_what_it_may() {
    let cluster = limited().await;
    let spec = |parallelism: i32| {
        json!({"metadata": {"name": "w"}, "spec": {"completionMode": "Indexed", "completions": MOST,
            "parallelism": parallelism, "template": template(&labels("w"), &json!({"restartPolicy": "Never"}))}})
    };
    let uri = format!("{BATCH}/jobs");
    let refused = cluster.post(&uri, &spec(MOST)).await;
    assert_eq!(refused.code, 422);
    assert!(refused.message().contains("spec.parallelism: Invalid value: 2147483647"), "{}", refused.message());
    cluster.made(&uri, &spec(100_000)).await;
    wait_for("three pods", async || (cluster.items(PODS).await.len() == 3).then_some(())).await;
    let why = told(&cluster, "w", "FailedCreate").await;
    assert!(why.ends_with(REFUSED), "{why}");
    is_almost_quiet(&cluster, &["CREATE pods"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_of_the_largest_bounds_asks_for_no_more_than_a_number_can_say() {
    let cluster = limited().await;
    let deployments = format!("{APPS}/deployments");
    made(&cluster, &deployments, "w", &labels("w"), &json!({"replicas": 1})).await;
    cluster.await_object(&format!("{deployments}/w"), |d| d["status"]["unavailableReplicas"] == 1).await;
    let spec = json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"},
        "minReplicas": MOST, "maxReplicas": MOST,
        "behavior": {"scaleUp": {"policies": [{"type": "Percent", "value": MOST, "periodSeconds": 1800}]}}});
    let uri = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    cluster.made(uri, &json!({"metadata": {"name": "h"}, "spec": spec})).await;
    let size = "New size: 2147483647; reason: Current number of replicas below Spec.MinReplicas";
    assert_eq!(told(&cluster, "h", "SuccessfulRescale").await, size);
    condition(&cluster, &format!("{deployments}/w"), "ReplicaFailure").await;
    assert_eq!(cluster.items(PODS).await.len(), 3);
    tokio::time::sleep(HOUR).await;
    let hour = an_hour(&cluster).await;
    // It looks every 15 seconds, and says that it can't measure anything.
    let tried = hour.of("CREATE pods");
    assert!(tried <= TRIES_AN_HOUR, "{:?}", hour.0);
    let deployment = cluster.get(&format!("{deployments}/w")).await.json();
    assert_eq!(deployment["spec"]["replicas"], MOST);
}
