//! Decides: RoleBinding and ClusterRoleBinding. What a binding refers to never changes.

use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};

use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, invalid, shown};
use crate::server::registry::strategy::{Kind, NameRule, Part};

const GROUP: &str = "rbac.authorization.k8s.io";

pub struct RoleBindingKind;
pub struct ClusterRoleBindingKind;

impl Kind for RoleBindingKind {
    type Object = RoleBinding;

    fn resource(&self) -> &'static Resource {
        row("rbac.authorization.k8s.io/v1", "RoleBinding")
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn defaults(&self, binding: &mut RoleBinding) {
        default_groups(&mut binding.role_ref, binding.subjects.as_mut());
    }

    fn validate(&self, binding: &RoleBinding) -> Vec<FieldError> {
        check(&binding.role_ref, binding.subjects.as_deref(), true)
    }

    fn validate_update(&self, _: Part, new: &RoleBinding, old: &RoleBinding) -> Vec<FieldError> {
        let mut errors = self.validate(new);
        same_role(&mut errors, &new.role_ref, &old.role_ref);
        errors
    }

    fn create_on_update(&self) -> bool {
        true
    }
}

impl Kind for ClusterRoleBindingKind {
    type Object = ClusterRoleBinding;

    fn resource(&self) -> &'static Resource {
        row("rbac.authorization.k8s.io/v1", "ClusterRoleBinding")
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn defaults(&self, binding: &mut ClusterRoleBinding) {
        default_groups(&mut binding.role_ref, binding.subjects.as_mut());
    }

    fn validate(&self, binding: &ClusterRoleBinding) -> Vec<FieldError> {
        check(&binding.role_ref, binding.subjects.as_deref(), false)
    }

    fn validate_update(&self, _: Part, new: &ClusterRoleBinding, old: &ClusterRoleBinding) -> Vec<FieldError> {
        let mut errors = self.validate(new);
        same_role(&mut errors, &new.role_ref, &old.role_ref);
        errors
    }

    fn create_on_update(&self) -> bool {
        true
    }
}

fn default_groups(role: &mut RoleRef, subjects: Option<&mut Vec<Subject>>) {
    let fill = |group: &mut Option<String>| {
        if group.as_deref().unwrap_or_default().is_empty() {
            *group = Some(GROUP.into());
        }
    };
    fill(&mut role.api_group);
    for subject in subjects.into_iter().flatten() {
        if matches!(subject.kind.as_str(), "User" | "Group") {
            fill(&mut subject.api_group);
        }
    }
}

fn same_role(errors: &mut Errors, new: &RoleRef, old: &RoleRef) {
    if new != old {
        errors.push(FieldError::invalid(&Path::new("roleRef"), &shown(new), "cannot change roleRef"));
    }
}

fn check(role: &RoleRef, subjects: Option<&[Subject]>, namespaced: bool) -> Errors {
    let mut errors = Vec::new();
    let path = Path::new("roleRef");
    let group = role.api_group.as_deref().unwrap_or_default();
    if group != GROUP {
        errors.push(FieldError::not_supported(&path.child("apiGroup"), &group, &[GROUP]));
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.kind.as_str()) {
        errors.push(FieldError::not_supported(&path.child("kind"), &role.kind, kinds));
    }
    if role.name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    } else {
        invalid(&mut errors, &path.child("name"), &role.name, format::path_segment(&role.name, false));
    }
    for (i, subject) in subjects.unwrap_or_default().iter().enumerate() {
        check_subject(&mut errors, &Path::new("subjects").index(i), subject, namespaced);
    }
    errors
}

fn check_subject(errors: &mut Errors, path: &Path, subject: &Subject, namespaced: bool) {
    if subject.name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    let group = subject.api_group.as_deref().unwrap_or_default();
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                invalid(errors, &path.child("name"), &subject.name, format::dns_subdomain(&subject.name));
            }
            if !group.is_empty() {
                errors.push(FieldError::not_supported(&path.child("apiGroup"), &group, &[""]));
            }
            if !namespaced && subject.namespace.as_deref().unwrap_or_default().is_empty() {
                errors.push(FieldError::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" if group == GROUP => {}
        "User" | "Group" => errors.push(FieldError::not_supported(&path.child("apiGroup"), &group, &[GROUP])),
        other => {
            let known = ["ServiceAccount", "User", "Group"];
            errors.push(FieldError::not_supported(&path.child("kind"), &other, &known));
        }
    }
}
