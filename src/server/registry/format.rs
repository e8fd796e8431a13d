//! Decides: the formats of names, labels, ports and addresses, with upstream's words for what is wrong
//! (`k8s.io/apimachinery/pkg/util/validation`).
//!
//! Every function returns what is wrong with a text, nothing when it is well formed.

use std::net::IpAddr;

use super::strategy::NameRule;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const UNDERSCORED: &str = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_MESSAGE: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const MAX_SUBDOMAIN: usize = 253;
const MAX_LABEL: usize = 63;

pub type Problems = Vec<String>;

/// How upstream words a mismatch: message, examples, and the regular expression it used.
fn mismatch(message: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{regex}')");
    }
    let shown: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{regex}')", shown.join(" or "))
}

fn too_long(limit: usize) -> String {
    format!("must be no more than {limit} bytes")
}

#[must_use]
pub fn between(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn edges(text: &str, first: impl Fn(u8) -> bool, middle: impl Fn(u8) -> bool, last: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&f), Some(&l)) => first(f) && last(l) && bytes.iter().all(|&b| middle(b)),
        _ => false,
    }
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    edges(text, lower, |b| lower(b) || b == b'-', lower)
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// RFC 1123 label.
#[must_use]
pub fn dns_label(text: &str) -> Problems {
    let mut problems = Vec::new();
    if text.len() > MAX_LABEL {
        problems.push(too_long(MAX_LABEL));
    }
    if !is_label(text) {
        problems.push(if is_subdomain(text) {
            "must not contain dots".into()
        } else {
            mismatch(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                 and end with an alphanumeric character",
                LABEL,
                &["my-name", "123-abc"],
            )
        });
    }
    problems
}

/// RFC 1123 subdomain.
#[must_use]
pub fn dns_subdomain(text: &str) -> Problems {
    let mut problems = Vec::new();
    if text.len() > MAX_SUBDOMAIN {
        problems.push(too_long(MAX_SUBDOMAIN));
    }
    if !is_subdomain(text) {
        problems.push(mismatch(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            SUBDOMAIN,
            &["example.com"],
        ));
    }
    problems
}

/// A subdomain whose labels may hold underscores: DNS search paths.
#[must_use]
pub fn dns_subdomain_with_underscore(text: &str) -> Problems {
    let mut problems = Vec::new();
    if text.len() > MAX_SUBDOMAIN {
        problems.push(too_long(MAX_SUBDOMAIN));
    }
    let label = |l: &str| edges(l.strip_prefix('_').unwrap_or(l), lower, |b| lower(b) || b == b'-' || b == b'_', lower);
    if !text.split('.').all(label) {
        problems.push(mismatch(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and \
             must start and end with an alphanumeric character",
            UNDERSCORED,
            &["example.com"],
        ));
    }
    problems
}

/// RFC 1035 label: starts with a letter.
#[must_use]
pub fn dns_1035_label(text: &str) -> Problems {
    let mut problems = Vec::new();
    if text.len() > MAX_LABEL {
        problems.push(too_long(MAX_LABEL));
    }
    if !edges(text, |b| b.is_ascii_lowercase(), |b| lower(b) || b == b'-', lower) {
        problems.push(mismatch(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            LABEL_1035,
            &["my-name", "abc-123"],
        ));
    }
    problems
}

fn is_qualified_part(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_alphanumeric();
    edges(text, alphanumeric, |b| b.is_ascii_alphanumeric() || b"-_.".contains(&b), alphanumeric)
}

/// `name` or `example.com/name`: label keys, annotation keys, finalizers, resource names.
#[must_use]
pub fn qualified_name(text: &str) -> Problems {
    let mut problems = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                problems.push("prefix part must be non-empty".into());
            } else {
                problems.extend(dns_subdomain(prefix).into_iter().map(|p| format!("prefix part {p}")));
            }
            *name
        }
        _ => {
            let message = format!("a qualified name {QUALIFIED_MESSAGE}");
            let wrong = mismatch(&message, QUALIFIED, &["MyName", "my.name", "123-abc"]);
            return vec![format!("{wrong} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")];
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".into());
    } else if name.len() > MAX_LABEL {
        problems.push(format!("name part {}", too_long(MAX_LABEL)));
    }
    if !is_qualified_part(name) {
        let wrong = mismatch(QUALIFIED_MESSAGE, QUALIFIED, &["MyName", "my.name", "123-abc"]);
        problems.push(format!("name part {wrong}"));
    }
    problems
}

