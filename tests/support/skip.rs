//! How every test, of the library too, says that it cannot run here.

/// Says why a test cannot run here. In CI that is a failure: everything it needs is installed by `tests/run.sh`.
///
/// # Panics
/// In CI.
pub fn skip(why: &str) {
    #[allow(clippy::disallowed_methods, reason = "tests have no configuration")]
    let ci = std::env::var("CI").is_ok_and(|v| v == "true");
    assert!(!ci, "skipped in CI: {why}");
    eprintln!("skipped: {why}");
}
