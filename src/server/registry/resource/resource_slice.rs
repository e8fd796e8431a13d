//! Decides: ResourceSlice: devices of one pool that a driver offers.

use k8s_openapi::api::resource::v1::{CounterSet, ResourcePool, ResourceSlice, ResourceSliceSpec};
use serde_json::json;

use super::{device, items, label, pool_name, unique};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::core::persistent_volume::drivers::driver_name;
use crate::server::registry::core::scheduling::node_selector;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, immutable, invalid};
use crate::server::registry::strategy::{Kind, Part};

const MAX_DEVICES: usize = 128;
/// Where devices have taints or consume counters.
const MAX_ADVANCED_DEVICES: usize = 64;
const MAX_COUNTER_SETS: usize = 8;
const ONE_OF: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
const UNSET_OR_TRUE: &str = "must be either unset or set to true";

pub struct ResourceSliceKind;

impl Kind for ResourceSliceKind {
    type Object = ResourceSlice;

    fn resource(&self) -> &'static Resource {
        row("resource.k8s.io/v1", "ResourceSlice")
    }

    fn defaults(&self, slice: &mut ResourceSlice) {
        slice.spec.devices.iter_mut().flatten().for_each(device::defaults);
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn validate(&self, slice: &ResourceSlice) -> Vec<FieldError> {
        check(&slice.spec, None)
    }

    fn validate_update(&self, _: Part, new: &ResourceSlice, old: &ResourceSlice) -> Vec<FieldError> {
        check(&new.spec, Some(&old.spec))
    }
}

fn check(spec: &ResourceSliceSpec, old: Option<&ResourceSliceSpec>) -> Errors {
    let (mut errors, path) = (Vec::new(), Path::new("spec"));
    driver_name(&mut errors, &path.child("driver"), &spec.driver);
    pool(&mut errors, &path.child("pool"), &spec.pool);
    if let Some(old) = old {
        immutable(&mut errors, &path.child("pool").child("name"), &spec.pool.name, &old.pool.name);
        immutable(&mut errors, &path.child("driver"), &spec.driver, &old.driver);
        immutable(&mut errors, &path.child("nodeName"), &spec.node_name, &old.node_name);
    }
    nodes(&mut errors, &path, spec);
    if spec.shared_counters.is_some() && spec.devices.is_some() {
        let message = "only one of `sharedCounters` or `devices` is allowed";
        errors.push(FieldError::invalid(&path, &"", message));
    }
    let mut all = spec.devices.iter().flatten();
    let advanced = all.any(|d| {
        d.taints.as_ref().is_some_and(|t| !t.is_empty()) || d.consumes_counters.as_ref().is_some_and(|c| !c.is_empty())
    });
    let limit = if advanced { MAX_ADVANCED_DEVICES } else { MAX_DEVICES };
    let at = path.child("devices");
    let devices = items(&mut errors, &at, spec.devices.as_ref(), limit);
    for (i, one) in devices.iter().enumerate() {
        let before = old.and_then(|o| o.devices.iter().flatten().find(|d| d.name == one.name));
        device::check(&mut errors, &at.index(i), one, before, spec.per_device_node_selection == Some(true));
    }
    unique(&mut errors, &at, devices.iter().map(|d| d.name.as_str()));
    let at = path.child("sharedCounters");
    let sets = items(&mut errors, &at, spec.shared_counters.as_ref(), MAX_COUNTER_SETS);
    for (i, set) in sets.iter().enumerate() {
        counter_set(&mut errors, &at.index(i), set);
    }
    unique(&mut errors, &at, sets.iter().map(|s| s.name.as_str()));
    errors
}

fn pool(errors: &mut Errors, path: &Path, pool: &ResourcePool) {
    pool_name(errors, &path.child("name"), &pool.name);
    if pool.resource_slice_count <= 0 {
        let at = path.child("resourceSliceCount");
        errors.push(FieldError::invalid(&at, &pool.resource_slice_count, "must be greater than zero"));
    }
    if pool.generation < 0 {
        let message = "must be greater than or equal to zero";
        errors.push(FieldError::invalid(&path.child("generation"), &pool.generation, message));
    }
}

/// Where the devices are: one way to say it.
fn nodes(errors: &mut Errors, path: &Path, spec: &ResourceSliceSpec) {
    let mut set = Vec::new();
    match spec.node_name.as_deref() {
        None => {}
        Some("") => {
            let message = "must be either unset or set to a non-empty string";
            errors.push(FieldError::invalid(&path.child("nodeName"), &"", message));
        }
        Some(name) => {
            set.push("`nodeName`");
            invalid(errors, &path.child("nodeName"), &name, format::dns_subdomain(name));
        }
    }
    if let Some(selector) = &spec.node_selector {
        set.push("`nodeSelector`");
        let at = path.child("nodeSelector");
        node_selector(errors, &at, selector);
        if selector.node_selector_terms.len() != 1 {
            let (at, terms) = (at.child("nodeSelectorTerms"), json!(selector.node_selector_terms));
            errors.push(FieldError::invalid(&at, &terms, "must have exactly one node selector term"));
        }
    }
    for (field, name, value) in [
        ("allNodes", "`allNodes`", spec.all_nodes),
        ("perDeviceNodeSelection", "`perDeviceNodeSelection`", spec.per_device_node_selection),
    ] {
        match value {
            Some(true) => set.push(name),
            Some(false) => errors.push(FieldError::invalid(&path.child(field), &false, UNSET_OR_TRUE)),
            None => {}
        }
    }
    match set.len() {
        0 => errors.push(FieldError::required(path, ONE_OF)),
        1 => {}
        _ => {
            let message = format!("{ONE_OF}, but multiple fields are set");
            errors.push(FieldError::invalid(path, &format!("{{{}}}", set.join(", ")), &message));
        }
    }
}

fn counter_set(errors: &mut Errors, path: &Path, set: &CounterSet) {
    let at = path.child("name");
    if set.name.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else {
        label(errors, &at, &set.name);
    }
    device::counters(errors, &path.child("counters"), set.counters.keys());
}
