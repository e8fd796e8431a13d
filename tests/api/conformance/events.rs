//! Events of both groups, one by one and together.

use serde_json::{Value, json};

use super::{MERGE, STRATEGIC, names};
use crate::Server;

const OLD: &str = "/api/v1/namespaces/default/events";
const NEW: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

fn old(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "labels": {"of": "test"}}, "reason": "Test",
        "message": "This is a test event", "type": "Normal", "count": 1,
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}})
}

fn new(name: &str) -> Value {
    json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name, "labels": {"of": "test"}},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "test-controller", "reportingInstance": "test-node",
        "action": "Do", "reason": "Test", "type": "Normal", "note": "This is a test event",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}})
}

/// Made, found everywhere, patched, updated with a series, deleted.
async fn live(server: &Server, made: &Value, path: &str, everywhere: &str, text: &str, series: &Value) {
    server.made(path, made).await;
    assert_eq!(names(&server.items(&format!("{everywhere}?labelSelector=of%3Dtest")).await), ["e"]);
    let (at, kind) = (format!("{path}/e"), if text == "note" { STRATEGIC } else { MERGE });
    let patched = server.patched(&at, kind, &json!({text: "This is a test event - patched"})).await;
    assert_eq!(patched[text], "This is a test event - patched");
    let mut update = server.get(&at).await.json();
    assert_eq!(update[text], "This is a test event - patched");
    update["series"] = series.clone();
    server.replaced(&at, &update).await;
    let found = server.get(&at).await.json();
    assert_eq!((&found["series"], &found[text]), (series, &update[text]));
    server.deleted(&at, &json!({})).await;
    assert_eq!(server.items(everywhere).await, Vec::<Value>::new());
    assert_eq!(server.get(&at).await.code, 404);
}

#[tokio::test]
async fn an_event_lives() {
    let server = Server::new().await;
    let series = json!({"count": 100, "lastObservedTime": "2026-01-01T00:00:00.000000Z"});
    live(&server, &old("e"), OLD, "/api/v1/events", "message", &series).await;
    let series = json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:05.000000Z"});
    live(&server, &new("e"), NEW, "/apis/events.k8s.io/v1/events", "note", &series).await;
}

/// By either name, in the namespace of the three and not in another.
#[tokio::test]
async fn events_are_listed_and_deleted_together() {
    let server = Server::new().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}});
    server.made("/api/v1/namespaces", &namespace).await;
    for (path, event, controller) in [(OLD, old as fn(&str) -> Value, ""), (NEW, new, "test-controller")] {
        for name in ["e1", "e2", "e3"] {
            server.made(path, &event(name)).await;
        }
        let mine = format!("{path}?labelSelector=of%3Dtest");
        assert_eq!(names(&server.items(&mine).await), ["e1", "e2", "e3"]);
        if !controller.is_empty() {
            let reported = format!("{NEW}?fieldSelector=reportingController%3D{controller}");
            assert_eq!(server.items(&reported).await.len(), 3);
        }
        assert_eq!(server.items(&mine.replace("/default/", "/other/")).await, Vec::<Value>::new());
        server.deleted(&mine, &json!({})).await;
        assert_eq!(server.items(&mine).await, Vec::<Value>::new());
        assert_eq!(server.items("/api/v1/events").await, Vec::<Value>::new());
    }
}
