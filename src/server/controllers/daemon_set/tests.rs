//! Golden plans of DaemonSets.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::client::request::{Class, Verb};
use crate::server::controllers::action::{Failure, Write};

const NOW: &str = "2026-01-02T00:00:00Z";

/// What a case starts from; the fields are changed at will.
struct Case {
    set: Value,
    nodes: Vec<Value>,
    pods: Vec<Value>,
    revisions: Vec<Value>,
    failed: Backoff,
    failure: Option<Failure>,
    now: &'static str,
}

/// A DaemonSet on nodes `n1`, `n2`… with an available pod of the current revision, `now`, on each.
fn settled(nodes: usize) -> Case {
    let mut case = Case {
        set: json!({
            "metadata": { "name": "d", "namespace": "ns", "uid": "d", "generation": 2, "resourceVersion": "7",
                "annotations": { "deprecated.daemonset.template.generation": "2" } },
            "spec": { "selector": { "matchLabels": { "app": "a" } }, "revisionHistoryLimit": 1,
                "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1, "maxSurge": 0 } },
                "template": template("v2") },
        }),
        nodes: (1..=nodes).map(|i| json!({ "metadata": { "name": format!("n{i}") } })).collect(),
        pods: (1..=nodes).map(|i| pod(&format!("p{i}"), &format!("n{i}"), "now")).collect(),
        revisions: vec![revision("v1", "old", 1), revision("v2", "now", 2)],
        failed: Backoff::default(),
        failure: None,
        now: NOW,
    };
    case.set["status"] = status(nodes, nodes, nodes);
    case
}

fn template(image: &str) -> Value {
    json!({ "metadata": { "labels": { "app": "a" } }, "spec": { "containers": [{ "name": "c", "image": image }] } })
}

fn status(desired: usize, updated: usize, available: usize) -> Value {
    json!({ "desiredNumberScheduled": desired, "currentNumberScheduled": desired, "numberMisscheduled": 0,
        "numberReady": available, "updatedNumberScheduled": updated, "numberAvailable": available,
        "numberUnavailable": desired - available, "observedGeneration": 2 })
}

fn reference() -> Value {
    json!([{ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "d", "controller": true,
        "blockOwnerDeletion": true }])
}

fn revision(image: &str, hash: &str, number: i64) -> Value {
    let mut template = template(image);
    template["$patch"] = "replace".into();
    json!({
        "metadata": { "name": format!("d-{hash}"), "namespace": "ns", "uid": hash, "ownerReferences": reference(),
            "labels": { "app": "a", "controller-revision-hash": hash } },
        "data": { "spec": { "template": template } },
        "revision": number,
    })
}

/// A pod that has been ready for long.
fn pod(name: &str, node: &str, hash: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "ns", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": { "app": "a", "controller-revision-hash": hash }, "ownerReferences": reference() },
        "spec": { "nodeName": node, "containers": [] },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:00Z" }] },
    })
}

fn with(mut object: Value, more: &Value) -> Value {
    json_patch::merge(&mut object, more);
    object
}

fn unready(object: Value) -> Value {
    with(object, &json!({ "status": { "conditions": null } }))
}

fn pending(name: &str, node: &str) -> Value {
    let field = json!({ "key": "metadata.name", "operator": "In", "values": [node] });
    let required = json!({ "nodeSelectorTerms": [{ "matchFields": [field] }] });
    let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": required } });
    unready(with(pod(name, node, "now"), &json!({ "spec": { "nodeName": null, "affinity": affinity } })))
}

fn surging(mut case: Case, most: &Value) -> Case {
    case.set["spec"]["updateStrategy"]["rollingUpdate"] = json!({ "maxUnavailable": 0, "maxSurge": most });
    case
}

