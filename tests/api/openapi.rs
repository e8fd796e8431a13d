//! OpenAPI over HTTP: what clients ask for, and what caches are told.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::json;

use crate::Server;

const V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const V3: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";

/// An answer that is no text.
async fn get(server: &Server, uri: &str, headers: &[(&str, &str)]) -> (u16, http::HeaderMap, Bytes) {
    let (parts, body) = server.respond("GET", uri, headers, "").await.into_parts();
    (parts.status.as_u16(), parts.headers, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn the_document_of_version_2_has_two_forms() {
    let server = Server::new().await;
    let answer = server.get("/openapi/v2").await;
    let header = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
    assert_eq!((header("content-type"), header("vary")), ("application/json".into(), "Accept".into()));
    assert!(header("last-modified").ends_with(" GMT"), "{}", header("last-modified"));
    let document = answer.json();
    let strategy = &document["definitions"]["io.k8s.api.apps.v1.DeploymentStrategy"];
    assert!(strategy["properties"]["rollingUpdate"]["description"].as_str().unwrap().starts_with("Rolling update"));
    // As client-go's discovery asks, and by the name that is a media type.
    for accept in ["application/com.github.proto-openapi.spec.v2@v1.0+protobuf", V2] {
        let (code, headers, body) = get(&server, "/openapi/v2", &[("accept", accept)]).await;
        assert_eq!((code, headers["content-type"].to_str().unwrap()), (200, V2));
        assert_eq!(headers["etag"], answer.headers["etag"]);
        assert!(body.starts_with(b"\n\x032.0"), "field 1 is the version");
        assert!(body.len() > 1_000_000, "{}", body.len());
    }
    let etag = header("etag");
    let known = [("if-none-match", etag.as_str()), ("accept", V2)];
    let unchanged = server.ask("GET", "/openapi/v2", &known, "").await;
    assert_eq!((unchanged.code, unchanged.text.as_str()), (304, ""));
    let neither = server.ask("GET", "/openapi/v2", &[("accept", "application/yaml")], "").await;
    assert_eq!((neither.code, neither.text.as_str()), (406, ""));
    assert_eq!(neither.headers["vary"], "Accept");
    let (_, headers, small) = get(&server, "/openapi/v2", &[("accept-encoding", "gzip")]).await;
    assert_eq!(headers["content-encoding"], "gzip");
    assert!(small.len() < answer.text.len() / 5, "{}", small.len());
    let vary: Vec<_> = headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["Accept", "Accept-Encoding"]);
}

#[tokio::test]
async fn a_document_of_version_3_is_kept_by_its_hash() {
    let server = Server::new().await;
    let index = server.get("/openapi/v3").await;
    assert!(index.headers.contains_key("etag"));
    let at = index.json()["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let answer = server.get(&at).await;
    assert_eq!(answer.headers["cache-control"], "public, immutable");
    assert!(answer.headers["expires"].to_str().unwrap().ends_with(" GMT"));
    assert_eq!(answer.headers["etag"].to_str().unwrap(), format!("\"{}\"", at.split_once("hash=").unwrap().1));
    let schemas = &answer.json()["components"]["schemas"];
    let spec = &schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"];
    assert!(spec["replicas"]["description"].as_str().unwrap().starts_with("Number of desired pods"));
    assert_eq!(spec["template"]["allOf"], json!([{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodTemplateSpec"}]));
    assert!(spec["template"]["description"].is_string());

    let (code, headers, body) = get(&server, &at, &[("accept", V3)]).await;
    assert_eq!((code, headers["content-type"].to_str().unwrap()), (200, V3));
    assert!(body.starts_with(b"\n\x053.0.0"));
    let plain = server.get("/openapi/v3/apis/apps/v1").await;
    assert!(!plain.headers.contains_key("expires") && plain.headers["cache-control"] != "public, immutable");
    let moved = server.get("/openapi/v3/apis/apps/v1?hash=0").await;
    assert_eq!((moved.code, moved.headers["location"].to_str().unwrap()), (301, at.as_str()));
    let other = server.ask("GET", &at, &[("accept", V2)], "").await;
    assert_eq!((other.code, other.text.as_str()), (406, ""));
}
