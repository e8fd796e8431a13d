//! Golden plans of ReplicaSets.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::client::request::{Class, Verb};
use crate::server::controllers::action::{Failure, Write};

fn set(replicas: i32, status: Value) -> Arc<ReplicaSet> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": { "name": "rs", "namespace": "ns", "uid": "rs", "generation": 1 },
            "spec": { "replicas": replicas, "selector": { "matchLabels": { "app": "a" } },
                "template": { "metadata": { "labels": { "app": "a" } }, "spec": { "containers": [] } } },
            "status": status,
        }))
        .unwrap(),
    )
}

/// `more` is merged over a ready pod that the set owns.
fn pod(name: &str, more: Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "ns", "uid": name, "labels": { "app": "a" },
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": true }] },
        "spec": { "nodeName": "n1", "containers": [] },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:00Z" }] },
    });
    json_patch::merge(&mut pod, &more);
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn show(actions: &[Action]) -> Vec<String> {
    let write = |w: &Write| match (w.request.verb, w.request.subresource) {
        (Verb::Create, _) => "create".to_owned(),
        (Verb::Delete, _) => format!("delete {}", w.request.name),
        (Verb::StrategicPatch, _) if w.request.body["metadata"]["ownerReferences"][0]["$patch"] == "delete" => {
            format!("release {}", w.request.name)
        }
        (Verb::StrategicPatch, _) => format!("adopt {}", w.request.name),
        (_, sub) => format!("{sub} {}", w.request.body["status"]["replicas"]),
    };
    actions
        .iter()
        .flat_map(|a| match a {
            Action::Write(w) => vec![write(w)],
            Action::SlowStart(all) => all.iter().map(write).collect(),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_replication_controller_is_seen_as_a_set() {
    let of = crate::server::controllers::stores::Controller::from(
        serde_json::from_value::<k8s_openapi::api::core::v1::ReplicationController>(json!({
            "metadata": { "name": "rc", "namespace": "ns", "uid": "rc", "generation": 3 },
            "spec": { "replicas": 2, "selector": { "app": "a" }, "minReadySeconds": 1,
                "template": { "metadata": { "labels": { "app": "a" } }, "spec": { "containers": [] } } },
            "status": { "replicas": 1, "readyReplicas": 1, "fullyLabeledReplicas": 1, "observedGeneration": 3 },
        }))
        .unwrap(),
    );
    let stores = Stores::new();
    stores.replication_controllers.put(of);
    let reference = json!([{ "apiVersion": "v1", "kind": "ReplicationController", "name": "rc", "uid": "rc",
        "controller": true, "blockOwnerDeletion": true }]);
    let owned = json!({ "metadata": { "ownerReferences": reference } });
    for one in [
        pod("a", owned.clone()),
        pod(
            "ends",
            json!({ "metadata": { "ownerReferences": reference,
        "deletionTimestamp": "2026-01-01T00:00:00Z" } }),
        ),
    ] {
        stores.pods.put(Arc::unwrap_or_clone(one));
    }
    let moment = Moment { now: "2026-01-02T00:00:00Z".parse().unwrap(), failure: None };
    let plan = ReplicationControllers.plan(&stores, &Name::new("ns", "rc"), moment);
    // One more pod, and what has become available.
    assert_eq!(show(&plan.actions), ["create", "status 1"]);
    let [Action::SlowStart(pods), Action::Write(status)] = &plan.actions[..] else { panic!("{plan:?}") };
    assert_eq!(pods[0].request.body["metadata"]["ownerReferences"], reference);
    assert_eq!(pods[0].report.as_ref().unwrap().component, "replication-controller");
    assert_eq!((status.request.resource.plural, status.request.subresource), ("replicationcontrollers", "status"));
    assert_eq!(status.request.body["status"]["availableReplicas"], 1);
    // Those that end are not counted, and so are nothing to write about.
    assert_eq!(status.request.body["status"]["terminatingReplicas"], Value::Null);
    assert!(ReplicaSets.plan(&stores, &Name::new("ns", "rc"), moment).actions.is_empty());
}

fn check(replicas: i32, status: Value, pods: &[Arc<Pod>], want: &[&str]) -> Plan {
    let set = set(replicas, status);
    let observed = Observed { of: ReplicaSets, siblings: vec![Arc::clone(&set)], set, pods: pods.to_vec() };
    let plan = plan(&observed, Moment { now: "2026-01-02T00:00:00Z".parse::<Timestamp>().unwrap(), failure: None });
    assert_eq!(show(&plan.actions), want);
    plan
}

#[test]
fn makes_and_removes_pods() {
    let settled = json!({ "replicas": 2, "fullyLabeledReplicas": 2, "readyReplicas": 2, "availableReplicas": 2, "observedGeneration": 1 });
    let two = [pod("a", json!({})), pod("b", json!({}))];
    check(2, json!({ "replicas": 0 }), &[], &["create", "create", "status 0"]);
    check(2, settled.clone(), &two, &[]);
    check(3, settled.clone(), &two, &["create"]);
    check(0, settled.clone(), &two, &["delete a", "delete b"]);
    let ending = pod("c", json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }));
    check(2, settled.clone(), &[two[0].clone(), two[1].clone(), ending], &["status 2"]);
    let failed = pod("c", json!({ "status": { "phase": "Failed" } }));
    check(2, settled.clone(), &[two[0].clone(), two[1].clone(), failed], &[]);
    let orphan = pod("o", json!({ "metadata": { "ownerReferences": null } }));
    check(3, settled.clone(), &[two[0].clone(), two[1].clone(), orphan], &["adopt o"]);
    let stray = pod("s", json!({ "metadata": { "labels": { "app": "b" } } }));
    check(2, settled, &[two[0].clone(), stray], &["release s"]);
}

#[test]
fn the_pods_missed_least_go_first() {
    let status = json!({ "replicas": 9, "fullyLabeledReplicas": 9, "readyReplicas": 6, "availableReplicas": 6, "observedGeneration": 1 });
    let unready = json!([{ "type": "Ready", "status": "False" }]);
    let pods = [
        pod(
            "z-old",
            json!({ "metadata": { "creationTimestamp": "2020-01-01T00:00:00Z" },
            "spec": { "nodeName": "n0" }, "status": { "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z" }] } }),
        ),
        pod("y-crowded", json!({})),
        pod("x-crowded", json!({})),
        pod(
            "restarted",
            json!({ "spec": { "nodeName": "n0" }, "status": { "containerStatuses": [
            { "name": "c", "ready": true, "restartCount": 3, "image": "", "imageID": "" }] } }),
        ),
        pod("cheap", json!({ "metadata": { "annotations": { "controller.kubernetes.io/pod-deletion-cost": "-1" } } })),
        pod("dear", json!({ "metadata": { "annotations": { "controller.kubernetes.io/pod-deletion-cost": "7" } } })),
        pod("unready", json!({ "status": { "conditions": unready } })),
        pod("pending", json!({ "status": { "phase": "Pending", "conditions": unready } })),
        pod(
            "unscheduled",
            json!({ "spec": { "nodeName": null }, "status": { "phase": "Pending", "conditions": unready } }),
        ),
    ];
    let want = [
        "delete unscheduled",
        "delete pending",
        "delete unready",
        "delete cheap",
        "delete x-crowded",
        "delete y-crowded",
        "delete restarted",
        "delete z-old",
        "delete dear",
    ];
    check(0, status, &pods, &want);
}

