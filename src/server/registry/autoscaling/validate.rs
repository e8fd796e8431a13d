//! Decides: what is wrong with the spec of a HorizontalPodAutoscaler, its metrics apart, and with its status.

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus,
};

use super::metrics;
use crate::api::field::{FieldError, Path};
use crate::server::registry::metadata::{Errors, NEGATIVE, invalid, not_negative};
use crate::server::registry::{format, quantity};

const MAX_PERIOD_SECONDS: i32 = 1800;
const MAX_WINDOW_SECONDS: i32 = 3600;
const SELECT_POLICIES: &[&str] = &["Disabled", "Max", "Min"];
const POLICIES: &[&str] = &["Percent", "Pods"];

/// How strictly the `apiVersion` of a reference is checked.
#[derive(Clone, Copy)]
pub enum ApiVersion {
    Unchecked,
    /// The core group, which has no name, is one too.
    AnyGroup,
    NamedGroup,
}

pub fn spec(spec: &HorizontalPodAutoscalerSpec, old: Option<&HorizontalPodAutoscalerSpec>) -> Errors {
    let mut errors = Vec::new();
    let path = Path::new("spec");
    let (least, most) = (spec.min_replicas, spec.max_replicas);
    if let Some(least) = least.filter(|n| *n < 1) {
        errors.push(FieldError::invalid(&path.child("minReplicas"), &least, "must be greater than or equal to 1"));
    }
    let at = path.child("maxReplicas");
    if most < 1 {
        errors.push(FieldError::invalid(&at, &most, "must be greater than 0"));
    }
    if least.is_some_and(|least| most < least) {
        errors.push(FieldError::invalid(&at, &most, "must be greater than or equal to `minReplicas`"));
    }
    let target = &spec.scale_target_ref;
    let same = |old: &HorizontalPodAutoscalerSpec| {
        let old = &old.scale_target_ref;
        (&old.api_version, &old.kind) == (&target.api_version, &target.kind)
    };
    let rule = match target.kind.as_str() {
        _ if old.is_some_and(same) => ApiVersion::Unchecked,
        // The one kind of the core group that scales.
        "ReplicationController" => ApiVersion::AnyGroup,
        _ => ApiVersion::NamedGroup,
    };
    reference(&mut errors, &path.child("scaleTargetRef"), target, rule);
    metrics::validate(&mut errors, &path.child("metrics"), spec);
    if let Some(behavior) = &spec.behavior {
        for (field, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
            if let Some(rules) = rules {
                scaling(&mut errors, &path.child("behavior").child(field), rules);
            }
        }
    }
    errors
}

pub fn reference(errors: &mut Errors, path: &Path, reference: &CrossVersionObjectReference, rule: ApiVersion) {
    for (field, value) in [("kind", &reference.kind), ("name", &reference.name)] {
        if value.is_empty() {
            errors.push(FieldError::required(&path.child(field), ""));
        } else {
            invalid(errors, &path.child(field), value, format::path_segment(value, false));
        }
    }
    let version = reference.api_version.as_deref().unwrap_or_default();
    let at = path.child("apiVersion");
    let group = version.split_once('/').map_or("", |(group, _)| group);
    match rule {
        ApiVersion::Unchecked => {}
        _ if version.matches('/').count() > 1 => {
            errors.push(FieldError::invalid(&at, &version, &format!("unexpected GroupVersion string: {version}")));
        }
        ApiVersion::NamedGroup if group.is_empty() => {
            errors.push(FieldError::invalid(&at, &version, "apiVersion must specify API group"));
        }
        _ => {}
    }
}

fn scaling(errors: &mut Errors, path: &Path, rules: &HPAScalingRules) {
    let at = path.child("stabilizationWindowSeconds");
    let window = rules.stabilization_window_seconds.unwrap_or_default();
    if window < 0 {
        errors.push(FieldError::invalid(&at, &window, "must be greater than or equal to zero"));
    }
    if window > MAX_WINDOW_SECONDS {
        let message = format!("must be less than or equal to {MAX_WINDOW_SECONDS}");
        errors.push(FieldError::invalid(&at, &window, &message));
    }
    if let Some(select) = rules.select_policy.as_deref().filter(|s| !SELECT_POLICIES.contains(s)) {
        errors.push(FieldError::not_supported(&path.child("selectPolicy"), &select, SELECT_POLICIES));
    }
    let at = path.child("policies");
    let policies = rules.policies.as_deref().unwrap_or_default();
    if policies.is_empty() {
        errors.push(FieldError::required(&at, "must specify at least one Policy"));
    }
    for (i, policy) in policies.iter().enumerate() {
        scaling_policy(errors, &at.index(i), policy);
    }
    if let Some(text) = &rules.tolerance {
        let at = path.child("tolerance");
        match quantity::parse(text) {
            Ok(tolerance) if tolerance.is_negative() => errors.push(FieldError::invalid(&at, &text.0, NEGATIVE)),
            Ok(_) => {}
            Err(error) => errors.push(FieldError::invalid(&at, &text.0, &error.to_string())),
        }
    }
}

fn scaling_policy(errors: &mut Errors, path: &Path, policy: &HPAScalingPolicy) {
    if !POLICIES.contains(&policy.type_.as_str()) {
        errors.push(FieldError::not_supported(&path.child("type"), &policy.type_, POLICIES));
    }
    for (field, value) in [("value", policy.value), ("periodSeconds", policy.period_seconds)] {
        if value <= 0 {
            errors.push(FieldError::invalid(&path.child(field), &value, "must be greater than zero"));
        }
    }
    if policy.period_seconds > MAX_PERIOD_SECONDS {
        let message = format!("must be less than or equal to {MAX_PERIOD_SECONDS}");
        errors.push(FieldError::invalid(&path.child("periodSeconds"), &policy.period_seconds, &message));
    }
}

pub fn status(status: &HorizontalPodAutoscalerStatus) -> Errors {
    let mut errors = Vec::new();
    let path = Path::new("status");
    let current = status.current_replicas.unwrap_or_default();
    not_negative(&mut errors, &path.child("currentReplicas"), i64::from(current));
    not_negative(&mut errors, &path.child("desiredReplicas"), i64::from(status.desired_replicas));
    errors
}
