//! Kinds of the `admissionregistration.k8s.io` group, one per file, and what they share.
//!
//! Everything that is CEL passes through [`expression`]. Whether who makes a policy or a binding may read its parameters
//! is not decided here.

mod binding;
pub mod expression;
mod match_conditions;
mod match_resources;
pub mod mutating_admission_policy;
pub mod mutating_admission_policy_binding;
pub mod mutating_webhook_configuration;
mod policy;
mod rules;
pub mod validating_admission_policy;
pub mod validating_admission_policy_binding;
pub mod validating_webhook_configuration;
mod webhook;

use super::metadata::Errors;
use crate::api::field::{FieldError, Path};

/// Names of configurations that come from files of the server.
const STATIC: &str = ".static.k8s.io";
const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
const REINVOCATION_POLICIES: &[&str] = &["IfNeeded", "Never"];

/// A word that must be one of those that are known.
fn known(errors: &mut Errors, path: &Path, word: &str, words: &[&str]) {
    if !words.contains(&word) {
        errors.push(FieldError::not_supported(path, &word, words));
    }
}

/// The same, and that must be there.
fn required_word(errors: &mut Errors, path: &Path, word: Option<&str>, words: &[&str]) {
    match word {
        None => errors.push(FieldError::required(path, "")),
        Some(word) => known(errors, path, word, words),
    }
}

/// What upstream says of every kind of this group.
fn static_name(name: Option<&str>) -> Vec<String> {
    if !name.is_some_and(|n| n.ends_with(STATIC)) {
        return Vec::new();
    }
    vec![format!(
        "metadata.name: names ending with {STATIC:?} will be reserved for static manifest-based configurations when the \
         ManifestBasedAdmissionControlConfig feature gate is enabled"
    )]
}

#[cfg(test)]
mod tests;
