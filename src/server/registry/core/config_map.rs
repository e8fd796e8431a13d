//! Decides: ConfigMap. At most 1 MiB; nothing changes once `immutable` is set.

use k8s_openapi::api::core::v1::ConfigMap;

use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, invalid};
use crate::server::registry::strategy::{Kind, Part};

/// Values of a ConfigMap or a Secret together, in bytes.
pub const MAX_SIZE: usize = 1024 * 1024;

pub struct ConfigMapKind;

impl Kind for ConfigMapKind {
    type Object = ConfigMap;

    fn resource(&self) -> &'static Resource {
        row("v1", "ConfigMap")
    }

    fn validate(&self, map: &ConfigMap) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut size = 0;
        for (key, value) in map.data.iter().flatten() {
            let path = Path::new("data").key(key);
            invalid(&mut errors, &path, key, format::config_key(key));
            if map.binary_data.as_ref().is_some_and(|b| b.contains_key(key)) {
                errors.push(FieldError::invalid(&path, key, "duplicate of key present in binaryData"));
            }
            size += value.len();
        }
        for (key, value) in map.binary_data.iter().flatten() {
            invalid(&mut errors, &Path::new("binaryData").key(key), key, format::config_key(key));
            size += value.0.len();
        }
        if size > MAX_SIZE {
            // How upstream shows the path of nothing in particular.
            errors.push(FieldError::too_long(&Path::new("[]"), MAX_SIZE));
        }
        errors
    }

    fn validate_update(&self, _: Part, new: &ConfigMap, old: &ConfigMap) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if old.immutable == Some(true) {
            frozen(&mut errors, "immutable", new.immutable != Some(true));
            frozen(&mut errors, "data", new.data != old.data);
            frozen(&mut errors, "binaryData", new.binary_data != old.binary_data);
        }
        errors.extend(self.validate(new));
        errors
    }
}

/// A field that changed although the object is immutable.
pub fn frozen(errors: &mut Errors, field: &str, changed: bool) {
    if changed {
        errors.push(FieldError::forbidden(&Path::new(field), "field is immutable when `immutable` is set"));
    }
}
