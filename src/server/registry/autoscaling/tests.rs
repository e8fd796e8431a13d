//! Tables: HorizontalPodAutoscaler in both of its versions.

use serde_json::{Value, json};

use super::*;
use crate::api::user::User;
use crate::server::registry::strategy::{Strategy, Typed};

const V1: Typed<HorizontalPodAutoscalerKind> = Typed(HorizontalPodAutoscalerKind::V1);
const V2: Typed<HorizontalPodAutoscalerKind> = Typed(HorizontalPodAutoscalerKind::V2);

fn cx() -> Context {
    Context::new(User::default())
}

fn texts(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn autoscaler(version: &str, change: &[(&str, Value)]) -> Value {
    let mut object = json!({
        "apiVersion": version, "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a", "namespace": "b"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "maxReplicas": 3},
    });
    for (pointer, value) in change {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[field] = value.clone();
    }
    object
}

fn created(strategy: &dyn Strategy, change: &[(&str, Value)]) -> Value {
    let mut object = strategy.storage_form(autoscaler(&strategy.resource().api_version(), change));
    strategy.defaults(&mut object).unwrap();
    strategy.prepare_create(&cx(), &mut object).unwrap();
    object
}

fn check(change: &[(&str, Value)], expect: &[&str]) {
    assert_eq!(texts(&V2.prepare_create(&cx(), &mut created(&V2, change)).unwrap().errors), expect);
}

fn check_metric(metric: Value, expect: &[&str]) {
    let expect: Vec<String> = expect.iter().map(|e| format!("spec.metrics[0].{e}")).collect();
    let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
    check(&[("/spec/metrics", json!([metric]))], &expect);
}

#[test]
fn what_is_filled_in() {
    let cpu = json!([{"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 80}}}]);
    for strategy in [&V1, &V2] {
        let made = created(strategy, &[]);
        assert_eq!((&made["spec"]["minReplicas"], &made["spec"]["metrics"]), (&json!(1), &cpu));
        assert_eq!((&made["spec"]["behavior"], &made["metadata"]["generation"]), (&Value::Null, &json!(1)));
        assert_eq!(made["status"], json!({"desiredReplicas": 0}));
    }
    let made = created(&V2, &[("/spec/behavior", json!({"scaleDown": {"selectPolicy": "Min", "tolerance": "50m"}}))]);
    assert_eq!(
        made["spec"]["behavior"],
        json!({
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15}]},
            "scaleDown": {"selectPolicy": "Min", "tolerance": "50m", "policies": [
                {"type": "Percent", "value": 100, "periodSeconds": 15}]},
        })
    );
    let pods = json!([{"type": "Pods", "pods": {"metric": {"name": "m"},
        "target": {"type": "AverageValue", "averageValue": "1000m"}}}]);
    let made = created(&V2, &[("/spec/metrics", pods)]);
    assert_eq!(made["spec"]["metrics"][0]["pods"]["target"]["averageValue"], "1");
}

#[test]
fn numbers_and_references() {
    check(&[], &[]);
    check(
        &[("/spec/minReplicas", json!(0)), ("/spec/maxReplicas", json!(-1))],
        &[
            "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
            "spec.maxReplicas: Invalid value: -1: must be greater than 0",
            "spec.maxReplicas: Invalid value: -1: must be greater than or equal to `minReplicas`",
            "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero \
             replicas",
        ],
    );
    let reference = |version: &str, kind: &str, name: &str, expect: &[&str]| {
        let reference = json!({"apiVersion": version, "kind": kind, "name": name});
        let expect: Vec<String> = expect.iter().map(|e| format!("spec.scaleTargetRef.{e}")).collect();
        let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
        check(&[("/spec/scaleTargetRef", reference)], &expect);
    };
    reference("apps/v1", "", "", &["kind: Required value", "name: Required value"]);
    reference("apps/v1", "A", "a/b", &["name: Invalid value: \"a/b\": may not contain '/'"]);
    reference("v1", "Deployment", "a", &["apiVersion: Invalid value: \"v1\": apiVersion must specify API group"]);
    reference("v1", "ReplicationController", "a", &[]);
    reference("a/b/c", "A", "a", &["apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c"]);
}

