//! Decides: objects inside of objects (`x-kubernetes-embedded-resource`): their `apiVersion`, `kind` and `metadata` are
//! those of any object (`apiextensions-apiserver/pkg/apiserver/schema/objectmeta`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

use super::prune::inside;
use super::shown::{Shown, Text};
use super::structural::Structural;
use crate::api::decode;
use crate::api::field::{FieldError, Path};
use crate::api::resource::{self, Resource};
use crate::api::trail::Trail;
use crate::server::registry::format;
use crate::server::registry::metadata;
use crate::server::registry::strategy::NameRule;

/// Brings the metadata of embedded objects into its form, and returns the paths of its fields that metadata does not
/// have, sorted: `spec.template.metadata.foo`. With `root` the object itself is one of them.
///
/// # Errors
/// The first field of a wrong type.
pub fn coerce(value: &mut Value, schema: &Structural, root: bool) -> Result<Vec<String>, FieldError> {
    coerce_below(None, value, schema, root)
}

/// As [`coerce`], for a value that stands at `base`.
pub(super) fn coerce_below(
    base: Option<&Path>,
    value: &mut Value,
    schema: &Structural,
    root: bool,
) -> Result<Vec<String>, FieldError> {
    let mut unknown = Vec::new();
    Coercion { base, unknown: &mut unknown }.one(value, schema, root || schema.embedded, &Trail::ROOT)?;
    unknown.sort_unstable();
    Ok(unknown)
}

struct Coercion<'a> {
    base: Option<&'a Path>,
    unknown: &'a mut Vec<String>,
}

