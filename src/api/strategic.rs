//! Decides: strategic merge patch, as `k8s.io/apimachinery/pkg/util/strategicpatch` applies it. Which lists merge,
//! and by what key, comes from the schema table.
//!
//! Directives: `$patch: replace|delete` in objects and list elements, `$retainKeys`, `$deleteFromPrimitiveList/x`,
//! `$setElementOrder/x`. Nulls delete and are never kept.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::patch::rejected;
use super::schema::{Item, Shape, Type, Wrap};
use super::status::Status;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

type Object = Map<String, Value>;

/// Why a patch cannot be applied, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Error {
    #[error("unknown patch type: {0} in map: {1}")]
    UnknownDirective(String, String),
    #[error("map: {0} does not contain declared merge key: {1}")]
    NoMergeKey(String, String),
    #[error("merging lists cannot yet be specified in the patch")]
    MergeDirective,
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    #[error("expected a {0}, but received a {1}")]
    Type(&'static str, &'static str),
    #[error("lists of lists are not supported")]
    ListOfLists,
    #[error("cannot merge lists without merge key for {0}")]
    NoDeclaredKey(&'static str),
    #[error("unable to find api field in struct {0} for the json field {1:?}")]
    UnknownField(&'static str, String),
    #[error("The order in patch list:\n{0}\n doesn't match $setElementOrder list:\n{1}\n")]
    Order(String, String),
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::RetainKeys | Error::PrimitiveList => Self::bad_request(error.to_string()),
            Error::ListOfLists => rejected(),
            // Upstream does not classify these, so that they come out as an unknown error of the server.
            _ => Self::new(500, "", error.to_string()),
        }
    }
}

/// Applies `patch` to `original`. Both are whole objects of the kind that `schema` describes.
///
/// # Errors
/// 400, 422 or 500 for a patch with a directive that makes no sense, as upstream.
pub fn merge(original: &Value, patch: &Value, schema: &'static Type) -> Result<Value, Status> {
    let Value::Object(patch) = patch else {
        return Err(Status::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            kind_of(patch)
        )));
    };
    let original = original.as_object().cloned().unwrap_or_default();
    let shape = Shape { wrap: Wrap::One, item: Item::Object(schema) };
    Ok(Value::Object(merge_object(original, patch.clone(), shape)?))
}

/// How one field merges.
struct Rule {
    shape: Shape,
    merge: bool,
    merge_key: &'static str,
}

/// The rule of the field `key` of something of shape `shape`.
fn rule(shape: Shape, key: &str) -> Result<Rule, Error> {
    match (shape.wrap, shape.item) {
        (Wrap::One, Item::Object(t)) => {
            let f = t.field(key).ok_or_else(|| Error::UnknownField(t.short_name(), key.into()))?;
            Ok(Rule { shape: f.shape, merge: f.merge, merge_key: f.merge_key })
        }
        (Wrap::One, item) => Ok(Rule { shape: Shape { wrap: Wrap::One, item }, merge: false, merge_key: "" }),
        _ => Ok(Rule { shape: shape.element(), merge: false, merge_key: "" }),
    }
}

fn merge_object(mut original: Object, mut patch: Object, shape: Shape) -> Result<Object, Error> {
    if let Some(directive) = patch.remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => Err(unknown_directive(&directive, patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, shape)?;
    for (key, value) in patch {
        let (key, delete_list) = match key.strip_prefix(DELETE_FROM) {
            Some(list) => (list.to_owned(), true),
            None => (key, false),
        };
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let merged = match (original.remove(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                let field = rule(shape, &key)?;
                Some(Value::Object(merge_object(old, new, field.shape)?))
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                let field = rule(shape, &key)?;
                Some(Value::Array(merge_list(old, new, &field, delete_list)?))
            }
            (old, _) if delete_list => old,
            (_, new) => without_directives(new),
        };
        if let Some(merged) = merged {
            original.insert(key, merged);
        }
    }
    Ok(original)
}

/// `$retainKeys`: what it does not list is dropped from the original (used for unions such as a volume's source).
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), Error> {
    let Some(keep) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keep) = keep else { return Err(Error::RetainKeys) };
    let kept = |key: &str| keep.iter().any(|k| k == key);
    let stray = |(key, value): (&String, &Value)| {
        !value.is_null() && !key.starts_with(DELETE_FROM) && !key.starts_with(SET_ORDER) && !kept(key)
    };
    if patch.iter().any(stray) {
        return Err(Error::RetainKeys);
    }
    original.retain(|key, _| kept(key));
    Ok(())
}

