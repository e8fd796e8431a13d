//! What a newer containerd can: pods with users of their own, and images as volumes.

use serde_json::{Value, json};

use crate::lab::{IMAGE, Lab, variable, wait_for};
use crate::registry::skiff;
use crate::support::{images, skip};

const DATA: &str = "test.local/data:1";

fn until(lab: &Lab, name: &str, phase: &str) -> Value {
    wait_for(&format!("{name} is {phase}"), || {
        let pod = lab.json(&["get", "pod", name]).ok()?;
        (pod["status"]["phase"] == phase).then_some(pod)
    })
}

#[test]
fn a_newer_runtime_has_users_of_pods_and_volumes_of_images() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let Some(runtime) = variable("SKIFF_TEST_CONTAINERD") else {
        return skip("needs SKIFF_TEST_CONTAINERD: tests/tools/containerd.sh unpacks one");
    };
    let mut lab = Lab::with_image(1);
    lab.machines[0].runtime = Some(runtime);
    lab.image("data.tar", &images::busybox(DATA, &json!({}), &[]));
    lab.server(&[]);
    wait_for("the default service account", || lab.json(&["get", "serviceaccount", "default"]).ok());
    let node = lab.json(&["get", "node", "m1"]).unwrap();
    let version = node["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap();
    assert!(version.starts_with("containerd://2."), "{version}");
    assert_eq!(node["status"]["features"], json!({"supplementalGroupsPolicy": true}));
    let handlers = node["status"]["runtimeHandlers"].as_array().unwrap();
    let default = handlers.iter().find(|handler| handler["name"] == "").expect("the default one");

    an_image_is_a_volume(&lab);
    match default["features"]["userNamespaces"] == true {
        true => a_pod_has_users_of_its_own(&lab),
        false => a_pod_is_refused(&lab),
    }
}

fn an_image_is_a_volume(lab: &Lab) {
    let script = "test -x /data/bin/busybox && ! touch /data/x 2>/dev/null && echo mounted";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reader"}, "spec": {
        "restartPolicy": "Never",
        "containers": [{"name": "c", "image": IMAGE, "command": ["/bin/sh", "-c", script],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "volumes": [{"name": "data", "image": {"reference": DATA, "pullPolicy": "IfNotPresent"}}]}});
    lab.apply(&pod.to_string());
    until(lab, "reader", "Succeeded");
    assert_eq!(lab.kubectl(&["logs", "reader"]), "mounted\n");
    // Its container is still there, and so must the image be.
    skiff(lab, &["prune", "--all"], None).unwrap();
    let left = skiff(lab, &["list"], None).unwrap();
    assert!(left.contains("test.local/data"), "{left}");
    lab.kubectl(&["delete", "pod", "reader", "--now"]);
}

fn with_users(name: &str) -> Value {
    // Root inside, writing to a volume and told what users there are.
    let script = "id -u; cat /proc/self/uid_map; echo mine > /v/file; ls -n /v/file; cat /c/key; echo; sleep 100000";
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "hostUsers": false, "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "c", "image": IMAGE, "command": ["/bin/sh", "-c", script],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "c", "mountPath": "/c"}]}],
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "words"}}]}})
}

fn a_pod_is_refused(lab: &Lab) {
    lab.apply(&with_users("apart").to_string());
    wait_for("the event", || {
        let events = lab.kubectl(&["get", "events", "--field-selector=reason=FailedCreatePodSandBox"]);
        events.contains("runtime does not support user namespaces").then_some(())
    });
}

fn a_pod_has_users_of_its_own(lab: &Lab) {
    lab.kubectl(&["create", "configmap", "words", "--from-literal=key=word"]);
    let mut firsts = Vec::new();
    for name in ["apart", "aside"] {
        lab.apply(&with_users(name).to_string());
        until(lab, name, "Running");
        let log = wait_for("its log", || {
            let log = lab.kubectl(&["logs", name]);
            log.ends_with("word\n").then_some(log)
        });
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines[0], "0", "root, to itself: {log}");
        let map: Vec<u64> = lines[1].split_whitespace().map(|word| word.parse().unwrap()).collect();
        assert_eq!((map[0], map[2]), (0, 65536), "{log}");
        assert!(map[1] >= 65536 && map[1].is_multiple_of(65536), "{log}");
        firsts.push(map[1]);
        assert!(lines[2].contains(" 0 "), "its own file: {log}");
        // The machine sees other users.
        let uid = lab.json(&["get", "pod", name]).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
        let record = lab.machines[0].data_dir.join("agent/pods").join(uid).join("userns");
        let record: Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
        assert_eq!(record["uidMappings"][0]["hostId"], map[1]);
    }
    assert_ne!(firsts[0], firsts[1], "no two pods have the same");
    let output = lab.kubectl(&["exec", "apart", "--", "id", "-u"]);
    assert_eq!(output, "0\n");
    lab.kubectl(&["delete", "pod", "apart", "aside", "--now"]);
}
