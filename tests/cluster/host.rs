//! What a node keeps of the machine for itself and for each pod: processes, sysctls, groups of the system, room for critical
//! pods, and the address that it is reached by.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::lab::{IMAGE, Lab, wait_for};
use crate::support::skip;

/// A group for the system's own, which goes with the test.
struct Reserved(String);

impl Reserved {
    fn make() -> Reserved {
        let group = Reserved(format!("skiff-reserved-{}", std::process::id()));
        for directory in group.directories() {
            fs::create_dir_all(directory).unwrap();
        }
        group
    }

    /// In all controllers, or the one tree.
    fn directories(&self) -> Vec<String> {
        let root = "/sys/fs/cgroup";
        match Path::new(root).join("cgroup.controllers").exists() {
            true => vec![format!("{root}/{}", self.0)],
            false => ["cpu", "memory", "pids"].map(|one| format!("{root}/{one}/{}", self.0)).into(),
        }
    }

    fn read(&self, names: [&str; 2]) -> Option<String> {
        let mut paths = self.directories().into_iter().flat_map(|d| names.map(|name| format!("{d}/{name}")));
        paths.find_map(|path| fs::read_to_string(path).ok()).map(|text| text.trim().to_owned())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        for directory in self.directories() {
            let _ = fs::remove_dir(directory);
        }
    }
}

#[test]
fn a_node_shares_the_machine() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let group = Reserved::make();
    let mut lab = Lab::with_image(1);
    let file = lab.dir.join("kubelet.yaml");
    let text = format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\npodPidsLimit: 40\n\
         allowedUnsafeSysctls: [net.core.somaxconn, \"kernel.msg*\"]\nsystemReserved: {{cpu: 100m, memory: 512Mi}}\n\
         systemReservedCgroup: /{}\nenforceNodeAllocatable: [pods, system-reserved]\n",
        group.0
    );
    fs::write(&file, text).unwrap();
    lab.server(&[&format!("--kubelet-arg=config={}", file.display())]);
    wait_for("the default service account", || lab.json(&["get", "serviceaccount", "default"]).ok());

    what_is_reserved_is_enforced(&lab, &group);
    a_fork_bomb_is_stopped(&lab);
    sysctls_are_allowed_or_refused(&lab);
    a_critical_pod_gets_room(&lab);
}

fn what_is_reserved_is_enforced(lab: &Lab, group: &Reserved) {
    wait_for("the event", || {
        let events = lab.kubectl(&["get", "events", "-A", "--field-selector=reason=NodeAllocatableEnforced"]);
        events.contains(&format!("Updated limits on system reserved cgroup /{}", group.0)).then_some(())
    });
    let memory = group.read(["memory.limit_in_bytes", "memory.max"]);
    assert_eq!(memory.as_deref(), Some("536870912"));
}

