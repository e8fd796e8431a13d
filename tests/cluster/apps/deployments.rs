//! Deployments: roll-outs, from old sets and over one another, and what is left of them.

use serde_json::{Value, json};

use super::{ABSENT, all_ready, get, idle, make, name, patch, pods, remove, template, until};
use crate::lab::{Lab, wait_for};

fn sets(lab: &Lab, app: &str) -> Vec<Value> {
    let list = lab.json(&["get", "replicasets", "-l", &format!("app={app}")]).unwrap();
    list["items"].as_array().unwrap().clone()
}

/// A set that was there before the Deployment, with its label, so that it is taken over.
fn old_set(lab: &Lab, app: &str, revision: &str) {
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": format!("{app}-old"),
        "labels": {"app": app}, "annotations": {"deployment.kubernetes.io/revision": revision}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": app}}, "template": idle(app)}});
    crate::conformance::feed(lab, &["create", "-f", "-"], &set);
    all_ready(lab, app, 1);
}

pub fn an_old_set_is_rolled(lab: &Lab) {
    old_set(lab, "rolled", "3546343826724305832");
    make(lab, "Deployment", "rolled", &template("rolled", "exec sleep 90000"), &json!({"replicas": 1}));
    lab.kubectl(&["rollout", "status", "deployment/rolled", "--timeout=60s"]);
    let of = get(lab, "deployment/rolled");
    let revision = &of["metadata"]["annotations"]["deployment.kubernetes.io/revision"];
    assert_eq!(*revision, "3546343826724305833", "after that of the old set");
    let sets = sets(lab, "rolled");
    let old = sets.iter().find(|s| name(s) == "rolled-old").unwrap();
    assert_eq!((sets.len(), &old["spec"]["replicas"]), (2, &json!(0)));
    assert!(sets.iter().all(|s| super::owner(s) == &of["metadata"]["uid"]));
    remove(lab, "deployment/rolled", "rolled");
}

/// The old pod takes two seconds to end: none of the new revision is there before it has.
pub fn all_pods_go_before_others_come(lab: &Lab) {
    let mut slow = template("recreated", "trap 'sleep 2; exit 0' TERM; while :; do sleep 0.1; done");
    slow["spec"]["terminationGracePeriodSeconds"] = json!(30);
    make(lab, "Deployment", "recreated", &slow, &json!({"replicas": 1, "strategy": {"type": "Recreate"}}));
    let first = all_ready(lab, "recreated", 1).remove(0);
    let hash = |pod: &Value| pod["metadata"]["labels"]["pod-template-hash"].clone();
    lab.kubectl(&["set", "env", "deployment/recreated", "EDITION=2"]);
    wait_for("a pod of the second revision", || {
        // One whose containers have ended is no longer in the way.
        let ended = |p: &Value| matches!(p["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let found: Vec<Value> = pods(lab, "recreated").into_iter().filter(|p| !ended(p)).collect();
        let olds = found.iter().filter(|p| hash(p) == hash(&first)).count();
        assert!(olds == 0 || olds == found.len(), "pods of both: {found:?}");
        (olds == 0 && found.iter().any(super::ready)).then_some(())
    });
    lab.kubectl(&["delete", "deployment/recreated", "--grace-period=0"]);
    // Nobody waits for the last of them.
}

pub fn old_sets_are_cleaned_up(lab: &Lab) {
    old_set(lab, "cleaned", "1");
    make(
        lab,
        "Deployment",
        "cleaned",
        &template("cleaned", "exec sleep 90000"),
        &json!({"replicas": 1, "revisionHistoryLimit": 0}),
    );
    wait_for("one set", || {
        let sets = sets(lab, "cleaned");
        (sets.len() == 1 && name(&sets[0]) != "cleaned-old").then_some(())
    });
    remove(lab, "deployment/cleaned", "cleaned");
}

/// The second revision cannot run; the third takes the place of both.
pub fn a_roll_out_is_rolled_over(lab: &Lab) {
    old_set(lab, "rolled-over", "1");
    let mut absent = idle("rolled-over");
    absent["spec"]["containers"][0]["image"] = ABSENT.into();
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
    make(
        lab,
        "Deployment",
        "rolled-over",
        &absent,
        &json!({"replicas": 1, "minReadySeconds": 2, "strategy": strategy}),
    );
    until(lab, "deployment/rolled-over", |d| d["status"]["updatedReplicas"] == 1);
    let good = template("rolled-over", "exec sleep 90000");
    patch(lab, "deployment/rolled-over", None, &json!({"spec": {"template": good}}));
    lab.kubectl(&["rollout", "status", "deployment/rolled-over", "--timeout=60s"]);
    let mut counts: Vec<i64> =
        sets(lab, "rolled-over").iter().map(|s| s["spec"]["replicas"].as_i64().unwrap()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 1]);
    remove(lab, "deployment/rolled-over", "rolled-over");
}

/// Ten replicas, of which a roll-out that cannot go on has taken two; thirty are shared out as the ten were.
pub fn a_half_done_roll_out_is_scaled_in_proportion(lab: &Lab) {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2, "maxSurge": 3}});
    make(lab, "Deployment", "shared", &idle("shared"), &json!({"replicas": 10, "strategy": strategy}));
    all_ready(lab, "shared", 10);
    let first = name(&sets(lab, "shared")[0]);
    lab.kubectl(&["set", "image", "deployment/shared", &format!("c={ABSENT}")]);
    let shares = |of_first: i64, of_second: i64| {
        wait_for(&format!("{of_first} and {of_second}"), || {
            let sets = sets(lab, "shared");
            let replicas = |is_first: bool| {
                let set = sets.iter().find(|s| (name(s) == first) == is_first)?;
                set["spec"]["replicas"].as_i64()
            };
            (replicas(true)? == of_first && replicas(false)? == of_second).then_some(())
        });
    };
    shares(8, 5);
    until(lab, "deployment/shared", |d| d["status"]["replicas"] == 13 && d["status"]["availableReplicas"] == 8);
    lab.kubectl(&["scale", "deployment/shared", "--replicas=30"]);
    shares(20, 13);
    remove(lab, "deployment/shared", "shared");
}
