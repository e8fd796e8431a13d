//! Webhooks in the steps of the conformance profile: registered, changed, withdrawn, slow, unreachable.

use std::time::Duration;

use serde_json::{Value, json};

use super::custom::{anything, definition, open};
use super::{Cluster, JSON_PATCH, MERGE, map, names, pod};
use crate::hook::{Hook, allow, mutating, patch, validating};
use crate::{Answer, Server};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn deny(_: &Value) -> Option<Value> {
    Some(json!({"allowed": false, "status": {"message": "the object is not what it should be"}}))
}

fn add_stage(number: u32) -> impl Fn(&Value) -> Option<Value> + Send + Sync {
    move |_| patch(&json!([{"op": "add", "path": format!("/data/mutation-stage-{number}"), "value": "yes"}]))
}

/// Rules for all operations on a resource.
fn about(group: &str, resource: &str, operations: &[&str]) -> Value {
    json!({"rules": [{"operations": operations, "apiGroups": [group], "apiVersions": ["*"], "resources": [resource]}]})
}

fn is_denied(answer: &Answer) -> bool {
    answer.code == 400 && answer.message().contains("denied the request: the object is not what it should be")
}

/// Ten configurations of one kind are found by their label, act, and are gone together.
async fn check_ten(server: &Server, plural: &str, kind: &str, hook: &Hook, acts: impl Fn(&Answer) -> bool) {
    let path = format!("{GROUP}/{plural}");
    for i in 0..10 {
        let webhook = hook.webhook(&json!({"name": format!("h{i}.example.com")}));
        let body = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": format!("c{i}"), "labels": {"of": "ten"}}, "webhooks": [webhook]});
        server.made(&path, &body).await;
    }
    let mine = format!("{path}?labelSelector=of%3Dten");
    let listed = server.items(&mine).await;
    assert_eq!(names(&listed), ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9"]);
    assert!(acts(&server.post(MAPS, &map("a")).await));
    server.deleted(&mine, &json!({})).await;
    assert_eq!(server.items(&mine).await, Vec::<Value>::new());
    let untouched = server.made(MAPS, &map("b")).await;
    assert_eq!(untouched["data"], json!({"k": "v"}));
}

#[tokio::test]
async fn ten_mutating_webhooks_come_and_go() {
    let (server, hook) = (Server::new().await, Hook::new(add_stage(1)).await);
    let acts = |answer: &Answer| answer.json()["data"] == json!({"k": "v", "mutation-stage-1": "yes"});
    check_ten(&server, "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", &hook, acts).await;
    assert_eq!(hook.requests().len(), 10);
}

#[tokio::test]
async fn ten_validating_webhooks_come_and_go() {
    let (server, hook) = (Server::new().await, Hook::new(deny).await);
    check_ten(&server, "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", &hook, is_denied).await;
}

/// Updated not to concern creations, then patched to concern them again.
async fn check_update(server: &Server, plural: &str, acts: impl Fn(&Answer) -> bool) {
    let at = format!("{GROUP}/{plural}/c");
    assert!(acts(&server.post(MAPS, &map("a")).await));
    let mut configuration = server.get(&at).await.json();
    configuration["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
    server.replaced(&at, &configuration).await;
    let made = server.post(MAPS, &map("b")).await;
    assert_eq!((made.code, &made.json()["data"]), (201, &json!({"k": "v"})));
    let create = json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE"]}]);
    server.patched(&at, JSON_PATCH, &create).await;
    assert!(acts(&server.post(MAPS, &map("c")).await));
}

#[tokio::test]
async fn changed_rules_hold_at_once() {
    let (server, hook) = (Server::new().await, Hook::new(deny).await);
    validating(&server, "c", &[hook.webhook(&about("", "configmaps", &["CREATE"]))]).await;
    check_update(&server, "validatingwebhookconfigurations", is_denied).await;
    let (server, hook) = (Server::new().await, Hook::new(add_stage(1)).await);
    mutating(&server, "c", &[hook.webhook(&about("", "configmaps", &["CREATE"]))]).await;
    let acts = |answer: &Answer| answer.json()["data"]["mutation-stage-1"] == "yes";
    check_update(&server, "mutatingwebhookconfigurations", acts).await;
}

#[tokio::test]
async fn match_conditions_are_kept_changed_and_compiled() {
    let (server, hook) = (Server::new().await, Hook::new(allow).await);
    let conditions = json!([{"name": "expression-1", "expression": "object.metadata.namespace == 'production'"}]);
    let changed = json!([{"name": "expression-1", "expression": "object.metadata.namespace == 'production'"},
        {"name": "expression-2", "expression": "object.metadata.namespace == 'staging'"}]);
    let wrong = json!([{"name": "invalid-expression-1", "expression": "... [] bad expression"}]);
    for (plural, kind) in [
        ("mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
        ("validatingwebhookconfigurations", "ValidatingWebhookConfiguration"),
    ] {
        let body = |name: &str, conditions: &Value| {
            json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
                "webhooks": [hook.webhook(&json!({"matchConditions": conditions}))]})
        };
        let path = format!("{GROUP}/{plural}");
        server.made(&path, &body("c", &conditions)).await;
        let mut found = server.get(&format!("{path}/c")).await.json();
        assert_eq!(found["webhooks"][0]["matchConditions"], conditions);
        found["webhooks"][0]["matchConditions"] = changed.clone();
        server.replaced(&format!("{path}/c"), &found).await;
        assert_eq!(server.get(&format!("{path}/c")).await.json()["webhooks"][0]["matchConditions"], changed);
        let refused = server.post(&path, &body("wrong", &wrong)).await;
        assert!(refused.code == 422 && refused.message().contains("compilation failed"), "{}", refused.text);
    }
}

#[tokio::test]
async fn a_condition_excludes_an_object_by_its_name() {
    let (server, hook) = (Server::new().await, Hook::new(add_stage(1)).await);
    let conditions = json!([{"name": "no-skip-me", "expression": "object.metadata.name != 'skip-me'"}]);
    mutating(&server, "c", &[hook.webhook(&json!({"matchConditions": conditions}))]).await;
    assert_eq!(server.made(MAPS, &map("skip-me")).await["data"], json!({"k": "v"}));
    assert_eq!(server.made(MAPS, &map("other")).await["data"]["mutation-stage-1"], "yes");
}

#[tokio::test]
async fn nobody_attaches_to_a_pod() {
    let (server, hook) = (crate::subresources::with_account().await, Hook::new(deny).await);
    server.made(PODS, &pod("p")).await;
    validating(&server, "c", &[hook.webhook(&about("", "pods/attach", &["CONNECT"]))]).await;
    for method in ["GET", "POST"] {
        let refused = server.ask(method, &format!("{PODS}/p/attach?container=c&stdin=true&stdout=true"), &[], "").await;
        assert!(is_denied(&refused), "{}", refused.text);
    }
    let request = &hook.requests()[0];
    assert_eq!((&request["kind"]["kind"], &request["subResource"]), (&json!("PodAttachOptions"), &json!("attach")));
}

/// What pods and maps may not be, when they are made and when they change; not in a namespace that is left out.
#[tokio::test]
async fn what_does_not_comply_is_denied() {
    let server = crate::subresources::with_account().await;
    let judge = |asked: &Value| {
        let object = &asked["object"];
        let unwanted = object["metadata"]["labels"]["webhook-e2e-test"] == "webhook-disallow"
            || object["data"]["webhook-e2e-test"] == "webhook-disallow"
            || object["spec"]["containers"][0]["name"] == "webhook-disallow";
        match () {
            () if object["metadata"]["name"] == "hangs" => None,
            () if unwanted => deny(asked),
            () => allow(asked),
        }
    };
    let hook = Hook::new(judge).await;
    let elsewhere = json!({"matchExpressions": [{"key": "exempted", "operator": "NotIn", "values": ["true"]}]});
    let webhook = |resource: &str, operations: &[&str]| {
        let mut extra = about("", resource, operations);
        extra["name"] = format!("{resource}.example.com").into();
        extra["namespaceSelector"] = elsewhere.clone();
        hook.webhook(&extra)
    };
    let both = [webhook("pods", &["CREATE"]), webhook("configmaps", &["CREATE", "UPDATE", "DELETE"])];
    validating(&server, "c", &both).await;

    let mut unwanted = pod("p");
    unwanted["spec"]["containers"][0]["name"] = "webhook-disallow".into();
    assert!(is_denied(&server.post(PODS, &unwanted).await));
    let hanging = server.post(PODS, &pod("hangs")).await;
    assert!(hanging.code == 500 && hanging.message().contains("deadline"), "{}", hanging.text);
    assert_eq!(server.get(&format!("{PODS}/hangs")).await.code, 404);

    let mut bad = map("m");
    bad["data"] = json!({"webhook-e2e-test": "webhook-disallow"});
    assert!(is_denied(&server.post(MAPS, &bad).await));
    let mut good = server.made(MAPS, &map("m")).await;
    let change = json!({"data": {"webhook-e2e-test": "webhook-disallow"}});
    assert!(is_denied(&server.patch(&format!("{MAPS}/m"), MERGE, &change).await));
    good["data"] = bad["data"].clone();
    assert!(is_denied(&server.put(&format!("{MAPS}/m"), &good).await));
    assert_eq!(server.get(&format!("{MAPS}/m")).await.json()["data"], json!({"k": "v"}));

    let exempted = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "exempted", "labels": {"exempted": "true"}}});
    server.made("/api/v1/namespaces", &exempted).await;
    server.made("/api/v1/namespaces/exempted/configmaps", &bad).await;
}

