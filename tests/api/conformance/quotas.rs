//! Quotas: the steps of upstream's tests, and what no list of requirements says: that they hold when many ask at once.

use futures::future::join_all;
use serde_json::{Value, json};

use super::{Cluster, MERGE};
use crate::Answer;

const NAMESPACE: &str = "/api/v1/namespaces/default";

fn at(plural: &str) -> String {
    format!("{NAMESPACE}/{plural}")
}

fn quota(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": spec})
}

/// A pod that asks for these, with as much as a limit.
fn pod(name: &str, resources: Value, spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "containers": [{"name": "c", "image": "i", "resources": {"requests": resources, "limits": resources}}]}});
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    pod
}

impl Cluster {
    async fn quota(&self, name: &str, spec: Value) {
        self.made(&at("resourcequotas"), &quota(name, spec)).await;
    }

    /// Waits until the status of a quota tells this of what is used.
    async fn used(&self, name: &str, expect: Value) {
        let told = |quota: &Value| {
            let status = &quota["status"];
            let expect = expect.as_object().unwrap();
            status["hard"] == quota["spec"]["hard"] && expect.iter().all(|(name, used)| status["used"][name] == *used)
        };
        self.await_object(&format!("{}/{name}", at("resourcequotas")), told).await;
    }

    async fn refused(&self, plural: &str, object: &Value, why: &str) {
        let answer = self.post(&at(plural), object).await;
        let kind = format!("{plural} {} is forbidden: {why}", object["metadata"]["name"]);
        assert_eq!((answer.code, answer.message()), (403, kind));
    }

    async fn gone(&self, plural: &str, name: &str) {
        self.deleted(&format!("{}/{name}", at(plural)), &json!({})).await;
    }
}

/// Makes one object, which a quota counts, and deletes it.
async fn counted(entry: &str, uri: &str, object: Value) {
    let cluster = Cluster::new().await;
    let before = cluster.items(uri).await.len();
    cluster.quota("q", json!({"hard": {entry: "10"}})).await;
    cluster.used("q", json!({entry: before.to_string()})).await;
    cluster.made(uri, &object).await;
    cluster.used("q", json!({entry: (before + 1).to_string()})).await;
    let name = object["metadata"]["name"].as_str().unwrap();
    cluster.deleted(&format!("{uri}/{name}"), &json!({"propagationPolicy": "Background"})).await;
    cluster.used("q", json!({entry: before.to_string()})).await;
}

#[tokio::test]
async fn configmaps_are_counted() {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}});
    counted("configmaps", &at("configmaps"), map).await;
}

#[tokio::test]
async fn secrets_are_counted() {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}});
    counted("secrets", &at("secrets"), secret).await;
}

fn set(api_version: &str, kind: &str, selector: Value) -> Value {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "r"},
        "spec": {"replicas": 0, "selector": selector, "template": template}})
}

#[tokio::test]
async fn replica_sets_are_counted() {
    let set = set("apps/v1", "ReplicaSet", json!({"matchLabels": {"a": "b"}}));
    counted("count/replicasets.apps", "/apis/apps/v1/namespaces/default/replicasets", set).await;
}

#[tokio::test]
async fn replication_controllers_are_counted() {
    let controller = set("v1", "ReplicationController", json!({"a": "b"}));
    counted("replicationcontrollers", &at("replicationcontrollers"), controller).await;
}

#[tokio::test]
async fn quotas_are_counted() {
    let cluster = Cluster::new().await;
    cluster.quota("q", json!({"hard": {"resourcequotas": "1", "count/resourcequotas": "5"}})).await;
    cluster.used("q", json!({"resourcequotas": "1", "count/resourcequotas": "1"})).await;
    let why = "exceeded quota: q, requested: resourcequotas=1, used: resourcequotas=1, limited: resourcequotas=1";
    cluster.refused("resourcequotas", &quota("other", json!({})), why).await;
}

#[tokio::test]
async fn custom_resources_are_counted() {
    let cluster = Cluster::new().await;
    let entry = "count/widgets.example.com";
    cluster.quota("q", json!({"hard": {entry: "1", "configmaps": "9"}})).await;
    cluster.used("q", json!({entry: null})).await;
    let names = json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"});
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    cluster
        .define(&json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": names, "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}}))
        .await;
    let uri = "/apis/example.com/v1/namespaces/default/widgets";
    let widget = |name: &str| json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}});
    cluster.made(uri, &widget("a")).await;
    cluster.used("q", json!({entry: "1"})).await;
    assert_eq!(cluster.post(uri, &widget("b")).await.code, 403);
}

