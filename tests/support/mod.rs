//! What the test binaries share: images made on the spot, and a way to say *skipped*.

// Each test binary uses its own part of this module.
#![allow(dead_code)]

pub mod images;
mod skip;

pub use skip::skip;
