//! Tables: the kinds of `storage.k8s.io`.

use serde_json::{Value, json};

use super::csi_driver::CSIDriverKind;
use super::csi_node::CSINodeKind;
use super::csi_storage_capacity::CSIStorageCapacityKind;
use super::storage_class::StorageClassKind;
use super::volume_attachment::VolumeAttachmentKind;
use super::volume_attributes_class::VolumeAttributesClassKind;
use crate::server::registry::core::persistent_volume::tests::{made, updated};
use crate::server::registry::strategy::{Kind, Part};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
    and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

#[test]
fn storage_classes() {
    let topology = |keys: &[&str]| {
        let terms = keys.iter().map(|key| json!({"key": key, "values": ["a"]})).collect::<Vec<_>>();
        json!({"matchLabelExpressions": terms})
    };
    let old = made(StorageClassKind, json!({"provisioner": "Example.com/Nfs"}), &[]);
    assert_eq!((&old["reclaimPolicy"], &old["volumeBindingMode"]), (&json!("Delete"), &json!("Immediate")));
    made(
        StorageClassKind,
        json!({"provisioner": "", "parameters": {"": "x"}, "reclaimPolicy": "Recycle", "volumeBindingMode": "Late"}),
        &[
            "provisioner: Required value",
            "parameters: Invalid value: \"\": field can not be empty.",
            "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
            "volumeBindingMode: Unsupported value: \"Late\": supported values: \"Immediate\", \
             \"WaitForFirstConsumer\"",
        ],
    );
    let many: serde_json::Map<String, Value> = (0..513).map(|i| (i.to_string(), "".into())).collect();
    made(
        StorageClassKind,
        json!({"provisioner": "p", "parameters": many}),
        &["parameters: Too long: may not be more than 512 bytes"],
    );
    made(
        StorageClassKind,
        json!({"provisioner": "p", "parameters": {"a": "x".repeat(256 * 1024)}}),
        &["parameters: Too long: may not be more than 262144 bytes"],
    );
    made(StorageClassKind, json!({"provisioner": "p", "allowedTopologies": [topology(&["a"]), topology(&["b"])]}), &[]);
    made(
        StorageClassKind,
        json!({"provisioner": "p", "allowedTopologies": [topology(&["a"]), topology(&["a"]), topology(&["b", "b"])]}),
        &[
            "allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\"",
            "allowedTopologies[2].matchLabelExpressions[1].key: Duplicate value: \"b\"",
        ],
    );
    let values = |values: Value| json!([{"matchLabelExpressions": [{"key": "a", "values": values}]}]);
    made(
        StorageClassKind,
        json!({"provisioner": "p", "allowedTopologies": values(json!(["x", "x"]))}),
        &["allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"x\""],
    );
    made(
        StorageClassKind,
        json!({"provisioner": "p", "allowedTopologies": values(json!([]))}),
        &["allowedTopologies[0].matchLabelExpressions[0].values: Required value"],
    );
    updated(
        StorageClassKind,
        Part::Spec,
        &old,
        &[
            ("/parameters", json!({"a": "b"})),
            ("/provisioner", json!("q")),
            ("/reclaimPolicy", json!("Retain")),
            ("/volumeBindingMode", json!("WaitForFirstConsumer")),
            ("/allowVolumeExpansion", json!(true)),
        ],
        &[
            "parameters: Forbidden: updates to parameters are forbidden.",
            "provisioner: Forbidden: updates to provisioner are forbidden.",
            "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
            "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
        ],
    );
    updated(StorageClassKind, Part::Spec, &old, &[("/parameters", json!({}))], &[]);
    let mut labelled = old.clone();
    labelled["allowedTopologies"] = json!([topology(&["beta.kubernetes.io/arch"])]);
    assert_eq!(
        Kind::warnings(&StorageClassKind, &serde_json::from_value(labelled.clone()).unwrap()),
        ["allowedTopologies[0].matchLabelExpressions[0].key: deprecated since v1.14; use \"kubernetes.io/arch\" \
          instead"]
    );
}

#[test]
fn volume_attributes_classes() {
    let old = made(VolumeAttributesClassKind, json!({"driverName": "d", "parameters": {"a": "b"}}), &[]);
    made(
        VolumeAttributesClassKind,
        json!({"driverName": "", "parameters": {}}),
        &["driverName: Required value", "parameters: Required value: must contain at least one key/value pair"],
    );
    updated(
        VolumeAttributesClassKind,
        Part::Spec,
        &old,
        &[("/driverName", json!("e")), ("/parameters", json!({"a": "c"}))],
        &[
            "driverName: Forbidden: updates to driverName are forbidden.",
            "parameters: Forbidden: updates to parameters are forbidden.",
        ],
    );
}

