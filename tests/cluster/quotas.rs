//! A quota with kubectl and real pods: what is over it waits, the operator is told why, and it goes on when there is room.

use serde_json::{Value, json};

use crate::lab::{IMAGE, Lab, wait_for};

const NAMESPACE: &str = "limited";

pub fn a_quota_is_kept(lab: &Lab) {
    let kubectl = |arguments: &[&str]| lab.kubectl(&[arguments, &["-n", NAMESPACE]].concat());
    lab.kubectl(&["create", "namespace", NAMESPACE]);
    kubectl(&["create", "quota", "team", "--hard=pods=2,requests.memory=1Gi,count/configmaps=2"]);
    // `kube-root-ca.crt` is one of them.
    kubectl(&["create", "configmap", "one"]);
    let over = lab.kubectl_output(&["create", "configmap", "two", "-n", NAMESPACE]);
    let told = String::from_utf8_lossy(&over.stderr);
    let why =
        "exceeded quota: team, requested: count/configmaps=1, used: count/configmaps=2, limited: count/configmaps=2";
    assert!(!over.status.success() && told.contains(why), "{told}");

    let container = json!({"name": "c", "image": IMAGE, "resources": {"requests": {"memory": "16Mi"}}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": NAMESPACE}, "spec": {"replicas": 3,
            "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}}});
    lab.apply(&deployment.to_string());
    let ready = |count: u64| {
        wait_for("the pods that fit", || {
            let found = lab.json(&["get", "deployment", "web", "-n", NAMESPACE]).ok()?;
            (found["status"]["readyReplicas"] == count).then_some(found)
        })
    };
    let failed = |deployment: &Value| {
        let conditions = deployment["status"]["conditions"].as_array().unwrap();
        conditions.iter().find(|c| c["type"] == "ReplicaFailure").map(|c| c["message"].as_str().unwrap().to_owned())
    };
    let why = "exceeded quota: team, requested: pods=1, used: pods=2, limited: pods=2";
    let found = ready(2);
    assert!(failed(&found).is_some_and(|m| m.contains(why)), "{found}");
    let described = kubectl(&["describe", "replicaset", "-l", "app=web"]);
    assert!(described.contains("FailedCreate") && described.contains(why), "{described}");
    // The status follows within half a second.
    wait_for("the quota to be full", || {
        let shown = kubectl(&["get", "quota", "team", "--no-headers"]);
        shown.contains("count/configmaps: 2/2, pods: 2/2, requests.memory: 32Mi/1Gi").then_some(())
    });
    for described in [kubectl(&["describe", "quota", "team"]), lab.kubectl(&["describe", "namespace", NAMESPACE])] {
        for line in [["pods", "2", "2"], ["requests.memory", "32Mi", "1Gi"], ["count/configmaps", "2", "2"]] {
            let said = described.lines().any(|l| l.split_whitespace().eq(line));
            assert!(said, "{line:?} is not in\n{described}");
        }
    }
    kubectl(&["patch", "quota", "team", "-p", r#"{"spec":{"hard":{"pods":"3"}}}"#]);
    assert_eq!(failed(&ready(3)), None);
    lab.kubectl(&["delete", "namespace", NAMESPACE]);
}
