//! Decides: what a claim for devices uses of quotas: devices of classes, and the extended resources that these stand for,
//! unless its pod is charged with them (`pkg/quota/v1/evaluator/core/resource_claims.go`).

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{DeviceClass, DeviceRequest, ResourceClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::entries::{COUNT, DEVICE_CLAIMS, OF_DEVICE_CLASS, PODS, REQUESTS};
use super::subject::{Place, number, of_pod, one};
use crate::api::extended_resource::{OF_CLASS, made_for};
use crate::api::quota::Amounts;

pub const DEVICE_CLASSES: &str = "resource.k8s.io/deviceclasses";
/// Devices that one request can get at most (`AllocationResultsMaxSize`): what `All` may become.
const ALL_DEVICES: i64 = 32;

pub fn of_claim(claim: &ResourceClaim, place: Place<'_>, now: Timestamp) -> Amounts {
    let mut used = Amounts::from([(format!("{COUNT}resourceclaims.resource.k8s.io"), one())]);
    let mut extended = Amounts::new();
    for (class, devices) in devices(claim) {
        let object = place.objects.get(DEVICE_CLASSES, "", &class).and_then(|o| o.typed::<DeviceClass>().ok());
        for name in object.and_then(|c| c.spec.extended_resource_name).into_iter().chain([format!("{OF_CLASS}{class}")])
        {
            *extended.entry(format!("{REQUESTS}{name}")).or_default() += devices;
        }
        used.insert(format!("{class}{OF_DEVICE_CLASS}"), devices);
    }
    let of_pod = charged_pod(claim, place).map(|pod| of_pod(&pod, now).0).unwrap_or_default();
    let left = extended.into_iter().map(|(name, devices)| {
        let left = devices - of_pod.get(&name).copied().unwrap_or_default();
        (name, left)
    });
    used.extend(left.filter(|(_, left)| !left.is_zero() && !left.is_negative()));
    used
}

/// The pod that asked for what the claim was made for.
fn charged_pod(claim: &ResourceClaim, place: Place<'_>) -> Option<Pod> {
    let (pod, uid) = made_for(&claim.metadata)?;
    let pod: Pod = place.objects.get(PODS, place.namespace, pod)?.typed().ok()?;
    if pod.metadata.uid.as_deref() != Some(uid) {
        return None;
    }
    let age = |meta: &ObjectMeta| (meta.creation_timestamp.as_ref().map(|at| at.0), meta.name.clone());
    let status = pod.status.as_ref().and_then(|s| s.extended_resource_claim_status.as_ref());
    let is_it = match status {
        Some(status) => claim.metadata.name.as_ref() == Some(&status.resource_claim_name),
        // It does not say which yet; it cannot be charged for two.
        None => !place.objects.list(DEVICE_CLAIMS, Some(place.namespace)).iter().any(|other| {
            let other = other.typed::<ResourceClaim>().ok().map(|c| c.metadata);
            other.is_some_and(|o| made_for(&o).is_some_and(|(_, of)| of == uid) && age(&o) < age(&claim.metadata))
        }),
    };
    is_it.then_some(pod)
}

/// Of the alternatives of a request the most of each class counts: which of them it gets is not known.
fn devices(claim: &ResourceClaim) -> Amounts {
    let mut used = Amounts::new();
    for request in claim.spec.devices.as_ref().and_then(|d| d.requests.as_ref()).into_iter().flatten() {
        let mut most: BTreeMap<&str, i64> = BTreeMap::new();
        for (class, devices) in alternatives(request) {
            let so_far = most.entry(class).or_default();
            *so_far = devices.max(*so_far);
        }
        for (class, devices) in most {
            *used.entry(class.to_owned()).or_default() += number(devices);
        }
    }
    used
}

fn alternatives(request: &DeviceRequest) -> Vec<(&str, i64)> {
    let devices = |mode: Option<&str>, count: Option<i64>| match mode {
        Some("ExactCount") | None => count.unwrap_or(1),
        Some("All") => ALL_DEVICES,
        Some(_) => 0,
    };
    let exactly =
        request.exactly.iter().map(|r| (&*r.device_class_name, devices(r.allocation_mode.as_deref(), r.count)));
    let first = request.first_available.iter().flatten();
    exactly.chain(first.map(|r| (&*r.device_class_name, devices(r.allocation_mode.as_deref(), r.count)))).collect()
}
