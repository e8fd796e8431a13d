//! One pod, a few nodes: where it goes, or upstream's words for why not.

use super::*;

/// Where the pod goes, or why nowhere.
fn check(nodes: &[Node], before: &[Pod], change: Value, want: Result<&str, &str>) {
    let shown = change.to_string();
    let mut world = World::new(nodes, before);
    world.pod(pod("new", change));
    let got = world.outcome().expect("an attempt");
    assert_eq!(got.as_deref().map_err(String::as_str), want, "{shown}");
}

const UNHELPFUL: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

/// What is told of one node.
fn refusal(reason: &str, preemption: &str) -> String {
    format!(
        "0/1 nodes are available: 1 {reason}. no new claims to deallocate, preemption: 0/1 nodes are available: \
         1 {preemption}."
    )
}

fn plain() -> Node {
    node("a", "z", "2", json!({}))
}

fn tainted(effect: &str) -> Node {
    node("a", "z", "2", json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": effect }] } }))
}

#[test]
fn what_fits_goes_and_no_nodes_are_none() {
    check(&[], &[], json!({}), Err("no nodes available to schedule pods"));
    check(&[plain()], &[], json!({}), Ok("a"));
    check(&[plain()], &[], cpu("2"), Ok("a"));
}

#[test]
fn resources() {
    let on_a = |change: Value| pod("old", on("a", change));
    check(&[plain()], &[], cpu("2001m"), Err(&refusal("Insufficient cpu", UNHELPFUL)));
    check(&[plain()], &[on_a(cpu("1"))], cpu("1001m"), Err(&refusal("Insufficient cpu", NO_VICTIMS)));
    let gpu = json!({ "spec": { "containers":
        [{ "name": "c", "resources": { "requests": { "ex.com/gpu": "1" } } }] } });
    check(&[plain()], &[], gpu.clone(), Err(&refusal("Insufficient ex.com/gpu", UNHELPFUL)));
    let with_gpu = node("a", "z", "2", json!({ "status": { "allocatable": { "ex.com/gpu": "1" } } }));
    check(std::slice::from_ref(&with_gpu), &[], gpu.clone(), Ok("a"));
    check(&[with_gpu], &[on_a(gpu.clone())], gpu, Err(&refusal("Insufficient ex.com/gpu", NO_VICTIMS)));
    let small = node("a", "z", "2", json!({ "status": { "allocatable": { "pods": "1" } } }));
    check(&[small], &[on_a(json!({}))], json!({}), Err(&refusal("Too many pods", NO_VICTIMS)));
    // A resize that the node has not done yet counts with the larger.
    let status = json!({ "name": "c", "ready": true, "restartCount": 0, "image": "", "imageID": "",
        "resources": { "requests": { "cpu": "1500m" } } });
    let shrinking = both(cpu("1"), &json!({ "status": { "containerStatuses": [status] } }));
    check(&[plain()], &[on_a(shrinking)], cpu("1"), Err(&refusal("Insufficient cpu", NO_VICTIMS)));
    // A finished pod takes nothing.
    let done = both(cpu("2"), &json!({ "status": { "phase": "Succeeded" } }));
    check(&[plain()], &[on_a(done)], cpu("2"), Ok("a"));
}

#[test]
fn cordons_and_taints() {
    let cordoned = || node("a", "z", "2", json!({ "spec": { "unschedulable": true } }));
    let tolerating = |toleration: Value| json!({ "spec": { "tolerations": [toleration] } });
    check(&[cordoned()], &[], json!({}), Err(&refusal("node(s) were unschedulable", UNHELPFUL)));
    let key = "node.kubernetes.io/unschedulable";
    check(&[cordoned()], &[], tolerating(json!({ "key": key, "operator": "Exists" })), Ok("a"));
    let untolerated = refusal("node(s) had untolerated taint(s)", UNHELPFUL);
    for effect in ["NoSchedule", "NoExecute"] {
        check(&[tainted(effect)], &[], json!({}), Err(&untolerated));
    }
    check(&[tainted("PreferNoSchedule")], &[], json!({}), Ok("a"));
    check(&[tainted("NoSchedule")], &[], tolerating(json!({ "key": "k", "value": "x" })), Err(&untolerated));
    check(&[tainted("NoSchedule")], &[], tolerating(json!({ "key": "k", "value": "v" })), Ok("a"));
    check(&[tainted("NoSchedule")], &[], tolerating(json!({ "operator": "Exists" })), Ok("a"));
}

#[test]
fn node_affinity() {
    let affinity = refusal("node(s) didn't match Pod's node affinity/selector", UNHELPFUL);
    let selector = |key: &str, value: &str| json!({ "spec": { "nodeSelector": { key: value } } });
    check(&[plain()], &[], selector("disk", "ssd"), Err(&affinity));
    check(&[plain()], &[], selector(HOSTNAME, "a"), Ok("a"));
    let terms = |terms: Value| {
        json!({ "spec": { "affinity": { "nodeAffinity":
            { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } } } })
    };
    let named = |names: &[&str]| {
        let fields: Vec<Value> =
            names.iter().map(|n| json!({ "key": "metadata.name", "operator": "In", "values": [n] })).collect();
        json!({ "matchFields": fields })
    };
    check(&[plain()], &[], terms(json!([named(&["a"])])), Ok("a"));
    // Only the nodes that are named are looked at.
    let elsewhere = refusal("node(s) didn't satisfy plugin(s) [NodeAffinity]", UNHELPFUL);
    check(&[plain()], &[], terms(json!([named(&["b"])])), Err(&elsewhere));
    check(
        &[plain(), node("b", "z", "1", json!({}))],
        &[],
        both(terms(json!([named(&["b"])])), &cpu("2")),
        Err("0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't satisfy plugin(s) [NodeAffinity]. no new \
             claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."),
    );
    check(
        &[plain()],
        &[],
        terms(json!([named(&["a", "b"])])),
        Err(
            "0/1 nodes are available: pod affinity terms conflict. no new claims to deallocate, preemption: 0/1 nodes \
             are available: 1 Preemption is not helpful for scheduling.",
        ),
    );
    let exists = json!({ "matchExpressions": [{ "key": ZONE, "operator": "Exists" }] });
    check(&[plain()], &[], terms(json!([named(&["b"]), exists])), Ok("a"));
}

#[test]
fn host_ports() {
    let port = |more: Value| {
        let port = both(json!({ "containerPort": 80, "hostPort": 80 }), &more);
        json!({ "spec": { "containers": [{ "name": "c", "ports": [port] }] } })
    };
    let taken = [pod("old", on("a", port(json!({}))))];
    let ports = refusal("node(s) didn't have free ports for the requested pod ports", NO_VICTIMS);
    check(&[plain()], &taken, port(json!({})), Err(&ports));
    check(&[plain()], &taken, port(json!({ "hostIP": "127.0.0.1" })), Err(&ports));
    check(&[plain()], &taken, port(json!({ "protocol": "UDP" })), Ok("a"));
    let local = [pod("old", on("a", port(json!({ "hostIP": "127.0.0.1" }))))];
    check(&[plain()], &local, port(json!({ "hostIP": "127.0.0.2" })), Ok("a"));
}

#[test]
fn affinity_to_pods() {
    let nodes = [node("a", "z1", "4", json!({})), node("b", "z2", "4", json!({}))];
    let web = |node: &str| pod("web", on(node, app("web")));
    let two = |reason: &str, preemption: &str| {
        format!(
            "0/2 nodes are available: {reason}. no new claims to deallocate, preemption: 0/2 nodes are available: \
             {preemption}."
        )
    };
    let rules = two("2 node(s) didn't match pod affinity rules", &format!("2 {UNHELPFUL}"));
    check(&nodes, &[web("b")], near("web", ZONE), Ok("b"));
    check(&nodes, &[], near("web", ZONE), Err(&rules));
    // The first of a group goes anywhere with the label, and its second to it.
    check(&nodes, &[], both(near("web", ZONE), &app("web")), Ok("b"));
    check(&nodes, &[web("a")], both(near("web", ZONE), &app("web")), Ok("a"));
    check(&nodes, &[], both(near("web", "rack"), &app("web")), Err(&rules));
    // Other namespaces only when asked for.
    let other = |label: Value| both(on("a", app("web")), &json!({ "metadata": { "namespace": label } }));
    let in_namespace = |field: &str, value: Value| {
        let mut one = term("web", ZONE);
        one[field] = value;
        json!({ "spec": { "affinity":
            { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [one] } } } })
    };
    check(&nodes, &[pod("o", other(json!("other")))], near("web", ZONE), Err(&rules));
    check(&nodes, &[pod("o", other(json!("other")))], in_namespace("namespaces", json!(["other"])), Ok("a"));
    check(&nodes, &[pod("o", other(json!("other")))], in_namespace("namespaceSelector", json!({})), Ok("a"));
    let labelled = json!({ "matchLabels": { "team": "x" } });
    check(&nodes, &[pod("o", other(json!("other")))], in_namespace("namespaceSelector", labelled), Err(&rules));
}

