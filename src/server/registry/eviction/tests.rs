//! What a budget gives, and to whom.

use serde_json::json;

use super::*;

fn budget(status: Value) -> PodDisruptionBudget {
    serde_json::from_value(json!({"metadata": {"name": "b", "generation": 2}, "status": status})).unwrap()
}

/// What is left of the budget, or the refusal: code, when to come back, and the cause.
fn check(status: Value, expect: &str) {
    let mut budget = budget(status);
    let found = match decrement(&mut budget, "p", "2026-01-01T00:00:00Z".parse().unwrap()) {
        Ok(()) => {
            let status = budget.status.unwrap();
            let condition = status.conditions.iter().flatten().map(|c| format!("{}={}", c.type_, c.status));
            let left = status.disruptions_allowed.unwrap();
            format!("{left} {:?} {:?}", status.disrupted_pods.unwrap().keys(), condition.collect::<Vec<_>>())
        }
        Err(refused) => {
            let details = refused.details().unwrap();
            let cause = details.causes.iter().map(|c| format!(" {}: {}", c.reason, c.message)).collect::<String>();
            format!("{} {} {}{cause}", refused.code(), details.retry_after_seconds, refused.message())
        }
    };
    assert_eq!(found, expect);
}

#[test]
fn a_budget_gives_a_disruption_or_says_why_not() {
    check(json!({"observedGeneration": 2, "disruptionsAllowed": 2}), r#"1 ["p"] []"#);
    check(
        json!({"observedGeneration": 2, "disruptionsAllowed": 1, "conditions": [{"type": "DisruptionAllowed",
            "status": "True", "reason": "SufficientPods", "message": "", "lastTransitionTime": "2025-01-01T00:00:00Z"}]}),
        r#"0 ["p"] ["DisruptionAllowed=False"]"#,
    );
    check(
        json!({"observedGeneration": 1, "disruptionsAllowed": 1}),
        "429 10 Cannot evict pod as it would violate the pod's disruption budget. DisruptionBudget: The disruption \
         budget b is still being processed by the server.",
    );
    check(
        json!({"observedGeneration": 2, "disruptionsAllowed": -1}),
        "403 0 poddisruptionbudget.policy \"b\" is forbidden: pdb disruptions allowed is negative",
    );
    let many: serde_json::Map<_, _> = (0..=2000).map(|i| (i.to_string(), json!("2026-01-01T00:00:00Z"))).collect();
    check(
        json!({"observedGeneration": 2, "disruptionsAllowed": 1, "disruptedPods": many}),
        "403 0 poddisruptionbudget.policy \"b\" is forbidden: DisruptedPods map too big - too many evictions not \
         confirmed by PDB controller",
    );
}

#[test]
fn a_budget_without_disruptions_says_what_its_controller_says() {
    const REFUSED: &str = "429 0 Cannot evict pod as it would violate the pod's disruption budget. DisruptionBudget: The disruption budget b";
    let empty = |healthy: i32, reason: &str, message: &str| {
        json!({"observedGeneration": 2, "disruptionsAllowed": 0, "currentHealthy": healthy, "desiredHealthy": 2,
            "conditions": [{"type": "DisruptionAllowed", "status": "False", "reason": reason, "message": message,
                "lastTransitionTime": "2025-01-01T00:00:00Z"}]})
    };
    check(empty(2, "InsufficientPods", ""), &format!("{REFUSED} needs 2 healthy pods and has 2 currently"));
    check(
        empty(2, "SyncFailed", "no scale"),
        &format!("{REFUSED} does not allow evicting pods currently because it failed sync: no scale"),
    );
    check(empty(3, "Other", "later"), &format!("{REFUSED} does not allow evicting pods currently (Other): later"));
    check(empty(3, "Other", ""), &format!("{REFUSED} does not allow evicting pods currently"));
}

#[test]
fn a_budget_does_not_count_on_pods_that_are_not_ready() {
    let check = |ready: &str, policy: Value, (healthy, desired): (i32, i32), expect: Way| {
        let pod = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
        let mut budget = budget(json!({"currentHealthy": healthy, "desiredHealthy": desired}));
        budget.spec = serde_json::from_value(json!({"unhealthyPodEvictionPolicy": policy})).unwrap();
        let found = way(&serde_json::from_value(pod).unwrap(), ("b".into(), budget));
        assert_eq!(found, expect, "{ready} {policy} {healthy}/{desired}");
    };
    let (free, counted) = (|| Way::Unhealthy { budget: "b".into() }, || Way::Counted { budget: "b".into() });
    check("True", json!("AlwaysAllow"), (1, 2), counted());
    check("False", json!("AlwaysAllow"), (1, 2), free());
    check("False", json!("IfHealthyBudget"), (1, 2), counted());
    check("False", json!("IfHealthyBudget"), (2, 2), free());
    check("False", Value::Null, (2, 2), free());
    check("False", Value::Null, (0, 0), counted());
}
