//! Tables: ResourceQuota and LimitRange.

use serde_json::{Value, json};

use super::ResourceQuotaKind;
use crate::server::registry::core::limit_range::LimitRangeKind;
use crate::server::registry::core::persistent_volume::tests::{made, updated};
use crate::server::registry::strategy::Part;

fn quota(spec: Value, expect: &[&str]) -> Value {
    made(ResourceQuotaKind, json!({"spec": spec}), expect)
}

fn limit(item: Value, expect: &[&str]) -> Value {
    made(LimitRangeKind, json!({"spec": {"limits": [item]}}), expect)
}

#[test]
fn quotas() {
    let hard = json!({
        "cpu": "1", "requests.storage": "1Gi", "count/jobs.batch": "3", "requests.hugepages-2Mi": "2Mi",
        "gold.storageclass.storage.k8s.io/requests.storage": "1Gi",
    });
    let old = quota(json!({"hard": hard}), &[]);
    assert_eq!(old["status"], json!({}));
    quota(
        json!({"hard": {"cores": "1", "storage": "1", "pods": "500m", "services.nodeports": "500m", "cpu": "-1"}}),
        &[
            "spec.hard[cores]: Invalid value: \"cores\": must be a standard resource type or fully qualified",
            "spec.hard[cores]: Invalid value: \"cores\": must be a standard resource for quota",
            "spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            "spec.hard[pods]: Invalid value: \"500m\": must be an integer",
            "spec.hard[services.nodeports]: Invalid value: \"500m\": must be an integer",
            "spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota",
        ],
    );
    let status = |pointer: &str, expect: &[&str]| {
        updated(ResourceQuotaKind, Part::Status, &old, &[(pointer, json!({"cores": "1"}))], expect)
    };
    status(
        "/status/used",
        &[
            "status.used[cores]: Invalid value: \"cores\": must be a standard resource type or fully qualified",
            "status.used[cores]: Invalid value: \"cores\": must be a standard resource for quota",
        ],
    );
    assert_eq!(status("/spec/hard", &[]), old);
    let change = [("/status/used", json!({"cpu": "1"}))];
    assert_eq!(updated(ResourceQuotaKind, Part::Spec, &old, &change, &[]), old);
}

#[test]
fn scopes() {
    let old = quota(json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]}), &[]);
    updated(
        ResourceQuotaKind,
        Part::Spec,
        &old,
        &[("/spec/scopes", json!(["NotBestEffort"]))],
        &["spec.scopes: Invalid value: [\"NotBestEffort\"]: field is immutable"],
    );
    quota(
        json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort", "NotBestEffort", "Best"]}),
        &[
            "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"Best\"]: unsupported scope applied to \
             resource",
            "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"Best\"]: unsupported scope",
            "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"Best\"]: conflicting scopes",
        ],
    );
    let select = |hard: &str, requirement: Value, expect: &[&str]| {
        let selector = json!({"matchExpressions": [requirement]});
        quota(json!({"hard": {hard: "1"}, "scopeSelector": selector}), expect);
    };
    select("pods", json!({"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}), &[]);
    select("persistentvolumeclaims", json!({"scopeName": "VolumeAttributesClass", "operator": "Exists"}), &[]);
    let at = "spec.scopeSelector.matchExpressions";
    select(
        "pods",
        json!({"scopeName": "PriorityClass", "operator": "In"}),
        &[&format!(
            "{at}.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope \
             selector"
        )],
    );
    select(
        "pods",
        json!({"scopeName": "PriorityClass", "operator": "Exists", "values": ["a"]}),
        &[&format!(
            "{at}.values: Invalid value: [\"a\"]: must be no value when `operator` is 'Exist' or 'DoesNotExist' for \
             scope selector"
        )],
    );
    select(
        "pods",
        json!({"scopeName": "Terminating", "operator": "Is"}),
        &[
            &format!(
                "{at}.operator: Invalid value: \"Is\": must be 'Exists' when scope is any of \
                 ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                 ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
            ),
            &format!("{at}.operator: Invalid value: \"Is\": not a valid selector operator"),
        ],
    );
    select(
        "secrets",
        json!({"scopeName": "PriorityClass", "operator": "Exists"}),
        &[&format!(
            "{at}: Invalid value: {{\"matchExpressions\":[{{\"operator\":\"Exists\",\"scopeName\":\"PriorityClass\"\
             }}]}}: unsupported scope applied to resource"
        )],
    );
}

#[test]
fn limit_defaults() {
    let made = limit(json!({"type": "Container", "max": {"cpu": "2000m"}, "min": {"memory": "1Mi"}}), &[]);
    let item = &made["spec"]["limits"][0];
    assert_eq!(item["max"], json!({"cpu": "2"}));
    assert_eq!(item["default"], json!({"cpu": "2"}));
    assert_eq!(item["defaultRequest"], json!({"cpu": "2", "memory": "1Mi"}));
    let made = limit(json!({"type": "Pod", "max": {"cpu": "2"}}), &[]);
    assert_eq!(made["spec"]["limits"][0], json!({"type": "Pod", "max": {"cpu": "2"}}));
}

#[test]
fn limits() {
    let one = json!({"type": "Pod"});
    made(LimitRangeKind, json!({"spec": {"limits": [one, one]}}), &["spec.limits[1].type: Duplicate value: \"Pod\""]);
    limit(
        json!({"type": "Job"}),
        &["spec.limits[0].type: Invalid value: \"Job\": must be a standard limit type or fully qualified"],
    );
    limit(json!({"type": "example.com/image", "max": {"storage": "1Gi"}}), &[]);
    limit(
        json!({"type": "Pod", "default": {"cpu": "1"}, "max": {"storage": "1"}}),
        &[
            "spec.limits[0].max[storage]: Invalid value: \"storage\": must be a standard resource for containers",
            "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
        ],
    );
    limit(
        json!({"type": "PersistentVolumeClaim"}),
        &["spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither \
           was provided"],
    );
    limit(
        json!({"type": "Pod", "min": {"cpu": "2"}, "max": {"cpu": "1"}}),
        &["spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"],
    );
    let container = |list: Value, expect: &[&str]| {
        let mut item = json!({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "4"}});
        for (field, value) in list.as_object().unwrap() {
            item[field] = json!({"cpu": value});
        }
        limit(item, expect);
    };
    container(
        json!({"defaultRequest": "1"}),
        &["spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request \
           value 1"],
    );
    container(
        json!({"default": "3", "defaultRequest": "5"}),
        &[
            "spec.limits[0].defaultRequest[cpu]: Invalid value: \"5\": default request value 5 is greater than max \
             value 4",
            "spec.limits[0].defaultRequest[cpu]: Invalid value: \"5\": default request value 5 is greater than \
             default limit value 3",
        ],
    );
    container(
        json!({"default": "1", "defaultRequest": "1"}),
        &[
            "spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request \
             value 1",
            "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
        ],
    );
    container(
        json!({"default": "5", "defaultRequest": "3"}),
        &["spec.limits[0].default[cpu]: Invalid value: \"4\": default value 5 is greater than max value 4"],
    );
    container(
        json!({"maxLimitRequestRatio": "500m"}),
        &["spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1"],
    );
    container(
        json!({"maxLimitRequestRatio": "3"}),
        &["spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = \
           2.000000"],
    );
    limit(
        json!({"type": "Container", "default": {"a.com/gpu": "2"}, "defaultRequest": {"a.com/gpu": "1"}}),
        &["spec.limits[0].defaultRequest[a.com/gpu]: Invalid value: \"1\": default value 2 must equal to \
           defaultRequest value 1 in a.com/gpu"],
    );
}
