//! Decides whether one rule allows one request, and whether rules cover a rule
//! (`pkg/registry/rbac/validation/policy_comparator.go`).

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::{Attributes, ResourceAttributes};

#[must_use]
pub fn allows(rule: &PolicyRule, attributes: &Attributes<'_>) -> bool {
    match attributes {
        Attributes::Resource(a) => allows_resource(rule, a),
        Attributes::Path { verb, path } => {
            has(&rule.verbs, verb) && list(&rule.non_resource_urls).iter().any(|pattern| path_matches(pattern, path))
        }
    }
}

fn allows_resource(rule: &PolicyRule, a: &ResourceAttributes<'_>) -> bool {
    let names = list(&rule.resource_names);
    has(&rule.verbs, a.verb)
        && has(list(&rule.api_groups), a.group)
        && list(&rule.resources).iter().any(|r| resource_matches(r, a.resource, a.subresource))
        && (names.is_empty() || names.iter().any(|n| n == a.name))
}

/// `*`, `pods`, `pods/log`, or `*/scale`.
fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    match pattern.split_once('/') {
        None => subresource.is_empty() && pattern == resource,
        Some((r, s)) => !subresource.is_empty() && s == subresource && (r == "*" || r == resource),
    }
}

/// `*`, `/healthz`, or `/healthz/*` (any number of segments).
#[must_use]
pub fn path_matches(pattern: &str, path: &str) -> bool {
    pattern == "*"
        || pattern == path
        || pattern.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix.trim_end_matches('*')))
}

/// What of `wanted` isn't covered by `owned`, one rule for each uncovered combination.
#[must_use]
pub fn uncovered(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted.iter().flat_map(breakdown).filter(|part| !owned.iter().any(|o| covers(o, part))).collect()
}

/// Every combination of one verb with one resource, or one path.
fn breakdown(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut parts = Vec::new();
    let one = |s: &String| vec![s.clone()];
    for group in list(&rule.api_groups) {
        for resource in list(&rule.resources) {
            for verb in &rule.verbs {
                let part = PolicyRule {
                    api_groups: Some(one(group)),
                    resources: Some(one(resource)),
                    verbs: one(verb),
                    ..PolicyRule::default()
                };
                let names = list(&rule.resource_names);
                if names.is_empty() {
                    parts.push(part);
                } else {
                    let named = |n| PolicyRule { resource_names: Some(one(n)), ..part.clone() };
                    parts.extend(names.iter().map(named));
                }
            }
        }
    }
    for path in list(&rule.non_resource_urls) {
        for verb in &rule.verbs {
            parts.push(PolicyRule { non_resource_urls: Some(one(path)), verbs: one(verb), ..PolicyRule::default() });
        }
    }
    parts
}

fn covers(owned: &PolicyRule, part: &PolicyRule) -> bool {
    let contains_all = |have: &[String], want: &[String]| want.iter().all(|w| have.iter().any(|h| h == w));
    let verbs = has(&owned.verbs, "*") || contains_all(&owned.verbs, &part.verbs);
    let any = |have: &[String], want: &[String]| have.iter().any(|h| h == "*") || contains_all(have, want);
    let resources = |have: &[String], want: &[String]| {
        want.iter().all(|w| {
            let (resource, subresource) = w.split_once('/').unwrap_or((w, ""));
            have.iter().any(|h| h == w || resource_matches(h, resource, subresource))
        })
    };
    let names = list(&owned.resource_names);
    let wanted_names = list(&part.resource_names);
    verbs
        && any(list(&owned.api_groups), list(&part.api_groups))
        && resources(list(&owned.resources), list(&part.resources))
        && (names.is_empty() || !wanted_names.is_empty() && contains_all(names, wanted_names))
        && list(&part.non_resource_urls)
            .iter()
            .all(|w| list(&owned.non_resource_urls).iter().any(|h| path_covers(h, w)))
}

fn path_covers(owned: &str, wanted: &str) -> bool {
    owned == wanted || owned == "*" || owned.strip_suffix('*').is_some_and(|prefix| wanted.starts_with(prefix))
}

/// The word itself or `*`.
fn has(words: &[String], word: &str) -> bool {
    words.iter().any(|w| w == "*" || w == word)
}

fn list(words: &Option<Vec<String>>) -> &[String] {
    words.as_deref().unwrap_or_default()
}

/// A rule as upstream's messages show it (`rbacv1helpers.CompactString`).
#[must_use]
pub fn compact(rule: &PolicyRule) -> String {
    let mut parts = Vec::new();
    for (name, words) in [
        ("APIGroups", list(&rule.api_groups)),
        ("Resources", list(&rule.resources)),
        ("NonResourceURLs", list(&rule.non_resource_urls)),
        ("ResourceNames", list(&rule.resource_names)),
        ("Verbs", rule.verbs.as_slice()),
    ] {
        if !words.is_empty() {
            let quoted: Vec<String> = words.iter().map(|w| format!("{w:?}")).collect();
            parts.push(format!("{name}:[{}]", quoted.join(" ")));
        }
    }
    format!("{{{}}}", parts.join(", "))
}
