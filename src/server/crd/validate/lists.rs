//! Decides: duplicates in lists that are sets or maps (`apiextensions-apiserver/pkg/apiserver/schema/listtype`).

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::MAX_ERRORS;
use crate::api::field::FieldError;
use crate::api::trail::Trail;
use crate::server::crd::prune::inside;
use crate::server::crd::shown::Shown;
use crate::server::crd::structural::{ListType, Structural};

/// Lists that are sets or maps and have something twice. An object that was so before may stay so.
#[must_use]
pub fn lists(new: &Value, old: Option<&Value>, schema: &Structural) -> Vec<FieldError> {
    let duplicates = |value: &Value| {
        let mut errors = Vec::new();
        one(value, schema, &Trail::ROOT, &mut errors);
        errors
    };
    let errors = duplicates(new);
    if !errors.is_empty() && old.is_some_and(|old| !duplicates(old).is_empty()) {
        return Vec::new();
    }
    errors
}

fn one(value: &Value, schema: &Structural, at: &Trail, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let Some((schema, step)) = inside(schema, key) {
                    one(value, schema, &at.then(step), errors);
                }
            }
        }
        Value::Array(list) => {
            match &schema.list {
                ListType::Set => set(list, at, errors),
                ListType::Map(keys) => map(list, keys, at, errors),
                ListType::Atomic => {}
            }
            if let Some(items) = &schema.items {
                for (i, item) in list.iter().enumerate() {
                    one(item, items, &at.index(i), errors);
                }
            }
        }
        _ => {}
    }
}

fn set(list: &[Value], at: &Trail, errors: &mut Vec<FieldError>) {
    repeated(list.iter().map(Value::to_string), list.len(), |i| {
        errors.push(FieldError::duplicate(&at.index(i).below(None), &Shown(&list[i])));
    });
}

fn map(list: &[Value], keys: &[String], at: &Trail, errors: &mut Vec<FieldError>) {
    if let Some((i, item)) = list.iter().enumerate().find(|(_, item)| !item.is_null() && !item.is_object()) {
        let detail = "must be an object for an array of list-type map";
        errors.push(FieldError::invalid(&at.index(i).below(None), &Shown(item), detail));
        return;
    }
    let named = |item: &Value| {
        let name: Map<String, Value> =
            keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect();
        Value::Object(name)
    };
    let name = |item: &Value| {
        let mut text = String::new();
        for key in keys {
            if let Some(value) = item.get(key) {
                let _ = write!(text, "{value}");
            }
            // No JSON has one.
            text.push('\0');
        }
        text
    };
    repeated(list.iter().map(name), list.len(), |i| {
        errors.push(FieldError::duplicate(&at.index(i).below(None), &Shown(&named(&list[i]))));
    });
}

/// Calls for each text that is there before, once, but not for more than are told.
fn repeated(texts: impl Iterator<Item = String>, count: usize, mut found: impl FnMut(usize)) {
    if count < 2 {
        return;
    }
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(count);
    let mut left = MAX_ERRORS;
    for (i, text) in texts.enumerate() {
        let times = seen.entry(text).or_default();
        *times += 1;
        if *times == 2 && left > 0 {
            left -= 1;
            found(i);
        }
    }
}
