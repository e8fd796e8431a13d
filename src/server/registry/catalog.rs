//! Types: the kinds that are served at one time: the built-in ones and those of the definitions. A new catalog takes the
//! place of the old one when a definition changes; requests that have begun go on with the one that they found.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::strategy::Strategy;
use super::value;
use crate::api::encode::{self, Draft};
use crate::api::key::Key;
use crate::api::object::{Object, ObjectRef};
use crate::api::resource::{self, Resource};
use crate::api::revision::Revision;
use crate::api::status::Status;
use crate::server::crd::definition::Definition;
use crate::server::crd::strategy::Custom;
use crate::server::store::Class;

/// Group, version and plural.
type Name = (&'static str, &'static str, &'static str);

/// See the module.
pub struct Catalog {
    entries: HashMap<Name, Arc<Entry>>,
    /// What discovery shows: the resource table, then the custom resources.
    rows: Vec<&'static Resource>,
    definitions: Vec<Arc<Definition>>,
}

/// One resource in one version.
pub(super) struct Entry {
    pub strategy: Box<dyn Strategy>,
    /// The row whose version is stored; the same row for most.
    pub stored: &'static Resource,
    /// Shared by the keys of all objects.
    pub storage: Arc<str>,
    pub class: Class,
    pub custom: Option<Custom>,
}

impl Default for Catalog {
    /// The resource table alone, with no strategies: what documents are made of.
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Catalog {
    pub(super) fn new(strategies: Vec<Box<dyn Strategy>>) -> Self {
        let mut entries = HashMap::new();
        for strategy in strategies {
            let row = strategy.resource();
            let stored = resource::find_storage(row.storage).unwrap_or(row);
            let class = if row.volatile { Class::Volatile } else { Class::Durable };
            let entry = Entry { strategy, stored, storage: row.storage.into(), class, custom: None };
            entries.insert(name(row), Arc::new(entry));
        }
        Self { entries, rows: built_in_rows(), definitions: Vec::new() }
    }

    /// The same built-in kinds with other custom resources. Entries of definitions that are the same are kept.
    pub(super) fn with(&self, definitions: &[Arc<Definition>]) -> Self {
        let built_in = self.entries.iter().filter(|(_, e)| e.custom.is_none());
        let mut entries: HashMap<Name, Arc<Entry>> = built_in.map(|(name, e)| (*name, e.clone())).collect();
        let mut rows = built_in_rows();
        for definition in definitions {
            let stored = definition.rows.stored;
            let storage: Arc<str> = stored.storage.into();
            for version in definition.served() {
                // Built-in kinds cannot be taken over: groups of Kubernetes are protected when a definition is created.
                if entries.contains_key(&name(version.row)) {
                    continue;
                }
                let custom = Custom::new(definition.clone(), version.clone());
                let strategy = Box::new(custom.clone());
                let entry =
                    Entry { strategy, stored, storage: storage.clone(), class: Class::Durable, custom: Some(custom) };
                entries.insert(name(version.row), Arc::new(entry));
                rows.push(version.row);
            }
        }
        Self { entries, rows, definitions: definitions.to_vec() }
    }

    /// Every row that is served, the built-in ones first.
    #[must_use]
    pub fn rows(&self) -> &[&'static Resource] {
        &self.rows
    }

    #[must_use]
    pub fn definitions(&self) -> &[Arc<Definition>] {
        &self.definitions
    }

    /// The row of a resource as a URL names it.
    #[must_use]
    pub fn row(&self, group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
        let built_in = resource::find(group, version, plural);
        built_in.or_else(|| {
            let others = &self.rows[resource::RESOURCES.len()..];
            others.iter().find(|r| r.plural == plural && r.group == group && r.version == version).copied()
        })
    }

    pub(super) fn entry(&self, row: &Resource) -> Option<Arc<Entry>> {
        self.entries.get(&(row.group, row.version, row.plural)).cloned()
    }

    /// The rows of a resource by its storage name.
    pub(super) fn versions(&self, storage: &str) -> Vec<&'static Resource> {
        self.entries.values().filter(|e| *e.storage == *storage).map(|e| e.strategy.resource()).collect()
    }

    /// A resource by its storage name, in another version.
    pub(super) fn version(&self, storage: &str, api_version: &str) -> Option<&Entry> {
        let mut entries = self.entries.values();
        let found = entries.find(|e| *e.storage == *storage && e.strategy.resource().api_version() == api_version);
        found.map(|e| &**e)
    }
}

fn built_in_rows() -> Vec<&'static Resource> {
    resource::RESOURCES.iter().chain(resource::MEASURED).collect()
}

