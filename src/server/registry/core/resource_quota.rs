//! Decides: ResourceQuota: how much of what a namespace may have, of the pods and claims that its scopes select.

use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, ScopeSelector};

use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, IMMUTABLE, shown};
use crate::server::registry::quantity::{self, List};
use crate::server::registry::request::Context;
use crate::server::registry::resource_name;
use crate::server::registry::strategy::{Kind, Part};

/// Scopes that a pod is in or not: there is no value to compare.
const PLAIN: &[&str] = &["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];
const VALUED: &[&str] = &["PriorityClass", "VolumeAttributesClass"];
const OPPOSITES: &[[&str; 2]] = &[["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
const OF_PODS: &[&str] = &["cpu", "limits.cpu", "limits.memory", "memory", "pods", "requests.cpu", "requests.memory"];
const OF_CLAIMS: &[&str] = &["persistentvolumeclaims", "requests.storage"];

pub struct ResourceQuotaKind;

impl Kind for ResourceQuotaKind {
    type Object = ResourceQuota;

    fn resource(&self) -> &'static Resource {
        row("v1", "ResourceQuota")
    }

    fn defaults(&self, quota: &mut ResourceQuota) {
        quantity::canonical_list(&mut quota.spec.get_or_insert_default().hard);
        let status = quota.status.get_or_insert_default();
        quantity::canonical_list(&mut status.hard);
        quantity::canonical_list(&mut status.used);
    }

    fn prepare_create(&self, _: &Context, quota: &mut ResourceQuota) {
        quota.status = Some(ResourceQuotaStatus::default());
    }

    fn validate(&self, quota: &ResourceQuota) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (path, spec) = (Path::new("spec"), quota.spec.clone().unwrap_or_default());
        amounts(&mut errors, &path.child("hard"), spec.hard.as_ref());
        scopes(&mut errors, &path.child("scopes"), &spec);
        if let Some(selector) = &spec.scope_selector {
            scope_selector(&mut errors, &path.child("scopeSelector").child("matchExpressions"), &spec, selector);
        }
        errors
    }

    fn validate_update(&self, part: Part, new: &ResourceQuota, old: &ResourceQuota) -> Vec<FieldError> {
        if part == Part::Status {
            let mut errors = Vec::new();
            let (path, status) = (Path::new("status"), new.status.clone().unwrap_or_default());
            amounts(&mut errors, &path.child("hard"), status.hard.as_ref());
            amounts(&mut errors, &path.child("used"), status.used.as_ref());
            return errors;
        }
        let mut errors = self.validate(new);
        let list = |quota: &ResourceQuota| {
            let mut scopes = quota.spec.clone().unwrap_or_default().scopes.unwrap_or_default();
            scopes.sort_unstable();
            scopes.dedup();
            scopes
        };
        if list(new) != list(old) {
            let scopes = new.spec.as_ref().and_then(|s| s.scopes.as_ref());
            errors.push(FieldError::invalid(&Path::new("spec").child("scopes"), &shown(&scopes), IMMUTABLE));
        }
        errors
    }
}

fn amounts(errors: &mut Errors, path: &Path, list: Option<&List>) {
    for (name, value) in list.into_iter().flatten() {
        let at = path.key(name);
        resource_name::of_quota(errors, &at, name);
        quantity::validate_quota(errors, &at, name, value);
    }
}

fn is_scope(scope: &str) -> bool {
    PLAIN.contains(&scope) || VALUED.contains(&scope)
}

/// Resources of the quota that a scope says nothing of. Those with a domain may be anything.
fn unscoped(spec: &ResourceQuotaSpec, scope: &str) -> usize {
    let names = spec.hard.iter().flatten().map(|(name, _)| name.as_str());
    let counted = |name: &str| match scope {
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => OF_CLAIMS.contains(&name),
        scope if is_scope(scope) => OF_PODS.contains(&name),
        _ => true,
    };
    names.filter(|name| resource_name::of_quotas(name) && !counted(name)).count()
}

fn conflicting(scopes: &[&str]) -> usize {
    OPPOSITES.iter().filter(|pair| pair.iter().all(|scope| scopes.contains(scope))).count()
}

fn scopes(errors: &mut Errors, path: &Path, spec: &ResourceQuotaSpec) {
    let value = shown(&spec.scopes);
    let mut refuse = |message: &str, times: usize| {
        errors.extend((0..times).map(|_| FieldError::invalid(path, &value, message)));
    };
    let scopes: Vec<&str> = spec.scopes.iter().flatten().map(String::as_str).collect();
    for scope in &scopes {
        refuse("unsupported scope", usize::from(!is_scope(scope)));
        refuse("unsupported scope applied to resource", unscoped(spec, scope));
    }
    refuse("conflicting scopes", conflicting(&scopes));
}

fn scope_selector(errors: &mut Errors, path: &Path, spec: &ResourceQuotaSpec, selector: &ScopeSelector) {
    let requirements = selector.match_expressions.as_deref().unwrap_or_default();
    for requirement in requirements {
        let (scope, operator) = (requirement.scope_name.as_str(), requirement.operator.as_str());
        if !is_scope(scope) {
            errors.push(FieldError::invalid(&path.child("scopeName"), &scope, "unsupported scope"));
        }
        for _ in 0..unscoped(spec, scope) {
            let message = "unsupported scope applied to resource";
            errors.push(FieldError::invalid(path, &shown(selector), message));
        }
        if PLAIN.contains(&scope) && operator != "Exists" {
            let message = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(FieldError::invalid(&path.child("operator"), &operator, message));
        }
        let values = requirement.values.as_deref().unwrap_or_default();
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let message = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(FieldError::required(&path.child("values"), message));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let message = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(FieldError::invalid(&path.child("values"), &shown(&values), message));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                errors.push(FieldError::invalid(&path.child("operator"), &other, "not a valid selector operator"));
            }
        }
    }
    let scopes: Vec<&str> = requirements.iter().map(|r| r.scope_name.as_str()).collect();
    for _ in 0..conflicting(&scopes) {
        errors.push(FieldError::invalid(path, &shown(&spec.scopes), "conflicting scopes"));
    }
}

#[cfg(test)]
mod tests;
