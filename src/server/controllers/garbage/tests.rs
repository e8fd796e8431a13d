//! Golden plans of the garbage collector, and what its graph remembers.

use super::*;
use crate::client::store::{Kind, Store, View as _};

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
        match storage {
            "pods" => self.put(&self.stores.pods, value),
            "persistentvolumes" => self.put(&self.stores.volumes, value),
            _ => self.put(&self.stores.replica_sets, value),
        }
    }

    fn put<K: Kind>(&self, store: &Store<K>, value: Value) {
        let object: K = serde_json::from_value(value).unwrap();
        let (namespace, name) = (object.meta().namespace().to_owned(), object.meta().name().to_owned());
        let old = store.get(&namespace, &name);
        store.put(object);
        let new = store.get(&namespace, &name);
        let (old, new) = (old.as_ref().map(|o| o.meta()), new.as_ref().map(|o| o.meta()));
        self.collector.graph().observe(store.resource(), old, new);
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
                Action::Event(note) => format!("{} {}", note.reason, note.message),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn answer(&self, uid: &str, found: Option<&str>) {
        self.answer_in("ns", uid, found);
    }

    fn answer_in(&self, namespace: &str, uid: &str, found: Option<&str>) {
        let request = Request::new(Verb::Get, self.stores.replica_sets.resource(), namespace, "rs", Value::Null);
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
fn a_circle_whose_objects_were_all_deleted_at_once_waits_for_nothing() {
    let w = World::new();
    let ending = |name: &str, owners: Value| {
        let meta = json!({ "ownerReferences": owners, "deletionTimestamp": DELETING, "finalizers": [FOREGROUND] });
        w.object("pods", name, meta);
    };
    ending("a", json!([reference("Pod", "b")]));
    ending("b", json!([reference("Pod", "a")]));
    // Beside the circle: who is above it waits for it, who is in it for what is below.
    ending("above", json!([]));
    ending("a", json!([reference("Pod", "b"), reference("Pod", "above")]));
    assert!(w.plan("above").is_empty());
    w.object("pods", "below", json!({ "ownerReferences": [reference("Pod", "b")] }));
    assert!(w.plan("b").is_empty());
    assert_eq!(w.plan("a"), ["StrategicPatch a foregroundDeletion"]);
}

#[test]
fn who_owns_itself_does_not_wait_for_itself() {
    let w = World::new();
    let owners = json!([reference("Pod", "p")]);
    w.object("pods", "p", json!({ "ownerReferences": owners }));
    assert!(w.plan("p").is_empty());
    w.object(
        "pods",
        "p",
        json!({ "ownerReferences": owners, "deletionTimestamp": DELETING, "finalizers": [FOREGROUND] }),
    );
    assert_eq!(w.plan("p"), ["StrategicPatch p foregroundDeletion"]);
}

/// Once a reference from elsewhere was the end of all who named the owner where it was.
#[test]
fn a_reference_into_another_namespace_concerns_nobody_there() {
    let w = World::new();
    let owners = json!([reference("ReplicaSet", "rs")]);
    let there = |more: Value| {
        w.object("apps/replicasets", "rs", {
            let mut meta = json!({ "namespace": "there" });
            json_patch::merge(&mut meta, &more);
            meta
        })
    };
    there(json!({}));
    w.object("pods", "good", json!({ "namespace": "there", "ownerReferences": owners }));
    w.object("pods", "bad", json!({ "ownerReferences": owners }));
    let said = "OwnerRefInvalidNamespace ownerRef [apps/v1/ReplicaSet, namespace: ns, name: rs, uid: rs] does not exist in \
                namespace \"ns\"";
    assert_eq!(w.plan("bad"), [said, "Get rs"]);
    w.answer_in("ns", "bad", None);
    assert_eq!(w.plan("bad"), ["Delete bad Background"], "it is said once");
    assert!(w.plan("good").is_empty());
    // Nor does the owner wait for it.
    there(json!({ "deletionTimestamp": DELETING, "finalizers": [FOREGROUND] }));
    assert_eq!(w.plan("good"), ["Delete good Background"]);
    w.stores.pods.take("there", "good");
    w.collector.graph().forget("good");
    assert_eq!(w.plan("rs"), ["StrategicPatch rs foregroundDeletion"]);
}

#[test]
fn what_has_no_namespace_is_not_deleted_for_an_owner_that_has_one() {
    let w = World::new();
    let volume = json!({ "namespace": null, "ownerReferences": [reference("ReplicaSet", "rs")] });
    w.object("persistentvolumes", "v", volume.clone());
    assert!(w.plan("v").is_empty(), "nothing is known of such an owner");
    w.object("apps/replicasets", "rs", json!({}));
    let said = "OwnerRefInvalidNamespace ownerRef [apps/v1/ReplicaSet, namespace: , name: rs, uid: rs] does not exist in \
                namespace \"\"";
    assert_eq!(w.plan("v"), [said]);
    w.object("persistentvolumes", "v", volume);
    assert!(w.plan("v").is_empty(), "it is said once");
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