#[test]
fn waits_for_availability_and_reports_failures() {
    let mut waiting = (*set(1, json!({ "replicas": 1 }))).clone();
    waiting.spec.as_mut().unwrap().min_ready_seconds = Some(30);
    let set = Arc::new(waiting);
    let observed = Observed { of: ReplicaSets, siblings: vec![Arc::clone(&set)], set, pods: vec![pod("a", json!({}))] };
    let now = "2026-01-01T00:00:10Z".parse::<Timestamp>().unwrap();
    let plan = super::plan(&observed, Moment { now, failure: None });
    assert_eq!(plan.again, Some(std::time::Duration::from_secs(20)));
    let Action::Write(write) = &plan.actions[0] else { panic!() };
    assert_eq!(write.request.body["status"]["availableReplicas"], 0);

    let failure = Failure { class: Class::Permanent, message: "quota".into() };
    let observed = Observed { pods: vec![], ..observed };
    let plan = super::plan(&observed, Moment { now, failure: Some(&failure) });
    let Action::Write(write) = &plan.actions[0] else { panic!("the condition comes before the next try") };
    let condition = &write.request.body["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["reason"]), (&json!("ReplicaFailure"), &json!("FailedCreate")));
    assert!(matches!(plan.actions[1], Action::SlowStart(_)));
}
