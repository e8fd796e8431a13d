//! How a Job ends, and what its policies do.

use super::*;

#[test]
fn a_job_completes_when_all_is_counted_and_has_ended() {
    let both = [untracked(succeeded("a")), succeeded("b")];
    check(
        job(json!({}), json!({ "active": 1, "succeeded": 1 })),
        &both,
        &["status succeeded=1 uncounted=b SuccessCriteriaMet(CompletionsReached)", "untrack b"],
    );
    let met = json!([condition("SuccessCriteriaMet", "CompletionsReached")]);
    let waiting = json!({ "succeeded": 1, "conditions": met, "uncountedTerminatedPods": { "succeeded": ["b"] } });
    check(job(json!({}), waiting.clone()), &both, &["untrack b"]);
    let counted = [untracked(succeeded("a")), untracked(succeeded("b"))];
    let done = [
        "status succeeded=2 completed=2026-01-01T01:00:00Z SuccessCriteriaMet(CompletionsReached) Complete(CompletionsReached)",
        "event Completed: Job completed",
    ];
    assert!(check(job(json!({}), waiting), &counted, &done).urgent, "nobody waits for the end");
    // A pod that ends yet keeps the Job from having ended.
    let going = [untracked(succeeded("a")), untracked(succeeded("b")), untracked(going("c"))];
    let all = json!({ "succeeded": 2, "conditions": met });
    check(
        job(json!({}), all.clone()),
        &going,
        &["status terminating=1 succeeded=2 SuccessCriteriaMet(CompletionsReached)"],
    );
    check(
        job(json!({ "completions": 1 }), all),
        &counted,
        &[
            "status succeeded=2 completed=2026-01-01T01:00:00Z SuccessCriteriaMet(CompletionsReached) Complete(CompletionsReached)",
            "event TooManySucceededPods: Too many succeeded pods running after completion count reached",
            "event Completed: Job completed",
        ],
    );
    // Nothing to do is done.
    check(job(json!({ "completions": 0 }), json!({})), &[], &["status SuccessCriteriaMet(CompletionsReached)"]);
}

#[test]
fn a_job_that_ends_has_started_before() {
    let met = json!([condition("SuccessCriteriaMet", "CompletionsReached")]);
    for (start, want) in [(Value::Null, NOW), (json!("2026-01-01T03:00:00Z"), "2026-01-01T03:00:00Z")] {
        let status = json!({ "succeeded": 2, "startTime": start, "conditions": met });
        let planned = plan_of(job(json!({ "suspend": true }), status), &[], None);
        let Action::Write(write) = &planned.plan.actions[0] else { panic!() };
        let status = &write.request.body["status"];
        assert_eq!((&status["startTime"], &status["completionTime"]), (&json!(want), &json!(want)));
    }
}

#[test]
fn too_many_failures_end_a_job() {
    let limit = json!({ "backoffLimit": 1, "completions": 9 });
    check(
        job(limit.clone(), json!({ "active": 2, "failed": 1 })),
        &[failed("a"), running("b"), succeeded("c")],
        &[
            // What runs yet has failed.
            "status terminating=1 failed=1 uncounted=c uncounted-failed=a+b FailureTarget(BackoffLimitExceeded)",
            "delete b",
            "untrack a",
            "untrack b",
            "untrack c",
        ],
    );
    let target = json!({ "failed": 3, "succeeded": 1, "terminating": 1, "conditions": [condition("FailureTarget", "BackoffLimitExceeded")] });
    check(job(limit.clone(), target.clone()), &[untracked(going("b"))], &[]);
    check(
        job(limit, target),
        &[],
        &[
            "status succeeded=1 failed=3 FailureTarget(BackoffLimitExceeded) Failed(BackoffLimitExceeded)",
            "event BackoffLimitExceeded: m",
        ],
    );
}

