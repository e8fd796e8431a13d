//! Where pods go by the devices of their claims, and what has to be written of those first.

mod extended;

use super::*;
use crate::server::scheduler::devices::{Reservation, results};
use crate::server::scheduler::promises::Promise;

const LATER: Duration = Duration::from_secs(30);

/// A pod that uses claims by name.
fn with(name: &str, claims: &[&str]) -> Pod {
    let claims: Vec<Value> = claims.iter().map(|claim| json!({ "name": claim, "resourceClaimName": claim })).collect();
    pod(name, json!({ "spec": { "resourceClaims": claims } }))
}

/// A claim for one device.
fn claim(name: &str, more: &Value) -> Value {
    let request =
        json!({ "name": "r", "exactly": { "deviceClassName": "any", "allocationMode": "ExactCount", "count": 1 } });
    let base = json!({ "metadata": { "name": name, "namespace": "ns", "uid": name, "resourceVersion": "1" },
        "spec": { "devices": { "requests": [request] } }, "status": {} });
    both(base, more)
}

fn result(node: &str, device: &str) -> Value {
    json!({ "request": "r", "driver": "x.io", "pool": node, "device": device })
}

/// The status of a claim that has a device of a node.
fn allocated(node: &str, device: &str, users: &[&str]) -> Value {
    let users: Vec<Value> = users.iter().map(|u| json!({ "resource": "pods", "name": u, "uid": u })).collect();
    let here = json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [node] }] }]);
    json!({ "metadata": { "resourceVersion": "9" }, "status": { "reservedFor": users, "allocation": {
        "devices": { "results": [result(node, device)] }, "nodeSelector": { "nodeSelectorTerms": here } } } })
}

/// Devices of a node.
fn slice(node: &str, devices: &[&str]) -> Value {
    let devices: Vec<Value> = devices.iter().map(|name| json!({ "name": name })).collect();
    json!({ "metadata": { "name": node }, "spec": { "driver": "x.io", "nodeName": node,
        "pool": { "name": node, "generation": 1, "resourceSliceCount": 1 }, "devices": devices } })
}

impl World {
    fn device_claim(&mut self, claim: &Value) {
        self.state.observe_device_claim(serde_json::from_value(claim.clone()).unwrap(), self.now);
    }

    fn slice(&mut self, slice: &Value) {
        if self.state.snapshot.devices.set_slice(serde_json::from_value(slice.clone()).unwrap()) {
            self.state.devices_changed(self.now);
        }
    }

    fn device_class(&mut self, name: &str, spec: &Value) {
        let class = json!({ "metadata": { "name": name }, "spec": spec });
        if self.state.snapshot.devices.set_class(serde_json::from_value(class).unwrap()) {
            self.state.device_classes_changed(self.now);
        }
    }

    /// Who is promised what, and where.
    fn reserved(&mut self) -> (String, Vec<Reservation>) {
        match self.attempt() {
            Some(Attempt::Promise { node, promises, .. }) => {
                let each = promises.into_iter().map(|promise| match promise {
                    Promise::Devices(reservation) => *reservation,
                    other => panic!("{other:?}"),
                });
                (node, each.collect())
            }
            other => panic!("promises nothing: {other:?}"),
        }
    }

    /// They are written, and the watch shows it, or not yet.
    fn write(&mut self, pod: &str, reservations: &[Reservation], shown: bool) {
        let written: Vec<(Reservation, u64)> = reservations.iter().map(|r| (r.clone(), 9)).collect();
        if shown {
            for one in reservations {
                let status = json!({ "metadata": { "resourceVersion": "9" }, "status": {
                    "allocation": one.allocation.as_deref(), "reservedFor": [{ "resource": "pods", "name": pod, "uid": pod }] } });
                self.device_claim(&claim(&one.claim.name, &status));
            }
        }
        self.state.promised(pod, 9, &written, self.now);
    }
}

/// Nodes that have nothing else, the class and a slice for each.
fn world(nodes: &[(&str, &[&str])]) -> World {
    let plain: Vec<Node> = nodes.iter().map(|(name, _)| node(name, "", "4", json!({}))).collect();
    let mut world = World::new(&plain, &[]);
    world.device_class("any", &json!({}));
    nodes.iter().for_each(|(name, devices)| world.slice(&slice(name, devices)));
    world
}

fn devices(reservations: &[Reservation]) -> Vec<String> {
    let each = reservations.iter().filter_map(|r| r.allocation.as_deref()).flat_map(results);
    each.map(|r| format!("{}/{}", r.pool, r.device)).collect()
}

