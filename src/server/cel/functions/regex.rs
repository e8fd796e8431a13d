//! Decides: regular expressions: `matches`, `find` and `findAll`. Patterns are RE2's, run by a library that is as linear
//! and differs in details, which [`translate`] bridges. Patterns that are written in the expression are compiled
//! with it; the others when they are there, which costs.

use regex::{Regex, RegexBuilder};

use super::super::value::{Error, Text, Value};
use super::cost::Cost;
use super::{Row, failed, no_overload};

/// In bytes; RE2's own limit on what a pattern may become is of this order.
const MAX_COMPILED: usize = 1 << 20;

/// These are the signatures; the evaluator calls [`apply`] with the compiled pattern.
pub(in super::super) const ROWS: &[Row] = &[
    ("matches", "(string, string) -> bool; string.(string) -> bool", Cost::Regex, |v| with(v, Use::Matches)),
    ("find", "string.(string) -> string", Cost::Regex, |v| with(v, Use::Find)),
    ("findAll", "string.(string) -> list(string); string.(string, int) -> list(string)", Cost::Regex, |v| {
        with(v, Use::FindAll)
    }),
];

/// What is done with a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Use {
    Matches,
    Find,
    FindAll,
}

impl Use {
    pub(in super::super) fn of(function: &str) -> Option<Self> {
        Some(match function {
            "matches" => Self::Matches,
            "find" => Self::Find,
            "findAll" => Self::FindAll,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Matches => "matches",
            Self::Find => "find",
            Self::FindAll => "findAll",
        }
    }
}

fn with<'a>(v: &mut [Value<'a>], what: Use) -> Result<Value<'a>, Error> {
    let Some(Value::String(pattern)) = v.get(1) else { return no_overload(what.name(), v) };
    let compiled = compile(pattern).or_else(|error| failed(format!("error parsing regexp: {error}")))?;
    apply(what, &compiled, v)
}

/// The pattern, compiled.
///
/// # Errors
/// What is wrong with it.
pub(in super::super) fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(&translate(pattern)).size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).build().map_err(
        |error| match error {
            regex::Error::CompiledTooBig(_) => "expression too large".to_owned(),
            error => {
                // The library draws the pattern over several lines; the last one says what is wrong.
                let text = error.to_string();
                text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
            }
        },
    )
}

/// Runs a compiled pattern over the first argument.
pub(in super::super) fn apply<'a>(what: Use, regex: &Regex, v: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let Some(Value::String(text)) = v.first() else { return no_overload(what.name(), v) };
    let part = |found: regex::Match<'_>| {
        Value::String(match text {
            Text::Borrowed(text) => Text::Borrowed(&text[found.range()]),
            Text::Owned(_) => Text::Owned(found.as_str().into()),
        })
    };
    match (what, v.get(2)) {
        (Use::Matches, _) => Ok(Value::Bool(regex.is_match(text))),
        (Use::Find, _) => Ok(regex.find(text).map_or(Value::String(Text::Borrowed("")), part)),
        (Use::FindAll, None) => Ok(Value::list(regex.find_iter(text).map(part).collect())),
        (Use::FindAll, Some(Value::Int(limit))) => {
            let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
            Ok(Value::list(regex.find_iter(text).take(limit).map(part).collect()))
        }
        _ => no_overload(what.name(), v),
    }
}

/// RE2's pattern as our library reads it: `\d`, `\w`, `\s` and `\b` are of ASCII, a class has no operators, `\C` and `\Q…\E`
/// are as rare as unsupported.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut characters = pattern.chars().peekable();
    let mut class = false;
    let mut fresh = false;
    while let Some(c) = characters.next() {
        let first = std::mem::take(&mut fresh);
        match (c, class) {
            ('\\', _) => match (characters.next(), class) {
                (Some('d'), false) => out.push_str("[0-9]"),
                (Some('d'), true) => out.push_str("0-9"),
                (Some('D'), _) => out.push_str("[^0-9]"),
                (Some('w'), false) => out.push_str("[0-9A-Za-z_]"),
                (Some('w'), true) => out.push_str("0-9A-Za-z_"),
                (Some('W'), _) => out.push_str("[^0-9A-Za-z_]"),
                (Some('s'), false) => out.push_str(r"[\t\n\x0C\r ]"),
                (Some('s'), true) => out.push_str(r"\t\n\x0C\r "),
                (Some('S'), _) => out.push_str(r"[^\t\n\x0C\r ]"),
                (Some('b'), false) => out.push_str(r"(?-u:\b)"),
                (Some('B'), false) => out.push_str(r"(?-u:\B)"),
                (Some(escaped), _) => {
                    out.push('\\');
                    out.push(escaped);
                }
                (None, _) => out.push('\\'),
            },
            ('[', false) => {
                class = true;
                fresh = true;
                out.push('[');
                if characters.peek() == Some(&'^') {
                    characters.next();
                    out.push('^');
                }
            }
            // Named classes are read as in RE2; any other bracket in a class is itself.
            ('[', true) if characters.peek() == Some(&':') => {
                out.push('[');
                for c in characters.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            ('[', true) => out.push_str("\\["),
            (']', true) if first => out.push_str("\\]"),
            (']', true) => {
                class = false;
                out.push(']');
            }
            ('&' | '~', true) => {
                out.push('\\');
                out.push(c);
            }
            (c, _) => out.push(c),
        }
    }
    out
}
