//! Types: the objects of one resource as last observed, and who is told about changes.
//!
//! One reflector writes, any number of controllers read. Objects are trimmed before they are kept: what no
//! controller reads costs no memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::de::DeserializeOwned;

use super::reflector::{self, Event, Raw, Sink};
use super::request::revision;
use crate::api::resource::Resource;

/// A kind that can be kept in a store.
pub trait Kind: DeserializeOwned + Send + Sync + 'static {
    fn meta(&self) -> &dyn Meta;
    /// Drops what nobody reads.
    fn trim(&mut self) {}
}

/// What is looked at in an object of any kind.
pub trait Meta {
    /// Empty for cluster-scoped objects.
    fn namespace(&self) -> &str;
    fn name(&self) -> &str;
    fn uid(&self) -> &str;
    /// `resourceVersion`; 0 when there is none.
    fn revision(&self) -> u64;
    fn owners(&self) -> &[OwnerReference];
    fn finalizers(&self) -> &[String];
    /// `deletionTimestamp` is set.
    fn deleting(&self) -> bool;
}

impl Meta for ObjectMeta {
    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    fn uid(&self) -> &str {
        self.uid.as_deref().unwrap_or_default()
    }

    fn revision(&self) -> u64 {
        revision(self.resource_version.as_deref().unwrap_or_default())
    }

    fn owners(&self) -> &[OwnerReference] {
        self.owner_references.as_deref().unwrap_or_default()
    }

    fn finalizers(&self) -> &[String] {
        self.finalizers.as_deref().unwrap_or_default()
    }

    fn deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

/// One change of one object. `old` is absent for an addition, `new` for a removal.
pub struct Change<'a, K> {
    pub old: Option<&'a Arc<K>>,
    pub new: Option<&'a Arc<K>>,
}

impl<'a, K> Change<'a, K> {
    /// The states that the object had and has: whoever cares for either is concerned.
    pub fn each(&self) -> impl Iterator<Item = &'a Arc<K>> {
        self.old.into_iter().chain(self.new)
    }
}

type Subscriber<K> = Box<dyn Fn(&Change<'_, K>) + Send + Sync>;
type Objects<K> = HashMap<Box<str>, BTreeMap<Box<str>, Arc<K>>>;

pub struct Store<K> {
    resource: &'static Resource,
    /// By namespace, then name.
    objects: RwLock<Objects<K>>,
    /// Revision up to which the objects are known.
    observed: AtomicU64,
    subscribers: RwLock<Vec<Subscriber<K>>>,
}

/// What the driver needs to know of any store, whatever its kind: has it seen a write yet?
pub trait View: Send + Sync {
    fn resource(&self) -> &'static Resource;
    fn observed(&self) -> u64;
    /// The object is still there with that uid and not being deleted.
    fn lives(&self, namespace: &str, name: &str, uid: &str) -> bool;
    /// What garbage collection asks of an owner.
    fn head(&self, namespace: &str, name: &str) -> Option<Head>;
    /// The object is there with that uid, in whatever namespace.
    fn is_anywhere(&self, name: &str, uid: &str) -> bool;
    /// What a namespace holds of this resource.
    fn count(&self, namespace: &str) -> Count;
    /// Ends the subscriptions: they hold on to the stores.
    fn close(&self);
}

/// Objects of one resource in one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub total: usize,
    /// Not being deleted yet.
    pub live: usize,
    /// How many objects each finalizer is on.
    pub finalizers: BTreeMap<String, usize>,
}

/// Identity and end of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub uid: String,
    pub deleting: bool,
    pub finalizers: Vec<String>,
}

impl<K: Kind> Store<K> {
    #[must_use]
    pub fn new(resource: &'static Resource) -> Self {
        Self { resource, objects: RwLock::default(), observed: AtomicU64::new(0), subscribers: RwLock::default() }
    }

