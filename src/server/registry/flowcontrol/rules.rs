//! Decides: the rules of a FlowSchema: whose requests, and for what.

use k8s_openapi::api::flowcontrol::v1::{
    NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, ServiceAccountSubject, Subject,
};
use serde_json::json;

use crate::api::field::{FieldError, Path};
use crate::server::registry::format;
use crate::server::registry::metadata::{Errors, invalid};

const SUBJECTS: &[&str] = &["Group", "ServiceAccount", "User"];
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub fn check(errors: &mut Errors, path: &Path, rule: &PolicyRulesWithSubjects) {
    let at = path.child("subjects");
    if rule.subjects.is_empty() {
        errors.push(FieldError::required(&at, "subjects must contain at least one value"));
    }
    for (i, one) in rule.subjects.iter().enumerate() {
        subject(errors, &at.index(i), one);
    }
    let resources = rule.resource_rules.as_deref().unwrap_or_default();
    let others = rule.non_resource_rules.as_deref().unwrap_or_default();
    if resources.is_empty() && others.is_empty() {
        let message = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(path, message));
    }
    for (i, rule) in resources.iter().enumerate() {
        resource_rule(errors, &path.child("resourceRules").index(i), rule);
    }
    for (i, rule) in others.iter().enumerate() {
        other_rule(errors, &path.child("nonResourceRules").index(i), rule);
    }
}

fn subject(errors: &mut Errors, path: &Path, subject: &Subject) {
    let kind = subject.kind.as_str();
    let named = |errors: &mut Errors, field: &str, name: Option<&String>| match name {
        None => {
            let message = format!("{field} is required when subject kind is '{kind}'");
            errors.push(FieldError::required(&path.child(field), &message));
        }
        Some(name) if name.is_empty() => errors.push(FieldError::required(&path.child(field).child("name"), "")),
        Some(_) => {}
    };
    match kind {
        "ServiceAccount" => service_account(errors, &path.child("serviceAccount"), subject.service_account.as_ref()),
        "User" => named(errors, "user", subject.user.as_ref().map(|u| &u.name)),
        "Group" => named(errors, "group", subject.group.as_ref().map(|g| &g.name)),
        _ => {
            errors.push(FieldError::not_supported(&path.child("kind"), &kind, SUBJECTS));
            return;
        }
    }
    for (field, of, present) in [
        ("serviceAccount", "ServiceAccount", subject.service_account.is_some()),
        ("user", "User", subject.user.is_some()),
        ("group", "Group", subject.group.is_some()),
    ] {
        if present && of != kind {
            let message = format!("{field} is forbidden when subject kind is not '{of}'");
            errors.push(FieldError::forbidden(&path.child(field), &message));
        }
    }
}

fn service_account(errors: &mut Errors, path: &Path, account: Option<&ServiceAccountSubject>) {
    let Some(account) = account else {
        let message = "serviceAccount is required when subject kind is 'ServiceAccount'";
        errors.push(FieldError::required(path, message));
        return;
    };
    let (at, name) = (path.child("name"), &account.name);
    match name.as_str() {
        "" => errors.push(FieldError::required(&at, "")),
        "*" => {}
        _ => invalid(errors, &at, name, format::dns_subdomain(name)),
    }
    let (at, namespace) = (path.child("namespace"), &account.namespace);
    if namespace.is_empty() {
        errors.push(FieldError::required(&at, "must specify namespace for service account"));
    } else {
        invalid(errors, &at, namespace, format::dns_label(namespace));
    }
}

fn is_all(list: &[String]) -> bool {
    list.iter().any(|item| item == "*")
}

/// Whether the list is one to look into further: it is not empty and has no star.
fn some(errors: &mut Errors, path: &Path, list: &[String], missing: &str, others: &str) -> bool {
    if list.is_empty() {
        errors.push(FieldError::required(path, missing));
    } else if list.len() > 1 && is_all(list) {
        let message = format!("if '*' is present, must not specify other {others}");
        errors.push(FieldError::invalid(path, &json!(list), &message));
    }
    !list.is_empty() && !is_all(list)
}

fn verbs(errors: &mut Errors, path: &Path, verbs: &[String]) {
    let at = path.child("verbs");
    if some(errors, &at, verbs, "verbs must contain at least one value", "verbs")
        && !verbs.iter().all(|v| VERBS.contains(&v.as_str()))
    {
        errors.push(FieldError::not_supported(&at, &json!(verbs), VERBS));
    }
}

fn resource_rule(errors: &mut Errors, path: &Path, rule: &ResourcePolicyRule) {
    verbs(errors, path, &rule.verbs);
    let missing = "resource rules must supply at least one api group";
    some(errors, &path.child("apiGroups"), &rule.api_groups, missing, "api groups");
    let missing = "resource rules must supply at least one resource";
    some(errors, &path.child("resources"), &rule.resources, missing, "resources");
    let (at, namespaces) = (path.child("namespaces"), rule.namespaces.as_deref().unwrap_or_default());
    if namespaces.is_empty() && rule.cluster_scope == Some(true) {
        return;
    }
    let missing = "resource rules that are not cluster scoped must supply at least one namespace";
    if !some(errors, &at, namespaces, missing, "namespaces") {
        return;
    }
    for (i, namespace) in namespaces.iter().enumerate() {
        for problem in format::dns_label(namespace) {
            let message = format!("each member of this list must be '*' or a DNS-1123 label; {problem}");
            errors.push(FieldError::invalid(&at.index(i), namespace, &message));
        }
    }
}

fn other_rule(errors: &mut Errors, path: &Path, rule: &NonResourcePolicyRule) {
    verbs(errors, path, &rule.verbs);
    let (at, urls) = (path.child("nonResourceURLs"), &rule.non_resource_urls);
    if !some(errors, &at, urls, "nonResourceURLs must contain at least one value", "non-resource URLs") {
        return;
    }
    for (i, url) in urls.iter().enumerate() {
        if let Some(why) = url_problem(url) {
            errors.push(FieldError::invalid(&at.index(i), url, why));
        }
    }
}

fn url_problem(url: &str) -> Option<&'static str> {
    let stars = url.matches('*').count();
    Some(match url {
        "" => "must not be empty",
        "/" => return None,
        _ if !url.starts_with('/') => "must start with slash",
        _ if url.contains(' ') => "must not contain white-space",
        _ if url.contains("//") => "must not contain double slash",
        _ if stars > 1 || (stars == 1 && !url.ends_with("/*")) => "wildcard can only do suffix matching",
        _ => return None,
    })
}
