//! Decides: `'%s is %d'.format([…])` (`ext/formatting.go` of cel-go).

use std::fmt::Write as _;

use super::super::compare::visit;
use super::super::time;
use super::super::value::{Error, Map, Value};
use super::cost::Cost;
use super::operators::MAX_TEXT;
use super::{Row, failed, no_overload};

pub(super) const ROWS: &[Row] = &[("format", "string.(list(dyn)) -> string", Cost::Format, format)];

/// Digits after the point when the clause does not say.
const PRECISION: usize = 6;
/// The most digits that a clause may ask for.
const MAX_PRECISION: usize = 1_000;

fn format<'a>(v: &mut [Value<'a>]) -> Result<Value<'a>, Error> {
    let [Value::String(pattern), Value::List(arguments)] = v else { return no_overload("format", v) };
    let mut out = String::new();
    let mut rest: &str = pattern;
    let mut next = 0;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let clause = Clause::parse(&mut rest)?;
        if next >= arguments.len() {
            return failed(format!("index {next} out of range"));
        }
        let argument = arguments.get(next)?;
        next += 1;
        clause
            .render(&argument)
            .map(|text| out.push_str(&text))
            .map_err(|error| Error::Failed(format!("error during formatting: {error}").into()))?;
        if out.len() > MAX_TEXT {
            return Err(Error::CallLimit);
        }
    }
    out.push_str(rest);
    Ok(Value::text(&out))
}

struct Clause {
    verb: char,
    precision: Option<usize>,
}

impl Clause {
    fn parse(rest: &mut &str) -> Result<Self, Error> {
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            let digits = &after[..end];
            match digits.parse() {
                Ok(digits) if digits <= MAX_PRECISION => precision = Some(digits),
                Ok(_) => return failed(format!("precision {digits} is above the limit {MAX_PRECISION}")),
                Err(_) => {
                    return failed(format!(
                        "error during parsing: error while converting precision to integer: strconv.Atoi: parsing {digits:?}: invalid syntax"
                    ));
                }
            }
            *rest = &after[end..];
        }
        let mut characters = rest.chars();
        let Some(verb) = characters.next() else { return failed("unexpected end of string") };
        *rest = characters.as_str();
        if !"sdfebxXo".contains(verb) {
            return failed(format!("could not parse formatting clause: unrecognized formatting clause \"{verb}\""));
        }
        Ok(Self { verb, precision })
    }

    fn render(&self, value: &Value<'_>) -> Result<String, String> {
        let given = value.type_name();
        match (self.verb, value) {
            ('s', value) => text_of(value),
            ('d', Value::Int(number)) => Ok(number.to_string()),
            ('d', Value::Uint(number)) => Ok(number.to_string()),
            ('d', _) => Err(format!("decimal clause can only be used on integers, was given {given}")),
            ('f' | 'e', value) => {
                let name = if self.verb == 'f' { "fixed-point" } else { "scientific" };
                let Some(number) = double(value) else {
                    return Err(format!("{name} clause can only be used on doubles, was given {given}"));
                };
                let precision = self.precision.unwrap_or(PRECISION);
                Ok(if self.verb == 'f' { fixed(number, precision) } else { scientific(number, precision) })
            }
            ('b', Value::Int(number)) => Ok(signed(*number, |n| format!("{n:b}"))),
            ('b', Value::Uint(number)) => Ok(format!("{number:b}")),
            ('b', Value::Bool(value)) => Ok(i32::from(*value).to_string()),
            ('b', _) => Err(format!("only integers and bools can be formatted as binary, was given {given}")),
            ('o', Value::Int(number)) => Ok(signed(*number, |n| format!("{n:o}"))),
            ('o', Value::Uint(number)) => Ok(format!("{number:o}")),
            ('o', _) => Err(format!("octal clause can only be used on integers, was given {given}")),
            (verb, value) => {
                let text = match value {
                    Value::Int(number) => signed(*number, |n| format!("{n:x}")),
                    Value::Uint(number) => format!("{number:x}"),
                    Value::String(text) => hex(text.as_bytes()),
                    Value::Bytes(bytes) => hex(bytes),
                    _ => {
                        let what = "only integers, byte buffers, and strings can be formatted as hex";
                        return Err(format!("{what}, was given {given}"));
                    }
                };
                Ok(if verb == 'X' { text.to_uppercase() } else { text })
            }
        }
    }
}

