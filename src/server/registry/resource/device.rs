//! Decides: one device of a ResourceSlice.

use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, DeviceTaint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;

use super::{MAX_DOMAIN, MAX_IDENTIFIER, binding_conditions, capacity, effect, items, label, qualified_name, unique};
use crate::api::field::{FieldError, Path};
use crate::clock;
use crate::server::registry::core::scheduling::node_selector;
use crate::server::registry::format;
use crate::server::registry::metadata::{Errors, invalid, shown};

/// Attributes and capacities together.
const MAX_PROPERTIES: usize = 32;
const MAX_VALUE: usize = 64;
const MAX_TAINTS: usize = 16;
const MAX_CONSUMPTIONS: usize = 2;
const MAX_COUNTERS: usize = 32;
/// A domain, a slash and an identifier.
const MAX_KEY: usize = MAX_DOMAIN + 1 + MAX_IDENTIFIER;
const ONE_OF: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
    `perDeviceNodeSelection` is set to true in the ResourceSlice spec";

pub fn defaults(device: &mut Device) {
    for taint in device.taints.iter_mut().flatten() {
        taint.time_added.get_or_insert_with(clock::time);
    }
    for mapping in device.node_allocatable_resource_mappings.iter_mut().flat_map(|m| m.values_mut()) {
        mapping.allocation_multiplier.get_or_insert_with(|| Quantity("1".into()));
    }
}

/// `before` is what was there by this name; `own_nodes` when each device says where it is.
pub fn check(errors: &mut Errors, path: &Path, device: &Device, before: Option<&Device>, own_nodes: bool) {
    label(errors, &path.child("name"), &device.name);
    let attributes = || device.attributes.iter().flatten();
    let capacities = || device.capacity.iter().flatten();
    let properties = attributes().count() + capacities().count();
    if properties > MAX_PROPERTIES {
        let message = format!("the total number of attributes and capacities must not exceed {MAX_PROPERTIES}");
        errors.push(FieldError::invalid(path, &properties, &message));
    }
    for (name, value) in attributes() {
        let at = path.child("attributes").key(&shortened(name));
        qualified_name(errors, &at, name);
        attribute(errors, &at, value);
    }
    for (name, value) in capacities() {
        let at = path.child("capacity").key(&shortened(name));
        qualified_name(errors, &at, name);
        capacity::check(errors, &at, value, device.allow_multiple_allocations == Some(true));
    }
    if before.is_none_or(|old| old.taints != device.taints) {
        let at = path.child("taints");
        for (i, one) in items(errors, &at, device.taints.as_ref(), MAX_TAINTS).iter().enumerate() {
            taint(errors, &at.index(i), one);
        }
    }
    let at = path.child("consumesCounters");
    let consumptions = items(errors, &at, device.consumes_counters.as_ref(), MAX_CONSUMPTIONS);
    for (i, one) in consumptions.iter().enumerate() {
        let (set_at, set) = (at.index(i).child("counterSet"), &one.counter_set);
        if set.is_empty() {
            errors.push(FieldError::required(&set_at, ""));
        } else {
            label(errors, &set_at, set);
        }
        counters(errors, &at.index(i).child("counters"), one.counters.keys());
    }
    unique(errors, &at, consumptions.iter().map(|c| c.counter_set.as_str()));
    if own_nodes {
        nodes(errors, path, device);
    } else if device.node_name.is_some() || device.node_selector.is_some() || device.all_nodes.is_some() {
        let message = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to \
                       true in the ResourceSlice spec";
        errors.push(FieldError::invalid(path, &Value::Null, message));
    }
    binding_conditions(errors, path, device.binding_conditions.as_ref(), device.binding_failure_conditions.as_ref());
}

/// Keys of counters: at least one.
pub fn counters<'a>(errors: &mut Errors, path: &Path, names: impl ExactSizeIterator<Item = &'a String>) {
    match names.len() {
        0 => errors.push(FieldError::required(path, "")),
        many if many > MAX_COUNTERS => errors.push(FieldError::too_many(path, many, MAX_COUNTERS)),
        _ => names.for_each(|name| label(errors, &path.key(name), name)),
    }
}

/// A key as a path shows it, cut in its middle when it is longer than it may be.
fn shortened(key: &str) -> String {
    const DOTS: &str = "...";
    if key.len() <= MAX_KEY || !key.is_ascii() {
        return key.into();
    }
    let left = MAX_KEY - DOTS.len();
    format!("{}{DOTS}{}", &key[..left.div_ceil(2)], &key[key.len() - left / 2..])
}

fn attribute(errors: &mut Errors, path: &Path, attribute: &DeviceAttribute) {
    if attribute.string.as_ref().is_some_and(|s| s.len() > MAX_VALUE) {
        errors.push(FieldError::too_long(&path.child("string"), MAX_VALUE));
    }
    if let Some(version) = &attribute.version {
        let at = path.child("version");
        if !is_semantic_version(version) {
            let message = "must be a string compatible with semver.org spec 2.0.0";
            errors.push(FieldError::invalid(&at, version, message));
        }
        if version.len() > MAX_VALUE {
            errors.push(FieldError::too_long(&at, MAX_VALUE));
        }
    }
    let set = [
        attribute.bool.is_some(),
        attribute.int.is_some(),
        attribute.string.is_some(),
        attribute.version.is_some(),
        attribute.bools.is_some(),
        attribute.ints.is_some(),
        attribute.strings.is_some(),
        attribute.versions.is_some(),
    ];
    match set.iter().filter(|is_set| **is_set).count() {
        0 => errors.push(FieldError::invalid(path, &"", "exactly one value must be specified")),
        1 => {}
        _ => errors.push(FieldError::invalid(path, &shown(attribute), "exactly one value must be specified")),
    }
}

/// `1.2.3-alpha.1+build` (semver.org 2.0.0)
fn is_semantic_version(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
    let number = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|p| {
            p.split('.').all(|part| number(part) || (word(part) && part.bytes().any(|b| !b.is_ascii_digit())))
        })
        && build.is_none_or(|b| b.split('.').all(word))
}

fn taint(errors: &mut Errors, path: &Path, taint: &DeviceTaint) {
    invalid(errors, &path.child("key"), &taint.key, format::qualified_name(&taint.key));
    if let Some(value) = taint.value.as_deref().filter(|v| !v.is_empty()) {
        invalid(errors, &path.child("value"), &value, format::label_value(value));
    }
    if taint.effect.is_empty() {
        errors.push(FieldError::required(&path.child("effect"), ""));
    } else {
        effect(errors, &path.child("effect"), &taint.effect);
    }
}

fn nodes(errors: &mut Errors, path: &Path, device: &Device) {
    let mut set = Vec::new();
    match device.node_name.as_deref() {
        None => {}
        Some("") => errors.push(FieldError::invalid(&path.child("nodeName"), &"", "must not be empty")),
        Some(name) => {
            set.push("`nodeName`");
            invalid(errors, &path.child("nodeName"), &name, format::dns_subdomain(name));
        }
    }
    if let Some(selector) = &device.node_selector {
        set.push("`nodeSelector`");
        node_selector(errors, &path.child("nodeSelector"), selector);
    }
    match device.all_nodes {
        Some(true) => set.push("`allNodes`"),
        Some(false) => {
            let message = "must be either unset or set to true";
            errors.push(FieldError::invalid(&path.child("allNodes"), &false, message));
        }
        None => {}
    }
    match set.len() {
        0 => errors.push(FieldError::required(path, ONE_OF)),
        1 => {}
        _ => errors.push(FieldError::invalid(path, &format!("{{{}}}", set.join(", ")), ONE_OF)),
    }
}
