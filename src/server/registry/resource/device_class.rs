//! Decides: DeviceClass.

use k8s_openapi::api::resource::v1::DeviceClass;

use super::{MAX_CONFIGS, configuration, items, selectors};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::resource_name;
use crate::server::registry::strategy::Kind;

pub struct DeviceClassKind;

impl Kind for DeviceClassKind {
    type Object = DeviceClass;

    fn resource(&self) -> &'static Resource {
        row("resource.k8s.io/v1", "DeviceClass")
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn validate(&self, class: &DeviceClass) -> Vec<FieldError> {
        let (mut errors, path, spec) = (Vec::new(), Path::new("spec"), &class.spec);
        selectors(&mut errors, &path.child("selectors"), spec.selectors.as_ref());
        let at = path.child("config");
        for (i, one) in items(&mut errors, &at, spec.config.as_ref(), MAX_CONFIGS).iter().enumerate() {
            configuration(&mut errors, &at.index(i), one.opaque.as_ref());
        }
        if let Some(name) = spec.extended_resource_name.as_ref().filter(|name| !resource_name::extended(name)) {
            let at = path.child("extendedResourceName");
            errors.push(FieldError::invalid(&at, name, "must be a valid extended resource name"));
        }
        errors
    }
}
