//! Older clients: what an administrator does every day, with no warning and no stumble.

use std::path::Path;

use crate::lab::{self, IMAGE, Lab};
use crate::support::skip;

#[test]
fn an_older_kubectl_works_without_a_warning() {
    let old = lab::variable("SKIFF_TEST_KUBECTL_OLD");
    let (true, Some(old)) = (nix::unistd::geteuid().is_root(), old) else {
        return skip("needs root and SKIFF_TEST_KUBECTL_OLD");
    };
    let lab = Lab::with_server(1);
    let run = |arguments: &[&str]| old_kubectl(&lab, &old, arguments);

    let resources = run(&["api-resources", "--no-headers"]);
    let words: Vec<Vec<&str>> = resources.lines().map(|l| l.split_whitespace().collect()).collect();
    for row in [&["deployments", "deploy", "apps/v1", "true", "Deployment"], &["events", "ev", "v1", "true", "Event"]] {
        assert!(words.iter().any(|w| w == row), "{row:?} is not in:\n{resources}");
    }
    assert!(run(&["api-versions"]).contains("rbac.authorization.k8s.io/v1\n"));
    assert!(run(&["version"]).contains("Server Version: v1.36."));
    assert!(run(&["cluster-info"]).contains("is running at"));
    run(&["auth", "can-i", "create", "pods"]);

    run(&["create", "deployment", "web", &format!("--image={IMAGE}"), "--replicas=2", "--", "sleep", "100000"]);
    run(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let all = run(&["get", "all", "-o", "wide"]);
    for part in ["pod/web-", "service/kubernetes", "deployment.apps/web", "replicaset.apps/web-"] {
        assert!(all.contains(part), "{part} is not in:\n{all}");
    }
    assert!(run(&["describe", "deployment", "web"]).contains("2 desired | 2 updated | 2 total | 2 available"));
    assert!(run(&["exec", "deployment/web", "--", "echo", "there"]).contains("there"));
    run(&["logs", "deployment/web"]);
    run(&["label", "deployment", "web", "tier=front"]);
    run(&["annotate", "deployment", "web", "note=1"]);
    let manifest = lab.dir.join("old.yaml");
    std::fs::write(&manifest, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n").unwrap();
    let manifest = manifest.display().to_string();
    run(&["apply", "-f", &manifest]);
    assert!(run(&["apply", "-f", &manifest]).contains("configmap/c unchanged"));
    run(&["diff", "-f", &manifest]);
    run(&["scale", "deployment/web", "--replicas=0"]);
    run(&["wait", "pod", "--selector=app=web", "--for=delete", "--timeout=60s"]);
    run(&["drain", "m1", "--ignore-daemonsets", "--timeout=60s"]);
    run(&["uncordon", "m1"]);
    run(&["delete", "deployment/web", "configmap/c", "--timeout=60s"]);
}

#[track_caller]
fn old_kubectl(lab: &Lab, program: &Path, arguments: &[&str]) -> String {
    let mut command = lab.kubectl_program(program);
    let output = command.args(arguments).stdin(std::process::Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {}\n{out}{err}", arguments.join(" "), output.status);
    // Its own distance to the server's version is all that it may mention.
    let skew = "WARNING: version difference";
    let told: Vec<_> = err.lines().filter(|l| l.to_lowercase().contains("warning") && !l.starts_with(skew)).collect();
    assert!(told.is_empty(), "{}: {err}", arguments.join(" "));
    out.into_owned()
}
