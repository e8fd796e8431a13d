//! Decides: timestamps and durations as Go reads and writes them.

use std::fmt;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::value::Error;
use crate::api::duration;

const NANOS: i128 = 1_000_000_000;
/// The first and the last second of the years 1 to 9999, which is a day more than `jiff::Timestamp` can hold.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A point in time, to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    seconds: i64,
    nanos: u32,
}

fn failed<T>(text: String) -> Result<T, Error> {
    Err(Error::Failed(text.into()))
}

impl Time {
    /// Since 1970.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Since 1970.
    #[must_use]
    pub fn nanoseconds(self) -> i128 {
        i128::from(self.seconds) * NANOS + i128::from(self.nanos)
    }

    /// # Errors
    /// Outside of the years 1 to 9999.
    pub fn of_nanoseconds(nanos: i128) -> Result<Self, Error> {
        match i64::try_from(nanos.div_euclid(NANOS)) {
            Ok(seconds) if SECONDS.contains(&seconds) => {
                Ok(Self { seconds, nanos: u32::try_from(nanos.rem_euclid(NANOS)).unwrap_or_default() })
            }
            _ => failed("timestamp overflow".into()),
        }
    }

    /// The date and the time of day, so many seconds east of Greenwich.
    #[must_use]
    pub fn civil(self, offset: i64) -> DateTime {
        let since = SignedDuration::new(self.seconds + offset, i32::try_from(self.nanos).unwrap_or_default());
        // Only beyond the year 9999, where an offset may lead.
        DateTime::constant(1970, 1, 1, 0, 0, 0, 0).checked_add(since).unwrap_or(DateTime::MAX)
    }
}

/// RFC 3339 with as many digits of the second as there are.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}Z", self.civil(0))
    }
}

/// RFC 3339 as Go reads it, which is what `timestamp()` wants.
pub(super) fn parse(text: &str) -> Option<Time> {
    let bytes = text.as_bytes();
    if bytes.len() < 20 || bytes[10] != b'T' || !text.is_ascii() {
        return None;
    }
    let (civil, offset) = match text.strip_suffix('Z') {
        Some(civil) => (civil, 0),
        None => {
            let (civil, zone) = text.split_at(text.len() - 6);
            (civil, offset(zone)?)
        }
    };
    let civil: DateTime = civil.parse().ok()?;
    let since = civil.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0));
    Time::of_nanoseconds(since.as_nanos() - i128::from(offset) * NANOS).ok()
}

/// `+01:00`, in seconds.
fn offset(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    let number = |digits: &str| digits.parse::<i64>().ok().filter(|n| digits.len() == 2 && *n < 60);
    Some(sign * (number(hours)? * 3600 + number(minutes)? * 60))
}

/// What `format: date` and `format: date-time` of a schema accept.
pub(super) fn of_format(text: &str) -> Result<Time, Error> {
    let parsed = if text.len() > 10 {
        parse(text).or_else(|| Time::of_nanoseconds(text.parse::<Timestamp>().ok()?.as_nanosecond()).ok())
    } else {
        text.parse::<Date>().ok().and_then(|_| parse(&format!("{text}T00:00:00Z")))
    };
    match parsed {
        Some(time) => Ok(time),
        None => failed(format!("Invalid date-time formatted string {text}: unable to parse")),
    }
}

/// A time so many nanoseconds later.
pub(super) fn shift(time: Time, nanos: i128) -> Result<Time, Error> {
    Time::of_nanoseconds(time.nanoseconds() + nanos)
}

pub(super) fn of_seconds(seconds: i64) -> Result<Time, Error> {
    Time::of_nanoseconds(i128::from(seconds) * NANOS)
}

/// How far east a zone is at that time, in seconds: an IANA name, `UTC`, or an offset such as `-08:00` or `2:00`.
pub(super) fn zone(name: &str, time: Time) -> Result<i64, Error> {
    if name == "UTC" || name.is_empty() {
        return Ok(0);
    }
    let unknown = || failed(format!("unknown time zone {name}"));
    if name.contains(':') {
        let (sign, digits) = name.strip_prefix('-').map_or(("+", name.trim_start_matches('+')), |rest| ("-", rest));
        return offset(&format!("{sign}{digits:0>5}")).map_or_else(unknown, Ok);
    }
    match TimeZone::get(name) {
        Ok(zone) => {
            let at = Timestamp::from_second(time.seconds()).unwrap_or(Timestamp::MAX);
            Ok(zone.to_offset(at).seconds().into())
        }
        Err(_) => unknown(),
    }
}

/// What `format: duration` of a schema accepts: Go's durations, and `1 day`, `2 weeks`.
pub(super) fn duration_of_format(text: &str) -> Result<i64, Error> {
    if let Ok(nanos) = duration::parse(text) {
        return Ok(nanos);
    }
    let words = text.trim().split_once(|c: char| c.is_whitespace() || c.is_ascii_alphabetic());
    let parsed = words.and_then(|(number, _)| {
        let unit = text.trim()[number.len()..].trim().trim_end_matches('s');
        let seconds = match unit {
            "w" | "wk" | "week" => 7 * 86_400,
            "d" | "day" => 86_400,
            "h" | "hr" | "hour" => 3_600,
            "m" | "min" | "minute" => 60,
            "" | "sec" | "second" => 1,
            _ => return None,
        };
        number.parse::<i64>().ok()?.checked_mul(seconds)?.checked_mul(1_000_000_000)
    });
    parsed.map_or_else(|| failed(format!("Invalid duration {text}: unable to parse")), Ok)
}

/// In seconds, as `string(duration)` gives it: `90s`, `0.5s`.
pub(super) fn render_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, rest) = (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
    let fraction = format!("{rest:09}");
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{seconds}{dot}{fraction}s")
}
