//! Tables: what behaviors allow.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;

use super::super::behavior::allowed;
use super::*;

/// With what the API server fills in.
fn behavior(up: Value, down: Value) -> HorizontalPodAutoscalerBehavior {
    let mut whole = json!({
        "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]},
        "scaleDown": {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
    });
    whole["scaleUp"].as_object_mut().unwrap().extend(up.as_object().unwrap().clone());
    whole["scaleDown"].as_object_mut().unwrap().extend(down.as_object().unwrap().clone());
    serde_json::from_value(whole).unwrap()
}

fn policies(list: &[(&str, i32, i32)]) -> Value {
    list.iter().map(|(kind, value, period)| json!({"type": kind, "value": value, "periodSeconds": period})).collect()
}

/// `replicas AbleToScale's reason, ScalingLimited's reason` and an exclamation mark when it is limited.
fn told(
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    history: &mut History,
    (current, wanted): (i32, i32),
    at: i64,
) -> String {
    let bounds = Bounds { current, least: 2, most: 100 };
    let got = allowed(behavior, history, wanted, bounds, later(at));
    format!("{} {}, {}{}", got.replicas, got.able.0, got.limit.0, if got.limited { "!" } else { "" })
}

#[test]
fn without_a_behavior() {
    let check = |current, wanted, expect: &str| {
        assert_eq!(told(None, &mut History::default(), (current, wanted), 0), expect, "{current} to {wanted}");
    };
    check(5, 5, "5 ReadyForNewScale, DesiredWithinRange");
    check(5, 3, "3 ReadyForNewScale, DesiredWithinRange");
    check(5, 1, "2 ReadyForNewScale, TooFewReplicas!");
    check(5, 10, "10 ReadyForNewScale, DesiredWithinRange");
    check(5, 11, "10 ReadyForNewScale, ScaleUpLimit!");
    check(1, 9, "4 ReadyForNewScale, ScaleUpLimit!");
    check(80, 200, "100 ReadyForNewScale, TooManyReplicas!");
    check(5, 0, "2 ReadyForNewScale, TooFewReplicas!");
    check(i32::MAX, i32::MAX, "100 ReadyForNewScale, TooManyReplicas!");
}

#[test]
fn less_is_wanted_for_five_minutes_first() {
    let mut history = History::default();
    history.begin(10, start());
    history.begin(99, start());
    let stabilized = "10 ScaleDownStabilized, DesiredWithinRange";
    assert_eq!(told(None, &mut history, (10, 4), 15), stabilized);
    assert_eq!(told(None, &mut history, (10, 3), 299), stabilized);
    assert_eq!(told(None, &mut history, (10, 2), 301), "4 ScaleDownStabilized, DesiredWithinRange");
    assert_eq!(told(None, &mut history, (4, 2), 320), "3 ScaleDownStabilized, DesiredWithinRange");
    assert_eq!(told(None, &mut history, (3, 2), 900), "2 ReadyForNewScale, DesiredWithinRange");
    // A clock that is set back forgets what it has not come to.
    assert_eq!(told(None, &mut history, (9, 3), -5000), "3 ReadyForNewScale, DesiredWithinRange");
}

#[test]
fn windows_of_a_behavior() {
    let both = behavior(json!({"stabilizationWindowSeconds": 60}), json!({"stabilizationWindowSeconds": 120}));
    let mut history = History::default();
    history.begin(5, start());
    let mut check = |change, at, expect: &str| {
        let expect = format!("{expect}, DesiredWithinRange");
        assert_eq!(told(Some(&both), &mut history, change, at), expect, "{change:?} after {at} s");
    };
    check((5, 9), 15, "5 ScaleUpStabilized");
    check((5, 8), 59, "5 ScaleUpStabilized");
    check((5, 9), 70, "8 ScaleUpStabilized");
    check((8, 3), 80, "8 ScaleDownStabilized");
    check((8, 3), 189, "8 ScaleDownStabilized");
    check((8, 3), 195, "3 ReadyForNewScale");
    // Without a window of its own, less waits as it does without a behavior.
    let plain = behavior(json!({}), json!({}));
    let mut history = History::default();
    history.begin(10, start());
    assert_eq!(told(Some(&plain), &mut history, (10, 3), 200), "10 ScaleDownStabilized, DesiredWithinRange");
    assert_eq!(told(Some(&plain), &mut history, (10, 40), 215), "20 ReadyForNewScale, ScaleUpLimit!");
}

/// Without windows; after `done`: from, to, seconds ago.
fn limited(up: bool, rules: Value, done: &[(i32, i32, i64)], change: (i32, i32), expect: &str) {
    let mut down = json!({"stabilizationWindowSeconds": 0});
    let ups = if up {
        rules.clone()
    } else {
        down.as_object_mut().unwrap().extend(rules.as_object().unwrap().clone());
        json!({})
    };
    let behavior = behavior(ups, down);
    let mut history = History::default();
    for (from, to, ago) in done {
        history.scaled(Some(&behavior), *from, *to, later(-ago));
    }
    let (replicas, limit) = expect.split_once(' ').unwrap();
    let expect = format!("{replicas} ReadyForNewScale, {limit}");
    assert_eq!(told(Some(&behavior), &mut history, change, 0), expect, "{rules} {done:?} {change:?}");
}

#[test]
fn policies_of_more() {
    let pods = json!({"policies": policies(&[("Pods", 3, 60)])});
    limited(true, pods.clone(), &[], (5, 50), "8 ScaleUpLimit!");
    limited(true, pods.clone(), &[], (5, 7), "7 DesiredWithinRange");
    limited(true, pods.clone(), &[(3, 5, 59)], (5, 50), "6 ScaleUpLimit!");
    limited(true, pods.clone(), &[(3, 5, 60)], (5, 50), "8 ScaleUpLimit!");
    limited(true, pods.clone(), &[(1, 5, 10)], (5, 50), "5 ScaleUpLimit!");
    // What was taken away in the meantime may come back.
    limited(true, pods.clone(), &[(2, 5, 10), (5, 4, 5)], (4, 50), "5 ScaleUpLimit!");
    let percent = json!({"policies": policies(&[("Percent", 10, 60)])});
    limited(true, percent, &[], (5, 50), "6 ScaleUpLimit!");
    let two = policies(&[("Percent", 200, 60), ("Pods", 4, 60)]);
    limited(true, json!({"policies": two}), &[], (10, 90), "30 ScaleUpLimit!");
    limited(true, json!({"policies": two, "selectPolicy": "Min"}), &[], (10, 90), "14 ScaleUpLimit!");
    limited(true, json!({"selectPolicy": "Disabled"}), &[], (10, 90), "10 ScaleUpLimit!");
    limited(true, json!({"policies": policies(&[("Pods", 500, 60)])}), &[], (10, 300), "100 TooManyReplicas!");
    limited(true, json!({"policies": policies(&[("Percent", i32::MAX, 60)])}), &[], (90, 300), "100 TooManyReplicas!");
    limited(true, json!({}), &[], (3, 90), "7 ScaleUpLimit!");
    limited(true, json!({}), &[], (30, 90), "60 ScaleUpLimit!");
}

#[test]
fn policies_of_less() {
    let pods = json!({"policies": policies(&[("Pods", 3, 60)])});
    limited(false, pods.clone(), &[], (50, 5), "47 ScaleDownLimit!");
    limited(false, pods.clone(), &[(52, 50, 59)], (50, 5), "49 ScaleDownLimit!");
    limited(false, pods.clone(), &[(60, 50, 10)], (50, 5), "50 ScaleDownLimit!");
    limited(false, pods.clone(), &[], (50, 48), "48 DesiredWithinRange");
    let percent = json!({"policies": policies(&[("Percent", 10, 60)])});
    // What is left is rounded down: one goes at least.
    limited(false, percent, &[], (5, 2), "4 ScaleDownLimit!");
    let two = policies(&[("Percent", 50, 60), ("Pods", 4, 60)]);
    limited(false, json!({"policies": two}), &[], (20, 2), "10 ScaleDownLimit!");
    limited(false, json!({"policies": two, "selectPolicy": "Min"}), &[], (20, 2), "16 ScaleDownLimit!");
    limited(false, json!({"selectPolicy": "Disabled"}), &[], (20, 2), "20 ScaleDownLimit!");
    limited(false, json!({}), &[], (20, 1), "2 TooFewReplicas!");
}

#[test]
fn what_is_remembered_is_bounded() {
    let behavior = behavior(json!({"policies": policies(&[("Pods", 3, 1800)])}), json!({}));
    let mut history = History::default();
    for _ in 0..2000 {
        told(Some(&behavior), &mut history, (5, 5), 0);
        history.scaled(Some(&behavior), 5, 6, start());
        history.scaled(None, 5, 6, start());
    }
    assert_eq!(format!("{history:?}").matches(START).count(), 512, "of recommendations and of what was added");
    told(Some(&behavior), &mut history, (5, 5), 5000);
    history.scaled(Some(&behavior), 5, 6, later(5000));
    let mut fresh = History::default();
    told(Some(&behavior), &mut fresh, (5, 5), 5000);
    fresh.scaled(Some(&behavior), 5, 6, later(5000));
    assert_eq!(history, fresh, "what no window and no policy looks back to is forgotten");
}
