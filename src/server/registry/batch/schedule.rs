//! Decides: what a schedule means: `*/5 * * * *`, `0 9 * * mon-fri`, `@hourly`, `@every 1h30m`, as the standard parser
//! of `github.com/robfig/cron/v3` reads it, whose words the errors are.

use jiff::tz::TimeZone;

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
