//! Tables: new Jobs.

use super::*;

#[test]
fn job_defaults() {
    let made = job(&[]);
    let spec = &made["spec"];
    for (field, expect) in [
        ("completions", json!(1)),
        ("parallelism", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("manualSelector", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
        ("selector", json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "1"}})),
    ] {
        assert_eq!(spec[field], expect, "{field}");
    }
    let labels = json!({"controller-uid": "1", "job-name": "a", "batch.kubernetes.io/controller-uid": "1",
        "batch.kubernetes.io/job-name": "a"});
    assert_eq!((&spec["template"]["metadata"]["labels"], &made["metadata"]["labels"]), (&labels, &labels));
    assert_eq!((&made["status"], &made["metadata"]["generation"]), (&json!({}), &json!(1)));

    // A queue of work has no number of completions.
    let made = job(&[("/spec/parallelism", json!(3)), ("/metadata/labels", json!({"mine": ""}))]);
    assert_eq!((&made["spec"]["completions"], &made["metadata"]["labels"]), (&Value::Null, &json!({"mine": ""})));
    let made = job(&[
        ("/spec/backoffLimitPerIndex", json!(1)),
        ("/spec/podFailurePolicy", json!({"rules": [{"action": "Count", "onPodConditions": [{"type": "A"}]}]})),
    ]);
    let spec = &made["spec"];
    assert_eq!((&spec["backoffLimit"], &spec["podReplacementPolicy"]), (&json!(i32::MAX), &json!("Failed")));
    assert_eq!(spec["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["status"], "True");
    let manual = [("/spec/manualSelector", json!(true)), ("/spec/selector", json!({"matchLabels": {"a": "b"}}))];
    let made = job(&manual);
    assert_eq!((&made["spec"]["selector"], &made["metadata"]["labels"]), (&manual[1].1, &Value::Null));
}

#[test]
fn job_numbers_and_modes() {
    check(&[], &[]);
    let negative = "must be greater than or equal to 0";
    for field in ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"] {
        let expect = format!("spec.{field}: Invalid value: -1: {negative}");
        check(&[(&format!("/spec/{field}"), json!(-1))], &[&expect]);
    }
    check(
        &[("/spec/completionMode", json!("Some"))],
        &["spec.completionMode: Unsupported value: \"Some\": supported values: \"NonIndexed\", \"Indexed\""],
    );
    check(
        &[("/spec/backoffLimitPerIndex", json!(1)), ("/spec/maxFailedIndexes", json!(1))],
        &[
            "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
            "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode",
        ],
    );
    check(
        &[indexed(2, 2), vec![("/spec/maxFailedIndexes", json!(3))]].concat(),
        &[
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            "spec.maxFailedIndexes: Invalid value: 3: must be less than or equal to completions",
        ],
    );
    check(
        &[("/spec/completionMode", json!("Indexed")), ("/spec/parallelism", json!(100_001))],
        &[
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is \
             Indexed",
            "spec.completions: Required value: when completion mode is Indexed",
        ],
    );
    check(
        &[indexed(100_001, 10_001), vec![("/spec/backoffLimitPerIndex", json!(1))]].concat(),
        &[
            "spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when completions are above \
             100000 and used with backoff limit per index",
            "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
        ],
    );
    let long = "a".repeat(62);
    check(
        &[indexed(11, 1), vec![("/metadata/name", json!(long))]].concat(),
        &[&format!(
            "metadata.name: Invalid value: \"{long}\": will not able to create pod with invalid DNS label: {long}-10"
        )],
    );
}

