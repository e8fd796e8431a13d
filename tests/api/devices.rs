//! Claims for devices with the real registry, the real controllers and the real scheduler: what the tests do is the
//! driver's part and the kubelet's.

use serde_json::{Value, json};

use crate::conformance::{Cluster, wait_for};

const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
const TEMPLATES: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaimtemplates";
const CLASSES: &str = "/apis/resource.k8s.io/v1/deviceclasses";
const SLICES: &str = "/apis/resource.k8s.io/v1/resourceslices";
const PODS: &str = "/api/v1/namespaces/default/pods";
const MERGE: &str = "application/merge-patch+json";

/// A cluster with one node, two of whose devices are GPUs; and its scheduler.
async fn cluster() -> Cluster {
    let mut cluster = Cluster::new().await;
    node(&cluster, "n").await;
    let expression = "device.driver == 'gpu.example.com' && device.attributes['gpu.example.com'].kind == 'gpu'";
    let class = json!({"metadata": {"name": "gpu"}, "spec": {"selectors": [{"cel": {"expression": expression}}],
        "config": [{"opaque": {"driver": "gpu.example.com", "parameters": {"mode": "fast"}}}]}});
    cluster.made(CLASSES, &class).await;
    let device = |name: &str, kind: &str| json!({"name": name, "attributes": {"kind": {"string": kind}}});
    let devices = [device("gpu-0", "gpu"), device("gpu-1", "gpu"), device("nic-0", "nic")];
    let slice = json!({"metadata": {"name": "n-gpu"}, "spec": {"driver": "gpu.example.com", "nodeName": "n",
        "pool": {"name": "n", "generation": 1, "resourceSliceCount": 1}, "devices": devices}});
    cluster.made(SLICES, &slice).await;
    cluster.schedule().await;
    cluster
}

/// A node that is labelled with its name.
async fn node(cluster: &Cluster, name: &str) {
    cluster.made("/api/v1/nodes", &json!({"metadata": {"name": name, "labels": {"name": name}}})).await;
    let status = json!({"status": {"allocatable": {"cpu": "4", "memory": "4Gi", "pods": "110"}}});
    cluster.patched(&format!("/api/v1/nodes/{name}/status"), MERGE, &status).await;
    cluster.patched(&format!("/api/v1/nodes/{name}"), MERGE, &json!({"spec": {"taints": null}})).await;
}

async fn pod(cluster: &Cluster, name: &str, claim: Value) -> Value {
    let mut claim = claim;
    claim["name"] = "gpu".into();
    let pod = json!({"metadata": {"name": name}, "spec": {"resourceClaims": [claim],
        "containers": [{"name": "c", "image": "c:1", "resources": {"claims": [{"name": "gpu"}]}}]}});
    cluster.made(PODS, &pod).await
}

async fn bound(cluster: &Cluster, name: &str) -> Value {
    cluster.await_object(&format!("{PODS}/{name}"), |p| p["spec"]["nodeName"] == "n").await
}

/// The claim of a pod, once the pod is bound.
async fn claim_of(cluster: &Cluster, name: &str) -> Value {
    let pod = bound(cluster, name).await;
    let claim = pod["status"]["resourceClaimStatuses"][0]["resourceClaimName"].as_str().unwrap().to_owned();
    let found = cluster.get(&format!("{CLAIMS}/{claim}")).await.json();
    assert_eq!(
        found["status"]["reservedFor"],
        json!([{"resource": "pods", "name": name, "uid": pod["metadata"]["uid"]}])
    );
    found
}

fn device(claim: &Value) -> &str {
    claim["status"]["allocation"]["devices"]["results"][0]["device"].as_str().unwrap()
}

#[tokio::test]
async fn pods_get_devices_and_give_them_back() {
    let cluster = cluster().await;
    let request = json!([{"name": "r", "exactly": {"deviceClassName": "gpu"}}]);
    let template = json!({"metadata": {"name": "t"}, "spec": {"spec": {"devices": {"requests": request}}}});
    cluster.made(TEMPLATES, &template).await;
    let own = || json!({"resourceClaimTemplateName": "t"});
    pod(&cluster, "a", own()).await;
    pod(&cluster, "b", own()).await;
    let (a, b) = (claim_of(&cluster, "a").await, claim_of(&cluster, "b").await);
    let mut given = [device(&a), device(&b)];
    given.sort_unstable();
    assert_eq!(given, ["gpu-0", "gpu-1"]);
    let allocation = &a["status"]["allocation"];
    assert!(allocation["allocationTimestamp"].is_string(), "{allocation}");
    assert_eq!(
        allocation["devices"]["config"],
        json!([{"source": "FromClass",
        "opaque": {"driver": "gpu.example.com", "parameters": {"mode": "fast"}}}])
    );
    let here =
        json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]});
    assert_eq!(allocation["nodeSelector"], here);
    assert_eq!(a["metadata"]["finalizers"], json!(["resource.kubernetes.io/delete-protection"]));
    // One too many waits.
    pod(&cluster, "c", own()).await;
    let condition = |p: &Value| {
        p["status"]["conditions"].as_array().and_then(|c| c.iter().find(|c| c["type"] == "PodScheduled").cloned())
    };
    let waits = |p: &Value| condition(p).is_some_and(|c| c["status"] == "False");
    let c = cluster.await_object(&format!("{PODS}/c"), waits).await;
    let message = "0/1 nodes are available: 1 cannot allocate all claims. still not schedulable, preemption: 0/1 nodes are \
                   available: 1 Preemption is not helpful for scheduling.";
    assert_eq!(condition(&c).unwrap()["message"], message);
    // Its claim and its device go with a pod.
    cluster.deleted(&format!("{PODS}/a"), &json!({"gracePeriodSeconds": 0})).await;
    cluster.await_gone(&format!("{CLAIMS}/{}", a["metadata"]["name"].as_str().unwrap())).await;
    let c = claim_of(&cluster, "c").await;
    assert_eq!(device(&c), device(&a));
    // No event told of what was only on its way.
    let events = cluster.items("/api/v1/namespaces/default/events").await;
    let failed: Vec<&Value> = events.iter().filter(|e| e["reason"] == "FailedScheduling").collect();
    assert!(failed.iter().all(|e| e["message"] == message), "{failed:?}");
}

