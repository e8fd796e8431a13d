//! Tests: what the conformance profile asks of a node, with pods that run. Most of them run to their end and say what they
//! found, so that a table of many costs as long as its slowest. `tests/CONFORMANCE.md` says which requirement is where.

mod environment;
mod life;
mod probes;
mod resize;
mod security;
mod volumes;

use serde_json::{Value, json};

use crate::lab::{IMAGE, Lab, merge, wait_for};
use crate::support::skip;

#[test]
fn a_node_does_what_the_profile_asks_of_it() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let lab = Lab::with_server(1);
    volumes::data(&lab);
    environment::data(&lab);
    // What takes its time begins first.
    probes::begin(&lab);
    life::begin(&lab);
    let cases = [
        volumes::config_maps_and_secrets_are_files(),
        volumes::the_downward_api_is_files(&lab),
        volumes::empty_dirs_have_modes_and_media(),
        volumes::volumes_do_not_disturb_each_other(),
        volumes::sub_paths_are_mounted(),
        environment::config_maps_and_secrets_are_variables(),
        environment::the_downward_api_is_variables(&lab),
        environment::variables_are_expanded(),
        environment::commands_and_arguments_override_the_image(),
        security::contexts_are_obeyed(),
        life::hosts_are_managed(),
    ]
    .concat();
    cases.chunks(30).for_each(|cases| all_say(&lab, cases));
    volumes::running_pods_see_what_changes(&lab);
    volumes::sub_paths_expand_to_what_is_safe(&lab);
    environment::services_are_variables(&lab);
    security::sysctls_are_set_or_refused(&lab);
    life::hooks_are_called(&lab);
    life::messages_are_left(&lab);
    life::policies_decide_about_restarts(&lab);
    life::init_containers_come_first(&lab);
    life::a_deadline_ends_a_pod(&lab);
    life::generations_are_observed(&lab);
    life::runtime_classes_are_looked_up(&lab);
    life::pods_are_listed_changed_and_deleted(&lab);
    resize::many_containers_are_resized_together(&lab);
    resize::a_resize_is_read_and_replaced(&lab);
    probes::liveness_restarts(&lab);
    probes::readiness_is_told(&lab);
    // It takes everybody else away.
    life::taints_evict_in_their_time(&lab);
}

/// A pod of one container `c` that runs a script to its end, and what it must have said then.
#[derive(Clone)]
struct Case {
    name: String,
    pod: Value,
    says: String,
}

impl Case {
    fn new(name: impl Into<String>, script: &str, says: impl Into<String>) -> Self {
        let name = name.into();
        let container =
            json!({"name": "c", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script]});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]}});
        Self { name, pod, says: says.into() }
    }

    fn metadata(mut self, more: &Value) -> Self {
        merge(&mut self.pod["metadata"], more);
        self
    }

    fn spec(mut self, more: &Value) -> Self {
        merge(&mut self.pod["spec"], more);
        self
    }

    fn container(mut self, more: &Value) -> Self {
        merge(&mut self.pod["spec"]["containers"][0], more);
        self
    }

    /// A volume `v` at `/v`.
    fn volume(self, source: &Value) -> Self {
        let mut volume = json!({"name": "v"});
        merge(&mut volume, source);
        self.spec(&json!({"volumes": [volume]})).container(&json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))
    }

    fn user(self, uid: i64) -> Self {
        self.spec(&json!({"securityContext": {"runAsUser": uid}}))
    }
}

/// Runs the pods of all cases at once; each must succeed and have said what it should. Removes them.
#[track_caller]
fn all_say(lab: &Lab, cases: &[Case]) {
    let pods: Vec<&Value> = cases.iter().map(|case| &case.pod).collect();
    create(lab, &pods);
    for case in cases {
        let phase = ended(lab, &case.name);
        let said = lab.kubectl(&["logs", &case.name, "-c", "c"]);
        assert_eq!(said, case.says, "{}", case.name);
        assert_eq!(phase, "Succeeded", "{}", case.name);
    }
    let mut delete = vec!["delete", "pod", "--wait=false"];
    delete.extend(cases.iter().map(|case| case.name.as_str()));
    lab.kubectl(&delete);
}

/// Makes objects by one `kubectl create`.
#[track_caller]
fn create(lab: &Lab, objects: &[&Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    crate::conformance::feed(lab, &["create", "-f", "-"], &list);
}

/// The phase in which a pod ended.
#[track_caller]
fn ended(lab: &Lab, name: &str) -> String {
    wait_for(&format!("the end of pod {name}"), || {
        let phase = get(lab, &format!("pod/{name}"))["status"]["phase"].as_str()?.to_owned();
        matches!(phase.as_str(), "Succeeded" | "Failed").then_some(phase)
    })
}

#[track_caller]
fn get(lab: &Lab, what: &str) -> Value {
    lab.json(&["get", what]).unwrap()
}

/// The object once it is as it should be.
#[track_caller]
fn until(lab: &Lab, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, || lab.json(&["get", what]).ok().filter(&is))
}

fn is_ready(pod: &Value) -> bool {
    crate::lab::condition(pod, "Ready").as_deref() == Some("True")
}

/// The status of a pod's first container.
fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}
