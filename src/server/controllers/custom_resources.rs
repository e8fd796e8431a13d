//! Decides: which names a `CustomResourceDefinition` gets, and how its objects go when it does
//! (`apiextensions-apiserver/pkg/controller/{status,establish,apiapproval,finalizer}`).
//!
//! ```text
//! new, changed ─▶ NamesAccepted ─▶ Established ─▶ served (the registry looks at the condition itself)
//! deletionTimestamp ─▶ objects left? ─▶ delete them, wait ─▶ none, says the server ─▶ finalizer removed
//! ```

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionNames as Names;
use serde_json::{Value, json};

use super::action::{Action, Controller, Enqueue, Moment, Name, Plan, Write};
use super::stores::{Definition, Stores, row, subscribe_all};
use crate::api::resource::Resource;
use crate::api::resource::custom::DEFINITIONS;
use crate::client::request::{Class, Request, Verb};
use crate::client::store::{Kind as _, Meta, View as _};

const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Says that a group of Kubernetes' own has been agreed upon.
pub const APPROVED: &str = "api-approved.kubernetes.io";
/// When finalizers of others hold objects up.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The longest wait after a failure.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// Keys are names of definitions.
#[derive(Default)]
pub struct CustomResources {
    /// Definitions of which the server itself says that nothing is left.
    empty: Mutex<HashSet<Box<str>>>,
}

impl Controller for CustomResources {
    fn name(&self) -> &'static str {
        "custom-resources"
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        let (queue, definitions) = (enqueue.clone(), Arc::clone(&stores.definitions));
        stores.definitions.subscribe(move |change| {
            // Names that one gives up, another in its group may have been waiting for.
            for one in change.each() {
                let group = &one.spec.group;
                for other in definitions.all().iter().filter(|d| d.spec.group == *group) {
                    queue.add("", other.metadata.name.as_deref().unwrap_or_default());
                }
                queue.add("", one.metadata.name.as_deref().unwrap_or_default());
            }
        });
        let (queue, definitions) = (enqueue.clone(), Arc::clone(&stores.definitions));
        subscribe_all(stores, move |resource, _, new| {
            if new.is_some() || resource.group.is_empty() {
                return;
            }
            let name = format!("{}.{}", resource.plural, resource.group);
            if definitions.get("", &name).is_some_and(|d| d.metadata.deletion_timestamp.is_some()) {
                queue.add("", &name);
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let Some(definition) = stores.definitions.get("", &key.name) else { return Plan::nothing() };
        if definition.metadata.deletion_timestamp.is_some() {
            let empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner).remove(&key.name);
            return ending(stores, &definition, empty, moment.now);
        }
        let others = stores.definitions.all();
        let others = others.iter().filter(|d| d.metadata.name != definition.metadata.name);
        names(&definition, others.map(|d| &**d), moment.now)
    }

    fn learn(&self, key: &Name, _: &Request, answer: Option<Value>) {
        if answer.is_none_or(|a| a["items"].as_array().is_none_or(Vec::is_empty)) {
            self.empty.lock().unwrap_or_else(PoisonError::into_inner).insert(key.name.clone());
        }
    }
}

/// What others of the group were given.
#[derive(Default)]
struct Taken<'a> {
    resources: HashSet<&'a str>,
    kinds: HashSet<&'a str>,
}

fn names<'a>(definition: &Definition, others: impl Iterator<Item = &'a Definition>, now: Timestamp) -> Plan {
    let mut taken = Taken::default();
    for other in others.filter(|d| d.spec.group == definition.spec.group) {
        let Some(names) = &other.status.accepted_names else { continue };
        let all = names.short_names.iter().flatten().map(String::as_str);
        taken.resources.extend(all.chain([names.plural.as_str()]).chain(names.singular.as_deref()));
        taken.kinds.extend([names.kind.as_str()].into_iter().chain(names.list_kind.as_deref()));
    }
    let (accepted, conflict) = accept(definition, &taken);
    let mut conditions = Conditions::of(definition, now);
    match &conflict {
        Some((reason, message)) => conditions.set("NamesAccepted", false, reason, message),
        None => conditions.set("NamesAccepted", true, "NoConflicts", "no conflicts found"),
    }
    // Once established, always: objects may be stored.
    if !conditions.is("Established") {
        match conflict {
            Some(_) => conditions.set("Established", false, "NotAccepted", "not all names are accepted"),
            None => {
                let message = "the initial names have been accepted";
                conditions.set("Established", true, "InitialNamesAccepted", message);
            }
        }
    }
    if let Some((approved, reason, message)) = approval(definition) {
        conditions.set("KubernetesAPIApprovalPolicyConformant", approved, reason, &message);
    }
    let mut plan = Plan::default();
    if conditions.changed || definition.status.accepted_names.as_ref() != Some(&accepted) {
        plan.push(status(definition, json!({ "acceptedNames": accepted, "conditions": conditions.all })));
    }
    plan
}