/// Go writes the sign, not the complement.
fn signed(number: i64, digits: fn(u64) -> String) -> String {
    format!("{}{}", if number < 0 { "-" } else { "" }, digits(number.unsigned_abs()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number),
        Value::String(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn special(number: f64) -> Option<String> {
    match number {
        n if n.is_nan() => Some("NaN".into()),
        n if n.is_infinite() => Some(if n > 0.0 { "∞" } else { "-∞" }.into()),
        _ => None,
    }
}

/// In the locale `en_US`, which puts commas between thousands.
fn fixed(number: f64, precision: usize) -> String {
    if let Some(text) = special(number) {
        return text;
    }
    let text = format!("{:.precision$}", number.abs());
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(w, f)| (w, Some(f)));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if number.is_sign_negative() && number != 0.0 { "-" } else { "" };
    fraction.map_or_else(|| format!("{sign}{grouped}"), |fraction| format!("{sign}{grouped}.{fraction}"))
}

/// As `message.Printer` writes it in the locale `en_US`: `1.052033 × 10⁰³`.
fn scientific(number: f64, precision: usize) -> String {
    if let Some(text) = special(number) {
        return text;
    }
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(("", exponent), |rest| ("⁻", rest));
    let raised: String = format!("{exponent:0>2}")
        .chars()
        .map(|digit| "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(digit.to_digit(10).unwrap_or(0) as usize).unwrap_or(digit))
        .collect();
    format!("{digits}\u{202f}×\u{202f}10{sign}{raised}")
}

/// `%s`
fn text_of(value: &Value<'_>) -> Result<String, String> {
    Ok(match value {
        Value::String(text) => text.to_string(),
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Double(number) => super::conversions::render_double(*number),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Timestamp(time) => time.to_string(),
        Value::Duration(nanos) => time::render_duration(*nanos),
        Value::Type(name) => name.to_string(),
        Value::List(list) => {
            let items: Result<Vec<String>, String> =
                list.items().map(|item| literal(&item.map_err(|e| e.to_string())?)).collect();
            bounded(format!("[{}]", items?.join(", ")))?
        }
        Value::Map(map) => map_text(map)?,
        other => {
            let what = "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, \
                        durations, and timestamps";
            return Err(format!("{what}, was given {}", other.type_name()));
        }
    })
}

/// What holds the same twice, and that twice again, is stopped while it can be held.
fn bounded(text: String) -> Result<String, String> {
    if text.len() > MAX_TEXT { Err("the text is too long".into()) } else { Ok(text) }
}

fn map_text(map: &Map<'_>) -> Result<String, String> {
    let mut entries = Vec::new();
    for key in map.keys() {
        let value = map.lookup(&key).map_err(|e| e.to_string())?.unwrap_or(Value::Null);
        entries.push((literal(&key)?, literal(&value)?));
    }
    entries.sort();
    let entries: Vec<String> = entries.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
    bounded(format!("{{{}}}", entries.join(", ")))
}

/// As it stands in a list or map: as CEL would write it.
fn literal(value: &Value<'_>) -> Result<String, String> {
    visit().map_err(|error| error.to_string())?;
    Ok(match value {
        Value::String(text) => format!("{:?}", &**text),
        Value::Bytes(bytes) => format!("b{:?}", String::from_utf8_lossy(bytes)),
        Value::Timestamp(_) => format!("timestamp({:?})", text_of(value)?),
        Value::Duration(_) => format!("duration({:?})", text_of(value)?),
        Value::Double(number) => match special(*number) {
            Some(_) => format!("{:?}", text_of(value)?),
            None => format!("{number:.PRECISION$}"),
        },
        other => text_of(other)?,
    })
}