fn show_write(w: &Write) -> String {
    let (body, name) = (&w.request.body, &w.request.name);
    let node = &body["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    match (w.request.verb, w.request.resource.plural, w.request.subresource) {
        (Verb::Create, "pods", _) => {
            let node = node["nodeSelectorTerms"][0]["matchFields"][0]["values"][0].as_str().unwrap();
            format!("create on {node} of {}", body["metadata"]["labels"][HASH].as_str().unwrap())
        }
        (Verb::Create, kind, _) => format!("create {kind} {}", body["revision"]),
        (Verb::Delete, ..) => format!("delete {name}"),
        (Verb::StrategicPatch, ..) => {
            let released = body["metadata"]["ownerReferences"][0]["$patch"] == "delete";
            format!("{} {name}", if released { "release" } else { "adopt" })
        }
        (_, _, "status") if !body["status"]["collisionCount"].is_null() => {
            format!("collisions {}", body["status"]["collisionCount"])
        }
        (_, _, "status") => {
            let count = |field: &str| body["status"][field].as_i64().unwrap();
            let of =
                ["desiredNumberScheduled", "currentNumberScheduled", "numberMisscheduled", "updatedNumberScheduled"];
            let [desired, current, missed, updated] = of.map(count);
            format!("status {desired} {current} {missed} updated {updated} available {}", count("numberAvailable"))
        }
        _ if body["revision"].is_null() => format!("label {name} {}", body["metadata"]["labels"][HASH]),
        _ => format!("number {name} {}", body["revision"]),
    }
}

fn show(actions: &[Action]) -> Vec<String> {
    let one = |action: &Action| match action {
        Action::Write(w) => vec![show_write(w)],
        Action::SlowStart(all) => all.iter().map(show_write).collect(),
        Action::Event(note) => vec![note.reason.to_owned()],
        Action::Read(_) => panic!("it reads nothing"),
    };
    actions.iter().flat_map(one).collect()
}

fn arcs<T: serde::de::DeserializeOwned>(all: &[Value]) -> Vec<Arc<T>> {
    all.iter().map(|v| Arc::new(serde_json::from_value(v.clone()).unwrap())).collect()
}

fn run(case: &mut Case) -> Plan {
    let observed = Observed {
        set: Arc::new(serde_json::from_value(case.set.clone()).unwrap()),
        nodes: arcs(&case.nodes),
        pods: arcs(&case.pods),
        revisions: arcs(&case.revisions),
    };
    let moment = Moment { now: case.now.parse::<Timestamp>().unwrap(), failure: case.failure.as_ref() };
    plan(&observed, &mut case.failed, moment)
}

fn check(mut case: Case, want: &[&str]) -> Plan {
    let plan = run(&mut case);
    assert_eq!(show(&plan.actions), want);
    plan
}

#[test]
fn each_node_that_it_runs_on_has_one_pod() {
    check(settled(2), &[]);
    let mut case = settled(2);
    case.pods.clear();
    check(case, &["create on n1 of now", "create on n2 of now", "status 2 0 0 updated 0 available 0"]);
    let mut case = settled(2);
    case.pods[1] = pending("p2", "n2");
    check(case, &["status 2 2 0 updated 2 available 1"]);
    // The one that is scheduled stays, then the oldest.
    let mut case = settled(1);
    let younger = json!({ "metadata": { "creationTimestamp": "2026-01-01T00:00:01Z" } });
    case.pods.extend([with(pod("a", "n1", "now"), &younger), pending("b", "n1")]);
    check(case, &["delete a", "delete b"]);
    // One that goes is replaced when it is gone.
    let mut case = settled(1);
    case.pods[0]["metadata"]["deletionTimestamp"] = NOW.into();
    check(case, &[]);
    let mut case = settled(1);
    case.pods[0] = with(
        case.pods[0].clone(),
        &json!({ "metadata": { "deletionTimestamp": NOW, "finalizers": ["f"] },
        "status": { "phase": "Succeeded" } }),
    );
    check(case, &["create on n1 of now", "status 1 0 0 updated 0 available 0"]);
}

