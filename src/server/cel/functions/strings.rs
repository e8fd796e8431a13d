//! Decides: the functions of strings: the standard ones and version 2 of `ext.Strings`. Positions count characters.

use super::super::value::{Error, Text, Value};
use super::cost::Cost;
use super::operators::{MAX_ITEMS, MAX_TEXT};
use super::{Row, failed, no_overload};

type Answer<'a> = Result<Value<'a>, Error>;

pub(super) const ROWS: &[Row] = &[
    ("contains", "string.(string) -> bool", Cost::Contains, |v| test(v, "contains", |a, b| a.contains(b))),
    ("startsWith", "string.(string) -> bool", Cost::Affix, |v| test(v, "startsWith", |a, b| a.starts_with(b))),
    ("endsWith", "string.(string) -> bool", Cost::Affix, |v| test(v, "endsWith", |a, b| a.ends_with(b))),
    ("charAt", "string.(int) -> string", Cost::One, char_at),
    ("lowerAscii", "string.() -> string", Cost::Same, |v| changed(v, "lowerAscii", str::to_ascii_lowercase)),
    ("upperAscii", "string.() -> string", Cost::Same, |v| changed(v, "upperAscii", str::to_ascii_uppercase)),
    ("trim", "string.() -> string", Cost::Same, |v| changed(v, "trim", |text| text.trim_matches(is_space).to_owned())),
    ("replace", "string.(string, string) -> string; string.(string, string, int) -> string", Cost::Replace, replace),
    ("split", "string.(string) -> list(string); string.(string, int) -> list(string)", Cost::Split, split),
    ("substring", "string.(int) -> string; string.(int, int) -> string", Cost::Same, substring),
    ("join", "list(string).() -> string; list(string).(string) -> string", Cost::Join, join),
    ("strings.quote", "(string) -> string", Cost::Quote, |v| changed(v, "strings.quote", quoted)),
    ("indexOf", "string.(string) -> int; string.(string, int) -> int", Cost::Traverse, index_of),
    ("lastIndexOf", "string.(string) -> int; string.(string, int) -> int", Cost::Traverse, last_index_of),
];

fn test<'a>(v: &[Value<'a>], name: &str, holds: fn(&str, &str) -> bool) -> Answer<'a> {
    match v {
        [Value::String(text), Value::String(other)] => Ok(Value::Bool(holds(text, other))),
        _ => no_overload(name, v),
    }
}

fn changed<'a>(v: &[Value<'a>], name: &str, change: fn(&str) -> String) -> Answer<'a> {
    match v {
        [Value::String(text)] => Ok(Value::String(Text::Owned(change(text).into()))),
        _ => no_overload(name, v),
    }
}

/// What Go's `strings.TrimSpace` trims.
fn is_space(c: char) -> bool {
    c.is_whitespace()
}

/// The byte at which a character begins; the end is a position too.
fn byte_of(text: &str, position: i64) -> Option<usize> {
    let position = usize::try_from(position).ok()?;
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(position)
}

fn out_of_range<'a>(position: i64) -> Answer<'a> {
    failed(format!("index out of range: {position}"))
}

/// A part of a string; borrowed as the string is.
fn part<'a>(text: &Text<'a>, from: usize, to: usize) -> Value<'a> {
    Value::String(match text {
        Text::Borrowed(text) => Text::Borrowed(&text[from..to]),
        Text::Owned(text) => Text::Owned(text[from..to].into()),
    })
}

fn char_at<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    let [Value::String(text), Value::Int(position)] = v else { return no_overload("charAt", v) };
    let Some(from) = byte_of(text, *position) else { return out_of_range(*position) };
    let to = from + text[from..].chars().next().map_or(0, char::len_utf8);
    Ok(part(text, from, to))
}

fn substring<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    match v {
        [Value::String(text), Value::Int(start)] => match byte_of(text, *start) {
            Some(from) => Ok(part(text, from, text.len())),
            None => out_of_range(*start),
        },
        [Value::String(text), Value::Int(start), Value::Int(end)] => {
            if start > end {
                return failed(format!("invalid substring range. start: {start}, end: {end}"));
            }
            let Some(from) = byte_of(text, *start) else { return out_of_range(*start) };
            let Some(to) = byte_of(text, *end) else { return out_of_range(*end) };
            Ok(part(text, from, to))
        }
        _ => no_overload("substring", v),
    }
}