#[test]
fn what_is_wrong_with_a_claim_is_told() {
    let many: Vec<Value> = (0..256).map(|i| json!({ "resource": "pods", "name": "x", "uid": i.to_string() })).collect();
    let none = json!([{ "name": "r", "firstAvailable": [{ "name": "a", "deviceClassName": "none" }] }]);
    let cases = [
        (None, "could not find ResourceClaim \"ns/c\""),
        (
            Some(json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } })),
            "resourceclaim \"c\" is being deleted",
        ),
        (Some(both(allocated("n", "a", &[]), &json!({ "status": { "reservedFor": many } }))), "resourceclaim in use"),
        (Some(json!({ "spec": { "devices": { "requests": none } } })), "request r/a: device class none does not exist"),
    ];
    for (more, want) in cases {
        let mut world = world(&[("n", &["a"])]);
        more.into_iter().for_each(|more| world.device_claim(&claim("c", &more)));
        world.pod(with("p", &["c"]));
        let refused = world.outcome().unwrap().unwrap_err();
        let rest = "no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
        assert_eq!(refused, format!("0/1 nodes are available: {want}. {rest}"));
    }
}

#[test]
fn claims_of_templates_are_waited_for_in_silence() {
    let mut world = world(&[("n", &["a"])]);
    let spec = json!({ "spec": { "resourceClaims": [{ "name": "gpu", "resourceClaimTemplateName": "t" }] } });
    world.pod(pod("p", spec.clone()));
    assert!(world.outcome().is_none(), "its claim is not made");
    let named = json!({ "status": { "resourceClaimStatuses": [{ "name": "gpu", "resourceClaimName": "c" }] } });
    world.pod(pod("p", both(spec.clone(), &named)));
    assert!(world.outcome().is_none(), "its claim is not seen");
    world.slice(&slice("n", &["a", "b"]));
    world.device_claim(&claim("other", &json!({})));
    assert!(world.outcome().is_none(), "it still is not");
    world.device_claim(&claim("c", &json!({})));
    let why = world.outcome().unwrap().unwrap_err();
    assert!(why.contains("ResourceClaim ns/c was not created for Pod ns/p (Pod is not owner)"), "{why}");
    world.later(LATER);
    let owner = json!([{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p", "controller": true }]);
    world.device_claim(&claim(
        "c",
        &json!({ "metadata": { "ownerReferences": owner }, "status": { "reservedFor": [] } }),
    ));
    assert_eq!(devices(&world.reserved().1), ["n/a"]);
    // What was found not to be needed is not waited for.
    let none = json!({ "status": { "resourceClaimStatuses": [{ "name": "gpu" }] } });
    world.pod(pod("q", both(spec, &none)));
    assert_eq!(world.outcome(), Some(Ok("n".into())));
}

#[test]
fn a_claim_is_allocated_and_the_pod_waits_for_the_write() {
    let mut world = world(&[("n", &["a"])]);
    world.device_claim(&claim("c", &json!({ "metadata": { "finalizers": ["x"] } })));
    world.pod(with("p", &["c"]));
    let (node, promised) = world.reserved();
    assert_eq!((node.as_str(), devices(&promised)), ("n", vec!["n/a".to_owned()]));
    assert_eq!((promised[0].revision.as_str(), promised[0].finalizers.as_slice()), ("1", &["x".to_owned()][..]));
    // Whatever happens meanwhile, it is not bound before.
    world.slice(&slice("m", &["z"]));
    world.device_claim(&claim("other", &json!({})));
    assert!(world.outcome().is_none());
    world.write("p", &promised, false);
    assert_eq!(world.outcome(), Some(Ok("n".into())));
    // Two who compete: the device counts as taken before the watch shows it, and after.
    world.pod(with("q", &["other"]));
    let why = "0/1 nodes are available: 1 cannot allocate all claims. still not schedulable, preemption: 0/1 nodes are \
               available: 1 Preemption is not helpful for scheduling.";
    assert_eq!(world.outcome(), Some(Err(why.into())));
    world.device_claim(&claim("c", &allocated("n", "a", &["p"])));
    world.later(LATER);
    assert!(world.outcome().is_none(), "nothing was released");
    // Its pod goes, and its device with it.
    world.device_claim(&claim("c", &json!({ "metadata": { "resourceVersion": "12" } })));
    assert_eq!(devices(&world.reserved().1), ["n/a"]);
}

#[test]
fn pods_share_a_claim() {
    let mut world = world(&[("n", &["a"]), ("m", &["a"])]);
    world.device_claim(&claim("c", &json!({})));
    world.pod(with("p", &["c"]));
    world.pod(with("q", &["c"]));
    let (node, promised) = world.reserved();
    let why = world.outcome().unwrap().unwrap_err();
    assert!(why.contains("resource claim ns/c is in the process of being allocated"), "{why}");
    world.later(LATER);
    world.write("p", &promised, true);
    assert_eq!(world.outcome(), Some(Ok(node.clone())));
    // The other goes where the device is, and only has to be added.
    let (other, promised) = world.reserved();
    assert_eq!((other == node, promised.len(), promised[0].allocation.as_ref()), (true, 1, None));
    world.state.promised("q", 10, &[(promised[0].clone(), 10)], world.now);
    assert_eq!(world.outcome(), Some(Ok(node)));
}

#[test]
fn what_is_written_already_is_not_written_again() {
    // After a crash between the allocation and the binding.
    let mut world = world(&[("n", &["a"]), ("m", &["a"])]);
    world.device_claim(&claim("c", &allocated("m", "a", &["p"])));
    world.pod(with("p", &["c"]));
    assert_eq!(world.outcome(), Some(Ok("m".into())));
}

#[test]
fn a_failed_write_frees_the_devices() {
    let mut world = world(&[("n", &["a"])]);
    world.device_claim(&claim("c", &json!({})));
    world.device_claim(&claim("d", &json!({})));
    world.pod(with("p", &["c"]));
    world.pod(with("q", &["d"]));
    let (_, promised) = world.reserved();
    assert!(world.outcome().unwrap().is_err(), "there is one device");
    world.later(LATER);
    let unwritten: Vec<Promise> = promised.iter().map(|r| Promise::Devices(Box::new(r.clone()))).collect();
    world.state.broken("p", &[], &unwritten, world.now);
    let (_, next) = world.reserved();
    assert_eq!(next[0].claim.name, "d", "the other was waiting for it");
    world.later(LATER);
    assert!(world.outcome().unwrap().is_err(), "and the first is tried again");
}

#[test]
fn a_pod_that_goes_while_its_claims_are_written_frees_nothing_before_they_are() {
    let mut world = world(&[("n", &["a", "b"])]);
    ["c", "d", "e"].iter().for_each(|name| world.device_claim(&claim(name, &json!({}))));
    world.pod(with("p", &["c", "d"]));
    let (_, promised) = world.reserved();
    assert_eq!(devices(&promised), ["n/a", "n/b"]);
    world.pod(with("q", &["e"]));
    assert!(world.outcome().unwrap().is_err());
    world.later(LATER);
    world.state.forget_pod("p", world.now);
    world.later(LATER);
    assert!(world.outcome().is_none_or(|o| o.is_err()), "they may be written yet");
    world.later(LATER);
    // One was written, the other was not.
    let unwritten = [Promise::Devices(Box::new(promised[1].clone()))];
    world.state.broken("p", &[(promised[0].clone(), 9)], &unwritten, world.now);
    assert_eq!(devices(&world.reserved().1), ["n/b"]);
}

#[test]
fn promises_end_with_what_the_watch_shows() {
    let mut world = world(&[("n", &["a"])]);
    world.device_claim(&claim("c", &json!({})));
    world.device_claim(&claim("d", &json!({})));
    world.pod(with("p", &["c"]));
    let (_, promised) = world.reserved();
    world.write("p", &promised, false);
    assert_eq!(world.outcome(), Some(Ok("n".into())));
    world.pod(with("q", &["d"]));
    assert!(world.outcome().unwrap().is_err());
    world.later(LATER);
    // Between two lists it was allocated and released.
    let list = |claims: &[Value]| claims.iter().map(|c| serde_json::from_value(c.clone()).unwrap()).collect::<Vec<_>>();
    let released = claim("c", &json!({ "metadata": { "resourceVersion": "11" } }));
    world.state.observe_device_claims(list(&[released, claim("d", &json!({}))]), 9, world.now);
    let (_, promised) = world.reserved();
    assert_eq!(promised[0].claim.name, "d");
    world.write("q", &promised, false);
    assert_eq!(world.outcome(), Some(Ok("n".into())));
    // Gone between two lists.
    world.pod(with("r", &["c"]));
    assert!(world.outcome().unwrap().is_err());
    world.later(LATER);
    world.state.observe_device_claims(list(&[claim("c", &json!({}))]), 9, world.now);
    let (_, promised) = world.reserved();
    world.write("r", &promised, false);
    assert_eq!(world.outcome(), Some(Ok("n".into())));
    // Another of the same name by now.
    world.pod(with("s", &["c"]));
    assert!(world.outcome().unwrap().is_err());
    world.later(LATER);
    let another = claim("c", &json!({ "metadata": { "uid": "c2", "resourceVersion": "2" } }));
    world.state.observe_device_claims(list(&[another]), 9, world.now);
    assert_eq!(devices(&world.reserved().1), ["n/a"]);
}

#[test]
fn all_claims_have_to_fit_on_the_node() {
    let mut world = world(&[("n", &["a"]), ("m", &["a", "b"])]);
    world.device_claim(&claim("c", &json!({})));
    world.device_claim(&claim("d", &json!({})));
    world.pod(with("p", &["c", "d"]));
    let (node, promised) = world.reserved();
    assert_eq!((node.as_str(), devices(&promised)), ("m", vec!["m/a".to_owned(), "m/b".to_owned()]));
    let mut world = self::world(&[("n", &["a", "b"]), ("m", &["a"])]);
    world.device_claim(&claim("c", &allocated("m", "a", &["x"])));
    world.device_claim(&claim("d", &json!({})));
    world.pod(with("p", &["c", "d"]));
    let why = world.outcome().unwrap().unwrap_err();
    let reasons =
        "1 cannot allocate all claims, 1 resourceclaim not available on the node. still not schedulable, preemption: ";
    assert!(why.starts_with(&format!("0/2 nodes are available: {reasons}")), "{why}");
}

#[test]
fn an_idle_claim_gives_up_its_devices() {
    let pinned = |name: &str| {
        let mut pod = with(name, &["c"]);
        pod.spec.as_mut().unwrap().node_selector = Some([(HOSTNAME.to_owned(), "n".to_owned())].into());
        pod
    };
    for (users, released) in [(&[][..], true), (&["p"], true), (&["other"], false), (&["p", "other"], false)] {
        let mut world = world(&[("n", &["a"]), ("m", &["a"])]);
        world.device_claim(&claim("c", &allocated("m", "a", users)));
        world.pod(pinned("p"));
        let refused = world.refused();
        let release = refused.release.map(|r| (r.claim.name, r.revision));
        assert_eq!(release, released.then(|| ("c".to_owned(), Some("9".to_owned()))), "{users:?}");
        let said = if released { "deallocation of ResourceClaim completed" } else { "still not schedulable" };
        assert!(refused.message.contains(&format!(". {said}, preemption: ")), "{}", refused.message);
        if released {
            world.later(LATER);
            world.device_claim(&claim("c", &json!({ "metadata": { "resourceVersion": "12" } })));
            assert_eq!(world.reserved().0, "n");
        }
    }
}

#[test]
fn an_expression_that_fails_refuses_the_pod() {
    let mut world = world(&[("n", &["a"]), ("m", &["a"])]);
    let selectors = json!([{ "cel": { "expression": "device.attributes['x.io'].size > 1" } }]);
    world.device_class("big", &json!({ "selectors": selectors }));
    let request = json!([{ "name": "r", "exactly": { "deviceClassName": "big" } }]);
    world.device_claim(&claim("c", &json!({ "spec": { "devices": { "requests": request } } })));
    world.pod(with("p", &["c"]));
    let why = world.outcome().unwrap().unwrap_err();
    let hint = "Consider using CEL optional chaining (?), has() macro, or orValue() for optional fields";
    let told = "class big: selector #0 on device x.io/m/a: CEL runtime error: no such key: size";
    assert_eq!(why, format!("running \"DynamicResources\" filter plugin: {told}. {hint}"));
    world.later(LATER);
    assert!(world.outcome().is_none(), "it is not tried again and again");
    world.device_class("big", &json!({}));
    assert_eq!(devices(&world.reserved().1).len(), 1);
}

#[test]
fn earlier_alternatives_are_better() {
    let mut world = world(&[("n", &["plain"]), ("m", &["plain", "fast"])]);
    let selectors =
        |name: &str| json!([{ "cel": { "expression": format!("device.attributes['x.io'].kind == '{name}'") } }]);
    let kind = |name: &str| json!({ "name": name, "attributes": { "kind": { "string": name } } });
    let of = |node: &str, devices: Value| both(slice(node, &[]), &json!({ "spec": { "devices": devices } }));
    world.slice(&of("n", json!([kind("plain")])));
    world.slice(&of("m", json!([kind("plain"), kind("fast")])));
    let one = |name: &str| json!({ "name": name, "deviceClassName": "any", "count": 1, "selectors": selectors(name) });
    let request = json!([{ "name": "r", "firstAvailable": [one("fast"), one("plain")] }]);
    for (name, want) in [("c", "m/fast"), ("d", "n/plain")] {
        world.device_claim(&claim(name, &json!({ "spec": { "devices": { "requests": request } } })));
        world.pod(with(&format!("of-{name}"), &[name]));
        let (_, promised) = world.reserved();
        let found = devices(&promised);
        assert!(found == [want] || (name == "d" && found[0].ends_with("/plain")), "{found:?}");
    }
}

#[test]
fn devices_are_prepared_before_the_pod_is_bound() {
    let prepared = json!([{ "name": "a", "bindingConditions": ["Ready"], "bindingFailureConditions": ["Broken"] }]);
    let start = || {
        let mut world = world(&[("n", &[])]);
        world.slice(&both(slice("n", &[]), &json!({ "spec": { "devices": prepared } })));
        world.device_claim(&claim("c", &json!({})));
        world.pod(with("p", &["c"]));
        let (_, promised) = world.reserved();
        world.write("p", &promised, true);
        assert!(world.outcome().is_none(), "the driver is not done");
        let mut result = result("n", "a");
        merge(&mut result, &json!({ "bindingConditions": ["Ready"], "bindingFailureConditions": ["Broken"] }));
        (world, result)
    };
    let told = |result: &Value, condition: &str| {
        let condition = json!({ "type": condition, "status": "True", "reason": "R", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z" });
        let status = json!({ "driver": "x.io", "pool": "n", "device": "a", "conditions": [condition] });
        both(
            allocated("n", "a", &["p"]),
            &json!({ "status": { "allocation": { "devices": { "results": [result] } }, "devices": [status] } }),
        )
    };
    let (mut world, result) = start();
    world.device_claim(&claim("c", &told(&result, "Ready")));
    assert_eq!(world.outcome(), Some(Ok("n".into())));
    // A failure is told, and what was allocated is given up.
    let (mut world, result) = start();
    world.device_claim(&claim("c", &told(&result, "Broken")));
    assert_eq!(world.outcome(), Some(Err("claim c binding failed: reason=R, message=\"m\"".into())));
    world.later(LATER);
    assert!(world.refused().release.is_some());
    // Nobody prepares it.
    let (mut world, _) = start();
    world.later(Duration::from_mins(10));
    assert_eq!(world.outcome(), Some(Err("device binding timeout".into())));
}

#[test]
fn only_what_can_help_wakes() {
    let waiting = |claims: &[(&str, Value)]| {
        let mut world = world(&[("n", &["a"])]);
        world.device_claim(&claim("taken", &allocated("n", "a", &["other"])));
        claims.iter().for_each(|(name, more)| world.device_claim(&claim(name, more)));
        world.pod(with("p", &["c"]));
        assert!(world.outcome().unwrap().is_err());
        world.later(LATER);
        world
    };
    let check = |claims: &[(&str, Value)], happens: &dyn Fn(&mut World), want: bool, what: &str| {
        let mut world = waiting(claims);
        happens(&mut world);
        assert_eq!(world.attempt().is_some(), want, "{what}");
    };
    let open = [("c", json!({}))];
    let label = json!({ "metadata": { "labels": { "a": "b" } } });
    check(&open, &|w| w.slice(&slice("n", &["a"])), false, "the same slice");
    check(&open, &|w| w.slice(&slice("n", &["a", "b"])), true, "another device");
    check(&open, &|w| w.device_class("any", &json!({})), false, "the same class");
    check(&open, &|w| w.device_class("x", &json!({})), true, "a class");
    check(&open, &|w| w.device_claim(&claim("taken", &json!({}))), true, "a device comes free");
    check(&open, &|w| w.state.forget_device_claim("ns", "taken", w.now), true, "a claim goes with its device");
    check(&open, &|w| w.device_claim(&claim("d", &json!({}))), false, "another claim");
    check(&open, &|w| w.device_claim(&claim("taken", &allocated("n", "a", &["other", "more"]))), false, "another user");
    check(
        &open,
        &|w| w.device_claim(&claim("c", &json!({ "metadata": { "finalizers": ["f"] } }))),
        false,
        "a finalizer",
    );
    check(&open, &|w| w.device_claim(&claim("c", &allocated("n", "a", &[]))), true, "its own claim");
    check(&open, &|w| w.node(node("n", "", "4", label.clone())), true, "labels of a node");
    check(&open, &|w| w.node(node("n", "", "5", json!({}))), false, "more of something else");
    check(&open, &|w| w.state.forget_pod("other", w.now), false, "a pod goes, its claim does not");
    check(&[], &|w| w.slice(&slice("n", &["a", "b"])), false, "a device, but its claim is not there");
    check(&[], &|w| w.device_claim(&claim("taken", &json!({}))), false, "a free device, but its claim is not there");
    check(&[], &|w| w.device_claim(&claim("c", &json!({}))), true, "its claim comes");
}
