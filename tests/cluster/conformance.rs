//! What the conformance profile asks of kubectl, in the steps of its tests: the commands against a cluster whose pods run.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::lab::{IMAGE, Lab, condition, variable, wait_for};
use crate::support::{images, skip};

const OTHER_IMAGE: &str = "test.local/other:1";

/// Runs kubectl with a document on its stdin.
fn fed(lab: &Lab, arguments: &[&str], document: &str) -> Output {
    let mut command = lab.kubectl_command(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(document.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[track_caller]
pub fn feed(lab: &Lab, arguments: &[&str], document: &Value) -> String {
    let output = fed(lab, arguments, &document.to_string());
    assert!(output.status.success(), "kubectl {}: {}", arguments.join(" "), text(&output));
    text(&output)
}

#[track_caller]
fn contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

pub fn running(lab: &Lab, name: &str) -> Value {
    wait_for(&format!("pod {name} Ready"), || {
        let pod = lab.json(&["get", "pod", name]).ok()?;
        (condition(&pod, "Ready").as_deref() == Some("True")).then_some(pod)
    })
}

/// A controller of one pod.
fn primary() -> Value {
    let labels = json!({"app": "agnhost", "role": "primary"});
    let container = json!({"name": "agnhost-primary", "image": IMAGE, "args": ["sh", "-c", "echo hello; sleep 100000"],
        "ports": [{"name": "agnhost-server", "containerPort": 6379}]});
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container]});
    json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "agnhost-primary", "labels": labels},
        "spec": {"replicas": 1, "selector": labels, "template": {"metadata": {"labels": labels}, "spec": spec}}})
}

/// The names of so many pods with a label, once each of them runs.
pub fn running_of(lab: &Lab, label: &str, count: usize) -> Vec<String> {
    let names = wait_for(&format!("{count} pods {label}"), || {
        let pods = lab.json(&["get", "pods", "-l", label]).ok()?;
        let pods = pods["items"].as_array()?;
        let live = pods.iter().filter(|p| p["metadata"]["deletionTimestamp"].is_null());
        let names: Vec<String> = live.filter_map(|p| Some(p["metadata"]["name"].as_str()?.to_owned())).collect();
        (names.len() == count && pods.len() == count).then_some(names)
    });
    for name in &names {
        running(lab, name);
    }
    names
}

#[test]
fn kubectl_does_what_the_profile_asks_of_it() {
    if !nix::unistd::geteuid().is_root() || variable("SKIFF_TEST_KUBECTL").is_none() {
        return skip("needs root and SKIFF_TEST_KUBECTL");
    }
    let lab = Lab::with_server(1);
    lab.image("guestbook.tar", &guestbook());
    the_cluster_tells_of_itself(&lab);
    a_pod_is_run_tried_replaced(&lab);
    labels_annotations_and_descriptions(&lab);
    services_are_exposed(&lab);
    a_replication_controller_is_scaled_and_stopped(&lab);
    a_difference_is_shown(&lab);
    logs_are_cut(&lab);
    the_api_is_proxied(&lab);
    schemas_are_explained_and_checked(&lab);
    tokens_are_mounted(&lab);
    an_entry_is_written_and_read(&lab);
    crate::quotas::a_quota_is_kept(&lab);
    crate::budgets::a_budget_is_kept(&lab);
    crate::extension::an_extension_server_is_behind_a_service(&lab);
}

