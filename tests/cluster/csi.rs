//! Volumes of a CSI driver with real pods. The driver is a process of its own on the machine, which mounts what it is told
//! to; the tests are its provisioner, its attacher and its resizer.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::lab::{IMAGE, Lab, now, variable, wait_for};
use crate::support::skip;

mod protocol {
    pub use skiff::agent::csi::v1 as csi;
    pub use skiff::agent::plugins::v1 as registration;
}
#[path = "../support/csi_driver.rs"]
mod csi_driver;

use csi_driver::{Driver, NAME, TOPOLOGY};

/// Where the driver below keeps its volumes, and the socket that it serves on.
const ROOT: &str = "SKIFF_TEST_CSI_ROOT";
const SOCKET: &str = "SKIFF_TEST_CSI_SOCKET";

/// No test: this program, started again, is the driver.
#[test]
#[ignore = "the driver of the story below, which starts it"]
fn driver() {
    let (Some(root), Some(socket)) = (variable(ROOT), variable(SOCKET)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(Driver::new(&root, &socket, "m1", true).serve());
}

/// A driver that runs until it is dropped.
struct Running(Child, PathBuf);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = fs::remove_file(&self.1);
    }
}

fn start_driver(lab: &Lab, root: &std::path::Path) -> Running {
    let machine = &lab.machines[0];
    let socket = machine.data_dir.join("agent/plugins_registry/hostpath-reg.sock");
    let mut command = machine.command(&std::env::current_exe().unwrap());
    command.args(["--exact", "csi::driver", "--ignored"]).env(ROOT, root).env(SOCKET, &socket);
    Running(command.stdout(Stdio::null()).spawn().unwrap(), socket)
}

/// What is mounted on the machine.
fn mounts(lab: &Lab) -> Vec<String> {
    let output = lab.machines[0].command("cat".as_ref()).arg("/proc/self/mountinfo").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut points: Vec<_> = text.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect();
    points.sort_unstable();
    points
}

fn patch(lab: &Lab, arguments: &[&str], patch: &Value) {
    let patch = patch.to_string();
    let mut all = vec!["patch", "--type=merge", "-p", &patch];
    all.extend(arguments);
    lab.kubectl(&all);
}

/// The provisioner's part: a volume for a claim.
fn provision(lab: &Lab, claim: &str, mode: &str) {
    let spec = json!({"storageClassName": "hostpath", "accessModes": ["ReadWriteOnce"], "volumeMode": mode,
        "resources": {"requests": {"storage": "1Gi"}}});
    let object =
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim}, "spec": spec});
    lab.apply(&object.to_string());
    let uid = lab.json(&["get", "pvc", claim]).unwrap()["metadata"]["uid"].clone();
    let reference =
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "default", "name": claim, "uid": uid});
    let spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "hostpath",
        "persistentVolumeReclaimPolicy": "Retain", "volumeMode": mode, "claimRef": reference,
        "csi": {"driver": NAME, "volumeHandle": claim, "fsType": "ext4"}});
    let name = format!("pv-{claim}");
    lab.apply(
        &json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}).to_string(),
    );
    wait_for("the claim is bound", || {
        (lab.json(&["get", "pvc", claim]).ok()?["status"]["phase"] == "Bound").then_some(())
    });
}

/// The attacher's part.
fn attach(lab: &Lab, claim: &str) {
    let name = wait_for("an attachment", || {
        let all = lab.json(&["get", "volumeattachments"]).ok()?;
        let of = |a: &&Value| a["spec"]["source"]["persistentVolumeName"] == format!("pv-{claim}");
        Some(all["items"].as_array()?.iter().find(of)?["metadata"]["name"].as_str()?.to_owned())
    });
    patch(lab, &["volumeattachment", &name, "--subresource=status"], &json!({"status": {"attached": true}}));
}

fn pod(lab: &Lab, name: &str, claim: &str, command: &str, container: &Value) {
    let mut container = container.clone();
    container["name"] = "c".into();
    container["image"] = IMAGE.into();
    container["command"] = json!(["/bin/sh", "-c", command]);
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container],
        "securityContext": {"fsGroup": 1000}, "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]});
    lab.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string());
}

fn running(lab: &Lab, name: &str) {
    wait_for(&format!("{name} runs"), || {
        (lab.json(&["get", "pod", name]).ok()?["status"]["phase"] == "Running").then_some(())
    });
}

