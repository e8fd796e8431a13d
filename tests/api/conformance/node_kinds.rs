//! The life of objects of the kinds that nodes and volumes go by: what clients do to them, whether or not a node is there.

use serde_json::{Value, json};

use super::kinds::Kind;
use super::{MERGE, STRATEGIC};
use crate::Server;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// Where an object has nothing in its spec that may change.
fn annotation() -> (&'static str, Value, Value) {
    ("/metadata/annotations/field", json!("one"), json!("two"))
}

fn kind(group: &'static str, resources: &'static [&'static str], object: Value) -> Kind {
    Kind { group, resources, object, field: annotation() }
}

async fn lives(server: &Server, kind: Kind) {
    let at = kind.live(server).await;
    // What protects an object is taken off it by a controller, once nobody uses it.
    for held in server.items(&kind.path()).await.iter().filter(|o| o["metadata"]["finalizers"].is_array()) {
        let at = format!("{}/{}", kind.path(), held["metadata"]["name"].as_str().unwrap());
        server.patched(&at, MERGE, &json!({"metadata": {"finalizers": null}})).await;
    }
    kind.end(server, &at).await;
}

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test]
async fn kinds_of_the_core_group() {
    let server = Server::new().await;
    for (resource, object, field) in [
        ("configmaps", json!({"kind": "ConfigMap", "data": {"a": "0"}}), ("/data/a", json!("x"), json!("y"))),
        ("secrets", json!({"kind": "Secret", "data": {"a": "MA=="}}), ("/data/a", json!("eA=="), json!("eQ=="))),
        ("podtemplates", json!({"kind": "PodTemplate", "template": template()}), annotation()),
        ("nodes", json!({"kind": "Node"}), annotation()),
    ] {
        let mut object = object;
        object["apiVersion"] = "v1".into();
        let resources: &'static [&'static str] = Box::leak(Box::new([resource]));
        lives(&server, Kind { group: "", resources, object, field }).await;
    }
}

#[tokio::test]
async fn leases() {
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {
        "holderIdentity": "holder", "leaseDurationSeconds": 30, "acquireTime": "2026-01-01T00:00:00.000000Z",
        "renewTime": "2026-01-01T00:00:05.000000Z", "leaseTransitions": 0}});
    let field = ("/spec/holderIdentity", json!("other"), json!("third"));
    let kind = Kind { group: "coordination.k8s.io", resources: &["leases"], object: lease, field };
    lives(&Server::new().await, kind).await;
}

#[tokio::test]
async fn runtime_classes() {
    let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "runc"});
    lives(&Server::new().await, kind("node.k8s.io", &["runtimeclasses"], class)).await;
}

#[tokio::test]
async fn kinds_of_dynamic_resources() {
    let server = Server::new().await;
    let devices = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}});
    let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 1});
    for (resources, object) in [
        (&["deviceclasses"][..], json!({"kind": "DeviceClass", "spec": {}})),
        (&["resourceclaims", "resourceclaims/status"], json!({"kind": "ResourceClaim", "spec": devices})),
        (&["resourceclaimtemplates"], json!({"kind": "ResourceClaimTemplate", "spec": {"spec": devices}})),
        (
            &["resourceslices"],
            json!({"kind": "ResourceSlice", "spec": {"driver": "d.example.com", "nodeName": "n", "pool": pool}}),
        ),
    ] {
        let mut object = object;
        object["apiVersion"] = "resource.k8s.io/v1".into();
        lives(&server, kind("resource.k8s.io", resources, object)).await;
    }
}

fn of_storage(kind: &str, more: &Value) -> Value {
    let mut object = json!({"apiVersion": "storage.k8s.io/v1", "kind": kind});
    for (name, value) in more.as_object().unwrap() {
        object[name] = value.clone();
    }
    object
}

