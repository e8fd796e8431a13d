//! Decides: whether two values are equal and which comes first. Values of different types are not equal, numbers are
//! compared by what they are worth, and lists of a schema as their list type says.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value as Json;

use super::types::ListKind;
use super::value::{Error, List, Map, Value};

/// How many pairs one evaluation may look at. Upstream counts the outermost only, although lists that hold the same list
/// twice, and that twice again, are soon too many for any machine.
const MAX_VISITS: u64 = super::CALL_LIMIT;

thread_local! {
    /// Of the evaluation that runs on this thread. Functions know nothing of who calls them.
    static VISITS: Cell<u64> = const { Cell::new(0) };
}

/// Begins to count for an evaluation; gives back what an outer one had counted, for [`resume`].
pub(super) fn restart() -> u64 {
    VISITS.replace(0)
}

pub(super) fn resume(visits: u64) {
    VISITS.set(visits);
}

/// Counts a part of a list or map that is looked at.
pub(super) fn visit() -> Result<(), Error> {
    let visits = VISITS.get() + 1;
    VISITS.set(visits);
    if visits > MAX_VISITS { Err(Error::CallLimit) } else { Ok(()) }
}

/// `==`. An object that is not as its schema says is an error.
pub(super) fn equal<'a>(a: &Value<'a>, b: &Value<'a>) -> Result<bool, Error> {
    Ok(match (a, b) {
        (Value::String(a), Value::String(b)) => **a == **b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Null, Value::Null) => true,
        (Value::Int(_) | Value::Uint(_) | Value::Double(_), Value::Int(_) | Value::Uint(_) | Value::Double(_)) => {
            numbers(a, b) == Some(Ordering::Equal)
        }
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a == b,
        (Value::Opaque(a), Value::Opaque(b)) => a == b,
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(a, b)?,
            (a, b) => a.is_none() && b.is_none(),
        },
        (Value::List(a), Value::List(b)) => lists(a, b)?,
        (Value::Map(a), Value::Map(b)) => maps(a, b)?,
        (Value::Host(a), Value::Host(b)) => Arc::ptr_eq(a, b),
        _ => false,
    })
}

/// `<` and its like; `None` for what has no order, NaN among it.
pub(super) fn order(a: &Value<'_>, b: &Value<'_>) -> Result<Option<Ordering>, Error> {
    Ok(Some(match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Int(_) | Value::Uint(_) | Value::Double(_), Value::Int(_) | Value::Uint(_) | Value::Double(_)) => {
            return Ok(numbers(a, b));
        }
        (Value::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        _ => return Err(Error::no_overload()),
    }))
}

fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    let whole = |value: &Value<'_>| match value {
        Value::Int(value) => Some(i128::from(*value)),
        Value::Uint(value) => Some(i128::from(*value)),
        _ => None,
    };
    match (whole(a), whole(b), a, b) {
        (Some(a), Some(b), ..) => Some(a.cmp(&b)),
        (None, None, Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Some(a), None, _, Value::Double(b)) => with_double(a, *b),
        (None, Some(b), Value::Double(a), _) => with_double(b, *a).map(Ordering::reverse),
        _ => None,
    }
}

/// Exact: a double is not rounded to an integer nor the other way about.
fn with_double(a: i128, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    // Beyond what integers reach, on either side.
    if b.abs() >= 1e20 {
        return Some(if b > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let whole = b.trunc();
    Some(a.cmp(&(whole as i128)).then_with(|| 0.0.partial_cmp(&(b - whole)).unwrap_or(Ordering::Equal)))
}

fn lists<'a>(a: &List<'a>, b: &List<'a>) -> Result<bool, Error> {
    if a.len() != b.len() {
        return Ok(false);
    }
    let kind = if let List::Json(_, Some(ty)) = a { &ty.kind } else { &ListKind::Atomic };
    match (kind, a, b) {
        (ListKind::Set, List::Json(items, _), others) => same_set(items, others),
        (ListKind::Map(keys), List::Json(items, Some(ty)), List::Json(others, _)) => {
            let by_key: BTreeMap<String, &'a Json> = items.iter().map(|item| (key_of(item, keys), item)).collect();
            for other in *others {
                visit()?;
                let Some(item) = by_key.get(&key_of(other, keys)) else { return Ok(false) };
                if !equal(&Value::of(item, &ty.element)?, &Value::of(other, &ty.element)?)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        _ => {
            for index in 0..a.len() {
                visit()?;
                if !equal(&a.get(index)?, &b.get(index)?)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

/// Items of a set are scalars, so their text is what they are.
fn same_set(items: &[Json], others: &List<'_>) -> Result<bool, Error> {
    let set: BTreeSet<String> = items.iter().map(Json::to_string).collect();
    for other in others.items() {
        visit()?;
        if !other?.to_json().is_some_and(|other| set.contains(&other.to_string())) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What finds an item of a list of type map: the text of its key fields.
pub(super) fn key_of(item: &Json, keys: &[String]) -> String {
    let parts: Vec<String> = keys.iter().map(|key| item.get(key).unwrap_or(&Json::Null).to_string()).collect();
    parts.join("\u{0}")
}

fn maps<'a>(a: &Map<'a>, b: &Map<'a>) -> Result<bool, Error> {
    if a.len() != b.len() {
        return Ok(false);
    }
    // Two objects of one type: fields that the schema does not show are compared as they are (`unstructuredMap.Equal`).
    if let (Map::Object(object, ty), Map::Object(other, _)) = (a, b) {
        for (name, value) in *object {
            visit()?;
            match ty.by_json(name) {
                Some(field) => match other.get(name) {
                    None => return Ok(false),
                    Some(other) if value == other => {}
                    Some(other) if value.is_null() || other.is_null() => return Ok(false),
                    Some(other) => {
                        if !equal(&Value::of(value, &field.decl)?, &Value::of(other, &field.decl)?)? {
                            return Ok(false);
                        }
                    }
                },
                None => {
                    if other.get(name).is_some_and(|other| value != other) {
                        return Ok(false);
                    }
                }
            }
        }
        return Ok(true);
    }
    for key in a.keys() {
        visit()?;
        match (a.lookup(&key)?, b.lookup(&key)?) {
            (Some(a), Some(b)) if equal(&a, &b)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}
