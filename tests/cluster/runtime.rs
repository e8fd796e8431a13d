//! A containerd that somebody else runs.

use std::process::Stdio;

use skiff::cri::containerd::Layout;

use crate::lab::{Lab, wait_for};
use crate::support::skip;

#[test]
fn a_runtime_of_somebody_else_is_used_and_left_alone() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    // A first start leaves a configuration for this machine; from then on containerd is not skiff's.
    let mut lab = Lab::with_server(1);
    lab.machines[0].stop();
    let layout = Layout::new(&lab.machines[0].data_dir);
    let mut containerd = lab.machines[0].command("containerd".as_ref());
    containerd.arg("--config").arg(layout.config()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut containerd = containerd.spawn().unwrap();

    let endpoint = format!("--container-runtime-endpoint=unix://{}", layout.socket().display());
    lab.server(&[&endpoint]);
    lab.kubectl(&["run", "sleeper", "--image=test.local/busybox:1"]);
    wait_for("the pod", || {
        lab.json(&["get", "pod", "sleeper"]).is_ok_and(|p| p["status"]["phase"] == "Running").then_some(())
    });
    let ours = std::fs::read_to_string(lab.machines[0].log()).unwrap();
    assert_eq!(ours.matches("containerd is ready").count(), 1, "only the first start has a containerd of its own");
    // An archive reaches it as well.
    let archive = crate::support::images::busybox("test.local/other:1", &serde_json::json!({}), &[]);
    lab.image("other.tar", &archive);
    lab.kubectl(&["run", "other", "--image=test.local/other:1", "--", "/bin/sleep", "1000"]);
    wait_for("the other pod", || {
        lab.json(&["get", "pod", "other"]).is_ok_and(|p| p["status"]["phase"] == "Running").then_some(())
    });

    lab.machines[0].stop();
    assert!(containerd.try_wait().unwrap().is_none(), "it does not end with skiff");
    containerd.kill().unwrap();
    containerd.wait().unwrap();
}
