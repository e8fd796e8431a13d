//! What operators type, by kubectl against pods that run: scale by itself, pause, edit, look into, copy to and from.

use serde_json::{Value, json};

use crate::conformance::{running, running_of};
use crate::lab::{IMAGE, Lab, wait_for};

fn deployment(lab: &Lab, app: &str) {
    let labels = json!({"app": app});
    let container = json!({"name": "c", "image": IMAGE, "command": ["sh", "-c", "echo begun; exec sleep 100000"],
        "resources": {"requests": {"cpu": "10m"}}});
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": app}, "spec": {
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}}});
    lab.apply(&object.to_string());
}

pub fn a_roll_out_is_paused_and_edited(lab: &Lab) {
    deployment(lab, "edited");
    let first = running_of(lab, "app=edited", 1);
    lab.kubectl(&["rollout", "pause", "deployment/edited"]);
    lab.kubectl(&["set", "env", "deployment/edited", "EDITION=2"]);
    let restart = lab.kubectl_output(&["rollout", "restart", "deployment/edited"]);
    let told = String::from_utf8_lossy(&restart.stderr);
    assert!(!restart.status.success() && told.contains("paused"), "{told}");
    let status = lab.json(&["get", "deployment", "edited"]).unwrap();
    let paused = status["status"]["conditions"].as_array().unwrap().iter().any(|c| c["reason"] == "DeploymentPaused");
    assert!(paused, "{status}");
    assert_eq!(running_of(lab, "app=edited", 1), first, "nothing has changed yet");
    lab.kubectl(&["rollout", "resume", "deployment/edited"]);
    lab.kubectl(&["rollout", "status", "deployment/edited", "--timeout=60s"]);
    assert_ne!(running_of(lab, "app=edited", 1), first);

    // The editor changes one line; one that changes nothing is told so.
    let mut edit = lab.kubectl_command(&["edit", "deployment/edited"]);
    let output = edit.env("KUBE_EDITOR", "sed -i 's/  replicas: 1/  replicas: 2/'").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    running_of(lab, "app=edited", 2);
    let unchanged = lab.kubectl_command(&["edit", "deployment/edited"]).env("KUBE_EDITOR", "true").output().unwrap();
    assert!(String::from_utf8_lossy(&unchanged.stderr).contains("no changes made"));
    lab.kubectl(&["delete", "deployment", "edited"]);
}

pub fn an_autoscaler_is_made_for_it(lab: &Lab) {
    deployment(lab, "scaled");
    lab.kubectl(&["autoscale", "deployment/scaled", "--min=2", "--max=3", "--cpu=80%"]);
    running_of(lab, "app=scaled", 2);
    let autoscaler = lab.json(&["get", "hpa", "scaled"]).unwrap();
    assert_eq!(autoscaler["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80, "{autoscaler}");
    lab.kubectl(&["delete", "deployment/scaled", "hpa/scaled"]);
}

/// A copy of the pod with another command, and a pod on the node with its files.
pub fn a_pod_is_debugged(lab: &Lab) {
    deployment(lab, "debugged");
    let pod = &running_of(lab, "app=debugged", 1)[0];
    let image = format!("--image={IMAGE}");
    let copy = ["debug", pod, "--copy-to=copy", "--container=c", &image, "--", "sh", "-c", "echo copied; sleep 1000"];
    assert!(lab.kubectl_output(&copy).status.success());
    running(lab, "copy");
    assert_eq!(lab.kubectl(&["logs", "copy", "-c", "c"]), "copied\n");

    let node = lab.json(&["get", "pod", pod]).unwrap()["spec"]["nodeName"].as_str().unwrap().to_owned();
    let on_node = ["debug", &format!("node/{node}"), &image, "--profile=general", "--", "ls", "/host"];
    let made = lab.kubectl_output(&on_node);
    let told = String::from_utf8_lossy(&made.stderr).into_owned() + &String::from_utf8_lossy(&made.stdout);
    let name = told.split_whitespace().find(|w| w.starts_with("node-debugger-")).unwrap_or_else(|| panic!("{told}"));
    wait_for("the files of the node", || {
        let log = lab.kubectl_output(&["logs", name]);
        String::from_utf8_lossy(&log.stdout).lines().any(|l| l == "proc").then_some(())
    });
    lab.kubectl(&["delete", "deployment/debugged", "pod/copy", &format!("pod/{name}")]);
}

pub fn a_node_is_closed_and_opened(lab: &Lab) {
    lab.kubectl(&["cordon", "m2"]);
    let unschedulable = |expect: &Value| {
        let node = lab.json(&["get", "node", "m2"]).unwrap();
        assert_eq!(&node["spec"]["unschedulable"], expect);
    };
    unschedulable(&json!(true));
    assert!(lab.kubectl(&["get", "node", "m2", "--no-headers"]).contains("Ready,SchedulingDisabled"));
    lab.kubectl(&["uncordon", "m2"]);
    unschedulable(&Value::Null);
}
