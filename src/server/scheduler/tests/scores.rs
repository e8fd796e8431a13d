//! What each plugin gives each node, and where pods go for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::server::scheduler::plugins::extended_resources::Variants;
use crate::server::scheduler::plugins::{Cycle, PLUGINS};
use crate::server::scheduler::pod::PodInfo;
use crate::server::scheduler::selector::Selector;
use crate::server::scheduler::workloads::OwnerKind;

fn world(nodes: &[Node], before: &[Pod]) -> World {
    let mut world = World::new(nodes, before);
    world.state.snapshot.arrange();
    world
}

/// Scores of one plugin for all nodes, by name; `None` when it has no say.
fn scores(world: &mut World, plugin: &str, change: &Value) -> Option<Vec<i64>> {
    let mut info = PodInfo::new(pod("new", change.clone()));
    info.cohort = world.state.snapshot.shared(Arc::unwrap_or_clone(info.cohort));
    let snapshot = &world.state.snapshot;
    let mut slots = snapshot.order().to_vec();
    slots.sort_unstable_by_key(|slot| &snapshot.node(*slot).name);
    let variants = Variants::default();
    let cycle = Cycle::new(&info, info.wants.as_ref().unwrap(), snapshot, &variants, slots.len());
    let row = PLUGINS.iter().find(|p| p.name == plugin).unwrap();
    (row.score.unwrap())(&cycle, &slots)
}

fn check(plugin: &str, nodes: &[Node], before: &[Pod], change: &Value, want: Option<&[i64]>) {
    let got = scores(&mut world(nodes, before), plugin, change);
    assert_eq!(got.as_deref(), want, "{plugin}: {change}");
}

fn asks(cpu: &str, memory: &str) -> Value {
    json!({ "spec": { "containers":
        [{ "name": "c", "resources": { "requests": { "cpu": cpu, "memory": memory } } }] } })
}

fn three() -> [Node; 3] {
    ["a", "b", "c"].map(|name| node(name, "", "4", json!({})))
}

#[test]
fn weights_are_upstreams() {
    let weights: Vec<(&str, i64)> = {
        let points = crate::config::scheduler::plugins::Points::default();
        PLUGINS.iter().filter(|p| p.score.is_some()).map(|p| (p.name, points.weight(p.name))).collect()
    };
    let want = [
        ("TaintToleration", 3),
        ("NodeAffinity", 2),
        ("NodeResourcesFit", 1),
        ("PodTopologySpread", 2),
        ("InterPodAffinity", 2),
        ("DynamicResources", 1),
        ("NodeResourcesBalancedAllocation", 1),
        ("ImageLocality", 1),
    ];
    assert_eq!(weights, want);
}

#[test]
fn free_and_balanced_resources() {
    let used = [pod("1", on("a", asks("2", "1Gi"))), pod("2", on("b", asks("1", "3Gi")))];
    // a: (25 + 50) / 2; b: (50 + 0) / 2; c: (75 + 75) / 2.
    check("NodeResourcesFit", &three(), &used, &asks("1", "1Gi"), Some(&[37, 25, 75]));
    // What asks for nothing counts 100 millicores and 200 MiB.
    check("NodeResourcesFit", &three(), &[], &json!({}), Some(&[96, 96, 96]));
    check("NodeResourcesBalancedAllocation", &three(), &[], &json!({}), None);
    // a from (50, 25) to (75, 50): no change; b from (25, 75) to (50, 100): none; c neither.
    check("NodeResourcesBalancedAllocation", &three(), &used, &asks("1", "1Gi"), Some(&[75, 75, 75]));
    // Memory only: a from 12.5 apart to 0, b from 25 to 37.5, c from 0 to 12.5.
    let memory =
        json!({ "spec": { "containers": [{ "name": "c", "resources": { "requests": { "memory": "1Gi" } } }] } });
    check("NodeResourcesBalancedAllocation", &three(), &used, &memory, Some(&[81, 68, 68]));
}

