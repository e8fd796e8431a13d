//! Decides: what each metric of a HorizontalPodAutoscaler proposes, and what is shown of it.

use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricSource, ExternalMetricStatus, MetricIdentifier, MetricSpec,
    MetricStatus, MetricTarget, MetricValueStatus, ObjectMetricSource, ObjectMetricStatus, PodsMetricSource,
    PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use super::asked::{self, Asked, Custom};
use super::calculator::{Calculator, Requests};
use crate::api::quantity::Quantity;
use crate::api::selector::LabelSelector;
use crate::server::controllers::stores::Stores;
use crate::server::scheduler::resources;

pub struct Proposal {
    pub replicas: i32,
    /// As Events and conditions name what it follows from.
    pub name: String,
    pub status: MetricStatus,
}

/// Nothing is proposed.
#[derive(Clone)]
pub struct Invalid {
    pub reason: &'static str,
    /// As the condition has it.
    pub error: String,
    /// As the list of errors has it.
    pub listed: String,
}

/// What metrics are of.
pub struct Target<'a> {
    pub stores: &'a Stores,
    pub asked: &'a Asked<'a>,
    pub namespace: &'a str,
    pub selector: &'a LabelSelector,
    pub calculator: Calculator<'a>,
}

/// # Errors
/// Why the metric proposes nothing.
pub fn proposal(target: &Target<'_>, spec: &MetricSpec) -> Result<Proposal, Invalid> {
    match &*spec.type_ {
        "Resource" => spec.resource.as_ref().map(|r| of_resource(target, &r.name, None, &r.target)),
        "ContainerResource" => {
            spec.container_resource.as_ref().map(|r| of_resource(target, &r.name, Some(&r.container), &r.target))
        }
        "Pods" => spec.pods.as_ref().map(|pods| of_pods(target, pods)),
        "Object" => spec.object.as_ref().map(|object| of_object(target, object)),
        "External" => spec.external.as_ref().map(|external| of_external(target, external)),
        _ => None,
    }
    .unwrap_or_else(|| {
        let error = format!("unknown metric source type {:?}", spec.type_);
        Err(Invalid { reason: "InvalidMetricSourceType", listed: error.clone(), error })
    })
}

fn of_resource(
    target: &Target<'_>,
    name: &str,
    container: Option<&str>,
    wanted: &MetricTarget,
) -> Result<Proposal, Invalid> {
    let (reason, of) = match container {
        Some(container) => ("FailedGetContainerResourceMetric", format!("{container} container metric")),
        None => ("FailedGetResourceMetric", format!("{name} resource metric")),
    };
    let found = match (amount(wanted.average_value.as_ref()), wanted.average_utilization) {
        (Some(average), _) => resource_average(target, name, container, average)
            .map_err(|error| format!("failed to get {name} usage: {error}")),
        (None, Some(percent)) => resource_utilization(target, name, container, percent)
            .map_err(|error| format!("failed to get {name} utilization: {error}")),
        (None, None) => {
            Err("invalid resource metric source: neither an average utilization target nor an average value \
                             (usage) target was set"
                .into())
        }
    };
    let invalid = |error: String| Invalid { reason, listed: format!("failed to get {of} value: {error}"), error };
    let (replicas, proposed, current) = found.map_err(invalid)?;
    let name = name.to_owned();
    let status = match container {
        Some(container) => MetricStatus {
            type_: "ContainerResource".into(),
            container_resource: Some(ContainerResourceMetricStatus { container: container.into(), current, name }),
            ..MetricStatus::default()
        },
        None => MetricStatus {
            type_: "Resource".into(),
            resource: Some(ResourceMetricStatus { current, name }),
            ..MetricStatus::default()
        },
    };
    Ok(Proposal { replicas, name: proposed, status })
}

type Found = Result<(i32, String, MetricValueStatus), String>;

fn resource_average(target: &Target<'_>, name: &str, container: Option<&str>, wanted: i64) -> Found {
    let metrics = asked::of_resource(target.asked, target.namespace, target.selector, name, container)
        .map_err(|error| format!("unable to get metrics for resource {name}: {error}"))?;
    let (replicas, used) = target.calculator.average(metrics, wanted, name == "cpu")?;
    Ok((replicas, format!("{name} resource"), average(used)))
}

