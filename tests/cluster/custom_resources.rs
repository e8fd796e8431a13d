//! Custom resources with kubectl: defined, explained, used, and gone with their definition.

use crate::lab::{Lab, binary, variable, wait_for};
use crate::support::skip;

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: backups.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: backups, singular: backup, kind: Backup, shortNames: [bk], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.copies, statusReplicasPath: .status.copies}}
    additionalPrinterColumns:
    - {name: Schedule, type: string, jsonPath: .spec.schedule}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        description: Backup says what is saved, and when.
        properties:
          spec:
            type: object
            required: [schedule]
            properties:
              schedule: {type: string, description: When to save., minLength: 5}
              copies: {type: integer, minimum: 1, default: 1}
              keep: {type: integer}
            x-kubernetes-validations:
            - {rule: "!has(self.keep) || self.keep >= self.copies", message: keep must not be below copies}
          status:
            type: object
            properties: {copies: {type: integer}}
"#;

const BACKUP: &str = "
apiVersion: example.com/v1
kind: Backup
metadata: {name: nightly}
spec: {schedule: 0 3 * * *}
";

#[test]
fn a_definition_is_served_explained_and_goes_with_its_objects() {
    let binary_is_there = binary().exists();
    if !nix::unistd::geteuid().is_root() || variable("SKIFF_TEST_KUBECTL").is_none() || !binary_is_there {
        return skip("needs root and SKIFF_TEST_KUBECTL");
    }
    let mut lab = Lab::with_server(1);
    lab.apply(DEFINITION);
    lab.kubectl(&["wait", "--for=condition=Established", "crd/backups.example.com", "--timeout=30s"]);
    assert!(lab.apply(BACKUP).contains("backup.example.com/nightly created"));
    assert!(lab.apply(BACKUP).contains("backup.example.com/nightly unchanged"));
    let shown = lab.kubectl(&["get", "bk"]);
    assert!(shown.contains("SCHEDULE") && shown.contains("0 3 * * *"), "{shown}");
    assert!(lab.kubectl(&["get", "all"]).contains("backup.example.com/nightly"));
    let explained = lab.kubectl(&["explain", "backup.spec"]);
    assert!(explained.contains("When to save.") && explained.contains("-required-"), "{explained}");
    assert!(lab.kubectl(&["api-resources", "--api-group=example.com"]).contains("backups"));

    let explained = lab.kubectl(&["explain", "pod.spec.restartPolicy"]);
    assert!(explained.contains("ENUM") && explained.contains("OnFailure"), "{explained}");

    let refused = |manifest: &str| {
        let file = lab.dir.join("refused.yaml");
        std::fs::write(&file, manifest).unwrap();
        let output = lab.kubectl_output(&["apply", "-f", &file.display().to_string()]);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let error = refused(&BACKUP.replace("0 3 * * *", "now"));
    assert!(
        error.contains("spec.schedule: Invalid value: \"now\": spec.schedule in body should be at least 5 chars long"),
        "{error}"
    );
    let error = refused(&BACKUP.replace("0 3 * * *}", "0 3 * * *, copies: 3, keep: 2}"));
    assert!(error.contains("keep must not be below copies"), "{error}");
    let error = refused(&BACKUP.replace("schedule:", "nope: 1, schedule:"));
    assert!(error.contains("unknown field \"spec.nope\""), "{error}");

    lab.kubectl(&["scale", "backup/nightly", "--replicas=4"]);
    let object = lab.json(&["get", "backup", "nightly"]).unwrap();
    assert_eq!(object["spec"]["copies"], 4);
    lab.kubectl(&["label", "backup/nightly", "tier=gold"]);
    lab.kubectl(&["patch", "backup/nightly", "--type=merge", "-p", r#"{"spec":{"keep":9}}"#]);

    let file = lab.dir.join("applied.yaml");
    std::fs::write(&file, BACKUP).unwrap();
    lab.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &file.display().to_string()]);

    // Dependents of custom resources go with them.
    let uid = object["metadata"]["uid"].as_str().unwrap();
    lab.apply(&format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: dependent\n  ownerReferences:\n  - {{apiVersion: example.com/v1, kind: Backup, name: nightly, uid: {uid}}}\n"
    ));
    lab.kubectl(&["delete", "backup/nightly", "--timeout=30s"]);
    wait_for("the dependent to go", || lab.json(&["get", "configmap", "dependent"]).err());

    // What is stored is there, and served, after a restart.
    lab.kubectl(&["create", "namespace", "other"]);
    for namespace in ["default", "other"] {
        let manifest =
            BACKUP.replace("metadata: {name: nightly}", &format!("metadata: {{name: kept, namespace: {namespace}}}"));
        lab.apply(&manifest);
    }
    lab.machines[0].kill();
    lab.machines[0].restart();
    wait_for("the server", || lab.json(&["get", "backup", "kept"]).ok());

    lab.kubectl(&["delete", "namespace", "other", "--timeout=60s"]);
    lab.kubectl(&["delete", "crd/backups.example.com", "--timeout=60s"]);
    let error = String::from_utf8_lossy(&lab.kubectl_output(&["get", "backups"]).stderr).into_owned();
    // kubectl goes by what it discovered before.
    assert!(error.contains("the server could not find the requested resource"), "{error}");
}
