//! Decides: the operators (`common/stdlib` and `common/types` of cel-go). `&&`, `||`, `?:` and the loops are not functions: they
//! do not look at all of their arguments.

use std::cmp::Ordering;
use std::rc::Rc;

use serde_json::Value as Json;

use super::super::compare::{equal, key_of, order};
use super::super::time;
use super::super::types::ListKind;
use super::super::value::{Error, Key, List, Text, Value};
use super::cost::Cost;
use super::{Row, failed, no_overload};

type Answer<'a> = Result<Value<'a>, Error>;

/// The most items that a list may get, and characters that a string may: what upstream can share and we copy.
pub(super) const MAX_ITEMS: usize = 1_000_000;
pub(super) const MAX_TEXT: usize = 50_000_000;

const COMPARED: &str = "(bool, bool) -> bool; (int, int) -> bool; (int, double) -> bool; (int, uint) -> bool; \
    (uint, uint) -> bool; (uint, double) -> bool; (uint, int) -> bool; (double, double) -> bool; \
    (double, int) -> bool; (double, uint) -> bool; (timestamp, timestamp) -> bool; (duration, duration) -> bool";
const COMPARED_THROUGH: &str = "(string, string) -> bool; (bytes, bytes) -> bool";

pub(super) const ROWS: &[Row] = &[
    // Run by the evaluator, which evaluates one of the two only.
    ("_?_:_", "(bool, A, A) -> A", Cost::One, |_| Err(Error::no_overload())),
    ("_==_", "(A, A) -> bool", Cost::Compare, |v| Ok(Value::Bool(equal(&v[0], &v[1])?))),
    ("_!=_", "(A, A) -> bool", Cost::Compare, |v| Ok(Value::Bool(!equal(&v[0], &v[1])?))),
    ("_<_", COMPARED, Cost::One, |v| compared(v, Ordering::is_lt)),
    ("_<_", COMPARED_THROUGH, Cost::Compare, |v| compared(v, Ordering::is_lt)),
    ("_<=_", COMPARED, Cost::One, |v| compared(v, Ordering::is_le)),
    ("_<=_", COMPARED_THROUGH, Cost::Compare, |v| compared(v, Ordering::is_le)),
    ("_>_", COMPARED, Cost::One, |v| compared(v, Ordering::is_gt)),
    ("_>_", COMPARED_THROUGH, Cost::Compare, |v| compared(v, Ordering::is_gt)),
    ("_>=_", COMPARED, Cost::One, |v| compared(v, Ordering::is_ge)),
    ("_>=_", COMPARED_THROUGH, Cost::Compare, |v| compared(v, Ordering::is_ge)),
    (
        "_+_",
        "(int, int) -> int; (uint, uint) -> uint; (double, double) -> double; (duration, duration) -> duration; \
         (duration, timestamp) -> timestamp; (timestamp, duration) -> timestamp",
        Cost::One,
        add,
    ),
    ("_+_", "(string, string) -> string; (bytes, bytes) -> bytes", Cost::Concat, add),
    ("_+_", "(list(A), list(A)) -> list(A)", Cost::Append, add),
    (
        "_-_",
        "(int, int) -> int; (uint, uint) -> uint; (double, double) -> double; (duration, duration) -> duration; \
         (timestamp, duration) -> timestamp; (timestamp, timestamp) -> duration",
        Cost::One,
        subtract,
    ),
    ("_*_", "(int, int) -> int; (uint, uint) -> uint; (double, double) -> double", Cost::One, multiply),
    ("_/_", "(int, int) -> int; (uint, uint) -> uint; (double, double) -> double", Cost::One, divide),
    ("_%_", "(int, int) -> int; (uint, uint) -> uint", Cost::One, modulo),
    ("-_", "(int) -> int; (double) -> double", Cost::One, negate),
    ("!_", "(bool) -> bool", Cost::One, |v| match v[0] {
        Value::Bool(value) => Ok(Value::Bool(!value)),
        _ => Err(Error::no_overload()),
    }),
    (
        "_[_]",
        "(list(A), int) -> A; (map(K, V), K) -> V; (optional(list(A)), int) -> optional(A); \
         (optional(map(K, V)), K) -> optional(V)",
        Cost::One,
        |v| index(&v[0], &v[1]),
    ),
    (
        "_[?_]",
        "(list(A), int) -> optional(A); (map(K, V), K) -> optional(V); (optional(list(A)), int) -> optional(A); \
         (optional(map(K, V)), K) -> optional(V)",
        Cost::One,
        |v| optional_index(&v[0], &v[1]),
    ),
    ("@in", "(A, list(A)) -> bool", Cost::Member, member),
    ("@in", "(K, map(K, V)) -> bool", Cost::One, member),
    (
        "size",
        "(string) -> int; (bytes) -> int; (list(A)) -> int; (map(K, V)) -> int; string.() -> int; bytes.() -> int; \
         list(A).() -> int; map(K, V).() -> int",
        Cost::One,
        size,
    ),
];

