//! Golden plans of what is protected.

use super::*;

struct World {
    of: Protection,
    stores: Stores,
    key: Name,
}

impl World {
    fn new(of: Protected, name: &str) -> Self {
        let namespace = if of == Claims { "ns" } else { "" };
        let of = Protection { of, asked: Mutex::default() };
        Self { of, stores: Stores::new(), key: Name::new(namespace, name) }
    }

    /// What is written at once: the finalizers. What is asked for is answered with `items`.
    fn check(&self, items: &[Value], asks: usize, want: Option<&[&str]>) {
        let moment = super::super::action::Moment { now: jiff::Timestamp::UNIX_EPOCH, failure: None };
        let mut plan = self.of.plan(&self.stores, &self.key, moment);
        let mut asked = 0;
        for action in &plan.actions.clone() {
            let Action::Read(request) = action else { continue };
            asked += 1;
            let of_it = |item: &&Value| item["kind"] == request.resource.kind;
            let list = json!({ "items": items.iter().filter(of_it).collect::<Vec<_>>() });
            self.of.learn(&self.key, request, Some(list));
        }
        if asked > 0 {
            plan = self.of.plan(&self.stores, &self.key, moment);
        }
        assert_eq!(asked, asks, "{:?}", self.key);
        let written = plan.actions.first().map(|action| {
            let Action::Write(write) = action else { panic!("{action:?}") };
            assert_eq!(write.request.body["metadata"]["resourceVersion"], "7");
            write.request.body["metadata"]["finalizers"].clone()
        });
        assert_eq!(written, want.map(|w| json!(w)), "{:?}", self.key);
        assert_eq!(plan.again.is_some(), asked > 0 && want.is_none(), "the stores will see who uses it");
    }
}

fn object(name: &str, finalizers: &[&str], deleting: bool) -> Value {
    let mut object = json!({ "metadata": { "name": name, "namespace": "ns", "uid": name, "resourceVersion": "7",
        "finalizers": finalizers } });
    if deleting {
        object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    object
}

fn pod(node: &str, claim: &str, more: &Value) -> Value {
    let mut pod = json!({
        "kind": "Pod", "metadata": { "name": "p", "namespace": "ns", "uid": "p" },
        "spec": { "nodeName": node, "containers": [],
            "volumes": [{ "name": "e", "emptyDir": {} }, { "name": "v", "persistentVolumeClaim": { "claimName": claim } }] },
    });
    json_patch::merge(&mut pod, more);
    pod
}

const CLAIM: &str = "kubernetes.io/pvc-protection";

#[test]
fn claims_go_when_no_pod_on_a_node_has_them() {
    let check = |claim: &Value, stored: &[Value], listed: &[Value], asks: usize, want: Option<&[&str]>| {
        let world = World::new(Claims, "c");
        world.stores.claims.put(serde_json::from_value(claim.clone()).unwrap());
        for pod in stored {
            world.stores.pods.put(serde_json::from_value(pod.clone()).unwrap());
        }
        world.check(listed, asks, want);
    };
    let none = json!({});
    let (going, stays) = (object("c", &["x", CLAIM], true), object("c", &["x", CLAIM], false));
    check(&stays, &[], &[], 0, None);
    check(&object("c", &["x"], false), &[], &[], 0, Some(&["x", CLAIM]));
    check(&object("c", &["x"], true), &[], &[], 0, None);
    check(&going, &[], &[], 1, Some(&["x"]));
    let user = pod("n", "c", &none);
    check(&going, std::slice::from_ref(&user), &[], 0, None);
    check(&going, &[pod("n", "c", &json!({ "status": { "phase": "Succeeded" } }))], &[], 0, None);
    let others = [pod("", "c", &none), pod("n", "d", &none)];
    for other in &others {
        let other = std::slice::from_ref(other);
        check(&going, other, other, 1, Some(&["x"]));
    }
    // The stores have yet to see it.
    check(&going, &[], &[user], 1, None);
    // Made for the pod.
    let mut made = going.clone();
    made["metadata"]["ownerReferences"] =
        json!([{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p", "controller": true }]);
    check(&made, &[pod("n", "d", &none)], &[], 0, None);
    let done = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0 } });
    check(&made, &[pod("n", "d", &done)], &[], 1, Some(&["x"]));
    check(&made, &[pod("n", "c", &done)], &[], 0, None);
}

#[test]
fn volumes_go_when_they_are_not_bound() {
    let check = |deleting: bool, phase: &str, want: Option<&[&str]>| {
        let world = World::new(Volumes, "v");
        let mut volume = object("v", &["kubernetes.io/pv-protection"], deleting);
        volume["metadata"]["namespace"] = Value::Null;
        volume["status"] = json!({ "phase": phase });
        world.stores.volumes.put(serde_json::from_value(volume).unwrap());
        world.check(&[], 0, want);
    };
    check(false, "Available", None);
    check(true, "Bound", None);
    check(true, "Released", Some(&[]));
    check(true, "Available", Some(&[]));
}

#[test]
fn classes_of_attributes_go_when_no_claim_and_no_volume_names_them() {
    let check = |claim: &Value, volume: &Value, listed: &[Value], asks: usize, want: Option<&[&str]>| {
        let world = World::new(Classes, "class");
        let mut class = object("class", &["kubernetes.io/vac-protection"], true);
        class["metadata"]["namespace"] = "".into();
        world.stores.other(CLASSES).unwrap().put(serde_json::from_value(class).unwrap());
        for (object, is_claim) in [(claim, true), (volume, false)] {
            let mut object = object.clone();
            object["metadata"] = json!({ "name": "o" });
            if is_claim {
                world.stores.claims.put(serde_json::from_value(object).unwrap());
            } else {
                world.stores.volumes.put(serde_json::from_value(object).unwrap());
            }
        }
        world.check(listed, asks, want);
    };
    let none = json!({});
    let named = json!({ "spec": { "volumeAttributesClassName": "class" } });
    let other = json!({ "spec": { "volumeAttributesClassName": "other" } });
    check(&none, &other, &[], 2, Some(&[]));
    check(&named, &none, &[], 0, None);
    check(&none, &named, &[], 0, None);
    check(&json!({ "status": { "currentVolumeAttributesClassName": "class" } }), &none, &[], 0, None);
    for kind in ["PersistentVolumeClaim", "PersistentVolume"] {
        let mut listed = named.clone();
        listed["kind"] = kind.into();
        check(&none, &other, &[listed], 2, None);
    }
}

#[test]
fn a_claim_looks_again_when_a_pod_lets_go_of_it() {
    let read = |more: &Value| -> Arc<Pod> { Arc::new(serde_json::from_value(pod("n", "c", more)).unwrap()) };
    let (pod, ready) = (read(&json!({})), read(&json!({ "metadata": { "labels": { "a": "b" } } })));
    let ending =
        read(&json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0 } }));
    let another = read(&json!({ "metadata": { "uid": "q" } }));
    let check = |old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>, want: bool| {
        assert_eq!(lets_go(&Change { old, new }), want, "{old:?} {new:?}");
    };
    check(None, Some(&pod), false);
    check(Some(&pod), Some(&ready), false);
    check(Some(&pod), Some(&ending), true);
    check(Some(&ending), Some(&ending), false);
    check(Some(&pod), Some(&another), true);
    check(Some(&pod), None, true);
    let claims = Store::new(row("persistentvolumeclaims"));
    for claim in [object("c", &[CLAIM], true), object("d", &[CLAIM], false)] {
        claims.put(serde_json::from_value(claim).unwrap());
    }
    assert_eq!(going(&claims, &pod).len(), 1);
}