fn name(row: &Resource) -> Name {
    (row.group, row.version, row.plural)
}

impl Entry {
    pub fn key(&self, namespace: Arc<str>, name: &str) -> Key {
        Key { resource: self.storage.clone(), namespace, name: name.into() }
    }

    /// The document that writes start from: of a built-in kind the stored one, of a custom resource its form in the
    /// version of the request.
    pub async fn live(&self, object: &ObjectRef) -> Result<Value, Status> {
        let value = value(object)?;
        match &self.custom {
            Some(custom) => custom.read(value, object.revision).await,
            None => Ok(value),
        }
    }

    pub async fn draft(&self, key: Key, value: &Value) -> Result<Draft, Status> {
        let selectable = self.stored.selectable;
        match &self.custom {
            Some(custom) => Ok(Draft::new(key, &*custom.stored(value).await?, selectable)),
            None => Ok(Draft::new(key, value, selectable)),
        }
    }

    /// Whether every object is served as the bytes that are stored.
    pub fn serves_as_stored(&self) -> bool {
        self.custom.is_none() && self.strategy.resource() == self.stored
    }

    /// The object in the version of the request.
    pub async fn wire(&self, object: ObjectRef) -> Result<ObjectRef, Status> {
        let value = match &self.custom {
            None if self.serves_as_stored() => return Ok(object),
            None => self.strategy.wire_form(value(&object)?),
            Some(custom) if custom.is_current(&object) => return Ok(object),
            Some(custom) => custom.read(value(&object)?, object.revision).await?,
        };
        Ok(self.written(&object, &value))
    }

    /// The same for a page of them.
    pub async fn wire_all(&self, mut objects: Vec<ObjectRef>) -> Result<Vec<ObjectRef>, Status> {
        if self.serves_as_stored() {
            return Ok(objects);
        }
        let Some(custom) = &self.custom else {
            for object in &mut objects {
                *object = self.wire(object.clone()).await?;
            }
            return Ok(objects);
        };
        let mut places = Vec::new();
        let mut old = Vec::new();
        for (i, object) in objects.iter().enumerate().filter(|(_, o)| !custom.is_current(o)) {
            places.push(i);
            old.push((value(object)?, object.revision));
        }
        for (i, value) in places.into_iter().zip(custom.read_all(old).await?) {
            objects[i] = self.written(&objects[i], &value);
        }
        Ok(objects)
    }

    /// The object with another text. That of a custom resource has the selectable fields of its version.
    fn written(&self, object: &Object, value: &Value) -> ObjectRef {
        let fields = self.custom.as_ref().map_or(&[][..], |custom| custom.version.row.selectable);
        let head = if fields.is_empty() { object.head.clone() } else { encode::head(value, fields) };
        let draft = Draft { key: object.key.clone(), head, text: encode::canonical(value).into() };
        Arc::new(draft.at(object.revision))
    }

    /// The fields that objects of this resource are selected by, as they are in the version of the request.
    pub fn selectable(&self) -> &'static [&'static str] {
        self.custom.as_ref().map_or(self.stored.selectable, |custom| custom.version.row.selectable)
    }

    /// Whether the fields of an object may be others in the version of the request than in the one that it is stored in.
    pub fn converts_fields(&self) -> bool {
        self.custom.as_ref().is_some_and(|custom| {
            !custom.definition.conversion.is_by_name() || custom.version.row.selectable != self.stored.selectable
        })
    }

    /// What a dry run answers with: the object as it would be, under the revision that is there.
    pub async fn unwritten(&self, draft: &Draft, at: Option<Revision>) -> Result<ObjectRef, Status> {
        let mut object = draft.at(at.unwrap_or_default());
        if at.is_none() {
            object.json = draft.text.clone();
        }
        self.wire(Arc::new(object)).await
    }
}
