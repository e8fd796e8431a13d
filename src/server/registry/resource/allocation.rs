//! Decides: the status of a claim: what was allocated, for whom it is reserved, and what drivers tell of it.

use k8s_openapi::api::resource::v1::{
    AllocatedDeviceStatus, AllocationResult, DeviceClaim, NetworkDeviceData, ResourceClaim,
    ResourceClaimConsumerReference, ResourceClaimStatus,
};
use serde_json::json;

use super::claim::{reference, references};
use super::{
    MAX_CONFIGS, MAX_REQUESTS, binding_conditions, configuration, items, label, pool_name, raw_object,
    toleration_defaults, unique,
};
use crate::api::field::{FieldError, Path};
use crate::server::registry::core::persistent_volume::drivers::driver_name;
use crate::server::registry::core::scheduling::node_selector;
use crate::server::registry::metadata::{Errors, immutable};
use crate::server::registry::policy::conditions;

const MAX_CONSUMERS: usize = 256;
const MAX_CONDITIONS: usize = 8;
const MAX_ADDRESSES: usize = 16;
/// In bytes.
const MAX_INTERFACE: usize = 256;
const MAX_HARDWARE_ADDRESS: usize = 128;
const SOURCES: &[&str] = &["FromClaim", "FromClass"];

pub fn defaults(status: &mut ResourceClaimStatus) {
    let Some(allocation) = &mut status.allocation else { return };
    for result in allocation.devices.get_or_insert_default().results.iter_mut().flatten() {
        toleration_defaults(result.tolerations.as_mut());
    }
}

pub fn check_update(errors: &mut Errors, path: &Path, new: &ResourceClaim, old: &ResourceClaim) {
    let (status, before) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let claim = new.spec.devices.clone().unwrap_or_default();
    let at = path.child("reservedFor");
    let reserved = items(errors, &at, status.reserved_for.as_ref(), MAX_CONSUMERS);
    for (i, consumer) in reserved.iter().enumerate() {
        consumer_reference(errors, &at.index(i), consumer);
    }
    unique(errors, &at, reserved.iter().map(|r| r.uid.as_str()));
    let devices_at = path.child("devices");
    let ids: Vec<String> = status.devices.iter().flatten().map(id_of_status).collect();
    for (i, (device, id)) in status.devices.iter().flatten().zip(&ids).enumerate() {
        device_status(errors, &devices_at.index(i), device, id, status.allocation.as_ref());
    }
    unique(errors, &devices_at, ids.iter().map(String::as_str));
    let known = before.reserved_for.as_deref().unwrap_or_default();
    let mut reserved = status.reserved_for.iter().flatten();
    if status.reserved_for.as_ref().is_some_and(|r| !r.is_empty()) && status.allocation.is_none() {
        errors.push(FieldError::forbidden(&at, "may not be specified when `allocated` is not set"));
    } else if new.metadata.deletion_timestamp.is_some() && reserved.any(|r| !known.contains(r)) {
        let message = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        errors.push(FieldError::forbidden(&at, message));
    }
    let at = path.child("allocation");
    match (&status.allocation, &before.allocation) {
        (Some(new), Some(old)) => immutable(errors, &at, new, old),
        (Some(new), None) => result(errors, &at, new, &claim),
        (None, _) => {}
    }
}

fn consumer_reference(errors: &mut Errors, path: &Path, consumer: &ResourceClaimConsumerReference) {
    for (field, text) in [("resource", &consumer.resource), ("name", &consumer.name), ("uid", &consumer.uid)] {
        if text.is_empty() {
            errors.push(FieldError::required(&path.child(field), ""));
        }
    }
}

