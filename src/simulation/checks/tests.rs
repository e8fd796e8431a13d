//! Tests: every check complains of a history that is wrong, and not of one that is nearly the same and right.

use serde_json::json;

use super::*;
use crate::simulation::random::Dice;

/// One thing that happens.
enum Step {
    Write(&'static str, &'static str, Value),
    Gone(&'static str, &'static str, &'static str),
    /// Longer than anything is excused.
    Pass,
}
use Step::{Gone, Pass, Write};

const PODS: &str = "pods";
const KUBELET: &str = "system:node:n1";

async fn wrong(history: Vec<Step>) -> Option<String> {
    let checks = Checks::new(Cache::new(), Weather::new(Dice::new(1), Arc::default()));
    for step in history {
        match step {
            Write(who, storage, object) => checks.write(who, storage, object),
            Gone(who, storage, name) => checks.remove(who, storage, name),
            Pass => tokio::time::advance(LAG + Duration::from_secs(1)).await,
        }
    }
    checks.wrong().map(|why| why.trim().to_owned())
}

async fn check(history: Vec<Step>, expect: &str) {
    assert_eq!(wrong(history).await.as_deref(), Some(expect));
}

async fn fine(history: Vec<Step>) {
    assert_eq!(wrong(history).await, None);
}

fn with(mut object: Value, more: &Value) -> Value {
    for (pointer, value) in more.as_object().unwrap() {
        let mut at = &mut object;
        for part in pointer.split('/').skip(1) {
            at = &mut at[part];
        }
        *at = value.clone();
    }
    object
}

fn of_app(name: &str, app: &str, more: &Value) -> Value {
    with(json!({ "metadata": { "name": name, "uid": name, "labels": { "app": app } } }), more)
}

fn node(cores: &str) -> Step {
    Write("user", "nodes", of_app("n1", "", &json!({ "/status/allocatable/cpu": cores })))
}

/// A pod that asks for CPU, of an owner.
fn pod(name: &str, app: &str, kind: &str, milli: i64) -> Value {
    let containers = json!([{ "resources": { "requests": { "cpu": format!("{milli}m") } } }]);
    let owners = if kind.is_empty() { Value::Null } else { json!([{ "kind": kind, "name": app }]) };
    of_app(name, app, &json!({ "/spec/containers": containers, "/metadata/ownerReferences": owners }))
}

fn on(pod: Value, node: &str) -> Value {
    with(pod, &json!({ "/spec/nodeName": node }))
}

fn ready(pod: Value) -> Value {
    with(pod, &json!({ "/status/conditions": [{ "type": "Ready", "status": "True" }], "/status/phase": "Running" }))
}

fn ending(object: Value) -> Value {
    with(object, &json!({ "/metadata/deletionTimestamp": "2026-01-01T00:00:00Z" }))
}

fn made(pod: Value) -> Step {
    Write(CONTROLLERS, PODS, pod)
}

fn bound(pod: Value) -> Step {
    Write(SCHEDULER, PODS, pod)
}

fn deployment(replicas: i64, surge: i64) -> Step {
    let rolling = json!({ "maxSurge": surge, "maxUnavailable": 0 });
    let spec = json!({ "replicas": replicas, "strategy": { "rollingUpdate": rolling } });
    Write("user", "apps/deployments", of_app("web", "web", &json!({ "/spec": spec })))
}

fn set(name: &str, replicas: i64) -> Step {
    Write(CONTROLLERS, "apps/replicasets", of_app(name, "web", &json!({ "/spec/replicas": replicas })))
}

#[tokio::test(start_paused = true)]
async fn too_many_pods() {
    fine(vec![deployment(3, 1), set("web-a", 3), set("web-b", 1)]).await;
    let why = "ReplicaSets of web ask for 5 pods, 4 are the limit";
    check(vec![deployment(3, 1), set("web-a", 3), set("web-b", 2)], why).await;
    // What was the limit until lately excuses who did not know better.
    fine(vec![deployment(5, 0), deployment(3, 0), set("web-a", 5)]).await;
    let why = "ReplicaSets of web ask for 5 pods, 3 are the limit";
    check(vec![deployment(5, 0), deployment(3, 0), Pass, set("web-a", 5)], why).await;

    let of_set = |name: &str| made(pod(name, "web", "ReplicaSet", 0));
    fine(vec![deployment(1, 0), set("web", 1), of_set("a")]).await;
    let why = "2 pods of web, which asked for Some(1)";
    check(vec![deployment(1, 0), set("web", 1), of_set("a"), of_set("b")], why).await;

    let job = || Write("user", "batch/jobs", of_app("work", "work", &json!({ "/spec/parallelism": 1 })));
    let of_job = |name: &str| made(pod(name, "work", "Job", 0));
    let over = || Write(KUBELET, PODS, with(pod("a", "work", "Job", 0), &json!({ "/status/phase": "Succeeded" })));
    fine(vec![job(), of_job("a"), over(), of_job("b")]).await;
    check(vec![job(), of_job("a"), of_job("b")], "2 pods of work, which asked for Some(1)").await;

    let daemons = || Write("user", "apps/daemonsets", of_app("agent", "agent", &json!({})));
    let of_daemons = |name: &str, node: &str| made(on(pod(name, "agent", "DaemonSet", 0), node));
    fine(vec![daemons(), of_daemons("a", "n1"), of_daemons("b", "n2")]).await;
    check(vec![daemons(), of_daemons("a", "n1"), of_daemons("b", "n1")], "2 pods of agent on n1").await;
}

#[tokio::test(start_paused = true)]
async fn pods_where_they_must_not_be() {
    let web = |name: &str| pod(name, "web", "", 1500);
    fine(vec![node("4"), made(web("a")), bound(on(web("a"), "n1")), made(web("b")), bound(on(web("b"), "n1"))]).await;
    check(
        vec![node("2"), made(web("a")), bound(on(web("a"), "n1")), made(web("b")), bound(on(web("b"), "n1"))],
        "pods on n1 ask for 3000 m of 2 cores",
    )
    .await;
    check(
        vec![node("4"), made(web("a")), bound(on(web("a"), "n1")), bound(on(web("a"), "n2"))],
        "a was on n1 and is on \"n2\"",
    )
    .await;
    let closed = || {
        let cordoned = json!({ "/spec/unschedulable": true, "/status/allocatable/cpu": "4" });
        Write("user", "nodes", of_app("n1", "", &cordoned))
    };
    fine(vec![node("4"), closed(), made(web("a")), bound(on(web("a"), "n1"))]).await;
    let why = "a was put on n1, which takes no pods";
    check(vec![node("4"), closed(), Pass, made(web("a")), bound(on(web("a"), "n1"))], why).await;
}

#[tokio::test(start_paused = true)]
async fn pods_that_should_have_stayed() {
    let alone = || on(pod("alone", "alone", "", 0), "n1");
    fine(vec![made(alone()), Write("user", PODS, ending(alone()))]).await;
    check(vec![made(alone()), made(ending(alone()))], "alone is nobody's, and was deleted").await;

    let web = |name: &str| ready(on(pod(name, "web", "ReplicaSet", 0), "n1"));
    let two = || vec![deployment(2, 1), set("web", 3), made(web("a")), made(web("b"))];
    let then = |more: Vec<Step>| two().into_iter().chain(more).collect::<Vec<_>>();
    fine(then(vec![made(web("c")), Pass, made(ending(web("a")))])).await;
    let why = "1 pods of web are left, at least 2 must be: a goes";
    check(then(vec![Pass, made(ending(web("a")))]), why).await;
    // Something has befallen the others.
    let lost = || Write(KUBELET, PODS, on(pod("b", "web", "ReplicaSet", 0), "n1"));
    fine(then(vec![Pass, lost(), made(ending(web("a")))])).await;

    let member = |name: &str| ready(on(pod(name, "db", "StatefulSet", 0), "n1"));
    let budget = |least: i64| {
        Write("user", "policy/poddisruptionbudgets", of_app("db", "db", &json!({ "/spec/minAvailable": least })))
    };
    let evicted = |least| {
        vec![budget(least), made(member("db-0")), made(member("db-1")), Write(DRAINER, PODS, ending(member("db-0")))]
    };
    fine(evicted(1)).await;
    check(evicted(2), "1 pods of db are left after db-0 was evicted, budget 2").await;
}

fn cron_job(policy: &str) -> Step {
    Write("user", "batch/cronjobs", of_app("tick", "", &json!({ "/spec/concurrencyPolicy": policy })))
}

fn started(name: &str, more: &Value) -> Step {
    let owners = json!([{ "kind": "CronJob", "name": "tick" }]);
    Write(CONTROLLERS, "batch/jobs", with(of_app(name, "", &json!({ "/metadata/ownerReferences": owners })), more))
}

#[tokio::test(start_paused = true)]
async fn jobs_of_schedules() {
    let none = json!({});
    let finished = json!({ "/status/conditions": [{ "type": "Complete", "status": "True" }] });
    let gone = json!({ "/metadata/deletionTimestamp": "2026-01-01T00:00:00Z" });
    let then = |policy: &str, more: Vec<Step>| {
        let first = vec![cron_job(policy), started("tick-1", &none), Pass, Pass];
        first.into_iter().chain(more).collect::<Vec<_>>()
    };
    fine(then("Allow", vec![started("tick-2", &none)])).await;
    fine(then("Forbid", vec![started("tick-1", &finished), started("tick-2", &none)])).await;
    fine(then("Replace", vec![started("tick-1", &gone), started("tick-2", &none)])).await;
    for policy in ["Forbid", "Replace"] {
        let why = format!("tick-2 is started beside tick-1: {policy}");
        check(then(policy, vec![started("tick-2", &none)]), &why).await;
    }
    let again = vec![Gone(CONTROLLERS, "batch/jobs", "tick-1"), started("tick-1", &none)];
    check(then("Allow", again), "tick-1 was started again").await;
    let why = "2 Jobs of tick in 0ns, the clock was set 0 times";
    check(vec![cron_job("Allow"), started("tick-1", &none), started("tick-2", &none)], why).await;
}

fn victim(pod: Value) -> Step {
    let condition = json!({ "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler" });
    bound(with(pod, &json!({ "/status/conditions": [condition] })))
}

fn of_priority(pod: Value, priority: i64) -> Value {
    with(pod, &json!({ "/spec/priority": priority }))
}

/// A more important pod that is to go to the node.
fn nominee(milli: i64) -> Step {
    let nominated = json!({ "/status/nominatedNodeName": "n1" });
    bound(with(of_priority(pod("high", "vip", "", milli), 10), &nominated))
}

/// Something comes to the node, when everybody on their way has come.
fn later() -> Vec<Step> {
    let last = || pod("last", "last", "", 0);
    vec![Pass, made(last()), bound(on(last(), "n1"))]
}

#[tokio::test(start_paused = true)]
async fn pods_that_were_put_out() {
    let low = |name: &str, milli: i64| on(of_priority(pod(name, name, "", milli), 0), "n1");
    let there = |cores: &str, lows: &[(&str, i64)]| {
        let all = lows.iter().flat_map(|(name, milli)| [made(pod(name, name, "", *milli)), bound(low(name, *milli))]);
        [node(cores)].into_iter().chain(all).chain([Pass]).collect::<Vec<_>>()
    };
    let then = |mut first: Vec<Step>, more: Vec<Step>| {
        first.extend(more);
        first.extend(later());
        first
    };
    fine(then(there("2", &[("v", 2000)]), vec![nominee(2000), victim(low("v", 2000))])).await;
    let why = "v is put out on n1 for nobody";
    check(then(there("2", &[("v", 2000)]), vec![victim(low("v", 2000))]), why).await;
    let equal = || with(pod("equal", "e", "", 100), &json!({ "/status/nominatedNodeName": "n1" }));
    let waits = || made(of_priority(pod("other", "vip", "", 0), 10));
    let why = "v is put out on n1 for equal";
    check(then(there("2", &[("v", 2000)]), vec![waits(), bound(equal()), victim(low("v", 2000))]), why).await;
    let why = "v is put out on n1 for high: there is room, 0 m more than enough";
    check(then(there("4", &[("v", 2000)]), vec![nominee(2000), victim(low("v", 2000))]), why).await;
    let two = || there("2", &[("v", 1000), ("w", 1000)]);
    let why = "w is put out on n1 for high: others are enough, 0 m more than enough";
    check(then(two(), vec![nominee(1000), victim(low("v", 1000)), victim(low("w", 1000))]), why).await;
    fine(then(two(), vec![nominee(2000), victim(low("v", 1000)), victim(low("w", 1000))])).await;
    let spares = || {
        Write(CONTROLLERS, "policy/poddisruptionbudgets", of_app("v", "v", &json!({ "/status/disruptionsAllowed": 0 })))
    };
    let why = "v is put out on n1 for high: its budget spares it, and others would do, 0 m more than enough";
    check(then(two(), vec![spares(), nominee(1000), victim(low("v", 1000))]), why).await;
    let another = || Write("user", "nodes", of_app("n2", "", &json!({ "/status/allocatable/cpu": "2" })));
    let why = "v is put out on n1 for high: there is room on n2, 0 m more than enough";
    check(then(there("2", &[("v", 2000)]), vec![another(), Pass, nominee(2000), victim(low("v", 2000))]), why).await;
    let both = || with(on(pod("p", "p", "", 0), "n1"), &json!({ "/status/nominatedNodeName": "n2" }));
    check(vec![node("2"), made(both())], "p is on n1 and still to go to n2").await;
}

fn claim(name: &str, more: &Value) -> Step {
    Write(CONTROLLERS, "persistentvolumeclaims", of_app(name, "", more))
}

fn volume(more: &Value) -> Step {
    let values = json!([{ "matchExpressions": [{ "values": ["n1"] }] }]);
    // A list cannot be reached by a path of names.
    let affinity = json!({ "required": { "nodeSelectorTerms": values } });
    let full = of_app("v", "", &json!({ "/spec/nodeAffinity": affinity, "/spec/claimRef/uid": "c" }));
    Write(CONTROLLERS, "persistentvolumes", with(full, more))
}

fn user(node: &str) -> Value {
    let volumes = json!([{ "persistentVolumeClaim": { "claimName": "c" } }]);
    with(pod("p", "p", "", 0), &json!({ "/spec/volumes": volumes, "/spec/nodeName": node }))
}

#[tokio::test(start_paused = true)]
async fn volumes_that_are_lost_or_shared() {
    let none = json!({});
    let here = || json!({ "/metadata/annotations": { "volume.kubernetes.io/selected-node": "n1" } });
    let has = |volume: &str| {
        let mut has = here();
        has["/spec/volumeName"] = volume.into();
        has
    };
    let gone = || Gone(CONTROLLERS, "persistentvolumeclaims", "c");
    fine(vec![claim("c", &here()), claim("c", &has("v")), volume(&none), made(user("")), bound(user("n1"))]).await;
    fine(vec![claim("c", &none), gone()]).await;
    check(vec![claim("c", &none), made(user("n1")), gone()], "claim c is gone, p uses it").await;
    let why = "claim c had volume \"v\" and has \"w\"";
    check(vec![claim("c", &has("v")), claim("c", &has("w"))], why).await;
    let why = "claim d had volume \"\" and has \"v\"";
    check(vec![claim("c", &has("v")), claim("d", &has("v"))], why).await;

    let owned = || json!({ "/metadata/ownerReferences": [{ "kind": "Pod", "uid": "p" }] });
    let ends = |mut more: Value| {
        more["/metadata/deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        claim("c", &more)
    };
    fine(vec![claim("c", &owned()), ends(owned())]).await;
    check(vec![made(user("")), claim("c", &owned()), ends(owned())], "claim c is deleted, its pod is Some(\"p\")")
        .await;
    check(vec![claim("c", &none), ends(json!({}))], "claim c is deleted, its pod is None").await;

    let set = |replicas: i64, kept: &str| {
        let spec = json!({ "replicas": replicas, "persistentVolumeClaimRetentionPolicy": { "whenScaled": kept } });
        Write("user", "apps/statefulsets", of_app("db", "db", &json!({ "/spec": spec })))
    };
    let member = |more: &Value| claim("data-db-1", more);
    fine(vec![set(1, "Delete"), member(&none), member(&owned())]).await;
    check(vec![set(2, "Delete"), member(&none), member(&owned())], "claim data-db-1 is to go, 2 members are wanted")
        .await;
    check(vec![set(1, "Retain"), member(&none), member(&owned())], "claim data-db-1 is to go, 1 members are wanted")
        .await;

    let chosen = |node: &str| {
        let annotations = json!({ "volume.kubernetes.io/selected-node": node });
        claim("c", &json!({ "/metadata/annotations": annotations }))
    };
    fine(vec![chosen("n1"), volume(&none)]).await;
    check(vec![chosen("n2"), volume(&none)], "volume v is on n1, Some(\"n2\") was chosen").await;
    let why = "volume v was of c and is of d";
    check(vec![volume(&none), volume(&json!({ "/spec/claimRef/uid": "d" }))], why).await;
    let volume_gone = || Gone(CONTROLLERS, "persistentvolumes", "v");
    fine(vec![volume(&none), volume_gone()]).await;
    check(vec![claim("c", &here()), volume(&none), volume_gone()], "volume v goes, claim c has it").await;
    let why = "p was put on n2, it uses c on \"n1\"";
    check(vec![claim("c", &has("v")), volume(&none), made(user("")), bound(user("n2"))], why).await;
}
