//! The life of an object of each kind of workload, and of what the scheduler goes by: what the API owes to them. What
//! their controllers make of them is shown with pods that run, in `cluster::apps`.

use serde_json::{Value, json};

use super::kinds::Kind;
use super::{Cluster, MERGE, STRATEGIC, names};
use crate::Server;

const REPLICAS: (&str, i64, i64) = ("/spec/replicas", 2, 3);

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "c:1"}]}})
}

/// A workload with a selector, and with more in its spec.
fn set(kind: &str, more: &Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": "a"}}, "template": template()});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "apps/v1", "kind": kind, "spec": spec})
}

fn replicas() -> (&'static str, Value, Value) {
    let (at, first, second) = REPLICAS;
    (at, json!(first), json!(second))
}

/// Reads, replaces and patches the scale; the spec follows.
async fn scaled(server: &Server, at: &str) {
    let scale = format!("{at}/scale");
    let mut read = server.get(&scale).await.json();
    let wanted = server.get(at).await.json()["spec"]["replicas"].clone();
    assert_eq!((&read["kind"], &read["spec"]["replicas"]), (&json!("Scale"), &wanted));
    read["spec"]["replicas"] = json!(4);
    assert_eq!(server.replaced(&scale, &read).await["spec"]["replicas"], 4);
    assert_eq!(server.get(at).await.json()["spec"]["replicas"], 4);
    assert_eq!(server.patched(&scale, MERGE, &json!({"spec": {"replicas": 5}})).await["spec"]["replicas"], 5);
    assert_eq!(server.get(&scale).await.json()["spec"]["replicas"], 5);
}

async fn with_status_and_scale(kind: Kind) {
    let server = Server::new().await;
    let at = kind.live(&server).await;
    let updated = kind.status(&server, &at).await;
    assert_eq!(server.get(&at).await.json()["status"], updated["status"]);
    scaled(&server, &at).await;
    kind.end(&server, &at).await;
}

#[tokio::test]
async fn deployments() {
    with_status_and_scale(Kind {
        group: "apps",
        resources: &["deployments", "deployments/status", "deployments/scale"],
        object: set("Deployment", &json!({})),
        field: replicas(),
    })
    .await;
}

#[tokio::test]
async fn replica_sets() {
    with_status_and_scale(Kind {
        group: "apps",
        resources: &["replicasets", "replicasets/status", "replicasets/scale"],
        object: set("ReplicaSet", &json!({})),
        field: replicas(),
    })
    .await;
}

#[tokio::test]
async fn stateful_sets() {
    with_status_and_scale(Kind {
        group: "apps",
        resources: &["statefulsets", "statefulsets/status", "statefulsets/scale"],
        object: set("StatefulSet", &json!({"serviceName": "a"})),
        field: replicas(),
    })
    .await;
}

#[tokio::test]
async fn daemon_sets() {
    let server = Server::new().await;
    let kind = Kind {
        group: "apps",
        resources: &["daemonsets", "daemonsets/status"],
        object: set("DaemonSet", &json!({})),
        field: ("/spec/minReadySeconds", json!(1), json!(2)),
    };
    let at = kind.live(&server).await;
    let updated = kind.status(&server, &at).await;
    assert_eq!(server.get(&at).await.json()["status"], updated["status"]);
    kind.end(&server, &at).await;
}

#[tokio::test]
async fn jobs() {
    let server = Server::new().await;
    let mut template = template();
    template["spec"]["restartPolicy"] = "Never".into();
    let kind = Kind {
        group: "batch",
        resources: &["jobs", "jobs/status"],
        object: json!({"apiVersion": "batch/v1", "kind": "Job", "spec": {"suspend": true, "template": template}}),
        field: ("/spec/parallelism", json!(2), json!(3)),
    };
    let at = kind.live(&server).await;
    let found = server.items("/apis/batch/v1/jobs?labelSelector=of%3Dconformance").await;
    assert_eq!(found.len(), 3, "of all namespaces");
    kind.status(&server, &at).await;
    kind.end(&server, &at).await;
}

