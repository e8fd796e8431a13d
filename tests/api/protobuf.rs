//! Clients that speak protobuf: objects, lists, watches and errors as client-go reads them.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use skiff::api::protobuf::{MEDIA_TYPE, decode, envelope};
use skiff::api::schema;

use crate::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// What a typed client of Go asks for.
const TYPED: &str = "application/vnd.kubernetes.protobuf,application/json";

/// The answer to a GET: its code, its content type, its body.
async fn get(server: &Server, uri: &str, accept: &str) -> (u16, String, Bytes) {
    let response = server.respond("GET", uri, &[("accept", accept)], "").await;
    let (code, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, headers["content-type"].to_str().unwrap().into(), body)
}

/// What an envelope holds, with its kind.
fn read(bytes: &[u8]) -> (String, Value) {
    let envelope = envelope(bytes).unwrap();
    let (group, version) = envelope.api_version.split_once('/').unwrap_or(("", &envelope.api_version));
    let schema = schema::find(group, version, &envelope.kind).unwrap_or_else(|| panic!("{}", envelope.kind));
    (envelope.kind.clone(), decode(envelope.object, schema).unwrap())
}

async fn with_a_map() -> Server {
    let server = Server::new().await;
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "m"}, "data": {"a": "b"}});
    assert_eq!(server.post(MAPS, &map).await.code, 201);
    server
}

#[tokio::test]
async fn objects_lists_and_errors() {
    let server = with_a_map().await;
    let json = server.get(&format!("{MAPS}/m")).await.json();
    let (code, kind, body) = get(&server, &format!("{MAPS}/m"), TYPED).await;
    assert_eq!((code, kind.as_str()), (200, MEDIA_TYPE));
    let (kind, mut object) = read(&body);
    object["apiVersion"] = "v1".into();
    object["kind"] = kind.into();
    assert_eq!(object, json);

    let (_, _, body) = get(&server, MAPS, TYPED).await;
    let (kind, list) = read(&body);
    assert_eq!((kind.as_str(), &list["items"][0]["data"]), ("ConfigMapList", &json!({"a": "b"})));
    assert!(list["metadata"]["resourceVersion"].is_string());

    let (code, kind, body) = get(&server, &format!("{MAPS}/none"), TYPED).await;
    assert_eq!((code, kind.as_str()), (404, MEDIA_TYPE));
    let (kind, status) = read(&body);
    assert_eq!((kind.as_str(), &status["message"]), ("Status", &json!("configmaps \"none\" not found")));

    // What has no such form comes in the next one that the client takes.
    let rows = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json";
    assert_eq!(get(&server, MAPS, rows).await.1, "application/json");
    let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let (code, kind, body) = get(&server, MAPS, partial).await;
    assert_eq!((code, kind.as_str()), (200, MEDIA_TYPE));
    assert_eq!(envelope(&body).unwrap().kind, "PartialObjectMetadataList");
    assert_eq!(get(&server, "/version", TYPED).await.1, "application/json");
}

#[tokio::test]
async fn watches_are_framed() {
    let server = with_a_map().await;
    let accept = [("accept", "application/vnd.kubernetes.protobuf;stream=watch")];
    let response = server.respond("GET", &format!("{MAPS}?watch=1&resourceVersion=0"), &accept, "").await;
    assert_eq!(response.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let frame = response.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
    let (length, event) = frame.split_at(4);
    assert_eq!(u32::from_be_bytes(length.try_into().unwrap()) as usize, event.len());
    // The event: its type, then the envelope of the object in a message of its own.
    assert_eq!(&event[..7], b"\x0a\x05ADDED");
    let start = event.windows(4).position(|w| w == b"k8s\0").unwrap();
    let (kind, object) = read(&event[start..]);
    assert_eq!((kind.as_str(), &object["metadata"]["name"]), ("ConfigMap", &json!("m")));
}

#[tokio::test]
async fn a_write_is_answered_in_the_form_it_came_in() {
    let server = with_a_map().await;
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "n"}, "data": {"c": "d"}});
    let body = skiff::api::protobuf::encode::object(&object).unwrap();
    let headers = [("accept", TYPED), ("content-type", MEDIA_TYPE)];
    let response = server.respond("POST", MAPS, &headers, body).await;
    assert_eq!(response.status(), 201);
    let (_, created) = read(&response.into_body().collect().await.unwrap().to_bytes());
    assert_eq!((&created["metadata"]["name"], &created["data"]), (&json!("n"), &json!({"c": "d"})));
}
