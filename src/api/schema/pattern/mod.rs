//! Decides: regular expressions of schemas. They are written for Go's RE2 (<https://github.com/google/re2/wiki/Syntax>), so
//! they are read by its rules and errors read like its; what matches is the `regex` crate, which takes linear time too.

mod translate;

use std::sync::{Arc, OnceLock};

use regex::{Regex, RegexBuilder};

/// What one compiled expression may take, in bytes.
const MAX_COMPILED: usize = 8 << 20;
/// What the states that are kept between matches may take, in bytes.
const MAX_STATES: usize = 256 << 10;

/// A regular expression that is compiled when it is first needed: most patterns of most definitions never are.
#[derive(Clone, Debug)]
pub struct Pattern {
    translated: Arc<str>,
    compiled: Arc<OnceLock<Option<Regex>>>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.translated == other.translated
    }
}

impl Pattern {
    /// # Errors
    /// Go's text for what is wrong with the expression.
    pub fn parse(text: &str) -> Result<Self, String> {
        let translated =
            translate::translate(text).map_err(|(what, part)| format!("error parsing regexp: {what}: `{part}`"))?;
        Ok(Self { translated: translated.into(), compiled: Arc::default() })
    }

    /// Why the expression cannot be used although it is one: it would take too much, or knows a class of characters
    /// that nobody else does.
    #[must_use]
    pub fn problem(&self) -> Option<&'static str> {
        match self.build() {
            Ok(_) => None,
            Err(regex::Error::CompiledTooBig(_)) => Some("expression too large"),
            Err(_) => Some("invalid character class range"),
        }
    }

    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.regex().is_some_and(|r| r.is_match(text))
    }

    fn regex(&self) -> Option<&Regex> {
        self.compiled.get_or_init(|| self.build().ok()).as_ref()
    }

    fn build(&self) -> Result<Regex, regex::Error> {
        RegexBuilder::new(&self.translated).size_limit(MAX_COMPILED).dfa_size_limit(MAX_STATES).build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, matching: &[&str], not: &[&str]) {
        let parsed = Pattern::parse(pattern).unwrap();
        assert_eq!(parsed.problem(), None, "{pattern} is {}", parsed.translated);
        for text in matching {
            assert!(parsed.matches(text), "{pattern} should match {text:?}");
        }
        for text in not {
            assert!(!parsed.matches(text), "{pattern} should not match {text:?}");
        }
    }

    #[test]
    fn expressions_match_as_in_go() {
        check("b", &["abc"], &["ac"]);
        check("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", &["a-b"], &["a-", "A"]);
        check(r"^\d+\w\s$", &["1a "], &["١a ", "1é "]);
        check(r"^[\w.-]+@[\D]$", &["a.b@c"], &["a@1"]);
        check(r"^[^[&&~~-]+$", &["a"], &["[", "&", "~", "-"]);
        check("^a{,2}{$", &["a{,2}{"], &["aa"]);
        check("^{a}$", &["{a}"], &[]);
        check("^[]a]+$", &["]a"], &["b"]);
        check(r"^\Qa.b\E+$", &["a.bb"], &["axb"]);
        check(r"^\x41\x{42}\103\/\-\_\<$", &["ABC/-_<"], &[]);
        check(r"(?i)^(?P<x>ab|(?:c))$", &["AB", "C"], &["d"]);
        check(r"^\pL\p{Greek}[\p{Lu}x]$", &["éαX"], &["1αX"]);
        check(r"\bfoo\b", &["a foo"], &["afoo", "foo_"]);
        check(r"^[[:alpha:]_]+\z", &["a_b"], &["1"]);
        check(r"^(?s).$", &["\n"], &[]);
        check("^.$", &["é"], &["\n"]);
        check("^#? x$", &["# x", " x"], &[]);
    }

    #[test]
    fn errors_are_gos() {
        for (pattern, expect) in [
            ("(abc", "missing closing ): `(abc`"),
            ("abc)", "unexpected ): `abc)`"),
            ("[a-z", "missing closing ]: `[a-z`"),
            ("x[z-a]", "invalid character class range: `z-a`"),
            ("*a", "missing argument to repetition operator: `*`"),
            ("(|+)", "missing argument to repetition operator: `+`"),
            ("a**", "invalid nested repetition operator: `**`"),
            ("a{2}+?b", "invalid nested repetition operator: `{2}+?`"),
            ("a{1001}", "invalid repeat count: `{1001}`"),
            ("a{3,2}", "invalid repeat count: `{3,2}`"),
            ("(x(a{100}b)+){11}", "invalid repeat count: `{11}`"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
            ("(?!a)", "invalid or unsupported Perl syntax: `(?!`"),
            ("(?<=a)", "invalid named capture: `(?<=a)`"),
            (r"\y", r"invalid escape sequence: `\y`"),
            (r"(a)\1", r"invalid escape sequence: `\1`"),
            (r"a\", "trailing backslash at end of expression: ``"),
            ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap_err(), format!("error parsing regexp: {expect}"), "{pattern}");
        }
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let problem = |pattern: &str| Pattern::parse(pattern).unwrap().problem();
        assert_eq!(problem(r"\pL{1000}(\pL{10}){100}(\pL{10}){100}"), Some("expression too large"));
        assert_eq!(problem(r"\p{Nowhere}"), Some("invalid character class range"));
        assert_eq!(problem("([a-z]{10}){100}"), None);
        assert!(!Pattern::parse(r"\p{Nowhere}").unwrap().matches("a"));
    }
}
