//! Decides: what a label key (a qualified name) and a label value may look like, in upstream's words
//! (`k8s.io/apimachinery/pkg/util/validation`).

const NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const SUBDOMAIN: &str = r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const MAX_NAME: usize = 63;
const MAX_SUBDOMAIN: usize = 253;

/// What is wrong with a label or annotation key: `name` or `prefix.example/name`. Empty when it is fine.
#[must_use]
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            let optional = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {NAME} {optional}")];
        }
        Some(("", name)) => {
            errors.push("prefix part must be non-empty".into());
            name
        }
        Some((prefix, name)) => {
            errors.extend(dns_subdomain(prefix).into_iter().map(|e| format!("prefix part {e}")));
            name
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".into());
    } else if name.len() > MAX_NAME {
        errors.push(format!("name part must be no more than {MAX_NAME} bytes"));
    }
    if !is_name(name) {
        errors.push(format!("name part {NAME}"));
    }
    errors
}

/// What is wrong with a label value. Empty when it is fine.
#[must_use]
pub fn value(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > MAX_NAME {
        errors.push(format!("must be no more than {MAX_NAME} bytes"));
    }
    if !text.is_empty() && !is_name(text) {
        errors.push(VALUE.into());
    }
    errors
}

/// What is wrong with an RFC 1123 subdomain. Empty when it is fine.
#[must_use]
pub fn dns_subdomain(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > MAX_SUBDOMAIN {
        errors.push(format!("must be no more than {MAX_SUBDOMAIN} bytes"));
    }
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let part = |p: &str| {
        edge(p.bytes().next())
            && edge(p.bytes().last())
            && p.bytes().all(|b| b == b'-' || b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if !text.split('.').all(part) {
        errors.push(SUBDOMAIN.into());
    }
    errors
}

fn is_name(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values() {
        for good in ["a", "app.kubernetes.io/name", "A_b.c-1", "1"] {
            assert_eq!(qualified_name(good), Vec::<String>::new(), "{good}");
        }
        for (bad, starts) in [
            ("", "name part must be non-empty"),
            ("/a", "prefix part must be non-empty"),
            ("A.b/c", "prefix part a lowercase RFC 1123 subdomain"),
            ("a/b/c", "a qualified name must consist"),
            ("-a", "name part must consist"),
            ("a b", "name part must consist"),
        ] {
            assert!(qualified_name(bad)[0].starts_with(starts), "{bad}: {:?}", qualified_name(bad));
        }
        assert_eq!(qualified_name(&"a".repeat(64)), ["name part must be no more than 63 bytes"]);
        assert!(value("").is_empty() && value("a_b").is_empty());
        assert_eq!(value("a b"), [VALUE]);
        assert_eq!(value(&"a".repeat(64)), ["must be no more than 63 bytes"]);
    }
}
