//! Tests: who the processes of a container are, and what they may do.

use serde_json::{Value, json};

use super::{Case, all_say};
use crate::lab::Lab;

fn context(of_container: bool, context: &Value) -> impl Fn(Case) -> Case {
    let context = json!({"securityContext": context});
    move |case| if of_container { case.container(&context) } else { case.spec(&context) }
}

pub fn contexts_are_obeyed() -> Vec<Case> {
    let who = "id -u; id -g";
    let write = "touch /file 2>/dev/null && echo written || echo refused";
    let mount = "mount -t tmpfs none /tmp 2>/dev/null && echo mounted || echo refused";
    let group = json!({"runAsUser": 1001, "runAsGroup": 2002});
    let escalation = json!({"allowPrivilegeEscalation": false, "runAsUser": 1000});
    // The image knows the user, and its own group.
    let groups = json!({"runAsUser": 1000, "supplementalGroups": [3003], "fsGroup": 4004});
    vec![
        context(true, &json!({"runAsUser": 65534}))(Case::new("user", "id -u", "65534\n")),
        context(true, &json!({"runAsUser": 0}))(Case::new("root", "id -u", "0\n")),
        context(true, &group)(Case::new("group-of-container", who, "1001\n2002\n")),
        context(false, &group)(Case::new("group-of-pod", who, "1001\n2002\n")),
        context(false, &groups)(Case::new("groups", "id -G", "1000 3003 4004\n")),
        context(true, &json!({"privileged": false}))(Case::new("unprivileged", mount, "refused\n")),
        context(true, &json!({"privileged": true}))(Case::new("privileged", mount, "mounted\n")),
        context(true, &json!({"readOnlyRootFilesystem": false}))(Case::new("writes", write, "written\n")),
        context(true, &json!({"readOnlyRootFilesystem": true}))(Case::new("reads-only", write, "refused\n")),
        context(true, &escalation)(Case::new(
            "no-more",
            "awk '/NoNewPrivs/ {print $2}' /proc/self/status; id -u",
            "1\n1000\n",
        )),
        context(true, &json!({"runAsUser": 1000}))(Case::new(
            "maybe-more",
            "awk '/NoNewPrivs/ {print $2}' /proc/self/status",
            "0\n",
        )),
    ]
}

pub fn sysctls_are_set_or_refused(lab: &Lab) {
    let sysctls = |list: Value| json!({"securityContext": {"sysctls": list}});
    let forced = sysctls(json!([{"name": "kernel.shm_rmid_forced", "value": "1"}]));
    all_say(lab, &[Case::new("sysctl", "cat /proc/sys/kernel/shm_rmid_forced", "1\n").spec(&forced)]);
    let wrong = json!([{"name": "foo-", "value": "bar"}, {"name": "kernel.shmmax", "value": "100000000"}, {"name": "bar..", "value": "42"}]);
    let refused = Case::new("sysctl-wrong", "true", "").spec(&sysctls(wrong)).pod.to_string();
    let path = lab.dir.join("sysctl.json");
    std::fs::write(&path, refused).unwrap();
    let output = lab.kubectl_output(&["create", "-f", &path.display().to_string()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let named = ["sysctls[0].name: Invalid value: \"foo-\"", "sysctls[2].name: Invalid value: \"bar..\""];
    assert!(!output.status.success() && named.iter().all(|name| text.contains(name)), "{text}");
}
