//! Tables of what is read, defaulted and refused, in upstream's words; golden: the reference objects pass.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::resource::{find, find_kind};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml; charset=utf-8";

fn deployments() -> &'static Resource {
    find("apps", "v1", "deployments").unwrap()
}

fn pods() -> &'static Resource {
    find("", "v1", "pods").unwrap()
}

fn refused(resource: &Resource, body: &str, content_type: &str, message: &str) {
    let status = object(body.as_bytes(), content_type, resource, FieldValidation::Strict).unwrap_err();
    assert_eq!((status.code(), status.message()), (400, message), "{body}");
}

#[test]
fn json_and_yaml_become_the_same_object() {
    let json =
        br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","creationTimestamp":null},"spec":{"containers":[
        {"name":"c","ports":[{"containerPort":80}],"resources":{"limits":{"cpu":0.5,"memory":"1024Mi"}}}]}}"#;
    let yaml = b"apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: c\n    ports:\n    - containerPort: 80\n    resources:\n      limits: {cpu: 500m, memory: 1Gi}\n";
    let expect = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [
        {"name": "c", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}]}});
    assert_eq!(object(json, JSON, pods(), FieldValidation::Strict), Ok((expect.clone(), vec![])));
    assert_eq!(object(yaml, YAML, pods(), FieldValidation::Strict), Ok((expect.clone(), vec![])));
    assert_eq!(object(json, "", pods(), FieldValidation::Warn), Ok((expect, vec![])));
}

