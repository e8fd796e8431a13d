//! Decides: what to do next about one pod, from its spec, what the runtime has, probe results and the time.
//!
//! ```text
//! no ready sandbox ──▶ StopSandbox, RemoveSandbox (what is left) ▶ CreateSandbox ▶ Start first init container, or all containers
//! ready sandbox    ──▶ init containers one by one ──▶ each container: missing → Start
//!                                                      exited  → Start, or wait for its back-off
//!                                                      running → keep, or Stop (probe failed, image changed)
//!                       └──▶ ephemeral containers that were never made → Start
//! nothing left to run ▶ StopSandbox, `finished`
//! ```
//! Asked again after every change; it carries no state but the back-off it is given.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::observed::Observed;
use super::resize::Update;
use super::restart::{Backoff, go_duration, may_run_again, restarts};
use super::{Role, containers, describe, ephemeral, pod_spec, restart_all, spec};
use crate::agent::probes::{Kind, Verdicts};
use crate::cri::{self, State};

pub struct Input<'a> {
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    pub verdicts: &'a Verdicts,
    pub backoff: &'a Backoff,
    /// Containers whose last start failed, and when to try again.
    pub retry_at: &'a BTreeMap<String, Timestamp>,
    /// When creating the sandbox may be tried again.
    pub sandbox_retry_at: Option<Timestamp>,
    /// Ids of containers stopped so that they start again: whatever their exit code, they do.
    pub stopped_to_restart: &'a BTreeSet<String>,
    pub now: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Stops the sandbox and whatever runs in it.
    StopSandbox {
        id: String,
    },
    /// What a failed set-up left behind.
    RemoveSandbox {
        id: String,
    },
    CreateSandbox {
        attempt: u32,
    },
    /// Removes a container that was created but never started.
    Remove {
        id: String,
    },
    Start {
        name: String,
        attempt: u32,
        /// When the one before ended.
        restart_of: Option<Timestamp>,
    },
    Stop {
        id: String,
        name: String,
        /// Of the `Killing` event.
        message: String,
        restart: bool,
        /// The probe that failed.
        probe: Option<Kind>,
    },
    /// Stops a container without its hook: all of the pod begin anew.
    End {
        id: String,
        name: String,
    },
    /// Gives running containers, and the pod's control group, what the pod has been granted.
    Resize {
        updates: Vec<Update>,
    },
}

/// Why a container is not running, as `state.waiting` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// Ask again then, if nothing happens before.
    pub wake_at: Option<Timestamp>,
    /// Containers held back by their back-off.
    pub held: BTreeMap<String, Waiting>,
    /// Every container is done and none will run again.
    pub finished: bool,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }
}

#[must_use]
pub fn plan(input: &Input) -> Plan {
    let mut plan = Plan::default();
    if finished(input) {
        plan.finished = true;
        let ready = input.observed.sandboxes.iter().filter(|sandbox| sandbox.ready);
        plan.actions.extend(ready.map(|sandbox| Action::StopSandbox { id: sandbox.id.clone() }));
        return plan;
    }
    let Some(sandbox) = input.observed.ready_sandbox() else {
        without_sandbox(input, &mut plan);
        return plan;
    };
    let left_over = restart_all::left_over(round(input), input.observed);
    plan.actions.extend(left_over.map(|c| Action::End { id: c.id.clone(), name: c.name.clone() }));
    if !plan.actions.is_empty() {
        return plan;
    }
    // Only the newest sandbox counts; an older one that still runs is a left-over.
    let stale = input.observed.sandboxes.iter().filter(|other| other.ready && other.id != sandbox.id);
    plan.actions.extend(stale.map(|other| Action::StopSandbox { id: other.id.clone() }));
    if init_containers(input, &mut plan, Some(&sandbox.id)) {
        for (_, container) in containers(input.pod).filter(|(role, _)| *role == Role::App) {
            one(input, &mut plan, Role::App, container);
        }
    }
    // Whatever the others wait for; once made, one is never started again.
    for added in ephemeral(input.pod).filter(|added| input.observed.current(&added.name).is_none()) {
        start(input, &mut plan, &added.name, 0, None);
    }
    plan
}

fn without_sandbox(input: &Input, plan: &mut Plan) {
    if let Some(at) = input.sandbox_retry_at.filter(|at| *at > input.now) {
        return plan.wake(at);
    }
    let attempt = input.observed.sandbox().map_or(0, |sandbox| sandbox.attempt + 1);
    // Containers in it may have outlived the sandbox's own process.
    let left: BTreeSet<&str> = input.observed.running().map(|container| container.sandbox_id.as_str()).collect();
    plan.actions.extend(left.into_iter().map(|id| Action::StopSandbox { id: id.to_owned() }));
    let holds = |id: &str| input.observed.containers.iter().any(|container| container.sandbox_id == id);
    let empty = input.observed.sandboxes.iter().filter(|sandbox| !sandbox.ready && !holds(&sandbox.id));
    plan.actions.extend(empty.map(|sandbox| Action::RemoveSandbox { id: sandbox.id.clone() }));
    plan.actions.push(Action::CreateSandbox { attempt });
    // What ran in the old sandbox is not running any more, whatever was observed.
    let mut ended = input.observed.clone();
    for container in &mut ended.containers {
        if container.state == State::Running {
            container.state = State::Exited;
        }
    }
    let input = Input { observed: &ended, ..*input };
    if init_containers(&input, plan, None) {
        for (_, container) in containers(input.pod).filter(|(role, _)| *role == Role::App) {
            one(&input, plan, Role::App, container);
        }
    }
}

