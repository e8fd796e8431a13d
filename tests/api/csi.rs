//! A CSI driver with the real registry, controllers and scheduler. The tests are its provisioner and its attacher, and the
//! kubelet.

use serde_json::{Value, json};

use crate::conformance::{Cluster, wait_for};

const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";
const PODS: &str = "/api/v1/namespaces/default/pods";
const NODES: &str = "/api/v1/nodes";
const EVENTS: &str = "/api/v1/namespaces/default/events";
const STORAGE: &str = "/apis/storage.k8s.io/v1";
const ATTACHMENTS: &str = "/apis/storage.k8s.io/v1/volumeattachments";
const MERGE: &str = "application/merge-patch+json";
const DRIVER: &str = "x.io.driver";
const UNIQUE: &str = "kubernetes.io/csi/x.io.driver^handle";

/// A cluster with a scheduler, a node, and a driver with a class of its own.
async fn cluster() -> Cluster {
    let mut cluster = Cluster::new().await;
    cluster.schedule().await;
    let annotations = json!({"volumes.kubernetes.io/controller-managed-attach-detach": "true"});
    node(&cluster, "n1", &annotations).await;
    let drivers = json!([{"name": DRIVER, "nodeID": "n1", "allocatable": {"count": 1}}]);
    cluster
        .made(&format!("{STORAGE}/csinodes"), &json!({"metadata": {"name": "n1"}, "spec": {"drivers": drivers}}))
        .await;
    cluster.made(&format!("{STORAGE}/csidrivers"), &json!({"metadata": {"name": DRIVER}, "spec": {}})).await;
    let class =
        json!({"metadata": {"name": "late"}, "provisioner": DRIVER, "volumeBindingMode": "WaitForFirstConsumer"});
    cluster.made(&format!("{STORAGE}/storageclasses"), &class).await;
    cluster
}

async fn node(cluster: &Cluster, name: &str, annotations: &Value) {
    cluster.made(NODES, &json!({"metadata": {"name": name, "annotations": annotations}})).await;
    let room = json!({"cpu": "4", "memory": "4Gi", "pods": "10"});
    let status = json!({"status": {"allocatable": room, "capacity": room,
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}});
    cluster.patched(&format!("{NODES}/{name}/status"), MERGE, &status).await;
}

async fn claim(cluster: &Cluster, name: &str) {
    let spec = json!({"storageClassName": "late", "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}});
    cluster.made(CLAIMS, &json!({"metadata": {"name": name}, "spec": spec})).await;
}

async fn pod(cluster: &Cluster, name: &str, claim: &str) {
    let spec = json!({"containers": [{"name": "c", "image": "c:1"}], "terminationGracePeriodSeconds": 0,
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]});
    cluster.made(PODS, &json!({"metadata": {"name": name}, "spec": spec})).await;
}

/// The external provisioner's part.
async fn provision(cluster: &Cluster, claim: &str) {
    let asked = |claim: &Value| {
        let annotations = &claim["metadata"]["annotations"];
        annotations["volume.kubernetes.io/selected-node"] == "n1"
            && annotations["volume.kubernetes.io/storage-provisioner"] == DRIVER
            && annotations["volume.beta.kubernetes.io/storage-provisioner"] == DRIVER
    };
    let claim = cluster.await_object(&format!("{CLAIMS}/{claim}"), asked).await;
    let meta = json!({"name": "pv", "annotations": {"pv.kubernetes.io/provisioned-by": DRIVER},
        "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer"]});
    let spec = json!({
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "late",
        "persistentVolumeReclaimPolicy": "Delete", "csi": {"driver": DRIVER, "volumeHandle": "handle"},
        "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "default",
            "name": claim["metadata"]["name"], "uid": claim["metadata"]["uid"]},
    });
    cluster.made(VOLUMES, &json!({"metadata": meta, "spec": spec})).await;
}

/// The external attacher's part. Returns the name of the attachment.
async fn attach(cluster: &Cluster, node: &str) -> String {
    let made = wait_for("an attachment", async || {
        let all = cluster.items(ATTACHMENTS).await;
        all.into_iter().find(|a| a["spec"]["nodeName"] == node && a["metadata"]["deletionTimestamp"].is_null())
    })
    .await;
    assert_eq!(made["spec"]["attacher"], DRIVER);
    assert_eq!(made["spec"]["source"]["persistentVolumeName"], "pv");
    let name = made["metadata"]["name"].as_str().unwrap().to_owned();
    let uri = format!("{ATTACHMENTS}/{name}");
    let finalizers = json!({"metadata": {"finalizers": ["external-attacher/x-io-driver"]}});
    cluster.patched(&uri, MERGE, &finalizers).await;
    cluster.patched(&format!("{uri}/status"), MERGE, &json!({"status": {"attached": true}})).await;
    name
}

