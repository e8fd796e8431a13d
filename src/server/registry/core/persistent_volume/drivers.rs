//! Decides: what is wrong with sources of a PersistentVolume that have rules of their own.

use k8s_openapi::api::core::v1::{
    AzureDiskVolumeSource, CSIPersistentVolumeSource, FCVolumeSource, FlexPersistentVolumeSource, FlockerVolumeSource,
    ISCSIPersistentVolumeSource, QuobyteVolumeSource, SecretReference, StorageOSPersistentVolumeSource,
};

use super::sources::{missing, required, secret_names};
use crate::api::field::{FieldError, Path};
use crate::server::registry::format::{self, between};
use crate::server::registry::metadata::{Errors, invalid, shown};

const AZURE_CACHING: &[&str] = &["None", "ReadOnly", "ReadWrite"];
const AZURE_KINDS: &[&str] = &["Dedicated", "Managed", "Shared"];
const AZURE_MANAGED_URI: &str =
    "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
const AZURE_BLOB_URI: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
const REGISTRY: &str = "must be a host:port pair or multiple pairs separated by commas";
/// Characters of `<volume name>:<iscsi.targetPortal>`, which names an interface.
const MAX_PORTAL: usize = 64;

/// The name of a driver as volumes and nodes give it; case does not matter.
pub fn driver_name(errors: &mut Errors, path: &Path, name: &str) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    if name.len() > 63 {
        errors.push(FieldError::too_long(path, 63));
    }
    invalid(errors, path, &name, format::dns_subdomain(&name.to_lowercase()));
}

fn lun(errors: &mut Errors, path: &Path, lun: i32) {
    if !(0..=255).contains(&lun) {
        errors.push(FieldError::invalid(&path.child("lun"), &lun, &between(0, 255)));
    }
}

pub fn csi(errors: &mut Errors, path: &Path, csi: &CSIPersistentVolumeSource) {
    driver_name(errors, &path.child("driver"), &csi.driver);
    required(errors, path, &[("volumeHandle", csi.volume_handle.is_empty())]);
    // Upstream does not look at nodeStageSecretRef.
    for (field, secret) in [
        ("controllerPublishSecretRef", &csi.controller_publish_secret_ref),
        ("controllerExpandSecretRef", &csi.controller_expand_secret_ref),
        ("nodePublishSecretRef", &csi.node_publish_secret_ref),
        ("nodeExpandSecretRef", &csi.node_expand_secret_ref),
    ] {
        if let Some(secret) = secret {
            csi_secret(errors, &path.child(field), secret);
        }
    }
}

fn csi_secret(errors: &mut Errors, path: &Path, secret: &SecretReference) {
    let (name, namespace) = (secret.name.clone().unwrap_or_default(), secret.namespace.clone().unwrap_or_default());
    for (field, text, problems) in
        [("name", &name, format::dns_subdomain(&name)), ("namespace", &namespace, format::dns_label(&namespace))]
    {
        if text.is_empty() {
            errors.push(FieldError::required(&path.child(field), ""));
        } else {
            invalid(errors, &path.child(field), text, problems);
        }
    }
}

pub fn iscsi(errors: &mut Errors, path: &Path, iscsi: &ISCSIPersistentVolumeSource, name: &str) {
    required(errors, path, &[("targetPortal", iscsi.target_portal.is_empty())]);
    if iscsi.initiator_name.is_some() && name.len() + 1 + iscsi.target_portal.len() > MAX_PORTAL {
        let message = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
            iscsi.initiatorName is specified.";
        errors.push(FieldError::invalid(&path.child("targetportal"), &iscsi.target_portal, message));
    }
    if iscsi.iqn.is_empty() {
        errors.push(FieldError::required(&path.child("iqn"), ""));
    } else {
        qualified(errors, &path.child("iqn"), &iscsi.iqn);
    }
    lun(errors, path, iscsi.lun);
    let authenticates = iscsi.chap_auth_discovery == Some(true) || iscsi.chap_auth_session == Some(true);
    match &iscsi.secret_ref {
        Some(secret) => required(errors, &path.child("secretRef"), &[("name", missing(secret.name.as_ref()))]),
        None => required(errors, path, &[("secretRef", authenticates)]),
    }
    if let Some(initiator) = &iscsi.initiator_name {
        qualified(errors, &path.child("initiatorname"), initiator);
    }
}

/// An iSCSI name: `iqn.2001-04.com.example:disk`, `eui.` and 16 or `naa.` and 32 letters and digits.
fn qualified(errors: &mut Errors, path: &Path, name: &str) {
    let letters = |text: &str, count: usize| text.len() == count && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let good = if let Some(rest) = name.strip_prefix("eui") {
        letters(after_one(rest), 16)
    } else if let Some(rest) = name.strip_prefix("naa") {
        letters(after_one(rest), 32)
    } else {
        name.starts_with("iqn") && name.match_indices("iqn.").any(|(i, _)| is_iqn(&name[i + 4..]))
    };
    if !good {
        errors.push(FieldError::invalid(path, &name, "must be valid format"));
    }
}

/// Upstream's expressions have any character for the dot.
fn after_one(text: &str) -> &str {
    let mut rest = text.chars();
    rest.next();
    rest.as_str()
}

