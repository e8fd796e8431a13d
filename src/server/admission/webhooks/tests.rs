//! Tables of what webhooks are about, what they are asked and what they say. Calls are in `tests/api/webhooks.rs`.

use super::config::Version;
use super::rules::Rule;
use super::*;
use crate::api::resource::{RESOURCES, find, find_kind};
use crate::api::selector::LabelSelector;
use crate::api::user::User;
use crate::server::objects::fake::Fake;
use crate::server::registry::request::Context;

/// Documents are what they are in every version.
struct AsTheyAre(&'static Resource);

impl Forms for AsTheyAre {
    fn versions(&self) -> Vec<&'static Resource> {
        RESOURCES.iter().filter(|r| r.storage == self.0.storage).collect()
    }

    fn show(&self, _: &Resource, stored: &Value) -> Value {
        stored.clone()
    }

    fn take(&self, _: &Resource, shown: Value, stored: &mut Value) -> Result<(), Status> {
        *stored = shown;
        Ok(())
    }
}

fn row(api_version: &str, kind: &str) -> &'static Resource {
    find_kind(api_version, kind).expect("a known kind")
}

fn write<'a>(
    cx: &'a Context,
    operation: Operation,
    resource: &'static Resource,
    subresource: &'a str,
    name: &'a str,
) -> Attributes<'a> {
    let namespace = if resource.namespaced { "x" } else { "" };
    Attributes { cx, operation, resource, subresource, namespace, name, old: None, dry_run: false }
}

fn rule(operations: &str, groups: &str, versions: &str, resources: &str, scope: &str) -> Rule {
    let list = |text: &str| text.split(' ').map(|t| if t == "core" { String::new() } else { t.to_owned() }).collect();
    Rule {
        operations: list(operations),
        groups: list(groups),
        versions: list(versions),
        resources: list(resources),
        scope: scope.into(),
        names: Vec::new(),
    }
}

#[test]
fn rules_name_operations_and_resources() {
    let cx = Context::default();
    let pods = write(&cx, Operation::Create, row("v1", "Pod"), "", "");
    let status = write(&cx, Operation::Update, row("apps/v1", "Deployment"), "status", "web");
    let node = write(&cx, Operation::Delete, row("v1", "Node"), "", "n");
    let namespace = write(&cx, Operation::Create, row("v1", "Namespace"), "", "x");
    for (rule, about, expect) in [
        (rule("CREATE", "core", "v1", "pods", "*"), &pods, true),
        (rule("*", "*", "*", "*", ""), &pods, true),
        (rule("UPDATE DELETE", "core", "v1", "pods", "*"), &pods, false),
        (rule("CREATE", "apps", "v1", "pods", "*"), &pods, false),
        (rule("CREATE", "core", "v2", "pods", "*"), &pods, false),
        (rule("CREATE", "core", "v1", "pods/*", "*"), &pods, true),
        (rule("CREATE", "core", "v1", "pods/status", "*"), &pods, false),
        // A star is every resource, but no subresource.
        (rule("*", "*", "*", "*", "*"), &status, false),
        (rule("*", "*", "*", "*/*", "*"), &status, true),
        (rule("*", "*", "*", "*/status", "*"), &status, true),
        (rule("*", "*", "*", "deployments/status", "*"), &status, true),
        (rule("*", "*", "*", "deployments/scale", "*"), &status, false),
        (rule("*", "*", "*", "*", "Namespaced"), &pods, true),
        (rule("*", "*", "*", "*", "Cluster"), &pods, false),
        (rule("*", "*", "*", "*", "Cluster"), &node, true),
        (rule("*", "*", "*", "*", "Namespaced"), &node, false),
        (rule("*", "*", "*", "*", "Cluster"), &namespace, true),
        (rule("*", "*", "*", "*", "Namespaced"), &namespace, false),
    ] {
        assert_eq!(rule.matches(about, about.resource), expect, "{rule:?} {}", about.resource.plural);
    }
}