fn compared<'a>(v: &[Value<'a>], holds: fn(Ordering) -> bool) -> Answer<'a> {
    Ok(Value::Bool(order(&v[0], &v[1])?.is_some_and(holds)))
}

pub(in super::super) fn integer_overflow<'a>() -> Answer<'a> {
    failed("integer overflow")
}

fn int<'a>(value: Option<i64>) -> Answer<'a> {
    value.map_or_else(integer_overflow, |v| Ok(Value::Int(v)))
}

fn uint<'a>(value: Option<u64>) -> Answer<'a> {
    value.map_or_else(|| failed("unsigned integer overflow"), |v| Ok(Value::Uint(v)))
}

fn duration<'a>(value: Option<i64>) -> Answer<'a> {
    value.map_or_else(|| failed("duration overflow"), |v| Ok(Value::Duration(v)))
}

fn add<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    match (&v[0], &v[1]) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_add(*b)),
        (Value::String(a), Value::String(b)) => {
            if a.len() + b.len() > MAX_TEXT {
                return Err(Error::CallLimit);
            }
            Ok(Value::String(Text::Owned([&**a, &**b].concat().into())))
        }
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_add(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::Duration(a), Value::Duration(b)) => duration(a.checked_add(*b)),
        (Value::Timestamp(time), Value::Duration(by)) | (Value::Duration(by), Value::Timestamp(time)) => {
            time::shift(*time, i128::from(*by)).map(Value::Timestamp)
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            if a.len() + b.len() > MAX_TEXT {
                return Err(Error::CallLimit);
            }
            Ok(Value::Bytes([&**a, &**b].concat().into()))
        }
        (Value::List(a), Value::List(b)) => append(a, b),
        _ => Err(Error::no_overload()),
    }
}

/// Lists one after the other; a set or a map of a schema keeps what it has and takes what is new.
fn append<'a>(a: &List<'a>, b: &List<'a>) -> Answer<'a> {
    if a.len() + b.len() > MAX_ITEMS {
        return Err(Error::CallLimit);
    }
    let mut items = a.items().collect::<Result<Vec<_>, _>>()?;
    let kind = if let List::Json(_, Some(ty)) = a { &ty.kind } else { &ListKind::Atomic };
    match (kind, a) {
        (ListKind::Set, _) => {
            for item in b.items() {
                let item = item?;
                let mut there = false;
                for other in &items {
                    there |= equal(other, &item)?;
                }
                if !there {
                    items.push(item);
                }
            }
        }
        (ListKind::Map(keys), List::Json(own, _)) => {
            let mut found: Vec<String> = own.iter().map(|item| key_of(item, keys)).collect();
            for item in b.items() {
                let item = item?;
                let key = key_of(&item.to_json().unwrap_or(Json::Null), keys);
                match found.iter().position(|other| *other == key) {
                    Some(index) => items[index] = item,
                    None => {
                        found.push(key);
                        items.push(item);
                    }
                }
            }
        }
        _ => {
            for item in b.items() {
                items.push(item?);
            }
        }
    }
    Ok(Value::list(items))
}

