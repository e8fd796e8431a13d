//! Real pulls, from a registry on loopback of the machine.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::lab::{Lab, wait_for};
use crate::support::{images, skip};

const REGISTRY: &str = "/usr/bin/docker-registry";
const IMAGE: &str = "127.0.0.1:5000/team/busybox:1";

#[test]
fn an_image_is_pulled_from_a_registry() {
    if !nix::unistd::geteuid().is_root() || !std::path::Path::new(REGISTRY).exists() {
        return skip("needs root and docker-registry");
    }
    let mut lab = Lab::new(1);
    // Pushed by containerd's own client, from an archive that is imported under the registry's name.
    lab.server(&[]);
    let config = lab.dir.join("registry.yml");
    let storage = lab.dir.join("registry");
    let text = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:5000\n",
        storage.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut registry = lab.machines[0].command(REGISTRY.as_ref());
    let mut registry = registry.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();

    let archive = lab.dir.join("pushed.tar");
    std::fs::write(&archive, images::busybox(IMAGE, &json!({"Cmd": ["/bin/sleep", "1000"]}), &[])).unwrap();
    let socket = lab.machines[0].data_dir.join("agent/run/containerd/containerd.sock");
    let ctr = |lab: &Lab, arguments: &[&str]| {
        let mut command: Command = lab.machines[0].command("ctr".as_ref());
        command.arg("--address").arg(&socket).args(["--namespace", "k8s.io", "images"]).args(arguments);
        let output = command.output().unwrap();
        output.status.success().then_some(()).ok_or_else(|| format!("{output:?}"))
    };
    ctr(&lab, &["import", &archive.display().to_string()]).unwrap();
    wait_for("the push", || ctr(&lab, &["push", "--plain-http", IMAGE]).ok());
    ctr(&lab, &["rm", "--sync", IMAGE]).unwrap();

    lab.kubectl(&["run", "pulled", &format!("--image={IMAGE}"), "--image-pull-policy=Always"]);
    wait_for("the pod", || {
        let pod = lab.json(&["get", "pod", "pulled"]).ok()?;
        (pod["status"]["phase"] == "Running").then_some(())
    });
    let events = lab.kubectl(&["get", "events", "--field-selector", "involvedObject.name=pulled"]);
    for part in [format!("Pulling image \"{IMAGE}\""), format!("Successfully pulled image \"{IMAGE}\" in ")] {
        assert!(events.contains(&part), "{part} is not in:\n{events}");
    }
    let _ = registry.kill();
    let _ = registry.wait();
}
