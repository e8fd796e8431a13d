//! Decides: which fields of an object its schema does not have (`apiextensions-apiserver/pkg/apiserver/schema/pruning`).

use serde_json::Value;

use super::structural::Structural;
use crate::api::trail::{Step, Trail};

/// Removes the fields that the schema does not have, and returns where they were, sorted: `spec.list[0].bar`. At the
/// root of an object (`root`) and in embedded ones `apiVersion`, `kind` and `metadata` stay as they are.
pub fn prune(value: &mut Value, schema: &Structural, root: bool) -> Vec<String> {
    let mut removed = Vec::new();
    one(value, Some(schema), root || schema.embedded, &Trail::ROOT, &mut removed);
    removed.sort_unstable();
    removed
}

pub(super) fn is_meta(key: &str) -> bool {
    matches!(key, "apiVersion" | "kind" | "metadata")
}

/// The schema of a field, and the step to it: one of `properties`, or a key of a map.
pub(super) fn inside<'s, 'k>(schema: &'s Structural, key: &'k str) -> Option<(&'s Structural, Step<'k>)> {
    match schema.properties.get(key) {
        Some(property) => Some((property, Step::Field(key))),
        None => schema.additional.as_deref().map(|a| (a, Step::Key(key))),
    }
}

fn one(value: &mut Value, schema: Option<&Structural>, embedded: bool, at: &Trail, removed: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.retain(|key, value| {
            if embedded && is_meta(key) {
                return true;
            }
            match schema.and_then(|s| inside(s, key)) {
                Some((schema, step)) => {
                    one(value, Some(schema), schema.embedded, &at.then(step), removed);
                    true
                }
                None if schema.is_some_and(|s| s.preserves_unknown) => true,
                None => {
                    if !(at.is_root() && is_meta(key)) {
                        removed.push(at.then(Step::Key(key)).plain());
                    }
                    false
                }
            }
        }),
        Value::Array(list) => {
            let items = schema.and_then(|s| s.items.as_deref());
            // What a list without a schema of its items holds is preserved with it.
            if items.is_none() && schema.is_some_and(|s| s.preserves_unknown) {
                return;
            }
            let preserves = schema.is_some_and(|s| s.preserves_unknown);
            for (i, item) in list.iter_mut().enumerate() {
                let at = at.index(i);
                match items {
                    Some(items) if preserves => preserved(item, items, &at, removed),
                    _ => one(item, items, items.is_some_and(|i| i.embedded), &at, removed),
                }
            }
        }
        _ => {}
    }
}

/// An item of a list whose unknown fields are preserved: the items inherit that, their fields do not.
fn preserved(value: &mut Value, schema: &Structural, at: &Trail, removed: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                if schema.embedded && is_meta(key) {
                    continue;
                }
                if let Some((schema, step)) = inside(schema, key) {
                    one(value, Some(schema), schema.embedded, &at.then(step), removed);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for (i, item) in list.iter_mut().enumerate() {
                    preserved(item, items, &at.index(i), removed);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::server::crd::compile::compile;

    fn check(schema: Value, root: bool, mut value: Value, expect: Value, removed: &[&str]) {
        let schema = compile(&schema).unwrap();
        let found = prune(&mut value, &schema, root);
        assert_eq!((value, found), (expect, removed.iter().map(|s| (*s).to_owned()).collect()));
    }

    fn object(properties: Value) -> Value {
        json!({"type": "object", "properties": properties})
    }

    #[test]
    fn unknown_fields_are_removed_and_named() {
        let spec = object(json!({"list": {"type": "array", "items": object(json!({"a": {"type": "string"}}))},
            "map": {"type": "object", "additionalProperties": object(json!({"b": {"type": "string"}}))}}));
        check(
            object(json!({"spec": spec})),
            true,
            json!({"apiVersion": "v1", "kind": "A", "metadata": {"any": 1}, "foo": 1,
                "spec": {"bar": {"x": 1}, "list": [{"a": "1"}, {"a": "2", "c": 1}], "map": {"k.1": {"b": "", "d": 1}}}}),
            json!({"apiVersion": "v1", "kind": "A", "metadata": {"any": 1},
                "spec": {"list": [{"a": "1"}, {"a": "2"}], "map": {"k.1": {"b": ""}}}}),
            &["foo", "spec.bar", "spec.list[1].c", "spec.map.k.1.d"],
        );
    }

    #[test]
    fn unknown_fields_are_preserved_where_the_schema_says_so() {
        let inner = object(json!({"known": object(json!({}))}));
        let mut preserving = inner.clone();
        preserving["x-kubernetes-preserve-unknown-fields"] = json!(true);
        check(
            object(json!({"p": preserving})),
            false,
            json!({"p": {"x": {"y": 1}, "known": {"z": 1}}}),
            json!({"p": {"x": {"y": 1}, "known": {}}}),
            &["p.known.z"],
        );
        check(
            object(json!({"l": {"type": "array", "x-kubernetes-preserve-unknown-fields": true, "items": inner}})),
            false,
            json!({"l": [{"x": 1, "known": {"z": 1}}]}),
            json!({"l": [{"x": 1, "known": {}}]}),
            &["l[0].known.z"],
        );
    }

    #[test]
    fn embedded_objects_keep_their_metadata() {
        let mut embedded = object(json!({"spec": object(json!({}))}));
        embedded["x-kubernetes-embedded-resource"] = json!(true);
        let value = json!({"e": {"apiVersion": "v1", "kind": "B", "metadata": {"x": 1}, "spec": {}, "other": 1}});
        let mut expect = value.clone();
        expect["e"].as_object_mut().unwrap().remove("other");
        check(object(json!({"e": embedded})), false, value, expect, &["e.other"]);
    }

    #[test]
    fn additional_properties_without_a_schema_keep_keys_but_not_what_they_hold() {
        check(
            object(json!({"m": {"type": "object", "additionalProperties": true}})),
            false,
            json!({"m": {"a": 1, "b": {"c": 1}, "d": [{"e": 1}]}}),
            json!({"m": {"a": 1, "b": {}, "d": [{}]}}),
            &["m.b.c", "m.d[0].e"],
        );
    }

    #[test]
    fn what_is_not_an_objects_root_has_no_metadata_of_its_own() {
        check(object(json!({})), false, json!({"kind": "A", "x": 1}), json!({}), &["x"]);
    }
}