#[tokio::test]
async fn cron_jobs() {
    let server = Server::new().await;
    let mut template = template();
    template["spec"]["restartPolicy"] = "OnFailure".into();
    let kind = Kind {
        group: "batch",
        resources: &["cronjobs", "cronjobs/status"],
        object: json!({"apiVersion": "batch/v1", "kind": "CronJob", "spec": {"schedule": "* */1 * * ?",
            "concurrencyPolicy": "Allow", "jobTemplate": {"spec": {"template": template}}}}),
        field: ("/spec/schedule", json!("*/1 * * * ?"), json!("*/2 * * * ?")),
    };
    let at = kind.live(&server).await;
    let status = format!("{at}/status");
    let last = |time: &str| json!({"status": {"lastScheduleTime": time}});
    let first = server.patched(&status, MERGE, &last("2026-01-01T00:00:00Z")).await;
    assert_eq!(first["status"]["lastScheduleTime"], "2026-01-01T00:00:00Z");
    let mut read = server.get(&status).await.json();
    read["status"] = last("2026-01-02T00:00:00Z")["status"].clone();
    assert_eq!(server.replaced(&status, &read).await["status"]["lastScheduleTime"], "2026-01-02T00:00:00Z");
    assert_eq!(server.get(&at).await.json()["status"], read["status"]);
    kind.end(&server, &at).await;
}

#[tokio::test]
async fn disruption_budgets() {
    let server = Server::new().await;
    let kind = Kind {
        group: "policy",
        resources: &["poddisruptionbudgets", "poddisruptionbudgets/status"],
        object: json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}}),
        field: ("/spec/minAvailable", json!(2), json!(3)),
    };
    let at = kind.live(&server).await;
    assert_eq!(server.items("/apis/policy/v1/poddisruptionbudgets").await.len(), 3, "of all namespaces");
    let status = format!("{at}/status");
    let counted = json!({"status": {"expectedPods": 1, "disruptionsAllowed": 1, "observedGeneration": 3}});
    assert_eq!(server.patched(&status, MERGE, &counted).await["status"]["disruptionsAllowed"], 1);
    let mut read = server.get(&status).await.json();
    read["status"]["disruptedPods"] = json!({"p": "2026-01-01T00:00:00Z"});
    assert_eq!(server.replaced(&status, &read).await["status"], read["status"]);
    kind.status(&server, &at).await;
    kind.end(&server, &at).await;
}

/// Revisions that a controller has written, and one by hand.
#[tokio::test]
async fn controller_revisions() {
    const SETS: &str = "/apis/apps/v1/namespaces/default/daemonsets";
    const REVISIONS: &str = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let cluster = Cluster::new().await;
    let mut set = set("DaemonSet", &json!({}));
    set["metadata"] = json!({"name": "d"});
    cluster.made(SETS, &set).await;
    let mine = format!("{REVISIONS}?labelSelector=app%3Da");
    let count = |expect: usize| {
        let mine = &mine;
        let cluster = &cluster;
        super::wait_for("the revisions", async move || {
            let found = cluster.items(mine).await;
            (found.len() == expect).then_some(found)
        })
    };
    let first = count(1).await.remove(0);
    let at = format!("{REVISIONS}/{}", super::name(&first));
    let patched = cluster.patched(&at, STRATEGIC, &json!({"metadata": {"labels": {"first": "patched"}}})).await;
    assert_eq!(patched["metadata"]["labels"]["first"], "patched");

    let mut second = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "data": first["data"],
        "metadata": {"name": "d-by-hand", "labels": first["metadata"]["labels"],
            "ownerReferences": first["metadata"]["ownerReferences"]}, "revision": 2});
    cluster.made(REVISIONS, &second).await;
    count(2).await;
    cluster.deleted(&at, &json!({})).await;
    count(1).await;
    second = cluster.get(&format!("{REVISIONS}/d-by-hand")).await.json();
    second["metadata"]["labels"]["second"] = "updated".into();
    let updated = cluster.replaced(&format!("{REVISIONS}/d-by-hand"), &second).await;
    assert_eq!(updated["metadata"]["labels"]["second"], "updated");

    let patch = json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 12}}}});
    cluster.patched(&format!("{SETS}/d"), MERGE, &patch).await;
    count(2).await;
    cluster.deleted(&format!("{REVISIONS}?labelSelector=second%3Dupdated"), &json!({})).await;
    let last = count(1).await.remove(0);
    assert_eq!(last["revision"], 3);
}

