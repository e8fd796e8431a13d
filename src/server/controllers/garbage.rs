//! Decides: objects go when their owners are gone: in the background, in the foreground, or orphaned.
//!
//! The graph holds only objects that name owners or carry one of the two finalizers; whether an owner exists is asked
//! of the stores, and, before anything is deleted for the lack of one, of the server itself. Watches of two resources may
//! lag differently, so an object is deleted only as it was seen.
//!
//! ```text
//! owners of an object:  one solid            ─▶ references to the others are removed
//!                       none solid, one ends in the foreground ─▶ deleted (in the foreground if it has dependents;
//!                                     when one of those ends too, in a circle, its owners need not wait for it)
//!                       all absent (asked)   ─▶ deleted in the background
//!                       of a cluster-scoped object, one of a kind with a namespace ─▶ nobody can say: it stays
//! an object that ends:  foregroundDeletion   ─▶ waits for the dependents that block it, then loses the finalizer
//!                       orphan               ─▶ dependents lose their reference, then it loses the finalizer
//! ```

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use super::action::{Action, Controller, Enqueue, Moment, Name, Note, Plan, Write};
use super::stores::{Stores, subscribe_all};
use crate::api::resource::{Resource, find_storage};
use crate::client::request::{Class, Request, Verb};
use crate::client::store::Meta;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// Owners whose absence the server has confirmed. uids never come back, so the oldest can always be forgotten.
const ABSENT_MAX: usize = 500;
const COMPONENT: &str = "garbage-collector-controller";

/// Keys are uids, in the name.
#[derive(Default)]
pub struct GarbageCollector {
    graph: Arc<Mutex<Graph>>,
}

#[derive(Default)]
struct Graph {
    items: HashMap<Box<str>, Item>,
    /// By the owner's uid.
    dependents: HashMap<Box<str>, HashSet<Box<str>>>,
    absent: VecDeque<Absent>,
}

/// That nothing of the uid is there. With the uid alone, a reference to the wrong place would be the end of all who name the
/// owner where it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Absent {
    storage: &'static str,
    namespace: Box<str>,
    name: Box<str>,
    uid: Box<str>,
}

#[derive(Clone, Debug)]
struct Item {
    resource: &'static Resource,
    namespace: Box<str>,
    name: Box<str>,
    revision: u64,
    owners: Vec<OwnerReference>,
    deleting: bool,
    finalizers: Vec<String>,
    /// It was said that one of these owners is in another namespace.
    told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Solid,
    /// Ends in the foreground.
    Ending,
    Absent,
    /// Not seen; the server must be asked.
    Unsure,
    /// Of a kind with a namespace, where the dependent has none: there is nowhere to ask.
    Nowhere,
}

impl Graph {
    fn observe(
        &mut self,
        resource: &'static Resource,
        old: Option<&dyn Meta>,
        new: Option<&dyn Meta>,
    ) -> Vec<Box<str>> {
        let mut touched = Vec::new();
        // A name that was deleted and made again between two sights is two objects.
        let replaced = old.filter(|o| new.is_none_or(|n| n.uid() != o.uid()));
        if let Some(old) = replaced {
            touched.extend(self.forget(old.uid()));
        }
        if let Some(new) = new {
            touched.extend(self.keep(resource, new));
        }
        touched
    }

    /// Dependents may be without an owner now, and owners that wait for it may go on.
    fn forget(&mut self, uid: &str) -> Vec<Box<str>> {
        let mut touched: Vec<Box<str>> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        if let Some(item) = self.items.remove(uid) {
            touched.extend(self.unlink(uid, &item));
        }
        touched
    }

    fn unlink(&mut self, uid: &str, item: &Item) -> Vec<Box<str>> {
        let mut owners = Vec::new();
        for owner in &item.owners {
            if let Some(set) = self.dependents.get_mut(owner.uid.as_str()) {
                set.remove(uid);
                if set.is_empty() {
                    self.dependents.remove(owner.uid.as_str());
                }
            }
            owners.push(owner.uid.as_str().into());
        }
        owners
    }