#[test]
fn behavior() {
    let check = |rules: Value, expect: &[&str]| {
        let expect: Vec<String> = expect.iter().map(|e| format!("spec.behavior.scaleUp.{e}")).collect();
        let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
        check(&[("/spec/behavior", json!({"scaleUp": rules}))], &expect);
    };
    check(
        json!({"stabilizationWindowSeconds": -1, "selectPolicy": "Some", "policies": [], "tolerance": "-1"}),
        &[
            "stabilizationWindowSeconds: Invalid value: -1: must be greater than or equal to zero",
            "selectPolicy: Unsupported value: \"Some\": supported values: \"Disabled\", \"Max\", \"Min\"",
            "policies: Required value: must specify at least one Policy",
            "tolerance: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
    check(
        json!({"stabilizationWindowSeconds": 3601, "policies": [{"type": "Some", "value": 0, "periodSeconds": 0},
            {"type": "Pods", "value": 1, "periodSeconds": 1801}]}),
        &[
            "stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
            "policies[0].type: Unsupported value: \"Some\": supported values: \"Percent\", \"Pods\"",
            "policies[0].value: Invalid value: 0: must be greater than zero",
            "policies[0].periodSeconds: Invalid value: 0: must be greater than zero",
            "policies[1].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
        ],
    );
}

#[test]
fn metrics() {
    check_metric(
        json!({"type": ""}),
        &[
            "type: Required value: must specify a metric source type",
            "type: Unsupported value: \"\": supported values: \"ContainerResource\", \"External\", \"Object\", \
             \"Pods\", \"Resource\"",
        ],
    );
    check_metric(
        json!({"type": "Pods"}),
        &["pods: Required value: must populate information for the given metric source"],
    );
    let resource = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 1}});
    let pods = json!({"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}});
    check_metric(
        json!({"type": "Pods", "pods": pods, "resource": resource}),
        &["resource: Forbidden: must populate the given metric source only"],
    );
    check_metric(
        json!({"type": "Resource", "resource": {"name": "", "target": {"type": "Some", "averageUtilization": 0,
            "averageValue": "0"}}}),
        &[
            "resource.name: Required value: must specify a resource name",
            "resource.target.type: Invalid value: \"Some\": must be either Utilization, Value, or AverageValue",
            "resource.target.averageValue: Invalid value: \"0\": must be positive",
            "resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
            "resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization",
        ],
    );
    check_metric(
        json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "",
            "target": {"type": "Utilization"}}}),
        &[
            "containerResource.container: Required value: must specify a container",
            "containerResource.target.averageUtilization: Required value: must set either a target raw value or a \
             target utilization",
        ],
    );
    check_metric(
        json!({"type": "Pods", "pods": {"metric": {"name": "a/b"}, "target": {"type": ""}}}),
        &[
            "pods.metric.name: Invalid value: \"a/b\": may not contain '/'",
            "pods.target.type: Required value: must specify a metric target type",
            "pods.target.type: Invalid value: \"\": must be either Utilization, Value, or AverageValue",
            "pods.target.averageValue: Required value: must specify a positive target averageValue",
        ],
    );
    check_metric(
        json!({"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "", "apiVersion": "v1"},
            "metric": {"name": ""}, "target": {"type": "Value"}}}),
        &[
            "object.describedObject.name: Required value",
            "object.metric.name: Required value: must specify a metric name",
            "object.target.averageValue: Required value: must set either a target value or averageValue",
        ],
    );
    let external = |target: Value| json!({"type": "External", "external": {"metric": {"name": "m"}, "target": target}});
    check_metric(
        external(json!({"type": "Value"})),
        &[
            "external.target.averageValue: Required value: must set either a target value for metric or a per-pod target",
        ],
    );
    check_metric(
        external(json!({"type": "Value", "value": "1", "averageValue": "1"})),
        &["external.target.value: Forbidden: may not set both a target value for metric and a per-pod target"],
    );
}

#[test]
fn updates() {
    let old = created(&V2, &[("/spec/scaleTargetRef/apiVersion", json!("v1"))]);
    let update = |part: Part, pointer: &str, value: Value| {
        let mut new = old.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        new.pointer_mut(parent).unwrap()[field] = value;
        let errors = V2.prepare_update(&cx(), part, &mut new, &old).unwrap().errors;
        (new, texts(&errors))
    };
    // The group of what is scaled is not asked for again.
    let (new, errors) = update(Part::Spec, "/spec/maxReplicas", json!(5));
    assert_eq!((errors.len(), &new["metadata"]["generation"]), (0, &json!(2)));
    let (_, errors) = update(Part::Spec, "/spec/scaleTargetRef/kind", json!("StatefulSet"));
    assert_eq!(errors, ["spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group"]);
    assert_eq!(update(Part::Spec, "/status/desiredReplicas", json!(2)).0, old);
    assert_eq!(update(Part::Status, "/spec/maxReplicas", json!(2)).0, old);
    let (new, errors) = update(Part::Status, "/status/desiredReplicas", json!(-1));
    assert_eq!(new["status"]["desiredReplicas"], -1);
    assert_eq!(errors, ["status.desiredReplicas: Invalid value: -1: must be greater than or equal to 0"]);
}

