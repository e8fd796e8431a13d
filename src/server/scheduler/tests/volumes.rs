//! Where pods go by the volumes of their claims, and what has to be said of those first.

use super::*;
use crate::server::scheduler::promises::Promise;

/// A pod with a claim.
pub(super) fn with(claim: &str, name: &str) -> Pod {
    let volumes = json!([{ "name": "v", "persistentVolumeClaim": { "claimName": claim } }]);
    pod(name, json!({ "spec": { "volumes": volumes } }))
}

pub(super) fn claim(more: Value) -> Value {
    let base = json!({ "metadata": { "name": "data", "namespace": "ns", "uid": "c", "resourceVersion": "5" },
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "late",
            "resources": { "requests": { "storage": "1Gi" } } },
        "status": { "phase": "Pending" } });
    both(base, &more)
}

pub(super) fn bound(volume: &str) -> Value {
    json!({ "metadata": { "resourceVersion": "9", "annotations": { "pv.kubernetes.io/bind-completed": "yes" } },
        "spec": { "volumeName": volume }, "status": { "phase": "Bound" } })
}

pub(super) fn volume(name: &str, node: &str) -> Value {
    let terms = json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [node] }] }]);
    json!({ "metadata": { "name": name, "resourceVersion": "3" },
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "late", "capacity": { "storage": "1Gi" },
            "nodeAffinity": { "required": { "nodeSelectorTerms": terms } } },
        "status": { "phase": "Available" } })
}

impl World {
    pub(super) fn claim(&mut self, claim: Value) {
        let name = claim["metadata"]["name"].as_str().unwrap().to_owned();
        self.state.snapshot.volumes.set_claim(serde_json::from_value(claim).unwrap());
        self.state.claim_changed("ns", &name, self.now);
    }

    pub(super) fn volume(&mut self, volume: Value) {
        self.state.snapshot.volumes.set_volume(serde_json::from_value(volume).unwrap());
        self.state.volumes_changed(self.now);
    }

    pub(super) fn class(&mut self, more: Value) {
        let base = json!({ "metadata": { "name": "late" }, "provisioner": "x.io/driver",
            "volumeBindingMode": "WaitForFirstConsumer" });
        self.state.snapshot.volumes.set_class(serde_json::from_value(both(base, &more)).unwrap());
        self.state.volumes_changed(self.now);
    }

    pub(super) fn promises(&mut self) -> (String, Vec<Promise>) {
        match self.attempt() {
            Some(Attempt::Promise { node, promises, .. }) => (node, promises),
            other => panic!("promises nothing: {other:?}"),
        }
    }
}

pub(super) fn plain(name: &str) -> Node {
    node(name, "", "4", json!({}))
}

/// Two nodes, a class that waits for the first pod, and a pod.
pub(super) fn world() -> World {
    let mut world = World::new(&[plain("n1"), plain("n2")], &[]);
    world.class(json!({}));
    world.pod(with("data", "p"));
    world
}

pub(super) fn why(world: &mut World) -> String {
    world.outcome().unwrap().unwrap_err()
}

#[test]
fn what_is_wrong_with_a_claim_is_told() {
    let cases = [
        (None, "persistentvolumeclaim \"data\" not found"),
        (
            Some(json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } })),
            "persistentvolumeclaim \"data\" is being deleted",
        ),
        (
            Some(both(bound("v"), &json!({ "status": { "phase": "Lost" } }))),
            "persistentvolumeclaim \"data\" bound to non-existent persistentvolume \"v\"",
        ),
        (Some(bound("v")), "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"),
        (Some(json!({ "spec": { "storageClassName": "" } })), "pod has unbound immediate PersistentVolumeClaims"),
    ];
    for (more, want) in cases {
        let mut world = world();
        more.into_iter().for_each(|more| world.claim(claim(more)));
        let said = why(&mut world);
        assert!(said.starts_with(&format!("0/2 nodes are available: {want}. ")), "{said}");
    }
}

#[test]
fn a_pod_goes_where_its_volume_is() {
    let mut world = world();
    world.claim(claim(bound("v")));
    world.volume(volume("v", "n2"));
    assert_eq!(world.outcome(), Some(Ok("n2".into())));
    let mut world = self::world();
    world.claim(claim(bound("v")));
    world.volume(volume("v", "n3"));
    assert!(why(&mut world).contains("2 node(s) didn't match PersistentVolume's node affinity"));
}