fn subtract<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    match (&v[0], &v[1]) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_sub(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_sub(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Duration(a), Value::Duration(b)) => duration(a.checked_sub(*b)),
        (Value::Timestamp(time), Value::Duration(by)) => time::shift(*time, -i128::from(*by)).map(Value::Timestamp),
        (Value::Timestamp(a), Value::Timestamp(b)) => duration(i64::try_from(a.nanoseconds() - b.nanoseconds()).ok()),
        _ => Err(Error::no_overload()),
    }
}

fn multiply<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    match (&v[0], &v[1]) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_mul(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_mul(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        _ => Err(Error::no_overload()),
    }
}

fn divide<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    match (&v[0], &v[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => failed("division by zero"),
        (Value::Int(a), Value::Int(b)) => int(a.checked_div(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_div(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        _ => Err(Error::no_overload()),
    }
}

fn modulo<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    match (&v[0], &v[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => failed("modulus by zero"),
        (Value::Int(a), Value::Int(b)) => int(a.checked_rem(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_rem(*b)),
        _ => Err(Error::no_overload()),
    }
}

fn negate<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    match v[0] {
        Value::Int(a) => int(a.checked_neg()),
        Value::Double(a) => Ok(Value::Double(-a)),
        _ => Err(Error::no_overload()),
    }
}

/// `container[key]`
pub(in super::super) fn index<'a>(container: &Value<'a>, key: &Value<'a>) -> Answer<'a> {
    match (container, key) {
        (Value::List(list), key) => {
            let Some(index) = whole(key) else {
                return failed(format!("unsupported index type '{}' in list", key.type_name()));
            };
            match usize::try_from(index).ok().filter(|index| *index < list.len()) {
                Some(index) => list.get(index),
                None => failed(format!("index out of bounds: {index}")),
            }
        }
        (Value::Map(map), key) => match map.lookup(key)? {
            Some(value) => Ok(value),
            None => Err(Error::no_key(&shown_key(key))),
        },
        (Value::Optional(_), _) => optional_index(container, key),
        (Value::Lazy(lazy), Value::String(name)) => lazy.field(name).unwrap_or_else(|| Err(Error::no_key(&&**name))),
        _ => Err(Error::no_overload()),
    }
}

/// `container[?key]`: what is not there is no error.
pub(in super::super) fn optional_index<'a>(container: &Value<'a>, key: &Value<'a>) -> Answer<'a> {
    let found = match (container, key) {
        (Value::Optional(None), _) => None,
        (Value::Optional(Some(inner)), key) => return optional_index(inner, key),
        (Value::List(list), key) => match whole(key).map(usize::try_from) {
            Some(Ok(index)) if index < list.len() => Some(list.get(index)?),
            Some(_) => None,
            None => return failed(format!("unsupported index type '{}' in list", key.type_name())),
        },
        (Value::Map(map), key) => map.lookup(key)?,
        (Value::Lazy(lazy), Value::String(name)) => lazy.field(name).transpose()?,
        _ => return Err(Error::no_overload()),
    };
    Ok(Value::Optional(found.map(Rc::new)))
}

/// An index, which may come as any number that is whole.
fn whole(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::Int(value) => Some(*value),
        Value::Uint(value) => i64::try_from(*value).ok(),
        Value::Double(value) if value.fract() == 0.0 && value.abs() < 9.0e18 => Some(*value as i64),
        _ => None,
    }
}

fn shown_key(key: &Value<'_>) -> String {
    match Key::of(key.clone()) {
        Some(key) => key.to_string(),
        None => key.type_name().to_owned(),
    }
}

fn member<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    match (&v[0], &v[1]) {
        (item, Value::List(list)) => {
            for other in list.items() {
                if equal(&other?, item)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        (key, Value::Map(map)) => Ok(Value::Bool(map.has(key)?)),
        _ => Err(Error::no_overload()),
    }
}

fn size<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    match &v[0] {
        Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => {
            Ok(Value::Int(i64::try_from(v[0].size()).unwrap_or(i64::MAX)))
        }
        _ => no_overload("size", v),
    }
}
