//! Decides: what a number or a percentage comes to.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Which way a share that is not whole goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    Up,
    Down,
}

/// The number itself, or that percentage of `total`. `None` for a text that is no percentage.
#[must_use]
pub fn share(of: &IntOrString, total: i32, round: Round) -> Option<i32> {
    match of {
        IntOrString::Int(n) => Some(*n),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
            let hundredths = percent.saturating_mul(i64::from(total)).min(i64::MAX - 99);
            let whole = if round == Round::Up { hundredths + 99 } else { hundredths }.div_euclid(100);
            Some(i32::try_from(whole).unwrap_or(i32::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_percentages() {
        let text = |s: &str| IntOrString::String(s.into());
        let cases = [
            (IntOrString::Int(3), 10, Some((3, 3))),
            (text("30%"), 10, Some((3, 3))),
            (text("25%"), 10, Some((3, 2))),
            (text("0%"), 10, Some((0, 0))),
            (text("150%"), 2, Some((3, 3))),
            (text("100%"), i32::MAX, Some((i32::MAX, i32::MAX))),
            (text("9223372036854775807%"), i32::MAX, Some((i32::MAX, i32::MAX))),
            (text("3"), 10, None),
            (text("x%"), 10, None),
        ];
        for (of, total, want) in cases {
            let got = share(&of, total, Round::Up).zip(share(&of, total, Round::Down));
            assert_eq!(got, want, "{of:?} of {total}");
        }
    }
}
