//! Which pods are made, removed, adopted and left alone.

use super::*;

#[test]
fn makes_as_many_pods_as_run_at_once_and_as_are_wanted() {
    check(job(json!({}), json!({ "startTime": null })), &[], &["create j-", "create j-", "status active=2"]);
    check(job(json!({ "parallelism": 5 }), json!({})), &[], &["create j-", "create j-", "status active=2"]);
    check(job(json!({ "completions": 9 }), json!({ "active": 1 })), &[running("a")], &["create j-", "status active=2"]);
    check(job(json!({}), json!({ "succeeded": 1 })), &[], &["create j-", "status active=1 succeeded=1"]);
    check(job(json!({ "parallelism": 0 }), json!({})), &[], &[]);
    check(job(json!({}), json!({ "active": 2 })), &[running("a"), running("b")], &[]);
}

#[test]
fn absurd_numbers_are_done_in_portions() {
    let absurd = json!({ "parallelism": 1_000_000, "completions": i32::MAX });
    assert_eq!(created(&plan_of(job(absurd.clone(), json!({})), &[], None)).len(), 500);
    let mut indexed = absurd;
    indexed["completionMode"] = "Indexed".into();
    assert_eq!(created(&plan_of(job(indexed, json!({})), &[], None)).len(), 500);
}

#[test]
fn a_pod_is_what_the_template_says_and_is_tracked() {
    let planned = plan_of(job(json!({ "template": { "metadata": { "finalizers": ["mine"] } } }), json!({})), &[], None);
    let pod = created(&planned)[0];
    assert_eq!(pod["metadata"]["finalizers"], json!(["mine", "batch.kubernetes.io/job-tracking"]));
    assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "j");
    assert_eq!(pod["spec"]["containers"], json!([{ "name": "c" }]), "no variable without an index");
}

#[test]
fn too_many_pods_go_uncounted_those_missed_least_first() {
    let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
    let pending = json!({ "spec": { "nodeName": null }, "status": { "phase": "Pending" } });
    let pods = [pod("a", ready), running("b"), pod("c", pending)];
    check(
        job(json!({ "completions": 9, "parallelism": 1 }), json!({ "active": 3, "ready": 1 })),
        &pods,
        &["untrack c", "untrack b", "delete c", "delete b", "status active=1 ready=1 terminating=2"],
    );
    // All that was wanted is done.
    check(
        job(json!({ "completions": 1 }), json!({ "succeeded": 1, "active": 1 })),
        &[untracked(succeeded("a")), untracked(running("b"))],
        &["delete b", "status terminating=1 succeeded=1 SuccessCriteriaMet(CompletionsReached)"],
    );
}

#[test]
fn a_queue_of_work_is_done_when_one_pod_succeeds_and_all_have_ended() {
    let queue = |status| job(json!({ "completions": null, "parallelism": 3 }), status);
    check(queue(json!({ "active": 1 })), &[running("a")], &["create j-", "create j-", "status active=3"]);
    // Nothing is made and nothing removed any more.
    check(
        queue(json!({ "active": 2 })),
        &[running("a"), succeeded("b")],
        &["status active=1 uncounted=b", "untrack b"],
    );
    check(
        queue(json!({ "succeeded": 1, "active": 1 })),
        &[failed("a"), untracked(succeeded("b"))],
        &["status succeeded=1 uncounted-failed=a SuccessCriteriaMet(CompletionsReached)", "untrack a"],
    );
}

#[test]
fn pods_that_end_are_replaced_at_once_or_when_they_have_ended() {
    let active = json!({ "active": 2 });
    let at_once = ["create j-", "status active=2 terminating=1 uncounted-failed=a", "untrack a"];
    check(job(json!({}), active.clone()), &[going("a"), running("b")], &at_once);
    let failed_only = json!({ "podReplacementPolicy": "Failed" });
    check(job(failed_only.clone(), active.clone()), &[going("a"), running("b")], &["status active=1 terminating=1"]);
    let ended = pod("a", json!({ "metadata": { "deletionTimestamp": NOW }, "status": { "phase": "Failed" } }));
    let mut planned = plan_of(job(failed_only, active), &[ended, running("b")], None);
    assert_eq!(show(&planned.plan.actions), ["status active=1 uncounted-failed=a", "untrack a"]);
    // It failed just now.
    assert_eq!(planned.plan.again.take(), Some(Duration::from_secs(10)));
}

#[test]
fn failed_pods_are_replaced_after_a_pause_that_doubles() {
    let mut one = failed("a");
    one["metadata"]["creationTimestamp"] = "2026-01-01T00:59:55Z".into();
    let planned = check(
        job(json!({}), json!({ "active": 1 })),
        &[one.clone(), running("b")],
        &["status active=1 uncounted-failed=a", "untrack a"],
    );
    assert_eq!(planned.plan.again, Some(Duration::from_secs(5)));
    // The second failure in a row; a pod that is counted is a failure yet.
    let mut two = untracked(failed("b"));
    two["metadata"]["creationTimestamp"] = "2026-01-01T00:59:58Z".into();
    let planned = check(job(json!({}), json!({ "failed": 2 })), &[untracked(one.clone()), two.clone()], &[]);
    assert_eq!(planned.plan.again, Some(Duration::from_secs(18)));
    two["status"]["phase"] = "Succeeded".into();
    check(
        job(json!({}), json!({ "failed": 1, "succeeded": 1 })),
        &[untracked(one), two],
        &["create j-", "status active=1 succeeded=1 failed=1"],
    );
}

