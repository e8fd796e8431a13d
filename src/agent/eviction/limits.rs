//! Decides: whether a pod uses more of the node's disk than its own limits allow, and what is said of it.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::measure::{Usage, is_on_disk};
use crate::agent::cgroups::bytes;
use crate::agent::pod::{Role, containers, pod_spec};
use crate::api::quantity::Quantity;

const STORAGE: &str = "ephemeral-storage";

/// Whether there is anything to look at: only then are the pod's directories walked.
#[must_use]
pub fn has_any(pod: &Pod) -> bool {
    empty_dirs(pod).next().is_some() || containers(pod).any(|(_, container)| limit(container).is_some())
}

/// Names and limits of the volumes that have one. The kernel keeps those in memory within theirs.
fn empty_dirs(pod: &Pod) -> impl Iterator<Item = (&str, &str)> {
    pod_spec(pod).volumes.iter().flatten().filter_map(|volume| {
        let source = volume.empty_dir.as_ref().filter(|source| is_on_disk(source.medium.as_deref()))?;
        let limit = source.size_limit.as_ref().map(|limit| limit.0.as_str()).filter(|limit| bytes(limit) > 0)?;
        Some((volume.name.as_str(), limit))
    })
}

fn limit(container: &Container) -> Option<i64> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    limits.get(STORAGE).map(|limit| bytes(&limit.0)).filter(|bytes| *bytes > 0)
}

/// What the eviction says; `None` while the pod keeps within its limits. `dedicated`: writable layers are on a disk of
/// their own, which containers' limits do not speak of.
#[must_use]
pub fn exceeded(pod: &Pod, usage: &Usage, dedicated: bool) -> Option<String> {
    let used = |name: &str| usage.volumes.get(name).map_or(0, |disk| disk.bytes);
    if let Some((name, limit)) = empty_dirs(pod).find(|(name, limit)| used(name) > bytes(limit)) {
        return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {:?}. ", canonical(limit)));
    }
    let of_pod = pod_limit(pod)?;
    if usage.disk(true, true).bytes > of_pod {
        let limit = Quantity::from_bytes(of_pod);
        return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "));
    }
    let over = pod_spec(pod).containers.iter().find(|container| {
        let of = usage.containers.get(&container.name);
        let used = of.map_or(0, |of| of.logs.bytes + if dedicated { 0 } else { of.rootfs.bytes });
        limit(container).is_some_and(|limit| used > limit)
    })?;
    let limit = canonical(&Quantity::from_bytes(limit(over)?).to_string());
    Some(format!("Container {} exceeded its local ephemeral storage limit {limit:?}. ", over.name))
}

fn canonical(quantity: &str) -> String {
    Quantity::parse(quantity).map_or_else(|_| quantity.to_owned(), |quantity| quantity.to_string())
}

/// Of all containers that have one; `None` when none does.
fn pod_limit(pod: &Pod) -> Option<i64> {
    let (mut any, mut apps, mut sidecars, mut peak) = (false, 0_i64, 0_i64, 0_i64);
    for (role, container) in containers(pod) {
        let Some(limit) = limit(container) else { continue };
        any = true;
        match role {
            Role::App => apps += limit,
            Role::Ephemeral => {}
            Role::Sidecar => {
                sidecars += limit;
                peak = peak.max(sidecars);
            }
            Role::Init => peak = peak.max(sidecars + limit),
        }
    }
    any.then(|| (apps + sidecars).max(peak))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::agent::eviction::measure::{Disk, OfContainer};

    fn check(spec: Value, dedicated: bool, expect: Option<&str>) {
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).expect("valid");
        let disk = |mebibytes: i64| Disk { bytes: mebibytes << 20, inodes: 1 };
        let container = OfContainer { memory_bytes: 0, rootfs: disk(10), logs: disk(5) };
        let usage = Usage {
            containers: [("a".to_owned(), container)].into(),
            volumes: [("v".to_owned(), disk(20))].into(),
            processes: 0,
        };
        assert_eq!(exceeded(&pod, &usage, dedicated).as_deref(), expect, "{spec}");
    }

    fn with(volume: Value, limit: Value) -> Value {
        json!({"containers": [{"name": "a", "resources": {"limits": limit}}],
            "volumes": [{"name": "v", "emptyDir": volume}]})
    }

    #[test]
    fn limits_of_volumes_containers_and_pods() {
        let none = json!({});
        check(with(json!({"sizeLimit": "20Mi"}), none.clone()), false, None);
        let over = "Usage of EmptyDir volume \"v\" exceeds the limit \"19Mi\". ";
        check(with(json!({"sizeLimit": "19Mi"}), none.clone()), false, Some(over));
        check(with(json!({"sizeLimit": "0"}), none.clone()), false, None);
        check(with(json!({"sizeLimit": "1Mi", "medium": "Memory"}), none.clone()), false, None);
        check(with(none.clone(), json!({"ephemeral-storage": "35Mi"})), false, None);
        let over = "Pod ephemeral local storage usage exceeds the total limit of containers 34Mi. ";
        check(with(none.clone(), json!({"ephemeral-storage": "34Mi"})), false, Some(over));
        let two = |limit: &str| {
            json!({"containers": [{"name": "a", "resources": {"limits": {"ephemeral-storage": limit}}},
                {"name": "b", "resources": {"limits": {"ephemeral-storage": "1Gi"}}}]})
        };
        let over = "Container a exceeded its local ephemeral storage limit \"14Mi\". ";
        check(two("14Mi"), false, Some(over));
        check(two("14Mi"), true, None);
        check(two("15Mi"), false, None);
    }

    #[test]
    fn a_pod_without_limits_is_not_looked_at() {
        let has = |spec: Value| has_any(&serde_json::from_value(json!({"spec": spec})).expect("valid"));
        assert!(!has(with(json!({}), json!({"memory": "1Gi"}))));
        assert!(!has(with(json!({"medium": "Memory", "sizeLimit": "1Gi"}), json!({}))));
        assert!(has(with(json!({"sizeLimit": "1Gi"}), json!({}))));
        assert!(has(with(json!({}), json!({"ephemeral-storage": "1Gi"}))));
    }
}
