use std::sync::Arc;

use serde_json::{Value, json};

use super::request::*;
use super::strategy::{Part, Strategy};
use super::*;
use crate::api::field::{FieldError, Path};
use crate::api::user::User;
use crate::server::store::memory::Memory;

/// A kind that knows nothing: keeps the spec and the status apart, wants a name and a `spec.size` that is no string.
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

    fn prepare_create(&self, _: &Context, object: &mut Value) -> Result<(), Status> {
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
        }
        object["metadata"]["generation"] = 1.into();
        Ok(())
    }

    fn validate_create(&self, _: &Context, object: &Value) -> Vec<FieldError> {
        let name = meta::text(object, "name");
        let metadata = Path::new("metadata");
        let mut errors = Vec::new();
        if name.is_empty() {
            errors.push(FieldError::required(&metadata.child("name"), "name or generateName is required"));
        }
        errors
    }

    fn prepare_update(&self, _: &Context, part: Part, new: &mut Value, old: &Value) -> Result<(), Status> {
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
        Ok(())
    }

    fn validate_update(&self, cx: &Context, _: Part, new: &Value, _: &Value) -> Vec<FieldError> {
        self.validate_create(cx, new)
    }
}

struct Bed {
    registry: Registry,
    cx: Context,
}

fn row(group: &str, plural: &str) -> &'static Resource {
    resource::find(group, "v1", plural).unwrap()
}

impl Bed {
    fn new() -> Self {
        let cache = Cache::new();
        let store = Arc::new(Memory::default());
        store.start(cache.clone()).unwrap();
        let kinds = resource::RESOURCES.iter().filter(|r| !r.storage.is_empty());
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

#[tokio::test]
async fn what_is_created_is_there_at_once() {
    let bed = Bed::new();
    let t = configmap("a");
    let made = bed.create(&t, json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await.unwrap();
    let got = bed.registry.get(&bed.cx, &t).await.unwrap();
    assert_eq!(got.value().unwrap(), made);
    assert_eq!(made["metadata"]["namespace"], "default");
    assert_eq!(made["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert!(made["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    let list = bed.registry.list(&bed.cx, &configmap(""), &ListOptions::default()).await.unwrap();
    assert_eq!((list.items.len(), list.revision), (1, got.revision));

    let again = bed.create(&t, json!({"metadata": {"name": "a"}})).await.unwrap_err();
    assert_eq!(again.message(), "configmaps \"a\" already exists");
    assert_eq!((again.code(), again.reason()), (409, "AlreadyExists"));
}
