//! Golden plans of claims and volumes.

use serde_json::{Value, json};

use super::*;
use crate::client::request::{Class, Verb};
use crate::server::controllers::action::{Action, Failure, Write};

const NOW: &str = "2026-01-02T00:00:00Z";

fn moment(failure: Option<&Failure>) -> Moment<'_> {
    Moment { now: NOW.parse().unwrap(), failure }
}

fn merged(mut base: Value, more: &Value) -> Value {
    json_patch::merge(&mut base, more);
    base
}

/// A claim of 1 GiB of class `c`.
fn claim(more: Value) -> PersistentVolumeClaim {
    let base = json!({
        "metadata": { "name": "data", "namespace": "ns", "uid": "c1" },
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "c",
            "resources": { "requests": { "storage": "1Gi" } } },
        "status": { "phase": "Pending" },
    });
    serde_json::from_value(merged(base, &more)).unwrap()
}

/// A free volume of 1 GiB of class `c`.
fn volume(name: &str, more: Value) -> PersistentVolume {
    let base = json!({
        "metadata": { "name": name, "uid": name },
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "c", "capacity": { "storage": "1Gi" },
            "persistentVolumeReclaimPolicy": "Retain" },
        "status": { "phase": "Available" },
    });
    serde_json::from_value(merged(base, &more)).unwrap()
}

fn class(more: Value) -> k8s_openapi::api::storage::v1::StorageClass {
    serde_json::from_value(merged(json!({ "metadata": { "name": "c" }, "provisioner": "x.io/driver" }), &more)).unwrap()
}

fn local_class() -> Value {
    json!({ "provisioner": LOCAL_PATH, "volumeBindingMode": "WaitForFirstConsumer" })
}

fn node(name: &str) -> k8s_openapi::api::core::v1::Node {
    serde_json::from_value(json!({ "metadata": { "name": name, "labels": { "kubernetes.io/hostname": "h1" },
        "annotations": { "skiff.io/local-storage-path": "/storage" } } }))
    .unwrap()
}

fn of_claim(uid: &str) -> Value {
    json!({ "spec": { "claimRef": { "namespace": "ns", "name": "data", "uid": uid } } })
}

fn one(write: &Write) -> String {
    let r = &write.request;
    let body = &r.body;
    let what = match (r.verb, r.subresource, r.resource.plural) {
        (Verb::Create, ..) => format!("create {}", body["metadata"]["name"].as_str().unwrap()),
        (Verb::Delete, ..) => return format!("delete {}", r.name),
        _ if body["metadata"]["finalizers"].is_array() => "held".to_owned(),
        _ if body["metadata"]["$deleteFromPrimitiveList/finalizers"].is_array() => "let go".to_owned(),
        (_, "status", _) => body["status"]["phase"].as_str().unwrap().to_owned(),
        (.., "persistentvolumes") => match &body["spec"]["claimRef"] {
            Value::Null => "for nobody".to_owned(),
            reference => format!("for {}", reference["uid"].as_str().unwrap_or("any of the name")),
        },
        _ => match (&body["spec"], &body["metadata"]["annotations"]) {
            (Value::Null, annotations) => {
                annotations.as_object().unwrap().iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
            }
            (spec, _) => spec.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned(),
        },
    };
    format!("{} {what}", if r.verb == Verb::Create { "" } else { &r.name }).trim().to_owned()
}

fn show(plan: &Plan) -> Vec<String> {
    let step = |a: &Action| match a {
        Action::Write(w) => one(w),
        Action::Event(note) => note.reason.to_owned(),
        Action::Read(r) => format!("read {}", r.name),
        Action::SlowStart(_) => panic!("{a:?}"),
    };
    plan.actions.iter().map(step).collect()
}

/// Plans for the claim `data`, or for a volume.
fn check(what: &str, key: (&str, &str), stores: &Stores, want: &[&str]) -> Plan {
    let plan = PersistentVolumes::new(true).plan(stores, &Name::new(key.0, key.1), moment(None));
    assert_eq!(show(&plan), want, "{what}");
    plan
}

const CLAIM: (&str, &str) = ("ns", "data");

fn stores(claims: Vec<PersistentVolumeClaim>, volumes: Vec<PersistentVolume>) -> Stores {
    let stores = Stores::new();
    claims.into_iter().for_each(|c| stores.claims.put(c));
    volumes.into_iter().for_each(|v| stores.volumes.put(v));
    stores
}

