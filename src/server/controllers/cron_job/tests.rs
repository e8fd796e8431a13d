//! Golden plans of CronJobs.

use serde_json::{Value, json};

use super::*;
use crate::client::request::Verb;

/// `more` is merged over a CronJob of every full hour, made at the start of the year 2026.
fn cron_job(more: Value) -> CronJob {
    let mut cron_job = json!({
        "metadata": { "name": "c", "namespace": "ns", "uid": "c", "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": {
            "schedule": "0 * * * *", "concurrencyPolicy": "Allow", "suspend": false,
            "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": { "metadata": { "labels": { "l": "v" }, "annotations": { "a": "v" } },
                "spec": { "parallelism": 2, "template": { "spec": { "containers": [{ "name": "c" }] } } } },
        },
    });
    json_patch::merge(&mut cron_job, &more);
    serde_json::from_value(cron_job).unwrap()
}

/// The Job of a time; `more` is merged over one that runs.
fn job(at: &str, more: Value) -> Value {
    let minute = at.parse::<Timestamp>().unwrap().as_second() / 60;
    let name = format!("c-{minute}");
    let mut job = json!({
        "metadata": { "name": name, "namespace": "ns", "uid": name, "resourceVersion": "3",
            "annotations": { "batch.kubernetes.io/cronjob-scheduled-timestamp": at },
            "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "CronJob", "name": "c", "uid": "c", "controller": true }] },
        "spec": { "template": {} },
        "status": { "startTime": at },
    });
    json_patch::merge(&mut job, &more);
    job
}

fn ended(kind: &str, at: &str) -> Value {
    json!({ "status": { "conditions": [{ "type": kind, "status": "True" }],
        "completionTime": (kind == "Complete").then_some(at) } })
}

/// As the status has it.
fn active(at: &str) -> Value {
    let minute = at.parse::<Timestamp>().unwrap().as_second() / 60;
    json!({ "apiVersion": "batch/v1", "kind": "Job", "namespace": "ns", "name": format!("c-{minute}"),
        "uid": format!("c-{minute}"), "resourceVersion": "3" })
}

fn plan_at(now: &str, more: Value, jobs: &[Value]) -> Plan {
    let (cron_job, uid) = (Arc::new(cron_job(more)), Some("c"));
    let jobs = jobs.iter().map(|j| Arc::new(serde_json::from_value::<Job>(j.clone()).unwrap()));
    let (jobs, others) = jobs.partition(|j| owners::controller_of(&j.metadata).map(|o| o.uid.as_str()) == uid);
    let observed = Observed { cron_job, jobs, others, local: TimeZone::UTC };
    plan(&observed, Moment { now: now.parse().unwrap(), failure: None })
}

fn show(plan: &Plan) -> Vec<String> {
    let hour = |name: &str| {
        let minute: i64 = name.strip_prefix("c-").and_then(|m| m.parse().ok()).unwrap_or_default();
        Timestamp::from_second(minute * 60).unwrap().strftime("%dT%H:%M").to_string()
    };
    let shown = plan.actions.iter().map(|action| match action {
        Action::Event(note) => note.reason.to_owned(),
        Action::Write(write) => {
            let body = &write.request.body;
            match write.request.verb {
                Verb::Create => format!("create {}", hour(body["metadata"]["name"].as_str().unwrap())),
                Verb::Delete => format!("delete {}", hour(&write.request.name)),
                _ => {
                    let names = body["status"]["active"].as_array().into_iter().flatten();
                    let names: Vec<String> = names.map(|a| hour(a["name"].as_str().unwrap())).collect();
                    let time = |field: &str| body["status"][field].as_str().map_or("-", |t| &t[8..16]).to_owned();
                    format!("status [{}] {} {}", names.join(" "), time("lastScheduleTime"), time("lastSuccessfulTime"))
                }
            }
        }
        other => panic!("{other:?}"),
    });
    shown.collect()
}

fn check(now: &str, more: Value, jobs: &[Value], want: &[&str]) -> Plan {
    let plan = plan_at(now, more, jobs);
    assert_eq!(show(&plan), want, "{now}");
    plan
}

fn last(at: &str) -> Value {
    json!({ "status": { "lastScheduleTime": at } })
}

fn with(mut one: Value, other: Value) -> Value {
    json_patch::merge(&mut one, &other);
    one
}

#[test]
fn a_job_starts_at_its_time_and_not_before() {
    let plan = check("2026-01-01T00:59:30.5Z", json!({}), &[], &[]);
    assert_eq!(plan.again, Some(std::time::Duration::from_millis(29_500)));
    let plan = check("2026-01-01T01:00:00Z", json!({}), &[], &["create 01T01:00", "status [] 01T01:00 -"]);
    assert_eq!(plan.again, Some(std::time::Duration::from_mins(10)), "the clock may be set meanwhile");
    let Action::Write(write) = &plan.actions[0] else { panic!() };
    let wanted = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "c-29453820", "namespace": "ns", "labels": { "l": "v" },
            "annotations": { "a": "v", "batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-01-01T01:00:00Z" },
            "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "CronJob", "name": "c", "uid": "c", "controller": true, "blockOwnerDeletion": true }],
        },
        "spec": { "parallelism": 2, "template": { "spec": { "containers": [{ "name": "c" }] } } },
    });
    assert_eq!(write.request.body, wanted);
    check("2026-01-01T01:00:01Z", last("2026-01-01T01:00:00Z"), &[], &[]);
}

