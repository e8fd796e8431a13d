//! Golden tables of rows.

use super::super::{Timestamp, row};
use super::*;
use crate::api::resource::find_kind;

/// `expect` has the cells with bars between them.
fn check(kind: (&str, &str), object: &Value, expect: &str) {
    let mut object = object.clone();
    object["metadata"]["name"] = "x".into();
    object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    let now: Timestamp = "2026-01-01T00:05:10Z".parse().unwrap();
    let cells = row(find_kind(kind.0, kind.1).unwrap(), &object, now).cells;
    let cells: Vec<String> = cells.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect();
    assert_eq!(cells.join("|"), expect, "{object}");
}

#[test]
fn jobs() {
    let job = |spec: Value, status: Value, expect: &str| {
        let mut object = json!({"spec": spec, "status": status});
        object["spec"]["template"] = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
        object["spec"]["selector"] = json!({"matchLabels": {"a": "b"}});
        check(("batch/v1", "Job"), &object, &format!("x|{expect}|5m10s|c|i|a=b"));
    };
    let condition = |kind: &str| json!([{"type": kind, "status": "True"}]);
    let (start, end) = ("2026-01-01T00:00:10Z", "2026-01-01T00:01:00Z");
    job(json!({"completions": 3}), json!({}), "Running|0/3|");
    job(json!({"parallelism": 2}), json!({"startTime": start, "succeeded": 1}), "Running|1/1 of 2|5m");
    job(json!({"parallelism": 1}), json!({"conditions": condition("Suspended")}), "Suspended|0/1|");
    job(json!({"completions": 1}), json!({"conditions": condition("FailureTarget")}), "FailureTarget|0/1|");
    job(
        json!({"completions": 1}),
        json!({"startTime": start, "completionTime": end, "succeeded": 1, "conditions": condition("Complete")}),
        "Complete|1/1|50s",
    );
    job(json!({"completions": 1}), json!({"conditions": condition("Failed")}), "Failed|0/1|");
    check(("batch/v1", "Job"), &json!({"metadata": {"deletionTimestamp": start}}), "x|Terminating|0/1||5m10s|||<none>");
}

#[test]
fn cron_jobs() {
    check(
        ("batch/v1", "CronJob"),
        &json!({
            "spec": {"schedule": "@hourly", "timeZone": "UTC", "suspend": true, "jobTemplate": {"spec": {
                "template": {"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}}}}},
            "status": {"active": [{}, {}], "lastScheduleTime": "2026-01-01T00:05:00Z"},
        }),
        "x|@hourly|UTC|True|2|10s|5m10s|c,d|i,j|<none>",
    );
    check(("batch/v1", "CronJob"), &json!({}), "x||<none>|<unset>|0|<none>|5m10s|||<none>");
}

#[test]
fn disruption_budgets() {
    check(
        ("policy/v1", "PodDisruptionBudget"),
        &json!({"spec": {"minAvailable": 2}, "status": {"disruptionsAllowed": 1}}),
        "x|2|N/A|1|5m10s",
    );
    check(("policy/v1", "PodDisruptionBudget"), &json!({"spec": {"maxUnavailable": "10%"}}), "x|N/A|10%|0|5m10s");
}

#[test]
fn autoscalers() {
    let reference = json!({"kind": "Deployment", "name": "d"});
    let new = |metrics: Value, current: Value, expect: &str| {
        let object = json!({
            "spec": {"scaleTargetRef": reference, "minReplicas": 1, "maxReplicas": 3, "metrics": metrics},
            "status": {"currentReplicas": 2, "currentMetrics": current},
        });
        check(("autoscaling/v2", "HorizontalPodAutoscaler"), &object, &format!("x|Deployment/d|{expect}|1|3|2|5m10s"));
    };
    let cpu = || json!({"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}});
    new(json!([]), json!([]), "<none>");
    new(json!([cpu()]), json!([]), "cpu: <unknown>/80%");
    new(
        json!([cpu()]),
        json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 50, "averageValue": "1"}}}]),
        "cpu: 50%/80%",
    );
    new(
        json!([{"type": "Pods", "pods": {"target": {"averageValue": "10"}}},
            {"type": "Object", "object": {"target": {"value": "5"}}}, cpu()]),
        json!([{"pods": {"current": {"averageValue": "7"}}}, {"object": {"current": {"value": "4"}}}]),
        "7/10, 4/5 + 1 more...",
    );
    new(
        json!([{"type": "External", "external": {"target": {"averageValue": "10"}}}, {"type": "?"}]),
        json!([{"pods": {"current": {"averageValue": "7"}}}]),
        "<unknown>/10 (avg), <unknown type>",
    );
    let metrics = json!([{"type": "Object", "object": {"target": {"kind": "a"}, "averageValue": "3"}}]).to_string();
    let current = json!([{"type": "Object", "object": {"target": {"kind": "a"}, "averageValue": "2"}}]).to_string();
    check(
        ("autoscaling/v1", "HorizontalPodAutoscaler"),
        &json!({
            "metadata": {"annotations": {METRICS: metrics, CURRENT_METRICS: current}},
            "spec": {"scaleTargetRef": reference, "maxReplicas": 3, "targetCPUUtilizationPercentage": 80},
        }),
        "x|Deployment/d|2/3 (avg), cpu: <unknown>/80%|<unset>|3|0|5m10s",
    );
}
