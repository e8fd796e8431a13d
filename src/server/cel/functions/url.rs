//! Decides: URLs (`library.URLs`), read as Go's `net/url` reads them, which is not as browsers do.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::super::value::{Error, Key, Map, Value};
use super::cost::Cost;
use super::opaque::Opaque;
use super::{Row, failed, no_overload};

/// The parts of a URL that functions ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url {
    pub scheme: String,
    /// With the port and the brackets of an IPv6 address.
    pub host: String,
    /// As it is sent, escapes included.
    pub path: String,
    pub query: String,
    /// All of it, for comparisons.
    whole: String,
}

pub(super) const ROWS: &[Row] = &[
    ("url", "(string) -> url", Cost::First, |v| match &v[0] {
        Value::String(text) => match Url::parse(text) {
            Ok(url) => Ok(Value::Opaque(Arc::new(Opaque::Url(url)))),
            Err(error) => failed(format!("URL parse error during conversion from string: {error}")),
        },
        _ => no_overload("url", v),
    }),
    ("isURL", "(string) -> bool", Cost::One, |v| match &v[0] {
        Value::String(text) => Ok(Value::Bool(Url::parse(text).is_ok())),
        _ => no_overload("isURL", v),
    }),
    ("getScheme", "url.() -> string", Cost::One, |v| part(v, "getScheme", |url| Value::text(&url.scheme))),
    ("getHost", "url.() -> string", Cost::One, |v| part(v, "getHost", |url| Value::text(&url.host))),
    ("getHostname", "url.() -> string", Cost::One, |v| {
        part(v, "getHostname", |url| Value::text(url.host_and_port().0))
    }),
    ("getPort", "url.() -> string", Cost::One, |v| part(v, "getPort", |url| Value::text(url.host_and_port().1))),
    ("getEscapedPath", "url.() -> string", Cost::One, |v| part(v, "getEscapedPath", |url| Value::text(&url.path))),
    ("getQuery", "url.() -> map(string, list(string))", Cost::One, |v| part(v, "getQuery", |url| url.parameters())),
];

fn part<'a>(v: &[Value<'a>], name: &str, of: fn(&Url) -> Value<'a>) -> Result<Value<'a>, Error> {
    match &v[0] {
        Value::Opaque(opaque) => match &**opaque {
            Opaque::Url(url) => Ok(of(url)),
            _ => no_overload(name, v),
        },
        _ => no_overload(name, v),
    }
}

impl Url {
    /// As `url.ParseRequestURI` and then `url.Parse`: absolute, or an absolute path.
    ///
    /// # Errors
    /// Go's words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: String| Err(format!("parse {text:?}: {why}"));
        if text.is_empty() {
            return wrong("empty url".into());
        }
        if text.bytes().any(|b| b < b' ' || b == 0x7f) {
            return wrong("net/url: invalid control character in URL".into());
        }
        let without = text.split_once('#').map_or(text, |(before, _)| before);
        let (scheme, rest) = match scheme(without) {
            Ok(found) => found,
            Err(why) => return wrong(why.into()),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut url = Self {
            scheme: scheme.to_ascii_lowercase(),
            query: query.to_owned(),
            whole: text.to_owned(),
            ..Self::default()
        };
        if !rest.starts_with('/') {
            // An opaque one has neither host nor path.
            return if scheme.is_empty() { wrong("invalid URI for request".into()) } else { Ok(url) };
        }
        let authority = rest.strip_prefix("//").filter(|_| !scheme.is_empty() || !rest.starts_with("///"));
        let path = match authority {
            Some(rest) => {
                let end = rest.find('/').unwrap_or(rest.len());
                let (authority, path) = rest.split_at(end);
                let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
                if let Err(why) = check_host(host) {
                    return wrong(why);
                }
                url.host = unescaped(host, false).unwrap_or_default();
                path
            }
            None => rest,
        };
        if unescaped(path, false).is_none() {
            let at = path.find('%').unwrap_or_default();
            let shown: String = path[at..].chars().take(3).collect();
            return wrong(format!("invalid URL escape {shown:?}"));
        }
        url.path = path.chars().fold(String::new(), |mut out, c| {
            match c {
                c if c.is_ascii_alphanumeric() || "-_.~$&+,/:;=@%!'()*".contains(c) => out.push(c),
                c => c.encode_utf8(&mut [0; 4]).bytes().for_each(|b| out.push_str(&format!("%{b:02X}"))),
            }
            out
        });
        Ok(url)
    }

    fn host_and_port(&self) -> (&str, &str) {
        let end = self.host.rfind(']').map_or(0, |end| end + 1);
        let (host, port) = match self.host[end..].rfind(':') {
            Some(colon) => (&self.host[..end + colon], &self.host[end + colon + 1..]),
            None => (self.host.as_str(), ""),
        };
        (host.trim_start_matches('[').trim_end_matches(']'), port)
    }

    fn parameters<'a>(&self) -> Value<'a> {
        let mut found: BTreeMap<String, Vec<Value<'a>>> = BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Some(key), Some(value)) = (unescaped(key, true), unescaped(value, true)) {
                found.entry(key).or_default().push(Value::text(&value));
            }
        }
        let entries =
            found.into_iter().filter_map(|(key, values)| Some((Key::of(Value::text(&key))?, Value::list(values))));
        Value::Map(Map::Built(Rc::new(entries.collect())))
    }
}

/// The scheme, which may be missing, and what follows it.
fn scheme(text: &str) -> Result<(&str, &str), &'static str> {
    for (at, c) in text.char_indices() {
        match c {
            c if c.is_ascii_alphabetic() => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme"),
            ':' => return Ok((&text[..at], &text[at + 1..])),
            _ => return Ok(("", text)),
        }
    }
    Ok(("", text))
}

fn check_host(host: &str) -> Result<(), String> {
    let after = if host.starts_with('[') {
        let Some(end) = host.rfind(']') else { return Err("missing ']' in host".into()) };
        &host[end + 1..]
    } else {
        host.find(':').map_or("", |colon| &host[colon..])
    };
    if !after.is_empty() {
        let port = after.strip_prefix(':').filter(|port| port.bytes().all(|b| b.is_ascii_digit()));
        if port.is_none() {
            return Err(format!("invalid port {after:?} after host"));
        }
    }
    if let Some(bad) =
        host.chars().find(|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !"-_.~!$&'()*+,;=:[]<>\"%".contains(*c))
    {
        return Err(format!("invalid character {:?} in host name", bad.to_string()));
    }
    Ok(())
}

/// With `%20` and, in a query, `+` resolved.
fn unescaped(text: &str, query: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |b: Option<u8>| (b? as char).to_digit(16);
                u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).ok()?
            }
            b'+' if query => b' ',
            byte => byte,
        });
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
