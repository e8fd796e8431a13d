//! Workloads with real pods on two nodes, by kubectl: each controller does what it says, and their storage keeps.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::conformance::{feed, running, running_of};
use crate::lab::{IMAGE, Lab, variable, wait_for};
use crate::support::skip;

fn pod_template(app: &str, script: &str) -> Value {
    let container = json!({"name": "c", "image": IMAGE, "command": ["sh", "-c", script]});
    json!({"metadata": {"labels": {"app": app}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}})
}

#[test]
fn workloads_are_kept() {
    if !nix::unistd::geteuid().is_root() || variable("SKIFF_TEST_KUBECTL").is_none() {
        return skip("needs root and SKIFF_TEST_KUBECTL");
    }
    let mut lab = Lab::with_server(2);
    lab.join(2);
    jobs_run_to_completion(&lab);
    cron_jobs_make_jobs(&lab);
    stateful_sets_keep_names_order_and_data(&lab);
    a_volume_of_one_pod_goes_with_it(&lab);
    daemon_sets_are_on_every_node(&lab);
    nodes_and_pods_say_what_they_use(&lab);
    a_load_is_followed(&lab);
    crate::operations::a_roll_out_is_paused_and_edited(&lab);
    crate::operations::an_autoscaler_is_made_for_it(&lab);
    crate::operations::a_pod_is_debugged(&lab);
    crate::operations::a_node_is_closed_and_opened(&lab);
    a_node_is_drained(&lab);
    a_cron_job_has_started(&lab);
}

/// A set that notes in its volume who wrote there first, and how often it was started.
fn stateful_set() -> Value {
    let mut template = pod_template("web", "hostname >> /data/starts; exec sleep 100000");
    template["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    template["spec"]["securityContext"] = json!({"runAsUser": 1000});
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Mi"}}}});
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}, "spec": {
        "replicas": 2, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}}, "template": template,
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"},
        "volumeClaimTemplates": [claim]}})
}

fn stateful_sets_keep_names_order_and_data(lab: &Lab) {
    // kubectl warns of an undo of what it has applied.
    feed(lab, &["create", "-f", "-"], &stateful_set());
    lab.kubectl(&["rollout", "status", "statefulset/web", "--timeout=60s"]);
    assert_eq!(running_of(lab, "app=web", 2), ["web-0", "web-1"]);
    let first = running(lab, "web-0");
    let claim = lab.json(&["get", "pvc", "data-web-0"]).unwrap();
    assert_eq!(
        (&claim["status"]["phase"], &claim["spec"]["storageClassName"]),
        (&json!("Bound"), &json!("local-path"))
    );
    let volume = lab.json(&["get", "pv", claim["spec"]["volumeName"].as_str().unwrap()]).unwrap();
    let folder = PathBuf::from(volume["spec"]["hostPath"]["path"].as_str().unwrap());
    let starts = || std::fs::read_to_string(folder.join("starts")).unwrap();
    assert_eq!(starts(), "web-0\n");

    lab.kubectl(&["delete", "pod", "web-0"]);
    let second = wait_for("another web-0", || {
        let pod = lab.json(&["get", "pod", "web-0"]).ok()?;
        (pod["metadata"]["uid"] != first["metadata"]["uid"] && pod["status"]["phase"] == "Running").then_some(pod)
    });
    assert_eq!(second["spec"]["nodeName"], first["spec"]["nodeName"], "it follows its volume");
    wait_for("the second start", || (starts() == "web-0\nweb-0\n").then_some(()));

    lab.kubectl(&["set", "env", "statefulset/web", "EDITION=2"]);
    lab.kubectl(&["rollout", "status", "statefulset/web", "--timeout=60s"]);
    let env = |name: &str| running(lab, name)["spec"]["containers"][0]["env"][0]["value"].clone();
    assert_eq!((env("web-0"), env("web-1")), (json!("2"), json!("2")));
    let history = lab.kubectl(&["rollout", "history", "statefulset/web"]);
    assert!(history.contains("1 ") && history.contains("2 "), "{history}");
    lab.kubectl(&["rollout", "undo", "statefulset/web"]);
    lab.kubectl(&["rollout", "status", "statefulset/web", "--timeout=60s"]);
    assert_eq!(env("web-1"), Value::Null);

    lab.kubectl(&["scale", "statefulset/web", "--replicas=1"]);
    assert_eq!(running_of(lab, "app=web", 1), ["web-0"]);
    assert!(lab.json(&["get", "pvc", "data-web-1"]).is_ok(), "scaled away and retained");
    let line = lab.kubectl(&["get", "statefulset", "web", "--no-headers"]);
    assert!(line.split_whitespace().take(2).eq(["web", "1/1"]), "{line}");

    // The claims go with the set, the volumes with the claims, and the data with the volumes.
    lab.kubectl(&["delete", "statefulset", "web"]);
    wait_for("no volumes", || lab.json(&["get", "pv"]).ok()?["items"].as_array()?.is_empty().then_some(()));
    assert!(!folder.exists(), "{}", folder.display());
}

