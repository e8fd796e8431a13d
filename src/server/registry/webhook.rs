//! Decides: how a webhook is reached, as admission and conversion configure it
//! (`k8s.io/apiserver/pkg/util/webhook/validation.go`).

use serde_json::json;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::format;
use super::metadata::{Errors, invalid};
use crate::api::field::{FieldError, Path};

/// Versions of the reviews that upstream's previous release understands.
const REVIEWS: &str = "v1, v1beta1";
const FORM: &str = "; desired format: https://host[/path]";

/// A service as a webhook names it.
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: Option<&'a str>,
    pub port: i32,
}

/// Either a URL or a service.
pub fn client(errors: &mut Errors, path: &Path, url: Option<&str>, service: Option<Service>) {
    match (url, service) {
        (Some(text), None) => check_url(errors, &path.child("url"), text),
        (None, Some(service)) => check_service(errors, &path.child("service"), service),
        _ => errors.push(FieldError::required(path, "exactly one of url or service is required")),
    }
}

/// Upstream hands over name and namespace the wrong way round, so that a missing name is told of the namespace.
fn check_service(errors: &mut Errors, path: &Path, service: Service) {
    if service.namespace.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    if service.name.is_empty() {
        errors.push(FieldError::required(&path.child("namespace"), ""));
    }
    for problem in format::port_number(service.port) {
        let message = format!("port is not valid: {problem}");
        errors.push(FieldError::invalid(&path.child("port"), &service.port, &message));
    }
    let Some(text) = service.path.filter(|text| !text.is_empty() && *text != "/") else { return };
    let at = path.child("path");
    let mut refuse = |message: &str| errors.push(FieldError::invalid(&at, &text, message));
    if text == "//" {
        refuse("segment[0] may not be empty");
        return;
    }
    if !text.starts_with('/') {
        refuse("must start with a '/'");
    }
    // Whatever the first character is, it is taken for the slash.
    let rest: String = text.chars().skip(1).collect();
    for (i, step) in rest.strip_suffix('/').unwrap_or(&rest).split('/').enumerate() {
        if step.is_empty() {
            refuse(&format!("segment[{i}] may not be empty"));
        }
        for problem in format::dns_subdomain(step).into_iter().filter(|_| !step.is_empty()) {
            refuse(&format!("segment[{i}]: {problem}"));
        }
    }
}

fn check_url(errors: &mut Errors, path: &Path, text: &str) {
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(why) => {
            let message = format!("url must be a valid URL: parse {text:?}: {why}{FORM}");
            errors.push(FieldError::required(path, &message));
            return;
        }
    };
    let mut refuse = |value: &str, message: &str| errors.push(FieldError::invalid(path, &value, message));
    if url.scheme != "https" {
        refuse(&url.scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if url.host.is_empty() {
        refuse("", &format!("host must be specified{FORM}"));
    }
    if let Some(user) = url.user {
        refuse(user, "user information is not permitted in the URL");
    }
    if !url.fragment.is_empty() {
        refuse(url.fragment, "fragments are not permitted in the URL");
    }
    if !url.query.is_empty() {
        refuse(url.query, "query parameters are not permitted in the URL");
    }
}

/// A URL as Go's `net/url` takes it apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Url<'a> {
    pub scheme: String,
    pub user: Option<&'a str>,
    /// With its port.
    pub host: &'a str,
    pub query: &'a str,
    pub fragment: &'a str,
}

impl<'a> Url<'a> {
    /// # Errors
    /// What is wrong with it, in the words of `net/url`.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err("net/url: invalid control character in URL".into());
        }
        let (scheme, rest) = scheme(text)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let out = Self { scheme: scheme.to_lowercase(), query, fragment, ..Self::default() };
        if !rest.starts_with('/') {
            // Something like `mailto:x`, or a relative path.
            let first = rest.split('/').next().unwrap_or_default();
            if scheme.is_empty() && first.contains(':') {
                return Err("first path segment in URL cannot contain colon".into());
            }
            return Ok(out);
        }
        let Some(rest) = rest.strip_prefix("//") else { return Ok(out) };
        let authority = rest.split('/').next().unwrap_or_default();
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        check_host(host)?;
        Ok(Self { user, host, ..out })
    }
}

