//! The verb algorithms, once for every kind, and the strategies that make kinds differ. One file per verb.
//!
//! ```text
//! create  defaults ▶ admission mutate ▶ prepare ▶ allocate ▶ validate ▶ admission validate ▶ commit
//! update  the same, against what is there; nothing is written when nothing changed
//! patch   read ▶ apply ▶ update, again when someone was quicker; server-side apply creates what is not there
//! delete  preconditions ▶ admission ▶ finalizers and grace period ▶ mark or remove
//! ```
//!
//! Reads come from the cache. A commit names the revision it was decided upon; when the store finds another one, the
//! verb starts over from what is there now, or answers 409 where the client named the revision.

pub mod admissionregistration;
mod admit;
pub mod apiextensions;
pub mod apiregistration;
pub mod apps;
pub mod autoscaling;
pub mod batch;
mod binding;
mod catalog;
pub mod certificates;
pub mod coordination;
pub mod core;
mod create;
mod delete;
pub mod discovery;
pub mod events;
mod eviction;
mod expiry;
pub mod flowcontrol;
pub mod format;
pub mod kinds;
mod list;
mod managed;
mod meta;
pub mod metadata;
pub mod networking;
pub mod node;
mod patch;
pub mod policy;
pub mod quantity;
pub mod rbac;
pub mod request;
pub mod resource;
pub mod resource_name;
mod scale;
pub mod scheduling;
mod selection;
pub mod storage;
pub mod strategy;
mod type_check;
mod update;
pub mod webhook;

use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

pub use self::catalog::Catalog;
use self::catalog::Entry;
use self::request::{Context, Target};
use self::strategy::Strategy;
use crate::api::key::Key;
use crate::api::object::ObjectRef;
use crate::api::quota::Measure;
use crate::api::resource::custom::DEFINITIONS;
use crate::api::resource::{Resource, find_storage};
use crate::api::status::Status;
use crate::server::admission::{Attributes, Chain, Operation};
use crate::server::cache::Cache;
use crate::server::crd::definition::{Definition, Version};
use crate::server::store::{Intent, Store, Unreadable, Write};

/// How often a verb starts over when others are quicker, before the client is told so. Of the writers of one object
/// that wait for the same sync one wins, so this is how many can write it at once without anyone being refused.
const MAX_ATTEMPTS: usize = 200;

/// Every verb on every kind. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    cache: Arc<Cache>,
    /// Replaced as a whole when custom resources come and go.
    catalog: RwLock<Arc<Catalog>>,
    admission: Arc<Chain>,
}

/// Why one attempt of a verb came to nothing.
enum Failed {
    /// Someone was quicker.
    Conflict,
    Refused(Status),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

impl Registry {
    /// One strategy for each row of the resource table that is stored. The cache must be the sink of the store.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        cache: Arc<Cache>,
        strategies: Vec<Box<dyn Strategy>>,
        admission: Arc<Chain>,
    ) -> Self {
        let catalog = RwLock::new(Arc::new(Catalog::new(strategies)));
        Self(Arc::new(Inner { store, cache, catalog, admission }))
    }

