//! Decides: where the data of a PersistentVolume is: exactly one source, and what is wrong with it.

use k8s_openapi::api::core::v1::PersistentVolumeSpec;

use super::drivers;
use crate::api::field::{FieldError, Path};
use crate::server::registry::core::pod::volumes::no_backsteps;
use crate::server::registry::format::{self, between};
use crate::server::registry::metadata::{Errors, invalid};

const ONE_KIND: &str = "may not specify more than 1 volume type";
const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// The JSON names of the sources that a spec names, in the order in which upstream looks at them.
fn kinds(spec: &PersistentVolumeSpec) -> Vec<&'static str> {
    let all = [
        ("hostPath", spec.host_path.is_some()),
        ("gcePersistentDisk", spec.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", spec.aws_elastic_block_store.is_some()),
        ("glusterfs", spec.glusterfs.is_some()),
        ("flocker", spec.flocker.is_some()),
        ("nfs", spec.nfs.is_some()),
        ("rbd", spec.rbd.is_some()),
        ("quobyte", spec.quobyte.is_some()),
        ("cephFS", spec.cephfs.is_some()),
        ("iscsi", spec.iscsi.is_some()),
        ("cinder", spec.cinder.is_some()),
        ("fc", spec.fc.is_some()),
        ("flexVolume", spec.flex_volume.is_some()),
        ("azureFile", spec.azure_file.is_some()),
        ("vsphereVolume", spec.vsphere_volume.is_some()),
        ("photonPersistentDisk", spec.photon_persistent_disk.is_some()),
        ("portworxVolume", spec.portworx_volume.is_some()),
        ("azureDisk", spec.azure_disk.is_some()),
        ("scaleIO", spec.scale_io.is_some()),
        ("local", spec.local.is_some()),
        ("storageos", spec.storageos.is_some()),
        ("csi", spec.csi.is_some()),
    ];
    all.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect()
}

