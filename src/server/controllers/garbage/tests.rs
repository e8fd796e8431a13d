//! Golden plans of the garbage collector, and what its graph remembers.

use super::*;
use crate::client::store::View;

struct World {
    stores: Stores,
    collector: GarbageCollector,
}

fn reference(kind: &str, name: &str) -> Value {
    let api = if kind == "ReplicaSet" || kind == "Deployment" { "apps/v1" } else { "v1" };
    json!({ "apiVersion": api, "kind": kind, "name": name, "uid": name, "blockOwnerDeletion": true })
}

impl World {
    fn new() -> Self {
        Self { stores: Stores::new(), collector: GarbageCollector::default() }
    }

    fn object(&self, storage: &str, name: &str, more: Value) {
        let mut meta = json!({ "name": name, "namespace": "ns", "uid": name });
        meta.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let value = json!({ "metadata": meta });
        let resource = crate::server::controllers::stores::row(storage);
        let (old, new) = match storage {
            "pods" => {
                let old = self.stores.pods.get("ns", name).map(|o| o.metadata.clone());
                self.stores.pods.put(serde_json::from_value(value).unwrap());
                (old, self.stores.pods.get("ns", name).map(|o| o.metadata.clone()))
            }
            _ => {
                let old = self.stores.replica_sets.get("ns", name).map(|o| o.metadata.clone());
                self.stores.replica_sets.put(serde_json::from_value(value).unwrap());
                (old, self.stores.replica_sets.get("ns", name).map(|o| o.metadata.clone()))
            }
        };
        self.collector.graph().observe(resource, old.as_ref().map(|o| o as _), new.as_ref().map(|o| o as _));
    }

    fn gone(&self, name: &str) -> Vec<Box<str>> {
        let old = self.stores.replica_sets.get("ns", name).unwrap().metadata.clone();
        self.stores.replica_sets.take("ns", name);
        self.collector.graph().observe(self.stores.replica_sets.resource(), Some(&old), None)
    }

