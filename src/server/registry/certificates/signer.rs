//! Decides: which names of signers are well formed (`ValidateSignerName`).

use crate::api::field::{FieldError, Path};
use crate::server::registry::format;
use crate::server::registry::metadata::Errors;

const MAX_DOMAIN: usize = 253;
const MAX_LABEL: usize = 63;
/// A domain, then the name of a namespace and that of an object in it.
const MAX: usize = MAX_DOMAIN + 1 + MAX_DOMAIN + 1 + MAX_LABEL;

/// `example.com/signer-name`
pub fn name(errors: &mut Errors, path: &Path, name: &str) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let message = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(path, &name, message));
        return;
    };
    if domain.len() > MAX_DOMAIN {
        errors.push(FieldError::too_long(path, MAX_DOMAIN));
    }
    labels(errors, path, domain, format::dns_label);
    if !domain.contains('.') {
        let message = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, &domain, message));
    }
    labels(errors, path, rest, format::dns_subdomain);
    if name.len() > MAX {
        errors.push(FieldError::too_long(path, MAX));
    }
}

/// What is wrong with the first label that is not well formed.
fn labels(errors: &mut Errors, path: &Path, whole: &str, check: impl Fn(&str) -> format::Problems) {
    let wrong = whole.split('.').map(|label| (label, check(label))).find(|(_, problems)| !problems.is_empty());
    let Some((label, problems)) = wrong else { return };
    for problem in problems {
        errors.push(FieldError::invalid(path, &whole, &format!("validating label {label:?}: {problem}")));
    }
}
