//! Decides: the keywords of numbers (`numberValidator` and `values.go`). Whole numbers are compared as such, with limits
//! cut to whole numbers: a maximum of 1.5 is one of 1.

use std::fmt;

use serde_json::Number;

use super::keywords::{Outcome, Walk};
use crate::api::field::FieldError;
use crate::api::trail::Trail;
use crate::server::crd::format::Format;
use crate::server::crd::shown::{Verbatim, float};
use crate::server::crd::structural::{Kind, Limits};

/// As upstream's decoder reads it.
#[derive(Clone, Copy)]
enum Value {
    Whole(i64),
    Float(f64),
}

impl Value {
    fn of(n: &Number) -> Self {
        n.as_i64().map_or_else(|| Self::Float(n.as_f64().unwrap_or_default()), Self::Whole)
    }

    #[expect(clippy::cast_precision_loss, reason = "as in Go")]
    fn float(self) -> f64 {
        match self {
            Self::Whole(i) => i as f64,
            Self::Float(f) => f,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Whole(i) => i.to_string(),
            Self::Float(f) => float(f),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

pub(super) fn check(walk: &Walk, n: &Number, kind: Kind, limits: Option<&Limits>, at: &Trail, out: &mut Outcome) {
    let value = Value::of(n);
    let checked = limits.and_then(|l| l.checked);
    let fits = |v: Value, what: &str, out: &mut Outcome| {
        let fits = fits(v, kind, checked);
        if !fits {
            out.push(|| {
                let format = match limits.filter(|_| checked.is_some()) {
                    Some(limits) => format!("with format {}", limits.format),
                    None => "(default format)".into(),
                };
                let name = if kind == Kind::Integer { "integer" } else { "number" };
                walk.somewhere(&format!("{what} value must be of type {name} {format} in {}", at.dotted()))
            });
        }
        fits
    };
    fits(value, "Checked", out);
    let Some(limits) = limits else { return };
    // A limit that the type cannot hold is an error, and compared as it is.
    let compared = |as_whole: bool| if as_whole { value } else { Value::Float(value.float()) };
    if let Some(factor) = limits.multiple_of {
        let compared = compared(fits(Value::Float(factor), "MultipleOf", out));
        multiple(walk, compared, factor, at, out);
    }
    if let Some(min) = limits.minimum {
        let compared = compared(fits(Value::Float(min), "Minimum boundary", out));
        let (limit, order) = bound(compared, min);
        if order.is_none_or(|o| o.is_lt() || (limits.exclusive_minimum && o.is_eq())) {
            let or_equal = if limits.exclusive_minimum { "" } else { " or equal to" };
            let detail = || format!("should be greater than{or_equal} {limit}");
            out.push(|| walk.invalid(at, &Verbatim(&value.text()), &detail()));
        }
    }
    if let Some(max) = limits.maximum {
        let compared = compared(fits(Value::Float(max), "Maximum boundary", out));
        let (limit, order) = bound(compared, max);
        if order.is_none_or(|o| o.is_gt() || (limits.exclusive_maximum && o.is_eq())) {
            let or_equal = if limits.exclusive_maximum { "" } else { " or equal to" };
            let detail = || format!("should be less than{or_equal} {limit}");
            out.push(|| walk.invalid(at, &Verbatim(&value.text()), &detail()));
        }
    }
}

/// What the value is compared with, and how it compares.
#[expect(clippy::cast_possible_truncation, reason = "limits of whole numbers are cut, as in Go")]
fn bound(value: Value, limit: f64) -> (Value, Option<std::cmp::Ordering>) {
    match value {
        Value::Whole(i) => (Value::Whole(limit as i64), Some(i.cmp(&(limit as i64)))),
        Value::Float(f) => (Value::Float(limit), f.partial_cmp(&limit)),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "factors of whole numbers are cut, as in Go")]
fn multiple(walk: &Walk, value: Value, factor: f64, at: &Trail, out: &mut Outcome) {
    let (factor, fits) = match value {
        Value::Whole(i) => {
            let factor = factor as i64;
            (Value::Whole(factor), (factor > 0).then(|| i % factor == 0))
        }
        Value::Float(f) => {
            let times = if factor < 1.0 { 1.0 / factor * f } else { f / factor };
            (Value::Float(factor), (factor > 0.0).then(|| is_json_integer(times)))
        }
    };
    match fits {
        Some(true) => {}
        Some(false) => {
            let detail = || format!("should be a multiple of {factor}");
            out.push(|| walk.invalid(at, &Verbatim(&value.text()), &detail()));
        }
        None => out.push(|| {
            let name = at.dotted();
            let message = format!("factor MultipleOf declared for {name} must be positive: {factor}");
            FieldError::invalid(&walk.path(&name), &Verbatim(&factor.text()), &message)
        }),
    }
}

/// Whether a number can be held by the type and format that the schema names.
#[expect(clippy::cast_possible_truncation, reason = "that is the question")]
fn fits(value: Value, kind: Kind, format: Option<Format>) -> bool {
    match (kind, format) {
        (Kind::Integer, Some(Format::Int32)) => match value {
            Value::Whole(i) => i32::try_from(i).is_ok(),
            Value::Float(f) => f.to_string().parse::<i32>().is_ok(),
        },
        (Kind::Integer, _) => match value {
            Value::Whole(_) => true,
            Value::Float(f) => f.to_string().parse::<i64>().is_ok(),
        },
        (Kind::Number, Some(Format::Float)) => (value.float() as f32).is_finite(),
        _ => true,
    }
}

/// `swag.IsFloat64AJSONInteger`: a whole number that JSON can carry, or so near to one that nobody can tell.
pub(super) fn is_json_integer(f: f64) -> bool {
    const MOST: f64 = 9_007_199_254_740_991.0;
    if !f.is_finite() || f.abs() > MOST {
        return false;
    }
    let whole = f.trunc();
    if f == whole {
        return true;
    }
    // Go converts to an unsigned number here, which a negative one is far from.
    let difference = if f < 0.0 { f.abs() } else { (f - whole).abs() };
    f >= 0.0 && whole != 0.0 && difference / (f.abs() + whole.abs()) < 1e-9
}