fn the_cluster_tells_of_itself(lab: &Lab) {
    assert!(lab.kubectl(&["api-versions"]).lines().any(|l| l == "v1"));
    contains_all(&lab.kubectl(&["cluster-info"]), &["Kubernetes control plane", "is running at"]);
    contains_all(&lab.kubectl(&["version"]), &["Client Version: ", "Server Version: v1.36."]);
    let version = lab.json(&["version"]).unwrap();
    for part in ["major", "minor", "gitVersion", "gitTreeState", "buildDate", "compiler", "platform"] {
        assert!(version["serverVersion"][part].as_str().is_some_and(|v| !v.is_empty()), "{part}: {version}");
    }
    // Of a binary that was built to be installed, from what is in git.
    let mut git = Command::new("git");
    git.args(["rev-parse", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if variable("SKIFF_TEST_BINARY").is_some() && git.output().is_ok_and(|o| o.status.success()) {
        let commit = version["serverVersion"]["gitCommit"].as_str().unwrap();
        assert!(commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{version}");
    }
}

fn a_pod_is_run_tried_replaced(lab: &Lab) {
    let image = |name: &str| {
        let pod = lab.json(&["get", "pod", name]).unwrap();
        let containers = pod["spec"]["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 1);
        containers[0]["image"].as_str().unwrap().to_owned()
    };
    lab.kubectl(&["run", "e2e-pod", &format!("--image={IMAGE}"), "--labels=run=e2e-pod"]);
    assert_eq!(image("e2e-pod"), IMAGE);
    let patch = json!({"spec": {"containers": [{"name": "e2e-pod", "image": OTHER_IMAGE}]}}).to_string();
    lab.kubectl(&["patch", "pod", "e2e-pod", "-p", &patch, "--dry-run=server"]);
    assert_eq!(image("e2e-pod"), IMAGE);
    running(lab, "e2e-pod");
    let mut pod = lab.json(&["get", "pod", "e2e-pod"]).unwrap();
    pod["spec"]["containers"][0]["image"] = OTHER_IMAGE.into();
    feed(lab, &["replace", "-f", "-"], &pod);
    assert_eq!(image("e2e-pod"), OTHER_IMAGE);
    // By force: another pod of the same name.
    let uid = pod["metadata"]["uid"].clone();
    let fresh = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "e2e-pod"}, "spec": {
        "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": IMAGE}]}});
    feed(lab, &["replace", "--force", "--grace-period=0", "-f", "-"], &fresh);
    assert_ne!(lab.json(&["get", "pod", "e2e-pod"]).unwrap()["metadata"]["uid"], uid);
    lab.kubectl(&["delete", "pod", "e2e-pod", "--now"]);
}

