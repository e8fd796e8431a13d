//! The kinds of patches, and what each refuses.

use serde_json::{Value, json};

use crate::Server;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// A Deployment of two containers.
pub fn deployment() -> Value {
    json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "web"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
            {"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]}}}})
}

fn images(deployment: &Value) -> Vec<&str> {
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    containers.iter().map(|c| c["image"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn lists_are_merged_by_key_or_replaced() {
    let server = Server::new().await;
    assert_eq!(server.post(DEPLOYMENTS, &deployment()).await.code, 201);
    let containers = |list: Value| json!({"spec": {"template": {"spec": {"containers": list}}}});
    let patch = containers(json!([{"name": "b", "image": "b:2"}]));
    let patched = server.patch(WEB, STRATEGIC, &patch).await.json();
    assert_eq!(images(&patched).iter().filter(|i| **i == "b:2" || **i == "a:1").count(), 2);
    assert_eq!(patched["metadata"]["generation"], 2);
    let gone = containers(json!([{"name": "a", "$patch": "delete"}]));
    assert_eq!(images(&server.patch(WEB, STRATEGIC, &gone).await.json()), ["b:2"]);
    let replaced = containers(json!([{"name": "c", "image": "c:1"}]));
    assert_eq!(images(&server.patch(WEB, MERGE, &replaced).await.json()), ["c:1"]);
    // A patch that changes nothing writes nothing.
    let before = server.get(WEB).await.json();
    let same = server.patch(WEB, MERGE, &replaced).await.json();
    assert_eq!(same["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn patches_are_refused() {
    let server = Server::new().await;
    assert_eq!(server.post(DEPLOYMENTS, &deployment()).await.code, 201);
    let mut wrong = Vec::new();
    let json_patch = |op: Value| json!([op]);
    for (what, kind, patch, code, reason) in [
        ("no array", JSON, json!({"op": "test"}), 400, "BadRequest"),
        (
            "a failed test",
            JSON,
            json_patch(json!({"op": "test", "path": "/spec/replicas", "value": 9})),
            422,
            "Invalid",
        ),
        ("an absent path", JSON, json_patch(json!({"op": "remove", "path": "/spec/none"})), 422, "Invalid"),
        ("no object", MERGE, json!([]), 400, "BadRequest"),
        ("a wrong type", MERGE, json!({"spec": {"replicas": "many"}}), 422, "Invalid"),
        ("an invalid value", MERGE, json!({"spec": {"replicas": -1}}), 422, "Invalid"),
        ("an immutable field", MERGE, json!({"spec": {"selector": {"matchLabels": {"app": "x"}}}}), 422, "Invalid"),
        (
            "a stale revision",
            MERGE,
            json!({"metadata": {"resourceVersion": "1"}, "spec": {"paused": true}}),
            409,
            "Conflict",
        ),
        ("another name", MERGE, json!({"metadata": {"name": "other"}}), 400, "BadRequest"),
        ("a key without its value", STRATEGIC, json!({"spec": {"template": {"spec": {"containers": [{}]}}}}), 500, ""),
    ] {
        let answer = server.patch(WEB, kind, &patch).await;
        if (answer.code, answer.json()["reason"].as_str().unwrap_or_default()) != (code, reason) {
            wrong.push(format!("{what}: {}", answer.text));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let apply = "application/apply-patch+yaml";
    let nameless = server.patch(WEB, apply, &deployment()).await;
    assert_eq!(nameless.code, 422);
    assert!(nameless.message().ends_with("fieldManager: Required value: is required for apply patch"));
    let missing = server.patch(&format!("{DEPLOYMENTS}/none"), MERGE, &json!({})).await;
    assert_eq!((missing.code, missing.message().as_str()), (404, "deployments.apps \"none\" not found"));
    assert_eq!(server.get(WEB).await.json()["metadata"]["generation"], 1, "nothing changed");
}
