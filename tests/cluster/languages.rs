//! Clients in other languages, each with a script of its own in `tests/clients`, which does what their users do.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::lab::{self, IMAGE, Lab};
use crate::support::skip;

/// What `tests/tools/clients.sh` installed.
fn installed() -> Option<PathBuf> {
    let folder = lab::variable("SKIFF_TEST_CLIENTS").filter(|_| nix::unistd::geteuid().is_root());
    if folder.is_none() {
        skip("needs root and SKIFF_TEST_CLIENTS");
    }
    folder
}

/// Runs a script on the first machine. It tells what it has done; the last that it told is in the message of a failure.
fn runs(lab: &Lab, program: &Path, script: &str, modules: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    let mut command = lab.machines[0].command(program);
    command.arg(&script).env("KUBECONFIG", lab.kubeconfig()).env("IMAGE", IMAGE).env("NODE_MODULES", modules);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {}\n{out}{err}{}", script.display(), output.status, lab.logs());
}

#[test]
fn the_python_client_works() {
    let Some(folder) = installed() else { return };
    let lab = Lab::with_server(1);
    runs(&lab, &folder.join("python/bin/python"), "client.py", &folder);
}

#[test]
fn the_javascript_client_works() {
    let Some(folder) = installed() else { return };
    let mut lab = Lab::new(1);
    lab.launch_server_with(&["--disable-agent"]);
    lab::wait_for("the server", || lab.json(&["get", "namespace", "default"]).ok());
    runs(&lab, &folder.join("node"), "client.mjs", &folder);
}