#[test]
fn taints_and_preferred_nodes() {
    let soft = |keys: &[&str]| {
        let taints: Vec<Value> = keys.iter().map(|k| json!({ "key": k, "effect": "PreferNoSchedule" })).collect();
        json!({ "spec": { "taints": taints } })
    };
    let nodes = [
        node("a", "", "4", soft(&["x", "y"])),
        node("b", "", "4", soft(&["x"])),
        node("c", "", "4", json!({ "metadata": { "labels": { "disk": "ssd" } } })),
    ];
    check("TaintToleration", &nodes, &[], &json!({}), Some(&[0, 50, 100]));
    let tolerating = json!({ "spec": { "tolerations": [{ "key": "x", "operator": "Exists" }] } });
    check("TaintToleration", &nodes, &[], &tolerating, Some(&[0, 100, 100]));
    check("NodeAffinity", &nodes, &[], &json!({}), None);
    let prefer = |weight: i32, key: &str| json!({ "weight": weight, "preference": { "matchExpressions": [{ "key": key, "operator": "Exists" }] } });
    let preferring = json!({ "spec": { "affinity": { "nodeAffinity":
        { "preferredDuringSchedulingIgnoredDuringExecution": [prefer(30, "disk"), prefer(10, HOSTNAME)] } } } });
    check("NodeAffinity", &nodes, &[], &preferring, Some(&[25, 25, 100]));
}

#[test]
fn images_that_are_there() {
    let image = |names: Value, mib: i64| json!({ "names": names, "sizeBytes": mib << 20 });
    let with = |name: &str, images: Value| node(name, "", "4", json!({ "status": { "images": images } }));
    let nodes = [
        with("a", json!([image(json!(["reg:5000/web:latest", "reg:5000/web@sha256:1"]), 600)])),
        with("b", json!([image(json!(["reg:5000/web:latest"]), 600), image(json!(["db:1"]), 10_000)])),
        with("c", json!([])),
    ];
    let uses = |image: &str| json!({ "spec": { "containers": [{ "name": "c", "image": image }] } });
    // 600 MiB on two of three nodes count 400 of up to 1000, above the 23 that do not count.
    check("ImageLocality", &nodes, &[], &uses("reg:5000/web"), Some(&[38, 38, 0]));
    check("ImageLocality", &nodes, &[], &uses("db:1"), Some(&[0, 100, 0]));
    check("ImageLocality", &nodes, &[], &uses("other"), None);
    // An image that left the last node is forgotten.
    let mut world = world(&nodes, &[]);
    world.node(with("b", json!([])));
    assert_eq!(scores(&mut world, "ImageLocality", &uses("db:1")), None);
    assert_eq!(scores(&mut world, "ImageLocality", &uses("reg:5000/web")), Some(vec![18, 0, 0]));
}

#[test]
fn preferred_affinity_and_what_pods_on_nodes_prefer() {
    let nodes = [node("a", "z1", "4", json!({})), node("b", "z2", "4", json!({})), node("c", "z3", "4", json!({}))];
    let prefer = |field: &str, weight: i32, of: &str| {
        json!({ "spec": { "affinity": { field: { "preferredDuringSchedulingIgnoredDuringExecution":
            [{ "weight": weight, "podAffinityTerm": term(of, ZONE) }] } } } })
    };
    let before = [pod("1", on("a", app("web"))), pod("2", on("b", app("db")))];
    check("InterPodAffinity", &nodes, &before, &json!({}), None);
    check("InterPodAffinity", &nodes, &before, &prefer("podAffinity", 10, "web"), Some(&[100, 0, 0]));
    check("InterPodAffinity", &nodes, &before, &prefer("podAntiAffinity", 10, "web"), Some(&[0, 100, 100]));
    let mixed = both(prefer("podAffinity", 10, "web"), &prefer("podAntiAffinity", 5, "db"));
    check("InterPodAffinity", &nodes, &before, &mixed, Some(&[100, 0, 33]));
    // Required by one on a node: weight 1; preferred by others: theirs.
    let asking = [
        pod("1", on("a", near("new", ZONE))),
        pod("2", on("b", prefer("podAffinity", 3, "new"))),
        pod("3", on("c", prefer("podAntiAffinity", 1, "new"))),
    ];
    check("InterPodAffinity", &nodes, &asking, &app("new"), Some(&[50, 100, 0]));
}