#[tokio::test]
async fn services_are_counted_by_their_types() {
    let cluster = Cluster::new().await;
    cluster.await_there(&at("services/kubernetes")).await;
    let hard = json!({"services": "10", "services.nodeports": "1", "services.loadbalancers": "1"});
    cluster.quota("q", json!({"hard": hard})).await;
    let used = |services: &str, ports: &str, balancers: &str| json!({"services": services, "services.nodeports": ports, "services.loadbalancers": balancers});
    cluster.used("q", used("1", "0", "0")).await;
    let service = |name: &str, kind: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"type": kind, "ports": [{"port": 80}]}})
    };
    cluster.made(&at("services"), &service("a", "ClusterIP")).await;
    cluster.made(&at("services"), &service("b", "NodePort")).await;
    cluster.used("q", used("3", "1", "0")).await;
    let why = "exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1, limited: \
               services.nodeports=1";
    cluster.refused("services", &service("c", "LoadBalancer"), why).await;
    let mut without = service("c", "LoadBalancer");
    without["spec"]["allocateLoadBalancerNodePorts"] = json!(false);
    cluster.made(&at("services"), &without).await;
    cluster.used("q", used("4", "1", "1")).await;
    // A change can need more, too.
    let answer = cluster.patch(&at("services/a"), MERGE, &json!({"spec": {"type": "NodePort"}})).await;
    assert_eq!((answer.code, answer.message()), (403, format!("services \"a\" is forbidden: {why}")));
    for name in ["a", "b", "c"] {
        cluster.gone("services", name).await;
    }
    cluster.used("q", used("1", "0", "0")).await;
}

#[tokio::test]
async fn what_pods_ask_for_is_counted() {
    let cluster = Cluster::new().await;
    let hard = json!({"pods": "5", "cpu": "1", "memory": "500Mi", "requests.ephemeral-storage": "50Gi",
        "requests.example.com/dongle": "3"});
    cluster.quota("q", json!({"hard": hard})).await;
    let used = |pods: &str, cpu: &str, memory: &str, storage: &str, dongles: &str| {
        json!({"pods": pods, "cpu": cpu, "memory": memory, "requests.ephemeral-storage": storage,
            "requests.example.com/dongle": dongles})
    };
    cluster.used("q", used("0", "0", "0", "0", "0")).await;
    let resources = json!({"cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi", "example.com/dongle": "2"});
    cluster.made(&at("pods"), &pod("a", resources, json!({}))).await;
    cluster.used("q", used("1", "500m", "252Mi", "30Gi", "2")).await;
    let resources = json!({"cpu": "600m", "memory": "100Mi"});
    let why = "exceeded quota: q, requested: cpu=600m, used: cpu=500m, limited: cpu=1";
    cluster.refused("pods", &pod("b", resources, json!({})), why).await;
    let resources = json!({"cpu": "500m", "memory": "100Mi", "ephemeral-storage": "1Gi", "example.com/dongle": "2"});
    let why = "exceeded quota: q, requested: requests.example.com/dongle=2, used: requests.example.com/dongle=2, limited: \
               requests.example.com/dongle=3";
    cluster.refused("pods", &pod("b", resources, json!({})), why).await;
    let why = "failed quota: q: must specify cpu for: c; memory for: c";
    cluster.refused("pods", &pod("b", json!({}), json!({})), why).await;
    // A pod that is there keeps what it asked for, but by a resize.
    let more = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}});
    assert_eq!(cluster.patch(&at("pods/a"), super::STRATEGIC, &more).await.code, 422);
    let more = json!({"spec": {"containers": [{"name": "c", "resources": {
        "requests": {"cpu": "1100m"}, "limits": {"cpu": "1100m"}}}]}});
    let answer = cluster.patch(&at("pods/a/resize"), super::STRATEGIC, &more).await;
    let why = "pods \"a\" is forbidden: exceeded quota: q, requested: cpu=600m, used: cpu=500m, limited: cpu=1";
    assert_eq!((answer.code, answer.message()), (403, why.to_owned()));
    cluster.used("q", used("1", "500m", "252Mi", "30Gi", "2")).await;
    // One that has ended has given back what it had.
    let ended = json!({"status": {"phase": "Succeeded"}});
    cluster.patched(&at("pods/a/status"), MERGE, &ended).await;
    cluster.used("q", used("0", "0", "0", "0", "0")).await;
    cluster.gone("pods", "a").await;
    cluster.used("q", used("0", "0", "0", "0", "0")).await;
}

#[tokio::test]
async fn scopes_tell_pods_by_their_class() {
    let cluster = Cluster::new().await;
    for (name, scope) in [("best", "BestEffort"), ("not-best", "NotBestEffort")] {
        cluster.quota(name, json!({"hard": {"pods": "5"}, "scopes": [scope]})).await;
        cluster.used(name, json!({"pods": "0"})).await;
    }
    for (resources, [best, not_best]) in [(json!({}), ["1", "0"]), (json!({"cpu": "1"}), ["0", "1"])] {
        cluster.made(&at("pods"), &pod("a", resources, json!({}))).await;
        cluster.used("best", json!({"pods": best})).await;
        cluster.used("not-best", json!({"pods": not_best})).await;
        cluster.gone("pods", "a").await;
        cluster.used("best", json!({"pods": "0"})).await;
        cluster.used("not-best", json!({"pods": "0"})).await;
    }
}

