//! Tables: the workloads.

use serde_json::{Value, json};

use super::controller_revision::ControllerRevisionKind;
use super::daemon_set::DaemonSetKind;
use super::deployment::DeploymentKind;
use super::replica_set::ReplicaSetKind;
use super::stateful_set::StatefulSetKind;
use crate::api::user::User;
use crate::server::registry::core::pod_template::PodTemplateKind;
use crate::server::registry::core::replication_controller::ReplicationControllerKind;
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Part, Prepared, Strategy, Typed};

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

fn prepared(strategy: &dyn Strategy, mut object: Value) -> (Value, Prepared) {
    strategy.defaults(&mut object).unwrap();
    let prepared = strategy.prepare_create(&Context::new(User::default()), &mut object).unwrap();
    (object, prepared)
}

fn created(strategy: &dyn Strategy, object: Value) -> Value {
    prepared(strategy, object).0
}

fn check(change: &[(&str, Value)], expect: &[&str]) {
    check_of(&Typed(DeploymentKind), workload("Deployment", change), expect);
}

fn check_of(strategy: &dyn Strategy, object: Value, expect: &[&str]) {
    let (_, Prepared { errors, .. }) = prepared(strategy, object);
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
}

/// A change of one field by an update: the object after it, and what is wrong.
fn updated(strategy: &dyn Strategy, part: Part, old: &Value, pointer: &str, value: Value) -> (Value, Vec<String>) {
    let cx = Context::new(User::default());
    let mut new = old.clone();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    new.pointer_mut(parent).unwrap()[field] = value;
    let Prepared { errors, .. } = strategy.prepare_update(&cx, part, &mut new, old).unwrap();
    (new, errors.iter().map(ToString::to_string).collect())
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
    let strategy = Typed(DeploymentKind);
    let old = created(&strategy, workload("Deployment", &[]));
    let update = |part: Part, pointer: &str, value: Value| updated(&strategy, part, &old, pointer, value);
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

#[test]
fn stateful_sets() {
    let strategy = Typed(StatefulSetKind);
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}});
    let made = created(&strategy, workload("StatefulSet", &[("/spec/volumeClaimTemplates", json!([claim]))]));
    let spec = &made["spec"];
    assert_eq!(spec["podManagementPolicy"], "OrderedReady");
    assert_eq!(
        spec["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}})
    );
    assert_eq!(spec["persistentVolumeClaimRetentionPolicy"], json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
    let claim = &spec["volumeClaimTemplates"][0];
    assert_eq!((&claim["kind"], &claim["apiVersion"]), (&json!("PersistentVolumeClaim"), &json!("v1")));
    assert_eq!((&claim["spec"]["volumeMode"], &claim["status"]["phase"]), (&json!("Filesystem"), &json!("Pending")));
    assert_eq!((&spec["replicas"], &spec["revisionHistoryLimit"]), (&json!(1), &json!(10)));
    assert_eq!((&made["metadata"]["generation"], &made["status"]["replicas"]), (&json!(1), &json!(0)));

    let check =
        |change: &[(&str, Value)], expect: &[&str]| check_of(&strategy, workload("StatefulSet", change), expect);
    check(&[], &[]);
    check(
        &[("/spec/podManagementPolicy", json!("Random"))],
        &["spec.podManagementPolicy: Invalid value: \"Random\": must be 'OrderedReady' or 'Parallel'"],
    );
    check(
        &[("/spec/updateStrategy", json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}))],
        &[
            "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'",
        ],
    );
    check(
        &[("/spec/updateStrategy", json!({"type": "Never"}))],
        &["spec.updateStrategy: Invalid value: {\"type\":\"Never\"}: must be 'RollingUpdate' or 'OnDelete'"],
    );
    check(
        &[("/spec/updateStrategy", json!({"rollingUpdate": {"partition": -1, "maxUnavailable": "0%"}}))],
        &[
            "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": cannot be 0",
        ],
    );
    check(
        &[("/spec/persistentVolumeClaimRetentionPolicy", json!({"whenScaled": "Keep"}))],
        &[
            "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Keep\": supported values: \"Delete\", \"Retain\"",
        ],
    );
    check(
        &[("/spec/ordinals", json!({"start": -1}))],
        &["spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0"],
    );
    check(
        &[("/spec/selector", json!({}))],
        &["spec.selector: Invalid value: {}: empty selector is invalid for statefulset"],
    );
    check(
        &[("/spec/template/spec/activeDeadlineSeconds", json!(1))],
        &["spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported"],
    );
    let long = "a".repeat(64);
    check(
        &[("/metadata/name", json!(long))],
        &[&format!("metadata.name: Invalid value: \"{long}\": must be no more than 63 bytes")],
    );

    let (new, errors) = updated(&strategy, Part::Spec, &made, "/spec/replicas", json!(3));
    assert_eq!((errors.len(), &new["metadata"]["generation"]), (0, &json!(2)));
    let (_, errors) = updated(&strategy, Part::Spec, &made, "/spec/serviceName", json!("web"));
    assert_eq!(
        errors,
        ["spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
          'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are \
          forbidden"]
    );
    let (_, errors) = updated(&strategy, Part::Status, &made, "/status", json!({"replicas": 1, "currentReplicas": 2}));
    assert_eq!(errors, ["status.currentReplicas: Invalid value: 2: cannot be greater than status.replicas"]);
}

