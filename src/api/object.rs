//! Types: an object at rest: canonical JSON bytes plus the small parsed head that the server itself needs.
//!
//! The bytes are complete (they hold `metadata.resourceVersion`), so GET, LIST and WATCH copy them and never
//! encode again. What the store writes is the same text without the revision, which a commit assigns.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::key::Key;
use super::revision::Revision;

/// All annotations of an object together, in bytes.
pub const MAX_ANNOTATIONS: usize = 256 * 1024;

/// The part of an object that the machinery looks at on every list, watch and delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub uid: Box<str>,
    /// `metadata.generation`, 0 when absent.
    pub generation: i64,
    /// Sorted by label key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// `uid` of every owner reference.
    pub owners: Box<[Box<str>]>,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Values of the fields that field selectors can name beyond `metadata.name` and `metadata.namespace`, in the
    /// order of [`crate::api::resource::Resource::selectable`].
    pub fields: Box<[Box<str>]>,
}

/// One object as the watch cache holds and serves it.
#[derive(Debug, PartialEq, Eq)]
pub struct Object {
    pub key: Key,
    pub revision: Revision,
    pub head: Head,
    /// Canonical JSON with `apiVersion`, `kind` and `metadata.resourceVersion`.
    pub json: Bytes,
}

pub type ObjectRef = Arc<Object>;

impl Object {
    /// Parses the bytes. They were written by us, so a failure is corruption and is reported by name.
    ///
    /// # Errors
    /// When the bytes are not JSON.
    pub fn value(&self) -> Result<Value, serde_json::Error> {
        self.typed()
    }

    /// Decodes the bytes into a typed struct.
    ///
    /// # Errors
    /// When the bytes are not JSON of that shape.
    pub fn typed<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        // From text, as objects are decoded everywhere: a second decoder of every kind would be a megabyte of code.
        let text = std::str::from_utf8(&self.json).map_err(serde::de::Error::custom)?;
        serde_json::from_str(text)
    }

    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        let labels = &self.head.labels;
        labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok().map(|i| &*labels[i].1)
    }
}
