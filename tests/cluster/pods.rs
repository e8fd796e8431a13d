//! What becomes of pods: phases, reasons, probes, volumes, logs, as kubectl shows them. One cluster serves all stories;
//! each has names of its own.

use serde_json::{Value, json};

use crate::lab::{IMAGE, Lab, condition, merge, wait_for};
use crate::support::skip;

fn pod(lab: &Lab, name: &str) -> Option<Value> {
    lab.json(&["get", "pod", name]).ok()
}

/// Applies a pod of one container `c` that runs a shell script; `extra` is merged into the container, `spec` into the
/// pod's spec.
fn start(lab: &Lab, name: &str, script: &str, extra: &Value, spec: &Value) {
    let mut container = json!({"name": "c", "image": IMAGE, "command": ["/bin/sh", "-c", script]});
    merge(&mut container, extra);
    let mut body = json!({"containers": [container], "terminationGracePeriodSeconds": 1});
    merge(&mut body, spec);
    let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body});
    lab.apply(&manifest.to_string());
}

/// Waits until the column STATUS of `kubectl get pods` says this.
fn status_shown(lab: &Lab, name: &str, status: &str) -> String {
    wait_for(&format!("pod {name} {status}"), || {
        let line = lab.kubectl(&["get", "pod", name, "--no-headers"]);
        (line.split_whitespace().nth(2) == Some(status)).then_some(line)
    })
}

fn terminated(pod: &Value) -> Value {
    let status = &pod["status"]["containerStatuses"][0];
    let last = &status["lastState"]["terminated"];
    if last.is_object() { last.clone() } else { status["state"]["terminated"].clone() }
}

#[test]
fn pods_behave_as_on_any_cluster() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let lab = Lab::with_server(1);

    exit_codes_and_reasons(&lab);
    init_containers_run_in_order(&lab);
    probes_decide(&lab);
    volumes_hold_what_they_should(&lab);
    the_token_and_the_environment(&lab);
    logs_in_every_way(&lab);
    names_resolve(&lab);
    what_does_not_fit_says_why(&lab);
    images_that_cannot_be_had(&lab);
    deletion_is_graceful(&lab);
}

fn exit_codes_and_reasons(lab: &Lab) {
    let never = json!({"restartPolicy": "Never"});
    start(lab, "completed", "exit 0", &json!({}), &never);
    start(lab, "error", "exit 42", &json!({}), &never);
    let memory = json!({"resources": {"limits": {"memory": "16Mi"}}});
    start(lab, "looping", "exit 1", &json!({}), &json!({}));
    start(lab, "oom", "x=$(yes | head -c 100000000); echo $x", &memory, &never);

    status_shown(lab, "completed", "Completed");
    assert_eq!(pod(lab, "completed").unwrap()["status"]["phase"], "Succeeded");
    status_shown(lab, "error", "Error");
    let failed = pod(lab, "error").unwrap();
    assert_eq!((&failed["status"]["phase"], &terminated(&failed)["exitCode"]), (&json!("Failed"), &json!(42)));
    status_shown(lab, "oom", "OOMKilled");
    assert_eq!(terminated(&pod(lab, "oom").unwrap())["exitCode"], 137);
    let line = status_shown(lab, "looping", "CrashLoopBackOff");
    assert!(line.contains("0/1"), "{line}");
    let looping = pod(lab, "looping").unwrap();
    let waiting = &looping["status"]["containerStatuses"][0]["state"]["waiting"];
    assert!(
        waiting["message"]
            .as_str()
            .unwrap()
            .starts_with("back-off 10s restarting failed container=c pod=looping_default(")
    );
    let events = wait_for("the BackOff event", || {
        let text = lab.kubectl(&["get", "events", "--field-selector", "involvedObject.name=looping"]);
        text.contains("BackOff").then_some(text)
    });
    assert!(events.contains("Back-off restarting failed container c in pod looping_default("), "{events}");
}

fn init_containers_run_in_order(lab: &Lab) {
    let mount = json!({"volumeMounts": [{"name": "d", "mountPath": "/d"}]});
    let init = |name: &str| {
        json!({"name": name, "image": IMAGE, "command": ["/bin/sh", "-c", format!("echo {name} >> /d/order")],
            "volumeMounts": [{"name": "d", "mountPath": "/d"}]})
    };
    let spec = json!({"initContainers": [init("one"), init("two")], "volumes": [{"name": "d", "emptyDir": {}}]});
    start(lab, "init", "cat /d/order; sleep 1000", &mount, &spec);
    status_shown(lab, "init", "Running");
    assert_eq!(lab.kubectl(&["logs", "init"]), "one\ntwo\n");
}