fn scheme(text: &str) -> Result<(&str, &str), String> {
    for (i, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if i > 0 => {}
            ':' if i == 0 => return Err("missing protocol scheme".into()),
            ':' => return Ok((&text[..i], &text[i + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn check_host(host: &str) -> Result<(), String> {
    let port = if let Some(rest) = host.strip_prefix('[') {
        rest.split_once(']').ok_or("missing ']' in host")?.1
    } else {
        host.rfind(':').map_or("", |at| &host[at..])
    };
    let numbered = port.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    if !port.is_empty() && !numbered {
        return Err(format!("invalid port {port:?} after host"));
    }
    match host.chars().find(|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !r#"-_.~!$&'()*+,;=:[]<>"%"#.contains(*c))
    {
        Some(wrong) => Err(format!("invalid character {:?} in host name", wrong.to_string())),
        None => Ok(()),
    }
}

/// `admissionReviewVersions` and `conversionReviewVersions`: one of them must be known, unless `recognized` is off.
pub fn review_versions(errors: &mut Errors, path: &Path, versions: &[String], missing: &str, recognized: bool) {
    if versions.is_empty() {
        errors.push(FieldError::required(path, missing));
        return;
    }
    for (i, version) in versions.iter().enumerate() {
        let at = path.index(i);
        if versions[..i].contains(version) {
            errors.push(FieldError::invalid(&at, version, "duplicate version"));
        } else {
            invalid(errors, &at, version, format::dns_1035_label(version));
        }
    }
    if recognized && !knows_review(versions) {
        errors.push(FieldError::invalid(path, &json!(versions), &format!("must include at least one of {REVIEWS}")));
    }
}

/// Whether one of the versions is known.
#[must_use]
pub fn knows_review(versions: &[String]) -> bool {
    versions.iter().any(|v| matches!(v.as_str(), "v1" | "v1beta1"))
}

/// Why a bundle has no certificate that could be trusted.
#[must_use]
pub fn ca_bundle_problem(bundle: &[u8]) -> Option<String> {
    let mut why = "unable to parse bytes as PEM block";
    for block in Pem::iter_from_buffer(bundle).filter_map(Result::ok) {
        if block.label != "CERTIFICATE" {
            why = "no valid certificate authority data seen";
        } else if X509Certificate::from_der(&block.contents).is_ok() {
            return None;
        } else {
            return Some(
                "unable to load root certificates: failed to parse certificate: x509: malformed certificate".into(),
            );
        }
    }
    Some(format!("unable to load root certificates: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: Option<&str>, service: Option<Service>, expect: &[&str]) {
        let mut errors = Vec::new();
        client(&mut errors, &Path::new("c"), url, service);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect, "{url:?} {service:?}");
    }

    #[test]
    fn urls() {
        check(Some("https://example.com:8443/a"), None, &[]);
        check(Some("https://[::1]:8443"), None, &[]);
        check(None, None, &["c: Required value: exactly one of url or service is required"]);
        let scheme = "'https' is the only allowed URL scheme; desired format: https://host[/path]";
        let host = "host must be specified; desired format: https://host[/path]";
        check(Some("http://a"), None, &[&format!("c.url: Invalid value: \"http\": {scheme}")]);
        check(
            Some("a/b"),
            None,
            &[&format!("c.url: Invalid value: \"\": {scheme}"), &format!("c.url: Invalid value: \"\": {host}")],
        );
        check(
            Some("https://u:p@a/b?c=d#e"),
            None,
            &[
                "c.url: Invalid value: \"u:p\": user information is not permitted in the URL",
                "c.url: Invalid value: \"e\": fragments are not permitted in the URL",
                "c.url: Invalid value: \"c=d\": query parameters are not permitted in the URL",
            ],
        );
        let wrong = |url: &str, why: &str| {
            let expect = format!("c.url: Required value: url must be a valid URL: parse {url:?}: {why}{FORM}");
            check(Some(url), None, &[&expect]);
        };
        wrong("://a", "missing protocol scheme");
        wrong("https://a:b", "invalid port \":b\" after host");
        wrong("https://a b", "invalid character \" \" in host name");
        wrong("https://[::1", "missing ']' in host");
        wrong("1a:2", "first path segment in URL cannot contain colon");
    }

    #[test]
    fn services() {
        let service = Service { namespace: "n", name: "s", path: None, port: 443 };
        check(None, Some(service), &[]);
        check(Some("https://a"), Some(service), &["c: Required value: exactly one of url or service is required"]);
        check(None, Some(Service { path: Some("/a/b.c/"), ..service }), &[]);
        check(None, Some(Service { name: "", ..service }), &["c.service.namespace: Required value"]);
        check(None, Some(Service { namespace: "", ..service }), &["c.service.name: Required value"]);
        check(
            None,
            Some(Service { port: 0, path: Some("//"), ..service }),
            &[
                "c.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                "c.service.path: Invalid value: \"//\": segment[0] may not be empty",
            ],
        );
        let label = format::dns_subdomain("B").remove(0);
        check(
            None,
            Some(Service { path: Some("a/B"), ..service }),
            &[
                "c.service.path: Invalid value: \"a/B\": must start with a '/'",
                "c.service.path: Invalid value: \"a/B\": segment[0] may not be empty",
                &format!("c.service.path: Invalid value: \"a/B\": segment[1]: {label}"),
            ],
        );
    }

    #[test]
    fn versions_and_bundles() {
        let check = |versions: &[&str], expect: &[&str]| {
            let mut errors = Vec::new();
            let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
            review_versions(&mut errors, &Path::new("v"), &versions, "", true);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
        };
        check(&["v1", "v2"], &[]);
        check(&[], &["v: Required value"]);
        check(
            &["v2", "v2"],
            &[
                "v[1]: Invalid value: \"v2\": duplicate version",
                "v: Invalid value: [\"v2\",\"v2\"]: must include at least one of v1, v1beta1",
            ],
        );
        let none = "unable to load root certificates: unable to parse bytes as PEM block";
        assert_eq!(ca_bundle_problem(b"x").unwrap(), none);
    }
}
