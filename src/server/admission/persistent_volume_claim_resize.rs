//! Decides which claims may grow: those that are bound, of a class that lets them.

use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::api::quantity::Quantity;
use crate::api::status::Status;
use crate::api::storage_class::CLASS_ANNOTATION;
use crate::server::objects::SharedObjects;

pub struct PersistentVolumeClaimResize {
    objects: SharedObjects,
}

impl PersistentVolumeClaimResize {
    #[must_use]
    pub fn new(objects: SharedObjects) -> Self {
        Self { objects }
    }

    fn may_grow(&self, old: &Value, new: &Value) -> bool {
        let (before, now) = (class(old), class(new));
        if now.is_empty() || before != now {
            return false;
        }
        let stored = self.objects.get("storage.k8s.io/storageclasses", "", now).and_then(|c| c.value().ok());
        stored.is_some_and(|c| c["allowVolumeExpansion"] == true)
    }
}

impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let (Some(new), Some(old)) = (object, attributes.old) else { return Ok(()) };
        let about = attributes.is("persistentvolumeclaims") && attributes.operation == Operation::Update;
        if !about || size(new) <= size(old) {
            return Ok(());
        }
        if old["status"]["phase"] != "Bound" {
            return Err(attributes.forbidden(Some(new), "Only bound persistent volume claims can be expanded"));
        }
        if !self.may_grow(old, new) {
            let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc \
                       must support resize";
            return Err(attributes.forbidden(Some(new), why));
        }
        Ok(())
    }
}

fn size(claim: &Value) -> Quantity {
    let text = claim["spec"]["resources"]["requests"]["storage"].as_str().unwrap_or_default();
    Quantity::parse(text).unwrap_or_default()
}

fn class(claim: &Value) -> &str {
    let named = claim["metadata"]["annotations"][CLASS_ANNOTATION].as_str();
    named.or_else(|| claim["spec"]["storageClassName"].as_str()).unwrap_or_default()
}