fn resource_utilization(target: &Target<'_>, name: &str, container: Option<&str>, percent: i32) -> Found {
    let metrics = asked::of_resource(target.asked, target.namespace, target.selector, name, container);
    // What containers ask for is not kept of all the pods there are: only those of targets are looked at, and only now.
    // They are read whole, and forgotten with the round.
    let pods = asked::pods(target.asked, target.namespace, target.selector);
    let metrics = metrics.map_err(|error| format!("unable to get metrics for resource {name}: {error}"))?;
    let pods = pods.map_err(|error| format!("unable to get pods while calculating replica count: {error}"))?;
    let calculator = Calculator { pods: &pods, ..target.calculator };
    let requests = requests(&pods, container, name);
    let (replicas, current, used) = calculator.utilization(metrics, requests, percent, name == "cpu")?;
    let of = if container.is_some() { "container resource" } else { "resource" };
    let proposed = format!("{name} {of} utilization (percentage of request)");
    Ok((replicas, proposed, MetricValueStatus { average_utilization: Some(current), ..average(used) }))
}

/// What pods ask for of a resource, or one container of each does.
fn requests(pods: &[Arc<Pod>], container: Option<&str>, name: &str) -> Result<Requests, String> {
    pods.iter()
        .map(|pod| {
            let of = pod.metadata.name.clone().unwrap_or_default();
            let spec = pod.spec.clone().unwrap_or_default();
            let whole = spec.resources.as_ref().and_then(|r| r.requests.as_ref()).is_some_and(|r| !r.is_empty());
            if container.is_none() && whole {
                let amount = resources::requests(&spec).get(name);
                let milli = if name == "cpu" { amount } else { amount.saturating_mul(1000) };
                return if milli == 0 {
                    Err(format!("missing pod-level request for {name} in Pod {of}"))
                } else {
                    Ok((of, milli))
                };
            }
            let stays = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
            let all = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(stays));
            let counted: Vec<&Container> = all.filter(|c| container.is_none_or(|wanted| c.name == wanted)).collect();
            if let Some(wanted) = container.filter(|_| counted.is_empty()) {
                return Err(format!("container {wanted} not found in Pod {of}"));
            }
            let request = |c: &Container| amount(c.resources.as_ref()?.requests.as_ref()?.get(name));
            let mut sum = 0_i64;
            for c in counted {
                let missing = || format!("missing request for {name} in container {} of Pod {of}", c.name);
                sum = sum.saturating_add(request(c).ok_or_else(missing)?);
            }
            Ok((of, sum))
        })
        .collect()
}

fn of_pods(target: &Target<'_>, source: &PodsMetricSource) -> Result<Proposal, Invalid> {
    let invalid = |error: String| Invalid {
        reason: "FailedGetPodsMetric",
        listed: format!("failed to get pods metric value: {error}"),
        error,
    };
    let name = &source.metric.name;
    let metrics = custom(target, &source.metric)
        .map_err(invalid)?
        .of_pods(target.asked, target.selector)
        .map_err(|error| invalid(format!("unable to get metric {name}: {error}")))?;
    let wanted = amount(source.target.average_value.as_ref()).unwrap_or(0);
    let (replicas, used) = target.calculator.average(metrics, wanted, false).map_err(invalid)?;
    let status = PodsMetricStatus { current: average(used), metric: source.metric.clone() };
    Ok(Proposal {
        replicas,
        name: format!("pods metric {name}"),
        status: MetricStatus { type_: "Pods".into(), pods: Some(status), ..MetricStatus::default() },
    })
}

