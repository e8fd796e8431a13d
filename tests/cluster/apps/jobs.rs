//! Jobs and CronJobs: whose pods are theirs, what a failure means, when a Job is done, and who starts it.

use serde_json::{Value, json};

use super::{get, name, owner, patch, pods, stays, template, until};
use crate::lab::{Lab, wait_for};

fn make(lab: &Lab, app: &str, script: &str, spec: &Value) {
    let mut template = template(app, script);
    template["spec"]["restartPolicy"] = "Never".into();
    let mut job =
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": app}, "spec": {"template": template}});
    crate::lab::merge(&mut job["spec"], spec);
    crate::conformance::feed(lab, &["create", "-f", "-"], &job);
}

/// The Job, once a condition of it is true; and the reason.
fn becomes(lab: &Lab, app: &str, condition: &str) -> (Value, Value) {
    let find = |job: &Value| {
        let conditions = job["status"]["conditions"].as_array()?;
        conditions.iter().find(|c| c["type"] == condition && c["status"] == "True").map(|c| c["reason"].clone())
    };
    let job = until(lab, &format!("job/{app}"), |j| find(j).is_some());
    let reason = find(&job).unwrap();
    (job, reason)
}

fn remove(lab: &Lab, apps: &[&str]) {
    for app in apps {
        super::remove(lab, &format!("job/{app}"), app);
    }
}

pub fn pods_are_orphaned_adopted_and_released(lab: &Lab) {
    make(lab, "family", "exec sleep 100000", &json!({"parallelism": 2, "completions": 2}));
    let job = until(lab, "job/family", |j| j["status"]["active"] == 2);
    assert_eq!(pods(lab, "family").len(), 2, "as many as run at once");
    let child = format!("pod/{}", name(&pods(lab, "family")[0]));
    patch(lab, &child, None, &json!({"metadata": {"ownerReferences": null}}));
    until(lab, &child, |p| owner(p) == &job["metadata"]["uid"]);
    let labels = ["batch.kubernetes.io/controller-uid", "controller-uid", "job-name", "batch.kubernetes.io/job-name"];
    let none: serde_json::Map<String, Value> = labels.iter().map(|l| ((*l).to_owned(), Value::Null)).collect();
    patch(lab, &child, None, &json!({"metadata": {"labels": none}}));
    until(lab, &child, |p| p["metadata"]["ownerReferences"].is_null());
    lab.kubectl(&["delete", &child]);
    remove(lab, &["family"]);
}

pub fn failures_are_judged(lab: &Lab) {
    let on_exit = json!([{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]);
    make(lab, "early", "exit 42", &json!({"backoffLimit": 6, "podFailurePolicy": {"rules": on_exit}}));

    // On the node, so that the pod that takes the place of one that was evicted finds it.
    let marks = lab.dir.join("marks").display().to_string();
    let once = "f=/marks/$JOB_COMPLETION_INDEX; [ -e $f ] && exit 0; touch $f; trap 'exit 1' TERM; while :; do sleep 0.1; done";
    let mut marked = template("evicted", once);
    marked["spec"]["restartPolicy"] = "Never".into();
    marked["spec"]["volumes"] = json!([{"name": "marks", "hostPath": {"path": marks, "type": "DirectoryOrCreate"}}]);
    marked["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "marks", "mountPath": "/marks"}]);
    marked["spec"]["terminationGracePeriodSeconds"] = json!(10);
    let on_disruption = json!([{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]);
    let more = json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimit": 0,
        "podFailurePolicy": {"rules": on_disruption}, "template": marked});
    make(lab, "evicted", "", &more);
    let evicted = super::all_ready(lab, "evicted", 2);
    for pod in &evicted {
        let mark = lab
            .dir
            .join("marks")
            .join(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"].as_str().unwrap());
        wait_for("the mark", || mark.exists().then_some(()));
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name(pod)}});
        let url = format!("/api/v1/namespaces/default/pods/{}/eviction", name(pod));
        crate::conformance::feed(lab, &["create", "--raw", &url, "-f", "-"], &eviction);
    }
    let (job, _) = becomes(lab, "evicted", "Complete");
    assert_eq!(job["status"]["succeeded"], 2);

    let (job, reason) = becomes(lab, "early", "Failed");
    assert_eq!((&reason, &job["status"]["failed"]), (&json!("PodFailurePolicy"), &json!(1)));
    remove(lab, &["early", "evicted"]);
}

