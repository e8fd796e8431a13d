//! Tables: the kinds of `admissionregistration.k8s.io`.

use serde_json::{Value, json};

use super::expression::is_identifier;
use super::mutating_admission_policy::MutatingAdmissionPolicyKind;
use super::mutating_admission_policy_binding::MutatingAdmissionPolicyBindingKind;
use super::mutating_webhook_configuration::MutatingWebhookConfigurationKind;
use super::validating_admission_policy::ValidatingAdmissionPolicyKind;
use super::validating_admission_policy_binding::ValidatingAdmissionPolicyBindingKind;
use super::validating_webhook_configuration::ValidatingWebhookConfigurationKind;
use crate::api::user::User;
use crate::server::registry::core::persistent_volume::tests::{made, updated};
use crate::server::registry::format;
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Part, Strategy, Typed};

fn extended(mut base: Value, more: &Value) -> Value {
    base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    base
}

fn prefixed(prefix: &str, expect: &[&str]) -> Vec<String> {
    expect.iter().map(|e| format!("{prefix}{e}")).collect()
}

fn rule(more: &Value) -> Value {
    let base = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
    extended(base, more)
}

/// A webhook that nothing is wrong with, with these changes.
fn webhook(more: &Value, expect: &[&str]) -> Value {
    let base = json!({"name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"namespace": "n", "name": "s"}}, "rules": [rule(&json!({}))]});
    let expect = prefixed("webhooks[0]", expect);
    let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
    made(MutatingWebhookConfigurationKind, json!({"webhooks": [extended(base, more)]}), &expect)
}

#[test]
fn webhooks_have_defaults() {
    let made = webhook(&json!({}), &[]);
    let hook = &made["webhooks"][0];
    assert_eq!(
        (&hook["failurePolicy"], &hook["matchPolicy"], &hook["timeoutSeconds"], &hook["reinvocationPolicy"]),
        (&json!("Fail"), &json!("Equivalent"), &json!(10), &json!("Never"))
    );
    assert_eq!((&hook["namespaceSelector"], &hook["objectSelector"]), (&json!({}), &json!({})));
    assert_eq!((&hook["rules"][0]["scope"], &hook["clientConfig"]["service"]["port"]), (&json!("*"), &json!(443)));
    let new =
        updated(MutatingWebhookConfigurationKind, Part::Spec, &made, &[("/webhooks/0/timeoutSeconds", json!(5))], &[]);
    assert_eq!(new["metadata"]["generation"], 2);
}

#[test]
fn webhooks() {
    webhook(
        &json!({"name": "a.b", "failurePolicy": "No", "matchPolicy": "No", "sideEffects": "Some", "timeoutSeconds": 31,
            "reinvocationPolicy": "No", "clientConfig": {}, "admissionReviewVersions": ["v2"]}),
        &[
            ".name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
            ".failurePolicy: Unsupported value: \"No\": supported values: \"Fail\", \"Ignore\"",
            ".matchPolicy: Unsupported value: \"No\": supported values: \"Equivalent\", \"Exact\"",
            ".sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
            ".timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ".reinvocationPolicy: Unsupported value: \"No\": supported values: \"IfNeeded\", \"Never\"",
            ".clientConfig: Required value: exactly one of url or service is required",
            ".admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
        ],
    );
    webhook(
        &json!({"name": "", "sideEffects": "", "admissionReviewVersions": [], "clientConfig": {"url": "http://a"}}),
        &[
            ".name: Required value",
            ".sideEffects: Required value: must specify one of None, NoneOnDryRun",
            ".clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: \
             https://host[/path]",
            ".admissionReviewVersions: Required value: must specify one of v1, v1beta1",
        ],
    );
    let condition = |name: &str, expression: &str| json!({"name": name, "expression": expression});
    webhook(
        &json!({"matchConditions": [condition("a", "true"), condition("a", " "), condition("", "true")]}),
        &[
            ".matchConditions[1].expression: Required value",
            ".matchConditions[1].name: Duplicate value: \"a\"",
            ".matchConditions[2].name: Required value",
        ],
    );
    let many: Vec<Value> = (0..65).map(|i| condition(&format!("c{i}"), "true")).collect();
    webhook(&json!({"matchConditions": many}), &[".matchConditions: Too many: 65: must have at most 64 items"]);
    let hook = json!({"name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://a"}});
    made(
        ValidatingWebhookConfigurationKind,
        json!({"webhooks": [hook, hook]}),
        &["webhooks[1].name: Duplicate value: \"a.example.com\""],
    );
}

#[test]
fn rules() {
    let check = |more: Value, expect: &[&str]| {
        let expect = prefixed(".rules[0].", expect);
        webhook(&json!({"rules": [rule(&more)]}), &expect.iter().map(String::as_str).collect::<Vec<_>>());
    };
    check(
        json!({"operations": [], "apiGroups": [], "apiVersions": [], "resources": [], "scope": "All"}),
        &[
            "operations: Required value",
            "apiGroups: Required value",
            "apiVersions: Required value",
            "resources: Required value",
            "scope: Unsupported value: \"All\": supported values: \"*\", \"Cluster\", \"Namespaced\"",
        ],
    );
    let star = |field: &str, list: &str, what: &str| {
        format!("{field}: Invalid value: {list}: if '*' is present, must not specify other {what}")
    };
    check(
        json!({"operations": ["*", "READ"], "apiGroups": ["*", "a"], "apiVersions": ["*", ""]}),
        &[
            &star("operations", "[\"*\",\"READ\"]", "operations"),
            "operations[1]: Unsupported value: \"READ\": supported values: \"*\", \"CONNECT\", \"CREATE\", \
             \"DELETE\", \"UPDATE\"",
            &star("apiGroups", "[\"*\",\"a\"]", "API groups"),
            &star("apiVersions", "[\"*\",\"\"]", "API versions"),
            "apiVersions[1]: Required value",
        ],
    );
    check(
        json!({"resources": ["", "pods/*", "pods/status", "*/scale", "a/scale"]}),
        &[
            "resources[0]: Required value",
            "resources[2]: Invalid value: \"pods/status\": if 'pods/*' is present, must not specify pods/status",
            "resources[4]: Invalid value: \"a/scale\": if '*/scale' is present, must not specify a/scale",
        ],
    );
    check(
        json!({"resources": ["*/*", "a"]}),
        &["resources: Invalid value: [\"*/*\",\"a\"]: if '*/*' is present, must not specify other resources"],
    );
    check(
        json!({"resources": ["*", "a"]}),
        &["resources: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other resources without \
           subresources"],
    );
}

fn constraints(more: &Value) -> Value {
    json!({"resourceRules": [rule(more)]})
}

fn validating(more: &Value, expect: &[&str]) -> Value {
    let base = json!({"matchConstraints": constraints(&json!({})), "validations": [{"expression": "true"}]});
    let expect = prefixed("spec.", expect);
    let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
    made(ValidatingAdmissionPolicyKind, json!({"spec": extended(base, more)}), &expect)
}

#[test]
fn validating_policies() {
    let old = validating(&json!({}), &[]);
    assert_eq!((&old["spec"]["failurePolicy"], &old["status"]), (&json!("Fail"), &json!({})));
    let resources = &old["spec"]["matchConstraints"];
    assert_eq!((&resources["matchPolicy"], &resources["objectSelector"]), (&json!("Equivalent"), &json!({})));
    let none = "validations or auditAnnotations must contain at least one item";
    validating(
        &json!({"failurePolicy": "No", "matchConstraints": null, "validations": []}),
        &[
            "failurePolicy: Unsupported value: \"No\": supported values: \"Fail\", \"Ignore\"",
            "matchConstraints: Required value",
            &format!("validations: Required value: {none}"),
            &format!("auditAnnotations: Required value: {none}"),
        ],
    );
    let (sub, label) = (format::dns_subdomain("A").remove(0), format::dns_1035_label("1").remove(0));
    let kind = |api_version: &str, kind: &str, expect: &[&str]| {
        validating(&json!({"paramKind": {"apiVersion": api_version, "kind": kind}}), expect);
    };
    kind("v1", "ConfigMap", &[]);
    kind("", "", &["paramKind.apiVersion: Required value", "paramKind.kind: Required value"]);
    kind(
        "A/1",
        "1",
        &[
            &format!("paramKind.apiVersion: Invalid value: \"A\": {sub}"),
            &format!("paramKind.apiVersion: Invalid value: \"1\": {label}"),
            &format!("paramKind.kind: Invalid value: \"1\": may have mixed case, but should otherwise match: {label}"),
        ],
    );
    kind("a/b/c", "K", &["paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c"]);
    kind("a/", "K", &["paramKind.apiVersion: Invalid value: \"a/\": version must be specified"]);
    validating(
        &json!({"variables": [{"name": " ", "expression": "1"}, {"name": "in", "expression": ""}]}),
        &[
            "variables[0].name: Required value: name is not specified",
            "variables[1].name: Invalid value: \"in\": must be a valid CEL identifier",
            "variables[1].expression: Required value: expression is not specified",
        ],
    );
    validating(
        &json!({"validations": [{"expression": " ", "message": " ", "messageExpression": " ", "reason": "Gone"},
            {"expression": "true", "message": "a\nb"}]}),
        &[
            "validations[0].expression: Required value: expression is not specified",
            "validations[0].messageExpression: Invalid value: \" \": must be non-empty if specified",
            "validations[0].message: Invalid value: \" \": must be non-empty if specified",
            "validations[0].reason: Unsupported value: \"Gone\": supported values: \"Forbidden\", \"Invalid\", \
             \"RequestEntityTooLarge\"",
            "validations[1].message: Invalid value: \"a\\nb\": must not contain line breaks",
        ],
    );
    let (key, long) = (format::qualified_name("a/?").remove(0), "x".repeat(5 * 1024 + 1));
    validating(
        &json!({"auditAnnotations": [{"key": "k", "valueExpression": " "}, {"key": "k", "valueExpression": long},
            {"key": "?", "valueExpression": "'x'"}]}),
        &[
            "auditAnnotations[0].valueExpression: Required value: valueExpression is not specified",
            "auditAnnotations[1].valueExpression: Required value: must not exceed 5120 bytes in length",
            "auditAnnotations[1].key: Duplicate value: \"k\"",
            &format!("auditAnnotations[2].key: Invalid value: \"a/?\": {key}"),
        ],
    );
    let status = json!({"typeChecking": {"expressionWarnings": [{"fieldRef": " ", "warning": ""}]}});
    let new = updated(
        ValidatingAdmissionPolicyKind,
        Part::Status,
        &old,
        &[("/status", status), ("/spec/validations", json!([])), ("/metadata/labels", json!({"a": "b"}))],
        &[
            "status.typeChecking.expressionWarnings[0].warning: Required value",
            "status.typeChecking.expressionWarnings[0].fieldRef: Required value",
        ],
    );
    assert_eq!((&new["spec"], &new["metadata"]), (&old["spec"], &old["metadata"]));
}

#[test]
fn mutating_policies() {
    let check = |more: Value, expect: &[&str]| {
        let base = json!({"matchConstraints": constraints(&json!({})), "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'remove', path: '/x'}]"}}]});
        let expect = prefixed("spec.", expect);
        let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
        made(MutatingAdmissionPolicyKind, json!({"spec": extended(base, &more)}), &expect)
    };
    check(json!({}), &[]);
    check(
        json!({"mutations": [], "reinvocationPolicy": "", "matchConstraints": constraints(&json!({"operations": ["DELETE"]}))}),
        &[
            "matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \
             \"CONNECT\", \"CREATE\", \"UPDATE\"",
            "mutations: Required value: mutations must contain at least one item",
            "reinvocationPolicy: Required value",
        ],
    );
    check(
        json!({"reinvocationPolicy": "x", "matchConstraints": {}, "mutations": [
            {"patchType": ""}, {"patchType": "x"}, {"patchType": "JSONPatch", "applyConfiguration": {"expression": "x"}},
            {"patchType": "ApplyConfiguration", "applyConfiguration": {}, "jsonPatch": {}}]}),
        &[
            "matchConstraints.resourceRules: Required value",
            "mutations[0].patchType: Required value",
            "mutations[1].patchType: Unsupported value: \"x\": supported values: \"ApplyConfiguration\", \"JSONPatch\"",
            "mutations[2].jsonPatch: Required value: must be specified when patchType is JSONPatch",
            "mutations[2].applyConfiguration: Invalid value: \"{applyConfiguration}\": must not be specified when \
             patchType is JSONPatch",
            "mutations[3].applyConfiguration.expression: Required value",
            "mutations[3].jsonPatch: Invalid value: \"{jsonPatch}\": must not be specified when patchType is \
             ApplyConfiguration",
            "reinvocationPolicy: Unsupported value: \"x\": supported values: \"IfNeeded\", \"Never\"",
        ],
    );
}

