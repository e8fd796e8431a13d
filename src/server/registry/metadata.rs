//! Decides: what is wrong with `metadata`, for every kind (`k8s.io/apimachinery/pkg/api/validation/objectmeta.go`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use serde::Serialize;
use serde_json::{Value, json};

use super::format::{self, Problems};
use super::strategy::NameRule;
use crate::api::field::{BadValue, FieldError, Path};
use crate::api::object::MAX_ANNOTATIONS;
use crate::api::resource::Resource;

pub type Errors = Vec<FieldError>;

pub const IMMUTABLE: &str = "field is immutable";
pub const NEGATIVE: &str = "must be greater than or equal to 0";

/// One error per problem.
pub fn invalid(errors: &mut Errors, path: &Path, value: &dyn BadValue, problems: Problems) {
    errors.extend(problems.into_iter().map(|p| FieldError::invalid(path, value, &p)));
}

/// Any value as an error message shows it.
#[must_use]
pub fn shown(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// What a field holds, or nothing of it. Borrowed: a spec is large, and is there.
#[must_use]
pub fn or_default<T: Clone + Default>(field: Option<&T>) -> Cow<'_, T> {
    field.map_or_else(Cow::default, Cow::Borrowed)
}

pub fn immutable<T: PartialEq + Serialize>(errors: &mut Errors, path: &Path, new: &T, old: &T) {
    if new != old {
        errors.push(FieldError::invalid(path, &shown(new), IMMUTABLE));
    }
}

pub fn not_negative(errors: &mut Errors, path: &Path, value: i64) {
    if value < 0 {
        errors.push(FieldError::invalid(path, &value, NEGATIVE));
    }
}

/// A new object. Its name was generated already.
#[must_use]
pub fn validate(resource: &Resource, rule: NameRule, meta: &ObjectMeta) -> Errors {
    let mut errors = Vec::new();
    let root = Path::new("metadata");
    if let Some(base) = meta.generate_name.as_deref().filter(|n| !n.is_empty()) {
        invalid(&mut errors, &root.child("generateName"), &base, format::name(rule, base, true));
    }
    match meta.name.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required(&root.child("name"), "name or generateName is required")),
        name => invalid(&mut errors, &root.child("name"), &name, format::name(rule, name, false)),
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let path = root.child("namespace");
    match (resource.namespaced, namespace) {
        (true, "") => errors.push(FieldError::required(&path, "")),
        (true, namespace) => invalid(&mut errors, &path, &namespace, format::dns_label(namespace)),
        (false, "") => {}
        (false, _) => errors.push(FieldError::forbidden(&path, "not allowed on this type")),
    }
    if let Some(generation) = meta.generation {
        not_negative(&mut errors, &root.child("generation"), generation);
    }
    common(&mut errors, resource, meta);
    errors
}

/// An object and what it replaces.
#[must_use]
pub fn validate_update(resource: &Resource, new: &ObjectMeta, old: &ObjectMeta) -> Errors {
    let mut errors = Vec::new();
    let root = Path::new("metadata");
    if old.deletion_timestamp.is_some() {
        let before = old.finalizers.as_deref().unwrap_or_default();
        let mut added: Vec<&String> = new.finalizers.iter().flatten().filter(|f| !before.contains(f)).collect();
        added.sort_unstable();
        added.dedup();
        if !added.is_empty() {
            let list: Vec<String> = added.iter().map(|f| format!("{f:?}")).collect();
            let message = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                list.join(", ")
            );
            errors.push(FieldError::forbidden(&root.child("finalizers"), &message));
        }
    }
    let (after, before) = (new.generation.unwrap_or_default(), old.generation.unwrap_or_default());
    if after < before {
        errors.push(FieldError::invalid(&root.child("generation"), &after, "must not be decremented"));
    }
    immutable(&mut errors, &root.child("name"), &new.name, &old.name);
    immutable(&mut errors, &root.child("namespace"), &new.namespace, &old.namespace);
    immutable(&mut errors, &root.child("uid"), &new.uid, &old.uid);
    immutable(&mut errors, &root.child("creationTimestamp"), &new.creation_timestamp, &old.creation_timestamp);
    immutable(&mut errors, &root.child("deletionTimestamp"), &new.deletion_timestamp, &old.deletion_timestamp);
    immutable(
        &mut errors,
        &root.child("deletionGracePeriodSeconds"),
        &new.deletion_grace_period_seconds,
        &old.deletion_grace_period_seconds,
    );
    common(&mut errors, resource, new);
    errors
}

