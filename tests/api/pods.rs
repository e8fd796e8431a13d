//! What changes in a pod through a path of its own: ephemeral containers and resources.

use serde_json::{Value, json};

use crate::Server;
use crate::subresources::{PODS, pod, with_account};

const STRATEGIC: &str = "application/strategic-merge-patch+json";
const MERGE: &str = "application/merge-patch+json";

fn debugger(name: &str, more: Value) -> Value {
    let mut container = json!({"name": name, "image": "busybox", "targetContainerName": "c"});
    container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"spec": {"ephemeralContainers": [container]}})
}

#[tokio::test]
async fn ephemeral_containers_are_added_and_stay() {
    let server = with_account().await;
    let created = server.post(PODS, &pod("p")).await.json();
    let uri = format!("{PODS}/p/ephemeralcontainers");
    let read = server.get(&uri).await;
    assert_eq!((read.code, read.json()), (200, created.clone()));

    let added = server.patch(&uri, STRATEGIC, &debugger("debug", json!({}))).await;
    assert_eq!(added.code, 200, "{}", added.text);
    let mut pod = added.json();
    let container = &pod["spec"]["ephemeralContainers"][0];
    assert_eq!(
        (&container["imagePullPolicy"], &container["terminationMessagePath"], &container["terminationMessagePolicy"]),
        (&json!("Always"), &json!("/dev/termination-log"), &json!("File"))
    );
    assert_eq!(pod["metadata"]["generation"], 2);
    let owner = pod["metadata"]["managedFields"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(owner["subresource"], "ephemeralcontainers");
    let owned: Vec<&String> = owner["fieldsV1"]["f:spec"].as_object().unwrap().keys().collect();
    assert_eq!(owned, ["f:ephemeralContainers"]);

    // Everything else that a PUT brings is left as it was.
    pod["metadata"]["labels"] = json!({"x": "y"});
    pod["spec"]["containers"][0]["image"] = json!("other");
    pod["spec"]["ephemeralContainers"].as_array_mut().unwrap().push(json!({"name": "more", "image": "busybox"}));
    let put = server.put(&uri, &pod).await;
    assert_eq!(put.code, 200, "{}", put.text);
    let put = put.json();
    assert_eq!(put["spec"]["containers"][0]["image"], "c:1");
    assert_eq!((&put["metadata"]["labels"], &put["metadata"]["generation"]), (&Value::Null, &json!(3)));
    assert_eq!(put["spec"]["ephemeralContainers"].as_array().unwrap().len(), 2);

    let refused = async |body: &Value, expect: &str| {
        let answer = server.patch(&uri, MERGE, body).await;
        assert_eq!(answer.code, 422, "{}", answer.text);
        assert!(answer.message().starts_with(&format!("Pod \"p\" is invalid: {expect}")), "{}", answer.message());
    };
    let none = json!({"spec": {"ephemeralContainers": null}});
    let gone = "[spec.ephemeralContainers: Forbidden: existing ephemeral containers \"debug\" may not be removed\n, \
                spec.ephemeralContainers: Forbidden: existing ephemeral containers \"more\" may not be removed\n]";
    refused(&none, gone).await;
    let mut changed = put.clone();
    changed["spec"]["ephemeralContainers"][0]["image"] = json!("busybox:2");
    refused(
        &json!({"spec": {"ephemeralContainers": changed["spec"]["ephemeralContainers"]}}),
        "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"debug\" may not be changed\n",
    )
    .await;
    // Not the way that leads there.
    let main = server.patch(&format!("{PODS}/p"), STRATEGIC, &debugger("third", json!({}))).await;
    assert_eq!(main.code, 422, "{}", main.text);
    assert!(main.message().contains("pod updates may not change fields other than"), "{}", main.text);
}

#[tokio::test]
async fn an_ephemeral_container_is_less_than_a_container() {
    let server = with_account().await;
    assert_eq!(server.post(PODS, &pod("p")).await.code, 201);
    let check = async |container: Value, expect: &str| {
        let uri = format!("{PODS}/p/ephemeralcontainers");
        let answer = server.patch(&uri, STRATEGIC, &debugger("debug", container)).await;
        assert_eq!((answer.code, answer.message()), (422, format!("Pod \"p\" is invalid: {expect}")));
    };
    let at = "spec.ephemeralContainers[0]";
    for (field, value) in [
        ("ports", json!([{"containerPort": 80, "protocol": "TCP"}])),
        ("resources", json!({"limits": {"cpu": "1"}})),
        ("resizePolicy", json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}])),
        ("livenessProbe", json!({"exec": {"command": ["a"]}})),
        ("readinessProbe", json!({"exec": {"command": ["a"]}})),
        ("startupProbe", json!({"exec": {"command": ["a"]}})),
        ("lifecycle", json!({"preStop": {"exec": {"command": ["a"]}}})),
    ] {
        let expect = format!("{at}.{field}: Forbidden: cannot be set for an Ephemeral Container");
        check(json!({(field): value}), &expect).await;
    }
    check(json!({"targetContainerName": "x"}), &format!("{at}.targetContainerName: Not found: \"x\"")).await;
    check(json!({"name": "c"}), &format!("{at}.name: Duplicate value: \"c\"")).await;
    check(json!({"image": ""}), &format!("{at}.image: Required value")).await;
    check(
        json!({"image": " a"}),
        &format!("{at}.image: Invalid value: \" a\": must not have leading or trailing whitespace"),
    )
    .await;
}

