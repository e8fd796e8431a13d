//! Indexed Jobs: which index is next, and what becomes of one that fails.

use super::*;

fn indexed(spec: Value, status: Value) -> Value {
    let mut all = json!({ "completionMode": "Indexed", "completions": 5, "parallelism": 3 });
    json_patch::merge(&mut all, &spec);
    job(all, status)
}

#[test]
fn the_first_indexes_without_a_pod_are_next() {
    let pods = [with_index("0", running("a")), with_index("2", succeeded("b"))];
    let planned = check(
        indexed(json!({}), json!({ "active": 2, "completedIndexes": "3", "succeeded": 1 })),
        &pods,
        &["create j-1-", "create j-4-", "status active=3 succeeded=2 indexes=2,3", "untrack b"],
    );
    let pod = created(&planned)[0];
    assert_eq!(pod["spec"]["hostname"], "j-1");
    assert_eq!(pod["metadata"]["labels"], json!({ "of": "j", "batch.kubernetes.io/job-completion-index": "1" }));
    assert_eq!(pod["metadata"]["annotations"], json!({ "batch.kubernetes.io/job-completion-index": "1" }));
    let variable = json!([{ "name": "JOB_COMPLETION_INDEX", "valueFrom": { "fieldRef": {
        "fieldPath": "metadata.labels['batch.kubernetes.io/job-completion-index']" } } }]);
    assert_eq!(pod["spec"]["containers"][0]["env"], variable);
    assert_eq!(pod["spec"]["initContainers"][0]["env"], variable);
}

#[test]
fn names_leave_room_for_the_servers_letters() {
    let mut job = indexed(json!({ "parallelism": 1 }), json!({}));
    job["metadata"]["name"] = "n".repeat(63).into();
    let planned = plan_of(job, &[], None);
    assert_eq!(created(&planned)[0]["metadata"]["generateName"], format!("{}-0-", "n".repeat(55)));
    let own = json!({ "template": { "spec": { "containers": [{ "name": "c", "env": [{ "name": "JOB_COMPLETION_INDEX", "value": "x" }] }] } } });
    let planned = plan_of(indexed(own.clone(), json!({})), &[], None);
    assert_eq!(created(&planned)[0]["spec"]["containers"], own["template"]["spec"]["containers"], "one's own is kept");
}

#[test]
fn pods_without_a_place_and_second_ones_go() {
    let pods = [
        with_index("1", running("a")),
        with_index("1", pod("b", json!({ "status": { "phase": "Pending" } }))),
        with_index("7", running("c")),
        with_index("x", running("d")),
        with_index("2", running("e")),
    ];
    let mut actions = show(&plan_of(indexed(json!({}), json!({ "active": 5 })), &pods, None).plan.actions);
    actions.sort();
    assert_eq!(
        actions,
        ["delete b", "delete c", "delete d", "status active=2 terminating=3", "untrack b", "untrack c", "untrack d"]
    );
    // What they come to does not count either.
    let ended = [with_index("7", succeeded("c")), running("d"), with_index("9", failed("f"))];
    check(
        indexed(json!({ "parallelism": 1 }), json!({ "active": 1 })),
        &ended,
        &["untrack d", "delete d", "status terminating=1", "untrack c", "untrack f"],
    );
}

#[test]
fn an_index_counts_once() {
    let twice = [with_index("0", succeeded("a")), with_index("0", succeeded("b"))];
    let settled = json!({ "active": 0, "completedIndexes": "0", "succeeded": 1 });
    check(
        indexed(json!({ "parallelism": 0 }), json!({})),
        &twice,
        &["status succeeded=1 indexes=0", "untrack a", "untrack b"],
    );
    check(indexed(json!({ "parallelism": 0 }), settled), &twice, &["untrack a", "untrack b"]);
}

#[test]
fn a_job_that_is_scaled_down_forgets_what_is_above() {
    let status = json!({ "completedIndexes": "0-2,4", "succeeded": 4 });
    check(
        indexed(json!({ "completions": 3 }), status),
        &[],
        &["status succeeded=3 indexes=0-2 SuccessCriteriaMet(CompletionsReached)"],
    );
}

/// One more try for each index.
fn limited(spec: Value, status: Value) -> Value {
    let mut all = json!({ "backoffLimit": i32::MAX, "backoffLimitPerIndex": 1, "parallelism": 2, "completions": 3 });
    json_patch::merge(&mut all, &spec);
    let mut seen = json!({ "failedIndexes": "" });
    json_patch::merge(&mut seen, &status);
    indexed(all, seen)
}

fn tried(times: &str, mut pod: Value) -> Value {
    pod["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"] = times.into();
    pod
}

