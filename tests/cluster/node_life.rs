//! What becomes of a node over time: settings, static pods, disks that fill, logs that grow. One cluster serves all
//! stories; each has names of its own.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::lab::{IMAGE, Lab, wait_for};
use crate::support::skip;

#[test]
fn a_node_looks_after_itself() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let mut lab = Lab::with_image(1);
    lab.server(&[
        // The machine of the tests may have little room: that is no part of the stories.
        "--kubelet-arg=eviction-hard=memory.available<100Mi",
        "--kubelet-arg=max-pods=37",
        "--kubelet-arg=system-reserved=cpu=100m,memory=64Mi",
        "--kubelet-arg=container-log-max-size=64Ki",
        "--kubelet-arg=container-log-max-files=3",
    ]);
    wait_for("the default service account", || lab.json(&["get", "serviceaccount", "default"]).ok());

    settings_show_in_the_node(&lab);
    static_pods_run_and_are_shown(&lab);
    a_full_volume_ends_its_pod(&lab);
    a_full_container_ends_its_pod(&lab);
    logs_are_rotated(&lab);
}

fn settings_show_in_the_node(lab: &Lab) {
    let node = lab.json(&["get", "node", "m1"]).unwrap();
    let (capacity, allocatable) = (&node["status"]["capacity"], &node["status"]["allocatable"]);
    assert_eq!((&capacity["pods"], &allocatable["pods"]), (&json!("37"), &json!("37")));
    let kibi = |list: &Value| list["memory"].as_str().unwrap().trim_end_matches("Ki").parse::<u64>().unwrap();
    // What is reserved, and what must be left before pods are evicted.
    assert_eq!(kibi(capacity) - kibi(allocatable), (64 + 100) * 1024);
    assert!(allocatable["cpu"].as_str().unwrap().ends_with("00m"), "{allocatable}");
    // An operator gives the node something to count.
    let patch = r#"[{"op": "add", "path": "/status/capacity/example.com~1dongles", "value": "4"}]"#;
    lab.kubectl(&["patch", "node", "m1", "--subresource=status", "--type=json", "-p", patch]);
    wait_for("dongles to be allocatable", || {
        let node = lab.json(&["get", "node", "m1"]).ok()?;
        (node["status"]["allocatable"]["example.com/dongles"] == "4").then_some(())
    });
}

fn manifest(lab: &Lab) -> PathBuf {
    lab.machines[0].data_dir.join("agent/pod-manifests/keeper.yaml")
}

fn static_pods_run_and_are_shown(lab: &Lab) {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: keeper, namespace: kube-system}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: c, image: {IMAGE}}}\n"
    );
    fs::write(manifest(lab), &pod).unwrap();
    let shown = |what: &str, condition: &dyn Fn(&Value) -> bool| {
        wait_for(what, || {
            let pod = lab.json(&["-n", "kube-system", "get", "pod", "keeper-m1"]).ok()?;
            (pod["status"]["phase"] == "Running" && condition(&pod)).then_some(pod)
        })
    };
    let first = shown("the static pod", &|_| true);
    assert_eq!(first["metadata"]["ownerReferences"][0]["kind"], "Node");
    let (uid, id) = (&first["metadata"]["uid"], &first["status"]["containerStatuses"][0]["containerID"]);
    lab.kubectl(&["-n", "kube-system", "delete", "pod", "keeper-m1"]);
    let again = shown("the static pod again", &|pod| pod["metadata"]["uid"] != *uid);
    assert_eq!(again["status"]["containerStatuses"][0]["containerID"], *id, "its container was left alone");
    fs::write(manifest(lab), pod.replace("name: c,", "name: d,")).unwrap();
    shown("the changed pod", &|pod| pod["status"]["containerStatuses"][0]["name"] == "d");
    fs::remove_file(manifest(lab)).unwrap();
    wait_for("the static pod is gone", || lab.json(&["-n", "kube-system", "get", "pod", "keeper-m1"]).err());
}

/// A pod of one container that runs a script and then sleeps.
fn run(lab: &Lab, name: &str, script: &str, limits: &Value, volume: &Value) {
    let container = json!({"name": "c", "image": IMAGE, "resources": {"limits": limits},
        "command": ["/bin/sh", "-c", format!("{script}; sleep 100000")],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container], "volumes": [{"name": "v", "emptyDir": volume}]}});
    lab.apply(&manifest.to_string());
}

fn evicted(lab: &Lab, name: &str) -> String {
    let pod = wait_for(&format!("{name} is evicted"), || {
        let pod = lab.json(&["get", "pod", name]).ok()?;
        (pod["status"]["reason"] == "Evicted").then_some(pod)
    });
    assert_eq!(pod["status"]["phase"], "Failed");
    pod["status"]["message"].as_str().unwrap_or_default().to_owned()
}

fn a_full_volume_ends_its_pod(lab: &Lab) {
    run(lab, "filler", "dd if=/dev/zero of=/v/big bs=1M count=4", &json!({}), &json!({"sizeLimit": "1Mi"}));
    assert_eq!(evicted(lab, "filler"), "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ");
    let uid = lab.json(&["get", "pod", "filler"]).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let directory = lab.machines[0].data_dir.join("agent/pods").join(uid);
    wait_for("its files are gone", || (!directory.exists()).then_some(()));
    let events = lab.kubectl(&["get", "events", "--field-selector=reason=Evicted", "--no-headers"]);
    assert!(events.contains("pod/filler"), "{events}");
}

fn a_full_container_ends_its_pod(lab: &Lab) {
    let limits = json!({"ephemeral-storage": "1Mi"});
    run(lab, "scribbler", "dd if=/dev/zero of=/big bs=1M count=4", &limits, &json!({}));
    let message = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ";
    assert_eq!(evicted(lab, "scribbler"), message);
}

fn logs_are_rotated(lab: &Lab) {
    let talk = "while :; do i=0; while [ $i -lt 400 ]; do echo a line of the log that says nothing at all $i; \
                i=$((i+1)); done; sleep 0.3; done";
    run(lab, "talker", talk, &json!({}), &json!({}));
    let uid = wait_for("talker runs", || {
        let pod = lab.json(&["get", "pod", "talker"]).ok()?;
        (pod["status"]["phase"] == "Running").then(|| pod["metadata"]["uid"].as_str().unwrap().to_owned())
    });
    let directory = lab.machines[0].data_dir.join(format!("agent/log/pods/default_talker_{uid}/c"));
    let files = || -> Vec<String> {
        let all = fs::read_dir(&directory).into_iter().flatten().flatten();
        let mut names: Vec<String> = all.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    wait_for("an old log is compressed", || files().iter().any(|name| name.ends_with(".gz")).then_some(()));
    assert!(files().len() <= 4, "one that is written, two old ones, and maybe one in the making: {:?}", files());
    // One that was begun this moment is empty.
    let last = || lab.kubectl(&["logs", "talker", "--tail=1"]);
    wait_for("a line", || last().starts_with("a line of the log").then_some(()));
    lab.kubectl(&["delete", "pod", "talker", "--now"]);
}
