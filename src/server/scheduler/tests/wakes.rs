//! Which events bring back a pod that was refused, and which leave it alone.

use super::*;

const LATER: Duration = Duration::from_secs(30);

/// Refuses a pod, lets something happen, and says whether the pod is tried again.
fn check(nodes: &[Node], before: &[Pod], change: &Value, happens: impl FnOnce(&mut World), want: bool, what: &str) {
    let mut world = World::new(nodes, before);
    world.pod(pod("waiting", change.clone()));
    assert!(world.outcome().expect("an attempt").is_err(), "{what}: it was to be refused");
    world.later(LATER);
    happens(&mut world);
    assert_eq!(world.attempt().is_some(), want, "{what}");
}

fn gone(name: &'static str) -> impl FnOnce(&mut World) {
    move |world| world.state.forget_pod(name, world.now)
}

#[test]
fn room() {
    let nodes = [node("a", "z1", "2", json!({})), node("b", "z2", "1", json!({}))];
    let big = pod("big", on("a", cpu("2")));
    let small = pod("small", on("b", cpu("1")));
    let before = [big, small];
    let tried = |happens: &dyn Fn(&mut World), want, what| check(&nodes, &before, &cpu("2"), happens, want, what);
    tried(&|w| w.state.forget_pod("big", w.now), true, "enough room comes free");
    tried(&|w| w.state.forget_pod("small", w.now), false, "too little comes free");
    tried(&|w| w.pod(pod("big", on("a", cpu("1")))), false, "a pod shrinks, not enough");
    tried(&|w| w.pod(pod("big", on("a", cpu("0")))), true, "a pod shrinks enough");
    tried(&|w| w.pod(pod("big", on("a", both(cpu("2"), &app("x"))))), false, "labels make no room");
    tried(&|w| w.node(node("c", "z1", "2", json!({}))), true, "a node comes");
    tried(&|w| w.node(node("c", "z1", "1", json!({}))), false, "a node comes that is too small");
    tried(&|w| w.node(node("b", "z2", "3", json!({}))), true, "a node grows");
    let label = json!({ "metadata": { "labels": { "x": "y" } } });
    tried(&|w| w.node(node("a", "z1", "2", label.clone())), false, "a node gets a label");
    let finished = both(on("a", cpu("2")), &json!({ "status": { "phase": "Failed" } }));
    tried(&|w| w.pod(pod("big", finished.clone())), true, "a pod finishes");
    tried(&|w| w.pod(pod("another", on("b", json!({})))), false, "a pod comes");
    tried(&|w| w.pod(pod("waiting", cpu("2"))), false, "what it says itself is the same");
    tried(&|w| w.pod(pod("waiting", cpu("1500m"))), true, "it asks for something else");
    tried(&|w| w.later(Duration::from_mins(5)), true, "five minutes pass");
}

#[test]
fn what_a_node_says_of_itself() {
    let taint = json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } });
    let tainted = [node("a", "z1", "2", taint)];
    let check = |nodes: &[Node], change: &Value, now: Node, want, what| {
        check(nodes, &[], change, |w| w.node(now), want, what);
    };
    check(&tainted, &json!({}), node("a", "z1", "2", json!({})), true, "the taint is gone");
    let other = json!({ "spec": { "taints": [{ "key": "other", "effect": "NoExecute" }] } });
    check(&tainted, &json!({}), node("a", "z1", "2", other), false, "another taint instead");
    let cordoned = [node("a", "z1", "2", json!({ "spec": { "unschedulable": true } }))];
    check(&cordoned, &json!({}), node("a", "z1", "2", json!({})), true, "uncordoned");
    let plain = [node("a", "z1", "2", json!({}))];
    let picky = json!({ "spec": { "nodeSelector": { "disk": "ssd" } } });
    let disk = |kind: &str| json!({ "metadata": { "labels": { "disk": kind } } });
    check(&plain, &picky, node("a", "z1", "2", disk("ssd")), true, "the label comes");
    check(&plain, &picky, node("a", "z1", "2", disk("hdd")), false, "another label comes");
    check(&plain, &picky, node("b", "z1", "2", disk("hdd")), false, "another node comes");
    check(&[], &json!({}), node("a", "z1", "2", json!({})), true, "the first node comes");
}

#[test]
fn ports() {
    let port = |number: u16| json!({ "spec": { "containers": [{ "name": "c", "ports": [{ "containerPort": 80, "hostPort": number }] }] } });
    let nodes = [node("a", "z1", "2", json!({}))];
    let before = [pod("80", on("a", port(80))), pod("81", on("a", port(81)))];
    check(&nodes, &before, &port(80), gone("80"), true, "its port");
    check(&nodes, &before, &port(80), gone("81"), false, "another port");
}

