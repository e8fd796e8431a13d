//! Decides: claims, volumes and classes of attributes go when nothing uses them any more
//! (`pkg/controller/volume/{pvc,pv,vac}protection`).
//!
//! A finalizer, which admission puts on each of them, holds them until then. Before it is taken off, the server itself
//! is asked: the stores may not have seen yet who uses it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use serde_json::{Value, json};

use super::action::{Action, Controller, Enqueue, Moment, Name, Plan, Write};
use super::stores::{Stores, row};
use super::{owners, pods};
use crate::api::resource::Resource;
use crate::client::request::{Class, Request, Verb};
use crate::client::store::{Change, Kind, Meta, Store};

const CLASSES: &str = "storage.k8s.io/volumeattributesclasses";
/// The server knows of a user that the stores have yet to see.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protected {
    Claims,
    Volumes,
    Classes,
}

use Protected::{Claims, Classes, Volumes};

impl Protected {
    fn finalizer(self) -> &'static str {
        match self {
            Claims => "kubernetes.io/pvc-protection",
            Volumes => "kubernetes.io/pv-protection",
            Classes => "kubernetes.io/vac-protection",
        }
    }
}

/// Keys are what is protected.
pub struct Protection {
    of: Protected,
    asked: Mutex<HashMap<Name, Asked>>,
}

/// What has to be known of one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    namespace: String,
    name: String,
    uid: String,
    revision: u64,
    finalizers: Vec<String>,
    deleting: bool,
    /// uid of the pod that it was made for, and goes with.
    pod: Option<String>,
}

struct Asked {
    subject: Subject,
    /// One for each list that was asked for.
    used: Vec<bool>,
}

impl Protection {
    /// One for each of the kinds.
    #[must_use]
    pub fn all() -> [Self; 3] {
        [Claims, Volumes, Classes].map(|of| Self { of, asked: Mutex::default() })
    }
}

impl Controller for Protection {
    fn name(&self) -> &'static str {
        match self.of {
            Claims => "persistentvolumeclaim-protection",
            Volumes => "persistentvolume-protection",
            Classes => "volumeattributesclass-protection",
        }
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let of = self.of;
        match of {
            Claims => {
                follow(of, &stores.claims, enqueue);
                let (queue, claims) = (enqueue.clone(), Arc::clone(&stores.claims));
                stores.pods.subscribe(move |change| {
                    for claim in
                        change.old.filter(|_| lets_go(change)).map(|pod| going(&claims, pod)).unwrap_or_default()
                    {
                        queue.add(claim.metadata.namespace(), claim.metadata.name());
                    }
                });
            }
            Volumes => follow(of, &stores.volumes, enqueue),
            Classes => {
                let Some(classes) = stores.other(CLASSES) else { return };
                follow(of, classes, enqueue);
                let queue = enqueue.clone();
                stores.claims.subscribe(move |change| {
                    change.old.into_iter().flat_map(|c| classes_of_claim(c)).for_each(|name| queue.add("", name));
                });
                let queue = enqueue.clone();
                stores.volumes.subscribe(move |change| {
                    change.old.and_then(|v| class_of_volume(v)).into_iter().for_each(|name| queue.add("", name));
                });
            }
        }
    }

    fn plan(&self, stores: &Stores, key: &Name, _: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let before = asked.remove(key);
        let Some(subject) = self.subject(stores, key) else { return plan };
        let has = subject.finalizers.iter().any(|f| f == self.of.finalizer());
        match (subject.deleting, has) {
            (false, false) => plan.push(self.write(&subject, true)),
            (true, true) if !self.is_used(stores, &subject) => {
                let lists = self.lists(&subject);
                match before.filter(|b| b.subject == subject && b.used.len() >= lists.len()) {
                    Some(known) if known.used.contains(&true) => plan.look_after(LOOK_AGAIN),
                    None if !lists.is_empty() => {
                        plan.actions.extend(lists.into_iter().map(Action::Read));
                        asked.insert(key.clone(), Asked { subject, used: Vec::new() });
                    }
                    _ => plan.push(self.write(&subject, false)),
                }
            }
            _ => {}
        }
        plan
    }

    fn learn(&self, key: &Name, request: &Request, answer: Option<Value>) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(asked) = asked.get_mut(key) else { return };
        let items = answer.and_then(|mut list| list.get_mut("items").map(Value::take));
        let items = items.as_ref().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        asked.used.push(items.iter().any(|item| uses(request.resource, item, &asked.subject)));
    }
}

