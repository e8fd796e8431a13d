//! What fields are refused of whom asks for strictness.

use serde_json::{Value, json};

use super::custom::definition;
use super::{APPLY, Cluster};
use crate::{Answer, Server};

/// A Deployment in the words of a test: fields that no map of ours could hold twice.
async fn deployment(metadata: &str, spec: &str) -> Answer {
    let server = Server::new().await;
    let body = format!(
        r#"{{"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {{"name": "my-dep", {metadata} "labels": {{"app": "nginx"}}}},
            "spec": {{{spec} "selector": {{"matchLabels": {{"app": "nginx"}}}}, "template": {{
                "metadata": {{"labels": {{"app": "nginx"}}}},
                "spec": {{"containers": [{{"name": "nginx", "image": "nginx:latest"}}]}}}}}}}}"#
    );
    let uri = "/apis/apps/v1/namespaces/default/deployments?fieldManager=field_validation_mgr&fieldValidation=Strict";
    server.ask("POST", uri, &[("content-type", "application/json")], body).await
}

#[tokio::test]
async fn unknown_and_duplicate_fields_of_a_built_in_kind() {
    let refused = deployment("", r#""unknownField": "foo", "replicas": 2, "replicas": 3,"#).await;
    let why = r#"strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas""#;
    assert!(refused.code == 400 && refused.message().contains(why), "{}", refused.text);
}

#[tokio::test]
async fn unknown_metadata_of_a_built_in_kind() {
    let refused = deployment(r#""unknownMeta": "foo","#, "").await;
    let why = r#"strict decoding error: unknown field "metadata.unknownMeta""#;
    assert!(refused.code == 400 && refused.message().contains(why), "{}", refused.text);
}

/// The schema of a spec, with more of what it has.
fn schema(more: &Value) -> Value {
    let (text, number) = (json!({"type": "string"}), json!({"type": "integer", "format": "int32"}));
    let ports = json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
        "items": {"type": "object", "required": ["containerPort", "protocol"],
            "properties": {"containerPort": number, "hostIP": text, "hostPort": number, "name": text, "protocol": text}},
    });
    let mut spec = json!({"type": "object", "properties": {"foo": text, "ports": ports,
        "cronSpec": {"type": "string", "pattern": "^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$"}}});
    for (key, value) in more.as_object().unwrap() {
        match value.as_object() {
            Some(properties) => spec[key].as_object_mut().unwrap().extend(properties.clone()),
            None => spec[key] = value.clone(),
        }
    }
    json!({"type": "object", "properties": {"spec": spec}})
}

/// Applies an object, given as the YAML after its finalizers, with an empty line before it all.
async fn apply(cluster: &Cluster, metadata: &str, rest: &str) -> Answer {
    let body = format!(
        "\napiVersion: mygroup.example.com/v1beta1\nkind: Noxu\nmetadata:\n  name: mytest\n{metadata}  finalizers:\n  \
         - test-finalizer\n{rest}  cronSpec: \"* * * * */5\"\n  ports:\n  - name: x\n    containerPort: 80\n    \
         protocol: TCP"
    );
    let uri = "/apis/mygroup.example.com/v1beta1/noxus/mytest?fieldManager=field_validation_mgr&fieldValidation=Strict";
    cluster.ask("PATCH", uri, &[("content-type", APPLY)], body).await
}

async fn with(schema: Value) -> Cluster {
    let cluster = Cluster::new().await;
    let versions = [("v1beta1", schema.clone()), ("v1beta2", schema.clone()), ("v0", schema)];
    cluster.define(&definition("mygroup.example.com", "noxus", "Noxu", "Cluster", &versions)).await;
    cluster
}

#[tokio::test]
async fn a_valid_object_is_applied() {
    let applied = apply(&with(schema(&json!({}))).await, "", "spec:\n  foo: foo1\n").await;
    assert_eq!(applied.code, 201, "{}", applied.text);
}

#[tokio::test]
async fn without_a_schema_every_field_is_applied() {
    let applied = apply(&with(super::custom::anything()).await, "", "spec:\n  unknown: uk1\n").await;
    assert_eq!((applied.code, &applied.json()["spec"]["unknown"]), (201, &json!("uk1")), "{}", applied.text);
}

#[tokio::test]
async fn what_the_schema_does_not_have_is_refused() {
    let refused = apply(&with(schema(&json!({}))).await, "", "unknownField: unknown\nspec:\n  foo: foo1\n").await;
    assert!(refused.text.contains(".unknownField: field not declared in schema"), "{}", refused.text);
}

#[tokio::test]
async fn unknown_metadata_of_an_object_and_of_one_inside_it() {
    let template = json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {
        "metadata": {"type": "object", "properties": {"name": {"type": "string"}}}, "spec": {"type": "object"}}});
    let more = json!({"x-kubernetes-preserve-unknown-fields": true, "properties": {"template": template}});
    let rest = "spec:\n  template:\n    apiversion: foo/v1\n    kind: Sub\n    metadata:\n        unknownSubMeta: \
                unknown\n        name: subobject\n        namespace: default\n  foo: foo1\n";
    let cluster = with(schema(&more)).await;
    let refused = apply(&cluster, "  unknownMeta: unknown\n", rest).await;
    assert!(refused.text.contains(".metadata.unknownMeta: field not declared in schema"), "{}", refused.text);
    let refused = apply(&cluster, "", rest).await;
    let why = ".spec.template.metadata.unknownSubMeta: field not declared in schema";
    assert!(refused.text.contains(why), "{}", refused.text);
}

#[tokio::test]
async fn duplicates_are_refused_where_everything_is_preserved() {
    let cluster = with(schema(&json!({"x-kubernetes-preserve-unknown-fields": true}))).await;
    let refused = apply(&cluster, "", "spec:\n  unknown: uk1\n  foo: foo1\n  foo: foo2\n").await;
    assert!(refused.text.contains(r#"line 11: key \"foo\" already set in map"#), "{}", refused.text);
}
