//! Decides: ResourceClaim. What it asks for never changes; its status says what it got and who uses that.

use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimStatus};

use super::{allocation, claim};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::immutable;
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part};

pub struct ResourceClaimKind;

impl Kind for ResourceClaimKind {
    type Object = ResourceClaim;

    fn resource(&self) -> &'static Resource {
        row("resource.k8s.io/v1", "ResourceClaim")
    }

    fn defaults(&self, object: &mut ResourceClaim) {
        claim::defaults(&mut object.spec);
        allocation::defaults(object.status.get_or_insert_default());
    }

    fn prepare_create(&self, _: &Context, object: &mut ResourceClaim) {
        object.status = Some(ResourceClaimStatus::default());
    }

    fn prepare_update(&self, _: &Context, part: Part, new: &mut ResourceClaim, old: &ResourceClaim) {
        if part == Part::Status {
            let (meta, before) = (&mut new.metadata, &old.metadata);
            meta.labels.clone_from(&before.labels);
            meta.annotations.clone_from(&before.annotations);
            meta.finalizers.clone_from(&before.finalizers);
            meta.owner_references.clone_from(&before.owner_references);
        }
    }

    fn status_resets(&self) -> &'static [&'static [&'static str]] {
        &[&["metadata"]]
    }

    fn validate(&self, object: &ResourceClaim) -> Vec<FieldError> {
        let mut errors = Vec::new();
        claim::check(&mut errors, &Path::new("spec"), &object.spec);
        errors
    }

    fn validate_update(&self, part: Part, new: &ResourceClaim, old: &ResourceClaim) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if part == Part::Status {
            allocation::check_update(&mut errors, &Path::new("status"), new, old);
        } else {
            immutable(&mut errors, &Path::new("spec"), &new.spec, &old.spec);
        }
        errors
    }
}
