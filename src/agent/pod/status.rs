//! Decides: what the API is told about a pod.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::observed::Observed;
use super::plan::Waiting;
use super::resize;
use super::restart::restarts;
use super::{Role, containers, ephemeral, host_network, pod_spec, restart_all};
use crate::agent::cgroups::qos;
use crate::agent::probes::Verdicts;
use crate::api::ephemeral::plain;
use crate::cri::{self, State};

pub struct Input<'a> {
    pub pod: &'a Pod,
    /// What was told last, else what the API has.
    pub previous: &'a PodStatus,
    pub observed: &'a Observed,
    pub verdicts: &'a Verdicts,
    /// Why containers are not running, where it is known.
    pub waiting: &'a BTreeMap<String, Waiting>,
    /// Termination messages by container id.
    pub messages: &'a BTreeMap<String, String>,
    /// Nothing of the pod will run any more.
    pub terminal: bool,
    /// Set when the node ended the pod: phase Failed with this reason and message.
    pub failure: Option<&'a Waiting>,
    /// The node disrupts the pod, and says why.
    pub disruption: Option<&'a str>,
    pub host_ips: &'a [String],
    /// What containers run with, and how far a resize has come.
    pub resizing: (&'a resize::Actual, &'a resize::Progress),
    pub now: Timestamp,
}

const ALL_RESTARTING: &str = "AllContainersRestarting";

fn tells(kind: &str) -> bool {
    kind == ALL_RESTARTING || CONDITIONS.contains(&kind) || resize::CONDITIONS.contains(&kind)
}

/// The conditions that the agent tells; others are other people's.
pub const CONDITIONS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

const DISRUPTION: &str = "DisruptionTarget";
/// Its reason when the node is the one who disrupts.
const BY_KUBELET: &str = "TerminationByKubelet";

#[must_use]
pub fn render(input: &Input) -> PodStatus {
    let spec = pod_spec(input.pod);
    let statuses = |init: bool| -> Vec<ContainerStatus> {
        let wanted = containers(input.pod).filter(|(role, _)| (*role != Role::App) == init);
        wanted.map(|(role, container)| container_status(input, role, container)).collect()
    };
    let (init, mut apps) = (statuses(true), statuses(false));
    let phase = phase(input, &init, &apps);
    if input.terminal {
        for status in &mut apps {
            status.ready = false;
        }
    }
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        observed_generation: input.pod.metadata.generation,
        start_time: input.previous.start_time.clone().or_else(|| Some(time(input.now))),
        qos_class: Some(qos(input.pod).as_str().to_owned()),
        host_ip: input.host_ips.first().cloned(),
        host_ips: Some(input.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        nominated_node_name: input.previous.nominated_node_name.clone(),
        resource_claim_statuses: input.previous.resource_claim_statuses.clone(),
        extended_resource_claim_status: input.previous.extended_resource_claim_status.clone(),
        resize: input.previous.resize.clone(),
        ..PodStatus::default()
    };
    let ips = pod_ips(input);
    status.pod_ip = ips.first().cloned();
    status.pod_ips = (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect());
    if let Some(failure) = input.failure {
        status.phase = Some("Failed".into());
        status.reason = Some(failure.reason.clone());
        status.message = Some(failure.message.clone());
    }
    status.conditions = Some(conditions(input, status.phase.as_deref().unwrap_or_default(), &init, &apps));
    // Of a pod that was refused nothing was ever made: kubectl shows the reason in place of what containers wait for.
    if input.failure.is_some() && input.observed.is_empty() {
        return status;
    }
    status.resources = spec.resources.clone();
    status.allocated_resources = spec.resources.as_ref().and_then(|whole| whole.requests.clone());
    status.container_statuses = Some(apps);
    let added = ephemeral(input.pod).map(|added| container_status(input, Role::Ephemeral, &plain(added)));
    status.ephemeral_container_statuses =
        Some(added.map(super::ephemeral::status).collect::<Vec<_>>()).filter(|all| !all.is_empty());
    if spec.init_containers.as_ref().is_some_and(|list| !list.is_empty()) {
        status.init_container_statuses = Some(init);
    }
    status
}

fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn pod_ips(input: &Input) -> Vec<String> {
    if host_network(input.pod) {
        let began = input.observed.sandbox().is_some() || input.previous.pod_ip.is_some();
        return if began { input.host_ips.to_vec() } else { Vec::new() };
    }
    match input.observed.ready_sandbox() {
        Some(sandbox) => sandbox.ips.clone(),
        // The address of an ended pod stays visible.
        None => input.previous.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect(),
    }
}