#[test]
fn rules_are_about_every_version_of_a_resource_unless_they_are_exact() {
    let cx = Context::default();
    let v1 = find("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
    let v2 = find("autoscaling", "v2", "horizontalpodautoscalers").unwrap();
    let (core, events) = (find("", "v1", "events").unwrap(), find("events.k8s.io", "v1", "events").unwrap());
    let scalers = rule("*", "autoscaling", "v1", "horizontalpodautoscalers", "*");
    let new_events = rule("*", "events.k8s.io", "v1", "events", "*");
    for (rule, equivalent, written, expect) in [
        (&scalers, true, v1, Some(v1)),
        (&scalers, true, v2, Some(v1)),
        (&scalers, false, v2, None),
        (&new_events, true, core, Some(events)),
        (&new_events, false, core, None),
        (&new_events, true, v2, None),
    ] {
        let about = write(&cx, Operation::Create, written, "", "a");
        let got = rules::matched(std::slice::from_ref(rule), equivalent, &about, &AsTheyAre(written));
        assert_eq!(got, expect, "{rule:?} {}", written.version);
    }
}

#[test]
fn selectors_look_at_the_namespace_and_at_both_objects() {
    let objects = Fake::new([
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {"team": "a"}}}),
    ]);
    let (cx, pod, namespaces) = (Context::default(), row("v1", "Pod"), row("v1", "Namespace"));
    let labelled = |value: &str| json!({"metadata": {"labels": {"team": value}}});
    let selector = |text: &str| LabelSelector::parse(text).map_err(|e| e.to_string());
    let check = |attributes: &Attributes<'_>, object: &Value, of: [&str; 2]| {
        let seen = Seen { attributes, options: Options::None, forms: &AsTheyAre(pod), object: Some(object) };
        rules::selected(&selector(of[0]), &selector(of[1]), &seen, &*objects).map_err(|s| s.message().to_owned())
    };
    let create = write(&cx, Operation::Create, pod, "", "web");
    assert_eq!(check(&create, &labelled("a"), ["", ""]), Ok(true));
    assert_eq!(check(&create, &labelled("a"), ["", "team=a"]), Ok(true));
    assert_eq!(check(&create, &labelled("b"), ["", "team=a"]), Ok(false));
    assert_eq!(check(&create, &labelled("b"), ["team=a", ""]), Ok(true));
    assert_eq!(check(&create, &labelled("b"), ["!team", ""]), Ok(false));
    assert_eq!(check(&create, &labelled("b"), ["team=z", ""]), Ok(false));
    let old = labelled("a");
    let update = Attributes { old: Some(&old), ..write(&cx, Operation::Update, pod, "", "web") };
    assert_eq!(check(&update, &labelled("b"), ["", "team=a"]), Ok(true));
    // Of a namespace that is written, its own labels count; of one that is not there nothing is known.
    let own = write(&cx, Operation::Create, namespaces, "", "y");
    assert_eq!(check(&own, &labelled("a"), ["team=a", ""]), Ok(true));
    let gone = Attributes { namespace: "gone", ..create };
    assert_eq!(check(&gone, &labelled("a"), ["team=a", ""]), Err("namespaces \"gone\" not found".into()));
    assert_eq!(check(&gone, &labelled("a"), ["team=a", "team=b"]), Ok(false));
    // Cluster-scoped objects are in no namespace that could be left out.
    assert_eq!(
        check(&write(&cx, Operation::Create, row("v1", "Node"), "", "n"), &labelled("a"), ["team=z", ""]),
        Ok(true)
    );
    let broken: Result<LabelSelector, String> = Err("\"No\" is not a valid label selector operator".into());
    let seen = Seen { attributes: &create, options: Options::None, forms: &AsTheyAre(pod), object: None };
    let status = rules::selected(&broken, &selector(""), &seen, &*objects).unwrap_err();
    assert_eq!(status.code(), 500);
}

#[test]
fn what_configures_webhooks_is_exempt() {
    let cx = Context::default();
    for (group, kind, expect) in [
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", true),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", true),
        ("example.com", "MutatingWebhookConfiguration", false),
        ("admissionregistration.k8s.io", "Other", false),
    ] {
        let resource: &'static Resource = Box::leak(Box::new(Resource::unstored(group, "x", "x", kind)));
        assert_eq!(rules::exempt(&write(&cx, Operation::Update, resource, "", "a")), expect, "{group} {kind}");
    }
}