    fn keep(&mut self, resource: &'static Resource, meta: &dyn Meta) -> Vec<Box<str>> {
        let uid: Box<str> = meta.uid().into();
        let (owners, finalizers) = (meta.owners(), meta.finalizers());
        let (mut touched, mut told) = (Vec::new(), false);
        if let Some(item) = self.items.remove(&uid) {
            touched.extend(self.unlink(&uid, &item));
            told = item.told && item.owners == owners;
        }
        let ends_specially = finalizers.iter().any(|f| f == FOREGROUND || f == ORPHAN);
        if owners.is_empty() && !ends_specially {
            return touched;
        }
        for owner in owners {
            self.dependents.entry(owner.uid.as_str().into()).or_default().insert(uid.clone());
        }
        let deleting = meta.deleting();
        if deleting && ends_specially {
            // Dependents look at how their owner ends.
            touched.extend(self.dependents.get(&uid).into_iter().flatten().cloned());
        }
        let item = Item {
            resource,
            namespace: meta.namespace().into(),
            name: meta.name().into(),
            revision: meta.revision(),
            owners: owners.to_owned(),
            deleting,
            finalizers: finalizers.to_owned(),
            told,
        };
        self.items.insert(uid.clone(), item);
        touched.push(uid);
        touched
    }

    /// Whoever names it from another namespace is none of them.
    fn dependents(&self, uid: &str) -> Vec<(&str, &Item)> {
        let namespace = self.items.get(uid).map_or("", |item| &item.namespace);
        let all = self.dependents.get(uid).into_iter().flatten();
        let all = all.filter_map(|d| Some((&**d, self.items.get(d)?)));
        all.filter(|(_, d)| namespace.is_empty() || *d.namespace == *namespace).collect()
    }

    /// Whether the object of the uid `who` ends in the foreground and so waits for `of`, or for one that does. In a circle they
    /// would wait for each other for ever.
    fn waits(&self, who: &str, of: &str) -> bool {
        let (mut seen, mut next) = (HashSet::from([who]), vec![who]);
        while let Some(uid) = next.pop() {
            if !self.items.get(uid).is_some_and(Item::ends_in_foreground) {
                continue;
            }
            for (dependent, _) in self.dependents(uid).into_iter().filter(|(_, d)| blocks(d, uid)) {
                if dependent == of {
                    return true;
                }
                if seen.insert(dependent) {
                    next.push(dependent);
                }
            }
        }
        false
    }
}

impl Item {
    fn ends_in_foreground(&self) -> bool {
        self.deleting && self.has(FOREGROUND)
    }

    fn write(&self, verb: Verb, body: Value) -> Write {
        let mut write = Write::new(Request::new(verb, self.resource, &self.namespace, &self.name, body));
        write.fine = &[Class::NotFound];
        write
    }

    fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|f| f == finalizer)
    }

    /// The reference must be gone when the plan is made again; `$patch: delete` by uid leaves the other owners alone.
    fn without_owners(&self, uid: &str, owners: &[&str]) -> Write {
        if self.is_custom() {
            let left: Vec<&OwnerReference> = self.owners.iter().filter(|o| !owners.contains(&o.uid.as_str())).collect();
            return self.with("ownerReferences", json!(left));
        }
        let gone: Vec<Value> = owners.iter().map(|o| json!({ "$patch": "delete", "uid": o })).collect();
        self.write(Verb::StrategicPatch, json!({ "metadata": { "uid": uid, "ownerReferences": gone } }))
    }

    /// Its owners no longer wait for it.
    fn unblocking(&self, uid: &str) -> Write {
        let open = |o: &OwnerReference| OwnerReference { block_owner_deletion: Some(false), ..o.clone() };
        if self.is_custom() {
            return self.with("ownerReferences", json!(self.owners.iter().map(open).collect::<Vec<_>>()));
        }
        let blocking = self.owners.iter().filter(|o| o.block_owner_deletion == Some(true));
        let open: Vec<Value> = blocking.map(|o| json!({ "uid": o.uid, "blockOwnerDeletion": false })).collect();
        self.write(Verb::StrategicPatch, json!({ "metadata": { "uid": uid, "ownerReferences": open } }))
    }

    fn without_finalizer(&self, uid: &str, finalizer: &str) -> Write {
        if self.is_custom() {
            let left: Vec<&String> = self.finalizers.iter().filter(|f| *f != finalizer).collect();
            return self.with("finalizers", json!(left));
        }
        let gone = json!({ "metadata": { "uid": uid, "$deleteFromPrimitiveList/finalizers": [finalizer] } });
        self.write(Verb::StrategicPatch, gone)
    }

    /// Custom resources take no strategic patches.
    fn is_custom(&self) -> bool {
        find_storage(self.resource.storage).is_none()
    }

    /// A list of the metadata as it is to be, of the object as it was seen.
    fn with(&self, field: &str, list: Value) -> Write {
        let mut write = self.write(
            Verb::MergePatch,
            json!({ "metadata": { "resourceVersion": self.revision.to_string(), field: list } }),
        );
        write.fine = &[Class::NotFound, Class::Conflict];
        write
    }
}

