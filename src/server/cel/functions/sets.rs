//! Decides: lists as sets (`ext.Sets`).

use super::super::compare::equal;
use super::super::value::{Error, List, Value};
use super::cost::Cost;
use super::{Row, no_overload};

pub(super) const ROWS: &[Row] = &[
    ("sets.contains", "(list(A), list(A)) -> bool", Cost::Product, |v| {
        with(v, "sets.contains", |list, sub| each(sub, |item| holds(list, item)))
    }),
    ("sets.equivalent", "(list(A), list(A)) -> bool", Cost::Product, |v| {
        with(v, "sets.equivalent", |a, b| Ok(each(a, |item| holds(b, item))? && each(b, |item| holds(a, item))?))
    }),
    ("sets.intersects", "(list(A), list(A)) -> bool", Cost::Product, |v| {
        with(v, "sets.intersects", |a, b| Ok(!each(a, |item| Ok(!holds(b, item)?))?))
    }),
];

fn with<'a>(
    v: &[Value<'a>],
    name: &str,
    test: fn(&List<'a>, &List<'a>) -> Result<bool, Error>,
) -> Result<Value<'a>, Error> {
    match v {
        [Value::List(a), Value::List(b)] => Ok(Value::Bool(test(a, b)?)),
        _ => no_overload(name, v),
    }
}

fn each<'a>(list: &List<'a>, test: impl Fn(&Value<'a>) -> Result<bool, Error>) -> Result<bool, Error> {
    for item in list.items() {
        if !test(&item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds<'a>(list: &List<'a>, wanted: &Value<'a>) -> Result<bool, Error> {
    Ok(!each(list, |item| Ok(!equal(item, wanted)?))?)
}
