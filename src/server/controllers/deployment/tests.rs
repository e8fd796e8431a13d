//! Golden plans of Deployments.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::client::request::Verb;
use crate::server::controllers::action::Action;

fn deployment(spec: Value, status: Value) -> Arc<Deployment> {
    let mut d = json!({
        "metadata": { "name": "d", "namespace": "ns", "uid": "d", "generation": 1,
            "annotations": { "deployment.kubernetes.io/revision": "1" } },
        "spec": { "replicas": 10, "selector": { "matchLabels": { "app": "a" } },
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } },
            "progressDeadlineSeconds": 600,
            "template": { "metadata": { "labels": { "app": "a" } }, "spec": { "containers": [{ "name": "c", "image": "new" }] } } },
        "status": { "conditions": [{ "type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated",
            "lastUpdateTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z" }] },
    });
    json_patch::merge(&mut d, &json!({ "spec": spec, "status": status }));
    Arc::new(serde_json::from_value(d).unwrap())
}

/// A ReplicaSet with that many pods wanted, made and available, sized for 10 of 13.
fn set(name: &str, image: &str, wanted: i32, made: i32, available: i32) -> Arc<ReplicaSet> {
    let revision = if image == "new" { "1" } else { "0" };
    Arc::new(
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "ns", "uid": name, "generation": 1, "labels": { "app": "a" },
                "creationTimestamp": if image == "new" { "2026-01-01T00:00:00Z" } else { "2025-01-01T00:00:00Z" },
                "annotations": { "deployment.kubernetes.io/revision": revision,
                    "deployment.kubernetes.io/desired-replicas": "10", "deployment.kubernetes.io/max-replicas": "13" },
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "d", "controller": true }] },
            "spec": { "replicas": wanted, "selector": { "matchLabels": { "app": "a" } },
                "template": { "metadata": { "labels": { "app": "a", "pod-template-hash": name } },
                    "spec": { "containers": [{ "name": "c", "image": image }] } } },
            "status": { "replicas": made, "readyReplicas": available, "availableReplicas": available, "observedGeneration": 1 },
        }))
        .unwrap(),
    )
}

fn plan_of(d: Arc<Deployment>, sets: &[Arc<ReplicaSet>], pods: &[Arc<Pod>]) -> Plan {
    let now = "2026-01-01T00:05:00Z".parse::<Timestamp>().unwrap();
    let observed = Observed { deployment: d, sets: sets.to_vec(), pods: pods.to_vec() };
    plan(&observed, Moment { now, failure: None })
}

/// Sizes that ReplicaSets get, creations and deletions; the status is looked at elsewhere.
fn check(d: Arc<Deployment>, sets: &[Arc<ReplicaSet>], want: &[&str]) {
    let plan = plan_of(d, sets, &[]);
    let mut got = Vec::new();
    for action in &plan.actions {
        let Action::Write(write) = action else { panic!("{action:?}") };
        let r = &write.request;
        match r.verb {
            Verb::Create => got.push(format!("create {}", r.body["spec"]["replicas"])),
            Verb::Delete => got.push(format!("delete {}", r.name)),
            _ if r.subresource == "status" => {}
            _ => got.push(format!("{} {}", r.name, r.body["spec"]["replicas"])),
        }
    }
    assert_eq!(got, want);
}

#[test]
fn rolling_update_steps() {
    let d = || deployment(json!({}), json!({}));
    check(d(), &[], &["create 10"]);
    check(d(), &[set("old", "old", 10, 10, 10)], &["create 3"]);
    check(d(), &[set("old", "old", 10, 10, 10), set("new", "new", 0, 0, 0)], &["new 3"]);
    check(d(), &[set("old", "old", 10, 10, 10), set("new", "new", 3, 3, 0)], &["old 8"]);
    check(d(), &[set("old", "old", 8, 8, 8), set("new", "new", 3, 3, 0)], &["new 5"]);
    check(d(), &[set("old", "old", 8, 8, 8), set("new", "new", 5, 5, 0)], &[]);
    check(d(), &[set("old", "old", 8, 8, 8), set("new", "new", 5, 5, 2)], &["old 6"]);
    // Old pods that serve nobody go although nothing new is available.
    check(d(), &[set("old", "old", 10, 10, 7), set("new", "new", 3, 3, 0)], &["old 8"]);
    check(d(), &[set("old", "old", 0, 0, 0), set("new", "new", 10, 10, 10)], &[]);
}

