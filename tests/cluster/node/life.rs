//! Tests: the life of pods and their containers: hooks, ends, restarts, deadlines.

use serde_json::{Value, json};

use super::{Case, container, create, ended, get, is_ready, until};
use crate::lab::{IMAGE, Lab, condition, wait_for};

/// The pods whose ends take a while.
pub fn begin(lab: &Lab) {
    let always = json!({"restartPolicy": "Always"});
    let on_failure = json!({"restartPolicy": "OnFailure"});
    let init = |name: &str, script: &str| json!({"name": name, "image": IMAGE, "command": ["sh", "-c", script]});
    let with =
        |case: Case, script: &str| case.spec(&json!({"initContainers": [init("one", script), init("two", "true")]}));
    let cases = [
        Case::new("always", "exit 0", "").spec(&always),
        Case::new("on-failure", "exit 1", "").spec(&on_failure),
        Case::new("on-failure-well", "exit 0", "").spec(&on_failure),
        Case::new("never", "exit 1", ""),
        with(Case::new("init-always", "exec sleep 100000", "").spec(&always), "true"),
        with(Case::new("init-never", "true", ""), "true"),
        with(Case::new("init-fails-always", "true", "").spec(&always), "false"),
        with(Case::new("init-fails-never", "true", ""), "false"),
    ];
    create(lab, &cases.iter().map(|case| &case.pod).collect::<Vec<_>>());
}

