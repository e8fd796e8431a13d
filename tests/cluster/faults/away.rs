//! A node that is cut off: pods come, change and go meanwhile, and the server that it knew is not the one it finds again.

use serde_json::{Value, json};

use super::belongings::{processes, twice};
use crate::lab::{IMAGE, Lab, wait_for};
use crate::support::{images, skip};

const NEW_IMAGE: &str = "test.local/busybox:2";

#[test]
fn a_cut_off_node_takes_up_what_it_has_missed() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let mut lab = Lab::with_image(2);
    // Not the same but for its name: the runtime would tell one image of two names.
    let image = images::busybox(NEW_IMAGE, &json!({"Cmd": ["/bin/sleep", "100001"]}), &[]);
    lab.image("busybox-2.tar", &image);
    lab.server(&[]);
    wait_for("the default service account", || lab.json(&["get", "serviceaccount", "default"]).ok());
    lab.join(2);
    for name in ["stays", "changes", "goes"] {
        start(&lab, name);
    }
    let before = running(&lab, "stays");
    running(&lab, "changes");
    running(&lab, "goes");

    lab.cable(2, false);
    start(&lab, "comes");
    start(&lab, "brief");
    lab.kubectl(&["set", "image", "pod/changes", &format!("c={NEW_IMAGE}")]);
    lab.kubectl(&["delete", "pod", "goes", "--wait=false"]);
    lab.kubectl_output(&["delete", "pod", "brief", "--force", "--grace-period=0"]);
    lab.machines[0].kill();
    lab.machines[0].restart();
    wait_for("the server", || lab.json(&["get", "pod", "comes"]).ok());
    assert_eq!(marks(), ["changes", "goes", "stays"], "nobody could tell the node");
    lab.cable(2, true);

    running(&lab, "comes");
    wait_for("the new image", || {
        let status = &lab.json(&["get", "pod", "changes"]).ok()?["status"]["containerStatuses"][0];
        (status["restartCount"] == 1 && status["ready"] == true && status["image"] == NEW_IMAGE).then_some(())
    });
    wait_for("the end of what was deleted", || lab.json(&["get", "pod", "goes"]).err());
    lab.node_ready("m2");
    let after = running(&lab, "stays");
    let id = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    assert_eq!(id(&before), id(&after), "{}", lab.logs());
    wait_for("what should run, and no more", || (marks() == ["changes", "comes", "stays"]).then_some(()));
    assert_eq!(twice(), [""; 0]);
}

fn start(lab: &Lab, name: &str) {
    let container = json!({"name": "c", "image": IMAGE, "env": [{"name": "FAULTS_MARK", "value": name}]});
    let spec = json!({"nodeName": "m2", "terminationGracePeriodSeconds": 1, "containers": [container]});
    lab.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string());
}

fn running(lab: &Lab, name: &str) -> Value {
    wait_for(&format!("{name} to run"), || {
        let pod = lab.json(&["get", "pod", name]).ok()?;
        (pod["status"]["phase"] == "Running").then_some(pod)
    })
}

/// The pods that have processes, each once.
fn marks() -> Vec<String> {
    let mark = |id: i32| {
        let environment = std::fs::read(format!("/proc/{id}/environ")).ok()?;
        let mark = environment.split(|byte| *byte == 0).find_map(|row| row.strip_prefix(b"FAULTS_MARK="))?;
        Some(String::from_utf8_lossy(mark).into_owned())
    };
    let mut marks: Vec<String> = processes().iter().filter_map(|process| mark(process.id)).collect();
    marks.sort();
    marks.dedup();
    marks
}
