//! Decides: which operations on which resources a webhook or a policy is about.

use k8s_openapi::api::admissionregistration::v1::{NamedRuleWithOperations, RuleWithOperations};
use serde_json::json;

use super::known;
use crate::api::field::{FieldError, Path};
use crate::server::registry::metadata::Errors;

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];

/// A rule of either form.
pub struct Rule<'a> {
    operations: &'a [String],
    groups: &'a [String],
    versions: &'a [String],
    resources: &'a [String],
    scope: Option<&'a str>,
}

fn list(list: Option<&Vec<String>>) -> &[String] {
    list.map(Vec::as_slice).unwrap_or_default()
}

impl<'a> From<&'a RuleWithOperations> for Rule<'a> {
    fn from(rule: &'a RuleWithOperations) -> Self {
        Self {
            operations: list(rule.operations.as_ref()),
            groups: list(rule.api_groups.as_ref()),
            versions: list(rule.api_versions.as_ref()),
            resources: list(rule.resources.as_ref()),
            scope: rule.scope.as_deref(),
        }
    }
}

impl<'a> From<&'a NamedRuleWithOperations> for Rule<'a> {
    fn from(rule: &'a NamedRuleWithOperations) -> Self {
        Self {
            operations: list(rule.operations.as_ref()),
            groups: list(rule.api_groups.as_ref()),
            versions: list(rule.api_versions.as_ref()),
            resources: list(rule.resources.as_ref()),
            scope: rule.scope.as_deref(),
        }
    }
}

pub fn check<'a>(errors: &mut Errors, path: &Path, rule: impl Into<Rule<'a>>) {
    let rule = rule.into();
    let at = path.child("operations");
    all_or_some(errors, &at, rule.operations, "operations");
    for (i, operation) in rule.operations.iter().enumerate() {
        known(errors, &at.index(i), operation, OPERATIONS);
    }
    // The core group has no name.
    all_or_some(errors, &path.child("apiGroups"), rule.groups, "API groups");
    let at = path.child("apiVersions");
    all_or_some(errors, &at, rule.versions, "API versions");
    for (i, _) in rule.versions.iter().enumerate().filter(|(_, version)| version.is_empty()) {
        errors.push(FieldError::required(&at.index(i), ""));
    }
    resources(errors, &path.child("resources"), rule.resources);
    if let Some(scope) = rule.scope {
        known(errors, &path.child("scope"), scope, SCOPES);
    }
}

/// A list that must not be empty, and in which a star stands alone.
fn all_or_some(errors: &mut Errors, path: &Path, list: &[String], what: &str) {
    if list.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    if list.len() > 1 && list.iter().any(|item| item == "*") {
        let message = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(path, &json!(list), &message));
    }
}

/// `pods`, `pods/status`, `pods/*`, `*/status`, `*`, `*/*`: what another one covers must not be named again.
fn resources(errors: &mut Errors, path: &Path, list: &[String]) {
    if list.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    let (mut of_resource, mut of_subresource): (Vec<&str>, Vec<&str>) = Default::default();
    // Of the plain resources the last one counts, as upstream has it.
    let mut plain = false;
    for (i, text) in list.iter().enumerate() {
        let at = path.index(i);
        if text.is_empty() {
            errors.push(FieldError::required(&at, ""));
            continue;
        }
        let Some((resource, sub)) = text.split_once('/') else {
            plain = text != "*";
            continue;
        };
        let mut covered = |by: String| {
            let message = format!("if '{by}' is present, must not specify {text}");
            errors.push(FieldError::invalid(&at, text, &message));
        };
        if of_resource.contains(&resource) {
            covered(format!("{resource}/*"));
        }
        if of_subresource.contains(&sub) {
            covered(format!("*/{sub}"));
        }
        if sub == "*" {
            of_resource.push(resource);
        }
        if resource == "*" {
            of_subresource.push(sub);
        }
    }
    let has = |name: &str| list.iter().any(|r| r == name);
    let mut refuse = |message: &str| errors.push(FieldError::invalid(path, &json!(list), message));
    if list.len() > 1 && has("*/*") {
        refuse("if '*/*' is present, must not specify other resources");
    }
    if has("*") && plain {
        refuse("if '*' is present, must not specify other resources without subresources");
    }
}
