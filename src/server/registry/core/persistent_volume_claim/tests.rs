//! Tables: PersistentVolumeClaim.

use serde_json::{Value, json};

use super::PersistentVolumeClaimKind;
use crate::server::registry::core::persistent_volume::tests::{made, updated};
use crate::server::registry::strategy::{Kind, Part};

#[allow(clippy::needless_pass_by_value, reason = "tables read better")]
fn check(spec: Value, expect: &[&str]) -> Value {
    let mut object = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    made(PersistentVolumeClaimKind, object, expect)
}

/// A claim of a class that has its volume.
fn bound(spec: Value) -> Value {
    let mut claim = check(spec, &[]);
    claim["spec"]["volumeName"] = "v".into();
    claim["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
    claim
}

fn update(old: &Value, changes: &[(&str, Value)], expect: &[&str]) -> Value {
    updated(PersistentVolumeClaimKind, Part::Spec, old, changes, expect)
}

const IMMUTABLE: &str = "spec: Forbidden: spec is immutable after creation except resources.requests and \
    volumeAttributesClassName for bound claims";
const SIZE: &str = "/spec/resources/requests/storage";
const CLASS: &str = "/spec/volumeAttributesClassName";

#[test]
fn defaults() {
    let made = check(json!({"resources": {"requests": {"storage": "1024Mi"}}}), &[]);
    assert_eq!(made["spec"]["volumeMode"], "Filesystem");
    assert_eq!(made["spec"]["resources"]["requests"]["storage"], "1Gi");
    assert_eq!(made["status"], json!({"phase": "Pending"}));
}

#[test]
fn specs() {
    check(json!({"accessModes": []}), &["spec.accessModes: Required value: at least 1 access mode is required"]);
    check(json!({"resources": {}}), &["spec.resources[storage]: Required value"]);
    check(
        json!({"resources": {"requests": {"storage": "0"}}}),
        &["spec.resources[storage]: Invalid value: \"0\": must be greater than zero"],
    );
    check(
        json!({"selector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}),
        &["spec.selector.matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator"],
    );
    check(
        json!({"volumeMode": "Tape"}),
        &["spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\""],
    );
    check(json!({"storageClassName": "", "volumeAttributesClassName": ""}), &[]);
    check(
        json!({"dataSourceRef": {"kind": "Thing", "name": ""}}),
        &[
            "spec.dataSource.name: Required value",
            "spec.dataSource: Invalid value: \"Thing\": must be 'PersistentVolumeClaim' when referencing the default \
             apiGroup",
            "spec.dataSourceRef.name: Required value",
            "spec.dataSourceRef: Invalid value: \"Thing\": must be 'PersistentVolumeClaim' when referencing the \
             default apiGroup",
        ],
    );
    let claim = |name: &str| json!({"kind": "PersistentVolumeClaim", "name": name});
    check(
        json!({"dataSource": claim("a"), "dataSourceRef": claim("b")}),
        &["spec: Invalid value: {}: must match dataSourceRef"],
    );
}

#[test]
fn data_sources() {
    let claim = json!({"kind": "PersistentVolumeClaim", "name": "c"});
    let thing = json!({"apiGroup": "example.com", "kind": "Thing", "name": "t"});
    let sources = |spec: Value| {
        let made = check(spec, &[]);
        (made["spec"]["dataSource"].clone(), made["spec"]["dataSourceRef"].clone())
    };
    assert_eq!(sources(json!({"dataSource": claim})), (claim.clone(), claim.clone()));
    assert_eq!(sources(json!({"dataSourceRef": thing})), (thing.clone(), thing.clone()));
    // The older field never could name anything but claims and snapshots.
    assert_eq!(sources(json!({"dataSource": thing})), (Value::Null, Value::Null));
    let mut foreign = thing.clone();
    foreign["namespace"] = "other".into();
    assert_eq!(sources(json!({"dataSourceRef": foreign})), (Value::Null, Value::Null));
    // Older clients do not know the newer field.
    let old = check(json!({"dataSourceRef": thing}), &[]);
    assert_eq!(update(&old, &[("/spec/dataSourceRef", Value::Null)], &[]), old);
}

#[test]
fn growing() {
    let old = bound(json!({}));
    update(&old, &[(SIZE, json!("2Gi"))], &[]);
    update(&old, &[(SIZE, json!("1073741824"))], &[]);
    let less = "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity";
    update(&old, &[(SIZE, json!("500Mi"))], &[less]);
    let mut grown = old.clone();
    grown["spec"]["resources"]["requests"]["storage"] = "5Gi".into();
    update(&grown, &[(SIZE, json!("2Gi"))], &[]);
    update(&grown, &[(SIZE, json!("1Gi"))], &[less]);
    update(&check(json!({}), &[]), &[(SIZE, json!("2Gi"))], &[IMMUTABLE]);
}

#[test]
fn binding_and_classes() {
    let old = check(json!({}), &[]);
    update(&old, &[("/spec/volumeName", json!("v"))], &[]);
    update(&bound(json!({})), &[("/spec/volumeName", json!("w"))], &[IMMUTABLE]);
    update(&old, &[("/spec/accessModes", json!(["ReadOnlyMany"]))], &[IMMUTABLE]);
    update(
        &old,
        &[("/spec/volumeMode", json!("Block"))],
        &[IMMUTABLE, "volumeMode: Invalid value: \"Block\": field is immutable"],
    );
    // A class is given once; "" is one.
    update(&old, &[("/spec/storageClassName", json!("x"))], &[]);
    update(&check(json!({"storageClassName": ""}), &[]), &[("/spec/storageClassName", json!("x"))], &[IMMUTABLE]);

    let annotated = |class: &str| json!({"volume.beta.kubernetes.io/storage-class": class});
    let mut old = old;
    old["metadata"]["annotations"] = annotated("x");
    update(&old, &[("/spec/storageClassName", json!("x")), ("/metadata/annotations", Value::Null)], &[]);
    update(&old, &[("/spec/storageClassName", json!("y"))], &[IMMUTABLE]);
    update(
        &old,
        &[("/metadata/annotations", annotated("y"))],
        &["metadata.annotations.volume.beta.kubernetes.io/storage-class: Invalid value: \"y\": field is immutable"],
    );
}

#[test]
fn attributes() {
    update(&check(json!({}), &[]), &[(CLASS, json!("fast"))], &[IMMUTABLE]);
    update(&bound(json!({})), &[(CLASS, json!("fast"))], &[]);
    let mut old = bound(json!({"volumeAttributesClassName": "fast"}));
    update(&old, &[(CLASS, Value::Null)], &[]);
    old["status"]["currentVolumeAttributesClassName"] = "fast".into();
    update(&old, &[(CLASS, json!("slow"))], &[]);
    let path = "spec.volumeAttributesClassName";
    for (value, word) in [(Value::Null, "nil"), (json!(""), "empty string")] {
        let message = format!(
            "{path}: Forbidden: update to {word} is forbidden when status.currentVolumeAttributesClassName is not nil"
        );
        update(&old, &[(CLASS, value)], &[&message]);
    }
}

#[test]
fn statuses() {
    let old = check(json!({}), &[]);
    let status = |changes: &[(&str, Value)], expect: &[&str]| {
        updated(PersistentVolumeClaimKind, Part::Status, &old, changes, expect)
    };
    assert_eq!(update(&old, &[("/status/phase", json!("Bound"))], &[]), old);
    let new = status(&[("/status/phase", json!("Bound")), (SIZE, json!("2Gi"))], &[]);
    assert_eq!((&new["status"]["phase"], &new["spec"]), (&json!("Bound"), &old["spec"]));
    status(
        &[("/status/capacity", json!({"storage": "-1"}))],
        &["status.capacity[storage]: Invalid value: -1: must be a valid resource quantity"],
    );
    status(
        &[("/status/allocatedResourceStatuses", json!({"storage": "Growing"}))],
        &["status.allocatedResourceStatus: Unsupported value: \"storage\": supported values: \
           \"ControllerResizeInProgress\", \"ControllerResizeInfeasible\", \"NodeResizeInProgress\", \
           \"NodeResizeInfeasible\", \"NodeResizePending\""],
    );
    status(
        &[("/status/allocatedResources", json!({"cpu": "1", "storage": "1Gi"}))],
        &["status.allocatedResources: Unsupported value: \"cpu\": supported values: \"storage\""],
    );
}

#[test]
fn warnings() {
    let object = check(json!({"resources": {"requests": {"storage": "1500m"}}}), &[]);
    assert_eq!(
        Kind::warnings(&PersistentVolumeClaimKind, &serde_json::from_value(object.clone()).unwrap()),
        ["spec.resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an integer"]
    );
}
