//! Kinds of the `flowcontrol.apiserver.k8s.io` group, one per file, and what they share.

pub mod flow_schema;
pub mod priority_level_configuration;
mod rules;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::metadata::Errors;
use crate::api::field::{FieldError, Path};

/// A writer of the status writes nothing else; what the registry set for the write stays.
fn keep_metadata(new: &mut ObjectMeta, old: &ObjectMeta) {
    let before = std::mem::replace(new, old.clone());
    new.managed_fields = before.managed_fields;
    new.resource_version = before.resource_version;
}

/// The types of conditions, at most one of each.
fn conditions<'a>(errors: &mut Errors, types: impl Iterator<Item = Option<&'a String>>) {
    let path = Path::new("status").child("conditions");
    let types: Vec<&str> = types.map(|t| t.map(String::as_str).unwrap_or_default()).collect();
    for (i, kind) in types.iter().enumerate() {
        let at = path.index(i).child("type");
        if types[..i].contains(kind) {
            errors.push(FieldError::duplicate(&at, kind));
        }
        if kind.is_empty() {
            errors.push(FieldError::required(&at, "must not be empty"));
        }
    }
}

#[cfg(test)]
mod tests;