#[test]
fn a_review_says_everything_about_the_write() {
    let mut user = User::new("alice", &["devs"]);
    user.extra.insert("scopes".into(), vec!["a".into()]);
    let cx = Context::new(user);
    let deployment = row("apps/v1", "Deployment");
    let (old, new) = (json!({"metadata": {"name": "web"}}), json!({"metadata": {"name": "web"}, "spec": {}}));
    let attributes =
        Attributes { old: Some(&old), dry_run: true, ..write(&cx, Operation::Update, deployment, "scale", "web") };
    let options = WriteOptions {
        field_manager: "kubectl".into(),
        names_manager: true,
        field_validation: FieldValidation::Strict,
        ..WriteOptions::default()
    };
    let seen = Seen {
        attributes: &attributes,
        options: Options::Write(&options),
        forms: &AsTheyAre(deployment),
        object: Some(&new),
    };
    let got = review::request("u1", Version::V1, &seen, deployment, Some(new.clone()), Some(old.clone()));
    let expect = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
        "uid": "u1",
        "kind": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
        "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
        "subResource": "scale",
        "requestKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
        "requestResource": {"group": "apps", "version": "v1", "resource": "deployments"},
        "requestSubResource": "scale",
        "name": "web", "namespace": "x", "operation": "UPDATE",
        "userInfo": {"username": "alice", "groups": ["devs"], "extra": {"scopes": ["a"]}},
        "object": new, "oldObject": old, "dryRun": true,
        "options": {"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "kubectl",
                    "fieldValidation": "Strict", "dryRun": ["All"]},
    }});
    assert_eq!(got, expect);
}

#[test]
fn a_namespace_is_in_itself_and_a_delete_has_no_object() {
    let cx = Context::default();
    let namespaces = row("v1", "Namespace");
    let attributes = write(&cx, Operation::Delete, namespaces, "", "x");
    let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    let forms = AsTheyAre(namespaces);
    let seen = Seen { attributes: &attributes, options: Options::Delete(&options), forms: &forms, object: None };
    let got = &review::request("u", Version::V1Beta1, &seen, namespaces, None, None);
    assert_eq!(got["apiVersion"], "admission.k8s.io/v1beta1");
    let request = &got["request"];
    assert_eq!((&request["name"], &request["namespace"]), (&json!("x"), &json!("x")));
    assert!(request["object"].is_null() && request.get("subResource").is_none());
    let expect = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", "gracePeriodSeconds": 0});
    assert_eq!(request["options"], expect);
}

fn answer(response: Value) -> Value {
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
}

#[test]
fn an_answer_that_is_none_is_an_error_in_upstreams_words() {
    let check = |mutating: bool, answer: Value, expect: &str| {
        assert_eq!(review::response("h", "u", Version::V1, mutating, answer), Err(expect.to_owned()));
    };
    check(true, json!({}), "webhook response was absent");
    check(true, answer(json!({"uid": "v", "allowed": true})), "expected response.uid=\"u\", got \"v\"");
    check(
        true,
        json!({"response": {"uid": "u", "allowed": true}}),
        "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind=",
    );
    check(
        true,
        json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "response": {"uid": "u"}}),
        "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v1beta1, \
         Kind=AdmissionReview",
    );
    let with = |fields: Value| {
        let mut response = json!({"uid": "u", "allowed": true});
        response.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        answer(response)
    };
    check(true, with(json!({"patch": "W10="})), "webhook returned response.patch but not response.patchType");
    check(true, with(json!({"patchType": "JSONPatch"})), "webhook returned response.patchType but not response.patch");
    check(true, with(json!({"patch": "W10=", "patchType": ""})), "webhook returned invalid response.patchType of \"\"");
    check(false, with(json!({"patch": "W10="})), "validating webhook may not return response.patch");
    check(false, with(json!({"patchType": "JSONPatch"})), "validating webhook may not return response.patchType");
    let loose = review::response("h", "u", Version::V1Beta1, true, json!({"response": {"allowed": true}}));
    assert_eq!(loose.map(|v| v.allowed), Ok(Ok(())));
    let odd = review::response("h", "u", Version::V1, true, with(json!({"patch": "W10=", "patchType": "Merge"})));
    assert_eq!(odd.unwrap().check_patch_type(), Err("unsupported patch type \"Merge\"".into()));
}

#[test]
fn a_refusal_is_the_webhooks_own_status_under_its_name() {
    for (given, code, reason, message) in [
        (json!(null), 400, "", "admission webhook \"h\" denied the request without explanation"),
        (json!({"message": "no"}), 400, "", "admission webhook \"h\" denied the request: no"),
        (json!({"reason": "Because"}), 400, "Because", "admission webhook \"h\" denied the request: Because"),
        (
            json!({"code": 403, "reason": "Forbidden", "message": "no"}),
            403,
            "Forbidden",
            "admission webhook \"h\" denied the request: no",
        ),
        (json!({"code": 200, "message": "no"}), 400, "", "admission webhook \"h\" denied the request: no"),
    ] {
        let response = answer(json!({"uid": "u", "allowed": false, "status": given}));
        let status = review::response("h", "u", Version::V1, false, response).unwrap().allowed.unwrap_err();
        assert_eq!((status.code(), status.reason(), status.message()), (code, reason, message));
    }
}