#[tokio::test]
async fn pods_share_a_claim_and_leave_it() {
    let cluster = cluster().await;
    let requests = json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "allocationMode": "All"}}]);
    cluster.made(CLAIMS, &json!({"metadata": {"name": "shared"}, "spec": {"devices": {"requests": requests}}})).await;
    let names: Vec<String> = (0..5).map(|i| format!("p{i}")).collect();
    for name in &names {
        pod(&cluster, name, json!({"resourceClaimName": "shared"})).await;
    }
    for name in &names {
        bound(&cluster, name).await;
    }
    let uri = format!("{CLAIMS}/shared");
    let claim = cluster.get(&uri).await.json();
    assert_eq!(claim["status"]["reservedFor"].as_array().unwrap().len(), 5);
    assert_eq!(claim["status"]["allocation"]["devices"]["results"].as_array().unwrap().len(), 2);
    // Deleted while it is used, it stays until nobody does.
    cluster.deleted(&uri, &json!({})).await;
    for name in &names {
        assert_eq!(cluster.get(&uri).await.code, 200);
        cluster.deleted(&format!("{PODS}/{name}"), &json!({"gracePeriodSeconds": 0})).await;
    }
    cluster.await_gone(&uri).await;
    // Who comes now has no claim.
    pod(&cluster, "late", json!({"resourceClaimName": "shared"})).await;
    let told = "0/1 nodes are available: could not find ResourceClaim \"default/shared\". ";
    wait_for("the message", async || {
        let pod = cluster.get(&format!("{PODS}/late")).await.json();
        let message = pod["status"]["conditions"][0]["message"].as_str()?.to_owned();
        message.starts_with(told).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_idle_claim_moves_and_its_new_device_is_prepared_first() {
    let cluster = cluster().await;
    let requests = json!([{"name": "r", "exactly": {"deviceClassName": "gpu"}}]);
    cluster.made(CLAIMS, &json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": requests}}})).await;
    let uri = format!("{CLAIMS}/c");
    let here =
        json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]});
    let result = json!({"request": "r", "driver": "gpu.example.com", "pool": "n", "device": "gpu-0"});
    let idle = json!({"status": {"allocation": {"devices": {"results": [result]}, "nodeSelector": here}}});
    cluster.patched(&format!("{uri}/status"), MERGE, &idle).await;
    node(&cluster, "m").await;
    let slice = json!({"metadata": {"name": "m-gpu"}, "spec": {"driver": "gpu.example.com", "nodeName": "m",
        "pool": {"name": "m", "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "gpu-0",
            "attributes": {"kind": {"string": "gpu"}}, "bindingConditions": ["x.io/ready"],
            "bindingFailureConditions": ["x.io/broken"]}]}});
    cluster.made(SLICES, &slice).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeSelector": {"name": "m"},
        "resourceClaims": [{"name": "gpu", "resourceClaimName": "c"}], "containers": [{"name": "c", "image": "c:1"}]}});
    cluster.made(PODS, &pod).await;
    let moved = |c: &Value| {
        c["status"]["allocation"]["devices"]["results"][0]["pool"] == "m" && !c["status"]["reservedFor"].is_null()
    };
    let claim = cluster.await_object(&uri, moved).await;
    let result = &claim["status"]["allocation"]["devices"]["results"][0];
    assert_eq!(result["bindingConditions"], json!(["x.io/ready"]));
    let events = async |reason: &str| {
        let what = format!("the event {reason}");
        wait_for(&what, async || {
            let events = cluster.items("/api/v1/namespaces/default/events").await;
            events.into_iter().find(|e| e["reason"] == reason).map(|e| e["message"].as_str().unwrap().to_owned())
        })
        .await
    };
    assert_eq!(events("BindingConditionsPending").await, "waiting for binding conditions for device on node m");
    let told = events("FailedScheduling").await;
    assert!(
        told.contains(
            "1 resourceclaim not available on the node. deallocation of ResourceClaim completed, preemption: "
        ),
        "{told}"
    );
    assert_eq!(cluster.get(&format!("{PODS}/p")).await.json()["spec"]["nodeName"], Value::Null);
    let condition = json!({"type": "x.io/ready", "status": "True", "reason": "Done", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let ready = json!({"status": {"devices": [{"driver": "gpu.example.com", "pool": "m", "device": "gpu-0", "conditions": [condition]}]}});
    cluster.patched(&format!("{uri}/status"), MERGE, &ready).await;
    cluster.await_object(&format!("{PODS}/p"), |p| p["spec"]["nodeName"] == "m").await;
}

/// A pod whose container asks for GPUs as it asks for CPU.
async fn asking(cluster: &Cluster, name: &str, resource: &str) -> Value {
    let resources = json!({"limits": {resource: "1"}});
    let pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "c:1", "resources": resources}]}});
    cluster.made(PODS, &pod).await
}

