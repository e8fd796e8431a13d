//! Decides: how a container sees a volume: which part of it, and whether all below is read-only.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::api::core::v1::VolumeMount;

use crate::agent::pod::env::expand;
use crate::cri::v1;

/// The part of the volume that is mounted; empty for all of it. `scope` is the container's environment.
///
/// # Errors
/// `subPathExpr` names a variable that the container does not have, or one that is empty.
pub fn sub_path(mount: &VolumeMount, scope: &HashMap<String, String>) -> Result<String, String> {
    let Some(text) = mount.sub_path_expr.as_deref().filter(|text| !text.is_empty()) else {
        return Ok(mount.sub_path.clone().unwrap_or_default());
    };
    let missing: BTreeSet<&str> =
        named(text).into_iter().filter(|name| scope.get(*name).is_none_or(String::is_empty)).collect();
    if !missing.is_empty() {
        let missing: Vec<&str> = missing.into_iter().collect();
        return Err(format!("missing value for {}", missing.join(", ")));
    }
    Ok(expand(text, scope))
}

/// Variables that a text names as `$(NAME)`; `$$` is a dollar.
fn named(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('$') {
        rest = match after.strip_prefix('$') {
            Some(after) => after,
            None => match after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
                Some((name, after)) => {
                    names.push(name);
                    after
                }
                None => after,
            },
        };
    }
    names
}

/// Whether mounts below the volume are read-only too. `supported`: the runtime can do that.
///
/// # Errors
/// It cannot, or the mount is not one that could be so.
pub fn recursive_read_only(mount: &VolumeMount, supported: bool) -> Result<bool, String> {
    let asked = mount.recursive_read_only.as_deref().unwrap_or("Disabled");
    let fail =
        |what: String| Err(format!("volume {:?} requested recursive read-only mode, but it is {what}", mount.name));
    if asked == "Disabled" {
        return Ok(false);
    }
    if mount.read_only != Some(true) {
        return fail("not read-only".into());
    }
    if let Some(other) = mount.mount_propagation.as_deref().filter(|other| *other != "None") {
        return fail(format!("not compatible with propagation {other:?}"));
    }
    match (asked, supported) {
        ("IfPossible", supported) => Ok(supported),
        ("Enabled", true) => Ok(true),
        ("Enabled", false) => fail("not supported by the runtime".into()),
        (other, _) => Err(format!("unknown recursive read-only mode {other:?}")),
    }
}

/// The mount of an image.
///
/// # Errors
/// Only a part of it is asked for, which the messages of the runtime have no word for.
pub fn image(container_path: String, image: &str, sub_path: &str) -> Result<v1::Mount, String> {
    if !sub_path.is_empty() {
        return Err(format!("subPath {sub_path:?} of an image volume is not supported: mount the whole image"));
    }
    let image = Some(v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() });
    Ok(v1::Mount { container_path, image, readonly: true, ..v1::Mount::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn mount(fields: Value) -> VolumeMount {
        let mut mount = json!({"name": "v", "mountPath": "/v"});
        mount.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(mount).unwrap()
    }

    #[test]
    fn sub_paths_are_expanded_or_refused() {
        let scope = [("POD", "p"), ("EMPTY", "")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let expression = |text: &str| sub_path(&mount(json!({"subPathExpr": text})), &scope);
        assert_eq!(expression("$(POD)/logs"), Ok("p/logs".into()));
        assert_eq!(expression("$$(NONE)"), Ok("$(NONE)".into()));
        assert_eq!(expression("$(Z)/$(EMPTY)/$(POD)"), Err("missing value for EMPTY, Z".into()));
        assert_eq!(sub_path(&mount(json!({"subPath": "$(NONE)"})), &scope), Ok("$(NONE)".into()));
        assert_eq!(sub_path(&mount(json!({})), &scope), Ok(String::new()));
    }

    #[test]
    fn recursion_is_for_mounts_that_are_read_only_all_over() {
        let prefix = "volume \"v\" requested recursive read-only mode, but it is";
        for (fields, able, unable) in [
            (json!({}), Ok(false), Ok(false)),
            (json!({"recursiveReadOnly": "Disabled"}), Ok(false), Ok(false)),
            (json!({"recursiveReadOnly": "IfPossible", "readOnly": true}), Ok(true), Ok(false)),
            (
                json!({"recursiveReadOnly": "Enabled", "readOnly": true, "mountPropagation": "None"}),
                Ok(true),
                Err(format!("{prefix} not supported by the runtime")),
            ),
            (
                json!({"recursiveReadOnly": "IfPossible"}),
                Err(format!("{prefix} not read-only")),
                Err(format!("{prefix} not read-only")),
            ),
            (
                json!({"recursiveReadOnly": "Enabled", "readOnly": true, "mountPropagation": "HostToContainer"}),
                Err(format!("{prefix} not compatible with propagation \"HostToContainer\"")),
                Err(format!("{prefix} not compatible with propagation \"HostToContainer\"")),
            ),
        ] {
            let mount = mount(fields);
            assert_eq!(
                (recursive_read_only(&mount, true), recursive_read_only(&mount, false)),
                (able, unable),
                "{mount:?}"
            );
        }
    }
}
