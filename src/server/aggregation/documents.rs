//! Decides: what an extension server says of its resources, in the aggregated form of discovery
//! (`endpoints.ConvertGroupVersionIntoToDiscovery` for servers that only know the older one).

use serde_json::{Map, Value, json};

/// The resources of one group and version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// `resources` of an `APIVersionDiscovery`.
    pub resources: Vec<Value>,
    /// Of the document that they were in; empty when it had none.
    pub etag: String,
}

/// The resources of a version in a document of `/apis`. `None` when it is no aggregated document; a version that it does
/// not have has no resources.
#[must_use]
pub fn aggregated(document: &Value, group: &str, version: &str) -> Option<Vec<Value>> {
    if document["kind"] != "APIGroupDiscoveryList" {
        return None;
    }
    let groups = document["items"].as_array()?.iter().filter(|g| g["metadata"]["name"] == group);
    let mut versions = groups.flat_map(|g| g["versions"].as_array().into_iter().flatten());
    let found = versions.find(|v| v["version"] == version);
    Some(found.and_then(|v| v["resources"].as_array()).cloned().unwrap_or_default())
}

/// The resources of an `APIResourceList`.
///
/// # Errors
/// When it is none.
pub fn legacy(document: &Value) -> Result<Vec<Value>, String> {
    let list = document["resources"].as_array().filter(|_| document["kind"] == "APIResourceList");
    let list = list.ok_or("the document is no APIResourceList")?;
    let mut resources: Vec<Value> = Vec::new();
    for given in list {
        let name = given["name"].as_str().unwrap_or_default();
        let scope = if given["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let (parent, sub) = name.split_once('/').map_or((name, None), |(parent, sub)| (parent, Some(sub)));
        let at = resources.iter().position(|r| r["resource"] == parent).unwrap_or_else(|| {
            resources.push(json!({"resource": parent, "scope": scope}));
            resources.len() - 1
        });
        let mut described = described(given);
        let Some(own) = resources[at].as_object_mut() else { continue };
        match sub {
            Some(sub) => {
                described.insert("subresource".into(), sub.into());
                let all = own.entry("subresources").or_insert_with(|| json!([]));
                all.as_array_mut().into_iter().for_each(|all| all.push(described.clone().into()));
            }
            None => {
                for (from, to) in
                    [("singularName", "singularResource"), ("shortNames", "shortNames"), ("categories", "categories")]
                {
                    if !given[from].is_null() {
                        described.insert(to.into(), given[from].clone());
                    }
                }
                own.insert("scope".into(), scope.into());
                own.extend(described);
            }
        }
    }
    Ok(resources)
}

/// Kind and verbs.
fn described(given: &Value) -> Map<String, Value> {
    let mut out = Map::new();
    let text = |field: &str| given[field].as_str().unwrap_or_default();
    if !text("kind").is_empty() {
        let kind = json!({"group": text("group"), "version": text("version"), "kind": text("kind")});
        out.insert("responseKind".into(), kind);
    }
    out.insert("verbs".into(), if given["verbs"].is_array() { given["verbs"].clone() } else { json!([]) });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_is_asked_for_is_taken_from_the_document() {
        let document = json!({"kind": "APIGroupDiscoveryList", "items": [
            {"metadata": {"name": "b.io"}, "versions": [{"version": "v1", "resources": [{"resource": "others"}]}]},
            {"metadata": {"name": "a.io"}, "versions": [{"version": "v2"}, {"version": "v1", "resources": [{"resource": "things"}]}]},
        ]});
        assert_eq!(aggregated(&document, "a.io", "v1"), Some(vec![json!({"resource": "things"})]));
        assert_eq!(aggregated(&document, "a.io", "v2"), Some(vec![]));
        assert_eq!(aggregated(&document, "a.io", "v3"), Some(vec![]));
        assert_eq!(aggregated(&json!({"kind": "APIGroupList"}), "a.io", "v1"), None);
    }

    #[test]
    fn the_older_form_says_the_same() {
        let list = json!({"kind": "APIResourceList", "resources": [
            {"name": "things/status", "singularName": "", "namespaced": true, "kind": "Thing", "verbs": ["get"]},
            {"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing", "shortNames": ["th"],
             "verbs": ["list", "get"]},
            {"name": "things/scale", "namespaced": true, "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get"]},
            {"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics", "verbs": ["get"]},
        ]});
        let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
        let expect = json!([
            {"resource": "things", "scope": "Namespaced", "singularResource": "thing", "shortNames": ["th"],
             "responseKind": kind("", "", "Thing"), "verbs": ["list", "get"], "subresources": [
                {"subresource": "status", "responseKind": kind("", "", "Thing"), "verbs": ["get"]},
                {"subresource": "scale", "responseKind": kind("autoscaling", "v1", "Scale"), "verbs": ["get"]}]},
            {"resource": "nodes", "scope": "Cluster", "singularResource": "", "responseKind": kind("", "", "NodeMetrics"),
             "verbs": ["get"]},
        ]);
        assert_eq!(Value::from(legacy(&list).unwrap()), expect);
        assert!(legacy(&json!({"kind": "Status"})).is_err());
    }
}
