//! What the conformance profile asks of workloads, in the steps of its tests, with pods that run on two nodes.
//! `tests/CONFORMANCE.md` says which requirement is shown where.

mod deployments;
mod jobs;
mod sets;

use serde_json::{Value, json};

use crate::lab::{IMAGE, Lab, variable, wait_for};
use crate::support::skip;

/// An image that is nowhere, and that nobody is asked for.
const ABSENT: &str = "test.local/absent:1";

#[test]
fn workloads_do_what_the_profile_asks_of_them() {
    if !nix::unistd::geteuid().is_root() || variable("SKIFF_TEST_KUBECTL").is_none() {
        return skip("needs root and SKIFF_TEST_KUBECTL");
    }
    let mut lab = Lab::with_server(2);
    lab.join(2);
    jobs::cron_jobs_are_made(&lab);
    deployments::an_old_set_is_rolled(&lab);
    deployments::all_pods_go_before_others_come(&lab);
    deployments::old_sets_are_cleaned_up(&lab);
    deployments::a_roll_out_is_rolled_over(&lab);
    deployments::a_half_done_roll_out_is_scaled_in_proportion(&lab);
    sets::pods_are_adopted_and_released(&lab);
    sets::pods_of_a_set_answer(&lab);
    sets::a_replica_set_is_replaced_and_patched(&lab);
    sets::a_daemon_set_is_where_its_selector_is(&lab);
    sets::a_daemon_set_replaces_its_pods_and_is_rolled_back(&lab);
    sets::a_stateful_set_rolls_in_parts(&lab);
    sets::a_stateful_set_waits_for_unhealthy_pods(&lab);
    sets::a_parallel_set_bursts(&lab);
    sets::a_pod_that_the_node_refuses_is_made_again(&lab);
    jobs::pods_are_orphaned_adopted_and_released(&lab);
    jobs::failures_are_judged(&lab);
    jobs::indexes_are_run_and_given_up(&lab);
    jobs::a_success_policy_ends_a_job(&lab);
    jobs::cron_jobs_have_run_as_they_should(&lab);
}

fn labels(app: &str) -> Value {
    json!({"app": app})
}

/// A template of pods that run a script.
fn template(app: &str, script: &str) -> Value {
    let container = json!({"name": "c", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script]});
    json!({"metadata": {"labels": labels(app)}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}})
}

/// One that does nothing.
fn idle(app: &str) -> Value {
    template(app, "exec sleep 100000")
}

/// Makes a workload of a kind with a selector of its app; more goes into its spec.
fn make(lab: &Lab, kind: &str, app: &str, template: &Value, more: &Value) {
    let (version, selector) = match kind {
        "ReplicationController" => ("v1", labels(app)),
        _ => ("apps/v1", json!({"matchLabels": labels(app)})),
    };
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": app},
        "spec": {"selector": selector, "template": template}});
    crate::lab::merge(&mut object["spec"], more);
    crate::conformance::feed(lab, &["create", "-f", "-"], &object);
}

/// Merges into an object, `kind/name`, or a subresource of it.
fn patch(lab: &Lab, what: &str, subresource: Option<&str>, patch: &Value) {
    let (patch, option) = (patch.to_string(), subresource.map(|s| format!("--subresource={s}")));
    let mut arguments = vec!["patch", what, "--type=merge", "-p", &patch];
    arguments.extend(option.as_deref());
    lab.kubectl(&arguments);
}

fn get(lab: &Lab, what: &str) -> Value {
    lab.json(&["get", what]).unwrap()
}

/// The object once it is as it should be.
fn until(lab: &Lab, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, || lab.json(&["get", what]).ok().filter(&is))
}

/// The pods of an app, those that end too.
fn pods(lab: &Lab, app: &str) -> Vec<Value> {
    let list = lab.json(&["get", "pods", "-l", &format!("app={app}")]).unwrap();
    list["items"].as_array().unwrap().clone()
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

fn owner(object: &Value) -> &Value {
    &object["metadata"]["ownerReferences"][0]["uid"]
}

fn ready(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null() && crate::lab::condition(pod, "Ready").as_deref() == Some("True")
}

/// So many pods of an app, all of them ready.
fn all_ready(lab: &Lab, app: &str, count: usize) -> Vec<Value> {
    wait_for(&format!("{count} pods of {app}"), || {
        let found = pods(lab, app);
        (found.len() == count && found.iter().all(ready)).then_some(found)
    })
}

/// Deletes a workload and waits for its pods to go.
fn remove(lab: &Lab, what: &str, app: &str) {
    lab.kubectl(&["delete", what]);
    wait_for("no pods", || pods(lab, app).is_empty().then_some(()));
}

/// Looks for a while whether something stays as it is.
fn stays(lab: &Lab, mut holds: impl FnMut(&Lab) -> bool) {
    let start = crate::lab::now();
    while start.elapsed() < std::time::Duration::from_secs(3) {
        assert!(holds(lab), "{}", lab.logs());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}
