//! Golden plans of volumes and nodes.

use serde_json::{Value, json};

use super::*;
use crate::client::request::Verb;

const T0: &str = "2026-01-02T00:00:00Z";
/// Of the volume `v`.
const UNIQUE: &str = "kubernetes.io/csi/x.io/driver^h";

fn typed<T: serde::de::DeserializeOwned>(mut base: Value, more: &Value) -> T {
    json_patch::merge(&mut base, more);
    serde_json::from_value(base).unwrap()
}

/// A cluster with the volume `v`, bound to the claim `data`, and ready nodes `n1` and `n2`.
struct World {
    stores: Stores,
    controller: AttachDetach,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let world = Self { stores: Stores::new(), controller: AttachDetach::default(), now: T0.parse().unwrap() };
        world.volume(json!({}));
        world.stores.claims.put(typed(
            json!({ "metadata": { "name": "data", "namespace": "ns", "uid": "c" }, "spec": { "volumeName": "v" },
                "status": { "phase": "Bound" } }),
            &json!({}),
        ));
        world.node("n1", json!({}));
        world.node("n2", json!({}));
        world
    }

    fn volume(&self, more: Value) {
        let base = json!({ "metadata": { "name": "v" }, "spec": {
            "accessModes": ["ReadWriteOnce"], "csi": { "driver": "x.io/driver", "volumeHandle": "h" },
            "claimRef": { "namespace": "ns", "name": "data", "uid": "c" } } });
        self.stores.volumes.put(typed(base, &more));
    }

    fn node(&self, name: &str, more: Value) {
        let base = json!({
            "metadata": { "name": name, "uid": name,
                "annotations": { "volumes.kubernetes.io/controller-managed-attach-detach": "true" } },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        self.stores.nodes.put(typed(base, &more));
    }

    /// A pod with the claim.
    fn pod(&self, name: &str, node: &str, more: Value) {
        let volumes = json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "data" } }]);
        let base = json!({ "metadata": { "name": name, "namespace": "ns", "uid": name, "creationTimestamp": T0 },
            "spec": { "nodeName": node, "containers": [], "volumes": volumes } });
        self.stores.pods.put(typed(base, &more));
    }

    fn attachment(&self, node: &str, more: Value) {
        let base = json!({
            "metadata": { "name": wanted::attachment_name("h", "x.io/driver", node), "uid": format!("a-{node}"),
                "creationTimestamp": T0 },
            "spec": { "attacher": "x.io/driver", "nodeName": node, "source": { "persistentVolumeName": "v" } },
        });
        self.stores.attachments.put(typed(base, &more));
    }

    fn later(&mut self, seconds: i64) {
        self.now = self.now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
    }

    /// What is planned for the volume, or for a node, and when it looks again.
    fn check(&self, what: &str, key: (&str, &str), want: &[&str], again: Option<u64>) {
        let moment = Moment { now: self.now, failure: None };
        let plan = self.controller.plan(&self.stores, &Name::new(key.0, key.1), moment);
        assert_eq!(plan.actions.iter().map(show).collect::<Vec<_>>(), want, "{what}");
        assert_eq!(plan.again.map(|a| a.as_secs()), again, "{what}");
    }
}

fn show(action: &Action) -> String {
    match action {
        Action::Event(note) => {
            format!("{} {}: {}", note.regarding.name.as_deref().unwrap(), note.reason, note.message.trim_end())
        }
        Action::Write(write) => {
            let (request, body) = (&write.request, &write.request.body);
            match request.verb {
                Verb::Create => {
                    assert!(body["metadata"]["name"].as_str().unwrap().len() == 68, "{body}");
                    format!(
                        "attach {} to {}",
                        body["spec"]["source"]["persistentVolumeName"].as_str().unwrap(),
                        body["spec"]["nodeName"].as_str().unwrap()
                    )
                }
                Verb::Delete => format!("detach {}", body["preconditions"]["uid"].as_str().unwrap()),
                _ => format!("{} has {}", request.name, body["status"]["volumesAttached"]),
            }
        }
        other => panic!("{other:?}"),
    }
}

const V: (&str, &str) = (VOLUME, "v");
const N1: (&str, &str) = (NODE, "n1");

fn attached() -> Value {
    json!({ "status": { "attached": true } })
}

fn has(in_use: bool) -> Value {
    let mut status = json!({ "volumesAttached": [{ "name": UNIQUE, "devicePath": "" }] });
    if in_use {
        status["volumesInUse"] = json!([UNIQUE]);
    }
    json!({ "status": status })
}

fn not_ready(mut more: Value) -> Value {
    more["status"]["conditions"] = json!([{ "type": "Ready", "status": "Unknown" }]);
    more
}