#[tokio::test]
async fn kinds_of_storage() {
    let server = Server::new().await;
    for (resources, name, more) in [
        (&["csidrivers"][..], "CSIDriver", json!({"spec": {"attachRequired": false}})),
        (&["csinodes"], "CSINode", json!({"spec": {"drivers": []}})),
        (&["csistoragecapacities"], "CSIStorageCapacity", json!({"storageClassName": "c", "capacity": "1Gi"})),
        (&["storageclasses"], "StorageClass", json!({"provisioner": "p.example.com"})),
        (
            &["volumeattributesclasses"],
            "VolumeAttributesClass",
            json!({"driverName": "d.example.com", "parameters": {"a": "b"}}),
        ),
    ] {
        lives(&server, kind("storage.k8s.io", resources, of_storage(name, &more))).await;
    }
}

#[tokio::test]
async fn volume_attachments_and_their_status() {
    let server = Server::new().await;
    let spec = json!({"attacher": "d.example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}});
    let object = of_storage("VolumeAttachment", &json!({"spec": spec}));
    let kind = kind("storage.k8s.io", &["volumeattachments", "volumeattachments/status"], object);
    let at = kind.live(&server).await;
    let status = format!("{at}/status");
    assert_eq!(server.get(&status).await.json()["status"]["attached"], false);
    let mut attached = server.patched(&status, MERGE, &json!({"status": {"attached": true}})).await;
    assert_eq!(attached["status"]["attached"], true);
    attached["status"]["attached"] = false.into();
    assert_eq!(server.replaced(&status, &attached).await["status"]["attached"], false);
    kind.end(&server, &at).await;
}

#[tokio::test]
async fn volumes_claims_and_their_status() {
    let server = Server::new().await;
    let (mode, amount) = (json!(["ReadWriteOnce"]), json!({"storage": "1Gi"}));
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v", "labels": {"of": "me"}},
        "spec": {"capacity": amount, "accessModes": mode, "storageClassName": "none", "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": "/tmp/v"}}});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "labels": {"of": "me"}},
        "spec": {"accessModes": mode, "resources": {"requests": amount}, "storageClassName": "none"}});
    let all = [
        (
            "/api/v1/persistentvolumes",
            "v",
            volume,
            json!({"phase": "Failed", "message": "by a test", "reason": "ByATest"}),
        ),
        (
            "/api/v1/namespaces/default/persistentvolumeclaims",
            "c",
            claim,
            json!({"conditions": [{"type": "ByATest", "status": "True", "reason": "Test", "message": "by a test"}]}),
        ),
    ];
    for (path, name, object, status) in all {
        server.made(path, &object).await;
        let at = format!("{path}/{name}");
        let labelled = server.patched(&at, STRATEGIC, &json!({"metadata": {"labels": {"patched": "yes"}}})).await;
        assert_eq!(labelled["metadata"]["labels"], json!({"of": "me", "patched": "yes"}));
        assert_eq!(server.items(&format!("{path}?labelSelector=of%3Dme,patched%3Dyes")).await.len(), 1);
        let told = server.patched(&format!("{at}/status"), MERGE, &json!({"status": status})).await;
        for (field, value) in status.as_object().unwrap() {
            assert_eq!(&told["status"][field], value, "{field} of {name}");
        }
        let mut read = server.get(&format!("{at}/status")).await.json();
        assert_eq!(read["status"], told["status"]);
        read["metadata"]["annotations"] = json!({"updated": "yes"});
        assert_eq!(server.replaced(&format!("{at}/status"), &read).await["status"], told["status"]);
        let mut read = server.get(&at).await.json();
        read["metadata"]["labels"]["updated"] = "yes".into();
        assert_eq!(server.replaced(&at, &read).await["metadata"]["labels"]["updated"], "yes");
        // Nobody protects it here; what does is a controller's.
        server.patched(&at, MERGE, &json!({"metadata": {"finalizers": null}})).await;
        server.deleted(&at, &json!({})).await;
        assert_eq!(server.get(&at).await.code, 404);
        server.made(path, &object).await;
        server.deleted(&format!("{path}?labelSelector=of%3Dme"), &json!({})).await;
        assert_eq!(server.items(&format!("{path}?labelSelector=of%3Dme")).await.len(), 1, "it is protected");
        server.patched(&at, MERGE, &json!({"metadata": {"finalizers": null}})).await;
        assert_eq!(server.get(&at).await.code, 404);
    }
}

