//! Decides: what of an extension server's OpenAPI documents goes into ours (`kube-openapi/pkg/aggregator`).

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};

use crate::server::aggregation::table::Remote;

const REFERENCE: &str = "#/definitions/";
const KINDS: &str = "x-kubernetes-group-version-kind";

/// Adds to the index of version 3 where the document of a version is: its URL, which leads to the extension server, and
/// in it the hash that this server gave it.
pub fn list(index: &mut Value, theirs: &Value, remote: &Remote) {
    let key = remote.path().trim_start_matches('/').to_owned();
    let (Some(given), Some(paths)) = (theirs["paths"].get(&key), index["paths"].as_object_mut()) else { return };
    paths.insert(key, given.clone());
}

/// Adds to a document of version 2 the paths below `path` and the definitions that they use. Paths that are there stay;
/// a definition that is there and says something else leads to another name, `<name>_v2`.
pub fn merge(own: &mut Value, theirs: &Value, path: &str) {
    let prefix = format!("{path}/");
    let (Some(given), Some(definitions)) = (theirs["paths"].as_object(), theirs["definitions"].as_object()) else {
        return;
    };
    let is_new = |path: &str| own["paths"].get(path).is_none();
    let fits = |path: &str| path.starts_with(&prefix) || path == prefix.trim_end_matches('/');
    let paths: Map<String, Value> =
        given.iter().filter(|(path, _)| fits(path) && is_new(path)).map(|(p, v)| (p.clone(), v.clone())).collect();
    if paths.is_empty() {
        return;
    }
    let used = closure(&paths, definitions);
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    for (name, definition) in definitions.iter().filter(|(name, _)| used.contains(name.as_str())) {
        let mut to = name.clone();
        let mut number = 1;
        // A name that neither has, or one under which the same is there already.
        while own["definitions"].get(&to).is_some_and(|there| !same(there, definition))
            || (number > 1 && own["definitions"].get(&to).is_none() && definitions.contains_key(&to))
        {
            number += 1;
            to = format!("{name}_v{number}");
        }
        names.insert(name, to);
    }
    for (name, to) in &names {
        let mut definition = definitions[*name].clone();
        rename(&mut definition, &names);
        let Some(all) = own["definitions"].as_object_mut() else { return };
        match all.get_mut(to) {
            Some(there) => add_kinds(there, &definition),
            None => drop(all.insert(to.clone(), definition)),
        }
    }
    for (path, mut item) in paths {
        rename(&mut item, &names);
        own["paths"][path] = item;
    }
}

/// The names of the definitions that paths use, directly or by way of others.
fn closure<'a>(paths: &'a Map<String, Value>, definitions: &'a Map<String, Value>) -> HashSet<&'a str> {
    let mut used = HashSet::new();
    let mut found = Vec::new();
    paths.values().for_each(|v| references(v, &mut found));
    while let Some(name) = found.pop() {
        if let Some(definition) = definitions.get(name)
            && used.insert(name)
        {
            references(definition, &mut found);
        }
    }
    used
}

fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(REFERENCE)));
            map.values().for_each(|v| references(v, found));
        }
        Value::Array(list) => list.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

fn rename(value: &mut Value, names: &BTreeMap<&str, String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref")
                && let Some(to) = reference.strip_prefix(REFERENCE).and_then(|name| names.get(name))
            {
                *reference = format!("{REFERENCE}{to}");
            }
            map.values_mut().for_each(|v| rename(v, names));
        }
        Value::Array(list) => list.iter_mut().for_each(|v| rename(v, names)),
        _ => {}
    }
}

/// Equal but for the kinds that a definition is of.
fn same(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    let but_kinds = |m: &Map<String, Value>| m.len() - usize::from(m.contains_key(KINDS));
    but_kinds(a) == but_kinds(b) && a.iter().filter(|(k, _)| *k != KINDS).all(|(k, v)| b.get(k) == Some(v))
}

fn add_kinds(there: &mut Value, definition: &Value) {
    let Some(new) = definition[KINDS].as_array() else { return };
    match there[KINDS].as_array_mut() {
        Some(all) => {
            for kind in new {
                if !all.contains(kind) {
                    all.push(kind.clone());
                }
            }
        }
        None => there[KINDS] = new.clone().into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reference(name: &str) -> Value {
        json!({"$ref": format!("{REFERENCE}{name}")})
    }

    #[test]
    fn paths_come_with_what_they_use_and_conflicts_get_another_name() {
        let mut own = json!({
            "paths": {"/apis/apps/v1/": {"get": {}}, "/apis/a.io/v1/taken": {"get": "ours"}},
            "definitions": {
                "Meta": {"type": "object", KINDS: [{"group": "apps"}]},
                "Thing": {"type": "string"},
            },
        });
        let theirs = json!({
            "paths": {
                "/apis/a.io/v1/things": {"get": {"schema": reference("ThingList")}},
                "/apis/a.io/v1/taken": {"get": "theirs"},
                "/apis/a.io/v10/things": {"get": {"schema": reference("Unused")}},
                "/version/": {"get": {"schema": reference("Unused")}},
            },
            "definitions": {
                "ThingList": {"items": reference("Thing"), "metadata": reference("Meta")},
                "Thing": {"type": "object", "properties": {"self": reference("Thing")}},
                "Meta": {"type": "object", KINDS: [{"group": "a.io"}]},
                "Unused": {"type": "integer"},
            },
        });
        merge(&mut own, &theirs, "/apis/a.io/v1");
        assert_eq!(own["paths"]["/apis/a.io/v1/taken"]["get"], "ours");
        assert_eq!(own["paths"]["/apis/a.io/v1/things"]["get"]["schema"], reference("ThingList"));
        assert!(own["paths"].get("/version/").is_none() && own["paths"].get("/apis/a.io/v10/things").is_none());
        let names: Vec<&String> = own["definitions"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["Meta", "Thing", "ThingList", "Thing_v2"]);
        assert_eq!(own["definitions"]["Thing"], json!({"type": "string"}));
        assert_eq!(own["definitions"]["Thing_v2"]["properties"]["self"], reference("Thing_v2"));
        let list = &own["definitions"]["ThingList"];
        assert_eq!((&list["items"], &list["metadata"]), (&reference("Thing_v2"), &reference("Meta")));
        assert_eq!(own["definitions"]["Meta"][KINDS], json!([{"group": "apps"}, {"group": "a.io"}]));
        let before = own.clone();
        merge(&mut own, &theirs, "/apis/a.io/v1");
        assert_eq!(own, before, "once is enough");
    }
}
