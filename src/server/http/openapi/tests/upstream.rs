//! Golden: version 2 of the document against upstream's. What differs is named here, with the reason.

use super::*;
use crate::api::resource;

/// Upstream's document is made with everything switched on that is alpha: CBOR, and lists in shards.
const ALPHA: [&str; 2] = ["cbor", "shardSelector"];

/// Kinds of upstream's stable groups that we do not have.
const MISSING_KINDS: [&str; 2] = ["ComponentStatus", "ComponentStatusList"];

/// The older name of `pods/binding`, which nobody has used for years.
const OLDER: &str = "/api/v1/namespaces/{namespace}/bindings";

/// Paths outside of groups whose answers have no schema, or one that nothing else needs.
const MISSING_PATHS: [&str; 5] =
    ["/.well-known/openid-configuration/", "/logs/", "/logs/{logpath}", "/openid/v1/jwks/", "/version/"];

fn documents() -> Option<(Value, Value)> {
    let folder = crate::api::reference::folder()?;
    let theirs = std::fs::read(folder.join("openapi-v2.json")).unwrap();
    Some((serde_json::from_slice(&v2(&Catalog::default())).unwrap(), serde_json::from_slice(&theirs).unwrap()))
}

/// What is written in two ways that mean the same.
fn normal(value: &mut Value) {
    match value {
        Value::Object(map) => {
            // Of types: the API does not read them, and the table does not have them.
            map.remove("x-kubernetes-unions");
            // What happens anyway: patches replace, maps are granular.
            for (word, default) in [("x-kubernetes-patch-strategy", "replace"), ("x-kubernetes-map-type", "granular")] {
                if map.get(word).is_some_and(|w| w == default) {
                    map.remove(word);
                }
            }
            if let Some(Value::Array(required)) = map.get_mut("required") {
                required.sort_by_key(Value::to_string);
            }
            map.values_mut().for_each(normal);
        }
        Value::Array(list) => list.iter_mut().for_each(normal),
        _ => {}
    }
}

/// `DeleteOptions` and `WatchEvent` are kinds of every group and version, also of those that we do not have.
fn served_kinds(definition: &mut Value) {
    let Some(Value::Array(kinds)) = definition.get_mut("x-kubernetes-group-version-kind") else { return };
    let served = |k: &Value| RESOURCES.iter().any(|r| k["group"] == r.group && k["version"] == r.version);
    if kinds.len() > 1 {
        kinds.retain(served);
    }
    kinds.sort_by_key(Value::to_string);
}

#[test]
fn definitions_are_upstreams() {
    let Some((mut ours, mut theirs)) = documents() else { return };
    let mut wrong = Vec::new();
    for (name, definition) in ours["definitions"].as_object_mut().unwrap() {
        let theirs = &mut theirs["definitions"][name.as_str()];
        for definition in [&mut *definition, &mut *theirs] {
            normal(definition);
            served_kinds(definition);
            // Texts of lists are ours: see `of_list`. Those of events are cut in another way where ours come from.
            if name.ends_with("List") || name.ends_with(".WatchEvent") {
                definition.as_object_mut().unwrap().remove("description");
                let properties = definition["properties"].as_object_mut().into_iter().flatten();
                properties.filter_map(|(_, p)| p.as_object_mut()).for_each(|p| drop(p.remove("description")));
            }
        }
        if *definition != *theirs {
            wrong.push(format!("{name}\n  {definition}\n  {theirs}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_definition_is_missing() {
    let Some((ours, theirs)) = documents() else { return };
    let missing: Vec<&String> = theirs["definitions"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, d)| {
            let kinds = d["x-kubernetes-group-version-kind"].as_array().into_iter().flatten();
            let of_ours = |k: &Value| RESOURCES.iter().any(|r| k["group"] == r.group && k["version"] == r.version);
            let kinds: Vec<&Value> = kinds.filter(|k| of_ours(k)).collect();
            !kinds.is_empty()
                && ours["definitions"].get(*name).is_none()
                && !kinds.iter().any(|k| MISSING_KINDS.iter().any(|m| k["kind"] == *m))
        })
        .map(|(name, _)| name)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The parameters of an operation and of its path, without their texts.
fn parameters(document: &Value, item: &Value) -> Vec<Value> {
    let all = item["parameters"].as_array().into_iter().flatten().map(|p| {
        let shared = p["$ref"].as_str().map(|name| document.pointer(&name[1..]).expect("a shared parameter"));
        let mut parameter = shared.unwrap_or(p).clone();
        parameter.as_object_mut().unwrap().remove("description");
        parameter
    });
    let mut all: Vec<Value> = all.filter(|p| !ALPHA.iter().any(|a| p["name"] == *a)).collect();
    all.sort_by_key(|p| p["name"].to_string());
    all
}

/// Everything of an operation but the texts of its parameters.
fn operation(document: &Value, operation: &Value) -> Value {
    let mut out = operation.clone();
    normal(&mut out);
    out["parameters"] = parameters(document, operation).into();
    for word in ["consumes", "produces"] {
        if let Some(Value::Array(types)) = out.get_mut(word) {
            types.retain(|t| !ALPHA.iter().any(|a| t.as_str().unwrap_or_default().contains(a)));
        }
    }
    // Ours of watches is shorter.
    if out["x-kubernetes-action"].as_str().is_some_and(|a| a.starts_with("watch")) {
        out.as_object_mut().unwrap().remove("description");
    }
    out
}

#[test]
fn operations_are_upstreams() {
    let Some((ours, theirs)) = documents() else { return };
    let mut wrong = Vec::new();
    for (path, item) in ours["paths"].as_object().unwrap() {
        let their_item = &theirs["paths"][path];
        let (a, b) = (parameters(&ours, item), parameters(&theirs, their_item));
        if a != b {
            wrong.push(format!("{path}\n  {}\n  {}", json!(a), json!(b)));
        }
        let methods = |item: &Value| item.as_object().into_iter().flatten().map(|(m, _)| m.clone()).collect::<Vec<_>>();
        if methods(item) != methods(their_item) {
            wrong.push(format!("{path}: {:?} {:?}", methods(item), methods(their_item)));
            continue;
        }
        for (method, one) in item.as_object().unwrap().iter().filter(|(m, _)| *m != "parameters") {
            let (a, b) = (operation(&ours, one), operation(&theirs, &their_item[method]));
            if a != b {
                wrong.push(format!("{method} {path}\n  {a}\n  {b}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}

#[test]
fn no_path_is_missing() {
    let Some((ours, theirs)) = documents() else { return };
    let served = |path: &str| {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            ["api", version, ..] => resource::RESOURCES.iter().any(|r| r.group.is_empty() && r.version == *version),
            ["apis", group, version, ..] => {
                resource::RESOURCES.iter().any(|r| r.group == *group && r.version == *version)
            }
            ["apis", group] => resource::RESOURCES.iter().any(|r| r.group == *group),
            _ => !MISSING_PATHS.contains(&path),
        }
    };
    let missing: Vec<&String> = theirs["paths"]
        .as_object()
        .unwrap()
        .keys()
        .filter(|path| served(path) && ours["paths"].get(*path).is_none())
        .filter(|path| !path.contains("componentstatuses") && *path != OLDER)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