#[test]
fn csi_drivers() {
    let old = made(CSIDriverKind, json!({"spec": {"preventPodSchedulingIfMissing": true}}), &[]);
    assert_eq!(
        old["spec"],
        json!({
            "attachRequired": true, "podInfoOnMount": false, "storageCapacity": false, "requiresRepublish": false,
            "fsGroupPolicy": "ReadWriteOnceWithFSType", "volumeLifecycleModes": ["Persistent"], "seLinuxMount": false,
        })
    );
    assert_eq!(old["metadata"]["generation"], 1);
    made(
        CSIDriverKind,
        json!({"spec": {
            "fsGroupPolicy": "All", "volumeLifecycleModes": ["Long"], "nodeAllocatableUpdatePeriodSeconds": 9,
            "tokenRequests": [{"audience": "a", "expirationSeconds": 1}, {"audience": "a"},
                {"audience": "b", "expirationSeconds": 4_294_967_297_u64}],
        }}),
        &[
            "spec.fsGroupPolicy: Unsupported value: \"All\": supported values: \"File\", \"None\", \
             \"ReadWriteOnceWithFSType\"",
            "spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
            "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
            "spec.tokenRequests[2].expirationSeconds: Invalid value: 4294967297: may not specify a duration larger \
             than 2^32 seconds",
            "spec.volumeLifecycleModes: Unsupported value: \"Long\": supported values: \"Persistent\", \"Ephemeral\"",
            "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
        ],
    );
    made(
        CSIDriverKind,
        json!({"spec": {"serviceAccountTokenInSecrets": true}}),
        &["spec.serviceAccountTokenInSecrets: Invalid value: true: serviceAccountTokenInSecrets is set but no \
           tokenRequests are specified"],
    );
    let new = updated(CSIDriverKind, Part::Spec, &old, &[("/spec/storageCapacity", json!(true))], &[]);
    assert_eq!(new["metadata"]["generation"], 2);
    updated(
        CSIDriverKind,
        Part::Spec,
        &old,
        &[("/spec/attachRequired", json!(false)), ("/spec/volumeLifecycleModes", json!(["Ephemeral"]))],
        &[
            "spec.attachedRequired: Invalid value: false: field is immutable",
            "spec.volumeLifecycleModes: Invalid value: [\"Ephemeral\"]: field is immutable",
        ],
    );
}

#[test]
fn csi_nodes() {
    let driver = |name: &str, id: &str| json!({"name": name, "nodeID": id, "topologyKeys": ["a/b"]});
    let old = made(CSINodeKind, json!({"spec": {"drivers": [driver("d", "n")]}}), &[]);
    let mut odd = driver("d", "");
    odd["allocatable"] = json!({"count": -1});
    odd["topologyKeys"] = json!(["a", "a"]);
    made(
        CSINodeKind,
        json!({"spec": {"drivers": [driver("d", &"n".repeat(257)), odd]}}),
        &[
            &format!("spec.drivers[0].nodeID: Invalid value: \"{}\": must be 256 characters or less", "n".repeat(257)),
            "spec.drivers[1].nodeID: Required value",
            "spec.drivers[1].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
            "spec.drivers[1].name: Duplicate value: \"d\"",
            "spec.drivers[1]: Duplicate value: \"a\"",
        ],
    );
    let mut full = driver("d", "n");
    full["allocatable"] = json!({"count": 3});
    updated(CSINodeKind, Part::Spec, &old, &[("/spec/drivers", json!([full, driver("e", "n")]))], &[]);
    updated(CSINodeKind, Part::Spec, &old, &[("/spec/drivers", json!([]))], &[]);
    let moved = driver("d", "m");
    let message = format!("spec.drivers: Invalid value: {moved}: field is immutable");
    updated(CSINodeKind, Part::Spec, &old, &[("/spec/drivers", json!([moved]))], &[&message]);
}

