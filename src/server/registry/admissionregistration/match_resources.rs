//! Decides: `matchConstraints` of a policy and `matchResources` of a binding: which objects they are about.

use k8s_openapi::api::admissionregistration::v1::{MatchResources, NamedRuleWithOperations};

use super::{MATCH_POLICIES, known, required_word, rules};
use crate::api::field::{FieldError, Path};
use crate::server::registry::format;
use crate::server::registry::metadata::{Errors, invalid, selector};

/// There is nothing to mutate in a delete.
const MUTABLE: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];

pub fn defaults(resources: Option<&mut MatchResources>) {
    let Some(resources) = resources else { return };
    resources.match_policy.get_or_insert_with(|| "Equivalent".into());
    resources.namespace_selector.get_or_insert_default();
    resources.object_selector.get_or_insert_default();
    let rules = resources.resource_rules.iter_mut().chain(resources.exclude_resource_rules.iter_mut()).flatten();
    for rule in rules {
        rule.scope.get_or_insert_with(|| "*".into());
    }
}

pub fn check(errors: &mut Errors, path: &Path, resources: &MatchResources) {
    required_word(errors, &path.child("matchPolicy"), resources.match_policy.as_deref(), MATCH_POLICIES);
    selector(errors, &path.child("namespaceSelector"), resources.namespace_selector.as_ref());
    selector(errors, &path.child("objectSelector"), resources.object_selector.as_ref());
    for (field, rules) in
        [("resourceRules", &resources.resource_rules), ("excludeResourceRules", &resources.exclude_resource_rules)]
    {
        for (i, rule) in rules.iter().flatten().enumerate() {
            named_rule(errors, &path.child(field).index(i), rule);
        }
    }
}

/// Operations that a mutation can be about. Errors do not say which rule they are about.
pub fn check_mutable(errors: &mut Errors, path: &Path, resources: &MatchResources) {
    let at = path.child("resourceRules").child("operations");
    for operation in resources.resource_rules.iter().flatten().flat_map(|rule| rule.operations.iter().flatten()) {
        known(errors, &at, operation, MUTABLE);
    }
}

fn named_rule(errors: &mut Errors, path: &Path, rule: &NamedRuleWithOperations) {
    let names = rule.resource_names.as_deref().unwrap_or_default();
    for (i, name) in names.iter().enumerate() {
        let at = path.child("resourceNames").index(i);
        invalid(errors, &at, name, format::path_segment(name, false));
        if names[..i].contains(name) {
            errors.push(FieldError::duplicate(&at, name));
        }
    }
    rules::check(errors, path, rule);
}
