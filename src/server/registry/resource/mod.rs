//! Kinds of the `resource.k8s.io` group, one per file, and what they share.
//!
//! Whether a namespace may have claims with `adminAccess` is not decided here.

mod allocation;
mod capacity;
mod claim;
mod device;
pub mod device_class;
pub mod resource_claim;
pub mod resource_claim_template;
pub mod resource_slice;

use k8s_openapi::api::resource::v1::{DeviceSelector, DeviceToleration, OpaqueDeviceConfiguration};
use serde_json::Value;

use super::core::persistent_volume::drivers::driver_name;
use super::format;
use super::metadata::{Errors, invalid};
use crate::api::field::{FieldError, Path};
use crate::server::cel::device as device_selector;

const MAX_POOL: usize = 253;
const MAX_SELECTORS: usize = 32;
const MAX_CONFIGS: usize = 32;
/// Requests of a claim, devices of an allocation.
const MAX_REQUESTS: usize = 32;
/// Bytes of an expression, and of the parameters of a driver.
const MAX_TEXT: usize = 10 * 1024;
const MAX_DOMAIN: usize = 63;
const MAX_IDENTIFIER: usize = 32;
const MAX_BINDING_CONDITIONS: usize = 4;
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];
const IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
    alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is \
    '[A-Za-z_][A-Za-z0-9_]*')";

/// The items of a list that is not too long. Of one that is, upstream looks at none.
fn items<'a, T>(errors: &mut Errors, path: &Path, list: Option<&'a Vec<T>>, limit: usize) -> &'a [T] {
    let list = list.map(Vec::as_slice).unwrap_or_default();
    if list.len() <= limit {
        return list;
    }
    errors.push(FieldError::too_many(path, list.len(), limit));
    &[]
}

/// Items whose key was there before.
fn unique<'a>(errors: &mut Errors, path: &Path, keys: impl Iterator<Item = &'a str>) {
    let mut seen = Vec::new();
    for (i, key) in keys.enumerate() {
        if seen.contains(&key) {
            errors.push(FieldError::duplicate(&path.index(i), &key));
        }
        seen.push(key);
    }
}

fn label(errors: &mut Errors, path: &Path, text: &str) {
    invalid(errors, path, &text, format::dns_label(text));
}

/// Subdomains with slashes between.
fn pool_name(errors: &mut Errors, path: &Path, name: &str) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    if name.len() > MAX_POOL {
        errors.push(FieldError::too_long(path, MAX_POOL));
    }
    name.split('/').for_each(|part| invalid(errors, path, &part, format::dns_subdomain(part)));
}

/// The name of an attribute or a capacity: `identifier` or `domain/identifier`. Of names with more slashes upstream
/// checks nothing.
fn qualified_name(errors: &mut Errors, path: &Path, name: &str) {
    match name.split('/').collect::<Vec<_>>().as_slice() {
        [one] => identifier(errors, path, one),
        [domain, one] => {
            if domain.is_empty() {
                errors.push(FieldError::invalid(path, &"", "the domain must not be empty"));
            } else {
                driver_name(errors, path, domain);
            }
            if one.is_empty() {
                errors.push(FieldError::invalid(path, &"", "the name must not be empty"));
            } else {
                identifier(errors, path, one);
            }
        }
        _ => {}
    }
}

fn fully_qualified_name(errors: &mut Errors, path: &Path, name: &str) {
    qualified_name(errors, path, name);
    if !name.contains('/') {
        let message = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(FieldError::invalid(path, &name, message));
    }
}

fn identifier(errors: &mut Errors, path: &Path, text: &str) {
    if text.len() > MAX_IDENTIFIER {
        errors.push(FieldError::too_long(path, MAX_IDENTIFIER));
    }
    let inner = |b: u8| b == b'_' || b.is_ascii_alphanumeric();
    if !text.bytes().all(inner) || text.bytes().next().is_none_or(|b| b.is_ascii_digit()) {
        errors.push(FieldError::invalid(path, &text, IDENTIFIER));
    }
}

fn selectors(errors: &mut Errors, path: &Path, selectors: Option<&Vec<DeviceSelector>>) {
    for (i, selector) in items(errors, path, selectors, MAX_SELECTORS).iter().enumerate() {
        let at = path.index(i).child("cel");
        match &selector.cel {
            None => errors.push(FieldError::required(&at, "")),
            Some(cel) => selector_expression(errors, &at.child("expression"), &cel.expression),
        }
    }
}

