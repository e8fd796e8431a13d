//! Decides: the columns and rows of volumes, claims, what serves them, and of limits and quotas.

use jiff::Timestamp;
use serde_json::Value;

use super::access::{age, at, count, list, name, or, text};
use super::columns::{AGE, Column, NAME, number, text as column, wide};
use crate::api::storage_class::{CLASS_ANNOTATION, IS_DEFAULT};

pub const PERSISTENT_VOLUME: &[Column] = &[
    NAME,
    column("Capacity", "How much the volume holds."),
    column("Access Modes", "How the volume can be mounted."),
    column("Reclaim Policy", "What becomes of the volume without its claim."),
    column("Status", "Phase of the volume."),
    column("Claim", "The claim that the volume is bound to."),
    column("StorageClass", "Class of the volume."),
    column("VolumeAttributesClass", "Class of the volume's attributes."),
    column("Reason", "Why the volume failed."),
    AGE,
    wide("VolumeMode", "File system or raw device."),
];

pub const PERSISTENT_VOLUME_CLAIM: &[Column] = &[
    NAME,
    column("Status", "Phase of the claim."),
    column("Volume", "The volume that the claim is bound to."),
    column("Capacity", "How much the volume holds."),
    column("Access Modes", "How the volume can be mounted."),
    column("StorageClass", "Class that the claim asks for."),
    column("VolumeAttributesClass", "Class of attributes that the claim asks for."),
    AGE,
    wide("VolumeMode", "File system or raw device."),
];

pub const RESOURCE_QUOTA: &[Column] = &[
    NAME,
    column("Request", "Used and allowed, of what is requested or counted."),
    column("Limit", "Used and allowed, of limits."),
    AGE,
];

pub const STORAGE_CLASS: &[Column] = &[
    NAME,
    column("Provisioner", "Who makes volumes of this class."),
    column("ReclaimPolicy", "What becomes of a volume without its claim."),
    column("VolumeBindingMode", "When volumes are made and bound."),
    column("AllowVolumeExpansion", "Whether volumes may grow."),
    AGE,
];

pub const CSI_DRIVER: &[Column] = &[
    NAME,
    boolean("AttachRequired", "Whether volumes are attached before they are mounted."),
    boolean("PodInfoOnMount", "Whether the driver is told of the pod."),
    boolean("StorageCapacity", "Whether the driver says how much room it has."),
    column("TokenRequests", "Audiences of the tokens that the driver gets."),
    boolean("RequiresRepublish", "Whether volumes are published again and again."),
    column("Modes", "Lifecycles of the driver's volumes."),
    AGE,
];

pub const CSI_NODE: &[Column] = &[NAME, number("Drivers", "Number of drivers on the node."), AGE];

pub const CSI_STORAGE_CAPACITY: &[Column] =
    &[NAME, column("StorageClassName", "Class that the room is for."), column("Capacity", "How much room there is.")];

pub const VOLUME_ATTACHMENT: &[Column] = &[
    NAME,
    column("Attacher", "Driver that attaches the volume."),
    column("PV", "The volume to attach."),
    column("Node", "The node to attach it to."),
    boolean("Attached", "Whether the volume is attached."),
    AGE,
];

pub const VOLUME_ATTRIBUTES_CLASS: &[Column] =
    &[NAME, column("DriverName", "Driver that knows these attributes."), AGE];

const fn boolean(name: &'static str, description: &'static str) -> Column {
    Column { kind: "boolean", ..column(name, description) }
}

pub fn persistent_volume(volume: &Value, now: Timestamp) -> Vec<Value> {
    let claim = at(volume, "spec.claimRef");
    let claim =
        if claim.is_null() { String::new() } else { format!("{}/{}", text(claim, "namespace"), text(claim, "name")) };
    vec![
        name(volume),
        or(text(volume, "spec.capacity.storage"), "0").into(),
        access_modes(volume, "spec.accessModes").into(),
        text(volume, "spec.persistentVolumeReclaimPolicy").into(),
        phase(volume).into(),
        claim.into(),
        class(volume).into(),
        set(volume, "spec.volumeAttributesClassName").into(),
        text(volume, "status.reason").into(),
        age(volume, now),
        set(volume, "spec.volumeMode").into(),
    ]
}

