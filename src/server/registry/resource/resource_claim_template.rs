//! Decides: ResourceClaimTemplate, from which each pod gets a claim of its own. It never changes.

use k8s_openapi::api::resource::v1::ResourceClaimTemplate;

use super::claim;
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{annotations, immutable, labels};
use crate::server::registry::strategy::{Kind, Part};

pub struct ResourceClaimTemplateKind;

impl Kind for ResourceClaimTemplateKind {
    type Object = ResourceClaimTemplate;

    fn resource(&self) -> &'static Resource {
        row("resource.k8s.io/v1", "ResourceClaimTemplate")
    }

    fn defaults(&self, object: &mut ResourceClaimTemplate) {
        object.spec.metadata.get_or_insert_default();
        claim::defaults(&mut object.spec.spec);
    }

    fn validate(&self, object: &ResourceClaimTemplate) -> Vec<FieldError> {
        let (mut errors, path) = (Vec::new(), Path::new("spec"));
        let (at, meta) = (path.child("metadata"), object.spec.metadata.clone().unwrap_or_default());
        annotations(&mut errors, &at.child("annotations"), meta.annotations.as_ref());
        labels(&mut errors, &at.child("labels"), meta.labels.as_ref());
        claim::check(&mut errors, &path.child("spec"), &object.spec.spec);
        errors
    }

    fn validate_update(&self, _: Part, new: &ResourceClaimTemplate, old: &ResourceClaimTemplate) -> Vec<FieldError> {
        let mut errors = Vec::new();
        immutable(&mut errors, &Path::new("spec"), &new.spec, &old.spec);
        errors
    }
}
