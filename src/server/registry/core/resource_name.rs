//! Decides: which names of resources limits and quotas may have, and what their amounts may be.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::api::field::{FieldError, Path};
use crate::server::registry::format;
use crate::server::registry::metadata::{Errors, invalid};
use crate::server::registry::quantity;

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

fn huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// Whether a quota can hold this resource. Only for names without a domain.
#[must_use]
pub fn of_quotas(name: &str) -> bool {
    let huge = huge_pages(name.strip_prefix("requests.").unwrap_or(name));
    huge || [OF_CONTAINERS, COUNTED, OF_QUOTAS].iter().any(|names| names.contains(&name))
}

/// Whether Kubernetes defines the resource, as opposed to a device plugin.
fn native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
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
    } else if !native(name)
        && (name.starts_with("requests.") || !format::qualified_name(&format!("requests.{name}")).is_empty())
    {
        errors.push(FieldError::invalid(path, &name, "doesn't follow extended resource name standard"));
    }
}

/// A resource that a quota can hold, and how much of it.
pub fn of_quota(errors: &mut Errors, path: &Path, name: &str, value: &Text) {
    any(errors, path, name);
    if !name.contains('/') && !of_quotas(name) {
        errors.push(FieldError::invalid(path, &name, "must be a standard resource for quota"));
    }
    let before = errors.len();
    quantity::validate(errors, path, name, value);
    let fraction = quantity::parse(value).is_ok_and(|v| v.milli() % 1000 != 0);
    let message = "must be an integer";
    let said = errors[before..].iter().any(|e| e.message.ends_with(message));
    if COUNTED.contains(&name) && fraction && !said {
        errors.push(FieldError::invalid(path, &value.0, message));
    }
}
