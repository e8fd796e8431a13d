//! The watch cache: every object in memory, and the events of the last minutes, by which watches go on.
//!
//! One writer (the store, through [`Sink`]) and many readers. Objects are `Arc`s, so a list copies pointers. A watch
//! does not have a queue of its own: it is a cursor into the shared [`window`] of its resource, woken once per batch
//! of commits. So a commit costs the same with one watcher and with a hundred, nothing is parsed or copied for a
//! watcher, what a slow one holds is bounded by the window, and going on from an old revision is the same code as
//! being up to date. A watcher whose cursor fell out of the window is closed.

mod shelf;
mod snapshot;
pub mod watch;
mod window;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard};

use crate::api::key::Key;
use crate::api::object::ObjectRef;
use crate::api::revision::Revision;
use crate::server::store::{Change, Loaded, Sink, Unreadable};
use shelf::Shelf;
pub use snapshot::Page;
use tokio::sync::watch as watch_channel;
pub use window::{MAX_AGE, MAX_EVENTS};

/// All objects of all resources.
#[derive(Default)]
pub struct Cache {
    shelves: RwLock<HashMap<Box<str>, Arc<Shelf>>>,
    /// Everything up to this revision is on the shelves. Stored after the changes are.
    revision: AtomicU64,
    /// The state that was loaded: no watch goes on from before it.
    loaded: AtomicU64,
    /// What the store holds and could not read. No list has it.
    unreadable: RwLock<Vec<Unreadable>>,
}

impl Cache {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// `storage` is [`crate::api::resource::Resource::storage`]; `namespace` is empty for cluster-scoped objects.
    #[must_use]
    pub fn get(&self, storage: &str, namespace: &str, name: &str) -> Option<ObjectRef> {
        self.shelf(storage).get(namespace, name)
    }

    /// All objects of a resource or of one namespace of it, by namespace and name, and the revision they are the
    /// state of.
    #[must_use]
    pub fn list(&self, storage: &str, namespace: Option<&str>) -> (Vec<ObjectRef>, Revision) {
        let (items, _, revision) = self.page(storage, Page::all(namespace));
        (items, revision)
    }

    /// The state at an earlier revision, `None` when the window no longer reaches back to it.
    #[must_use]
    pub fn list_at(&self, storage: &str, namespace: Option<&str>, at: Revision) -> Option<Vec<ObjectRef>> {
        self.page_at(storage, Page::all(namespace), at).map(|(items, _)| items)
    }

    /// A page of a list, how many objects follow it, and the revision that both are the state of.
    #[must_use]
    pub fn page(&self, storage: &str, page: Page<'_>) -> (Vec<ObjectRef>, usize, Revision) {
        self.shelf(storage).list(page, || self.revision())
    }

    /// The same of an earlier revision, `None` when the window no longer reaches back to it.
    #[must_use]
    pub fn page_at(&self, storage: &str, page: Page<'_>, at: Revision) -> Option<(Vec<ObjectRef>, usize)> {
        self.shelf(storage).list_at(page, at)
    }

    /// The revision of the last change of a resource, to be looked at again and again.
    #[must_use]
    pub fn changed(&self, storage: &str) -> Arc<AtomicU64> {
        self.shelf(storage).changes()
    }

    /// Wakes whenever a resource changed; holds the revision of its last change.
    #[must_use]
    pub fn subscribe(&self, storage: &str) -> watch_channel::Receiver<Revision> {
        self.shelf(storage).subscribe()
    }

    /// The revision that everything served now is at least at.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }

    /// One of what is stored, but cannot be read, under such a key.
    #[must_use]
    pub fn unreadable(&self, key: impl Fn(&Key) -> bool) -> Option<Unreadable> {
        self.damaged().iter().find(|u| key(&u.key)).cloned()
    }

    fn damaged(&self) -> RwLockReadGuard<'_, Vec<Unreadable>> {
        self.unreadable.read().expect("no code panics while it holds the lock")
    }

    /// How many objects of a resource there are.
    #[must_use]
    pub fn count(&self, storage: &str) -> usize {
        self.shelf(storage).count()
    }

    /// How many of them a namespace has.
    #[must_use]
    pub fn count_in(&self, storage: &str, namespace: &str) -> usize {
        self.shelf(storage).count_in(namespace)
    }

    /// Which fields of a resource can be selected, where that was not known when its objects were loaded.
    pub fn select(&self, storage: &str, selectable: &[&str]) {
        self.shelf(storage).select(selectable);
    }

    /// Resources that have been asked for or written.
    #[must_use]
    pub fn resources(&self) -> Vec<Box<str>> {
        let shelves = self.shelves.read().expect("no code panics while it holds the lock");
        shelves.keys().cloned().collect()
    }

    fn shelf(&self, storage: &str) -> Arc<Shelf> {
        let shelves = self.shelves.read().expect("no code panics while it holds the lock");
        if let Some(shelf) = shelves.get(storage) {
            return shelf.clone();
        }
        drop(shelves);
        let mut shelves = self.shelves.write().expect("no code panics while it holds the lock");
        let loaded = Revision(self.loaded.load(Ordering::Acquire));
        shelves.entry(storage.into()).or_insert_with(|| Arc::new(Shelf::new(loaded))).clone()
    }
}

impl Sink for Cache {
    fn load(&self, Loaded { objects, unreadable, revision }: Loaded) {
        *self.unreadable.write().expect("no code panics while it holds the lock") = unreadable;
        self.loaded.store(revision.0, Ordering::Release);
        // Shelves that were asked for before the store was loaded start where it does.
        for shelf in self.shelves.read().expect("no code panics while it holds the lock").values() {
            shelf.start(revision);
        }
        for object in objects {
            self.shelf(&object.key.resource.clone()).load(object);
        }
        self.revision.store(revision.0, Ordering::Release);
    }

    fn publish(&self, changes: Vec<Change>) {
        let Some(last) = changes.last().map(|c| c.object().revision) else { return };
        let mut touched: Vec<Arc<Shelf>> = Vec::new();
        let damaged = !self.damaged().is_empty();
        for change in changes {
            if let (true, Change::Delete(object)) = (damaged, &change) {
                let mut unreadable = self.unreadable.write().expect("no code panics while it holds the lock");
                unreadable.retain(|u| u.key != object.key);
            }
            let shelf = self.shelf(&change.object().key.resource.clone());
            shelf.apply(change);
            if !touched.iter().any(|t| Arc::ptr_eq(t, &shelf)) {
                touched.push(shelf);
            }
        }
        self.revision.store(last.0, Ordering::Release);
        for shelf in touched {
            shelf.wake();
        }
    }
}

#[cfg(test)]
mod tests;