#[test]
fn the_old_version_says_cpu() {
    let made = created(&V1, &[("/spec/targetCPUUtilizationPercentage", json!(50))]);
    assert_eq!(
        (&made["apiVersion"], &made["spec"]["targetCPUUtilizationPercentage"]),
        (&json!("autoscaling/v2"), &Value::Null)
    );
    assert_eq!(made["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
    let shown = V1.wire_form(made);
    assert_eq!((&shown["apiVersion"], &shown["metadata"]["annotations"]), (&json!("autoscaling/v1"), &Value::Null));
    assert_eq!(
        (&shown["spec"]["targetCPUUtilizationPercentage"], &shown["spec"]["metrics"]),
        (&json!(50), &Value::Null)
    );
    assert_eq!(shown["status"], json!({"currentReplicas": 0, "desiredReplicas": 0}));
}

#[test]
fn what_the_old_version_cannot_say_is_in_annotations() {
    let target = |kind: &str, field: &str| json!({"type": kind, field: "1"});
    let metrics = json!([
        {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"},
            "metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}}, "target": target("Value", "value")}},
        {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": target("AverageValue", "averageValue")}},
        {"type": "External", "external": {"metric": {"name": "m"}, "target": target("AverageValue", "averageValue")}},
        {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
            "target": {"type": "Utilization", "averageUtilization": 7}}},
        {"type": "Resource", "resource": {"name": "memory", "target": target("AverageValue", "averageValue")}},
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 9}}},
    ]);
    let mut made = created(&V2, &[("/spec/metrics", metrics), ("/spec/behavior", json!({}))]);
    made["status"]["currentMetrics"] = json!([
        {"type": "Resource", "resource": {"name": "cpu", "current": {"averageValue": "1", "averageUtilization": 8}}},
        {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "m"},
            "current": {"value": "2"}}},
    ]);
    made["status"]["currentReplicas"] = json!(1);
    made["status"]["conditions"] = json!([{"type": "AbleToScale", "status": "True"}]);
    let shown = V1.wire_form(made.clone());
    assert_eq!(shown["spec"]["targetCPUUtilizationPercentage"], 9);
    assert_eq!(
        shown["status"],
        json!({"currentReplicas": 1, "desiredReplicas": 0, "currentCPUUtilizationPercentage": 8})
    );
    let note = |name: &str| -> Value {
        let key = format!("autoscaling.alpha.kubernetes.io/{name}");
        serde_json::from_str(shown["metadata"]["annotations"][key].as_str().unwrap()).unwrap()
    };
    assert_eq!(
        note("metrics")[0],
        json!({"type": "Object", "object": {"target": {"kind": "Service", "name": "s"}, "metricName": "m",
            "selector": {"matchLabels": {"a": "b"}}, "targetValue": "1"}})
    );
    assert_eq!(
        note("current-metrics")[0],
        json!({"type": "Resource",
            "resource": {"name": "cpu", "currentAverageUtilization": 8, "currentAverageValue": "1"}})
    );
    assert_eq!(note("conditions")[0]["type"], "AbleToScale");
    assert_eq!(note("behavior")["ScaleDown"]["Policies"][0]["PeriodSeconds"], 15);
    // And back: nothing is lost.
    assert_eq!(V1.storage_form(shown), made);
}

#[test]
fn annotations_that_are_not_what_they_should_be_are_dropped() {
    let key = |name: &str| format!("autoscaling.alpha.kubernetes.io/{name}");
    let annotations = json!({
        key("metrics"): "[{\"type\": 5}]", key("behavior"): "x", key("conditions"): "{}", key("current-metrics"): "[1]",
        "other": "stays",
    });
    for strategy in [&V1, &V2] {
        let made = created(strategy, &[("/metadata/annotations", annotations.clone())]);
        assert_eq!(made["metadata"]["annotations"], json!({"other": "stays"}));
        assert_eq!(made["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        assert_eq!(made["spec"]["behavior"], Value::Null);
    }
}
