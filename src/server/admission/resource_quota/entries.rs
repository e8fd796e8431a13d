//! Decides: which objects use what an entry of a quota limits.

use std::borrow::Cow;

use crate::api::extended_resource::class_of;
use crate::server::registry::resource_name::{extended, huge_pages, native};

pub const COUNT: &str = "count/";
pub const PODS: &str = "pods";
pub const SERVICES: &str = "services";
pub const CLAIMS: &str = "persistentvolumeclaims";
pub const DEVICE_CLAIMS: &str = "resource.k8s.io/resourceclaims";
pub const OF_STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
pub const OF_DEVICE_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
pub const REQUESTS: &str = "requests.";
pub const STORAGE: &str = "requests.storage";
/// The entries that pods use, besides huge pages and what devices offer.
const OF_PODS: &[&str] = &[
    PODS,
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

/// The objects that use what an entry of `spec.hard` limits, as [`crate::api::resource::Resource::storage`] names them. `None`
/// of what nothing uses, and of events, which come and go by themselves.
#[must_use]
pub fn storage_of(entry: &str) -> Option<Cow<'_, str>> {
    let of = |storage| Some(Cow::Borrowed(storage));
    if let Some(counted) = entry.strip_prefix(COUNT) {
        let storage = match counted.split_once('.') {
            Some((plural, group)) => Cow::Owned(format!("{group}/{plural}")),
            None => Cow::Borrowed(counted),
        };
        return (!matches!(&*storage, "events" | "events.k8s.io/events")).then_some(storage);
    }
    let requested = entry.strip_prefix(REQUESTS);
    match entry {
        "configmaps" | "replicationcontrollers" | "resourcequotas" | "secrets" => of(entry),
        SERVICES | "services.loadbalancers" | "services.nodeports" => of(SERVICES),
        CLAIMS | STORAGE => of(CLAIMS),
        _ if OF_PODS.contains(&entry) || huge_pages(requested.unwrap_or(entry)) => of(PODS),
        _ if entry.ends_with(OF_DEVICE_CLASS) => of(DEVICE_CLAIMS),
        _ => match entry.split_once(OF_STORAGE_CLASS) {
            Some((_, CLAIMS | STORAGE)) => of(CLAIMS),
            Some(_) => None,
            None => requested.filter(|name| !native(entry) || class_of(name).is_some()).and(of(PODS)),
        },
    }
}

/// Pods ask for it by its name; claims use it when they ask for the devices that stand for it.
#[must_use]
pub fn may_be_devices(entry: &str) -> bool {
    let requested = entry.strip_prefix(REQUESTS);
    requested.is_some_and(|name| extended(name) || class_of(name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_of_the_objects_that_use_them() {
        for (entry, storage) in [
            ("count/pods", "pods"),
            ("count/deployments.apps", "apps/deployments"),
            ("count/widgets.example.com", "example.com/widgets"),
            ("count/events", ""),
            ("count/events.events.k8s.io", ""),
            ("secrets", "secrets"),
            ("services.nodeports", "services"),
            ("requests.storage", "persistentvolumeclaims"),
            ("gold.storageclass.storage.k8s.io/requests.storage", "persistentvolumeclaims"),
            ("gold.storageclass.storage.k8s.io/cpu", ""),
            ("gpu.deviceclass.resource.k8s.io/devices", "resource.k8s.io/resourceclaims"),
            ("limits.memory", "pods"),
            ("requests.hugepages-2Mi", "pods"),
            ("hugepages-2Mi", "pods"),
            ("requests.nvidia.com/gpu", "pods"),
            ("requests.deviceclass.resource.kubernetes.io/gpu", "pods"),
            ("nvidia.com/gpu", ""),
            ("requests.kubernetes.io/x", ""),
            ("bandwidth", ""),
        ] {
            assert_eq!(storage_of(entry).as_deref().unwrap_or_default(), storage, "{entry}");
        }
    }
}
