//! Disks that are full, or that the kernel lets nobody write any more. Everything of a node is on one of its own here.

use std::path::Path;

use serde_json::{Value, json};

use super::belongings::{self, processes};
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
    on_its_own_disk(&lab, &folder);
    // That pods go when the disk is full is another story.
    lab.server(&["--kubelet-arg=eviction-hard=memory.available<10Mi"]);
    wait_for("the default service account", || lab.json(&["get", "serviceaccount", "default"]).ok());

    start(&lab, "early");
    running(&lab, "early");
    full(&mut lab, &folder);
    read_only(&lab, &folder);
}

/// What is there moves to a new disk, which is mounted in its place.
fn on_its_own_disk(lab: &Lab, folder: &Path) -> String {
    let (inside, image) = (folder.display().to_string(), lab.dir.join("disk").display().to_string());
    run(lab, "truncate", &["-s", &format!("{MEGABYTES}M"), &image]);
    run(lab, "mkfs.ext4", &["-q", "-F", &image]);
    run(lab, "cp", &["-a", &inside, &format!("{inside}.first")]);
    mount(lab, &image, &inside);
    run(lab, "cp", &["-a", &format!("{inside}.first/."), &inside]);
    image
}

fn mount(lab: &Lab, image: &str, inside: &str) {
    run(lab, "mount", &["-o", "loop,errors=remount-ro", image, inside]);
}

/// As the kernel does when it finds an error in the file system: nobody can write any more.
fn break_disk(lab: &Lab, folder: &Path) {
    let mounts = lab.machines[0].command("findmnt".as_ref()).args(["-no", "SOURCE"]).arg(folder).output().unwrap();
    let device = String::from_utf8(mounts.stdout).unwrap();
    let device = Path::new(device.trim()).file_name().unwrap().to_str().unwrap().to_owned();
    std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a disk that breaks").unwrap();
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
    break_disk(lab, folder);
    start(lab, "never");
    told(lab, "never", "read-only file system");
    // The node names the cause and what to do.
    wait_for("the node's event", || {
        let events = lab.kubectl(&["get", "events", "-A", "--field-selector", "reason=FilesystemIsReadOnly"]);
        events.contains("restart the machine").then_some(())
    });
    // What runs goes on, and the node says that it is there.
    assert_eq!(sleepers(), 1);
    running(lab, "early");
    let output = lab.kubectl_output(&["logs", "early"]);
    assert!(output.status.success(), "{output:?}");
}

/// The server's records are on the disk too. Nothing but mounting it anew makes it writable, so that the machine is
/// restarted, as the message says; here whatever runs is ended at once instead.
#[test]
fn a_disk_that_broke_is_mended() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let mut lab = Lab::with_image(1);
    let folder = lab.machines[0].data_dir.clone();
    let image = on_its_own_disk(&lab, &folder);
    lab.server(&["--kubelet-arg=eviction-hard=memory.available<10Mi"]);
    wait_for("the default service account", || lab.json(&["get", "serviceaccount", "default"]).ok());
    start(&lab, "early");
    running(&lab, "early");
    lab.kubectl(&["create", "configmap", "kept", "--from-literal=k=v"]);

    break_disk(&lab, &folder);
    let create = |name: &str| lab.kubectl_output(&["create", "configmap", name]);
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let refused = create("refused");
    assert!(!refused.status.success());
    let (name, remedy) = ("state.db is on a file system that nobody can write", "restart the machine");
    assert!(said(&refused).contains(name) && said(&refused).contains(remedy), "{}", said(&refused));
    // What is there can be read, and what runs goes on. A command in it would be one more record of the runtime's.
    lab.kubectl(&["get", "configmap", "kept"]);
    lab.kubectl(&["logs", "early"]);
    assert_eq!(sleepers(), 1);

    // One that starts there says why it cannot.
    lab.machines[0].kill();
    lab.machines[0].restart();
    let log = lab.machines[0].log();
    let mut skiff = lab.machines[0].skiff.take().unwrap();
    let status = wait_for("the end of one that cannot write", || skiff.try_wait().unwrap());
    let text = std::fs::read_to_string(log).unwrap();
    let last = text.lines().last().unwrap_or_default();
    assert!(!status.success() && last.contains("nobody can write") && last.contains(remedy), "{status}: {last}");

    end_everything(&lab);
    let inside = folder.display().to_string();
    wait_for("the disk to be free", || {
        // What pods had is mounted in it.
        let done = lab.machines[0].command("umount".as_ref()).args(["-R", &inside]).status().unwrap();
        done.success().then_some(())
    });
    // 1: errors were found and mended.
    let checked = lab.machines[0].command("e2fsck".as_ref()).args(["-p", &image]).status().unwrap();
    assert!(matches!(checked.code(), Some(0 | 1)), "{checked}");
    mount(&lab, &image, &inside);
    lab.machines[0].restart();
    lab.node_ready("m1");
    lab.kubectl(&["get", "configmap", "kept"]);
    assert!(!lab.kubectl_output(&["get", "configmap", "refused"]).status.success(), "it was refused");
    lab.kubectl(&["create", "configmap", "new"]);
    start(&lab, "late");
    running(&lab, "late");
}

/// Of this lab's node only: what was started with a file of its, and what these have started.
fn end_everything(lab: &Lab) {
    wait_for("everything to end", || {
        let all = processes();
        let mut doomed: Vec<i32> =
            belongings::of_node(&lab.machines[0]).into_iter().map(|process| process.id).collect();
        doomed.extend(all.iter().filter(|process| process.arguments.contains("sleep 4711")).map(|process| process.id));
        let parents = doomed.clone();
        let of_shims = all.iter().filter(|process| parents.contains(&process.parent)).map(|process| process.id);
        doomed.extend(of_shims);
        doomed.iter().for_each(|id| belongings::kill(*id));
        doomed.is_empty().then_some(())
    });
}
