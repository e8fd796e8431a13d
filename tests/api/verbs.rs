//! Each verb, and each way in which a request can be wrong.

use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use skiff::api::user::User;

use crate::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MERGE: &str = "application/merge-patch+json";

fn map(name: &str, value: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"k": value}})
}

#[tokio::test]
async fn a_life_of_an_object() {
    let server = Server::new().await;
    let created = server.post(MAPS, &map("a", "1")).await;
    assert_eq!(created.code, 201);
    assert!(created.headers.contains_key("audit-id"));
    let uid = created.json()["metadata"]["uid"].clone();
    let mut object = server.get(&format!("{MAPS}/a")).await.json();
    assert_eq!((&object["data"]["k"], &object["metadata"]["uid"]), (&json!("1"), &uid));

    object["data"]["k"] = "2".into();
    assert_eq!(server.put(&format!("{MAPS}/a"), &object).await.code, 200);
    let stale = server.put(&format!("{MAPS}/a"), &object).await;
    assert_eq!((stale.code, stale.json()["reason"].as_str()), (409, Some("Conflict")));
    assert!(stale.message().contains("the object has been modified"));

    let patched = server.patch(&format!("{MAPS}/a"), MERGE, &json!({"data": {"k": "3"}})).await;
    assert_eq!((patched.code, &patched.json()["data"]["k"]), (200, &json!("3")));
    let ops = json!([{"op": "replace", "path": "/data/k", "value": "4"}]);
    let patched = server.patch(&format!("{MAPS}/a"), "application/json-patch+json", &ops).await;
    assert_eq!((patched.code, &patched.json()["data"]["k"]), (200, &json!("4")));
    let strategic = server
        .patch(&format!("{MAPS}/a"), "application/strategic-merge-patch+json", &json!({"data": {"l": "5"}}))
        .await;
    assert_eq!(strategic.json()["data"], json!({"k": "4", "l": "5"}));
    assert_eq!(server.patch(&format!("{MAPS}/a"), "text/plain", &json!({})).await.code, 415);

    let list = server.get(MAPS).await.json();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(server.get(&format!("{MAPS}?labelSelector=x%3Dy")).await.json()["items"], json!([]));

    let deleted = server.ask("DELETE", &format!("{MAPS}/a"), &[], "").await;
    assert_eq!((deleted.code, &deleted.json()["status"]), (200, &json!("Success")));
    assert_eq!(deleted.json()["details"], json!({"name": "a", "kind": "configmaps", "uid": uid}));
    let gone = server.get(&format!("{MAPS}/a")).await;
    assert_eq!((gone.code, gone.message().as_str()), (404, "configmaps \"a\" not found"));
}

#[tokio::test]
async fn wrong_requests_are_refused_with_the_right_code() {
    let server = Server::new().await;
    let json = [("content-type", "application/json")];
    assert_eq!(server.ask("POST", MAPS, &json, "{\"kind\": ").await.code, 400);
    assert_eq!(server.ask("POST", MAPS, &json, vec![b' '; (3 << 20) + 1]).await.code, 413);
    assert_eq!(server.ask("POST", MAPS, &[("content-type", "text/html")], "<p>").await.code, 415);
    assert_eq!(
        server.post(MAPS, &json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}})).await.code,
        400
    );
    let invalid = server.post(MAPS, &map("Not_A_Name", "1")).await;
    assert_eq!((invalid.code, invalid.json()["reason"].as_str()), (422, Some("Invalid")));
    assert_eq!(server.post(MAPS, &map("a", "1")).await.code, 201);
    assert_eq!(server.post(MAPS, &map("a", "1")).await.json()["reason"], "AlreadyExists");
    for missing in ["/api/v1/namespaces/default/things", "/apis/none/v1/things", "/api/v2/pods", "/none"] {
        assert_eq!(server.get(missing).await.code, 404, "{missing}");
    }
    assert_eq!(server.ask("PATCH", MAPS, &[("content-type", MERGE)], "{}").await.code, 405);
    assert_eq!(server.ask("DELETE", "/api/v1/configmaps", &[], "").await.code, 405);
    assert_eq!(server.ask("OPTIONS", MAPS, &[], "").await.code, 405);
    let protobuf = [("accept", "application/cbor")];
    assert_eq!(server.ask("GET", MAPS, &protobuf, "").await.code, 406);
    assert_eq!(server.get(&format!("{MAPS}?limit=x")).await.code, 400);
    let strict = server
        .post(
            &format!("{MAPS}?fieldValidation=Strict"),
            &json!({"kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": "s"}, "daat": {}}),
        )
        .await;
    assert_eq!(strict.code, 400);
    let warned = server
        .post(MAPS, &json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "w"}, "daat": {}}))
        .await;
    assert_eq!(warned.headers["warning"], r#"299 - "unknown field \"daat\"""#);
}

#[tokio::test]
async fn bodies_may_be_protobuf() {
    let server = Server::new().await;
    let binary = [("content-type", "application/vnd.kubernetes.protobuf"), ("accept", "application/json")];
    let body = &b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\r\n\x03\n\x01p\x12\x06\n\x01k\x12\x011"[..];
    let created = server.ask("POST", MAPS, &binary, body).await;
    assert_eq!((created.code, &created.json()["data"]), (201, &json!({"k": "1"})));
    let options = &b"k8s\0\n\x13\n\x02v1\x12\rDeleteOptions\x12\x04\"\x02No"[..];
    assert_eq!(server.ask("DELETE", &format!("{MAPS}/p"), &binary, options).await.code, 422, "no such policy");
    let options = &b"k8s\0\n\x13\n\x02v1\x12\rDeleteOptions\x12\x05*\x03All"[..];
    assert_eq!(server.ask("DELETE", &format!("{MAPS}/p"), &binary, options).await.code, 200);
    assert_eq!(server.get(&format!("{MAPS}/p")).await.code, 200, "the deletion was a dry run");
    assert_eq!(server.ask("POST", MAPS, &binary, "{}").await.code, 400);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let server = Server::new().await;
    assert_eq!(server.post(&format!("{MAPS}?dryRun=All"), &map("a", "1")).await.code, 201);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.code, 404);
    assert_eq!(server.post(&format!("{MAPS}?dryRun=Some"), &map("a", "1")).await.code, 422);
}

