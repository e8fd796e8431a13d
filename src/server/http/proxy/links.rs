//! Decides: links that point at the proxied server itself, so that they lead through the proxy (`Transport.rewriteURL`).
//! Links to other servers, and those relative to the page, stay.

use std::fmt::Write as _;

/// What the links of one answer are measured by.
#[derive(Clone, Debug)]
pub struct Links {
    /// Everything before the proxied path, as the client wrote it: `/api/v1/namespaces/x/services/web/proxy`.
    prefix: String,
    /// The same, escaped.
    escaped: String,
    /// `host:port` of the other side.
    theirs: String,
    /// What the client calls this server.
    ours: String,
}

impl Links {
    #[must_use]
    pub fn new(prefix: &str, theirs: &str, ours: &str) -> Self {
        let (prefix, escaped) = (prefix.to_owned(), escaped(prefix));
        Self { prefix, escaped, theirs: theirs.to_owned(), ours: ours.to_owned() }
    }

    /// `X-Forwarded-Uri`: what the client asked for.
    #[must_use]
    pub fn forwarded(&self, path: &str) -> String {
        self.joined(&escaped(path))
    }

    fn joined(&self, path: &str) -> String {
        let mut joined = cleaned(&format!("{}/{path}", self.escaped));
        if path.ends_with('/') && !joined.ends_with('/') {
            joined.push('/');
        }
        joined
    }

    /// `None` when the link stays as it is.
    #[must_use]
    pub fn rewritten(&self, link: &str) -> Option<String> {
        if link.bytes().any(|b| b.is_ascii_control()) {
            return None;
        }
        let (rest, fragment) = cut(link, '#');
        let (rest, query) = cut(rest, '?');
        let (scheme, rest) = scheme(rest);
        let (host, path) = match rest.strip_prefix("//") {
            Some(authority) => {
                let end = authority.find('/').unwrap_or(authority.len());
                let host = authority[..end].rsplit('@').next().unwrap_or_default();
                (host, &authority[end..])
            }
            None => ("", rest),
        };
        let other = !host.is_empty() && host != self.theirs && host != self.ours;
        // With a scheme and no authority it is no path at all, such as `mailto:`.
        if other || !path.starts_with('/') || (host.is_empty() && !scheme.is_empty()) {
            return None;
        }
        let mut out = String::new();
        if host == self.ours && !host.is_empty() {
            let colon = if scheme.is_empty() { "" } else { ":" };
            let _ = write!(out, "{scheme}{colon}//{host}");
        }
        if path.starts_with(&self.prefix) || path.starts_with(&self.escaped) {
            out.push_str(path);
        } else {
            out.push_str(&self.joined(path));
        }
        out.push_str(query);
        out.push_str(fragment);
        (out != link).then_some(out)
    }
}

/// Cuts before a character, which stays with what comes after it.
fn cut(text: &str, at: char) -> (&str, &str) {
    text.split_at(text.find(at).unwrap_or(text.len()))
}

fn scheme(text: &str) -> (&str, &str) {
    let Some((scheme, rest)) = text.split_once(':') else { return ("", text) };
    let mut letters = scheme.bytes();
    let first = letters.next().is_some_and(|b| b.is_ascii_alphabetic());
    if first && letters.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) { (scheme, rest) } else { ("", text) }
}

/// Without empty segments, `.` and `..` (Go's `path.Clean`); always from the root.
#[must_use]
pub fn cleaned(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

/// A decoded path as a URL writes it (Go's `URL.EscapedPath`).
#[must_use]
pub fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(byte)),
            byte if b"-_.~$&+,/:;=@".contains(&byte) => out.push(char::from(byte)),
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "/api/v1/namespaces/x/services/web/proxy";

    fn check(link: &str, expect: &str) {
        let links = Links::new(PREFIX, "10.42.0.5:80", "server:6443");
        assert_eq!(links.rewritten(link).unwrap_or_else(|| link.to_owned()), expect, "{link}");
    }

    #[test]
    fn links_to_the_same_server_lead_through_the_proxy() {
        check("/a", &format!("{PREFIX}/a"));
        check("/a/?q=/b#c", &format!("{PREFIX}/a/?q=/b#c"));
        check("/", &format!("{PREFIX}/"));
        check("http://10.42.0.5:80/a", &format!("{PREFIX}/a"));
        check("//10.42.0.5:80/a", &format!("{PREFIX}/a"));
        check("https://server:6443/a", &format!("https://server:6443{PREFIX}/a"));
        check("/a/../b", &format!("{PREFIX}/b"));
    }

    #[test]
    fn other_links_stay() {
        for link in [
            "a",
            "../a",
            "?q",
            "#top",
            "",
            "mailto:a@b",
            "javascript:void(0)",
            "https://example.com/a",
            "//example.com/a",
            "http://10.42.0.5:81/a",
            "/api/v1/namespaces/x/services/web/proxy/a",
            "data:/x",
            "http://10.42.0.5:80",
        ] {
            check(link, link);
        }
    }

    #[test]
    fn what_was_asked_is_told() {
        let links = Links::new(PREFIX, "h", "s");
        assert_eq!(links.forwarded("/a b/"), format!("{PREFIX}/a%20b/"));
        assert_eq!(links.forwarded("/"), format!("{PREFIX}/"));
        assert_eq!(links.forwarded(""), PREFIX);
    }
}
