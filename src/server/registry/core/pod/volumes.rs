//! Decides: volumes of a pod, and where containers mount them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, KeyToPath, ProjectedVolumeSource, Volume, VolumeMount, VolumeProjection,
};

use super::env;
use crate::api::field::{FieldError, Path};
use crate::server::registry::format;
use crate::server::registry::metadata::{Errors, invalid};
use crate::server::registry::quantity;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const ONE_KIND: &str = "may not specify more than 1 volume type";
const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
/// Fields of a pod that a file of a downward API volume can hold.
const FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const TOKEN_SECONDS: (i64, i64) = (600, 1 << 32);

/// Volumes by name; those with errors are missing, as upstream has it.
pub type Volumes<'a> = BTreeMap<&'a str, &'a Volume>;

/// The JSON names of the sources that a volume names: one, when it is right.
#[must_use]
pub fn kinds(volume: &Volume) -> Vec<&'static str> {
    let all = [
        ("emptyDir", volume.empty_dir.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("secret", volume.secret.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("cephFS", volume.cephfs.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("fc", volume.fc.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("storageos", volume.storageos.is_some()),
        ("projected", volume.projected.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("csi", volume.csi.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("image", volume.image.is_some()),
    ];
    all.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect()
}

pub fn validate<'a>(errors: &mut Errors, path: &Path, volumes: &'a [Volume]) -> Volumes<'a> {
    let mut known = Volumes::new();
    for (i, volume) in volumes.iter().enumerate() {
        let at = path.index(i);
        let before = errors.len();
        source(errors, &at, volume);
        if volume.name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        } else {
            invalid(errors, &at.child("name"), &volume.name, format::dns_label(&volume.name));
        }
        if known.contains_key(volume.name.as_str()) {
            errors.push(FieldError::duplicate(&at.child("name"), &volume.name));
        }
        if errors.len() == before {
            known.insert(&volume.name, volume);
        }
    }
    known
}

fn source(errors: &mut Errors, path: &Path, volume: &Volume) {
    let kinds = kinds(volume);
    let Some((first, more)) = kinds.split_first() else {
        errors.push(FieldError::required(path, "must specify a volume type"));
        return;
    };
    let at = path.child(first);
    let mut required = |field: &str, missing: bool| {
        if missing {
            errors.push(FieldError::required(&at.child(field), ""));
        }
    };
    match *first {
        "emptyDir" => {
            let limit = volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref());
            if limit.is_some_and(|l| quantity::parse(l).map_or(true, |q| q.is_negative())) {
                let message = "SizeLimit field must be a valid resource quantity";
                errors.push(FieldError::forbidden(&at.child("sizeLimit"), message));
            }
        }
        "hostPath" => {
            let host = volume.host_path.clone().unwrap_or_default();
            required("path", host.path.is_empty());
            if !host.path.is_empty() {
                no_backsteps(errors, &at.child("path"), &host.path);
                let kind = host.type_.unwrap_or_default();
                if !HOST_PATH_TYPES.contains(&kind.as_str()) {
                    errors.push(FieldError::not_supported(&at.child("type"), &kind, HOST_PATH_TYPES));
                }
            }
        }
        "secret" => {
            let secret = volume.secret.clone().unwrap_or_default();
            required("secretName", secret.secret_name.unwrap_or_default().is_empty());
            files(errors, &at, secret.default_mode, secret.items.as_deref());
        }
        "configMap" => {
            let map = volume.config_map.clone().unwrap_or_default();
            required("name", map.name.is_empty());
            files(errors, &at, map.default_mode, map.items.as_deref());
        }
        "downwardAPI" => {
            let downward = volume.downward_api.clone().unwrap_or_default();
            mode(errors, &at.child("defaultMode"), downward.default_mode);
            for (i, file) in downward.items.iter().flatten().enumerate() {
                downward_file(errors, &at.child("items").index(i), file);
            }
        }
        "projected" => projected(errors, &at, &volume.projected.clone().unwrap_or_default()),
        "persistentVolumeClaim" => {
            required("claimName", volume.persistent_volume_claim.as_ref().is_none_or(|c| c.claim_name.is_empty()));
        }
        "nfs" => {
            let nfs = volume.nfs.clone().unwrap_or_default();
            required("server", nfs.server.is_empty());
            required("path", nfs.path.is_empty());
            if !nfs.path.starts_with('/') {
                errors.push(FieldError::invalid(&at.child("path"), &nfs.path, "must be an absolute path"));
            }
        }
        "csi" => required("driver", volume.csi.as_ref().is_none_or(|c| c.driver.is_empty())),
        "ephemeral" => {
            let missing = volume.ephemeral.as_ref().is_none_or(|e| e.volume_claim_template.is_none());
            required("volumeClaimTemplate", missing);
        }
        "image" => {
            let image = volume.image.clone().unwrap_or_default();
            required("reference", image.reference.unwrap_or_default().is_empty());
            super::containers::pull_policy(errors, &at.child("pullPolicy"), image.pull_policy.as_deref());
        }
        // The agents of this cluster have none of the others; their drivers were removed upstream too.
        _ => {}
    }
    for kind in more {
        errors.push(FieldError::forbidden(&path.child(kind), ONE_KIND));
    }
}

fn mode(errors: &mut Errors, path: &Path, mode: Option<i32>) {
    if let Some(mode) = mode.filter(|m| !(0..=0o777).contains(m)) {
        errors.push(FieldError::invalid(path, &mode, MODE));
    }
}

fn files(errors: &mut Errors, path: &Path, default: Option<i32>, items: Option<&[KeyToPath]>) {
    mode(errors, &path.child("defaultMode"), default);
    for (i, item) in items.unwrap_or_default().iter().enumerate() {
        let at = path.child("items").index(i);
        for (field, text) in [("key", &item.key), ("path", &item.path)] {
            if text.is_empty() {
                errors.push(FieldError::required(&at.child(field), ""));
            }
        }
        unreserved(errors, &at.child("path"), &item.path);
        mode(errors, &at.child("mode"), item.mode);
    }
}

fn projected(errors: &mut Errors, path: &Path, projected: &ProjectedVolumeSource) {
    mode(errors, &path.child("defaultMode"), projected.default_mode);
    for (i, source) in projected.sources.iter().flatten().enumerate() {
        projection(errors, &path.child("sources").index(i), source);
    }
}

fn projection(errors: &mut Errors, path: &Path, source: &VolumeProjection) {
    let mut count = 0;
    let mut one = |errors: &mut Errors, field: &str| {
        count += 1;
        if count > 1 {
            let message = "may not specify more than 1 volume type per source";
            errors.push(FieldError::forbidden(&path.child(field), message));
        }
        path.child(field)
    };
    let required = |errors: &mut Errors, path: Path, text: &str| {
        if text.is_empty() {
            errors.push(FieldError::required(&path, ""));
        }
    };
    if let Some(secret) = &source.secret {
        let at = one(errors, "secret");
        required(errors, at.child("name"), &secret.name);
        files(errors, &at, None, secret.items.as_deref());
    }
    if let Some(map) = &source.config_map {
        let at = one(errors, "configMap");
        required(errors, at.child("name"), &map.name);
        files(errors, &at, None, map.items.as_deref());
    }
    if let Some(downward) = &source.downward_api {
        let at = one(errors, "downwardAPI");
        for (i, file) in downward.items.iter().flatten().enumerate() {
            downward_file(errors, &at.child("items").index(i), file);
        }
    }
    if let Some(token) = &source.service_account_token {
        let at = one(errors, "serviceAccountToken");
        let seconds = token.expiration_seconds.unwrap_or_default();
        if seconds < TOKEN_SECONDS.0 {
            let message = "may not specify a duration less than 10 minutes";
            errors.push(FieldError::invalid(&at.child("expirationSeconds"), &seconds, message));
        }
        if seconds > TOKEN_SECONDS.1 {
            let message = "may not specify a duration larger than 2^32 seconds";
            errors.push(FieldError::invalid(&at.child("expirationSeconds"), &seconds, message));
        }
        required(errors, at.child("path"), &token.path);
        if !token.path.is_empty() {
            unreserved(errors, &at.child("path"), &token.path);
        }
    }
    if count == 0 && source.cluster_trust_bundle.is_none() && source.pod_certificate.is_none() {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
}

fn downward_file(errors: &mut Errors, path: &Path, file: &DownwardAPIVolumeFile) {
    if file.path.is_empty() {
        errors.push(FieldError::required(&path.child("path"), ""));
    }
    unreserved(errors, &path.child("path"), &file.path);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), other) => {
            env::object_field(errors, &path.child("fieldRef"), field, FIELDS);
            if other.is_some() {
                let message = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(path, &"resource", message));
            }
        }
        (None, Some(resource)) => env::resource_field(errors, &path.child("resourceFieldRef"), resource, true),
        (None, None) => errors.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required")),
    }
    mode(errors, &path.child("mode"), file.mode);
}

