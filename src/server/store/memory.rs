//! Effects: a store that keeps nothing beyond the process: tests and simulation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;

use super::{Change, Error, OpenError, Sink, Store, Write};
use crate::api::key::Key;
use crate::api::object::ObjectRef;
use crate::api::revision::Revision;

/// Commits under one lock, which is what orders the revisions.
#[derive(Default)]
pub struct Memory(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// `None` before the start and after the close.
    sink: Option<Arc<dyn Sink>>,
    revision: Revision,
    index: HashMap<Key, Revision>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

#[async_trait]
impl Store for Memory {
    fn start(&self, sink: Arc<dyn Sink>) -> Result<(), OpenError> {
        let mut inner = self.lock();
        if inner.sink.is_some() {
            return Err(OpenError::Started);
        }
        // Revision 0 means "any" in a request, so the empty store is at 1.
        inner.revision = Revision(1);
        sink.load(Vec::new(), inner.revision);
        inner.sink = Some(sink);
        Ok(())
    }

    async fn commit(&self, write: Write) -> Result<ObjectRef, Error> {
        let mut inner = self.lock();
        let sink = inner.sink.clone().ok_or(Error::Closed)?;
        let key = &write.intent.draft().key;
        let current = inner.index.get(key).copied();
        if write.intent.expects() != current {
            return Err(Error::Conflict { current });
        }
        inner.revision.0 += 1;
        let revision = inner.revision;
        let change = write.intent.commit(revision);
        let object = change.object().clone();
        match change {
            Change::Put(_) => inner.index.insert(key.clone(), revision),
            Change::Delete(_) => inner.index.remove(key),
        };
        // Under the lock: the order of publication is the order of revisions.
        sink.publish(vec![change]);
        Ok(object)
    }

    async fn compact(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        self.lock().sink = None;
        Ok(())
    }
}
