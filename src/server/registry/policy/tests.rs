//! Tables: PodDisruptionBudget.

use serde_json::{Value, json};

use super::*;
use crate::api::user::User;
use crate::server::registry::strategy::{Strategy, Typed};

const KIND: Typed<PodDisruptionBudgetKind> = Typed(PodDisruptionBudgetKind);

fn cx() -> Context {
    Context::new(User::default())
}

fn texts(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn made(spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "a", "namespace": "b"},
        "spec": spec, "status": {"expectedPods": 7},
    });
    KIND.defaults(&mut object).unwrap();
    KIND.prepare_create(&cx(), &mut object).unwrap();
    object
}

fn check(spec: Value, expect: &[&str]) {
    assert_eq!(texts(&KIND.prepare_create(&cx(), &mut made(spec)).unwrap().errors), expect);
}

#[test]
fn what_is_made() {
    let object = made(json!({"maxUnavailable": 1}));
    let zeros = json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
    assert_eq!((&object["status"], &object["metadata"]["generation"]), (&zeros, &json!(1)));
    assert!(!KIND.unconditional_update());
}

#[test]
fn validation() {
    check(json!({"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}}), &[]);
    check(
        json!({"minAvailable": 1, "maxUnavailable": 1}),
        &["spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1}: minAvailable and maxUnavailable cannot be \
           both set"],
    );
    check(json!({"minAvailable": -1}), &["spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"]);
    check(
        json!({"maxUnavailable": "101%"}),
        &["spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"],
    );
    check(
        json!({"maxUnavailable": "some"}),
        &["spec.maxUnavailable: Invalid value: \"some\": a valid percent string must be a numeric string followed by \
           an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"],
    );
    check(
        json!({"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
        &["spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or \
           'NotIn'"],
    );
    check(
        json!({"unhealthyPodEvictionPolicy": "Never"}),
        &["spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \
           \"IfHealthyBudget\""],
    );
}

#[test]
fn updates() {
    let old = made(json!({"maxUnavailable": 1}));
    let update = |part: Part, pointer: &str, value: Value| {
        let mut new = old.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        new.pointer_mut(parent).unwrap()[field] = value;
        let errors = KIND.prepare_update(&cx(), part, &mut new, &old).unwrap().errors;
        (new, texts(&errors))
    };
    let (new, errors) = update(Part::Spec, "/spec/maxUnavailable", json!(2));
    assert_eq!((errors.len(), &new["metadata"]["generation"]), (0, &json!(2)));
    assert_eq!(update(Part::Spec, "/status/expectedPods", json!(2)).0, old);
    assert_eq!(update(Part::Status, "/spec/maxUnavailable", json!(2)).0, old);
    let (_, errors) = update(Part::Status, "/status/expectedPods", json!(-1));
    assert_eq!(errors, ["status.expectedPods: Invalid value: -1: must be greater than or equal to 0"]);
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": "", "observedGeneration": -1,
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let both = json!([condition("A", "True", "Ok"), condition("A", "Maybe", "")]);
    let (_, errors) = update(Part::Status, "/status/conditions", both);
    assert_eq!(
        errors,
        [
            "status.conditions[0].observedGeneration: Invalid value: -1: must be greater than or equal to zero",
            "status.conditions[1].type: Duplicate value: \"A\"",
            "status.conditions[1].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \
             \"Unknown\"",
            "status.conditions[1].observedGeneration: Invalid value: -1: must be greater than or equal to zero",
            "status.conditions[1].reason: Required value: must be set",
        ]
    );
    let (_, errors) = update(Part::Status, "/status/conditions", json!([condition("A", "True", "not one")]));
    assert_eq!(errors[1], format!("status.conditions[0].reason: Invalid value: \"not one\": {REASON}"));
}

#[test]
fn a_time_that_is_null_is_no_time() {
    let object = json!({"status": {"disruptedPods": {"a": null, "b": "2026-01-01T00:00:00Z"}}});
    let stored = KIND.storage_form(object);
    assert_eq!(stored["status"]["disruptedPods"], json!({"b": "2026-01-01T00:00:00Z"}));
}