pub fn no_backsteps(errors: &mut Errors, path: &Path, text: &str) {
    if text.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, &text, "must not contain '..'"));
    }
}

/// A relative path that stays below where it starts.
pub fn descending(errors: &mut Errors, path: &Path, text: &str) {
    if text.starts_with('/') {
        errors.push(FieldError::invalid(path, &text, "must be a relative path"));
    }
    no_backsteps(errors, path, text);
}

/// Names that begin with `..` are the volume's own.
fn unreserved(errors: &mut Errors, path: &Path, text: &str) {
    descending(errors, path, text);
    if text.starts_with("..") && !text.starts_with("../") {
        errors.push(FieldError::invalid(path, &text, "must not start with '..'"));
    }
}

pub fn mounts(errors: &mut Errors, path: &Path, container: &Container, volumes: &Volumes<'_>) {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let devices = container.volume_devices.as_deref().unwrap_or_default();
    let at = path.child("volumeMounts");
    for (i, mount) in mounts.iter().enumerate() {
        let here = at.index(i);
        if mount.name.is_empty() {
            errors.push(FieldError::required(&here.child("name"), ""));
        }
        if !volumes.contains_key(mount.name.as_str()) {
            errors.push(FieldError::not_found(&here.child("name"), &mount.name));
        }
        if mount.mount_path.is_empty() {
            errors.push(FieldError::required(&here.child("mountPath"), ""));
        }
        if mounts[..i].iter().any(|m| m.mount_path == mount.mount_path) {
            errors.push(FieldError::invalid(&here.child("mountPath"), &mount.mount_path, "must be unique"));
        }
        if devices.iter().any(|d| d.name == mount.name) {
            let message = "must not already exist in volumeDevices";
            errors.push(FieldError::invalid(&here.child("name"), &mount.name, message));
        }
        if devices.iter().any(|d| d.device_path == mount.mount_path) {
            let message = "must not already exist as a path in volumeDevices";
            errors.push(FieldError::invalid(&here.child("mountPath"), &mount.mount_path, message));
        }
        mount_options(errors, &at, &here, container, mount);
    }
    for (i, device) in devices.iter().enumerate() {
        let here = path.child("volumeDevices").index(i);
        match volumes.get(device.name.as_str()) {
            None => errors.push(FieldError::not_found(&here.child("name"), &device.name)),
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                let message = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(&here.child("name"), &device.name, message));
            }
            Some(_) => {}
        }
        if device.device_path.is_empty() {
            errors.push(FieldError::required(&here.child("devicePath"), ""));
        }
    }
}