#[test]
fn a_claim_takes_the_smallest_free_volume_that_fits() {
    let sized = |name: &str, size: &str, more: Value| {
        volume(name, merged(json!({ "spec": { "capacity": { "storage": size } } }), &more))
    };
    let fits = |what: &str, claim_more: Value, volumes: Vec<PersistentVolume>, want: Option<&str>| {
        let volumes: Vec<Arc<PersistentVolume>> = volumes.into_iter().map(Arc::new).collect();
        let got = matching::best(&volumes, &claim(claim_more), false).map(|v| v.metadata.name().to_owned());
        assert_eq!(got.as_deref(), want, "{what}");
    };
    let none = || json!({});
    fits(
        "smallest",
        none(),
        vec![sized("l", "9Gi", none()), sized("m", "2Gi", none()), sized("s", "1Mi", none())],
        Some("m"),
    );
    fits("too small", none(), vec![sized("s", "1Mi", none())], None);
    fits("class", json!({ "spec": { "storageClassName": "" } }), vec![volume("v", none())], None);
    fits("taken", none(), vec![volume("v", of_claim("other"))], None);
    fits("named", none(), vec![sized("a", "1Gi", none()), sized("z", "9Gi", of_claim("c1"))], Some("z"));
    fits(
        "by name only",
        none(),
        vec![volume("v", json!({ "spec": { "claimRef": { "namespace": "ns", "name": "data" } } }))],
        Some("v"),
    );
    fits("not free yet", none(), vec![volume("v", json!({ "status": { "phase": "Released" } }))], None);
    fits("being deleted", none(), vec![volume("v", json!({ "metadata": { "deletionTimestamp": NOW } }))], None);
    let other_class = merged(of_claim("c1"), &json!({ "spec": { "storageClassName": "d" } }));
    fits("named, of another class", none(), vec![volume("v", other_class)], Some("v"));
    let gold = json!({ "spec": { "volumeAttributesClassName": "gold" } });
    fits("attributes of the volume", none(), vec![volume("v", gold.clone())], None);
    fits("attributes of the claim", gold.clone(), vec![volume("v", none())], None);
    fits("the same attributes", gold.clone(), vec![volume("v", gold)], Some("v"));
    fits("modes", json!({ "spec": { "accessModes": ["ReadWriteMany"] } }), vec![volume("v", none())], None);
    fits("block", json!({ "spec": { "volumeMode": "Block" } }), vec![volume("v", none())], None);
    let labeled = json!({ "spec": { "selector": { "matchLabels": { "disk": "ssd" } } } });
    fits("selector", labeled.clone(), vec![volume("v", none())], None);
    fits("selected", labeled, vec![volume("v", json!({ "metadata": { "labels": { "disk": "ssd" } } }))], Some("v"));
}

#[test]
fn a_binding_is_written_in_four_steps_of_which_each_is_found_again() {
    let free = || vec![volume("v", json!({}))];
    let bound = json!({ "metadata": { "annotations": { BIND_COMPLETED: "yes" } }, "spec": { "volumeName": "v" } });
    let plan =
        check("all", CLAIM, &stores(vec![claim(json!({}))], free()), &["v for c1", "v Bound", "data v", "data Bound"]);
    let Action::Write(first) = &plan.actions[0] else { panic!() };
    assert_eq!(first.request.body["metadata"]["annotations"], json!({ BOUND_BY_CONTROLLER: "yes" }));
    let half = || vec![volume("v", of_claim("c1"))];
    check("after one", CLAIM, &stores(vec![claim(json!({}))], half()), &["v Bound", "data v", "data Bound"]);
    let phase = json!({ "status": { "phase": "Bound" } });
    let modes = || json!({ "status": { "accessModes": ["ReadWriteOnce"] } });
    let there = || vec![volume("v", merged(of_claim("c1"), &phase))];
    check("after two", CLAIM, &stores(vec![claim(json!({}))], there()), &["data v", "data Bound"]);
    check("after three", CLAIM, &stores(vec![claim(bound.clone())], there()), &["data Bound"]);
    let complete = || vec![claim(merged(merged(bound.clone(), &phase), &modes()))];
    check("complete", CLAIM, &stores(complete(), there()), &[]);
    check("complete", ("", "v"), &stores(complete(), there()), &[]);

    let other = merged(merged(of_claim("c1"), &phase), &json!({ "spec": { "accessModes": ["ReadWriteMany"] } }));
    check("other modes", CLAIM, &stores(complete(), vec![volume("v", other)]), &["data Bound"]);
    let statuses = |more: Value| {
        let volume = volume("v", merged(merged(of_claim("c1"), &phase), &more));
        let plan = check("status", CLAIM, &stores(vec![claim(bound.clone())], vec![volume]), &["data Bound"]);
        let Action::Write(write) = &plan.actions[0] else { panic!() };
        write.request.body["status"].clone()
    };
    let resized = json!({ "metadata": { "annotations": { "volume.alpha.kubernetes.io/pre-resize-capacity": "1Gi" } },
        "spec": { "capacity": { "storage": "2Gi" }, "volumeAttributesClassName": "gold" } });
    let status = statuses(resized);
    assert_eq!(status["capacity"], json!({ "storage": "1Gi" }));
    assert_eq!(status["currentVolumeAttributesClassName"], "gold");
    assert_eq!(statuses(json!({}))["currentVolumeAttributesClassName"], Value::Null);

    check("the volume is gone", CLAIM, &stores(complete(), vec![]), &["data Lost", "ClaimLost"]);
    let foreign = vec![volume("v", of_claim("other"))];
    check("the volume is another's", CLAIM, &stores(complete(), foreign), &["data Lost", "ClaimMisbound"]);
    let lost = claim(merged(bound, &json!({ "status": { "phase": "Lost" } })));
    check("lost already", CLAIM, &stores(vec![lost], vec![]), &[]);
}

