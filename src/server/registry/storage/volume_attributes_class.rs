//! Decides: VolumeAttributesClass. Never changes: claims move to another class instead.

use k8s_openapi::api::storage::v1::VolumeAttributesClass;

use super::{driver, fixed, fixed_parameters, parameters};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::strategy::{Kind, Part};

pub struct VolumeAttributesClassKind;

impl Kind for VolumeAttributesClassKind {
    type Object = VolumeAttributesClass;

    fn resource(&self) -> &'static Resource {
        row("storage.k8s.io/v1", "VolumeAttributesClass")
    }

    fn validate(&self, class: &VolumeAttributesClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        driver(&mut errors, &Path::new("driverName"), &class.driver_name);
        let path = Path::new("parameters");
        parameters(&mut errors, &path, class.parameters.as_ref());
        if class.parameters.as_ref().is_none_or(|p| p.is_empty()) {
            errors.push(FieldError::required(&path, "must contain at least one key/value pair"));
        }
        errors
    }

    fn validate_update(&self, _: Part, new: &VolumeAttributesClass, old: &VolumeAttributesClass) -> Vec<FieldError> {
        let mut errors = self.validate(new);
        fixed(&mut errors, "driverName", &new.driver_name, &old.driver_name);
        fixed_parameters(&mut errors, new.parameters.as_ref(), old.parameters.as_ref());
        errors
    }
}