#[test]
fn a_job_that_was_made_is_active_once_it_is_seen() {
    let one = "2026-01-01T01:00:00Z";
    let running = job(one, json!({}));
    check("2026-01-01T01:00:01Z", last(one), std::slice::from_ref(&running), &["status [01T01:00] 01T01:00 -"]);
    // The server was stopped before it wrote down the start.
    check("2026-01-01T01:00:01Z", json!({}), std::slice::from_ref(&running), &["status [01T01:00] 01T01:00 -"]);
    let done = with(running.clone(), ended("Complete", "2026-01-01T01:00:05Z"));
    check("2026-01-01T01:00:06Z", json!({}), &[done], &["status [] 01T01:00 01T01:00"]);
    // One that somebody else has made holds the name.
    let stranger = with(running, json!({ "metadata": { "ownerReferences": null } }));
    assert!(check("2026-01-01T01:00:01Z", json!({}), &[stranger], &[]).again.is_some());
}

#[test]
fn active_are_those_that_run() {
    let (one, two) = ("2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z");
    let both = json!({ "status": { "lastScheduleTime": two, "active": [active(one), active(two)] } });
    let now = "2026-01-01T02:30:00Z";
    check(now, both.clone(), &[job(one, json!({})), job(two, json!({}))], &[]);
    let complete = with(job(one, json!({})), ended("Complete", "2026-01-01T01:20:00Z"));
    check(
        now,
        both.clone(),
        &[complete.clone(), job(two, json!({}))],
        &["status [01T02:00] 01T02:00 01T01:20", "SawCompletedJob"],
    );
    check(
        now,
        both.clone(),
        &[with(job(one, json!({})), ended("Failed", "")), job(two, json!({}))],
        &["status [01T02:00] 01T02:00 -", "SawCompletedJob"],
    );
    check(now, both.clone(), &[job(two, json!({}))], &["status [01T02:00] 01T02:00 -", "MissingJob"]);
    // Made by hand from the same template: it is none of the schedule, and counts when it has succeeded.
    let by_hand = json!({ "metadata": { "name": "by-hand", "uid": "h", "annotations": null } });
    let jobs = [job(one, json!({})), job(two, json!({})), job(two, by_hand.clone())];
    check(now, both.clone(), &jobs, &["UnexpectedJob"]);
    let succeeded = with(job(two, by_hand), ended("Complete", "2026-01-01T02:20:00Z"));
    check(
        now,
        both,
        &[job(one, json!({})), job(two, json!({})), succeeded],
        &["status [01T01:00 01T02:00] 01T02:00 01T02:20"],
    );
}