#[tokio::test]
async fn pods_with_inline_volumes() {
    let server = Server::new().await;
    let path = "/api/v1/namespaces/default/pods";
    let volume = json!({"name": "v", "csi": {"driver": "d.example.com", "volumeAttributes": {"a": "b"}}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"of": "me"}},
        "spec": {"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [volume]}});
    server.made(path, &pod).await;
    let at = format!("{path}/p");
    assert_eq!(server.get(&at).await.json()["spec"]["volumes"][0]["csi"]["driver"], "d.example.com");
    assert_eq!(server.items(&format!("{path}?labelSelector=of%3Dme")).await.len(), 1);
    let patched = server.patched(&at, STRATEGIC, &json!({"metadata": {"labels": {"patched": "yes"}}})).await;
    assert_eq!(patched["metadata"]["labels"]["patched"], "yes");
    server.deleted(&at, &json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(server.get(&at).await.code, 404);
}

#[tokio::test]
async fn what_is_immutable_stays() {
    let server = Server::new().await;
    for (path, kind, [one, two, three]) in
        [(CONFIG_MAPS, "ConfigMap", ["1", "2", "3"]), (SECRETS, "Secret", ["MQ==", "Mg==", "Mw=="])]
    {
        let at = format!("{path}/fixed");
        let data = |value: &str| json!({"data": {"a": value}});
        let mut object = data(one);
        (object["apiVersion"], object["kind"], object["metadata"]) =
            (json!("v1"), json!(kind), json!({"name": "fixed"}));
        server.made(path, &object).await;
        assert_eq!(server.patched(&at, MERGE, &data(two)).await["data"]["a"], two);
        assert_eq!(server.patched(&at, MERGE, &json!({"immutable": true})).await["immutable"], true);
        for refused in [data(three), json!({"immutable": false}), json!({"immutable": null})] {
            let answer = server.patch(&at, MERGE, &refused).await;
            assert_eq!(answer.code, 422, "{refused}: {:?}", answer.json());
        }
        let labelled = server.patched(&at, MERGE, &json!({"metadata": {"labels": {"a": "b"}}})).await;
        assert_eq!((&labelled["metadata"]["labels"]["a"], &labelled["data"]["a"]), (&json!("b"), &json!(two)));
        server.deleted(&at, &json!({})).await;
        assert_eq!(server.get(&at).await.code, 404);
        object["metadata"]["name"] = "empty".into();
        object["data"] = json!({"": one});
        assert_eq!(server.post(path, &object).await.code, 422, "a key has a name");
    }
}

#[tokio::test]
async fn every_change_of_a_pods_spec_is_a_generation() {
    let server = Server::new().await;
    let path = "/api/v1/namespaces/default/pods";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "n",
        "containers": [{"name": "c", "image": "i"}], "activeDeadlineSeconds": 100_000}});
    assert_eq!(server.made(path, &pod).await["metadata"]["generation"], 1);
    let at = format!("{path}/p");
    for n in 2..=500 {
        let patched = server.patched(&at, MERGE, &json!({"spec": {"activeDeadlineSeconds": 100_000 - n}})).await;
        assert_eq!(patched["metadata"]["generation"], n);
    }
    let labelled = server.patched(&at, MERGE, &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(labelled["metadata"]["generation"], 500);
    server.deleted(&at, &json!({})).await;
    assert_eq!(
        server.get(&at).await.json()["metadata"]["generation"],
        501,
        "that it is to go is its node's to act upon"
    );
}
