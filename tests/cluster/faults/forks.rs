//! Pods that fork without end: with a limit for each pod, and with none but that of all pods together. Every bomb has
//! limits of memory and processor beside that, so that it is no danger to the machine of the tests.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::belongings::processes;
use crate::lab::{IMAGE, Lab, condition, now, wait_for};

/// Each makes more of its kind, and goes on when the kernel does not let it.
const BOMB: &str = r#"BEGIN { while (1) system("/bin/busybox awk \"$BOMB\" &") }"#;
/// `--pod-max-pids` of the story's node.
pub const OF_POD: usize = 200;
/// What all pods may have together when there is no limit for each.
const OF_PODS: i64 = 1500;
/// So many more than there were are too many for the node.
const PRESSED: i64 = 700;
/// The node must answer in this time, whatever a pod does.
const SOON: Duration = Duration::from_secs(30);

/// They are in the node's own table of processes, whatever namespace they are in themselves.
fn bombs() -> usize {
    processes().iter().filter(|process| process.arguments.contains("awk BEGIN { while")).count()
}

fn start(lab: &Lab, name: &str, bomb: bool, spec: &Value) {
    let limits = json!({"memory": "768Mi", "cpu": "500m"});
    let mut container = json!({"name": "c", "image": IMAGE, "resources": {"limits": limits}});
    if bomb {
        container["command"] = json!(["/bin/busybox", "awk", BOMB]);
        container["env"] = json!([{"name": "BOMB", "value": BOMB}]);
    }
    let mut full = json!({"terminationGracePeriodSeconds": 1, "containers": [container]});
    crate::lab::merge(&mut full, spec);
    lab.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": full}).to_string());
}

fn running(lab: &Lab, name: &str) -> Value {
    wait_for(&format!("{name} to run"), || {
        let pod = lab.json(&["get", "pod", name]).ok()?;
        (pod["status"]["phase"] == "Running").then_some(pod)
    })
}

/// The agent answers and says that it is well.
fn node_answers(lab: &Lab) {
    let asked = now();
    let summary: Value =
        serde_json::from_str(&lab.kubectl(&["get", "--raw", "/api/v1/nodes/m1/proxy/stats/summary"])).unwrap();
    assert_eq!(summary["node"]["nodeName"], "m1");
    let node = lab.json(&["get", "node", "m1"]).unwrap();
    assert_eq!(condition(&node, "Ready").as_deref(), Some("True"));
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
}

fn exec_works(lab: &Lab, name: &str) {
    let asked = now();
    assert_eq!(lab.kubectl(&["exec", name, "--", "echo", "here"]), "here\n");
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
}

/// Of a node with `--pod-max-pids`: the bomb harms nobody but itself.
pub fn one_with_a_limit_of_its_own(lab: &Lab) {
    start(lab, "bomb", true, &json!({}));
    wait_for("the limit of the pod to be met", || (bombs() * 10 > OF_POD * 9).then_some(()));
    start(lab, "beside", false, &json!({}));
    running(lab, "beside");
    exec_works(lab, "beside");
    node_answers(lab);
    // The bomb itself has no room for one more, which is said; nothing waits for it.
    let asked = now();
    let output = lab.kubectl_output(&["exec", "bomb", "--", "true"]);
    assert!(asked.elapsed() < SOON, "{:?}: {output:?}", asked.elapsed());
    for _ in 0..20 {
        assert!(bombs() <= OF_POD, "{}", bombs());
        std::thread::sleep(Duration::from_millis(50));
    }
    let pod = lab.json(&["get", "pod", "bomb"]).unwrap();
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0, "it is held, not ended: {pod}");
    lab.kubectl(&["delete", "pod", "bomb", "beside", "--timeout=60s"]);
    wait_for("the end of all that it made", || (bombs() == 0).then_some(()));
}

/// Tasks of this machine, and how many there can be.
fn tasks() -> (i64, i64) {
    let read = |path: &str| fs::read_to_string(path).unwrap();
    let loadavg = read("/proc/loadavg");
    let running = loadavg.split(' ').nth(3).unwrap().split('/').nth(1).unwrap().parse().unwrap();
    let limits = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    (running, limits.map(|path| read(path).trim().parse().unwrap()).into_iter().min().unwrap())
}

/// With no limit for each pod, that of all pods together keeps what the node needs, and the pod that has most is evicted.
pub fn one_without_a_limit_of_its_own(lab: &mut Lab) {
    let (running_now, most) = tasks();
    lab.machines[0].stop();
    lab.server(&[
        &format!("--kubelet-arg=system-reserved=pid={}", most - OF_PODS),
        &format!("--kubelet-arg=eviction-hard=memory.available<10Mi,pid.available<{}", most - running_now - PRESSED),
        "--kubelet-arg=eviction-pressure-transition-period=5s",
    ]);
    start(lab, "beside", false, &json!({}));
    let before = running(lab, "beside");
    start(lab, "bomb", true, &json!({"restartPolicy": "Never"}));
    let mut peak = 0;
    let evicted = wait_for("the bomb to be evicted", || {
        peak = peak.max(bombs());
        node_answers(lab);
        let pod = lab.json(&["get", "pod", "bomb"]).ok()?;
        (pod["status"]["phase"] == "Failed").then_some(pod)
    });
    eprintln!("forks: {peak} at once");
    assert!(peak < usize::try_from(OF_PODS).unwrap(), "{peak}");
    let status = &evicted["status"];
    assert_eq!(status["reason"], "Evicted", "{status}");
    assert!(status["message"].as_str().unwrap().starts_with("The node was low on resource: pids."), "{status}");
    wait_for("the end of all that it made", || (bombs() == 0).then_some(()));
    exec_works(lab, "beside");
    let id = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    assert_eq!(id(&before), id(&running(lab, "beside")), "it went on");
    wait_for("the pressure to end", || {
        let node = lab.json(&["get", "node", "m1"]).ok()?;
        (condition(&node, "PIDPressure").as_deref() == Some("False")).then_some(())
    });
    start(lab, "after", false, &json!({}));
    running(lab, "after");
    lab.kubectl(&["delete", "pod", "bomb", "beside", "after", "--timeout=60s"]);
}
