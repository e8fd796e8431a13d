//! Decides: formats of dates and durations.

use jiff::civil;

use crate::api::duration;

/// `2006-01-02`, a day that exists.
pub fn date(text: &str) -> bool {
    let part = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<i16>().ok()).flatten()
    };
    let dashes = text.len() == 10 && text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-';
    let (Some(year), Some(month), Some(day)) = (part(0..4), part(5..7), part(8..10)) else { return false };
    let small = |n: i16| i8::try_from(n).unwrap_or_default();
    dashes && civil::Date::new(year, small(month), small(day)).is_ok()
}

/// A date, `T`, a time of day with a zone. What follows a second `T` is not looked at, as upstream does not.
pub fn date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let mut parts = lower.split('t');
    match (parts.next(), parts.next()) {
        (Some(day), Some(clock)) => date(day) && time_of_day(clock),
        _ => false,
    }
}

/// `19:30:20.000z`, `19:30:20+01:00`. Any character may stand before the fraction.
fn time_of_day(text: &str) -> bool {
    let two = |range: std::ops::Range<usize>| {
        text.get(range).filter(|d| d.len() == 2 && d.bytes().all(|b| b.is_ascii_digit()))
    };
    let colons = text.as_bytes().get(2) == Some(&b':') && text.as_bytes().get(5) == Some(&b':');
    let (Some(hour), Some(minute), Some(second)) = (two(0..2), two(3..5), two(6..8)) else { return false };
    if !colons || hour > "23" || minute > "59" || second > "59" {
        return false;
    }
    let rest = &text[8..];
    let after_fraction =
        rest.chars().next().map(|c| rest[c.len_utf8()..].trim_start_matches(|c: char| c.is_ascii_digit()));
    let fraction = |left: &str| rest.chars().next().is_some_and(|c| rest.len() > left.len() + c.len_utf8());
    zone(rest) || after_fraction.is_some_and(|left| fraction(left) && zone(left))
}

fn zone(text: &str) -> bool {
    let digits = |b: &[u8]| b.iter().all(u8::is_ascii_digit);
    match text.as_bytes() {
        b"z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => digits(&[*h1, *h2, *m1, *m2]),
        _ => false,
    }
}

/// The longest variant of a unit may be the start of a word: `5 days`.
const UNITS: &[(&[&str], &str)] = &[
    (&["ns"], "nano"),
    (&["us", "µs"], "micro"),
    (&["ms"], "milli"),
    (&["s"], "sec"),
    (&["m"], "min"),
    (&["h", "hr"], "hour"),
    (&["d"], "day"),
    (&["w", "wk"], "week"),
];

/// Go's `1h30m`, or a number and a unit anywhere in the text, such as `5 days`.
pub fn duration(text: &str) -> bool {
    duration::parse(text).is_ok() || words(text)
}

fn words(text: &str) -> bool {
    let mut found = false;
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let digits_end = rest[start..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |e| start + e);
        let after = rest[digits_end..].trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
        let unit_end = after.find(|c: char| !(c.is_ascii_alphabetic() || c == 'µ')).unwrap_or(after.len());
        if unit_end > 0 {
            if rest[start..digits_end].parse::<i64>().is_err() {
                return false;
            }
            let unit = after[..unit_end].to_lowercase();
            found |= UNITS.iter().any(|(exact, start)| exact.contains(&unit.as_str()) || unit.starts_with(start));
        }
        rest = &after[unit_end..];
    }
    found
}
