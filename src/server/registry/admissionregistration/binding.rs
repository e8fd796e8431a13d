//! Decides: what bindings have in common: their policy, its parameters, and what they are about.

use k8s_openapi::api::admissionregistration::v1::{MatchResources, ParamRef};

use super::{known, match_resources};
use crate::api::field::{FieldError, Path};
use crate::server::registry::format;
use crate::server::registry::metadata::{Errors, invalid, selector};

const NOT_FOUND_ACTIONS: &[&str] = &["Deny", "Allow"];
const EXCLUSIVE: &str = "name and selector are mutually exclusive";

pub fn check(
    errors: &mut Errors,
    path: &Path,
    policy: &str,
    params: Option<&ParamRef>,
    resources: Option<&MatchResources>,
) {
    let at = path.child("policyName");
    if policy.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else {
        invalid(errors, &at, &policy, format::dns_subdomain(policy));
    }
    if let Some(params) = params {
        param_ref(errors, &path.child("paramRef"), params);
    }
    if let Some(resources) = resources {
        match_resources::check(errors, &path.child("matchResources"), resources);
    }
}

fn param_ref(errors: &mut Errors, path: &Path, params: &ParamRef) {
    let name = params.name.as_deref().unwrap_or_default();
    let both = !name.is_empty() && params.selector.is_some();
    let at = path.child("name");
    invalid(errors, &at, &name, format::path_segment(name, false));
    if both {
        errors.push(FieldError::forbidden(&at, EXCLUSIVE));
    }
    let at = path.child("selector");
    selector(errors, &at, params.selector.as_ref());
    if both {
        errors.push(FieldError::forbidden(&at, EXCLUSIVE));
    }
    if name.is_empty() && params.selector.is_none() {
        errors.push(FieldError::required(path, "one of name or selector must be specified"));
    }
    let at = path.child("parameterNotFoundAction");
    match params.parameter_not_found_action.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required(&at, "")),
        action => known(errors, &at, action, NOT_FOUND_ACTIONS),
    }
}