fn resources(requests: Value, limits: Value) -> Value {
    json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]}})
}

/// A running pod, burstable, with a limit that is not of CPU or memory too.
async fn with_resources() -> Server {
    let server = with_account().await;
    let mut pod = pod("p");
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m", "memory": "64Mi"},
        "limits": {"cpu": "200m", "ephemeral-storage": "1Gi"}});
    let made = server.post(PODS, &pod).await;
    assert_eq!(made.code, 201, "{}", made.text);
    server
}

#[tokio::test]
async fn a_resize_changes_resources_and_nothing_else() {
    let server = with_resources().await;
    let uri = format!("{PODS}/p/resize");
    assert_eq!(server.get(&uri).await.json(), server.get(&format!("{PODS}/p")).await.json());
    let mut body = resources(json!({"cpu": "150m"}), json!({}));
    body["spec"]["containers"][0]["image"] = json!("other");
    body["spec"]["activeDeadlineSeconds"] = json!(5);
    body["metadata"] = json!({"labels": {"x": "y"}});
    let resized = server.patch(&uri, STRATEGIC, &body).await;
    assert_eq!(resized.code, 200, "{}", resized.text);
    let pod = resized.json();
    let container = &pod["spec"]["containers"][0];
    assert_eq!(
        container["resources"]["requests"],
        json!({"cpu": "150m", "ephemeral-storage": "1Gi", "memory": "64Mi"})
    );
    assert_eq!((&container["image"], &pod["spec"]["activeDeadlineSeconds"]), (&json!("c:1"), &Value::Null));
    assert_eq!((&pod["metadata"]["labels"], &pod["metadata"]["generation"]), (&Value::Null, &json!(2)));
    let owner = pod["metadata"]["managedFields"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(owner["subresource"], "resize");
    let mut same = pod.clone();
    same["metadata"]["managedFields"] = Value::Null;
    let again = server.put(&uri, &same).await;
    assert_eq!((again.code, &again.json()["metadata"]["generation"]), (200, &json!(2)), "{}", again.text);
}

#[tokio::test]
async fn wrong_resizes_are_refused_in_upstreams_words() {
    let server = with_resources().await;
    let uri = format!("{PODS}/p/resize");
    let check = async |kind: &str, body: Value, expect: &str| {
        let answer = server.patch(&uri, kind, &body).await;
        assert_eq!((answer.code, answer.message()), (422, format!("Pod \"p\" is invalid: {expect}")), "{body}");
    };
    let container = |more: Value| {
        let mut container = json!({"name": "c", "image": "c:1"});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        container
    };
    check(
        STRATEGIC,
        resources(json!({}), json!({"ephemeral-storage": "2Gi"})),
        "spec: Forbidden: only cpu and memory resources are mutable",
    )
    .await;
    check(
        STRATEGIC,
        resources(json!({"memory": null}), json!({})),
        "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
    )
    .await;
    check(
        STRATEGIC,
        resources(json!({"cpu": "1"}), json!({})),
        "spec.containers[0].resources.requests: Invalid value: \"1\": must be less than or equal to cpu limit of 200m",
    )
    .await;
    let full = json!({"cpu": "200m", "memory": "64Mi", "ephemeral-storage": "1Gi"});
    check(
        STRATEGIC,
        resources(full.clone(), full),
        "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
    )
    .await;
    let kept = json!({"requests": {"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "1Gi"},
        "limits": {"cpu": "200m", "ephemeral-storage": "1Gi"}});
    check(
        MERGE,
        json!({"spec": {"containers": [container(json!({"name": "d", "resources": kept}))]}}),
        "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize",
    )
    .await;
    let both = json!([container(json!({"resources": kept})), container(json!({"name": "d"}))]);
    check(
        MERGE,
        json!({"spec": {"containers": both}}),
        "spec.containers: Forbidden: containers may not be added or removed on resize",
    )
    .await;
    let status = json!({"status": {"phase": "Running", "containerStatuses": [{"name": "c", "image": "c:1", "imageID": "",
        "ready": true, "restartCount": 0, "state": {"running": {}}}]}});
    assert_eq!(server.patch(&format!("{PODS}/p/status"), MERGE, &status).await.code, 200);
    check(
        STRATEGIC,
        resources(json!({"cpu": "150m"}), json!({})),
        "spec: Forbidden: Pod running on node without support for resize",
    )
    .await;
    let main = server.patch(&format!("{PODS}/p"), STRATEGIC, &resources(json!({"cpu": "150m"}), json!({}))).await;
    assert_eq!(main.code, 422, "only through its own path: {}", main.text);
}

#[tokio::test]
async fn a_status_stays_of_the_generation_that_it_was_of() {
    let server = with_account().await;
    assert_eq!(server.post(PODS, &pod("p")).await.code, 201);
    let uri = format!("{PODS}/p/status");
    let write = async |generation: Value| {
        let condition = json!({"type": "Ready", "status": "True", "observedGeneration": generation});
        let status =
            json!({"status": {"phase": "Running", "observedGeneration": generation, "conditions": [condition]}});
        let written = server.patch(&uri, MERGE, &status).await.json();
        let status = &written["status"];
        (status["observedGeneration"].clone(), status["conditions"][0]["observedGeneration"].clone())
    };
    assert_eq!(write(json!(1)).await, (json!(1), json!(1)));
    assert_eq!(write(Value::Null).await, (json!(1), json!(1)));
    assert_eq!(write(json!(2)).await, (json!(2), json!(2)));
}