#[tokio::test]
async fn tables_have_upstreams_columns() {
    let server = Server::new().await;
    server.post(MAPS, &map("a", "1")).await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let table = server.ask("GET", MAPS, &accept, "").await.json();
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let names: Vec<&Value> = table["columnDefinitions"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["Name", "Data", "Age"]);
    let row = table["rows"].as_array().unwrap().iter().find(|r| r["cells"][0] == "a").expect("its row");
    assert_eq!(
        (&row["object"]["kind"], &row["object"]["metadata"]["name"]),
        (&json!("PartialObjectMetadata"), &json!("a"))
    );
}

#[tokio::test]
async fn a_watch_resumes_where_a_list_ended() {
    let server = Server::new().await;
    let revision = server.get(MAPS).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    server.post(MAPS, &map("a", "1")).await;
    let uri = format!("{MAPS}?watch=1&resourceVersion={revision}&allowWatchBookmarks=true");
    let mut stream = server.respond("GET", &uri, &[], "").await.into_body();
    let mut next = async || {
        let frame = tokio::time::timeout(Duration::from_secs(10), stream.frame()).await.expect("in time");
        let data = frame.map(|f| f.unwrap().into_data().unwrap()).unwrap_or_default();
        data.split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect::<Vec<Value>>()
    };
    let shown = |events: &[Value]| -> Vec<String> {
        events
            .iter()
            .map(|e| format!("{} {}", e["type"].as_str().unwrap(), e["object"]["data"]["k"].as_str().unwrap()))
            .collect()
    };
    assert_eq!(shown(&next().await), ["ADDED 1"]);
    server.patch(&format!("{MAPS}/a"), MERGE, &json!({"data": {"k": "2"}})).await;
    assert_eq!(shown(&next().await), ["MODIFIED 2"]);
    server.ask("DELETE", &format!("{MAPS}/a"), &[], "").await;
    assert_eq!(shown(&next().await), ["DELETED 2"]);
    server.stop.cancel();
    assert_eq!(next().await, Vec::<Value>::new(), "the stop ends it");
}

#[tokio::test]
async fn anonymous_sees_health_and_version_only() {
    let mut server = Server::new().await;
    let admin = skiff::server::http::client(&server.service, server.user.clone().unwrap());
    for namespace in ["kube-system", "kube-public"] {
        let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": namespace}});
        assert_eq!(server.post("/api/v1/namespaces", &namespace).await.code, 201);
    }
    skiff::server::authz::bootstrap::reconcile(admin).await.unwrap();
    server.user = None;
    for open in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(server.get(open).await.code, 200, "{open}");
    }
    for closed in ["/metrics", "/readyz/store", "/api/v1/nodes", MAPS, "/apis", "/none"] {
        assert_eq!(server.get(closed).await.code, 403, "{closed}");
    }
    assert_eq!(
        server.get(MAPS).await.message(),
        "configmaps is forbidden: User \"system:anonymous\" cannot list resource \"configmaps\" in API group \"\" in the \
         namespace \"default\""
    );
    assert_eq!(server.ask("GET", "/version", &[("authorization", "Bearer rubbish")], "").await.code, 401);
    // Pods may read what others check their tokens with.
    let configuration = "/.well-known/openid-configuration";
    assert_eq!(server.get(configuration).await.code, 403);
    server.user =
        Some(User::new("system:serviceaccount:default:x", &["system:serviceaccounts", "system:authenticated"]));
    let document = server.get(configuration).await;
    assert_eq!(document.json()["issuer"], "https://kubernetes.default.svc.cluster.local");
    assert_eq!(document.json()["jwks_uri"], "https://10.1.2.3:6443/openid/v1/jwks");
    let keys = server.get("/openid/v1/jwks").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    assert_eq!(keys.json()["keys"][0]["alg"], "ES256");
}

#[tokio::test]
async fn discovery_and_reviews_answer() {
    let server = Server::new().await;
    assert_eq!(server.get("/api/v1").await.json()["kind"], "APIResourceList");
    assert_eq!(server.get("/apis").await.json()["kind"], "APIGroupList");
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")];
    let answer = server.ask("GET", "/apis", &accept, "").await;
    assert_eq!(answer.json()["kind"], "APIGroupDiscoveryList");
    let etag = answer.headers["etag"].to_str().unwrap().to_owned();
    let again = server.ask("GET", "/apis", &[accept[0], ("if-none-match", &etag)], "").await;
    assert_eq!(again.code, 304);
    let v3 =
        server.get("/openapi/v3").await.json()["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    assert_eq!(server.get(&v3).await.headers["cache-control"], "public, immutable");
    let review = json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let answer = server.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).await;
    assert_eq!((answer.code, &answer.json()["status"]["allowed"]), (201, &json!(true)), "{}", answer.text);
    let metrics = server.get("/metrics").await.text;
    assert!(metrics.contains("apiserver_request_total{"), "{metrics}");
}