#[test]
fn soft_spread() {
    let nodes = [node("a", "z1", "4", json!({})), node("b", "z1", "4", json!({})), node("c", "z2", "4", json!({}))];
    let before = [pod("1", on("a", app("web"))), pod("2", on("a", app("web"))), pod("3", on("c", app("web")))];
    let soft = |key: &str| both(app("web"), &spread("web", key, json!({ "whenUnsatisfiable": "ScheduleAnyway" })));
    // Weights are ln(domains + 2): two zones with 2 and 1 pods give 3, 3, 1; three hosts with 2, 0, 1 give 3, 0, 2.
    check("PodTopologySpread", &nodes, &before, &soft(ZONE), Some(&[33, 33, 100]));
    check("PodTopologySpread", &nodes, &before, &soft(HOSTNAME), Some(&[0, 100, 33]));
    check("PodTopologySpread", &nodes, &before, &app("web"), None);
    check("PodTopologySpread", &nodes, &before, &soft("rack"), None);
    let hard = both(app("web"), &spread("web", ZONE, json!({})));
    check("PodTopologySpread", &nodes, &before, &hard, None);
}

#[test]
fn pods_of_services_and_owners_are_spread_by_default() {
    let nodes = [node("a", "z1", "4", json!({})), node("b", "z1", "4", json!({})), node("c", "", "4", json!({}))];
    let before = [pod("1", on("a", app("web"))), pod("2", on("a", app("web")))];
    let labels: BTreeMap<String, String> = [("app".to_owned(), "web".to_owned())].into();
    let owned = both(
        app("web"),
        &json!({ "metadata": { "ownerReferences":
        [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": true }] } }),
    );
    // a: 2 ln 5 + 2 + 2 ln 4 + 4; b: 2 + 2 ln 4 + 4; c has no zone: 2.
    let want = Some(vec![16, 41, 100]);
    let mut world = world(&nodes, &before);
    assert_eq!(scores(&mut world, "PodTopologySpread", &owned), None, "nothing is known of the owner");
    world.state.snapshot.workloads.set_owner(OwnerKind::ReplicaSet, "ns", "rs", Some(Selector::exact(&labels)));
    assert_eq!(scores(&mut world, "PodTopologySpread", &owned), want);
    assert_eq!(scores(&mut world, "PodTopologySpread", &app("web")), None, "not owned");
    world.state.snapshot.workloads.set_service("ns", "svc", Some(labels));
    assert_eq!(scores(&mut world, "PodTopologySpread", &app("web")), want);
    assert_eq!(scores(&mut world, "PodTopologySpread", &app("db")), None);
    world.state.snapshot.workloads.set_service("ns", "svc", None);
    assert_eq!(scores(&mut world, "PodTopologySpread", &app("web")), None);
}

#[test]
fn equal_nodes_fill_alike_and_reservations_count() {
    let mut world = World::new(&[node("a", "", "4", json!({})), node("b", "", "4", json!({}))], &[]);
    for i in 0..8 {
        world.pod(pod(&format!("p{i}"), cpu("1")));
    }
    let mut per_node = BTreeMap::new();
    while let Some(Ok(node)) = world.outcome() {
        *per_node.entry(node).or_insert(0) += 1;
    }
    assert_eq!(per_node.into_iter().collect::<Vec<_>>(), [("a".to_owned(), 4), ("b".to_owned(), 4)]);
    world.pod(pod("ninth", cpu("1")));
    assert!(world.outcome().unwrap().is_err(), "both nodes are full of reservations");
    // A finished pod frees its room and wakes the ninth.
    world.pod(pod("p0", both(cpu("1"), &json!({ "status": { "phase": "Succeeded" } }))));
    world.later(Duration::from_secs(1));
    assert!(world.outcome().unwrap().is_ok());
}

#[test]
fn zones_take_turns_when_not_all_nodes_are_looked_at() {
    let nodes: Vec<Node> =
        (0..200).map(|i| node(&format!("n{i:03}"), if i < 100 { "z1" } else { "z2" }, "4", json!({}))).collect();
    let world = world(&nodes, &[]);
    let zone = |slot: &usize| world.state.snapshot.node(*slot).labels[ZONE].clone();
    let zones: Vec<String> = world.state.snapshot.order()[..100].iter().map(zone).collect();
    assert_eq!(zones.iter().filter(|z| *z == "z1").count(), 50);
}
