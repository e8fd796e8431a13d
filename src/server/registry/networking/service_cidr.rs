//! Decides: ServiceCIDR. Its ranges never change, but one of the other family can be added.
//!
//! Upstream lets a write of the main resource set the status, which it treats as a mistake of its own
//! (kubernetes/kubernetes#137680); here the status is written apart, as with every other kind.

use k8s_openapi::api::networking::v1::{ServiceCIDR, ServiceCIDRStatus};
use serde_json::json;

use super::address::{self, Block};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, IMMUTABLE, invalid};
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part};

/// One for each IP family.
const MAX_CIDRS: usize = 2;

pub struct ServiceCidrKind;

impl Kind for ServiceCidrKind {
    type Object = ServiceCIDR;

    fn resource(&self) -> &'static Resource {
        row("networking.k8s.io/v1", "ServiceCIDR")
    }

    fn defaults(&self, cidr: &mut ServiceCIDR) {
        cidr.spec.get_or_insert_default();
        cidr.status.get_or_insert_default();
    }

    fn prepare_create(&self, _: &Context, cidr: &mut ServiceCIDR) {
        cidr.status = Some(ServiceCIDRStatus::default());
    }

    fn prepare_update(&self, _: &Context, part: Part, new: &mut ServiceCIDR, old: &ServiceCIDR) {
        if part != Part::Status {
            return;
        }
        let (meta, before) = (&mut new.metadata, &old.metadata);
        meta.labels.clone_from(&before.labels);
        meta.annotations.clone_from(&before.annotations);
        meta.finalizers.clone_from(&before.finalizers);
        meta.owner_references.clone_from(&before.owner_references);
    }

    fn status_resets(&self) -> &'static [&'static [&'static str]] {
        &[
            &["metadata", "labels"],
            &["metadata", "annotations"],
            &["metadata", "finalizers"],
            &["metadata", "ownerReferences"],
        ]
    }

    fn validate(&self, cidr: &ServiceCIDR) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check(&mut errors, cidrs(cidr));
        errors
    }

    fn validate_update(&self, part: Part, new: &ServiceCIDR, old: &ServiceCIDR) -> Vec<FieldError> {
        if part == Part::Status {
            return Vec::new();
        }
        let mut errors = Vec::new();
        let (path, new, old) = (path(), cidrs(new), cidrs(old));
        let grows = old.len() == 1 && new.len() == MAX_CIDRS;
        if new.len() == old.len() || grows {
            for (i, (new, _)) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new != old) {
                errors.push(FieldError::invalid(&path.index(i), new, IMMUTABLE));
            }
        } else {
            errors.push(FieldError::invalid(&path, &json!(new), IMMUTABLE));
        }
        if grows {
            check(&mut errors, new);
        }
        errors
    }
}

fn path() -> Path {
    Path::new("spec").child("cidrs")
}

fn cidrs(cidr: &ServiceCIDR) -> &[String] {
    cidr.spec.as_ref().and_then(|s| s.cidrs.as_deref()).unwrap_or_default()
}

fn check(errors: &mut Errors, cidrs: &[String]) {
    let path = path();
    if cidrs.is_empty() {
        errors.push(FieldError::required(&path, "at least one CIDR required"));
        return;
    }
    if cidrs.len() > MAX_CIDRS {
        // Upstream shows the whole spec of its internal type.
        errors.push(FieldError::invalid(&path, &json!({"CIDRs": cidrs}), "may only hold up to 2 values"));
        return;
    }
    for (i, cidr) in cidrs.iter().enumerate() {
        invalid(errors, &path.index(i), cidr, address::canonical_cidr(cidr));
    }
    let families: Vec<bool> = cidrs.iter().filter_map(|c| Block::parse(c)).map(|b| b.address.is_ipv4()).collect();
    if matches!(families.as_slice(), [first, second] if first == second) {
        let message = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(FieldError::invalid(&path, &json!(cidrs), message));
    }
}
