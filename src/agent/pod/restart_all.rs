//! Decides: the rule of a container that restarts all containers of its pod when it exits (KEP-5532): all are ended
//! without their hooks, then the pod begins anew in the sandbox that it has, init containers and all.
//!
//! Nothing is remembered for it: what was made before the last such exit is of a round that is over.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::containers;
use super::observed::Observed;
use super::restart::matching_rule;
use crate::cri::{Container, State};

const ACTION: &str = "RestartAllContainers";

/// When the round that the pod is in began: the last exit that asked for it. `None` while there was none.
#[must_use]
pub fn round(pod: &Pod, observed: &Observed) -> Option<Timestamp> {
    let asks = |record: &&Container| {
        let spec = containers(pod).find(|(_, container)| container.name == record.name);
        record.state == State::Exited
            && spec.is_some_and(|(_, container)| matching_rule(container, record.exit_code) == Some(ACTION))
    };
    if !is_possible(pod) {
        return None;
    }
    observed.containers.iter().filter(asks).filter_map(|record| record.finished_at).max()
}

/// Whether a container is of a round before this one.
#[must_use]
pub fn is_former(round: Option<Timestamp>, record: &Container) -> bool {
    round.is_some_and(|began| record.created_at < began)
}

/// Whether the exit of this one began the round.
#[must_use]
pub fn began(round: Option<Timestamp>, record: &Container) -> bool {
    round.is_some() && record.finished_at == round
}

/// Whether any container of the pod has such a rule.
#[must_use]
pub fn is_possible(pod: &Pod) -> bool {
    let mut rules = containers(pod).flat_map(|(_, container)| container.restart_policy_rules.iter().flatten());
    rules.any(|rule| rule.action == ACTION)
}

/// Those of the round before that have not ended yet.
pub fn left_over(round: Option<Timestamp>, observed: &Observed) -> impl Iterator<Item = &Container> {
    observed.running().filter(move |record| is_former(round, record))
}
