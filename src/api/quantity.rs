//! Decides: `resource.Quantity`: `500m`, `1.5Gi`, `2e3`. Parsing, canonical text and arithmetic as
//! `k8s.io/apimachinery/pkg/api/resource` has them.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
/// Upstream caps binary quantities here (2^63-1 units); decimal ones that do not fit our 128 bits are capped too.
const MAX_UNITS: i128 = i64::MAX as i128;

/// The family of suffixes that a quantity was written with, and is printed with again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `Ki`, `Mi`, `Gi`…
    Binary,
    /// `m`, none, `k`, `M`…
    #[default]
    Decimal,
    /// `e3`, `E-6`
    Exponent,
}

/// A fixed-point number with a resolution of one billionth. Compares by value, whatever the suffix.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// Why a text is no quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// # Errors
    /// When the text is not a quantity.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let (negative, rest) = match text.as_bytes().first() {
            None => return Err(ParseError::Format),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, rest) = rest.split_at(digits(rest));
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(digits(rest)),
            None => ("", rest),
        };
        let letters = suffix.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
        let tail = &suffix[letters..];
        let tail = tail.strip_prefix(['+', '-']).unwrap_or(tail);
        if !tail.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ParseError::Format);
        }
        let (base, exponent, format) = parse_suffix(suffix).ok_or(ParseError::Suffix)?;
        if whole.is_empty() && fraction.is_empty() {
            return Err(ParseError::Numeric);
        }
        let nano = scale(whole, fraction, base, exponent);
        let format = if format == Format::Binary && nano > 0 && nano < NANO { Format::Decimal } else { format };
        Ok(Self { nano: if negative { -nano } else { nano }, format })
    }

    #[must_use]
    pub fn from_units(units: i64, format: Format) -> Self {
        Self { nano: i128::from(units) * NANO, format }
    }

    #[must_use]
    pub fn from_milli(milli: i64) -> Self {
        Self { nano: i128::from(milli) * (NANO / 1000), format: Format::Decimal }
    }

    /// Bytes, printed with binary suffixes.
    #[must_use]
    pub fn from_bytes(bytes: i64) -> Self {
        Self::from_units(bytes, Format::Binary)
    }

    /// Whole units, rounded up.
    #[must_use]
    pub fn value(self) -> i64 {
        ceil(self.nano, NANO)
    }

    /// Thousandths, rounded up: millicores of a CPU quantity.
    #[must_use]
    pub fn milli(self) -> i64 {
        ceil(self.nano, NANO / 1000)
    }

    /// How many times the other goes into this. The other must not be zero.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "for people, and for bounds that are small numbers")]
    pub fn ratio(self, other: Self) -> f64 {
        self.nano as f64 / other.nano as f64
    }

    #[must_use]
    pub fn is_zero(self) -> bool {
        self.nano == 0
    }

    #[must_use]
    pub fn is_negative(self) -> bool {
        self.nano < 0
    }

    #[must_use]
    pub fn format(self) -> Format {
        self.format
    }

    fn combined(self, nano: i128, other: Self) -> Self {
        Self { nano, format: if self.nano == 0 { other.format } else { self.format } }
    }
}

/// `(base, exponent, format)` of a suffix.
fn parse_suffix(suffix: &str) -> Option<(u8, i32, Format)> {
    let decimal = |exponent| Some((10, exponent, Format::Decimal));
    let binary = |exponent| Some((2, exponent, Format::Binary));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let number = suffix.strip_prefix(['e', 'E'])?;
            Some((10, number.parse().ok()?, Format::Exponent))
        }
    }
}

/// `whole.fraction × base^exponent` in billionths, rounded up, capped.
fn scale(whole: &str, fraction: &str, base: u8, exponent: i32) -> i128 {
    const CAP: i128 = MAX_UNITS * NANO;
    // The number is `digits × 10^-places`; digits past what 128 bits hold only matter for rounding up.
    let (mut number, mut places, mut dropped) = (0_i128, 0_i32, false);
    let room = if base == 2 { 1 << 58 } else { i128::MAX / 10 - 10 };
    for (index, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let in_fraction = index >= whole.len();
        if number < room {
            number = number * 10 + i128::from(digit - b'0');
            places += i32::from(in_fraction);
        } else {
            dropped |= digit != b'0';
            places -= i32::from(!in_fraction);
        }
    }
    if number == 0 {
        return 0;
    }
    if base == 2 {
        number <<= exponent;
    } else {
        places = places.saturating_sub(exponent);
    }
    let shift = 9_i32.saturating_sub(places);
    if shift >= 0 {
        for _ in 0..shift {
            match number.checked_mul(10) {
                Some(n) => number = n,
                None => return CAP,
            }
        }
    } else {
        for _ in shift..0 {
            if number == 0 {
                break;
            }
            dropped |= number % 10 != 0;
            number /= 10;
        }
    }
    let number = number.saturating_add(i128::from(dropped));
    if base == 2 { number.min(CAP) } else { number }
}

fn ceil(nano: i128, unit: i128) -> i64 {
    let quotient = nano.div_euclid(unit) + i128::from(nano.rem_euclid(unit) != 0);
    i64::try_from(quotient).unwrap_or(if nano < 0 { i64::MIN } else { i64::MAX })
}

