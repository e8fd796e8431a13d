//! What happens to pods that run: somebody looks into them, they get other resources; and pods that a node has no room for.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::lab::{IMAGE, Lab, condition, wait_for};
use crate::support::skip;

#[test]
fn pods_are_looked_into_and_resized_while_they_run() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let mut lab = Lab::with_server(1);

    debug(&lab);
    refused_by_the_node(&lab);
    as_a_whole(&lab);
    grown(&lab);
    resized(&mut lab);
}

fn pod(lab: &Lab, name: &str) -> Value {
    lab.json(&["get", "pod", name]).unwrap_or_default()
}

fn start(lab: &Lab, name: &str, container: &Value, spec: &Value) {
    let mut own = json!({"name": "c", "image": IMAGE, "command": ["/bin/sleep", "1000"]});
    crate::lab::merge(&mut own, container);
    let mut body = json!({"containers": [own], "terminationGracePeriodSeconds": 1});
    crate::lab::merge(&mut body, spec);
    lab.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}).to_string());
}

fn ready(lab: &Lab, name: &str) -> Value {
    wait_for(&format!("pod {name} ready"), || {
        let pod = pod(lab, name);
        (condition(&pod, "Ready").as_deref() == Some("True")).then_some(pod)
    })
}

fn debug(lab: &Lab) {
    start(lab, "watched", &json!({"command": ["/bin/sleep", "4321"]}), &json!({}));
    ready(lab, "watched");
    // With the processes of its target.
    let image = format!("--image={IMAGE}");
    let script = "ps | grep -c '[s]leep 4321'; sleep 1000";
    let arguments = ["debug", "watched", &image, "--container=eyes", "--target=c", "--attach=false", "--", "sh", "-c"];
    lab.kubectl(&[arguments.as_slice(), &[script]].concat());
    wait_for("its logs", || (lab.kubectl_output(&["logs", "watched", "-c", "eyes"]).stdout == b"1\n").then_some(()));
    let told = pod(lab, "watched")["status"]["ephemeralContainerStatuses"][0].clone();
    assert!(told["state"]["running"].is_object() && told["ready"] == false, "{told}");
    assert_eq!(lab.kubectl(&["exec", "watched", "-c", "eyes", "--", "echo", "hello"]), "hello\n");

    // Typed into while it runs.
    let listen = ["head", "-n", "1"];
    let arguments = ["debug", "-i", "watched", &image, "--container=ears", "--"];
    let mut typed = lab.kubectl_command(&[arguments.as_slice(), &listen].concat());
    let mut typed = typed.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = typed.stdin.take().unwrap();
    stdin.write_all(b"what I typed\n").unwrap();
    let ended =
        |lab: &Lab| pod(lab, "watched")["status"]["ephemeralContainerStatuses"][1]["state"]["terminated"].clone();
    let state = wait_for("it ends", || Some(ended(lab)).filter(Value::is_object));
    assert_eq!(state["exitCode"], 0);
    drop(stdin);
    let output = typed.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("what I typed"), "{output:?}");

    // It ends with the pod, and was no part of it.
    let counts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].clone();
    assert_eq!(counts(&pod(lab, "watched")), 0);
    lab.kubectl(&["delete", "pod", "watched"]);
}

fn refused_by_the_node(lab: &Lab) {
    let node = lab.json(&["get", "nodes"]).unwrap()["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let placed = json!({"nodeName": node});
    start(lab, "large", &json!({"resources": {"requests": {"cpu": "1000"}}}), &placed);
    let refused = wait_for("OutOfcpu", || Some(pod(lab, "large")).filter(|pod| pod["status"]["phase"] == "Failed"));
    let status = &refused["status"];
    assert_eq!(status["reason"], "OutOfcpu");
    let message = status["message"].as_str().unwrap();
    let start_of = "Pod was rejected: Node didn't have enough resource: cpu, requested: 1000000, used: ";
    assert!(message.starts_with(start_of), "{message}");
    let line = lab.kubectl(&["get", "pod", "large", "--no-headers"]);
    assert_eq!(line.split_whitespace().nth(2), Some("OutOfcpu"), "{line}");
    let sysctl = json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}});
    start(lab, "unsafe", &json!({}), &sysctl);
    wait_for("SysctlForbidden", || (pod(lab, "unsafe")["status"]["reason"] == "SysctlForbidden").then_some(()));
    lab.kubectl(&["delete", "pod", "large", "unsafe"]);
}

