//! Loop: the only thread that writes. Takes what waits, decides it in memory, makes it durable in one transaction,
//! tells the sink, answers.
//!
//! A batch is decided as if it had been written; when the transaction fails, the durable part of it is undone in
//! memory and every one of its writers gets the error. Revisions of failed writes are not given out again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info, warn};

use super::file::{self, File, Slot};
use super::{Idle, Job, MAX_BATCH, RENEWAL_FACTOR};
use crate::api::key::Key;
use crate::api::object::ObjectRef;
use crate::api::resource::find_storage;
use crate::api::revision::Revision;
use crate::clock;
use crate::server::store::{Change, Class, Error, Intent, OpenError, Sink, Unreadable, Write};

/// How far the durable mark is put ahead: a crash skips at most so many revisions.
const RESERVE: u64 = 100_000;

type Answer = oneshot::Sender<Result<ObjectRef, Error>>;

/// Loads the file into the sink and starts the thread.
pub(super) fn start(idle: Idle, sink: Arc<dyn Sink>) -> Result<(), OpenError> {
    let Idle { file, jobs, flush_interval } = idle;
    let began = clock::instant();
    let (mut index, mut loaded) = file.load()?;
    let revision = loaded.revision;
    info!(objects = loaded.objects.len(), %revision, elapsed = ?began.elapsed(), "loaded the database");
    // What may be lost in a crash is made again by whoever wants it, such as the heartbeat of a node.
    let mut unwritten = BTreeMap::new();
    let volatile = |u: &mut Unreadable| find_storage(&u.key.resource).is_some_and(|r| r.volatile);
    for Unreadable { key, reason, .. } in loaded.unreadable.extract_if(.., volatile) {
        warn!(object = %key, reason, "an object in the database cannot be read and is dropped");
        unwritten.extend(index.remove(&key).map(|slot| (slot.row, RowChange::Delete)));
    }
    for Unreadable { key, reason, .. } in &loaded.unreadable {
        error!(object = %key, reason, "an object in the database cannot be read and is left out: see kubectl get for what to do");
    }
    let path = file.path().to_owned();
    let io = |source| OpenError::Io { file: path.clone(), source };
    let clock = runtime::Builder::new_current_thread().enable_time().build().map_err(io)?;
    sink.load(loaded);
    let writer = Writer {
        mark: revision,
        file,
        sink,
        index,
        revision,
        flush_at: (!unwritten.is_empty()).then(|| clock::instant() + flush_interval),
        unwritten,
        flush_interval,
        failing: false,
    };
    thread::Builder::new().name("store".into()).spawn(move || writer.run(jobs, &clock)).map_err(io)?;
    Ok(())
}

struct Writer {
    file: File,
    sink: Arc<dyn Sink>,
    index: HashMap<Key, Slot>,
    /// The last revision given out.
    revision: Revision,
    /// On disk: no revision up to here is given out by a later process.
    mark: Revision,
    /// Volatile changes that are not on disk, by row.
    unwritten: BTreeMap<i64, RowChange>,
    /// Set exactly when there is something unwritten.
    flush_at: Option<Instant>,
    flush_interval: Duration,
    /// The last transaction failed: it has been logged.
    failing: bool,
}

enum RowChange {
    Insert(Key, Revision, Bytes),
    Update(Revision, Bytes),
    Delete,
}

/// A write whose expectation held, before it is durable.
struct Decided {
    answer: Answer,
    change: Change,
    /// `None` for a volatile write: it is in `unwritten`.
    durable: Option<Durable>,
}

struct Durable {
    row: i64,
    change: RowChange,
    /// What the index held before.
    before: Option<Slot>,
}