/// Custom objects may be neither made nor changed nor deleted; definitions not even made.
#[tokio::test]
async fn custom_objects_and_definitions_are_denied() {
    let cluster = Cluster::new().await;
    cluster.define(&open("deny.example.com", "things", "Thing")).await;
    let path = "/apis/deny.example.com/v1/namespaces/default/things";
    let thing = |name: &str, data: &str| json!({"apiVersion": "deny.example.com/v1", "kind": "Thing", "metadata": {"name": name}, "data": {"key": data}});
    let judge = |asked: &Value| {
        let object = if asked["operation"] == "DELETE" { &asked["oldObject"] } else { &asked["object"] };
        if object["data"]["key"] == "no" || object["metadata"]["name"] == "kept" { deny(asked) } else { allow(asked) }
    };
    let hook = Hook::new(judge).await;
    cluster.made(path, &thing("free", "yes")).await;
    cluster.made(path, &thing("kept", "yes")).await;
    let rules = about("deny.example.com", "things", &["CREATE", "UPDATE", "DELETE"]);
    validating(&cluster, "c", &[hook.webhook(&rules)]).await;
    assert!(is_denied(&cluster.post(path, &thing("bad", "no")).await));
    let mut free = cluster.get(&format!("{path}/free")).await.json();
    free["data"]["key"] = "no".into();
    assert!(is_denied(&cluster.put(&format!("{path}/free"), &free).await));
    assert!(is_denied(&cluster.patch(&format!("{path}/free"), MERGE, &json!({"data": {"key": "no"}})).await));
    assert!(is_denied(&cluster.delete(&format!("{path}/kept"), &json!({})).await));
    cluster.deleted(&format!("{path}/free"), &json!({})).await;

    let hook = Hook::new(deny).await;
    let rules = about("apiextensions.k8s.io", "customresourcedefinitions", &["CREATE"]);
    validating(&cluster, "definitions", &[hook.webhook(&rules)]).await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert!(is_denied(&cluster.post(definitions, &open("other.example.com", "things", "Thing")).await));
}

