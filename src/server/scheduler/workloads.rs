//! Types: selectors of Services and of what owns pods. They say which pods belong together when a pod itself says
//! nothing of how it is to be spread.

use std::collections::{BTreeMap, HashMap};

use super::selector::{Labels, Selector};

/// Kinds whose selector counts for the pods they own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OwnerKind {
    ReplicationController,
    ReplicaSet,
    StatefulSet,
}

impl OwnerKind {
    #[must_use]
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        match (api_version, kind) {
            ("v1", "ReplicationController") => Some(Self::ReplicationController),
            ("apps/v1", "ReplicaSet") => Some(Self::ReplicaSet),
            ("apps/v1", "StatefulSet") => Some(Self::StatefulSet),
            _ => None,
        }
    }
}

/// By namespace, then by name.
type Named<T> = HashMap<String, BTreeMap<String, T>>;

#[derive(Default)]
pub struct Workloads {
    services: Named<Labels>,
    owners: BTreeMap<OwnerKind, Named<Selector>>,
}

fn put<T>(of: &mut Named<T>, namespace: &str, name: &str, value: Option<T>) {
    if let Some(value) = value {
        of.entry(namespace.to_owned()).or_default().insert(name.to_owned(), value);
    } else if let Some(here) = of.get_mut(namespace) {
        here.remove(name);
        if here.is_empty() {
            of.remove(namespace);
        }
    }
}

impl Workloads {
    /// `None` for a Service that is gone or selects nothing.
    pub fn set_service(&mut self, namespace: &str, name: &str, selector: Option<Labels>) {
        put(&mut self.services, namespace, name, selector.filter(|s| !s.is_empty()));
    }

    pub fn set_owner(&mut self, kind: OwnerKind, namespace: &str, name: &str, selector: Option<Selector>) {
        put(self.owners.entry(kind).or_default(), namespace, name, selector);
    }

    pub fn forget_services(&mut self) {
        self.services.clear();
    }

    pub fn forget_owners(&mut self, kind: OwnerKind) {
        self.owners.remove(&kind);
    }

    /// What selects the pods that one belongs to: every Service that selects it, and its owner (upstream's
    /// `DefaultSelector`). Empty when nothing does.
    #[must_use]
    pub fn selector(&self, namespace: &str, labels: &Labels, owner: Option<&(OwnerKind, String)>) -> Selector {
        let mut merged = Labels::new();
        for selector in self.services.get(namespace).into_iter().flat_map(BTreeMap::values) {
            if selector.iter().all(|(k, v)| labels.get(k) == Some(v)) {
                merged.extend(selector.clone());
            }
        }
        let mut all = Selector::exact(&merged);
        let of_owner = owner.and_then(|(kind, name)| self.owners.get(kind)?.get(namespace)?.get(name));
        if let Some(selector) = of_owner {
            all.and(selector.clone());
        }
        all
    }
}