fn a_volume_of_one_pod_goes_with_it(lab: &Lab) {
    let template = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}});
    let mut pod = pod_template("scratch", "echo x > /data/x && exec sleep 100000");
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "own", "mountPath": "/data"}]);
    pod["spec"]["volumes"] = json!([{"name": "own", "ephemeral": {"volumeClaimTemplate": template}}]);
    crate::lab::merge(&mut pod, &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "scratch"}}));
    lab.apply(&pod.to_string());
    running(lab, "scratch");
    assert_eq!(lab.json(&["get", "pvc", "scratch-own"]).unwrap()["status"]["phase"], "Bound");
    lab.kubectl(&["delete", "pod", "scratch"]);
    wait_for("no volumes", || lab.json(&["get", "pv"]).ok()?["items"].as_array()?.is_empty().then_some(()));
}

fn daemon_sets_are_on_every_node(lab: &Lab) {
    let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "each"}, "spec": {
        "selector": {"matchLabels": {"app": "each"}}, "template": pod_template("each", "exec sleep 100000")}});
    lab.apply(&set.to_string());
    lab.kubectl(&["rollout", "status", "daemonset/each", "--timeout=60s"]);
    let nodes = |expected: &[&str]| {
        wait_for("pods on the right nodes", || {
            let pods = lab.json(&["get", "pods", "-l", "app=each"]).ok()?;
            let mut nodes: Vec<String> = pods["items"]
                .as_array()?
                .iter()
                .filter_map(|p| Some(p["spec"]["nodeName"].as_str()?.to_owned()))
                .collect();
            nodes.sort();
            (nodes == expected).then_some(())
        });
    };
    nodes(&["m1", "m2"]);
    lab.kubectl(&["rollout", "restart", "daemonset/each"]);
    lab.kubectl(&["rollout", "status", "daemonset/each", "--timeout=60s"]);
    lab.kubectl(&["taint", "node", "m1", "tired=yes:NoExecute"]);
    nodes(&["m2"]);
    lab.kubectl(&["taint", "node", "m1", "tired-"]);
    nodes(&["m1", "m2"]);
    let line = wait_for("all ready again", || {
        let line = lab.kubectl(&["get", "daemonset", "each", "--no-headers"]);
        let columns: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        (columns[3] == "2").then_some(columns)
    });
    assert_eq!(line[..6], ["each", "2", "2", "2", "2", "2"]);
}

fn jobs_run_to_completion(lab: &Lab) {
    let job = |name: &str, script: &str, more: Value| {
        let mut template = pod_template(name, script);
        template["spec"]["restartPolicy"] = "Never".into();
        let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
            "spec": {"template": template}});
        crate::lab::merge(&mut job["spec"], &more);
        lab.apply(&job.to_string());
    };
    let indexed = json!({"completions": 3, "parallelism": 2, "completionMode": "Indexed"});
    job("sums", "echo index $JOB_COMPLETION_INDEX", indexed);
    lab.kubectl(&["wait", "--for=condition=complete", "job/sums", "--timeout=60s"]);
    let done = lab.json(&["get", "job", "sums"]).unwrap();
    assert_eq!((&done["status"]["succeeded"], &done["status"]["completedIndexes"]), (&json!(3), &json!("0-2")));
    let logs = lab.kubectl(&["logs", "-l", "job-name=sums"]);
    for index in 0..3 {
        assert!(logs.contains(&format!("index {index}")), "{logs}");
    }
    let pods = lab.json(&["get", "pods", "-l", "job-name=sums"]).unwrap();
    assert!(pods["items"].as_array().unwrap().iter().all(|p| p["metadata"]["finalizers"].is_null()), "{pods}");

    job("hopeless", "exit 3", json!({"backoffLimit": 0}));
    lab.kubectl(&["wait", "--for=condition=failed", "job/hopeless", "--timeout=60s"]);
    let failed = lab.json(&["get", "job", "hopeless"]).unwrap();
    let last = failed["status"]["conditions"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["type"], &last["reason"]), (&json!("Failed"), &json!("BackoffLimitExceeded")));
    let told = lab.kubectl(&["describe", "job", "hopeless"]);
    assert!(told.contains("Job has reached the specified backoff limit"), "{told}");

    job("brief", "true", json!({"ttlSecondsAfterFinished": 1}));
    wait_for("the Job is gone by itself", || lab.json(&["get", "job", "brief"]).is_err().then_some(()));
    lab.kubectl(&["delete", "job", "sums", "hopeless"]);
    wait_for("no pods of Jobs", || {
        let pods = lab.json(&["get", "pods", "-l", "job-name"]).ok()?;
        pods["items"].as_array()?.is_empty().then_some(())
    });
}

