//! Golden plans of Jobs.

mod ending;
mod indexed;
mod pods;
mod tracking;

use serde_json::{Value, json};

use super::*;
use crate::client::request::{Class, Verb};
use crate::server::controllers::action::Failure;

const NOW: &str = "2026-01-01T01:00:00Z";

/// `spec` and `status` are merged over a Job that wants two successes, has started an hour ago and knows of nothing else.
fn job(spec: Value, status: Value) -> Value {
    let mut job = json!({
        "metadata": { "name": "j", "namespace": "ns", "uid": "j", "resourceVersion": "7" },
        "spec": {
            "parallelism": 2, "completions": 2, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
            "podReplacementPolicy": "TerminatingOrFailed", "selector": { "matchLabels": { "of": "j" } },
            "template": { "metadata": { "labels": { "of": "j" } },
                "spec": { "restartPolicy": "Never", "containers": [{ "name": "c" }], "initContainers": [{ "name": "i" }] } },
        },
        "status": { "startTime": "2026-01-01T00:00:00Z", "ready": 0, "terminating": 0 },
    });
    json_patch::merge(&mut job, &json!({ "spec": spec, "status": status }));
    job
}

/// `more` is merged over a running pod of the Job that nobody has counted.
fn pod(name: &str, more: Value) -> Value {
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "ns", "uid": name, "labels": { "of": "j" },
            "resourceVersion": "3", "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["batch.kubernetes.io/job-tracking"],
            "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": true }] },
        "spec": { "nodeName": "n", "containers": [] },
        "status": { "phase": "Running" },
    });
    json_patch::merge(&mut pod, &more);
    pod
}

fn running(name: &str) -> Value {
    pod(name, json!({}))
}

fn succeeded(name: &str) -> Value {
    pod(name, json!({ "status": { "phase": "Succeeded" } }))
}

/// Long ago, so that nobody waits for it.
fn failed(name: &str) -> Value {
    pod(name, json!({ "status": { "phase": "Failed" } }))
}

fn going(name: &str) -> Value {
    pod(name, json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:30:00Z" } }))
}

/// Its end is counted, or about to be.
fn untracked(mut pod: Value) -> Value {
    pod["metadata"]["finalizers"] = Value::Null;
    pod
}

fn with_index(index: &str, mut pod: Value) -> Value {
    pod["metadata"]["annotations"] = json!({ "batch.kubernetes.io/job-completion-index": index });
    pod
}

fn exited(code: i32, mut pod: Value) -> Value {
    pod["status"]["containerStatuses"] = json!([{ "name": "c", "image": "", "imageID": "", "ready": false,
        "restartCount": 0, "state": { "terminated": { "exitCode": code, "finishedAt": "2026-01-01T00:00:00Z" } } }]);
    pod
}

fn observed(job: Value, pods: &[Value]) -> Observed {
    Observed {
        job: Arc::new(serde_json::from_value(job).unwrap()),
        pods: pods.iter().map(|p| Arc::new(serde_json::from_value(p.clone()).unwrap())).collect(),
    }
}

fn show(actions: &[Action]) -> Vec<String> {
    let one = |w: &Write| match (w.request.verb, w.request.body.pointer("/metadata/ownerReferences/0/$patch")) {
        (Verb::Create, _) => format!("create {}", w.request.body["metadata"]["generateName"].as_str().unwrap()),
        (Verb::Delete, _) => format!("delete {}", w.request.name),
        (Verb::MergePatch, _) => format!("status {}", status(&w.request.body["status"])),
        (_, Some(_)) => format!("release {}", w.request.name),
        _ if w.request.body["metadata"]["ownerReferences"].is_array() => format!("adopt {}", w.request.name),
        _ => format!("untrack {}", w.request.name),
    };
    let shown = actions.iter().flat_map(|action| match action {
        Action::Write(write) => vec![one(write)],
        Action::SlowStart(writes) => writes.iter().map(one).collect(),
        Action::Event(note) => vec![format!("event {}: {}", note.reason, note.message)],
        Action::Read(request) => panic!("{request:?}"),
    });
    shown.collect()
}

/// What is not zero, and the conditions: `-` for one that is false.
fn status(status: &Value) -> String {
    let mut parts = Vec::new();
    for (field, name) in [
        ("/active", "active"),
        ("/ready", "ready"),
        ("/terminating", "terminating"),
        ("/succeeded", "succeeded"),
        ("/failed", "failed"),
        ("/completedIndexes", "indexes"),
        ("/failedIndexes", "failed-indexes"),
        ("/uncountedTerminatedPods/succeeded", "uncounted"),
        ("/uncountedTerminatedPods/failed", "uncounted-failed"),
        ("/completionTime", "completed"),
    ] {
        match status.pointer(field).unwrap() {
            Value::Null => {}
            Value::Number(n) if n.as_i64() == Some(0) => {}
            Value::Array(uids) => {
                parts
                    .push(format!("{name}={}", uids.iter().map(|u| u.as_str().unwrap()).collect::<Vec<_>>().join("+")));
            }
            Value::String(text) => parts.push(format!("{name}={text}")),
            other => parts.push(format!("{name}={other}")),
        }
    }
    for c in status["conditions"].as_array().into_iter().flatten() {
        let sign = if c["status"] == "True" { "" } else { "-" };
        parts.push(format!("{sign}{}({})", c["type"].as_str().unwrap(), c["reason"].as_str().unwrap_or_default()));
    }
    parts.join(" ")
}

fn plan_of(job: Value, pods: &[Value], failure: Option<&Failure>) -> Planned {
    plan(&observed(job, pods), &mut Failures::default(), Moment { now: NOW.parse().unwrap(), failure })
}

fn check(job: Value, pods: &[Value], want: &[&str]) -> Planned {
    let planned = plan_of(job, pods, None);
    assert_eq!(show(&planned.plan.actions), want);
    planned
}

fn check_after_failure(job: Value, pods: &[Value], want: &[&str]) {
    let failure = Failure { class: Class::Permanent, message: "quota".into() };
    assert_eq!(show(&plan_of(job, pods, Some(&failure)).plan.actions), want);
}

fn condition(kind: &str, reason: &str) -> Value {
    json!({ "type": kind, "status": "True", "reason": reason, "message": "m" })
}

/// The bodies of what is made.
fn created(planned: &Planned) -> Vec<&Value> {
    let writes = planned.plan.actions.iter().filter_map(|a| match a {
        Action::SlowStart(writes) => Some(writes),
        _ => None,
    });
    writes.flatten().filter(|w| w.request.verb == Verb::Create).map(|w| &w.request.body).collect()
}