impl Coercion<'_> {
    fn one(&mut self, value: &mut Value, schema: &Structural, embedded: bool, at: &Trail) -> Result<(), FieldError> {
        match value {
            Value::Object(map) => {
                for (key, value) in map.iter_mut() {
                    if embedded {
                        self.meta(key, value, at)?;
                    }
                    if let Some((schema, step)) = inside(schema, key) {
                        self.one(value, schema, schema.embedded, &at.then(step))?;
                    }
                }
            }
            Value::Array(list) => {
                if let Some(items) = &schema.items {
                    for (i, item) in list.iter_mut().enumerate() {
                        self.one(item, items, items.embedded, &at.index(i))?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn meta(&mut self, key: &str, value: &mut Value, at: &Trail) -> Result<(), FieldError> {
        let path = |key: &str| at.field(key).below(self.base);
        match key {
            "apiVersion" | "kind" if !value.is_string() => {
                Err(FieldError::invalid(&path(key), &Shown(value), "must be a string"))
            }
            "metadata" => {
                let (meta, unknown) = decode::metadata(value.clone())
                    .map_err(|why| FieldError::invalid(&path(key), &Shown(value), &why))?;
                let path = if unknown.is_empty() { Path::default() } else { path(key) };
                self.unknown.extend(unknown.iter().map(|field| format!("{path}.{field}")));
                *value = meta;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// What is wrong with the embedded objects of an object.
#[must_use]
pub fn check(value: &Value, schema: &Structural) -> Vec<FieldError> {
    check_below(None, value, schema, false)
}

/// As [`check`], for a value that stands at `base`. With `root` it is itself one of them.
pub(super) fn check_below(base: Option<&Path>, value: &Value, schema: &Structural, root: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    one(value, schema, root || schema.embedded, &Trail::ROOT, base, &mut errors);
    errors
}

fn one(
    value: &Value,
    schema: &Structural,
    embedded: bool,
    at: &Trail,
    base: Option<&Path>,
    errors: &mut Vec<FieldError>,
) {
    match value {
        Value::Object(map) => {
            if embedded {
                resource(map, at, base, errors);
            }
            for (key, value) in map {
                if let Some((schema, step)) = inside(schema, key) {
                    one(value, schema, schema.embedded, &at.then(step), base, errors);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for (i, item) in list.iter().enumerate() {
                    one(item, items, items.embedded, &at.index(i), base, errors);
                }
            }
        }
        _ => {}
    }
}

fn resource(map: &Map<String, Value>, at: &Trail, base: Option<&Path>, errors: &mut Vec<FieldError>) {
    let path = |key: &str| at.field(key).below(base);
    for key in ["apiVersion", "kind"] {
        if !map.contains_key(key) {
            errors.push(FieldError::required(&path(key), ""));
        }
    }
    for key in ["apiVersion", "kind"] {
        let Some(value) = map.get(key) else { continue };
        let Some(text) = value.as_str() else {
            errors.push(FieldError::invalid(&path(key), &Shown(value), "must be a string"));
            continue;
        };
        let wrong = match (key, text) {
            (_, "") => Some("must not be empty".to_owned()),
            ("apiVersion", _) if text.matches('/').count() > 1 => {
                Some(format!("unexpected GroupVersion string: {text}"))
            }
            ("kind", _) => {
                let problems = format::dns_1035_label(&text.to_lowercase());
                let shown = || format!("may have mixed case, but should otherwise match: {}", problems.join(","));
                (!problems.is_empty()).then(shown)
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            errors.push(FieldError::invalid(&path(key), &Text(text), &wrong));
        }
    }
    if let Some(meta) = map.get("metadata") {
        object_meta(meta, at, base, errors);
    }
}

fn object_meta(value: &Value, at: &Trail, base: Option<&Path>, errors: &mut Vec<FieldError>) {
    let path = at.field("metadata").below(base);
    let typed = decode::metadata(value.clone())
        .and_then(|(meta, _)| serde_json::from_value::<ObjectMeta>(meta).map_err(|e| e.to_string()));
    match typed {
        Err(why) => errors.push(FieldError::invalid(&path, &Shown(value), &why)),
        Ok(mut meta) => {
            // Nobody needs a name here, but what checks metadata does.
            meta.name.get_or_insert_with(|| "fakename".into());
            let namespaced = meta.namespace.as_deref().is_some_and(|n| !n.is_empty());
            let Some(like) = like(namespaced) else { return };
            let found = metadata::validate(like, NameRule::PathSegment, &meta);
            errors.extend(found.into_iter().map(|error| FieldError { path: inner(&path, &error.path), ..error }));
        }
    }
}

/// A kind that is like the embedded one in what its metadata depends on: whether it is in a namespace, and that it is not
/// of the core group.
fn like(namespaced: bool) -> Option<&'static Resource> {
    if namespaced {
        resource::find_kind("apps/v1", "Deployment")
    } else {
        resource::find_kind("storage.k8s.io/v1", "StorageClass")
    }
}

/// `metadata.name` below the metadata at `path`.
fn inner(path: &Path, error: &Path) -> Path {
    let text = error.to_string();
    match text.strip_prefix("metadata").unwrap_or(&text).strip_prefix('.') {
        Some(rest) => path.child(rest),
        None => path.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::server::crd::compile::compile;

    fn schema() -> Structural {
        let embedded = json!({"type": "object", "x-kubernetes-embedded-resource": true,
            "x-kubernetes-preserve-unknown-fields": true});
        compile(&json!({"type": "object", "properties": {
            "e": embedded, "l": {"type": "array", "items": embedded},
            "m": {"type": "object", "additionalProperties": embedded},
        }}))
        .unwrap()
    }

    fn check_coerced(mut value: Value, expect: Result<(Value, &[&str]), &str>) {
        let found = coerce(&mut value, &schema(), false).map_err(|e| e.to_string());
        match expect {
            Ok((expect, unknown)) => {
                assert_eq!(found, Ok(unknown.iter().map(|s| (*s).to_owned()).collect()));
                assert_eq!(value, expect);
            }
            Err(expect) => assert_eq!(found, Err(expect.to_owned())),
        }
    }

    #[test]
    fn metadata_comes_into_its_form() {
        check_coerced(
            json!({"metadata": {"x": 1}, "e": {"metadata": {"name": "a", "x": 1, "labels": {}, "creationTimestamp": null}},
                "l": [{"metadata": null}], "m": {"k": {"metadata": {"y": 1, "ownerReferences": [{"z": 1}]}}}}),
            Ok((
                json!({"metadata": {"x": 1}, "e": {"metadata": {"name": "a"}}, "l": [{"metadata": {}}],
                    "m": {"k": {"metadata": {"ownerReferences": [{}]}}}}),
                &["e.metadata.x", "m[k].metadata.ownerReferences[0].z", "m[k].metadata.y"],
            )),
        );
        check_coerced(json!({"e": {"kind": 1}}), Err("e.kind: Invalid value: 1: must be a string"));
        check_coerced(
            json!({"l": [{"metadata": {"name": 1}}]}),
            Err("l[0].metadata: Invalid value: {\"name\":1}: json: cannot unmarshal number into Go struct field \
                 ObjectMeta.name of type string"),
        );
        check_coerced(
            json!({"e": {"metadata": "x"}}),
            Err("e.metadata: Invalid value: \"x\": json: cannot unmarshal string into Go value of type v1.ObjectMeta"),
        );
    }

    fn check_found(value: Value, expect: &[&str]) {
        let found: Vec<String> = check(&value, &schema()).iter().map(ToString::to_string).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn embedded_objects_are_objects() {
        check_found(
            json!({"e": {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "labels": {"a": "b"}}}}),
            &[],
        );
        check_found(json!({"e": {}}), &["e.apiVersion: Required value", "e.kind: Required value"]);
        check_found(
            json!({"l": [{"apiVersion": "a/b/c", "kind": "", "metadata": {"name": "a/b"}}]}),
            &[
                "l[0].apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                "l[0].kind: Invalid value: \"\": must not be empty",
                "l[0].metadata.name: Invalid value: \"a/b\": may not contain '/'",
            ],
        );
        check_found(
            json!({"m": {"k": {"apiVersion": "v1", "kind": "A_b", "metadata": {"finalizers": ["x"]}}}}),
            &[
                "m[k].kind: Invalid value: \"A_b\": may have mixed case, but should otherwise match: a DNS-1035 label must \
               consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an \
               alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is \
               '[a-z]([-a-z0-9]*[a-z0-9])?')",
            ],
        );
    }
}
