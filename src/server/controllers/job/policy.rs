//! Decides: what a Job's policies say of a failed pod, and whether enough indexes succeeded.

use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, SuccessPolicy,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};

use super::indexes::Indexes;
use crate::client::store::Meta as _;

/// What follows from the failure of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Count,
    Ignore,
    /// Counts, and its index is not tried again.
    FailIndex,
    /// Counts, and is why the Job fails: the message.
    FailJob(String),
}

/// By the first rule that matches. Without one the failure counts.
#[must_use]
pub fn verdict(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    let rules = policy.map_or(&[][..], |p| &p.rules);
    for (index, rule) in rules.iter().enumerate() {
        let what = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (Some(codes), _) => exit(pod, codes).map(|(container, code)| {
                format!("Container {container} for pod {} failed with exit code {code}", full_name(pod))
            }),
            (None, Some(patterns)) => {
                condition(pod, patterns).map(|c| format!("Pod {} has condition {}", full_name(pod), c.type_))
            }
            (None, None) => None,
        };
        let Some(what) = what else { continue };
        match rule.action.as_str() {
            "Ignore" => return Verdict::Ignore,
            "Count" => return Verdict::Count,
            "FailIndex" => return Verdict::FailIndex,
            "FailJob" => return Verdict::FailJob(format!("{what} matching FailJob rule at index {index}")),
            // An action of a later version: the rule does not apply.
            _ => {}
        }
    }
    Verdict::Count
}

fn full_name(pod: &Pod) -> String {
    format!("{}/{}", pod.metadata.namespace(), pod.metadata.name())
}

/// The first container that ended as the rule says. Zero is no failure, whatever the rule.
fn exit<'a>(pod: &'a Pod, rule: &PodFailurePolicyOnExitCodesRequirement) -> Option<(&'a str, i32)> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    containers.filter_map(|c| Some((c.name.as_str(), exit_code(c)?))).find(|(name, code)| {
        let named = rule.container_name.as_deref().is_none_or(|wanted| wanted == *name);
        let listed = rule.values.contains(code);
        let matches = match rule.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        named && *code != 0 && matches
    })
}

fn exit_code(container: &ContainerStatus) -> Option<i32> {
    Some(container.state.as_ref()?.terminated.as_ref()?.exit_code)
}

fn condition<'a>(pod: &'a Pod, patterns: &[PodFailurePolicyOnPodConditionsPattern]) -> Option<&'a PodCondition> {
    let matches = |c: &PodCondition| {
        let status = |p: &PodFailurePolicyOnPodConditionsPattern| p.status.as_deref().unwrap_or("True") == c.status;
        patterns.iter().any(|p| p.type_ == c.type_ && status(p))
    };
    pod.status.as_ref()?.conditions.iter().flatten().find(|c| matches(c))
}

