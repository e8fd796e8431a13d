//! Policies about Deployments, in a namespace that their bindings select.

use serde_json::{Value, json};

use super::Cluster;
use super::custom::definition;
use crate::Server;
use crate::patches::deployment;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/selected/deployments";

/// A server with a policy of a kind, which a binding applies to one namespace.
async fn with(kind: &str, plural: &str, mut spec: Value) -> Server {
    let server = Server::new().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "selected", "labels": {"selected": "true"}}});
    server.made("/api/v1/namespaces", &namespace).await;
    let selected = json!({"namespaceSelector": {"matchLabels": {"selected": "true"}}});
    spec["matchConstraints"] = json!({"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]}]});
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": {"name": "p.example.com"}, "spec": spec});
    server.made(&format!("{GROUP}/{plural}policies"), &policy).await;
    let mut bound = json!({"policyName": "p.example.com", "matchResources": selected});
    if plural.starts_with("validating") {
        bound["validationActions"] = json!(["Deny"]);
    }
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}Binding"),
        "metadata": {"name": "b.example.com"}, "spec": bound});
    server.made(&format!("{GROUP}/{plural}policybindings"), &binding).await;
    server
}

fn replicas(name: &str, count: i64) -> Value {
    let mut one = deployment();
    one["metadata"]["name"] = name.into();
    one["spec"]["replicas"] = count.into();
    one
}

async fn check_refused(server: &Server, count: i64, why: &str) {
    let refused = server.post(DEPLOYMENTS, &replicas("refused", count)).await;
    assert_eq!((refused.code, &refused.json()["reason"]), (422, &json!("Invalid")), "{}", refused.text);
    let expect = format!(
        "deployments.apps \"refused\" is forbidden: ValidatingAdmissionPolicy 'p.example.com' with binding 'b.example.com' \
         denied request: {why}"
    );
    assert_eq!(refused.message(), expect);
}

#[tokio::test]
async fn an_expression_validates_a_deployment() {
    let validations = json!([
        {"expression": "object.spec.replicas > 1", "messageExpression": "'wants replicas > 1, got ' + string(object.spec.replicas)"},
        {"expression": "namespaceObject.metadata.name == object.metadata.namespace", "message": "Internal error!"},
    ]);
    let server = with("ValidatingAdmissionPolicy", "validatingadmission", json!({"validations": validations})).await;
    check_refused(&server, 1, "wants replicas > 1, got 1").await;
    server.made(DEPLOYMENTS, &replicas("fine", 2)).await;
    // What no rule names and what no binding selects are left alone.
    let mut set = replicas("set", 1);
    set["kind"] = "ReplicaSet".into();
    server.made(&DEPLOYMENTS.replace("deployments", "replicasets"), &set).await;
    server.made("/apis/apps/v1/namespaces/default/deployments", &replicas("elsewhere", 1)).await;
}

#[tokio::test]
async fn expressions_refer_to_variables() {
    let spec = json!({
        "variables": [{"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"}],
        "validations": [{"expression": "variables.replicas > 1"}, {"expression": "variables.oddReplicas"}],
    });
    let server = with("ValidatingAdmissionPolicy", "validatingadmission", spec).await;
    check_refused(&server, 1, "failed expression: variables.replicas > 1").await;
    check_refused(&server, 4, "failed expression: variables.oddReplicas").await;
    server.made(DEPLOYMENTS, &replicas("odd", 3)).await;
}