#[tokio::test]
async fn scopes_tell_pods_that_end() {
    let cluster = Cluster::new().await;
    let hard = json!({"pods": "5", "requests.cpu": "1", "requests.memory": "500Mi", "limits.cpu": "2",
        "limits.memory": "1Gi"});
    for (name, scope) in [("ending", "Terminating"), ("staying", "NotTerminating")] {
        cluster.quota(name, json!({"hard": hard, "scopes": [scope]})).await;
        cluster.used(name, json!({"pods": "0"})).await;
    }
    let some = json!({"pods": "1", "requests.cpu": "500m", "requests.memory": "200Mi", "limits.cpu": "500m",
        "limits.memory": "200Mi"});
    let none =
        json!({"pods": "0", "requests.cpu": "0", "requests.memory": "0", "limits.cpu": "0", "limits.memory": "0"});
    let resources = json!({"cpu": "500m", "memory": "200Mi"});
    for (spec, [ending, staying]) in
        [(json!({}), [&none, &some]), (json!({"activeDeadlineSeconds": 3600}), [&some, &none])]
    {
        cluster.made(&at("pods"), &pod("a", resources.clone(), spec)).await;
        cluster.used("ending", ending.clone()).await;
        cluster.used("staying", staying.clone()).await;
        cluster.gone("pods", "a").await;
        cluster.used("ending", none.clone()).await;
        cluster.used("staying", none.clone()).await;
    }
}

#[tokio::test]
async fn the_status_follows_the_spec() {
    let cluster = Cluster::new().await;
    cluster.quota("q", json!({"hard": {"cpu": "500m", "memory": "500Mi"}})).await;
    cluster.used("q", json!({"cpu": "0", "memory": "0"})).await;
    let (at, status) = (at("resourcequotas/q"), at("resourcequotas/q/status"));
    let mut quota = cluster.get(&at).await.json();
    quota["status"]["hard"] = json!({"cpu": "1", "memory": "1Gi", "pods": "3"});
    cluster.replaced(&status, &quota).await;
    cluster.used("q", json!({"cpu": "0", "memory": "0"})).await;
    cluster.patched(&at, MERGE, &json!({"spec": {"hard": {"cpu": "1", "memory": null, "pods": "2"}}})).await;
    cluster.used("q", json!({"cpu": "0", "pods": "0", "memory": null})).await;
    cluster.patched(&status, MERGE, &json!({"status": {"hard": {"cpu": "2"}}})).await;
    cluster.used("q", json!({"cpu": "0", "pods": "0"})).await;
    assert_eq!(cluster.get(&at).await.json()["spec"]["hard"], json!({"cpu": "1", "pods": "2"}));
}

/// Of as many as fit none is refused, and of more none is let through, however many ask at once.
#[tokio::test]
async fn many_at_once_get_what_there_is_and_no_more() {
    let cluster = Cluster::new().await;
    let maps = cluster.items(&at("configmaps")).await.len();
    cluster.quota("q", json!({"hard": {"cpu": "2", "pods": "100", "configmaps": (maps + 20).to_string()}})).await;
    let map = |i: usize| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{i}")}});
    let resources = json!({"cpu": "100m"});
    let count = |answers: &[Answer], code: u16| answers.iter().filter(|a| a.code == code).count();
    for _ in 0..5 {
        let (pods, configmaps) = (at("pods"), at("configmaps"));
        let ask_pods = join_all(
            (0..20).map(async |i| cluster.post(&pods, &pod(&format!("p{i}"), resources.clone(), json!({}))).await),
        );
        let ask_maps = join_all((0..40).map(async |i| cluster.post(&configmaps, &map(i)).await));
        let (made_pods, made_maps) = tokio::join!(ask_pods, ask_maps);
        assert_eq!(count(&made_pods, 201), 20);
        assert_eq!((count(&made_maps, 201), count(&made_maps, 403)), (20, 20));
        // What was refused for another reason charged nobody.
        assert_eq!(cluster.post(&pods, &pod("p0", json!({"cpu": "0"}), json!({}))).await.code, 409);
        cluster.used("q", json!({"cpu": "2", "pods": "20", "configmaps": (maps + 20).to_string()})).await;
        cluster.deleted(&pods, &json!({})).await;
        for map in cluster.items(&configmaps).await {
            let name = map["metadata"]["name"].as_str().unwrap();
            if name.starts_with('m') {
                cluster.gone("configmaps", name).await;
            }
        }
        cluster.used("q", json!({"cpu": "0", "pods": "0", "configmaps": maps.to_string()})).await;
    }
}
