//! Tables: PersistentVolume; and how the tables of other kinds of storage are checked.

use serde_json::{Value, json};

use super::PersistentVolumeKind;
use crate::api::user::User;
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part, Strategy, Typed};

/// What a create makes of an object, and what is wrong with it.
pub fn made(kind: impl Kind, mut object: Value, expect: &[&str]) -> Value {
    let (strategy, cx) = (Typed(kind), Context::new(User::default()));
    let row = strategy.resource();
    object["apiVersion"] = row.api_version().into();
    object["kind"] = row.kind.into();
    if object["metadata"]["name"].is_null() {
        object["metadata"]["name"] = "a".into();
    }
    if row.namespaced {
        object["metadata"]["namespace"] = "b".into();
    }
    strategy.defaults(&mut object).unwrap();
    let errors = strategy.prepare_create(&cx, &mut object).unwrap().errors;
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    object
}

/// What an update of these fields makes of an object, and what is wrong with it. Null removes a field.
pub fn updated(kind: impl Kind, part: Part, old: &Value, changes: &[(&str, Value)], expect: &[&str]) -> Value {
    let (strategy, cx) = (Typed(kind), Context::new(User::default()));
    let mut new = old.clone();
    for (pointer, value) in changes {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let fields = new.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        fields.remove(field);
        if !value.is_null() {
            fields.insert(field.to_owned(), value.clone());
        }
    }
    strategy.defaults(&mut new).unwrap();
    let errors = strategy.prepare_update(&cx, part, &mut new, old).unwrap().errors;
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    new
}

fn volume(spec: &Value) -> Value {
    let mut object = json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}});
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

#[allow(clippy::needless_pass_by_value, reason = "tables read better")]
fn check(spec: Value, expect: &[&str]) -> Value {
    made(PersistentVolumeKind, volume(&spec), expect)
}

fn affinity(key: &str) -> Value {
    let requirement = json!({"key": key, "operator": "In", "values": ["x"]});
    json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}})
}