fn common(errors: &mut Errors, resource: &Resource, meta: &ObjectMeta) {
    let root = Path::new("metadata");
    labels(errors, &root.child("labels"), meta.labels.as_ref());
    annotations(errors, &root.child("annotations"), meta.annotations.as_ref());
    owners(errors, &root.child("ownerReferences"), meta.owner_references.as_deref().unwrap_or_default());
    let finalizers = meta.finalizers.as_deref().unwrap_or_default();
    for (i, name) in finalizers.iter().enumerate() {
        let path = root.child("finalizers");
        invalid(errors, &path, name, format::qualified_name(name));
        // The kinds of the core group and their relatives know no short names but the standard ones.
        if resource.group.is_empty() {
            standard_finalizer(errors, &path.index(i), name);
        }
    }
    let both = ["orphan", "foregroundDeletion"].iter().all(|f| finalizers.iter().any(|g| g == f));
    if both {
        let message = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(&root.child("finalizers"), &json!(finalizers), message));
    }
}

/// A finalizer without a domain must be one of Kubernetes' own.
pub fn standard_finalizer(errors: &mut Errors, path: &Path, name: &str) {
    if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
        let message = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(path, &name, message));
    }
}

pub fn labels(errors: &mut Errors, path: &Path, labels: Option<&BTreeMap<String, String>>) {
    for (key, value) in labels.into_iter().flatten() {
        invalid(errors, path, key, format::qualified_name(key));
        invalid(errors, path, value, format::label_value(value));
    }
}

/// `acme.io/foo`: a domain and a path (`IsDomainPrefixedPath`).
pub fn domain_prefixed_path(errors: &mut Errors, path: &Path, text: &str) {
    // The characters of a path in a URL (RFC 3986).
    const HTTP_PATH: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
    let Some((host, rest)) = text.split_once('/').filter(|(host, rest)| !host.is_empty() && !rest.is_empty()) else {
        let message = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.push(FieldError::invalid(path, &text, message));
        return;
    };
    invalid(errors, path, &host, format::dns_subdomain(host));
    if !rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
        let message = format!("Invalid path (regex used for validation is '{HTTP_PATH}')");
        errors.push(FieldError::invalid(path, &rest, &message));
    }
}

pub fn annotations(errors: &mut Errors, path: &Path, annotations: Option<&BTreeMap<String, String>>) {
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        // The rule is about lower case; the case of an annotation's key does not matter.
        invalid(errors, path, key, format::qualified_name(&key.to_lowercase()));
        size += key.len() + value.len();
    }
    if size > MAX_ANNOTATIONS {
        errors.push(FieldError::too_long(path, MAX_ANNOTATIONS));
    }
}

fn owners(errors: &mut Errors, path: &Path, owners: &[OwnerReference]) {
    let mut controller: Option<String> = None;
    for (i, owner) in owners.iter().enumerate() {
        let at = path.index(i);
        let version = owner.api_version.rsplit('/').next().unwrap_or_default();
        if version.is_empty() || owner.api_version.matches('/').count() > 1 {
            errors.push(FieldError::invalid(&at.child("apiVersion"), &owner.api_version, "version must not be empty"));
        }
        for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                errors.push(FieldError::invalid(&at.child(field), value, &format!("{field} must not be empty")));
            }
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            let message = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(&at, &shown(owner), message));
        }
        if owner.controller == Some(true) {
            let this = format!("{}/{}", owner.kind, owner.name);
            if let Some(first) = &controller {
                let message = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and \
                     {this}"
                );
                errors.push(FieldError::invalid(path, &shown(&owners), &message));
            } else {
                controller = Some(this);
            }
        }
    }
}