pub fn persistent_volume_claim(claim: &Value, now: Timestamp) -> Vec<Value> {
    let bound = !text(claim, "spec.volumeName").is_empty();
    let (capacity, modes) = if bound {
        (or(text(claim, "status.capacity.storage"), "0"), access_modes(claim, "status.accessModes"))
    } else {
        ("", String::new())
    };
    vec![
        name(claim),
        phase(claim).into(),
        text(claim, "spec.volumeName").into(),
        capacity.into(),
        modes.into(),
        class(claim).into(),
        set(claim, "spec.volumeAttributesClassName").into(),
        age(claim, now),
        set(claim, "spec.volumeMode").into(),
    ]
}

fn phase(object: &Value) -> &str {
    if at(object, "metadata.deletionTimestamp").is_null() { text(object, "status.phase") } else { "Terminating" }
}

/// The class of a volume or claim: that of the annotation which came before the field.
fn class(object: &Value) -> &str {
    let annotation = &at(object, "metadata.annotations")[CLASS_ANNOTATION];
    annotation.as_str().unwrap_or_else(|| text(object, "spec.storageClassName"))
}

/// Text that may be missing, which is not the same as empty.
fn set<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).as_str().unwrap_or("<unset>")
}

fn access_modes(object: &Value, path: &str) -> String {
    const SHORT: &[(&str, &str)] =
        &[("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let modes = list(object, path);
    let named: Vec<&str> = SHORT.iter().filter(|(long, _)| modes.iter().any(|m| m == long)).map(|(_, s)| *s).collect();
    named.join(",")
}

pub fn resource_quota(quota: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let mut hard: Vec<(&String, &Value)> = at(quota, "status.hard").as_object().into_iter().flatten().collect();
    hard.sort_unstable_by_key(|(name, _)| *name);
    for (resource, hard) in hard {
        let used = at(quota, "status.used")[resource].as_str().unwrap_or("0");
        let column = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
        column.push(format!("{resource}: {used}/{}", hard.as_str().unwrap_or("0")));
    }
    vec![name(quota), requests.join(", ").into(), limits.join(", ").into(), age(quota, now)]
}

pub fn storage_class(class: &Value, now: Timestamp) -> Vec<Value> {
    let annotations = at(class, "metadata.annotations");
    let default = IS_DEFAULT.iter().any(|key| annotations[*key] == "true");
    let suffix = if default { " (default)" } else { "" };
    vec![
        format!("{}{suffix}", text(class, "metadata.name")).into(),
        text(class, "provisioner").into(),
        at(class, "reclaimPolicy").as_str().unwrap_or("Delete").into(),
        at(class, "volumeBindingMode").as_str().unwrap_or("Immediate").into(),
        (class["allowVolumeExpansion"] == true).into(),
        age(class, now),
    ]
}

pub fn csi_driver(driver: &Value, now: Timestamp) -> Vec<Value> {
    let modes: Vec<&str> = list(driver, "spec.volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
    let tokens = if at(driver, "spec.tokenRequests").is_null() {
        "<unset>".into()
    } else {
        list(driver, "spec.tokenRequests").iter().map(|t| text(t, "audience")).collect::<Vec<_>>().join(",")
    };
    // Attaching is what happens when nothing is said.
    let attach = at(driver, "spec.attachRequired").as_bool().unwrap_or(true);
    vec![
        name(driver),
        attach.into(),
        (*at(driver, "spec.podInfoOnMount") == true).into(),
        (*at(driver, "spec.storageCapacity") == true).into(),
        tokens.into(),
        (*at(driver, "spec.requiresRepublish") == true).into(),
        or(&modes.join(","), "<none>").into(),
        age(driver, now),
    ]
}

pub fn csi_node(node: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(node), count(node, "spec.drivers").into(), age(node, now)]
}

/// Upstream shows no age of these.
pub fn csi_storage_capacity(capacity: &Value) -> Vec<Value> {
    vec![name(capacity), text(capacity, "storageClassName").into(), set(capacity, "capacity").into()]
}

pub fn volume_attachment(attachment: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(attachment),
        text(attachment, "spec.attacher").into(),
        text(attachment, "spec.source.persistentVolumeName").into(),
        text(attachment, "spec.nodeName").into(),
        (*at(attachment, "status.attached") == true).into(),
        age(attachment, now),
    ]
}

pub fn volume_attributes_class(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(class), text(class, "driverName").into(), age(class, now)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::resource::find_kind;
    use crate::api::table::row;

    /// `expect` has the cells with bars between them.
    fn check(version: &str, kind: &str, mut object: Value, expect: &str) {
        object["metadata"]["name"] = "x".into();
        object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        let now = "2026-01-01T00:05:10Z".parse().unwrap();
        let cells = row(find_kind(version, kind).unwrap(), &object, now).cells;
        let cells: Vec<String> =
            cells.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect();
        assert_eq!(cells.join("|"), expect, "{object}");
    }

    #[test]
    fn volumes_and_claims() {
        let spec = json!({
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOncePod", "ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "n", "name": "c"},
            "storageClassName": "s", "volumeMode": "Block",
        });
        let volume = json!({"spec": spec, "status": {"phase": "Bound"}});
        check("v1", "PersistentVolume", volume, "x|1Gi|ROX,RWOP|Retain|Bound|n/c|s|<unset>||5m10s|Block");
        let gone = json!({
            "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"volume.beta.kubernetes.io/storage-class": "old"}},
            "status": {"phase": "Failed", "reason": "why"},
        });
        check("v1", "PersistentVolume", gone, "x|0|||Terminating||old|<unset>|why|5m10s|<unset>");
        let status = json!({"phase": "Bound", "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteMany"]});
        let claim = json!({"spec": {"volumeName": "v", "volumeAttributesClassName": "a"}, "status": status});
        check("v1", "PersistentVolumeClaim", claim, "x|Bound|v|2Gi|RWX||a|5m10s|<unset>");
        let claim = json!({"spec": {"storageClassName": "s", "volumeMode": "Filesystem"}, "status": status});
        check("v1", "PersistentVolumeClaim", claim, "x|Bound||||s|<unset>|5m10s|Filesystem");
    }

    #[test]
    fn quotas() {
        let status = json!({"hard": {"pods": "4", "limits.cpu": "2", "cpu": "1"}, "used": {"pods": "1"}});
        check("v1", "ResourceQuota", json!({"status": status}), "x|cpu: 0/1, pods: 1/4|limits.cpu: 0/2|5m10s");
        let range = json!({"spec": {"limits": []}});
        check("v1", "LimitRange", range, "x|2026-01-01T00:00:00Z");
    }

    #[test]
    fn storage_kinds() {
        let check = |kind: &str, object: Value, expect: &str| check("storage.k8s.io/v1", kind, object, expect);
        check("StorageClass", json!({"provisioner": "p"}), "x|p|Delete|Immediate|false|5m10s");
        let class = json!({
            "metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p",
            "reclaimPolicy": "Retain", "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true,
        });
        check("StorageClass", class, "x (default)|p|Retain|WaitForFirstConsumer|true|5m10s");
        check("CSIDriver", json!({}), "x|true|false|false|<unset>|false|<none>|5m10s");
        let tokens = json!([{"audience": "a"}, {"audience": "b"}]);
        let modes = json!(["Persistent", "Ephemeral"]);
        let spec = json!({"attachRequired": false, "tokenRequests": tokens, "volumeLifecycleModes": modes});
        check("CSIDriver", json!({"spec": spec}), "x|false|false|false|a,b|false|Persistent,Ephemeral|5m10s");
        check("CSINode", json!({"spec": {"drivers": [{}, {}]}}), "x|2|5m10s");
        check("CSIStorageCapacity", json!({"storageClassName": "c"}), "x|c|<unset>");
        let spec = json!({"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "v"}});
        check("VolumeAttachment", json!({"spec": spec, "status": {"attached": true}}), "x|d|v|n|true|5m10s");
        check("VolumeAttributesClass", json!({"driverName": "d"}), "x|d|5m10s");
    }
}
