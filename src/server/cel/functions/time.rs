//! Decides: the functions of timestamps and durations.

use jiff::civil::DateTime;

use super::super::time::zone;
use super::super::value::{Error, Value};
use super::cost::Cost;
use super::{Row, no_overload};

const OF_TIME: &str = "timestamp.() -> int; timestamp.(string) -> int";
const OF_BOTH: &str = "timestamp.() -> int; timestamp.(string) -> int; duration.() -> int";

pub(super) const ROWS: &[Row] = &[
    ("getFullYear", OF_TIME, Cost::One, |v| part(v, "getFullYear", |t| t.year().into())),
    ("getMonth", OF_TIME, Cost::One, |v| part(v, "getMonth", |t| i64::from(t.month()) - 1)),
    ("getDayOfYear", OF_TIME, Cost::One, |v| part(v, "getDayOfYear", |t| i64::from(t.day_of_year()) - 1)),
    ("getDayOfMonth", OF_TIME, Cost::One, |v| part(v, "getDayOfMonth", |t| i64::from(t.day()) - 1)),
    ("getDate", OF_TIME, Cost::One, |v| part(v, "getDate", |t| t.day().into())),
    ("getDayOfWeek", OF_TIME, Cost::One, |v| part(v, "getDayOfWeek", |t| t.weekday().to_sunday_zero_offset().into())),
    ("getHours", OF_BOTH, Cost::One, |v| either(v, "getHours", 3_600_000_000_000, |t| t.hour().into())),
    ("getMinutes", OF_BOTH, Cost::One, |v| either(v, "getMinutes", 60_000_000_000, |t| t.minute().into())),
    ("getSeconds", OF_BOTH, Cost::One, |v| either(v, "getSeconds", 1_000_000_000, |t| t.second().into())),
    ("getMilliseconds", OF_BOTH, Cost::One, |v| either(v, "getMilliseconds", 1_000_000, |t| t.millisecond().into())),
];

/// A part of a time, in UTC or in the zone that is named.
fn part<'a>(v: &[Value<'a>], name: &str, of: fn(DateTime) -> i64) -> Result<Value<'a>, Error> {
    match v {
        [Value::Timestamp(time)] => Ok(Value::Int(of(time.civil(0)))),
        [Value::Timestamp(time), Value::String(name)] => Ok(Value::Int(of(time.civil(zone(name, *time)?)))),
        _ => no_overload(name, v),
    }
}

/// A part of a time, or a duration in that unit.
fn either<'a>(v: &[Value<'a>], name: &str, unit: i64, of: fn(DateTime) -> i64) -> Result<Value<'a>, Error> {
    match v {
        [Value::Duration(nanos)] => Ok(Value::Int(nanos / unit)),
        _ => part(v, name, of),
    }
}
