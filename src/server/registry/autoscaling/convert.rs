//! Decides: HorizontalPodAutoscaler of `autoscaling/v1` in terms of `v2`, and back.
//!
//! `v1` knows one metric: how much of the CPU that they request the pods use. Other metrics, the behavior and the
//! conditions travel in annotations, which exist in `v1` only: what a client of `v1` read and writes again loses nothing.

use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerCondition, MetricSpec, MetricStatus,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

const CPU_TARGET: &str = "targetCPUUtilizationPercentage";
const CPU_CURRENT: &str = "currentCPUUtilizationPercentage";

type Fields = &'static [(&'static str, &'static str)];

/// The sources of a metric, with the fields of each: `v2` on the left, `v1` on the right.
const SOURCES: &[(&str, Fields)] = &[
    (
        "object",
        &[
            ("describedObject", "target"),
            ("metric.name", "metricName"),
            ("metric.selector", "selector"),
            ("target.value", "targetValue"),
            ("target.averageValue", "averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("metric.name", "metricName"),
            ("metric.selector", "selector"),
            ("target.averageValue", "targetAverageValue"),
        ],
    ),
    (
        "resource",
        &[
            ("name", "name"),
            ("target.averageUtilization", "targetAverageUtilization"),
            ("target.averageValue", "targetAverageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", "name"),
            ("container", "container"),
            ("target.averageUtilization", "targetAverageUtilization"),
            ("target.averageValue", "targetAverageValue"),
        ],
    ),
    (
        "external",
        &[
            ("metric.name", "metricName"),
            ("metric.selector", "metricSelector"),
            ("target.value", "targetValue"),
            ("target.averageValue", "targetAverageValue"),
        ],
    ),
];

/// The same for what was measured.
const MEASURED: &[(&str, Fields)] = &[
    (
        "object",
        &[
            ("describedObject", "target"),
            ("metric.name", "metricName"),
            ("metric.selector", "selector"),
            ("current.value", "currentValue"),
            ("current.averageValue", "averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("metric.name", "metricName"),
            ("metric.selector", "selector"),
            ("current.averageValue", "currentAverageValue"),
        ],
    ),
    (
        "resource",
        &[
            ("name", "name"),
            ("current.averageUtilization", "currentAverageUtilization"),
            ("current.averageValue", "currentAverageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", "name"),
            ("container", "container"),
            ("current.averageUtilization", "currentAverageUtilization"),
            ("current.averageValue", "currentAverageValue"),
        ],
    ),
    (
        "external",
        &[
            ("metric.name", "metricName"),
            ("metric.selector", "metricSelector"),
            ("current.value", "currentValue"),
            ("current.averageValue", "currentAverageValue"),
        ],
    ),
];

/// `v2` never shows the annotations.
pub fn without_annotations(mut object: Value) -> Value {
    take_annotations(&mut object);
    object
}

pub fn to_v1(mut object: Value) -> Value {
    take_annotations(&mut object);
    let mut notes = Map::new();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let metrics = take_list(spec, "metrics");
        let utilization = |metric: &Value| cpu(metric, "target");
        if let Some(percent) = metrics.iter().find(|m| is_cpu(m)).and_then(utilization) {
            spec.insert(CPU_TARGET.into(), percent);
        }
        let others = metrics.iter().filter(|m| utilization(m).is_none());
        note(&mut notes, METRICS, others.map(|m| older(m, SOURCES)).collect());
        if let Some(behavior) = spec.remove("behavior").filter(|b| !b.is_null()) {
            // Upstream writes its inner type here, whose fields have the names that they have in Go.
            notes.insert(BEHAVIOR.into(), renamed(behavior, char::to_ascii_uppercase).to_string().into());
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        for count in ["currentReplicas", "desiredReplicas"] {
            status.entry(count).or_insert_with(|| 0.into());
        }
        let metrics = take_list(status, "currentMetrics");
        if let Some(percent) = metrics.iter().rev().find_map(|m| cpu(m, "current")) {
            status.insert(CPU_CURRENT.into(), percent);
        }
        // All of them: the percentage says nothing of the value.
        note(&mut notes, CURRENT_METRICS, metrics.iter().map(|m| older(m, MEASURED)).collect());
        note(&mut notes, CONDITIONS, take_list(status, "conditions"));
    }
    if let Some(root) = object.as_object_mut() {
        root.insert("apiVersion".into(), "autoscaling/v1".into());
        if !notes.is_empty()
            && let Some(annotations) = inner(root, "metadata").and_then(|m| inner(m, "annotations"))
        {
            annotations.extend(notes);
        }
    }
    object
}

pub fn to_v2(mut object: Value) -> Value {
    let notes = take_annotations(&mut object);
    let Some(root) = object.as_object_mut() else { return object };
    root.insert("apiVersion".into(), "autoscaling/v2".into());
    if let Some(spec) = root.get_mut("spec").and_then(Value::as_object_mut) {
        for field in ["metrics", "behavior"] {
            spec.remove(field);
        }
        let mut metrics = read_metrics::<MetricSpec>(&notes, METRICS, SOURCES).unwrap_or_default();
        if let Some(percent) = spec.remove(CPU_TARGET).filter(|p| !p.is_null()) {
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        if !metrics.is_empty() {
            spec.insert("metrics".into(), metrics.into());
        }
        let behavior = parsed(&notes, BEHAVIOR).map(|b| renamed(b, char::to_ascii_lowercase));
        let said = |b: &Value| b.as_object().is_some_and(|b| b.values().any(|rules| !rules.is_null()));
        if let Some(behavior) = behavior.filter(said).filter(is::<HorizontalPodAutoscalerBehavior>) {
            spec.insert("behavior".into(), behavior);
        }
    }
    let (measured, conditions) = (
        read_metrics::<MetricStatus>(&notes, CURRENT_METRICS, MEASURED),
        parsed(&notes, CONDITIONS).filter(is::<Vec<HorizontalPodAutoscalerCondition>>),
    );
    if measured.is_some() || conditions.is_some() || root.get("status").is_some_and(Value::is_object) {
        let Some(status) = inner(root, "status") else { return object };
        for field in ["currentMetrics", "conditions"] {
            status.remove(field);
        }
        let percent = status.remove(CPU_CURRENT).filter(|p| !p.is_null()).map(|percent| {
            let current = json!({"averageUtilization": percent});
            vec![json!({"type": "Resource", "resource": {"name": "cpu", "current": current}})]
        });
        // The annotation says more than the percentage.
        if let Some(metrics) = measured.or(percent) {
            status.insert("currentMetrics".into(), metrics.into());
        }
        if let Some(conditions) = conditions {
            status.insert("conditions".into(), conditions);
        }
    }
    object
}

fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

/// The percentage that `v1` can say itself; `side` is `target` or `current`.
fn cpu(metric: &Value, side: &str) -> Option<Value> {
    let percent = &metric["resource"][side]["averageUtilization"];
    (is_cpu(metric) && !percent.is_null()).then(|| percent.clone())
}

/// An object in an object, made when it is not there. `None` when something else is there.
fn inner<'a>(outer: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    let value = outer.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

fn take_annotations(object: &mut Value) -> Map<String, Value> {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return Map::new() };
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else {
        return Map::new();
    };
    let keys = [METRICS, BEHAVIOR, CURRENT_METRICS, CONDITIONS];
    let taken: Map<String, Value> = keys.into_iter().filter_map(|key| annotations.remove_entry(key)).collect();
    if !taken.is_empty() && annotations.is_empty() {
        metadata.remove("annotations");
    }
    taken
}

fn take_list(object: &mut Map<String, Value>, key: &str) -> Vec<Value> {
    match object.remove(key) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn note(notes: &mut Map<String, Value>, key: &str, list: Vec<Value>) {
    if !list.is_empty() {
        notes.insert(key.into(), Value::from(list).to_string().into());
    }
}

fn parsed(notes: &Map<String, Value>, key: &str) -> Option<Value> {
    serde_json::from_str(notes.get(key)?.as_str()?).ok()
}

fn is<T: DeserializeOwned>(value: &Value) -> bool {
    T::deserialize(value).is_ok()
}

/// Anyone can write an annotation: one that is not what it should be is not there.
fn read_metrics<T: DeserializeOwned>(
    notes: &Map<String, Value>,
    key: &str,
    table: &[(&str, Fields)],
) -> Option<Vec<Value>> {
    let list = parsed(notes, key)?;
    let metrics: Vec<Value> = list.as_array()?.iter().map(|metric| newer(metric, table)).collect();
    metrics.iter().all(is::<T>).then_some(metrics)
}

/// A metric of `v2` as `v1` has it.
fn older(metric: &Value, table: &[(&str, Fields)]) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (source, fields) in table.iter().filter(|(source, _)| metric[source].is_object()) {
        out[source] = json!({});
        for (new, old) in *fields {
            if let Some(value) = new.split('.').try_fold(&metric[source], |value, key| value.get(key)) {
                out[source][old] = value.clone();
            }
        }
    }
    out
}

/// A metric of `v1` as `v2` has it.
fn newer(metric: &Value, table: &[(&str, Fields)]) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (source, fields) in table.iter().filter(|(source, _)| metric[source].is_object()) {
        let old_source = &metric[source];
        out[source] = json!({});
        for (new, old) in *fields {
            let Some(value) = old_source.get(old) else { continue };
            match new.split_once('.') {
                Some((outer, inner)) => out[source][outer][inner] = value.clone(),
                None => out[source][new] = value.clone(),
            }
        }
        if fields.iter().any(|(new, _)| new.starts_with("target.")) {
            out[source]["target"]["type"] = target_type(source, old_source).into();
        }
    }
    out
}

/// `v1` does not say what kind of target it has: it follows from which is there.
fn target_type(source: &str, metric: &Value) -> &'static str {
    let has = |field: &str| !metric[field].is_null();
    match source {
        "resource" | "containerResource" if has("targetAverageUtilization") => "Utilization",
        "object" if !has("averageValue") => "Value",
        "external" if has("targetValue") => "Value",
        _ => "AverageValue",
    }
}

/// Changes the first letter of every key.
fn renamed(value: Value, letter: fn(&char) -> char) -> Value {
    match value {
        Value::Object(fields) => {
            let rename = |(key, value): (String, Value)| {
                let mut letters = key.chars();
                let first = letters.next().map(|c| letter(&c));
                (first.into_iter().chain(letters).collect::<String>(), renamed(value, letter))
            };
            fields.into_iter().map(rename).collect()
        }
        Value::Array(list) => list.into_iter().map(|value| renamed(value, letter)).collect(),
        plain => plain,
    }
}
