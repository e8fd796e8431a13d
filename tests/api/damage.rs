//! Objects that were damaged on disk are named, stay what they are, and are in nobody's way.

use std::sync::Arc;

use serde_json::{Value, json};
use skiff::api::user::User;
use skiff::server::http::nodes::Nodes;
use skiff::server::store::Store;
use skiff::server::store::sqlite::Sqlite;
use tempfile::TempDir;

use crate::Server;
use crate::conformance::Cluster;

const MAPS: &str = "/api/v1/namespaces/n/configmaps";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const IGNORE: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";

fn open(folder: &TempDir) -> (Arc<Sqlite>, Server) {
    let store = Arc::new(Sqlite::open(&folder.path().join("state.db")).unwrap());
    let nodes = Nodes::new(skiff::pki::tls::unverified().unwrap());
    (store.clone(), Server::above(store, nodes, 600, None))
}

fn map(name: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "finalizers": ["example.com/a"]}})
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_named_and_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let (store, server) = open(&folder);
    for name in ["n", "ending"] {
        let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}});
        assert_eq!(server.post("/api/v1/namespaces", &namespace).await.code, 201);
    }
    assert_eq!(server.post("/api/v1/namespaces/ending/configmaps", &map("cut")).await.code, 201);
    for name in ["cut", "flipped", "renamed", "whole"] {
        assert_eq!(server.post(MAPS, &map(name)).await.code, 201);
    }
    let definition = json!({"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
            "names": {"plural": "widgets", "kind": "Widget"}, "versions": [{"name": "v1", "served": true,
                "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let made = server.post(DEFINITIONS, &definition).await;
    assert_eq!(made.code, 201, "{}", made.text);
    store.close().await.unwrap();
    let db = rusqlite::Connection::open(folder.path().join("state.db")).unwrap();
    for (name, from, to) in
        [("flipped", "\"metadata\"", "\"metadat\u{1}\""), ("renamed", "\"name\":\"renamed\"", "\"name\":\"renamee\"")]
    {
        let sql = "UPDATE objects SET json = CAST(replace(CAST(json AS TEXT), ?2, ?3) AS BLOB) WHERE name = ?1";
        assert!(db.execute(sql, (name, from, to)).unwrap() > 0);
    }
    let row = "INSERT INTO objects VALUES (999999, 'example.com/widgets', '', 'w', 999999, x'00')";
    assert_eq!(db.execute(row, []).unwrap(), 1);
    // As a failing card does it.
    db.execute("UPDATE objects SET json = substr(json, 1, 80) WHERE name = 'cut'", []).unwrap();
    db.close().unwrap();

    let (store, mut server) = open(&folder);
    let names = |list: Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(server.get(MAPS).await.json()), ["whole"]);
    let apply = "application/apply-patch+yaml";
    for (name, why) in [
        ("cut", "it is no JSON: EOF while parsing"),
        ("flipped", "it is no JSON: control character"),
        ("renamed", "its name is \"renamee\""),
    ] {
        let url = format!("{MAPS}/{name}");
        for answer in [
            server.get(&url).await,
            server.delete(&url, &json!({})).await,
            server.put(&url, &map(name)).await,
            server.patch(&url, "application/merge-patch+json", &json!({})).await,
            server.patch(&format!("{url}?fieldManager=a"), apply, &map(name)).await,
        ] {
            assert_eq!(
                (answer.code, answer.json()["reason"].as_str()),
                (500, Some("InternalError")),
                "{}",
                answer.text
            );
            let message = answer.message();
            assert!(message.contains(&format!("configmaps/n/{name} cannot be read")), "{message}");
            assert!(message.contains(why), "{message}");
            let way = format!("kubectl delete --raw '{url}?{IGNORE}=true'");
            assert!(message.contains(&way), "{message}");
        }
        assert_eq!(server.post(MAPS, &map(name)).await.message(), format!("configmaps {name:?} already exists"));
    }
    // Nobody finds it again in the next namespace of that name.
    let url = "/api/v1/namespaces/ending";
    assert_eq!(server.delete(url, &json!({})).await.code, 200);
    let mut namespace = server.get(url).await.json();
    namespace["spec"]["finalizers"] = json!([]);
    let held = server.put(&format!("{url}/finalize"), &namespace).await;
    assert!(held.code == 500 && held.message().contains("configmaps/ending/cut cannot be read"), "{}", held.text);
    let left = server.ask("DELETE", &format!("{url}/configmaps/cut?{IGNORE}=true"), &[], "").await;
    assert_eq!(left.code, 200, "{}", left.text);
    assert_eq!(server.put(&format!("{url}/finalize"), &namespace).await.code, 200);
    assert_eq!(server.get(url).await.code, 404);

    let url = format!("{DEFINITIONS}/widgets.example.com");
    let mut definition = server.delete(&url, &json!({})).await;
    if definition.code == 200 {
        let mut ending = server.get(&url).await.json();
        ending["metadata"]["finalizers"] = json!([]);
        definition = server.put(&url, &ending).await;
    }
    let told = definition.message();
    assert!(definition.code == 500 && told.contains("example.com/widgets/w cannot be read"), "{}", definition.text);

    // Deleting is for those who may do that in particular, and for nothing that can be read.
    let ignoring = |name: &str| format!("{MAPS}/{name}?{IGNORE}=true");
    let refused = server.ask("DELETE", &ignoring("whole"), &[], "").await;
    assert_eq!(
        (refused.code, refused.message().as_str()),
        (
            422,
            "DeleteOptions.meta.k8s.io \"\" is invalid: ignoreStoreReadErrorWithClusterBreakingPotential: Invalid value: \
             true: is exclusively used to delete corrupt object(s), try again by removing this option"
        )
    );
    assert_eq!(server.ask("DELETE", &ignoring("missing"), &[], "").await.code, 404);
    let role = json!({"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "d"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["delete"]}]});
    let binding = json!({"kind": "ClusterRoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "d"}, "subjects": [{"kind": "User", "name": "ann"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "d"}});
    for (plural, object) in [("clusterroles", role), ("clusterrolebindings", binding)] {
        let made = server.post(&format!("/apis/rbac.authorization.k8s.io/v1/{plural}"), &object).await;
        assert_eq!(made.code, 201, "{}", made.text);
    }
    let admin = server.user.replace(User::new("ann", &["system:authenticated"]));
    let forbidden = server.ask("DELETE", &ignoring("cut"), &[], "").await;
    assert!(
        forbidden.code == 403 && forbidden.message().contains("unsafe-delete-ignore-read-errors"),
        "{}",
        forbidden.text
    );
    server.user = admin;
    for name in ["cut", "flipped", "renamed"] {
        let gone = server.ask("DELETE", &ignoring(name), &[], "").await;
        assert_eq!((gone.code, gone.json()["status"].as_str()), (200, Some("Success")), "{}", gone.text);
        assert_eq!(server.get(&format!("{MAPS}/{name}")).await.code, 404);
        assert_eq!(server.post(MAPS, &map(name)).await.code, 201);
    }
    store.close().await.unwrap();
    let (_store, server) = open(&folder);
    assert_eq!(names(server.get(MAPS).await.json()), ["cut", "flipped", "renamed", "whole"]);
}

#[tokio::test]
async fn a_namespace_says_what_does_not_let_it_end_and_ends_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let (store, server) = open(&folder);
    let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "n"}});
    assert_eq!(server.post("/api/v1/namespaces", &namespace).await.code, 201);
    assert_eq!(server.post(MAPS, &map("hurt")).await.code, 201);
    store.close().await.unwrap();
    let db = rusqlite::Connection::open(folder.path().join("state.db")).unwrap();
    db.execute("UPDATE objects SET json = substr(json, 1, 80) WHERE name = 'hurt'", []).unwrap();
    db.close().unwrap();

    let (_store, server) = open(&folder);
    let cluster = Cluster::of(server);
    let url = "/api/v1/namespaces/n";
    cluster.await_object(url, |n| n["spec"]["finalizers"] == json!(["kubernetes"])).await;
    assert_eq!(cluster.delete(url, &json!({})).await.code, 200);
    let told = cluster
        .await_object(url, |n| {
            let conditions = n["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["reason"] == "ContentDeletionFailed")
        })
        .await;
    assert!(told["status"]["conditions"].to_string().contains("configmaps/n/hurt cannot be read"), "{told}");
    // Tried again for as long as it is so, it says nothing new: nothing is written.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(cluster.get(url).await.json(), told);
    assert_eq!(cluster.ask("DELETE", &format!("{MAPS}/hurt?{IGNORE}=true"), &[], "").await.code, 200);
    cluster.await_gone(url).await;
}