fn labels_annotations_and_descriptions(lab: &Lab) {
    feed(lab, &["create", "-f", "-"], &primary());
    let name = &*running_of(lab, "app=agnhost", 1)[0];
    let pod = running(lab, name);
    lab.kubectl(&["label", "pods", name, "testing-label=testing-label-value"]);
    contains_all(&lab.kubectl(&["get", "pod", name, "-L", "testing-label"]), &["TESTING-LABEL", "testing-label-value"]);
    assert!(lab.kubectl(&["get", "pods", "-l", "testing-label=testing-label-value", "-o", "name"]).contains(name));
    lab.kubectl(&["label", "pods", name, "testing-label-"]);
    assert!(!lab.kubectl(&["get", "pod", name, "-L", "testing-label"]).contains("testing-label-value"));
    assert_eq!(lab.kubectl(&["get", "pods", "-l", "testing-label", "-o", "name"]), "");
    lab.kubectl(&["patch", "pod", name, "-p", r#"{"metadata":{"annotations":{"x":"y"}}}"#]);
    assert_eq!(lab.json(&["get", "pod", name]).unwrap()["metadata"]["annotations"]["x"], "y");

    let container = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
    let described = lab.kubectl(&["describe", "pod", name]);
    let parts = [
        "Name:",
        "Namespace:",
        "Node:",
        "Labels:",
        "app=agnhost",
        "role=primary",
        "Annotations:",
        "Status:",
        "Running",
        "IP:",
        "Image:",
        IMAGE,
        "State:",
        "QoS Class:",
        "Controlled By:",
        "ReplicationController/agnhost-primary",
        container,
    ];
    contains_all(&described, &parts);
    let described = lab.kubectl(&["describe", "rc", "agnhost-primary"]);
    contains_all(
        &described,
        &[
            "Name:",
            "Namespace:",
            "Selector:",
            "Labels:",
            "app=agnhost",
            "Replicas:",
            "1 current / 1 desired",
            "Pod Template:",
            "Image:",
            "SuccessfulCreate",
            "replication-controller",
        ],
    );
    let node = pod["spec"]["nodeName"].as_str().unwrap();
    let described = lab.kubectl(&["describe", "node", node]);
    contains_all(
        &described,
        &[
            "Name:",
            "Labels:",
            "Annotations:",
            "CreationTimestamp:",
            "Conditions:",
            "Type",
            "Status",
            "LastHeartbeatTime",
            "LastTransitionTime",
            "Reason",
            "Message",
            "Addresses:",
            "Capacity:",
            "Version:",
            "Kernel Version:",
            "OS Image:",
            "Container Runtime Version:",
            "Kubelet Version:",
            "Pods:",
        ],
    );
    contains_all(
        &lab.kubectl(&["describe", "namespace", "default"]),
        &["Name:", "Labels:", "Annotations:", "Status:", "Active"],
    );
}

fn services_are_exposed(lab: &Lab) {
    let check = |name: &str, port: i64| {
        let service = lab.json(&["get", "service", name]).unwrap();
        let first = &service["spec"]["ports"][0];
        assert_eq!((&first["port"], &first["targetPort"]), (&json!(port), &json!(6379)), "{service}");
        wait_for("its endpoints", || {
            let endpoints = lab.json(&["get", "endpoints", name]).ok()?;
            let subset = &endpoints["subsets"][0];
            (subset["addresses"].as_array()?.len() == 1 && subset["ports"][0]["port"] == 6379).then_some(())
        });
    };
    lab.kubectl(&["expose", "rc", "agnhost-primary", "--name=rm2", "--port=1234", "--target-port=6379"]);
    check("rm2", 1234);
    lab.kubectl(&["expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=6379"]);
    check("rm3", 2345);
    let described = lab.kubectl(&["describe", "service", "rm2"]);
    contains_all(
        &described,
        &[
            "Name:",
            "Namespace:",
            "Labels:",
            "app=agnhost",
            "Selector:",
            "Type:",
            "ClusterIP",
            "IP:",
            "Port:",
            "Endpoints:",
            "Session Affinity:",
        ],
    );
    lab.kubectl(&["delete", "service/rm2", "service/rm3", "rc/agnhost-primary"]);
}

fn a_replication_controller_is_scaled_and_stopped(lab: &Lab) {
    let mut demo = primary();
    let labels = json!({"name": "update-demo"});
    demo["metadata"] = json!({"name": "update-demo", "labels": labels});
    demo["spec"]["replicas"] = 2.into();
    demo["spec"]["selector"] = labels.clone();
    demo["spec"]["template"]["metadata"]["labels"] = labels;
    feed(lab, &["create", "-f", "-"], &demo);
    running_of(lab, "name=update-demo", 2);
    for count in [1, 2] {
        lab.kubectl(&["scale", "rc", "update-demo", &format!("--replicas={count}"), "--timeout=1m"]);
        running_of(lab, "name=update-demo", count);
    }
    let shown =
        wait_for("its counts", || Some(lab.kubectl(&["get", "rc"])).filter(|t| t.contains("2         2         2")));
    assert!(shown.starts_with("NAME          DESIRED   CURRENT   READY   AGE"), "{shown}");
    // Not by `lab.kubectl`, which takes kubectl's own warning for ours.
    let forced = lab.kubectl_output(&["delete", "rc", "update-demo", "--grace-period=0", "--force"]);
    assert!(forced.status.success(), "{}", text(&forced));
    running_of(lab, "name=update-demo", 0);
    assert_eq!(lab.kubectl(&["get", "rc,svc", "-l", "name=update-demo", "-o", "name"]), "");
}

fn a_difference_is_shown(lab: &Lab) {
    let deployment = |image: &str| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "httpd-deployment"}, "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "httpd"}}, "template": {"metadata": {"labels": {"app": "httpd"}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "httpd", "image": image}]}}}})
    };
    feed(lab, &["create", "-f", "-"], &deployment(IMAGE));
    let differs = fed(lab, &["diff", "-f", "-"], &deployment(OTHER_IMAGE).to_string());
    assert_eq!(differs.status.code(), Some(1), "{}", text(&differs));
    let shown = text(&differs);
    let line =
        |sign: char, image: &str| shown.lines().any(|l| l.starts_with(sign) && l.ends_with(&format!("image: {image}")));
    assert!(line('-', IMAGE) && line('+', OTHER_IMAGE), "{shown}");
    lab.kubectl(&["delete", "deployment", "httpd-deployment"]);
}

