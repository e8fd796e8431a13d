//! Decides the StorageClass of a claim that names none: the one that is marked as the default.

use serde_json::Value;

use super::{Attributes, Operation, Plugin, newest};
use crate::api::status::Status;
use crate::api::storage_class::{CLASS_ANNOTATION, IS_DEFAULT};
use crate::server::objects::SharedObjects;

const STORAGE: &str = "storage.k8s.io/storageclasses";

pub struct DefaultStorageClass {
    objects: SharedObjects,
}

impl DefaultStorageClass {
    #[must_use]
    pub fn new(objects: SharedObjects) -> Self {
        Self { objects }
    }
}

impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn changes(&self) -> &'static [&'static str] {
        &["persistentvolumeclaims"]
    }

    fn mutate(&self, attributes: &Attributes<'_>, claim: &mut Value) -> Result<(), Status> {
        if !attributes.is("persistentvolumeclaims") || attributes.operation != Operation::Create {
            return Ok(());
        }
        // An empty name asks for no class, and is a name.
        let named = claim["metadata"]["annotations"][CLASS_ANNOTATION].is_string()
            || claim["spec"]["storageClassName"].is_string();
        if !named
            && claim["spec"].is_object()
            && let Some(class) = newest(&*self.objects, STORAGE, &IS_DEFAULT)
        {
            claim["spec"]["storageClassName"] = class.into();
        }
        Ok(())
    }
}
