//! Kinds of the `storage.k8s.io` group, one per file, and what they share.

pub mod csi_driver;
pub mod csi_node;
pub mod csi_storage_capacity;
pub mod storage_class;
pub mod volume_attachment;
pub mod volume_attributes_class;

use std::collections::BTreeMap;

use super::format;
use super::metadata::{Errors, invalid};
use crate::api::field::{FieldError, Path};

const MAX_PARAMETERS: usize = 512;
/// Keys and values together, in bytes.
const MAX_PARAMETERS_SIZE: usize = 256 * 1024;

type Parameters = BTreeMap<String, String>;

/// The name of a driver as classes give it. Its case does not matter; the message has it in lower case.
fn driver(errors: &mut Errors, path: &Path, name: &str) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        let name = name.to_lowercase();
        invalid(errors, path, &name, format::qualified_name(&name));
    }
}

/// What a driver is told.
fn parameters(errors: &mut Errors, path: &Path, parameters: Option<&Parameters>) {
    let pairs = || parameters.into_iter().flatten();
    if pairs().count() > MAX_PARAMETERS {
        errors.push(FieldError::too_long(path, MAX_PARAMETERS));
        return;
    }
    if pairs().any(|(key, _)| key.is_empty()) {
        errors.push(FieldError::invalid(path, &"", "field can not be empty."));
    }
    if pairs().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_PARAMETERS_SIZE {
        errors.push(FieldError::too_long(path, MAX_PARAMETERS_SIZE));
    }
}

/// A field of a class that nobody may change.
fn fixed<T: PartialEq>(errors: &mut Errors, field: &str, new: &T, old: &T) {
    if new != old {
        errors.push(FieldError::forbidden(&Path::new(field), &format!("updates to {field} are forbidden.")));
    }
}

/// Two sets of parameters; none are the same as an empty set.
fn fixed_parameters(errors: &mut Errors, new: Option<&Parameters>, old: Option<&Parameters>) {
    let some = |parameters: Option<&Parameters>| parameters.cloned().unwrap_or_default();
    fixed(errors, "parameters", &some(new), &some(old));
}

#[cfg(test)]
mod tests;
