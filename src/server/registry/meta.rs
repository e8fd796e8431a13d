//! Decides: reading and writing `metadata` of dynamic objects, and the checks of it that every write shares.

use serde_json::{Map, Value, json};

use super::request::Target;
use crate::api::field::{FieldError, Path};
use crate::api::resource::Resource;
use crate::api::revision::Revision;
use crate::api::status::Status;
use crate::clock;

/// Longest name that `generateName` makes; the base is cut so that the random part fits.
const MAX_GENERATED: usize = 63;
const RANDOM_LENGTH: usize = 5;
/// No vowels and nothing that looks alike (`k8s.io/apimachinery/pkg/util/rand`).
const RANDOM_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The metadata of an object, made when it is missing.
///
/// # Errors
/// 400 when the document or its metadata is not an object.
pub fn metadata(object: &mut Value) -> Result<&mut Map<String, Value>, Status> {
    let object = object.as_object_mut().ok_or_else(|| Status::bad_request("the body of the request is no object"))?;
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    metadata.as_object_mut().ok_or_else(|| Status::bad_request("metadata is no object"))
}

/// A text field of the metadata, empty when absent.
#[must_use]
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

#[must_use]
pub fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"]
        .as_array()
        .map(|f| f.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

/// Something must happen before the object may go: finalizers, of a Namespace those of its spec too.
#[must_use]
pub fn held(resource: &Resource, object: &Value) -> bool {
    let filled = |v: &Value| v.as_array().is_some_and(|f| !f.is_empty());
    filled(&object["metadata"]["finalizers"])
        || (resource.storage == "namespaces" && filled(&object["spec"]["finalizers"]))
}

/// Puts the namespace of the request into the object; takes it out of a cluster-scoped one.
///
/// # Errors
/// 400 when the object names another one.
pub fn enter_namespace(target: &Target, object: &mut Value) -> Result<(), Status> {
    let metadata = metadata(object)?;
    if !target.resource.namespaced {
        metadata.remove("namespace");
        return Ok(());
    }
    let given = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if !given.is_empty() && given != target.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    metadata.insert("namespace".into(), target.namespace.as_str().into());
    Ok(())
}

/// What the server alone sets on a new object.
///
/// # Errors
/// See [`metadata`].
pub fn begin(object: &mut Value) -> Result<(), Status> {
    let now = now();
    let metadata = metadata(object)?;
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), now);
    Ok(())
}

/// What an update cannot change, taken from the object it replaces (`rest.BeforeUpdate`).
///
/// # Errors
/// See [`metadata`].
pub fn carry_over(object: &mut Value, old: &Value) -> Result<(), Status> {
    let before = &old["metadata"];
    let metadata = metadata(object)?;
    metadata.remove("selfLink");
    for field in ["creationTimestamp", "generation", "resourceVersion"] {
        set_or_remove(metadata, field, &before[field]);
    }
    if metadata.get("uid").and_then(Value::as_str).unwrap_or_default().is_empty() {
        set_or_remove(metadata, "uid", &before["uid"]);
    }
    if before["deletionTimestamp"].is_string() {
        set_or_remove(metadata, "deletionTimestamp", &before["deletionTimestamp"]);
    }
    if before["deletionGracePeriodSeconds"].is_i64() && !metadata.contains_key("deletionGracePeriodSeconds") {
        set_or_remove(metadata, "deletionGracePeriodSeconds", &before["deletionGracePeriodSeconds"]);
    }
    Ok(())
}

fn set_or_remove(metadata: &mut Map<String, Value>, field: &str, value: &Value) {
    if value.is_null() {
        metadata.remove(field);
    } else {
        metadata.insert(field.into(), value.clone());
    }
}

/// A PUT must name what its URL names.
///
/// # Errors
/// 400 with upstream's words.
pub fn check_name(target: &Target, object: &Value) -> Result<(), Status> {
    let name = text(object, "name");
    if name != target.name {
        let url = &target.name;
        let message = if name.is_empty() {
            format!("the name of the object ({url} based on URL) was undeterminable: name must be provided")
        } else {
            format!("the name of the object ({name}) does not match the name on the URL ({url})")
        };
        return Err(Status::bad_request(message));
    }
    let namespace = text(object, "namespace");
    if !namespace.is_empty() && namespace != target.namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            target.namespace
        )));
    }
    Ok(())
}

/// Compares the `resourceVersion` and `uid` that an update came with to what is there.
///
/// # Errors
/// 409 when they differ, 422 when the kind must not be updated without a `resourceVersion`.
pub fn check_preconditions(
    target: &Target,
    object: &Value,
    old: &Value,
    at: Revision,
    unconditional: bool,
) -> Result<(), Status> {
    let (resource, name) = (target.resource, target.name.as_str());
    let given = text(object, "resourceVersion");
    if given.is_empty() || given == "0" {
        if !unconditional {
            let path = Path::new("metadata").child("resourceVersion");
            // Upstream prints the number it parsed, in Go's notation.
            let mut error = FieldError::invalid(&path, &"", "must be specified for an update");
            error.message = "Invalid value: 0x0: must be specified for an update".into();
            return Err(Status::invalid(resource, name, &[error]));
        }
    } else {
        let given = Revision::parse(given)
            .map_err(|_| Status::bad_request(format!("invalid resourceVersion {given:?}: not a number")))?;
        if given != at {
            return Err(Status::modified(resource, name));
        }
    }
    check_uid(target, text(object, "uid"), old)
}

/// # Errors
/// 409 when a uid was given and is not that of the object.
pub fn check_uid(target: &Target, given: &str, old: &Value) -> Result<(), Status> {
    let uid = text(old, "uid");
    if given.is_empty() || given == uid {
        return Ok(());
    }
    let slash = if target.namespace.is_empty() { "" } else { "/" };
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{}/{}{slash}{}, ResourceVersion: 0, \
         AdditionalErrorMsg: Precondition failed: UID in precondition: {given}, UID in object meta: {uid}",
        target.resource.plural, target.namespace, target.name
    );
    Err(Status::conflict(target.resource, &target.name, &why))
}

/// A name that begins with `base` and very likely is not taken.
#[must_use]
pub fn generate_name(base: &str) -> String {
    let mut cut = base.len().min(MAX_GENERATED - RANDOM_LENGTH);
    while !base.is_char_boundary(cut) {
        cut -= 1;
    }
    // The bytes of a random UUID but for its fixed bits, which are in bytes 6 and 8.
    let random = uuid::Uuid::new_v4().into_bytes();
    let letters = random[9..9 + RANDOM_LENGTH].iter().map(|b| usize::from(*b) % RANDOM_LETTERS.len());
    base[..cut].chars().chain(letters.map(|i| char::from(RANDOM_LETTERS[i]))).collect()
}

/// Now, as the API writes it.
#[must_use]
pub fn now() -> Value {
    serde_json::to_value(clock::time()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_and_differ() {
        let name = generate_name("web-");
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_ne!(name, generate_name("web-"));
        assert_eq!(generate_name(&"x".repeat(80)).len(), 63);
        assert!(generate_name(&"é".repeat(40)).len() <= 63);
    }
}