#[test]
fn a_failed_pod_is_kept_until_the_next_one_of_its_index_is_there() {
    let first = tried("0", with_index("0", failed("a")));
    let other = tried("0", with_index("1", running("b")));
    let planned = check(limited(json!({}), json!({ "active": 2 })), &[first.clone(), other.clone()], &["create j-0-"]);
    assert_eq!(created(&planned)[0]["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"], "1");
    let next = tried("1", with_index("0", running("c")));
    check(
        limited(json!({}), json!({ "active": 2 })),
        &[first.clone(), next, other.clone()],
        &["status active=2 failed-indexes= uncounted-failed=a", "untrack a"],
    );
    // Not before its time: the pauses of the others are not concerned.
    let mut just_now = first;
    just_now["metadata"]["creationTimestamp"] = "2026-01-01T00:59:58Z".into();
    let planned = check(
        limited(json!({ "parallelism": 3 }), json!({ "active": 1 })),
        &[just_now, other],
        &["create j-2-", "status active=2 failed-indexes="],
    );
    assert_eq!(planned.plan.again, Some(Duration::from_secs(8)));
}

#[test]
fn an_index_that_failed_too_often_is_not_tried_again() {
    let last = tried("1", with_index("0", failed("a")));
    let other = tried("0", with_index("1", running("b")));
    check(
        limited(json!({}), json!({ "active": 2 })),
        &[last, other],
        &["create j-2-", "status active=2 failed-indexes=0 uncounted-failed=a", "untrack a"],
    );
    let settled = json!({ "failedIndexes": "0,2", "completedIndexes": "1", "succeeded": 1, "failed": 4 });
    check(
        limited(json!({}), settled),
        &[],
        &["status succeeded=1 failed=4 indexes=1 failed-indexes=0,2 FailureTarget(FailedIndexes)"],
    );
    let many = json!({ "failedIndexes": "0,1", "failed": 4, "active": 1 });
    check(
        limited(json!({ "maxFailedIndexes": 1 }), many),
        &[tried("0", with_index("2", running("c")))],
        &[
            "status terminating=1 failed=4 failed-indexes=0,1 uncounted-failed=c FailureTarget(MaxFailedIndexesExceeded)",
            "delete c",
            "untrack c",
        ],
    );
}

#[test]
fn an_index_is_never_both_done_and_given_up() {
    // Given up when its pod was deleted, which succeeded at last.
    let given_up = json!({ "failedIndexes": "0", "uncountedTerminatedPods": { "failed": ["a"] } });
    let idle = json!({ "parallelism": 0 });
    check(limited(idle.clone(), given_up), &[tried("1", with_index("0", succeeded("a")))], &["untrack a"]);
    // A second pod of an index that is done fails.
    let both = [with_index("0", succeeded("a")), tried("1", with_index("0", failed("b")))];
    check(
        limited(idle, json!({})),
        &both,
        &["status succeeded=1 indexes=0 failed-indexes= uncounted-failed=b", "untrack a", "untrack b"],
    );
}

#[test]
fn a_policy_may_give_up_an_index_or_try_it_for_free() {
    let policy = |action: &str| json!({ "podFailurePolicy": { "rules": [{ "action": action, "onExitCodes": { "operator": "In", "values": [42] } }] } });
    let pods = [tried("0", with_index("0", exited(42, failed("a")))), tried("0", with_index("1", running("b")))];
    check(
        limited(policy("FailIndex"), json!({ "active": 2 })),
        &pods,
        &["create j-2-", "status active=2 failed-indexes=0 uncounted-failed=a", "untrack a"],
    );
    let planned = check(limited(policy("Ignore"), json!({ "active": 2 })), &pods, &["create j-0-"]);
    let annotations = &created(&planned)[0]["metadata"]["annotations"];
    assert_eq!(annotations["batch.kubernetes.io/job-index-failure-count"], "0");
    assert_eq!(annotations["batch.kubernetes.io/job-index-ignored-failure-count"], "1");
}

#[test]
fn a_success_policy_ends_the_rest() {
    let policy = json!({ "successPolicy": { "rules": [{ "succeededIndexes": "0" }] } });
    let pods = [with_index("0", succeeded("a")), with_index("1", running("b")), with_index("2", running("c"))];
    check(
        indexed(policy.clone(), json!({ "active": 3 })),
        &pods,
        &[
            // Those that are stopped have not failed.
            "status terminating=2 succeeded=1 indexes=0 SuccessCriteriaMet(SuccessPolicy)",
            "delete b",
            "delete c",
            "untrack a",
            "untrack b",
            "untrack c",
        ],
    );
    let met = json!({ "succeeded": 1, "completedIndexes": "0", "conditions": [condition("SuccessCriteriaMet", "SuccessPolicy")] });
    check(
        indexed(policy, met),
        &[untracked(with_index("0", succeeded("a")))],
        &[
            "status succeeded=1 indexes=0 completed=2026-01-01T01:00:00Z SuccessCriteriaMet(SuccessPolicy) Complete(SuccessPolicy)",
            "event Completed: Job completed",
        ],
    );
}
