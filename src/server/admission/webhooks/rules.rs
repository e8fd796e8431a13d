//! Decides: whether a rule of a webhook is about a write, and whether the selectors select its object.

use serde_json::Value;

use super::{Forms, Seen};
use crate::api::resource::{Resource, find_storage};
use crate::api::selector::LabelSelector;
use crate::api::status::Status;
use crate::server::admission::{Attributes, Operation};
use crate::server::objects::Objects;

const GROUP: &str = "admissionregistration.k8s.io";
/// Whoever could forbid to change these could forbid to take itself away.
const EXEMPT: [&str; 6] = [
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
];

/// `RuleWithOperations`. `*` in a list is anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub operations: Vec<String>,
    pub groups: Vec<String>,
    pub versions: Vec<String>,
    /// `pods`, `pods/status`, `pods/*`, `*/scale`, `*/*`; `*` is every resource, but no subresource.
    pub resources: Vec<String>,
    /// `Cluster`, `Namespaced`, or anything.
    pub scope: String,
    /// Objects by name; none is all. Only rules of policies name any.
    pub names: Vec<String>,
}

impl Rule {
    /// `row` is the resource of the request in one of its versions.
    #[must_use]
    pub fn matches(&self, attributes: &Attributes<'_>, row: &Resource) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        self.in_scope(attributes)
            && has(&self.operations, attributes.operation.name())
            && has(&self.groups, row.group)
            && has(&self.versions, row.version)
            && self.resources.iter().any(|r| names(r, row.plural, attributes.subresource))
            && (self.names.is_empty() || self.names.iter().any(|n| n == attributes.name))
    }

    fn in_scope(&self, attributes: &Attributes<'_>) -> bool {
        let namespaced = !attributes.namespace.is_empty() && attributes.resource.storage != "namespaces";
        match self.scope.as_str() {
            "" | "*" => true,
            "Namespaced" => namespaced,
            "Cluster" => !namespaced,
            _ => false,
        }
    }
}

fn names(rule: &str, resource: &str, subresource: &str) -> bool {
    let (wanted, part) = rule.split_once('/').unwrap_or((rule, ""));
    (wanted == "*" || wanted == resource) && (part == "*" || part == subresource)
}

/// No webhook is asked about what configures webhooks.
#[must_use]
pub fn exempt(attributes: &Attributes<'_>) -> bool {
    attributes.resource.group == GROUP && EXEMPT.contains(&attributes.resource.kind)
}

/// The version of the resource that a webhook with these rules is asked about: that of the request where a rule names
/// it, else, if they are as good, the first that a rule names.
#[must_use]
pub fn matched(
    rules: &[Rule],
    equivalent: bool,
    attributes: &Attributes<'_>,
    forms: &dyn Forms,
) -> Option<&'static Resource> {
    if rules.iter().any(|r| r.matches(attributes, attributes.resource)) {
        return Some(attributes.resource);
    }
    if !equivalent {
        return None;
    }
    let others: Vec<_> = forms.versions().into_iter().filter(|row| *row != attributes.resource).collect();
    rules.iter().find_map(|rule| others.iter().copied().find(|row| rule.matches(attributes, row)))
}

/// Whether the selectors of a webhook select this write.
///
/// # Errors
/// 404 when the namespace is not there, 500 when a selector is none.
pub fn selected(
    namespaces: &Result<LabelSelector, String>,
    object: &Result<LabelSelector, String>,
    seen: &Seen<'_>,
    objects: &dyn Objects,
) -> Result<bool, Status> {
    // Who does not select the object does not hear of a namespace that is not there.
    let in_namespace = selects_namespace(namespaces, seen, objects);
    if in_namespace == Ok(false) {
        return Ok(false);
    }
    let selector = object.as_ref().map_err(Status::internal)?;
    let of = |v: Option<&Value>| v.is_some_and(|v| selects(selector, v));
    if !selector.is_everything() && !of(seen.object) && !of(seen.attributes.old) {
        return Ok(false);
    }
    in_namespace
}

fn selects(selector: &LabelSelector, object: &Value) -> bool {
    selector.matches(|key| object["metadata"]["labels"][key].as_str())
}

fn selects_namespace(
    selector: &Result<LabelSelector, String>,
    seen: &Seen<'_>,
    objects: &dyn Objects,
) -> Result<bool, Status> {
    let a = seen.attributes;
    let about_namespace = a.resource.storage == "namespaces";
    if a.namespace.is_empty() && !about_namespace {
        return Ok(true);
    }
    let selector = selector.as_ref().map_err(Status::internal)?;
    if selector.is_everything() {
        return Ok(true);
    }
    if let Some(namespace) = seen.object
        && about_namespace
        && a.subresource.is_empty()
        && a.operation != Operation::Delete
    {
        return Ok(selects(selector, namespace));
    }
    let name = if about_namespace { a.name } else { a.namespace };
    let Some(stored) = objects.get("namespaces", "", name) else {
        let row = find_storage("namespaces").ok_or_else(Status::no_such_resource)?;
        return Err(Status::not_found(row, name));
    };
    Ok(selector.matches(|key| stored.label(key)))
}
