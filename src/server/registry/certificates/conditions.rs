//! Decides: the conditions of a CertificateSigningRequest. Only `approval` adds Approved and Denied, nobody removes
//! what was decided, and the two exclude each other.

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::field::{FieldError, Path};
use crate::server::registry::metadata::Errors;

const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";
/// What these say is said by their being there.
const ONLY_TRUE: &[&str] = &[APPROVED, DENIED, FAILED];
const EXCLUSIVE: &str = "Approved and Denied conditions are mutually exclusive";

pub fn of(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

fn count(request: &CertificateSigningRequest, kind: &str) -> usize {
    of(request).iter().filter(|c| c.type_ == kind).count()
}

/// A writer of the status cannot change what was decided: conditions it sends back are taken from `old`.
/// One that was added or removed stays as it is, for [`validate_update`] to refuse.
pub fn keep_decisions(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
    for kind in [APPROVED, DENIED] {
        if count(new, kind) != count(old, kind) {
            continue;
        }
        let conditions = new.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten());
        let before = of(old).iter().filter(|c| c.type_ == kind);
        conditions.filter(|c| c.type_ == kind).zip(before).for_each(|(new, old)| new.clone_from(old));
    }
}

/// Fills in the times that a writer left out.
pub fn stamp(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest, now: &Time) {
    for condition in new.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten()) {
        condition.last_update_time.get_or_insert_with(|| now.clone());
        if condition.last_transition_time.is_none() {
            let same = |c: &&CertificateSigningRequestCondition| {
                c.type_ == condition.type_ && c.status == condition.status && c.last_transition_time.is_some()
            };
            let before = of(old).iter().find(same).and_then(|c| c.last_transition_time.clone());
            condition.last_transition_time = before.or_else(|| Some(now.clone()));
        }
    }
}

pub fn validate(errors: &mut Errors, request: &CertificateSigningRequest) {
    let conditions = of(request);
    for (i, condition) in conditions.iter().enumerate() {
        let at = path().index(i);
        let (kind, before) = (condition.type_.as_str(), &conditions[..i]);
        let type_at = at.child("type");
        if kind.is_empty() {
            errors.push(FieldError::required(&type_at, ""));
        }
        let known: &[&str] = if ONLY_TRUE.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        match condition.status.as_str() {
            "" => errors.push(FieldError::required(&at.child("status"), "")),
            status if known.contains(&status) => {}
            other => errors.push(FieldError::not_supported(&at.child("status"), &other, known)),
        }
        let opposite = match kind {
            APPROVED => DENIED,
            DENIED => APPROVED,
            _ => "",
        };
        if !opposite.is_empty() && before.iter().any(|c| c.type_ == opposite) {
            errors.push(FieldError::invalid(&type_at, &kind, EXCLUSIVE));
        }
        if before.iter().any(|c| c.type_ == kind) {
            errors.push(FieldError::duplicate(&type_at, &kind));
        }
    }
}

/// `decides` when the writer may approve and deny.
pub fn validate_update(
    errors: &mut Errors,
    new: &CertificateSigningRequest,
    old: &CertificateSigningRequest,
    decides: bool,
) {
    let mut refuse = |what: &str, kind: &str| {
        let message = format!("updates may not {what} a condition of type {kind:?}");
        errors.push(FieldError::forbidden(&path(), &message));
    };
    for kind in ONLY_TRUE.iter().filter(|kind| count(new, kind) < count(old, kind)) {
        refuse("remove", kind);
    }
    for kind in [APPROVED, DENIED] {
        if !decides && count(new, kind) > count(old, kind) {
            refuse("add", kind);
        }
    }
}

fn path() -> Path {
    Path::new("status").child("conditions")
}