#[tokio::test]
async fn a_replication_controller_lives() {
    const CONTROLLERS: &str = "/api/v1/namespaces/default/replicationcontrollers";
    let cluster = Cluster::new().await;
    let object = json!({"apiVersion": "v1", "kind": "ReplicationController",
        "metadata": {"name": "r", "labels": {"of": "conformance"}},
        "spec": {"replicas": 1, "selector": {"app": "a"}, "template": template()}});
    cluster.made(CONTROLLERS, &object).await;
    let at = format!("{CONTROLLERS}/r");
    cluster.await_object(&at, |r| r["status"]["replicas"] == 1).await;
    let labelled = cluster.patched(&at, STRATEGIC, &json!({"metadata": {"labels": {"a": "patched"}}})).await;
    assert_eq!(labelled["metadata"]["labels"]["a"], "patched");
    let status = json!({"status": {"readyReplicas": 0, "availableReplicas": 0}});
    assert_eq!(cluster.patched(&format!("{at}/status"), MERGE, &status).await["metadata"]["name"], "r");
    scaled(&cluster, &at).await;
    cluster.await_object(&at, |r| r["status"]["replicas"] == 5).await;
    let mut read = cluster.get(&at).await.json();
    read["spec"]["replicas"] = json!(2);
    // Its status may have gone on meanwhile: an update without a revision overwrites.
    read["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    cluster.replaced(&at, &read).await;
    cluster.await_object(&at, |r| r["status"]["replicas"] == 2).await;
    assert_eq!(names(&cluster.items("/api/v1/replicationcontrollers?labelSelector=of%3Dconformance").await), ["r"]);
    cluster.deleted(&format!("{CONTROLLERS}?labelSelector=of%3Dconformance"), &json!({})).await;
    cluster.await_gone(&at).await;
}

/// A quota has room for two pods: the third is told in a condition, which goes when it is no longer wanted.
#[tokio::test]
async fn what_exceeds_the_quota_is_told() {
    const SPACE: &str = "/api/v1/namespaces/default";
    let cluster = Cluster::new().await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"pods": "2"}}});
    cluster.made(&format!("{SPACE}/resourcequotas"), &quota).await;
    cluster.await_object(&format!("{SPACE}/resourcequotas/q"), |q| q["status"]["hard"]["pods"] == "2").await;
    let controller = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "r"},
        "spec": {"replicas": 3, "selector": {"app": "a"}, "template": template()}});
    cluster.made(&format!("{SPACE}/replicationcontrollers"), &controller).await;
    let at = format!("{SPACE}/replicationcontrollers/r");
    let fails = |r: &Value| {
        let conditions = r["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|c| c["type"] == "ReplicaFailure" && c["status"] == "True")
    };
    let told = cluster.await_object(&at, fails).await;
    let message = told["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"), "{message}");
    cluster.patched(&at, MERGE, &json!({"spec": {"replicas": 2}})).await;
    cluster.await_object(&at, |r| !fails(r)).await;
}

