//! Types: what authentication, authorization and admission need of the watch cache: stored objects, by name, without
//! waiting. A trait so that their tables of decisions are tested without a store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::api::object::ObjectRef;
use crate::server::cache::Cache;

/// The revision of the last change of a resource, as it is now.
pub type Changed = Arc<AtomicU64>;

pub trait Objects: Send + Sync + 'static {
    /// `storage` as [`crate::api::resource::Resource::storage`]; `namespace` empty for cluster-scoped objects.
    fn get(&self, storage: &str, namespace: &str, name: &str) -> Option<ObjectRef>;

    /// All objects of a resource, or those of one namespace.
    fn list(&self, storage: &str, namespace: Option<&str>) -> Vec<ObjectRef>;

    /// How many objects of a resource a namespace has.
    fn count(&self, storage: &str, namespace: &str) -> usize {
        self.list(storage, Some(namespace)).len()
    }

    fn changed(&self, storage: &str) -> Changed;
}

pub type SharedObjects = Arc<dyn Objects>;

type Make<T> = Box<dyn Fn(&dyn Objects) -> T + Send + Sync>;

/// What is made of the objects of some resources: made when it is first asked for, and again when one of them has changed.
/// Asking costs as many loads as there are resources.
pub struct Derived<T, const N: usize> {
    objects: SharedObjects,
    changed: [Changed; N],
    make: Make<T>,
    current: RwLock<Option<([u64; N], Arc<T>)>>,
}

impl<T, const N: usize> Derived<T, N> {
    #[must_use]
    pub fn new(
        objects: &SharedObjects,
        storages: [&str; N],
        make: impl Fn(&dyn Objects) -> T + Send + Sync + 'static,
    ) -> Self {
        let changed = storages.map(|storage| objects.changed(storage));
        Self { objects: objects.clone(), changed, make: Box::new(make), current: RwLock::default() }
    }

    /// When making it panics, only who asked has that: what was made before stays as it is.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        // Read before it is made: a change in between makes the next one who asks make it again.
        let now = self.changed.each_ref().map(|c| c.load(Ordering::Acquire));
        let fresh = |current: &Option<([u64; N], Arc<T>)>| {
            current.as_ref().filter(|(at, _)| *at == now).map(|(_, made)| made.clone())
        };
        if let Some(made) = fresh(&self.current.read().unwrap_or_else(PoisonError::into_inner)) {
            return made;
        }
        // One makes it, and the others wait for it.
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = fresh(&current) {
            return made;
        }
        let made = Arc::new((self.make)(&*self.objects));
        *current = Some((now, made.clone()));
        made
    }
}

impl Objects for Cache {
    fn get(&self, storage: &str, namespace: &str, name: &str) -> Option<ObjectRef> {
        self.get(storage, namespace, name)
    }

    fn list(&self, storage: &str, namespace: Option<&str>) -> Vec<ObjectRef> {
        self.list(storage, namespace).0
    }

    fn count(&self, storage: &str, namespace: &str) -> usize {
        self.count_in(storage, namespace)
    }

    fn changed(&self, storage: &str) -> Changed {
        self.changed(storage)
    }
}

#[cfg(test)]
pub mod fake {
    //! A handful of objects in a map.

    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use serde_json::{Value, json};

    use super::{Arc, AtomicU64, Changed, ObjectRef, Objects, Ordering};
    use crate::api::key::Key;
    use crate::api::object::{Head, Object};
    use crate::api::resource::find_kind;
    use crate::api::revision::Revision;

    #[derive(Default)]
    pub struct Fake(Mutex<(u64, BTreeMap<Key, ObjectRef>)>, Arc<AtomicU64>);

    impl Fake {
        pub fn new(objects: impl IntoIterator<Item = Value>) -> Arc<Self> {
            let fake = Arc::new(Self::default());
            for object in objects {
                fake.put(object);
            }
            fake
        }

        pub fn put(&self, mut object: Value) {
            let mut state = self.0.lock().unwrap();
            state.0 += 1;
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            let resource = find_kind(&text(&object["apiVersion"]), &text(&object["kind"])).expect("a known kind");
            let key =
                Key::new(resource.storage, &text(&object["metadata"]["namespace"]), &text(&object["metadata"]["name"]));
            object["metadata"]["resourceVersion"] = json!(state.0.to_string());
            let field = |path: &&str| -> Box<str> {
                let value = path.split('.').fold(&object, |v, name| &v[name]);
                value.as_str().unwrap_or_default().into()
            };
            let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
            let mut labels: Vec<(Box<str>, Box<str>)> =
                labels.map(|(k, v)| (k.as_str().into(), text(v).into())).collect();
            labels.sort();
            let head = Head {
                labels: labels.into(),
                uid: text(&object["metadata"]["uid"]).into(),
                deleting: !object["metadata"]["deletionTimestamp"].is_null(),
                fields: resource.selectable.iter().map(field).collect(),
                ..Head::default()
            };
            let json = serde_json::to_vec(&object).unwrap().into();
            let revision = Revision(state.0);
            state.1.insert(key.clone(), Arc::new(Object { key, revision, head, json }));
            self.1.store(state.0, Ordering::Release);
        }

        pub fn remove(&self, storage: &str, namespace: &str, name: &str) {
            let mut state = self.0.lock().unwrap();
            state.0 += 1;
            state.1.remove(&Key::new(storage, namespace, name)).expect("was there");
            self.1.store(state.0, Ordering::Release);
        }
    }

    impl Objects for Fake {
        fn get(&self, storage: &str, namespace: &str, name: &str) -> Option<ObjectRef> {
            self.0.lock().unwrap().1.get(&Key::new(storage, namespace, name)).cloned()
        }

        fn list(&self, storage: &str, namespace: Option<&str>) -> Vec<ObjectRef> {
            let state = self.0.lock().unwrap();
            let wanted = |k: &&Key| &*k.resource == storage && namespace.is_none_or(|n| *k.namespace == *n);
            state.1.keys().filter(wanted).map(|k| state.1[k].clone()).collect()
        }

        fn changed(&self, _: &str) -> Changed {
            self.1.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use serde_json::json;

    use super::fake::Fake;
    use super::*;

    #[test]
    fn one_who_panics_while_it_is_made_takes_it_from_no_other() {
        let fake = Fake::new([]);
        let objects: SharedObjects = fake.clone();
        let count = |objects: &dyn Objects| {
            let count = objects.list("namespaces", None).len();
            assert_ne!(count, 1, "one is a bug");
            count
        };
        let derived = Derived::new(&objects, ["namespaces"], count);
        let put = |name: &str| fake.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
        assert_eq!(*derived.get(), 0);
        put("a");
        assert!(catch_unwind(AssertUnwindSafe(|| derived.get())).is_err());
        put("b");
        assert_eq!(*derived.get(), 2);
    }
}