/// The message when a rule is met.
#[must_use]
pub fn success(policy: Option<&SuccessPolicy>, completions: i32, succeeded: &Indexes) -> Option<String> {
    if succeeded.is_empty() {
        return None;
    }
    let met = policy?.rules.iter().position(|rule| match &rule.succeeded_indexes {
        Some(text) => {
            let wanted = Indexes::parse(text, completions);
            let have = wanted.shared(succeeded);
            !wanted.is_empty() && (have == wanted.total() || rule.succeeded_count.is_some_and(|n| have >= n))
        }
        None => rule.succeeded_count.is_some_and(|n| succeeded.total() >= n),
    })?;
    Some(format!("Matched rules at index {met}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(rules: Value, status: Value, expect: &Verdict) {
        let policy: PodFailurePolicy = serde_json::from_value(json!({ "rules": rules })).unwrap();
        let pod = json!({ "metadata": { "namespace": "ns", "name": "p" }, "status": status });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        assert_eq!(verdict(Some(&policy), &pod), *expect, "{rules}");
    }

    fn ended(name: &str, code: i32) -> Value {
        json!({ "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": code } } })
    }

    #[test]
    fn rules_about_exit_codes() {
        let rule = |action: &str, operator: &str, values: &[i32]| json!([{ "action": action, "onExitCodes": { "operator": operator, "values": values } }]);
        let failed = json!({ "containerStatuses": [ended("a", 0), ended("b", 42)] });
        let message = "Container b for pod ns/p failed with exit code 42 matching FailJob rule at index 0";
        check(rule("FailJob", "In", &[1, 42]), failed.clone(), &Verdict::FailJob(message.into()));
        check(rule("FailJob", "In", &[1]), failed.clone(), &Verdict::Count);
        check(rule("Ignore", "NotIn", &[1]), failed.clone(), &Verdict::Ignore);
        check(rule("Ignore", "NotIn", &[42]), failed.clone(), &Verdict::Count);
        check(rule("FailIndex", "In", &[42]), failed.clone(), &Verdict::FailIndex);
        check(rule("Later", "In", &[42]), failed.clone(), &Verdict::Count);
        // Containers that run yet have no exit code, and zero is no failure.
        check(
            rule("Ignore", "NotIn", &[1]),
            json!({ "containerStatuses": [ended("a", 0), { "name": "c",
            "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": { "running": {} } }] }),
            &Verdict::Count,
        );
        let named =
            json!([{ "action": "Ignore", "onExitCodes": { "containerName": "a", "operator": "In", "values": [42] } }]);
        check(named.clone(), failed, &Verdict::Count);
        check(named, json!({ "initContainerStatuses": [ended("a", 42)] }), &Verdict::Ignore);
    }

    #[test]
    fn rules_about_conditions() {
        let disrupted = json!({ "conditions": [{ "type": "Ready", "status": "False" }, { "type": "DisruptionTarget", "status": "True" }] });
        let rule = |action: &str, status: &str| json!([{ "action": action, "onPodConditions": [{ "type": "DisruptionTarget", "status": status }] }]);
        check(rule("Ignore", "True"), disrupted.clone(), &Verdict::Ignore);
        check(rule("Ignore", "False"), disrupted.clone(), &Verdict::Count);
        let message = "Pod ns/p has condition DisruptionTarget matching FailJob rule at index 0";
        check(rule("FailJob", "True"), disrupted, &Verdict::FailJob(message.into()));
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = json!([
            { "action": "Count", "onPodConditions": [{ "type": "Ready", "status": "True" }] },
            { "action": "FailIndex", "onExitCodes": { "operator": "In", "values": [3] } },
            { "action": "Ignore", "onExitCodes": { "operator": "NotIn", "values": [4] } },
        ]);
        check(rules.clone(), json!({ "containerStatuses": [ended("a", 3)] }), &Verdict::FailIndex);
        check(rules.clone(), json!({ "containerStatuses": [ended("a", 5)] }), &Verdict::Ignore);
        check(rules, json!({ "containerStatuses": [ended("a", 4)] }), &Verdict::Count);
    }

    #[test]
    fn success_needs_indexes_or_a_number_of_them() {
        for (rules, succeeded, expect) in [
            (json!([{ "succeededIndexes": "0,2-3" }]), "0,2,3", Some("Matched rules at index 0")),
            (json!([{ "succeededIndexes": "0,2-3" }]), "0,2", None),
            (json!([{ "succeededIndexes": "0,2-3", "succeededCount": 2 }]), "0,2", Some("Matched rules at index 0")),
            (json!([{ "succeededIndexes": "0,2-3", "succeededCount": 2 }]), "0,1,4", None),
            (json!([{ "succeededIndexes": "9" }, { "succeededCount": 3 }]), "0,1,4", Some("Matched rules at index 1")),
            (json!([{ "succeededIndexes": "7-x" }, { "succeededCount": 0 }]), "", None),
        ] {
            let policy: SuccessPolicy = serde_json::from_value(json!({ "rules": rules })).unwrap();
            let got = success(Some(&policy), 10, &Indexes::parse(succeeded, 10));
            assert_eq!(got.as_deref(), expect, "{rules} {succeeded}");
        }
    }
}
