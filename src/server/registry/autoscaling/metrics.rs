//! Decides: what is wrong with the metrics that a HorizontalPodAutoscaler follows.

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricTarget};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::validate::{ApiVersion, reference};
use crate::api::field::{FieldError, Path};
use crate::server::registry::metadata::{Errors, invalid};
use crate::server::registry::{format, quantity, resource_name};

/// Types of metrics, and the field of each.
const SOURCES: &[(&str, &str)] = &[
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

pub fn validate(errors: &mut Errors, path: &Path, spec: &HorizontalPodAutoscalerSpec) {
    let metrics = spec.metrics.as_deref().unwrap_or_default();
    for (i, metric) in metrics.iter().enumerate() {
        check(errors, &path.index(i), metric);
    }
    // Pods that do not run use nothing that could be measured.
    if spec.min_replicas == Some(0) && !metrics.iter().any(|m| matches!(m.type_.as_str(), "Object" | "External")) {
        let message = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(FieldError::forbidden(path, message));
    }
}

fn check(errors: &mut Errors, path: &Path, metric: &MetricSpec) {
    let at = path.child("type");
    if metric.type_.is_empty() {
        errors.push(FieldError::required(&at, "must specify a metric source type"));
    }
    let field = SOURCES.iter().find(|(kind, _)| *kind == metric.type_).map(|(_, field)| *field);
    if field.is_none() {
        let known: Vec<&str> = SOURCES.iter().map(|(kind, _)| *kind).collect();
        errors.push(FieldError::not_supported(&at, &metric.type_, &known));
    }
    let present: Vec<&str> = present(metric);
    // Of several sources only the first is looked at, whichever is the right one.
    if let Some(first) = present.first() {
        source(errors, &path.child(first), first, metric);
    }
    if let Some(field) = field.filter(|field| !present.contains(field)) {
        let message = "must populate information for the given metric source";
        errors.push(FieldError::required(&path.child(field), message));
    }
    if present.len() > 1 {
        for other in present.iter().filter(|other| Some(**other) != field) {
            errors.push(FieldError::forbidden(&path.child(other), "must populate the given metric source only"));
        }
    }
}

/// The fields of the sources that are there, in the order upstream looks for them.
fn present(metric: &MetricSpec) -> Vec<&'static str> {
    let all = [
        ("object", metric.object.is_some()),
        ("external", metric.external.is_some()),
        ("pods", metric.pods.is_some()),
        ("resource", metric.resource.is_some()),
        ("containerResource", metric.container_resource.is_some()),
    ];
    all.into_iter().filter(|(_, there)| *there).map(|(field, _)| field).collect()
}

fn source(errors: &mut Errors, path: &Path, field: &str, metric: &MetricSpec) {
    let at = path.child("target");
    match field {
        "object" => {
            let Some(object) = &metric.object else { return };
            reference(errors, &path.child("describedObject"), &object.described_object, ApiVersion::AnyGroup);
            identifier(errors, &path.child("metric"), &object.metric);
            target(errors, &at, &object.target);
            if object.target.value.is_none() && object.target.average_value.is_none() {
                let message = "must set either a target value or averageValue";
                errors.push(FieldError::required(&at.child("averageValue"), message));
            }
        }
        "external" => {
            let Some(external) = &metric.external else { return };
            identifier(errors, &path.child("metric"), &external.metric);
            target(errors, &at, &external.target);
            match (&external.target.value, &external.target.average_value) {
                (None, None) => {
                    let message = "must set either a target value for metric or a per-pod target";
                    errors.push(FieldError::required(&at.child("averageValue"), message));
                }
                (Some(_), Some(_)) => {
                    let message = "may not set both a target value for metric and a per-pod target";
                    errors.push(FieldError::forbidden(&at.child("value"), message));
                }
                _ => {}
            }
        }
        "pods" => {
            let Some(pods) = &metric.pods else { return };
            identifier(errors, &path.child("metric"), &pods.metric);
            target(errors, &at, &pods.target);
            if pods.target.average_value.is_none() {
                let message = "must specify a positive target averageValue";
                errors.push(FieldError::required(&at.child("averageValue"), message));
            }
        }
        "resource" => {
            let Some(resource) = &metric.resource else { return };
            named(errors, path, &resource.name);
            utilization(errors, &at, &resource.target);
        }
        _ => {
            let Some(resource) = &metric.container_resource else { return };
            named(errors, path, &resource.name);
            if !resource.name.is_empty() {
                resource_name::of_container(errors, &path.child("name"), &resource.name);
            }
            let (container, at_container) = (&resource.container, path.child("container"));
            if container.is_empty() {
                errors.push(FieldError::required(&at_container, "must specify a container"));
            } else {
                invalid(errors, &at_container, container, format::dns_label(container));
            }
            utilization(errors, &at, &resource.target);
        }
    }
}

fn named(errors: &mut Errors, path: &Path, resource: &str) {
    if resource.is_empty() {
        errors.push(FieldError::required(&path.child("name"), "must specify a resource name"));
    }
}

fn identifier(errors: &mut Errors, path: &Path, metric: &MetricIdentifier) {
    let at = path.child("name");
    if metric.name.is_empty() {
        errors.push(FieldError::required(&at, "must specify a metric name"));
    } else {
        invalid(errors, &at, &metric.name, format::path_segment(&metric.name, false));
    }
}

/// The target of a resource: one of two measures.
fn utilization(errors: &mut Errors, path: &Path, of: &MetricTarget) {
    target(errors, path, of);
    match (of.average_utilization, &of.average_value) {
        (None, None) => {
            let message = "must set either a target raw value or a target utilization";
            errors.push(FieldError::required(&path.child("averageUtilization"), message));
        }
        (Some(_), Some(_)) => {
            let message = "may not set both a target raw value and a target utilization";
            errors.push(FieldError::forbidden(&path.child("averageValue"), message));
        }
        _ => {}
    }
}

fn target(errors: &mut Errors, path: &Path, target: &MetricTarget) {
    let at = path.child("type");
    if target.type_.is_empty() {
        errors.push(FieldError::required(&at, "must specify a metric target type"));
    }
    if !matches!(target.type_.as_str(), "Utilization" | "Value" | "AverageValue") {
        let message = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(&at, &target.type_, message));
    }
    positive(errors, &path.child("value"), target.value.as_ref());
    positive(errors, &path.child("averageValue"), target.average_value.as_ref());
    if let Some(percent) = target.average_utilization.filter(|percent| *percent < 1) {
        errors.push(FieldError::invalid(&path.child("averageUtilization"), &percent, "must be greater than 0"));
    }
}

fn positive(errors: &mut Errors, path: &Path, text: Option<&Quantity>) {
    let Some(text) = text else { return };
    match quantity::parse(text) {
        Ok(value) if value.is_zero() || value.is_negative() => {
            errors.push(FieldError::invalid(path, &text.0, "must be positive"));
        }
        Ok(_) => {}
        Err(error) => errors.push(FieldError::invalid(path, &text.0, &error.to_string())),
    }
}
