//! Decides: what state a pod is in, as every workload controller sees it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};

/// Names with commas between them, on pods as they are kept in stores: a `Volume` takes three kilobytes. Of claims; and
/// of volumes that a claim is made for.
const CLAIMS: &str = "skiff.io/claims";
const EPHEMERAL: &str = "skiff.io/ephemeral-volumes";

/// Drops the volumes of a pod, but for the names of the claims among them, and of those that want a claim of their own.
pub fn keep_claims(pod: &mut Pod) {
    let volumes = pod.spec.as_mut().and_then(|s| s.volumes.take()).unwrap_or_default();
    let (mut claims, mut ephemeral) = (Vec::new(), Vec::new());
    for volume in volumes {
        claims.extend(volume.persistent_volume_claim.map(|claim| claim.claim_name));
        if volume.ephemeral.is_some() {
            ephemeral.push(volume.name);
        }
    }
    for (key, names) in [(CLAIMS, claims), (EPHEMERAL, ephemeral)] {
        if !names.is_empty() {
            pod.metadata.annotations.get_or_insert_default().insert(key.into(), names.join(","));
        } else if let Some(annotations) = &mut pod.metadata.annotations {
            // Nobody else says that.
            annotations.remove(key);
        }
    }
}

/// The claims that a pod of a store has among its volumes.
pub fn claims(pod: &Pod) -> impl Iterator<Item = &str> {
    kept(pod, CLAIMS)
}

/// The volumes of a pod of a store that a claim is made for.
pub fn ephemeral_volumes(pod: &Pod) -> impl Iterator<Item = &str> {
    kept(pod, EPHEMERAL)
}

fn kept<'a>(pod: &'a Pod, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let names = pod.metadata.annotations.as_ref().and_then(|a| a.get(key));
    names.into_iter().flat_map(|names| names.split(','))
}

#[must_use]
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

#[must_use]
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Neither finished nor being deleted.
#[must_use]
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Being deleted and not yet finished.
#[must_use]
pub fn is_terminating(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_some()
}

#[must_use]
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

#[must_use]
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, "Ready").filter(|c| c.status == "True")?.last_transition_time.as_ref().map(|t| t.0)
}

/// How long until the pod is available; zero when it is, `None` when it is not even ready.
#[must_use]
pub fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready_seconds <= 0 {
        return Some(Duration::ZERO);
    }
    let since = ready_since(pod)?;
    let due = since.checked_add(jiff::SignedDuration::from_secs(i64::from(min_ready_seconds))).ok()?;
    Some(Duration::try_from(due.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[must_use]
pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}