fn container_status(input: &Input, role: Role, container: &Container) -> ContainerStatus {
    let previous = input.previous;
    let lists =
        [&previous.container_statuses, &previous.init_container_statuses, &previous.ephemeral_container_statuses];
    let old = lists.into_iter().flatten().flatten().find(|status| status.name == container.name);
    let current = input.observed.current(&container.name);
    let mut status = match current {
        None => without_record(input, container, old),
        Some(current) => from_record(input, role, container, current),
    };
    if let Some(waiting) = input.waiting.get(&container.name) {
        let ended = status.state.take().and_then(|state| state.terminated);
        if let Some(ended) = ended {
            status.last_state = Some(ContainerState { terminated: Some(ended), ..ContainerState::default() });
        }
        let message = Some(waiting.message.clone()).filter(|message| !message.is_empty());
        let waiting = ContainerStateWaiting { reason: Some(waiting.reason.clone()), message };
        status.state = Some(ContainerState { waiting: Some(waiting), ..ContainerState::default() });
        (status.ready, status.started) = (false, Some(false));
    }
    let given = container.resources.clone().unwrap_or_default();
    let has = current.filter(|current| current.state == State::Running);
    let has = has.and_then(|current| input.resizing.0.containers.get(&current.id)).cloned();
    status.allocated_resources = given.requests.clone().filter(|requests| !requests.is_empty());
    status.resources = Some(resize::shown(has, given));
    let mounts = container.volume_mounts.iter().flatten().map(|mount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only,
        recursive_read_only: (mount.read_only == Some(true)).then(|| "Disabled".to_owned()),
        ..VolumeMountStatus::default()
    });
    status.volume_mounts = Some(mounts.collect::<Vec<_>>()).filter(|mounts| !mounts.is_empty());
    status
}

fn without_record(input: &Input, container: &Container, old: Option<&ContainerStatus>) -> ContainerStatus {
    // Its record was collected: what was told last still holds if it had ended.
    if let Some(old) = old.filter(|old| old.state.as_ref().is_some_and(|state| state.terminated.is_some())) {
        return old.clone();
    }
    let image = container.image.clone().unwrap_or_default();
    let mut status = ContainerStatus { name: container.name.clone(), image, ..ContainerStatus::default() };
    (status.started, status.last_state) = (Some(false), Some(ContainerState::default()));
    let running = old.filter(|old| old.state.as_ref().is_some_and(|state| state.running.is_some()));
    if let (Some(old), true) = (running, input.terminal) {
        let message = "The container could not be located when the pod was terminated".to_owned();
        let ended = ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some(message),
            ..ContainerStateTerminated::default()
        };
        status.restart_count = old.restart_count;
        status.state = Some(ContainerState { terminated: Some(ended), ..ContainerState::default() });
        return status;
    }
    let has_init = pod_spec(input.pod).init_containers.as_ref().is_some_and(|list| !list.is_empty());
    // Upstream's default for every container of a pod that has init containers, the init containers too.
    let reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
    let waiting = ContainerStateWaiting { reason: Some(reason.into()), message: None };
    status.state = Some(ContainerState { waiting: Some(waiting), ..ContainerState::default() });
    status
}

fn from_record(input: &Input, role: Role, container: &Container, current: &cri::Container) -> ContainerStatus {
    let image = match current.image.as_str() {
        "" => container.image.clone().unwrap_or_default(),
        id if id.starts_with("sha256:") => container.image.clone().unwrap_or_default(),
        name => name.to_owned(),
    };
    let running = current.state == State::Running;
    let started = running && input.verdicts.started(container, &current.id);
    let mut state = ContainerState::default();
    match current.state {
        State::Running => {
            let at = current.started_at.unwrap_or(current.created_at);
            state.running = Some(ContainerStateRunning { started_at: Some(time(at)) });
        }
        State::Exited | State::Unknown => state.terminated = Some(terminated(input, current)),
        State::Created => {
            let waiting = ContainerStateWaiting { reason: Some("ContainerCreating".into()), message: None };
            state.waiting = Some(waiting);
        }
    }
    let last = input
        .observed
        .previous(&container.name)
        .map(|previous| ContainerState { terminated: Some(terminated(input, previous)), ..ContainerState::default() });
    let ready = match role {
        Role::Init => current.state == State::Exited && current.exit_code == 0,
        Role::Sidecar | Role::App | Role::Ephemeral => running && input.verdicts.ready(container, &current.id),
    };
    ContainerStatus {
        name: container.name.clone(),
        image,
        image_id: current.image_ref.clone(),
        container_id: Some(format!("containerd://{}", current.id)),
        restart_count: i32::try_from(current.attempt).unwrap_or(i32::MAX),
        ready,
        started: Some(started),
        state: Some(state),
        last_state: last.or_else(|| Some(ContainerState::default())),
        ..ContainerStatus::default()
    }
}