/// The canonical form: no fraction, the largest suffix that loses nothing.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = self.format == Format::Binary && self.nano.abs() >= 1024 * NANO && self.nano % NANO == 0;
        if binary {
            let (mut number, mut times) = (self.nano / NANO, 0);
            while number % 1024 == 0 && times < 6 {
                number /= 1024;
                times += 1;
            }
            return write!(f, "{number}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][times]);
        }
        if self.nano == 0 {
            return f.write_str("0");
        }
        let (mut number, mut exponent) = (self.nano, -9_i32);
        while number % 1000 == 0 && (exponent < 18 || self.format == Format::Exponent) {
            number /= 1000;
            exponent += 3;
        }
        if exponent == 0 {
            return write!(f, "{number}");
        }
        if self.format == Format::Exponent {
            return write!(f, "{number}e{exponent}");
        }
        let suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        write!(f, "{number}{}", suffixes[usize::try_from((exponent + 9) / 3).unwrap_or_default()])
    }
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.combined(self.nano.saturating_add(other.nano), other)
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.combined(self.nano.saturating_sub(other.nano), other)
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(input: &str, canonical: &str, value: i64, milli: i64) {
        let q = Quantity::parse(input).unwrap_or_else(|e| panic!("{input}: {e}"));
        assert_eq!((q.to_string().as_str(), q.value(), q.milli()), (canonical, value, milli), "{input}");
    }

    #[test]
    fn canonical_forms_are_upstreams() {
        check("0", "0", 0, 0);
        check("0.5", "500m", 1, 500);
        check("100m", "100m", 1, 100);
        check("1000m", "1", 1, 1000);
        check("1.5Gi", "1536Mi", 1_610_612_736, 1_610_612_736_000);
        check("1024Mi", "1Gi", 1 << 30, 1_073_741_824_000);
        check("1000Ki", "1000Ki", 1_024_000, 1_024_000_000);
        check("512", "512", 512, 512_000);
        check("1Ki", "1Ki", 1024, 1_024_000);
        check("0.5Ki", "512", 512, 512_000);
        check("0.1Ki", "102400m", 103, 102_400);
        check("128974848", "128974848", 128_974_848, 128_974_848_000);
        check("129e6", "129e6", 129_000_000, 129_000_000_000);
        check("1e3", "1e3", 1000, 1_000_000);
        check("123000", "123k", 123_000, 123_000_000);
        check("100k", "100k", 100_000, 100_000_000);
        check("+1", "1", 1, 1000);
        check("-500m", "-500m", 0, -500);
        check("0.0000000001", "1n", 1, 1);
        check("1.", "1", 1, 1000);
        check(".5", "500m", 1, 500);
        check("1E", "1E", 1_000_000_000_000_000_000, i64::MAX);
        check("10Ei", "9223372036854775807", i64::MAX, i64::MAX);
        check("00012", "12", 12, 12_000);
    }

    #[test]
    fn refusals_are_upstreams() {
        for (input, error) in [
            ("", ParseError::Format),
            ("1K", ParseError::Suffix),
            ("1mi", ParseError::Suffix),
            ("1 Gi", ParseError::Format),
            ("abc", ParseError::Format),
            ("Gi", ParseError::Numeric),
            ("1.2.3", ParseError::Format),
            ("1GiB", ParseError::Format),
            ("-", ParseError::Numeric),
        ] {
            assert_eq!(Quantity::parse(input), Err(error), "{input:?}");
        }
        // Huge exponents end at once and do not overflow.
        assert_eq!(Quantity::parse("1e2000000000").map(Quantity::value), Ok(i64::MAX));
        assert_eq!(Quantity::parse("1e-2000000000").map(|q| q.to_string()), Ok("1n".replace('n', "e-9")));
    }

    proptest! {
        #[test]
        fn printing_and_parsing_again_is_the_identity(
            n in 0_u64..1_000_000_000_000, f in 0_u32..1000,
            s in prop::sample::select(vec!["n", "u", "m", "", "k", "M", "G", "Ki", "Mi", "Gi", "Ti", "e3", "E-3"]),
        ) {
            let q = Quantity::parse(&format!("{n}.{f:03}{s}")).unwrap();
            let again = Quantity::parse(&q.to_string()).unwrap();
            prop_assert_eq!(q, again);
            prop_assert_eq!(q.to_string(), again.to_string());
        }

        #[test]
        fn sums_and_differences_agree_with_integers(a in -1_000_000_000_i64..1_000_000_000, b in -1_000_000_000_i64..1_000_000_000) {
            let (x, y) = (Quantity::from_milli(a), Quantity::from_milli(b));
            prop_assert_eq!((x + y).milli(), a + b);
            prop_assert_eq!((x - y).milli(), a - b);
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }

        #[test]
        fn any_text_is_parsed_or_refused(s in "[-+0-9.eEinumkKMGTP ]{0,24}") {
            if let Ok(q) = Quantity::parse(&s) {
                prop_assert_eq!(Quantity::parse(&q.to_string()), Ok(q));
            }
        }
    }
}