fn logs_are_cut(lab: &Lab) {
    let script = "for i in 1 2 3 4 5; do echo line $i of the logs-generator; done; exec sleep 100000";
    lab.kubectl(&["run", "logs-generator", &format!("--image={IMAGE}"), "--restart=Never", "--", "sh", "-c", script]);
    running(lab, "logs-generator");
    let logs = |more: &[&str]| lab.kubectl(&[&["logs", "logs-generator", "logs-generator"], more].concat());
    wait_for("its lines", || logs(&[]).contains("line 5").then_some(()));
    assert_eq!(logs(&["--tail=1"]), "line 5 of the logs-generator\n");
    assert_eq!(logs(&["--limit-bytes=1"]), "l");
    let stamped = logs(&["--tail=1", "--timestamps"]);
    let (time, line) = stamped.trim_end().split_once(' ').unwrap();
    assert!(time.parse::<jiff::Timestamp>().is_ok() && line == "line 5 of the logs-generator", "{stamped}");
    assert_eq!(logs(&["--since=24h"]).lines().count(), 5);
    wait_for("a second without lines", || logs(&["--since=1s"]).is_empty().then_some(()));
    lab.kubectl(&["delete", "pod", "logs-generator", "--now"]);
}

fn the_api_is_proxied(lab: &Lab) {
    let socket = lab.dir.join("proxy.sock").display().to_string();
    for (arguments, at) in
        [(["proxy", "--port=0"], ""), (["proxy", &format!("--unix-socket={socket}")], socket.as_str())]
    {
        let mut proxy = lab.kubectl_command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut told = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(proxy.stdout.as_mut().unwrap()), &mut told).unwrap();
        let place = told.trim().strip_prefix("Starting to serve on ").unwrap_or_else(|| panic!("{told}"));
        let mut curl = lab.machines[0].command(std::path::Path::new("curl"));
        let curl = if at.is_empty() {
            curl.args(["-s", &format!("http://{place}/api/")])
        } else {
            curl.args(["-s", "--unix-socket", at, "http://localhost:0/api/"])
        };
        let answer = curl.output().unwrap();
        proxy.kill().unwrap();
        proxy.wait().unwrap();
        let versions: Value =
            serde_json::from_slice(&answer.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&answer)));
        assert_eq!(versions["versions"], json!(["v1"]));
    }
}

fn definition(group: &str, schema: &Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("foos.{group}")},
        "spec": {"group": group, "scope": "Namespaced",
            "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
}

