//! Tables: Deployment and ReplicaSet.

use serde_json::{Value, json};

use super::deployment::DeploymentKind;
use super::replica_set::ReplicaSetKind;
use crate::api::user::User;
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Part, Strategy, Typed};

fn workload(kind: &str, change: &[(&str, Value)]) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "a", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}},
        },
    });
    for (pointer, value) in change {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[field] = value.clone();
    }
    object
}

fn created(strategy: &dyn Strategy, mut object: Value) -> Value {
    strategy.defaults(&mut object).unwrap();
    strategy.prepare_create(&Context::new(User::default()), &mut object).unwrap();
    object
}

fn check(change: &[(&str, Value)], expect: &[&str]) {
    let (strategy, cx) = (Typed(DeploymentKind), Context::new(User::default()));
    let object = created(&strategy, workload("Deployment", change));
    let errors = strategy.validate_create(&cx, &object);
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
}

#[test]
fn defaults() {
    let made = created(&Typed(DeploymentKind), workload("Deployment", &[]));
    let spec = &made["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["revisionHistoryLimit"], 10);
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
    // A template is not a pod yet.
    assert_eq!(spec["template"]["spec"]["enableServiceLinks"], Value::Null);
    assert_eq!(made["metadata"]["generation"], 1);
    let made = created(&Typed(ReplicaSetKind), workload("ReplicaSet", &[]));
    assert_eq!((&made["spec"]["replicas"], &made["status"]["replicas"]), (&json!(1), &json!(0)));
}

#[test]
fn validation() {
    check(&[], &[]);
    check(&[("/spec/replicas", json!(-1))], &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]);
    check(
        &[("/spec/template/metadata/labels", json!({"app": "b"}))],
        &["spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`"],
    );
    check(
        &[("/spec/template/spec/restartPolicy", json!("Never"))],
        &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
    );
    check(
        &[("/spec/strategy", json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}))],
        &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
    );
    check(
        &[("/spec/strategy", json!({"type": "Recreate", "rollingUpdate": {}}))],
        &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
    );
    check(
        &[("/spec/minReadySeconds", json!(600))],
        &["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
    );
    check(&[("/spec/template/spec/containers", json!([]))], &["spec.template.spec.containers: Required value"]);
}

#[test]
fn updates() {
    let (strategy, cx) = (Typed(DeploymentKind), Context::new(User::default()));
    let old = created(&strategy, workload("Deployment", &[]));
    let update = |part: Part, pointer: &str, value: Value| {
        let mut new = old.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        new.pointer_mut(parent).unwrap()[field] = value;
        strategy.prepare_update(&cx, part, &mut new, &old).unwrap();
        let errors = strategy.validate_update(&cx, part, &new, &old);
        (new, errors.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (new, errors) = update(Part::Spec, "/spec/replicas", json!(3));
    assert_eq!((errors.len(), &new["metadata"]["generation"]), (0, &json!(2)));
    let (new, _) = update(Part::Spec, "/metadata/labels", json!({"a": "b"}));
    assert_eq!(new["metadata"]["generation"], 1);
    let (new, _) = update(Part::Spec, "/status/replicas", json!(3));
    assert_eq!(new, old);
    let (new, errors) = update(Part::Status, "/status/replicas", json!(3));
    assert_eq!((errors.len(), &new["status"]["replicas"], &new["metadata"]["generation"]), (0, &json!(3), &json!(1)));
    let (_, errors) = update(Part::Status, "/status/readyReplicas", json!(3));
    assert_eq!(errors, ["status.readyReplicas: Invalid value: 3: cannot be greater than status.replicas"]);
    let (_, errors) = update(Part::Spec, "/spec/selector", json!({"matchLabels": {"app": "b"}}));
    assert_eq!(
        errors,
        [
            "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template \
             `labels`",
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"b\"}}: field is immutable",
        ]
    );
}
