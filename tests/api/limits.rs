//! What a request may take: bodies of three megabytes wherever one is read, and its time.

use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::json;
use skiff::server::http::service::Identity;

use super::{Answer, Server};

const LIMIT: usize = 3 * 1024 * 1024;
const JSON: &str = "application/json";

#[tokio::test]
async fn no_body_may_be_larger_than_three_megabytes() {
    let server = Server::new().await;
    let (pods, apps) = ("/api/v1/namespaces/default/pods", "/apis/apps/v1/namespaces/default/deployments");
    let authorization = "/apis/authorization.k8s.io/v1";
    let authentication = "/apis/authentication.k8s.io/v1";
    let cases = [
        ("POST", pods.to_owned(), JSON),
        ("POST", pods.to_owned(), "application/yaml"),
        ("POST", pods.to_owned(), "application/vnd.kubernetes.protobuf"),
        ("PUT", format!("{pods}/a"), JSON),
        ("PUT", format!("{pods}/a/status"), JSON),
        ("PUT", format!("{apps}/a/scale"), JSON),
        ("PATCH", format!("{pods}/a"), "application/json-patch+json"),
        ("PATCH", format!("{pods}/a"), "application/merge-patch+json"),
        ("PATCH", format!("{pods}/a/status"), "application/strategic-merge-patch+json"),
        ("PATCH", format!("{pods}/a?fieldManager=me"), "application/apply-patch+yaml"),
        ("PATCH", format!("{apps}/a/scale"), "application/merge-patch+json"),
        ("DELETE", format!("{pods}/a"), JSON),
        ("DELETE", pods.to_owned(), JSON),
        ("POST", format!("{pods}/a/binding"), JSON),
        ("POST", format!("{pods}/a/eviction"), JSON),
        ("POST", "/api/v1/namespaces/default/serviceaccounts/a/token".to_owned(), JSON),
        ("PUT", "/api/v1/namespaces/default/finalize".to_owned(), JSON),
        ("POST", format!("{authentication}/tokenreviews"), JSON),
        ("POST", format!("{authentication}/selfsubjectreviews"), JSON),
        ("POST", format!("{authorization}/subjectaccessreviews"), JSON),
        ("POST", format!("{authorization}/selfsubjectaccessreviews"), JSON),
        ("POST", format!("{authorization}/selfsubjectrulesreviews"), JSON),
        ("POST", format!("{authorization}/namespaces/default/localsubjectaccessreviews"), JSON),
        ("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions".to_owned(), JSON),
    ];
    let long = Bytes::from(vec![b' '; LIMIT + 1]);
    for (method, path, kind) in cases {
        let answer = server.ask(method, &path, &[("content-type", kind)], long.clone()).await;
        let found = (answer.code, answer.text.contains("\"reason\":\"RequestEntityTooLarge\""), answer.message());
        assert_eq!(
            found,
            (413, true, "Request entity too large: limit is 3145728".to_owned()),
            "{method} {path} {kind}"
        );
    }
    let exactly = server.ask("POST", pods, &[("content-type", JSON)], vec![b' '; LIMIT]).await;
    assert_eq!(exactly.code, 400, "that is read, and empty");
}

/// A body that does not come.
async fn stalled(server: &Server, uri: &str) -> Answer {
    let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, _>>()).boxed_unsync();
    let request = Request::builder().method("POST").uri(uri).extension(Identity(server.user.clone().unwrap()));
    Answer::of(server.service.respond(request.body(body).unwrap()).await).await
}

#[tokio::test]
async fn a_request_has_the_time_that_it_asks_for() {
    let mut server = Server::new().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let answer = tokio::time::timeout(Duration::from_secs(30), stalled(&server, &format!("{maps}?timeout=20ms"))).await;
    let answer = answer.expect("an answer long before the time that all requests have");
    assert_eq!((answer.code, answer.json()["reason"].clone()), (504, json!("Timeout")));
    assert_eq!(answer.message(), "Timeout: request did not complete within the allotted timeout");
    let created = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}});
    assert_eq!(server.post(&format!("{maps}?timeout=1h"), &created).await.code, 201);
    assert_eq!(server.get(&format!("{maps}?timeout=0s")).await.code, 200);
    // Before anyone is asked who they are.
    server.user = None;
    let answer = server.get(&format!("{maps}?timeout=5")).await;
    let expect = "invalid timeout specified in the request URL - time: missing unit in duration \"5\"";
    assert_eq!((answer.code, answer.message()), (400, expect.to_owned()));
    // What lasts is not asked.
    assert_eq!(server.get(&format!("{maps}?watch=1&timeout=5")).await.code, 403);
}