/// `list` is the path of all mounts: upstream names it, without the index, for what follows.
fn mount_options(errors: &mut Errors, list: &Path, path: &Path, container: &Container, mount: &VolumeMount) {
    let sub_path = mount.sub_path.as_deref().unwrap_or_default();
    let expression = mount.sub_path_expr.as_deref().unwrap_or_default();
    if !sub_path.is_empty() {
        descending(errors, &list.child("subPath"), sub_path);
    }
    if !expression.is_empty() {
        if !sub_path.is_empty() {
            let message = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(&path.child("subPathExpr"), &expression, message));
        }
        descending(errors, &list.child("subPathExpr"), expression);
    }
    let at = list.child("mountPropagation");
    match mount.mount_propagation.as_deref() {
        None | Some("HostToContainer" | "None") => {}
        Some("Bidirectional") => {
            let privileged = container.security_context.as_ref().and_then(|s| s.privileged) == Some(true);
            if !privileged {
                let message = "Bidirectional mount propagation is available only to privileged containers";
                errors.push(FieldError::forbidden(&at, message));
            }
        }
        Some(other) => {
            errors.push(FieldError::not_supported(&at, &other, &["Bidirectional", "HostToContainer", "None"]));
        }
    }
    if let Some(mode) = mount.recursive_read_only.as_deref() {
        let at = list.child("recursiveReadOnly");
        match mode {
            "Disabled" => {}
            "Enabled" | "IfPossible" => {
                if mount.read_only != Some(true) {
                    let message = "may only be specified when readOnly is true";
                    errors.push(FieldError::forbidden(&at, message));
                }
            }
            other => {
                errors.push(FieldError::not_supported(&at, &other, &["Disabled", "Enabled", "IfPossible"]));
            }
        }
    }
}