/// A webhook that takes longer than it may; one that may take longer, or as long as it is not said.
#[tokio::test]
async fn a_slow_webhook_has_the_time_that_it_is_given() {
    let server = Server::new().await;
    let hook = Hook::slow(Duration::from_millis(1500), allow).await;
    for (name, given, policy, expect) in [
        ("short", json!(1), "Fail", 500),
        ("ignored", json!(1), "Ignore", 201),
        ("long", json!(10), "Fail", 201),
        ("unsaid", Value::Null, "Fail", 201),
    ] {
        validating(&server, "slow", &[hook.webhook(&json!({"timeoutSeconds": given, "failurePolicy": policy}))]).await;
        let at = format!("{GROUP}/validatingwebhookconfigurations/slow");
        if given.is_null() {
            assert_eq!(server.get(&at).await.json()["webhooks"][0]["timeoutSeconds"], 10);
        }
        let answer = server.post(MAPS, &map(name)).await;
        assert_eq!(answer.code, expect, "{name}: {}", answer.text);
        assert!(expect == 201 || answer.message().contains("context deadline exceeded"), "{}", answer.text);
        server.deleted(&at, &json!({})).await;
    }
}

/// The second acts only on what the first has done.
#[tokio::test]
async fn webhooks_of_one_configuration_act_in_their_order() {
    let server = Server::new().await;
    let stage = |number: u32, needs: &'static str| {
        move |asked: &Value| {
            if asked["object"]["data"][needs] == "yes" { add_stage(number)(asked) } else { allow(asked) }
        }
    };
    let first = Hook::new(stage(1, "mutation-start")).await;
    let second = Hook::new(stage(2, "mutation-stage-1")).await;
    let named = |hook: &Hook, name: &str| hook.webhook(&json!({"name": name}));
    mutating(&server, "c", &[named(&first, "one.example.com"), named(&second, "two.example.com")]).await;
    let mut start = map("m");
    start["data"] = json!({"mutation-start": "yes"});
    let expect = json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"});
    assert_eq!(server.made(MAPS, &start).await["data"], expect);
}