impl Protection {
    fn resource(&self) -> &'static Resource {
        row(match self.of {
            Claims => "persistentvolumeclaims",
            Volumes => "persistentvolumes",
            Classes => CLASSES,
        })
    }

    fn subject(&self, stores: &Stores, key: &Name) -> Option<Subject> {
        match self.of {
            Claims => {
                let claim = stores.claims.get(&key.namespace, &key.name)?;
                let pod = owners::controller_of(&claim.metadata).filter(|o| o.kind == "Pod").map(|o| o.uid.clone());
                Some(Subject { pod, ..subject(claim.meta()) })
            }
            Volumes => stores.volumes.get("", &key.name).map(|v| subject(v.meta())),
            Classes => stores.other(CLASSES)?.get("", &key.name).map(|c| subject(c.meta())),
        }
    }

    /// As far as the stores know.
    fn is_used(&self, stores: &Stores, subject: &Subject) -> bool {
        match self.of {
            Claims => stores.pods.list(&subject.namespace).iter().any(|pod| pod_uses(pod, subject)),
            Volumes => {
                let volume = stores.volumes.get("", &subject.name);
                volume.and_then(|v| v.status.as_ref()?.phase.clone()).is_some_and(|phase| phase == "Bound")
            }
            Classes => {
                let named = |name: &str| name == subject.name;
                stores.claims.all().iter().any(|c| classes_of_claim(c).any(named))
                    || stores.volumes.all().iter().any(|v| class_of_volume(v).is_some_and(named))
            }
        }
    }

    /// Who could use it. Whether a volume is bound it says itself.
    fn lists(&self, subject: &Subject) -> Vec<Request> {
        let list = |storage: &str| Request::new(Verb::List, row(storage), &subject.namespace, "", Value::Null);
        match self.of {
            Claims => vec![list("pods")],
            Volumes => Vec::new(),
            Classes => vec![list("persistentvolumeclaims"), list("persistentvolumes")],
        }
    }

    /// Of just the state that was observed: finalizers are one list.
    fn write(&self, subject: &Subject, add: bool) -> Write {
        let ours = self.of.finalizer();
        let mut finalizers: Vec<&str> = subject.finalizers.iter().map(String::as_str).filter(|f| *f != ours).collect();
        finalizers.extend(add.then_some(ours));
        let body = json!({ "metadata": { "uid": subject.uid, "resourceVersion": subject.revision.to_string(),
            "finalizers": finalizers } });
        let request = Request::new(Verb::MergePatch, self.resource(), &subject.namespace, &subject.name, body);
        let mut write = Write::new(request);
        write.fine = &[Class::NotFound];
        write
    }
}

fn subject(meta: &dyn Meta) -> Subject {
    Subject {
        namespace: meta.namespace().into(),
        name: meta.name().into(),
        uid: meta.uid().into(),
        revision: meta.revision(),
        finalizers: meta.finalizers().to_vec(),
        deleting: meta.deleting(),
        pod: None,
    }
}

/// Queues those that lack the finalizer, and those that could lose it.
fn follow<K: Kind>(of: Protected, store: &Store<K>, enqueue: &Enqueue) {
    let queue = enqueue.clone();
    let finalizer = of.finalizer();
    store.subscribe(move |change| {
        let Some(meta) = change.new.map(|new| new.meta()) else { return };
        if meta.deleting() == meta.finalizers().iter().any(|f| f == finalizer) {
            queue.add(meta.namespace(), meta.name());
        }
    });
}

/// The pod is gone, or its node is done with it.
fn lets_go(change: &Change<'_, Pod>) -> bool {
    let uid = |pod: &Arc<Pod>| pod.metadata.uid.clone();
    match (change.old, change.new) {
        (Some(old), Some(new)) => uid(old) != uid(new) || (is_shut_down(new) && !is_shut_down(old)),
        (old, _) => old.is_some(),
    }
}

/// The claims of its namespace that wait to go.
fn going(claims: &Store<PersistentVolumeClaim>, pod: &Pod) -> Vec<Arc<PersistentVolumeClaim>> {
    claims.find(pod.metadata.namespace(), |claim| claim.metadata.deleting())
}

fn is_shut_down(pod: &Pod) -> bool {
    pod.metadata.deleting() && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// A kubelet does not start a pod whose claim is going, so only those count that one has. What was made for a pod may
/// go before it: the pod may be waiting for just that.
fn pod_uses(pod: &Pod, claim: &Subject) -> bool {
    let made_for_it = claim.pod.is_some() && claim.pod.as_deref() == pod.metadata.uid.as_deref();
    !pods::node_name(pod).is_empty()
        && (pods::claims(pod).any(|name| name == claim.name) || (made_for_it && !is_shut_down(pod)))
}

/// What it has, and what it is to have.
fn classes_of_claim(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &str> {
    let status = claim.status.as_ref();
    let wanted = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref());
    let current = status.and_then(|s| s.current_volume_attributes_class_name.as_deref());
    let target = status.and_then(|s| s.modify_volume_status.as_ref()?.target_volume_attributes_class_name.as_deref());
    [wanted, current, target].into_iter().flatten()
}

fn class_of_volume(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.volume_attributes_class_name.as_deref()
}

/// Whether an object that the server listed uses it.
fn uses(resource: &Resource, item: &Value, subject: &Subject) -> bool {
    fn typed<T: serde::de::DeserializeOwned>(item: &Value) -> Option<T> {
        serde_json::from_value(item.clone()).ok()
    }
    let named = |name: &str| name == subject.name;
    match resource.storage {
        "pods" => typed(item).is_none_or(|mut pod: Pod| {
            pod.trim();
            pod_uses(&pod, subject)
        }),
        "persistentvolumeclaims" => {
            typed(item).is_none_or(|claim: PersistentVolumeClaim| classes_of_claim(&claim).any(named))
        }
        _ => typed(item).is_none_or(|volume: PersistentVolume| class_of_volume(&volume).is_some_and(named)),
    }
}

#[cfg(test)]
mod tests;
