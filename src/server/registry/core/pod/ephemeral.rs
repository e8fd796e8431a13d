//! Decides: ephemeral containers: what one may say, and that they are only ever added
//! (`validateEphemeralContainers`, `ValidatePodEphemeralContainersUpdate`).

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};

use super::containers::{self, Around};
use super::update::{self, difference};
use super::{MIRROR, keep_metadata, spec};
use crate::api::ephemeral::plain;
use crate::api::field::{FieldError, Path};
use crate::server::registry::metadata::Errors;

const NOT_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";

/// What a write of `pods/ephemeralcontainers` can change.
pub const CHANGES: &[&[&str]] = &[&["spec", "ephemeralContainers"]];

pub fn prepare(new: &mut Pod, old: &Pod) {
    let wanted = new.spec.take().and_then(|s| s.ephemeral_containers);
    new.spec.clone_from(&old.spec);
    new.spec.get_or_insert_default().ephemeral_containers = wanted;
    keep_metadata(&mut new.metadata, &old.metadata);
}

/// `errors` of the pod as it would be.
#[must_use]
pub fn validate_update(mut errors: Errors, new: &Pod, old: &Pod) -> Errors {
    update::mirror(&mut errors, new, old);
    if old.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR)) {
        return vec![FieldError::forbidden(&Path::default(), "static pods do not support ephemeral containers")];
    }
    let path = Path::new("spec").child("ephemeralContainers");
    let list = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.ephemeral_containers.clone()).unwrap_or_default();
    let after = list(new);
    for before in list(old) {
        let name = &before.name;
        let message = match after.iter().rfind(|c| c.name == *name) {
            None => format!("existing ephemeral containers {name:?} may not be removed\n"),
            Some(same) if *same == before => continue,
            Some(other) => {
                format!("existing ephemeral containers {name:?} may not be changed\n{}", difference(&before, other))
            }
        };
        errors.push(FieldError::forbidden(&path, &message));
    }
    errors
}

pub fn validate(errors: &mut Errors, path: &Path, around: &Around<'_>) {
    let spec = around.spec;
    let others: Vec<&str> =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|c| c.name.as_str()).collect();
    let all = spec.ephemeral_containers.as_deref().unwrap_or_default();
    for (i, container) in all.iter().enumerate() {
        let here = path.index(i);
        containers::common(errors, &here, &plain(container), around);
        spec::image_of_pod(errors, &here, container.image.as_deref());
        let taken = others.contains(&container.name.as_str()) || all[..i].iter().any(|c| c.name == container.name);
        if taken {
            errors.push(FieldError::duplicate(&here.child("name"), &container.name));
        }
        let target = container.target_container_name.as_deref().unwrap_or_default();
        if !target.is_empty() && !others.contains(&target) {
            errors.push(FieldError::not_found(&here.child("targetContainerName"), &target));
        }
        not_ephemeral(errors, &here, container);
    }
}

/// What is for containers that a pod is made of.
fn not_ephemeral(errors: &mut Errors, path: &Path, container: &EphemeralContainer) {
    let resources = container.resources.as_ref();
    let resources = resources.is_some_and(|r| r.limits.is_some() || r.requests.is_some() || r.claims.is_some());
    for (field, set) in [
        ("ports", container.ports.is_some()),
        ("resources", resources),
        ("resizePolicy", container.resize_policy.is_some()),
        ("restartPolicy", container.restart_policy.is_some()),
        ("restartPolicyRules", container.restart_policy_rules.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
    ] {
        if set {
            errors.push(FieldError::forbidden(&path.child(field), NOT_EPHEMERAL));
        }
    }
    for (i, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let at = path.child("volumeMounts").index(i);
        for (field, value) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
            if value.as_deref().is_some_and(|v| !v.is_empty()) {
                errors.push(FieldError::forbidden(&at.child(field), NOT_EPHEMERAL));
            }
        }
    }
}