/// What a webhook adds to a pod is completed as if the client had sent it.
#[tokio::test]
async fn a_container_that_was_added_has_its_defaults() {
    let server = crate::subresources::with_account().await;
    let container = json!([{"name": "webhook-added-init-container", "image": "webhook-added-image", "resources": {}}]);
    let hook =
        Hook::new(move |_| patch(&json!([{"op": "add", "path": "/spec/initContainers", "value": container}]))).await;
    mutating(&server, "c", &[hook.webhook(&about("", "pods", &["CREATE"]))]).await;
    let made = server.made(PODS, &pod("webhook-to-be-mutated")).await;
    let added = made["spec"]["initContainers"].as_array().unwrap();
    assert_eq!((added.len(), &added[0]["name"]), (1, &json!("webhook-added-init-container")));
    let defaults =
        (&added[0]["terminationMessagePolicy"], &added[0]["terminationMessagePath"], &added[0]["imagePullPolicy"]);
    assert_eq!(defaults, (&json!("File"), &json!("/dev/termination-log"), &json!("Always")));
}

/// Nobody can lock out who would remove a webhook.
#[tokio::test]
async fn configurations_of_webhooks_are_out_of_reach() {
    let server = Server::new().await;
    let denies = Hook::new(deny).await;
    let mutates =
        Hook::new(|_| patch(&json!([{"op": "add", "path": "/metadata/labels", "value": {"mutated": "yes"}}]))).await;
    let rules = json!({"rules": [{"operations": ["*"], "apiGroups": ["admissionregistration.k8s.io"], "apiVersions": ["*"],
        "resources": ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"]}]});
    validating(&server, "denies", &[denies.webhook(&rules)]).await;
    mutating(&server, "mutates", &[mutates.webhook(&rules)]).await;
    let dummy = Hook::new(allow).await;
    let nothing = dummy.webhook(&about("", "invalid", &["CREATE"]));
    validating(&server, "dummy", std::slice::from_ref(&nothing)).await;
    mutating(&server, "dummy", &[nothing]).await;
    for plural in ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"] {
        let at = format!("{GROUP}/{plural}/dummy");
        assert_eq!(server.get(&at).await.json()["metadata"]["labels"], Value::Null);
        server.deleted(&at, &json!({})).await;
        assert_eq!(server.get(&at).await.code, 404);
    }
    assert_eq!(denies.requests().len() + mutates.requests().len(), 0);
}

/// A webhook that cannot be called, for lack of a certificate to trust.
#[tokio::test]
async fn what_cannot_be_called_denies() {
    let (server, hook) = (Server::new().await, Hook::new(allow).await);
    let service = json!({"clientConfig": {"service": {"namespace": "default", "name": "hook", "path": "/configmaps",
        "port": hook.port}}, "failurePolicy": "Fail"});
    validating(&server, "closed", &[hook.webhook(&service)]).await;
    let name = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
        "spec": {"type": "ExternalName", "externalName": "localhost"}});
    server.made("/api/v1/namespaces/default/services", &name).await;
    let denied = server.post(MAPS, &map("m")).await;
    assert_eq!((denied.code, &denied.json()["reason"]), (500, &json!("InternalError")), "{}", denied.text);
    assert!(denied.message().contains("failed to verify certificate"), "{}", denied.text);
    assert_eq!(hook.requests().len(), 0);
}

/// The stages of a custom object: what each of two webhooks adds, of what the schema then keeps.
async fn check_custom(schema: Value, expect: Value) {
    let cluster = Cluster::new().await;
    cluster.define(&definition("mutate.example.com", "things", "Thing", "Namespaced", &[("v1", schema)])).await;
    let (first, second) = (Hook::new(add_stage(1)).await, Hook::new(add_stage(2)).await);
    let rules = |name: &str| {
        let mut rules = about("mutate.example.com", "things", &["CREATE", "UPDATE"]);
        rules["name"] = name.into();
        rules
    };
    let both = [first.webhook(&rules("one.example.com")), second.webhook(&rules("two.example.com"))];
    mutating(&cluster, "c", &both).await;
    let thing = json!({"apiVersion": "mutate.example.com/v1", "kind": "Thing", "metadata": {"name": "a"},
        "data": {"mutation-start": "yes"}});
    let path = "/apis/mutate.example.com/v1/namespaces/default/things";
    assert_eq!(cluster.made(path, &thing).await["data"], expect);
    assert_eq!(cluster.get(&format!("{path}/a")).await.json()["data"], expect);
}

#[tokio::test]
async fn custom_objects_are_mutated_and_pruned() {
    let all = json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"});
    check_custom(anything(), all).await;
    let text = json!({"type": "string"});
    let two = json!({"type": "object", "properties": {"data": {"type": "object",
        "properties": {"mutation-start": text, "mutation-stage-1": text}}}});
    check_custom(two, json!({"mutation-start": "yes", "mutation-stage-1": "yes"})).await;
}

#[tokio::test]
async fn custom_objects_are_mutated_across_a_change_of_the_stored_version() {
    let cluster = Cluster::new().await;
    let versions = [("v1", anything()), ("v2", anything())];
    cluster.define(&definition("mutate.example.com", "things", "Thing", "Namespaced", &versions)).await;
    let hook = Hook::new(|_| patch(&json!([{"op": "add", "path": "/data/mutation-stage-1", "value": "yes"}]))).await;
    let rules = about("mutate.example.com", "things", &["CREATE", "UPDATE"]);
    mutating(&cluster, "c", &[hook.webhook(&rules)]).await;
    let thing = json!({"apiVersion": "mutate.example.com/v1", "kind": "Thing", "metadata": {"name": "a"},
        "data": {"mutation-start": "yes"}});
    let path = |version: &str| format!("/apis/mutate.example.com/{version}/namespaces/default/things");
    cluster.made(&path("v1"), &thing).await;
    let storage = |version: usize, stored: bool| json!({"op": "replace", "path": format!("/spec/versions/{version}/storage"), "value": stored});
    let at = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.mutate.example.com";
    cluster.patched(at, JSON_PATCH, &json!([storage(0, false), storage(1, true)])).await;
    let change = json!({"data": {"mutation-stage-1": null, "other": "value"}});
    let patched = cluster.patched(&format!("{}/a", path("v1")), MERGE, &change).await;
    let expect = json!({"mutation-start": "yes", "mutation-stage-1": "yes", "other": "value"});
    assert_eq!(patched["data"], expect);
    let read = cluster.get(&format!("{}/a", path("v2"))).await.json();
    assert_eq!((&read["apiVersion"], &read["data"]), (&json!("mutate.example.com/v2"), &expect));
}