#[test]
fn anti_affinity_counts_both_ways() {
    let nodes = [node("a", "z1", "4", json!({})), node("b", "z1", "4", json!({}))];
    let web = pod("web", on("a", app("web")));
    let shy = pod("shy", on("a", both(app("db"), &apart("web", ZONE))));
    let both_nodes = |reason: &str| {
        format!(
            "0/2 nodes are available: 2 {reason}. no new claims to deallocate, preemption: 0/2 nodes are available: \
             2 {NO_VICTIMS}."
        )
    };
    check(&nodes, std::slice::from_ref(&web), apart("web", HOSTNAME), Ok("b"));
    let rules = format!(
        "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules. no new claims to deallocate, \
         preemption: 0/2 nodes are available: 1 {NO_VICTIMS}, 1 node(s) didn't match pod anti-affinity rules."
    );
    let lesser = pod("lesser", on("b", json!({ "spec": { "priority": -1 } })));
    check(&nodes, &[web, lesser], apart("web", ZONE), Err(&rules));
    let existing = both_nodes("node(s) didn't satisfy existing pods anti-affinity rules");
    check(&nodes, std::slice::from_ref(&shy), app("web"), Err(&existing));
    check(&nodes, &[shy], app("cache"), Ok("b"));
    // A node that lacks the label is far from everyone.
    let no_zone = [node("a", "z1", "4", json!({})), node("c", "", "4", json!({}))];
    check(&no_zone, &[pod("web", on("a", app("web")))], apart("web", ZONE), Ok("c"));
}

