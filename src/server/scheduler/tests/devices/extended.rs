//! Pods that ask for devices as they ask for CPU: where they go, and the claim that is made for them.

use super::*;

const GPU: &str = "example.com/gpu";
const TOLD: &str = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";

fn asking(name: &str, resource: &str, n: u32) -> Pod {
    let container = json!({ "name": "c", "resources": { "requests": { resource: n.to_string() } } });
    pod(name, json!({ "spec": { "containers": [container] } }))
}

/// One node with these devices, and a class that they stand for.
fn backed(devices: &[&str]) -> World {
    let mut world = world(&[("n", devices)]);
    world.device_class("gpu", &json!({ "extendedResourceName": GPU }));
    world
}

/// The claim of a promise as the API would have it.
fn made(reservation: &Reservation, name: &str, status: &Value) -> Value {
    let mut claim = json!(reservation.unmade.as_ref().unwrap().claim);
    merge(&mut claim, &json!({ "metadata": { "name": name, "uid": name, "resourceVersion": "9" }, "status": status }));
    claim
}

fn with_id(reservation: &Reservation, name: &str) -> Reservation {
    let mut with_id = reservation.clone();
    (with_id.claim.name, with_id.claim.uid) = (name.to_owned(), name.to_owned());
    with_id
}

#[test]
fn a_claim_is_promised_for_what_no_plugin_offers() {
    let mut world = backed(&["a", "b"]);
    world.pod(asking("p", GPU, 1));
    let (node, promised) = world.reserved();
    assert_eq!((node.as_str(), devices(&promised)), ("n", vec!["n/a".to_owned()]));
    let unmade = promised[0].unmade.as_ref().unwrap();
    let request = json!({ "name": "container-0-request-0",
        "exactly": { "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1 } });
    assert_eq!(json!(unmade.claim.spec), json!({ "devices": { "requests": [request] } }));
    assert_eq!(
        json!(unmade.mappings),
        json!([{ "containerName": "c", "resourceName": GPU, "requestName": "container-0-request-0" }])
    );
    let meta = json!(unmade.claim.metadata);
    assert_eq!(meta["generateName"], "p-extended-resources-");
    assert_eq!(meta["annotations"], json!({ "resource.kubernetes.io/extended-resource-claim": "true" }));
    assert_eq!(
        meta["ownerReferences"],
        json!([{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p", "controller": true }])
    );
    // Every class has a resource of its own name too. What is promised is taken.
    world.pod(asking("q", "deviceclass.resource.kubernetes.io/any", 1));
    assert_eq!(devices(&world.reserved().1), ["n/b"]);
    world.pod(asking("r", GPU, 1));
    let none = format!("0/1 nodes are available: 1 cannot allocate all claims. still not schedulable, {TOLD}");
    assert_eq!(world.outcome().unwrap().unwrap_err(), none);
    // It is told when devices come.
    world.later(LATER);
    assert!(world.outcome().is_none());
    world.slice(&slice("n", &["a", "b", "c"]));
    assert_eq!(devices(&world.reserved().1), ["n/c"]);
}

#[test]
fn a_node_that_offers_the_resource_is_asked_for_it() {
    let mut world = backed(&["a"]);
    let offers = |n: &str| json!({ "status": { "allocatable": { GPU: n } } });
    world.node(node("m", "", "4", offers("1")));
    world.slice(&slice("m", &["a"]));
    let place = |world: &mut World, name: &str| {
        world.pod(asking(name, GPU, 1));
        world.outcome().unwrap()
    };
    let mut all = [place(&mut world, "p"), place(&mut world, "q")].map(Result::unwrap);
    all.sort();
    assert_eq!(all, ["m".to_owned(), "n after 1".to_owned()]);
    let full = place(&mut world, "r").unwrap_err();
    let want = "0/2 nodes are available: 1 Insufficient example.com/gpu, 1 cannot allocate all claims.";
    assert!(full.starts_with(want), "{full}");
    // The plugin has gone: its devices are left to claims.
    world.later(LATER);
    world.node(node("m", "", "4", offers("0")));
    assert_eq!(world.outcome(), Some(Ok("m after 1".into())));
}

#[test]
fn a_class_that_comes_helps_those_that_wait() {
    let mut world = world(&[("n", &["a"])]);
    world.pod(asking("p", GPU, 1));
    let none = format!("0/1 nodes are available: 1 Insufficient {GPU}. no new claims to deallocate, {TOLD}");
    assert_eq!(world.outcome().unwrap().unwrap_err(), none);
    world.later(LATER);
    world.device_class("nic", &json!({ "extendedResourceName": "example.com/nic" }));
    assert!(world.outcome().is_none(), "of another resource");
    world.device_class("gpu", &json!({ "extendedResourceName": GPU }));
    assert_eq!(world.outcome(), Some(Ok("n after 1".into())));
}

#[test]
fn of_classes_of_the_same_resource_the_newest_counts() {
    let mut world = backed(&["a"]);
    for (name, made) in
        [("newer", "2026-02-01T00:00:00Z"), ("a-newer", "2026-02-01T00:00:00Z"), ("older", "2025-01-01T00:00:00Z")]
    {
        let class =
            json!({ "metadata": { "name": name, "creationTimestamp": made }, "spec": { "extendedResourceName": GPU } });
        world.state.snapshot.devices.set_class(serde_json::from_value(class).unwrap());
    }
    let of = |resource: &str| world.state.snapshot.devices.backing(resource).and_then(|c| c.metadata.name.clone());
    assert_eq!(of(GPU).as_deref(), Some("a-newer"));
    assert_eq!(of("deviceclass.resource.kubernetes.io/older").as_deref(), Some("older"));
    assert_eq!(of("example.com/other"), None);
}

#[test]
fn claims_of_both_kinds_are_promised_together() {
    let mut world = backed(&["a", "b"]);
    world.device_claim(&claim("c", &json!({})));
    let claims = json!({ "spec": { "resourceClaims": [{ "name": "c", "resourceClaimName": "c" }] } });
    world.pod(serde_json::from_value(both(json!(asking("p", GPU, 1)), &claims)).unwrap());
    let (_, promised) = world.reserved();
    assert_eq!(devices(&promised), ["n/a", "n/b"]);
    assert_eq!(promised.iter().map(|r| r.unmade.is_some()).collect::<Vec<_>>(), [false, true]);
    // Where nothing has to be made only the other is promised.
    let mut world = backed(&["a"]);
    world.node(node("n", "", "4", json!({ "status": { "allocatable": { GPU: "1" } } })));
    world.device_claim(&claim("c", &json!({})));
    world.pod(serde_json::from_value(both(json!(asking("p", GPU, 1)), &claims)).unwrap());
    assert_eq!(world.reserved().1.len(), 1);
}

/// Who else gets the only device, `when` something has become of the claim that was made for it.
fn check_taken(expect: bool, when: impl FnOnce(&mut World, &Reservation)) {
    let mut world = backed(&["a"]);
    world.pod(asking("p", GPU, 1));
    let promised = world.reserved().1.remove(0);
    when(&mut world, &promised);
    while let Some(Attempt::Place { .. } | Attempt::Refused(_)) = world.attempt() {}
    world.later(LATER);
    world.pod(asking("q", GPU, 1));
    let mut outcome = world.outcome();
    while matches!(&outcome, Some(Ok(node)) if node == "n") {
        outcome = world.outcome();
    }
    assert_eq!(outcome.unwrap().is_err(), expect);
}

#[test]
fn a_device_is_taken_from_its_promise_until_its_claim_is_gone() {
    let status = |r: &Reservation| json!({ "allocation": r.allocation.as_deref() });
    let told = |world: &mut World, r: &Reservation| world.state.promised("p", 9, &[(with_id(r, "x"), 9)], world.now);
    check_taken(true, |_, _| {});
    check_taken(true, told);
    // Seen before it was told, or after, or only half made.
    check_taken(true, |world, r| world.device_claim(&made(r, "x", &status(r))));
    check_taken(true, |world, r| {
        let half = both(made(r, "x", &json!({})), &json!({ "metadata": { "resourceVersion": "8" } }));
        world.device_claim(&half);
        told(world, r);
    });
    check_taken(true, |world, r| {
        told(world, r);
        world.device_claim(&made(r, "x", &status(r)));
    });
    // A list that is older than the claim does not have it; one that is newer ends it.
    let list = |world: &mut World, revision: u64| world.state.observe_device_claims(Vec::new(), revision, world.now);
    check_taken(true, |world, r| {
        told(world, r);
        list(world, 8);
    });
    check_taken(false, |world, r| {
        told(world, r);
        list(world, 10);
        world.state.forget_pod("p", world.now);
    });
    // Gone before it was told which it is, or after.
    let gone = |world: &mut World| world.state.forget_device_claim("ns", "x", world.now);
    check_taken(false, |world, r| {
        world.device_claim(&made(r, "x", &status(r)));
        gone(world);
        told(world, r);
        world.state.forget_pod("p", world.now);
    });
    check_taken(false, |world, r| {
        told(world, r);
        world.device_claim(&made(r, "x", &status(r)));
        world.state.forget_pod("p", world.now);
        gone(world);
    });
    // It could not be made.
    check_taken(false, |world, r| {
        world.state.broken("p", &[], &[Promise::Devices(Box::new(r.clone()))], world.now);
        world.state.forget_pod("p", world.now);
    });
}

#[test]
fn what_was_made_is_known_when_the_pod_is_placed() {
    let mut world = backed(&["a"]);
    world.pod(asking("p", GPU, 1));
    let promised = world.reserved().1.remove(0);
    assert!(world.attempt().is_none(), "nothing is written");
    world.state.promised("p", 9, &[(with_id(&promised, "x"), 9)], world.now);
    match world.attempt() {
        Some(Attempt::Place { made: Some(made), .. }) => {
            assert_eq!((made.name.as_str(), made.uid.as_str()), ("x", "x"))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_claim_of_an_attempt_that_failed_goes_first() {
    let mut world = backed(&["a"]);
    world.pod(asking("p", GPU, 1));
    let promised = world.reserved().1.remove(0);
    world.device_claim(&made(&promised, "x", &json!({ "allocation": promised.allocation.as_deref() })));
    world.state.promised("p", 9, &[(with_id(&promised, "x"), 9)], world.now);
    assert!(matches!(world.attempt(), Some(Attempt::Place { .. })));
    world.state.unbound("p", world.now);
    world.later(LATER);
    let refused = world.refused();
    let told =
        "0/1 nodes are available: 1 cannot schedule extended resource claim. deletion of ResourceClaim completed, ";
    assert_eq!(refused.message, format!("{told}{TOLD}"));
    let release = refused.release.unwrap();
    assert_eq!((release.claim.uid.as_str(), release.revision), ("x", None));
    world.later(LATER);
    assert!(world.outcome().is_none(), "until it is gone");
    world.state.forget_device_claim("ns", "x", world.now);
    assert_eq!(devices(&world.reserved().1), ["n/a"]);
}

#[test]
fn nodes_are_scored_by_the_devices_that_stand_for_a_resource() {
    let placed = |strategy: &str, selectors: &Value| {
        let score = json!({ "scoringStrategy": { "type": strategy, "resources": [{ "name": GPU, "weight": 1 }] } });
        let only = json!({ "disabled": [{ "name": "*" }], "enabled": [{ "name": "NodeResourcesFit" }] });
        let fit = json!([{ "name": "NodeResourcesFit", "args": score }]);
        let config = json!({ "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
            "profiles": [{ "pluginConfig": fit, "plugins": { "score": only } }] });
        let config = crate::config::scheduler::parse(&config).unwrap();
        let mut world = World { state: State::new(&config), now: clock::instant() };
        // One device of each node is in use. One node has four of a kind, the other two of that kind among six.
        for (name, devices) in [("four", &["a", "b", "c", "d"][..]), ("six", &["a", "b", "u", "v", "w", "x"][..])] {
            world.node(node(name, "", "4", json!({})));
            let mut slice = slice(name, devices);
            for device in slice["spec"]["devices"].as_array_mut().unwrap() {
                device["attributes"] = json!({ "good": { "bool": device["name"].as_str().unwrap() < "u" } });
            }
            world.slice(&slice);
            world.device_claim(&claim(&format!("on-{name}"), &allocated(name, "a", &["somebody"])));
        }
        world.device_class("gpu", &json!({ "extendedResourceName": GPU, "selectors": selectors }));
        world.pod(asking("p", GPU, 1));
        world.reserved().0
    };
    assert_eq!(["MostAllocated", "LeastAllocated"].map(|one| placed(one, &json!([]))), ["four", "six"]);
    // Those that the class does not take do not count.
    let good = json!([{ "cel": { "expression": "device.attributes['x.io'].good" } }]);
    assert_eq!(["MostAllocated", "LeastAllocated"].map(|one| placed(one, &good)), ["six", "four"]);
}