#[test]
fn resizing_in_the_middle_is_proportional() {
    let twenty = || deployment(json!({ "replicas": 20 }), json!({}));
    // 20 and 5 of surge over 8 and 5: each grows by its share, the larger takes the rest.
    check(twenty(), &[set("old", "old", 8, 8, 8), set("new", "new", 5, 5, 2)], &["old 15", "new 10"]);
    let five = || deployment(json!({ "replicas": 5 }), json!({}));
    check(five(), &[set("old", "old", 8, 8, 8), set("new", "new", 5, 5, 2)], &["old 4", "new 3"]);
    check(five(), &[set("new", "new", 10, 10, 10)], &["new 5"]);
    let none = || deployment(json!({ "replicas": 0 }), json!({}));
    check(none(), &[set("old", "old", 8, 8, 8), set("new", "new", 5, 5, 2)], &["old 0", "new 0"]);
}

/// Sums that no number can say count as the largest one; they wrapped.
#[test]
fn as_many_as_a_number_can_say() {
    let d = || deployment(json!({ "replicas": i32::MAX }), json!({}));
    check(d(), &[], &["create 2147483647"]);
    let sized = |mut set: Arc<ReplicaSet>, revision: i64| {
        let annotations = Arc::make_mut(&mut set).metadata.annotations.as_mut().unwrap();
        for kind in ["desired", "max"] {
            annotations.insert(format!("deployment.kubernetes.io/{kind}-replicas"), i32::MAX.to_string());
        }
        annotations.insert(sets::REVISION.into(), revision.to_string());
        set
    };
    let (old, new) = (set("old", "old", i32::MAX, i32::MAX, i32::MAX), set("new", "new", i32::MAX, i32::MAX, i32::MAX));
    check(d(), &[sized(old.clone(), 0), sized(new.clone(), 1)], &["old 1610612736"]);
    let half = || deployment(json!({ "replicas": i32::MAX / 2 }), json!({}));
    check(half(), &[sized(old.clone(), 0), sized(new.clone(), 1)], &["old 1342177279", "new 2147483647"]);
    // Whoever writes the annotations of a set by hand.
    check(d(), &[sized(old, i64::MAX)], &["create 0"]);
}

#[test]
fn a_refused_set_is_told_of_and_tried_again() {
    let observed = |status: Value| Observed { deployment: deployment(json!({}), status), sets: vec![], pods: vec![] };
    let now = "2026-01-01T00:05:00Z".parse::<Timestamp>().unwrap();
    let planned = |status: Value, class: Class| {
        let failure = crate::server::controllers::action::Failure { class, message: "no".into() };
        let plan = plan(&observed(status), Moment { now, failure: Some(&failure) });
        let Some(Action::Write(first)) = plan.actions.first() else { panic!("{plan:?}") };
        first.request.clone()
    };
    let told = planned(json!({}), Class::Permanent);
    let conditions = told.body["status"]["conditions"].as_array().unwrap();
    let progressing = conditions.iter().find(|c| c["type"] == "Progressing").unwrap();
    assert_eq!((&progressing["status"], &progressing["reason"]), (&json!("False"), &json!("ReplicaSetCreateError")));
    let message = progressing["message"].as_str().unwrap();
    assert!(message.starts_with("Failed to create new replica set \"d-") && message.ends_with("\": no"), "{message}");
    assert_eq!(planned(told.body["status"].clone(), Class::Permanent).verb, Verb::Create, "it is said once");
    assert_eq!(planned(json!({}), Class::Conflict).verb, Verb::Create, "what is seen again is no refusal");
}

#[test]
fn paused_only_scales() {
    let paused = |n: i32| deployment(json!({ "paused": true, "replicas": n }), json!({}));
    check(paused(10), &[set("old", "old", 10, 10, 10)], &[]);
    check(paused(3), &[set("old", "old", 10, 10, 10)], &["old 3"]);
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let d = || deployment(json!({ "strategy": { "type": "Recreate", "rollingUpdate": null } }), json!({}));
    // Recreate has no surge, so sizes are annotated 10 of 10: the sets here say 13 and are brought up to date too.
    check(d(), &[set("old", "old", 10, 10, 10)], &["old 0"]);
    check(d(), &[set("old", "old", 0, 4, 4)], &[]);
    check(d(), &[set("old", "old", 0, 0, 0)], &["create 10"]);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "p", "namespace": "ns", "deletionTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "old", "uid": "old", "controller": true }] },
        "status": { "phase": "Running" },
    }))
    .unwrap();
    let plan = plan_of(d(), &[set("old", "old", 0, 0, 0)], &[Arc::new(pod)]);
    assert!(
        plan.actions.iter().all(|a| matches!(a, Action::Write(w) if w.request.subresource == "status")),
        "still ending"
    );
}

