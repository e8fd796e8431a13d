//! Decides: semantic versions (`library.SemverLib`, version 1; <https://semver.org>, with the words of `blang/semver`).

use std::cmp::Ordering;
use std::sync::Arc;

use super::super::value::{Error, Value};
use super::cost::Cost;
use super::opaque::Opaque;
use super::{Row, failed, no_overload, quantity};

/// A version. What is built after `+` does not count in comparisons, and is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub major: u64,
    pub minor: u64,
    pub patch: u64,
    pub pre: Vec<Part>,
}

/// Of a pre-release: numbers come before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Number(u64),
    Word(String),
}

pub(super) const ROWS: &[Row] = &[
    ("semver", "(string) -> semver; (string, bool) -> semver", Cost::Parse, |v| match parse_arguments(v) {
        Some(Ok(version)) => Ok(Value::Opaque(Arc::new(Opaque::Semver(version)))),
        Some(Err(error)) => failed(error),
        None => no_overload("semver", v),
    }),
    ("isSemver", "(string) -> bool; (string, bool) -> bool", Cost::Parse, |v| match parse_arguments(v) {
        Some(parsed) => Ok(Value::Bool(parsed.is_ok())),
        None => no_overload("isSemver", v),
    }),
    ("major", "semver.() -> int", Cost::One, |v| number(v, "major", |version| version.major)),
    ("minor", "semver.() -> int", Cost::One, |v| number(v, "minor", |version| version.minor)),
    ("patch", "semver.() -> int", Cost::One, |v| number(v, "patch", |version| version.patch)),
    ("isGreaterThan", "semver.(semver) -> bool", Cost::One, |v| {
        compared(v, "isGreaterThan", |o| Value::Bool(o.is_gt()))
    }),
    ("isLessThan", "semver.(semver) -> bool", Cost::One, |v| compared(v, "isLessThan", |o| Value::Bool(o.is_lt()))),
    ("compareTo", "semver.(semver) -> int", Cost::One, |v| compared(v, "compareTo", |o| Value::Int(o as i64))),
];

fn read<'v>(value: &'v Value<'_>) -> Option<&'v Version> {
    match value {
        Value::Opaque(opaque) => match &**opaque {
            Opaque::Semver(version) => Some(version),
            _ => None,
        },
        _ => None,
    }
}

/// The order of two versions or two quantities, which share the names of these functions.
pub(super) fn compared<'a>(v: &[Value<'a>], name: &str, of: fn(Ordering) -> Value<'a>) -> Result<Value<'a>, Error> {
    if let (Some(a), Some(b)) = (quantity::read(&v[0]), quantity::read(&v[1])) {
        return Ok(of(a.cmp(&b)));
    }
    match (read(&v[0]), read(&v[1])) {
        (Some(a), Some(b)) => Ok(of(a.cmp(b))),
        _ => no_overload(name, v),
    }
}

fn number<'a>(v: &[Value<'a>], name: &str, of: fn(&Version) -> u64) -> Result<Value<'a>, Error> {
    match read(&v[0]) {
        Some(version) => Ok(Value::Int(i64::try_from(of(version)).unwrap_or(i64::MAX))),
        None => no_overload(name, v),
    }
}

fn parse_arguments(v: &[Value<'_>]) -> Option<Result<Version, String>> {
    match v {
        [Value::String(text)] | [Value::String(text), Value::Bool(false)] => Some(Version::parse(text)),
        [Value::String(text), Value::Bool(true)] => Some(normalised(text).and_then(|text| Version::parse(&text))),
        _ => None,
    }
}

/// Without `v`, with three numbers, and without zeros before them.
fn normalised(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text
        .splitn(3, '.')
        .map(|part| {
            let trimmed = part.trim_start_matches('0');
            match trimmed.chars().next() {
                _ if part.len() < 2 => part.to_owned(),
                Some(c) if c.is_ascii_digit() => trimmed.to_owned(),
                _ => format!("0{trimmed}"),
            }
        })
        .collect();
    if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
        return Err("short version cannot contain PreRelease/Build meta data".into());
    }
    parts.resize(3, "0".into());
    Ok(parts.join("."))
}

impl Version {
    /// # Errors
    /// What is wrong with the text, in upstream's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("Version string empty".into());
        }
        let mut parts = text.splitn(3, '.');
        let (Some(major), Some(minor), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("No Major.Minor.Patch elements found".into());
        };
        let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
        let (patch, pre) = rest.split_once('-').map_or((rest, None), |(patch, pre)| (patch, Some(pre)));
        let word = |c: char| c.is_ascii_alphanumeric() || c == '-';
        for part in build.into_iter().flat_map(|build| build.split('.')) {
            if part.is_empty() {
                return Err("Build meta data is empty".into());
            }
            if !part.chars().all(word) {
                return Err(format!("Invalid character(s) found in build meta data {part:?}"));
            }
        }
        let pre = pre.into_iter().flat_map(|pre| pre.split('.')).map(Part::parse).collect::<Result<_, _>>()?;
        Ok(Self { major: part(major, "major")?, minor: part(minor, "minor")?, patch: part(patch, "patch")?, pre })
    }
}

fn part(text: &str, name: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        let name = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
        return Err(format!("Invalid character(s) found in {} number {text:?}", name.to_lowercase()));
    }
    if text.len() > 1 && text.starts_with('0') {
        let name = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
        return Err(format!("{name} number must not contain leading zeroes {text:?}"));
    }
    text.parse().map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"))
}

impl Part {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("Prerelease is empty".into());
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            if text.len() > 1 && text.starts_with('0') {
                return Err(format!("Numeric PreRelease version must not contain leading zeroes {text:?}"));
            }
            return text.parse().map(Self::Number).map_err(|e| e.to_string());
        }
        if text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Ok(Self::Word(text.to_owned()));
        }
        Err(format!("Invalid character(s) found in prerelease {text:?}"))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let numbers = |v: &Self| (v.major, v.minor, v.patch);
        numbers(self).cmp(&numbers(other)).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            // A release comes after what leads to it.
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => self.pre.cmp(&other.pre),
        })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