#[tokio::test]
async fn a_limit_range_fills_pods_in_and_refuses_them() {
    const SPACE: &str = "/api/v1/namespaces/default";
    let server = crate::subresources::with_account().await;
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [{
        "type": "Container", "min": {"cpu": "50m", "memory": "100Mi"}, "max": {"cpu": "500m", "memory": "500Mi"},
        "default": {"cpu": "500m", "memory": "500Mi"}, "defaultRequest": {"cpu": "100m", "memory": "200Mi"},
        "maxLimitRequestRatio": {"cpu": "10"}}]}});
    let made = server.made(&format!("{SPACE}/limitranges"), &range).await;
    assert_eq!(made["spec"], range["spec"]);
    let pod = |name: &str, resources: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": "c:1", "resources": resources}]}})
    };
    let filled = server.made(&format!("{SPACE}/pods"), &pod("bare", json!({}))).await;
    let expect = json!({"limits": {"cpu": "500m", "memory": "500Mi"}, "requests": {"cpu": "100m", "memory": "200Mi"}});
    assert_eq!(filled["spec"]["containers"][0]["resources"], expect);
    let partly = server.made(&format!("{SPACE}/pods"), &pod("partly", json!({"limits": {"cpu": "300m"}}))).await;
    let expect = json!({"limits": {"cpu": "300m", "memory": "500Mi"}, "requests": {"cpu": "300m", "memory": "200Mi"}});
    assert_eq!(partly["spec"]["containers"][0]["resources"], expect);

    let (less, more) = (json!({"requests": {"cpu": "10m"}}), json!({"limits": {"cpu": "600m"}}));
    for (resources, why) in
        [(less, "minimum cpu usage per Container is 50m"), (more, "maximum cpu usage per Container")]
    {
        let refused = server.post(&format!("{SPACE}/pods"), &pod("x", resources)).await;
        assert!(refused.code == 403 && refused.message().contains(why), "{}", refused.text);
    }
    let mut changed = server.get(&format!("{SPACE}/limitranges/l")).await.json();
    changed["spec"]["limits"][0]["min"] = json!({"cpu": "9m", "memory": "100Mi"});
    server.replaced(&format!("{SPACE}/limitranges/l"), &changed).await;
    let ratio = json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "50m"}});
    server.made(&format!("{SPACE}/pods"), &pod("small", ratio)).await;
    server.deleted(&format!("{SPACE}/limitranges/l"), &json!({})).await;
    server.made(&format!("{SPACE}/pods"), &pod("large", json!({"limits": {"cpu": "600m"}}))).await;
}

#[tokio::test]
async fn limit_ranges_are_found_in_all_namespaces_and_deleted_together() {
    let server = Server::new().await;
    let other = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}});
    server.made("/api/v1/namespaces", &other).await;
    let range = |name: &str| {
        json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": name, "labels": {"of": "conformance"}},
            "spec": {"limits": [{"type": "Container", "max": {"cpu": "500m"}}]}})
    };
    for namespace in ["default", "other"] {
        server.made(&format!("/api/v1/namespaces/{namespace}/limitranges"), &range("l")).await;
    }
    let all = "/api/v1/limitranges?labelSelector=of%3Dconformance";
    assert_eq!(server.items(all).await.len(), 2);
    let patch = json!({"metadata": {"labels": {"l": "patched"}}, "spec": {"limits": [{"type": "Container",
        "min": {"cpu": "25m"}}]}});
    let patched = server.patched("/api/v1/namespaces/default/limitranges/l", STRATEGIC, &patch).await;
    assert_eq!(patched["metadata"]["labels"]["l"], "patched");
    assert_eq!(patched["spec"]["limits"][0]["min"], json!({"cpu": "25m"}));
    server.deleted("/api/v1/namespaces/default/limitranges?labelSelector=l%3Dpatched", &json!({})).await;
    let left = server.items(all).await;
    assert_eq!((left.len(), &left[0]["metadata"]["namespace"]), (1, &json!("other")));
}

#[tokio::test]
async fn priority_classes_keep_their_value() {
    const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let server = Server::new().await;
    for (name, value) in [("p1", 1), ("p2", 2)] {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value});
        server.made(CLASSES, &class).await;
    }
    let found = server.items(CLASSES).await;
    assert!(["p1", "p2"].iter().all(|name| names(&found).contains(name)), "{found:?}");
    let at = format!("{CLASSES}/p1");
    let described = server.patched(&at, MERGE, &json!({"description": "patched", "globalDefault": false})).await;
    assert_eq!(described["description"], "patched");
    let mut read = server.get(&at).await.json();
    read["description"] = "updated".into();
    assert_eq!(server.replaced(&at, &read).await["description"], "updated");
    read = server.get(&at).await.json();
    read["value"] = json!(3);
    let refused = [server.put(&at, &read).await, server.patch(&at, MERGE, &json!({"value": 4})).await];
    for answer in refused {
        assert!(answer.code == 422 && answer.text.contains("value"), "{}", answer.text);
    }
    assert_eq!(server.get(&at).await.json()["value"], 1);
}
