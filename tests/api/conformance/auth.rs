//! Service accounts, their tokens, and what they may; the certificate of the cluster in every namespace.

use serde_json::{Value, json};
use skiff::api::user::User;

use super::{Cluster, MERGE, STRATEGIC, Watching, names};
use crate::Server;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1";

fn account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "labels": {"test": "static"}}})
}

#[tokio::test]
async fn an_account_lives() {
    let server = Server::new().await;
    let mut watch = Watching::new(&server, &format!("{ACCOUNTS}?watch=1&labelSelector=test%3Dstatic")).await;
    server.made(ACCOUNTS, &account("a")).await;
    assert_eq!(watch.told().await, "ADDED a");
    let patched =
        server.patched(&format!("{ACCOUNTS}/a"), STRATEGIC, &json!({"automountServiceAccountToken": false})).await;
    assert_eq!(watch.next().await, ("MODIFIED".to_owned(), patched));
    let listed = server.items("/api/v1/serviceaccounts?labelSelector=test%3Dstatic").await;
    assert_eq!((names(&listed), &listed[0]["automountServiceAccountToken"]), (vec!["a"], &json!(false)));
    server.deleted(&format!("{ACCOUNTS}?labelSelector=test%3Dstatic"), &json!({})).await;
    assert_eq!(watch.told().await, "DELETED a");
}

#[tokio::test]
async fn an_account_is_updated() {
    let server = Server::new().await;
    let mut made = server.made(ACCOUNTS, &account("a")).await;
    assert_eq!(made["automountServiceAccountToken"], Value::Null);
    made["automountServiceAccountToken"] = true.into();
    assert_eq!(server.replaced(&format!("{ACCOUNTS}/a"), &made).await["automountServiceAccountToken"], true);
}

#[tokio::test]
async fn a_token_is_made_and_recognized() {
    let server = Server::new().await;
    server.made(ACCOUNTS, &account("a")).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let made = server.made(&format!("{ACCOUNTS}/a/token"), &request).await;
    let token = made["status"]["token"].as_str().unwrap();
    assert!(!token.is_empty());
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let review = server.made("/apis/authentication.k8s.io/v1/tokenreviews", &review).await;
    let status = &review["status"];
    assert_eq!((&status["authenticated"], &status["error"]), (&json!(true), &Value::Null), "{review}");
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:a");
    // And by the server itself, of whoever comes with it.
    let mut stranger = server;
    stranger.user = None;
    let bearer = format!("Bearer {token}");
    let refused = stranger.ask("GET", "/api/v1/nodes", &[("authorization", &bearer)], "").await;
    assert!(refused.message().contains("User \"system:serviceaccount:default:a\" cannot list"), "{}", refused.text);
}

/// What a review says of an account is what somebody meets who impersonates it.
#[tokio::test]
async fn reviews_say_what_an_account_meets() {
    let mut server = Server::new().await;
    server.made(ACCOUNTS, &account("e2e")).await;
    server.made(ACCOUNTS, &account("tester")).await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "e2e"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]});
    server.made(&format!("{rbac}/roles"), &role).await;
    let all = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "tester"},
        "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    server.made("/apis/rbac.authorization.k8s.io/v1/clusterroles", &all).await;
    let bind = |kind: &str, role: &str, account: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"), "metadata": {"name": account},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "default"}]})
    };
    server.made(&format!("{rbac}/rolebindings"), &bind("Role", "e2e", "e2e")).await;
    let everywhere = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    server.made(everywhere, &bind("ClusterRole", "tester", "tester")).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let made = server.made(&format!("{ACCOUNTS}/tester/token"), &request).await;
    let tester = format!("Bearer {}", made["status"]["token"].as_str().unwrap());
    server.user = None;
    let user = "system:serviceaccount:default:e2e";
    for (resource, allowed) in [("configmaps", true), ("pods", false)] {
        let impersonated = [("authorization", tester.as_str()), ("impersonate-user", user)];
        let met = server.ask("GET", &format!("/api/v1/namespaces/default/{resource}"), &impersonated, "").await;
        assert_eq!(met.code, if allowed { 200 } else { 403 }, "{}", met.text);
        for (kind, path) in [
            ("SubjectAccessReview", format!("{REVIEWS}/subjectaccessreviews")),
            ("LocalSubjectAccessReview", format!("{REVIEWS}/namespaces/default/localsubjectaccessreviews")),
        ] {
            let namespace = if kind.starts_with("Local") { json!({"namespace": "default"}) } else { json!({}) };
            let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "metadata": namespace,
                "spec": {"user": user, "resourceAttributes": {"namespace": "default", "verb": "list",
                    "resource": resource, "version": "v1"}}});
            let headers = [("authorization", tester.as_str()), ("content-type", "application/json")];
            let said = server.ask("POST", &path, &headers, review.to_string()).await;
            assert_eq!((said.code, &said.json()["status"]["allowed"]), (201, &json!(allowed)), "{kind}: {}", said.text);
        }
    }
}

