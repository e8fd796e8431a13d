//! HorizontalPodAutoscaler, which `autoscaling/v2` and `autoscaling/v1` serve. It is stored as `v2`.
//!
//! - [`convert`]: what `v1` says, and the annotations for what it cannot say
//! - [`validate`], [`metrics`]: what is wrong with a spec

mod convert;
mod metrics;
mod validate;

use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus, MetricSpec,
    MetricStatus, MetricTarget, MetricValueStatus, ResourceMetricSource,
};
use serde_json::Value;

use super::kinds::row;
use super::quantity;
use super::request::Context;
use super::strategy::{Kind, Part};
use crate::api::field::FieldError;
use crate::api::resource::Resource;

/// Percent of what the pods request.
const CPU_UTILIZATION: i32 = 80;
const SCALING_PERIOD_SECONDS: i32 = 15;
const SCALE_UP_PODS: i32 = 4;
const SCALE_PERCENT: i32 = 100;

/// HorizontalPodAutoscaler as one of the two versions serves it.
pub enum HorizontalPodAutoscalerKind {
    V1,
    V2,
}

impl Kind for HorizontalPodAutoscalerKind {
    type Object = HorizontalPodAutoscaler;

    fn resource(&self) -> &'static Resource {
        let version = match self {
            Self::V1 => "autoscaling/v1",
            Self::V2 => "autoscaling/v2",
        };
        row(version, "HorizontalPodAutoscaler")
    }

    fn defaults(&self, autoscaler: &mut HorizontalPodAutoscaler) {
        let spec = &mut autoscaler.spec;
        spec.min_replicas.get_or_insert(1);
        if spec.metrics.as_ref().is_none_or(Vec::is_empty) {
            spec.metrics = Some(vec![cpu()]);
        }
        if let Some(behavior) = &mut spec.behavior {
            fill(
                behavior.scale_up.get_or_insert_default(),
                Some(0),
                &[("Pods", SCALE_UP_PODS), ("Percent", SCALE_PERCENT)],
            );
            // How long to wait before scaling down is the controller's to know.
            fill(behavior.scale_down.get_or_insert_default(), None, &[("Percent", SCALE_PERCENT)]);
            for rules in [&mut behavior.scale_up, &mut behavior.scale_down].into_iter().flatten() {
                quantity::canonical(&mut rules.tolerance);
            }
        }
        let status = autoscaler.status.get_or_insert_default();
        spec.metrics.iter_mut().flatten().flat_map(targets).for_each(|target| {
            quantity::canonical(&mut target.value);
            quantity::canonical(&mut target.average_value);
        });
        status.current_metrics.iter_mut().flatten().flat_map(currents).for_each(|current| {
            quantity::canonical(&mut current.value);
            quantity::canonical(&mut current.average_value);
        });
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn prepare_create(&self, _: &Context, autoscaler: &mut HorizontalPodAutoscaler) {
        autoscaler.status = Some(HorizontalPodAutoscalerStatus::default());
    }

    fn validate(&self, autoscaler: &HorizontalPodAutoscaler) -> Vec<FieldError> {
        validate::spec(&autoscaler.spec, None)
    }

    fn validate_update(
        &self,
        part: Part,
        new: &HorizontalPodAutoscaler,
        old: &HorizontalPodAutoscaler,
    ) -> Vec<FieldError> {
        if part == Part::Status {
            return validate::status(&new.status.clone().unwrap_or_default());
        }
        validate::spec(&new.spec, Some(&old.spec))
    }

    fn storage_form(&self, object: Value) -> Value {
        match self {
            Self::V1 => convert::to_v2(object),
            Self::V2 => convert::without_annotations(object),
        }
    }

    fn wire_form(&self, object: Value) -> Value {
        match self {
            Self::V1 => convert::to_v1(object),
            Self::V2 => object,
        }
    }
}

/// What is measured when nothing is said.
fn cpu() -> MetricSpec {
    let target = MetricTarget {
        type_: "Utilization".into(),
        average_utilization: Some(CPU_UTILIZATION),
        ..MetricTarget::default()
    };
    MetricSpec {
        type_: "Resource".into(),
        resource: Some(ResourceMetricSource { name: "cpu".into(), target }),
        ..MetricSpec::default()
    }
}

fn fill(rules: &mut HPAScalingRules, window: Option<i32>, policies: &[(&str, i32)]) {
    rules.stabilization_window_seconds = rules.stabilization_window_seconds.or(window);
    rules.select_policy.get_or_insert_with(|| "Max".into());
    rules.policies.get_or_insert_with(|| {
        let policy = |(kind, value): &(&str, i32)| HPAScalingPolicy {
            type_: (*kind).into(),
            value: *value,
            period_seconds: SCALING_PERIOD_SECONDS,
        };
        policies.iter().map(policy).collect()
    });
}

fn targets(metric: &mut MetricSpec) -> impl Iterator<Item = &mut MetricTarget> {
    let targets = [
        metric.object.as_mut().map(|m| &mut m.target),
        metric.pods.as_mut().map(|m| &mut m.target),
        metric.resource.as_mut().map(|m| &mut m.target),
        metric.container_resource.as_mut().map(|m| &mut m.target),
        metric.external.as_mut().map(|m| &mut m.target),
    ];
    targets.into_iter().flatten()
}

fn currents(metric: &mut MetricStatus) -> impl Iterator<Item = &mut MetricValueStatus> {
    let currents = [
        metric.object.as_mut().map(|m| &mut m.current),
        metric.pods.as_mut().map(|m| &mut m.current),
        metric.resource.as_mut().map(|m| &mut m.current),
        metric.container_resource.as_mut().map(|m| &mut m.current),
        metric.external.as_mut().map(|m| &mut m.current),
    ];
    currents.into_iter().flatten()
}

#[cfg(test)]
mod tests;
