//! Decides: the functions of lists: those of Kubernetes (`library.Lists`) and version 3 of `ext.Lists`.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::super::compare::{equal, order};
use super::super::types::Type;
use super::super::value::{Error, Key, List, Value};
use super::cost::Cost;
use super::operators::MAX_ITEMS;
use super::{Row, failed, no_overload, overloads};

type Answer<'a> = Result<Value<'a>, Error>;

pub(super) const ROWS: &[Row] = &[
    (
        "isSorted",
        "list(int).() -> bool; list(uint).() -> bool; list(double).() -> bool; list(bool).() -> bool; \
      list(duration).() -> bool; list(timestamp).() -> bool; list(string).() -> bool; list(bytes).() -> bool",
        Cost::Traverse,
        is_sorted,
    ),
    (
        "sum",
        "list(int).() -> int; list(uint).() -> uint; list(double).() -> double; list(duration).() -> duration",
        Cost::Traverse,
        sum,
    ),
    (
        "max",
        "list(int).() -> int; list(uint).() -> uint; list(double).() -> double; list(bool).() -> bool; \
      list(duration).() -> duration; list(timestamp).() -> timestamp; list(string).() -> string; \
      list(bytes).() -> bytes",
        Cost::Traverse,
        |v| extreme(v, "max", Ordering::is_gt),
    ),
    (
        "min",
        "list(int).() -> int; list(uint).() -> uint; list(double).() -> double; list(bool).() -> bool; \
      list(duration).() -> duration; list(timestamp).() -> timestamp; list(string).() -> string; \
      list(bytes).() -> bytes",
        Cost::Traverse,
        |v| extreme(v, "min", Ordering::is_lt),
    ),
    ("indexOf", "list(A).(A) -> int", Cost::Traverse, |v| index_of(v)),
    ("lastIndexOf", "list(A).(A) -> int", Cost::Traverse, |v| last_index_of(v)),
    ("slice", "list(A).(int, int) -> list(A)", Cost::Items, slice),
    ("flatten", "list(list(A)).() -> list(A); list(dyn).(int) -> list(dyn)", Cost::Items, flatten),
    ("distinct", "list(A).() -> list(A)", Cost::Product, distinct),
    ("reverse", "list(A).() -> list(A)", Cost::Items, reverse),
    ("lists.range", "(int) -> list(int)", Cost::Range, range),
    (
        "sort",
        "list(int).() -> list(int); list(uint).() -> list(uint); list(double).() -> list(double); \
      list(bool).() -> list(bool); list(duration).() -> list(duration); list(timestamp).() -> list(timestamp); \
      list(string).() -> list(string); list(bytes).() -> list(bytes)",
        Cost::Product,
        |v| match &v[0] {
            Value::List(list) => sorted(list, list),
            _ => no_overload("sort", v),
        },
    ),
];

fn is_sorted<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    let [Value::List(list)] = v else { return no_overload("isSorted", v) };
    let mut last: Option<Value<'a>> = None;
    for item in list.items() {
        let item = item?;
        if let Some(last) = &last
            && order(last, &item)? == Some(Ordering::Greater)
        {
            return Ok(Value::Bool(false));
        }
        last = Some(item);
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    let [Value::List(list)] = v else { return no_overload("sum", v) };
    let mut items = list.items();
    let Some(first) = items.next() else { return Ok(zero(list)) };
    let add = overloads("_+_")[0].call;
    items.try_fold(first?, |total, item| add(&mut [total, item?]))
}

/// The sum of nothing: of the type that the schema declares, or else of integers.
fn zero<'a>(list: &List<'a>) -> Value<'a> {
    match list {
        List::Json(_, Some(ty)) => match ty.element.ty {
            Type::Double => Value::Double(0.0),
            Type::Uint => Value::Uint(0),
            Type::Duration => Value::Duration(0),
            _ => Value::Int(0),
        },
        _ => Value::Int(0),
    }
}

fn extreme<'a>(v: &[Value<'a>], name: &str, better: fn(Ordering) -> bool) -> Answer<'a> {
    let [Value::List(list)] = v else { return no_overload(name, v) };
    let mut best: Option<Value<'a>> = None;
    for item in list.items() {
        let item = item?;
        let wins = match &best {
            None => true,
            Some(best) => order(&item, best)?.is_some_and(better),
        };
        if wins {
            best = Some(item);
        }
    }
    best.map_or_else(|| failed(format!("{name} called on empty list")), Ok)
}

