//! Several controllers that want the same pods: each keeps its own, and nobody's else.

use super::*;
use crate::conformance::Cluster;

fn labels() -> Value {
    json!({"app": "a"})
}

#[tokio::test(start_paused = true)]
async fn six_controllers_of_one_selector_keep_each_its_own() {
    let cluster = Cluster::new().await;
    node(&cluster, "n").await;
    let map = cluster.made(&format!("{NAMESPACE}/configmaps"), &json!({"metadata": {"name": "m"}})).await;
    let mut foreign = template(&labels(), &json!({}));
    foreign["metadata"]["name"] = "foreign".into();
    foreign["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "m", "uid": uid(&map), "controller": true}]);
    let foreign = cluster.made(PODS, &foreign).await;
    let (three, none) = (json!({"replicas": 3}), json!({}));
    let parallel = json!({"replicas": 3, "serviceName": "s", "podManagementPolicy": "Parallel"});
    let job = json!({"manualSelector": true, "parallelism": 3, "completions": 3,
        "template": {"spec": {"restartPolicy": "Never"}}});
    let mut all = Vec::new();
    for (uri, name, more, count) in [
        (format!("{APPS}/replicasets"), "r1", &three, 3),
        (format!("{APPS}/replicasets"), "r2", &three, 3),
        (format!("{APPS}/statefulsets"), "s", &parallel, 3),
        (format!("{APPS}/daemonsets"), "d", &none, 1),
        (format!("{BATCH}/jobs"), "j", &job, 3),
    ] {
        let object = made(&cluster, &uri, name, &labels(), more).await;
        let pods = has_pods(&cluster, &object, count).await;
        all.push((uri, object, pods));
    }
    let uri = format!("{NAMESPACE}/replicationcontrollers");
    let spec = json!({"replicas": 3, "selector": labels(), "template": template(&labels(), &json!({}))});
    let object = cluster.made(&uri, &json!({"metadata": {"name": "rc"}, "spec": spec})).await;
    let pods = has_pods(&cluster, &object, 3).await;
    all.push((uri, object, pods));
    is_quiet(&cluster).await;
    for (_, object, pods) in &all {
        assert_eq!(pods_of(&cluster, object).await, *pods, "{}", object["metadata"]["name"]);
    }
    // A pod that nobody owns is taken by one of them, which has one too many then: of its own.
    let mut orphan = template(&labels(), &json!({}));
    orphan["metadata"]["name"] = "orphan".into();
    cluster.made(PODS, &orphan).await;
    is_quiet(&cluster).await;
    let owned: usize = cluster.items(PODS).await.iter().filter(|p| controller(p).is_some()).count();
    assert!(owned == 17 || owned == 18, "{owned}: a DaemonSet counts those on its nodes only");
    // One after the other goes, with its own.
    while let Some((uri, object, _)) = all.pop() {
        let name = object["metadata"]["name"].as_str().unwrap();
        cluster.deleted(&format!("{uri}/{name}"), &json!({"propagationPolicy": "Background"})).await;
        has_pods(&cluster, &object, 0).await;
        for (_, other, _) in &all {
            let left = pods_of(&cluster, other).await.len();
            let wanted = if other["kind"] == "DaemonSet" { 1 } else { 3 };
            assert!(left >= wanted, "{}: {left}", other["metadata"]["name"]);
        }
    }
    assert_eq!(uid(&cluster.get(&format!("{PODS}/foreign")).await.json()), uid(&foreign));
}

#[tokio::test(start_paused = true)]
async fn deployments_leave_the_sets_of_others_alone() {
    let cluster = Cluster::new().await;
    let uri = format!("{APPS}/deployments");
    let sets = format!("{APPS}/replicasets");
    let narrow = json!({"app": "a", "tier": "x"});
    let two = json!({"replicas": 2});
    // The first selects the pods and the sets of the second and third, which are the same but for their names.
    for (name, labels) in [("wide", &labels()), ("one", &narrow), ("two", &narrow)] {
        made(&cluster, &uri, name, labels, &two).await;
        cluster.await_object(&format!("{uri}/{name}"), |d| d["status"]["replicas"] == 2).await;
    }
    is_quiet(&cluster).await;
    let before = cluster.items(&sets).await;
    assert_eq!(before.len(), 3);
    // A roll-out of one of them.
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "c:2"}]}}}});
    cluster.patched(&format!("{uri}/one"), MERGE, &image).await;
    cluster.await_object(&format!("{uri}/one"), |d| d["status"]["updatedReplicas"] == 1).await;
    is_quiet(&cluster).await;
    let after = cluster.items(&sets).await;
    assert_eq!(after.len(), 4);
    let others = |sets: &[Value]| -> Vec<Value> {
        let of = |s: &&Value| !s["metadata"]["name"].as_str().unwrap().starts_with("one-");
        sets.iter().filter(of).map(|s| json!([s["metadata"]["uid"], s["spec"], s["status"]])).collect()
    };
    assert_eq!(others(&before), others(&after));
    cluster.deleted(&format!("{uri}/wide"), &json!({"propagationPolicy": "Foreground"})).await;
    cluster.await_gone(&format!("{uri}/wide")).await;
    is_quiet(&cluster).await;
    assert_eq!(cluster.items(&sets).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_stays_with_its_pod() {
    let cluster = Cluster::new().await;
    let mut pod = template(&labels(), &json!({}));
    pod["metadata"] = json!({"name": "s-0", "labels": {"app": "another"}});
    let pod = cluster.made(PODS, &pod).await;
    let before = Requests::so_far(&cluster).await;
    made(&cluster, &format!("{APPS}/statefulsets"), "s", &labels(), &json!({"replicas": 2, "serviceName": "s"})).await;
    let why = "create Pod s-0 in StatefulSet s failed error: pods \"s-0\" already exists";
    assert_eq!(told(&cluster, "s", "FailedCreate").await, why);
    tokio::time::sleep(HOUR).await;
    let tried = Requests::since(&cluster, &before).await.of("CREATE pods");
    assert!((10..TRIES).contains(&tried), "{tried}");
    is_almost_quiet(&cluster, &["CREATE pods"]).await;
    let left = cluster.items(PODS).await;
    assert_eq!((left.len(), uid(&left[0])), (1, uid(&pod)));
    assert_eq!(left[0]["metadata"]["ownerReferences"], Value::Null);
}