#[test]
fn pods_leave_nodes_that_they_should_not_be_on() {
    let taint = |effect: &str| json!({ "spec": { "taints": [{ "key": "k", "effect": effect }] } });
    let mut case = settled(2);
    case.nodes[1] = with(case.nodes[1].clone(), &taint("NoSchedule"));
    check(case, &["status 1 1 1 updated 1 available 1"]);
    let mut case = settled(2);
    case.nodes[1] = with(case.nodes[1].clone(), &taint("NoExecute"));
    check(case, &["delete p2", "status 1 1 1 updated 1 available 1"]);
    let mut case = settled(2);
    case.set["spec"]["template"]["spec"]["nodeSelector"] = json!({ "disk": "fast" });
    case.nodes[0]["metadata"]["labels"] = json!({ "disk": "fast" });
    case.revisions[1]["data"]["spec"]["template"]["spec"]["nodeSelector"] = json!({ "disk": "fast" });
    check(case, &["delete p2", "status 1 1 1 updated 1 available 1"]);
    // Of a node that is gone, nobody else removes what was never scheduled.
    let mut case = settled(1);
    case.pods.extend([pod("p2", "gone", "now"), pending("p3", "gone")]);
    check(case, &["delete p3"]);
}

#[test]
fn failed_pods_are_remade_ever_more_slowly() {
    let mut case = settled(1);
    case.pods[0]["status"] = json!({ "phase": "Failed" });
    let plan = run(&mut case);
    assert_eq!(show(&plan.actions), ["FailedDaemonPod", "delete p1", "status 1 1 0 updated 1 available 0"]);
    let Action::Event(note) = &plan.actions[0] else { panic!("{plan:?}") };
    assert_eq!(note.message, "Found failed daemon pod ns/p1 on node n1, will try to kill it");
    assert!(note.warning && note.component == "daemonset-controller");
    // The next one fails at once.
    case.pods[0]["metadata"]["name"] = "p2".into();
    case.set["status"] = status(1, 1, 0);
    let plan = run(&mut case);
    assert_eq!((show(&plan.actions), plan.again), (vec![], Some(std::time::Duration::from_secs(1))));
    case.now = "2026-01-02T00:00:01Z";
    assert_eq!(show(&run(&mut case).actions), ["FailedDaemonPod", "delete p2"]);
    assert_eq!(run(&mut case).again, Some(std::time::Duration::from_secs(2)));

    let mut case = settled(1);
    case.pods[0]["status"] = json!({ "phase": "Succeeded" });
    check(case, &["SucceededDaemonPod", "delete p1", "status 1 1 0 updated 1 available 0"]);
}

#[test]
fn old_pods_give_way_as_far_as_may_be_unavailable() {
    let old = |case: &mut Case| case.pods.iter_mut().for_each(|p| p["metadata"]["labels"][HASH] = "old".into());
    let mut case = settled(3);
    old(&mut case);
    check(case, &["delete p1", "status 3 3 0 updated 0 available 3"]);
    let mut case = settled(3);
    old(&mut case);
    case.set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = "50%".into();
    check(case, &["delete p1", "delete p2", "status 3 3 0 updated 0 available 3"]);
    // Those that serve nobody go at once, and count.
    let mut case = settled(3);
    old(&mut case);
    case.pods[1] = unready(case.pods[1].clone());
    check(case, &["delete p2", "status 3 3 0 updated 0 available 2"]);
    // A new one that is not available yet holds the others up.
    let mut case = settled(3);
    old(&mut case);
    case.pods[0] = unready(pod("p1", "n1", "now"));
    check(case, &["status 3 3 0 updated 1 available 2"]);
    // What is missing comes first.
    let mut case = settled(3);
    old(&mut case);
    case.pods.remove(0);
    check(case, &["create on n1 of now", "status 3 2 0 updated 0 available 2"]);
    let mut case = settled(3);
    old(&mut case);
    case.set["spec"]["updateStrategy"] = json!({ "type": "OnDelete" });
    case.set["status"] = status(3, 0, 3);
    check(case, &[]);
}