fn selector_expression(errors: &mut Errors, path: &Path, expression: &str) {
    if expression.len() > MAX_TEXT {
        errors.push(FieldError::too_long(path, MAX_TEXT));
        return;
    }
    match device_selector::compile(expression) {
        Err(why) => errors.push(FieldError::invalid(path, &expression, &why)),
        Ok(program) if program.estimated_cost() > device_selector::MAX_COST => {
            errors.push(FieldError::forbidden(path, "too complex, exceeds cost limit"));
        }
        Ok(_) => {}
    }
}

/// What a driver is told.
fn configuration(errors: &mut Errors, path: &Path, opaque: Option<&OpaqueDeviceConfiguration>) {
    let at = path.child("opaque");
    let Some(opaque) = opaque else {
        errors.push(FieldError::required(&at, ""));
        return;
    };
    driver_name(errors, &at.child("driver"), &opaque.driver);
    raw_object(errors, &at.child("parameters"), &opaque.parameters.0);
}

/// JSON that must be an object of some size at most.
fn raw_object(errors: &mut Errors, path: &Path, raw: &Value) {
    if raw.is_null() {
        errors.push(FieldError::required(path, ""));
    } else if raw.to_string().len() > MAX_TEXT {
        errors.push(FieldError::too_long(path, MAX_TEXT));
    } else if !raw.is_object() {
        errors.push(FieldError::invalid(path, &"<value omitted>", "must be a valid JSON object"));
    }
}

fn effect(errors: &mut Errors, path: &Path, effect: &str) {
    if !EFFECTS.contains(&effect) {
        errors.push(FieldError::not_supported(path, &effect, EFFECTS));
    }
}

fn tolerations(errors: &mut Errors, path: &Path, tolerations: Option<&Vec<DeviceToleration>>) {
    for (i, one) in tolerations.into_iter().flatten().enumerate() {
        let at = path.index(i);
        if let Some(key) = one.key.as_deref().filter(|k| !k.is_empty()) {
            invalid(errors, &at.child("key"), &key, format::qualified_name(key));
        }
        let value = one.value.as_deref().unwrap_or_default();
        match one.operator.as_deref().unwrap_or_default() {
            "Exists" if !value.is_empty() => {
                let message = "must be empty for operator `Exists`";
                errors.push(FieldError::invalid(&at.child("value"), &value, message));
            }
            "Exists" => {}
            "Equal" => invalid(errors, &at.child("value"), &value, format::label_value(value)),
            "" => errors.push(FieldError::required(&at.child("operator"), "")),
            other => errors.push(FieldError::not_supported(&at.child("operator"), &other, &["Equal", "Exists"])),
        }
        if let Some(given) = one.effect.as_deref().filter(|e| !e.is_empty()) {
            effect(errors, &at.child("effect"), given);
        }
    }
}

fn toleration_defaults(tolerations: Option<&mut Vec<DeviceToleration>>) {
    for toleration in tolerations.into_iter().flatten() {
        toleration.operator.get_or_insert_with(|| "Equal".into());
    }
}

/// Conditions that must come about before a pod is bound, and those that keep it from being bound: both or neither.
fn binding_conditions(errors: &mut Errors, path: &Path, good: Option<&Vec<String>>, bad: Option<&Vec<String>>) {
    let fields = [("bindingConditions", good), ("bindingFailureConditions", bad)];
    for (field, list) in fields {
        let at = path.child(field);
        for (i, name) in items(errors, &at, list, MAX_BINDING_CONDITIONS).iter().enumerate() {
            invalid(errors, &at.index(i), name, format::qualified_name(name));
        }
    }
    for (field, list) in fields {
        let list = list.map(Vec::as_slice).unwrap_or_default();
        unique(errors, &path.child(field), list.iter().map(String::as_str));
    }
    let (good, bad) = (good.map(Vec::as_slice).unwrap_or_default(), bad.map(Vec::as_slice).unwrap_or_default());
    for (i, name) in bad.iter().enumerate().filter(|(_, name)| good.contains(name)) {
        let at = path.child("bindingFailureConditions").index(i);
        errors.push(FieldError::invalid(&at, name, "bindingFailureConditions must not overlap with bindingConditions"));
    }
    for (field, missing, other, present) in [
        ("bindingConditions", good, "bindingFailureConditions", bad),
        ("bindingFailureConditions", bad, "bindingConditions", good),
    ] {
        if missing.is_empty() && !present.is_empty() {
            let message = format!("{field} are required to use {other}");
            errors.push(FieldError::invalid(&path.child(field), &Value::Null, &message));
        }
    }
}

#[cfg(test)]
mod tests;