impl GarbageCollector {
    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let (queue, graph) = (enqueue.clone(), Arc::clone(&self.graph));
        subscribe_all(stores, move |resource, old, new| {
            if resource.storage == "coordination.k8s.io/leases" && renewed_only(old, new) {
                return;
            }
            let touched = graph.lock().unwrap_or_else(PoisonError::into_inner).observe(resource, old, new);
            for uid in touched {
                queue.add("", &uid);
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, _moment: Moment<'_>) -> Plan {
        let mut graph = self.graph();
        let Some(item) = graph.items.get(&key.name) else { return Plan::nothing() };
        let plan = plan(&graph, stores, &key.name, item);
        if let Some(item) = graph.items.get_mut(&key.name) {
            item.told |= plan.actions.iter().any(|a| matches!(a, Action::Event(_)));
        }
        plan
    }

    fn learn(&self, _key: &Name, request: &Request, answer: Option<Value>) {
        let asked = request.resource;
        let found = answer.as_ref().and_then(|a| a["metadata"]["uid"].as_str()).unwrap_or_default().to_owned();
        let mut graph = self.graph();
        let named = |o: &OwnerReference| {
            let group = o.api_version.split_once('/').map_or("", |(group, _)| group);
            o.name == request.name && o.uid != found && o.kind == asked.kind && group == asked.group
        };
        let there = |item: &&Item| !asked.namespaced || *item.namespace == *request.namespace;
        let absent: HashSet<Absent> = graph
            .items
            .values()
            .filter(there)
            .flat_map(|item| &item.owners)
            .filter(|o| named(o))
            .map(|o| Absent {
                storage: asked.storage,
                namespace: request.namespace.as_str().into(),
                name: o.name.as_str().into(),
                uid: o.uid.as_str().into(),
            })
            .collect();
        for one in absent {
            if !graph.absent.contains(&one) {
                if graph.absent.len() == ABSENT_MAX {
                    graph.absent.pop_front();
                }
                graph.absent.push_back(one);
            }
        }
    }
}

/// A heartbeat changes nothing that matters here.
fn renewed_only(old: Option<&dyn Meta>, new: Option<&dyn Meta>) -> bool {
    fn key(m: &dyn Meta) -> (&str, &[OwnerReference], &[String], bool) {
        (m.uid(), m.owners(), m.finalizers(), m.deleting())
    }
    matches!((old, new), (Some(old), Some(new)) if key(old) == key(new))
}

fn plan(graph: &Graph, stores: &Stores, uid: &str, item: &Item) -> Plan {
    let mut plan = Plan::default();
    if item.deleting {
        if item.has(ORPHAN) {
            for (dependent, of) in graph.dependents(uid) {
                plan.push(of.without_owners(dependent, &[uid]));
            }
            plan.push(item.without_finalizer(uid, ORPHAN));
        } else if item.has(FOREGROUND)
            && !graph.dependents(uid).iter().any(|(by, d)| blocks(d, uid) && !graph.waits(by, uid))
        {
            plan.push(item.without_finalizer(uid, FOREGROUND));
        }
        return plan;
    }
    if item.owners.is_empty() {
        return plan;
    }
    let states: Vec<(&OwnerReference, Owner)> =
        item.owners.iter().map(|o| (o, state(graph, stores, item, o))).collect();
    let any = |wanted: Owner| states.iter().any(|(_, s)| *s == wanted);
    if !item.told {
        plan.actions.extend(states.iter().filter_map(|(o, s)| misplaced(stores, uid, item, o, *s)));
    }
    if any(Owner::Nowhere) {
        return plan;
    }
    if any(Owner::Unsure) {
        for (owner, _) in states.iter().filter(|(_, s)| *s == Owner::Unsure) {
            plan.actions.extend(ask(stores, item, owner));
        }
        return plan;
    }
    let not_solid: Vec<&str> = states.iter().filter(|(_, s)| *s != Owner::Solid).map(|(o, _)| o.uid.as_str()).collect();
    if any(Owner::Solid) {
        if !not_solid.is_empty() {
            plan.push(item.without_owners(uid, &not_solid));
        }
        return plan;
    }
    let foreground = any(Owner::Ending) && !graph.dependents(uid).is_empty();
    let policy = match () {
        () if item.has(ORPHAN) => "Orphan",
        () if item.has(FOREGROUND) || foreground => "Foreground",
        () => "Background",
    };
    let waited_for = item.owners.iter().any(|o| o.block_owner_deletion == Some(true));
    if foreground && waited_for && graph.dependents(uid).iter().any(|(_, d)| d.ends_in_foreground()) {
        plan.push(item.unblocking(uid));
    }
    let mut request = Request::delete(item.resource, &item.namespace, &item.name, uid);
    request.body["propagationPolicy"] = policy.into();
    // As it was seen: an orphan may have lost its reference before its owner went, and only the latter was seen yet.
    request.body["preconditions"]["resourceVersion"] = item.revision.to_string().into();
    plan.push(Write::delete(request));
    plan
}

fn blocks(dependent: &Item, owner: &str) -> bool {
    dependent.owners.iter().any(|o| o.uid == owner && o.block_owner_deletion == Some(true))
}

/// Owners are in the same namespace or cluster-scoped.
fn namespace_of<'a>(owner: &'static Resource, item: &'a Item) -> &'a str {
    if owner.namespaced { &item.namespace } else { "" }
}

fn state(graph: &Graph, stores: &Stores, item: &Item, owner: &OwnerReference) -> Owner {
    let Some(resource) = stores.kind(&owner.api_version, &owner.kind) else {
        // A kind that is not served: nobody can say that the owner is gone.
        return Owner::Solid;
    };
    if resource.namespaced && item.namespace.is_empty() {
        return Owner::Nowhere;
    }
    let namespace = namespace_of(resource, item);
    let same = |a: &Absent| {
        *a.uid == *owner.uid && *a.name == *owner.name && *a.namespace == *namespace && a.storage == resource.storage
    };
    if graph.absent.iter().any(same) {
        return Owner::Absent;
    }
    match stores.view(resource.storage).and_then(|v| v.head(namespace, &owner.name)) {
        Some(head) if head.uid == owner.uid => {
            if head.deleting && head.finalizers.iter().any(|f| f == FOREGROUND) {
                Owner::Ending
            } else {
                Owner::Solid
            }
        }
        _ => Owner::Unsure,
    }
}

/// An owner that is in another namespace, whose objects it cannot own.
fn misplaced(stores: &Stores, uid: &str, item: &Item, owner: &OwnerReference, state: Owner) -> Option<Action> {
    if matches!(state, Owner::Solid | Owner::Ending) {
        return None;
    }
    let resource = stores.kind(&owner.api_version, &owner.kind).filter(|r| r.namespaced)?;
    stores.view(resource.storage).filter(|v| v.is_anywhere(&owner.name, &owner.uid))?;
    let (namespace, OwnerReference { api_version, kind, name, uid: owner, .. }) = (&item.namespace, owner);
    let owner = format!("[{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {owner}]");
    Some(Action::Event(Note {
        regarding: ObjectReference {
            api_version: Some(item.resource.api_version()),
            kind: Some(item.resource.kind.into()),
            namespace: Some(namespace.to_string()).filter(|n| !n.is_empty()),
            name: Some(item.name.to_string()),
            uid: Some(uid.into()),
            ..ObjectReference::default()
        },
        warning: true,
        reason: "OwnerRefInvalidNamespace",
        message: format!("ownerRef {owner} does not exist in namespace \"{namespace}\""),
        component: COMPONENT,
        action: "",
    }))
}

fn ask(stores: &Stores, item: &Item, owner: &OwnerReference) -> Option<Action> {
    let resource = stores.kind(&owner.api_version, &owner.kind)?;
    let request = Request::new(Verb::Get, resource, namespace_of(resource, item), &owner.name, Value::Null);
    Some(Action::Read(request))
}

#[cfg(test)]
mod tests;
