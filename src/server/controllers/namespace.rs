//! Decides: how a namespace ends: pods first, then everything else, then its finalizer.
//!
//! ```text
//! deletionTimestamp ─▶ pods left? ─▶ delete them, wait ──▶ others left? ─▶ delete them, wait
//!                                                              │ no
//!                             finalize ◀─ all empty ─ ask the server for each resource ─▶ not empty: again
//! ```
//!
//! The stores say what is left and wake the key when it goes; that nothing is left is asked of the server itself,
//! for a store may lag and a namespace that is gone cannot be emptied any more.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use serde_json::{Value, json};

use super::action::{Action, Controller, Enqueue, Failure, Moment, Name, Plan, Write};
use super::owners;
use super::stores::{Stores, row, subscribe_all};
use crate::api::resource::{DELETE_COLLECTION, LIST, RESOURCES, Resource};
use crate::client::request::{Class, Request, Verb};
use crate::client::store::{Count, View as _};

const FINALIZER: &str = "kubernetes";
/// When a store did not show what the server has, or finalizers of others hold things up.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The longest wait after a failure, as upstream's: nothing tells when its cause is gone.
const TRY_AGAIN: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct NamespaceDeletion {
    /// Answers of the server for each namespace: resources that are empty, by storage name.
    answers: Mutex<HashMap<Box<str>, HashMap<&'static str, bool>>>,
}

/// What is left of one resource.
struct Left {
    resource: &'static Resource,
    count: Count,
}

/// Every namespaced resource, once.
fn contents(stores: &Stores) -> Vec<&'static Resource> {
    let mut resources: Vec<&'static Resource> = Vec::new();
    for resource in RESOURCES {
        let stored = resource.namespaced && resource.has(LIST | DELETE_COLLECTION) && !resource.storage.is_empty();
        if stored && !resources.iter().any(|r| r.storage == resource.storage) {
            resources.push(resource);
        }
    }
    resources.extend(stores.custom().iter().map(|s| s.resource()).filter(|r| r.namespaced));
    resources
}