#[test]
fn a_claim_is_told_the_node_and_the_pod_waits_for_its_volume() {
    let mut world = world();
    world.claim(claim(json!({})));
    let (node, promises) = world.promises();
    assert!(matches!(&promises[..], [Promise::Node { node: told, .. }] if *told == node), "{promises:?}");
    // Another pod of the claim goes to the same node.
    world.pod(with("data", "q"));
    assert_eq!(world.outcome(), Some(Ok(format!("{node} after 0"))));
    assert!(world.outcome().is_none(), "both wait");
    world.state.promised("p", 7, &[], world.now);
    world.volume(volume("v", &node));
    world.claim(claim(bound("v")));
    let both = [world.outcome(), world.outcome()];
    assert!(both.iter().all(|o| *o == Some(Ok(node.clone()))), "{both:?}");
    assert!(world.outcome().is_none());
}

#[test]
fn a_node_that_is_taken_back_is_chosen_anew() {
    let mut world = world();
    world.claim(claim(json!({})));
    let (node, _) = world.promises();
    let told = json!({ "metadata": { "resourceVersion": "7", "annotations": { "volume.kubernetes.io/selected-node": node } } });
    world.claim(claim(told));
    world.state.promised("p", 7, &[], world.now);
    world.claim(claim(json!({ "metadata": { "resourceVersion": "8" } })));
    assert_eq!(world.outcome(), Some(Err("selectedNode annotation reset for PVC \"data\"".into())));
    world.later(Duration::from_secs(1));
    assert_eq!(world.promises().1.len(), 1);
    // Nobody makes the volume.
    world.later(Duration::from_mins(10));
    assert_eq!(world.outcome(), Some(Err("binding volumes: context deadline exceeded".into())));
    // The writes failed.
    world.later(Duration::from_secs(20));
    world.promises();
    world.state.unbound("p", world.now);
    world.later(Duration::from_secs(20));
    world.promises();
}

#[test]
fn volumes_made_by_hand_are_promised_once() {
    let mut world = world();
    world.class(json!({ "provisioner": "kubernetes.io/no-provisioner" }));
    world.claim(claim(json!({})));
    assert!(why(&mut world).contains("2 node(s) didn't find available persistent volumes to bind"));
    world.later(Duration::from_secs(1));
    world.volume(volume("v", "n2"));
    let (node, promises) = world.promises();
    assert_eq!(node, "n2");
    assert!(matches!(&promises[..], [Promise::Volume { volume, revision, .. }] if volume == "v" && revision == "3"));
    let other = both(claim(json!({})), &json!({ "metadata": { "name": "other", "uid": "o" } }));
    world.claim(other);
    world.pod(with("other", "q"));
    assert!(why(&mut world).contains("2 node(s) didn't find"), "the only volume is promised");
    world.later(Duration::from_secs(1));
    world.state.forget_pod("p", world.now);
    assert_eq!(world.promises().0, "n2", "whose pod is gone promises nothing");
}

#[test]
fn classes_and_old_volumes_say_where_they_are() {
    let zoned = || World::new(&[node("n1", "a", "4", json!({})), node("n2", "b", "4", json!({}))], &[]);
    let mut world = zoned();
    let term = json!([{ "matchLabelExpressions": [{ "key": "topology.kubernetes.io/zone", "values": ["b"] }] }]);
    world.class(json!({ "allowedTopologies": term }));
    world.claim(claim(json!({})));
    world.pod(with("data", "p"));
    assert_eq!(world.promises().0, "n2");

    let mut world = zoned();
    world.claim(claim(bound("v")));
    let mut old = volume("v", "");
    old["spec"]["nodeAffinity"] = Value::Null;
    old["metadata"]["labels"] = json!({ "topology.kubernetes.io/zone": "b__c" });
    world.volume(old);
    world.pod(with("data", "p"));
    assert_eq!(world.outcome(), Some(Ok("n2".into())));
}

#[test]
fn a_claim_of_one_pod_is_not_shared() {
    let mut world = world();
    world.claim(claim(both(bound("v"), &json!({ "spec": { "accessModes": ["ReadWriteOncePod"] } }))));
    let mut single = volume("v", "n1");
    single["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
    world.volume(single);
    assert_eq!(world.outcome(), Some(Ok("n1".into())));
    world.pod(with("data", "q"));
    assert!(why(&mut world).contains("ReadWriteOncePod access mode"));
    world.later(Duration::from_secs(1));
    world.state.forget_pod("p", world.now);
    assert_eq!(world.outcome(), Some(Ok("n1".into())), "woken by its end");
}

#[test]
fn only_its_own_claim_wakes_a_pod_that_has_none() {
    let mut world = world();
    assert!(why(&mut world).contains("not found"));
    world.later(Duration::from_secs(1));
    world.volume(volume("v", "n1"));
    world.claim(both(claim(json!({})), &json!({ "metadata": { "name": "other", "uid": "o" } })));
    assert!(world.outcome().is_none(), "nothing that could help");
    world.claim(claim(json!({})));
    assert_eq!(world.promises().1.len(), 1);
}