impl Writer {
    fn run(mut self, mut jobs: mpsc::Receiver<Job>, clock: &runtime::Runtime) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        loop {
            let received = clock.block_on(async {
                match self.flush_at {
                    None => Some(jobs.recv_many(&mut batch, MAX_BATCH).await),
                    Some(at) => timeout_at(at, jobs.recv_many(&mut batch, MAX_BATCH)).await.ok(),
                }
            });
            match received {
                None => self.flush(),
                // Nobody can ask any more: the store was dropped.
                Some(0) => return self.close(None),
                Some(_) => {
                    let mut writes = Vec::with_capacity(batch.len());
                    for job in batch.drain(..) {
                        match job {
                            Job::Commit(write, answer) => writes.push((write, answer)),
                            Job::Compact(answer) => {
                                self.commit(std::mem::take(&mut writes));
                                let _ = answer.send(self.file.compact());
                            }
                            Job::Close(answer) => {
                                self.commit(writes);
                                return self.close(Some(answer));
                            }
                        }
                    }
                    self.commit(writes);
                }
            }
        }
    }

    fn commit(&mut self, writes: Vec<(Write, Answer)>) {
        if writes.is_empty() {
            return;
        }
        let mut refused = Vec::new();
        if let Err(error) = self.reserve(writes.len() as u64) {
            return writes.into_iter().for_each(|(_, answer)| drop(answer.send(Err(error.clone()))));
        }
        let mut decided = Vec::with_capacity(writes.len());
        for (write, answer) in writes {
            match self.decide(write) {
                Ok((change, durable)) => decided.push(Decided { answer, change, durable }),
                Err(error) => refused.push((answer, error)),
            }
        }
        if decided.iter().any(|d| d.durable.is_some())
            && let Err(error) = self.write(&decided, None)
        {
            let lost: Vec<_> = decided.extract_if(.., |d| d.durable.is_some()).collect();
            for lost in lost.into_iter().rev() {
                self.undo(&lost);
                refused.push((lost.answer, error.clone()));
            }
        }
        let (changes, answers): (Vec<_>, Vec<_>) = decided.into_iter().map(|d| (d.change, d.answer)).unzip();
        let objects: Vec<_> = changes.iter().map(|c| c.object().clone()).collect();
        // Who gets an answer, a refusal too, must find what it was decided upon in the cache.
        self.sink.publish(changes);
        for (answer, object) in answers.into_iter().zip(objects) {
            let _ = answer.send(Ok(object));
        }
        for (answer, error) in refused {
            let _ = answer.send(Err(error));
        }
    }

    /// Makes sure that the mark covers the next revisions: else a later process could give them out again.
    fn reserve(&mut self, count: u64) -> Result<(), Error> {
        let last = self.revision.0 + count;
        if last <= self.mark.0 { Ok(()) } else { self.write(&[], Some(Revision(last + RESERVE))) }
    }

    /// Checks the expectation and changes the index as if the write were durable already.
    fn decide(&mut self, write: Write) -> Result<(Change, Option<Durable>), Error> {
        let before = self.index.get(&write.intent.draft().key).copied();
        let current = before.map(|slot| slot.revision);
        if write.intent.expects() != current {
            return Err(Error::Conflict { current });
        }
        self.revision.0 += 1;
        let revision = self.revision;
        let change = write.intent.commit(revision);
        let row = before.map_or(revision.0.cast_signed(), |slot| slot.row);
        let (key, row_change) = match write.intent {
            Intent::Create(draft) => (draft.key.clone(), RowChange::Insert(draft.key, revision, draft.text)),
            Intent::Update(draft, _) => (draft.key, RowChange::Update(revision, draft.text)),
            Intent::Delete(draft, _) => (draft.key, RowChange::Delete),
        };
        match row_change {
            RowChange::Delete => self.index.remove(&key),
            RowChange::Insert(..) | RowChange::Update(..) => self.index.insert(key.clone(), Slot { row, revision }),
        };
        if write.class == Class::Durable {
            return Ok((change, Some(Durable { row, change: row_change, before })));
        }
        self.remember(row, key, row_change);
        Ok((change, None))
    }

    /// Merges a volatile change into what is unwritten: only the last state of a row reaches the disk.
    fn remember(&mut self, row: i64, key: Key, change: RowChange) {
        let fresh = matches!(self.unwritten.get(&row), Some(RowChange::Insert(..)));
        let renewal = matches!(change, RowChange::Update(..)) && !fresh;
        match change {
            RowChange::Delete if fresh => {
                self.unwritten.remove(&row);
            }
            RowChange::Update(revision, text) if fresh => {
                self.unwritten.insert(row, RowChange::Insert(key, revision, text));
            }
            change => {
                self.unwritten.insert(row, change);
            }
        }
        let wait = if renewal { self.flush_interval * RENEWAL_FACTOR } else { self.flush_interval };
        let at = clock::instant() + wait;
        self.flush_at = (!self.unwritten.is_empty()).then(|| self.flush_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// One transaction. What is volatile and unwritten rides along: the sync is paid for.
    fn write(&mut self, decided: &[Decided], mark: Option<Revision>) -> Result<(), Error> {
        let durable = decided.iter().filter_map(|d| d.durable.as_ref().map(|d| (d.row, &d.change)));
        let volatile = self.unwritten.iter().map(|(row, change)| (*row, change));
        match transact(&mut self.file, volatile.chain(durable), mark) {
            Ok(()) => {
                if self.failing {
                    info!("writes reach the disk again");
                }
                self.failing = false;
                self.mark = mark.unwrap_or(self.mark);
                self.unwritten.clear();
                self.flush_at = None;
                Ok(())
            }
            Err(e) => {
                let error = self.file.failure(&e);
                if !self.failing {
                    warn!(%error, "writes are refused until the disk takes them again");
                }
                self.failing = true;
                Err(error)
            }
        }
    }

    /// Takes a decision back. Called from the newest to the oldest.
    fn undo(&mut self, lost: &Decided) {
        let key = &lost.change.object().key;
        match lost.durable.as_ref().and_then(|d| d.before) {
            Some(slot) => self.index.insert(key.clone(), slot),
            None => self.index.remove(key),
        };
    }

    fn flush(&mut self) {
        if self.write(&[], None).is_err() {
            // Kept, and tried again.
            self.flush_at = Some(clock::instant() + self.flush_interval);
        }
    }

    fn close(mut self, answer: Option<oneshot::Sender<Result<(), Error>>>) {
        let mark = (self.mark != self.revision).then_some(self.revision);
        let written = if mark.is_some() || !self.unwritten.is_empty() { self.write(&[], mark) } else { Ok(()) };
        let closed = written.and(self.file.close());
        debug!(revision = %self.revision, "closed the database");
        if let Some(answer) = answer {
            let _ = answer.send(closed);
        }
    }
}

fn transact<'a>(
    file: &mut File,
    changes: impl Iterator<Item = (i64, &'a RowChange)>,
    mark: Option<Revision>,
) -> rusqlite::Result<()> {
    let tx = file.transaction()?;
    for (row, change) in changes {
        match change {
            RowChange::Insert(key, revision, text) => file::insert(&tx, row, key, *revision, text)?,
            RowChange::Update(revision, text) => file::update(&tx, row, *revision, text)?,
            RowChange::Delete => file::delete(&tx, row)?,
        }
    }
    if let Some(mark) = mark {
        file::mark(&tx, mark)?;
    }
    tx.commit()
}
