//! The `APIService`s of what the API server has itself, and what extension servers are told of whom to believe.

use std::sync::Arc;

use serde_json::{Value, json};
use skiff::api::user::User;
use skiff::server::aggregation::API_SERVICES;
use skiff::server::controllers::action::Controller;
use skiff::server::controllers::api_services::ApiServices;
use skiff::server::controllers::extension_authentication::{ExtensionAuthentication, Trusted};
use skiff::server::controllers::{driver, stores::Stores};
use skiff::server::http::client;
use tokio_util::sync::CancellationToken;

use super::Server;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

/// The controllers of what the server has itself, until they are stopped.
async fn controllers(server: &Server, controllers: Vec<Arc<dyn Controller>>, until: impl Future<Output = ()>) {
    let stop = CancellationToken::new();
    let asks = client(&server.service, User::new("system:kube-controller-manager", &["system:masters"]));
    let running = driver::run(asks, Arc::new(Stores::new()), controllers, stop.clone());
    let ended = async {
        tokio::time::timeout(DEADLINE, until).await.expect("done in time");
        stop.cancel();
    };
    tokio::join!(running, ended);
}

async fn there(server: &Server, storage: &str, uri: &str) -> Value {
    let mut changes = server.cache.subscribe(storage);
    loop {
        let found = server.get(uri).await;
        if found.code == 200 {
            return found.json();
        }
        changes.changed().await.unwrap();
    }
}

fn definition(plural: &str, kind: &str) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [{"name": plural_version(plural), "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
}

fn plural_version(plural: &str) -> &'static str {
    if plural == "firsts" { "v1" } else { "v2" }
}

#[tokio::test]
async fn what_the_server_has_itself_is_registered_once() {
    let server = Server::new().await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(server.post(definitions, &definition("firsts", "First")).await.code, 201);
    let custom = |version: &str| format!("{SERVICES}/{version}.example.com");
    let ours = || -> Vec<Arc<dyn Controller>> { vec![Arc::new(ApiServices::default())] };
    controllers(&server, ours(), async {
        for name in ["v1.apps", "v1.", "v2.autoscaling", "v1.example.com"] {
            there(&server, API_SERVICES, &format!("{SERVICES}/{name}")).await;
        }
    })
    .await;
    let apps = server.get(&format!("{SERVICES}/v1.apps")).await.json();
    assert_eq!(apps["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    assert_eq!((&apps["spec"]["groupPriorityMinimum"], &apps["spec"]["versionPriority"]), (&json!(17800), &json!(15)));
    let condition = &apps["status"]["conditions"][0];
    assert_eq!((&condition["reason"], &condition["status"]), (&json!("Local"), &json!("True")));
    let first = server.get(&custom("v1")).await.json();
    assert_eq!(first["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "true");
    assert_eq!(
        (&first["spec"]["groupPriorityMinimum"], &first["spec"]["versionPriority"]),
        (&json!(1000), &json!(100))
    );

    // At the next start nothing is written but what is missing.
    let revisions = async || -> Vec<(Value, Value)> {
        let list = server.get(SERVICES).await.json();
        let of = |i: &Value| (i["metadata"]["name"].clone(), i["metadata"]["resourceVersion"].clone());
        list["items"].as_array().unwrap().iter().map(of).collect()
    };
    controllers(&server, ours(), async {
        there(&server, API_SERVICES, &format!("{SERVICES}/v1.storage.k8s.io")).await;
    })
    .await;
    let before = revisions().await;
    assert_eq!(server.post(definitions, &definition("seconds", "Second")).await.code, 201);
    controllers(&server, ours(), async {
        there(&server, API_SERVICES, &custom("v2")).await;
        // And one goes with what defined it.
        assert_eq!(server.delete(&custom("v2"), &json!({})).await.code, 200);
        there(&server, API_SERVICES, &custom("v2")).await;
        assert_eq!(server.delete(&format!("{definitions}/seconds.example.com"), &json!({})).await.code, 200);
    })
    .await;
    let mut after = revisions().await;
    after.retain(|(name, _)| name != "v2.example.com");
    assert_eq!(after, before);
}

#[tokio::test]
async fn extension_servers_are_told_whom_to_believe() {
    let server = Server::new().await;
    let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "kube-system"}});
    assert_eq!(server.post("/api/v1/namespaces", &namespace).await.code, 201);
    let ca = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap().cert.pem().replace("\r\n", "\n");
    let one = |text: &str| vec![text.to_owned()];
    let trusted = Trusted {
        client_ca: ca.clone(),
        request_header_ca: ca.clone(),
        allowed_names: one("system:auth-proxy"),
        username_headers: one("X-Remote-User"),
        uid_headers: one("X-Remote-Uid"),
        group_headers: one("X-Remote-Group"),
        extra_headers_prefix: one("X-Remote-Extra-"),
    };
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let ours = || -> Vec<Arc<dyn Controller>> { vec![Arc::new(ExtensionAuthentication::new(trusted.clone()))] };
    controllers(&server, ours(), async {
        let made = there(&server, "configmaps", path).await;
        assert_eq!(
            (&made["data"]["client-ca-file"], &made["data"]["requestheader-client-ca-file"]),
            (&json!(ca), &json!(ca))
        );
        assert_eq!(made["data"]["requestheader-username-headers"], "[\"X-Remote-User\"]");
        // What is changed is put right, and what was added stays.
        let broken =
            json!({"data": {"requestheader-allowed-names": "[\"other\"]", "client-ca-file": "", "stray": "x"}});
        assert_eq!(server.patch(path, "application/merge-patch+json", &broken).await.code, 200);
        let mut changes = server.cache.subscribe("configmaps");
        loop {
            let data = server.get(path).await.json()["data"].take();
            if data["client-ca-file"] == ca.as_str() {
                assert_eq!(data["requestheader-allowed-names"], "[\"other\",\"system:auth-proxy\"]");
                assert!(data.get("stray").is_none());
                return;
            }
            changes.changed().await.unwrap();
        }
    })
    .await;
}
