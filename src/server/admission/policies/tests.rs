//! Tables of what policies refuse, and what is said then.

use serde_json::json;

use super::*;
use crate::api::resource::{RESOURCES, find_kind};
use crate::server::admission::Operation;
use crate::server::admission::webhooks::Options;
use crate::server::objects::fake::Fake;
use crate::server::registry::request::Context;

struct AsTheyAre;

impl Forms for AsTheyAre {
    fn versions(&self) -> Vec<&'static Resource> {
        RESOURCES.iter().filter(|r| r.storage == "apps/deployments").collect()
    }

    fn show(&self, _: &Resource, stored: &Value) -> Value {
        stored.clone()
    }

    fn take(&self, _: &Resource, shown: Value, stored: &mut Value) -> Result<(), Status> {
        *stored = shown;
        Ok(())
    }
}

const GROUP: &str = "admissionregistration.k8s.io/v1";

fn policy(extra: Value) -> Value {
    let mut spec = json!({"failurePolicy": "Fail",
        "matchConstraints": {"matchPolicy": "Equivalent", "resourceRules": [{"operations": ["*"], "apiGroups": ["apps"],
            "apiVersions": ["v1"], "resources": ["deployments"]}]},
        "validations": [{"expression": "object.spec.replicas <= 5"}]});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"apiVersion": GROUP, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"}, "spec": spec})
}

fn binding(extra: Value) -> Value {
    let mut spec = json!({"policyName": "p", "validationActions": ["Deny"]});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"apiVersion": GROUP, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "b"}, "spec": spec})
}

/// The answer to a Deployment with this many replicas: the refusal, or the warnings.
fn write(policy: Value, binding: Value, replicas: i64) -> Result<Vec<String>, (u16, String, String)> {
    let objects = Fake::new([
        policy,
        binding,
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {"env": "prod"}}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "x", "labels": {"l": "1"}},
               "data": {"max": "2"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b", "namespace": "x", "labels": {"l": "1"}},
               "data": {"max": "4"}}),
    ]);
    let cx = Context::default();
    let attributes = Attributes {
        cx: &cx,
        operation: Operation::Create,
        resource: find_kind("apps/v1", "Deployment").unwrap(),
        subresource: "",
        namespace: "x",
        name: "web",
        old: None,
        dry_run: false,
    };
    let object = json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas}});
    let policies = Policies::new(objects.clone(), Arc::new(Authorizer::new(objects)));
    let about = policies.about(&attributes, &AsTheyAre);
    let seen = Seen { attributes: &attributes, options: Options::None, forms: &AsTheyAre, object: Some(&object) };
    policies.validate(&about, &seen).map_err(|s| (s.code(), s.reason().to_owned(), s.message().to_owned()))?;
    Ok(cx.warnings.into_inner().unwrap())
}

fn invalid(message: &str) -> Result<Vec<String>, (u16, String, String)> {
    let message = format!("deployments.apps \"web\" is forbidden: ValidatingAdmissionPolicy 'p' {message}");
    Err((422, "Invalid".into(), message))
}

fn check(extra: Value, replicas: i64, expect: &str) {
    let expect =
        if expect.is_empty() { Ok(vec![]) } else { invalid(&format!("with binding 'b' denied request: {expect}")) };
    assert_eq!(write(policy(extra.clone()), binding(json!({})), replicas), expect, "{extra} {replicas}");
}

#[test]
fn what_a_policy_says_no_to_is_refused_in_its_words() {
    check(json!({}), 5, "");
    check(json!({}), 6, "failed expression: object.spec.replicas <= 5");
    let said = |validation: Value| json!({"validations": [validation]});
    check(said(json!({"expression": "false", "message": " too many "})), 6, "too many");
    let made = json!({"expression": "false", "message": "no",
        "messageExpression": "'at most 5, not ' + string(object.spec.replicas)"});
    check(said(made), 6, "at most 5, not 6");
    // A message that cannot be made is no reason to say nothing.
    check(said(json!({"expression": "false", "message": "no", "messageExpression": "object.none"})), 6, "no");
    let variable = json!({"variables": [{"name": "n", "expression": "object.spec.replicas"}],
        "validations": [{"expression": "variables.n < 3"}]});
    check(variable, 6, "failed expression: variables.n < 3");
    let reason = said(json!({"expression": "false", "message": "no", "reason": "Forbidden"}));
    let refused = write(policy(reason), binding(json!({})), 6).unwrap_err();
    assert_eq!((refused.0, refused.1.as_str()), (403, "Forbidden"));
}

