//! Tables of what the scheduler plans for pods and nodes.

use serde_json::{Value, json};

use super::*;
use crate::clock;

fn node(name: &str, cpu: &str, more: Value) -> Node {
    let mut value = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "status": { "allocatable": { "cpu": cpu, "memory": "4Gi", "pods": "110", "ephemeral-storage": "10Gi" } },
    });
    if let Some(spec) = more.as_object().filter(|m| !m.is_empty()) {
        value["spec"] = Value::Object(spec.clone());
    }
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str, spec: Value) -> Pod {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{ "name": "c" }]);
    }
    serde_json::from_value(json!({
        "metadata": { "name": name, "namespace": "ns", "uid": name,
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs",
                "controller": true }] },
        "spec": spec,
    }))
    .unwrap()
}

fn cpu(amount: &str) -> Value {
    json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": amount } } }] })
}

/// Where the pod goes, or why nowhere.
fn check(nodes: &[Node], before: &[Pod], pod_spec: Value, want: Result<&str, &str>) {
    let mut state = State::default();
    let now = clock::instant();
    for n in nodes {
        state.observe_node(n.clone(), now);
    }
    for p in before {
        state.observe_pod(p.clone(), now);
    }
    let shown = pod_spec.to_string();
    state.observe_pod(pod("new", pod_spec), now);
    let got = match state.attempt(now) {
        Some(Attempt::Place { node, .. }) => Ok(node),
        Some(Attempt::Refused { message, .. }) => Err(message),
        None => panic!("{shown}: no attempt"),
    };
    assert_eq!(got.as_deref().map_err(String::as_str), want, "{shown}");
}

const UNHELPFUL: &str = "1 Preemption is not helpful for scheduling.";
const NO_VICTIMS: &str = "1 No preemption victims found for incoming pod.";

fn refusal(reasons: &str, preemption: &str) -> String {
    format!(
        "0/1 nodes are available: {reasons}. no new claims to deallocate, preemption: 0/1 nodes are available: \
         {preemption}"
    )
}

#[test]
fn one_node_one_constraint() {
    let taint = json!({ "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] });
    let plain = || node("a", "2", json!({}));
    let port = json!({ "containers": [{ "name": "c", "ports": [{ "containerPort": 80, "hostPort": 80 }] }] });
    let other_ip = json!({ "containers": [{ "name": "c",
        "ports": [{ "containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.1" }] }] });
    let udp = json!({ "containers": [{ "name": "c",
        "ports": [{ "containerPort": 80, "hostPort": 80, "protocol": "UDP" }] }] });
    let on_a = |mut spec: Value| {
        spec["nodeName"] = "a".into();
        pod("old", spec)
    };
    check(&[], &[], json!({}), Err("no nodes available to schedule pods"));
    check(&[plain()], &[], json!({}), Ok("a"));
    check(&[plain()], &[], cpu("2"), Ok("a"));
    check(&[plain()], &[], cpu("2001m"), Err(&refusal("1 Insufficient cpu", UNHELPFUL)));
    check(&[plain()], &[on_a(cpu("1"))], cpu("1001m"), Err(&refusal("1 Insufficient cpu", NO_VICTIMS)));
    let gpu = json!({ "containers": [{ "name": "c", "resources": { "requests": { "ex.com/gpu": "1" } } }] });
    check(&[plain()], &[], gpu, Err(&refusal("1 Insufficient ex.com/gpu", UNHELPFUL)));
    let cordoned = node("a", "2", json!({ "unschedulable": true }));
    check(&[cordoned], &[], json!({}), Err(&refusal("1 node(s) were unschedulable", UNHELPFUL)));
    let tainted = node("a", "2", taint);
    let untolerated = refusal("1 node(s) had untolerated taint(s)", UNHELPFUL);
    check(std::slice::from_ref(&tainted), &[], json!({}), Err(&untolerated));
    check(
        std::slice::from_ref(&tainted),
        &[],
        json!({ "tolerations": [{ "key": "k", "value": "x" }] }),
        Err(&untolerated),
    );
    check(std::slice::from_ref(&tainted), &[], json!({ "tolerations": [{ "key": "k", "value": "v" }] }), Ok("a"));
    check(&[tainted], &[], json!({ "tolerations": [{ "operator": "Exists" }] }), Ok("a"));
    let affinity = refusal("1 node(s) didn't match Pod's node affinity/selector", UNHELPFUL);
    check(&[plain()], &[], json!({ "nodeSelector": { "disk": "ssd" } }), Err(&affinity));
    check(&[plain()], &[], json!({ "nodeSelector": { "kubernetes.io/hostname": "a" } }), Ok("a"));
    let field = |value: &str| {
        json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution":
        { "nodeSelectorTerms": [{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [value] }] }] } } } })
    };
    check(&[plain()], &[], field("a"), Ok("a"));
    check(&[plain()], &[], field("b"), Err(&affinity));
    let ports = refusal("1 node(s) didn't have free ports for the requested pod ports", NO_VICTIMS);
    check(&[plain()], &[on_a(port.clone())], port.clone(), Err(&ports));
    check(&[plain()], &[on_a(port.clone())], other_ip, Err(&ports));
    check(&[plain()], &[on_a(port)], udp, Ok("a"));
}

