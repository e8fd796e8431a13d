//! Decides: what the patch of a webhook makes of an object, and, when it does not apply, what upstream's library says
//! (`evanphx/json-patch`): whoever wrote the webhook will look for these words.

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use crate::api::patch;

/// # Errors
/// Why it does not apply.
pub fn apply(object: &mut Value, patch: &Patch) -> Result<(), String> {
    patch::apply(object, patch).map_err(|place| words(object, &patch.0[place]))
}

fn words(object: &Value, operation: &PatchOperation) -> String {
    let (what, path) = match operation {
        PatchOperation::Add(o) => ("add", o.path.as_str()),
        PatchOperation::Remove(o) => ("remove", o.path.as_str()),
        PatchOperation::Replace(o) => ("replace", o.path.as_str()),
        PatchOperation::Move(o) => ("move", o.from.as_str()),
        PatchOperation::Copy(o) => ("copy", o.from.as_str()),
        PatchOperation::Test(o) => return format!("testing value {} failed: test failed", o.path.as_str()),
    };
    let (parent, key) = path.rsplit_once('/').unwrap_or(("", path));
    let Some(parent) = object.pointer(parent).filter(|p| p.is_object() || p.is_array()) else {
        let quoted = if what == "replace" { path.to_owned() } else { format!("\"{path}\"") };
        return format!("{what} operation does not apply: doc is missing path: {quoted}: missing value");
    };
    match (what, parent) {
        ("replace", _) => format!("replace operation does not apply: doc is missing key: {path}: missing value"),
        (_, Value::Array(_)) => {
            format!(
                "error in {what} for path: '{path}': Unable to access invalid index: {key}: invalid index referenced"
            )
        }
        ("remove", _) => {
            format!("error in remove for path: '{path}': Unable to remove nonexistent key: {key}: missing value")
        }
        _ => format!("error in {what} for path: '{path}': missing value"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(patch: Value, expect: Result<Value, &str>) {
        let mut object = json!({"spec": {"list": [1]}});
        let got = apply(&mut object, &serde_json::from_value(patch.clone()).unwrap()).map(|()| object);
        assert_eq!(got, expect.map_err(str::to_owned), "{patch}");
    }

    #[test]
    fn what_does_not_apply_is_said_as_upstreams_library_says_it() {
        check(json!([{"op": "add", "path": "/spec/a", "value": 1}]), Ok(json!({"spec": {"list": [1], "a": 1}})));
        for (operation, expect) in [
            (
                json!({"op": "add", "path": "/a/b", "value": 1}),
                "add operation does not apply: doc is missing path: \"/a/b\": missing value",
            ),
            (
                json!({"op": "replace", "path": "/spec/b", "value": 1}),
                "replace operation does not apply: doc is missing key: /spec/b: missing value",
            ),
            (
                json!({"op": "replace", "path": "/a/b", "value": 1}),
                "replace operation does not apply: doc is missing path: /a/b: missing value",
            ),
            (
                json!({"op": "remove", "path": "/spec/b"}),
                "error in remove for path: '/spec/b': Unable to remove nonexistent key: b: missing value",
            ),
            (
                json!({"op": "add", "path": "/spec/list/7", "value": 1}),
                "error in add for path: '/spec/list/7': Unable to access invalid index: 7: invalid index referenced",
            ),
            (json!({"op": "test", "path": "/spec", "value": 1}), "testing value /spec failed: test failed"),
        ] {
            check(json!([operation]), Err(expect));
        }
    }
}