/// The names that are free, and what keeps the others from being so: the last reason counts.
fn accept(definition: &Definition, taken: &Taken<'_>) -> (Names, Option<(&'static str, String)>) {
    let wanted = &definition.spec.names;
    let mut accepted = definition.status.accepted_names.clone().unwrap_or_default();
    let mut conflict = None;
    let used = |name: &str| format!("{name:?} is already in use");
    if taken.resources.contains(wanted.plural.as_str()) {
        conflict = Some(("PluralConflict", used(&wanted.plural)));
    } else {
        accepted.plural.clone_from(&wanted.plural);
    }
    match wanted.singular.as_deref().filter(|s| taken.resources.contains(s)) {
        Some(singular) => conflict = Some(("SingularConflict", used(singular))),
        None => accepted.singular.clone_from(&wanted.singular),
    }
    let short = wanted.short_names.iter().flatten();
    let used_short: Vec<String> = short.filter(|s| taken.resources.contains(s.as_str())).map(|s| used(s)).collect();
    match used_short.as_slice() {
        [] => accepted.short_names.clone_from(&wanted.short_names),
        [one] => conflict = Some(("ShortNamesConflict", one.clone())),
        many => conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
    }
    if taken.kinds.contains(wanted.kind.as_str()) {
        conflict = Some(("KindConflict", used(&wanted.kind)));
    } else {
        accepted.kind.clone_from(&wanted.kind);
    }
    match wanted.list_kind.as_deref().filter(|k| taken.kinds.contains(k)) {
        Some(kind) => conflict = Some(("ListKindConflict", used(kind))),
        None => accepted.list_kind.clone_from(&wanted.list_kind),
    }
    accepted.categories.clone_from(&wanted.categories);
    (accepted, conflict)
}

/// Of a group of Kubernetes' own, whether it was agreed upon (`apihelpers.GetAPIApprovalState`).
fn approval(definition: &Definition) -> Option<(bool, &'static str, String)> {
    let group = &definition.spec.group;
    let protected = [".k8s.io", ".kubernetes.io"].iter().any(|suffix| group.ends_with(suffix));
    if !protected {
        return None;
    }
    let given = definition.metadata.annotations.as_ref().and_then(|a| a.get(APPROVED));
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    Some(match given.map_or("", String::as_str) {
        "" => {
            (false, "MissingAnnotation", format!("protected groups must have approval annotation {APPROVED:?}, {see}"))
        }
        text if text.starts_with("unapproved") => (false, "UnapprovedAnnotation", format!("not approved: {text:?}")),
        text if text.contains("://") => (true, "ApprovedAnnotation", format!("approved in {text}")),
        _ => {
            let must =
                format!("protected groups must have approval annotation {APPROVED:?} with either a URL or a reason");
            (false, "InvalidAnnotation", format!("{must} starting with \"unapproved\", {see}"))
        }
    })
}

fn ending(stores: &Stores, definition: &Definition, empty: bool, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let finalizers = definition.metadata.finalizers.as_deref().unwrap_or_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        return plan;
    }
    let served = definition.rows().and_then(|rows| rows.served.first().copied());
    let mut conditions = Conditions::of(definition, now);
    let Some(resource) = served else {
        conditions.set("Terminating", false, "NeverEstablished", "resource was never established");
        plan.push(without_finalizer(definition, finalizers));
        return plan;
    };
    if empty {
        // Should it be refused; an object that cannot be read keeps its definition.
        plan.look_after(TRY_AGAIN);
        plan.push(without_finalizer(definition, finalizers));
        return plan;
    }
    conditions.set("Terminating", true, "InstanceDeletionInProgress", "CustomResource deletion is in progress");
    if conditions.changed {
        plan.push(status(definition, json!({ "conditions": conditions.all })));
    }
    let store = stores.custom().into_iter().find(|s| s.resource().storage == resource.storage);
    let left = store.map(|s| s.all()).unwrap_or_default();
    if left.is_empty() {
        // The store may lag, and a definition that is gone takes with it what is left.
        let mut request = Request::new(Verb::List, resource, "", "", Value::Null);
        request.query = "limit=1";
        plan.push(Action::Read(request));
        plan.look_after(LOOK_AGAIN);
        return plan;
    }
    let live = left.iter().map(|o| o.meta()).filter(|o| !o.deleting());
    let namespaces: HashSet<&str> = live.map(Meta::namespace).collect();
    for namespace in namespaces {
        plan.push(delete_all(resource, namespace));
    }
    // Removals wake the key; this is for what the finalizers of others hold.
    plan.look_after(LOOK_AGAIN);
    plan
}

