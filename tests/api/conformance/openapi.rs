//! Definitions in the OpenAPI documents, in their JSON form.

use serde_json::{Value, json};

use super::custom::definition;
use super::{Cluster, JSON_PATCH, wait_for};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn foo() -> Value {
    json!({"type": "object", "description": "Foo CRD for Testing", "properties": {
        "spec": {"type": "object", "description": "Specification of Foo", "properties": {
            "bars": {"type": "array", "description": "List of Bars and their specs.", "items": {
                "type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string", "description": "Name of Bar."},
                    "age": {"type": "string", "description": "Age of Bar."},
                    "bazs": {"type": "array", "description": "List of Bazs.", "items": {"type": "string"}}}}}}},
        "status": {"type": "object", "description": "Status of Foo"}}})
}

fn waldo() -> Value {
    json!({"type": "object", "description": "Waldo CRD for Testing", "properties": {
        "spec": {"type": "object", "description": "Specification of Waldo",
            "properties": {"dummy": {"type": "string", "description": "Dummy property."}}}}})
}

/// The schema of a kind in both documents, once it is there: what the definition says, and what every object has.
async fn await_published(cluster: &Cluster, group: &str, version: &str, kind: &str, expect: &Value) {
    let reversed: Vec<&str> = group.split('.').rev().collect();
    let name = format!("{}.{version}.{kind}", reversed.join("."));
    let own = |schema: &Value| {
        let mut schema = schema.clone();
        let properties = schema["properties"].as_object_mut().unwrap();
        for of_all in ["apiVersion", "kind", "metadata"] {
            assert!(properties.remove(of_all).is_some(), "{name} has no {of_all}");
        }
        let kind = schema.as_object_mut().unwrap().remove("x-kubernetes-group-version-kind");
        assert!(kind.is_some(), "{name}");
        schema
    };
    wait_for(&name, async || {
        let old = cluster.get("/openapi/v2").await.json();
        let found = &old["definitions"][&name];
        (found.is_object() && own(found) == *expect).then_some(())
    })
    .await;
    let index = cluster.get("/openapi/v3").await.json();
    let at = index["paths"][format!("apis/{group}/{version}")]["serverRelativeURL"].as_str().unwrap().to_owned();
    let new = cluster.get(&at).await.json();
    assert_eq!(own(&new["components"]["schemas"][&name]), *expect);
}

async fn await_withdrawn(cluster: &Cluster, name: &str) {
    wait_for(name, async || cluster.get("/openapi/v2").await.json()["definitions"][name].is_null().then_some(())).await;
}

#[tokio::test]
async fn definitions_of_different_groups_are_published() {
    let cluster = Cluster::new().await;
    cluster.define(&definition("foo.example.com", "foos", "Foo", "Namespaced", &[("v1", foo())])).await;
    cluster.define(&definition("waldo.example.com", "waldos", "Waldo", "Namespaced", &[("v1beta1", waldo())])).await;
    await_published(&cluster, "waldo.example.com", "v1beta1", "Waldo", &waldo()).await;
    await_published(&cluster, "foo.example.com", "v1", "Foo", &foo()).await;
}

#[tokio::test]
async fn kinds_of_one_group_and_version_are_published() {
    let cluster = Cluster::new().await;
    cluster.define(&definition("common.example.com", "foos", "Foo", "Namespaced", &[("v6", foo())])).await;
    cluster.define(&definition("common.example.com", "waldos", "Waldo", "Namespaced", &[("v6", waldo())])).await;
    await_published(&cluster, "common.example.com", "v6", "Waldo", &waldo()).await;
    await_published(&cluster, "common.example.com", "v6", "Foo", &foo()).await;
}

/// Two versions of one definition; then one is renamed, then one is no longer served.
#[tokio::test]
async fn versions_are_published_renamed_and_withdrawn() {
    let cluster = Cluster::new().await;
    let group = "multi.example.com";
    cluster.define(&definition(group, "foos", "Foo", "Namespaced", &[("v2", foo()), ("v3", waldo())])).await;
    await_published(&cluster, group, "v3", "Foo", &waldo()).await;
    await_published(&cluster, group, "v2", "Foo", &foo()).await;

    let at = format!("{DEFINITIONS}/foos.{group}");
    let rename = json!([{"op": "test", "path": "/spec/versions/1/name", "value": "v3"},
        {"op": "replace", "path": "/spec/versions/1/name", "value": "v4"}]);
    cluster.patched(&at, JSON_PATCH, &rename).await;
    await_published(&cluster, group, "v4", "Foo", &waldo()).await;
    await_withdrawn(&cluster, "com.example.multi.v3.Foo").await;
    await_published(&cluster, group, "v2", "Foo", &foo()).await;

    let stop = json!([{"op": "test", "path": "/spec/versions/1/name", "value": "v4"},
        {"op": "replace", "path": "/spec/versions/1/served", "value": false}]);
    cluster.patched(&at, JSON_PATCH, &stop).await;
    await_withdrawn(&cluster, "com.example.multi.v4.Foo").await;
    await_published(&cluster, group, "v2", "Foo", &foo()).await;
    assert!(cluster.get("/openapi/v3").await.json()["paths"]["apis/multi.example.com/v4"].is_null());
}
