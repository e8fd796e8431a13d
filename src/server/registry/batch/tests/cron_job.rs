//! Tables: CronJob.

use super::*;

#[test]
fn cron_job_defaults() {
    let made = cron_job(&[]);
    let spec = &made["spec"];
    for (field, expect) in [
        ("concurrencyPolicy", json!("Allow")),
        ("suspend", json!(false)),
        ("successfulJobsHistoryLimit", json!(3)),
        ("failedJobsHistoryLimit", json!(1)),
    ] {
        assert_eq!(spec[field], expect, "{field}");
    }
    let job = &spec["jobTemplate"]["spec"];
    assert_eq!((&job["completions"], &job["selector"]), (&Value::Null, &Value::Null));
    assert_eq!(job["template"]["spec"]["schedulerName"], "default-scheduler");
    assert_eq!((&made["status"], &made["metadata"]["generation"]), (&json!({}), &json!(1)));
}

#[test]
fn cron_job_validation() {
    check_cron(&[("/spec/timeZone", json!("UTC"))], &[]);
    check_cron(&[("/spec/schedule", json!(""))], &["spec.schedule: Required value"]);
    check_cron(
        &[("/spec/schedule", json!("* * *"))],
        &["spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]"],
    );
    check_cron(
        &[("/spec/schedule", json!("TZ=UTC 0 0 * * *"))],
        &["spec.schedule: Invalid value: \"TZ=UTC 0 0 * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone \
           field instead"],
    );
    for (zone, message) in [
        ("", "timeZone must be nil or non-empty string"),
        ("Local", "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"),
        ("Europe/Nowhere", "unknown time zone Europe/Nowhere"),
        (" UTC", "unknown time zone  UTC"),
        ("../UTC", "unknown time zone ../UTC"),
    ] {
        let expect = format!("spec.timeZone: Invalid value: {zone:?}: {message}");
        check_cron(&[("/spec/timeZone", json!(zone))], &[&expect]);
    }
    check_cron(
        &[("/spec/concurrencyPolicy", json!("Some"))],
        &["spec.concurrencyPolicy: Unsupported value: \"Some\": supported values: \"Allow\", \"Forbid\", \"Replace\""],
    );
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        let expect = format!("spec.{field}: Invalid value: -1: must be greater than or equal to 0");
        check_cron(&[(&format!("/spec/{field}"), json!(-1))], &[&expect]);
    }
    let name = "a".repeat(53);
    let expect = format!("metadata.name: Invalid value: \"{name}\": must be no more than 52 characters");
    check_cron(&[("/metadata/name", json!(name))], &[&expect]);
    check_cron(
        &[
            ("/spec/jobTemplate/spec/selector", json!({"matchLabels": {"a": "b"}})),
            ("/spec/jobTemplate/spec/manualSelector", json!(true)),
            ("/spec/jobTemplate/spec/template/spec/restartPolicy", json!("Always")),
        ],
        &[
            "spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \
             \"Never\"",
            "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be \
             auto-generated",
            "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
        ],
    );
}

#[test]
fn cron_job_updates() {
    let mut old = cron_job(&[("/metadata/name", json!("a".repeat(53)))]);
    old["spec"]["timeZone"] = "Europe/Nowhere".into();
    // A name and a zone that are there already are not looked at again.
    let (new, errors) = update(&CRON_JOB, &old, Part::Spec, &[("/spec/suspend", json!(true))]);
    assert_eq!((errors.len(), &new["metadata"]["generation"]), (0, &json!(2)));
    let (_, errors) = update(&CRON_JOB, &old, Part::Spec, &[("/spec/timeZone", json!("Nowhere"))]);
    assert_eq!(errors, ["spec.timeZone: Invalid value: \"Nowhere\": unknown time zone Nowhere"]);
    let time = json!("2026-01-01T00:00:00Z");
    assert_eq!(update(&CRON_JOB, &old, Part::Spec, &[("/status/lastScheduleTime", time.clone())]).0, old);
    let change = [("/status/lastScheduleTime", time.clone()), ("/spec/suspend", json!(true))];
    let (new, errors) = update(&CRON_JOB, &old, Part::Status, &change);
    assert_eq!((errors.len(), &new["status"]["lastScheduleTime"], &new["spec"]), (0, &time, &old["spec"]));
}