fn terminated(input: &Input, container: &cri::Container) -> ContainerStateTerminated {
    let default = if container.exit_code == 0 { "Completed" } else { "Error" };
    let reason = Some(container.reason.clone()).filter(|reason| !reason.is_empty());
    let message = input.messages.get(&container.id).or(Some(&container.message));
    ContainerStateTerminated {
        container_id: Some(format!("containerd://{}", container.id)),
        exit_code: container.exit_code,
        reason: Some(reason.unwrap_or_else(|| default.to_owned())),
        message: message.cloned().filter(|message| !message.is_empty()),
        started_at: container.started_at.or(Some(container.created_at)).map(time),
        finished_at: container.finished_at.map(time),
        signal: None,
    }
}

fn is_terminated(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

/// Sidecars count as initialized once they started; init containers once they succeeded.
fn initialized(input: &Input, init: &[ContainerStatus]) -> Vec<String> {
    let roles = containers(input.pod).filter(|(role, _)| *role != Role::App);
    let incomplete = roles.zip(init).filter(|((role, _), status)| match role {
        Role::Sidecar => status.started != Some(true) && is_terminated(status).is_none() && status.restart_count == 0,
        _ => is_terminated(status).is_none_or(|ended| ended.exit_code != 0),
    });
    incomplete.map(|(_, status)| status.name.clone()).collect()
}

fn phase(input: &Input, init: &[ContainerStatus], apps: &[ContainerStatus]) -> &'static str {
    let roles: Vec<(Role, &Container)> = containers(input.pod).collect();
    let mut pending = false;
    for ((role, container), status) in roles.iter().zip(init) {
        if *role != Role::Init {
            continue;
        }
        match is_terminated(status) {
            Some(ended) if ended.exit_code == 0 => {}
            Some(ended) if !restarts(input.pod, Role::Init, container, ended.exit_code) => return "Failed",
            _ => pending = true,
        }
    }
    let (mut waiting, mut running, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for status in apps {
        let state = status.state.clone().unwrap_or_default();
        let last_ended = status.last_state.as_ref().is_some_and(|state| state.terminated.is_some());
        match (state.running, state.terminated) {
            (Some(_), _) => running += 1,
            (None, Some(ended)) => {
                stopped += 1;
                succeeded += i32::from(ended.exit_code == 0);
            }
            (None, None) if last_ended => stopped += 1,
            (None, None) => waiting += 1,
        }
    }
    let app_began = running + stopped > 0;
    if input.terminal && waiting > 0 && !app_began {
        return "Failed";
    }
    if pending && !app_began {
        return "Pending";
    }
    if waiting > 0 {
        return "Pending";
    }
    if running > 0 {
        return "Running";
    }
    if stopped == 0 {
        return "Pending";
    }
    // One that will run again keeps the pod running, whatever the policy of the others.
    let exit_code = |status: &ContainerStatus| {
        let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        is_terminated(status).or(last).map(|ended| ended.exit_code)
    };
    let runs_again = |((role, container), status): (&(Role, &Container), &ContainerStatus)| {
        exit_code(status).is_some_and(|code| restarts(input.pod, *role, container, code))
    };
    if !input.terminal && roles.iter().filter(|(role, _)| *role == Role::App).zip(apps).any(runs_again) {
        return "Running";
    }
    if stopped == succeeded { "Succeeded" } else { "Failed" }
}

fn conditions(input: &Input, phase: &str, init: &[ContainerStatus], apps: &[ContainerStatus]) -> Vec<PodCondition> {
    let incomplete = initialized(input, init);
    let has_network = input.observed.ready_sandbox().is_some_and(|s| host_network(input.pod) || !s.ips.is_empty());
    let initialized = match (phase, incomplete.is_empty()) {
        ("Succeeded", _) => verdict("Initialized", true, "PodCompleted", ""),
        (_, true) => verdict("Initialized", true, "", ""),
        // It was, before a sidecar began to restart.
        _ if apps.iter().any(has_begun) => verdict("Initialized", true, "", ""),
        _ => {
            let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
            verdict("Initialized", false, "ContainersNotInitialized", &message)
        }
    };
    let containers_ready = containers_ready(input, phase, init, apps);
    let ready = ready(input, &containers_ready);
    let mut conditions = vec![
        verdict("PodReadyToStartContainers", has_network, "", ""),
        initialized,
        ready,
        containers_ready,
        verdict("PodScheduled", true, "", ""),
    ];
    conditions.extend(all_restarting(input, phase));
    conditions.extend(resize::conditions(input.resizing.1));
    let old = input.previous.conditions.as_deref().unwrap_or_default();
    if let Some(message) = input.disruption {
        conditions.push(verdict(DISRUPTION, true, BY_KUBELET, message));
    }
    for condition in &mut conditions {
        condition.observed_generation = condition.observed_generation.or(input.pod.metadata.generation);
        let same = old.iter().find(|o| o.type_ == condition.type_ && o.status == condition.status);
        let since = same.and_then(|o| o.last_transition_time.clone());
        condition.last_transition_time = Some(since.unwrap_or_else(|| time(input.now)));
    }
    // Other writers' conditions are theirs; the patch leaves them alone, and so does this.
    let ours =
        |kind: &str| resize::CONDITIONS.contains(&kind) || conditions.iter().any(|condition| condition.type_ == kind);
    let others: Vec<PodCondition> = old.iter().filter(|o| !ours(&o.type_)).cloned().collect();
    conditions.extend(others);
    conditions
}

/// Only of pods that have such a rule.
fn all_restarting(input: &Input, phase: &str) -> Option<PodCondition> {
    let round = restart_all::round(input.pod, input.observed);
    let is_going_on = restart_all::left_over(round, input.observed).next().is_some();
    let verdict = match phase {
        "Succeeded" => verdict(ALL_RESTARTING, false, "PodCompleted", ""),
        "Failed" => verdict(ALL_RESTARTING, false, "PodFailed", ""),
        _ => verdict(ALL_RESTARTING, is_going_on, "", ""),
    };
    restart_all::is_possible(input.pod).then_some(verdict)
}

fn has_begun(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}

fn verdict(kind: &str, status: bool, reason: &str, message: &str) -> PodCondition {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    PodCondition {
        type_: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: text(reason),
        message: text(message),
        ..PodCondition::default()
    }
}

fn containers_ready(input: &Input, phase: &str, init: &[ContainerStatus], apps: &[ContainerStatus]) -> PodCondition {
    const KIND: &str = "ContainersReady";
    match phase {
        "Succeeded" => return verdict(KIND, false, "PodCompleted", ""),
        "Failed" => return verdict(KIND, false, "PodFailed", ""),
        _ => {}
    }
    let roles = containers(input.pod);
    let counted = roles.zip(init.iter().chain(apps)).filter(|((role, _), _)| *role != Role::Init);
    let unready: Vec<&str> =
        counted.filter(|(_, status)| !status.ready).map(|(_, status)| status.name.as_str()).collect();
    if unready.is_empty() {
        return verdict(KIND, true, "", "");
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    verdict(KIND, false, "ContainersNotReady", &message)
}

fn ready(input: &Input, containers_ready: &PodCondition) -> PodCondition {
    if containers_ready.status != "True" {
        return PodCondition { type_: "Ready".into(), ..containers_ready.clone() };
    }
    let current = input.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let mut unmet = Vec::new();
    for gate in pod_spec(input.pod).readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        match current.iter().find(|condition| condition.type_ == *kind) {
            Some(condition) if condition.status == "True" => {}
            Some(condition) => {
                let status = &condition.status;
                unmet.push(format!("the status of pod readiness gate \"{kind}\" is not \"True\", but {status}"));
            }
            None => unmet.push(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")),
        }
    }
    match unmet.is_empty() {
        true => verdict("Ready", true, "", ""),
        false => verdict("Ready", false, "ReadinessGatesNotReady", &unmet.join(", ")),
    }
}

/// The strategic merge patch that tells `status`. Conditions merge by type, so that what they no longer have is named
/// as null; so do addresses, of which the old ones go; lists of containers are replaced anyway. The uid makes it fail on another pod of the same name.
#[must_use]
pub fn patch(pod: &Pod, status: &PodStatus) -> serde_json::Value {
    let mut body = serde_json::to_value(status).unwrap_or_default();
    if let Some(conditions) = body.get_mut("conditions").and_then(|c| c.as_array_mut()) {
        conditions.retain(|c| {
            let says = |field: &str| c.get(field).and_then(|text| text.as_str()).unwrap_or_default();
            tells(says("type")) || (says("type") == DISRUPTION && says("reason") == BY_KUBELET)
        });
        for condition in conditions.iter_mut().filter_map(|c| c.as_object_mut()) {
            for field in ["reason", "message"] {
                condition.entry(field).or_insert(serde_json::Value::Null);
            }
        }
    }
    if let Some(body) = body.as_object_mut() {
        for field in ["reason", "message"] {
            body.entry(field).or_insert(serde_json::Value::Null);
        }
        for field in ["podIPs", "hostIPs"] {
            if let Some(addresses) = body.get_mut(field).and_then(|a| a.as_array_mut()) {
                addresses.push(serde_json::json!({ "$patch": "replace" }));
            }
        }
    }
    serde_json::json!({ "metadata": { "uid": pod.metadata.uid }, "status": body })
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