#[test]
fn pods_that_affinity_means() {
    let nodes = [node("a", "z1", "2", json!({}))];
    let placed = |name: &str, labels: Value| pod(name, on("a", labels));
    let none: [Pod; 0] = [];
    let near = near("web", ZONE);
    check(&nodes, &none, &near, |w| w.pod(placed("1", app("web"))), true, "one to be near comes");
    check(&nodes, &none, &near, |w| w.pod(placed("1", app("db"))), false, "one of no interest comes");
    check(&nodes, &none, &near, |w| w.pod(pod("1", app("web"))), true, "one is placed by us");
    let db = [placed("1", app("db"))];
    check(&nodes, &db, &near, |w| w.pod(placed("1", app("web"))), true, "one gets the label");
    let apart = apart("web", ZONE);
    let web = [placed("1", app("web")), placed("2", app("db"))];
    check(&nodes, &web, &apart, gone("1"), true, "one to be far from goes");
    check(&nodes, &web, &apart, gone("2"), false, "one of no interest goes");
    check(&nodes, &web, &apart, |w| w.pod(placed("1", app("db"))), true, "one loses the label");
    let shy = [pod("1", on("a", both(app("db"), &apart)))];
    check(&nodes, &shy, &app("web"), gone("1"), true, "one that wants to be alone goes");
    let labelled = json!({ "team": "x" });
    let mut asked = term("web", ZONE);
    asked["namespaceSelector"] = json!({ "matchLabels": labelled });
    let asking = json!({ "spec": { "affinity":
        { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [asked] } } } });
    let web = [placed("1", app("web"))];
    let set = |w: &mut World| {
        let labels = [("team".to_owned(), "x".to_owned())].into();
        w.state.observe_namespace("ns", Some(labels), w.now);
    };
    check(&nodes, &web, &asking, set, true, "the namespace gets the label");
}

#[test]
fn pods_that_spread_counts() {
    let nodes = [node("a", "z1", "9", json!({})), node("b", "z2", "9", json!({ "spec": { "unschedulable": true } }))];
    let web = |name: &str, node: &str| pod(name, on(node, app("web")));
    let before = [web("1", "a"), pod("2", on("a", app("db")))];
    let waiting = both(app("web"), &spread("web", ZONE, json!({})));
    check(&nodes, &before, &waiting, gone("1"), true, "one that counts goes");
    check(&nodes, &before, &waiting, gone("2"), false, "one that does not count goes");
    check(&nodes, &before, &waiting, |w| w.pod(web("3", "b")), true, "one comes elsewhere");
    let ending = both(on("a", app("web")), &json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }));
    check(&nodes, &before, &waiting, |w| w.pod(pod("1", ending)), true, "one begins to end");
    check(&nodes, &before, &waiting, |w| w.state.forget_node("b", w.now), true, "the empty domain goes");
    check(&nodes, &before, &waiting, |w| w.node(node("c", "z3", "9", json!({}))), true, "a domain comes");
}

#[test]
fn a_nominee_that_goes_makes_room() {
    let mut world = World::new(&[node("a", "z1", "1", json!({}))], &[]);
    let full = pod("old", on("a", both(cpu("1"), &json!({ "spec": { "priority": 1 } }))));
    world.pod(full);
    world.pod(pod("nominee", both(cpu("1"), &json!({ "spec": { "priority": 10 } }))));
    assert_eq!(world.refused().nominate.as_deref(), Some("a"));
    world.state.preempted("nominee", true);
    world.pod(pod("lesser", cpu("1")));
    assert!(world.outcome().unwrap().is_err());
    world.later(LATER);
    world.state.forget_pod("old", world.now);
    // The more important one is deleted before it is tried; now there is room for the other.
    world.state.forget_pod("nominee", world.now);
    assert_eq!(world.outcome(), Some(Ok("a".into())));
}

#[test]
fn a_failed_binding_gives_its_room_back_and_is_tried_again() {
    let mut world = World::new(&[node("a", "z1", "1", json!({}))], &[]);
    world.pod(pod("p", cpu("1")));
    assert!(world.outcome().unwrap().is_ok());
    // The condition we wrote earlier, seen late, must not make it pending again.
    world.pod(pod("p", cpu("1")));
    assert!(world.attempt().is_none());
    world.pod(pod("q", cpu("1")));
    assert!(world.outcome().unwrap().is_err());
    world.later(LATER);
    world.state.unbound("p", world.now);
    assert_eq!(world.outcome(), Some(Ok("a".into())), "another takes the room");
    world.later(LATER);
    assert!(world.outcome().unwrap().is_err(), "it is tried again by itself");
}
