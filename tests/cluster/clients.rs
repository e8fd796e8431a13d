//! kubectl: an older one, with what an administrator does every day, no warning and no stumble; and server-side apply.

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

const SETTINGS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: COLOUR, size: small}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: IMAGE
        args: [sleep, '100000']
        ports: [{containerPort: 80}]
        env: [{name: TINT, value: COLOUR}]
";

#[test]
fn kubectl_applies_on_the_server_side() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let lab = Lab::with_server(1);
    let manifest = lab.dir.join("settings.yaml");
    let file = manifest.display().to_string();
    let write = |colour: &str| {
        std::fs::write(&manifest, SETTINGS.replace("COLOUR", colour).replace("IMAGE", IMAGE)).unwrap();
    };
    write("blue");
    let refused = |arguments: &[&str], code: i32| {
        let output = lab.kubectl_output(arguments);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(output.status.code(), Some(code), "{}: {said}", arguments.join(" "));
        said
    };
    let managers = |object: &str| {
        let path = "{range .metadata.managedFields[*]}{.manager}/{.operation}/{.subresource} {end}";
        lab.kubectl(&["get", object, "-o", &format!("jsonpath={path}")])
    };

    // What client-side apply began, server-side apply goes on with: nothing is owned twice.
    lab.kubectl(&["apply", "-f", &file]);
    assert!(managers("configmap/settings").contains("kubectl-client-side-apply/Update/ "));
    let applied = lab.kubectl(&["apply", "--server-side", "-f", &file]);
    assert!(applied.contains("configmap/settings serverside-applied"), "{applied}");
    // The annotation of client-side apply stays, in an entry of its own.
    // Entries are in the order of their times, which may be of one second or of two.
    let of_settings = managers("configmap/settings");
    let mut of_settings: Vec<&str> = of_settings.split_whitespace().collect();
    of_settings.sort_unstable();
    assert_eq!(of_settings, ["kubectl-last-applied/Apply/", "kubectl/Apply/"]);
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let of_web = managers("deployment/web");
    assert!(of_web.contains("kubectl/Apply/ ") && of_web.contains("skiff/Update/status "), "{of_web}");

    // Another tool is told whom it would overwrite, and may insist.
    write("red");
    let pipeline = ["--server-side", "--field-manager=pipeline", "-f", &file];
    let told = refused(&[&["apply"], &pipeline[..]].concat(), 1);
    for part in ["Apply failed with 1 conflict: conflict with \"kubectl\": .data.colour", "--force-conflicts"] {
        assert!(told.contains(part), "{part} is not in:\n{told}");
    }
    let forced = [&pipeline[..], &["--force-conflicts"]].concat();
    assert!(refused(&[&["diff"], &forced[..]].concat(), 1).contains("+  colour: red"));
    lab.kubectl(&[&["apply"], &forced[..]].concat());
    assert_eq!(lab.kubectl(&["get", "configmap/settings", "-o", "jsonpath={.data.colour}"]), "red");

    // The rest of what an administrator types has names too.
    lab.kubectl(&["scale", "deployment/web", "--replicas=0"]);
    lab.kubectl(&["label", "configmap/settings", "tier=front"]);
    assert!(managers("deployment/web").contains("kubectl/Update/scale "), "{}", managers("deployment/web"));
    assert!(managers("configmap/settings").contains("kubectl-label/Update/ "));
    let shown = lab.kubectl(&["get", "configmap/settings", "-o", "yaml", "--show-managed-fields"]);
    assert!(
        shown.contains("f:colour: {}")
            && !lab.kubectl(&["get", "configmap/settings", "-o", "yaml"]).contains("f:colour")
    );

    // A typing error is named.
    std::fs::write(&manifest, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndatta: {a: b}\n").unwrap();
    let told = refused(&["apply", "--server-side", "-f", &file], 1);
    assert!(told.contains(".datta: field not declared in schema"), "{told}");
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
