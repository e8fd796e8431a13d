//! Definitions and the objects that they define, from the creation of one to its end, by the real controllers.

use serde_json::{Value, json};

use super::{Cluster, JSON_PATCH, MERGE, Watching, name, names, wait_for};
use crate::hook::Hook;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A definition with one version for each schema, of which the first is stored.
pub fn definition(group: &str, plural: &str, kind: &str, scope: &str, versions: &[(&str, Value)]) -> Value {
    let version = |(i, (name, schema)): (usize, &(&str, Value))| json!({"name": name, "served": true, "storage": i == 0, "schema": {"openAPIV3Schema": schema}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": scope,
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
            "versions": versions.iter().enumerate().map(version).collect::<Vec<_>>(),
        },
    })
}

/// What takes anything.
pub fn anything() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A namespaced definition without a schema to speak of.
pub fn open(group: &str, plural: &str, kind: &str) -> Value {
    definition(group, plural, kind, "Namespaced", &[("v1", anything())])
}

fn noxu(group: &str, schema: Value) -> Value {
    definition(group, "noxus", "Noxu", "Cluster", &[("v1beta1", schema)])
}

fn object(group: &str, version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": format!("{group}/{version}"), "kind": kind, "metadata": {"name": name}})
}

#[tokio::test]
async fn labelled_definitions_are_listed_and_deleted_together() {
    let cluster = Cluster::new().await;
    let mut made = Vec::new();
    for i in 0..10 {
        let mut one = noxu(&format!("g{i}.example.com"), anything());
        one["metadata"]["labels"] = json!({"list-test": "1"});
        cluster.define(&one).await;
        made.push(one);
    }
    let other = noxu("other.example.com", anything());
    cluster.define(&other).await;
    let mine = format!("{DEFINITIONS}?labelSelector=list-test%3D1");
    let listed = cluster.items(&mine).await;
    assert_eq!(names(&listed), made.iter().map(name).collect::<Vec<_>>());
    for item in &listed {
        assert_eq!(item["spec"]["versions"][0]["schema"]["openAPIV3Schema"], anything());
    }
    cluster.deleted(&mine, &json!({})).await;
    for one in &made {
        cluster.await_gone(&format!("{DEFINITIONS}/{}", name(one))).await;
    }
    assert_eq!(names(&cluster.items(DEFINITIONS).await), [name(&other)]);
    assert_eq!(cluster.get("/apis/other.example.com/v1beta1/noxus").await.code, 200);
}

#[tokio::test]
async fn the_status_of_a_definition_is_read_and_written() {
    let cluster = Cluster::new().await;
    let made = noxu("status.example.com", anything());
    cluster.define(&made).await;
    let at = format!("{DEFINITIONS}/{}/status", name(&made));
    let has = |object: &Value, message: &str| {
        object["status"]["conditions"].as_array().unwrap().iter().any(|c| c["message"] == message)
    };
    let updated = wait_for("an update between two of the controller", async || {
        let mut read = cluster.get(&at).await.json();
        assert_eq!(read["spec"]["versions"][0]["schema"]["openAPIV3Schema"], anything());
        let condition = json!({"type": "", "status": "", "lastTransitionTime": null, "message": "updated"});
        read["status"]["conditions"].as_array_mut().unwrap().push(condition);
        let answer = cluster.put(&at, &read).await;
        assert!(matches!(answer.code, 200 | 409), "{}", answer.text);
        (answer.code == 200).then(|| answer.json())
    })
    .await;
    assert!(has(&updated, "updated"), "{updated}");
    let patch = json!([{"op": "add", "path": "/status/conditions", "value": [{"message": "patched"}]}]);
    let patched = cluster.patched(&at, JSON_PATCH, &patch).await;
    assert!(has(&patched, "patched"), "{patched}");
}