/// A file of the container's control group, by its name in version 1 and in version 2.
fn limit(lab: &Lab, name: &str, files: [&str; 2]) -> String {
    let script = format!("cat /sys/fs/cgroup/{} 2>/dev/null || cat /sys/fs/cgroup/{}", files[0], files[1]);
    let text =
        String::from_utf8_lossy(&lab.kubectl_output(&["exec", name, "--", "sh", "-c", &script]).stdout).into_owned();
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

const CPU: [&str; 2] = ["cpu/cpu.cfs_quota_us", "cpu.max"];
const MEMORY: [&str; 2] = ["memory/memory.limit_in_bytes", "memory.max"];

/// The same of the group of the pod, which its containers are in.
fn limit_of_pod(uid: &str, class: &str, files: [&str; 2]) -> String {
    let at = |file: &str| {
        let (controller, file) = file.split_once('/').unwrap_or((".", file));
        format!("/sys/fs/cgroup/{controller}/kubepods/{class}pod{uid}/{file}")
    };
    let text = files.iter().find_map(|file| std::fs::read_to_string(at(file)).ok()).unwrap_or_default();
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

/// `spec.resources`
fn as_a_whole(lab: &Lab) {
    let whole = json!({"resources": {"requests": {"cpu": "50m"}, "limits": {"cpu": "100m", "memory": "64Mi"}}});
    start(lab, "whole", &json!({}), &whole);
    let pod = ready(lab, "whole");
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    assert_eq!(limit_of_pod(uid, "burstable/", CPU), "10000");
    assert_eq!(limit_of_pod(uid, "burstable/", MEMORY), (64 << 20).to_string());
    // Its container may have all of it.
    assert_eq!((limit(lab, "whole", CPU), limit(lab, "whole", MEMORY)), ("10000".into(), (64 << 20).to_string()));
    lab.kubectl(&["delete", "pod", "whole"]);
}

fn resize(lab: &Lab, name: &str, cpu: &str, memory: &str) {
    let both = json!({"cpu": cpu, "memory": memory});
    let resources = json!({"requests": both, "limits": both});
    let patch = json!({"spec": {"containers": [{"name": "c", "resources": resources}]}}).to_string();
    lab.kubectl(&["patch", "pod", name, "--subresource", "resize", "--patch", &patch]);
}

/// Memory without a restart; below what is used it waits.
fn grown(lab: &Lab) {
    let both = json!({"cpu": "50m", "memory": "32Mi"});
    start(lab, "grown", &json!({"resources": {"requests": both, "limits": both}}), &json!({}));
    let before = ready(lab, "grown");
    let uid = before["metadata"]["uid"].as_str().unwrap();
    for memory in [48, 40] {
        resize(lab, "grown", "50m", &format!("{memory}Mi"));
        wait_for("the new limit", || (limit_of_pod(uid, "", MEMORY) == (memory << 20).to_string()).then_some(()));
        assert_eq!(limit(lab, "grown", MEMORY), (memory << 20).to_string());
    }
    resize(lab, "grown", "50m", "1Ki");
    let state = |pod: &Value| {
        let all = pod["status"]["conditions"].as_array()?;
        let under_way = all.iter().find(|condition| condition["type"] == "PodResizeInProgress")?;
        (under_way["reason"] == "Error").then(|| under_way["message"].as_str().unwrap_or_default().to_owned())
    };
    let message = wait_for("it waits", || state(&pod(lab, "grown")));
    assert!(message.starts_with("attempting to set pod memory limit (1024) below current usage ("), "{message}");
    resize(lab, "grown", "50m", "36Mi");
    wait_for("another limit", || (limit_of_pod(uid, "", MEMORY) == (36 << 20).to_string()).then_some(()));
    let now = wait_for("it is over", || {
        Some(pod(lab, "grown")).filter(|pod| condition(pod, "PodResizeInProgress").is_none())
    });
    assert_eq!(now["status"]["containerStatuses"][0]["restartCount"], 0);
    lab.kubectl(&["delete", "pod", "grown"]);
}

fn resized(lab: &mut Lab) {
    let both = json!({"cpu": "100m", "memory": "64Mi"});
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    start(lab, "sized", &json!({"resources": {"requests": both, "limits": both}, "resizePolicy": policy}), &json!({}));
    let before = ready(lab, "sized");
    let uid = before["metadata"]["uid"].as_str().unwrap().to_owned();
    assert_eq!((limit(lab, "sized", CPU), limit(lab, "sized", MEMORY)), ("10000".into(), (64 << 20).to_string()));

    // CPU: while it runs, up and down.
    for (cpu, quota) in [("200m", "20000"), ("150m", "15000")] {
        resize(lab, "sized", cpu, "64Mi");
        let told = |pod: &Value| pod["status"]["containerStatuses"][0]["resources"]["limits"]["cpu"] == cpu;
        wait_for("the new limit is told", || told(&pod(lab, "sized")).then_some(()));
        assert_eq!((limit(lab, "sized", CPU).as_str(), limit_of_pod(&uid, "", CPU).as_str()), (quota, quota));
    }
    wait_for("the condition is gone", || condition(&pod(lab, "sized"), "PodResizeInProgress").is_none().then_some(()));
    let status = &pod(lab, "sized")["status"]["containerStatuses"][0];
    let same = |field: &str| status[field] == before["status"]["containerStatuses"][0][field];
    assert!(same("containerID") && same("restartCount"), "{status}");
    wait_for("the event", || {
        let events = lab.kubectl(&["get", "events", "--field-selector", "involvedObject.name=sized"]);
        (events.contains("ResizeStarted") && events.contains("ResizeCompleted")).then_some(())
    });

    // Memory: by its policy with a restart.
    resize(lab, "sized", "150m", "96Mi");
    wait_for("it is started again", || {
        let status = &pod(lab, "sized")["status"]["containerStatuses"][0];
        (status["restartCount"] == 1 && status["resources"]["limits"]["memory"] == "96Mi").then_some(())
    });
    assert_eq!(limit(lab, "sized", MEMORY), (96 << 20).to_string());
    assert_eq!(limit_of_pod(&uid, "", MEMORY), (96 << 20).to_string());

    // Never possible here; and that is remembered, and what it has, when the agent starts again.
    resize(lab, "sized", "1000", "96Mi");
    let infeasible = |pod: &Value| {
        let all = pod["status"]["conditions"].as_array()?;
        let pending = all.iter().find(|condition| condition["type"] == "PodResizePending")?;
        (pending["reason"] == "Infeasible").then(|| pending["message"].as_str().unwrap_or_default().to_owned())
    };
    let message = wait_for("Infeasible", || infeasible(&pod(lab, "sized")));
    assert!(message.starts_with("Node didn't have enough capacity: cpu, requested: 1000000, capacity: "), "{message}");
    lab.machines[0].kill();
    lab.machines[0].restart();
    wait_for("it is served again", || infeasible(&pod(lab, "sized")));
    resize(lab, "sized", "300m", "96Mi");
    wait_for("the last size", || (limit(lab, "sized", CPU) == "30000").then_some(()));
    let last =
        wait_for("all is said", || Some(pod(lab, "sized")).filter(|pod| condition(pod, "PodResizePending").is_none()));
    assert_eq!(last["status"]["containerStatuses"][0]["restartCount"], 1);
    lab.kubectl(&["delete", "pod", "sized"]);
}