#[test]
fn csi_storage_capacities() {
    let topology = json!({"matchLabels": {"beta.kubernetes.io/os": "linux"}});
    let body = json!({"storageClassName": "c", "capacity": "1024Mi", "nodeTopology": topology});
    let old = made(CSIStorageCapacityKind, body, &[]);
    assert_eq!(old["capacity"], "1Gi");
    made(
        CSIStorageCapacityKind,
        json!({"storageClassName": "", "capacity": "-1"}),
        &[
            &format!("storageClassName: Invalid value: \"\": {SUBDOMAIN}"),
            "capacity: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
    updated(CSIStorageCapacityKind, Part::Spec, &old, &[("/capacity", json!("2Gi"))], &[]);
    updated(
        CSIStorageCapacityKind,
        Part::Spec,
        &old,
        &[("/storageClassName", json!("d")), ("/nodeTopology", json!({"matchLabels": {"a": "b"}}))],
        &[
            "nodeTopology: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: field is immutable",
            "storageClassName: Invalid value: \"d\": field is immutable",
        ],
    );
    assert_eq!(
        Kind::warnings(&CSIStorageCapacityKind, &serde_json::from_value(old.clone()).unwrap()),
        ["nodeTopology.matchLabels.beta.kubernetes.io/os: deprecated since v1.14; use \"kubernetes.io/os\" instead"]
    );
}

#[test]
fn volume_attachments() {
    let attachment = |source: Value| json!({"spec": {"attacher": "d", "nodeName": "n", "source": source}});
    let named = || attachment(json!({"persistentVolumeName": "v"}));
    let old = made(VolumeAttachmentKind, named(), &[]);
    assert_eq!(old["status"], json!({"attached": false}));
    made(
        VolumeAttachmentKind,
        json!({"spec": {"attacher": "", "nodeName": "N", "source": {}}}),
        &[
            "spec.attacher: Required value",
            "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            &format!("spec.nodeName: Invalid value: \"N\": {SUBDOMAIN}"),
            "spec.attacher: Required value",
            &format!("spec.attacher: Invalid value: \"\": {SUBDOMAIN}"),
        ],
    );
    let csi = || json!({"accessModes": ["ReadWriteOnce"], "csi": {"driver": "d", "volumeHandle": "h"}});
    made(VolumeAttachmentKind, attachment(json!({"inlineVolumeSpec": csi()})), &[]);
    made(
        VolumeAttachmentKind,
        attachment(json!({"inlineVolumeSpec": csi(), "persistentVolumeName": "v"})),
        &["spec.source: Forbidden: must specify exactly one of inlineVolumeSpec and persistentVolumeName"],
    );
    let inline = |field: &str, value: Value, expect: &str| {
        let mut spec = csi();
        spec[field] = value;
        let expect = format!("spec.source.inlineVolumeSpec.{field}: Forbidden: {expect}");
        made(VolumeAttachmentKind, attachment(json!({"inlineVolumeSpec": spec})), &[&expect]);
    };
    let unsaid = "may not be specified in the context of inline volumes";
    inline("claimRef", json!({"name": "c"}), unsaid);
    inline("capacity", json!({"storage": "1Gi"}), unsaid);
    inline("nodeAffinity", json!({}), unsaid);
    inline("storageClassName", json!("c"), unsaid);
    inline("persistentVolumeReclaimPolicy", json!("Delete"), "may only be Retain in the context of inline volumes");
    inline(
        "volumeMode",
        json!("Block"),
        "may not specify volumeMode other than Filesystem in the context of inline volumes",
    );
    made(
        VolumeAttachmentKind,
        attachment(
            json!({"inlineVolumeSpec": {"accessModes": ["ReadWriteOnce"], "nfs": {"server": "s", "path": "/"}}}),
        ),
        &["spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes"],
    );
    let error = json!({"message": "x".repeat(1025), "errorCode": -1});
    let new = updated(
        VolumeAttachmentKind,
        Part::Status,
        &old,
        &[("/status/attachError", error), ("/metadata/labels", json!({"a": "b"})), ("/spec/nodeName", json!("m"))],
        &[
            "status.attachError.message: Too long: may not be more than 262144 bytes",
            "status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ],
    );
    assert_eq!((&new["spec"], &new["metadata"]), (&old["spec"], &old["metadata"]));
    let size = json!({"a": "x".repeat(256 * 1024)});
    updated(
        VolumeAttachmentKind,
        Part::Status,
        &old,
        &[("/status/attachmentMetadata", size)],
        &["status.attachmentMetadata: Too long: may not be more than 262144 bytes"],
    );
    let mut moved = old["spec"].clone();
    moved["nodeName"] = "m".into();
    let message = format!("spec: Invalid value: {moved}: field is immutable");
    let changes = [("/spec/nodeName", json!("m")), ("/status/attached", json!(true))];
    let new = updated(VolumeAttachmentKind, Part::Spec, &old, &changes, &[&message]);
    assert_eq!(new["status"], old["status"]);
}