async fn told(cluster: &Cluster, name: &str, reason: &str, message: &str) {
    wait_for(&format!("{reason} of {name}: {message}"), async || {
        let events = cluster.items(EVENTS).await;
        let is = |e: &&Value| e["involvedObject"]["name"] == name && e["reason"] == reason;
        events.iter().filter(is).any(|e| e["message"].as_str().unwrap_or_default().contains(message)).then_some(())
    })
    .await;
}

async fn in_use(cluster: &Cluster, node: &str, volumes: &Value) {
    cluster.patched(&format!("{NODES}/{node}/status"), MERGE, &json!({"status": {"volumesInUse": volumes}})).await;
}

#[tokio::test]
async fn a_volume_of_a_driver_from_its_claim_to_its_end() {
    let cluster = cluster().await;
    claim(&cluster, "data").await;
    told(&cluster, "data", "WaitForFirstConsumer", "waiting for first consumer to be created before binding").await;
    pod(&cluster, "p", "data").await;
    told(&cluster, "data", "ExternalProvisioning", "either by the external provisioner 'x.io.driver' or manually")
        .await;
    provision(&cluster, "data").await;
    let bound = |claim: &Value| claim["status"]["phase"] == "Bound";
    cluster.await_object(&format!("{CLAIMS}/data"), bound).await;
    cluster.await_object(&format!("{PODS}/p"), |pod| pod["spec"]["nodeName"] == "n1").await;

    // The node may mount once it is told that the volume is attached.
    let attachment = attach(&cluster, "n1").await;
    let has = json!([{"name": UNIQUE, "devicePath": ""}]);
    let node = format!("{NODES}/n1");
    cluster.await_object(&node, |n| n["status"]["volumesAttached"] == has).await;
    told(&cluster, "p", "SuccessfulAttachVolume", "AttachVolume.Attach succeeded for volume \"pv\"").await;
    in_use(&cluster, "n1", &json!([UNIQUE])).await;

    // The node takes no other volume.
    claim(&cluster, "more").await;
    pod(&cluster, "q", "more").await;
    told(&cluster, "q", "FailedScheduling", "1 node(s) exceed max volume count").await;

    // Nothing is taken from under a mount.
    cluster.deleted(&format!("{PODS}/p"), &json!({"gracePeriodSeconds": 0})).await;
    cluster.await_gone(&format!("{PODS}/p")).await;
    let attachment = format!("{ATTACHMENTS}/{attachment}");
    assert_eq!(cluster.get(&attachment).await.json()["metadata"]["deletionTimestamp"], Value::Null);
    in_use(&cluster, "n1", &Value::Null).await;
    cluster.await_object(&attachment, |a| a["metadata"]["deletionTimestamp"].is_string()).await;
    assert_eq!(cluster.get(&node).await.json()["status"]["volumesAttached"], Value::Null);
    cluster.patched(&attachment, MERGE, &json!({"metadata": {"finalizers": null}})).await;
    cluster.await_gone(&attachment).await;
    // There is room for the other now.
    let chosen = |claim: &Value| claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] == "n1";
    cluster.await_object(&format!("{CLAIMS}/more"), chosen).await;

    // What becomes of the volume is its driver's own business.
    cluster.deleted(&format!("{CLAIMS}/data"), &json!({})).await;
    cluster.await_gone(&format!("{CLAIMS}/data")).await;
    let volume = format!("{VOLUMES}/pv");
    let released = cluster.await_object(&volume, |v| v["status"]["phase"] == "Released").await;
    assert_eq!(released["metadata"]["deletionTimestamp"], Value::Null);
    cluster.deleted(&volume, &json!({})).await;
    cluster.patched(&volume, MERGE, &json!({"metadata": {"finalizers": null}})).await;
    cluster.await_gone(&volume).await;
}

#[tokio::test]
async fn a_larger_claim_waits_for_the_resizer() {
    let cluster = cluster().await;
    cluster.patched(&format!("{STORAGE}/storageclasses/late"), MERGE, &json!({"allowVolumeExpansion": true})).await;
    claim(&cluster, "data").await;
    pod(&cluster, "p", "data").await;
    provision(&cluster, "data").await;
    let uri = format!("{CLAIMS}/data");
    cluster.await_object(&uri, |claim| claim["status"]["phase"] == "Bound").await;
    let larger = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    cluster.patched(&uri, MERGE, &larger).await;
    told(&cluster, "data", "ExternalExpanding", "waiting for an external controller to expand this PVC").await;
}