/// What follows `iqn.`: year and month, a domain, and a name of the owner's own choice.
fn is_iqn(text: &str) -> bool {
    let (Some(date), Some(rest)) = (text.as_bytes().get(..8), text.get(8..)) else { return false };
    let dated = date.iter().enumerate().all(|(i, b)| match i {
        4 => *b == b'-',
        7 => *b == b'.',
        _ => b.is_ascii_digit(),
    });
    let Some((domain, own)) = rest.split_once(':') else { return false };
    dated
        && !domain.is_empty()
        && domain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        && !own.is_empty()
        && !own.contains(|c: char| ",;*&$|".contains(c) || c.is_ascii_whitespace())
}

pub fn fibre_channel(errors: &mut Errors, path: &Path, fc: &FCVolumeSource) {
    let at = path.child("targetWWNs");
    let targets = fc.target_wwns.as_ref().is_some_and(|t| !t.is_empty());
    let ids = fc.wwids.as_ref().is_some_and(|w| !w.is_empty());
    match (targets, ids) {
        (false, false) => {
            errors.push(FieldError::required(&at, "must specify either targetWWNs or wwids, but not both"));
        }
        (true, true) => {
            let message = "targetWWNs and wwids can not be specified simultaneously";
            errors.push(FieldError::invalid(&at, &shown(&fc.target_wwns), message));
        }
        _ => {}
    }
    match fc.lun {
        Some(number) if targets => lun(errors, path, number),
        None if targets => {
            errors.push(FieldError::required(&path.child("lun"), "lun is required if targetWWNs is specified"));
        }
        _ => {}
    }
}

pub fn flex(errors: &mut Errors, path: &Path, flex: &FlexPersistentVolumeSource) {
    required(errors, path, &[("driver", flex.driver.is_empty())]);
    for key in flex.options.iter().flatten().map(|(key, _)| key) {
        let namespace = key.split_once('/').map_or(key.as_str(), |(namespace, _)| namespace);
        let namespace = format!(".{}", namespace.to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let message = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(FieldError::invalid(&path.child("options").key(key), key, message));
        }
    }
}

pub fn azure_disk(errors: &mut Errors, path: &Path, disk: &AzureDiskVolumeSource) {
    required(errors, path, &[("diskName", disk.disk_name.is_empty()), ("diskURI", disk.disk_uri.is_empty())]);
    for (field, value, known) in [("cachingMode", &disk.caching_mode, AZURE_CACHING), ("kind", &disk.kind, AZURE_KINDS)]
    {
        if let Some(value) = value.as_deref().filter(|v| !known.contains(v)) {
            errors.push(FieldError::not_supported(&path.child(field), &value, known));
        }
    }
    let (prefix, example) = match disk.kind.as_deref() {
        None => return,
        Some("Managed") => ("/subscriptions/", AZURE_MANAGED_URI),
        Some(_) => ("https://", AZURE_BLOB_URI),
    };
    if !disk.disk_uri.starts_with(prefix) {
        errors.push(FieldError::not_supported(&path.child("diskURI"), &disk.disk_uri, &[example]));
    }
}

pub fn flocker(errors: &mut Errors, path: &Path, flocker: &FlockerVolumeSource) {
    match (missing(flocker.dataset_name.as_ref()), missing(flocker.dataset_uuid.as_ref())) {
        (true, true) => errors.push(FieldError::required(path, "one of datasetName and datasetUUID is required")),
        (false, false) => {
            let message = "datasetName and datasetUUID can not be specified simultaneously";
            errors.push(FieldError::invalid(path, &"resource", message));
        }
        _ => {}
    }
    if let Some(name) = flocker.dataset_name.as_ref().filter(|n| n.contains('/')) {
        errors.push(FieldError::invalid(&path.child("datasetName"), name, "must not contain '/'"));
    }
}

pub fn quobyte(errors: &mut Errors, path: &Path, quobyte: &QuobyteVolumeSource) {
    if quobyte.registry.is_empty() {
        errors.push(FieldError::required(&path.child("registry"), REGISTRY));
    } else if quobyte.tenant.as_ref().is_some_and(|t| t.len() > 64) {
        let message = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(FieldError::required(&path.child("tenant"), message));
    } else {
        for _ in quobyte.registry.split(',').filter(|pair| !is_host_port(pair)) {
            errors.push(FieldError::invalid(&path.child("registry"), &quobyte.registry, REGISTRY));
        }
    }
    required(errors, path, &[("volume", quobyte.volume.is_empty())]);
}

/// `host:port`, or `[address]:port` for IPv6.
fn is_host_port(text: &str) -> bool {
    match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:").is_some_and(|(_, port)| !port.contains([':', '[', ']'])),
        None => text.matches(':').count() == 1 && !text.contains(['[', ']']),
    }
}

pub fn storage_os(errors: &mut Errors, path: &Path, storage: &StorageOSPersistentVolumeSource) {
    match storage.volume_name.as_ref().filter(|n| !n.is_empty()) {
        Some(name) => invalid(errors, &path.child("volumeName"), name, format::dns_label(name)),
        None => errors.push(FieldError::required(&path.child("volumeName"), "")),
    }
    if let Some(namespace) = storage.volume_namespace.as_ref().filter(|n| !n.is_empty()) {
        invalid(errors, &path.child("volumeNamespace"), namespace, format::dns_label(namespace));
    }
    if let Some(secret) = &storage.secret_ref {
        secret_names(errors, &path.child("secretRef"), secret.name.as_ref(), secret.namespace.as_ref());
    }
}
