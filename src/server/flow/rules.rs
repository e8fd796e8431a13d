//! Decides: whether a request is one that the rules of a FlowSchema speak of (`k8s.io/apiserver` flowcontrol/rule.go).

use k8s_openapi::api::flowcontrol::v1::{
    NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, ServiceAccountSubject, Subject,
};

use crate::api::user::User;
use crate::server::authn::claims::split_user_name;
use crate::server::authz::{Attributes, ResourceAttributes};

/// Any of the rules has to name both the user and what is asked for.
#[must_use]
pub fn matches(rules: &[PolicyRulesWithSubjects], user: &User, asked: &Attributes<'_>) -> bool {
    rules.iter().any(|rule| {
        rule.subjects.iter().any(|s| is_subject(s, user))
            && match asked {
                Attributes::Resource(asked) => rule.resource_rules.iter().flatten().any(|r| is_resource_rule(r, asked)),
                Attributes::Path { verb, path } => {
                    rule.non_resource_rules.iter().flatten().any(|r| is_path_rule(r, verb, path))
                }
            }
    })
}

fn is_subject(subject: &Subject, user: &User) -> bool {
    match subject.kind.as_str() {
        "User" => subject.user.as_ref().is_some_and(|u| u.name == "*" || u.name == user.name),
        "Group" => subject.group.as_ref().is_some_and(|g| g.name == "*" || user.in_group(&g.name)),
        "ServiceAccount" => subject.service_account.as_ref().is_some_and(|a| is_account(a, &user.name)),
        _ => false,
    }
}

fn is_account(account: &ServiceAccountSubject, user: &str) -> bool {
    split_user_name(user).is_some_and(|(namespace, name)| {
        namespace == account.namespace && (account.name == "*" || name == account.name)
    })
}

fn is_resource_rule(rule: &ResourcePolicyRule, asked: &ResourceAttributes<'_>) -> bool {
    listed(&rule.verbs, |v| v == asked.verb)
        && listed(&rule.resources, |r| is_resource(r, asked.resource, asked.subresource))
        && listed(&rule.api_groups, |g| g == asked.group)
        && if asked.namespace.is_empty() {
            rule.cluster_scope == Some(true)
        } else {
            listed(rule.namespaces.as_deref().unwrap_or_default(), |n| n == asked.namespace)
        }
}

/// `pods` or `pods/log`.
fn is_resource(listed: &str, resource: &str, subresource: &str) -> bool {
    match listed.strip_prefix(resource) {
        Some("") => subresource.is_empty(),
        Some(rest) => !subresource.is_empty() && rest.strip_prefix('/') == Some(subresource),
        None => false,
    }
}

fn is_path_rule(rule: &NonResourcePolicyRule, verb: &str, path: &str) -> bool {
    listed(&rule.verbs, |v| v == verb) && rule.non_resource_urls.iter().any(|url| is_path(url, path))
}

/// Also what lies below a path, with or without a star at its end.
fn is_path(url: &str, path: &str) -> bool {
    let below = url.strip_suffix('*').unwrap_or(url);
    let below = below.strip_suffix('/').unwrap_or(below);
    url == "*" || url == path || path.strip_prefix(below).is_some_and(|rest| rest.starts_with('/'))
}

/// A star stands for everything where it stands alone.
fn listed(list: &[String], is: impl Fn(&str) -> bool) -> bool {
    matches!(list, [one] if one == "*") || list.iter().any(|one| is(one))
}