/// Defaults come into what is read, and stay in what was written while they were there.
#[tokio::test]
async fn defaults_come_with_requests_and_from_the_store() {
    let cluster = Cluster::new().await;
    let mut schema = anything();
    schema["properties"] = json!({"a": {"type": "string"}, "b": {"type": "string"}});
    let made = noxu("defaults.example.com", schema);
    cluster.define(&made).await;
    let at = format!("{DEFINITIONS}/{}", name(&made));
    let objects = "/apis/defaults.example.com/v1beta1/noxus";
    let one = |name: &str| object("defaults.example.com", "v1beta1", "Noxu", name);
    let properties = "/spec/versions/0/schema/openAPIV3Schema/properties";

    let first = cluster.made(objects, &one("cr-1")).await;
    assert_eq!(first["a"], Value::Null);
    let add = |field: &str, value: &str| json!({"op": "add", "path": format!("{properties}/{field}/default"), "value": value});
    cluster.patched(&at, JSON_PATCH, &json!([add("a", "A")])).await;
    cluster.await_object(&format!("{objects}/cr-1"), |o| o["a"] == "A").await;
    let second = cluster.made(objects, &one("cr-2")).await;
    assert_eq!(second["a"], "A");
    let remove = json!({"op": "remove", "path": format!("{properties}/a/default")});
    cluster.patched(&at, JSON_PATCH, &json!([remove, add("b", "B")])).await;
    let first = cluster.await_object(&format!("{objects}/cr-1"), |o| o["b"] == "B").await;
    assert_eq!(first["a"], Value::Null, "it was never written");
    let second = cluster.get(&format!("{objects}/cr-2")).await.json();
    assert_eq!((&second["a"], &second["b"]), (&json!("A"), &json!("B")));
}

#[tokio::test]
async fn custom_objects_are_watched_one_by_one() {
    let cluster = Cluster::new().await;
    cluster.define(&noxu("watch.example.com", anything())).await;
    let objects = "/apis/watch.example.com/v1beta1/noxus";
    let watch = async |name: &str| {
        Watching::new(&cluster, &format!("{objects}?watch=1&fieldSelector=metadata.name%3D{name}")).await
    };
    let (mut a, mut b) = (watch("name1").await, watch("name2").await);
    for name in ["name1", "name2"] {
        cluster.made(objects, &object("watch.example.com", "v1beta1", "Noxu", name)).await;
    }
    for name in ["name1", "name2"] {
        cluster
            .patched(&format!("{objects}/{name}"), MERGE, &json!({"content": {"key": name}, "num": {"num1": 9}}))
            .await;
    }
    for name in ["name1", "name2"] {
        cluster.deleted(&format!("{objects}/{name}"), &json!({})).await;
    }
    for kind in ["ADDED", "MODIFIED", "DELETED"] {
        assert_eq!((a.told().await, b.told().await), (format!("{kind} name1"), format!("{kind} name2")));
    }
}

/// `host:port` in version 1 is two fields in version 2.
fn convert(asked: &Value) -> Option<Value> {
    let to = asked["desiredAPIVersion"].as_str().unwrap();
    let mut objects = asked["objects"].clone();
    for object in objects.as_array_mut().unwrap() {
        let fields = object.as_object_mut().unwrap();
        if to.ends_with("/v2") {
            let whole = fields.remove("hostPort").unwrap_or_default();
            let (host, port) = whole.as_str().unwrap_or_default().split_once(':').unwrap_or_default();
            fields.insert("host".into(), host.into());
            fields.insert("port".into(), port.into());
        } else {
            let mut part =
                |name: &str| fields.remove(name).and_then(|v| Some(v.as_str()?.to_owned())).unwrap_or_default();
            let whole = format!("{}:{}", part("host"), part("port"));
            fields.insert("hostPort".into(), whole.into());
        }
        fields.insert("apiVersion".into(), to.into());
    }
    Some(json!({"result": {"status": "Success"}, "convertedObjects": objects}))
}

const STABLE: &str = "stable.example.com";

/// Two versions that a webhook converts, with their fields to select by.
async fn converted(cluster: &Cluster, hook: &Hook) -> Value {
    let text = json!({"type": "string"});
    let versions = [
        ("v1", json!({"type": "object", "properties": {"hostPort": text}})),
        ("v2", json!({"type": "object", "properties": {"host": text, "port": text}})),
    ];
    let mut made = definition(STABLE, "e2es", "E2e", "Namespaced", &versions);
    made["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".hostPort"}]);
    made["spec"]["versions"][1]["selectableFields"] = json!([{"jsonPath": ".host"}, {"jsonPath": ".port"}]);
    made["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1", "v1beta1"],
        "clientConfig": {"url": format!("https://127.0.0.1:{}/crdconvert", hook.port), "caBundle": hook.ca_bundle},
    }});
    cluster.define(&made).await;
    made
}

fn objects(version: &str) -> String {
    format!("/apis/{STABLE}/{version}/namespaces/default/e2es")
}