/// The position of a byte, in characters.
fn position(text: &str, byte: usize) -> i64 {
    i64::try_from(text[..byte].chars().count()).unwrap_or(i64::MAX)
}

fn index_of<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    let (text, sub, offset) = match v {
        [Value::List(_), ..] => return super::lists::index_of(v),
        [Value::String(text), Value::String(sub)] => (text, sub, None),
        [Value::String(text), Value::String(sub), Value::Int(offset)] => (text, sub, Some(*offset)),
        _ => return no_overload("indexOf", v),
    };
    if sub.is_empty() {
        return Ok(Value::Int(offset.unwrap_or(0)));
    }
    let from = match offset {
        // Nothing is at 0 of nothing, which is an error only for who asked for 0.
        None => 0,
        Some(offset) => match byte_of(text, offset).filter(|byte| *byte < text.len()) {
            Some(byte) => byte,
            None => return out_of_range(offset),
        },
    };
    if text.is_empty() {
        return Ok(Value::Int(-1));
    }
    Ok(Value::Int(text[from..].find(&**sub).map_or(-1, |byte| position(text, from + byte))))
}

fn last_index_of<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    let (text, sub, offset) = match v {
        [Value::List(_), ..] => return super::lists::last_index_of(v),
        [Value::String(text), Value::String(sub)] => (text, sub, None),
        [Value::String(text), Value::String(sub), Value::Int(offset)] => (text, sub, Some(*offset)),
        _ => return no_overload("lastIndexOf", v),
    };
    if sub.is_empty() {
        return Ok(Value::Int(offset.unwrap_or_else(|| position(text, text.len()))));
    }
    let last = match offset {
        None => text.len(),
        Some(offset) => match byte_of(text, offset).filter(|byte| *byte < text.len()) {
            Some(byte) => byte,
            None => return out_of_range(offset),
        },
    };
    // A match may begin at the offset and go on behind it.
    let mut end = (last + sub.len()).min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Ok(Value::Int(text[..end].rfind(&**sub).map_or(-1, |byte| position(text, byte))))
}

fn replace<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    let (text, from, to, limit) = match v {
        [Value::String(text), Value::String(from), Value::String(to)] => (text, from, to, usize::MAX),
        [Value::String(text), Value::String(from), Value::String(to), Value::Int(limit)] => {
            (text, from, to, usize::try_from(*limit).unwrap_or(usize::MAX))
        }
        _ => return no_overload("replace", v),
    };
    let count = if from.is_empty() { text.chars().count() + 1 } else { text.matches(&**from).count() };
    if count.min(limit).saturating_mul(to.len()) > MAX_TEXT {
        return Err(Error::CallLimit);
    }
    Ok(Value::text(&text.replacen(&**from, to, limit)))
}

fn split<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    let (text, separator, limit) = match v {
        [Value::String(text), Value::String(separator)] => (text, separator, -1),
        [Value::String(text), Value::String(separator), Value::Int(limit)] => (text, separator, *limit),
        _ => return no_overload("split", v),
    };
    let mut ends = Vec::new();
    let mut start = 0;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if limit == 0 {
        return Ok(Value::list(Vec::new()));
    }
    if separator.is_empty() {
        // Character by character; the rest is the last part.
        for (at, _) in text.char_indices().skip(1) {
            if ends.len() + 1 >= limit {
                break;
            }
            ends.push(part(text, start, at));
            start = at;
        }
        if !text.is_empty() {
            ends.push(part(text, start, text.len()));
        }
        return Ok(Value::list(ends));
    }
    for (at, found) in text.match_indices(&**separator) {
        if ends.len() + 1 >= limit {
            break;
        }
        if ends.len() > MAX_ITEMS {
            return Err(Error::CallLimit);
        }
        ends.push(part(text, start, at));
        start = at + found.len();
    }
    ends.push(part(text, start, text.len()));
    Ok(Value::list(ends))
}

fn join<'a>(v: &mut [Value<'a>]) -> Answer<'a> {
    let (list, separator) = match v {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(separator)] => (list, &**separator),
        _ => return no_overload("join", v),
    };
    let mut text = String::new();
    for (index, item) in list.items().enumerate() {
        if index > 0 {
            text.push_str(separator);
        }
        match item? {
            Value::String(item) => text.push_str(&item),
            other => return failed(format!("unsupported type conversion from '{}' to string", other.type_name())),
        }
        if text.len() > MAX_TEXT {
            return Err(Error::CallLimit);
        }
    }
    Ok(Value::text(&text))
}

/// As a CEL string literal.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
