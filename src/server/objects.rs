//! Types: what authentication, authorization and admission need of the watch cache: stored objects, by name, without
//! waiting. A trait so that their tables of decisions are tested without a store.

use std::sync::Arc;

use crate::api::object::ObjectRef;
use crate::api::revision::Revision;
use crate::server::cache::Cache;

pub trait Objects: Send + Sync + 'static {
    /// `storage` as [`crate::api::resource::Resource::storage`]; `namespace` empty for cluster-scoped objects.
    fn get(&self, storage: &str, namespace: &str, name: &str) -> Option<ObjectRef>;

    /// All objects of a resource, or those of one namespace.
    fn list(&self, storage: &str, namespace: Option<&str>) -> Vec<ObjectRef>;

    /// The revision of the last change of a resource: what was computed from it is good while this stays.
    fn changed(&self, storage: &str) -> Revision;
}

pub type SharedObjects = Arc<dyn Objects>;

impl Objects for Cache {
    fn get(&self, storage: &str, namespace: &str, name: &str) -> Option<ObjectRef> {
        self.get(storage, namespace, name)
    }

    fn list(&self, storage: &str, namespace: Option<&str>) -> Vec<ObjectRef> {
        self.list(storage, namespace).0
    }

    fn changed(&self, storage: &str) -> Revision {
        self.changed(storage)
    }
}

#[cfg(test)]
pub mod fake {
    //! A handful of objects in a map.

    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use serde_json::{Value, json};

    use super::{Arc, ObjectRef, Objects, Revision};
    use crate::api::key::Key;
    use crate::api::object::{Head, Object};
    use crate::api::resource::find_kind;

    #[derive(Default)]
    pub struct Fake(Mutex<(u64, BTreeMap<Key, ObjectRef>)>);

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
            let head = Head {
                uid: text(&object["metadata"]["uid"]).into(),
                deleting: !object["metadata"]["deletionTimestamp"].is_null(),
                fields: resource.selectable.iter().map(field).collect(),
                ..Head::default()
            };
            let json = serde_json::to_vec(&object).unwrap().into();
            let revision = Revision(state.0);
            state.1.insert(key.clone(), Arc::new(Object { key, revision, head, json }));
        }

        pub fn remove(&self, storage: &str, namespace: &str, name: &str) {
            let mut state = self.0.lock().unwrap();
            state.0 += 1;
            state.1.remove(&Key::new(storage, namespace, name)).expect("was there");
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

        fn changed(&self, _: &str) -> Revision {
            Revision(self.0.lock().unwrap().0)
        }
    }
}
