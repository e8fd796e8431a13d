//! Types: the revision of a commit, which is what `metadata.resourceVersion` shows.

use std::fmt;

/// A store-wide, strictly increasing commit number. 0 is "before everything": no object carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// Parses a `resourceVersion` as a client sent it.
    ///
    /// # Errors
    /// When the text is not a decimal number that fits 64 bits.
    pub fn parse(text: &str) -> Result<Self, std::num::ParseIntError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