/// Lists with a `$setElementOrder/x` directive: merges them together with their order, and takes both out of the patch.
fn merge_ordered_lists(original: &mut Object, patch: &mut Object, shape: Shape) -> Result<(), Error> {
    let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let order = array(patch.remove(&directive).unwrap_or_default())?;
        let key = directive[SET_ORDER.len()..].to_owned();
        let field = rule(shape, &key)?;
        let old = original.get(&key).cloned().map(array).transpose()?;
        let new = patch.remove(&key).map(array_or_null).transpose()?;
        let new = match new {
            Some(None) => {
                // An explicit null deletes the list as any other field.
                original.remove(&key);
                continue;
            }
            other => other.flatten(),
        };
        if let Some(new) = &new {
            check_order(new, &order, field.merge_key)?;
        }
        let (server_order, merged) = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => (old.clone(), old),
            (None, Some(new)) => (Vec::new(), list_without_directives(new)),
            (Some(old), Some(new)) => (old.clone(), merge_list(old, new, &field, false)?),
        };
        let (ours, servers) = partition(merged, &order, field.merge_key)?;
        original.insert(key, Value::Array(arrange(ours, servers, &order, &server_order, field.merge_key)));
    }
    Ok(())
}

fn merge_list(old: Vec<Value>, new: Vec<Value>, field: &Rule, delete_list: bool) -> Result<Vec<Value>, Error> {
    if !field.merge && !delete_list {
        return Ok(list_without_nulls(new));
    }
    let Some(first) = old.first().or(new.first()) else { return Ok(old) };
    if first.is_array() {
        return Err(Error::ListOfLists);
    }
    if !first.is_object() {
        if old.iter().chain(&new).any(|v| v.is_object() || v.is_array()) {
            return Err(Error::PrimitiveList);
        }
        if delete_list {
            return Ok(old.into_iter().filter(|v| !new.contains(v)).collect());
        }
        let mut merged: Vec<Value> = Vec::with_capacity(old.len() + new.len());
        for value in old.iter().chain(&new) {
            if !merged.contains(value) {
                merged.push(value.clone());
            }
        }
        let (ours, servers) = partition(merged, &new, "")?;
        return Ok(arrange(ours, servers, &new, &old, ""));
    }
    if field.merge_key.is_empty() {
        return Err(Error::NoDeclaredKey(field.shape.object().map_or("", Type::short_name)));
    }
    merge_list_of_objects(old, new, field)
}

fn merge_list_of_objects(old: Vec<Value>, new: Vec<Value>, field: &Rule) -> Result<Vec<Value>, Error> {
    let key = field.merge_key;
    let (server_order, new) = apply_list_directives(old, new, key)?;
    let mut merged = server_order.clone();
    for value in &new {
        let Value::Object(patch) = value else { return Err(Error::Type("map", kind_of(value))) };
        let id = patch.get(key).ok_or_else(|| no_merge_key(value, key))?;
        match merged.iter().position(|v| v.get(key) == Some(id)) {
            Some(i) => {
                let Value::Object(old) = merged[i].take() else { return Err(Error::Type("map", "slice")) };
                merged[i] = Value::Object(merge_object(old, patch.clone(), field.shape.element())?);
            }
            None => merged.extend(without_directives(value.clone())),
        }
    }
    let (ours, servers) = partition(merged, &new, key)?;
    Ok(arrange(ours, servers, &new, &server_order, key))
}

/// Elements with `$patch` delete from the original or replace it whole. Returns what is left of both lists.
fn apply_list_directives(mut old: Vec<Value>, new: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), Error> {
    let (mut rest, mut replace) = (Vec::new(), false);
    for value in new {
        let Value::Object(element) = &value else { return Err(Error::Type("map", kind_of(&value))) };
        match element.get(PATCH).map(|d| d.as_str().unwrap_or_default()) {
            None => rest.push(value),
            Some("delete") => {
                let id = element.get(key).ok_or_else(|| no_merge_key(&value, key))?;
                old.retain(|v| v.get(key) != Some(id));
            }
            Some("replace") => replace = true,
            Some("merge") => return Err(Error::MergeDirective),
            Some(_) => return Err(unknown_directive(&element[PATCH], element.clone())),
        }
    }
    Ok(if replace { (list_without_nulls(rest), Vec::new()) } else { (old, rest) })
}

/// The place of an element: by its merge key, or by its value in lists of scalars.
fn place(list: &[Value], element: &Value, key: &str) -> Option<usize> {
    if key.is_empty() {
        list.iter().position(|v| v == element)
    } else {
        list.iter().position(|v| v.get(key) == element.get(key))
    }
}

