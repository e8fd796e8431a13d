//! What others were built on is gone.

use super::*;
use crate::conformance::Cluster;

fn labels() -> Value {
    json!({"app": "a"})
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_whose_target_is_gone_says_so() {
    let cluster = Cluster::new().await;
    let deployments = format!("{APPS}/deployments");
    made(&cluster, &deployments, "d", &labels(), &json!({"replicas": 1})).await;
    cluster.await_object(&format!("{deployments}/d"), |d| d["status"]["unavailableReplicas"] == 1).await;
    let uri = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let spec =
        json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "maxReplicas": 3});
    let made = cluster.made(uri, &json!({"metadata": {"name": "h"}, "spec": spec})).await;
    cluster.deleted(&format!("{deployments}/d"), &json!({"propagationPolicy": "Background"})).await;
    let able = wait_for("AbleToScale", async || {
        let status = cluster.get(&format!("{uri}/h")).await.json()["status"].clone();
        let conditions = status["conditions"].as_array()?;
        conditions.iter().find(|c| c["type"] == "AbleToScale" && c["status"] == "False").cloned()
    })
    .await;
    assert_eq!(able["reason"], "FailedGetScale");
    let why = "deployments.apps \"d\" not found";
    let said = format!("the HPA controller was unable to get the target's current scale: {why}");
    assert_eq!(able["message"], said);
    assert_eq!(told(&cluster, "h", "FailedGetScale").await, why);
    tokio::time::sleep(HOUR).await;
    let hour = an_hour(&cluster).await;
    let others: Vec<_> = hour.writes().into_iter().filter(|(what, _)| !what.ends_with(" events")).collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(uid(&cluster.get(&format!("{uri}/h")).await.json()), uid(&made));
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_needs_no_service_to_make_its_pods() {
    let cluster = Cluster::new().await;
    let spec = json!({"replicas": 2, "serviceName": "none", "podManagementPolicy": "Parallel"});
    let set = made(&cluster, &format!("{APPS}/statefulsets"), "s", &labels(), &spec).await;
    has_pods(&cluster, &set, 2).await;
    is_quiet(&cluster).await;
    assert_eq!(cluster.get(&format!("{PODS}/s-0")).await.json()["spec"]["subdomain"], "none");
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_selects_nothing_says_so() {
    let cluster = Cluster::new().await;
    let uri = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let spec = json!({"minAvailable": i32::MAX, "selector": {"matchLabels": labels()}});
    cluster.made(uri, &json!({"metadata": {"name": "b"}, "spec": spec})).await;
    assert_eq!(told(&cluster, "b", "NoPods").await, "No matching pods found");
    let seen = cluster.await_object(&format!("{uri}/b"), |b| b["status"]["observedGeneration"] == 1).await;
    let status = &seen["status"];
    assert_eq!((&status["expectedPods"], &status["disruptionsAllowed"]), (&json!(0), &json!(0)), "{status}");
    assert_eq!(status["conditions"][0]["reason"], "InsufficientPods", "{status}");
    is_quiet(&cluster).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_account_is_deleted_makes_no_more_pods_and_keeps_those_it_has() {
    let cluster = Cluster::new().await;
    let accounts = format!("{NAMESPACE}/serviceaccounts");
    cluster.made(&accounts, &json!({"metadata": {"name": "account"}})).await;
    let pod = json!({"restartPolicy": "Never", "serviceAccountName": "account"});
    let spec = json!({"manualSelector": true, "parallelism": 1, "completions": 2, "template": {"spec": pod}});
    let uri = format!("{BATCH}/jobs");
    let job = made(&cluster, &uri, "j", &labels(), &spec).await;
    let pods = has_pods(&cluster, &job, 1).await;
    cluster.deleted(&format!("{accounts}/account"), &json!({})).await;
    cluster.patched(&format!("{uri}/j"), MERGE, &json!({"spec": {"parallelism": 2}})).await;
    let why = told(&cluster, "j", "FailedCreate").await;
    assert!(
        why.ends_with("error looking up service account default/account: serviceaccount \"account\" not found"),
        "{why}"
    );
    is_almost_quiet(&cluster, &["CREATE pods"]).await;
    assert_eq!(pods_of(&cluster, &job).await, pods);
}

#[tokio::test(start_paused = true)]
async fn claims_volumes_and_maps_of_pods_and_claims_that_are_gone() {
    let cluster = Cluster::new().await;
    let (volumes, claims, maps) = (
        "/api/v1/persistentvolumes".to_owned(),
        format!("{NAMESPACE}/persistentvolumeclaims"),
        format!("{NAMESPACE}/configmaps"),
    );
    let spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/v"},
        "persistentVolumeReclaimPolicy": "Retain"});
    let volume = cluster.made(&volumes, &json!({"metadata": {"name": "v"}, "spec": spec})).await;
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": "v",
        "resources": {"requests": {"storage": "1Gi"}}});
    cluster.made(&claims, &json!({"metadata": {"name": "c"}, "spec": spec})).await;
    cluster.await_object(&format!("{claims}/c"), |c| c["status"]["phase"] == "Bound").await;
    cluster.made(&maps, &json!({"metadata": {"name": "m"}})).await;
    let mounted = json!({"nodeName": "n", "volumes": [{"name": "c", "persistentVolumeClaim": {"claimName": "c"}},
        {"name": "m", "configMap": {"name": "m"}}]});
    let mut pod = template(&labels(), &mounted);
    pod["metadata"]["name"] = "p".into();
    // Its node exists: nobody collects it.
    node(&cluster, "n").await;
    let pod = cluster.made(PODS, &pod).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.deleted(&format!("{claims}/c"), &json!({})).await;
    cluster.deleted(&format!("{maps}/m"), &json!({})).await;
    is_quiet(&cluster).await;
    let kept = cluster.get(&format!("{claims}/c")).await.json();
    assert_eq!(kept["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    assert!(kept["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(uid(&cluster.get(&format!("{PODS}/p")).await.json()), uid(&pod));
    // With its last pod the claim goes, and the volume stays with what is on it.
    cluster.deleted(&format!("{PODS}/p"), &json!({"gracePeriodSeconds": 0})).await;
    cluster.await_gone(&format!("{claims}/c")).await;
    let left = cluster.await_object(&format!("{volumes}/v"), |v| v["status"]["phase"] == "Released").await;
    assert_eq!(uid(&left), uid(&volume));
    is_quiet(&cluster).await;
}

#[tokio::test(start_paused = true)]
async fn orphans_of_a_deployment_go_on_while_they_are_scaled() {
    let cluster = Cluster::new().await;
    let (deployments, sets) = (format!("{APPS}/deployments"), format!("{APPS}/replicasets"));
    made(&cluster, &deployments, "d", &labels(), &json!({"replicas": 2})).await;
    cluster.await_object(&format!("{deployments}/d"), |d| d["status"]["unavailableReplicas"] == 2).await;
    let set = cluster.items(&sets).await.remove(0);
    let before = has_pods(&cluster, &set, 2).await;
    let uri = format!("{sets}/{}", set["metadata"]["name"].as_str().unwrap());
    cluster.deleted(&format!("{deployments}/d"), &json!({"propagationPolicy": "Orphan"})).await;
    cluster.patched(&uri, MERGE, &json!({"spec": {"replicas": 3}})).await;
    cluster.await_gone(&format!("{deployments}/d")).await;
    // The Deployment may have had the last word while it was there.
    cluster.await_object(&uri, |s| s["metadata"]["ownerReferences"].is_null()).await;
    cluster.patched(&uri, MERGE, &json!({"spec": {"replicas": 4}})).await;
    let after = has_pods(&cluster, &set, 4).await;
    assert!(after.is_superset(&before));
    is_quiet(&cluster).await;
    assert_eq!(uid(&cluster.get(&uri).await.json()), uid(&set));
    // Another of the same name and template takes it over.
    let next = made(&cluster, &deployments, "d", &labels(), &json!({"replicas": 4})).await;
    cluster.await_object(&uri, |s| controller(s) == Some(uid(&next))).await;
    is_quiet(&cluster).await;
    assert_eq!(pods_of(&cluster, &set).await, after);
}