    /// Verb, resource and the telling part of the body of each request.
    fn plan(&self, uid: &str) -> Vec<String> {
        let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, failure: None };
        let plan = self.collector.plan(&self.stores, &Name::new("", uid), moment);
        let show = |r: &Request| {
            let body = &r.body;
            let policy = body["propagationPolicy"].as_str().unwrap_or_default();
            let finalizer = body["metadata"]["$deleteFromPrimitiveList/finalizers"][0].as_str().unwrap_or_default();
            let owner = body["metadata"]["ownerReferences"][0]["uid"].as_str().unwrap_or_default();
            format!("{:?} {} {policy}{finalizer}{owner}", r.verb, r.name).trim_end().to_owned()
        };
        plan.actions
            .iter()
            .map(|a| match a {
                Action::Write(w) => show(&w.request),
                Action::Read(r) => show(r),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn answer(&self, uid: &str, found: Option<&str>) {
        let request = Request::new(Verb::Get, self.stores.replica_sets.resource(), "ns", "rs", Value::Null);
        self.collector.learn(&Name::new("", uid), &request, found.map(|f| json!({ "metadata": { "uid": f } })));
    }
}

const DELETING: &str = "2026-01-01T00:00:00Z";

#[test]
fn an_absent_owner_is_verified_before_its_dependents_go() {
    let w = World::new();
    w.object("pods", "p", json!({ "ownerReferences": [reference("ReplicaSet", "rs")] }));
    assert_eq!(w.plan("p"), ["Get rs"], "the store may lag");
    w.answer("p", Some("rs"));
    assert_eq!(w.plan("p"), ["Get rs"], "it exists after all");
    w.object("apps/replicasets", "rs", json!({}));
    assert!(w.plan("p").is_empty());
    assert_eq!(w.gone("rs"), ["p".into()], "its dependents are looked at");
    w.answer("p", Some("another object of that name"));
    assert_eq!(w.plan("p"), ["Delete p Background"]);
}

#[test]
fn an_object_goes_only_as_it_was_seen() {
    let w = World::new();
    // It has been orphaned since, and of the two changes only the end of its owner was seen.
    w.object("pods", "p", json!({ "ownerReferences": [reference("ReplicaSet", "rs")], "resourceVersion": "5" }));
    w.answer("p", None);
    let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, failure: None };
    let plan = w.collector.plan(&w.stores, &Name::new("", "p"), moment);
    let [Action::Write(delete)] = &plan.actions[..] else { panic!("{plan:?}") };
    assert_eq!(delete.request.body["preconditions"], json!({ "uid": "p", "resourceVersion": "5" }));
    w.object("pods", "p", json!({ "resourceVersion": "6" }));
    assert!(w.plan("p").is_empty());
}

#[test]
fn one_solid_owner_keeps_an_object() {
    let w = World::new();
    w.object("apps/replicasets", "rs2", json!({}));
    w.object(
        "pods",
        "p",
        json!({ "ownerReferences": [reference("ReplicaSet", "rs"), reference("ReplicaSet", "rs2")] }),
    );
    w.answer("p", None);
    assert_eq!(w.plan("p"), ["StrategicPatch p rs"]);
}

#[test]
fn foreground_waits_for_blocking_dependents() {
    let w = World::new();
    w.object("apps/replicasets", "rs", json!({ "deletionTimestamp": DELETING, "finalizers": [FOREGROUND] }));
    w.object("pods", "p", json!({ "ownerReferences": [reference("ReplicaSet", "rs")] }));
    assert!(w.plan("rs").is_empty(), "blocked");
    assert_eq!(w.plan("p"), ["Delete p Background"]);
    let old = w.stores.pods.get("ns", "p").unwrap().metadata.clone();
    let touched = w.collector.graph().observe(w.stores.pods.resource(), Some(&old), None);
    assert_eq!(touched, ["rs".into()], "the owner is looked at again");
    assert_eq!(w.plan("rs"), ["StrategicPatch rs foregroundDeletion"]);
}

/// Three objects own one another: the last that is to go ends the wait of the one that owns it.
#[test]
fn a_circle_that_ends_in_the_foreground_is_opened() {
    let w = World::new();
    let pod = |name: &str, owner: &str, more: Value| {
        let mut meta = json!({ "ownerReferences": [reference("Pod", owner)] });
        meta.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        w.object("pods", name, meta);
    };
    let ending = json!({ "deletionTimestamp": DELETING, "finalizers": [FOREGROUND] });
    pod("a", "c", ending.clone());
    pod("b", "a", json!({}));
    pod("c", "b", json!({}));
    assert_eq!(w.plan("b"), ["Delete b Foreground"], "c does not end yet");
    pod("b", "a", ending);
    assert!(w.plan("a").is_empty() && w.plan("b").is_empty(), "they wait");
    assert_eq!(w.plan("c"), ["StrategicPatch c b", "Delete c Foreground"], "a, which c owns, ends already");
    let open = json!({ "apiVersion": "v1", "kind": "Pod", "name": "b", "uid": "b", "blockOwnerDeletion": false });
    w.object("pods", "c", json!({ "ownerReferences": [open] }));
    assert_eq!(w.plan("b"), ["StrategicPatch b foregroundDeletion"]);
}

#[test]
fn orphans_lose_their_owner_and_stay() {
    let w = World::new();
    w.object("apps/replicasets", "rs", json!({ "deletionTimestamp": DELETING, "finalizers": [ORPHAN] }));
    w.object("pods", "p", json!({ "ownerReferences": [reference("ReplicaSet", "rs")] }));
    assert_eq!(w.plan("rs"), ["StrategicPatch p rs", "StrategicPatch rs orphan"]);
}

#[test]
fn the_graph_forgets_what_is_gone() {
    let w = World::new();
    for i in 0..100 {
        let name = format!("rs{i}");
        w.object("apps/replicasets", &name, json!({ "ownerReferences": [reference("Deployment", "d")] }));
        w.gone(&name);
    }
    let graph = w.collector.graph();
    assert_eq!((graph.items.len(), graph.dependents.len()), (0, 0));
}