#[test]
fn reasons_are_counted_over_nodes() {
    let tainted = node("a", "2", json!({ "taints": [{ "key": "k", "effect": "NoExecute" }] }));
    let want = "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. no new claims to \
        deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.";
    check(&[tainted, node("b", "1", json!({})), node("c", "1", json!({}))], &[], cpu("100"), Err(want));
}

#[test]
fn pods_of_one_owner_spread_and_reservations_count() {
    let mut state = State::default();
    let now = clock::instant();
    state.observe_node(node("a", "4", json!({})), now);
    state.observe_node(node("b", "4", json!({})), now);
    for i in 0..8 {
        state.observe_pod(pod(&format!("p{i}"), cpu("1")), now);
    }
    let mut per_node = std::collections::BTreeMap::new();
    while let Some(Attempt::Place { node, .. }) = state.attempt(now) {
        *per_node.entry(node).or_insert(0) += 1;
    }
    assert_eq!(per_node.into_iter().collect::<Vec<_>>(), [("a".to_owned(), 4), ("b".to_owned(), 4)]);
    state.observe_pod(pod("ninth", cpu("1")), now);
    assert!(matches!(state.attempt(now), Some(Attempt::Refused { .. })), "both nodes are full of reservations");
    // A finished pod frees its room and wakes the ninth.
    let mut done = pod("p0", cpu("1"));
    done.status = serde_json::from_value(json!({ "phase": "Succeeded" })).unwrap();
    state.observe_pod(done, now);
    let later = now + std::time::Duration::from_secs(1);
    assert!(matches!(state.attempt(later), Some(Attempt::Place { .. })));
}

#[test]
fn others_pods_and_gated_pods_wait() {
    let mut state = State::default();
    let now = clock::instant();
    state.observe_node(node("a", "4", json!({})), now);
    state.observe_pod(pod("other", json!({ "schedulerName": "mine" })), now);
    state.observe_pod(pod("gated", json!({ "schedulingGates": [{ "name": "g" }] })), now);
    assert!(state.attempt(now).is_none());
    state.observe_pod(pod("gated", json!({})), now);
    assert!(matches!(state.attempt(now), Some(Attempt::Place { .. })), "gate removed");
}

#[test]
fn a_failed_binding_gives_its_room_back_and_is_tried_again() {
    let mut state = State::default();
    let now = clock::instant();
    state.observe_node(node("a", "1", json!({})), now);
    state.observe_pod(pod("p", cpu("1")), now);
    assert!(matches!(state.attempt(now), Some(Attempt::Place { .. })));
    // The condition we wrote earlier, seen late, must not make it pending again.
    state.observe_pod(pod("p", cpu("1")), now);
    assert!(state.attempt(now).is_none());
    state.unbound("p", now);
    assert!(state.attempt(now).is_none(), "backs off first");
    let later = now + std::time::Duration::from_secs(1);
    assert!(matches!(state.attempt(later), Some(Attempt::Place { .. })));
}
