//! Owners in circles, and owners that are not there.

use super::*;
use crate::conformance::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn reference(owner: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": owner["kind"], "name": owner["metadata"]["name"], "uid": uid(owner),
        "blockOwnerDeletion": true})
}

async fn map(cluster: &Cluster, uri: &str, name: &str, owners: &Value) -> Value {
    cluster.made(uri, &json!({"metadata": {"name": name, "ownerReferences": owners}})).await
}

async fn owned_by(cluster: &Cluster, name: &str, owners: &[&Value]) {
    let owners: Vec<Value> = owners.iter().map(|o| reference(o)).collect();
    cluster.patched(&format!("{MAPS}/{name}"), MERGE, &json!({"metadata": {"ownerReferences": owners}})).await;
}

#[tokio::test(start_paused = true)]
async fn circles_stay_and_go_like_anything_else() {
    let cluster = Cluster::new().await;
    let mut maps = Vec::new();
    for name in ["a", "b", "c", "self"] {
        maps.push(map(&cluster, MAPS, name, &json!(null)).await);
    }
    owned_by(&cluster, "a", &[&maps[2]]).await;
    owned_by(&cluster, "b", &[&maps[0]]).await;
    owned_by(&cluster, "c", &[&maps[1]]).await;
    owned_by(&cluster, "self", &[&maps[3]]).await;
    is_quiet(&cluster).await;
    for (map, name) in maps.iter().zip(["a", "b", "c", "self"]) {
        assert_eq!(uid(&cluster.get(&format!("{MAPS}/{name}")).await.json()), uid(map));
    }
    // Three of them at once wait for each other, and not for ever.
    for name in ["a", "b", "c", "self"] {
        // Each goes with the first anyway, and may be gone by now.
        let answer = cluster.delete(&format!("{MAPS}/{name}"), &json!({"propagationPolicy": "Foreground"})).await;
        assert!([200, 202, 404].contains(&answer.code), "{}", answer.text);
    }
    for name in ["a", "b", "c", "self"] {
        cluster.await_gone(&format!("{MAPS}/{name}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_in_another_namespace_is_told_and_nobody_there_is_touched() {
    let cluster = Cluster::new().await;
    cluster.made("/api/v1/namespaces", &json!({"metadata": {"name": "there"}})).await;
    let there = "/api/v1/namespaces/there/configmaps";
    let owner = map(&cluster, there, "owner", &json!(null)).await;
    let good = map(&cluster, there, "good", &json!([reference(&owner)])).await;
    map(&cluster, MAPS, "bad", &json!([reference(&owner)])).await;
    let said = format!(
        "ownerRef [v1/ConfigMap, namespace: default, name: owner, uid: {}] does not exist in namespace \"default\"",
        uid(&owner)
    );
    assert_eq!(told(&cluster, "bad", "OwnerRefInvalidNamespace").await, said);
    cluster.await_gone(&format!("{MAPS}/bad")).await;
    // What looks at it again must not take the one for the other.
    let label = json!({"metadata": {"labels": {"looked": "at"}}});
    cluster.patched(&format!("{there}/good"), MERGE, &label).await;
    cluster
        .patched(&format!("{there}/good"), MERGE, &json!({"metadata": {"ownerReferences": [reference(&owner)]}}))
        .await;
    is_quiet(&cluster).await;
    for kept in [&owner, &good] {
        let name = kept["metadata"]["name"].as_str().unwrap();
        assert_eq!(uid(&cluster.get(&format!("{there}/{name}")).await.json()), uid(kept));
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_look_up_is_not_deleted() {
    let cluster = Cluster::new().await;
    let owner = map(&cluster, MAPS, "owner", &json!(null)).await;
    let volume = json!({"metadata": {"name": "v", "ownerReferences": [reference(&owner)]}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/v"},
        "persistentVolumeReclaimPolicy": "Retain"}});
    let volume = cluster.made("/api/v1/persistentvolumes", &volume).await;
    let said = format!(
        "ownerRef [v1/ConfigMap, namespace: , name: owner, uid: {}] does not exist in namespace \"\"",
        uid(&owner)
    );
    assert_eq!(told(&cluster, "v", "OwnerRefInvalidNamespace").await, said);
    // Kinds and versions that nobody serves.
    let of = |api: &str, kind: &str| json!({"apiVersion": api, "kind": kind, "name": "x", "uid": "x"});
    let mut maps = Vec::new();
    for (name, api, kind) in
        [("kind", "v1", "Toaster"), ("group", "example.com/v1", "Toaster"), ("version", "v7", "Pod")]
    {
        maps.push((name, map(&cluster, MAPS, name, &json!([of(api, kind)])).await));
    }
    is_quiet(&cluster).await;
    cluster.deleted(&format!("{MAPS}/owner"), &json!({"propagationPolicy": "Foreground"})).await;
    cluster.await_gone(&format!("{MAPS}/owner")).await;
    is_quiet(&cluster).await;
    for (name, map) in &maps {
        assert_eq!(uid(&cluster.get(&format!("{MAPS}/{name}")).await.json()), uid(map));
    }
    assert_eq!(uid(&cluster.get("/api/v1/persistentvolumes/v").await.json()), uid(&volume));
}