pub fn hosts_are_managed() -> Vec<Case> {
    let first = "head -n 1 /etc/hosts";
    let aliases = json!({"hostAliases": [{"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}]});
    let mounted = json!({"hostPath": {"path": "/etc/hosts", "type": "File"}});
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/etc/hosts"}]});
    vec![
        Case::new("hosts", first, "# Kubernetes-managed hosts file.\n"),
        Case::new("hosts-aliases", "grep 123 /etc/hosts", "123.45.67.89\tfoo\tbar\n").spec(&aliases),
        Case::new("hosts-mounted", "grep -c Kubernetes-managed /etc/hosts; true", "0\n")
            .volume(&mounted)
            .container(&mount),
        Case::new("hosts-of-host", first, "# Kubernetes-managed hosts file (host network).\n")
            .spec(&json!({"hostNetwork": true})),
    ]
}

pub fn hooks_are_called(lab: &Lab) {
    let serve = "mkdir /w; cd /w; touch post-exec post-http pre-exec pre-http; exec httpd -f -vv -p 8080 -h /w";
    create(lab, &[&Case::new("handler", serve, "").pod]);
    let ip = until(lab, "pod/handler", is_ready)["status"]["podIP"].as_str().unwrap().to_owned();
    let by_exec =
        |path: &str| json!({"exec": {"command": ["/bin/busybox", "wget", "-qO-", format!("http://{ip}:8080/{path}")]}});
    let by_http = |path: &str| json!({"httpGet": {"host": ip, "port": 8080, "path": format!("/{path}")}});
    let pods = [
        ("hook-exec", by_exec("post-exec"), by_exec("pre-exec")),
        ("hook-http", by_http("post-http"), by_http("pre-http")),
    ];
    let pods = pods.map(|(name, post, pre)| {
        let hooks = json!({"lifecycle": {"postStart": post, "preStop": pre}});
        Case::new(name, "exec sleep 100000", "")
            .container(&hooks)
            .spec(&json!({"terminationGracePeriodSeconds": 30}))
            .pod
    });
    create(lab, &pods.iter().collect::<Vec<_>>());
    let called = |path: &str| lab.kubectl(&["logs", "handler"]).contains(&format!("/{path}"));
    for (name, post, pre) in [("hook-exec", "post-exec", "pre-exec"), ("hook-http", "post-http", "pre-http")] {
        until(lab, &format!("pod/{name}"), is_ready);
        assert!(called(post), "{post}: {}", lab.kubectl(&["logs", "handler"]));
        assert!(!called(pre), "{pre} is called when the pod is deleted");
        lab.kubectl(&["delete", "pod", name, "--grace-period=2"]);
        assert!(called(pre), "{pre}: {}", lab.kubectl(&["logs", "handler"]));
    }
    lab.kubectl(&["delete", "pod", "handler"]);
}

pub fn messages_are_left(lab: &Lab) {
    let fall_back = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    let elsewhere = json!({"terminationMessagePath": "/dev/termination-custom-log"});
    let cases = [
        (Case::new("message-log-well", "echo DONE", "").container(&fall_back), json!(null)),
        (Case::new("message-log-fails", "echo DONE; exit 1", "").container(&fall_back), json!("DONE\n")),
        (Case::new("message-file", "echo OK > /dev/termination-log; echo no", "").container(&fall_back), json!("OK\n")),
        (
            Case::new("message-path", "printf DONE > /dev/termination-custom-log", "").container(&elsewhere).user(1000),
            json!("DONE"),
        ),
    ];
    create(lab, &cases.iter().map(|(case, _)| &case.pod).collect::<Vec<_>>());
    for (case, message) in &cases {
        ended(lab, &case.name);
        let pod = get(lab, &format!("pod/{}", case.name));
        assert_eq!(&container(&pod)["state"]["terminated"]["message"], message, "{}", case.name);
        lab.kubectl(&["delete", "pod", &case.name]);
    }
}

pub fn policies_decide_about_restarts(lab: &Lab) {
    let restarts = |pod: &Value| container(pod)["restartCount"].as_i64().unwrap_or(0);
    until(lab, "pod/always", |pod| restarts(pod) >= 1);
    let fails = until(lab, "pod/on-failure", |pod| restarts(pod) >= 1);
    assert_eq!(fails["status"]["phase"], "Running");
    for (name, phase) in [("on-failure-well", "Succeeded"), ("never", "Failed")] {
        assert_eq!(ended(lab, name), phase);
        let pod = get(lab, &format!("pod/{name}"));
        assert_eq!(restarts(&pod), 0, "{name}");
        let reason = if phase == "Failed" { "Error" } else { "Completed" };
        assert_eq!(container(&pod)["state"]["terminated"]["reason"], reason);
    }
    lab.kubectl(&["delete", "pod", "always", "on-failure", "on-failure-well", "never"]);
}

pub fn init_containers_come_first(lab: &Lab) {
    let init = |pod: &Value, n: usize| pod["status"]["initContainerStatuses"][n].clone();
    let through = |pod: &Value| (0..2).all(|n| init(pod, n)["state"]["terminated"]["exitCode"] == 0);
    let runs = until(lab, "pod/init-always", is_ready);
    assert!(through(&runs) && condition(&runs, "Initialized").as_deref() == Some("True"));
    assert_eq!(ended(lab, "init-never"), "Succeeded");
    assert!(through(&get(lab, "pod/init-never")));

    let again = until(lab, "pod/init-fails-always", |pod| init(pod, 0)["restartCount"].as_i64() >= Some(2));
    assert_eq!(ended(lab, "init-fails-never"), "Failed");
    let failed = get(lab, "pod/init-fails-never");
    for pod in [&again, &failed] {
        assert_eq!(condition(pod, "Initialized").as_deref(), Some("False"));
        assert_eq!(init(pod, 1)["state"]["waiting"]["reason"], "PodInitializing");
        assert_eq!(container(pod)["state"]["waiting"]["reason"], "PodInitializing", "the application never began");
    }
    assert_eq!(again["status"]["phase"], "Pending");
    assert_eq!(init(&failed, 0)["state"]["terminated"]["exitCode"], 1);
    lab.kubectl(&["delete", "pod", "init-always", "init-never", "init-fails-always", "init-fails-never"]);
}

pub fn a_deadline_ends_a_pod(lab: &Lab) {
    let resources = json!({"resources": {"limits": {"cpu": "100m", "memory": "32Mi"}}});
    create(lab, &[&Case::new("deadline", "exec sleep 100000", "").container(&resources).pod]);
    let pod = until(lab, "pod/deadline", is_ready);
    assert_eq!(pod["status"]["qosClass"], "Guaranteed");
    lab.kubectl(&["patch", "pod", "deadline", "-p", r#"{"spec":{"activeDeadlineSeconds":5}}"#]);
    let over = until(lab, "pod/deadline", |pod| pod["status"]["phase"] == "Failed");
    assert_eq!(over["status"]["reason"], "DeadlineExceeded");
    lab.kubectl(&["delete", "pod", "deadline"]);
}

pub fn generations_are_observed(lab: &Lab) {
    let pod = Case::new("generations", "trap exit TERM; while :; do sleep 0.1; done", "")
        .spec(&json!({"terminationGracePeriodSeconds": 30}))
        .metadata(&json!({"finalizers": ["test.local/held"]}));
    create(lab, &[&pod.pod]);
    let observed = |n: i64| {
        until(lab, "pod/generations", |pod| {
            pod["metadata"]["generation"] == n && pod["status"]["observedGeneration"] == n && is_ready(pod)
        })
    };
    observed(1);
    // Metadata is no part of the spec.
    lab.kubectl(&["label", "pod", "generations", "a=b"]);
    assert_eq!(get(lab, "pod/generations")["metadata"]["generation"], 1);
    for n in 2..5 {
        let patch = json!({"spec": {"activeDeadlineSeconds": 100_000 - n}}).to_string();
        lab.kubectl(&["patch", "pod", "generations", "-p", &patch]);
        observed(n);
    }
    lab.kubectl(&["delete", "pod", "generations", "--wait=false"]);
    until(lab, "pod/generations", |pod| {
        pod["metadata"]["generation"] == 5 && !pod["metadata"]["deletionTimestamp"].is_null()
    });
    lab.kubectl(&["patch", "pod", "generations", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]);
    wait_for("no pod", || lab.json(&["get", "pod/generations"]).is_err().then_some(()));
}

pub fn runtime_classes_are_looked_up(lab: &Lab) {
    let of_class = |name: &str, class: &str| Case::new(name, "true", "").spec(&json!({"runtimeClassName": class})).pod;
    let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "same"},
        "handler": "runc", "overhead": {"podFixed": {"cpu": "10m", "memory": "1Mi"}}});
    create(lab, &[&class]);
    create(lab, &[&of_class("classed", "same")]);
    assert_eq!(ended(lab, "classed"), "Succeeded");
    assert_eq!(get(lab, "pod/classed")["spec"]["overhead"]["cpu"], "10m");
    lab.kubectl(&["delete", "pod/classed", "runtimeclass/same"]);
    for class in ["same", "nowhere"] {
        let path = lab.dir.join("class.json");
        std::fs::write(&path, of_class("refused", class).to_string()).unwrap();
        let output = lab.kubectl_output(&["create", "-f", &path.display().to_string()]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(&format!("RuntimeClass \"{class}\" not found")), "{text}");
    }
}

pub fn pods_are_listed_changed_and_deleted(lab: &Lab) {
    let pods: Vec<Value> = (0..3)
        .map(|n| {
            let labels = json!({"labels": {"of": "many", "n": n.to_string()}});
            Case::new(format!("many-{n}"), "exec sleep 100000", "").metadata(&labels).pod
        })
        .collect();
    create(lab, &pods.iter().collect::<Vec<_>>());
    let names = |selector: &str| lab.kubectl(&["get", "pods", "-o", "name", "-l", selector]);
    assert_eq!(names("of=many"), "pod/many-0\npod/many-1\npod/many-2\n");
    let runs = until(lab, "pod/many-0", is_ready);
    assert_eq!(runs["status"]["hostIP"], lab.machines[0].ip.to_string());
    lab.kubectl(&["label", "pod", "many-0", "n=new", "--overwrite"]);
    assert_eq!(names("of=many,n=new"), "pod/many-0\n");
    // Its status is its node's, but a client may write what the node says nothing of.
    let condition = json!({"type": "test.local/Seen", "status": "True", "reason": "ByATest"});
    let patch = json!({"status": {"conditions": [condition]}}).to_string();
    lab.kubectl(&["patch", "pod", "many-0", "--subresource=status", "-p", &patch]);
    let seen = get(lab, "pod/many-0");
    assert_eq!(crate::lab::condition(&seen, "test.local/Seen").as_deref(), Some("True"));
    assert!(is_ready(&seen), "the node's own conditions stay");
    let watch = ["get", "pods", "-l", "of=many", "--watch-only", "--output-watch-events"];
    let mut watch = lab.kubectl_command(&watch).stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    lab.kubectl(&["delete", "pods", "-l", "of=many"]);
    assert_eq!(names("of=many"), "");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let _ = watch.kill();
    let output = watch.wait_with_output().unwrap();
    let events = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(events.matches("DELETED").count(), 3, "{events}");
}

pub fn taints_evict_in_their_time(lab: &Lab) {
    let tolerates = |name: &str, seconds: Option<i64>| {
        let mut toleration = json!({"key": "tired", "operator": "Exists", "effect": "NoExecute"});
        if let Some(seconds) = seconds {
            toleration["tolerationSeconds"] = seconds.into();
        }
        Case::new(name, "exec sleep 100000", "").spec(&json!({"tolerations": [toleration]})).pod
    };
    let (soon, late, never) =
        (tolerates("soon", Some(3)), tolerates("late", Some(20)), tolerates("never-evicted", None));
    let stays = tolerates("reprieved", Some(20));
    create(lab, &[&soon, &late, &never, &stays]);
    for name in ["soon", "late", "never-evicted", "reprieved"] {
        until(lab, &format!("pod/{name}"), is_ready);
    }
    lab.kubectl(&["taint", "node", "m1", "tired=yes:NoExecute"]);
    let begin = crate::lab::now();
    wait_for("the first to go", || lab.json(&["get", "pod/soon"]).is_err().then_some(()));
    assert!(get(lab, "pod/late")["metadata"]["deletionTimestamp"].is_null(), "its time is not over");
    // Without the taint nobody goes any more, whenever that would have been.
    lab.kubectl(&["taint", "node", "m1", "tired-"]);
    std::thread::sleep(std::time::Duration::from_secs(23).saturating_sub(begin.elapsed()));
    for name in ["late", "never-evicted", "reprieved"] {
        assert!(get(lab, &format!("pod/{name}"))["metadata"]["deletionTimestamp"].is_null(), "{name}");
    }
    lab.kubectl(&["delete", "pod", "late", "never-evicted", "reprieved"]);
}
