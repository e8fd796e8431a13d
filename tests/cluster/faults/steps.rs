//! runc is killed at each step of a container's life: before it has done anything, in the middle, and when all is done
//! but nobody knows. A program in its place, which the shims find first, does that.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::belongings::{Found, back_to, count};
use crate::lab::{IMAGE, Lab, condition, wait_for};
use crate::support::skip;

/// `<step>` in the folder says how many calls of the step are let through and when the next one is killed.
const RUNC: &str = r#"#!/bin/sh
for step in "$@"; do
    case $step in create|start|kill|delete|exec) break;; esac
done
if mv "$FOLDER/$step" "$FOLDER/$step.$$" 2>/dev/null; then
    read -r others when < "$FOLDER/$step.$$"
    if [ "$others" -gt 0 ]; then
        echo "$((others - 1)) $when" > "$FOLDER/$step.$$"
        mv "$FOLDER/$step.$$" "$FOLDER/$step"
    else
        mv "$FOLDER/$step.$$" "$FOLDER/done"
        case $when in
        after) RUNC "$@" ;;
        between) RUNC "$@" & sleep 0.02; kill -9 $! ;;
        esac
        kill -9 $$
    fi
fi
exec RUNC "$@"
"#;

struct Armed {
    folder: PathBuf,
}

impl Armed {
    fn new(lab: &mut Lab, runc: &Path) -> Armed {
        let folder = lab.dir.join("runc");
        fs::create_dir_all(&folder).unwrap();
        let script =
            RUNC.replace("$FOLDER", &folder.display().to_string()).replace("RUNC", &runc.display().to_string());
        let program = folder.join("runc");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("PATH={}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", folder.display());
        lab.machines[0].program.splice(0..0, ["/usr/bin/env".into(), path.into()]);
        Armed { folder }
    }

    fn arm(&self, step: &str, others: u32, when: &str) {
        fs::write(self.folder.join(step), format!("{others} {when}\n")).unwrap();
    }

    fn went_off(&self) {
        wait_for("the step that is killed", || fs::remove_file(self.folder.join("done")).ok());
    }
}

#[test]
fn runc_is_killed_at_each_step() {
    let runc = Path::new("/usr/sbin/runc");
    if !nix::unistd::geteuid().is_root() || !runc.exists() {
        return skip("needs root and runc");
    }
    let mut lab = Lab::with_image(1);
    let armed = Armed::new(&mut lab, runc);
    lab.server(&[]);
    wait_for("the default service account", || lab.json(&["get", "serviceaccount", "default"]).ok());
    let before = count(&lab.machines[0]);
    for when in ["before", "between", "after"] {
        // The sandbox's own container is made first.
        for others in [0, 1] {
            for step in ["create", "start"] {
                eprintln!("{step} of {}, killed: {when}", ["the sandbox", "the container"][others as usize]);
                armed.arm(step, others, when);
                start(&lab);
                armed.went_off();
                ready(&lab);
                end(&lab, &before);
            }
        }
        for step in ["kill", "delete"] {
            eprintln!("{step}, killed: {when}");
            start(&lab);
            ready(&lab);
            armed.arm(step, 0, when);
            lab.kubectl(&["delete", "pod", "victim", "--wait=false"]);
            armed.went_off();
            end(&lab, &before);
        }
    }
}

fn start(lab: &Lab) {
    let container = json!({"name": "c", "image": IMAGE, "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "resources": {"limits": {"memory": "32Mi"}}});
    let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [container],
        "volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}]});
    lab.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "victim"}, "spec": spec}).to_string());
}

fn ready(lab: &Lab) {
    wait_for("the pod to be ready", || {
        let pod = lab.json(&["get", "pod", "victim"]).ok()?;
        (condition(&pod, "Ready").as_deref() == Some("True")).then_some(())
    });
}

fn end(lab: &Lab, before: &Found) {
    lab.kubectl(&["delete", "pod", "victim", "--timeout=60s", "--ignore-not-found"]);
    back_to(lab, &lab.machines[0], before);
}