fn pod(name: &str, script: &str, spec: Value) -> Value {
    let container = json!({"name": "c", "image": IMAGE, "command": ["/bin/sh", "-c", script]});
    let mut full = json!({"terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "containers": [container]});
    for (key, value) in spec.as_object().into_iter().flatten() {
        full[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": full})
}

fn until(lab: &Lab, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    wait_for(&format!("{name}: {what}"), || {
        let pod = lab.json(&["get", "pod", name]).ok()?;
        condition(&pod["status"]).then_some(pod)
    })
}

fn a_fork_bomb_is_stopped(lab: &Lab) {
    // Each sleeps; the shell says what it could not start.
    let script = "i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); done; sleep 1000";
    lab.apply(&pod("bomb", script, json!({})).to_string());
    wait_for("the limit is met", || {
        let log = lab.kubectl_output(&["logs", "bomb"]);
        let text = String::from_utf8_lossy(&log.stdout).into_owned();
        (text.contains("fork") || text.contains("Resource temporarily unavailable")).then_some(())
    });
    // Another one is not held up.
    lab.apply(&pod("beside", "true", json!({})).to_string());
    until(lab, "beside", "runs", |status| status["phase"] == "Succeeded");
    lab.kubectl(&["delete", "pod", "bomb", "beside", "--now"]);
}

fn sysctls_are_allowed_or_refused(lab: &Lab) {
    let sysctls = |all: Value| json!({"securityContext": {"sysctls": all}});
    let allowed =
        sysctls(json!([{"name": "net.core.somaxconn", "value": "321"}, {"name": "kernel.msgmax", "value": "9000"}]));
    lab.apply(&pod("allowed", "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax", allowed).to_string());
    until(lab, "allowed", "ends", |status| status["phase"] == "Succeeded");
    assert_eq!(lab.kubectl(&["logs", "allowed"]), "321\n9000\n");
    let refused = sysctls(json!([{"name": "kernel.sem", "value": "1 1 1 1"}]));
    lab.apply(&pod("refused", "true", refused).to_string());
    let status = until(lab, "refused", "is refused", |status| status["phase"] == "Failed")["status"].clone();
    assert_eq!(status["reason"], "SysctlForbidden");
    let events = lab.kubectl(&["get", "events", "--field-selector=reason=SysctlForbidden"]);
    assert!(events.contains("forbidden sysctl: \"kernel.sem\" not allowlisted"), "{events}");
    lab.kubectl(&["delete", "pod", "allowed", "refused", "--now"]);
}

fn a_critical_pod_gets_room(lab: &Lab) {
    let node = lab.json(&["get", "node", "m1"]).unwrap();
    let cpu = node["status"]["allocatable"]["cpu"].as_str().unwrap();
    let milli: i64 = cpu.strip_suffix('m').map_or_else(|| cpu.parse::<i64>().unwrap() * 1000, |n| n.parse().unwrap());
    let asks = |cpu: i64| json!({"requests": {"cpu": format!("{cpu}m")}});
    let resources = |pod: &mut Value, cpu: i64| pod["spec"]["containers"][0]["resources"] = asks(cpu);
    for (name, cpu) in [("small", 100), ("large", milli - 200)] {
        let mut pod = pod(name, "sleep 100000", json!({}));
        resources(&mut pod, cpu);
        lab.apply(&pod.to_string());
        until(lab, name, "runs", |status| status["phase"] == "Running");
    }
    // It names its node itself: the scheduler would make room another way.
    let mut critical =
        pod("critical", "sleep 100000", json!({"priorityClassName": "system-node-critical", "nodeName": "m1"}));
    resources(&mut critical, 500);
    critical["metadata"]["namespace"] = json!("kube-system");
    lab.apply(&critical.to_string());
    wait_for("the critical pod runs", || {
        let pod = lab.json(&["-n", "kube-system", "get", "pod", "critical"]).ok()?;
        (pod["status"]["phase"] == "Running").then_some(())
    });
    let status = until(lab, "large", "made room", |status| status["phase"] == "Failed")["status"].clone();
    assert_eq!(
        (&status["reason"], &status["message"]),
        (&json!("Preempting"), &json!("Preempted in order to admit critical pod"))
    );
    let disrupted = status["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .any(|c| c["type"] == "DisruptionTarget" && c["reason"] == "TerminationByKubelet");
    assert!(disrupted, "{status}");
    until(lab, "small", "stays", |status| status["phase"] == "Running");
}

#[test]
fn a_node_follows_its_address() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let mut lab = Lab::with_image(1);
    lab.machines[0].finds_its_address = true;
    lab.server(&[]);
    wait_for("the default service account", || lab.json(&["get", "serviceaccount", "default"]).ok());
    let internal = |lab: &Lab| {
        let node = lab.json(&["get", "node", "m1"]).ok()?;
        let addresses = node["status"]["addresses"].as_array()?.clone();
        addresses.iter().find(|a| a["type"] == "InternalIP")?["address"].as_str().map(str::to_owned)
    };
    assert_eq!(internal(&lab).as_deref(), Some("10.88.0.1"));
    lab.apply(&pod("witness", "echo here; sleep 100000", json!({})).to_string());
    until(&lab, "witness", "runs", |status| status["phase"] == "Running" && status["hostIP"] == "10.88.0.1");

    let ip = |arguments: &[&str]| {
        let done = lab.machines[0].command("ip".as_ref()).args(arguments).status().unwrap();
        assert!(done.success(), "ip {arguments:?}");
    };
    ip(&["addr", "del", "10.88.0.1/24", "dev", "eth0"]);
    ip(&["addr", "add", "10.88.0.77/24", "dev", "eth0"]);
    wait_for("the node tells its new address", || (internal(&lab)? == "10.88.0.77").then_some(()));
    until(&lab, "witness", "tells it too", |status| {
        status["hostIP"] == "10.88.0.77" && status["hostIPs"] == json!([{"ip": "10.88.0.77"}])
    });
    // The node's own endpoint is reached there, and shows a certificate for it.
    wait_for("its log", || (lab.kubectl_output(&["logs", "witness"]).stdout == b"here\n").then_some(()));
    let script =
        "openssl s_client -connect 10.88.0.77:10250 </dev/null 2>/dev/null | openssl x509 -noout -ext subjectAltName";
    wait_for("a certificate for it", || {
        let output = lab.machines[0].command("sh".as_ref()).args(["-c", script]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("IP Address:10.88.0.77").then_some(())
    });
    // So is the API.
    let script = script.replace(":10250", ":6443");
    wait_for("a certificate of the API for it", || {
        let output = lab.machines[0].command("sh".as_ref()).args(["-c", &script]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("IP Address:10.88.0.77").then_some(())
    });
    wait_for("the endpoints of the API", || {
        let endpoints = lab.json(&["get", "endpoints", "kubernetes"]).ok()?;
        let slice = lab.json(&["get", "endpointslice", "kubernetes"]).ok()?;
        let found = [&endpoints["subsets"][0]["addresses"], &slice["endpoints"][0]["addresses"]];
        (found == [&json!([{"ip": "10.88.0.77"}]), &json!(["10.88.0.77"])]).then_some(())
    });
    // Pods come as before.
    lab.apply(&pod("after", "true", json!({})).to_string());
    until(&lab, "after", "ends", |status| status["phase"] == "Succeeded" && status["hostIP"] == "10.88.0.77");
}