#[test]
fn failures_of_pods_that_are_deleted_are_remembered() {
    let mut failures = Failures::default();
    let mut one = failed("a");
    one["metadata"]["creationTimestamp"] = "2026-01-01T00:59:55Z".into();
    let moment = Moment { now: NOW.parse().unwrap(), failure: None };
    let _ = plan(&observed(job(json!({}), json!({})), &[one]), &mut failures, moment);
    let planned = plan(&observed(job(json!({}), json!({ "failed": 1 })), &[]), &mut failures, moment);
    assert_eq!((planned.plan.actions.len(), planned.plan.again), (0, Some(Duration::from_secs(5))));
}

#[test]
fn orphans_are_adopted_and_strays_released_with_the_finalizer() {
    let orphan = pod("o", json!({ "metadata": { "ownerReferences": null, "finalizers": null } }));
    let stray = pod("s", json!({ "metadata": { "labels": { "of": "other" } } }));
    let planned = check(job(json!({}), json!({})), &[orphan, running("a"), stray], &["adopt o", "release s"]);
    let [Action::Write(adopt), Action::Write(release)] = &planned.plan.actions[..] else { panic!() };
    let tracking = json!(["batch.kubernetes.io/job-tracking"]);
    assert_eq!(adopt.request.body["metadata"]["finalizers"], tracking);
    assert_eq!(release.request.body["metadata"]["$deleteFromPrimitiveList/finalizers"], tracking);
    // Pods of others, and the labels of others.
    let foreign = pod(
        "f",
        json!({ "metadata": { "ownerReferences": [
        { "apiVersion": "batch/v1", "kind": "Job", "name": "k", "uid": "k", "controller": true }] } }),
    );
    check(job(json!({ "parallelism": 0 }), json!({})), &[foreign], &[]);
}

#[test]
fn a_job_that_is_suspended_has_no_pods_and_has_not_started() {
    let suspended = json!({ "suspend": true });
    let planned = check(
        job(suspended.clone(), json!({ "active": 1, "succeeded": 1 })),
        &[running("a"), untracked(succeeded("b"))],
        &[
            "untrack a",
            "delete a",
            "status terminating=1 succeeded=1 Suspended(JobSuspended)",
            "event Suspended: Job suspended",
        ],
    );
    let Action::Write(write) = &planned.plan.actions[2] else { panic!() };
    assert_eq!(write.request.body["status"]["startTime"], Value::Null);
    let is = json!([{ "type": "Suspended", "status": "True", "reason": "JobSuspended", "message": "Job suspended" }]);
    check(job(suspended.clone(), json!({ "startTime": null, "conditions": is })), &[], &[]);
    // Made so.
    check(
        job(suspended, json!({ "startTime": null })),
        &[],
        &["status Suspended(JobSuspended)", "event Suspended: Job suspended"],
    );
    let planned = check(
        job(json!({}), json!({ "startTime": null, "conditions": is })),
        &[],
        &["create j-", "create j-", "status active=2 -Suspended(JobResumed)", "event Resumed: Job resumed"],
    );
    let Action::Write(write) = &planned.plan.actions[1] else { panic!() };
    assert_eq!(write.request.body["status"]["startTime"], NOW);
}

#[test]
fn what_fails_is_told_as_it_is_and_keeps_nothing_from_being_counted() {
    // Not two active ones, which were foreseen before.
    check_after_failure(
        job(json!({}), json!({ "active": 2 })),
        &[failed("a")],
        &["status uncounted-failed=a", "untrack a", "create j-", "create j-"],
    );
    check_after_failure(
        job(json!({ "parallelism": 0 }), json!({ "active": 1 })),
        &[running("a")],
        &["untrack a", "delete a"],
    );
}

#[test]
fn jobs_of_others_and_of_a_later_kind_are_left_alone() {
    let stores = Stores::new();
    let moment = Moment { now: NOW.parse().unwrap(), failure: None };
    for (manager, acts) in [("kubernetes.io/job-controller", true), ("example.com/manager", false)] {
        stores.jobs.put(serde_json::from_value(job(json!({ "managedBy": manager }), json!({}))).unwrap());
        let plan = JobController::default().plan(&stores, &Name::new("ns", "j"), moment);
        assert_eq!(!plan.actions.is_empty(), acts, "{manager}");
    }
    check(
        job(json!({ "completionMode": "Later" }), json!({})),
        &[],
        &["event UnknownCompletionMode: Skipped Job sync because completion mode is unknown"],
    );
}

#[test]
fn counts_follow_at_once_and_then_twice_a_second() {
    let (controller, stores) = (JobController::default(), Stores::new());
    stores.jobs.put(serde_json::from_value(job(json!({ "completions": 9 }), json!({}))).unwrap());
    let at = |text: &str| {
        let moment = Moment { now: text.parse().unwrap(), failure: None };
        let plan = controller.plan(&stores, &Name::new("ns", "j"), moment);
        (show(&plan.actions).len(), plan.again)
    };
    assert_eq!(at("2026-01-01T00:00:00Z").0, 3);
    for name in ["a", "b"] {
        stores.pods.put(serde_json::from_value(running(name)).unwrap());
    }
    assert_eq!(at("2026-01-01T00:00:00.2Z"), (0, Some(Duration::from_millis(300))));
    assert_eq!(at("2026-01-01T00:00:00.5Z"), (1, None));
    // A pod to make does not wait.
    stores.pods.put(serde_json::from_value(succeeded("a")).unwrap());
    assert_eq!(at("2026-01-01T00:00:00.6Z"), (3, None));
}
