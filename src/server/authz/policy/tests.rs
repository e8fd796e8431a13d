//! Golden: the default policy is the published one; how aggregates are resolved.

use std::collections::BTreeMap;

use super::*;
use crate::api::reference;

/// What others bring that is here: metrics-server, who may ask it.
const ADDED: &[&str] = &["ClusterRole /system:aggregated-metrics-reader"];

fn key(object: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let meta = &object["metadata"];
    format!("{} {}/{}", text(&object["kind"]), text(&meta["namespace"]), text(&meta["name"]))
}

#[test]
fn equals_the_published_policy() {
    let Some(folder) = reference::folder().map(|f| f.join("rbac")) else { return };
    let mut published = BTreeMap::new();
    for file in [
        "cluster-roles",
        "cluster-role-bindings",
        "controller-roles",
        "controller-role-bindings",
        "namespace-roles",
        "namespace-role-bindings",
    ] {
        let text = std::fs::read_to_string(folder.join(format!("{file}.yaml"))).unwrap();
        let list: Value = serde_saphyr::from_str(&text).unwrap();
        for item in list["items"].as_array().unwrap() {
            published.insert(key(item), item.clone());
        }
    }
    let added = |key: &str| key.contains("/skiff:") || ADDED.contains(&key);
    let ours: BTreeMap<String, Value> =
        objects().into_iter().map(|o| (key(&o), o)).filter(|(key, _)| !added(key)).collect();
    assert_eq!(ours.keys().collect::<Vec<_>>(), published.keys().collect::<Vec<_>>());
    for (key, mut expect) in published {
        if expect["rules"].is_null() {
            // Of an aggregate, or a binding.
            expect.as_object_mut().unwrap().remove("rules");
        }
        assert_eq!(ours[&key], expect, "{key}");
    }
}

/// The default objects as they are once the aggregates have their rules.
pub fn aggregated() -> Vec<Value> {
    fn all(role: &Role) -> Vec<PolicyRule> {
        let is_part = |part: &Role| part.part_of.split_whitespace().any(|of| of == role.aggregates);
        let parts = CLUSTER_ROLES.iter().filter(|part| role.is_aggregate() && is_part(part));
        role.rules().into_iter().chain(parts.flat_map(all)).collect()
    }
    let mut objects = objects();
    for role in CLUSTER_ROLES.iter().filter(|r| r.is_aggregate()) {
        let object = objects.iter_mut().find(|o| o["kind"] == "ClusterRole" && o["metadata"]["name"] == role.name());
        object.unwrap()["rules"] = json!(all(role));
    }
    objects
}

#[test]
fn aggregates_are_made_of_their_parts() {
    let objects = aggregated();
    let by_name = |name: &str| -> Vec<PolicyRule> {
        let role = objects.iter().find(|o| o["kind"] == "ClusterRole" && o["metadata"]["name"] == name).unwrap();
        serde_json::from_value(role["rules"].clone()).unwrap()
    };
    let (admin, edit, view) = (by_name("admin"), by_name("edit"), by_name("view"));
    assert!(view.iter().all(|r| edit.contains(r)) && edit.iter().all(|r| admin.contains(r)));
    assert!(view.len() < edit.len() && edit.len() < admin.len());
    let touches = |rules: &[PolicyRule], resource: &str| {
        rules.iter().any(|r| r.resources.iter().flatten().any(|x| x == resource))
    };
    assert!(!touches(&view, "secrets") && touches(&edit, "secrets"));
    assert!(!touches(&edit, "rolebindings") && touches(&admin, "rolebindings"));
    let measured = |rules: &[PolicyRule]| {
        rules.iter().any(|r| r.api_groups.iter().flatten().any(|group| group == "metrics.k8s.io"))
    };
    assert!(measured(&view) && measured(&edit) && measured(&admin), "who may see pods may see what they use");
}
