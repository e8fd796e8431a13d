//! Decides: JSON merge patch (RFC 7386) and JSON patch (RFC 6902), with upstream's limits and errors.
//! Strategic merge patch has a file of its own: [`super::strategic`].

use json_patch::{Patch, PatchOperation};
use serde_json::{Map, Value};

use super::status::{Details, Status};

/// Operations in one JSON patch.
pub const MAX_OPERATIONS: usize = 10_000;
/// Bytes that the `copy` operations of one JSON patch may add: without it, a few of them double a document each.
pub const MAX_COPIED_BYTES: usize = 3 << 20;

/// Applies an RFC 7386 merge patch: `null` removes, objects merge, everything else replaces.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(_) => merge(target.entry(key.as_str()).or_insert(Value::Null), value),
            other => {
                target.insert(key.clone(), other.clone());
            }
        }
    }
}

/// Reads a JSON patch body.
///
/// # Errors
/// 400 when it is not a JSON patch, 413 when it has more than [`MAX_OPERATIONS`] operations.
pub fn parse_json(body: &[u8]) -> Result<Patch, Status> {
    let patch: Patch =
        serde_json::from_slice(body).map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
    let count = patch.0.len();
    if count > MAX_OPERATIONS {
        let what = format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}");
        return Err(Status::new(413, "RequestEntityTooLarge", format!("Request entity too large: {what}")));
    }
    Ok(patch)
}

/// Applies a JSON patch to a copy of `original`.
///
/// # Errors
/// 422 when an operation names a path that is not there, or a `test` fails.
pub fn json(original: &Value, patch: &Patch) -> Result<Value, Status> {
    let mut value = original.clone();
    apply(&mut value, patch).map_err(|_| rejected())?;
    Ok(value)
}

/// Applies a JSON patch in place.
///
/// # Errors
/// The place of the operation that does not apply; `value` is then as those before it left it.
pub fn apply(value: &mut Value, patch: &Patch) -> Result<(), usize> {
    let mut copied = 0;
    for (place, operation) in patch.0.iter().enumerate() {
        if let PatchOperation::Copy(copy) = operation {
            let from = value.pointer(copy.from.as_str()).ok_or(place)?;
            copied += from.to_string().len();
            if copied > MAX_COPIED_BYTES {
                return Err(place);
            }
        }
        // Testing a missing path for null succeeds, as in the library that upstream uses.
        if let PatchOperation::Test(test) = operation
            && test.value.is_null()
            && value.pointer(test.path.as_str()).is_none()
        {
            continue;
        }
        json_patch::patch_unsafe(value, std::slice::from_ref(operation)).map_err(|_| place)?;
    }
    Ok(())
}

/// Upstream does not tell the client which operation failed.
pub(super) fn rejected() -> Status {
    Status::new(422, "Invalid", "the server rejected our request due to an error in our request")
        .with_details(Details::default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_patch_follows_the_table_of_rfc_7386() {
        for (mut target, patch, expect) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            merge(&mut target, &patch);
            assert_eq!(target, expect, "{patch}");
        }
    }

    #[test]
    fn json_patch_errors_are_upstreams() {
        let object = json!({"spec": {"replicas": 1, "list": [1, 2]}});
        let check = |patch: Value| parse_json(patch.to_string().as_bytes()).and_then(|p| json(&object, &p));
        let ok = check(json!([{"op": "replace", "path": "/spec/replicas", "value": 3},
            {"op": "add", "path": "/spec/list/-", "value": 3}, {"op": "test", "path": "/spec/none", "value": null}]));
        assert_eq!(ok, Ok(json!({"spec": {"replicas": 3, "list": [1, 2, 3]}})));
        for bad in [
            json!([{"op": "test", "path": "/spec/replicas", "value": 2}]),
            json!([{"op": "remove", "path": "/spec/nope"}]),
            json!([{"op": "replace", "path": "/spec/nope", "value": 1}]),
            json!([{"op": "add", "path": "/nope/x", "value": 1}]),
            json!([{"op": "copy", "from": "/nope", "path": "/x"}]),
        ] {
            let status = check(bad.clone()).unwrap_err();
            assert_eq!((status.code(), status.reason()), (422, "Invalid"), "{bad}");
        }
        assert_eq!(check(json!([{"op": "nope"}])).unwrap_err().code(), 400);
        let many: Vec<Value> = vec![json!({"op": "remove", "path": "/a"}); MAX_OPERATIONS + 1];
        assert_eq!(check(many.into()).unwrap_err().code(), 413);
    }

    #[test]
    fn copies_cannot_blow_a_document_up() {
        let object = json!({"a": {"x": "y".repeat(1024)}});
        let copies: Vec<Value> =
            (0..64).map(|i| json!({"op": "copy", "from": "", "path": format!("/a/{i}")})).collect();
        let patch = parse_json(Value::from(copies).to_string().as_bytes()).unwrap();
        assert_eq!(json(&object, &patch).unwrap_err().code(), 422);
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json!(1)), Just(json!("x")), Just(json!(true)), Just(json!([1, {"k": 2}]))];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|m| m.into_iter().collect())
        })
    }

    proptest! {
        #[test]
        fn a_merge_patch_applied_twice_changes_nothing_more(mut a in document(), p in document()) {
            merge(&mut a, &p);
            let once = a.clone();
            merge(&mut a, &p);
            prop_assert_eq!(a, once);
        }

        #[test]
        fn a_document_without_nulls_merged_into_an_empty_one_is_itself(p in document()) {
            let mut empty = Value::Null;
            merge(&mut empty, &p);
            prop_assert_eq!(empty, p);
        }
    }
}
