//! Regular expressions of schemas: read or refused as by Go, bounded in time and memory, and a quoted text matches itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use skiff::api::schema::pattern::Pattern;
use skiff_fuzz::Draw;

const PARTS: &[&str] = &[
    "a",
    "b",
    "(",
    ")",
    "[",
    "]",
    "^",
    "$",
    "*",
    "+",
    "?",
    "{2}",
    "{1,}",
    "{,3}",
    "{1000}",
    "|",
    ".",
    "\\d",
    "\\w",
    "\\b",
    "\\pL",
    "\\p{Greek}",
    "[:alpha:]",
    "-",
    "(?i)",
    "(?P<x>",
    "(?:",
    "\\Q",
    "\\E",
    "\\x41",
    "\\x{1F600}",
    "\\",
    "é",
    "&&",
    "\\z",
    "\\A",
    "\\C",
    "(?s:",
    "[^",
    "~~",
    "\\1",
    "--",
];

fuzz_target!(|data: &[u8]| {
    let mut draw = Draw::new(data);
    let subject = draw.word().repeat(draw.below(40));
    let text: String =
        if draw.one_in(4) { draw.text() } else { (0..draw.below(24)).map(|_| draw.pick(PARTS)).collect() };
    match Pattern::parse(&text) {
        Err(why) => assert!(why.starts_with("error parsing regexp: "), "{text:?}: {why}"),
        Ok(pattern) => {
            let matches = pattern.matches(&subject);
            assert_eq!(pattern.matches(&subject), matches);
            assert!(!matches || pattern.problem().is_none(), "{text:?} cannot be used, and matches");
        }
    }
    // Go's `\Q…\E` ends at the first `\E`.
    if !text.contains("\\E") && !text.ends_with('\\') {
        let quoted = Pattern::parse(&format!("^\\Q{text}\\E$"));
        let quoted = quoted.unwrap_or_else(|e| panic!("{text:?}: {e}"));
        assert!(quoted.problem().is_some() || quoted.matches(&text), "{text:?} is not itself");
    }
});