/// All containers ended and stay so. An init container that failed for good ends the pod too.
fn finished(input: &Input) -> bool {
    let mut any = false;
    for (role, container) in containers(input.pod) {
        let current = input.observed.current(&container.name);
        let over = current.is_some_and(|c| c.state == State::Exited && !runs_again(input, role, container, c));
        match role {
            Role::Sidecar | Role::Ephemeral => {}
            Role::Init if over && current.is_some_and(|c| c.exit_code != 0) => return true,
            Role::Init => {}
            Role::App if !over => return false,
            Role::App => any = true,
        }
    }
    any
}

fn round(input: &Input) -> Option<Timestamp> {
    restart_all::round(input.pod, input.observed)
}

fn runs_again(input: &Input, role: Role, container: &Container, current: &cri::Container) -> bool {
    if restart_all::is_former(round(input), current) {
        return true;
    }
    let asked = input.stopped_to_restart.contains(&current.id) && may_run_again(input.pod, container);
    asked || restarts(input.pod, role, container, current.exit_code)
}

/// Starts what is next; true when all are through and the containers' turn has come. `sandbox` is the one that
/// they must have run in: a new sandbox runs all of them again.
fn init_containers(input: &Input, plan: &mut Plan, sandbox: Option<&str>) -> bool {
    let round = round(input);
    let here = |c: &&cri::Container| Some(c.sandbox_id.as_str()) == sandbox && !restart_all::is_former(round, c);
    let apps_began = pod_spec(input.pod).containers.iter().any(|c| {
        let current = input.observed.current(&c.name).filter(here);
        current.is_some_and(|c| c.state != State::Created)
    });
    for (role, container) in containers(input.pod).filter(|(role, _)| *role != Role::App) {
        let current = input.observed.current(&container.name).filter(here);
        match (role, current) {
            // Its turn was over when the containers began, even if its record was collected since.
            (Role::Init, _) if apps_began => {}
            (Role::Init, Some(c)) if c.state == State::Exited && c.exit_code == 0 => {}
            (Role::Sidecar, Some(c)) if c.state == State::Running => {
                one(input, plan, role, container);
                if !apps_began && !input.verdicts.started(container, &c.id) {
                    return false;
                }
            }
            (Role::Sidecar, Some(_)) if apps_began => one(input, plan, role, container),
            _ => {
                one(input, plan, role, container);
                if !(apps_began && role == Role::Sidecar) {
                    return false;
                }
            }
        }
    }
    true
}

fn one(input: &Input, plan: &mut Plan, role: Role, container: &Container) {
    let name = &container.name;
    let Some(current) = input.observed.current(name) else {
        return start(input, plan, name, 0, None);
    };
    match current.state {
        State::Created => {
            plan.actions.push(Action::Remove { id: current.id.clone() });
            start(input, plan, name, current.attempt, None);
        }
        State::Running => {
            if let Some((why, probe)) = reason_to_stop(input, container, current) {
                let restart = may_run_again(input.pod, container);
                let message = if restart { format!("{why}, will be restarted") } else { why };
                let (id, name) = (current.id.clone(), name.clone());
                plan.actions.push(Action::Stop { id, name, message, restart, probe });
            }
        }
        State::Unknown => {
            let message = format!("Container is in {:?} state, try killing it before restart", "unknown");
            let (id, name) = (current.id.clone(), name.clone());
            plan.actions.push(Action::Stop { id, name, message, restart: true, probe: None });
        }
        State::Exited => {
            // An init container that succeeded in an older sandbox runs again in this one.
            let again = role == Role::Init && current.exit_code == 0;
            if !again && !runs_again(input, role, container, current) {
                return;
            }
            let ended = current.finished_at.unwrap_or(current.created_at);
            let round = round(input);
            let of_all = restart_all::is_former(round, current) && !restart_all::began(round, current);
            match input.backoff.waiting(name, ended, input.now).filter(|_| !of_all) {
                None => start(input, plan, name, current.attempt + 1, Some(ended)),
                Some((delay, until)) => {
                    let delay = go_duration(delay);
                    let pod = describe(input.pod);
                    let message = format!("back-off {delay} restarting failed container={name} pod={pod}");
                    plan.held.insert(name.clone(), Waiting { reason: "CrashLoopBackOff".into(), message });
                    plan.wake(until);
                }
            }
        }
    }
}

fn start(input: &Input, plan: &mut Plan, name: &str, attempt: u32, restart_of: Option<Timestamp>) {
    match input.retry_at.get(name).filter(|at| **at > input.now) {
        Some(at) => plan.wake(*at),
        None => plan.actions.push(Action::Start { name: name.to_owned(), attempt, restart_of }),
    }
}

fn reason_to_stop(input: &Input, container: &Container, current: &cri::Container) -> Option<(String, Option<Kind>)> {
    let name = &container.name;
    let hash = current.annotations.iter().find(|(key, _)| key == spec::CONTAINER_HASH).map(|(_, hash)| hash.as_str());
    if hash.is_some_and(|hash| hash != spec::container_hash(container)) {
        return Some((format!("Container {name} definition changed"), None));
    }
    if input.verdicts.liveness_failed(&current.id) {
        return Some((format!("Container {name} failed liveness probe"), Some(Kind::Liveness)));
    }
    if input.verdicts.startup_failed(&current.id) {
        return Some((format!("Container {name} failed startup probe"), Some(Kind::Startup)));
    }
    None
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(super) mod tests;