#[test]
fn new_pods_come_beside_old_ones_where_a_surge_is_allowed() {
    let old = |nodes: usize| {
        let mut case = surging(settled(nodes), &json!(1));
        case.pods.iter_mut().for_each(|p| p["metadata"]["labels"][HASH] = "old".into());
        case.set["status"] = status(nodes, 0, nodes);
        case
    };
    check(old(2), &["create on n1 of now"]);
    // While the new one starts, no other does.
    let mut case = old(2);
    case.pods.push(unready(pod("q1", "n1", "now")));
    check(case, &[]);
    // With it the old one goes; then the next node.
    let mut case = old(2);
    case.pods.push(pod("q1", "n1", "now"));
    check(case, &["delete p1"]);
    let mut case = old(2);
    case.pods[0] = pod("q1", "n1", "now");
    case.set["status"] = status(2, 1, 2);
    check(case, &["create on n2 of now"]);
    // Where the old one serves nobody, the new one comes at once; and the old one goes with it.
    let mut case = old(3);
    case.pods[2] = unready(case.pods[2].clone());
    case.set["status"] = status(3, 0, 2);
    check(case, &["create on n3 of now", "create on n1 of now"]);
    let mut case = old(1);
    case.pods[0] = unready(case.pods[0].clone());
    case.pods.push(unready(pod("q1", "n1", "now")));
    case.set["status"] = status(1, 0, 0);
    check(case, &["delete p1"]);
    // No more than one of each kind.
    let mut case = old(1);
    case.pods.extend([unready(pod("q1", "n1", "now")), unready(pod("q2", "n1", "now")), pod("p9", "n1", "old")]);
    check(case, &["delete q2", "delete p9"]);
    // A node that it should leave keeps its old pod until enough others are available.
    let leaving = |available: bool| {
        let mut case = old(2);
        case.nodes[1]["spec"] = json!({ "taints": [{ "key": "k", "effect": "NoSchedule" }] });
        let new = pod("q1", "n1", "now");
        case.pods[0] = if available { new } else { unready(new) };
        let counts = json!({ "numberMisscheduled": 1 });
        case.set["status"] = with(status(1, 1, usize::from(available)), &counts);
        case
    };
    check(leaving(true), &["delete p2"]);
    check(leaving(false), &[]);
}

#[test]
fn templates_are_kept_as_revisions() {
    let mut case = settled(1);
    case.set["spec"]["template"] = template("v3");
    let plan = run(&mut case);
    let Action::Write(made) = &plan.actions[0] else { panic!("{plan:?}") };
    let hash = made.request.body["metadata"]["labels"][HASH].as_str().unwrap().to_owned();
    assert_eq!(made.request.body["metadata"]["name"], format!("d-{hash}"));
    assert_eq!(made.request.body["metadata"]["ownerReferences"], reference());
    // The one that pods live of counts against the limit of one, so that the other goes.
    let want = ["create controllerrevisions 3", "delete p1", "delete d-old", "status 1 1 0 updated 0 available 1"];
    assert_eq!(show(&plan.actions), want);
    // The name belongs to another.
    let mut taken = revision("v9", &hash, 9);
    taken["metadata"]["ownerReferences"][0]["uid"] = "other".into();
    case.revisions.push(taken);
    check(case, &["collisions 1"]);
    // Back to the template before.
    let mut case = settled(1);
    case.set["spec"]["template"] = template("v1");
    check(case, &["number d-old 3", "delete p1", "status 1 1 0 updated 0 available 1"]);
    // Another of the same template: one stays.
    let mut case = settled(2);
    case.revisions.push(revision("v2", "twin", 3));
    case.revisions[0]["metadata"]["labels"] = json!({ "app": "a" });
    check(case, &["label d-old \"d-old\""]);
    let mut case = settled(2);
    case.revisions.push(revision("v2", "twin", 3));
    check(case, &["label p1 \"twin\"", "label p2 \"twin\"", "delete d-now"]);
    let mut case = settled(1);
    case.revisions[0]["metadata"]["ownerReferences"] = Value::Null;
    check(case, &["adopt d-old"]);
}