fn delete_all(resource: &'static Resource, namespace: &str) -> Write {
    let body = json!({ "propagationPolicy": "Background" });
    Write::new(Request::new(Verb::DeleteCollection, resource, namespace, "", body))
}

fn patch(definition: &Definition, body: Value) -> Request {
    let name = definition.metadata.name.as_deref().unwrap_or_default();
    Request::new(Verb::MergePatch, row(DEFINITIONS), "", name, body)
}

fn status(definition: &Definition, status: Value) -> Write {
    let meta = &definition.metadata;
    let metadata = json!({ "uid": meta.uid, "resourceVersion": meta.resource_version });
    let mut write = Write::new(patch(definition, json!({ "metadata": metadata, "status": status })).on("status"));
    write.fine = &[Class::NotFound];
    write
}

fn without_finalizer(definition: &Definition, finalizers: &[String]) -> Write {
    let left: Vec<&String> = finalizers.iter().filter(|f| *f != FINALIZER).collect();
    let meta = &definition.metadata;
    // Whatever the status has become since, nobody but this controller takes this finalizer off.
    Write::delete(patch(definition, json!({ "metadata": { "uid": meta.uid, "finalizers": left } })))
}

/// Conditions in the order in which they came.
struct Conditions {
    all: Vec<Value>,
    now: Timestamp,
    changed: bool,
}

impl Conditions {
    fn of(definition: &Definition, now: Timestamp) -> Self {
        let all = definition.status.conditions.iter().flatten().map(|c| json!(c)).collect();
        Self { all, now, changed: false }
    }

    fn is(&self, kind: &str) -> bool {
        self.all.iter().any(|c| c["type"] == kind && c["status"] == "True")
    }