#[test]
fn restarts_in_place_count_against_the_limit() {
    let restarting = |limit: i32, restarts: i32| {
        let mut job = job(json!({ "backoffLimit": limit }), json!({ "active": 2 }));
        job["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure".into();
        let container = |name: &str, restarts: i32| json!([{ "name": name, "image": "", "imageID": "", "ready": true, "restartCount": restarts }]);
        let status =
            json!({ "containerStatuses": container("c", restarts), "initContainerStatuses": container("i", 1) });
        let planned = plan_of(job, &[pod("a", json!({ "status": status })), running("b")], None);
        show(&planned.plan.actions).first().is_some_and(|s| s.ends_with("FailureTarget(BackoffLimitExceeded)"))
    };
    assert!(restarting(0, 0) && restarting(3, 2) && !restarting(3, 1));
}

#[test]
fn the_deadline_is_exact_and_rests_while_suspended() {
    let with = |seconds: i64| job(json!({ "activeDeadlineSeconds": seconds }), json!({ "active": 2 }));
    let pods = [running("a"), running("b")];
    assert_eq!(check(with(3605), &pods, &[]).plan.again, Some(Duration::from_secs(5)));
    check(
        with(3600),
        &pods,
        &[
            "status terminating=2 uncounted-failed=a+b FailureTarget(DeadlineExceeded)",
            "delete a",
            "delete b",
            "untrack a",
            "untrack b",
        ],
    );
    let is = json!([{ "type": "Suspended", "status": "True", "reason": "JobSuspended", "message": "Job suspended" }]);
    let resting =
        job(json!({ "activeDeadlineSeconds": 1, "suspend": true }), json!({ "startTime": null, "conditions": is }));
    assert_eq!(check(resting, &[], &[]).plan.again, None);
}

fn policy(action: &str) -> Value {
    json!({ "podFailurePolicy": { "rules": [{ "action": action, "onExitCodes": { "operator": "In", "values": [42] } }] } })
}

#[test]
fn a_failure_that_is_ignored_does_not_count() {
    let pods = [exited(42, failed("a")), running("b")];
    let status = json!({ "active": 2 });
    check(job(policy("Ignore"), status.clone()), &pods, &["create j-", "untrack a"]);
    check(job(policy("Count"), status), &pods, &["create j-", "status active=2 uncounted-failed=a", "untrack a"]);
}

#[test]
fn a_failure_may_end_the_job() {
    let planned = check(
        job(policy("FailJob"), json!({ "active": 2 })),
        &[exited(42, failed("a")), running("b")],
        &[
            "status terminating=1 uncounted-failed=a+b FailureTarget(PodFailurePolicy)",
            "delete b",
            "untrack a",
            "untrack b",
        ],
    );
    let Action::Write(write) = &planned.plan.actions[0] else { panic!() };
    let message = "Container c for pod ns/a failed with exit code 42 matching FailJob rule at index 0";
    assert_eq!(write.request.body["status"]["conditions"][0]["message"], message);
    // With a policy a pod that is deleted has not failed before it has ended.
    check(
        job(policy("FailJob"), json!({ "active": 1, "terminating": 1 })),
        &[exited(42, going("a")), running("b")],
        &[],
    );
}

#[test]
fn disruptions_can_be_ignored() {
    let rule = json!({ "rules": [{ "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] }] });
    let mut spec = json!({ "podFailurePolicy": rule, "backoffLimit": 0 });
    let disrupted = pod(
        "a",
        json!({ "status": { "phase": "Failed", "conditions": [{ "type": "DisruptionTarget", "status": "True" }] } }),
    );
    check(
        job(spec.clone(), json!({ "active": 1 })),
        &[disrupted.clone(), running("b")],
        &["create j-", "status active=2", "untrack a"],
    );
    spec["podFailurePolicy"] = Value::Null;
    let planned = plan_of(job(spec, json!({ "active": 1 })), &[disrupted, running("b")], None);
    assert!(show(&planned.plan.actions)[0].ends_with("FailureTarget(BackoffLimitExceeded)"));
}
