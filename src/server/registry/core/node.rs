//! Decides: Node. Its agent writes status through the status subresource; podCIDRs and providerID are set once.

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, invalid, shown};
use crate::server::registry::quantity;
use crate::server::registry::strategy::{Kind, Part};

use super::scheduling::taint_effect;

pub struct NodeKind;

impl Kind for NodeKind {
    type Object = Node;

    fn resource(&self) -> &'static Resource {
        row("v1", "Node")
    }

    fn defaults(&self, node: &mut Node) {
        let spec = node.spec.get_or_insert_default();
        let first = spec.pod_cidrs.as_ref().and_then(|c| c.first().cloned());
        match (spec.pod_cidr.clone().filter(|c| !c.is_empty()), first) {
            (Some(one), first) if first.as_ref() != Some(&one) => spec.pod_cidrs = Some(vec![one]),
            (None, Some(first)) => spec.pod_cidr = Some(first),
            _ => {}
        }
        let status = node.status.get_or_insert_default();
        quantity::canonical_list(&mut status.capacity);
        quantity::canonical_list(&mut status.allocatable);
        if status.allocatable.is_none() {
            status.allocatable.clone_from(&status.capacity);
        }
    }

    fn validate(&self, node: &Node) -> Vec<FieldError> {
        let mut errors = Vec::new();
        taints(&mut errors, node);
        resources(&mut errors, node);
        let path = Path::new("spec").child("podCIDRs");
        let cidrs = node.spec.as_ref().and_then(|s| s.pod_cidrs.as_deref()).unwrap_or_default();
        for (i, cidr) in cidrs.iter().enumerate() {
            invalid(&mut errors, &path.index(i), cidr, format::cidr(cidr));
        }
        let v6 = cidrs.iter().filter(|c| c.contains(':')).count();
        if v6 > 1 || cidrs.len() - v6 > 1 {
            let message = "may specify no more than one CIDR for each IP family";
            errors.push(FieldError::invalid(&path, &shown(&cidrs), message));
        }
        errors
    }

    fn validate_update(&self, _: Part, new: &Node, old: &Node) -> Vec<FieldError> {
        let mut errors = Vec::new();
        resources(&mut errors, new);
        let addresses = new.status.as_ref().and_then(|s| s.addresses.as_deref()).unwrap_or_default();
        for (i, address) in addresses.iter().enumerate() {
            if addresses[..i].contains(address) {
                let path = Path::new("status").child("addresses").index(i);
                errors.push(FieldError::duplicate(&path, &shown(address)));
            }
        }
        let (before, after) = (old.spec.clone().unwrap_or_default(), new.spec.clone().unwrap_or_default());
        let spec = Path::new("spec");
        if before.pod_cidrs.as_ref().is_some_and(|c| !c.is_empty()) && before.pod_cidrs != after.pod_cidrs {
            let message = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(FieldError::forbidden(&spec.child("podCIDRs"), message));
        }
        if before.provider_id.as_ref().is_some_and(|p| !p.is_empty()) && before.provider_id != after.provider_id {
            let message = "node updates may not change providerID except from \"\" to valid";
            errors.push(FieldError::forbidden(&spec.child("providerID"), message));
        }
        taints(&mut errors, new);
        if before.external_id != after.external_id {
            errors.push(FieldError::forbidden(&spec.child("externalID"), "may not be updated"));
        }
        errors
    }
}

fn resources(errors: &mut Errors, node: &Node) {
    let Some(status) = &node.status else { return };
    for (name, list) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
        for (resource, value) in list.iter().flatten() {
            quantity::validate(errors, &Path::new("status").child(name).child(resource), resource, value);
        }
    }
}

fn taints(errors: &mut Errors, node: &Node) {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    // Upstream names this path, though taints live under spec.
    let path = Path::new("metadata").child("taints");
    for (i, taint) in taints.iter().enumerate() {
        let at = path.index(i);
        invalid(errors, &at.child("key"), &taint.key, format::qualified_name(&taint.key));
        let value = taint.value.as_deref().unwrap_or_default();
        let problems = format::label_value(value);
        if !problems.is_empty() {
            errors.push(FieldError::invalid(&at.child("value"), &value, &problems.join(";")));
        }
        if taint.effect.is_empty() {
            errors.push(FieldError::required(&at.child("effect"), ""));
        } else {
            taint_effect(errors, &at.child("effect"), &taint.effect);
        }
        let same = |other: &Taint| other.key == taint.key && other.effect == taint.effect;
        if taints[..i].iter().any(same) {
            let mut error = FieldError::duplicate(&at, &shown(taint));
            error.message.push_str(": taints must be unique by key and effect pair");
            errors.push(error);
        }
    }
}
