//! The store: where a write becomes durable and gets its revision. It keeps no history and answers no query: every
//! read comes from the watch cache, which a store fills at start and then feeds with what it commits.
//!
//! ```text
//! registry ─ Write{class, intent} ─▶ commit ─▶ compare with what is there ─▶ revision ─▶ disk (durable ones)
//!                                             ▲                                                   │
//!                                             └──── answer ◀──── Sink::publish (watch cache) ◀────┘
//! ```
//!
//! Invariants, which the contract suite tests on every store:
//! - one commit, one revision, strictly increasing, never given out twice, not even after a power cut;
//! - a write happens only when its expectation holds at its place in the order of revisions;
//! - the sink sees committed changes only, in the order of their revisions, before the writer gets its answer;
//! - a durable write is on disk before anyone sees it. A volatile one may be lost in a crash, never torn.
//!
//! After a restart a watch can go on only from the revision at which the store was opened; anything older is answered
//! with 410 Expired, as the events that led there are gone. Clients list again.

#[cfg(test)]
mod contract;
pub mod memory;
pub mod sqlite;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use serde_json::json;

use crate::api::encode::Draft;
use crate::api::key::Key;
use crate::api::object::ObjectRef;
use crate::api::resource::Resource;
use crate::api::revision::Revision;
use crate::api::status::Status;
use crate::disk;

/// How much a crash may take away (architecture, decision 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// On disk before it is acknowledged.
    Durable,
    /// Acknowledged at once, on disk a while later ([`sqlite::FLUSH_INTERVAL`]; renewals take up to a minute).
    Volatile,
}

/// One write. A key keeps its class for life: it is a property of the resource.
#[derive(Clone, Debug)]
pub struct Write {
    pub class: Class,
    pub intent: Intent,
}

/// What a [`Write`] does, and at which revision it must find the key.
#[derive(Clone, Debug)]
pub enum Intent {
    Create(Draft),
    Update(Draft, Revision),
    /// The last state, as the deletion shows it to those who watch.
    Delete(Draft, Revision),
}

impl Intent {
    #[must_use]
    pub fn draft(&self) -> &Draft {
        match self {
            Self::Create(draft) | Self::Update(draft, _) | Self::Delete(draft, _) => draft,
        }
    }

    /// The revision that the key must be at; `None` when it must not exist.
    #[must_use]
    pub fn expects(&self) -> Option<Revision> {
        match self {
            Self::Create(_) => None,
            Self::Update(_, at) | Self::Delete(_, at) => Some(*at),
        }
    }

    /// What is committed under the revision.
    #[must_use]
    pub fn commit(&self, revision: Revision) -> Change {
        let object = Arc::new(self.draft().at(revision));
        match self {
            Self::Create(_) | Self::Update(..) => Change::Put(object),
            Self::Delete(..) => Change::Delete(object),
        }
    }
}

/// A committed change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Put(ObjectRef),
    /// The last state, under the revision of the deletion.
    Delete(ObjectRef),
}

impl Change {
    #[must_use]
    pub fn object(&self) -> &ObjectRef {
        match self {
            Self::Put(object) | Self::Delete(object) => object,
        }
    }
}

/// Everything there is at start.
#[derive(Debug, Default)]
pub struct Loaded {
    pub objects: Vec<ObjectRef>,
    /// Keys that are taken by what cannot be read. Only a delete at this revision can follow.
    pub unreadable: Vec<Unreadable>,
    /// What all this is the state of.
    pub revision: Revision,
}

/// What is left of an object that was damaged on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub key: Key,
    pub revision: Revision,
    /// What is wrong with its text.
    pub reason: String,
}

impl Unreadable {
    /// What deletes it: nothing is known of it but its name.
    #[must_use]
    pub fn remains(&self, resource: &Resource) -> Draft {
        let api_version = resource.api_version();
        let metadata = json!({"name": &*self.key.name, "namespace": &*self.key.namespace});
        let value = json!({"apiVersion": api_version, "kind": resource.kind, "metadata": metadata});
        Draft::new(self.key.clone(), &value, &[])
    }
}

/// Where commits are told: the watch cache. Called from the writer, so it must not block.
pub trait Sink: Send + Sync + 'static {
    /// Called once, first.
    fn load(&self, loaded: Loaded);

    /// Changes in the order of their revisions; none is missing.
    fn publish(&self, changes: Vec<Change>);
}

/// A place that keeps objects.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Loads everything into the sink and begins to take writes. Called once.
    fn start(&self, sink: Arc<dyn Sink>) -> Result<(), OpenError>;

    /// Commits one write. When this returns the object, the sink has seen it.
    async fn commit(&self, write: Write) -> Result<ObjectRef, Error>;

    /// Gives room on disk back that deleted objects held.
    async fn compact(&self) -> Result<(), Error>;

    /// Writes what is still volatile and lets go of the files. Later commits fail.
    async fn close(&self) -> Result<(), Error>;
}

/// Why a write was not committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The expectation did not hold; `current` is the revision of what is there.
    #[error("the key is at another revision")]
    Conflict { current: Option<Revision> },
    #[error("no space left on the disk that holds {}", file.display())]
    Full { file: PathBuf },
    #[error("{} is on a file system that nobody can write: {}", file.display(), disk::REMEDY)]
    ReadOnly { file: PathBuf },
    #[error("cannot write {}: {reason}", file.display())]
    Disk { file: PathBuf, reason: String },
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// For everything but a conflict, which only the registry can word.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Full { .. } => Status::insufficient_storage(self.to_string()),
            Self::Closed => Status::unavailable(self.to_string(), 1),
            Self::Conflict { .. } | Self::ReadOnly { .. } | Self::Disk { .. } => Status::internal(self),
        }
    }
}

/// Why a store cannot be used at all. Nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} is in use by another server: stop that one, or choose another --data-dir", file.display())]
    InUse { file: PathBuf },
    #[error(
        "{} was written by a newer version of skiff (schema {found}, this one knows up to {known}): upgrade skiff, or \
         use another --data-dir",
        file.display()
    )]
    Newer { file: PathBuf, found: i64, known: i64 },
    #[error("{} is corrupt: {reason}. Nothing was changed; restore it from a snapshot", file.display())]
    Corrupt { file: PathBuf, reason: String },
    #[error("{} is not a skiff database", file.display())]
    Foreign { file: PathBuf },
    #[error("{} is on a file system that nobody can write: {}", file.display(), disk::REMEDY)]
    ReadOnly { file: PathBuf },
    #[error("cannot open {}", file.display())]
    Io {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot open {}", file.display())]
    Sqlite {
        file: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("the store was started before")]
    Started,
}