#[test]
fn what_cannot_be_evaluated_is_for_the_failure_policy() {
    let broken = json!([{"expression": "object.none == 1"}]);
    let why = "expression 'object.none == 1' resulted in error: no such key: none";
    check(json!({"validations": broken}), 1, why);
    check(json!({"validations": broken, "failurePolicy": "Ignore"}), 1, "");
    let no_parse = json!([{"expression": "1"}]);
    check(json!({"validations": no_parse}), 1, "compilation error: must evaluate to bool");
    let conditions = json!([{"name": "c", "expression": "object.none == 1"}]);
    check(json!({"matchConditions": conditions}), 1, why);
    check(json!({"matchConditions": conditions, "failurePolicy": "Ignore"}), 9, "");
    check(json!({"matchConditions": [{"name": "c", "expression": "object.spec.replicas > 7"}]}), 6, "");
    check(
        json!({"validations": [], "auditAnnotations": [{"key": "k", "valueExpression": "string(object.none)"}]}),
        1,
        "expression \
          'string(object.none)' resulted in error: no such key: none",
    );
}

#[test]
fn bindings_say_what_comes_of_it_and_where() {
    let answer = |extra: Value| write(policy(json!({})), binding(extra), 6);
    let warned = "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': failed expression: \
                  object.spec.replicas <= 5";
    assert_eq!(answer(json!({"validationActions": ["Warn", "Audit"]})), Ok(vec![warned.to_owned()]));
    assert_eq!(answer(json!({"validationActions": ["Audit"]})), Ok(vec![]));
    assert_eq!(answer(json!({"policyName": "other"})), Ok(vec![]));
    let selector = |env: &str| json!({"matchResources": {"namespaceSelector": {"matchLabels": {"env": env}}}});
    assert!(answer(selector("prod")).is_err());
    assert_eq!(answer(selector("test")), Ok(vec![]));
    let rules = |names: &[&str]| {
        json!({"matchResources": {"excludeResourceRules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"],
            "resources": ["*"], "resourceNames": names}]}})
    };
    assert_eq!(answer(rules(&["web"])), Ok(vec![]));
    assert!(answer(rules(&["other"])).is_err());
}

#[test]
fn parameters_come_from_the_binding() {
    let limited = |kind: &str| {
        policy(json!({"paramKind": {"apiVersion": "v1", "kind": kind},
            "validations": [{"expression": "object.spec.replicas <= int(params.data.max)"}]}))
    };
    let answer =
        |reference: Value, replicas| write(limited("ConfigMap"), binding(json!({"paramRef": reference})), replicas);
    let refused =
        invalid("with binding 'b' denied request: failed expression: object.spec.replicas <= int(params.data.max)");
    assert_eq!(answer(json!({"name": "b"}), 3), Ok(vec![]));
    assert_eq!(answer(json!({"name": "a"}), 3), refused);
    // Each that is selected counts.
    assert_eq!(answer(json!({"selector": {"matchLabels": {"l": "1"}}}), 3), refused);
    assert_eq!(answer(json!({"selector": {"matchLabels": {"l": "1"}}}), 2), Ok(vec![]));
    assert_eq!(answer(json!({"name": "none", "parameterNotFoundAction": "Allow"}), 9), Ok(vec![]));
    assert_eq!(
        answer(json!({"name": "none", "parameterNotFoundAction": "Deny"}), 1),
        invalid(
            "with binding 'b' denied request: failed to configure binding: no params found for policy binding with `Deny` \
             parameterNotFoundAction"
        )
    );
    assert_eq!(
        write(limited("Nothing"), binding(json!({"paramRef": {"name": "a"}})), 1),
        invalid(
            "denied request: failed to configure policy: failed to find resource referenced by paramKind: '/v1, \
             Kind=Nothing'"
        )
    );
}
