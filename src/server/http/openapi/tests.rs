//! Golden: the documents are upstream's, and hang together.

use super::*;
use crate::api::resource::{PATCH, RESOURCES};

fn document(group: &str, version: &str) -> Value {
    serde_json::from_slice(&v3(&Catalog::default(), group, version).expect("a group version")).expect("JSON")
}

/// Every `$ref` in a document leads somewhere.
fn check_references(document: &Value) {
    fn walk(value: &Value, document: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
                    assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
                }
                map.values().for_each(|v| walk(v, document));
            }
            Value::Array(list) => list.iter().for_each(|v| walk(v, document)),
            _ => {}
        }
    }
    walk(document, document);
}

#[test]
fn references_lead_somewhere() {
    for (group, version) in group_versions(&described(&Catalog::default())) {
        check_references(&document(group, version));
    }
    check_references(&serde_json::from_slice(&v2(&Catalog::default())).unwrap());
}

#[test]
fn kubectl_finds_what_it_looks_for() {
    for r in RESOURCES.iter().filter(|r| r.has(PATCH)) {
        let document = document(r.group, r.version);
        // The validator: PATCH of the kind with a parameter `fieldValidation`.
        let path = format!("{}/{{name}}", r.path(r.namespaced.then_some("{namespace}")));
        let patch = &document["paths"][&path]["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": r.group, "version": r.version, "kind": r.kind}),
            "{path}"
        );
        let names: Vec<&str> =
            patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        for name in ["fieldValidation", "dryRun", "fieldManager", "force"] {
            assert!(names.contains(&name), "{path}: {name}");
        }
        // explain and apply: the schema of the kind.
        let kind = json!([{"group": r.group, "version": r.version, "kind": r.kind}]);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        assert!(schemas.values().any(|s| s["x-kubernetes-group-version-kind"] == kind), "{path}");
    }
    let core = document("", "v1");
    let pod = &core["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"];
    assert_eq!(pod["containers"]["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(pod["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert_eq!(pod["restartPolicy"]["enum"], json!(["Always", "Never", "OnFailure"]));
    let claim = &core["components"]["schemas"]["io.k8s.api.core.v1.PersistentVolumeClaimSpec"]["properties"];
    let modes = json!(["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]);
    assert_eq!(claim["accessModes"]["items"]["enum"], modes);
    let slices = document("discovery.k8s.io", "v1");
    let port = &slices["components"]["schemas"]["io.k8s.api.discovery.v1.EndpointPort"]["properties"];
    assert_eq!(port["protocol"]["enum"], json!(["SCTP", "TCP", "UDP"]), "a type of another package");
    assert_eq!(pod["containers"]["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(
        core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["get"]["operationId"],
        "readCoreV1NamespacedPod"
    );
}

#[test]
fn the_index_names_every_document_with_its_hash() {
    let index = index(&Catalog::default());
    let apps = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    assert_eq!(apps, format!("/openapi/v3/apis/apps/v1?hash={}", hash(&Catalog::default(), "apps", "v1").unwrap()));
    assert_eq!(index["paths"].as_object().unwrap().len(), group_versions(&described(&Catalog::default())).len());
    assert!(index["paths"].get("api/v1").is_some());
    assert!(v3(&Catalog::default(), "apps", "v9").is_none() && v3(&Catalog::default(), "nope", "v1").is_none());
}

mod upstream;