/// Splits `list` into what `by` names and what only the server has.
fn partition(list: Vec<Value>, by: &[Value], key: &str) -> Result<(Vec<Value>, Vec<Value>), Error> {
    if !key.is_empty()
        && let Some(bad) = list.iter().chain(by).find(|v| v.get(key).is_none())
    {
        return Err(no_merge_key(bad, key));
    }
    Ok(list.into_iter().partition(|v| place(by, v, key).is_some()))
}

/// Puts the patch's elements in the patch's order and lets the server's own elements keep their places between them:
/// one goes first only where the original had it before the patch's next element.
fn arrange(
    mut ours: Vec<Value>,
    mut servers: Vec<Value>,
    order: &[Value],
    server_order: &[Value],
    key: &str,
) -> Vec<Value> {
    let by = |list: &[Value], v: &Value| place(list, v, key).unwrap_or(usize::MAX);
    ours.sort_by_key(|v| by(order, v));
    servers.sort_by_key(|v| by(server_order, v));
    let mut merged = Vec::with_capacity(ours.len() + servers.len());
    let (mut ours, mut servers) = (ours.into_iter().peekable(), servers.into_iter().peekable());
    while let Some(server) = servers.peek() {
        let Some(our) = ours.peek() else { break };
        let before = match (place(server_order, server, key), place(server_order, our, key)) {
            (Some(server), Some(our)) => server < our,
            _ => false,
        };
        merged.extend(if before { servers.next() } else { ours.next() });
    }
    merged.extend(ours);
    merged.extend(servers);
    merged
}

/// The elements that a patch sends must come in the order that its directive names.
fn check_order(list: &[Value], order: &[Value], key: &str) -> Result<(), Error> {
    if order.is_empty() {
        return Ok(());
    }
    let mut order_left = order.iter();
    for value in list.iter().filter(|v| v.get(PATCH).is_none()) {
        let same = |o: &Value| if key.is_empty() { o == value } else { o.get(key) == value.get(key) };
        if !order_left.any(same) {
            return Err(Error::Order(go_list(list), go_list(order)));
        }
    }
    Ok(())
}

/// A value that the original does not have: its nulls mean nothing, and an object with `$patch` is not there at all.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(map) if map.contains_key(PATCH) => None,
        Value::Object(map) => Some(Value::Object(
            map.into_iter()
                .filter(|(k, _)| k != RETAIN_KEYS && !k.starts_with(DELETE_FROM) && !k.starts_with(SET_ORDER))
                .filter_map(|(k, v)| without_directives(v).map(|v| (k, v)))
                .collect(),
        )),
        Value::Array(list) => Some(Value::Array(list_without_directives(list))),
        other => Some(other),
    }
}

fn list_without_directives(list: Vec<Value>) -> Vec<Value> {
    list.into_iter().filter_map(|v| if v.is_null() { Some(v) } else { without_directives(v) }).collect()
}

/// Elements of a list that replaces another: directives in them are not looked at.
fn list_without_nulls(list: Vec<Value>) -> Vec<Value> {
    fn strip(value: Value) -> Value {
        match value {
            Value::Object(map) => {
                Value::Object(map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, strip(v))).collect())
            }
            other => other,
        }
    }
    list.into_iter().map(strip).collect()
}

fn array(value: Value) -> Result<Vec<Value>, Error> {
    if let Value::Array(list) = value { Ok(list) } else { Err(Error::Type("slice", kind_of(&value))) }
}

fn array_or_null(value: Value) -> Result<Option<Vec<Value>>, Error> {
    if value.is_null() { Ok(None) } else { array(value).map(Some) }
}

fn unknown_directive(directive: &Value, mut map: Object) -> Error {
    map.insert(PATCH.into(), directive.clone());
    Error::UnknownDirective(go_text(directive), go_text(&Value::Object(map)))
}

fn no_merge_key(value: &Value, key: &str) -> Error {
    Error::NoMergeKey(go_text(value), key.into())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// As Go prints a value with `%v`: `map[a:1 b:[x y]]`.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(s) => s.clone(),
        Value::Array(list) => go_list(list),
        Value::Object(map) => {
            let mut out = String::from("map[");
            for (i, (k, v)) in map.iter().enumerate() {
                let _ = write!(out, "{}{k}:{}", if i == 0 { "" } else { " " }, go_text(v));
            }
            out + "]"
        }
        other => other.to_string(),
    }
}

fn go_list(list: &[Value]) -> String {
    format!("[{}]", list.iter().map(go_text).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests;
