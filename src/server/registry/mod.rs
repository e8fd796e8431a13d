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

pub mod apps;
pub mod autoscaling;
pub mod batch;
mod binding;
pub mod certificates;
pub mod coordination;
pub mod core;
mod create;
mod delete;
pub mod discovery;
pub mod events;
mod expiry;
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
pub mod resource_name;
mod scale;
pub mod scheduling;
pub mod storage;
pub mod strategy;
mod update;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use self::request::{Context, Target};
use self::strategy::Strategy;
use crate::api::encode::Draft;
use crate::api::key::Key;
use crate::api::object::ObjectRef;
use crate::api::resource::{self, Resource};
use crate::api::revision::Revision;
use crate::api::status::Status;
use crate::server::admission::{Attributes, Chain, Operation};
use crate::server::cache::Cache;
use crate::server::store::{Class, Intent, Store, Write};

/// How often a verb starts over when others are quicker, before the client is told so. Of the writers of one object
/// that wait for the same sync one wins, so this is how many can write it at once without anyone being refused.
const MAX_ATTEMPTS: usize = 200;

/// Every verb on every kind. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    cache: Arc<Cache>,
    entries: HashMap<(&'static str, &'static str, &'static str), Entry>,
    admission: Arc<Chain>,
}

/// One resource in one version.
struct Entry {
    strategy: Box<dyn Strategy>,
    /// The row whose version is stored; the same row for most.
    stored: &'static Resource,
    /// Shared by the keys of all objects.
    storage: Arc<str>,
    class: Class,
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
        let mut entries = HashMap::new();
        for strategy in strategies {
            let row = strategy.resource();
            let stored = resource::find_storage(row.storage).unwrap_or(row);
            let class = if row.volatile { Class::Volatile } else { Class::Durable };
            let entry = Entry { strategy, stored, storage: row.storage.into(), class };
            entries.insert((row.group, row.version, row.plural), entry);
        }
        Self(Arc::new(Inner { store, cache, entries, admission }))
    }

    #[must_use]
    pub fn cache(&self) -> &Arc<Cache> {
        &self.0.cache
    }

    /// # Errors
    /// 404 when there is no such object.
    #[allow(clippy::unused_async, reason = "the verbs look alike to their callers")]
    pub async fn get(&self, cx: &Context, t: &Target) -> Result<ObjectRef, Status> {
        let _ = cx;
        let entry = self.entry(t)?;
        let object = self.find(entry, t)?;
        if t.subresource == "scale" { scale::of(t, &object) } else { entry.wire(object) }
    }

    fn entry(&self, t: &Target) -> Result<&Entry, Status> {
        let row = t.resource;
        self.0.entries.get(&(row.group, row.version, row.plural)).ok_or_else(Status::no_such_resource)
    }

    fn find(&self, entry: &Entry, t: &Target) -> Result<ObjectRef, Status> {
        let found = self.0.cache.get(&entry.storage, &t.namespace, &t.name);
        found.ok_or_else(|| Status::not_found(t.resource, &t.name))
    }

    async fn commit(&self, entry: &Entry, intent: Intent) -> Result<ObjectRef, Failed> {
        use crate::server::store::Error;
        match self.0.store.commit(Write { class: entry.class, intent }).await {
            Ok(object) => Ok(object),
            Err(Error::Conflict { .. }) => Err(Failed::Conflict),
            Err(error) => Err(Failed::Refused(error.status())),
        }
    }

    /// Lets admission change an object, and fills in defaults again when it did.
    fn mutate(&self, entry: &Entry, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        if self.0.admission.0.is_empty() {
            return Ok(());
        }
        let before = object.clone();
        self.0.admission.mutate(attributes, object)?;
        if before != *object { entry.strategy.defaults(object) } else { Ok(()) }
    }
}

impl Entry {
    fn key(&self, namespace: &str, name: &str) -> Key {
        Key { resource: self.storage.clone(), namespace: namespace.into(), name: name.into() }
    }

    fn draft(&self, key: Key, value: &Value) -> Draft {
        Draft::new(key, value, self.stored.selectable)
    }

    /// The object in the version of the request.
    fn wire(&self, object: ObjectRef) -> Result<ObjectRef, Status> {
        if self.strategy.resource() == self.stored {
            return Ok(object);
        }
        let value = self.strategy.wire_form(value(&object)?);
        let draft = Draft {
            key: object.key.clone(),
            head: object.head.clone(),
            text: crate::api::encode::canonical(&value).into(),
        };
        Ok(Arc::new(draft.at(object.revision)))
    }

    /// What a dry run answers with: the object as it would be, under the revision that is there.
    fn unwritten(&self, draft: &Draft, at: Option<Revision>) -> Result<ObjectRef, Status> {
        let mut object = draft.at(at.unwrap_or_default());
        if at.is_none() {
            object.json = draft.text.clone();
        }
        self.wire(Arc::new(object))
    }
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
