//! Decides: DaemonSet.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{at_most_all, int_or_percent, not_decremented, number, selector_and_template};
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::server::registry::core::pod::{defaults, warnings};
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, immutable, not_negative, or_default, shown};
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part};

/// Counts the templates; a field of the kind in its first versions, an annotation since.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const HISTORY: i32 = 10;

pub struct DaemonSetKind;

impl Kind for DaemonSetKind {
    type Object = DaemonSet;

    fn resource(&self) -> &'static Resource {
        row("apps/v1", "DaemonSet")
    }

    fn defaults(&self, set: &mut DaemonSet) {
        let spec = set.spec.get_or_insert_default();
        defaults::template(&mut spec.template);
        spec.revision_history_limit.get_or_insert(HISTORY);
        let strategy = spec.update_strategy.get_or_insert_default();
        if strategy.type_.as_deref().unwrap_or_default().is_empty() {
            strategy.type_ = Some("RollingUpdate".into());
        }
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        set.status.get_or_insert_default();
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn prepare_create(&self, _: &Context, set: &mut DaemonSet) {
        set.status = Some(DaemonSetStatus::default());
        let given = template_generation(set);
        set_template_generation(set, given.max(1));
    }

    fn prepare_update(&self, _: &Context, part: Part, new: &mut DaemonSet, old: &DaemonSet) {
        if part == Part::Status {
            return;
        }
        let template = |set: &DaemonSet| set.spec.as_ref().map(|s| s.template.clone());
        let mut generation = template_generation(old);
        if template(new) != template(old) {
            generation += 1;
        }
        set_template_generation(new, generation);
    }

    fn validate(&self, set: &DaemonSet) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check(&mut errors, &Path::new("spec"), &or_default(set.spec.as_ref()));
        errors
    }

    fn validate_update(&self, part: Part, new: &DaemonSet, old: &DaemonSet) -> Vec<FieldError> {
        if part == Part::Status {
            return status(new, old);
        }
        let mut errors = self.validate(new);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            immutable(&mut errors, &Path::new("spec").child("selector"), &new.selector, &old.selector);
        }
        errors
    }

    fn warnings(&self, set: &DaemonSet) -> Vec<String> {
        let Some(spec) = &set.spec else { return Vec::new() };
        warnings::of_template(&Path::new("spec").child("template"), &spec.template)
    }
}

fn template_generation(set: &DaemonSet) -> i64 {
    let text = set.metadata.annotations.as_ref().and_then(|a| a.get(TEMPLATE_GENERATION));
    text.and_then(|n| n.parse().ok()).unwrap_or_default()
}

fn set_template_generation(set: &mut DaemonSet, generation: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.into(), generation.to_string());
}

fn check(errors: &mut Errors, path: &Path, spec: &DaemonSetSpec) {
    selector_and_template(errors, path, &spec.selector, &spec.template, "DaemonSet");
    not_negative(errors, &path.child("minReadySeconds"), i64::from(spec.min_ready_seconds.unwrap_or_default()));
    strategy(errors, &path.child("updateStrategy"), &spec.update_strategy.clone().unwrap_or_default());
    if let Some(limit) = spec.revision_history_limit {
        not_negative(errors, &path.child("revisionHistoryLimit"), i64::from(limit));
    }
}

fn strategy(errors: &mut Errors, path: &Path, strategy: &DaemonSetUpdateStrategy) {
    let at = path.child("rollingUpdate");
    match strategy.type_.as_deref().unwrap_or_default() {
        "OnDelete" => {}
        "RollingUpdate" => {
            let Some(rolling) = &strategy.rolling_update else {
                errors.push(FieldError::required(&at, ""));
                return;
            };
            let unavailable = rolling.max_unavailable.clone().unwrap_or_default();
            let surge = rolling.max_surge.clone().unwrap_or_default();
            let (here, there) = (at.child("maxUnavailable"), at.child("maxSurge"));
            int_or_percent(errors, &here, &unavailable);
            int_or_percent(errors, &there, &surge);
            at_most_all(errors, &here, &unavailable);
            at_most_all(errors, &there, &surge);
            match (number(&unavailable) != 0, number(&surge) != 0) {
                (true, true) => {
                    let message = "may not be set when maxUnavailable is non-zero";
                    errors.push(FieldError::invalid(&there, &shown(&surge), message));
                }
                (false, false) => errors.push(FieldError::required(&here, "cannot be 0 when maxSurge is 0")),
                _ => {}
            }
        }
        _ => errors.push(FieldError::not_supported(path, &shown(strategy), &["OnDelete", "RollingUpdate"])),
    }
}

fn status(new: &DaemonSet, old: &DaemonSet) -> Errors {
    let mut errors = Vec::new();
    let path = Path::new("status");
    let status = or_default(new.status.as_ref());
    let before = old.status.as_ref().and_then(|s| s.collision_count);
    for (field, value) in [
        ("currentNumberScheduled", Some(status.current_number_scheduled)),
        ("numberMisscheduled", Some(status.number_misscheduled)),
        ("desiredNumberScheduled", Some(status.desired_number_scheduled)),
        ("numberReady", Some(status.number_ready)),
        ("updatedNumberScheduled", status.updated_number_scheduled),
        ("numberAvailable", status.number_available),
        ("numberUnavailable", status.number_unavailable),
        ("collisionCount", status.collision_count),
    ] {
        not_negative(&mut errors, &path.child(field), i64::from(value.unwrap_or_default()));
    }
    not_negative(&mut errors, &path.child("observedGeneration"), status.observed_generation.unwrap_or_default());
    not_decremented(&mut errors, &path.child("collisionCount"), status.collision_count, before);
    errors
}