fn schemas_are_explained_and_checked(lab: &Lab) {
    let text_of = |description: &str| json!({"type": "string", "description": description});
    let bars = json!({"type": "array", "description": "List of Bars and their specs.", "items": {
        "type": "object", "required": ["name"], "properties": {"name": text_of("Name of Bar."), "age": text_of("Age of Bar."),
            "feeling": {"type": "string", "enum": ["Great", "Down"]},
            "bazs": {"type": "array", "description": "List of Bazs.", "items": {"type": "string"}}}}});
    let whole = json!({"type": "object", "description": "Foo CRD for Testing", "properties": {
        "spec": {"type": "object", "description": "Specification of Foo", "properties": {"bars": bars}}}});
    let nested = json!({"type": "object", "description": "preserve-unknown-properties in nested field for Testing", "properties": {
        "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"dummy": {"type": "string"}}}}});
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let root = json!({"type": "object", "description": "preserve-unknown-properties at root for Testing",
        "x-kubernetes-preserve-unknown-fields": true, "properties": {"spec": {"type": "object", "description": "Specification of Waldo"}}});
    let groups = [
        ("whole.example.com", &whole),
        ("nested.example.com", &nested),
        ("open.example.com", &open),
        ("root.example.com", &root),
    ];
    for (group, schema) in groups {
        feed(lab, &["create", "-f", "-"], &definition(group, schema));
        lab.kubectl(&["wait", "--for=condition=Established", &format!("crd/foos.{group}"), "--timeout=30s"]);
    }
    let object = |group: &str, rest: Value| {
        let mut object = json!({"kind": "Foo", "apiVersion": format!("{group}/v1"), "metadata": {"name": "test"}});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        object
    };
    for (group, good) in [
        ("whole.example.com", json!({"spec": {"bars": [{"name": "test-bar"}]}})),
        ("nested.example.com", json!({"spec": {"a": null, "b": [{"c": "d"}]}})),
        ("open.example.com", json!({"a": {"b": [{"c": "d"}]}})),
        ("root.example.com", json!({"a": {"b": [{"c": "d"}]}})),
    ] {
        for verb in ["create", "apply"] {
            feed(lab, &[verb, "-f", "-"], &object(group, good.clone()));
            lab.kubectl(&["delete", &format!("foos.{group}"), "test"]);
        }
    }
    for (bad, why) in [
        (json!({"spec": {"foo": true}}), "unknown field \"spec.foo\""),
        (json!({"spec": {"bars": [{"age": "10"}]}}), "spec.bars[0].name: Required value"),
        (json!({"spec": {"bars": [{"name": "b", "feeling": "None"}]}}), "Unsupported value: \"None\""),
    ] {
        for verb in ["create", "apply"] {
            let refused = fed(lab, &[verb, "-f", "-"], &object("whole.example.com", bad.clone()).to_string());
            assert!(!refused.status.success() && text(&refused).contains(why), "{why}: {}", text(&refused));
        }
    }
    let explain = |group: &str, path: &str| {
        let (resource, api) = (format!("foos{path}"), format!("--api-version={group}/v1"));
        wait_for("an explanation", || {
            let output = lab.kubectl_output(&["explain", &resource, &api]);
            output.status.success().then(|| text(&output))
        })
    };
    contains_all(
        &explain("whole.example.com", ""),
        &[
            "DESCRIPTION:",
            "Foo CRD for Testing",
            "FIELDS:",
            "apiVersion",
            "<string>",
            "APIVersion defines",
            "spec",
            "<Object>",
            "Specification of Foo",
        ],
    );
    contains_all(
        &explain("whole.example.com", ".metadata"),
        &["Standard object's metadata", "FIELDS:", "creationTimestamp", "<string>", "CreationTimestamp is a timestamp"],
    );
    contains_all(
        &explain("whole.example.com", ".spec"),
        &["Specification of Foo", "bars", "<[]Object>", "List of Bars and their specs"],
    );
    contains_all(
        &explain("whole.example.com", ".spec.bars"),
        &[
            "bars <[]Object>",
            "List of Bars and their specs",
            "bazs",
            "<[]string>",
            "List of Bazs",
            "name",
            "<string>",
            "Name of Bar",
        ],
    );
    let nowhere = lab.kubectl_output(&["explain", "foos.spec.bars2", "--api-version=whole.example.com/v1"]);
    assert!(
        !nowhere.status.success() && text(&nowhere).contains("field \"bars2\" does not exist"),
        "{}",
        text(&nowhere)
    );
    contains_all(
        &explain("nested.example.com", ""),
        &["DESCRIPTION:", "preserve-unknown-properties in nested field for Testing"],
    );
    contains_all(&explain("open.example.com", ""), &["DESCRIPTION:", "<empty>"]);
    contains_all(&explain("root.example.com", ""), &["KIND:", "Foo"]);
    for (group, _) in groups {
        lab.kubectl(&["delete", &format!("crd/foos.{group}")]);
    }
}

/// The token that every pod has, and one that a pod asks for.
fn tokens_are_mounted(lab: &Lab) {
    lab.kubectl(&["create", "serviceaccount", "mount-test"]);
    let token = json!({"projected": {"sources": [{"serviceAccountToken": {"path": "test-token", "expirationSeconds": 3600}}]}, "name": "t"});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mounts"}, "spec": {
        "serviceAccountName": "mount-test", "terminationGracePeriodSeconds": 0, "volumes": [token],
        "containers": [{"name": "c", "image": IMAGE, "volumeMounts": [{"name": "t", "mountPath": "/var/run/secrets/tokens"}]}]}});
    feed(lab, &["create", "-f", "-"], &pod);
    running(lab, "mounts");
    let read = |path: &str| lab.kubectl(&["exec", "mounts", "--", "cat", path]);
    let own = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert_eq!(read(&format!("{own}/namespace")), "default");
    let root = lab.json(&["get", "configmap", "kube-root-ca.crt"]).unwrap();
    assert_eq!(read(&format!("{own}/ca.crt")), root["data"]["ca.crt"].as_str().unwrap());
    for path in [&format!("{own}/token"), "/var/run/secrets/tokens/test-token"] {
        let review =
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": read(path)}});
        let said = feed(lab, &["create", "--raw", "/apis/authentication.k8s.io/v1/tokenreviews", "-f", "-"], &review);
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["status"]["user"]["username"], "system:serviceaccount:default:mount-test", "{path}: {said}");
    }
    lab.kubectl(&["delete", "pod", "mounts"]);
}

