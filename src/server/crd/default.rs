//! Decides: what fields have that an object does not set (`apiextensions-apiserver/pkg/apiserver/schema/defaulting`).

use serde_json::Value;

use super::prune::inside;
use super::structural::Structural;

/// Fills in defaults, also for a null where null is not allowed. [`prune_nulls`] has removed those without a default.
pub fn default(value: &mut Value, schema: &Structural) {
    match value {
        Value::Object(map) => {
            for (name, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                let missing = match map.get(name) {
                    None => true,
                    Some(value) => value.is_null() && !property.nullable,
                };
                if missing {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (key, value) in map.iter_mut() {
                if let Some((schema, _)) = inside(schema, key) {
                    fill(value, schema);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                list.iter_mut().for_each(|item| fill(item, items));
            }
        }
        _ => {}
    }
}

/// A value of a map or a list, whose schema may have a default for null.
fn fill(value: &mut Value, schema: &Structural) {
    if value.is_null() && !schema.nullable {
        *value = schema.default.clone().unwrap_or_default();
    }
    default(value, schema);
}

/// Removes nulls from objects where null is not allowed and there is no default. In lists they stay, and are errors.
pub fn prune_nulls(value: &mut Value, schema: &Structural) {
    match value {
        Value::Object(map) => map.retain(|key, value| match inside(schema, key) {
            Some((schema, _)) if value.is_null() => schema.nullable || schema.default.is_some(),
            Some((schema, _)) => {
                prune_nulls(value, schema);
                true
            }
            None => true,
        }),
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                list.iter_mut().for_each(|item| prune_nulls(item, items));
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

    fn check(schema: &Value, mut value: Value, expect: Value) {
        let schema = compile(schema).unwrap();
        prune_nulls(&mut value, &schema);
        default(&mut value, &schema);
        assert_eq!(value, expect);
    }

    #[test]
    fn defaults_go_where_a_field_is_missing() {
        let inner = json!({"type": "object", "properties": {"a": {"type": "string", "default": "A"}, "b": {"type": "integer"}}});
        let mut defaulted = inner.clone();
        defaulted["default"] = json!({"b": 1});
        let schema = json!({"type": "object", "properties": {
            "set": defaulted,
            "unset": inner,
            "list": {"type": "array", "items": inner},
            "map": {"type": "object", "additionalProperties": inner},
        }});
        check(&schema, json!({}), json!({"set": {"a": "A", "b": 1}}));
        check(
            &schema,
            json!({"set": {}, "unset": {"b": 2}, "list": [{}, {"a": "x"}], "map": {"k": {}}}),
            json!({"set": {"a": "A"}, "unset": {"a": "A", "b": 2}, "list": [{"a": "A"}, {"a": "x"}],
                "map": {"k": {"a": "A"}}}),
        );
    }

    #[test]
    fn nulls_are_kept_removed_or_filled_in() {
        let text = |more: Value| {
            let mut schema = json!({"type": "string"});
            schema.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            schema
        };
        let schema = json!({"type": "object", "properties": {
            "plain": text(json!({})),
            "nullable": text(json!({"nullable": true})),
            "nullable-default": text(json!({"nullable": true, "default": "x"})),
            "default": text(json!({"default": "x"})),
            "map": {"type": "object", "additionalProperties": text(json!({}))},
            "defaults": {"type": "object", "additionalProperties": text(json!({"default": "y"}))},
            "list": {"type": "array", "items": text(json!({}))},
            "any": {"type": "object", "additionalProperties": true},
        }});
        check(
            &schema,
            json!({"plain": null, "nullable": null, "nullable-default": null, "default": null, "map": {"a": null},
                "defaults": {"a": null}, "list": [null], "any": {"a": null}, "unknown": null}),
            json!({"nullable": null, "nullable-default": null, "default": "x", "map": {}, "defaults": {"a": "y"},
                "list": [null], "any": {"a": null}, "unknown": null}),
        );
    }
}
