//! Decides: Role and ClusterRole.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};

use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, selector, shown};
use crate::server::registry::strategy::{Kind, NameRule};

pub struct RoleKind;
pub struct ClusterRoleKind;

impl Kind for RoleKind {
    type Object = Role;

    fn resource(&self) -> &'static Resource {
        row("rbac.authorization.k8s.io/v1", "Role")
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn defaults(&self, role: &mut Role) {
        role.rules.get_or_insert_default();
    }

    fn validate(&self, role: &Role) -> Vec<FieldError> {
        rules(role.rules.as_deref().unwrap_or_default(), true)
    }

    fn create_on_update(&self) -> bool {
        true
    }
}

impl Kind for ClusterRoleKind {
    type Object = ClusterRole;

    fn resource(&self) -> &'static Resource {
        row("rbac.authorization.k8s.io/v1", "ClusterRole")
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn defaults(&self, role: &mut ClusterRole) {
        role.rules.get_or_insert_default();
    }

    fn validate(&self, role: &ClusterRole) -> Vec<FieldError> {
        let mut errors = rules(role.rules.as_deref().unwrap_or_default(), false);
        if let Some(aggregation) = &role.aggregation_rule {
            let path = Path::new("aggregationRule").child("clusterRoleSelectors");
            let selectors = aggregation.cluster_role_selectors.as_deref().unwrap_or_default();
            if selectors.is_empty() {
                let message = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                errors.push(FieldError::required(&path, message));
            }
            for (i, one) in selectors.iter().enumerate() {
                selector(&mut errors, &path.index(i), Some(one));
            }
        }
        errors
    }

    fn create_on_update(&self) -> bool {
        true
    }
}

fn rules(rules: &[PolicyRule], namespaced: bool) -> Errors {
    let mut errors = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        let path = Path::new("rules").index(i);
        let empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
        if rule.verbs.is_empty() {
            errors.push(FieldError::required(&path.child("verbs"), "verbs must contain at least one value"));
        }
        if !empty(&rule.non_resource_urls) {
            let (at, urls) = (path.child("nonResourceURLs"), shown(&rule.non_resource_urls));
            if namespaced {
                let message = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(&at, &urls, message));
            }
            if !empty(&rule.api_groups) || !empty(&rule.resources) || !empty(&rule.resource_names) {
                let message = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(&at, &urls, message));
            }
            continue;
        }
        if empty(&rule.api_groups) {
            let message = "resource rules must supply at least one api group";
            errors.push(FieldError::required(&path.child("apiGroups"), message));
        }
        if empty(&rule.resources) {
            let message = "resource rules must supply at least one resource";
            errors.push(FieldError::required(&path.child("resources"), message));
        }
    }
    errors
}
