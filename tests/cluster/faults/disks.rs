//! Disks that are full, or that the kernel lets nobody write any more. Everything of a node is on one of its own here.

use std::path::Path;

use serde_json::{Value, json};

use super::belongings::processes;
use crate::lab::{IMAGE, Lab, wait_for};
use crate::support::skip;

const MEGABYTES: &str = "300";

#[test]
fn disks_that_are_full_or_cannot_be_written() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let mut lab = Lab::with_image(1);
    let folder = lab.machines[0].data_dir.join("agent");
    let disk = lab.dir.join("disk");
    let (inside, image) = (folder.display().to_string(), disk.display().to_string());
    run(&lab, "truncate", &["-s", &format!("{MEGABYTES}M"), &image]);
    run(&lab, "mkfs.ext4", &["-q", "-F", &image]);
    run(&lab, "cp", &["-a", &inside, &format!("{inside}.first")]);
    run(&lab, "mount", &["-o", "loop,errors=remount-ro", &image, &inside]);
    run(&lab, "cp", &["-a", &format!("{inside}.first/images"), &inside]);
    // That pods go when the disk is full is another story.
    lab.server(&["--kubelet-arg=eviction-hard=memory.available<10Mi"]);
    wait_for("the default service account", || lab.json(&["get", "serviceaccount", "default"]).ok());

    start(&lab, "early");
    running(&lab, "early");
    full(&mut lab, &folder);
    read_only(&lab, &folder);
}

fn run(lab: &Lab, program: &str, arguments: &[&str]) {
    let output = lab.machines[0].command(program.as_ref()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

fn start(lab: &Lab, name: &str) {
    let container = json!({"name": "c", "image": IMAGE, "command": ["/bin/sleep", "4711"],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "m", "mountPath": "/m"}]});
    let volumes = json!([{"name": "v", "emptyDir": {}}, {"name": "m", "configMap": {"name": "kube-root-ca.crt"}}]);
    lab.apply(
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container], "volumes": volumes}})
        .to_string(),
    );
}

fn running(lab: &Lab, name: &str) -> Value {
    wait_for(&format!("pod {name} to run"), || {
        let pod = lab.json(&["get", "pod", name]).ok()?;
        (pod["status"]["phase"] == "Running").then_some(pod)
    })
}

/// The cause is in an event of the pod.
fn told(lab: &Lab, name: &str, cause: &str) {
    wait_for(&format!("{name}: {cause}"), || {
        let events = lab.kubectl(&["get", "events", "--field-selector", &format!("involvedObject.name={name}")]);
        events.to_lowercase().contains(cause).then_some(())
    });
}

fn sleepers() -> usize {
    processes().iter().filter(|process| process.arguments.contains("sleep 4711")).count()
}

fn full(lab: &mut Lab, folder: &Path) {
    let before = running(lab, "early");
    let filler = folder.join("filler").display().to_string();
    // The last blocks too.
    for size in ["1M", "4k", "1"] {
        let more = format!("dd if=/dev/zero bs={size} of={filler} oflag=append conv=notrunc 2>/dev/null; true");
        run(lab, "sh", &["-c", &more]);
    }
    start(lab, "late");
    told(lab, "late", "no space left on device");
    // An agent that starts on a full disk goes on where it was.
    lab.machines[0].kill();
    lab.machines[0].restart();
    wait_for("the server", || lab.json(&["get", "pod", "early"]).ok());
    assert_eq!(sleepers(), 1);
    run(lab, "rm", &[&filler]);
    running(lab, "late");
    lab.node_ready("m1");
    let after = running(lab, "early");
    let id = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    assert_eq!(id(&before), id(&after), "{}", lab.logs());
    lab.kubectl(&["delete", "pod", "late", "--timeout=60s"]);
}

/// The kernel mounts a disk with errors so: nothing but a repair brings it back.
fn read_only(lab: &Lab, folder: &Path) {
    let mounts = lab.machines[0].command("findmnt".as_ref()).args(["-no", "SOURCE"]).arg(folder).output().unwrap();
    let device = String::from_utf8(mounts.stdout).unwrap();
    let device = Path::new(device.trim()).file_name().unwrap().to_str().unwrap().to_owned();
    std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a disk that breaks").unwrap();
    start(lab, "never");
    told(lab, "never", "read-only file system");
    // What runs goes on, and the node says that it is there.
    assert_eq!(sleepers(), 1);
    running(lab, "early");
    let output = lab.kubectl_output(&["logs", "early"]);
    assert!(output.status.success(), "{output:?}");
}