#[test]
fn topology_spread() {
    let nodes = [node("a", "z1", "4", json!({})), node("b", "z2", "4", json!({}))];
    let web = |name: &str, node: &str| pod(name, on(node, app("web")));
    let hard = |more: Value| both(app("web"), &spread("web", ZONE, more));
    check(&nodes, &[web("1", "a")], hard(json!({})), Ok("b"));
    check(&nodes, &[web("1", "a"), web("2", "b"), web("3", "b")], hard(json!({})), Ok("a"));
    // One that is going does not count.
    let going = both(on("a", app("web")), &json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }));
    check(&nodes, &[pod("1", going), web("2", "b")], hard(json!({})), Ok("a"));
    let one = [node("a", "z1", "4", json!({}))];
    let constraints = "node(s) didn't match pod topology spread constraints";
    check(&one, &[web("1", "a")], hard(json!({})), Ok("a"));
    check(&one, &[web("1", "a")], hard(json!({ "minDomains": 2 })), Err(&refusal(constraints, NO_VICTIMS)));
    let unlabelled = [node("a", "", "4", json!({}))];
    let missing = format!("{constraints} (missing required label)");
    check(&unlabelled, &[], hard(json!({})), Err(&refusal(&missing, UNHELPFUL)));
    // An empty domain where the pod cannot go does not hold it up, unless it is to count.
    let picky = |more: Value| both(hard(more), &json!({ "spec": { "nodeSelector": { HOSTNAME: "a" } } }));
    let skew = format!(
        "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 {constraints}. no new claims \
         to deallocate, preemption: 0/2 nodes are available: 1 {NO_VICTIMS}, 1 {UNHELPFUL}."
    );
    check(&nodes, &[web("1", "a")], picky(json!({})), Ok("a"));
    check(&nodes, &[web("1", "a")], picky(json!({ "nodeAffinityPolicy": "Ignore" })), Err(&skew));
    let dirty = [node("a", "z1", "4", json!({})), {
        let taint = json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } });
        node("b", "z2", "4", taint)
    }];
    check(&dirty, &[web("1", "a")], hard(json!({ "nodeTaintsPolicy": "Honor" })), Ok("a"));
    let tainted = format!(
        "0/2 nodes are available: 1 {constraints}, 1 node(s) had untolerated taint(s). no new claims to deallocate, \
         preemption: 0/2 nodes are available: 1 {NO_VICTIMS}, 1 {UNHELPFUL}."
    );
    check(&dirty, &[web("1", "a")], hard(json!({})), Err(&tainted));
    // Keys narrow the selector: pods of another revision do not count.
    let revision = |n: &str| json!({ "metadata": { "labels": { "rev": n } } });
    let keyed = both(hard(json!({ "matchLabelKeys": ["rev"] })), &revision("2"));
    let old = pod("1", both(on("a", app("web")), &revision("1")));
    let new = pod("2", both(on("b", app("web")), &revision("2")));
    check(&nodes, &[old, new], keyed, Ok("a"));
}

#[test]
fn reasons_are_counted_over_nodes() {
    let tainted = node("a", "z", "2", json!({ "spec": { "taints": [{ "key": "k", "effect": "NoExecute" }] } }));
    let want = "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. no new claims to \
        deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.";
    check(&[tainted, node("b", "z", "1", json!({})), node("c", "z", "1", json!({}))], &[], cpu("100"), Err(want));
}

#[test]
fn others_pods_and_gated_pods_wait() {
    let mut world = World::new(&[plain()], &[]);
    world.pod(pod("other", json!({ "spec": { "schedulerName": "mine" } })));
    world.pod(pod("gated", json!({ "spec": { "schedulingGates": [{ "name": "g" }] } })));
    assert!(world.attempt().is_none());
    world.pod(pod("gated", json!({})));
    assert_eq!(world.outcome(), Some(Ok("a".into())), "gate removed");
}
