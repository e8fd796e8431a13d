//! Decides: what a schedule means: `*/5 * * * *`, `0 9 * * mon-fri`, `@hourly`, `@every 1h30m`, as the standard parser
//! of `github.com/robfig/cron/v3` reads it, whose words the errors are.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _, Zoned};

use crate::api::duration;

/// When something happens again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Whenever the clock matches.
    At(Times),
    /// Seconds between two, one at least.
    Every(u64),
}

/// Bit `n` of a field is set when the value `n` matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub minutes: u64,
    pub hours: u64,
    pub days: u64,
    pub months: u64,
    /// Sunday is 0.
    pub weekdays: u64,
    /// Both `days` and `weekdays` were given: either is enough. With a star in one of them both must match, which is
    /// the other alone.
    pub either_day: bool,
}

/// One of the five fields.
struct Bounds {
    low: u64,
    high: u64,
    /// Of the values from `low` on.
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { low: 0, high: 59, names: &[] };
const HOURS: Bounds = Bounds { low: 0, high: 23, names: &[] };
const DAYS: Bounds = Bounds { low: 1, high: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    low: 1,
    high: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds = Bounds { low: 0, high: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

const DESCRIPTORS: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// Whether the database of time zones has this name, in this case.
#[must_use]
pub fn is_zone(name: &str) -> bool {
    TimeZone::get(name).is_ok_and(|zone| !zone.is_unknown() && zone.iana_name() == Some(name))
}

impl Schedule {
    /// A time zone in front (`TZ=Europe/Rome 0 9 * * *`) is checked and left out: CronJobs refuse it.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut text = text;
        if let Some(rest) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
            let (zone, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            if !matches!(zone, "" | "Local") && !is_zone(zone) {
                return Err(format!("provided bad location {zone}: unknown time zone {zone}"));
            }
            text = rest.trim();
        }
        if let Some(text) = text.strip_prefix("@every ") {
            let nanos = duration::parse(text).map_err(|e| format!("failed to parse duration @every {text}: {e}"))?;
            // Whole seconds; negative ones are none.
            return Ok(Self::Every(u64::try_from(nanos / 1_000_000_000).unwrap_or(0).max(1)));
        }
        if text.starts_with('@') {
            let found = DESCRIPTORS.iter().find(|(name, _)| *name == text);
            text = found.ok_or_else(|| format!("unrecognized descriptor: {text}"))?.1;
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        };
        let (minutes, hours) = (field(minutes, &MINUTES)?, field(hours, &HOURS)?);
        let (days, months, weekdays) = (field(days, &DAYS)?, field(months, &MONTHS)?, field(weekdays, &WEEKDAYS)?);
        Ok(Self::At(Times {
            minutes: minutes.bits,
            hours: hours.bits,
            days: days.bits,
            months: months.bits,
            weekdays: weekdays.bits,
            either_day: !days.star && !weekdays.star,
        }))
    }
}

/// A time that does not come within so many years never comes: the thirtieth of February.
const YEARS: i16 = 5;
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

impl Schedule {
    /// The first time after `after`. The times of `@every` are counted from `start`.
    #[must_use]
    pub fn next(&self, start: Timestamp, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::At(times) => times.next(after, zone),
            Self::Every(seconds) => every(start, *seconds, rounds(start, *seconds, after)? + 1),
        }
    }

    /// The last time after `start` and not after `now`.
    #[must_use]
    pub fn latest(&self, start: Timestamp, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let latest = match self {
            Self::At(times) => times.latest(now, zone),
            Self::Every(seconds) => every(start, *seconds, rounds(start, *seconds, now)?),
        };
        latest.filter(|at| *at > start)
    }
}

/// How often `seconds` have passed since `start`.
fn rounds(start: Timestamp, seconds: u64, until: Timestamp) -> Option<i64> {
    let seconds = i64::try_from(seconds).ok()?;
    Some((until.as_second() - start.as_second()).max(0) / seconds)
}

fn every(start: Timestamp, seconds: u64, rounds: i64) -> Option<Timestamp> {
    let passed = i64::try_from(seconds).ok()?.checked_mul(rounds)?;
    Timestamp::from_second(start.as_second().checked_add(passed)?).ok()
}

impl Times {
    /// A wall clock that is set forward skips the times in between; one that is set back shows some of them twice, and both
    /// match.
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let whole = Timestamp::from_second(after.as_second() - after.as_second().rem_euclid(60)).ok()?;
        let mut at = whole.checked_add(MINUTE).ok()?;
        let last = after.to_zoned(zone.clone()).year() + YEARS;
        loop {
            let clock = at.to_zoned(zone.clone());
            if clock.year() > last {
                return None;
            }
            at = match self.mismatch(&clock) {
                None => return Some(at),
                Some(Unit::Month) => begin(clock.date().first_of_month().checked_add(1.month()).ok()?, zone)?,
                Some(Unit::Day) => begin(clock.date().tomorrow().ok()?, zone)?,
                Some(Unit::Hour) => at.checked_add(MINUTE * (60 - i32::from(clock.minute()))).ok()?,
                Some(Unit::Minute) => at.checked_add(MINUTE).ok()?,
            };
        }
    }