#[test]
fn history_is_cut_when_complete() {
    let complete = json!({ "observedGeneration": 1, "replicas": 10, "updatedReplicas": 10, "availableReplicas": 10 });
    let d = deployment(json!({ "revisionHistoryLimit": 1 }), complete);
    let sets =
        [set("o1", "o1", 0, 0, 0), set("o2", "o2", 0, 0, 0), set("o3", "o3", 0, 1, 0), set("new", "new", 10, 10, 10)];
    check(d, &sets, &["delete o1", "delete o2"]);
}

#[test]
fn a_roll_out_that_has_ended_has_no_deadline() {
    let check = |reason: &str, updated: &str, again: Option<u64>| {
        let progressing =
            json!([{ "type": "Progressing", "status": "True", "reason": reason, "lastUpdateTime": updated }]);
        let d = deployment(
            json!({}),
            json!({ "updatedReplicas": 10, "replicas": 10, "readyReplicas": 9,
            "availableReplicas": 9, "conditions": progressing }),
        );
        let plan = plan_of(d, &[set("new", "new", 10, 10, 9)], &[]);
        assert_eq!(plan.again.map(|d| d.as_secs()), again, "{reason} at {updated}");
    };
    check("ReplicaSetUpdated", "2026-01-01T00:04:00Z", Some(541));
    // It is 00:05: a pod was lost long after the roll-out.
    check("NewReplicaSetAvailable", "2026-01-01T00:04:00Z", None);
    check("NewReplicaSetAvailable", "2025-12-31T23:55:00Z", None);
    check("NewReplicaSetAvailable", "2025-12-31T00:00:00Z", None);
}

#[test]
fn status_and_conditions() {
    let status = |plan: &Plan| {
        let write = plan.actions.iter().find_map(|a| match a {
            Action::Write(w) if w.request.subresource == "status" => Some(w.request.body["status"].clone()),
            _ => None,
        });
        write.expect("a status")
    };
    let reason = |s: &Value, kind: &str| {
        let all = s["conditions"].as_array().unwrap();
        let c = all.iter().find(|c| c["type"] == kind).unwrap();
        (
            c["status"].as_str().unwrap().to_owned(),
            c["reason"].as_str().unwrap().to_owned(),
            c["message"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let of = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    let p = plan_of(deployment(json!({}), json!({})), &[set("new", "new", 10, 10, 10)], &[]);
    let s = status(&p);
    assert_eq!(
        reason(&s, "Progressing"),
        of("True", "NewReplicaSetAvailable", "ReplicaSet \"new\" has successfully progressed.")
    );
    assert_eq!(reason(&s, "Available"), of("True", "MinimumReplicasAvailable", "Deployment has minimum availability."));
    assert_eq!((&s["updatedReplicas"], &s["unavailableReplicas"]), (&json!(10), &json!(0)));

    let p = plan_of(deployment(json!({}), json!({})), &[set("new", "new", 10, 4, 1)], &[]);
    let s = status(&p);
    assert_eq!(reason(&s, "Progressing").1, "ReplicaSetUpdated");
    assert_eq!(
        reason(&s, "Available"),
        of("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    );
    assert!(p.again.is_some(), "the deadline is waited for");

    let unmoved = json!({ "observedGeneration": 1, "replicas": 4, "updatedReplicas": 4, "readyReplicas": 1, "availableReplicas": 1 });
    let p = plan_of(deployment(json!({ "progressDeadlineSeconds": 60 }), unmoved), &[set("new", "new", 10, 4, 1)], &[]);
    let s = status(&p);
    assert_eq!(
        reason(&s, "Progressing"),
        of("False", "ProgressDeadlineExceeded", "ReplicaSet \"new\" has timed out progressing.")
    );

    let p = plan_of(deployment(json!({ "paused": true }), json!({})), &[set("new", "new", 10, 10, 10)], &[]);
    assert_eq!(reason(&status(&p), "Progressing"), of("Unknown", "DeploymentPaused", "Deployment is paused"));
}

#[test]
fn a_taken_name_counts_as_a_collision() {
    let d = deployment(json!({}), json!({}));
    let hash = super::super::hash::hash(&d.spec.as_ref().unwrap().template, None);
    let mut foreign = (*set("x", "other", 1, 1, 1)).clone();
    foreign.metadata.name = Some(format!("d-{hash}"));
    foreign.metadata.owner_references.as_mut().unwrap()[0].uid = "somebody".into();
    let plan = plan_of(d, &[Arc::new(foreign)], &[]);
    let [Action::Write(write)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
    assert_eq!((write.request.subresource, &write.request.body["status"]["collisionCount"]), ("status", &json!(1)));
}
