//! Extension servers whose objects are the cluster's own in all things: behind the one here is a whole API.

use serde_json::json;

use crate::aggregation::Lab;
use crate::conformance::{Cluster, wait_for};

const GROUP: &str = "/apis/ext.example.com/v1";
const SERVICE: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1.ext.example.com";

/// The server behind, with the resource `things`.
async fn extension() -> Cluster {
    let cluster = Cluster::new().await;
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    cluster
        .define(&json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "things.ext.example.com"}, "spec": {"group": "ext.example.com", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}}))
        .await;
    cluster
}

fn namespace(name: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

#[tokio::test]
async fn what_it_has_ends_with_its_namespace_and_its_owners() {
    let behind = extension().await;
    let lab = Lab::before(behind.service.clone()).await;
    let (server, _controllers) = (&lab.server, Cluster::controllers(&lab.server));
    // Both know the namespace, as the extension server's own admission would see it.
    for one in [server, &*behind] {
        one.made("/api/v1/namespaces", &namespace("going")).await;
    }
    let thing = |name: &str| json!({"apiVersion": "ext.example.com/v1", "kind": "Thing", "metadata": {"name": name}});
    let of = |namespace: &str| format!("{GROUP}/namespaces/{namespace}/things");
    server.made(&of("going"), &thing("a")).await;
    server.made(&of("default"), &thing("stays")).await;
    assert_eq!(behind.items(&of("going")).await.len(), 1);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}});
    let owner = server.made("/api/v1/namespaces/default/configmaps", &map).await;
    let mut owned = thing("owned");
    owned["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}]);
    server.made(&of("default"), &owned).await;

    server.deleted("/api/v1/namespaces/going", &json!({})).await;
    wait_for("the namespace to end", async || (server.get("/api/v1/namespaces/going").await.code == 404).then_some(()))
        .await;
    assert_eq!(behind.items(&of("going")).await.len(), 0);
    server.deleted("/api/v1/namespaces/default/configmaps/owner", &json!({"propagationPolicy": "Background"})).await;
    wait_for("what was owned to end", async || (behind.items(&of("default")).await.len() == 1).then_some(())).await;
}

/// What it has in a namespace cannot be known, and is not left there unseen.
#[tokio::test]
async fn a_namespace_waits_for_one_that_is_away() {
    let behind = extension().await;
    let mut lab = Lab::before(behind.service.clone()).await;
    let _controllers = Cluster::controllers(&lab.server);
    lab.server.made("/api/v1/namespaces", &namespace("going")).await;
    lab.listening.abort_all();
    lab.server.patched(SERVICE, "application/merge-patch+json", &json!({"spec": {"service": {"port": 1}}})).await;
    lab.condition("v1", "FailedDiscoveryCheck").await;
    lab.server.deleted("/api/v1/namespaces/going", &json!({})).await;
    let told = wait_for("the namespace to say why", async || {
        let found = lab.server.get("/api/v1/namespaces/going").await.json();
        let conditions = found["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|c| c["type"] == "NamespaceDeletionDiscoveryFailure")
    })
    .await;
    let why = "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: \
               ext.example.com/v1: stale GroupVersion discovery: ext.example.com/v1";
    assert_eq!(
        (&told["status"], &told["reason"], &told["message"]),
        (&json!("True"), &json!("DiscoveryFailed"), &json!(why))
    );
    lab.server.deleted(SERVICE, &json!({})).await;
    wait_for("the namespace to end", async || {
        (lab.server.get("/api/v1/namespaces/going").await.code == 404).then_some(())
    })
    .await;
}