    /// The kinds that are served now.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        self.0.catalog.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves the custom resources of these definitions, and no others.
    pub fn define(&self, definitions: &[Arc<Definition>]) {
        let next = Arc::new(self.catalog().with(definitions));
        for definition in definitions {
            let stored = definition.rows.stored;
            self.0.cache.select(stored.storage, stored.selectable);
        }
        *self.0.catalog.write().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// The row of a resource as a URL names it, built-in or custom.
    #[must_use]
    pub fn row(&self, group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
        self.catalog().row(group, version, plural)
    }

    /// What a definition says of a custom resource; `None` of what is none.
    #[must_use]
    pub fn custom(&self, t: &Target) -> Option<Arc<Version>> {
        self.entry(t).ok()?.custom.as_ref().map(|c| c.version.clone())
    }

    #[must_use]
    pub fn cache(&self) -> &Arc<Cache> {
        &self.0.cache
    }

    /// # Errors
    /// 404 when there is no such object.
    pub async fn get(&self, cx: &Context, t: &Target) -> Result<ObjectRef, Status> {
        let _ = cx;
        let entry = self.entry(t)?;
        let object = self.find(&entry, t)?;
        if t.subresource == "scale" { scale::of(t, &entry, &object).await } else { entry.wire(object).await }
    }

    /// What is used of quotas.
    #[must_use]
    pub fn measure(&self) -> Measure {
        let quotas = self.0.admission.quotas.clone();
        Measure::new(move |namespace, name| quotas.as_ref()?.measure(namespace, name))
    }

    fn entry(&self, t: &Target) -> Result<Arc<Entry>, Status> {
        self.catalog().entry(t.resource).ok_or_else(Status::no_such_resource)
    }

    fn find(&self, entry: &Entry, t: &Target) -> Result<ObjectRef, Status> {
        self.look(entry, t)?.ok_or_else(|| Status::not_found(t.resource, &t.name))
    }

    /// What is there, if anything is; 500 when that cannot be read.
    fn look(&self, entry: &Entry, t: &Target) -> Result<Option<ObjectRef>, Status> {
        match self.0.cache.get(&entry.storage, &t.namespace, &t.name) {
            Some(found) => Ok(Some(found)),
            None => self.damaged(entry, t).map_or(Ok(None), |damaged| Err(unreadable(&damaged))),
        }
    }

    fn damaged(&self, entry: &Entry, t: &Target) -> Option<Unreadable> {
        self.0.cache.unreadable(|k| *k.name == *t.name && *k.namespace == *t.namespace && *k.resource == *entry.storage)
    }

    /// What cannot be read is in no list, so a namespace or a definition looks empty without it, and would have it again
    /// when it is made anew.
    fn hidden(&self, ends: &Key) -> Option<Unreadable> {
        match &*ends.resource {
            "namespaces" => self.0.cache.unreadable(|k| k.namespace == ends.name),
            DEFINITIONS => {
                let (plural, group) = ends.name.split_once('.')?;
                self.0.cache.unreadable(|k| k.resource.split_once('/') == Some((group, plural)))
            }
            _ => None,
        }
    }

    async fn commit(&self, entry: &Entry, intent: Intent) -> Result<ObjectRef, Failed> {
        use crate::server::store::Error;
        if let Intent::Delete(draft, _) = &intent
            && let Some(left) = self.hidden(&draft.key)
        {
            return Err(unreadable(&left).into());
        }
        match self.0.store.commit(Write { class: entry.class, intent }).await {
            Ok(object) => Ok(object),
            Err(Error::Conflict { .. }) => Err(Failed::Conflict),
            Err(error) => Err(Failed::Refused(error.status())),
        }
    }
}

/// What is said of an object that was damaged on disk.
fn unreadable(damaged: &Unreadable) -> Status {
    let Unreadable { key, reason, .. } = damaged;
    let namespace = Some(&*key.namespace).filter(|n| !n.is_empty());
    // Of a custom resource the version is not known here.
    let url = find_storage(&key.resource).map_or("<its URL>".into(), |r| format!("{}/{}", r.path(namespace), key.name));
    Status::internal(format!(
        "StorageError: corrupt object: {key} cannot be read from the database: {reason}. Restore the database from a \
         snapshot, or delete the object, ignoring its finalizers: kubectl delete --raw \
         '{url}?ignoreStoreReadErrorWithClusterBreakingPotential=true'"
    ))
}

/// The document of an object. Our own bytes, so a failure is corruption.
fn value(object: &ObjectRef) -> Result<Value, Status> {
    object.value().map_err(|e| Status::internal(format!("{} is corrupt in memory: {e}", object.key)))
}

fn attributes<'a>(
    cx: &'a Context,
    t: &'a Target,
    operation: Operation,
    old: Option<&'a Value>,
    dry_run: bool,
) -> Attributes<'a> {
    Attributes {
        cx,
        operation,
        resource: t.resource,
        subresource: t.subresource,
        namespace: &t.namespace,
        name: &t.name,
        old,
        dry_run,
    }
}

#[cfg(test)]
mod tests;
