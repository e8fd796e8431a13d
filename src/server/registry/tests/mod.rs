//! Tests: the bed that the registry's tests run on: the memory store, and a strategy that knows nothing.

mod delete;
mod list;
mod write;

use std::sync::Arc;

use serde_json::{Value, json};

use super::request::*;
use super::strategy::{Part, Prepared, Strategy};
use super::*;
use crate::api::field::{FieldError, Path};
use crate::api::resource::{RESOURCES, find};
use crate::api::revision::Revision;
use crate::api::user::User;
use crate::server::store::memory::Memory;

/// A kind that knows nothing: keeps the spec and the status apart, and wants a name.
struct Plain(&'static Resource);

impl Strategy for Plain {
    fn resource(&self) -> &'static Resource {
        self.0
    }

    fn defaults(&self, object: &mut Value) -> Result<(), Status> {
        object["apiVersion"] = self.0.api_version().into();
        object["kind"] = self.0.kind.into();
        Ok(())
    }

    fn prepare_create(&self, _: &Context, object: &mut Value) -> Result<Prepared, Status> {
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
        }
        object["metadata"]["generation"] = 1.into();
        let name = meta::text(object, "name");
        let metadata = Path::new("metadata");
        let mut errors = Vec::new();
        if name.is_empty() {
            errors.push(FieldError::required(&metadata.child("name"), "name or generateName is required"));
        }
        Ok(Prepared { errors, ..Prepared::default() })
    }

    fn prepare_update(&self, _: &Context, part: Part, new: &mut Value, old: &Value) -> Result<Prepared, Status> {
        let keep = if part == Part::Status { "spec" } else { "status" };
        if part != Part::Binding {
            match old.get(keep) {
                Some(kept) => new[keep] = kept.clone(),
                None => drop(new.as_object_mut().and_then(|n| n.remove(keep))),
            }
        }
        if new.get("spec") != old.get("spec") {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or_default();
            new["metadata"]["generation"] = (generation + 1).into();
        }
        Ok(Prepared::default())
    }
}

struct Bed {
    registry: Registry,
    cx: Context,
}

fn row(group: &str, plural: &str) -> &'static Resource {
    find(group, "v1", plural).unwrap()
}

impl Bed {
    fn new() -> Self {
        let cache = Cache::new();
        let store = Arc::new(Memory::default());
        store.start(cache.clone()).unwrap();
        let kinds = RESOURCES.iter().filter(|r| !r.storage.is_empty());
        let strategies = kinds.map(|r| Box::new(Plain(r)) as Box<dyn Strategy>).collect();
        let registry = Registry::new(store, cache, strategies, Arc::default());
        Self { registry, cx: Context::new(User::default()) }
    }

    async fn create(&self, t: &Target, body: Value) -> Result<Value, Status> {
        let t = Target { name: String::new(), ..t.clone() };
        let made = self.registry.create(&self.cx, &t, body, &WriteOptions::default()).await?;
        Ok(made.value().unwrap())
    }
}

fn configmap(name: &str) -> Target {
    Target { resource: row("", "configmaps"), namespace: "default".into(), name: name.into(), subresource: "" }
}

async fn bed_with(kind: impl Fn(&'static Resource) -> Box<dyn Strategy>, admission: Chain) -> Bed {
    let cache = Cache::new();
    let store = Arc::new(Memory::default());
    store.start(cache.clone()).unwrap();
    let kinds = RESOURCES.iter().filter(|r| !r.storage.is_empty());
    let registry = Registry::new(store, cache, kinds.map(kind).collect(), Arc::new(admission));
    Bed { registry, cx: Context::new(User::default()) }
}

fn target(group: &str, plural: &str, name: &str) -> Target {
    let resource = row(group, plural);
    let namespace = if resource.namespaced { "default".into() } else { String::new() };
    Target { resource, namespace, name: name.into(), subresource: "" }
}

fn options() -> WriteOptions {
    WriteOptions::default()
}

impl Bed {
    async fn get(&self, t: &Target) -> Result<Value, Status> {
        Ok(self.registry.get(&self.cx, t).await?.value().unwrap())
    }

    async fn update(&self, t: &Target, body: Value) -> Result<Value, Status> {
        Ok(self.registry.update(&self.cx, t, body, &options()).await?.object.value().unwrap())
    }

    async fn patch(&self, t: &Target, patch: Value) -> Result<Value, Status> {
        let done = self.registry.patch(&self.cx, t, Patch::Merge(patch), &options()).await?;
        Ok(done.object.value().unwrap())
    }

    async fn delete(&self, t: &Target, o: Value) -> Result<Deleted, Status> {
        self.registry.delete(&self.cx, t, serde_json::from_value(o).unwrap()).await
    }

    fn revision(&self) -> Revision {
        self.registry.cache().revision()
    }

    async fn names(&self, t: &Target, o: &ListOptions) -> Vec<String> {
        let list = self.registry.list(&self.cx, t, o).await.unwrap();
        list.items.iter().map(|o| o.key.name.to_string()).collect()
    }
}

#[track_caller]
fn gone(deleted: Deleted) -> Value {
    let Deleted::Gone(object) = deleted else { panic!("it is still there: {deleted:?}") };
    object.value().unwrap()
}

#[track_caller]
fn marked(deleted: Deleted) -> Value {
    let Deleted::Marked(object) = deleted else { panic!("it is gone: {deleted:?}") };
    object.value().unwrap()
}