#[must_use]
pub fn label_value(text: &str) -> Problems {
    let mut problems = Vec::new();
    if text.len() > MAX_LABEL {
        problems.push(too_long(MAX_LABEL));
    }
    if !text.is_empty() && !is_qualified_part(text) {
        problems.push(mismatch(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    problems
}

/// Names of RBAC objects: anything that can be a segment of a URL's path.
#[must_use]
pub fn path_segment(text: &str, prefix: bool) -> Problems {
    let mut problems = Vec::new();
    if !prefix && (text == "." || text == "..") {
        problems.push(format!("may not be '{text}'"));
    }
    for forbidden in ["/", "%"] {
        if text.contains(forbidden) {
            problems.push(format!("may not contain '{forbidden}'"));
        }
    }
    problems
}

/// A key of a ConfigMap or a Secret: it becomes a file name.
#[must_use]
pub fn config_key(text: &str) -> Problems {
    let mut problems = Vec::new();
    if text.len() > MAX_SUBDOMAIN {
        problems.push(too_long(MAX_SUBDOMAIN));
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        problems.push(mismatch(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match text {
        "." => problems.push("must not be '.'".into()),
        ".." => problems.push("must not be '..'".into()),
        _ if text.starts_with("..") => problems.push("must not start with '..'".into()),
        _ => {}
    }
    problems
}

#[must_use]
pub fn environment_name(text: &str) -> Problems {
    let mut problems = Vec::new();
    if text.is_empty() {
        problems.push("environment variable name must be non-empty".into());
    }
    if text.chars().any(|c| !(' '..='~').contains(&c) || c == '=') {
        problems.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='".into(),
        );
    }
    problems
}

/// The name of a container's port (an IANA service name).
#[must_use]
pub fn port_name(text: &str) -> Problems {
    let mut problems = Vec::new();
    if text.len() > 15 {
        problems.push(too_long(15));
    }
    if text.is_empty() || !text.bytes().all(|b| lower(b) || b == b'-') {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        problems.push("must not contain consecutive hyphens".into());
    }
    if text.starts_with('-') || text.ends_with('-') {
        problems.push("must not begin or end with a hyphen".into());
    }
    problems
}

#[must_use]
pub fn port_number(port: i32) -> Problems {
    if (1..=65535).contains(&port) { Vec::new() } else { vec![between(1, 65535)] }
}

#[must_use]
pub fn http_header(text: &str) -> Problems {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![mismatch(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// `25%`
#[must_use]
pub fn percent(text: &str) -> Problems {
    if is_percent(text) {
        return Vec::new();
    }
    vec![mismatch(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

fn is_percent(text: &str) -> bool {
    text.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

#[must_use]
pub fn ip(text: &str) -> Problems {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            vec!["must not be an IPv4-mapped IPv6 address".into()]
        }
        Ok(_) => Vec::new(),
        Err(_) if has_leading_zero(text) => vec!["must not have leading 0s".into()],
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
    }
}

/// `010.0.0.1`: valid once, but some read it as octal.
fn has_leading_zero(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 4
        && parts.iter().all(|p| p.parse::<u8>().is_ok())
        && parts.iter().any(|p| p.len() > 1 && p.starts_with('0'))
}

#[must_use]
pub fn cidr(text: &str) -> Problems {
    let parsed = text.split_once('/').and_then(|(address, length)| {
        let address: IpAddr = address.parse().ok()?;
        let length: u8 = length.parse().ok()?;
        (length <= if address.is_ipv4() { 32 } else { 128 }).then_some(())
    });
    if parsed.is_some() {
        return Vec::new();
    }
    vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".into()]
}

/// A name by the rule of its kind; `prefix` when it is a `generateName`, which may end with a dash.
#[must_use]
pub fn name(rule: NameRule, text: &str, prefix: bool) -> Problems {
    let mut text = text.to_owned();
    // A letter stands for the random part that will follow.
    if prefix && text.len() > 1 && text.ends_with('-') && rule != NameRule::PathSegment {
        text.pop();
        text.push('a');
    }
    match rule {
        NameRule::DnsSubdomain => dns_subdomain(&text),
        NameRule::DnsLabel => dns_label(&text),
        NameRule::Dns1035Label => dns_1035_label(&text),
        NameRule::PathSegment => path_segment(&text, prefix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(problems: Problems, expect: &[&str]) {
        assert_eq!(problems, expect);
    }

    #[test]
    fn names() {
        const SUB: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
            '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation \
            is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        check(dns_subdomain("a-1.b"), &[]);
        check(dns_subdomain("A_b"), &[SUB]);
        check(dns_subdomain(""), &[SUB]);
        check(dns_subdomain(&"a".repeat(254)), &["must be no more than 253 bytes"]);
        check(dns_label("a.b"), &["must not contain dots"]);
        check(
            dns_label("-a"),
            &["a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
               and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
               '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"],
        );
        check(name(NameRule::DnsSubdomain, "web-", true), &[]);
        assert_eq!(name(NameRule::DnsSubdomain, "web-", false).len(), 1);
        check(name(NameRule::PathSegment, "system:node", false), &[]);
        check(name(NameRule::PathSegment, "a/b", false), &["may not contain '/'"]);
        check(name(NameRule::Dns1035Label, "a1", false), &[]);
        assert_eq!(name(NameRule::Dns1035Label, "1a", false).len(), 1);
    }

    #[test]
    fn qualified_names_and_labels() {
        check(qualified_name("app.kubernetes.io/name"), &[]);
        check(qualified_name("/a"), &["prefix part must be non-empty"]);
        assert_eq!(qualified_name("a/").len(), 2);
        assert_eq!(qualified_name("a/b/c").len(), 1);
        check(label_value(""), &[]);
        check(label_value(&"a".repeat(64)), &["must be no more than 63 bytes"]);
        assert_eq!(label_value("-").len(), 1);
    }

    #[test]
    fn ports_keys_and_addresses() {
        check(port_name("http-1"), &[]);
        check(port_name("80"), &["must contain at least one letter (a-z)"]);
        check(port_name("a--b"), &["must not contain consecutive hyphens"]);
        check(port_number(0), &["must be between 1 and 65535, inclusive"]);
        check(config_key("..a"), &["must not start with '..'"]);
        assert_eq!(config_key("a b").len(), 1);
        check(environment_name("A b.c-1"), &[]);
        assert_eq!(environment_name("A=b").len(), 1);
        check(ip("fd00::1"), &[]);
        check(ip("010.0.0.1"), &["must not have leading 0s"]);
        check(ip("::ffff:1.2.3.4"), &["must not be an IPv4-mapped IPv6 address"]);
        check(ip("x"), &["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]);
        check(cidr("10.0.0.0/8"), &[]);
        assert_eq!(cidr("10.0.0.0/33").len(), 1);
        check(percent("25%"), &[]);
        assert_eq!(percent("%").len(), 1);
    }
}
