//! Tables: what may change in a Job, and what its status may say.

use super::*;

#[test]
fn job_updates() {
    let old = job(&[]);
    let change = |change: &[(&str, Value)]| update(&JOB, &old, Part::Spec, change);
    let (new, errors) = change(&[
        ("/spec/parallelism", json!(0)),
        ("/spec/suspend", json!(true)),
        ("/spec/backoffLimit", json!(1)),
        ("/spec/activeDeadlineSeconds", json!(1)),
        ("/spec/ttlSecondsAfterFinished", json!(1)),
    ]);
    assert_eq!((errors.len(), &new["metadata"]["generation"]), (0, &json!(2)));
    assert_eq!(change(&[("/status/active", json!(1))]).0, old);
    for (field, value) in [("completions", json!(2)), ("managedBy", json!("a.b/c"))] {
        let (_, errors) = change(&[(&format!("/spec/{field}"), value.clone())]);
        assert_eq!(errors, [format!("spec.{field}: Invalid value: {value}: field is immutable")]);
    }
    // A policy of failures comes with the other way to replace pods, which may change.
    let policy = [("/spec/podFailurePolicy", json!({"rules": []})), ("/spec/podReplacementPolicy", json!("Failed"))];
    assert_eq!(change(&policy).1, ["spec.podFailurePolicy: Invalid value: {\"rules\":[]}: field is immutable"]);
    let (_, errors) = change(&[("/spec/template/spec/containers/0/image", json!("y"))]);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("spec.template: Invalid value: {") && errors[0].ends_with(": field is immutable"));

    let old = job(&indexed(2, 2));
    let (_, errors) = update(&JOB, &old, Part::Spec, &[("/spec/completions", json!(3))]);
    let message = "spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism";
    assert_eq!(errors, [message]);
    let both = [("/spec/completions", json!(3)), ("/spec/parallelism", json!(3))];
    assert_eq!(update(&JOB, &old, Part::Spec, &both).1, Vec::<String>::new());
    let mode = [("/spec/completionMode", json!("NonIndexed"))];
    assert_eq!(
        update(&JOB, &old, Part::Spec, &mode).1,
        ["spec.completionMode: Invalid value: \"NonIndexed\": field is immutable"]
    );
}

#[test]
fn suspended_jobs_may_be_placed_anew() {
    let placed = [
        ("/spec/template/spec/nodeSelector", json!({"a": "b"})),
        ("/spec/template/spec/tolerations", json!([{"key": "a", "operator": "Exists"}])),
        ("/spec/template/spec/affinity", json!({"nodeAffinity": {}})),
        ("/spec/template/spec/schedulingGates", json!([{"name": "a/b"}])),
        ("/spec/template/metadata/annotations", json!({"a": "b"})),
        ("/spec/template/spec/containers/0/resources", json!({"requests": {"cpu": "1"}})),
    ];
    let suspended = |status: Value| {
        let mut old = job(&[("/spec/suspend", json!(true))]);
        old["status"] = status;
        old
    };
    let started = "2026-01-01T00:00:00Z";
    let stopped = json!([{"type": "Suspended", "status": "True"}]);
    for (status, expect) in [
        (json!({}), 0),
        (json!({"startTime": started}), 1),
        (json!({"startTime": started, "conditions": stopped}), 0),
        (json!({"active": 1}), 1),
    ] {
        let (_, errors) = update(&JOB, &suspended(status.clone()), Part::Spec, &placed);
        assert_eq!(errors.len(), expect, "{status}: {errors:?}");
    }
    assert_eq!(update(&JOB, &job(&[]), Part::Spec, &placed).1.len(), 1);
    let old = suspended(json!({}));
    for pointer in ["/spec/template/spec/containers/0/image", "/spec/template/spec/hostname"] {
        let (_, errors) = update(&JOB, &old, Part::Spec, &[(pointer, json!("y"))]);
        assert!(errors.len() == 1 && errors[0].starts_with("spec.template.spec: Invalid value"), "{errors:?}");
    }
    let affinity = json!({"podAffinity": {}});
    let (_, errors) = update(&JOB, &old, Part::Spec, &[("/spec/template/spec/affinity", affinity)]);
    assert_eq!(errors.len(), 1);
}