#[test]
fn a_claim_that_names_its_volume_waits_for_it() {
    let names = || vec![claim(json!({ "spec": { "volumeName": "v" } }))];
    check("absent", CLAIM, &stores(names(), vec![]), &[]);
    let free = vec![volume("v", json!({}))];
    check("free", CLAIM, &stores(names(), free), &["v for c1", "v Bound", "data v", "data Bound"]);
    let taken = vec![volume("v", of_claim("other"))];
    check("taken", CLAIM, &stores(names(), taken), &["FailedBinding"]);
    let small = json!({ "spec": { "capacity": { "storage": "1Mi" } } });
    check("too small", CLAIM, &stores(names(), vec![volume("v", small.clone())]), &["VolumeMismatch"]);
    let named = vec![volume("v", merged(of_claim("c1"), &small))];
    check("that names it too", CLAIM, &stores(names(), named), &["v Bound", "data v", "data Bound"]);
    let going = vec![volume("v", json!({ "metadata": { "deletionTimestamp": NOW } }))];
    check("being deleted", CLAIM, &stores(names(), going), &["VolumeMismatch"]);
}

#[test]
fn volumes_are_asked_for_by_the_class() {
    let with = |of_class: Option<Value>, of_claim: Value| {
        let stores = stores(vec![claim(of_claim)], vec![]);
        of_class.into_iter().for_each(|more| stores.storage_classes.put(class(more)));
        stores.nodes.put(node("n1"));
        stores
    };
    let none = || json!({});
    check("no such class", CLAIM, &with(None, none()), &["ProvisioningFailed"]);
    check("no class", CLAIM, &with(None, json!({ "spec": { "storageClassName": "" } })), &["FailedBinding"]);
    check("class left open", CLAIM, &with(None, json!({ "spec": { "storageClassName": null } })), &["FailedBinding"]);
    let default = json!({ "metadata": { "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } } });
    let free = with(Some(default.clone()), json!({ "spec": { "storageClassName": null } }));
    free.volumes.put(volume("v", json!({ "spec": { "storageClassName": null } })));
    let taken = ["v for c1", "v Bound", "data v", "data Bound"];
    check("a volume without class goes before the default", CLAIM, &free, &taken);
    check("a default came", CLAIM, &with(Some(default), json!({ "spec": { "storageClassName": null } })), &["data c"]);
    let by_hand = json!({ "provisioner": "kubernetes.io/no-provisioner" });
    check("by hand", CLAIM, &with(Some(by_hand), none()), &["ProvisioningFailed"]);
    let asked = |who: &str| {
        json!({ "metadata": { "annotations": { "volume.kubernetes.io/storage-provisioner": who,
            "volume.beta.kubernetes.io/storage-provisioner": who } } })
    };
    let told = "data volume.beta.kubernetes.io/storage-provisioner=\"x.io/driver\" \
                volume.kubernetes.io/storage-provisioner=\"x.io/driver\"";
    check("a driver is asked", CLAIM, &with(Some(none()), none()), &[told]);
    check("and waited for", CLAIM, &with(Some(none()), asked("x.io/driver")), &["ExternalProvisioning"]);

    check("first consumer", CLAIM, &with(Some(local_class()), none()), &["WaitForFirstConsumer"]);
    let waiting = |pods: &[(&str, Value)]| {
        let stores = with(Some(local_class()), none());
        for (name, more) in pods {
            let pod = json!({ "metadata": { "name": name, "namespace": "ns" }, "spec": { "containers": [],
                "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "data" } }] } });
            stores.pods.put(serde_json::from_value(merged(pod, more)).unwrap());
        }
        let plan = PersistentVolumes::new(true).plan(&stores, &Name::new("ns", "data"), moment(None));
        let Action::Event(note) = &plan.actions[0] else { panic!() };
        format!("{}: {}", note.reason, note.message)
    };
    assert_eq!(waiting(&[("p", none())]), "WaitForPodScheduled: waiting for pod p to be scheduled");
    let ended = json!({ "status": { "phase": "Failed" } });
    let both = waiting(&[("p", none()), ("q", none()), ("over", ended)]);
    assert_eq!(both, "WaitForPodScheduled: waiting for pods p,q to be scheduled");
    let made = with(Some(local_class()), none());
    made.claims.put(claim(json!({ "metadata": { "name": "p-e" } })));
    let pod = json!({ "metadata": { "name": "p", "namespace": "ns" },
        "spec": { "containers": [], "volumes": [{ "name": "e", "ephemeral": {} }] } });
    made.pods.put(serde_json::from_value(pod).unwrap());
    check("made for a pod", ("ns", "p-e"), &made, &["WaitForPodScheduled"]);
    let free = with(Some(local_class()), none());
    free.volumes.put(volume("v", none()));
    check("the scheduler chooses among free volumes", CLAIM, &free, &["WaitForFirstConsumer"]);
    let on = |node: &str| merged(asked(LOCAL_PATH), &json!({ "metadata": { "annotations": { SELECTED_NODE: node } } }));
    let plan = check("made here", CLAIM, &with(Some(local_class()), on("n1")), &["create pvc-c1"]);
    let Action::Write(write) = &plan.actions[0] else { panic!() };
    let spec = &write.request.body["spec"];
    assert_eq!(spec["hostPath"], json!({ "path": "/storage/pvc-c1_ns_data", "type": "DirectoryOrCreate" }));
    assert_eq!(spec["claimRef"]["uid"], "c1");
    assert_eq!(write.request.body["metadata"]["finalizers"], json!([local_path::HELD]));
    assert_eq!(
        spec["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0],
        json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": ["h1"] })
    );
    let gone = check(
        "the node is gone",
        CLAIM,
        &with(Some(local_class()), on("n9")),
        &[&format!("data {SELECTED_NODE}=null")],
    );
    assert_eq!(gone.again, None);
    let many = merged(on("n1"), &json!({ "spec": { "accessModes": ["ReadWriteMany"] } }));
    check("modes", CLAIM, &with(Some(local_class()), many), &["ProvisioningFailed"]);
    let pattern = merged(local_class(), &json!({ "parameters": { "pathPattern": "../../etc" } }));
    check("path patterns", CLAIM, &with(Some(pattern), on("n1")), &["ProvisioningFailed"]);
    let path = |path: &str| merged(local_class(), &json!({ "parameters": { "nodePath": path } }));
    check("its only path", CLAIM, &with(Some(path("/storage/")), on("n1")), &["create pvc-c1"]);
    check("another path", CLAIM, &with(Some(path("/data")), on("n1")), &["ProvisioningFailed"]);
    let chosen = with(Some(local_class()), on("n1"));
    chosen.volumes.put(volume("v", none()));
    check("a free volume may be elsewhere", CLAIM, &chosen, &["create pvc-c1"]);
    let off = PersistentVolumes::new(false).plan(
        &with(Some(local_class()), on("n1")),
        &Name::new("ns", "data"),
        moment(None),
    );
    assert_eq!(show(&off), ["ExternalProvisioning"], "left out");
}

#[test]
fn a_volume_is_released_only_when_the_server_says_that_its_claim_is_gone() {
    let kept =
        |more: Value| volume("v", merged(merged(of_claim("c1"), &json!({ "status": { "phase": "Bound" } })), &more));
    let stores_of = |v: PersistentVolume| {
        let stores = stores(vec![], vec![v]);
        stores.nodes.put(node("n1"));
        stores
    };
    let controller = PersistentVolumes::new(true);
    let key = Name::new("", "v");
    let on = stores_of(kept(json!({})));
    let asked = controller.plan(&on, &key, moment(None));
    assert_eq!(show(&asked), ["read data"]);
    let Action::Read(request) = &asked.actions[0] else { panic!() };
    controller.learn(&key, request, Some(json!({ "metadata": { "uid": "c1" } })));
    assert_eq!(show(&controller.plan(&on, &key, moment(None))), [""; 0], "it exists: the watch will show it");
    controller.learn(&key, request, None);
    assert_eq!(show(&controller.plan(&on, &key, moment(None))), ["v Released"]);

    let released = json!({ "status": { "phase": "Released" } });
    let by = |policy: &str| merged(released.clone(), &json!({ "spec": { "persistentVolumeReclaimPolicy": policy } }));
    check("retained", ("", "v"), &stores_of(kept(by("Retain"))), &[]);
    check("nobody deletes it", ("", "v"), &stores_of(kept(by("Delete"))), &["v Failed", "VolumeFailedDelete"]);
    let in_tree = json!({ "metadata": { "annotations": { PROVISIONED_BY: "kubernetes.io/gone" } } });
    let in_tree = stores_of(kept(merged(by("Delete"), &in_tree)));
    check("by one that is no more", ("", "v"), &in_tree, &["v Failed", "VolumeFailedDelete"]);
    check("no recycler", ("", "v"), &stores_of(kept(by("Recycle"))), &["v Failed", "VolumeFailedRecycle"]);
    let of_driver = merged(by("Delete"), &json!({ "metadata": { "annotations": { PROVISIONED_BY: "x.io/driver" } } }));
    check("its driver deletes it", ("", "v"), &stores_of(kept(of_driver)), &[]);
    let local = |node: &str| {
        let annotations = json!({ PROVISIONED_BY: LOCAL_PATH, "local.path.provisioner/selected-node": node });
        kept(merged(by("Delete"), &json!({ "metadata": { "annotations": annotations } })))
    };
    let want = ["delete n1/proxy/localVolumes/v_ns_data", "delete v"];
    check("data first", ("", "v"), &stores_of(local("n1")), &want);
    let going = json!({ "metadata": { "deletionTimestamp": NOW, "finalizers": ["x", local_path::HELD] } });
    let with = |v: PersistentVolume, more: &Value| -> PersistentVolume {
        serde_json::from_value(merged(serde_json::to_value(v).unwrap(), more)).unwrap()
    };
    check("deleted already", ("", "v"), &stores_of(with(local("n1"), &going)), &[want[0], "v let go"]);
    let bound = json!({ "status": { "phase": "Bound" } });
    check("held while it is there", ("", "v"), &stores_of(with(local("n1"), &bound)), &["v held"]);
    let kept = merged(going.clone(), &json!({ "spec": { "persistentVolumeReclaimPolicy": "Retain" } }));
    check("kept by now", ("", "v"), &stores_of(with(local("n1"), &kept)), &["v let go"]);
    let mut nobodys = with(local("n1"), &going);
    nobodys.spec.as_mut().unwrap().claim_ref = None;
    check("of nobody", ("", "v"), &stores_of(nobodys), &["v let go"]);
    check("gone with its node", ("", "v"), &stores_of(local("n9")), &["delete v"]);
    let failure = Failure { class: Class::Retry, message: "disk on fire".into() };
    let again = controller.plan(&stores_of(local("n1")), &key, moment(Some(&failure)));
    assert_eq!(show(&again)[..2], ["v Failed", "VolumeFailedDelete"]);
    assert_eq!(show(&again)[2..], want);
}

#[test]
fn a_device_for_a_claim_of_a_file_system_is_told_to_both() {
    let block = merged(of_claim("c1"), &json!({ "spec": { "volumeMode": "Block" }, "status": { "phase": "Bound" } }));
    let on = stores(vec![claim(json!({}))], vec![volume("v", block)]);
    check("another mode", ("", "v"), &on, &["VolumeMismatch", "VolumeMismatch"]);
    let same = merged(of_claim("c1"), &json!({ "spec": { "volumeMode": "Filesystem" } }));
    check("the same mode", ("", "v"), &stores(vec![claim(json!({}))], vec![volume("v", same)]), &[]);
}

#[test]
fn a_volume_whose_claim_took_another_is_free_again() {
    let other = || vec![claim(json!({ "spec": { "volumeName": "w" } }))];
    let by_us = merged(of_claim("c1"), &json!({ "metadata": { "annotations": { BOUND_BY_CONTROLLER: "yes" } } }));
    check("chosen by us", ("", "v"), &stores(other(), vec![volume("v", by_us)]), &["v for nobody"]);
    check("by the user", ("", "v"), &stores(other(), vec![volume("v", of_claim("c1"))]), &["v for any of the name"]);
    let fresh = vec![volume("v", json!({ "status": { "phase": "Pending" } }))];
    check("a new one", ("", "v"), &stores(vec![], fresh), &["v Available"]);
    let kept =
        json!({ "spec": { "claimRef": { "namespace": "ns", "name": "data" } }, "status": { "phase": "Pending" } });
    check("kept for a claim", ("", "v"), &stores(vec![], vec![volume("v", kept)]), &["v Available"]);
}
