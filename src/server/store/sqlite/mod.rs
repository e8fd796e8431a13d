//! Effects: the default store, one SQLite file and one thread that writes to it.
//!
//! The writer knows the revision and the row of every key, so it finds conflicts without a query and the table needs
//! no index: a create appends to the last page, an update touches the page of its row, and the log (WAL, synced at
//! each commit) gets these pages and nothing else. All writes that wait while one sync runs share the next one.
//!
//! Revisions: the file holds a mark that is well ahead of what was given out, so no commit has to write it. After a
//! crash revisions go on from the mark; a clean close sets the mark to the last revision.

mod file;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::{Error, OpenError, Sink, Store, Write};
use crate::api::object::ObjectRef;

/// A volatile object that appeared or went is so on disk after this time, or sooner when something durable is written.
pub const FLUSH_INTERVAL: Duration = Duration::from_secs(5);
/// How many times longer a new text of one that stays may wait: a heartbeat is worth little after a crash, and each
/// flush wears the card.
const RENEWAL_FACTOR: u32 = 12;
/// Most writes that wait for the writer; the next ones wait for room.
pub const MAX_QUEUE: usize = 1024;
/// Most writes that share one transaction.
pub const MAX_BATCH: usize = 256;

/// A request to the writer thread.
enum Job {
    Commit(Write, oneshot::Sender<Result<ObjectRef, Error>>),
    Compact(oneshot::Sender<Result<(), Error>>),
    Close(oneshot::Sender<Result<(), Error>>),
}

/// The SQLite store.
pub struct Sqlite {
    path: PathBuf,
    jobs: mpsc::Sender<Job>,
    /// Until [`Store::start`].
    idle: Mutex<Option<Idle>>,
}

struct Idle {
    file: file::File,
    jobs: mpsc::Receiver<Job>,
    flush_interval: Duration,
}

impl Sqlite {
    /// Opens a database, or makes one. Checks it and changes nothing in one that is there.
    ///
    /// # Errors
    /// When the file cannot be used: in use, corrupt, of a newer version, not ours.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_with(path, FLUSH_INTERVAL)
    }

    fn open_with(path: &Path, flush_interval: Duration) -> Result<Self, OpenError> {
        let file = file::File::open(path)?;
        let (sender, receiver) = mpsc::channel(MAX_QUEUE);
        let idle = Mutex::new(Some(Idle { file, jobs: receiver, flush_interval }));
        Ok(Self { path: path.to_owned(), jobs: sender, idle })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Job) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(job(answer)).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }
}

#[async_trait]
impl Store for Sqlite {
    fn start(&self, sink: Arc<dyn Sink>) -> Result<(), OpenError> {
        let idle = self.idle.lock().expect("no code panics while it holds the lock").take();
        writer::start(idle.ok_or(OpenError::Started)?, sink)
    }

    async fn commit(&self, write: Write) -> Result<ObjectRef, Error> {
        self.ask(|answer| Job::Commit(write, answer)).await
    }

    async fn compact(&self) -> Result<(), Error> {
        self.ask(Job::Compact).await
    }

    async fn close(&self) -> Result<(), Error> {
        // A store that was never started has nothing to write.
        if self.idle.lock().expect("no code panics while it holds the lock").take().is_some() {
            return Ok(());
        }
        self.ask(Job::Close).await
    }
}

#[cfg(test)]
mod tests;
