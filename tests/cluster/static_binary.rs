//! The static binaries: nothing but the kernel below them, on both architectures.

use std::fs;
use std::path::Path;
use std::process::Command;

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
#[ignore = "needs packaging/build.sh aarch64, which tests/run.sh does not build"]
fn the_arm64_one_runs_under_emulation() {
    let Some(binary) = built("aarch64") else { return skip("needs packaging/build.sh aarch64") };
    let emulated = |arguments: &[&str]| {
        let mut command = if cfg!(target_arch = "aarch64") {
            Command::new(&binary)
        } else {
            let mut command = Command::new("qemu-aarch64-static");
            command.arg(&binary);
            command
        };
        command.args(arguments).output().unwrap()
    };
    let version = emulated(&["--version"]);
    assert!(version.status.success(), "{version:?}");
    assert!(String::from_utf8_lossy(&version.stdout).contains("v1.36."), "{version:?}");
    let checked = emulated(&["check-config", "--node-ip=10.0.0.1"]);
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(text.contains("ok       the configuration is valid"), "{checked:?}");
}