    /// The last time that is not after `now`.
    fn latest(&self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut at = Timestamp::from_second(now.as_second() - now.as_second().rem_euclid(60)).ok()?;
        let first = now.to_zoned(zone.clone()).year() - YEARS;
        loop {
            let clock = at.to_zoned(zone.clone());
            if clock.year() < first {
                return None;
            }
            at = match self.mismatch(&clock) {
                None => return Some(at),
                Some(Unit::Month) => begin(clock.date().first_of_month(), zone)?.checked_sub(MINUTE).ok()?,
                Some(Unit::Day) => begin(clock.date(), zone)?.checked_sub(MINUTE).ok()?,
                Some(Unit::Hour) => at.checked_sub(MINUTE * (i32::from(clock.minute()) + 1)).ok()?,
                Some(Unit::Minute) => at.checked_sub(MINUTE).ok()?,
            };
        }
    }

    /// The largest unit of the clock that does not match.
    fn mismatch(&self, clock: &Zoned) -> Option<Unit> {
        let has = |bits: u64, value: i8| bits >> value & 1 == 1;
        let day = has(self.days, clock.day());
        let weekday = has(self.weekdays, clock.weekday().to_sunday_zero_offset());
        let either = if self.either_day { day || weekday } else { day && weekday };
        let units = [
            (has(self.months, clock.month()), Unit::Month),
            (either, Unit::Day),
            (has(self.hours, clock.hour()), Unit::Hour),
            (has(self.minutes, clock.minute()), Unit::Minute),
        ];
        units.into_iter().find(|(matches, _)| !matches).map(|(_, unit)| unit)
    }
}

enum Unit {
    Month,
    Day,
    Hour,
    Minute,
}

/// The first moment of a day, which is not midnight where the clock is set forward then.
fn begin(date: Date, zone: &TimeZone) -> Option<Timestamp> {
    Some(date.to_zoned(zone.clone()).ok()?.start_of_day().ok()?.timestamp())
}

#[derive(Default)]
struct Field {
    bits: u64,
    star: bool,
}

/// `1,3-5,*/10`. Commas with nothing between them are ignored.
fn field(text: &str, bounds: &Bounds) -> Result<Field, String> {
    let mut field = Field::default();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (bits, star) = range(part, bounds)?;
        field.bits |= bits;
        field.star |= star;
    }
    Ok(field)
}

fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let halves: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = halves[0].split('-').collect();
    let star = matches!(ends[0], "*" | "?");
    let (start, mut end) = match ends.as_slice() {
        _ if star => (bounds.low, bounds.high),
        [one] => value(one, bounds).map(|value| (value, value))?,
        [start, end] => (value(start, bounds)?, value(end, bounds)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match halves.as_slice() {
        [_] => 1,
        [_, step] => {
            // `5/10` goes on to the end.
            if ends.len() == 1 {
                end = bounds.high;
            }
            number(step)?
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    let (low, high) = (bounds.low, bounds.high);
    if start < low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {text}"));
    }
    if end > high {
        return Err(format!("end of range ({end}) above maximum ({high}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let bits = (start..=end).filter(|value| (value - start) % step == 0).fold(0, |bits, value| bits | 1 << value);
    Ok((bits, star && step == 1))
}

fn value(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let lower = text.to_lowercase();
    match (bounds.low..).zip(bounds.names).find(|(_, name)| **name == lower) {
        Some((value, _)) => Ok(value),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u64, String> {
    let number: i64 = text.parse().map_err(|e: std::num::ParseIntError| {
        let overflow = matches!(e.kind(), std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow);
        let problem = if overflow { "value out of range" } else { "invalid syntax" };
        format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {problem}")
    })?;
    u64::try_from(number).map_err(|_| format!("negative number ({number}) not allowed: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Times {
        match Schedule::parse(text) {
            Ok(Schedule::At(times)) => times,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn values(bits: u64) -> Vec<u32> {
        (0..64).filter(|n| bits >> n & 1 == 1).collect()
    }

    #[test]
    fn fields() {
        for (text, expect) in [
            ("*/15 * * * *", vec![0, 15, 30, 45]),
            ("50/5 * * * *", vec![50, 55]),
            ("1,3-5,,10-20/5 * * * *", vec![1, 3, 4, 5, 10, 15, 20]),
            ("+7 * * * *", vec![7]),
            ("?/30 * * * *", vec![0, 30]),
        ] {
            assert_eq!(values(at(text).minutes), expect, "{text}");
        }
        let times = at("0 9 1 JAN-mar,12 mon-Fri");
        assert_eq!((values(times.months), values(times.weekdays)), (vec![1, 2, 3, 12], vec![1, 2, 3, 4, 5]));
        assert!(times.either_day);
        // A star with a step is not a star.
        assert!(!at("0 0 1 * *").either_day && at("0 0 */2 * 1").either_day && !at("0 0 */1 * 1").either_day);
    }

    #[test]
    fn descriptors() {
        assert_eq!(at("@hourly"), at("0 * * * *"));
        assert_eq!(at("@weekly"), at("0 0 * * sun"));
        for (text, seconds) in [("1h30m", 5400), ("1.5s", 1), ("300ms", 1), ("-1m", 1), ("0", 1), ("+2m0.5s", 120)] {
            assert_eq!(Schedule::parse(&format!("@every {text}")), Ok(Schedule::Every(seconds)), "{text}");
        }
    }

    #[test]
    fn time_zones() {
        assert!(is_zone("UTC") && !is_zone("utc") && !is_zone("Europe/Nowhere"));
        assert_eq!(Schedule::parse("TZ=UTC 0 0 * * *"), Schedule::parse("@daily"));
        assert_eq!(Schedule::parse("CRON_TZ=UTC @daily"), Schedule::parse("@daily"));
    }

    /// The next times after `after`, and that each of them is the latest one when it comes and just before the next one.
    fn check(text: &str, zone: &str, after: &str, expect: &[&str]) {
        let (schedule, zone) = (Schedule::parse(text).unwrap(), TimeZone::get(zone).unwrap());
        let start: Timestamp = after.parse().unwrap();
        let mut at = start;
        for time in expect {
            let next = schedule.next(start, at, &zone);
            assert_eq!(next.map(|t| t.to_string()).as_deref(), Some(*time), "{text} after {at}");
            if at > start {
                let before = next.unwrap() - SignedDuration::from_secs(1);
                assert_eq!(schedule.latest(start, before, &zone), Some(at), "{text} until {before}");
            }
            at = next.unwrap();
            assert_eq!(schedule.latest(start, at, &zone), Some(at), "{text} until {at}");
        }
    }

    #[test]
    fn next_times() {
        let new_year = "2026-01-01T00:00:00Z";
        check(
            "*/20 * * * *",
            "UTC",
            new_year,
            &["2026-01-01T00:20:00Z", "2026-01-01T00:40:00Z", "2026-01-01T01:00:00Z"],
        );
        check("0 9 * * mon-fri", "UTC", "2026-01-02T09:00:00Z", &["2026-01-05T09:00:00Z", "2026-01-06T09:00:00Z"]);
        check("0 0 29 2 *", "UTC", new_year, &["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]);
        check("59 23 31 12 *", "UTC", new_year, &["2026-12-31T23:59:00Z", "2027-12-31T23:59:00Z"]);
        // Friday, or the thirteenth.
        check("0 0 13 * fri", "UTC", "2026-01-10T00:00:00Z", &["2026-01-13T00:00:00Z", "2026-01-16T00:00:00Z"]);
        check("* * * * *", "UTC", "2026-01-01T00:00:59.9Z", &["2026-01-01T00:01:00Z"]);
        check("@every 90s", "UTC", "2026-01-01T00:00:10Z", &["2026-01-01T00:01:40Z", "2026-01-01T00:03:10Z"]);
    }

    #[test]
    fn clocks_that_are_set_forward_and_back() {
        let berlin = |text, after, expect: &[&str]| check(text, "Europe/Berlin", after, expect);
        // 29 March 2026, 02:00 is 03:00: that night has no half past two.
        berlin("30 2 * * *", "2026-03-28T00:00:00Z", &["2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"]);
        berlin("0 * * * *", "2026-03-29T00:00:00Z", &["2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"]);
        // 25 October 2026, 03:00 is 02:00: that night has two.
        berlin(
            "30 2 * * *",
            "2026-10-24T20:00:00Z",
            &["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"],
        );
        berlin("0 12 * * *", "2026-10-24T00:00:00Z", &["2026-10-24T10:00:00Z", "2026-10-25T11:00:00Z"]);
        // In Beirut the day begins at one when the clock is set forward at midnight; by half an hour on Lord Howe.
        check("0 1 * * *", "Asia/Beirut", "2026-03-28T12:00:00Z", &["2026-03-28T22:00:00Z", "2026-03-29T22:00:00Z"]);
        let howe = &["2026-10-02T15:45:00Z", "2026-10-04T15:15:00Z"];
        check("15 2 * * *", "Australia/Lord_Howe", "2026-10-02T00:00:00Z", howe);
    }

    #[test]
    fn what_never_comes_ends_the_search() {
        let (never, utc) = (Schedule::parse("59 23 31 2 *").unwrap(), TimeZone::UTC);
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        assert_eq!((never.next(now, now, &utc), never.latest(Timestamp::UNIX_EPOCH, now, &utc)), (None, None));
        let hourly = Schedule::parse("@hourly").unwrap();
        assert_eq!(hourly.next(now, Timestamp::MAX, &utc), None);
        assert_eq!(hourly.latest(now, now, &utc), None, "it began only now");
        assert_eq!(Schedule::Every(u64::MAX).next(now, now, &utc), None);
        assert_eq!(Schedule::Every(60).latest(now, Timestamp::MIN, &utc), None);
    }

    #[test]
    fn errors_are_the_parsers() {
        for (text, expect) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("0 0 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("*/-5 * * * *", "negative number (-5) not allowed: -5"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            (
                "99999999999999999999 * * * *",
                "failed to parse int from 99999999999999999999: strconv.Atoi: parsing \"99999999999999999999\": value \
                 out of range",
            ),
            ("@reboot", "unrecognized descriptor: @reboot"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
            ("@every 1", "failed to parse duration @every 1: time: missing unit in duration \"1\""),
            ("@every 1d", "failed to parse duration @every 1d: time: unknown unit \"d\" in duration \"1d\""),
            ("TZ=Nowhere 0 0 * * *", "provided bad location Nowhere: unknown time zone Nowhere"),
        ] {
            assert_eq!(Schedule::parse(text), Err(expect.to_owned()), "{text}");
        }
    }
}
