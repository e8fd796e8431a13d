//! Tables: the kinds of `flowcontrol.apiserver.k8s.io`, and what a cluster begins with.

use serde_json::{Value, json};

use super::flow_schema::FlowSchemaKind;
use super::priority_level_configuration::PriorityLevelConfigurationKind;
use crate::api::flowcontrol;
use crate::server::registry::core::persistent_volume::tests::{made, updated};
use crate::server::registry::format;
use crate::server::registry::metadata::shown;
use crate::server::registry::strategy::Part;

fn schema(more: &Value, expect: &[&str]) -> Value {
    let mut spec = json!({"priorityLevelConfiguration": {"name": "p"}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    made(FlowSchemaKind, json!({"spec": spec}), expect)
}

fn rule(rule: Value, expect: &[&str]) {
    let expect: Vec<String> = expect.iter().map(|e| format!("spec.rules[0]{e}")).collect();
    schema(&json!({"rules": [rule]}), &expect.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn flow_schemas() {
    let old = schema(&json!({"distinguisherMethod": {"type": "ByUser"}}), &[]);
    assert_eq!((&old["spec"]["matchingPrecedence"], &old["status"]), (&json!(1000), &json!({})));
    let precedence = "spec.matchingPrecedence: Invalid value";
    schema(
        &json!({"matchingPrecedence": 1}),
        &[&format!("{precedence}: 1: only the schema named 'exempt' may have matchingPrecedence 1")],
    );
    schema(&json!({"matchingPrecedence": -1}), &[&format!("{precedence}: -1: must be a positive value")]);
    schema(
        &json!({"matchingPrecedence": 10001, "distinguisherMethod": {"type": "x"}, "priorityLevelConfiguration": {}}),
        &[
            &format!("{precedence}: 10001: must not be greater than 10000"),
            "spec.distinguisherMethod.type: Unsupported value: {\"Type\":\"x\"}: supported values: \"ByNamespace\", \
             \"ByUser\"",
            "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
        ],
    );
    let conditions = json!([{"type": "a", "status": "True"}, {"type": "a"}, {"status": "True"}]);
    let new = updated(
        FlowSchemaKind,
        Part::Status,
        &old,
        &[("/status/conditions", conditions), ("/metadata/labels", json!({"a": "b"})), ("/spec/rules", json!([{}]))],
        &[
            "status.conditions[1].type: Duplicate value: \"a\"",
            "status.conditions[2].type: Required value: must not be empty",
        ],
    );
    assert_eq!((&new["metadata"], &new["spec"]), (&old["metadata"], &old["spec"]));
    let new = updated(FlowSchemaKind, Part::Spec, &old, &[("/spec/matchingPrecedence", json!(2))], &[]);
    assert_eq!(new["metadata"]["generation"], 2);
}

#[test]
fn rules() {
    let everyone = json!([{"kind": "Group", "group": {"name": "g"}}]);
    let urls = json!([{"verbs": ["*"], "nonResourceURLs": ["/a", "/b/*", "/"]}]);
    rule(
        json!({}),
        &[
            ".subjects: Required value: subjects must contain at least one value",
            ": Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
        ],
    );
    let label = format::dns_label("N").remove(0);
    rule(
        json!({"nonResourceRules": urls, "subjects": [
            {"kind": "Robot"}, {"kind": "User"}, {"kind": "User", "user": {}, "group": {"name": "g"}},
            {"kind": "Group", "user": {"name": "u"}, "serviceAccount": {"name": "s", "namespace": "n"}},
            {"kind": "ServiceAccount"}, {"kind": "ServiceAccount", "serviceAccount": {}},
            {"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "N"}}]}),
        &[
            ".subjects[0].kind: Unsupported value: \"Robot\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
            ".subjects[1].user: Required value: user is required when subject kind is 'User'",
            ".subjects[2].user.name: Required value",
            ".subjects[2].group: Forbidden: group is forbidden when subject kind is not 'Group'",
            ".subjects[3].group: Required value: group is required when subject kind is 'Group'",
            ".subjects[3].serviceAccount: Forbidden: serviceAccount is forbidden when subject kind is not \
             'ServiceAccount'",
            ".subjects[3].user: Forbidden: user is forbidden when subject kind is not 'User'",
            ".subjects[4].serviceAccount: Required value: serviceAccount is required when subject kind is \
             'ServiceAccount'",
            ".subjects[5].serviceAccount.name: Required value",
            ".subjects[5].serviceAccount.namespace: Required value: must specify namespace for service account",
            &format!(".subjects[6].serviceAccount.namespace: Invalid value: \"N\": {label}"),
        ],
    );
    rule(
        json!({"subjects": everyone, "resourceRules": [
            {"verbs": [], "apiGroups": [], "resources": []},
            {"verbs": ["get", "*"], "apiGroups": ["", "*"], "resources": ["a", "*"], "namespaces": ["a", "*"]},
            {"verbs": ["fly"], "apiGroups": [""], "resources": ["a"], "namespaces": ["N"]},
            {"verbs": ["get"], "apiGroups": [""], "resources": ["a"], "clusterScope": true}]}),
        &[
            ".resourceRules[0].verbs: Required value: verbs must contain at least one value",
            ".resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group",
            ".resourceRules[0].resources: Required value: resource rules must supply at least one resource",
            ".resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at \
             least one namespace",
            ".resourceRules[1].verbs: Invalid value: [\"get\",\"*\"]: if '*' is present, must not specify other verbs",
            ".resourceRules[1].apiGroups: Invalid value: [\"\",\"*\"]: if '*' is present, must not specify other api \
             groups",
            ".resourceRules[1].resources: Invalid value: [\"a\",\"*\"]: if '*' is present, must not specify other \
             resources",
            ".resourceRules[1].namespaces: Invalid value: [\"a\",\"*\"]: if '*' is present, must not specify other \
             namespaces",
            ".resourceRules[2].verbs: Unsupported value: [\"fly\"]: supported values: \"create\", \"delete\", \
             \"deletecollection\", \"get\", \"list\", \"patch\", \"proxy\", \"update\", \"watch\"",
            &format!(
                ".resourceRules[2].namespaces[0]: Invalid value: \"N\": each member of this list must be '*' or a \
                 DNS-1123 label; {label}"
            ),
        ],
    );
    rule(
        json!({"subjects": everyone, "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["", "a", "/a b", "/a//b", "/a*"]},
            {"verbs": ["get"], "nonResourceURLs": []}, {"verbs": ["get"], "nonResourceURLs": ["*", "/a"]}]}),
        &[
            ".nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"\": must not be empty",
            ".nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"a\": must start with slash",
            ".nonResourceRules[0].nonResourceURLs[2]: Invalid value: \"/a b\": must not contain white-space",
            ".nonResourceRules[0].nonResourceURLs[3]: Invalid value: \"/a//b\": must not contain double slash",
            ".nonResourceRules[0].nonResourceURLs[4]: Invalid value: \"/a*\": wildcard can only do suffix matching",
            ".nonResourceRules[1].nonResourceURLs: Required value: nonResourceURLs must contain at least one value",
            ".nonResourceRules[2].nonResourceURLs: Invalid value: [\"*\",\"/a\"]: if '*' is present, must not specify \
             other non-resource URLs",
        ],
    );
}

#[test]
fn priority_levels() {
    let level = |spec: Value, expect: &[&str]| made(PriorityLevelConfigurationKind, json!({"spec": spec}), expect);
    let queued = level(json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}), &[]);
    assert_eq!(
        queued["spec"]["limited"],
        json!({"nominalConcurrencyShares": 30, "lendablePercent": 0, "limitResponse": {"type": "Queue", "queuing": {
            "handSize": 8, "queues": 64, "queueLengthLimit": 50}}})
    );
    level(
        json!({"type": "Exempt", "limited": {}, "exempt": {"nominalConcurrencyShares": -1, "lendablePercent": 101}}),
        &[
            "spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'",
            "spec.limited: Forbidden: must be nil if the type is not Limited",
            "spec.exempt.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
            "spec.exempt.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
        ],
    );
    level(
        json!({"type": "Some"}),
        &["spec.type: Unsupported value: \"Some\": supported values: \"Exempt\", \"Limited\""],
    );
    level(
        json!({"type": "Limited", "exempt": {}}),
        &[
            "spec.exempt: Forbidden: must be nil if the type is Limited",
            "spec.limited: Required value: must not be empty when type is Limited",
        ],
    );
    let limited = |limited: Value, expect: &[&str]| level(json!({"type": "Limited", "limited": limited}), expect);
    let at = "spec.limited.limitResponse";
    limited(
        json!({"nominalConcurrencyShares": -1, "lendablePercent": -1, "borrowingLimitPercent": -1}),
        &[
            "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
            &format!("{at}.type: Unsupported value: \"\": supported values: \"Queue\", \"Reject\""),
            "spec.limited.lendablePercent: Invalid value: -1: must be between 0 and 100, inclusive",
            "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
        ],
    );
    limited(
        json!({"limitResponse": {"type": "Reject", "queuing": {}}}),
        &[&format!("{at}.queuing: Forbidden: must be nil if limited.limitResponse.type is not Limited")],
    );
    limited(
        json!({"limitResponse": {"type": "Queue"}}),
        &[&format!("{at}.queuing: Required value: must not be empty if limited.limitResponse.type is Limited")],
    );
    let queues = |queuing: Value, expect: &[&str]| {
        let expect: Vec<String> = expect.iter().map(|e| format!("{at}.queuing.{e}")).collect();
        let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
        limited(json!({"limitResponse": {"type": "Queue", "queuing": queuing}}), &expect);
    };
    queues(
        json!({"queues": 10_000_001, "handSize": -1, "queueLengthLimit": -1}),
        &[
            "queueLengthLimit: Invalid value: -1: must be positive",
            "queues: Invalid value: 10000001: must not be greater than 10000000",
            "handSize: Invalid value: -1: must be positive",
        ],
    );
    queues(json!({"queues": 4}), &["handSize: Invalid value: 8: should not be greater than queues (4)"]);
    queues(
        json!({"queues": 1024, "handSize": 7}),
        &["handSize: Invalid value: 7: required entropy bits of deckSize 1024 and handSize 7 should not be greater \
           than 60"],
    );
}

/// What upstream begins with is valid, and the mandatory ones stay as they are.
#[test]
fn what_a_cluster_begins_with() {
    for level in [flowcontrol::mandatory_priority_levels(), flowcontrol::suggested_priority_levels()].concat() {
        let made = made(PriorityLevelConfigurationKind, shown(&level), &[]);
        assert_eq!(made["spec"], shown(&level)["spec"], "defaults add nothing");
    }
    for schema in [flowcontrol::mandatory_flow_schemas(), flowcontrol::suggested_flow_schemas()].concat() {
        let made = made(FlowSchemaKind, shown(&schema), &[]);
        assert_eq!(made["spec"], shown(&schema)["spec"], "defaults add nothing");
    }
    let named = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let spec = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 5, "lendablePercent": 50}});
    made(PriorityLevelConfigurationKind, named("exempt", spec), &[]);
    let spec = json!({"type": "Limited", "limited": {"lendablePercent": 0, "limitResponse": {"type": "Reject"},
        "nominalConcurrencyShares": 6}});
    let expect = format!("spec: Invalid value: {spec}: spec of 'catch-all' must equal the fixed value");
    made(PriorityLevelConfigurationKind, named("catch-all", spec), &[&expect]);
    let spec = json!({"matchingPrecedence": 9, "priorityLevelConfiguration": {"name": "exempt"}});
    let expect = format!("spec: Invalid value: {spec}: spec of 'exempt' must equal the fixed value");
    made(FlowSchemaKind, named("exempt", spec), &[&expect]);
}