#[test]
fn attachments_are_named_as_upstreams() {
    // sha256 of "vol-1csi.example.comnode-1".
    let name = wanted::attachment_name("vol-1", "csi.example.com", "node-1");
    assert_eq!(name, "csi-b74c7fc125891ffa0d0f2e0d645733e3fae7fba3066e76500a771ea08be9da28");
}

#[test]
fn a_volume_is_attached_where_a_pod_uses_it() {
    let attach = ["attach v to n1"];
    let with = |what: &str, change: &dyn Fn(&World), want: &[&str]| {
        let world = World::new();
        world.pod("p", "n1", json!({}));
        change(&world);
        world.check(what, V, want, None);
    };
    with("a pod", &|_| {}, &attach);
    with("of no node yet", &|w| w.pod("p", "", json!({})), &[]);
    with("that has ended", &|w| w.pod("p", "n1", json!({ "status": { "phase": "Failed" } })), &[]);
    let ending = |state: Value| {
        json!({ "metadata": { "deletionTimestamp": T0 }, "status": { "containerStatuses": [{ "name": "c", "image": "",
            "imageID": "", "ready": false, "restartCount": 0, "state": state }] } })
    };
    with("that ends", &|w| w.pod("p", "n1", ending(json!({ "running": {} }))), &attach);
    with("that has all but ended", &|w| w.pod("p", "n1", ending(json!({ "terminated": { "exitCode": 0 } }))), &[]);
    with("the node attaches itself", &|w| w.node("n1", json!({ "metadata": { "annotations": null } })), &[]);
    with("the node is gone", &|w| w.stores.nodes.take("", "n1"), &[]);
    with("bound to another claim", &|w| w.volume(json!({ "spec": { "claimRef": { "uid": "d" } } })), &[]);
    with("of another kind", &|w| w.volume(json!({ "spec": { "csi": null } })), &[]);
    let driver = |required: bool| {
        move |w: &World| {
            let driver = json!({ "metadata": { "name": "x.io/driver" }, "spec": { "attachRequired": required } });
            w.stores.csi_drivers.put(typed(driver, &json!({})));
        }
    };
    with("its driver attaches", &driver(true), &attach);
    with("its driver does not", &driver(false), &[]);
    with("attached already", &|w| w.attachment("n1", attached()), &[]);
    with("still being detached", &|w| w.attachment("n1", json!({ "metadata": { "deletionTimestamp": T0 } })), &[]);
    with("of someone else", &|w| w.attachment("n1", json!({ "metadata": { "name": "mine" } })), &attach);
    with(
        "an ephemeral volume",
        &|w| {
            let owner = json!([{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p", "controller": true }]);
            w.stores.claims.put(typed(
                json!({ "metadata": { "name": "p-e", "namespace": "ns", "uid": "c", "ownerReferences": owner },
                    "spec": { "volumeName": "v" }, "status": { "phase": "Bound" } }),
                &json!({}),
            ));
            w.pod("p", "n1", json!({ "spec": { "volumes": [{ "name": "e", "ephemeral": {} }] } }));
        },
        &attach,
    );
}

#[test]
fn the_driver_is_waited_for_and_its_errors_are_told_once() {
    let mut world = World::new();
    world.pod("p", "n1", json!({}));
    world.attachment("n1", json!({}));
    world.check("asked for", V, &[], Some(120));
    world.later(90);
    world.check("a minute and a half", V, &[], Some(30));
    world.later(40);
    let waits = "p FailedAttachVolume: AttachVolume.Attach failed for volume \"v\" : timed out waiting for \
                 external-attacher of x.io/driver CSI driver to attach volume h";
    world.check("two minutes", V, &[waits], Some(110));
    world.check("again", V, &[], Some(110));
    world.later(110);
    world.check("four minutes", V, &[waits], Some(120));
    let error =
        |time: &str| json!({ "status": { "attached": false, "attachError": { "time": time, "message": "no room" } } });
    world.attachment("n1", error(T0));
    let failed = "p FailedAttachVolume: AttachVolume.Attach failed for volume \"v\" : no room";
    world.check("an error", V, &[failed], None);
    world.check("the same", V, &[], None);
    world.attachment("n1", error("2026-01-02T00:09:00Z"));
    world.check("another attempt", V, &[failed], None);
    world.attachment("n1", attached());
    world.check("attached", V, &[], None);
    world.check(
        "the node is told",
        N1,
        &[
            &format!("n1 has [{{\"devicePath\":\"\",\"name\":\"{UNIQUE}\"}}]"),
            "p SuccessfulAttachVolume: AttachVolume.Attach succeeded for volume \"v\"",
        ],
        None,
    );
    world.node("n1", has(false));
    world.check("and knows", N1, &[], None);
}

#[test]
fn one_node_after_the_other() {
    let world = World::new();
    world.pod("p", "n2", json!({}));
    world.pod("later", "n1", json!({ "metadata": { "creationTimestamp": "2026-01-02T00:00:01Z" } }));
    world.check("the first pod's node", V, &["attach v to n2"], None);
    world.attachment("n2", json!({}));
    world.check("not attached yet", V, &[], Some(120));
    world.attachment("n2", attached());
    let multi = "later FailedAttachVolume: Multi-Attach error for volume \"v\" Volume is already used by pod(s) p";
    world.check("attached elsewhere", V, &[multi], None);
    world.check("told once", V, &[], None);
    world.stores.pods.take("ns", "p");
    world.attachment("n2", json!({ "metadata": { "deletionTimestamp": T0 }, "status": { "attached": true } }));
    world.check("being detached", V, &[], None);
    world.stores.attachments.take("", &wanted::attachment_name("h", "x.io/driver", "n2"));
    world.check("free", V, &["attach v to n1"], None);

    let world = World::new();
    world.pod("p", "n1", json!({}));
    world.attachment("n2", attached());
    let left = "p FailedAttachVolume: Multi-Attach error for volume \"v\" Volume is already exclusively attached to one \
                node and can't be attached to another";
    world.check("by nobody", V, &[left], None);
    let world = World::new();
    world.pod("p", "n1", json!({}));
    world.pod("q", "n2", json!({}));
    world.volume(json!({ "spec": { "accessModes": ["ReadWriteMany"] } }));
    world.check("shared", V, &["attach v to n1", "attach v to n2"], None);
}

#[test]
fn a_volume_is_detached_when_the_node_has_unmounted_it() {
    let world = World::new();
    world.attachment("n1", attached());
    world.node("n1", has(true));
    world.check("mounted", N1, &[], None);
    world.node("n1", has(false));
    world.check("no more: the node is told first", N1, &["n1 has null"], None);
    world.node("n1", json!({}));
    world.check("then its driver", N1, &["detach a-n1"], None);
    world.node("n1", json!({ "status": { "volumesInUse": [UNIQUE] } }));
    world.check(
        "about to be mounted again",
        N1,
        &[&format!("n1 has [{{\"devicePath\":\"\",\"name\":\"{UNIQUE}\"}}]")],
        None,
    );
    world.attachment("n1", json!({ "metadata": { "deletionTimestamp": T0 }, "status": { "attached": true } }));
    world.node("n1", json!({}));
    world.check("being detached", N1, &[], None);

    let world = World::new();
    world.attachment("n1", json!({}));
    world.check("never attached", N1, &["detach a-n1"], None);
    world.pod("p", "n1", json!({}));
    world.check("used again", N1, &[], None);
    let world = World::new();
    world.node("n1", has(false));
    world.check("its attachment was deleted", N1, &["n1 has null"], None);
    world.attachment("n1", attached());
    world.stores.volumes.take("", "v");
    world.check("the volume is gone", N1, &["n1 has null"], None);
    let world = World::new();
    world.attachment("n1", json!({ "metadata": { "name": "mine" }, "status": { "attached": true } }));
    world.check("another's attachment", N1, &[], None);
}

#[test]
fn a_node_that_is_away_loses_what_it_has_mounted_after_six_minutes() {
    let mut world = World::new();
    world.attachment("n1", attached());
    world.node("n1", not_ready(has(true)));
    world.check("away", N1, &[], Some(360));
    world.later(359);
    world.check("almost", N1, &[], Some(1));
    world.later(1);
    world.check("forced", N1, &["n1 has null"], None);
    world.node("n1", has(true));
    world.check("back in time", N1, &[], None);

    let world = World::new();
    world.attachment("n1", attached());
    let mut taken_out = has(true);
    taken_out["spec"]["taints"] = json!([{ "key": "node.kubernetes.io/out-of-service", "effect": "NoExecute" }]);
    world.node("n1", taken_out);
    world.check("out of service", N1, &["n1 has null"], None);

    let mut world = World::new();
    world.attachment("n1", attached());
    world.stores.nodes.take("", "n1");
    world.check("gone", N1, &[], Some(360));
    world.later(100);
    world.node("n1", not_ready(json!({ "status": { "volumesInUse": [UNIQUE] } })));
    world.pod("p", "n1", json!({}));
    let told = &format!("n1 has [{{\"devicePath\":\"\",\"name\":\"{UNIQUE}\"}}]");
    let success = "p SuccessfulAttachVolume: AttachVolume.Attach succeeded for volume \"v\"";
    world.check("used again", N1, &[told, success], None);
    world.stores.pods.take("ns", "p");
    world.check("counted anew", N1, &[told], Some(360));
    world.stores.nodes.take("", "n1");
    world.later(360);
    world.check("gone for good", N1, &["detach a-n1"], None);
}
