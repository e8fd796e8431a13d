//! What a client finds without knowing it before.

use serde_json::{Value, json};

use super::Cluster;
use crate::Server;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Group, version and resource that every server has.
const BUILT_IN: &[(&str, &str, &str)] = &[
    ("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
    ("apiregistration.k8s.io", "v1", "apiservices"),
    ("apps", "v1", "deployments"),
    ("authentication.k8s.io", "v1", "tokenreviews"),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
    ("autoscaling", "v1", "horizontalpodautoscalers"),
    ("autoscaling", "v2", "horizontalpodautoscalers"),
    ("batch", "v1", "jobs"),
    ("certificates.k8s.io", "v1", "certificatesigningrequests"),
    ("coordination.k8s.io", "v1", "leases"),
    ("discovery.k8s.io", "v1", "endpointslices"),
    ("events.k8s.io", "v1", "events"),
    ("networking.k8s.io", "v1", "ingresses"),
    ("node.k8s.io", "v1", "runtimeclasses"),
    ("policy", "v1", "poddisruptionbudgets"),
    ("scheduling.k8s.io", "v1", "priorityclasses"),
    ("storage.k8s.io", "v1", "csinodes"),
];

/// Whether an aggregated document has a resource. The core group has no name.
fn has(document: &Value, group: &str, version: &str, resource: &str) -> bool {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    items(&document["items"])
        .iter()
        .filter(|g| g["metadata"]["name"].as_str().unwrap_or_default() == group)
        .flat_map(|g| items(&g["versions"]))
        .filter(|v| v["version"] == version)
        .flat_map(|v| items(&v["resources"]))
        .any(|r| r["resource"] == resource)
}

async fn aggregated(server: &Server, path: &str) -> Value {
    let answer = server.ask("GET", path, &[("accept", AGGREGATED)], "").await;
    assert_eq!(answer.code, 200, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], AGGREGATED, "a client looks here for what it was given");
    answer.json()
}

#[tokio::test]
async fn everything_that_is_built_in_is_in_the_aggregated_document() {
    let server = Server::new().await;
    let groups = aggregated(&server, "/apis").await;
    for (group, version, resource) in BUILT_IN {
        assert!(has(&groups, group, version, resource), "{group}/{version} {resource}");
    }
    assert!(has(&aggregated(&server, "/api").await, "", "v1", "namespaces"));
}

#[tokio::test]
async fn a_definition_comes_into_the_aggregated_document_and_leaves_it() {
    let cluster = Cluster::new().await;
    let definition = super::custom::open("groups.example.com", "testcrds", "testcrd");
    cluster.define(&definition).await;
    assert!(has(&aggregated(&cluster, "/apis").await, "groups.example.com", "v1", "testcrds"));
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/testcrds.groups.example.com";
    cluster.deleted(path, &json!({})).await;
    cluster.await_gone(path).await;
    cluster.await_gone("/apis/groups.example.com").await;
    assert!(!has(&aggregated(&cluster, "/apis").await, "groups.example.com", "v1", "testcrds"));
}

/// Each group prefers a version that it has, and each version of each group lists resources.
#[tokio::test]
async fn groups_versions_and_resources_agree() {
    let server = Server::new().await;
    let list = server.get("/apis").await.json();
    let groups = list["groups"].as_array().unwrap();
    for (group, version, _) in BUILT_IN {
        let found = groups.iter().find(|g| g["name"] == *group).unwrap_or_else(|| panic!("{group}"));
        assert!(found["versions"].as_array().unwrap().iter().any(|v| v["version"] == *version), "{group}/{version}");
    }
    for group in groups {
        let name = group["name"].as_str().unwrap();
        let alone = server.get(&format!("/apis/{name}")).await.json();
        assert_eq!((&alone["kind"], &alone["versions"]), (&json!("APIGroup"), &group["versions"]), "{name}");
        let preferred = &group["preferredVersion"];
        assert!(preferred["version"].as_str().is_some_and(|v| v.starts_with('v')), "{group}");
        assert_eq!(preferred["groupVersion"], format!("{name}/{}", preferred["version"].as_str().unwrap()));
        let versions = group["versions"].as_array().unwrap();
        assert!(versions.contains(preferred), "{group}");
        for version in versions {
            let at = version["groupVersion"].as_str().unwrap();
            assert_eq!(at, format!("{name}/{}", version["version"].as_str().unwrap()));
            let resources = server.get(&format!("/apis/{at}")).await.json();
            assert_eq!(resources["groupVersion"], at);
            let resources = resources["resources"].as_array().unwrap();
            assert!(!resources.is_empty(), "{at}");
            for resource in resources {
                let whole = ["name", "kind"].iter().all(|f| !resource[f].as_str().unwrap_or_default().is_empty());
                assert!(whole && !resource["verbs"].as_array().unwrap().is_empty(), "{at}: {resource}");
            }
        }
    }
}

/// The documents that lead to a resource name it.
pub async fn check_listed(server: &Server, group: &str, version: &str, resources: &[&str]) {
    let groups = server.get("/apis").await.json();
    let found = groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == group).unwrap().clone();
    let alone = server.get(&format!("/apis/{group}")).await.json();
    for document in [&found, &alone] {
        assert!(document["versions"].as_array().unwrap().iter().any(|v| v["version"] == version), "{document}");
    }
    let list = server.get(&format!("/apis/{group}/{version}")).await.json();
    for resource in resources {
        let named = |r: &&Value| r["name"] == *resource;
        assert!(list["resources"].as_array().unwrap().iter().find(named).is_some(), "{resource} is not in {list}");
    }
}

#[tokio::test]
async fn extensions_are_in_the_discovery_documents() {
    let server = Server::new().await;
    check_listed(&server, "apiextensions.k8s.io", "v1", &["customresourcedefinitions"]).await;
    let hooks = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];
    check_listed(&server, "admissionregistration.k8s.io", "v1", &hooks).await;
}

/// Integers, although other distributions write `36+`.
#[tokio::test]
async fn the_version_is_two_integers() {
    let version = Server::new().await.get("/version").await.json();
    for part in ["major", "minor"] {
        assert!(version[part].as_str().unwrap().parse::<u32>().is_ok(), "{version}");
    }
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("36")));
}

/// A resource that is asked for in a form that it does not have.
#[tokio::test]
async fn a_form_that_is_not_served_is_not_acceptable() {
    let server = Server::new().await;
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let review = json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}});
    let headers = [("content-type", "application/json"), table[0]];
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let refused = server.ask("POST", path, &headers, review.to_string()).await;
    assert_eq!((refused.code, &refused.json()["reason"]), (406, &json!("NotAcceptable")), "{}", refused.text);
    let why = "only the following media types are accepted: application/json, application/yaml, \
               application/vnd.kubernetes.protobuf";
    assert!(refused.message().contains(why), "{}", refused.text);
}
