//! Decides: how Go prints JSON values in messages: `%v` of numbers, `%q` of text, `encoding/json` of the rest.

use std::fmt::Write as _;

use serde_json::{Number, Value};

use crate::api::field::BadValue;

/// A value as the bad value of a field error.
pub struct Shown<'a>(pub &'a Value);

impl BadValue for Shown<'_> {
    fn shown(&self) -> String {
        match self.0 {
            Value::Number(n) => number(n),
            Value::String(s) => quoted(s),
            other => json(other),
        }
    }
}

/// A text as the bad value of a field error.
pub struct Text<'a>(pub &'a str);

impl BadValue for Text<'_> {
    fn shown(&self) -> String {
        quoted(self.0)
    }
}

/// A value as it is written, such as `null` and numbers that are formatted already.
pub struct Verbatim<'a>(pub &'a str);

impl BadValue for Verbatim<'_> {
    fn shown(&self) -> String {
        self.0.to_owned()
    }
}

/// `strconv.Quote`
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `json.Marshal`, which writes `<`, `>` and `&` so that they are safe in HTML.
#[must_use]
pub fn json(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return text;
    }
    // Outside of strings JSON has none of these.
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// `%v` of the number that upstream's decoder makes of it.
#[must_use]
pub fn number(n: &Number) -> String {
    match n.as_i64() {
        Some(i) => i.to_string(),
        None => float(n.as_f64().unwrap_or_default()),
    }
}

/// `%v` of a float: the shortest text that is read back as the same, with an exponent below 1e-4 and from 1e6 on.
#[must_use]
pub fn float(f: f64) -> String {
    let text = format!("{f:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    if exponent.parse::<i32>().is_ok_and(|e| (-4..6).contains(&e)) {
        return f.to_string();
    }
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(e) => ('-', e),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_print_as_go_prints_them() {
        for (value, expect) in [
            (json!("a\"b\u{1}"), r#""a\"b\x01""#),
            (json!(7), "7"),
            (json!(1.5), "1.5"),
            (json!(1.0), "1"),
            (json!(1e21), "1e+21"),
            (json!(0.00001), "1e-05"),
            (json!(123_456_789.25), "1.2345678925e+08"),
            (json!(u64::MAX), "1.8446744073709552e+19"),
            (json!(null), "null"),
            (json!({"a": "<b>"}), r#"{"a":"\u003cb\u003e"}"#),
        ] {
            assert_eq!(Shown(&value).shown(), expect);
        }
    }
}