const GUESTBOOK: &str = "test.local/guestbook:1";

/// A primary that keeps entries, replicas that ask it, a frontend that writes to the one and reads from the others.
fn guestbook() -> Vec<u8> {
    let part = |script: &str| format!("#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\n{script}\n");
    let keep =
        part("case $QUERY_STRING in value=*) echo ${QUERY_STRING#value=} >> /tmp/entries ;; esac; cat /tmp/entries");
    let copy = part("curl -sm 5 http://primary:8080/cgi-bin/keep || echo failed");
    let ask = part(
        "case $QUERY_STRING in value=*) curl -sm 5 http://primary:8080/cgi-bin/keep?$QUERY_STRING ;; \
         *) curl -sm 5 http://replica:8080/cgi-bin/copy ;; esac || echo failed",
    );
    let files: [(&str, u32, &[u8]); 4] = [
        ("www/cgi-bin/keep", 0o755, keep.as_bytes()),
        ("www/cgi-bin/copy", 0o755, copy.as_bytes()),
        ("www/cgi-bin/ask", 0o755, ask.as_bytes()),
        ("www/index.html", 0o644, b"ok\n"),
    ];
    images::busybox(GUESTBOOK, &json!({"Cmd": ["/bin/httpd", "-f", "-p", "8080", "-h", "/www"]}), &files)
}

fn an_entry_is_written_and_read(lab: &Lab) {
    for (name, replicas) in [("primary", 1), ("replica", 2), ("frontend", 3)] {
        let labels = json!({"app": "guestbook", "tier": name});
        let container = json!({"name": name, "image": GUESTBOOK, "ports": [{"containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1}});
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}}});
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": labels, "ports": [{"port": 8080}]}});
        feed(lab, &["create", "-f", "-"], &service);
        feed(lab, &["create", "-f", "-"], &deployment);
    }
    for name in ["primary", "replica", "frontend"] {
        lab.kubectl(&["rollout", "status", &format!("deployment/{name}"), "--timeout=60s"]);
    }
    let address = lab.json(&["get", "service", "frontend"]).unwrap()["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let ask = |query: &str| {
        let uri = format!("http://{address}:8080/cgi-bin/ask{query}");
        text(&lab.machines[0].command(std::path::Path::new("curl")).args(["-s", "-m", "10", &uri]).output().unwrap())
    };
    wait_for("the frontend to take an entry", || ask("?value=TestEntry").contains("TestEntry").then_some(()));
    wait_for("the replicas to show it", || (ask("").lines().next() == Some("TestEntry")).then_some(()));
    for name in ["primary", "replica", "frontend"] {
        lab.kubectl(&["delete", &format!("deployment/{name}"), &format!("service/{name}")]);
    }
}