#[tokio::test]
async fn a_deployment_is_given_annotations() {
    let expression = "Object{metadata: Object.metadata{annotations: {'mutated-by': 'admission-policy'}}}";
    let spec = json!({"reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]});
    let server = with("MutatingAdmissionPolicy", "mutatingadmission", spec).await;
    let made = server.made(DEPLOYMENTS, &replicas("d", 2)).await;
    assert_eq!(made["metadata"]["annotations"], json!({"mutated-by": "admission-policy"}));
    let elsewhere = server.made("/apis/apps/v1/namespaces/default/deployments", &replicas("d", 2)).await;
    assert_eq!(elsewhere["metadata"]["annotations"], Value::Null);
}

#[tokio::test]
async fn a_deployment_is_mutated_by_expressions() {
    let apply = "Object{spec: Object.spec{replicas: variables.least}}";
    let patch = "[JSONPatch{op: 'add', path: '/metadata/labels', value: {'least': string(variables.least)}}]";
    let spec = json!({"reinvocationPolicy": "Never",
        "variables": [{"name": "least", "expression": "object.spec.replicas < 3 ? 3 : object.spec.replicas"}],
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": apply}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}]});
    let server = with("MutatingAdmissionPolicy", "mutatingadmission", spec).await;
    let made = server.made(DEPLOYMENTS, &replicas("d", 2)).await;
    assert_eq!((&made["spec"]["replicas"], &made["metadata"]["labels"]), (&json!(3), &json!({"least": "3"})));
    let mut more = made.clone();
    more["spec"]["replicas"] = 5.into();
    let updated = server.replaced(&format!("{DEPLOYMENTS}/d"), &more).await;
    assert_eq!((&updated["spec"]["replicas"], &updated["metadata"]["labels"]), (&json!(5), &json!({"least": "5"})));
}

#[tokio::test]
async fn expressions_are_checked_against_the_kinds_they_are_about() {
    let cluster = Cluster::new().await;
    let spec = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}});
    let crontabs = definition("stable.example.com", "crontabs", "CronTab", "Namespaced", &[("v1", spec)]);
    cluster.define(&crontabs).await;
    let policy = |name: &str, group: &str, resource: &str, expression: &str| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name}, "spec": {
                "matchConstraints": {"resourceRules": [{"apiGroups": [group], "apiVersions": ["v1"], "operations": ["*"],
                    "resources": [resource]}]},
                "validations": [{"expression": expression}]}})
    };
    let checked = async |name: &str, generation: i64| {
        let uri = format!("{GROUP}/validatingadmissionpolicies/{name}");
        let policy = cluster.await_object(&uri, |p| p["status"]["observedGeneration"] == generation).await;
        policy["status"]["typeChecking"].clone()
    };
    let all = format!("{GROUP}/validatingadmissionpolicies");
    let undefined = |kind: &str, field: &str, line: &str, column: usize| {
        let dots = ".".repeat(column - 1);
        let text = format!("{kind}: ERROR: <input>:1:{column}: undefined field '{field}'\n | {line}\n | {dots}^\n");
        json!({"expressionWarnings": [{"fieldRef": "spec.validations[0].expression", "warning": text}]})
    };
    cluster.made(&all, &policy("right", "apps", "deployments", "object.spec.replicas > 1")).await;
    assert_eq!(checked("right", 1).await, json!({}));
    let mut wrong = cluster.made(&all, &policy("wrong", "apps", "deployments", "object.replicas > 1")).await;
    let expect = undefined("apps/v1, Kind=Deployment", "replicas", "object.replicas > 1", 7);
    assert_eq!(checked("wrong", 1).await, expect);
    let expression = "object.spec.size > 1 && object.metadata.labels.size() > 0 && object.spec.unknown > 1";
    cluster.made(&all, &policy("custom", "stable.example.com", "crontabs", expression)).await;
    let expect = undefined("stable.example.com/v1, Kind=CronTab", "unknown", expression, 73);
    assert_eq!(checked("custom", 1).await, expect);
    // Once it is right there is nothing to warn of any more.
    wrong["spec"]["validations"][0]["expression"] = json!("object.spec.replicas > 1");
    wrong["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let patched = cluster.patch(&format!("{all}/wrong"), "application/merge-patch+json", &wrong).await;
    assert_eq!(patched.code, 200, "{}", patched.text);
    assert_eq!(checked("wrong", 2).await, json!({}));
}
