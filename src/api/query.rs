//! Decides: percent-decoding of paths and query strings, as Go's `net/url` reads them, and what it reads back.

use std::fmt::Write as _;

/// The parameters of a query string, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            Some((decode(key, true)?, decode(value, true)?))
        };
        // Go drops pairs that it cannot decode and those with a semicolon.
        Self(text.split('&').filter(|p| !p.is_empty() && !p.contains(';')).filter_map(pair).collect())
    }

    #[must_use]
    pub fn first(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// A present parameter is true unless it says `false` or `0` (apimachinery's conversion of query values).
    #[must_use]
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.first(key).map(|v| !(v.eq_ignore_ascii_case("false") || v == "0"))
    }

    /// # Errors
    /// Go's words for a number that is none.
    pub fn integer(&self, key: &str) -> Result<Option<i64>, String> {
        let Some(text) = self.first(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
    }
}

/// Decodes `%xx`, and `+` as a space in a query. `None` when an escape is malformed or the result is not UTF-8.
#[must_use]
pub fn decode(text: &str, plus: bool) -> Option<String> {
    if !text.contains(['%', '+']) {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            b'+' if plus => out.push(b' '),
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

/// One segment of a path, or one value of a query: all but letters, digits and `-._~` is escaped.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_as_go_does() {
        let query = Query::parse("labelSelector=a%3Db%2Cc+in+(d)&watch&x=1;y=2&bad=%zz&watch=0");
        assert_eq!(query.first("labelSelector"), Some("a=b,c in (d)"));
        assert_eq!(query.flag("watch"), Some(true));
        assert_eq!(query.all("watch").collect::<Vec<_>>(), ["", "0"]);
        assert_eq!((query.first("x"), query.first("bad")), (None, None));
        assert_eq!(decode("/a%2Fb+c", false).as_deref(), Some("/a/b+c"));
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        assert_eq!(encode("app in (a,b),é=x/y?z"), "app%20in%20%28a%2Cb%29%2C%C3%A9%3Dx%2Fy%3Fz");
        for text in ["a-b._~", "a=b,c!=d", "100% + 1", "ß/#?&;"] {
            assert_eq!(decode(&encode(text), true).as_deref(), Some(text));
        }
    }
}