#[test]
fn job_statuses() {
    let conditions = |kinds: &[&str]| {
        let all = kinds.iter().map(|kind| json!({"type": kind, "status": "True"}));
        Value::from(all.collect::<Vec<_>>())
    };
    let (start, end) = (json!("2026-01-01T00:00:00Z"), json!("2026-01-01T00:01:00Z"));
    let complete = json!({"startTime": start, "completionTime": end, "succeeded": 1,
        "conditions": conditions(&["SuccessCriteriaMet", "Complete"])});
    let check = |change: &[(&str, Value)], before: Value, after: Value, expect: &[&str]| {
        let mut old = job(change);
        old["status"] = before;
        let (new, errors) = update(&JOB, &old, Part::Status, &[("/status", after.clone())]);
        assert_eq!(errors, expect, "{after}");
        assert_eq!(new["spec"], old["spec"]);
    };
    let from_nothing = |after: Value, expect: &[&str]| check(&[], json!({}), after, expect);
    from_nothing(complete.clone(), &[]);
    from_nothing(
        json!({"failed": -1}),
        &[
            "status.failed: Invalid value: -1: must be greater than or equal to 0",
            "status.failed: Invalid value: -1: cannot decrease the failed counter",
        ],
    );
    from_nothing(
        json!({"uncountedTerminatedPods": {"succeeded": ["a", ""], "failed": ["a"]}}),
        &[
            "status.uncountedTerminatedPods.succeeded[1]: Invalid value: \"\": must not be empty",
            "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
        ],
    );
    from_nothing(
        json!({"conditions": conditions(&["Complete"])}),
        &[
            "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true \
         condition",
            "status.completionTime: Required value: completionTime is required for Complete jobs",
            "status.startTime: Required value: startTime is required for finished job",
        ],
    );
    from_nothing(
        json!({"startTime": start, "conditions": conditions(&["Failed"])}),
        &[
            "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
        ],
    );
    from_nothing(
        json!({"startTime": start, "conditions": conditions(&["FailureTarget", "SuccessCriteriaMet"])}),
        &["status.conditions: Invalid value: cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"],
    );
    from_nothing(
        json!({"startTime": end, "completionTime": start}),
        &[
            "status.completionTime: Invalid value: \"2026-01-01T00:00:00Z\": cannot set completionTime when there is no \
         Complete=True condition",
            "status.completionTime: Invalid value: \"2026-01-01T00:00:00Z\": completionTime cannot be set before \
         startTime",
        ],
    );
    from_nothing(
        json!({"active": 1, "ready": 2}),
        &["status.ready: Invalid value: 2: cannot set more ready pods than active"],
    );
    from_nothing(
        json!({"completedIndexes": "0", "failedIndexes": "0"}),
        &[
            "status.completedIndexes: Invalid value: \"0\": cannot set non-empty completedIndexes when non-indexed \
         completion mode",
            "status.failedIndexes: Invalid value: \"0\": cannot set non-null failedIndexes when backoffLimitPerIndex is \
         null",
            "status.failedIndexes: Invalid value: \"0\": failedIndexes and completedIndexes overlap at index: 0",
        ],
    );
    let limited = [indexed(3, 3), vec![("/spec/backoffLimitPerIndex", json!(1))]].concat();
    check(
        &limited,
        json!({"succeeded": 3}),
        json!({"completedIndexes": "0-3", "failedIndexes": "x"}),
        &[
            "status.completedIndexes: Invalid value: \"0-3\": error parsing completedIndexes: too large index: \"3\"",
            "status.failedIndexes: Invalid value: \"x\": error parsing failedIndexes: cannot convert string to integer \
         for index: \"x\"",
        ],
    );
    let mut busy = complete.clone();
    busy["active"] = json!(1);
    busy["terminating"] = json!(1);
    busy["uncountedTerminatedPods"] = json!({"failed": ["a"]});
    from_nothing(
        busy,
        &[
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
            "status.uncountedTerminatedPods: Invalid value: {\"failed\":[\"a\"]}: uncountedTerminatedPods needs to be \
         empty for finished job",
            "status.terminating: Invalid value: 1: terminating>0 is invalid for finished job",
        ],
    );
    check(
        &[],
        complete.clone(),
        json!({"succeeded": 1}),
        &[
            "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
            "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
            "status.startTime: Required value: startTime cannot be removed for unsuspended job",
        ],
    );
    let mut later = complete.clone();
    later["completionTime"] = json!("2026-01-01T00:02:00Z");
    check(
        &[],
        complete.clone(),
        later,
        &["status.completionTime: Invalid value: \"2026-01-01T00:02:00Z\": completionTime cannot be mutated"],
    );
    let mut fewer = complete.clone();
    fewer["succeeded"] = json!(0);
    check(&[], complete, fewer, &["status.succeeded: Invalid value: 0: cannot decrease the succeeded counter"]);
    // What was wrong before may stay so.
    let wrong = json!({"startTime": start, "conditions": conditions(&["Failed"])});
    let mut more = wrong.clone();
    more["failed"] = json!(1);
    check(&[], wrong, more, &[]);
}