#[test]
fn job_templates_and_managers() {
    let policy = "/spec/template/spec/restartPolicy";
    let required = "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"";
    check(&[(policy, json!("Always"))], &[required]);
    check(&[(policy, json!("OnFailure"))], &[]);
    let rules = json!({"rules": [{"action": "Count", "onPodConditions": [{"type": "A"}]}]});
    check(
        &[(policy, json!("OnFailure")), ("/spec/podFailurePolicy", rules.clone())],
        &["spec.template.spec.restartPolicy: Invalid value: \"OnFailure\": only \"Never\" is supported when \
           podFailurePolicy is specified"],
    );
    check(
        &[("/spec/podReplacementPolicy", json!("Now"))],
        &["spec.podReplacementPolicy: Unsupported value: \"Now\": supported values: \"Failed\", \
           \"TerminatingOrFailed\""],
    );
    check(
        &[("/spec/podReplacementPolicy", json!("TerminatingOrFailed")), ("/spec/podFailurePolicy", rules)],
        &["spec.podReplacementPolicy: Unsupported value: \"TerminatingOrFailed\": supported values: \"Failed\""],
    );
    check(&[("/spec/managedBy", json!("acme.io/foo"))], &[]);
    check(
        &[("/spec/managedBy", json!("foo"))],
        &["spec.managedBy: Invalid value: \"foo\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
    );
    check(
        &[("/spec/managedBy", json!("acme.io/a b"))],
        &[
            r#"spec.managedBy: Invalid value: "a b": Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')"#,
        ],
    );
    check(
        &[("/spec/managedBy", json!(format!("acme.io/{}", "a".repeat(60))))],
        &["spec.managedBy: Too long: may not be more than 63 bytes"],
    );
}

#[test]
fn job_selectors() {
    check(
        &[("/spec/template/metadata", json!({"labels": {"job-name": "b"}})), ("/metadata/labels", json!({"x": "y"}))],
        &["spec.template.metadata.labels[job-name]: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"1\",\
           \"batch.kubernetes.io/job-name\":\"a\",\"controller-uid\":\"1\",\"job-name\":\"b\"}: must be 'a'"],
    );
    let labels = "{\"batch.kubernetes.io/controller-uid\":\"1\",\"batch.kubernetes.io/job-name\":\"a\",\
        \"controller-uid\":\"1\",\"job-name\":\"a\"}";
    check(
        &[("/spec/selector", json!({"matchLabels": {"a": "b"}}))],
        &[
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"batch.kubernetes.io/controller-uid\":\
             \"1\"}}: `selector` not auto-generated",
            &format!(
                "spec.template.metadata.labels: Invalid value: {labels}: `selector` does not match template `labels`"
            ),
        ],
    );
    check(
        &[("/spec/manualSelector", json!(true))],
        &[
            "spec.selector: Required value",
            "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
        ],
    );
}

#[test]
fn failure_policies() {
    let check = |rule: Value, expect: &[&str]| {
        check(&[("/spec/podFailurePolicy", json!({"rules": [rule]}))], expect);
    };
    let at = "spec.podFailurePolicy.rules[0]";
    check(json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 2]}}), &[]);
    check(
        json!({"action": "", "onExitCodes": {"operator": "", "values": []}}),
        &[
            &format!("{at}.action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"),
            &format!("{at}.onExitCodes.operator: Required value: valid values: [\"In\" \"NotIn\"]"),
            &format!("{at}.onExitCodes.values: Invalid value: []: at least one value is required"),
        ],
    );
    check(
        json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "containerName": "d", "values": [3, 0, 3]}}),
        &[
            &format!("{at}.action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set"),
            &format!(
                "{at}.onExitCodes.containerName: Invalid value: \"d\": must be one of the container or initContainer \
                 names in the pod template"
            ),
            &format!("{at}.onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator"),
            &format!("{at}.onExitCodes.values[2]: Duplicate value: 3"),
            &format!("{at}.onExitCodes.values: Invalid value: [3,0,3]: must be ordered"),
        ],
    );
    check(
        json!({"action": "Wait", "onPodConditions": [{"type": "A", "status": "Perhaps"}]}),
        &[
            &format!(
                "{at}.action: Unsupported value: \"Wait\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \
                 \"Ignore\""
            ),
            &format!(
                "{at}.onPodConditions[0].status: Unsupported value: \"Perhaps\": supported values: \"False\", \
                 \"True\", \"Unknown\""
            ),
        ],
    );
    check(
        json!({"action": "Count"}),
        &[&format!("{at}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required")],
    );
    check(
        json!({"action": "Count", "onExitCodes": {"operator": "In", "values": [1]}, "onPodConditions": [{"type": "A"}]}),
        &[&format!("{at}: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported")],
    );
    let values: Vec<i32> = (1..=256).collect();
    check(
        json!({"action": "Count", "onExitCodes": {"operator": "In", "values": values}}),
        &[&format!("{at}.onExitCodes.values: Too many: 256: must have at most 255 items")],
    );
}

#[test]
fn success_policies() {
    let rules = |rules: Value, expect: &[&str]| {
        let policy = vec![("/spec/successPolicy", json!({"rules": rules}))];
        check(&[indexed(5, 5), policy].concat(), expect);
    };
    let at = "spec.successPolicy.rules[0]";
    rules(json!([{"succeededIndexes": "0-2", "succeededCount": 2}]), &[]);
    rules(
        json!([]),
        &["spec.successPolicy.rules: Required value: at least one rules must be specified when the successPolicy is \
           specified"],
    );
    rules(
        json!([{}]),
        &[&format!("{at}: Required value: at least one of succeededCount or succeededIndexes must be specified")],
    );
    rules(
        json!([{"succeededIndexes": "0-2", "succeededCount": 6}]),
        &[
            &format!(
                "{at}.succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified \
                 completions)"
            ),
            &format!(
                "{at}.succeededCount: Invalid value: 6: must be less than or equal to 3 (the number of indexes in \
                 the specified succeededIndexes field)"
            ),
        ],
    );
    rules(
        json!([{"succeededIndexes": "5"}]),
        &[&format!(
            "{at}.succeededIndexes: Invalid value: \"5\": error parsing succeededIndexes: too large index: \"5\""
        )],
    );
    check(
        &[("/spec/successPolicy", json!({"rules": [{"succeededCount": 1}]}))],
        &["spec.successPolicy: Invalid value: {\"rules\":[{\"succeededCount\":1}]}: requires indexed completion mode"],
    );
}
