//! An extension server in a pod, behind a Service: another `skiff server`, which believes this one's front proxy, and has
//! the resources of upstream's sample server.

use std::fs;
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::conformance::{feed, running};
use crate::lab::{IMAGE, Lab, binary, condition, wait_for};

const GROUP: &str = "wardle.example.com";
const PORT: u16 = 8443;
const SCRIPT: &str = "mkdir -p /data/server/tls && cp /proxy/* /data/server/tls/ && \
     exec /skiff server --disable-agent --data-dir=/data --write-kubeconfig=/data/admin.yaml --https-listen-port=8443 \
     --tls-san=ext.default.svc";

/// The pod. A binary that is not static finds its libraries where it was built.
fn pod() -> Value {
    let program = binary();
    let mut mounts = vec![("proxy", "/proxy".to_owned(), json!({"secret": {"secretName": "proxy"}}))];
    let host = |path: &str| json!({"hostPath": {"path": path}});
    mounts.push(("program", "/skiff".to_owned(), host(&program.display().to_string())));
    for (name, path) in [("lib", "/lib"), ("lib64", "/lib64"), ("usr-lib", "/usr/lib")] {
        mounts.push((name, path.to_owned(), host(path)));
    }
    let volumes: Vec<Value> = mounts
        .iter()
        .map(|(name, _, source)| {
            let mut volume = source.clone();
            volume["name"] = (*name).into();
            volume
        })
        .collect();
    let mounts: Vec<Value> = mounts.iter().map(|(name, path, _)| json!({"name": name, "mountPath": path})).collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ext", "labels": {"app": "ext"}}, "spec": {
        "terminationGracePeriodSeconds": 0, "volumes": volumes, "containers": [{"name": "ext", "image": IMAGE,
            "command": ["/bin/sh", "-c", SCRIPT], "volumeMounts": mounts,
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": PORT, "scheme": "HTTPS"}, "periodSeconds": 1}}]}})
}

/// Asks the server in the pod itself.
struct Direct<'a> {
    lab: &'a Lab,
    kubeconfig: String,
    url: String,
}

impl Direct<'_> {
    fn kubectl(&self, arguments: &[&str]) -> Output {
        let url = format!("--server={}", self.url);
        let mut command = self.lab.kubectl_command(&[&[&*url], arguments].concat());
        command.env("KUBECONFIG", &self.kubeconfig).stdin(Stdio::null()).output().unwrap()
    }
}

fn definition() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object",
        "properties": {"reference": {"type": "string"}}}}}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("flunders.{GROUP}")}, "spec": {"group": GROUP, "scope": "Namespaced",
            "names": {"plural": "flunders", "singular": "flunder", "kind": "Flunder", "listKind": "FlunderList"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": schema}]}})
}

pub fn an_extension_server_is_behind_a_service(lab: &Lab) {
    let tls = lab.machines[0].data_dir.join("server/tls");
    let file = |name: &str| format!("--from-file={}", tls.join(name).display());
    lab.kubectl(&[
        "create",
        "secret",
        "generic",
        "proxy",
        &file("request-header-ca.crt"),
        &file("request-header-ca.key"),
    ]);
    feed(lab, &["create", "-f", "-"], &pod());
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ext"},
        "spec": {"selector": {"app": "ext"}, "ports": [{"port": 443, "targetPort": PORT}]}});
    feed(lab, &["create", "-f", "-"], &service);
    let address = running(lab, "ext")["status"]["podIP"].as_str().unwrap().to_owned();

    let kubeconfig = lab.kubectl(&["exec", "ext", "--", "cat", "/data/admin.yaml"]);
    let parsed: Value = serde_saphyr::from_str(&kubeconfig).unwrap();
    let bundle = parsed["clusters"][0]["cluster"]["certificate-authority-data"].as_str().unwrap();
    let path = lab.dir.join("extension.yaml");
    fs::write(&path, &kubeconfig).unwrap();
    let direct = Direct { lab, kubeconfig: path.display().to_string(), url: format!("https://{address}:{PORT}") };
    let written = lab.dir.join("flunders.json");
    fs::write(&written, definition().to_string()).unwrap();
    let made = direct.kubectl(&["create", "-f", &written.display().to_string()]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let registered = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("v1alpha1.{GROUP}")}, "spec": {"group": GROUP, "version": "v1alpha1",
            "caBundle": bundle, "service": {"namespace": "default", "name": "ext"}, "groupPriorityMinimum": 2000,
            "versionPriority": 200}});
    feed(lab, &["create", "-f", "-"], &registered);
    let available = |status: &str| {
        wait_for(&format!("the APIService with Available={status}"), || {
            let found = lab.json(&["get", "apiservice", &format!("v1alpha1.{GROUP}")]).ok()?;
            (condition(&found, "Available").as_deref() == Some(status)).then_some(())
        });
    };
    available("True");
    wait_for("the flunders in discovery", || {
        let listed = lab.kubectl(&["api-resources", &format!("--api-group={GROUP}"), "--cached=false"]);
        listed.contains("flunders").then_some(())
    });
    its_objects_are_used(lab);
    // Without the pod nobody answers, and everybody else does.
    lab.kubectl(&["delete", "pod", "ext"]);
    available("False");
    let away = lab.kubectl_output(&["get", "--raw", &format!("/apis/{GROUP}/v1alpha1/namespaces/default/flunders")]);
    let told = String::from_utf8_lossy(&away.stderr);
    assert!(!away.status.success() && told.contains("the server is currently unable to handle the request"), "{told}");
    lab.kubectl(&["delete", "apiservice", &format!("v1alpha1.{GROUP}")]);
    lab.kubectl(&["delete", "service/ext", "secret/proxy"]);
}

fn its_objects_are_used(lab: &Lab) {
    let flunder = |name: &str| {
        json!({"apiVersion": format!("{GROUP}/v1alpha1"), "kind": "Flunder",
            "metadata": {"name": name, "labels": {"sample-label": "true"}}, "spec": {"reference": "other"}})
    };
    feed(lab, &["create", "-f", "-"], &flunder("a"));
    feed(lab, &["apply", "--server-side", "-f", "-"], &flunder("b"));
    let listed = lab.kubectl(&["get", "flunders", "-l", "sample-label=true", "-o", "name"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    lab.kubectl(&["patch", "flunder", "a", "--type=merge", "-p", r#"{"spec":{"reference":"patched"}}"#]);
    assert_eq!(lab.json(&["get", "flunder", "a"]).unwrap()["spec"]["reference"], "patched");
    // The other server knows who asks, and decides for itself what they may.
    let refused = lab.kubectl_output(&["get", "flunders", "--as=alice"]);
    let told = String::from_utf8_lossy(&refused.stderr);
    let why =
        r#"User "alice" cannot list resource "flunders" in API group "wardle.example.com" in the namespace "default""#;
    assert!(!refused.status.success() && told.contains(why), "{told}");
    lab.kubectl(&["delete", "flunder", "a"]);
    lab.kubectl(&["wait", "--for=delete", "flunder/a", "--timeout=30s"]);
    lab.kubectl(&["delete", "flunders", "--all"]);
    assert_eq!(lab.kubectl(&["get", "flunders", "-o", "name"]), "");
}