#[test]
fn malformed_bodies() {
    let must =
        "the object provided is unrecognized (must be of type Deployment): couldn't get version/kind; json parse error";
    let check = |body: &str, why: &str| refused(deployments(), body, JSON, &format!("{must}: {why}"));
    check("", "unexpected end of JSON input (<empty>)");
    check("nonsense", "invalid character 'o' in literal null (expecting 'u') (6e6f6e73656e7365)");
    check("{", "unexpected end of JSON input ({)");
    check(r#"{"a":1,}"#, r#"invalid character '}' looking for beginning of object key string ({"a":1,})"#);
    check("{'a'", r"invalid character '\'' looking for beginning of object key string ({'a')");
    check(r#"{"a" 1}"#, r#"invalid character '1' after object key ({"a" 1})"#);
    check(r#"{"a":[1 2]}"#, r#"invalid character '2' after array element ({"a":[1 2]})"#);
    check(r#"{"a":1} x"#, r#"invalid character 'x' after top-level value ({"a":1} x)"#);
    check(
        "[]",
        "json: cannot unmarshal array into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" } (5b5d)",
    );
    check(r#"{"kind":5}"#, r#"json: cannot unmarshal number into Go struct field .kind of type string ({"kind":5})"#);
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    check(&deep, &format!("exceeded max depth ({} ...)", "5b".repeat(30)));
    let status = object(b"a: [b\nc: d", YAML, pods(), FieldValidation::Warn).unwrap_err();
    assert!(
        status.message().starts_with(
            "the object provided is unrecognized (must be of type Pod): error converting YAML to JSON: yaml: "
        ),
        "{status}"
    );
    assert_eq!(object(b"{}", "application/cbor", pods(), FieldValidation::Warn).unwrap_err().code(), 415);
    assert_eq!(object(&vec![b' '; MAX_BODY_BYTES + 1], JSON, pods(), FieldValidation::Warn).unwrap_err().code(), 413);
}

#[test]
fn yaml_bombs_are_refused() {
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..12 {
        let list = vec![format!("*a{}", i - 1); 10].join(",");
        bomb += &format!("a{i}: &a{i} [{list}]\n");
    }
    assert_eq!(object(bomb.as_bytes(), YAML, pods(), FieldValidation::Warn).unwrap_err().code(), 400);
    let deep = "[".repeat(5000);
    assert_eq!(object(deep.as_bytes(), YAML, pods(), FieldValidation::Warn).unwrap_err().code(), 400);
}

#[test]
fn wrong_kinds() {
    refused(
        pods(),
        r#"{"apiVersion":"v1","kind":"Service"}"#,
        JSON,
        r#"Service in version "v1" cannot be handled as a Pod: converting (v1.Service) to (core.Pod): unknown conversion"#,
    );
    refused(
        deployments(),
        r#"{"apiVersion":"extensions/v1beta1","kind":"Deployment"}"#,
        JSON,
        r#"Deployment in version "v1beta1" cannot be handled as a Deployment: no kind "Deployment" is registered for version "extensions/v1beta1" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
    );
    refused(
        find_kind("events.k8s.io/v1", "Event").unwrap(),
        r#"{"apiVersion":"v1","kind":"Event"}"#,
        JSON,
        "the API version in the data (v1) does not match the expected API version (events.k8s.io/v1)",
    );
    let options = Expected { group: "", version: "v1", kind: "DeleteOptions" };
    let body = br#"{"apiVersion":"apps/v1","kind":"DeleteOptions","gracePeriodSeconds":0}"#;
    assert_eq!(kind(body, JSON, options, FieldValidation::Strict).unwrap().0["gracePeriodSeconds"], 0);
    assert_eq!(Expected::at(deployments(), "scale").kind, "Scale");
    assert_eq!(Expected::at(deployments(), "status").kind, "Deployment");
}

#[test]
fn wrong_types() {
    let check = |spec: &str, why: &str| {
        refused(
            deployments(),
            &format!(r#"{{"spec":{spec}}}"#),
            JSON,
            &format!("Deployment in version \"v1\" cannot be handled as a Deployment: {why}"),
        );
    };
    check(
        r#"{"replicas":"3"}"#,
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    check(
        r#"{"replicas":1.5}"#,
        "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    check(
        r#"{"replicas":3000000000}"#,
        "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    check("[]", "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec");
    check(
        r#"{"template":{"spec":{"containers":{}}}}"#,
        "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
    );
    check(
        r#"{"template":{"spec":{"containers":[{"image":1}]}}}"#,
        "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.image of type string",
    );
    check(
        r#"{"selector":{"matchLabels":{"a":true}}}"#,
        "json: cannot unmarshal bool into Go struct field LabelSelector.spec.selector.matchLabels of type string",
    );
    check(
        r#"{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"1x"}}}]}}}"#,
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
    check(
        r#"{"strategy":{"rollingUpdate":{"maxSurge":1.5}}}"#,
        "json: cannot unmarshal number 1.5 into Go value of type int32",
    );
}

#[test]
fn unknown_and_duplicate_fields() {
    let body = br#"{"metadata":{"name":"a","name":"b"},"spec":{"foo":1,"template":{"spec":{"containers":[{"name":"c"},{"nam":"d"}]}}}}"#;
    let problems = [
        r#"unknown field "spec.foo""#,
        r#"unknown field "spec.template.spec.containers[1].nam""#,
        r#"duplicate field "metadata.name""#,
    ];
    refused(
        deployments(),
        std::str::from_utf8(body).unwrap(),
        JSON,
        &format!(
            "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: {}",
            problems.join(", ")
        ),
    );
    let (value, warnings) = object(body, JSON, deployments(), FieldValidation::Warn).unwrap();
    assert_eq!(warnings, problems);
    assert_eq!(value["metadata"]["name"], "b");
    assert!(value["spec"].get("foo").is_none());
    assert_eq!(object(body, JSON, deployments(), FieldValidation::Ignore), Ok((value, vec![])));
}

#[test]
fn patches_report_as_patches() {
    let patched = |document: Value| {
        let again = document.clone();
        super::patched(document, || Ok(again), deployments(), FieldValidation::Warn)
    };
    let status = patched(json!({"spec": {"replicas": "x"}})).unwrap_err();
    assert_eq!(status.code(), 422);
    assert_eq!(
        status.message(),
        " \"\" is invalid: patch: Invalid value: \"{\\\"spec\\\":{\\\"replicas\\\":\\\"x\\\"}}\": json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
    let (value, warnings) = patched(json!({"spec": {"replicas": null, "x": 1}})).unwrap();
    assert_eq!((value["spec"].clone(), warnings), (json!({}), vec!["unknown field \"spec.x\"".to_owned()]));
}

#[test]
fn values_take_their_canonical_form() {
    let lease = find("coordination.k8s.io", "v1", "leases").unwrap();
    let body = br#"{"metadata":{"creationTimestamp":"2026-01-02T03:04:05.9+01:00","labels":{"a":null}},"spec":{"renewTime":"2026-01-02T03:04:05Z"}}"#;
    let (value, _) = object(body, JSON, lease, FieldValidation::Strict).unwrap();
    assert_eq!(value["metadata"], json!({"creationTimestamp": "2026-01-02T02:04:05Z", "labels": {"a": ""}}));
    assert_eq!(value["spec"]["renewTime"], "2026-01-02T03:04:05.000000Z");
    let secret = find("", "v1", "secrets").unwrap();
    let (value, _) = object(b"{\"data\":{\"a\":\"YWI\\nj\"}}", JSON, secret, FieldValidation::Strict).unwrap();
    assert_eq!(value["data"]["a"], "YWIj");
    refused(
        secret,
        r#"{"data":{"a":"!!"}}"#,
        JSON,
        "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 0",
    );
}

/// What reads itself in Go drops what it does not know without a word; numbers are written as Go writes them.
#[test]
fn schemas_in_schemas() {
    let definitions = crate::api::resource::find("apiextensions.k8s.io", "v1", "customresourcedefinitions").unwrap();
    let read = |schema: &Value| {
        let body = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}}).to_string();
        object(body.as_bytes(), "application/json", definitions, FieldValidation::Strict)
    };
    let check = |schema: Value, expect: Value| {
        let (definition, _) = read(&schema).unwrap();
        assert_eq!(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], expect);
    };
    check(json!({"items": {"x": 1, "maximum": 2.0}}), json!({"items": {"maximum": 2}}));
    check(json!({"items": [{"x": 1}], "minimum": 0.5}), json!({"items": [{}], "minimum": 0.5}));
    check(json!({"additionalProperties": false, "default": null}), json!({"additionalProperties": false}));
    check(json!({"dependencies": {"a": ["b"], "c": {"x": 1}}}), json!({"dependencies": {"a": ["b"], "c": {}}}));
    check(json!({"default": {"a": null}, "enum": [null, 1.0]}), json!({"default": {"a": null}, "enum": [null, 1.0]}));
    let wrong = |schema: Value, why: &str| {
        let status = read(&schema).unwrap_err();
        assert!(status.message().ends_with(why), "{}", status.message());
    };
    wrong(json!({"additionalProperties": 1}), "boolean or JSON schema expected");
    wrong(
        json!({"properties": {"a": {"x": 1}}}),
        "unknown field \"spec.versions[0].schema.openAPIV3Schema.properties.a.x\"",
    );
}

/// Every filled object of the reference goes through unchanged.
#[test]
fn the_reference_objects_pass_strictly() {
    let Some(folder) = crate::api::reference::folder() else { return };
    let mut seen = 0;
    for r in crate::api::resource::RESOURCES {
        let group = if r.group.is_empty() { "core" } else { r.group };
        let Ok(bytes) = std::fs::read(folder.join(format!("roundtrip/{group}.{}.{}.json", r.version, r.kind))) else {
            continue;
        };
        let expect: Value = serde_json::from_slice(&bytes).unwrap();
        let (value, warnings) =
            object(&bytes, JSON, r, FieldValidation::Strict).unwrap_or_else(|e| panic!("{group}/{}: {e}", r.kind));
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(value, expect, "{}", r.kind);
        seen += 1;
    }
    assert!(seen >= 20, "only {seen} of the reference objects were found");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..64), text in "[\\[\\]{}:,\"a1 \\-\n&*!|>]{0,48}") {
        for t in [JSON, YAML] {
            let _ = object(&body, t, pods(), FieldValidation::Strict);
            let _ = object(text.as_bytes(), t, pods(), FieldValidation::Strict);
        }
    }
}