#[test]
fn daemon_sets() {
    let strategy = Typed(DaemonSetKind);
    let generation = "/metadata/annotations/deprecated.daemonset.template.generation";
    let made = created(&strategy, workload("DaemonSet", &[]));
    assert_eq!(
        made["spec"]["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
    );
    assert_eq!((made.pointer(generation).unwrap(), &made["metadata"]["generation"]), (&json!("1"), &json!(1)));
    let check = |change: &[(&str, Value)], expect: &[&str]| check_of(&strategy, workload("DaemonSet", change), expect);
    check(&[], &[]);
    check(
        &[("/spec/updateStrategy", json!({"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}))],
        &[
            "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
        ],
    );
    check(
        &[("/spec/updateStrategy", json!({"rollingUpdate": {"maxUnavailable": 0}}))],
        &["spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"],
    );
    check(
        &[("/spec/updateStrategy", json!({"rollingUpdate": {"maxUnavailable": "101%"}}))],
        &["spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"],
    );
    let image = "/spec/template/spec/containers";
    let (new, errors) = updated(
        &strategy,
        Part::Spec,
        &made,
        image,
        json!([{"name": "c", "image": "y", "imagePullPolicy": "Always",
            "terminationMessagePath": "/x", "terminationMessagePolicy": "File"}]),
    );
    assert_eq!(errors, [""; 0]);
    assert_eq!((new.pointer(generation).unwrap(), &new["metadata"]["generation"]), (&json!("2"), &json!(2)));
    let (new, _) = updated(&strategy, Part::Spec, &made, "/spec/minReadySeconds", json!(5));
    assert_eq!((new.pointer(generation).unwrap(), &new["metadata"]["generation"]), (&json!("1"), &json!(2)));
    let (_, errors) = updated(&strategy, Part::Status, &made, "/status/numberReady", json!(-1));
    assert_eq!(errors, ["status.numberReady: Invalid value: -1: must be greater than or equal to 0"]);
}

#[test]
fn controller_revisions() {
    let strategy = Typed(ControllerRevisionKind);
    let revision = |data: Value| {
        json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "a", "namespace": "b"},
            "data": data, "revision": 1})
    };
    check_of(&strategy, revision(json!({"spec": {}})), &[]);
    check_of(&strategy, revision(Value::Null), &["data: Required value: data is mandatory"]);
    let made = created(&strategy, revision(json!({"spec": {}})));
    let (_, errors) = updated(&strategy, Part::Spec, &made, "/revision", json!(2));
    assert_eq!(errors, [""; 0]);
    let (_, errors) = updated(&strategy, Part::Spec, &made, "/data", json!({"spec": 1}));
    assert_eq!(errors, ["data: Invalid value: {\"spec\":1}: field is immutable"]);
}

#[test]
fn replication_controllers_and_pod_templates() {
    let strategy = Typed(ReplicationControllerKind);
    let controller = |change: &[(&str, Value)]| {
        let mut object = workload("ReplicationController", change);
        object["apiVersion"] = "v1".into();
        if change.iter().all(|(pointer, _)| *pointer != "/spec/selector") {
            object["spec"].as_object_mut().unwrap().remove("selector");
        }
        object
    };
    let made = created(&strategy, controller(&[]));
    assert_eq!((&made["spec"]["selector"], &made["metadata"]["labels"]), (&json!({"app": "a"}), &json!({"app": "a"})));
    check_of(&strategy, controller(&[]), &[]);
    check_of(
        &strategy,
        controller(&[("/spec/selector", json!({"app": "b"}))]),
        &["spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`"],
    );
    check_of(
        &strategy,
        controller(&[("/spec/template", Value::Null)]),
        &["spec.selector: Required value", "spec.template: Required value"],
    );
    let (_, errors) = updated(&strategy, Part::Status, &made, "/status/readyReplicas", json!(1));
    assert_eq!(errors, ["status.readyReplicas: Invalid value: 1: cannot be greater than status.replicas"]);

    let strategy = Typed(PodTemplateKind);
    let template = |containers: Value| {
        json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "a", "namespace": "b"},
            "template": {"spec": {"containers": containers}}})
    };
    check_of(&strategy, template(json!([{"name": "c", "image": "x"}])), &[]);
    check_of(&strategy, template(json!([])), &["template.spec.containers: Required value"]);
}
