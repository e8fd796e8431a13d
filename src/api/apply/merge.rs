//! Decides: puts an applied document into an object, and takes fields out of one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::place::{Expected, Place, View};
use super::set::{self, Element, Set};
use crate::api::trail::{Step, Trail};

/// The live object with what the document says. Items of lists come in the order of the document; those that it does
/// not have keep their place before the next one that it has.
#[must_use]
pub fn merge(place: Place<'_>, live: Option<&Value>, document: &Value) -> Value {
    let view = place.view(document);
    match (view, live, document) {
        (View::Struct(_) | View::Object(..) | View::Map(_), Some(Value::Object(live)), Value::Object(document)) => {
            // A document with other fields is refused before it comes here.
            let known = |name| Some((Place::field(view, name)?, document.get(name)?));
            let own = live.iter().map(|(name, own)| {
                let merged = known(name).map(|(place, value)| merge(place, Some(own), value));
                (name.clone(), merged.unwrap_or_else(|| own.clone()))
            });
            let new = document.keys().filter(|name| !live.contains_key(*name)).filter_map(|name| {
                let (place, value) = known(name)?;
                Some((name.clone(), merge(place, None, value)))
            });
            Value::Object(own.chain(new).collect())
        }
        (View::Set | View::Keyed(_), Some(Value::Array(live)), Value::Array(document)) => {
            merge_items(view, live, document)
        }
        // `null` says nothing of what is merged.
        (View::Set | View::Keyed(_) | View::Struct(_) | View::Object(..) | View::Map(_), Some(live), Value::Null) => {
            live.clone()
        }
        _ => document.clone(),
    }
}

fn merge_items(view: View<'_>, live: &[Value], document: &[Value]) -> Value {
    let named = |items: &[Value]| items.iter().map(|i| view.element(i).unwrap_or_default()).collect::<Vec<Element>>();
    let (live_names, names) = (named(live), named(document));
    let mut wanted: BTreeMap<&Element, usize> = BTreeMap::new();
    names.iter().for_each(|name| *wanted.entry(name).or_default() += 1);
    // The items that both have, by name; where the object has several of a name, the document replaces them all.
    let mut shared: BTreeMap<&Element, Option<&Value>> = BTreeMap::new();
    let mut rest: Vec<(&Element, Option<&Value>)> = Vec::with_capacity(live.len());
    for (name, item) in live_names.iter().zip(live) {
        if wanted.contains_key(name) {
            shared.entry(name).and_modify(|twice| *twice = None).or_insert(Some(item));
            rest.push((name, None));
        } else {
            rest.push((name, Some(item)));
        }
    }
    // The next item of the document that the object has too, from each place of the document on.
    let mut next: Vec<Option<&Element>> = vec![None; names.len() + 1];
    for (i, name) in names.iter().enumerate().rev() {
        next[i] = if shared.contains_key(name) { Some(name) } else { next[i + 1] };
    }
    let mut out = Vec::with_capacity(rest.len() + document.len());
    let mut rest = rest.into_iter().peekable();
    for (i, (name, item)) in names.iter().zip(document).enumerate() {
        while let Some((_, own)) = rest.next_if(|(at, own)| own.is_some() || next[i] != Some(*at)) {
            out.extend(own.cloned());
        }
        rest.next_if(|(at, _)| *at == name);
        out.push(match view {
            View::Keyed(keys) => merge(keys.item, shared.get_mut(name).and_then(Option::take), item),
            _ => item.clone(),
        });
    }
    out.extend(rest.filter_map(|(_, own)| own.cloned()));
    Value::Array(out)
}

