//! Decides: what policies have in common: the kind of their parameters, what they are about, their variables.

use k8s_openapi::api::admissionregistration::v1::{MatchResources, ParamKind, Variable};

use super::expression::{self, Expression, Returns};
use super::{FAILURE_POLICIES, match_resources, required_word};
use crate::api::field::{FieldError, Path};
use crate::server::registry::format::{self, Problems};
use crate::server::registry::metadata::Errors;

/// What comes first in either policy; `mutates` when its operations must be such as can be mutated.
pub fn check(
    errors: &mut Errors,
    path: &Path,
    failure_policy: Option<&str>,
    params: Option<&ParamKind>,
    constraints: Option<&MatchResources>,
    mutates: bool,
) {
    required_word(errors, &path.child("failurePolicy"), failure_policy, FAILURE_POLICIES);
    if let Some(params) = params {
        param_kind(errors, &path.child("paramKind"), params);
    }
    let at = path.child("matchConstraints");
    let Some(constraints) = constraints else {
        errors.push(FieldError::required(&at, ""));
        return;
    };
    match_resources::check(errors, &at, constraints);
    // At least one rule says of what type the objects are.
    if constraints.resource_rules.as_ref().is_none_or(Vec::is_empty) {
        errors.push(FieldError::required(&at.child("resourceRules"), ""));
    }
    if mutates {
        match_resources::check_mutable(errors, &at, constraints);
    }
}

fn param_kind(errors: &mut Errors, path: &Path, params: &ParamKind) {
    let (at, given) = (path.child("apiVersion"), params.api_version.as_deref().unwrap_or_default());
    let parts: Vec<&str> = given.split('/').collect();
    match parts.as_slice() {
        [""] => errors.push(FieldError::required(&at, "")),
        [version] => joined(errors, &at, version, "", &format::dns_1035_label(version)),
        [group, version] => {
            if !group.is_empty() {
                joined(errors, &at, group, "", &format::dns_subdomain(group));
            }
            if version.is_empty() {
                errors.push(FieldError::invalid(&at, &given, "version must be specified"));
            } else {
                joined(errors, &at, version, "", &format::dns_1035_label(version));
            }
        }
        _ => errors.push(FieldError::invalid(&at, &given, &format!("unexpected GroupVersion string: {given}"))),
    }
    let (at, kind) = (path.child("kind"), params.kind.as_deref().unwrap_or_default());
    if kind.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else {
        let before = "may have mixed case, but should otherwise match: ";
        joined(errors, &at, kind, before, &format::dns_1035_label(&kind.to_lowercase()));
    }
}

/// Problems that upstream tells in one message.
fn joined(errors: &mut Errors, path: &Path, value: &str, before: &str, problems: &Problems) {
    if !problems.is_empty() {
        errors.push(FieldError::invalid(path, &value, &format!("{before}{}", problems.join(","))));
    }
}

pub fn variables(errors: &mut Errors, path: &Path, variables: &[Variable], params: bool) {
    for (i, variable) in variables.iter().enumerate() {
        let at = path.index(i);
        let (name_at, text_at) = (at.child("name"), at.child("expression"));
        if variable.name.trim().is_empty() {
            errors.push(FieldError::required(&name_at, "name is not specified"));
        } else if !expression::is_identifier(&variable.name) {
            errors.push(FieldError::invalid(&name_at, &variable.name, "must be a valid CEL identifier"));
        }
        if variable.expression.trim().is_empty() {
            errors.push(FieldError::required(&text_at, "expression is not specified"));
            continue;
        }
        errors.extend(expression::compile(&Expression {
            text: &variable.expression,
            path: text_at,
            returns: Returns::Any,
            params,
            authorizer: true,
            variables: named(&variables[..i]),
        }));
    }
}

/// Variables as expressions refer to them.
pub fn named(variables: &[Variable]) -> Vec<(&str, &str)> {
    variables.iter().map(|v| (v.name.as_str(), v.expression.as_str())).collect()
}
