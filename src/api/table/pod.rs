//! Decides: the row of a Pod: what its READY, STATUS and RESTARTS say.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::access::{age, at, list, name, number, or, since, text, time};

/// Reason of a pod whose node is gone.
const NODE_LOST: &str = "NodeLost";

/// Marks finished pods, so that clients can leave them out.
pub fn conditions(pod: &Value) -> Vec<Value> {
    let message = match text(pod, "status.phase") {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return Vec::new(),
    };
    let reason = text(pod, "status.phase");
    vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
}

pub fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summary(pod);
    let restarts = match summary.last_restart {
        Some(at) if summary.restarts != 0 => format!("{} ({} ago)", summary.restarts, since(Some(at), now)),
        _ => summary.restarts.to_string(),
    };
    let gates = list(pod, "spec.readinessGates");
    let open = gates.iter().filter(|g| condition_is_true(pod, text(g, "conditionType"))).count();
    let gates = if gates.is_empty() { "<none>".into() } else { format!("{open}/{}", gates.len()) };
    let ip = list(pod, "status.podIPs").first().map_or("", |ip| text(ip, "ip"));
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.status.into(),
        restarts.into(),
        age(pod, now),
        or(or(ip, text(pod, "status.podIP")), "<none>").into(),
        or(text(pod, "spec.nodeName"), "<none>").into(),
        or(text(pod, "status.nominatedNodeName"), "<none>").into(),
        gates.into(),
    ]
}

struct Summary {
    ready: usize,
    total: usize,
    status: String,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

fn summary(pod: &Value) -> Summary {
    let phase = text(pod, "status.phase");
    let mut out = Summary {
        ready: 0,
        total: list(pod, "spec.containers").len(),
        status: or(text(pod, "status.reason"), phase).into(),
        restarts: 0,
        last_restart: None,
    };
    let gated = |c: &&Value| text(c, "type") == "PodScheduled" && text(c, "reason") == "SchedulingGated";
    if list(pod, "status.conditions").iter().any(|c| gated(&c)) {
        out.status = "SchedulingGated".into();
    }
    let inits = list(pod, "spec.initContainers");
    out.total += inits.iter().filter(|c| is_sidecar(c)).count();
    let initializing = init_containers(pod, inits, &mut out);
    if !initializing || condition_is_true(pod, "Initialized") {
        containers(pod, inits, &mut out);
    }
    if !at(pod, "metadata.deletionTimestamp").is_null() {
        if text(pod, "status.reason") == NODE_LOST {
            out.status = "Unknown".into();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            out.status = "Terminating".into();
        }
    }
    out
}

/// Walks the init containers up to the first that is not done. True when there is one.
fn init_containers(pod: &Value, inits: &[Value], out: &mut Summary) -> bool {
    for (i, status) in list(pod, "status.initContainerStatuses").iter().enumerate() {
        out.restarts += number(status, "restartCount");
        out.last_restart = out.last_restart.max(last_restart(status));
        let terminated = at(status, "state.terminated");
        if !terminated.is_null() && number(terminated, "exitCode") == 0 {
            continue;
        }
        if named_sidecar(inits, status) && status["started"] == true {
            out.ready += usize::from(status["ready"] == true);
            continue;
        }
        let waiting = text(status, "state.waiting.reason");
        out.status = if !terminated.is_null() {
            format!("Init:{}", terminated_reason(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{}", inits.len())
        };
        return true;
    }
    false
}

fn containers(pod: &Value, inits: &[Value], out: &mut Summary) {
    let sidecars = list(pod, "status.initContainerStatuses").iter().filter(|s| named_sidecar(inits, s));
    (out.restarts, out.last_restart) = (0, None);
    for status in sidecars {
        out.restarts += number(status, "restartCount");
        out.last_restart = out.last_restart.max(last_restart(status));
    }
    let mut running = false;
    for status in list(pod, "status.containerStatuses").iter().rev() {
        out.restarts += number(status, "restartCount");
        out.last_restart = out.last_restart.max(last_restart(status));
        let waiting = text(status, "state.waiting.reason");
        let terminated = at(status, "state.terminated");
        if !waiting.is_empty() {
            out.status = waiting.into();
        } else if !terminated.is_null() {
            out.status = terminated_reason(terminated);
        } else if status["ready"] == true && !at(status, "state.running").is_null() {
            running = true;
            out.ready += 1;
        }
    }
    // One container has completed, another still runs.
    if out.status == "Completed" && running {
        out.status = if condition_is_true(pod, "Ready") { "Running" } else { "NotReady" }.into();
    }
}

fn terminated_reason(terminated: &Value) -> String {
    let (reason, signal) = (text(terminated, "reason"), number(terminated, "signal"));
    if !reason.is_empty() {
        reason.into()
    } else if signal != 0 {
        format!("Signal:{signal}")
    } else {
        format!("ExitCode:{}", number(terminated, "exitCode"))
    }
}

fn last_restart(status: &Value) -> Option<Timestamp> {
    time(status, "lastState.terminated.finishedAt")
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn named_sidecar(inits: &[Value], status: &Value) -> bool {
    inits.iter().any(|c| c["name"] == status["name"] && is_sidecar(c))
}

fn condition_is_true(pod: &Value, kind: &str) -> bool {
    list(pod, "status.conditions").iter().any(|c| text(c, "type") == kind && text(c, "status") == "True")
}