/// The value without these fields and items. `None` when nothing is left of it.
#[must_use]
pub fn without(place: Place<'_>, value: Value, fields: &Set) -> Option<Value> {
    let view = place.view(&value);
    let below = |place: Place<'_>, value: Value, element: &Element| match fields.below(element) {
        Some(fields) => without(place, value, fields),
        None => Some(value),
    };
    match (view, value) {
        (View::Struct(_) | View::Object(..) | View::Map(_), Value::Object(object)) if !object.is_empty() => {
            let mut left = Map::new();
            for (name, value) in object {
                let element = set::field(&name);
                let Some(place) = Place::field(view, &name).filter(|_| !fields.has(&element)) else { continue };
                if let Some(value) = below(place, value, &element) {
                    left.insert(name, value);
                }
            }
            (!left.is_empty()).then_some(Value::Object(left))
        }
        (View::Set | View::Keyed(_), Value::Array(items)) if !items.is_empty() => {
            let left: Vec<Value> = items
                .into_iter()
                .filter_map(|item| {
                    let Ok(element) = view.element(&item) else { return Some(item) };
                    match view {
                        _ if fields.has(&element) => None,
                        View::Keyed(keys) => below(keys.item, item, &element),
                        _ => Some(item),
                    }
                })
                .collect();
            (!left.is_empty()).then_some(Value::Array(left))
        }
        // What is owned as one has nothing below it that could go.
        (_, value) => Some(value),
    }
}

/// What keeps a document from being applied, in upstream's words. Empty when nothing does.
#[must_use]
pub fn problems(place: Place<'_>, document: &Value) -> Vec<String> {
    let mut out = Vec::new();
    check(place, document, &Trail::ROOT, &mut out);
    out
}

/// A path as upstream's messages have it: `.spec.containers[name="web"].image`.
fn shown(at: &Trail<'_>) -> String {
    at.text(|step, text| match step {
        Step::Field(name) => text.extend([".", name]),
        Step::Key(element) => text.push_str(&set::shown(element)),
        Step::Index(i) => text.push_str(&format!("[{i}]")),
        Step::Root => {}
    })
}

/// A step into a list is the element of its item, where it has one.
fn check(place: Place<'_>, value: &Value, at: &Trail<'_>, out: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    let view = place.view(value);
    // A list or an object that is owned as one still has the types of its schema.
    let expected = match (place.expected(), value) {
        (Expected::Any, _) => return,
        (Expected::List, Value::Array(_))
        | (Expected::Map, Value::Object(_))
        | (Expected::Number, Value::Number(_))
        | (Expected::Bool, Value::Bool(_))
        | (Expected::String, Value::String(_)) => None,
        (Expected::List, _) => Some("list"),
        (Expected::Map, _) => Some("map"),
        (Expected::Number, _) => Some("numeric (int or float)"),
        (Expected::Bool, _) => Some("boolean"),
        (Expected::String, _) => Some("string"),
        // These write themselves, so that the schema takes any scalar.
        (Expected::Scalar, Value::Array(_) | Value::Object(_)) => Some("scalar"),
        (Expected::Scalar, _) => None,
    };
    if let Some(expected) = expected {
        out.push(format!("{}: expected {expected}, got &value.valueUnstructured{{Value:{}}}", shown(at), go(value)));
        return;
    }
    match value {
        Value::Object(object) => {
            // The fields of a struct are known however it is owned.
            let view = place.fields();
            for (name, value) in object {
                let at = at.field(name);
                match Place::field(view, name) {
                    Some(place) => check(place, value, &at, out),
                    None => out.push(format!("{}: field not declared in schema", shown(&at))),
                }
            }
        }
        Value::Array(items) => {
            let mut seen = BTreeSet::new();
            for (i, item) in items.iter().enumerate() {
                if let View::Leaf = view {
                    check(place.element(), item, &at.index(i), out);
                    continue;
                }
                match view.element(item) {
                    Ok(element) => {
                        if seen.contains(&element) {
                            out.push(format!("{}: duplicate entries for key {}", shown(at), set::shown(&element)));
                        }
                        check(place.element(), item, &at.then(Step::Key(&element)), out);
                        seen.insert(element);
                    }
                    Err(why) => out.push(format!("{}: element {i}: {why}", shown(at))),
                }
            }
        }
        _ => {}
    }
}

/// A value as Go prints it with `%#v`, nearly.
fn go(value: &Value) -> String {
    match value {
        Value::Object(_) => format!("map[string]interface {{}}{value}"),
        Value::Array(_) => format!("[]interface {{}}{value}"),
        scalar => scalar.to_string(),
    }
}
