//! Effects: a store that keeps nothing beyond the process: tests and simulation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;

use super::{Change, Error, Loaded, OpenError, Sink, Store, Write};
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
        sink.load(Loaded { revision: inner.revision, ..Loaded::default() });
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::contract::{self, Model, Recorder};
    use super::*;

    fn started() -> (Arc<Memory>, Arc<Recorder>) {
        let (store, sink) = (Arc::new(Memory::default()), Arc::new(Recorder::default()));
        store.start(sink.clone()).unwrap();
        (store, sink)
    }

    #[tokio::test]
    async fn keeps_the_contract() {
        let (store, sink) = started();
        contract::basics(&*store, &sink).await;
        assert!(matches!(store.start(sink.clone()), Err(OpenError::Started)));
        store.close().await.unwrap();
        let late = store.commit(contract::durable(super::super::Intent::Create(contract::draft("d", "z", "")))).await;
        assert_eq!(late, Err(Error::Closed));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn loses_no_race() {
        let (store, sink) = started();
        contract::races(store, sink, 8, 50).await;
    }

    proptest! {
        #[test]
        fn does_what_the_model_does(steps in contract::steps()) {
            let (store, sink) = started();
            let mut model = Model::default();
            futures::executor::block_on(model.run(&*store, &steps));
            model.check(&sink, |_| true);
        }
    }
}