pub fn indexes_are_run_and_given_up(lab: &Lab) {
    let odd = "[ $((JOB_COMPLETION_INDEX % 2)) = 0 ]";
    let all = |more: Value| {
        let mut spec = json!({"completionMode": "Indexed", "completions": 4, "parallelism": 4});
        crate::lab::merge(&mut spec, &more);
        spec
    };
    let on_exit = json!([{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}}]);
    make(lab, "odd", odd, &all(json!({"backoffLimitPerIndex": 1})));
    make(lab, "given-up", odd, &all(json!({"backoffLimitPerIndex": 1, "podFailurePolicy": {"rules": on_exit}})));
    make(lab, "too-many", "exit 1", &all(json!({"backoffLimitPerIndex": 0, "maxFailedIndexes": 2})));
    // In the same container: it fails once, and has its volume when it is run again.
    let mut again = template("again", "[ -e /once/x ] || { touch /once/x; exit 1; }");
    again["spec"]["restartPolicy"] = "OnFailure".into();
    again["spec"]["volumes"] = json!([{"name": "once", "emptyDir": {}}]);
    again["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "once", "mountPath": "/once"}]);
    make(lab, "again", "", &json!({"completions": 2, "parallelism": 2, "template": again}));

    let (job, reason) = becomes(lab, "too-many", "Failed");
    assert_eq!(reason, "MaxFailedIndexesExceeded", "{job}");
    let (job, reason) = becomes(lab, "given-up", "Failed");
    let status = &job["status"];
    assert_eq!(
        (&reason, &status["failedIndexes"], &status["failed"]),
        (&json!("FailedIndexes"), &json!("1,3"), &json!(2))
    );
    let (job, reason) = becomes(lab, "odd", "Failed");
    let status = &job["status"];
    assert_eq!(
        (&reason, &status["failedIndexes"], &status["failed"]),
        (&json!("FailedIndexes"), &json!("1,3"), &json!(4))
    );
    assert_eq!((&status["completedIndexes"], &status["succeeded"]), (&json!("0,2"), &json!(2)));
    let (job, _) = becomes(lab, "again", "Complete");
    assert_eq!(job["status"]["succeeded"], 2);
    remove(lab, &["odd", "given-up", "too-many", "again"]);
}

pub fn a_success_policy_ends_a_job(lab: &Lab) {
    let first = "[ $JOB_COMPLETION_INDEX = 0 ] || exec sleep 100000";
    let cases = [
        ("all", "true", json!({"succeededIndexes": "0-1"}), "0,1"),
        ("counted", first, json!({"succeededCount": 1}), "0"),
        ("indexed", first, json!({"succeededIndexes": "0"}), "0"),
    ];
    for (app, script, rule, _) in &cases {
        let spec = json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2,
            "successPolicy": {"rules": [rule]}});
        make(lab, app, script, &spec);
    }
    for (app, _, _, completed) in &cases {
        let (_, reason) = becomes(lab, app, "SuccessCriteriaMet");
        assert_eq!(reason, "SuccessPolicy");
        let (job, reason) = becomes(lab, app, "Complete");
        assert_eq!(
            (&reason, &job["status"]["completedIndexes"]),
            (&json!("SuccessPolicy"), &json!(completed)),
            "{job}"
        );
        assert!(job["status"]["active"].is_null(), "{job}");
    }
    remove(lab, &["all", "counted", "indexed"]);
}

const POLICIES: [&str; 3] = ["Allow", "Forbid", "Replace"];

/// Begun first, for what they do takes two minutes.
pub fn cron_jobs_are_made(lab: &Lab) {
    let cron = |app: &str, more: Value| {
        let mut template = template(app, "exec sleep 100000");
        template["spec"]["restartPolicy"] = "OnFailure".into();
        let mut cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": app}, "spec": {
            "schedule": "*/1 * * * ?", "jobTemplate": {"metadata": {"labels": {"app": app}}, "spec": {"template": template}}}});
        crate::lab::merge(&mut cron["spec"], &more);
        crate::conformance::feed(lab, &["create", "-f", "-"], &cron);
    };
    for policy in POLICIES {
        cron(&policy.to_lowercase(), json!({"concurrencyPolicy": policy}));
    }
    cron("suspended", json!({"suspend": true}));
}

pub fn cron_jobs_have_run_as_they_should(lab: &Lab) {
    let jobs = |app: &str| {
        let list = lab.json(&["get", "jobs", "-l", &format!("app={app}")]).unwrap();
        list["items"].as_array().unwrap().clone()
    };
    // Once the one that may run several has two, two starts are behind us.
    until(lab, "cronjob/allow", |c| c["status"]["active"].as_array().is_some_and(|a| a.len() >= 2));
    assert!(jobs("allow").len() >= 2);
    let forbid = until(lab, "cronjob/forbid", |c| c["status"]["active"].as_array().is_some_and(|a| a.len() == 1));
    let only = jobs("forbid");
    assert_eq!((only.len(), &only[0]["metadata"]["uid"]), (1, &forbid["status"]["active"][0]["uid"]));
    let told = wait_for("why it does not start again", || {
        let told = lab.kubectl(&["describe", "cronjob", "forbid"]);
        told.contains("JobAlreadyActive").then_some(told)
    });
    assert!(
        told.contains("Not starting job because prior execution is running and concurrency policy is Forbid"),
        "{told}"
    );
    wait_for("another in the place of the first", || {
        let told = lab.kubectl(&["describe", "cronjob", "replace"]);
        (told.matches("SuccessfulCreate").count() >= 2 || told.contains("SuccessfulDelete")).then_some(())
    });
    let replace = get(lab, "cronjob/replace");
    assert_eq!(replace["status"]["active"].as_array().map(Vec::len), Some(1), "{replace}");
    stays(lab, |_| jobs("suspended").is_empty());
    let mut arguments = vec!["delete", "cronjob", "suspended"];
    let names = POLICIES.map(str::to_lowercase);
    arguments.extend(names.iter().map(String::as_str));
    lab.kubectl(&arguments);
}
