//! Decides: conversions between types, and `type`.

use std::sync::Arc;

use super::super::time;
use super::super::value::{Error, Value};
use super::cost::Cost;
use super::opaque::Opaque;
use super::operators::integer_overflow;
use super::{Row, failed};
use crate::api::duration;

pub(super) const ROWS: &[Row] = &[
    ("type", "(A) -> type", Cost::One, |v| Ok(Value::Type(v[0].type_name().into()))),
    ("dyn", "(A) -> dyn", Cost::One, |v| Ok(v[0].clone())),
    ("bool", "(bool) -> bool; (string) -> bool", Cost::One, to_bool),
    (
        "int",
        "(int) -> int; (double) -> int; (duration) -> int; (string) -> int; (timestamp) -> int; (uint) -> int",
        Cost::One,
        to_int,
    ),
    ("uint", "(uint) -> uint; (double) -> uint; (int) -> uint; (string) -> uint", Cost::One, to_uint),
    ("double", "(double) -> double; (int) -> double; (string) -> double; (uint) -> double", Cost::One, to_double),
    (
        "string",
        "(string) -> string; (bool) -> string; (double) -> string; (duration) -> string; (int) -> string; \
         (timestamp) -> string; (uint) -> string; (ip) -> string; (cidr) -> string",
        Cost::One,
        to_string,
    ),
    ("string", "(bytes) -> string", Cost::FromBytes, to_string),
    ("bytes", "(bytes) -> bytes", Cost::One, to_bytes),
    ("bytes", "(string) -> bytes", Cost::ToBytes, to_bytes),
    ("timestamp", "(timestamp) -> timestamp; (int) -> timestamp; (string) -> timestamp", Cost::One, to_timestamp),
    ("duration", "(duration) -> duration; (int) -> duration; (string) -> duration", Cost::One, to_duration),
];

type Answer<'a> = Result<Value<'a>, Error>;

fn wrong<'a>(value: &Value<'a>, to: &str) -> Answer<'a> {
    failed(format!("type conversion error from '{}' to '{to}'", value.type_name()))
}

fn to_bool<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    match &v[0] {
        Value::Bool(value) => Ok(Value::Bool(*value)),
        Value::String(text) => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => wrong(&v[0], "bool"),
        },
        other => wrong(other, "bool"),
    }
}

fn to_int<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    match &v[0] {
        Value::Int(value) => Ok(Value::Int(*value)),
        Value::Uint(value) => i64::try_from(*value).map_or_else(|_| integer_overflow(), |v| Ok(Value::Int(v))),
        // The ends of the range are no doubles, so both are out (`doubleToInt64Checked`).
        Value::Double(value) if *value > -9_223_372_036_854_775_808.0 && *value < 9_223_372_036_854_775_807.0 => {
            Ok(Value::Int(*value as i64))
        }
        Value::Double(_) => integer_overflow(),
        Value::String(text) => text.parse().map_or_else(|_| wrong(&v[0], "int"), |v| Ok(Value::Int(v))),
        Value::Timestamp(time) => Ok(Value::Int(time.seconds())),
        Value::Duration(nanos) => Ok(Value::Int(*nanos)),
        other => wrong(other, "int"),
    }
}

fn to_uint<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    let overflow = || failed("unsigned integer overflow");
    match &v[0] {
        Value::Uint(value) => Ok(Value::Uint(*value)),
        Value::Int(value) => u64::try_from(*value).map_or_else(|_| overflow(), |v| Ok(Value::Uint(v))),
        Value::Double(value) if *value >= 0.0 && *value < 18_446_744_073_709_551_615.0 => {
            Ok(Value::Uint(*value as u64))
        }
        Value::Double(_) => overflow(),
        Value::String(text) => text.parse().map_or_else(|_| wrong(&v[0], "uint"), |v| Ok(Value::Uint(v))),
        other => wrong(other, "uint"),
    }
}

fn to_double<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    match &v[0] {
        Value::Double(value) => Ok(Value::Double(*value)),
        Value::Int(value) => Ok(Value::Double(*value as f64)),
        Value::Uint(value) => Ok(Value::Double(*value as f64)),
        Value::String(text) => text.parse().map_or_else(|_| wrong(&v[0], "double"), |v| Ok(Value::Double(v))),
        other => wrong(other, "double"),
    }
}

/// Go's `strconv.FormatFloat(f, 'g', -1, 64)`, as `string(double)` has it.
pub(super) fn render_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(("+", exponent), |e| ("-", e));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{value}")
}

fn to_string<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    Ok(match &v[0] {
        Value::String(text) => Value::String(text.clone()),
        Value::Bool(value) => Value::text(&value.to_string()),
        Value::Int(value) => Value::text(&value.to_string()),
        Value::Uint(value) => Value::text(&value.to_string()),
        Value::Double(value) => Value::text(&render_double(*value)),
        Value::Timestamp(time) => Value::text(&time.to_string()),
        Value::Duration(nanos) => Value::text(&time::render_duration(*nanos)),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::text(text),
            Err(_) => return failed("invalid UTF-8 in bytes, cannot convert to string"),
        },
        Value::Opaque(opaque) => match &**opaque {
            Opaque::Ip(ip) => Value::text(&ip.to_string()),
            Opaque::Cidr(cidr) => Value::text(&cidr.to_string()),
            _ => return wrong(&v[0], "string"),
        },
        other => return wrong(other, "string"),
    })
}

fn to_bytes<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    match &v[0] {
        Value::Bytes(bytes) => Ok(Value::Bytes(Arc::clone(bytes))),
        Value::String(text) => Ok(Value::Bytes(text.as_bytes().into())),
        other => wrong(other, "bytes"),
    }
}

fn to_timestamp<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    match &v[0] {
        Value::Timestamp(time) => Ok(Value::Timestamp(*time)),
        Value::Int(seconds) => time::of_seconds(*seconds).map(Value::Timestamp),
        Value::String(text) => match time::parse(text) {
            Some(time) => Ok(Value::Timestamp(time)),
            None => wrong(&v[0], "google.protobuf.Timestamp"),
        },
        other => wrong(other, "google.protobuf.Timestamp"),
    }
}

fn to_duration<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    match &v[0] {
        Value::Duration(nanos) => Ok(Value::Duration(*nanos)),
        Value::Int(nanos) => Ok(Value::Duration(*nanos)),
        Value::String(text) => match duration::parse(text) {
            Ok(nanos) => Ok(Value::Duration(nanos)),
            Err(_) => wrong(&v[0], "google.protobuf.Duration"),
        },
        other => wrong(other, "google.protobuf.Duration"),
    }
}