#[test]
fn bindings() {
    let validating =
        |spec: Value, expect: &[&str]| made(ValidatingAdmissionPolicyBindingKind, json!({"spec": spec}), expect);
    validating(json!({"policyName": "p", "validationActions": ["Deny", "Audit"]}), &[]);
    validating(
        json!({"policyName": "p", "validationActions": ["Deny", "Warn", "Deny", "Log"]}),
        &[
            "spec.validationActions[2]: Duplicate value: \"Deny\"",
            "spec.validationActions[3]: Unsupported value: \"Log\": supported values: \"Audit\", \"Deny\", \"Warn\"",
            "spec.validationActions: Invalid value: [\"Deny\",\"Warn\",\"Deny\",\"Log\"]: must not contain both Deny \
             and Warn (repeating the same validation failure information in the API response and headers serves no \
             purpose)",
        ],
    );
    let exclusive = "name and selector are mutually exclusive";
    let both = json!({"name": "a/b", "selector": {}, "parameterNotFoundAction": "x"});
    validating(
        json!({"policyName": "", "validationActions": [], "paramRef": both, "matchResources": {"matchPolicy": "x"}}),
        &[
            "spec.policyName: Required value",
            "spec.paramRef.name: Invalid value: \"a/b\": may not contain '/'",
            &format!("spec.paramRef.name: Forbidden: {exclusive}"),
            &format!("spec.paramRef.selector: Forbidden: {exclusive}"),
            "spec.paramRef.parameterNotFoundAction: Unsupported value: \"x\": supported values: \"Deny\", \"Allow\"",
            "spec.matchResources.matchPolicy: Unsupported value: \"x\": supported values: \"Equivalent\", \"Exact\"",
            "spec.validationActions: Required value: at least one validation action is required",
        ],
    );
    made(
        MutatingAdmissionPolicyBindingKind,
        json!({"spec": {"policyName": "p", "paramRef": {}, "matchResources": {"resourceRules": [
            rule(&json!({"operations": ["DELETE"], "resourceNames": ["a", "a", ".."]}))]}}}),
        &[
            "spec.paramRef: Required value: one of name or selector must be specified",
            "spec.paramRef.parameterNotFoundAction: Required value",
            "spec.matchResources.resourceRules[0].resourceNames[1]: Duplicate value: \"a\"",
            "spec.matchResources.resourceRules[0].resourceNames[2]: Invalid value: \"..\": may not be '..'",
            "spec.matchResources.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \
             \"CONNECT\", \"CREATE\", \"UPDATE\"",
        ],
    );
}

#[test]
fn names_of_files_are_warned_of() {
    let cx = Context::new(User::default());
    let mut object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "a.static.k8s.io"}});
    assert_eq!(
        Typed(ValidatingWebhookConfigurationKind).prepare_create(&cx, &mut object).unwrap().warnings,
        ["metadata.name: names ending with \".static.k8s.io\" will be reserved for static manifest-based \
          configurations when the ManifestBasedAdmissionControlConfig feature gate is enabled"]
    );
}

#[test]
fn identifiers() {
    for (name, expect) in [("a_1", true), ("_", true), ("1a", false), ("a-b", false), ("while", false), ("", false)] {
        assert_eq!(is_identifier(name), expect, "{name}");
    }
}
