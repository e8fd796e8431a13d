//! Effects, for tests only: where the facts of upstream's release lie that tests compare with, and what a test says
//! that cannot run.

use std::path::{Path, PathBuf};

#[path = "../../tests/support/skip.rs"]
mod said;

pub use said::skip;

/// The folder of the reference, or `None`, said aloud, where there is none: beside the checkout, or where
/// `SKIFF_REFERENCE` says.
///
/// # Panics
/// When there is none in CI: a skipped test there is a failed one.
#[allow(clippy::disallowed_methods, reason = "tests are told by the environment where the reference is")]
pub fn folder() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/reference");
    let folder = std::env::var_os("SKIFF_REFERENCE").map_or_else(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    skip(&format!("no reference in {}", folder.display()));
    None
}
