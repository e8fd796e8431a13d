//! Decides: environment variables of a container and what they refer to.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector};

use crate::api::field::{FieldError, Path};
use crate::server::registry::format;
use crate::server::registry::metadata::{Errors, invalid};
use crate::server::registry::quantity;

/// Fields of a pod that a variable can hold, sorted.
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const SIZES: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub fn variables(errors: &mut Errors, path: &Path, variables: &[EnvVar]) {
    for (i, variable) in variables.iter().enumerate() {
        let at = path.index(i);
        if variable.name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        } else {
            invalid(errors, &at.child("name"), &variable.name, format::environment_name(&variable.name));
        }
        if let Some(source) = &variable.value_from {
            let has_value = variable.value.as_ref().is_some_and(|v| !v.is_empty());
            value_from(errors, &at.child("valueFrom"), source, has_value);
        }
    }
}

fn value_from(errors: &mut Errors, path: &Path, source: &EnvVarSource, has_value: bool) {
    let mut count = 0;
    if let Some(field) = &source.field_ref {
        count += 1;
        object_field(errors, &path.child("fieldRef"), field, FIELDS);
    }
    if let Some(resource) = &source.resource_field_ref {
        count += 1;
        resource_field(errors, &path.child("resourceFieldRef"), resource, false);
    }
    let map = source.config_map_key_ref.as_ref().map(|r| ("configMapKeyRef", &r.name, &r.key));
    let secret = source.secret_key_ref.as_ref().map(|r| ("secretKeyRef", &r.name, &r.key));
    for (field, name, key) in map.into_iter().chain(secret) {
        count += 1;
        let at = path.child(field);
        invalid(errors, &at.child("name"), name, format::dns_subdomain(name));
        if key.is_empty() {
            errors.push(FieldError::required(&at.child("key"), ""));
        } else {
            invalid(errors, &at.child("key"), key, format::config_key(key));
        }
    }
    if source.file_key_ref.is_some() {
        count += 1;
    }
    let message = if count == 0 {
        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
    } else if has_value {
        "may not be specified when `value` is not empty"
    } else if count > 1 {
        "may not have more than one field specified at a time"
    } else {
        return;
    };
    errors.push(FieldError::invalid(path, &"", message));
}

/// `metadata.labels['app']` and its like: the path and the key in brackets.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (path, rest) = path.strip_suffix("']")?.split_once("['")?;
    (!path.is_empty()).then_some((path, rest))
}

/// `known` is sorted.
pub fn object_field(errors: &mut Errors, path: &Path, selector: &ObjectFieldSelector, known: &[&str]) {
    let version = selector.api_version.as_deref().unwrap_or_default();
    if version.is_empty() {
        errors.push(FieldError::required(&path.child("apiVersion"), ""));
        return;
    }
    let field = selector.field_path.as_str();
    let at = path.child("fieldPath");
    if field.is_empty() {
        errors.push(FieldError::required(&at, ""));
        return;
    }
    if version != "v1" {
        let message = format!("error converting fieldPath: unsupported pod version: {version}");
        errors.push(FieldError::invalid(&at, &field, &message));
        return;
    }
    if let Some((of, key)) = subscript(field) {
        match of {
            "metadata.annotations" => invalid(errors, path, &key, format::qualified_name(&key.to_lowercase())),
            "metadata.labels" => invalid(errors, path, &key, format::qualified_name(key)),
            other => {
                let message = format!("error converting fieldPath: field label does not support subscript: {field}");
                let _ = other;
                errors.push(FieldError::invalid(&at, &field, &message));
            }
        }
        return;
    }
    // Known to the conversion, though perhaps not here.
    let convertible = FIELDS.contains(&field)
        || matches!(field, "metadata.annotations" | "metadata.labels" | "spec.restartPolicy" | "spec.schedulerName")
        || field == "status.phase";
    if !convertible {
        let message = format!("error converting fieldPath: field label not supported: {field}");
        errors.push(FieldError::invalid(&at, &field, &message));
    } else if !known.contains(&field) {
        errors.push(FieldError::not_supported(&at, &field, known));
    }
}

/// `in_volume`: a file must say which container it is about.
pub fn resource_field(errors: &mut Errors, path: &Path, selector: &ResourceFieldSelector, in_volume: bool) {
    let resource = selector.resource.as_str();
    let huge = ["limits.hugepages-", "requests.hugepages-"].iter().any(|p| resource.starts_with(p));
    if in_volume && selector.container_name.as_deref().unwrap_or_default().is_empty() {
        errors.push(FieldError::required(&path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(FieldError::required(&path.child("resource"), ""));
    } else if !RESOURCES.contains(&resource) && !huge {
        errors.push(FieldError::not_supported(&path.child("resource"), &resource, RESOURCES));
    }
    let Some(divisor) = selector.divisor.as_ref().and_then(|d| quantity::parse(d).ok()).filter(|d| !d.is_zero()) else {
        return;
    };
    let text = divisor.to_string();
    let sizes = SIZES.join(", ");
    let message = match resource {
        "limits.cpu" | "requests.cpu" if !matches!(text.as_str(), "1" | "1m") => {
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned()
        }
        "limits.memory" | "requests.memory" if !SIZES.contains(&text.as_str()) => {
            format!("only divisor's values {sizes} are supported with the memory resource")
        }
        "limits.ephemeral-storage" | "requests.ephemeral-storage" if !SIZES.contains(&text.as_str()) => {
            format!("only divisor's values {sizes} are supported with the local ephemeral storage resource")
        }
        _ => return,
    };
    errors.push(FieldError::invalid(&path.child("divisor"), &resource, &message));
}

pub fn sources(errors: &mut Errors, path: &Path, sources: &[EnvFromSource]) {
    for (i, source) in sources.iter().enumerate() {
        let at = path.index(i);
        if let Some(prefix) = source.prefix.as_deref().filter(|p| !p.is_empty()) {
            invalid(errors, &at.child("prefix"), &prefix, format::environment_name(prefix));
        }
        let map = source.config_map_ref.as_ref().map(|r| ("configMapRef", &r.name));
        let secret = source.secret_ref.as_ref().map(|r| ("secretRef", &r.name));
        let named: Vec<_> = map.into_iter().chain(secret).collect();
        for (field, name) in &named {
            let at = at.child(field).child("name");
            if name.is_empty() {
                errors.push(FieldError::required(&at, ""));
            } else {
                invalid(errors, &at, *name, format::dns_subdomain(name));
            }
        }
        let message = match named.len() {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.push(FieldError::invalid(path, &"", message));
    }
}