impl Controller for NamespaceDeletion {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let queue = enqueue.clone();
        stores.namespaces.subscribe(move |change| {
            for namespace in change.each().filter(|n| n.metadata.deletion_timestamp.is_some()) {
                queue.add("", namespace.metadata.name.as_deref().unwrap_or_default());
            }
        });
        let (queue, namespaces) = (enqueue.clone(), Arc::clone(&stores.namespaces));
        subscribe_all(stores, move |_, old, new| {
            let (Some(old), None) = (old, new) else { return };
            let namespace = old.namespace();
            let ending = |n: Arc<Namespace>| n.metadata.deletion_timestamp.is_some();
            if !namespace.is_empty() && namespaces.get("", namespace).is_some_and(ending) {
                queue.add("", namespace);
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = stores.namespaces.get("", &key.name);
        let Some(namespace) = namespace.filter(|n| n.metadata.deletion_timestamp.is_some() && is_held(n)) else {
            answers.remove(&key.name);
            return Plan::nothing();
        };
        let left: Vec<Left> = contents(stores)
            .into_iter()
            .filter_map(|resource| {
                let count = stores.view(resource.storage)?.count(&key.name);
                (count.total > 0).then_some(Left { resource, count })
            })
            .collect();
        let unknown = stores.unknown_remote();
        if !left.is_empty() || !unknown.is_empty() {
            answers.remove(&key.name);
            return empty(&namespace, &left, &unknown, moment);
        }
        let resources = contents(stores);
        match answers.remove(&key.name).filter(|a| a.len() == resources.len()) {
            None => {
                answers.insert(key.name.clone(), HashMap::new());
                ask(&key.name, &resources)
            }
            Some(answers) if answers.values().all(|empty| *empty) => finalize(&namespace, moment),
            Some(answers) => {
                let mut plan = Plan::default();
                for resource in resources.iter().filter(|r| answers.get(r.storage) == Some(&false)) {
                    plan.push(delete_all(resource, &key.name));
                }
                plan.look_after(LOOK_AGAIN);
                plan
            }
        }
    }

    fn learn(&self, key: &Name, request: &Request, answer: Option<Value>) {
        let empty = answer.is_none_or(|a| a["items"].as_array().is_none_or(Vec::is_empty));
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.entry(key.name.clone()).or_default().insert(request.resource.storage, empty);
    }
}

fn is_held(namespace: &Namespace) -> bool {
    namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref()).is_some_and(|f| f.iter().any(|f| f == FINALIZER))
}

fn delete_all(resource: &'static Resource, namespace: &str) -> Write {
    let body = json!({ "propagationPolicy": "Background" });
    Write::new(Request::new(Verb::DeleteCollection, resource, namespace, "", body))
}

/// Pods first and alone: what they use (network policies, secrets, volumes) must outlive them.
fn empty(namespace: &Namespace, left: &[Left], unknown: &[String], moment: Moment<'_>) -> Plan {
    let mut plan = Plan::default();
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let pods_left = left.iter().any(|l| l.resource.storage == "pods");
    for one in left.iter().filter(|l| l.count.live > 0 && (!pods_left || l.resource.storage == "pods")) {
        plan.push(delete_all(one.resource, name));
    }
    plan.actions.extend(conditions(namespace, left, unknown, moment));
    // Removals wake the key; this is for what the finalizers of others hold, and for extension servers that are away.
    plan.look_after(LOOK_AGAIN);
    plan
}

/// Events are in no store and may come at any time: they are deleted right before the server is asked.
fn ask(namespace: &str, resources: &[&'static Resource]) -> Plan {
    let mut plan = Plan::default();
    for resource in resources.iter().filter(|r| r.storage == "events") {
        plan.push(delete_all(resource, namespace));
    }
    for resource in resources {
        let mut request = Request::new(Verb::List, resource, namespace, "", Value::Null);
        request.query = "limit=1";
        plan.push(Action::Read(request));
    }
    plan
}

fn finalize(namespace: &Namespace, moment: Moment<'_>) -> Plan {
    let mut plan = Plan::default();
    plan.actions.extend(conditions(namespace, &[], &[], moment));
    if moment.failure.is_some() {
        plan.look_after(TRY_AGAIN);
    }
    let meta = &namespace.metadata;
    let kept: Vec<&String> =
        namespace.spec.iter().filter_map(|s| s.finalizers.as_ref()).flatten().filter(|f| *f != FINALIZER).collect();
    let body = json!({
        "apiVersion": "v1", "kind": "Namespace",
        // No revision: the conditions above have just changed it, and only this controller owns this finalizer.
        "metadata": { "name": meta.name, "uid": meta.uid },
        "spec": { "finalizers": kept },
    });
    let name = meta.name.as_deref().unwrap_or_default();
    let mut write = Write::delete(Request::new(Verb::Update, row("namespaces"), "", name, body).on("finalize"));
    write.fine = &[Class::NotFound];
    plan.push(write);
    plan
}

/// The status write, if a condition says something new.
fn conditions(
    namespace: &Namespace,
    left: &[Left],
    unknown: &[String],
    Moment { now, failure }: Moment<'_>,
) -> Option<Action> {
    let remaining = left
        .iter()
        .map(|l| {
            // The dot after a resource of the core group is upstream's.
            format!("{}.{} has {} resource instances", l.resource.plural, l.resource.group, l.count.total)
        })
        .collect::<Vec<_>>()
        .join(", ");
    let mut held: BTreeMap<&str, usize> = BTreeMap::new();
    for (finalizer, count) in left.iter().flat_map(|l| &l.count.finalizers) {
        *held.entry(finalizer).or_default() += count;
    }
    let holders = held.iter().map(|(f, n)| format!("{f} in {n} resource instances")).collect::<Vec<_>>().join(", ");
    let finalizers = if held.is_empty() {
        ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned())
    } else {
        let message = format!("Some content in the namespace has finalizers remaining: {holders}");
        ("True", "SomeFinalizersRemain", message)
    };
    let content = if left.is_empty() {
        ("False", "ContentRemoved", "All content successfully removed".to_owned())
    } else {
        ("True", "SomeResourcesRemain", format!("Some resources are remaining: {remaining}"))
    };
    // Being overtaken is no failure: the next plan sees by what.
    let overtaken = |f: &&Failure| matches!(f.class, Class::Conflict | Class::NotFound | Class::AlreadyExists);
    let failed = match failure.filter(|f| !overtaken(f)) {
        None => {
            let message = "All content successfully deleted, may be waiting on finalization";
            ("False", "ContentDeleted", message.to_owned())
        }
        Some(failure) => {
            let message = format!("Failed to delete all resource types, 1 remaining: {}", failure.message);
            ("True", "ContentDeletionFailed", message)
        }
    };
    let discovered = if unknown.is_empty() {
        ("False", "ResourcesDiscovered", "All resources successfully discovered".to_owned())
    } else {
        let stale = unknown.iter().map(|v| format!("{v}: stale GroupVersion discovery: {v}"));
        let stale = stale.collect::<Vec<_>>().join(", ");
        let message = format!(
            "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {stale}",
            unknown.len()
        );
        ("True", "DiscoveryFailed", message)
    };
    let wanted = [
        ("NamespaceDeletionDiscoveryFailure", discovered.0, discovered.1, discovered.2),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".to_owned(),
        ),
        ("NamespaceDeletionContentFailure", failed.0, failed.1, failed.2),
        ("NamespaceContentRemaining", content.0, content.1, content.2),
        ("NamespaceFinalizersRemaining", finalizers.0, finalizers.1, finalizers.2),
    ];
    let old = namespace.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let mut new: Vec<NamespaceCondition> = Vec::new();
    for (kind, status, reason, message) in wanted {
        let before = old.iter().find(|c| c.type_ == kind);
        let since = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        new.push(NamespaceCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: since.or_else(|| Some(owners::whole_second(now))),
        });
    }
    if old == new {
        return None;
    }
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let body = json!({ "metadata": { "uid": namespace.metadata.uid }, "status": { "conditions": new } });
    let mut write = Write::new(Request::new(Verb::MergePatch, row("namespaces"), "", name, body).on("status"));
    write.fine = &[Class::NotFound];
    Some(write.into())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn moment() -> Moment<'static> {
        Moment { now: Timestamp::UNIX_EPOCH, failure: None }
    }

    fn verbs(plan: &Plan) -> Vec<(Verb, &'static str)> {
        let of = |r: &Request| (r.verb, if r.subresource.is_empty() { r.resource.plural } else { r.subresource });
        let request = |a: &Action| match a {
            Action::Write(w) => Some(of(&w.request)),
            Action::Read(r) => Some(of(r)),
            _ => None,
        };
        plan.actions.iter().filter_map(request).collect()
    }

    fn content_failure(plan: &Plan) -> (String, String) {
        let Some(Action::Write(status)) = plan.actions.first() else { panic!("no status is written") };
        let conditions = status.request.body["status"]["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|c| c["type"] == "NamespaceDeletionContentFailure").unwrap();
        let text = |name: &str| found[name].as_str().unwrap().to_owned();
        let shown = if found["status"] == "True" { "message" } else { "reason" };
        (text("status"), text(shown))
    }

    #[test]
    fn what_does_not_let_it_end_is_told() {
        let stores = Stores::new();
        let namespace = json!({ "metadata": { "name": "x", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "finalizers": ["kubernetes"] } });
        stores.namespaces.put(serde_json::from_value(namespace).unwrap());
        let failed = |class| {
            let failure = Failure { class, message: "configmaps/x/a cannot be read".into() };
            let plan = finalize(
                &stores.namespaces.get("", "x").unwrap(),
                Moment { now: Timestamp::UNIX_EPOCH, failure: Some(&failure) },
            );
            content_failure(&plan)
        };
        let told = "Failed to delete all resource types, 1 remaining: configmaps/x/a cannot be read";
        assert_eq!(failed(Class::Retry), ("True".into(), told.into()));
        assert_eq!(failed(Class::Conflict), ("False".into(), "ContentDeleted".into()));
    }

    #[test]
    fn pods_then_the_rest_then_the_finalizer() {
        let stores = Stores::new();
        let object = |value: Value| value;
        stores.namespaces.put(
            serde_json::from_value(object(json!({ "metadata": { "name": "x", "uid": "u",
                "deletionTimestamp": "2026-01-01T00:00:00Z" }, "spec": { "finalizers": ["kubernetes"] } })))
            .unwrap(),
        );
        let meta = json!({ "metadata": { "name": "a", "namespace": "x" } });
        stores.pods.put(serde_json::from_value(meta.clone()).unwrap());
        stores.services.put(serde_json::from_value(json!({ "metadata": { "name": "s", "namespace": "x" } })).unwrap());
        stores.other("configmaps").unwrap().put(serde_json::from_value(meta).unwrap());
        let controller = NamespaceDeletion::default();
        let key = Name::new("", "x");
        let plan = controller.plan(&stores, &key, moment());
        assert_eq!(verbs(&plan), [(Verb::DeleteCollection, "pods"), (Verb::MergePatch, "status")]);
        stores.pods.take("x", "a");
        let plan = controller.plan(&stores, &key, moment());
        let want = [
            (Verb::DeleteCollection, "services"),
            (Verb::DeleteCollection, "configmaps"),
            (Verb::MergePatch, "status"),
        ];
        assert_eq!(verbs(&plan), want);
        stores.services.take("x", "s");
        stores.other("configmaps").unwrap().take("x", "a");

        // The server still has a Secret that no store shows: not finalized.
        for secret in [true, false] {
            let plan = controller.plan(&stores, &key, moment());
            assert_eq!(verbs(&plan)[0], (Verb::DeleteCollection, "events"));
            for action in &plan.actions {
                let Action::Read(request) = action else { continue };
                let items = if secret && request.resource.plural == "secrets" { json!([{}]) } else { json!([]) };
                controller.learn(&key, request, Some(json!({ "items": items })));
            }
            let plan = controller.plan(&stores, &key, moment());
            if secret {
                assert_eq!(verbs(&plan), [(Verb::DeleteCollection, "secrets")]);
            } else {
                assert_eq!(verbs(&plan), [(Verb::MergePatch, "status"), (Verb::Update, "finalize")]);
                assert_eq!(content_failure(&plan), ("False".into(), "ContentDeleted".into()));
            }
        }
    }
}
