//! Decides: whether an object is what its schema says, in the words that clients of custom resources know: those of
//! `kube-openapi/pkg/validation` and of `apiextensions-apiserver/pkg/apiserver/validation`.
//!
//! An update is held to less than a new object: what was wrong already, and did not change, is no error (KEP-4008).

mod junctors;
mod keywords;
mod lists;
mod number;
mod ratchet;

use std::collections::HashSet;

use serde_json::Value;

use self::keywords::{Outcome, Walk};
use super::structural::Structural;
use crate::api::field::{FieldError, Path};
use crate::api::trail::Trail;

pub use self::lists::lists;

/// Errors of one object that are told. Upstream has no limit, but a small machine has: the largest body can hold a million
/// values that are wrong.
pub const MAX_ERRORS: usize = 1000;

/// Everything that is wrong with an object, with what its status says: first [`keywords`], then [`lists`]. Between the
/// two upstream reports what is wrong with `scale` paths and with embedded objects ([`super::embedded::check`]).
#[must_use]
pub fn validate(new: &Value, old: Option<&Value>, schema: &Structural) -> Vec<FieldError> {
    let mut errors = keywords(None, new, old, schema);
    errors.extend(lists(new, old, schema));
    errors
}

/// The keywords of OpenAPI. A `base` is the field that holds the value, when that is not a whole object: `status` for
/// a write of the status, whose messages then name fields from there.
#[must_use]
pub fn keywords(base: Option<&Path>, new: &Value, old: Option<&Value>, schema: &Structural) -> Vec<FieldError> {
    let walk = Walk { base };
    let mut outcome = Outcome::quiet();
    walk.value(new, schema, &Trail::ROOT, None, &mut outcome);
    if outcome.failures == 0 {
        return Vec::new();
    }
    // Only an invalid object is compared with the old one: that can only take errors away.
    outcome = Outcome::default();
    walk.value(new, schema, &Trail::ROOT, old, &mut outcome);
    // Several schemas of `allOf` may find the same.
    let mut seen = HashSet::with_capacity(outcome.errors.len());
    outcome.errors.retain(|e| seen.insert(e.to_string()));
    outcome.errors
}

#[cfg(test)]
mod tests;