    /// Calls `subscriber` after each change, on the reflector's task: it must be quick and must not block.
    pub fn subscribe(&self, subscriber: impl Fn(&Change<'_, K>) + Send + Sync + 'static) {
        self.subscribers.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(subscriber));
    }

    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read(|o| o.get(namespace)?.get(name).cloned())
    }

    /// The objects of one namespace, by name. Cluster-scoped objects are in namespace "".
    #[must_use]
    pub fn list(&self, namespace: &str) -> Vec<Arc<K>> {
        self.read(|o| o.get(namespace).map(|m| m.values().cloned().collect()).unwrap_or_default())
    }

    #[must_use]
    pub fn all(&self) -> Vec<Arc<K>> {
        self.read(|o| o.values().flat_map(|m| m.values().cloned()).collect())
    }

    #[must_use]
    pub fn find(&self, namespace: &str, matches: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        self.read(|o| {
            o.get(namespace).map(|m| m.values().filter(|k| matches(k)).cloned().collect()).unwrap_or_default()
        })
    }

    /// Puts an object in by hand: for tests and simulation.
    pub fn put(&self, object: K) {
        self.set(object);
    }

    /// Takes an object out by hand: for tests and simulation.
    pub fn take(&self, namespace: &str, name: &str) {
        self.unset(namespace, name);
    }

    fn read<T>(&self, f: impl FnOnce(&Objects<K>) -> T) -> T {
        f(&self.objects.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, f: impl FnOnce(&mut Objects<K>) -> T) -> T {
        f(&mut self.objects.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, mut object: K) {
        object.trim();
        let meta = object.meta();
        let (ns, name, seen) = (meta.namespace().into(), meta.name().into(), meta.revision());
        let new = Arc::new(object);
        let old = self.write(|o| o.entry(ns).or_default().insert(name, Arc::clone(&new)));
        self.observed.fetch_max(seen, Ordering::AcqRel);
        self.tell(&Change { old: old.as_ref(), new: Some(&new) });
    }

    fn unset(&self, namespace: &str, name: &str) {
        let old = self.write(|o| {
            let of_namespace = o.get_mut(namespace)?;
            let old = of_namespace.remove(name);
            if of_namespace.is_empty() {
                o.remove(namespace);
            }
            old
        });
        if let Some(old) = old {
            self.tell(&Change { old: Some(&old), new: None });
        }
    }

    fn replace(&self, fresh: Vec<K>) {
        let names: std::collections::HashSet<(Box<str>, Box<str>)> =
            fresh.iter().map(|k| (k.meta().namespace().into(), k.meta().name().into())).collect();
        let gone: Vec<(Box<str>, Box<str>)> = self.read(|o| {
            o.iter()
                .flat_map(|(ns, m)| m.keys().map(move |name| (ns.clone(), name.clone())))
                .filter(|k| !names.contains(k))
                .collect()
        });
        for (ns, name) in gone {
            self.unset(&ns, &name);
        }
        for object in fresh {
            self.set(object);
        }
    }
    fn tell(&self, change: &Change<'_, K>) {
        for subscriber in self.subscribers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            subscriber(change);
        }
    }
}

impl<K: Kind> Sink for Store<K> {
    fn observe(&self, event: Event<Raw>) {
        // Whoever is told of a change finds that this store has observed it.
        let seen = |at: u64| self.observed.fetch_max(at, Ordering::AcqRel);
        match reflector::decode::<K>(self.resource, event) {
            None => {}
            Some(Event::Replace(all, at)) => {
                self.replace(all);
                seen(at);
            }
            Some(Event::Set(object)) => self.set(object),
            Some(Event::Gone(object)) => {
                let meta = object.meta();
                // The event of a deletion carries the revision of the deletion.
                seen(meta.revision());
                self.unset(meta.namespace(), meta.name());
            }
            Some(Event::Bookmark(at)) => {
                seen(at);
            }
        }
    }
}

impl<K: Kind> View for Store<K> {
    fn resource(&self) -> &'static Resource {
        self.resource
    }

    fn observed(&self) -> u64 {
        self.observed.load(Ordering::Acquire)
    }

    fn lives(&self, namespace: &str, name: &str, uid: &str) -> bool {
        self.get(namespace, name).is_some_and(|k| {
            let meta = k.meta();
            meta.uid() == uid && !meta.deleting()
        })
    }

    fn head(&self, namespace: &str, name: &str) -> Option<Head> {
        self.get(namespace, name).map(|k| {
            let meta = k.meta();
            Head { uid: meta.uid().to_owned(), deleting: meta.deleting(), finalizers: meta.finalizers().to_owned() }
        })
    }

    fn is_anywhere(&self, name: &str, uid: &str) -> bool {
        self.read(|o| o.values().filter_map(|m| m.get(name)).any(|k| k.meta().uid() == uid))
    }

    fn count(&self, namespace: &str) -> Count {
        self.read(|o| {
            let mut count = Count::default();
            for meta in o.get(namespace).into_iter().flat_map(BTreeMap::values).map(|k| k.meta()) {
                count.total += 1;
                count.live += usize::from(!meta.deleting());
                for finalizer in meta.finalizers() {
                    *count.finalizers.entry(finalizer.clone()).or_default() += 1;
                }
            }
            count
        })
    }

    fn close(&self) {
        self.subscribers.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