fn cron_jobs_make_jobs(lab: &Lab) {
    let image = format!("--image={IMAGE}");
    lab.kubectl(&["create", "cronjob", "tick", &image, "--schedule=*/1 * * * *", "--", "echo", "tick"]);
    lab.kubectl(&["create", "job", "by-hand", "--from=cronjob/tick"]);
    lab.kubectl(&["wait", "--for=condition=complete", "job/by-hand", "--timeout=60s"]);
    lab.kubectl(&["create", "cronjob", "never", &image, "--schedule=0 0 31 2 *", "--", "true"]);
}

/// Checked last, for it takes up to a minute.
fn a_cron_job_has_started(lab: &Lab) {
    let started = wait_for("a start by the clock", || {
        let cron = lab.json(&["get", "cronjob", "tick"]).ok()?;
        cron["status"]["lastScheduleTime"].is_string().then_some(cron)
    });
    let jobs = lab.json(&["get", "jobs"]).unwrap();
    let owned = |j: &&Value| j["metadata"]["ownerReferences"][0]["uid"] == started["metadata"]["uid"];
    assert!(jobs["items"].as_array().unwrap().iter().filter(owned).count() >= 1, "{jobs}");
    wait_for("one that succeeded", || {
        lab.json(&["get", "cronjob", "tick"]).ok()?["status"]["lastSuccessfulTime"].is_string().then_some(())
    });
    let never = lab.json(&["get", "cronjob", "never"]).unwrap();
    assert_eq!(never["status"]["lastScheduleTime"], Value::Null);
    lab.kubectl(&["delete", "cronjob", "tick", "never"]);
    wait_for("their Jobs go with them", || {
        lab.json(&["get", "jobs"]).ok()?["items"].as_array()?.is_empty().then_some(())
    });
}

fn nodes_and_pods_say_what_they_use(lab: &Lab) {
    lab.kubectl(&["run", "busy", &format!("--image={IMAGE}"), "--", "sh", "-c", "while :; do :; done"]);
    running(lab, "busy");
    let nodes = lab.kubectl(&["top", "node"]);
    assert!(nodes.contains("m1 ") && nodes.contains("m2 "), "{nodes}");
    wait_for("a busy container", || {
        let output = lab.kubectl_output(&["top", "pod", "--containers", "--no-headers"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find(|l| l.starts_with("busy "))?.to_owned();
        let milli = line.split_whitespace().nth(2)?.strip_suffix('m')?.parse::<u32>().ok()?;
        (milli > 50).then_some(())
    });
    // It says that it cannot know whether the pod is gone.
    assert!(lab.kubectl_output(&["delete", "pod", "busy", "--grace-period=0", "--force"]).status.success());
}

/// More pods while they are busy, fewer when they are not.
fn a_load_is_followed(lab: &Lab) {
    let script = "touch /tmp/busy; while :; do [ -e /tmp/busy ] || sleep 1; done";
    let mut template = pod_template("loaded", script);
    template["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "50m"}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "loaded"}, "spec": {
        "selector": {"matchLabels": {"app": "loaded"}}, "template": template}});
    lab.apply(&deployment.to_string());
    running_of(lab, "app=loaded", 1);
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 100}}});
    let autoscaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "loaded"}, "spec": {"minReplicas": 1, "maxReplicas": 2, "metrics": [cpu],
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "loaded"},
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}});
    lab.apply(&autoscaler.to_string());
    let pods = running_of(lab, "app=loaded", 2);
    for pod in &pods {
        lab.kubectl(&["exec", pod, "--", "rm", "-f", "/tmp/busy"]);
    }
    running_of(lab, "app=loaded", 1);
    let told = lab.kubectl(&["describe", "hpa", "loaded"]);
    for part in ["SuccessfulRescale", "ScalingActive", "cpu resource utilization"] {
        assert!(told.contains(part), "{part} is not in:\n{told}");
    }
    lab.kubectl(&["delete", "deployment/loaded", "hpa/loaded"]);
}

fn a_node_is_drained(lab: &Lab) {
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "moving"}, "spec": {
        "replicas": 4, "selector": {"matchLabels": {"app": "moving"}}, "template": pod_template("moving", "exec sleep 100000")}});
    lab.apply(&deployment.to_string());
    running_of(lab, "app=moving", 4);
    let output = lab.kubectl_output(&["drain", "m2", "--ignore-daemonsets", "--timeout=60s"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in running_of(lab, "app=moving", 4) {
        assert_eq!(running(lab, &name)["spec"]["nodeName"], "m1");
    }
    lab.kubectl(&["uncordon", "m2"]);
    lab.kubectl(&["delete", "deployment/moving", "daemonset/each"]);
}