#[tokio::test]
async fn a_claim_is_made_for_an_extended_resource() {
    let cluster = cluster().await;
    let patch = json!({"spec": {"extendedResourceName": "example.com/gpu"}});
    cluster.patched(&format!("{CLASSES}/gpu"), MERGE, &patch).await;
    asking(&cluster, "a", "example.com/gpu").await;
    let request = json!([{"name": "container-0-request-0", "exactly": {"deviceClassName": "gpu"}}]);
    let claim_of = async |name: &str| {
        let pod = bound(&cluster, name).await;
        let status = pod["status"]["extendedResourceClaimStatus"].clone();
        let claim = cluster.get(&format!("{CLAIMS}/{}", status["resourceClaimName"].as_str().unwrap())).await.json();
        (pod, status, claim)
    };
    let (pod, status, a) = claim_of("a").await;
    let mapping = |resource: &str| json!([{"containerName": "c", "resourceName": resource, "requestName": "container-0-request-0"}]);
    assert_eq!(status["requestMappings"], mapping("example.com/gpu"));
    let meta = &a["metadata"];
    assert!(meta["name"].as_str().unwrap().starts_with("a-extended-resources-"), "{meta}");
    assert_eq!(meta["annotations"], json!({"resource.kubernetes.io/extended-resource-claim": "true"}));
    assert_eq!(meta["ownerReferences"][0]["uid"], pod["metadata"]["uid"]);
    assert_eq!(meta["finalizers"], json!(["resource.kubernetes.io/delete-protection"]));
    assert_eq!(a["status"]["reservedFor"][0]["uid"], pod["metadata"]["uid"]);
    assert_eq!(a["status"]["allocation"]["devices"]["config"][0]["source"], "FromClass");

    // Every class has a name of its own. One pod too many waits, and leaves no claim behind.
    asking(&cluster, "b", "deviceclass.resource.kubernetes.io/gpu").await;
    let (_, status, b) = claim_of("b").await;
    assert_eq!(status["requestMappings"], mapping("deviceclass.resource.kubernetes.io/gpu"));
    assert_ne!(device(&b), device(&a));
    asking(&cluster, "c", "example.com/gpu").await;
    let waits = |p: &Value| p["status"]["conditions"][0]["reason"] == "Unschedulable";
    let c = cluster.await_object(&format!("{PODS}/c"), waits).await;
    let message = c["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.starts_with("0/1 nodes are available: 1 cannot allocate all claims. "), "{message}");
    assert_eq!(cluster.items(CLAIMS).await.len(), 2);

    // A claim that was made for it before, by a scheduler that is no more.
    let stale = json!({"metadata": {"name": "stale", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "c",
            "uid": c["metadata"]["uid"], "controller": true}],
        "finalizers": ["resource.kubernetes.io/delete-protection"],
        "annotations": {"resource.kubernetes.io/extended-resource-claim": "true"}}, "spec": {"devices": {"requests": request}}});
    cluster.made(CLAIMS, &stale).await;
    // What a pod had is free when it has ended, though it stays.
    cluster.patched(&format!("{PODS}/a/status"), MERGE, &json!({"status": {"phase": "Succeeded"}})).await;
    cluster.await_gone(&format!("{CLAIMS}/{}", meta["name"].as_str().unwrap())).await;
    let (_, status, c) = claim_of("c").await;
    assert_eq!((device(&c), &status["requestMappings"]), (device(&a), &mapping("example.com/gpu")));
    cluster.await_gone(&format!("{CLAIMS}/stale")).await;

    // A node that offers the resource itself is asked for no claim. One of them counts as the other pod's.
    let offers = json!({"status": {"allocatable": {"example.com/gpu": "2"}, "capacity": {"example.com/gpu": "2"}}});
    cluster.patched("/api/v1/nodes/n/status", MERGE, &offers).await;
    asking(&cluster, "d", "example.com/gpu").await;
    let d = bound(&cluster, "d").await;
    assert_eq!(d["status"]["extendedResourceClaimStatus"], Value::Null);
}