#[tokio::test]
async fn objects_of_two_stored_versions_are_converted_into_one_list() {
    let (cluster, hook) = (Cluster::new().await, Hook::new(convert).await);
    let made = converted(&cluster, &hook).await;
    let mut first = object(STABLE, "v1", "E2e", "name1");
    first["hostPort"] = "localhost:8080".into();
    cluster.made(&objects("v1"), &first).await;
    let read = cluster.get(&format!("{}/name1", objects("v2"))).await.json();
    assert_eq!(
        (&read["apiVersion"], &read["host"], &read["port"]),
        (&json!("stable.example.com/v2"), &json!("localhost"), &json!("8080"))
    );
    assert_eq!(read["hostPort"], Value::Null);

    let storage = |version: usize, stored: bool| json!({"op": "replace", "path": format!("/spec/versions/{version}/storage"), "value": stored});
    let at = format!("{DEFINITIONS}/{}", name(&made));
    let changed = cluster.patched(&at, JSON_PATCH, &json!([storage(0, false), storage(1, true)])).await;
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v2"]));
    let mut second = object(STABLE, "v2", "E2e", "name2");
    second["host"] = "localhost".into();
    second["port"] = "8080".into();
    cluster.made(&objects("v2"), &second).await;
    for item in cluster.items(&objects("v1")).await {
        assert_eq!((&item["hostPort"], &item["host"]), (&json!("localhost:8080"), &Value::Null), "{item}");
    }
    let listed = cluster.items(&objects("v2")).await;
    assert_eq!(names(&listed), ["name1", "name2"]);
    for item in listed {
        let fields = (&item["apiVersion"], &item["host"], &item["port"], &item["hostPort"]);
        assert_eq!(fields, (&json!("stable.example.com/v2"), &json!("localhost"), &json!("8080"), &Value::Null));
    }
}

/// Lists, watches, and watches that begin with a list, as an informer asks for them.
#[tokio::test]
async fn fields_of_each_version_select() {
    let (cluster, hook) = (Cluster::new().await, Hook::new(convert).await);
    converted(&cluster, &hook).await;
    let at =
        |version: &str, selector: &str| format!("{}?fieldSelector={}", objects(version), selector.replace('=', "%3D"));
    let informer = "&watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let host = at("v2", "host=host1");
    let both = at("v2", "host=host1,port=80");
    let whole = at("v1", "hostPort=host1:80");
    let mut of_host = Watching::new(&cluster, &format!("{host}&watch=1")).await;
    let mut of_both = Watching::new(&cluster, &format!("{both}&watch=1")).await;
    let mut of_whole = Watching::new(&cluster, &format!("{whole}&watch=1")).await;
    let mut informer_of_host = Watching::new(&cluster, &format!("{host}{informer}")).await;
    let mut informer_of_both = Watching::new(&cluster, &format!("{both}{informer}")).await;
    for (name, host, port) in [("a", "host1", "80"), ("b", "host1", "8080"), ("c", "host2", "")] {
        let mut one = object(STABLE, "v2", "E2e", name);
        one["host"] = host.into();
        one["port"] = port.into();
        cluster.made(&objects("v2"), &one).await;
    }
    let listed = async |uri: &str| names(&cluster.items(uri).await).join(" ");
    assert_eq!(listed(&host).await, "a b");
    assert_eq!(listed(&both).await, "a");
    assert_eq!(listed(&whole).await, "a");
    assert_eq!(listed(&at("v1", "hostPort=host1:8080")).await, "b");
    let from = cluster.get(&host).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let refused = cluster.get(&at("v2", "hostPort=x")).await;
    assert_eq!((refused.code, refused.message().as_str()), (400, "field label not supported: hostPort"));

    cluster.deleted(&both, &json!({"gracePeriodSeconds": 0})).await;
    let mut second = cluster.get(&format!("{}/b", objects("v2"))).await.json();
    second["host"] = "host2".into();
    cluster.replaced(&format!("{}/b", objects("v2")), &second).await;
    assert_eq!((listed(&host).await, listed(&both).await), (String::new(), String::new()));
    assert_eq!(listed(&at("v2", "host=host2")).await, "b c");

    for watch in [&mut informer_of_host, &mut informer_of_both] {
        assert_eq!(watch.told().await, "BOOKMARK ");
    }
    for watch in [&mut of_host, &mut informer_of_host] {
        for expect in ["ADDED a", "ADDED b", "DELETED a", "DELETED b"] {
            assert_eq!(watch.told().await, expect);
        }
    }
    for watch in [&mut of_both, &mut of_whole, &mut informer_of_both] {
        for expect in ["ADDED a", "DELETED a"] {
            assert_eq!(watch.told().await, expect);
        }
    }
    // Who goes on from before they left is told that they did, in the version that was asked for.
    let mut late = Watching::new(&cluster, &format!("{host}&watch=1&resourceVersion={from}")).await;
    assert_eq!(late.told().await, "DELETED a");
    let (kind, left) = late.next().await;
    assert_eq!(
        (kind.as_str(), &left["apiVersion"], &left["host"]),
        ("DELETED", &json!("stable.example.com/v2"), &json!("host1"))
    );
}