fn probes_decide(lab: &Lab) {
    // Ready only while the file is there; restarted when it says so.
    let probes = json!({
        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1},
        "livenessProbe": {"exec": {"command": ["test", "!", "-e", "/tmp/dead"]}, "periodSeconds": 1, "failureThreshold": 1},
    });
    start(lab, "probed", "sleep 1000", &probes, &json!({}));
    status_shown(lab, "probed", "Running");
    let ready = |lab: &Lab| condition(&pod(lab, "probed").unwrap(), "Ready").unwrap();
    assert_eq!(ready(lab), "False");
    lab.kubectl(&["exec", "probed", "--", "touch", "/tmp/ready"]);
    wait_for("Ready", || (ready(lab) == "True").then_some(()));
    lab.kubectl(&["exec", "probed", "--", "touch", "/tmp/dead"]);
    wait_for("a restart", || {
        (pod(lab, "probed")?["status"]["containerStatuses"][0]["restartCount"] == 1).then_some(())
    });
    let events = lab.kubectl(&["get", "events", "--field-selector", "involvedObject.name=probed"]);
    assert!(events.contains("Liveness probe failed") && events.contains("will be restarted"), "{events}");
}

fn volumes_hold_what_they_should(lab: &Lab) {
    lab.kubectl(&["create", "configmap", "settings", "--from-literal=color=red"]);
    lab.kubectl(&["create", "secret", "generic", "sesame", "--from-literal=word=open"]);
    let host = lab.dir.join("host");
    std::fs::create_dir_all(&host).unwrap();
    std::fs::write(host.join("file"), "from the host\n").unwrap();
    let mounts = json!({"volumeMounts": [
        {"name": "c", "mountPath": "/c"}, {"name": "s", "mountPath": "/s"}, {"name": "h", "mountPath": "/h"},
        {"name": "m", "mountPath": "/m"},
    ]});
    let spec = json!({"volumes": [
        {"name": "c", "configMap": {"name": "settings"}},
        {"name": "s", "secret": {"secretName": "sesame", "defaultMode": 0o400}},
        {"name": "h", "hostPath": {"path": host, "type": "Directory"}},
        {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
    ]});
    start(lab, "volumes", "sleep 1000", &mounts, &spec);
    status_shown(lab, "volumes", "Running");
    let read = |path: &str| lab.kubectl(&["exec", "volumes", "--", "cat", path]);
    assert_eq!(read("/c/color"), "red");
    assert_eq!(read("/s/word"), "open");
    assert_eq!(read("/h/file"), "from the host\n");
    assert_eq!(lab.kubectl(&["exec", "volumes", "--", "stat", "-L", "-c", "%a", "/s/word"]), "400\n");
    // In memory, where nobody finds them on the disk, nor in its swap.
    let mounts = lab.kubectl(&["exec", "volumes", "--", "mount"]);
    for path in ["/m", "/s", "/var/run/secrets/kubernetes.io/serviceaccount"] {
        let start = format!("tmpfs on {path} ");
        let line = mounts.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{path}: {mounts}"));
        assert_eq!(line.contains("noswap"), swap_can_be_kept_off(), "{line}");
    }
    // A change arrives in the running pod.
    lab.kubectl(&["patch", "configmap", "settings", "-p", r#"{"data":{"color":"blue"}}"#]);
    lab.kubectl(&["patch", "secret", "sesame", "-p", r#"{"stringData":{"word":"shut"}}"#]);
    wait_for("the new color", || (read("/c/color") == "blue").then_some(()));
    wait_for("the new word", || (read("/s/word") == "shut").then_some(()));
}

/// Linux 6.4 and newer.
fn swap_can_be_kept_off() -> bool {
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(4))
}

fn the_token_and_the_environment(lab: &Lab) {
    let env = json!({"env": [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
        {"name": "BOTH", "value": "$(NAME)-$(COLOR)"},
    ]});
    start(lab, "env", "sleep 1000", &env, &json!({}));
    status_shown(lab, "env", "Running");
    let out = lab.kubectl(&["exec", "env", "--", "env"]);
    for line in ["BOTH=env-blue", "KUBERNETES_SERVICE_HOST=10.43.0.1", "KUBERNETES_SERVICE_PORT=443", "HOSTNAME=env"] {
        assert!(out.lines().any(|l| l == line), "{line} is not in:\n{out}");
    }
    let files = lab.kubectl(&["exec", "env", "--", "ls", "/var/run/secrets/kubernetes.io/serviceaccount"]);
    assert_eq!(files.split_whitespace().collect::<Vec<_>>(), ["ca.crt", "namespace", "token"]);
    // The token is good, for whom it was issued to.
    let token = lab.kubectl(&["exec", "env", "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token"]);
    let whoami = lab.kubectl(&[
        "--token",
        &token,
        "--kubeconfig=/dev/null",
        "--server=https://127.0.0.1:6443",
        "--insecure-skip-tls-verify",
        "auth",
        "whoami",
    ]);
    assert!(whoami.contains("system:serviceaccount:default:default"), "{whoami}");
}

fn logs_in_every_way(lab: &Lab) {
    start(
        lab,
        "talker",
        "for i in $(seq 1 5); do echo line $i; done; echo last >&2; sleep 2; echo late; sleep 1000",
        &json!({}),
        &json!({}),
    );
    status_shown(lab, "talker", "Running");
    wait_for("the lines", || lab.kubectl(&["logs", "talker"]).contains("last").then_some(()));
    assert_eq!(lab.kubectl(&["logs", "talker", "-c", "c", "--tail=2"]).lines().count(), 2);
    assert!(lab.kubectl(&["logs", "talker", "--since=1h"]).contains("line 1"));
    assert!(lab.kubectl(&["logs", "talker", "--timestamps", "--limit-bytes=40"]).starts_with("20"));
    let unknown = lab.kubectl_output(&["logs", "talker", "-c", "nobody"]);
    let text = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(text.contains("container nobody is not valid for pod talker"), "{text}");
    // Following sees what comes later, and ends with the container.
    let follow = lab.kubectl_command(&["logs", "-f", "talker"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    wait_for("the late line", || lab.kubectl(&["logs", "talker"]).contains("late").then_some(()));
    lab.kubectl(&["delete", "pod", "talker"]);
    let output = follow.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("late"), "{output:?}");
}

fn names_resolve(lab: &Lab) {
    start(lab, "asker", "sleep 1000", &json!({}), &json!({}));
    status_shown(lab, "asker", "Running");
    let conf = lab.kubectl(&["exec", "asker", "--", "cat", "/etc/resolv.conf"]);
    assert!(conf.contains("nameserver 10.43.0.10"), "{conf}");
    assert!(conf.contains("search default.svc.cluster.local svc.cluster.local cluster.local"), "{conf}");
    assert!(conf.contains("options ndots:5"), "{conf}");
    let answer = lab.kubectl(&["exec", "asker", "--", "nslookup", "kubernetes.default.svc.cluster.local"]);
    assert!(answer.contains("10.43.0.1"), "{answer}");
    let missing = lab.kubectl_output(&["exec", "asker", "--", "nslookup", "nothing.default.svc.cluster.local"]);
    assert!(!missing.status.success() && String::from_utf8_lossy(&missing.stdout).contains("NXDOMAIN"), "{missing:?}");
}

fn what_does_not_fit_says_why(lab: &Lab) {
    start(lab, "huge", "true", &json!({"resources": {"requests": {"cpu": "1000"}}}), &json!({}));
    let event = wait_for("the FailedScheduling event", || {
        let text = lab.kubectl(&["get", "events", "--field-selector", "involvedObject.name=huge"]);
        text.contains("FailedScheduling").then_some(text)
    });
    assert!(event.contains("0/1 nodes are available: 1 Insufficient cpu."), "{event}");
    let huge = pod(lab, "huge").unwrap();
    assert_eq!(
        (condition(&huge, "PodScheduled").as_deref(), &huge["status"]["phase"]),
        (Some("False"), &json!("Pending"))
    );
    lab.kubectl(&["delete", "pod", "huge"]);
}

fn images_that_cannot_be_had(lab: &Lab) {
    start(lab, "no-image", "true", &json!({"image": "127.0.0.1:1/nothing:1"}), &json!({}));
    wait_for("ErrImagePull or its back-off", || {
        let line = lab.kubectl(&["get", "pod", "no-image", "--no-headers"]);
        (line.contains("ErrImagePull") || line.contains("ImagePullBackOff")).then_some(())
    });
    status_shown(lab, "no-image", "ImagePullBackOff");
    let described = lab.kubectl(&["describe", "pod", "no-image"]);
    assert!(described.contains("Failed to pull image \"127.0.0.1:1/nothing:1\""), "{described}");
    lab.kubectl(&["delete", "pod", "no-image"]);
}

fn deletion_is_graceful(lab: &Lab) {
    let spec = json!({"terminationGracePeriodSeconds": 20});
    start(lab, "polite", "trap 'echo bye; sleep 1; exit 0' TERM; while true; do sleep 0.1; done", &json!({}), &spec);
    status_shown(lab, "polite", "Running");
    let follow = lab.kubectl_command(&["logs", "-f", "polite"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    lab.kubectl(&["delete", "pod", "polite", "--timeout=15s"]);
    assert!(pod(lab, "polite").is_none());
    let output = follow.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("bye"), "{output:?}");
}