#[test]
fn one_of_several_missed_starts_is_made_up_for() {
    // The server was off, or its clock was set forward.
    let after = |hours: &str| format!("2026-01-0{hours}:30:00Z");
    check(&after("1T07"), last("2026-01-01T01:00:00Z"), &[], &["create 01T07:00", "status [] 01T07:00 -"]);
    check(
        &after("6T07"),
        last("2026-01-01T01:00:00Z"),
        &[],
        &["TooManyMissedTimes", "create 06T07:00", "status [] 06T07:00 -"],
    );
    // The clock was set back: what was started is not started again.
    let plan = check("2026-01-01T00:10:00Z", last("2026-01-01T05:00:00Z"), &[], &[]);
    assert_eq!(plan.again, Some(std::time::Duration::from_mins(10)));
    check("2026-01-01T05:30:00Z", last("2026-01-01T05:00:00Z"), &[], &[]);
    check("2026-01-01T06:00:00Z", last("2026-01-01T05:00:00Z"), &[], &["create 01T06:00", "status [] 01T06:00 -"]);
}

#[test]
fn a_start_that_is_too_late_is_left_out() {
    let deadline =
        |seconds: i64| with(last("2026-01-01T01:00:00Z"), json!({ "spec": { "startingDeadlineSeconds": seconds } }));
    check("2026-01-01T02:00:30Z", deadline(31), &[], &["create 01T02:00", "status [] 01T02:00 -"]);
    check("2026-01-01T02:00:30Z", deadline(30), &[], &[]);
    // Only those within the deadline are counted as missed.
    check("2026-01-09T02:00:30Z", deadline(60), &[], &["create 09T02:00", "status [] 09T02:00 -"]);
    let every = with(deadline(10), json!({ "spec": { "schedule": "@every 90m" } }));
    check("2026-01-01T04:00:05Z", every, &[], &["create 01T04:00", "status [] 01T04:00 -"]);
}

#[test]
fn what_is_done_about_a_job_that_still_runs() {
    let (one, now) = ("2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z");
    let policy = |policy: &str| json!({ "spec": { "concurrencyPolicy": policy }, "status": { "lastScheduleTime": one, "active": [active(one)] } });
    let running = [job(one, json!({}))];
    check(now, policy("Allow"), &running, &["create 01T02:00", "status [01T01:00] 01T02:00 -"]);
    check(now, policy("Forbid"), &running, &["JobAlreadyActive"]);
    check(now, policy("Replace"), &running, &["delete 01T01:00", "create 01T02:00", "status [] 01T02:00 -"]);
    // It has ended: that is written first, and then the next one starts, be it late.
    let done = [with(job(one, json!({})), ended("Complete", "2026-01-01T02:10:00Z"))];
    check("2026-01-01T02:10:00Z", policy("Forbid"), &done, &["status [] 01T01:00 01T02:10", "SawCompletedJob"]);
    let written = json!({ "spec": { "concurrencyPolicy": "Forbid" },
        "status": { "lastScheduleTime": one, "lastSuccessfulTime": "2026-01-01T02:10:00Z" } });
    check("2026-01-01T02:10:01Z", written, &done, &["create 01T02:00", "status [] 01T02:00 01T02:10"]);
    // One that was made by hand is in nobody's way; one that is going is not active again.
    let by_hand = job(one, json!({ "metadata": { "name": "h", "uid": "h", "annotations": null } }));
    let forbid = with(last(one), json!({ "spec": { "concurrencyPolicy": "Forbid" } }));
    check(now, forbid.clone(), &[by_hand], &["UnexpectedJob", "create 01T02:00", "status [] 01T02:00 -"]);
    let going = job(one, json!({ "metadata": { "deletionTimestamp": now } }));
    check(now, forbid, &[going], &["create 01T02:00", "status [] 01T02:00 -"]);
}