#[test]
fn a_volume_of_a_driver_from_its_claim_to_its_end() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let mut lab = Lab::with_server(1);
    let root = lab.dir.join("hostpath");
    fs::create_dir_all(&root).unwrap();
    let before = mounts(&lab);
    let driver = start_driver(&lab, &root);
    let listed = wait_for("the driver registers", || {
        let node = lab.json(&["get", "csinode", "m1"]).ok()?;
        Some(node["spec"]["drivers"][0].clone()).filter(|driver| driver["name"] == NAME)
    });
    assert_eq!(listed, json!({"name": NAME, "nodeID": "m1", "topologyKeys": [TOPOLOGY], "allocatable": {"count": 7}}));
    assert_eq!(lab.json(&["get", "node", "m1"]).unwrap()["metadata"]["labels"][TOPOLOGY], "m1");
    for object in [
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": NAME},
            "spec": {"fsGroupPolicy": "File"}}),
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "hostpath"},
            "provisioner": NAME, "allowVolumeExpansion": true}),
    ] {
        lab.apply(&object.to_string());
    }

    // One pod writes, another reads; the group of both has it.
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    provision(&lab, "data", "Filesystem");
    pod(&lab, "writer", "data", "echo kept > /v/file; exec sleep 100000", &mount);
    attach(&lab, "data");
    running(&lab, "writer");
    pod(&lab, "reader", "data", "exec sleep 100000", &mount);
    running(&lab, "reader");
    wait_for("the file", || {
        let output = lab.kubectl_output(&["exec", "reader", "--", "cat", "/v/file"]);
        (output.stdout == b"kept\n").then_some(())
    });
    assert_eq!(lab.kubectl(&["exec", "reader", "--", "stat", "-c", "%g", "/v"]).trim(), "1000");
    // Another is a device.
    provision(&lab, "disk", "Block");
    let device = json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/xvda"}]});
    pod(&lab, "raw", "disk", "exec sleep 100000", &device);
    attach(&lab, "disk");
    running(&lab, "raw");
    lab.kubectl(&["exec", "raw", "--", "dd", "if=/bin/busybox", "of=/dev/xvda", "bs=512", "count=8", "conv=fsync"]);
    let on_disk = fs::read(root.join("disk.img")).unwrap();
    assert!(on_disk.starts_with(b"\x7fELF"), "what the pod wrote is on the disk");
    let in_use = lab.json(&["get", "node", "m1"]).unwrap()["status"]["volumesInUse"].clone();
    let name = |claim: &str| format!("kubernetes.io/csi/{NAME}^{claim}");
    assert_eq!(in_use, json!([name("data"), name("disk")]));

    // How full they are is for whoever watches the node.
    let metrics = lab.kubectl(&["get", "--raw", "/api/v1/nodes/m1/proxy/metrics"]);
    for claim in ["data", "disk"] {
        for (name, value) in [("capacity_bytes", 1 << 30), ("used_bytes", 4096), ("inodes_free", 97)] {
            let labels = format!("namespace=\"default\",persistentvolumeclaim=\"{claim}\"");
            let line = format!("kubelet_volume_stats_{name}{{{labels}}} {value}\n");
            assert!(metrics.contains(&line), "{line} is not in:\n{metrics}");
        }
    }

    // The agent is killed and comes back: nothing restarts, nothing is mounted twice.
    let mounted = mounts(&lab);
    let asked = csi_driver::calls(&root).len();
    lab.machines[0].kill();
    lab.machines[0].restart();
    lab.node_ready("m1");
    wait_for("the volumes are looked at again", || {
        let calls = csi_driver::calls(&root);
        (calls[asked..].iter().filter(|call| call.starts_with("NodePublishVolume")).count() == 3).then_some(())
    });
    assert_eq!(mounts(&lab), mounted);
    for name in ["writer", "reader", "raw"] {
        let pod = lab.json(&["get", "pod", name]).unwrap();
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0, "{name}");
    }

    // The claim grows; the resizer has done its part.
    let size = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
    patch(&lab, &["pvc", "data"], &size("2Gi"));
    patch(&lab, &["pv", "pv-data"], &json!({"spec": {"capacity": {"storage": "2Gi"}}}));
    let status = json!({"status": {"allocatedResources": {"storage": "2Gi"},
        "allocatedResourceStatuses": {"storage": "NodeResizePending"},
        "conditions": [{"type": "FileSystemResizePending", "status": "True", "lastTransitionTime": null}]}});
    patch(&lab, &["pvc", "data", "--subresource=status"], &status);
    let claim = wait_for("the claim has grown", || {
        let claim = lab.json(&["get", "pvc", "data"]).ok()?;
        (claim["status"]["capacity"]["storage"] == "2Gi").then_some(claim)
    });
    assert_eq!(claim["status"]["conditions"].as_array().map_or(0, Vec::len), 0, "{claim}");
    assert!(csi_driver::calls(&root).contains(&format!("NodeExpandVolume data {}", 2_i64 << 30)));

    // Nothing is left of them, and the agent is killed in the middle.
    lab.kubectl(&["delete", "pod", "writer", "--wait=false"]);
    lab.machines[0].kill();
    lab.machines[0].restart();
    lab.node_ready("m1");
    lab.kubectl(&["delete", "pod", "reader", "raw", "--wait=false"]);
    let start = now();
    wait_for("the pods are gone", || {
        let all = lab.json(&["get", "pods"]).ok()?;
        all["items"].as_array()?.is_empty().then_some(())
    });
    println!("pods with volumes of a driver were gone after {:?}", start.elapsed());
    wait_for("nothing is mounted", || (mounts(&lab) == before).then_some(()));
    wait_for("no volume is in use", || {
        let node = lab.json(&["get", "node", "m1"]).ok()?;
        node["status"]["volumesInUse"].is_null().then_some(())
    });
    let calls = csi_driver::calls(&root);
    let unstaged = |volume: &str| calls.contains(&format!("NodeUnstageVolume {volume}"));
    assert!(unstaged("data") && unstaged("disk"), "{calls:#?}");
    let left = lab.machines[0].data_dir.join("agent/plugins/kubernetes.io/csi").join(NAME);
    assert!(fs::read_dir(&left).map_or(true, |mut entries| entries.next().is_none()));
    assert_eq!(fs::read_to_string(root.join("data/file")).unwrap(), "kept\n");

    drop(driver);
    wait_for("the driver is gone", || {
        let node = lab.json(&["get", "csinode", "m1"]).ok()?;
        node["spec"]["drivers"].as_array().is_none_or(Vec::is_empty).then_some(())
    });
}
