//! Effects: how many watches there are of what, to know how many are told of a write (`k8s.io/apiserver`
//! flowcontrol/watch_tracker.go).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Watches of one resource.
#[derive(Debug, Default)]
struct Watched {
    total: usize,
    everywhere: usize,
    namespaces: HashMap<Box<str>, Names>,
}

/// Watches of one namespace; cluster-scoped objects are in namespace "".
#[derive(Debug, Default)]
struct Names {
    all: usize,
    names: HashMap<Box<str>, usize>,
}

/// By the resource as it is stored: all of its versions are told.
#[derive(Debug, Default)]
pub struct Watches(RwLock<HashMap<&'static str, Watched>>);

/// A watch, while it lives.
#[derive(Debug)]
pub struct Registered {
    watches: Arc<Watches>,
    storage: &'static str,
    namespace: Box<str>,
    name: Box<str>,
}

impl Watches {
    /// `namespace` and `name` are empty where the watch is not confined to them.
    #[must_use]
    pub fn register(self: &Arc<Self>, storage: &'static str, namespace: &str, name: &str) -> Registered {
        let registered = Registered { watches: self.clone(), storage, namespace: namespace.into(), name: name.into() };
        registered.count(|n| *n += 1);
        registered
    }

    /// The watches that a write of this object is of interest to. `name` is empty for a create: who watches one object
    /// is not counted for it, as upstream.
    #[must_use]
    pub fn interested(&self, storage: &str, namespace: &str, name: &str) -> usize {
        let watches = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(watched) = watches.get(storage) else { return 0 };
        let names = watched.namespaces.get(namespace);
        let named = names.and_then(|n| n.names.get(name)).filter(|_| !name.is_empty());
        watched.everywhere + names.map_or(0, |n| n.all) + named.copied().unwrap_or(0)
    }
}

impl Registered {
    fn count(&self, change: impl Fn(&mut usize)) {
        let mut watches = self.watches.0.write().unwrap_or_else(PoisonError::into_inner);
        let watched = watches.entry(self.storage).or_default();
        change(&mut watched.total);
        match (&*self.namespace, &*self.name) {
            ("", "") => change(&mut watched.everywhere),
            (namespace, name) => {
                let names = watched.namespaces.entry(namespace.into()).or_default();
                if name.is_empty() {
                    change(&mut names.all);
                } else {
                    let count = names.names.entry(name.into()).or_default();
                    change(count);
                    if *count == 0 {
                        names.names.remove(name);
                    }
                }
                if names.all == 0 && names.names.is_empty() {
                    watched.namespaces.remove(namespace);
                }
            }
        }
        if watched.total == 0 {
            watches.remove(self.storage);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.count(|n| *n -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_interests_those_who_watch_it() {
        let watches = Arc::new(Watches::default());
        let of = |namespace, name| watches.register("secrets", namespace, name);
        let all = [of("", ""), of("", ""), of("a", ""), of("a", "x"), of("b", "x")];
        for (namespace, name, expect) in [("a", "x", 4), ("a", "y", 3), ("a", "", 3), ("b", "x", 3), ("c", "", 2)] {
            assert_eq!(watches.interested("secrets", namespace, name), expect, "{namespace}/{name}");
        }
        assert_eq!(watches.interested("pods", "a", "x"), 0);
        drop(all);
        assert!(watches.0.read().unwrap().is_empty(), "nothing is kept of watches that ended");
    }
}
