//! Tests: what is left to do is seen, whatever it is.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::server::cache::Cache;
use crate::simulation::random::Dice;
use crate::simulation::weather::Weather;

const WHO: &str = "user";

fn put(all: &mut Vec<(&'static str, Value)>, storage: &'static str, object: Value) {
    all.push((storage, object));
}

fn labelled(name: &str, app: &str) -> Value {
    json!({ "metadata": { "name": name, "uid": name, "labels": { "app": app } } })
}

fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut at = object;
    for part in pointer.split('/').skip(1) {
        at = &mut at[part];
    }
    *at = value;
}

/// A pod that runs well.
fn pod(name: &str, app: &str) -> Value {
    let mut pod = labelled(name, app);
    let requests = json!({ "requests": { "cpu": "400m" } });
    pod["spec"] = json!({ "nodeName": "n1", "containers": [{ "image": "v1", "resources": requests }] });
    pod["status"] = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
    pod
}

/// A cluster that has come to rest, by storage.
fn rest() -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    let counts = |n: i64| {
        json!({ "observedGeneration": 1, "replicas": n, "readyReplicas": n, "updatedReplicas": n, "availableReplicas": n,
            "desiredNumberScheduled": n, "currentNumberScheduled": n, "numberReady": n, "updatedNumberScheduled": n,
            "numberAvailable": n })
    };
    let template = json!({ "spec": { "containers": [{ "image": "v1" }] } });
    let sets = DEPLOYMENTS.map(|name| ("apps/deployments", name, 1));
    for (storage, name, n) in sets.into_iter().chain([("apps/statefulsets", "db", 1), ("apps/daemonsets", "agent", 4)])
    {
        let mut object = labelled(name, name);
        object["metadata"]["generation"] = json!(1);
        object["spec"] = json!({ "replicas": n, "template": template });
        object["status"] = counts(n);
        put(&mut all, storage, object);
        (0..n).for_each(|i| put(&mut all, "pods", pod(&format!("{name}-{i}"), name)));
    }
    put(&mut all, "pods", pod("alone", "alone"));
    let mut budget = labelled("web", "web");
    (budget["spec"], budget["status"]) = (json!({ "minAvailable": 1 }), json!({ "disruptionsAllowed": 0 }));
    put(&mut all, "policy/poddisruptionbudgets", budget);
    let mut job = labelled("work", "");
    (job["spec"], job["status"]) = (json!({ "completions": 2 }), json!({ "succeeded": 2 }));
    put(&mut all, "batch/jobs", job);
    let mut ticked = labelled("once-1", "");
    ticked["metadata"]["ownerReferences"] = json!([{ "kind": "CronJob", "name": "once" }]);
    ticked["status"] = json!({ "conditions": [{ "type": "Complete", "status": "True" }] });
    put(&mut all, "batch/jobs", ticked);
    for (name, _) in CRON_JOBS {
        let mut cron_job = labelled(name, "");
        cron_job["spec"] = json!({ "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1 });
        put(&mut all, "batch/cronjobs", cron_job);
    }
    let mut node = labelled("n1", "");
    node["status"] = json!({ "allocatable": { "cpu": "4" } });
    put(&mut all, "nodes", node);
    let mut claim = labelled("data-db-0", "");
    (claim["spec"], claim["status"]) = (json!({ "volumeName": "v" }), json!({ "phase": "Bound" }));
    put(&mut all, "persistentvolumeclaims", claim);
    let mut volume = labelled("v", "");
    (volume["spec"], volume["status"]) = (json!({ "claimRef": { "uid": "data-db-0" } }), json!({ "phase": "Bound" }));
    put(&mut all, "persistentvolumes", volume);
    all
}

fn left(all: Vec<(&'static str, Value)>, folder: &str) -> Option<String> {
    let disks = Arc::<Disks>::default();
    disks.mount(&"n1".into(), "p", &format!("/volumes/{folder}"));
    let checks = Checks::new(Cache::new(), Weather::new(Dice::new(1), disks.clone()));
    all.into_iter().for_each(|(storage, object)| checks.write(WHO, storage, object));
    unfinished(&checks, &disks)
}

/// What is told when one object is not as it is at rest.
fn check(storage: &'static str, object: &str, change: &[(&str, Value)], expect: &str) {
    let mut all = rest();
    let there = all.iter_mut().find(|(s, o)| *s == storage && name(o) == object);
    let (_, changed) = there.unwrap_or_else(|| panic!("no {storage} {object}"));
    change.iter().for_each(|(pointer, value)| set(changed, pointer, value.clone()));
    let found = left(all, "v").unwrap_or_default();
    assert!(found.starts_with(expect), "{storage}/{object} {change:?}: {found:?}");
}

fn check_without(storage: &'static str, object: &str, expect: &str) {
    let mut all = rest();
    all.retain(|(s, o)| *s != storage || name(o) != object);
    assert_eq!(left(all, "v").as_deref(), Some(expect));
}

fn check_with(storage: &'static str, object: Value, expect: &str) {
    let mut all = rest();
    put(&mut all, storage, object);
    let found = left(all, "v").unwrap_or_default();
    assert!(found.starts_with(expect), "{found:?}");
}

#[test]
fn nothing_is_left_at_rest() {
    assert_eq!(left(rest(), "v"), None);
}

#[test]
fn workloads_that_are_not_done() {
    check_without("apps/deployments", "web", "web is gone");
    check_without("pods", "web-0", "web: 0 good ones of 0 pods, 1 are wanted");
    check_with("pods", pod("web-1", "web"), "web: 2 good ones of 2 pods, 1 are wanted");
    let old = json!([{ "image": "v0" }]);
    check("pods", "web-0", &[("/spec/containers", old)], "web: 0 good ones of 1 pods");
    check("pods", "agent-0", &[("/status/conditions", json!([]))], "agent: 3 good ones of 4 pods");
    for count in ["replicas", "readyReplicas", "updatedReplicas", "availableReplicas"] {
        let expect = format!("db: status.{count} is 3, 1 is right");
        check("apps/statefulsets", "db", &[(&format!("/status/{count}"), json!(3))], &expect);
    }
    check(
        "apps/daemonsets",
        "agent",
        &[("/status/numberReady", json!(3))],
        "agent: status.numberReady is 3, 4 is right",
    );
    let observed = [("/status/observedGeneration", json!(0))];
    check("apps/deployments", "api", &observed, "api: the last change was not observed");
    check(
        "policy/poddisruptionbudgets",
        "web",
        &[("/status/disruptionsAllowed", json!(1))],
        "budget web allows 1 disruptions of 1 pods",
    );
    check_without("pods", "alone", "the pod that is nobody's is gone");
    let mut ending = pod("x", "x");
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    check_with("pods", ending, "x does not end");
}

#[test]
fn jobs_that_are_not_done() {
    check("batch/jobs", "work", &[("/status/succeeded", json!(1))], "work: 1 have succeeded");
    check("batch/jobs", "once-1", &[("/status/conditions", json!([]))], "once-1 has not finished");
    check_without("batch/cronjobs", "last", "last is gone");
    let none = [("/spec/successfulJobsHistoryLimit", json!(0))];
    check("batch/cronjobs", "once", &none, "once: 1 Jobs are Complete, 0 are the limit");
    check("batch/cronjobs", "many", &[("/status/active", json!([{}]))], "many: status.active has 1");
}

#[test]
fn pods_that_wait() {
    let waiting = |app: &str, milli: &str| {
        let mut waiting = pod("p", app);
        waiting["spec"] = json!({ "containers": [{ "resources": { "requests": { "cpu": milli } } }] });
        waiting["status"] = json!({ "phase": "Pending" });
        waiting
    };
    check_with("pods", waiting("other", "100m"), "p waits");
    check_with("pods", waiting(IDLE[0], "300m"), "p waits although n1 has 400 m, and it asks for 300");
    let mut nominated = waiting(IDLE[0], "900m");
    nominated["status"]["nominatedNodeName"] = json!("n1");
    check_with("pods", nominated, "p waits for a place that it does not get");
    let mut all = rest();
    put(&mut all, "pods", waiting(IDLE[0], "900m"));
    assert_eq!(left(all, "v"), None, "there is no room for it");
}

#[test]
fn volumes_that_are_left() {
    let (claims, volumes) = ("persistentvolumeclaims", "persistentvolumes");
    check(claims, "data-db-0", &[("/status/phase", json!("Pending"))], "claim data-db-0 is {\"phase\":\"Pending\"}");
    let owner = json!([{ "kind": "Pod", "uid": "gone" }]);
    check(
        claims,
        "data-db-0",
        &[("/metadata/ownerReferences", owner)],
        "claim data-db-0 is there although its pod is not",
    );
    check(volumes, "v", &[("/spec/claimRef/uid", json!("other"))], "volume v of {\"uid\":\"other\"} is");
    check(volumes, "v", &[("/status/phase", json!("Released"))], "volume v of");
    assert_eq!(left(rest(), "w").as_deref(), Some("w is still on n1"));
    let member = |name: &str| {
        let mut claim = labelled(name, "");
        claim["status"] = json!({ "phase": "Bound" });
        claim
    };
    check_with(claims, member("data-db-1"), "db has 1 members, and the claim of member 1 is there");
    let mut all = rest();
    all.retain(|(storage, _)| *storage != claims && *storage != volumes);
    let disks = Disks::default();
    let checks = Checks::new(Cache::new(), Weather::new(Dice::new(1), Arc::default()));
    all.into_iter().for_each(|(storage, object)| checks.write(WHO, storage, object));
    assert_eq!(unfinished(&checks, &disks).as_deref(), Some("member 0 of db has no claim"));
}
