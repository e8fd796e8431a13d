//! Decides: formats of numbers with check digits.

/// Ten digits, the last of which may be an X, with spaces and dashes anywhere.
pub fn isbn10(text: &str) -> bool {
    let text = compact(text);
    let [digits @ .., last] = text.as_bytes() else { return false };
    if digits.len() != 9 || !digits.iter().all(u8::is_ascii_digit) || !(last.is_ascii_digit() || *last == b'X') {
        return false;
    }
    let sum: u32 = digits.iter().zip(1..).map(|(d, weight)| weight * u32::from(d - b'0')).sum();
    let last = if *last == b'X' { 10 } else { u32::from(last - b'0') };
    (sum + 10 * last).is_multiple_of(11)
}

/// Thirteen digits, with spaces and dashes anywhere.
pub fn isbn13(text: &str) -> bool {
    let text = compact(text);
    let [digits @ .., last] = text.as_bytes() else { return false };
    if digits.len() != 12 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let sum: u32 = digits.iter().zip([1, 3].into_iter().cycle()).map(|(d, w)| w * u32::from(d - b'0')).sum();
    u32::from(last - b'0') == (10 - sum % 10) % 10
}

fn compact(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}' | '-')).collect()
}

/// `123-45-6789`: both separators are there, because the text has eleven characters.
pub fn ssn(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 11
        && bytes.iter().enumerate().all(|(i, b)| match i {
            3 | 6 => matches!(b, b'-' | b' '),
            _ => b.is_ascii_digit(),
        })
}

/// The digits, whatever is between them: a prefix and a length that a company uses, and Luhn's sum.
pub fn credit_card(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let second = |set: &str| digits.chars().nth(1).is_some_and(|c| set.contains(c));
    let starts = |prefixes: &[&str]| prefixes.iter().any(|p| digits.starts_with(p));
    let known = match digits.len() {
        13 => starts(&["4"]),
        14 => starts(&["300", "301", "302", "303", "304", "305", "36", "38"]),
        15 => starts(&["2131", "1800", "35"]) || (starts(&["3"]) && second("47")),
        16 => starts(&["4", "6011", "65"]) || (starts(&["5"]) && second("12345")),
        _ => false,
    };
    let sum: u32 = digits
        .bytes()
        .rev()
        .zip([1, 2].into_iter().cycle())
        .map(|(d, times)| times * u32::from(d - b'0'))
        .map(|n| n / 10 + n % 10)
        .sum();
    known && sum.is_multiple_of(10)
}
