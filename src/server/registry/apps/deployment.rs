//! Decides: Deployment.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{at_most, at_most_all, int_or_percent, not_decremented, number, selector_and_template};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::core::pod::{defaults, warnings};
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, immutable, not_negative, or_default, shown};
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part};

const QUARTER: &str = "25%";
const HISTORY: i32 = 10;
const DEADLINE_SECONDS: i32 = 600;
const MORE_THAN_REPLICAS: &str = "cannot be greater than status.replicas";

pub struct DeploymentKind;

impl Kind for DeploymentKind {
    type Object = Deployment;

    fn resource(&self) -> &'static Resource {
        row("apps/v1", "Deployment")
    }

    fn defaults(&self, deployment: &mut Deployment) {
        let spec = deployment.spec.get_or_insert_default();
        defaults::template(&mut spec.template);
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(HISTORY);
        spec.progress_deadline_seconds.get_or_insert(DEADLINE_SECONDS);
        let strategy = spec.strategy.get_or_insert_default();
        if strategy.type_.as_deref().unwrap_or_default().is_empty() {
            strategy.type_ = Some("RollingUpdate".into());
        }
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert_with(|| IntOrString::String(QUARTER.into()));
            rolling.max_surge.get_or_insert_with(|| IntOrString::String(QUARTER.into()));
        }
        deployment.status.get_or_insert_default();
    }

    fn status_resets(&self) -> &'static [&'static [&'static str]] {
        &[&["metadata", "labels"]]
    }

    /// Annotations are copied to ReplicaSets, so they are part of what is wanted.
    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec", "/metadata/annotations"]
    }

    fn prepare_create(&self, _: &Context, deployment: &mut Deployment) {
        deployment.status = Some(DeploymentStatus::default());
    }

    fn prepare_update(&self, _: &Context, part: Part, new: &mut Deployment, old: &Deployment) {
        if part == Part::Status {
            new.metadata.labels.clone_from(&old.metadata.labels);
        }
    }

    fn validate(&self, deployment: &Deployment) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check(&mut errors, &Path::new("spec"), &or_default(deployment.spec.as_ref()));
        errors
    }

    fn validate_update(&self, part: Part, new: &Deployment, old: &Deployment) -> Vec<FieldError> {
        if part == Part::Status {
            return status(new, old);
        }
        let mut errors = self.validate(new);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            immutable(&mut errors, &Path::new("spec").child("selector"), &new.selector, &old.selector);
        }
        errors
    }

    fn warnings(&self, deployment: &Deployment) -> Vec<String> {
        let Some(spec) = &deployment.spec else { return Vec::new() };
        warnings::of_template(&Path::new("spec").child("template"), &spec.template)
    }
}

fn check(errors: &mut Errors, path: &Path, spec: &DeploymentSpec) {
    not_negative(errors, &path.child("replicas"), i64::from(spec.replicas.unwrap_or_default()));
    selector_and_template(errors, path, &spec.selector, &spec.template, "ReplicaSet");
    strategy(errors, &path.child("strategy"), &spec.strategy.clone().unwrap_or_default());
    let ready = spec.min_ready_seconds.unwrap_or_default();
    not_negative(errors, &path.child("minReadySeconds"), i64::from(ready));
    if let Some(limit) = spec.revision_history_limit {
        not_negative(errors, &path.child("revisionHistoryLimit"), i64::from(limit));
    }
    if let Some(deadline) = spec.progress_deadline_seconds {
        let at = path.child("progressDeadlineSeconds");
        not_negative(errors, &at, i64::from(deadline));
        if deadline <= ready {
            errors.push(FieldError::invalid(&at, &deadline, "must be greater than minReadySeconds"));
        }
    }
}

fn strategy(errors: &mut Errors, path: &Path, strategy: &DeploymentStrategy) {
    let at = path.child("rollingUpdate");
    match strategy.type_.as_deref().unwrap_or_default() {
        "Recreate" => {
            if strategy.rolling_update.is_some() {
                let message = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(FieldError::forbidden(&at, message));
            }
        }
        "RollingUpdate" => {
            let Some(rolling) = &strategy.rolling_update else {
                errors.push(FieldError::required(&at, "this should be defaulted and never be nil"));
                return;
            };
            let unavailable = rolling.max_unavailable.clone().unwrap_or_default();
            let surge = rolling.max_surge.clone().unwrap_or_default();
            let here = at.child("maxUnavailable");
            int_or_percent(errors, &here, &unavailable);
            int_or_percent(errors, &at.child("maxSurge"), &surge);
            if number(&unavailable) == 0 && number(&surge) == 0 {
                errors.push(FieldError::invalid(&here, &shown(&unavailable), "may not be 0 when `maxSurge` is 0"));
            }
            at_most_all(errors, &here, &unavailable);
        }
        _ => {
            let known = ["Recreate", "RollingUpdate"];
            errors.push(FieldError::not_supported(path, &shown(strategy), &known));
        }
    }
}

fn status(new: &Deployment, old: &Deployment) -> Errors {
    let mut errors = Vec::new();
    let path = Path::new("status");
    let status = or_default(new.status.as_ref());
    not_negative(&mut errors, &path.child("observedGeneration"), status.observed_generation.unwrap_or_default());
    for (field, value) in [
        ("replicas", status.replicas),
        ("updatedReplicas", status.updated_replicas),
        ("readyReplicas", status.ready_replicas),
        ("availableReplicas", status.available_replicas),
        ("unavailableReplicas", status.unavailable_replicas),
        ("terminatingReplicas", status.terminating_replicas),
        ("collisionCount", status.collision_count),
    ] {
        not_negative(&mut errors, &path.child(field), i64::from(value.unwrap_or_default()));
    }
    for (field, value) in [
        ("updatedReplicas", status.updated_replicas),
        ("readyReplicas", status.ready_replicas),
        ("availableReplicas", status.available_replicas),
    ] {
        at_most(&mut errors, &path, field, value, status.replicas, MORE_THAN_REPLICAS);
    }
    let message = "cannot be greater than readyReplicas";
    at_most(&mut errors, &path, "availableReplicas", status.available_replicas, status.ready_replicas, message);
    let before = old.status.as_ref().and_then(|s| s.collision_count);
    not_decremented(&mut errors, &path.child("collisionCount"), status.collision_count, before);
    errors
}
