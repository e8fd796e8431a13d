//! Kinds of the `networking.k8s.io` group, one per file, and how they read addresses.

pub mod address;
pub mod ingress;
pub mod ingress_class;
pub mod ip_address;
pub mod network_policy;
pub mod service_cidr;

use super::format;
use super::metadata::{Errors, invalid};
use crate::api::field::{FieldError, Path};

/// A field that must be there and be a segment of a URL's path: kinds, resources and names of references.
fn required_segment(errors: &mut Errors, path: &Path, text: &str) {
    if text.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        invalid(errors, path, &text, format::path_segment(text, false));
    }
}

/// The API group of a reference.
fn group(errors: &mut Errors, path: &Path, group: Option<&str>) {
    if let Some(group) = group {
        invalid(errors, path, &group, format::dns_subdomain(group));
    }
}

#[cfg(test)]
mod tests;
