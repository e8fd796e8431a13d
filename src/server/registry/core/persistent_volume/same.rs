//! Decides: when two documents say the same (`apiequality.Semantic`): Go neither writes nor tells apart an empty list
//! and one that is missing, so its clients drop what others wrote out.

use serde_json::Value;

pub use crate::api::apply::compare::is_empty;

const NOT_OF_THE_SOURCE: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// What a spec says of where the data is.
#[must_use]
pub fn source(mut spec: Value) -> Value {
    if let Some(spec) = spec.as_object_mut() {
        NOT_OF_THE_SOURCE.iter().for_each(|field| drop(spec.remove(*field)));
    }
    spec
}

/// Also numbers, texts and flags that are what they are when nothing is said: where fields cannot be null.
#[must_use]
pub fn is_zero(value: &Value) -> bool {
    is_empty(value) || *value == 0 || *value == false || *value == ""
}

/// Equal, when fields that are `nothing` count as missing.
#[must_use]
pub fn alike(a: &Value, b: &Value, nothing: fn(&Value) -> bool) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let covers = |a: &serde_json::Map<String, Value>, b: &serde_json::Map<String, Value>| {
                a.iter().all(|(key, value)| match b.get(key) {
                    Some(other) => alike(value, other, nothing),
                    None => nothing(value),
                })
            };
            covers(a, b) && b.iter().all(|(key, value)| a.contains_key(key) || nothing(value))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b, nothing)),
        _ => a == b || nothing(a) && nothing(b),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn missing_is_empty() {
        let check = |a: Value, b: Value, empty: bool, zero: bool| {
            assert_eq!((alike(&a, &b, is_empty), alike(&a, &b, is_zero)), (empty, zero), "{a} {b}");
            assert_eq!((alike(&b, &a, is_empty), alike(&b, &a, is_zero)), (empty, zero), "{b} {a}");
        };
        check(json!({"a": []}), json!({}), true, true);
        check(json!({"a": {"b": [{}]}}), json!({"a": {"b": [{"c": {}}]}}), true, true);
        check(json!({"a": ""}), json!({}), false, true);
        check(json!({"a": {"readOnly": false}}), json!({"a": {}}), false, true);
        check(json!({"a": 1}), json!({}), false, false);
        check(json!({"a": [1]}), json!({"a": [1, 2]}), false, false);
    }

    #[test]
    fn sources() {
        let spec = json!({"capacity": {"storage": "1Gi"}, "nfs": {"path": "/"}, "volumeMode": "Block"});
        assert_eq!(source(spec), json!({"nfs": {"path": "/"}}));
    }
}