#[test]
fn pods_are_adopted_and_released() {
    let mut case = settled(1);
    case.pods[0]["metadata"]["ownerReferences"] = Value::Null;
    check(case, &["adopt p1"]);
    let mut case = settled(1);
    case.pods[0]["metadata"]["labels"]["app"] = "b".into();
    check(case, &["release p1"]);
    let mut case = settled(1);
    case.set["metadata"]["deletionTimestamp"] = NOW.into();
    case.pods.clear();
    check(case, &[]);
    let mut case = settled(1);
    case.set["spec"]["selector"] = json!({});
    check(case, &["SelectingAll"]);
}

#[test]
fn availability_is_waited_for_and_failures_do_not_hide_the_counts() {
    let mut case = settled(1);
    case.set["spec"]["minReadySeconds"] = json!(60);
    case.now = "2026-01-01T00:00:20Z";
    let plan = check(case, &["status 1 1 0 updated 1 available 0"]);
    assert_eq!(plan.again, Some(std::time::Duration::from_secs(40)));
    let mut case = settled(300);
    case.pods.clear();
    case.failure = Some(Failure { class: Class::Permanent, message: "quota".into() });
    let plan = run(&mut case);
    let [Action::Write(status), Action::SlowStart(pods)] = &plan.actions[..] else { panic!("{plan:?}") };
    assert_eq!((status.request.subresource, pods.len()), ("status", BURST));
    let tells = |w: &Write| {
        (w.report.as_ref().unwrap().ok.as_ref().unwrap().0, w.request.body["spec"]["tolerations"].is_array())
    };
    assert_eq!(tells(&pods[0]), ("SuccessfulCreate", true));
}

#[test]
fn heartbeats_of_nodes_concern_no_daemon_set() {
    let store = Store::new(row("apps/daemonsets"));
    let mut fast = settled(0).set;
    fast["metadata"]["name"] = "fast".into();
    fast["spec"]["template"]["spec"]["nodeSelector"] = json!({ "disk": "fast" });
    for set in [settled(0).set, fast] {
        store.put(serde_json::from_value(set).unwrap());
    }
    let node = |more: Value| -> Arc<Node> {
        Arc::new(serde_json::from_value(with(json!({ "metadata": { "name": "n" } }), &more)).unwrap())
    };
    let check = |old: Option<&Arc<Node>>, new: Option<&Arc<Node>>, want: &[&str]| {
        let found = concerned(&store, &Change { old, new });
        let names: Vec<_> = found.iter().map(|s| s.metadata.name()).collect();
        assert_eq!(names, want, "{old:?} {new:?}");
    };
    let plain = node(json!({}));
    let beat = node(json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }));
    let fast = node(json!({ "metadata": { "labels": { "disk": "fast" } } }));
    let named = node(json!({ "metadata": { "labels": { "name": "n" } } }));
    let tainted = node(json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } }));
    let unready =
        node(json!({ "spec": { "taints": [{ "key": "node.kubernetes.io/not-ready", "effect": "NoExecute" }] } }));
    check(None, Some(&plain), &["d"]);
    check(None, Some(&fast), &["d", "fast"]);
    check(Some(&plain), Some(&beat), &[]);
    check(Some(&plain), Some(&named), &[]);
    check(Some(&plain), Some(&fast), &["fast"]);
    check(Some(&plain), Some(&tainted), &["d"]);
    check(Some(&plain), Some(&unready), &[]);
    check(Some(&fast), None, &["d", "fast"]);
}
