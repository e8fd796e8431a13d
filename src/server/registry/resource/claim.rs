//! Decides: what a claim, or the template of one, asks for.

use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceConstraint, DeviceRequest, DeviceSubRequest, ExactDeviceRequest, ResourceClaimSpec,
};
use serde_json::Value;

use super::{
    MAX_CONFIGS, MAX_REQUESTS, configuration, fully_qualified_name, items, label, selectors, toleration_defaults,
    tolerations, unique,
};
use crate::api::field::{FieldError, Path};
use crate::server::registry::format;
use crate::server::registry::metadata::{Errors, invalid};

const MAX_CONSTRAINTS: usize = 32;
/// Alternatives of one request.
const MAX_ALTERNATIVES: usize = 8;
const MODES: &[&str] = &["All", "ExactCount"];
const NOT_A_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

pub fn defaults(spec: &mut ResourceClaimSpec) {
    let devices = spec.devices.get_or_insert_default();
    for request in devices.requests.iter_mut().flatten() {
        if let Some(exact) = &mut request.exactly {
            count_defaults(&mut exact.allocation_mode, &mut exact.count);
            toleration_defaults(exact.tolerations.as_mut());
        }
        for one in request.first_available.iter_mut().flatten() {
            count_defaults(&mut one.allocation_mode, &mut one.count);
            toleration_defaults(one.tolerations.as_mut());
        }
    }
}

fn count_defaults(mode: &mut Option<String>, count: &mut Option<i64>) {
    let mode = mode.get_or_insert_with(|| "ExactCount".into());
    if mode == "ExactCount" {
        *count = count.filter(|n| *n != 0).or(Some(1));
    }
}

pub fn check(errors: &mut Errors, path: &Path, spec: &ResourceClaimSpec) {
    let (path, claim) = (path.child("devices"), spec.devices.clone().unwrap_or_default());
    let at = path.child("requests");
    let requests = items(errors, &at, claim.requests.as_ref(), MAX_REQUESTS);
    for (i, one) in requests.iter().enumerate() {
        request(errors, &at.index(i), one);
    }
    unique(errors, &at, requests.iter().map(|r| r.name.as_str()));
    let at = path.child("constraints");
    for (i, one) in items(errors, &at, claim.constraints.as_ref(), MAX_CONSTRAINTS).iter().enumerate() {
        constraint(errors, &at.index(i), one, &claim);
    }
    let at = path.child("config");
    for (i, one) in items(errors, &at, claim.config.as_ref(), MAX_CONFIGS).iter().enumerate() {
        references(errors, &at.index(i).child("requests"), one.requests.as_ref(), &claim);
        configuration(errors, &at.index(i), one.opaque.as_ref());
    }
}

fn request(errors: &mut Errors, path: &Path, request: &DeviceRequest) {
    label(errors, &path.child("name"), &request.name);
    let either = "exactly one of `exactly` or `firstAvailable` is required";
    let alternatives = request.first_available.as_ref().filter(|list| !list.is_empty());
    match (&request.exactly, alternatives) {
        (None, None) => errors.push(FieldError::required(path, either)),
        (Some(_), Some(_)) => {
            let message = format!("{either}, but multiple fields are set");
            errors.push(FieldError::invalid(path, &Value::Null, &message));
        }
        (Some(exact), None) => exactly(errors, &path.child("exactly"), exact),
        (None, alternatives) => {
            let at = path.child("firstAvailable");
            let alternatives = items(errors, &at, alternatives, MAX_ALTERNATIVES);
            for (i, one) in alternatives.iter().enumerate() {
                alternative(errors, &at.index(i), one);
            }
            unique(errors, &at, alternatives.iter().map(|r| r.name.as_str()));
        }
    }
}

fn exactly(errors: &mut Errors, path: &Path, exact: &ExactDeviceRequest) {
    class(errors, &path.child("deviceClassName"), &exact.device_class_name);
    selectors(errors, &path.child("selectors"), exact.selectors.as_ref());
    count(errors, path, exact.allocation_mode.as_deref(), exact.count);
    tolerations(errors, &path.child("tolerations"), exact.tolerations.as_ref());
}

fn alternative(errors: &mut Errors, path: &Path, one: &DeviceSubRequest) {
    label(errors, &path.child("name"), &one.name);
    class(errors, &path.child("deviceClassName"), &one.device_class_name);
    selectors(errors, &path.child("selectors"), one.selectors.as_ref());
    count(errors, path, one.allocation_mode.as_deref(), one.count);
    tolerations(errors, &path.child("tolerations"), one.tolerations.as_ref());
}

fn class(errors: &mut Errors, path: &Path, name: &str) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        invalid(errors, path, &name, format::dns_subdomain(name));
    }
}

fn count(errors: &mut Errors, path: &Path, mode: Option<&str>, count: Option<i64>) {
    let (at, count) = (path.child("count"), count.unwrap_or_default());
    match mode.unwrap_or_default() {
        "All" if count != 0 => {
            let message = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(&at, &count, message));
        }
        "ExactCount" if count <= 0 => errors.push(FieldError::invalid(&at, &count, "must be greater than zero")),
        "All" | "ExactCount" => {}
        other => errors.push(FieldError::not_supported(&path.child("allocationMode"), &other, MODES)),
    }
}

fn constraint(errors: &mut Errors, path: &Path, constraint: &DeviceConstraint, claim: &DeviceClaim) {
    references(errors, &path.child("requests"), constraint.requests.as_ref(), claim);
    match (&constraint.match_attribute, &constraint.distinct_attribute) {
        (Some(name), _) => fully_qualified_name(errors, &path.child("matchAttribute"), name),
        (None, Some(name)) => fully_qualified_name(errors, &path.child("distinctAttribute"), name),
        (None, None) => {
            // As upstream words it.
            let message = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields \
                           are set";
            errors.push(FieldError::required(path, message));
        }
    }
}

/// Requests of the claim, by name.
pub fn references(errors: &mut Errors, path: &Path, names: Option<&Vec<String>>, claim: &DeviceClaim) {
    let names = items(errors, path, names, MAX_REQUESTS);
    for (i, name) in names.iter().enumerate() {
        reference(errors, &path.index(i), name, claim);
    }
    unique(errors, path, names.iter().map(String::as_str));
}

/// One request, `name`, or one of its alternatives, `name/alternative`.
pub fn reference(errors: &mut Errors, path: &Path, name: &str, claim: &DeviceClaim) {
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 2 {
        errors.push(FieldError::invalid(path, &name, NOT_A_REQUEST));
        return;
    }
    parts.iter().for_each(|part| label(errors, path, part));
    let found = claim.requests.iter().flatten().find(|r| r.name == parts[0]).is_some_and(|request| {
        let mut alternatives = request.first_available.iter().flatten();
        parts.get(1).is_none_or(|name| alternatives.any(|a| a.name == *name))
    });
    if !found {
        errors.push(FieldError::invalid(path, &name, NOT_A_REQUEST));
    }
}