/// The keys and operators of a label selector.
pub fn selector(errors: &mut Errors, path: &Path, selector: Option<&LabelSelector>) {
    let Some(selector) = selector else { return };
    labels(errors, &path.child("matchLabels"), selector.match_labels.as_ref());
    for (i, term) in selector.match_expressions.iter().flatten().enumerate() {
        let at = path.child("matchExpressions").index(i);
        let values = term.values.as_deref().unwrap_or_default();
        match term.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                let message = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(&at.child("values"), message));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&at.child("values"), message));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(&at.child("operator"), &other, "not a valid selector operator")),
        }
        invalid(errors, &at.child("key"), &term.key, format::qualified_name(&term.key));
        for (j, value) in values.iter().enumerate() {
            invalid(errors, &at.child("values").index(j), value, format::label_value(value));
        }
    }
}

#[must_use]
pub fn selects_everything(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// Whether a (valid) selector selects these labels.
#[must_use]
pub fn matches(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let get = |key: &String| labels.and_then(|l| l.get(key));
    selector.match_labels.iter().flatten().all(|(k, v)| get(k) == Some(v))
        && selector.match_expressions.iter().flatten().all(|term| {
            let values = term.values.as_deref().unwrap_or_default();
            let found = get(&term.key);
            match term.operator.as_str() {
                "In" => found.is_some_and(|v| values.contains(v)),
                "NotIn" => found.is_none_or(|v| !values.contains(v)),
                "Exists" => found.is_some(),
                _ => found.is_none(),
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resource;

    fn check(kind: &str, meta: Value, expect: &[&str]) {
        let resource = resource::find_kind("v1", kind).unwrap();
        let meta: ObjectMeta = serde_json::from_value(meta).unwrap();
        let errors = validate(resource, NameRule::DnsSubdomain, &meta);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn new_objects() {
        check("ConfigMap", json!({"name": "a", "namespace": "b", "labels": {"x/y": "z"}}), &[]);
        check(
            "ConfigMap",
            json!({}),
            &["metadata.name: Required value: name or generateName is required", "metadata.namespace: Required value"],
        );
        check(
            "ConfigMap",
            json!({"name": "A_b", "namespace": "b"}),
            &["metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist of lower case \
               alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
               'example.com', regex used for validation is \
               '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"],
        );
        check(
            "Node",
            json!({"name": "a", "namespace": "b"}),
            &["metadata.namespace: Forbidden: not allowed on this type"],
        );
        check(
            "Node",
            json!({"name": "a", "annotations": {"a": "x".repeat(256 * 1024)}}),
            &["metadata.annotations: Too long: may not be more than 262144 bytes"],
        );
        check(
            "Node",
            json!({"name": "a", "finalizers": ["x"]}),
            &["metadata.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer name nor is it \
               fully qualified"],
        );
    }

    #[test]
    fn owner_references() {
        let owner = |name: &str| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": "1", "controller": true});
        check("Node", json!({"name": "a", "ownerReferences": [owner("b")]}), &[]);
        let two = json!([owner("b"), owner("c")]);
        let typed: Vec<OwnerReference> = serde_json::from_value(two.clone()).unwrap();
        check(
            "Node",
            json!({"name": "a", "ownerReferences": two}),
            &[&format!(
                "metadata.ownerReferences: Invalid value: {}: Only one reference can have Controller set to true. \
                 Found \"true\" in references for ReplicaSet/b and ReplicaSet/c",
                shown(&typed)
            )],
        );
        check(
            "Node",
            json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "", "uid": "1"}]}),
            &["metadata.ownerReferences[0].name: Invalid value: \"\": name must not be empty"],
        );
    }

    #[test]
    fn updates() {
        let resource = resource::find_kind("v1", "ConfigMap").unwrap();
        let meta = |v: Value| serde_json::from_value::<ObjectMeta>(v).unwrap();
        let old = meta(json!({"name": "a", "namespace": "b", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z"}));
        let mut new = old.clone();
        assert_eq!(validate_update(resource, &new, &old), []);
        new.uid = Some("2".into());
        new.finalizers = Some(vec!["a/b".into()]);
        let errors: Vec<String> = validate_update(resource, &new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found \
                 new finalizers []string{\"a/b\"}",
                "metadata.uid: Invalid value: \"2\": field is immutable",
            ]
        );
    }
}
