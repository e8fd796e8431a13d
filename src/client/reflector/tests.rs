//! Tables of what a reflector makes of the answers of a server.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::{Value, json};

use super::*;

/// A server that gives these answers in turn, each body in pieces, and keeps what it was asked.
fn server(answers: Vec<(u16, Vec<String>)>) -> (kube::Client, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    let log = asked.clone();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        log.lock().unwrap().push(request.uri().path_and_query().unwrap().to_string());
        let (code, pieces) = answers.lock().unwrap().next().unwrap_or((503, Vec::new()));
        let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from(piece))));
        let body = StreamBody::new(futures::stream::iter(frames));
        std::future::ready(Ok::<_, Infallible>(http::Response::builder().status(code).body(body).unwrap()))
    });
    (kube::Client::new(service, "default"), asked)
}

fn list(revision: u64, next: &str, names: &[&str]) -> (u16, Vec<String>) {
    let items: Vec<Value> = names.iter().map(|name| json!({ "metadata": { "name": name } })).collect();
    let meta = json!({ "resourceVersion": revision.to_string(), "continue": next });
    (200, vec![json!({ "metadata": meta, "items": items }).to_string()])
}

fn line(kind: &str, name: &str, revision: u64) -> String {
    let meta = json!({ "name": name, "resourceVersion": revision.to_string() });
    format!("{}\n", json!({ "type": kind, "object": { "metadata": meta } }))
}

/// What is observed until the server has no more answers, as text.
async fn observed(answers: Vec<(u16, Vec<String>)>) -> (Vec<String>, Vec<String>) {
    let number = answers.len();
    let (client, asked) = server(answers);
    let source = Source::of("configmaps").in_namespace("ns").fields("metadata.name=a".into());
    let mut events = std::pin::pin!(typed::<Value>(client, source));
    let mut seen = Vec::new();
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    while asked.lock().unwrap().len() <= number {
        let Ok(event) = tokio::time::timeout(Duration::from_secs(60), events.next()).await else { break };
        seen.push(match event.unwrap() {
            Event::Replace(all, at) => format!("all {} at {at}", all.iter().map(name).collect::<String>()),
            Event::Set(object) => format!("set {}", name(&object)),
            Event::Gone(object) => format!("gone {}", name(&object)),
            Event::Bookmark(at) => format!("bookmark {at}"),
        });
    }
    let mut asked = asked.lock().unwrap().clone();
    asked.truncate(number);
    (seen, asked)
}

#[tokio::test(start_paused = true)]
async fn lists_in_pages_then_resumes_where_the_watch_ended() {
    let whole = [line("ADDED", "c", 8), line("MODIFIED", "a", 9), line("DELETED", "b", 10)].concat();
    let (first, second) = whole.split_at(whole.len() / 2);
    let (seen, asked) = observed(vec![
        list(7, "to/ken", &["a"]),
        list(7, "", &["b"]),
        (200, vec![first.into(), second.into()]),
        (503, Vec::new()),
        (200, vec![line("BOOKMARK", "", 15)]),
        (200, Vec::new()),
    ])
    .await;
    assert_eq!(seen, ["all ab at 7", "set c", "set a", "gone b", "bookmark 15"]);
    let watch = "/api/v1/namespaces/ns/configmaps?watch=true&allowWatchBookmarks=true&timeoutSeconds=3600";
    let fields = "fieldSelector=metadata.name%3Da";
    assert_eq!(
        asked,
        [
            format!("/api/v1/namespaces/ns/configmaps?limit=500&{fields}"),
            format!("/api/v1/namespaces/ns/configmaps?limit=500&continue=to%2Fken&{fields}"),
            format!("{watch}&resourceVersion=7&{fields}"),
            format!("{watch}&resourceVersion=10&{fields}"),
            format!("{watch}&resourceVersion=10&{fields}"),
            format!("{watch}&resourceVersion=15&{fields}"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_is_too_old_means_a_new_list() {
    let expired = json!({ "type": "ERROR", "object": { "kind": "Status", "code": 410, "reason": "Expired" } });
    let gone = json!({ "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired" });
    let (seen, asked) = observed(vec![
        list(7, "", &["a"]),
        (200, vec![line("ADDED", "b", 8), format!("{expired}\n")]),
        list(20, "", &["b"]),
        (410, vec![gone.to_string()]),
        list(30, "", &[]),
    ])
    .await;
    assert_eq!(seen, ["all a at 7", "set b", "all b at 20", "all  at 30"]);
    assert!(!asked[2].contains("watch") && !asked[4].contains("watch"), "{asked:#?}");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_does_not_fit_is_left_out() {
    let (client, _) = server(vec![(
        200,
        vec![
            json!({ "metadata": { "resourceVersion": "3" }, "items": [{ "metadata": 5 }, { "metadata": {} }] })
                .to_string(),
        ],
    )]);
    let mut events = std::pin::pin!(typed::<k8s_openapi::api::core::v1::ConfigMap>(client, Source::of("configmaps")));
    let Some(Event::Replace(all, 3)) = events.next().await else { panic!("no list") };
    assert_eq!(all.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn managed_fields_are_cut_from_objects() {
    let object = |fields: Value, revision: &str| {
        let meta = json!({ "managedFields": fields, "name": "é\"", "resourceVersion": revision });
        json!({ "data": { "managedFields": "kept" }, "metadata": meta })
    };
    let fields = json!([{ "manager": "kubectl", "fieldsV1": { "f:data": { "f:a\"": {} } } }]);
    let changed = json!({ "type": "MODIFIED", "object": object(fields.clone(), "4") });
    let listed = json!({ "metadata": { "resourceVersion": "3" }, "items": [object(fields, "3")] });
    let (client, _) = server(vec![(200, vec![listed.to_string()]), (200, vec![format!("{changed}\n")])]);
    let mut events = std::pin::pin!(typed::<Value>(client, Source::of("configmaps")));
    assert_eq!(events.next().await, Some(Event::Replace(vec![object(Value::Null, "3")], 3)));
    assert_eq!(events.next().await, Some(Event::Set(object(Value::Null, "4"))));
}