    fn set(&mut self, kind: &str, holds: bool, reason: &str, message: &str) {
        let status = if holds { "True" } else { "False" };
        let at = format!("{:.0}", self.now.strftime("%Y-%m-%dT%H:%M:%SZ"));
        let mut new =
            json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at});
        let Some(old) = self.all.iter_mut().find(|c| c["type"] == kind) else {
            self.changed = true;
            self.all.push(new);
            return;
        };
        if old["status"] == status {
            new["lastTransitionTime"] = old["lastTransitionTime"].clone();
        }
        if !old["observedGeneration"].is_null() {
            new["observedGeneration"] = old["observedGeneration"].clone();
        }
        if *old != new {
            *old = new;
            self.changed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(value: Value) -> Definition {
        serde_json::from_value(value).unwrap()
    }

    fn named(kind: &str, plural: &str, short: &[&str]) -> Definition {
        definition(json!({
            "metadata": {"name": format!("{plural}.example.com"), "uid": "u", "resourceVersion": "7"},
            "spec": {"group": "example.com", "scope": "Namespaced",
                "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"),
                    "shortNames": short},
                "versions": [{"name": "v1", "served": true, "storage": true}]},
        }))
    }

    fn accepted(mut definition: Definition) -> Definition {
        definition.status.accepted_names = Some(definition.spec.names.clone());
        definition
    }

    fn written(plan: &Plan) -> Value {
        let [Action::Write(write)] = plan.actions.as_slice() else { panic!("{plan:?}") };
        write.request.body["status"].clone()
    }

    fn said(status: &Value) -> Vec<[&str; 4]> {
        let text = |c: &'_ Value, f: &str| c[f].as_str().unwrap().to_owned();
        let all = status["conditions"].as_array().unwrap();
        all.iter().map(|c| ["type", "status", "reason", "message"].map(|f| &*text(c, f).leak())).collect()
    }

    #[test]
    fn free_names_are_accepted_and_established() {
        let new = named("CronTab", "crontabs", &["ct"]);
        let status = written(&names(&new, [].into_iter(), Timestamp::UNIX_EPOCH));
        assert_eq!(status["acceptedNames"]["listKind"], "CronTabList");
        assert_eq!(
            said(&status),
            [
                ["NamesAccepted", "True", "NoConflicts", "no conflicts found"],
                ["Established", "True", "InitialNamesAccepted", "the initial names have been accepted"],
            ]
        );
        let mut settled = accepted(new);
        settled.status.conditions = serde_json::from_value(status["conditions"].clone()).unwrap();
        assert_eq!(names(&settled, [].into_iter(), Timestamp::MAX), Plan::nothing(), "nothing new, nothing written");
    }

    #[test]
    fn names_of_others_in_the_group_are_not() {
        let other = accepted(named("Other", "others", &["ct", "x"]));
        for (new, reason, message) in [
            (named("CronTab", "others", &[]), "PluralConflict", "\"others\" is already in use"),
            (named("CronTab", "x", &[]), "PluralConflict", "\"x\" is already in use"),
            (named("CronTab", "crontabs", &["ct"]), "ShortNamesConflict", "\"ct\" is already in use"),
            (
                named("CronTab", "crontabs", &["ct", "x", "y"]),
                "ShortNamesConflict",
                "[\"ct\" is already in use, \"x\" is already in use]",
            ),
        ] {
            let status = written(&names(&new, [&other].into_iter(), Timestamp::UNIX_EPOCH));
            let established = ["Established", "False", "NotAccepted", "not all names are accepted"];
            assert_eq!(said(&status), [["NamesAccepted", "False", reason, message], established]);
        }
        let mut elsewhere = other;
        elsewhere.spec.group = "example.org".into();
        let status = written(&names(&named("Other", "others", &[]), [&elsewhere].into_iter(), Timestamp::UNIX_EPOCH));
        assert_eq!(said(&status)[0][1], "True", "groups do not share names");
    }

    #[test]
    fn groups_of_kubernetes_say_who_agreed() {
        let mut gateway = named("Gateway", "gateways", &[]);
        gateway.spec.group = "gateway.networking.k8s.io".into();
        for (given, expect) in [
            (
                Some("https://github.com/kubernetes-sigs/gateway-api/pull/1"),
                ["True", "ApprovedAnnotation", "approved in https://github.com/kubernetes-sigs/gateway-api/pull/1"],
            ),
            (
                Some("unapproved, experimental"),
                ["False", "UnapprovedAnnotation", "not approved: \"unapproved, experimental\""],
            ),
            (
                None,
                [
                    "False",
                    "MissingAnnotation",
                    "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
                ],
            ),
        ] {
            gateway.metadata.annotations = given.map(|g| [(APPROVED.to_owned(), g.to_owned())].into());
            let status = written(&names(&gateway, [].into_iter(), Timestamp::UNIX_EPOCH));
            assert_eq!(said(&status)[2][1..], expect);
        }
    }

    #[test]
    fn objects_go_before_their_definition() {
        let stores = Stores::new();
        let mut crd = accepted(named("CronTab", "crontabs", &[]));
        crd.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        crd.metadata.finalizers = Some(vec![FINALIZER.into()]);
        crd.status.conditions = serde_json::from_value(json!([{"type": "Established", "status": "True"}])).unwrap();
        let store = stores.add_custom(crd.rows().unwrap());
        store.put(serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "x"}})).unwrap());
        stores.definitions.put(crd);
        let controller = CustomResources::default();
        let key = Name::new("", "crontabs.example.com");
        let moment = Moment { now: Timestamp::UNIX_EPOCH, failure: None };
        let verbs = |plan: &Plan| -> Vec<(Verb, String)> {
            let of = |r: &Request| (r.verb, format!("{} {}", r.resource.plural, r.namespace));
            let request = |a: &Action| match a {
                Action::Write(w) => of(&w.request),
                Action::Read(r) => of(r),
                other => panic!("{other:?}"),
            };
            plan.actions.iter().map(request).collect()
        };
        let plan = controller.plan(&stores, &key, moment);
        let status = (Verb::MergePatch, "customresourcedefinitions ".to_owned());
        assert_eq!(verbs(&plan), [status.clone(), (Verb::DeleteCollection, "crontabs x".into())]);
        store.take("x", "a");
        let plan = controller.plan(&stores, &key, moment);
        assert_eq!(verbs(&plan), [status, (Verb::List, "crontabs ".into())]);
        let Some(Action::Read(request)) = plan.actions.last() else { panic!() };
        controller.learn(&key, request, Some(json!({"items": []})));
        let plan = controller.plan(&stores, &key, moment);
        let [Action::Write(write)] = plan.actions.as_slice() else { panic!("{plan:?}") };
        assert_eq!(write.request.body["metadata"]["finalizers"], json!([]));
    }
}
