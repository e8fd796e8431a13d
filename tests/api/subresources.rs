//! Parts of objects with paths of their own: status, scale, binding, finalize; and how namespaces and pods end.

use serde_json::{Value, json};

use crate::Server;
use crate::patches::deployment;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
pub const PODS: &str = "/api/v1/namespaces/default/pods";
const MERGE: &str = "application/merge-patch+json";

pub fn pod(name: &str) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "c:1"}]}})
}

/// A server where pods can be made, as controllers would have prepared it.
pub async fn with_account() -> Server {
    let server = Server::new().await;
    let account = json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default"}});
    assert_eq!(server.post("/api/v1/namespaces/default/serviceaccounts", &account).await.code, 201);
    server
}

#[tokio::test]
async fn status_and_the_rest_are_written_apart() {
    let server = Server::new().await;
    let mut object = deployment();
    object["status"] = json!({"replicas": 7});
    let mut object = server.post(DEPLOYMENTS, &object).await.json();
    assert_eq!(object["status"], json!({}), "a new object has no status of its own");

    object["status"] = json!({"replicas": 2, "observedGeneration": 1});
    object["spec"]["replicas"] = json!(5);
    let mut written = server.put(&format!("{DEPLOYMENTS}/web/status"), &object).await.json();
    assert_eq!((&written["status"]["replicas"], &written["spec"]["replicas"]), (&json!(2), &json!(1)));
    assert_eq!(written["metadata"]["generation"], 1);

    written["status"]["replicas"] = json!(9);
    written["spec"]["replicas"] = json!(5);
    let written = server.put(&format!("{DEPLOYMENTS}/web"), &written).await.json();
    assert_eq!((&written["status"]["replicas"], &written["spec"]["replicas"]), (&json!(2), &json!(5)));
    assert_eq!(written["metadata"]["generation"], 2);
    assert_eq!(server.get(&format!("{DEPLOYMENTS}/web/status")).await.json(), written);
}

#[tokio::test]
async fn scale_is_a_view_of_replicas() {
    let server = Server::new().await;
    let uid = server.post(DEPLOYMENTS, &deployment()).await.json()["metadata"]["uid"].clone();
    let uri = format!("{DEPLOYMENTS}/web/scale");
    let mut scale = server.get(&uri).await.json();
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!((&scale["metadata"]["name"], &scale["metadata"]["uid"]), (&json!("web"), &uid));
    assert_eq!((&scale["spec"], &scale["status"]["selector"]), (&json!({"replicas": 1}), &json!("app=web")));

    scale["spec"]["replicas"] = json!(3);
    let written = server.put(&uri, &scale).await;
    assert_eq!((written.code, &written.json()["spec"]["replicas"]), (200, &json!(3)), "{}", written.text);
    assert_eq!(server.put(&uri, &scale).await.code, 409, "of a revision that is no more");
    let patched = server.patch(&uri, MERGE, &json!({"spec": {"replicas": 4}})).await;
    assert_eq!((patched.code, &patched.json()["spec"]["replicas"]), (200, &json!(4)), "{}", patched.text);
    let negative = server.patch(&uri, MERGE, &json!({"spec": {"replicas": -1}})).await;
    assert_eq!((negative.code, &negative.json()["reason"]), (422, &json!("Invalid")), "{}", negative.text);
    let object = server.get(&format!("{DEPLOYMENTS}/web")).await.json();
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(4), &json!(3)));
    assert_eq!(server.get(&format!("{PODS}/p/scale")).await.code, 404);
}

#[tokio::test]
async fn a_pod_is_bound_once_and_ends_in_its_time() {
    let server = with_account().await;
    let created = server.post(PODS, &pod("p")).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let created = created.json();
    assert_eq!(
        (&created["status"]["phase"], &created["status"]["qosClass"]),
        (&json!("Pending"), &json!("BestEffort"))
    );
    assert_eq!(created["spec"]["serviceAccountName"], "default");

    let binding = json!({"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(server.post(&format!("{PODS}/p/binding"), &binding).await.code, 201);
    let bound = server.get(&format!("{PODS}/p")).await.json();
    assert_eq!(bound["spec"]["nodeName"], "n1");
    let scheduled = bound["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "PodScheduled");
    assert_eq!(scheduled.unwrap()["status"], "True");
    let again = server.post(&format!("{PODS}/p/binding"), &binding).await;
    assert_eq!(again.code, 409);
    assert!(again.message().contains("pod p is already assigned to node \"n1\""), "{}", again.text);

    // On a node it is the node that ends it.
    let deleted = server.delete(&format!("{PODS}/p"), &json!({})).await;
    assert_eq!((deleted.code, &deleted.json()["metadata"]["deletionGracePeriodSeconds"]), (200, &json!(30)));
    assert!(server.get(&format!("{PODS}/p")).await.json()["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(server.delete(&format!("{PODS}/p"), &json!({"gracePeriodSeconds": 0})).await.code, 200);
    assert_eq!(server.get(&format!("{PODS}/p")).await.code, 404);
    // Without a node nobody has to end it.
    assert_eq!(server.post(PODS, &pod("q")).await.code, 201);
    assert_eq!(server.delete(&format!("{PODS}/q"), &json!({})).await.code, 200);
    assert_eq!(server.get(&format!("{PODS}/q")).await.code, 404);
}

#[tokio::test]
async fn a_namespace_ends_when_it_is_finalized() {
    let server = Server::new().await;
    let uri = "/api/v1/namespaces/x";
    let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "x"}});
    let created = server.post("/api/v1/namespaces", &namespace).await.json();
    assert_eq!(
        (&created["spec"]["finalizers"], &created["status"]["phase"]),
        (&json!(["kubernetes"]), &json!("Active"))
    );
    assert_eq!(server.delete(uri, &json!({})).await.code, 200);
    let mut ending = server.get(uri).await.json();
    assert_eq!(ending["status"]["phase"], "Terminating");
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}});
    let refused = server.post("/api/v1/namespaces/x/configmaps", &map).await;
    assert_eq!(refused.code, 403);
    assert!(refused.message().contains("because it is being terminated"), "{}", refused.text);
    ending["spec"]["finalizers"] = json!([]);
    assert_eq!(server.put(&format!("{uri}/finalize"), &ending).await.code, 200);
    assert_eq!(server.get(uri).await.code, 404);
    let absent = server.post("/api/v1/namespaces/x/configmaps", &map).await;
    assert_eq!((absent.code, absent.message().as_str()), (404, "namespaces \"x\" not found"));
}
