//! Jobs and CronJobs with the real registry and the real controllers: what the tests do is the kubelet's part.

use serde_json::{Value, json};

use crate::conformance::{Cluster, wait_for};

const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const CRON_JOBS: &str = "/apis/batch/v1/namespaces/default/cronjobs";
const PODS: &str = "/api/v1/namespaces/default/pods";
const EVENTS: &str = "/api/v1/namespaces/default/events";
const MERGE: &str = "application/merge-patch+json";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

async fn run(cluster: &Cluster, name: &str, mut spec: Value) -> Value {
    spec["template"] = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "c:1"}]}});
    cluster.made(JOBS, &json!({"metadata": {"name": name}, "spec": spec})).await
}

async fn pods(cluster: &Cluster, job: &str) -> Vec<Value> {
    cluster.items(&format!("{PODS}?labelSelector=job-name%3D{job}")).await
}

/// The pods that run, once there are so many.
async fn running(cluster: &Cluster, job: &str, count: usize) -> Vec<String> {
    let what = format!("{count} pods of {job}");
    wait_for(&what, async || {
        let pods = pods(cluster, job).await;
        let runs = |pod: &&Value| {
            pod["metadata"]["deletionTimestamp"].is_null()
                && pod["status"]["phase"].as_str().unwrap_or("Pending") == "Pending"
        };
        let names: Vec<String> =
            pods.iter().filter(runs).map(|p| p["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        (names.len() == count).then_some(names)
    })
    .await
}

async fn ends(cluster: &Cluster, pod: &str, code: i32) {
    let ended = json!({"name": "c", "image": "c:1", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {
        "exitCode": code, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:00Z"}}});
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    let status = json!({"status": {"phase": phase, "containerStatuses": [ended]}});
    cluster.patched(&format!("{PODS}/{pod}/status"), MERGE, &status).await;
}

/// The Job, once it has a true condition.
async fn becomes(cluster: &Cluster, job: &str, condition: &str) -> Value {
    let is = |j: &Value| {
        let conditions = j["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|c| c["type"] == condition && c["status"] == "True")
    };
    cluster.await_object(&format!("{JOBS}/{job}"), is).await
}

async fn told(cluster: &Cluster, name: &str, reason: &str) {
    let what = format!("{reason} of {name}");
    wait_for(&what, async || {
        let events = cluster.items(EVENTS).await;
        events.iter().any(|e| e["involvedObject"]["name"] == name && e["reason"] == reason).then_some(())
    })
    .await;
}

async fn no_pod_is_held(cluster: &Cluster, job: &str) {
    wait_for("the finalizers", async || {
        pods(cluster, job).await.iter().all(|p| p["metadata"]["finalizers"].is_null()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_job_runs_to_completion() {
    let cluster = Cluster::new().await;
    run(&cluster, "j", json!({"completions": 3, "parallelism": 2})).await;
    for pod in running(&cluster, "j", 2).await {
        ends(&cluster, &pod, 0).await;
    }
    ends(&cluster, &running(&cluster, "j", 1).await[0], 0).await;
    let job = becomes(&cluster, "j", "Complete").await;
    let status = &job["status"];
    assert_eq!(status["succeeded"], 3, "{status}");
    assert_eq!((&status["active"], &status["uncountedTerminatedPods"]), (&Value::Null, &json!({})), "{status}");
    assert!(status["completionTime"].is_string() && status["startTime"].is_string(), "{status}");
    no_pod_is_held(&cluster, "j").await;
    told(&cluster, "j", "SuccessfulCreate").await;
    told(&cluster, "j", "Completed").await;
}

#[tokio::test]
async fn a_failure_ends_a_job_and_its_pods_go() {
    let cluster = Cluster::new().await;
    let rules = json!([{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]);
    run(&cluster, "j", json!({"completions": 2, "parallelism": 2, "podFailurePolicy": {"rules": rules}})).await;
    let pods = running(&cluster, "j", 2).await;
    ends(&cluster, &pods[0], 42).await;
    let job = becomes(&cluster, "j", "Failed").await;
    let failed = job["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Failed").unwrap();
    let message =
        format!("Container c for pod default/{} failed with exit code 42 matching FailJob rule at index 0", pods[0]);
    assert_eq!((&failed["reason"], &failed["message"]), (&json!("PodFailurePolicy"), &json!(message)));
    assert_eq!(job["status"]["failed"], 2);
    cluster.await_gone(&format!("{PODS}/{}", pods[1])).await;
    no_pod_is_held(&cluster, "j").await;
    told(&cluster, "j", "PodFailurePolicy").await;
}

#[tokio::test]
async fn indexes_are_given_up_one_by_one() {
    let cluster = Cluster::new().await;
    let spec = json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimitPerIndex": 1});
    run(&cluster, "j", spec).await;
    for _ in 0..2 {
        let names = running(&cluster, "j", 2).await;
        let second = names.iter().find(|n| n.starts_with("j-1-")).unwrap();
        ends(&cluster, second, 1).await;
    }
    let left = running(&cluster, "j", 1).await;
    let pod = cluster.get(&format!("{PODS}/{}", left[0])).await.json();
    assert_eq!((&pod["metadata"]["annotations"][INDEX], &pod["metadata"]["labels"][INDEX]), (&json!("0"), &json!("0")));
    ends(&cluster, &left[0], 0).await;
    let job = becomes(&cluster, "j", "Failed").await;
    let status = &job["status"];
    assert_eq!((&status["completedIndexes"], &status["failedIndexes"]), (&json!("0"), &json!("1")), "{status}");
    assert_eq!((&status["succeeded"], &status["failed"]), (&json!(1), &json!(2)), "{status}");
}

#[tokio::test]
async fn a_job_is_suspended_changed_and_resumed() {
    let cluster = Cluster::new().await;
    run(&cluster, "j", json!({"completions": 1})).await;
    running(&cluster, "j", 1).await;
    let uri = format!("{JOBS}/j");
    cluster.patched(&uri, MERGE, &json!({"spec": {"suspend": true}})).await;
    let job = becomes(&cluster, "j", "Suspended").await;
    assert_eq!(job["status"]["startTime"], Value::Null);
    wait_for("no pods", async || pods(&cluster, "j").await.is_empty().then_some(())).await;
    let selector = json!({"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}});
    cluster.await_object(&uri, |j| j["status"]["active"].is_null()).await;
    cluster.patched(&uri, MERGE, &selector).await;
    cluster.patched(&uri, MERGE, &json!({"spec": {"suspend": false}})).await;
    let pod = running(&cluster, "j", 1).await.remove(0);
    let pod = cluster.get(&format!("{PODS}/{pod}")).await.json();
    assert_eq!(pod["spec"]["nodeSelector"], json!({"disk": "ssd"}));
    told(&cluster, "j", "Suspended").await;
    told(&cluster, "j", "Resumed").await;
}

#[tokio::test]
async fn a_success_policy_ends_the_rest_and_pods_of_a_job_that_is_gone_go_too() {
    let cluster = Cluster::new().await;
    let policy = json!({"rules": [{"succeededIndexes": "1"}]});
    run(
        &cluster,
        "j",
        json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3, "successPolicy": policy}),
    )
    .await;
    let names = running(&cluster, "j", 3).await;
    ends(&cluster, names.iter().find(|n| n.starts_with("j-1-")).unwrap(), 0).await;
    let job = becomes(&cluster, "j", "Complete").await;
    assert_eq!((&job["status"]["succeeded"], &job["status"]["failed"]), (&json!(1), &Value::Null));
    run(&cluster, "k", json!({"completions": 2, "parallelism": 2})).await;
    running(&cluster, "k", 2).await;
    cluster.deleted(&format!("{JOBS}/k"), &json!({"propagationPolicy": "Background"})).await;
    wait_for("no pods", async || pods(&cluster, "k").await.is_empty().then_some(())).await;
    run(&cluster, "l", json!({"completions": 1})).await;
    running(&cluster, "l", 1).await;
    cluster.deleted(&format!("{JOBS}/l"), &json!({"propagationPolicy": "Foreground"})).await;
    cluster.await_gone(&format!("{JOBS}/l")).await;
    assert!(pods(&cluster, "l").await.is_empty());
}

#[tokio::test]
async fn a_job_goes_when_its_time_to_live_is_over() {
    let cluster = Cluster::new().await;
    run(&cluster, "j", json!({"ttlSecondsAfterFinished": 0})).await;
    ends(&cluster, &running(&cluster, "j", 1).await[0], 0).await;
    cluster.await_gone(&format!("{JOBS}/j")).await;
    assert!(pods(&cluster, "j").await.is_empty());
}

#[tokio::test]
async fn a_cron_job_starts_jobs_and_knows_which_run() {
    let cluster = Cluster::new().await;
    let template = json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "c:1"}]}}}});
    let spec = json!({"schedule": "@every 1s", "concurrencyPolicy": "Forbid", "jobTemplate": template});
    let made = cluster.made(CRON_JOBS, &json!({"metadata": {"name": "c"}, "spec": spec})).await;
    let uri = format!("{CRON_JOBS}/c");
    let active = |c: &Value| c["status"]["active"].as_array().is_some_and(|a| a.len() == 1);
    let cron_job = cluster.await_object(&uri, active).await;
    assert!(cron_job["status"]["lastScheduleTime"].is_string());
    let name = cron_job["status"]["active"][0]["name"].as_str().unwrap().to_owned();
    let job = cluster.get(&format!("{JOBS}/{name}")).await.json();
    assert_eq!(job["metadata"]["ownerReferences"][0]["uid"], made["metadata"]["uid"]);
    assert!(job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"].is_string());
    cluster.patched(&uri, MERGE, &json!({"spec": {"suspend": true}})).await;
    ends(&cluster, &running(&cluster, &name, 1).await[0], 0).await;
    let done = |c: &Value| c["status"]["lastSuccessfulTime"].is_string() && c["status"]["active"].is_null();
    cluster.await_object(&uri, done).await;
    told(&cluster, "c", "SuccessfulCreate").await;
    told(&cluster, "c", "SawCompletedJob").await;
    // What it keeps goes with the limit.
    cluster.patched(&uri, MERGE, &json!({"spec": {"successfulJobsHistoryLimit": 0}})).await;
    cluster.await_gone(&format!("{JOBS}/{name}")).await;
}