fn of_object(target: &Target<'_>, source: &ObjectMetricSource) -> Result<Proposal, Invalid> {
    let invalid = |inner: &str, error: String| Invalid {
        reason: "FailedGetObjectMetric",
        listed: format!("failed to get object metric value: {inner}{error}"),
        error,
    };
    let (name, object, wanted) = (&source.metric.name, &source.described_object, &source.target);
    let used = || {
        let used = custom(target, &source.metric)?.of_object(target.asked, object);
        // In the order that upstream says it in.
        used.map_err(|error| {
            format!("unable to get metric {name}: {} on {} {}/{error}", object.kind, target.namespace, object.name)
        })
    };
    let (replicas, proposed, current) = match (&*wanted.type_, wanted.value.as_ref(), wanted.average_value.as_ref()) {
        ("Value", value @ Some(_), _) => {
            let calculated = used().and_then(|used| {
                let replicas = target.calculator.value(used, amount(value).unwrap_or(0))?;
                Ok((replicas, format!("{} metric {name}", object.kind), total(used)))
            });
            calculated.map_err(|error| invalid("", error))?
        }
        ("AverageValue", _, value @ Some(_)) => {
            let used = used().map_err(|e| invalid(&format!("failed to get {name} object metric: "), e))?;
            let (replicas, each) = target.calculator.value_per_pod(used, amount(value).unwrap_or(0));
            (replicas, format!("external metric {name}({})", shown(source.metric.selector.as_ref())), average(each))
        }
        _ => {
            let error = "invalid object metric source: neither a value target nor an average value target was set";
            return Err(invalid("", error.into()));
        }
    };
    let status = ObjectMetricStatus { current, described_object: object.clone(), metric: source.metric.clone() };
    Ok(Proposal {
        replicas,
        name: proposed,
        status: MetricStatus { type_: "Object".into(), object: Some(status), ..MetricStatus::default() },
    })
}

fn of_external(target: &Target<'_>, source: &ExternalMetricSource) -> Result<Proposal, Invalid> {
    let name = &source.metric.name;
    let invalid = |inner: &str, error: String| Invalid {
        reason: "FailedGetExternalMetric",
        listed: format!("failed to get {name} external metric value: {inner}{error}"),
        error,
    };
    let selector = shown(source.metric.selector.as_ref());
    let used = || {
        let of = text(source.metric.selector.as_ref())?;
        asked::of_external(target.asked, target.namespace, name, of)
            .map_err(|error| format!("unable to get external metric {}/{name}/{selector}: {error}", target.namespace))
    };
    let (replicas, current) = if let value @ Some(_) = source.target.average_value.as_ref() {
        let used = used().map_err(|e| invalid(&format!("failed to get {name} external metric: "), e))?;
        let (replicas, each) = target.calculator.value_per_pod(used, amount(value).unwrap_or(0));
        (replicas, average(each))
    } else if let value @ Some(_) = source.target.value.as_ref() {
        let calculated =
            used().and_then(|used| Ok((target.calculator.value(used, amount(value).unwrap_or(0))?, total(used))));
        calculated.map_err(|e| invalid(&format!("failed to get external metric {name}: "), e))?
    } else {
        let error = "invalid external metric source: neither a value target nor an average value target was set";
        return Err(invalid("", error.into()));
    };
    let status = ExternalMetricStatus { current, metric: source.metric.clone() };
    Ok(Proposal {
        replicas,
        name: format!("external metric {name}({selector})"),
        status: MetricStatus { type_: "External".into(), external: Some(status), ..MetricStatus::default() },
    })
}

fn custom<'a>(target: &Target<'a>, metric: &'a MetricIdentifier) -> Result<Custom<'a>, String> {
    let selector = text(metric.selector.as_ref())?;
    Ok(Custom { stores: target.stores, namespace: target.namespace, metric: &metric.name, selector })
}

/// As a query has it.
fn text(selector: Option<&meta::LabelSelector>) -> Result<String, String> {
    selector.map_or(Ok(String::new()), |s| Ok(LabelSelector::from_meta(s).map_err(|e| e.to_string())?.to_string()))
}

/// As Go prints it: names and messages have it so.
fn shown(selector: Option<&meta::LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".into() };
    let labels = selector.match_labels.iter().flatten().map(|(k, v)| format!("{k}: {v},"));
    let expressions = selector.match_expressions.iter().flatten().map(|e| {
        let values = e.values.as_deref().unwrap_or_default().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", e.key, e.operator)
    });
    let (labels, expressions): (String, String) = (labels.collect(), expressions.collect());
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},\
         MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

/// In thousandths.
fn amount(quantity: Option<&resource::Quantity>) -> Option<i64> {
    Some(Quantity::parse(&quantity?.0).ok()?.milli())
}

fn average(milli: i64) -> MetricValueStatus {
    MetricValueStatus { average_value: written(milli), ..MetricValueStatus::default() }
}

fn total(milli: i64) -> MetricValueStatus {
    MetricValueStatus { value: written(milli), ..MetricValueStatus::default() }
}

#[allow(clippy::unnecessary_wraps, reason = "the fields are optional")]
fn written(milli: i64) -> Option<resource::Quantity> {
    Some(resource::Quantity(Quantity::from_milli(milli).to_string()))
}
