//! Each end of a pod is counted once, whatever is lost between the steps.

use super::*;
use crate::server::controllers::job::orphans;

/// Three pods run, one of nine ended.
fn nine(status: Value) -> Value {
    let mut all = json!({ "active": 3 });
    json_patch::merge(&mut all, &status);
    job(json!({ "completions": 9, "parallelism": 3, "suspend": false }), all)
}

fn three(one: Value) -> [Value; 4] {
    [one, running("x"), running("y"), running("z")]
}

#[test]
fn an_end_is_written_down_then_the_finalizer_goes_then_it_counts() {
    let uncounted = json!({ "uncountedTerminatedPods": { "succeeded": ["a"] } });
    // Nothing is written of it yet.
    check(nine(json!({})), &three(succeeded("a")), &["status active=3 uncounted=a", "untrack a"]);
    // Stopped after the first step: the finalizer is yet to go.
    check(nine(uncounted.clone()), &three(succeeded("a")), &["untrack a"]);
    // Stopped after the second: it is yet to be counted, whether it is there or not.
    check(nine(uncounted.clone()), &three(untracked(succeeded("a"))), &["status active=3 succeeded=1"]);
    check(nine(uncounted), &three(running("z"))[1..], &["status active=3 succeeded=1"]);
    // It is counted.
    check(nine(json!({ "succeeded": 1 })), &three(untracked(succeeded("a"))), &[]);
}

#[test]
fn failures_are_counted_likewise() {
    let uncounted = json!({ "failed": 2, "uncountedTerminatedPods": { "failed": ["a", "b"] } });
    check(nine(json!({})), &three(failed("a")), &["status active=3 uncounted-failed=a", "untrack a"]);
    check(nine(uncounted.clone()), &three(failed("a")), &["status active=3 failed=3 uncounted-failed=a", "untrack a"]);
    check(nine(uncounted), &three(untracked(failed("a"))), &["status active=3 failed=4"]);
    // Counted as failed when it was deleted: that it succeeded at last changes nothing.
    let uncounted = json!({ "uncountedTerminatedPods": { "failed": ["a"] } });
    check(nine(uncounted), &three(succeeded("a")), &["untrack a"]);
}

#[test]
fn a_pod_that_is_deleted_has_failed_unless_it_succeeded() {
    check(nine(json!({})), &three(going("a")), &["status active=3 terminating=1 uncounted-failed=a", "untrack a"]);
    let done = pod("a", json!({ "metadata": { "deletionTimestamp": NOW }, "status": { "phase": "Succeeded" } }));
    check(nine(json!({})), &three(done), &["status active=3 uncounted=a", "untrack a"]);
}

#[test]
fn removing_a_finalizer_touches_no_other() {
    let planned = plan_of(nine(json!({})), &three(succeeded("a")), None);
    let Action::SlowStart(writes) = &planned.plan.actions[1] else { panic!() };
    let wanted = json!({ "metadata": { "uid": "a", "$deleteFromPrimitiveList/finalizers": ["batch.kubernetes.io/job-tracking"] } });
    assert_eq!(writes[0].request.body, wanted);
}

#[test]
fn at_most_five_hundred_are_written_down_at_once() {
    let pods: Vec<Value> = (0..600).map(|i| succeeded(&format!("p{i:03}"))).collect();
    let many = job(json!({ "completions": 600, "parallelism": 600 }), json!({}));
    let planned = plan_of(many, &pods, None);
    let Action::Write(write) = &planned.plan.actions[0] else { panic!() };
    let uncounted = &write.request.body["status"]["uncountedTerminatedPods"]["succeeded"];
    assert_eq!(uncounted.as_array().unwrap().len(), 500);
    let Action::SlowStart(untracked) = &planned.plan.actions[1] else { panic!() };
    assert_eq!(untracked.len(), 500);
}

#[test]
fn the_pods_of_a_job_that_is_deleted_are_not_held() {
    let mut ending = nine(json!({}));
    ending["metadata"]["deletionTimestamp"] = NOW.into();
    check(
        ending,
        &three(going("a")),
        &["status active=3 terminating=1 uncounted-failed=a", "untrack a", "untrack x", "untrack y", "untrack z"],
    );
}

fn orphan(pod: &Value, job: Option<&Value>) -> bool {
    let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
    let job: Option<Job> = job.map(|j| serde_json::from_value(j.clone()).unwrap());
    let plan = orphans::plan(&pod, job.as_ref());
    for action in &plan.actions {
        let Action::Write(write) = action else { panic!("{action:?}") };
        let meta = &write.request.body["metadata"];
        assert_eq!((&meta["uid"], &meta["resourceVersion"]), (&json!("a"), &json!("3")));
    }
    !plan.actions.is_empty()
}

#[test]
fn pods_that_no_job_counts_lose_the_finalizer() {
    let (lives, a) = (nine(json!({})), running("a"));
    assert!(!orphan(&a, Some(&lives)), "it counts");
    assert!(orphan(&a, None), "its Job is gone");
    let mut another = lives.clone();
    another["metadata"]["uid"] = "k".into();
    assert!(orphan(&a, Some(&another)), "another Job of that name");
    let mut ended = lives.clone();
    ended["status"]["conditions"] = json!([condition("Complete", "r")]);
    assert!(orphan(&a, Some(&ended)), "its Job has ended");
    ended["spec"]["managedBy"] = "example.com/manager".into();
    assert!(!orphan(&a, Some(&ended)), "another manager counts");
    assert!(orphan(&pod("a", json!({ "metadata": { "ownerReferences": null } })), None), "it has no owner");
    let of_set =
        json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "j", "uid": "j", "controller": true }]);
    assert!(
        !orphan(&pod("a", json!({ "metadata": { "ownerReferences": of_set } })), None),
        "that is its owner's business"
    );
    assert!(!orphan(&untracked(a), None));
}
