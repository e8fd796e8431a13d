//! The static binaries: nothing but the kernel below them, on both architectures.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lab::{Lab, wait_for};
use crate::support::skip;

fn built(architecture: &str) -> Option<std::path::PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/static/{architecture}/skiff"));
    path.exists().then_some(path)
}

#[test]
fn the_native_one_runs_in_an_empty_chroot() {
    let (true, Some(binary)) = (nix::unistd::geteuid().is_root(), built(std::env::consts::ARCH)) else {
        return skip("needs root and packaging/build.sh");
    };
    let root = tempfile::tempdir().unwrap();
    fs::copy(binary, root.path().join("skiff")).unwrap();
    let output = Command::new("chroot").arg(root.path()).args(["/skiff", "--version"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("v1.36."), "{output:?}");
}

#[test]
#[ignore = "needs packaging/build.sh aarch64, half an hour on two cores: run by tests/arm64.sh"]
fn the_arm64_one_runs_under_emulation() {
    let Some(binary) = built("aarch64") else { return skip("needs packaging/build.sh aarch64") };
    let mut program = vec![binary];
    if !cfg!(target_arch = "aarch64") {
        program.insert(0, "qemu-aarch64-static".into());
    }
    let emulated = |arguments: &[&str]| Command::new(&program[0]).args(&program[1..]).args(arguments).output().unwrap();
    let version = emulated(&["--version"]);
    assert!(version.status.success(), "{version:?}");
    assert!(String::from_utf8_lossy(&version.stdout).contains("v1.36."), "{version:?}");
    let checked = emulated(&["check-config", "--node-ip=10.0.0.1"]);
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(text.contains("ok       the configuration is valid"), "{checked:?}");

    // A control plane serves; pods would need a kernel of that architecture.
    let mut lab = Lab::new(1);
    lab.machines[0].program = program;
    lab.launch_server_with(&["--disable-agent"]);
    wait_for("the API", || lab.json(&["get", "serviceaccount", "default"]).ok());
    lab.kubectl(&["create", "deployment", "web", "--image=web:1"]);
    let message = wait_for("a pod that waits for a node", || {
        let pods = lab.json(&["get", "pods", "--selector=app=web"]).ok()?;
        pods["items"][0]["status"]["conditions"][0]["message"].as_str().map(str::to_owned)
    });
    assert_eq!(message, "no nodes available to schedule pods");
}