/// `name` is that of the volume.
pub fn validate(errors: &mut Errors, path: &Path, spec: &PersistentVolumeSpec, name: &str, inline: bool) {
    let kinds = kinds(spec);
    if kinds.is_empty() {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
    for (i, kind) in kinds.iter().enumerate() {
        // Upstream does not mind a flexVolume after another source.
        if i > 0 && *kind != "flexVolume" {
            errors.push(FieldError::forbidden(&path.child(kind), ONE_KIND));
            continue;
        }
        let field = match *kind {
            "gcePersistentDisk" => "persistentDisk",
            "cephFS" => "cephfs",
            kind => kind,
        };
        source(errors, &path.child(field), kind, spec, name);
        if *kind == "local" && (inline || spec.node_affinity.is_none()) {
            errors.push(FieldError::required(&path.child("nodeAffinity"), "Local volume requires node affinity"));
        }
    }
}

pub fn required(errors: &mut Errors, path: &Path, fields: &[(&str, bool)]) {
    for (field, _) in fields.iter().filter(|(_, missing)| *missing) {
        errors.push(FieldError::required(&path.child(field), ""));
    }
}

pub fn missing(text: Option<&String>) -> bool {
    text.is_none_or(String::is_empty)
}

fn source(errors: &mut Errors, path: &Path, kind: &str, spec: &PersistentVolumeSpec, name: &str) {
    match kind {
        "hostPath" => {
            let host = spec.host_path.clone().unwrap_or_default();
            local_path(errors, path, &host.path);
            let kind = host.type_.unwrap_or_default();
            if !host.path.is_empty() && !HOST_PATH_TYPES.contains(&kind.as_str()) {
                errors.push(FieldError::not_supported(&path.child("type"), &kind, HOST_PATH_TYPES));
            }
        }
        "local" => local_path(errors, path, &spec.local.clone().unwrap_or_default().path),
        "nfs" => {
            let nfs = spec.nfs.clone().unwrap_or_default();
            required(errors, path, &[("server", nfs.server.is_empty()), ("path", nfs.path.is_empty())]);
            if !nfs.path.starts_with('/') {
                errors.push(FieldError::invalid(&path.child("path"), &nfs.path, "must be an absolute path"));
            }
        }
        "csi" => drivers::csi(errors, path, &spec.csi.clone().unwrap_or_default()),
        "iscsi" => drivers::iscsi(errors, path, &spec.iscsi.clone().unwrap_or_default(), name),
        "fc" => drivers::fibre_channel(errors, path, &spec.fc.clone().unwrap_or_default()),
        "flexVolume" => drivers::flex(errors, path, &spec.flex_volume.clone().unwrap_or_default()),
        "azureDisk" => drivers::azure_disk(errors, path, &spec.azure_disk.clone().unwrap_or_default()),
        "flocker" => drivers::flocker(errors, path, &spec.flocker.clone().unwrap_or_default()),
        "quobyte" => drivers::quobyte(errors, path, &spec.quobyte.clone().unwrap_or_default()),
        "storageos" => drivers::storage_os(errors, path, &spec.storageos.clone().unwrap_or_default()),
        _ => plain(errors, path, kind, spec),
    }
}

/// Sources that need little more than that their fields are there.
fn plain(errors: &mut Errors, path: &Path, kind: &str, spec: &PersistentVolumeSpec) {
    match kind {
        "gcePersistentDisk" => {
            let disk = spec.gce_persistent_disk.clone().unwrap_or_default();
            required(errors, path, &[("pdName", disk.pd_name.is_empty())]);
            partition(errors, path, disk.partition);
        }
        "awsElasticBlockStore" => {
            let disk = spec.aws_elastic_block_store.clone().unwrap_or_default();
            required(errors, path, &[("volumeID", disk.volume_id.is_empty())]);
            partition(errors, path, disk.partition);
        }
        "glusterfs" => {
            let gluster = spec.glusterfs.clone().unwrap_or_default();
            required(errors, path, &[("endpoints", gluster.endpoints.is_empty()), ("path", gluster.path.is_empty())]);
            let at = path.child("endpointsNamespace");
            match gluster.endpoints_namespace.as_deref() {
                None => {}
                Some("") => {
                    let message = "if the endpointnamespace is set, it must be a valid namespace name";
                    errors.push(FieldError::invalid(&at, &"", message));
                }
                Some(namespace) => invalid(errors, &at, &namespace, format::dns_label(namespace)),
            }
        }
        "rbd" => {
            let rbd = spec.rbd.clone().unwrap_or_default();
            required(errors, path, &[("monitors", rbd.monitors.is_empty()), ("image", rbd.image.is_empty())]);
        }
        "cephFS" => {
            let monitors = spec.cephfs.clone().unwrap_or_default().monitors;
            required(errors, path, &[("monitors", monitors.is_empty())]);
        }
        "cinder" => {
            let cinder = spec.cinder.clone().unwrap_or_default();
            required(errors, path, &[("volumeID", cinder.volume_id.is_empty())]);
            if let Some(secret) = &cinder.secret_ref {
                secret_names(errors, &path.child("secretRef"), secret.name.as_ref(), secret.namespace.as_ref());
            }
        }
        "azureFile" => {
            let file = spec.azure_file.clone().unwrap_or_default();
            let namespace = file.secret_namespace.is_some_and(|n| n.is_empty());
            let (secret, share) = (file.secret_name.is_empty(), file.share_name.is_empty());
            required(errors, path, &[("secretName", secret), ("shareName", share), ("secretNamespace", namespace)]);
        }
        "vsphereVolume" => {
            let disk = spec.vsphere_volume.clone().unwrap_or_default().volume_path;
            required(errors, path, &[("volumePath", disk.is_empty())]);
        }
        "photonPersistentDisk" => {
            let disk = spec.photon_persistent_disk.clone().unwrap_or_default().pd_id;
            required(errors, path, &[("pdID", disk.is_empty())]);
        }
        "portworxVolume" => {
            let volume = spec.portworx_volume.clone().unwrap_or_default().volume_id;
            required(errors, path, &[("volumeID", volume.is_empty())]);
        }
        "scaleIO" => {
            let scale = spec.scale_io.clone().unwrap_or_default();
            let volume = missing(scale.volume_name.as_ref());
            let (gateway, system) = (scale.gateway.is_empty(), scale.system.is_empty());
            required(errors, path, &[("gateway", gateway), ("system", system), ("volumeName", volume)]);
        }
        _ => {}
    }
}

fn local_path(errors: &mut Errors, path: &Path, text: &str) {
    if text.is_empty() {
        errors.push(FieldError::required(&path.child("path"), ""));
    } else {
        no_backsteps(errors, &path.child("path"), text);
    }
}

fn partition(errors: &mut Errors, path: &Path, partition: Option<i32>) {
    // 0 is what nothing looks like.
    if let Some(number) = partition.filter(|p| !(0..=255).contains(p)) {
        errors.push(FieldError::invalid(&path.child("partition"), &number, &between(1, 255)));
    }
}

pub fn secret_names(errors: &mut Errors, path: &Path, name: Option<&String>, namespace: Option<&String>) {
    required(errors, path, &[("name", missing(name)), ("namespace", missing(namespace))]);
}
