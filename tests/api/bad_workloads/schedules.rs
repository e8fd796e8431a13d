//! Times that never come, and times that came too often.

use super::*;
use crate::conformance::Cluster;

fn cron_job(name: &str, more: &Value) -> Value {
    let pod = template(&json!({}), &json!({"restartPolicy": "Never"}));
    let mut spec = json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": pod}}});
    json_patch::merge(&mut spec, more);
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test(start_paused = true)]
async fn a_day_that_no_month_has_is_told_and_never_waited_for() {
    let cluster = Cluster::new().await;
    let uri = format!("{BATCH}/cronjobs");
    cluster.made(&uri, &cron_job("never", &json!({"schedule": "0 0 31 2 *"}))).await;
    let said = "invalid schedule: 0 0 31 2 * : time difference between two schedules is less than 1 second";
    assert_eq!(told(&cluster, "never", "InvalidSchedule").await, said);
    // One that a clock far ahead has started; and one that may be late by a second, and is so by years.
    let ahead = json!({"status": {"lastScheduleTime": "2999-01-01T00:00:00Z"}});
    let behind = json!({"status": {"lastScheduleTime": "1999-01-01T00:00:00Z"}});
    for (name, more, status) in [
        ("ahead", json!({"schedule": "* * * * *"}), ahead),
        ("late", json!({"startingDeadlineSeconds": 1}), behind.clone()),
        ("suspended", json!({"schedule": "* * * * *", "suspend": true}), behind),
    ] {
        let mut suspended = more.clone();
        suspended["suspend"] = true.into();
        cluster.made(&uri, &cron_job(name, &suspended)).await;
        cluster.patched(&format!("{uri}/{name}/status"), MERGE, &status).await;
        let suspend = more["suspend"].as_bool().unwrap_or(false);
        cluster.patched(&format!("{uri}/{name}"), MERGE, &json!({"spec": {"suspend": suspend}})).await;
    }
    is_quiet(&cluster).await;
    assert!(cluster.items(&format!("{BATCH}/jobs")).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn of_a_hundred_missed_starts_one_is_made_up_for() {
    let cluster = Cluster::new().await;
    let uri = format!("{BATCH}/cronjobs");
    // Hourly, but for the hour in which this test runs.
    let hour = skiff::clock::now().to_zoned(jiff::tz::TimeZone::system()).hour();
    let hours: Vec<String> = (0..24).filter(|h| (h - hour).rem_euclid(24) > 1).map(|h| h.to_string()).collect();
    let schedule = format!("0 {} * * *", hours.join(","));
    cluster.made(&uri, &cron_job("c", &json!({"schedule": schedule, "suspend": true}))).await;
    let long_ago = json!({"status": {"lastScheduleTime": "1999-01-01T00:00:00Z"}});
    cluster.patched(&format!("{uri}/c/status"), MERGE, &long_ago).await;
    cluster.patched(&format!("{uri}/c"), MERGE, &json!({"spec": {"suspend": false}})).await;
    let said = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
    assert_eq!(told(&cluster, "c", "TooManyMissedTimes").await, said);
    told(&cluster, "c", "SuccessfulCreate").await;
    is_quiet(&cluster).await;
    assert_eq!(cluster.items(&format!("{BATCH}/jobs")).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_schedule_is_refused() {
    let cluster = Cluster::new().await;
    let uri = format!("{BATCH}/cronjobs");
    for (more, said) in [
        (json!({"timeZone": "Mars/Base"}), "spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base"),
        (json!({"schedule": "61 * * * *"}), "spec.schedule: Invalid value: \"61 * * * *\""),
        (json!({"startingDeadlineSeconds": -1}), "spec.startingDeadlineSeconds: Invalid value: -1"),
    ] {
        let refused = cluster.post(&uri, &cron_job("c", &more)).await;
        assert_eq!(refused.code, 422, "{}", refused.text);
        assert!(refused.message().contains(said), "{}", refused.message());
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_cannot_be_made_is_tried_ever_more_seldom() {
    let cluster = Cluster::new().await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/jobs.batch": "0"}}});
    cluster.made(&format!("{NAMESPACE}/resourcequotas"), &quota).await;
    let counted = |q: &Value| q["status"]["used"]["count/jobs.batch"] == "0";
    cluster.await_object(&format!("{NAMESPACE}/resourcequotas/q"), counted).await;
    let uri = format!("{BATCH}/cronjobs");
    let before = Requests::so_far(&cluster).await;
    cluster.made(&uri, &cron_job("c", &json!({"suspend": true}))).await;
    let long_ago = json!({"status": {"lastScheduleTime": "1999-01-01T00:00:00Z"}});
    cluster.patched(&format!("{uri}/c/status"), MERGE, &long_ago).await;
    cluster.patched(&format!("{uri}/c"), MERGE, &json!({"spec": {"suspend": false}})).await;
    let why = told(&cluster, "c", "FailedCreate").await;
    assert!(why.starts_with("Error creating job: ") && why.contains("exceeded quota: q"), "{why}");
    tokio::time::sleep(HOUR).await;
    let tried = Requests::since(&cluster, &before).await.of("CREATE jobs");
    assert!((10..TRIES).contains(&tried), "{tried}");
    let hour = an_hour(&cluster).await;
    assert!(hour.of("CREATE jobs") <= 2 * TRIES_AN_HOUR, "{:?}", hour.0);
}
