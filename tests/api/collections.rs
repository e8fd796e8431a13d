//! Lists in pages, revisions that are too old, and what concerns many objects at once.

use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::{Answer, Server};

pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The cache keeps at least this many events of a resource, however old they are.
const KEPT: usize = 16;
/// Upstream forgets after five minutes.
const FORGOTTEN: Duration = Duration::from_secs(301);

pub async fn put_map(server: &Server, name: &str, labels: &Value) -> Answer {
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "labels": labels}});
    let answer = server.post(MAPS, &map).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    answer
}

pub fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect()
}

/// The first events of a watch.
pub async fn events(server: &Server, uri: &str, count: usize) -> Vec<Value> {
    let response = server.respond("GET", uri, &[], "").await;
    assert_eq!(response.status(), 200);
    let (mut body, mut text, mut found) = (response.into_body(), Vec::new(), Vec::new());
    while found.len() < count {
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("in time");
        text.extend(frame.expect("the watch goes on").unwrap().into_data().unwrap());
        found = text.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    }
    found
}

#[tokio::test]
async fn pages_show_one_state() {
    let server = Server::new().await;
    for name in ["a", "b", "c", "d", "e"] {
        put_map(&server, name, &json!({})).await;
    }
    let first = server.get(&format!("{MAPS}?limit=2")).await.json();
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a", "b"], &json!(3)));
    // What happens between two pages is not in them.
    assert_eq!(server.delete(&format!("{MAPS}/c"), &json!({})).await.code, 200);
    put_map(&server, "cc", &json!({})).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server.get(&format!("{MAPS}?limit=2&continue={token}")).await.json();
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = server.get(&format!("{MAPS}?limit=2&continue={token}")).await.json();
    assert_eq!((names(&third), &third["metadata"]["continue"]), (vec!["e"], &Value::Null));
    assert_eq!(names(&server.get(MAPS).await.json()), ["a", "b", "cc", "d", "e"]);
    assert_eq!(server.get(&format!("{MAPS}?continue=rubbish")).await.code, 400);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_expired() {
    let server = Server::new().await;
    for name in ["a", "b"] {
        put_map(&server, name, &json!({})).await;
    }
    let page = server.get(&format!("{MAPS}?limit=1")).await.json();
    let revision = page["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    put_map(&server, "c", &json!({})).await;
    tokio::time::advance(FORGOTTEN).await;
    for i in 0..=KEPT {
        put_map(&server, &format!("m{i}"), &json!({})).await;
    }
    // A watch learns it inside the stream, as upstream.
    let error = events(&server, &format!("{MAPS}?watch=1&resourceVersion={revision}"), 1).await.remove(0);
    assert_eq!(error["type"], "ERROR");
    assert_eq!((&error["object"]["code"], &error["object"]["reason"]), (&json!(410), &json!("Expired")));
    assert!(error["object"]["message"].as_str().unwrap().starts_with("too old resource version: "), "{error}");

    let exact = server.get(&format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact")).await;
    assert_eq!((exact.code, &exact.json()["reason"]), (410, &json!("Expired")));

    let token = page["metadata"]["continue"].as_str().unwrap();
    let expired = server.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    assert_eq!((expired.code, &expired.json()["reason"]), (410, &json!("Expired")));
    // It comes with a token that goes on in what is there now.
    let token = expired.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    assert_eq!(names(&server.get(&format!("{MAPS}?limit=2&continue={token}")).await.json()), ["b", "c"]);
}

#[tokio::test]
async fn a_revision_from_the_future_is_to_be_tried_again() {
    let server = Server::new().await;
    let answer = server.get(&format!("{MAPS}?resourceVersion=999999")).await;
    assert_eq!((answer.code, &answer.json()["reason"]), (504, &json!("Timeout")));
    assert_eq!(answer.json()["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn a_watch_can_begin_with_the_state() {
    let server = Server::new().await;
    put_map(&server, "a", &json!({"x": "y"})).await;
    put_map(&server, "b", &json!({})).await;
    let uri = format!(
        "{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=x"
    );
    let found = events(&server, &uri, 2).await;
    assert_eq!((&found[0]["type"], &found[0]["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("a")));
    assert_eq!(found[1]["type"], "BOOKMARK");
    assert_eq!(found[1]["object"]["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
}

#[tokio::test]
async fn a_change_of_labels_moves_an_object_in_and_out_of_a_watch() {
    let server = Server::new().await;
    let revision = server.get(MAPS).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    put_map(&server, "a", &json!({})).await;
    for labels in [json!({"x": "1"}), json!({"x": "2"}), json!({"x": null})] {
        let patch = json!({"metadata": {"labels": labels}});
        assert_eq!(server.patch(&format!("{MAPS}/a"), "application/merge-patch+json", &patch).await.code, 200);
    }
    let found = events(&server, &format!("{MAPS}?watch=1&resourceVersion={revision}&labelSelector=x"), 3).await;
    let types: Vec<&Value> = found.iter().map(|e| &e["type"]).collect();
    assert_eq!(types, ["ADDED", "MODIFIED", "DELETED"]);
    // The last state that was selected, at the revision of the change.
    assert_eq!(found[2]["object"]["metadata"]["labels"], json!({"x": "2"}));
}

#[tokio::test]
async fn a_collection_is_deleted_by_its_selector() {
    let server = Server::new().await;
    for (name, app) in [("a", "web"), ("b", "web"), ("c", "db")] {
        put_map(&server, name, &json!({"app": app})).await;
    }
    // Options are read from the body, or from the query where there is no body.
    let web = format!("{MAPS}?labelSelector=app%3Dweb");
    let in_query = server.ask("DELETE", &format!("{web}&dryRun=All"), &[], "").await;
    let in_body = server.delete(&web, &json!({"dryRun": ["All"]})).await;
    for dry in [in_query, in_body] {
        assert_eq!((dry.code, names(&dry.json())), (200, vec!["a", "b"]), "{}", dry.text);
        assert_eq!(names(&server.get(MAPS).await.json()), ["a", "b", "c"]);
    }
    let deleted = server.delete(&web, &json!({})).await;
    assert_eq!((deleted.code, &deleted.json()["kind"]), (200, &json!("ConfigMapList")));
    assert_eq!(names(&deleted.json()), ["a", "b"]);
    assert_eq!(names(&server.get(MAPS).await.json()), ["c"]);
}

#[tokio::test]
async fn what_has_a_finalizer_waits_for_it() {
    let server = Server::new().await;
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "finalizers": ["x.io/y"]}});
    let uid = server.post(MAPS, &map).await.json()["metadata"]["uid"].clone();
    let wrong = server.delete(&format!("{MAPS}/a"), &json!({"preconditions": {"uid": "other"}})).await;
    assert_eq!((wrong.code, &wrong.json()["reason"]), (409, &json!("Conflict")));
    let waiting = server.delete(&format!("{MAPS}/a"), &json!({"preconditions": {"uid": uid}})).await;
    assert_eq!(waiting.code, 200);
    let there = server.get(&format!("{MAPS}/a")).await.json();
    assert!(there["metadata"]["deletionTimestamp"].is_string(), "{there}");
    let patch = json!([{"op": "remove", "path": "/metadata/finalizers"}]);
    assert_eq!(server.patch(&format!("{MAPS}/a"), "application/json-patch+json", &patch).await.code, 200);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.code, 404);
}

#[tokio::test]
async fn large_answers_are_compressed_for_who_takes_it() {
    let server = Server::new().await;
    let data = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "big"}, "data": {"k": "v".repeat(200_000)}});
    assert_eq!(server.post(MAPS, &data).await.code, 201);
    let plain = server.get(MAPS).await;
    assert!(!plain.headers.contains_key("content-encoding"));
    let response = server.respond("GET", MAPS, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let packed = response.into_body().collect().await.unwrap().to_bytes();
    assert!(packed.len() < 10_000, "{}", packed.len());
    // A watch is not: each event has to arrive.
    let watch = format!("{MAPS}?watch=1&resourceVersion=0");
    assert!(
        !server
            .respond("GET", &watch, &[("accept-encoding", "gzip")], "")
            .await
            .headers()
            .contains_key("content-encoding")
    );
}

/// kubectl always says what is to become of dependents. Others do not, and for two kinds that has always meant orphans.
#[tokio::test]
async fn some_kinds_leave_their_dependents_behind() {
    let server = Server::new().await;
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let job = json!({"kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": "j"}, "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    assert_eq!(server.post(jobs, &job).await.code, 201);
    let marked = server.delete(&format!("{jobs}/j"), &json!({})).await.json();
    assert_eq!(marked["metadata"]["finalizers"], json!(["orphan"]));
    let mut other = job.clone();
    other["metadata"]["name"] = "k".into();
    assert_eq!(server.post(jobs, &other).await.code, 201);
    let gone = server.delete(&format!("{jobs}/k"), &json!({"propagationPolicy": "Background"})).await.json();
    assert_eq!(gone["status"], "Success");
}
