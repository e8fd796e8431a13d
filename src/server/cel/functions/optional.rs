//! Decides: optional values (`cel.OptionalTypes`).

use std::rc::Rc;

use super::super::value::{Error, Value};
use super::cost::Cost;
use super::{Row, failed, no_overload};

pub(super) const ROWS: &[Row] = &[
    ("optional.of", "(V) -> optional(V)", Cost::One, |v| Ok(Value::some(v[0].clone()))),
    ("optional.none", "() -> optional(V)", Cost::One, |_| Ok(Value::Optional(None))),
    ("optional.ofNonZeroValue", "(V) -> optional(V)", Cost::One, |v| {
        Ok(if is_zero(&v[0]) { Value::Optional(None) } else { Value::some(v[0].clone()) })
    }),
    ("hasValue", "optional(V).() -> bool", Cost::One, |v| match &v[0] {
        Value::Optional(value) => Ok(Value::Bool(value.is_some())),
        _ => no_overload("hasValue", v),
    }),
    ("value", "optional(V).() -> V", Cost::One, |v| match &v[0] {
        Value::Optional(Some(value)) => Ok((**value).clone()),
        Value::Optional(None) => failed("optional.none() dereference"),
        _ => no_overload("value", v),
    }),
    ("or", "optional(V).(optional(V)) -> optional(V)", Cost::One, |v| match (&v[0], &v[1]) {
        (Value::Optional(None), Value::Optional(_)) => Ok(v[1].clone()),
        (Value::Optional(Some(_)), _) => Ok(v[0].clone()),
        _ => no_overload("or", v),
    }),
    ("orValue", "optional(V).(V) -> V", Cost::One, |v| match &v[0] {
        Value::Optional(Some(value)) => Ok((**value).clone()),
        Value::Optional(None) => Ok(v[1].clone()),
        _ => no_overload("orValue", v),
    }),
    ("optional.unwrap", "(list(optional(V))) -> list(V)", Cost::One, unwrap),
    ("unwrapOpt", "list(optional(V)).() -> list(V)", Cost::One, unwrap),
    ("first", "list(V).() -> optional(V)", Cost::One, |v| match &v[0] {
        Value::List(list) => {
            let item = if list.is_empty() { None } else { Some(list.get(0)?) };
            Ok(Value::Optional(item.map(Rc::new)))
        }
        _ => no_overload("first", v),
    }),
    ("last", "list(V).() -> optional(V)", Cost::One, |v| match &v[0] {
        Value::List(list) => {
            let item = if list.is_empty() { None } else { Some(list.get(list.len() - 1)?) };
            Ok(Value::Optional(item.map(Rc::new)))
        }
        _ => no_overload("last", v),
    }),
];

fn unwrap<'a>(v: &mut [Value<'a>]) -> Result<Value<'a>, Error> {
    let Value::List(list) = &v[0] else { return no_overload("optional.unwrap", v) };
    let mut found = Vec::new();
    for item in list.items() {
        match item? {
            Value::Optional(Some(value)) => found.push((*value).clone()),
            Value::Optional(None) => {}
            other => return failed(format!("value {} is not optional", other.type_name())),
        }
    }
    Ok(Value::list(found))
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Optional(None) => true,
        Value::Bool(value) => !value,
        Value::Int(value) | Value::Duration(value) => *value == 0,
        Value::Uint(value) => *value == 0,
        Value::Double(value) => *value == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        _ => false,
    }
}