pub(super) fn index_of<'a>(v: &[Value<'a>]) -> Answer<'a> {
    let [Value::List(list), wanted] = v else { return no_overload("indexOf", v) };
    for (index, item) in list.items().enumerate() {
        if equal(&item?, wanted)? {
            return Ok(Value::Int(i64::try_from(index).unwrap_or(i64::MAX)));
        }
    }
    Ok(Value::Int(-1))
}

pub(super) fn last_index_of<'a>(v: &[Value<'a>]) -> Answer<'a> {
    let [Value::List(list), wanted] = v else { return no_overload("lastIndexOf", v) };
    for index in (0..list.len()).rev() {
        if equal(&list.get(index)?, wanted)? {
            return Ok(Value::Int(i64::try_from(index).unwrap_or(i64::MAX)));
        }
    }
    Ok(Value::Int(-1))
}

fn slice<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    let [Value::List(list), Value::Int(start), Value::Int(end)] = v else { return no_overload("slice", v) };
    let len = list.len();
    if *start < 0 || *end < 0 {
        return failed(format!("cannot slice({start}, {end}), negative indexes not supported"));
    }
    if start > end {
        return failed(format!("cannot slice({start}, {end}), start index must be less than or equal to end index"));
    }
    match (usize::try_from(*start), usize::try_from(*end)) {
        (Ok(start), Ok(end)) if end <= len => {
            Ok(Value::list((start..end).map(|index| list.get(index)).collect::<Result<_, _>>()?))
        }
        _ => failed(format!("cannot slice({start}, {end}), list is length {len}")),
    }
}

fn flatten<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    let (list, depth) = match v {
        [Value::List(list)] => (list, 1),
        [Value::List(list), Value::Int(depth)] => (list, *depth),
        _ => return no_overload("flatten", v),
    };
    if depth < 0 {
        return failed("level must be non-negative");
    }
    let mut items = Vec::new();
    flatten_into(list, depth, &mut items)?;
    Ok(Value::list(items))
}

fn flatten_into<'a>(list: &List<'a>, depth: i64, items: &mut Vec<Value<'a>>) -> Result<(), Error> {
    for item in list.items() {
        match item? {
            Value::List(inner) if depth > 0 => flatten_into(&inner, depth - 1, items)?,
            other => items.push(other),
        }
        if items.len() > MAX_ITEMS {
            return Err(Error::CallLimit);
        }
    }
    Ok(())
}

fn distinct<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    let [Value::List(list)] = v else { return no_overload("distinct", v) };
    let mut keys = BTreeSet::new();
    let mut others: Vec<Value<'a>> = Vec::new();
    let mut items = Vec::new();
    for item in list.items() {
        let item = item?;
        // What can be a key is found at once; the cost allows a search for the rest.
        let new = match Key::of(item.clone()) {
            Some(key) => keys.insert(key),
            None => {
                let mut found = false;
                for other in &others {
                    found |= equal(other, &item)?;
                }
                if !found {
                    others.push(item.clone());
                }
                !found
            }
        };
        if new {
            items.push(item);
        }
    }
    Ok(Value::list(items))
}

fn reverse<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    let [Value::List(list)] = v else { return no_overload("reverse", v) };
    Ok(Value::list((0..list.len()).rev().map(|index| list.get(index)).collect::<Result<_, _>>()?))
}

fn range<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    let [Value::Int(end)] = v else { return no_overload("lists.range", v) };
    if usize::try_from(*end).is_ok_and(|end| end > MAX_ITEMS) {
        return Err(Error::CallLimit);
    }
    Ok(Value::list((0..*end).map(Value::Int).collect()))
}

/// The items in the order of the keys that stand beside them: `sort` and `sortBy`.
pub(in super::super) fn sorted<'a>(items: &List<'a>, keys: &List<'a>) -> Answer<'a> {
    let keys = keys.items().collect::<Result<Vec<_>, _>>()?;
    let scalar = |key: &Value<'a>| {
        !matches!(
            key,
            Value::List(_) | Value::Map(_) | Value::Null | Value::Optional(_) | Value::Opaque(_) | Value::Type(_)
        )
    };
    if let Some(first) = keys.first() {
        if !scalar(first) {
            return failed("list elements must be comparable");
        }
        if keys.iter().any(|key| key.type_name() != first.type_name()) {
            return failed("list elements must have the same type");
        }
    }
    let mut indexes: Vec<usize> = (0..keys.len()).collect();
    indexes.sort_by(|a, b| order(&keys[*a], &keys[*b]).ok().flatten().unwrap_or(Ordering::Equal));
    Ok(Value::list(indexes.into_iter().map(|index| items.get(index)).collect::<Result<_, _>>()?))
}