fn result(errors: &mut Errors, path: &Path, allocation: &AllocationResult, claim: &DeviceClaim) {
    let devices = allocation.devices.clone().unwrap_or_default();
    let at = path.child("devices").child("results");
    for (i, one) in items(errors, &at, devices.results.as_ref(), MAX_REQUESTS).iter().enumerate() {
        let at = at.index(i);
        reference(errors, &at.child("request"), &one.request, claim);
        driver_name(errors, &at.child("driver"), &one.driver);
        pool_name(errors, &at.child("pool"), &one.pool);
        label(errors, &at.child("device"), &one.device);
        binding_conditions(errors, &at, one.binding_conditions.as_ref(), one.binding_failure_conditions.as_ref());
        share_id(errors, &at.child("shareID"), one.share_id.as_deref());
    }
    let at = path.child("devices").child("config");
    // Those of the class and those of the claim.
    for (i, one) in items(errors, &at, devices.config.as_ref(), 2 * MAX_CONFIGS).iter().enumerate() {
        let at = at.index(i);
        match one.source.as_str() {
            "" => errors.push(FieldError::required(&at.child("source"), "")),
            source if SOURCES.contains(&source) => {}
            other => errors.push(FieldError::not_supported(&at.child("source"), &other, SOURCES)),
        }
        references(errors, &at.child("requests"), one.requests.as_ref(), claim);
        configuration(errors, &at, one.opaque.as_ref());
    }
    if let Some(selector) = &allocation.node_selector {
        node_selector(errors, &path.child("nodeSelector"), selector);
    }
}

/// A device as upstream names it in messages.
fn id(driver: &str, pool: &str, device: &str, share: Option<&str>) -> String {
    let share = share.map(|s| format!("/{s}")).unwrap_or_default();
    format!("{driver}/{pool}/{device}{share}")
}

fn id_of_status(device: &AllocatedDeviceStatus) -> String {
    id(&device.driver, &device.pool, &device.device, device.share_id.as_deref())
}

fn device_status(
    errors: &mut Errors,
    path: &Path,
    device: &AllocatedDeviceStatus,
    own: &str,
    allocation: Option<&AllocationResult>,
) {
    driver_name(errors, &path.child("driver"), &device.driver);
    pool_name(errors, &path.child("pool"), &device.pool);
    label(errors, &path.child("device"), &device.device);
    share_id(errors, &path.child("shareID"), device.share_id.as_deref());
    let devices = allocation.and_then(|a| a.devices.as_ref());
    let mut results = devices.and_then(|d| d.results.as_ref()).into_iter().flatten();
    if !results.any(|r| id(&r.driver, &r.pool, &r.device, r.share_id.as_deref()) == own) {
        errors.push(FieldError::invalid(path, &own, "must be an allocated device in the claim"));
    }
    let (at, found) = (path.child("conditions"), device.conditions.as_deref().unwrap_or_default());
    if found.len() > MAX_CONDITIONS {
        errors.push(FieldError::too_many(&at, found.len(), MAX_CONDITIONS));
    }
    conditions(errors, &at, found);
    if let Some(data) = &device.data {
        raw_object(errors, &path.child("data"), &data.0);
    }
    if let Some(network) = &device.network_data {
        network_data(errors, &path.child("networkData"), network);
    }
}

fn network_data(errors: &mut Errors, path: &Path, data: &NetworkDeviceData) {
    for (field, text, limit) in [
        ("interfaceName", &data.interface_name, MAX_INTERFACE),
        ("hardwareAddress", &data.hardware_address, MAX_HARDWARE_ADDRESS),
    ] {
        if text.as_ref().is_some_and(|t| t.len() > limit) {
            errors.push(FieldError::too_long(&path.child(field), limit));
        }
    }
    let at = path.child("ips");
    let ips = items(errors, &at, data.ips.as_ref(), MAX_ADDRESSES);
    for (i, ip) in ips.iter().enumerate() {
        let valid = ip.split_once('/').is_some_and(|(address, length)| {
            let bits = address.parse::<std::net::IpAddr>().map(|a| if a.is_ipv4() { 32 } else { 128 });
            bits.is_ok_and(|bits: u8| length.parse::<u8>().is_ok_and(|n| n <= bits))
        });
        if !valid {
            let message = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
            errors.push(FieldError::invalid(&at.index(i), ip, message));
        }
    }
    unique(errors, &at, ips.iter().map(String::as_str));
}

fn share_id(errors: &mut Errors, path: &Path, id: Option<&str>) {
    let Some(id) = id else { return };
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let well_formed = id.len() == 36
        && id.bytes().enumerate().all(|(i, b)| if matches!(i, 8 | 13 | 18 | 23) { b == b'-' } else { lower_hex(b) });
    if !well_formed {
        let message = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase \
                       hexadecimal characters";
        errors.push(FieldError::invalid(path, &json!(id), message));
    }
}