#[tokio::test]
async fn every_namespace_has_the_certificate_of_the_cluster() {
    let cluster = Cluster::new().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}});
    cluster.made("/api/v1/namespaces", &namespace).await;
    let at = "/api/v1/namespaces/ns/configmaps/kube-root-ca.crt";
    let first = cluster.await_there(at).await;
    assert!(first["data"]["ca.crt"].as_str().is_some_and(|pem| !pem.is_empty()));
    cluster.deleted(at, &json!({})).await;
    let uid = |object: &Value| object["metadata"]["uid"].clone();
    let second = cluster.await_object(at, |o| uid(o) != uid(&first)).await;
    assert_eq!(second["data"], first["data"]);
    cluster.patched(at, MERGE, &json!({"data": {"ca.crt": ""}})).await;
    cluster.await_object(at, |o| o["data"] == first["data"]).await;
}

/// Whoever can read the discovery document and the keys can check the token of an account, without asking anybody.
#[tokio::test]
async fn a_token_is_checked_by_the_published_keys() {
    let mut server = Server::new().await;
    server.made(ACCOUNTS, &account("a")).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["oidc-discovery-test"]}});
    let made = server.made(&format!("{ACCOUNTS}/a/token"), &request).await;
    let token = made["status"]["token"].as_str().unwrap().to_owned();
    let admin = skiff::server::http::client(&server.service, server.user.clone().unwrap());
    for namespace in ["kube-system", "kube-public"] {
        let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": namespace}});
        server.made("/api/v1/namespaces", &namespace).await;
    }
    skiff::server::authz::bootstrap::reconcile(admin).await.unwrap();
    server.user =
        Some(User::new("system:serviceaccount:default:a", &["system:serviceaccounts", "system:authenticated"]));
    let document = server.get("/.well-known/openid-configuration").await.json();
    let keys = document["jwks_uri"].as_str().unwrap().split_once(":6443").unwrap().1.to_owned();
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_value(server.get(&keys).await.json()).unwrap();
    let header = jsonwebtoken::decode_header(&token).unwrap();
    let key = keys.find(header.kid.as_deref().unwrap()).expect("the key that signed is published");
    let mut rules = jsonwebtoken::Validation::new(header.alg);
    rules.set_audience(&["oidc-discovery-test"]);
    rules.set_issuer(&[document["issuer"].as_str().unwrap()]);
    let key = jsonwebtoken::DecodingKey::from_jwk(key).unwrap();
    let read = jsonwebtoken::decode::<Value>(&token, &key, &rules).unwrap();
    assert_eq!(read.claims["sub"], "system:serviceaccount:default:a");
    let algorithms = document["id_token_signing_alg_values_supported"].as_array().unwrap();
    assert!(algorithms.contains(&json!(format!("{:?}", header.alg))), "{document}");
}

/// What the pod says counts, then what its account says; who says nothing gets a token.
#[tokio::test]
async fn a_token_is_mounted_unless_somebody_declines() {
    let server = Server::new().await;
    let says = [("unsaid", Value::Null), ("yes", json!(true)), ("no", json!(false))];
    for (name, automount) in &says {
        let mut account = account(name);
        account["automountServiceAccountToken"] = automount.clone();
        server.made(ACCOUNTS, &account).await;
    }
    for (pod_says, automount) in &says {
        for (account_says, _) in &says {
            let mut one = super::pod(&format!("{pod_says}-{account_says}"));
            one["spec"]["serviceAccountName"] = (*account_says).into();
            one["spec"]["automountServiceAccountToken"] = automount.clone();
            let made = server.made("/api/v1/namespaces/default/pods", &one).await;
            let mounts = made["spec"]["containers"][0]["volumeMounts"].as_array().cloned().unwrap_or_default();
            let is_mounted = mounts.iter().any(|m| m["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount");
            let expect = *pod_says == "yes" || (*pod_says == "unsaid" && *account_says != "no");
            assert_eq!(is_mounted, expect, "pod: {pod_says}, account: {account_says}");
        }
    }
}
