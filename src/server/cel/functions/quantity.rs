//! Decides: quantities (`library.Quantity`).

use std::cmp::Ordering;
use std::sync::Arc;

use crate::api::quantity::{Format, Quantity};

use super::super::value::{Error, Value};
use super::cost::Cost;
use super::opaque::Opaque;
use super::{Row, failed, no_overload};

type Answer<'a> = Result<Value<'a>, Error>;

pub(super) const ROWS: &[Row] = &[
    ("quantity", "(string) -> quantity", Cost::Parse, |v| match &v[0] {
        Value::String(text) => match Quantity::parse(text) {
            Ok(quantity) => Ok(Value::Opaque(Arc::new(Opaque::Quantity(quantity)))),
            Err(error) => failed(error.to_string()),
        },
        _ => no_overload("quantity", v),
    }),
    ("isQuantity", "(string) -> bool", Cost::Parse, |v| match &v[0] {
        Value::String(text) => Ok(Value::Bool(Quantity::parse(text).is_ok())),
        _ => no_overload("isQuantity", v),
    }),
    ("sign", "quantity.() -> int", Cost::One, |v| {
        of(v, "sign", |q| {
            Ok(Value::Int(match q.cmp(&Quantity::default()) {
                Ordering::Less => -1,
                Ordering::Equal => 0,
                Ordering::Greater => 1,
            }))
        })
    }),
    ("isInteger", "quantity.() -> bool", Cost::One, |v| of(v, "isInteger", |q| Ok(Value::Bool(whole(q).is_some())))),
    ("asInteger", "quantity.() -> int", Cost::One, |v| {
        of(v, "asInteger", |q| {
            whole(q).map_or_else(|| failed("cannot convert value to integer"), |n| Ok(Value::Int(n)))
        })
    }),
    ("asApproximateFloat", "quantity.() -> double", Cost::One, |v| {
        of(v, "asApproximateFloat", |q| Ok(Value::Double(float(q))))
    }),
    ("add", "quantity.(quantity) -> quantity; quantity.(int) -> quantity", Cost::One, |v| {
        combined(v, "add", |a, b| a + b)
    }),
    ("sub", "quantity.(quantity) -> quantity; quantity.(int) -> quantity", Cost::One, |v| {
        combined(v, "sub", |a, b| a - b)
    }),
    ("isGreaterThan", "quantity.(quantity) -> bool", Cost::One, |v| {
        super::semver::compared(v, "isGreaterThan", |o| Value::Bool(o.is_gt()))
    }),
    ("isLessThan", "quantity.(quantity) -> bool", Cost::One, |v| {
        super::semver::compared(v, "isLessThan", |o| Value::Bool(o.is_lt()))
    }),
    ("compareTo", "quantity.(quantity) -> int", Cost::One, |v| {
        super::semver::compared(v, "compareTo", |o| Value::Int(o as i64))
    }),
];

pub(super) fn read(value: &Value<'_>) -> Option<Quantity> {
    match value {
        Value::Opaque(opaque) => match &**opaque {
            Opaque::Quantity(quantity) => Some(*quantity),
            _ => None,
        },
        _ => None,
    }
}

fn of<'a>(v: &[Value<'a>], name: &str, answer: fn(Quantity) -> Answer<'a>) -> Answer<'a> {
    read(&v[0]).map_or_else(|| no_overload(name, v), answer)
}

/// The integer that a quantity is, if it is one.
fn whole(quantity: Quantity) -> Option<i64> {
    let units = quantity.value();
    (Quantity::from_units(units, Format::Decimal) == quantity).then_some(units)
}

fn float(quantity: Quantity) -> f64 {
    match whole(quantity) {
        Some(units) => units as f64,
        None => {
            // The part below one, from the canonical text: thousandths are not always enough.
            let floor = quantity.value() - 1;
            let below = (quantity - Quantity::from_units(floor, Format::Decimal)).to_string();
            let split = below.find(|c: char| !c.is_ascii_digit()).unwrap_or(below.len());
            let scale = match &below[split..] {
                "m" | "e-3" => 1e-3,
                "u" | "e-6" => 1e-6,
                "n" | "e-9" => 1e-9,
                _ => 1.0,
            };
            floor as f64 + below[..split].parse::<f64>().unwrap_or(0.0) * scale
        }
    }
}

fn combined<'a>(v: &[Value<'a>], name: &str, combine: fn(Quantity, Quantity) -> Quantity) -> Answer<'a> {
    let other = match &v[1] {
        Value::Int(units) => Some(Quantity::from_units(*units, Format::Decimal)),
        other => read(other),
    };
    match (read(&v[0]), other) {
        (Some(a), Some(b)) => Ok(Value::Opaque(Arc::new(Opaque::Quantity(combine(a, b))))),
        _ => no_overload(name, v),
    }
}
