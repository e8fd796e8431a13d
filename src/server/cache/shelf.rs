//! Effects: the objects of one resource and its window, behind one lock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use super::snapshot::{self, Page};
use super::window::{Event, Window};
use crate::api::encode;
use crate::api::object::{Object, ObjectRef};
use crate::api::revision::Revision;
use crate::clock;
use crate::server::store::Change;

/// Objects by namespace and name.
pub type Objects = BTreeMap<Arc<str>, BTreeMap<Arc<str>, ObjectRef>>;

pub struct Shelf {
    inner: RwLock<Inner>,
    /// Holds the revision of the last change; every watch waits on it.
    changed: watch::Sender<Revision>,
    /// The same, ahead of the watches: written under the lock, as the objects are.
    changes: Arc<AtomicU64>,
}

struct Inner {
    objects: Objects,
    count: usize,
    window: Window,
    changed: Revision,
}

impl Shelf {
    pub fn new(loaded: Revision) -> Self {
        let inner = Inner { objects: Objects::new(), count: 0, window: Window::new(loaded), changed: loaded };
        let changes = Arc::new(AtomicU64::new(loaded.0));
        Self { inner: RwLock::new(inner), changed: watch::Sender::new(loaded), changes }
    }

    pub fn start(&self, loaded: Revision) {
        let mut inner = self.write();
        inner.window = Window::new(loaded);
        inner.changed = loaded;
        self.changes.store(loaded.0, Ordering::Release);
    }

    /// Puts an object there without an event.
    pub fn load(&self, object: ObjectRef) {
        let mut inner = self.write();
        let names = inner.objects.entry(object.key.namespace.clone()).or_default();
        names.insert(object.key.name.clone(), object);
        inner.count += 1;
    }

    pub fn apply(&self, change: Change) {
        let now = clock::instant();
        let mut inner = self.write();
        inner.changed = change.object().revision;
        let event = match change {
            Change::Put(object) => {
                let names = inner.objects.entry(object.key.namespace.clone()).or_default();
                let before = names.insert(object.key.name.clone(), object.clone());
                inner.count += usize::from(before.is_none());
                Event::new(before, Some(object), None, now)
            }
            Change::Delete(object) => {
                let key = &object.key;
                let mut before = None;
                if let Some(names) = inner.objects.get_mut(&key.namespace) {
                    before = names.remove(&key.name);
                    if names.is_empty() {
                        inner.objects.remove(&key.namespace);
                    }
                }
                inner.count -= usize::from(before.is_some());
                // Without a state before, as after one that could not be read, nobody is told.
                Event::new(before, None, Some(object), now)
            }
        };
        inner.window.push(event);
        self.changes.store(inner.changed.0, Ordering::Release);
    }

    /// Takes the values of selectable fields out of the objects again. Events keep what they have.
    pub fn select(&self, selectable: &[&str]) {
        let mut inner = self.write();
        let objects = inner.objects.values_mut().flat_map(BTreeMap::values_mut);
        for object in objects.filter(|o| o.head.fields.len() != selectable.len() || !selectable.is_empty()) {
            // Our own text: what cannot be read was refused at the start.
            let Ok(value) = object.value() else { continue };
            let head = encode::head(&value, selectable);
            if head != object.head {
                let (key, json) = (object.key.clone(), object.json.clone());
                *object = Arc::new(Object { key, revision: object.revision, head, json });
            }
        }
    }

    /// Tells the watches that there is something new.
    pub fn wake(&self) {
        let changed = self.changed();
        self.changed.send_replace(changed);
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<ObjectRef> {
        self.read().objects.get(namespace)?.get(name).cloned()
    }

    pub fn count(&self) -> usize {
        self.read().count
    }

    pub fn count_in(&self, namespace: &str) -> usize {
        self.read().objects.get(namespace).map_or(0, BTreeMap::len)
    }

    pub fn changed(&self) -> Revision {
        self.read().changed
    }

    pub fn changes(&self) -> Arc<AtomicU64> {
        self.changes.clone()
    }

    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.changed.subscribe()
    }

    /// A page of what is there, how much follows it, and the revision that it is the state of. `revision` reads the
    /// revision of the whole cache; it is called under the lock.
    pub fn list(&self, page: Page<'_>, revision: impl Fn() -> Revision) -> (Vec<ObjectRef>, usize, Revision) {
        let inner = self.read();
        let (items, rest) = snapshot::now(&inner.objects, page);
        let at = inner.at(revision);
        (items, rest, at)
    }

    pub fn list_at(&self, page: Page<'_>, at: Revision) -> Option<(Vec<ObjectRef>, usize)> {
        let inner = self.read();
        snapshot::at(&inner.objects, &inner.window, page, at)
    }

    /// The revision that the shelf is the state of.
    pub fn reached(&self, revision: impl Fn() -> Revision) -> Revision {
        self.read().at(revision)
    }

    /// The oldest revision that a watch can go on from.
    pub fn floor(&self) -> Revision {
        self.read().window.floor()
    }

    /// Up to `limit` events after `cursor`, and the revision up to which they are complete. `None` when some of them
    /// are gone from the window.
    pub fn after(
        &self,
        cursor: Revision,
        limit: usize,
        revision: impl Fn() -> Revision,
    ) -> Option<(Vec<Event>, Revision)> {
        let inner = self.read();
        let events = inner.window.after(cursor, limit)?;
        let reached = match events.last() {
            Some(last) if events.len() == limit => last.revision,
            _ => inner.at(revision),
        };
        Some((events, reached))
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().expect("no code panics while it holds the lock")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().expect("no code panics while it holds the lock")
    }
}

impl Inner {
    /// The revision that the shelf is the state of. In the middle of a batch the shelf is ahead of the cache's
    /// revision; else it has everything up to that revision, for the writer stores it after the shelves.
    fn at(&self, revision: impl Fn() -> Revision) -> Revision {
        self.changed.max(revision())
    }
}
