//! Containers that end while somebody is attached: their last words arrive, all of them.

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::lab::{IMAGE, Lab, wait_for};

const PODS: usize = 5;
/// More than a pipe holds, and less than all sockets on the way: the container ends before anybody reads.
const BYTES: usize = 600_000;
/// By then kubectl has asked whether the stream still stands, which it does every 5 s.
const SLOW: Duration = Duration::from_secs(8);
const LAST: &str = "these are the last words\n";

/// By both protocols that kubectl knows.
pub fn last_words_arrive(lab: &Lab) {
    for (way, websockets) in [("websocket", "true"), ("spdy", "false")] {
        each(lab, &format!("{way}-short"), websockets, 0);
        each(lab, &format!("{way}-long"), websockets, BYTES);
    }
}

fn each(lab: &Lab, kind: &str, websockets: &str, bytes: usize) {
    // containerd passes input on before it listens to output: what is said at once may have nobody who hears it.
    // Each line costs the runtime a write, and it waits 2 s at most for those of a container that has ended.
    let line = "this is one line of many that say nothing at all, and there is no end to them, for they are many";
    let script = format!("read line; sleep 1; yes {line} | head -c {bytes}; printf '{LAST}'").replace('\n', "\\n");
    let names: Vec<String> = (0..PODS).map(|n| format!("{kind}-{n}")).collect();
    let pods: Vec<_> = names.iter().map(|name| pod(name, &script)).collect();
    lab.apply(&json!({"apiVersion": "v1", "kind": "List", "items": pods}).to_string());
    for name in &names {
        lab.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
    }
    let attached: Vec<Child> = names.iter().map(|name| attach(lab, name, websockets)).collect();
    if bytes > 0 {
        // Nobody reads what kubectl has to say, for a while.
        for name in &names {
            lab.kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", &format!("pod/{name}"), "--timeout=60s"]);
        }
        std::thread::sleep(SLOW);
    }
    for (name, child) in names.iter().zip(attached) {
        let output = child.wait_with_output().unwrap();
        let (text, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(text.ends_with(LAST), "{name}: {} bytes, {told}", text.len());
        assert_eq!(text.len(), bytes + LAST.len(), "{name}: {told}");
    }
    lab.kubectl(&["delete", "pod", "--all", "--now"]);
    wait_for("the pods' end", || (lab.json(&["get", "pods"]).ok()?["items"] == json!([])).then_some(()));
}

fn pod(name: &str, script: &str) -> serde_json::Value {
    let container = json!({"name": "c", "image": IMAGE, "command": ["/bin/sh", "-c", script], "stdin": true,
        "stdinOnce": true});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}})
}

/// Types one line, at which the container speaks and ends.
fn attach(lab: &Lab, name: &str, websockets: &str) -> Child {
    let mut command = lab.kubectl_command(&["attach", "-i", "-q", name]);
    command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // What is dropped here ends the input: an end of one direction is none of the other.
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    child
}
