//! Decides: which names of resources requests, limits and quotas may have.

use super::format;
use super::metadata::{Errors, invalid};
use crate::api::field::{FieldError, Path};

const HUGE_PAGES: &str = "hugepages-";
const OF_CONTAINERS: &[&str] = &["cpu", "memory", "ephemeral-storage"];
/// Counted, so whole.
const COUNTED: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
const OF_QUOTAS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
];

#[must_use]
pub fn huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// Whether a quota can hold this resource. Only for names without a domain.
#[must_use]
pub fn of_quotas(name: &str) -> bool {
    let huge = huge_pages(name.strip_prefix("requests.").unwrap_or(name));
    huge || [OF_CONTAINERS, COUNTED, OF_QUOTAS].iter().any(|names| names.contains(&name))
}

/// Whether Kubernetes defines the resource, as opposed to a device plugin.
#[must_use]
pub fn native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether a device plugin may offer the resource, so that there are only whole ones.
#[must_use]
pub fn extended(name: &str) -> bool {
    !native(name) && !name.starts_with("requests.") && format::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether a quota counts the objects, so that there are only whole ones.
#[must_use]
pub fn counted(name: &str) -> bool {
    COUNTED.contains(&name)
}

/// Whether containers may ask for less than their limit.
#[must_use]
pub fn overcommits(name: &str) -> bool {
    native(name) && !huge_pages(name)
}

/// A resource that Kubernetes knows, or one with a domain.
pub fn any(errors: &mut Errors, path: &Path, name: &str) {
    let problems = format::qualified_name(name);
    if !problems.is_empty() {
        invalid(errors, path, &name, problems);
    } else if !name.contains('/') && name != "storage" && !of_quotas(name) {
        errors.push(FieldError::invalid(path, &name, "must be a standard resource type or fully qualified"));
    }
}

/// A resource that a container can ask for.
pub fn of_container(errors: &mut Errors, path: &Path, name: &str) {
    any(errors, path, name);
    if !name.contains('/') {
        if !OF_CONTAINERS.contains(&name) && !huge_pages(name) {
            errors.push(FieldError::invalid(path, &name, "must be a standard resource for containers"));
        }
    } else if !native(name) && !extended(name) {
        errors.push(FieldError::invalid(path, &name, "doesn't follow extended resource name standard"));
    }
}

/// A resource that a quota can hold.
pub fn of_quota(errors: &mut Errors, path: &Path, name: &str) {
    any(errors, path, name);
    if !name.contains('/') && !of_quotas(name) {
        errors.push(FieldError::invalid(path, &name, "must be a standard resource for quota"));
    }
}