#[test]
fn the_oldest_jobs_that_ended_go() {
    let at = |hour: usize| format!("2026-01-01T0{hour}:00:00Z");
    let of = |hour: usize, kind: &str| with(job(&at(hour), json!({})), ended(kind, "2026-01-01T00:30:00Z"));
    let mut jobs: Vec<Value> = (1..=5).rev().map(|hour| of(hour, "Complete")).collect();
    jobs.extend([of(6, "Failed"), of(7, "Failed")]);
    let status = |spec: Value| json!({ "spec": spec, "status": { "lastScheduleTime": at(7), "lastSuccessfulTime": "2026-01-01T00:30:00Z" } });
    let now = "2026-01-01T07:10:00Z";
    let plan = check(now, status(json!({})), &jobs, &["delete 01T01:00", "delete 01T02:00", "delete 01T06:00"]);
    let Action::Write(write) = &plan.actions[0] else { panic!() };
    assert_eq!(write.request.body["propagationPolicy"], "Background");
    let unlimited = json!({ "successfulJobsHistoryLimit": null, "failedJobsHistoryLimit": 0, "suspend": true });
    check(now, status(unlimited), &jobs, &["delete 01T06:00", "delete 01T07:00"]);
}

#[test]
fn zones_and_their_clocks() {
    let berlin = |more: Value| with(json!({ "spec": { "timeZone": "Europe/Berlin", "schedule": "30 2 * * *" } }), more);
    let plan = check(
        "2026-03-28T01:30:00Z",
        berlin(last("2026-03-27T01:30:00Z")),
        &[],
        &["create 28T01:30", "status [] 28T01:30 -"],
    );
    let Action::Write(write) = &plan.actions[0] else { panic!() };
    let stamp = &write.request.body["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"];
    assert_eq!(stamp, "2026-03-28T02:30:00+01:00");
    // The night that has no half past two, and the one that has two.
    check("2026-03-29T12:00:00Z", berlin(last("2026-03-28T01:30:00Z")), &[], &[]);
    check(
        "2026-10-25T00:30:00Z",
        berlin(last("2026-10-24T00:30:00Z")),
        &[],
        &["create 25T00:30", "status [] 25T00:30 -"],
    );
    check(
        "2026-10-25T01:30:00Z",
        berlin(last("2026-10-25T00:30:00Z")),
        &[],
        &["create 25T01:30", "status [] 25T01:30 -"],
    );
    let nowhere = json!({ "spec": { "timeZone": "Europe/Nowhere" } });
    assert_eq!(check("2026-01-02T00:00:00Z", nowhere, &[], &["UnknownTimeZone"]).again, None);
    // The Job of a zone is known by its time, however that is written.
    let seen = json!({ "metadata": { "annotations": { "batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-03-28T02:30:00+01:00" } } });
    let now = "2026-03-28T01:31:00Z";
    check(now, berlin(json!({})), &[job("2026-03-28T01:30:00Z", seen)], &["status [28T01:30] 28T01:30 -"]);
}

#[test]
fn nothing_starts_that_is_suspended_or_going_or_has_no_schedule() {
    let now = "2026-01-01T02:00:00Z";
    for (more, want) in [
        (json!({ "spec": { "suspend": true } }), &[][..]),
        (json!({ "metadata": { "deletionTimestamp": now } }), &[]),
        (json!({ "spec": { "schedule": "* * *" } }), &["UnparseableSchedule"]),
        (json!({ "spec": { "schedule": "59 23 31 2 *" } }), &["InvalidSchedule"]),
    ] {
        assert_eq!(check(now, more, &[], want).again, None);
    }
    // It goes on with the last time that came.
    let resumed = last("2026-01-01T00:00:00Z");
    check("2026-01-01T03:30:00Z", resumed, &[], &["create 01T03:00", "status [] 01T03:00 -"]);
}