#[test]
fn defaults() {
    let made = check(json!({"hostPath": {"path": "/x"}, "capacity": {"storage": "1024Mi"}}), &[]);
    let spec = &made["spec"];
    assert_eq!(spec["capacity"]["storage"], "1Gi");
    assert_eq!(spec["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(spec["volumeMode"], "Filesystem");
    assert_eq!(spec["hostPath"], json!({"path": "/x", "type": ""}));
    assert_eq!(made["status"]["phase"], "Pending");
    assert!(made["status"]["lastPhaseTransitionTime"].is_string());
    let made = check(json!({"rbd": {"monitors": ["m"], "image": "i"}}), &[]);
    let rbd = &made["spec"]["rbd"];
    assert_eq!(
        (&rbd["pool"], &rbd["user"], &rbd["keyring"]),
        (&json!("rbd"), &json!("admin"), &json!("/etc/ceph/keyring"))
    );
}

#[test]
fn specs() {
    let path = || json!({"path": "/x"});
    let with = |field: &str, value: Value| json!({"hostPath": {"path": "/x"}, field: value});
    check(with("accessModes", json!([])), &["spec.accessModes: Required value"]);
    check(
        with("accessModes", json!(["RWO"])),
        &["spec.accessModes: Unsupported value: \"RWO\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \
           \"ReadWriteOnce\", \"ReadWriteOncePod\""],
    );
    check(
        with("accessModes", json!(["ReadWriteOnce", "ReadWriteOncePod"])),
        &["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
    );
    check(
        with("capacity", Value::Null),
        &["spec.capacity: Required value", "spec.capacity: Unsupported value: null: supported values: \"storage\""],
    );
    check(
        with("capacity", json!({"cpu": "1"})),
        &["spec.capacity: Unsupported value: {\"cpu\":\"1\"}: supported values: \"storage\""],
    );
    check(
        with("capacity", json!({"storage": "-1"})),
        &[
            "spec.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
            "spec.capacity[storage]: Invalid value: \"-1\": must be greater than zero",
        ],
    );
    check(
        with("persistentVolumeReclaimPolicy", json!("Keep")),
        &["spec.persistentVolumeReclaimPolicy: Unsupported value: \"Keep\": supported values: \"Delete\", \
           \"Recycle\", \"Retain\""],
    );
    check(
        json!({"hostPath": {"path": "//."}, "persistentVolumeReclaimPolicy": "Recycle"}),
        &["spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"],
    );
    check(
        with("nodeAffinity", json!({})),
        &["spec.nodeAffinity.required: Required value: must specify required node constraints"],
    );
    check(
        with("nodeAffinity", json!({"required": {"nodeSelectorTerms": []}})),
        &["spec.nodeAffinity.required.nodeSelectorTerms: Required value: must have at least one node selector term"],
    );
    check(with("nodeAffinity", affinity("kubernetes.io/hostname")), &[]);
    check(
        with("volumeMode", json!("Tape")),
        &["spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\""],
    );
    check(
        with("volumeAttributesClassName", json!("")),
        &[
            "spec.volumeAttributesClassName: Required value: an empty string is disallowed",
            "spec.csi: Required value: has to be specified when using volumeAttributesClassName",
        ],
    );
    check(json!({}), &["spec: Required value: must specify a volume type"]);
    check(
        json!({"hostPath": path(), "cephfs": {"monitors": ["m"]}}),
        &["spec.cephFS: Forbidden: may not specify more than 1 volume type"],
    );
    check(json!({"local": path()}), &["spec.nodeAffinity: Required value: Local volume requires node affinity"]);
}

#[test]
fn sources() {
    check(json!({"hostPath": {"path": ""}}), &["spec.hostPath.path: Required value"]);
    check(
        json!({"hostPath": {"path": "/a/../b", "type": "Pipe"}}),
        &[
            "spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
            "spec.hostPath.type: Unsupported value: \"Pipe\": supported values: \"\", \"BlockDevice\", \
             \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
        ],
    );
    check(
        json!({"nfs": {"server": "", "path": "x"}}),
        &["spec.nfs.server: Required value", "spec.nfs.path: Invalid value: \"x\": must be an absolute path"],
    );
    check(json!({"csi": {"driver": "Csi.Example.com", "volumeHandle": "h"}}), &[]);
    check(
        json!({"csi": {"driver": "d", "volumeHandle": "", "nodePublishSecretRef": {"name": "s"}}}),
        &["spec.csi.volumeHandle: Required value", "spec.csi.nodePublishSecretRef.namespace: Required value"],
    );
    check(
        json!({"csi": {"driver": "x".repeat(64), "volumeHandle": "h"}}),
        &["spec.csi.driver: Too long: may not be more than 63 bytes"],
    );
    let iscsi = |iqn: &str| json!({"iscsi": {"targetPortal": "p", "iqn": iqn, "lun": 0}});
    for good in ["iqn.2001-04.com.example:disk:1", "eui.0123456789abcdef", "naa.0123456789abcdef0123456789abcdef"] {
        check(iscsi(good), &[]);
    }
    for bad in ["iqn.2001-4.com:x", "iqn.2001-04.com", "iqn.2001-04.com:a b", "eui.1", "disk"] {
        let message = format!("spec.iscsi.iqn: Invalid value: {bad:?}: must be valid format");
        check(iscsi(bad), &[&message]);
    }
    check(
        json!({"iscsi": {"targetPortal": "", "iqn": "", "lun": 256, "chapAuthSession": true}}),
        &[
            "spec.iscsi.targetPortal: Required value",
            "spec.iscsi.iqn: Required value",
            "spec.iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive",
            "spec.iscsi.secretRef: Required value",
        ],
    );
    check(
        json!({"fc": {"targetWWNs": ["w"], "wwids": ["i"]}}),
        &[
            "spec.fc.targetWWNs: Invalid value: [\"w\"]: targetWWNs and wwids can not be specified simultaneously",
            "spec.fc.lun: Required value: lun is required if targetWWNs is specified",
        ],
    );
    check(
        json!({"flexVolume": {"driver": "", "options": {"x.kubernetes.io/a": "b"}}}),
        &[
            "spec.flexVolume.driver: Required value",
            "spec.flexVolume.options[x.kubernetes.io/a]: Invalid value: \"x.kubernetes.io/a\": kubernetes.io and \
             k8s.io namespaces are reserved",
        ],
    );
    check(
        json!({"azureDisk": {"diskName": "d", "diskURI": "x", "kind": "Managed"}}),
        &["spec.azureDisk.diskURI: Unsupported value: \"x\": supported values: \
           \"/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}\""],
    );
    check(
        json!({"gcePersistentDisk": {"pdName": "", "partition": 300}}),
        &[
            "spec.persistentDisk.pdName: Required value",
            "spec.persistentDisk.partition: Invalid value: 300: must be between 1 and 255, inclusive",
        ],
    );
    check(json!({"flocker": {}}), &["spec.flocker: Required value: one of datasetName and datasetUUID is required"]);
    let registry = "must be a host:port pair or multiple pairs separated by commas";
    check(
        json!({"quobyte": {"registry": "a:1,b", "volume": ""}}),
        &[
            &format!("spec.quobyte.registry: Invalid value: \"a:1,b\": {registry}"),
            "spec.quobyte.volume: Required value",
        ],
    );
    check(
        json!({"glusterfs": {"endpoints": "e", "path": "p", "endpointsNamespace": ""}}),
        &["spec.glusterfs.endpointsNamespace: Invalid value: \"\": if the endpointnamespace is set, it must be a \
           valid namespace name"],
    );
    check(
        json!({"scaleIO": {"gateway": "", "system": "s", "secretRef": {}}}),
        &["spec.scaleIO.gateway: Required value", "spec.scaleIO.volumeName: Required value"],
    );
    check(json!({"storageos": {}}), &["spec.storageos.volumeName: Required value"]);
    check(json!({"cephfs": {"monitors": []}}), &["spec.cephfs.monitors: Required value"]);
}

#[test]
fn changes() {
    let old = check(json!({"csi": {"driver": "d", "volumeHandle": "h", "readOnly": false}}), &[]);
    let update = |changes: &[(&str, Value)], expect: &[&str]| {
        updated(PersistentVolumeKind, Part::Spec, &old, changes, expect);
    };
    update(&[("/spec/storageClassName", json!("x")), ("/spec/capacity/storage", json!("2Gi"))], &[]);
    // A Go client drops what is false.
    update(&[("/spec/csi/readOnly", Value::Null)], &[]);
    update(&[("/spec/csi/controllerExpandSecretRef", json!({"name": "s", "namespace": "n"}))], &[]);
    update(
        &[("/spec/csi/volumeHandle", json!("i"))],
        &["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"],
    );
    update(&[("/spec/volumeMode", json!("Block"))], &["volumeMode: Invalid value: \"Block\": field is immutable"]);
    update(&[("/spec/nodeAffinity", affinity("x"))], &[]);

    let attributes = json!({"csi": {"driver": "d", "volumeHandle": "h"}, "volumeAttributesClassName": "fast"});
    let old = check(attributes, &[]);
    updated(PersistentVolumeKind, Part::Spec, &old, &[("/spec/volumeAttributesClassName", json!("slow"))], &[]);
    updated(
        PersistentVolumeKind,
        Part::Spec,
        &old,
        &[("/spec/volumeAttributesClassName", Value::Null)],
        &["spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden"],
    );

    let zone = affinity("failure-domain.beta.kubernetes.io/zone");
    let old = check(json!({"local": {"path": "/x"}, "nodeAffinity": zone}), &[]);
    let moved = |key: &str, expect: &[&str]| {
        updated(PersistentVolumeKind, Part::Spec, &old, &[("/spec/nodeAffinity", affinity(key))], expect);
    };
    moved("topology.kubernetes.io/zone", &[]);
    let message = format!(
        "nodeAffinity: Invalid value: {}: field is immutable, except for updating from beta label to GA",
        affinity("topology.kubernetes.io/region")
    );
    moved("topology.kubernetes.io/region", &[&message]);
}

#[test]
fn statuses() {
    let mut old = check(json!({"hostPath": {"path": "/x"}}), &[]);
    old["status"]["lastPhaseTransitionTime"] = "2026-01-01T00:00:00Z".into();
    let update = |part: Part, changes: &[(&str, Value)]| updated(PersistentVolumeKind, part, &old, changes, &[]);
    let since = "/status/lastPhaseTransitionTime";
    assert_eq!(update(Part::Spec, &[("/status/phase", json!("Bound"))]), old);
    assert_eq!(update(Part::Status, &[("/spec/storageClassName", json!("x")), (since, Value::Null)]), old);
    let new = update(Part::Status, &[("/status/phase", json!("Bound"))]);
    assert_ne!(new["status"]["lastPhaseTransitionTime"], old["status"]["lastPhaseTransitionTime"]);
    let given = json!("2026-02-02T00:00:00Z");
    let new = update(Part::Status, &[("/status/phase", json!("Bound")), (since, given.clone())]);
    assert_eq!(new["status"]["lastPhaseTransitionTime"], given);
}

#[test]
fn warnings() {
    let mut object = check(
        json!({
            "rbd": {"monitors": ["m"], "image": "i"}, "persistentVolumeReclaimPolicy": "Recycle",
            "nodeAffinity": affinity("beta.kubernetes.io/os"),
        }),
        &[],
    );
    object["metadata"]["annotations"] = json!({"volume.beta.kubernetes.io/storage-class": "x"});
    assert_eq!(
        Kind::warnings(&PersistentVolumeKind, &serde_json::from_value(object.clone()).unwrap()),
        [
            "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \
             \"storageClassName\" attribute instead",
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended \
             approach is to use dynamic provisioning.",
            "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/os is \
             deprecated since v1.14; use \"kubernetes.io/os\" instead",
            "spec.rbd: deprecated in v1.28, non-functional in v1.31+",
        ]
    );
}
