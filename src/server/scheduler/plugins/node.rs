//! Decides: `NodeUnschedulable`, `NodeName`, `TaintToleration`, `NodeAffinity`, `NodePorts`: what a node says of itself.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Taint;

use super::{Cycle, Happened, Reasons, Room, fewest, most};
use crate::api::host_port::are_free;
use crate::server::scheduler::filter::{term_matches, tolerated, tolerates_all};
use crate::server::scheduler::pod::{PodInfo, Wants};
use crate::server::scheduler::snapshot::{NodeInfo, Snapshot};

fn verdict(fine: bool, reason: &'static str, resolvable: bool) -> Result<(), Reasons> {
    if fine { Ok(()) } else { Err(Reasons::one(reason, resolvable)) }
}

pub fn unschedulable(cycle: &Cycle, room: &Room) -> Result<(), Reasons> {
    verdict(is_schedulable(cycle.wants, room.node), "node(s) were unschedulable", false)
}

fn is_schedulable(wants: &Wants, node: &NodeInfo) -> bool {
    let taint =
        || Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() };
    !node.unschedulable || tolerated(&taint(), &wants.tolerations)
}

pub fn unschedulable_helps(_: &PodInfo, wants: &Wants, happened: &Happened, snapshot: &Snapshot) -> bool {
    matches!(happened, Happened::Node { slot, .. } if is_schedulable(wants, snapshot.node(*slot)))
}

pub fn name(cycle: &Cycle, room: &Room) -> Result<(), Reasons> {
    let fine = cycle.pod.node.is_empty() || cycle.pod.node == room.node.name;
    verdict(fine, "node(s) didn't match the requested node name", false)
}

/// Also for pods that were refused because there were no nodes.
pub fn name_helps(_: &PodInfo, _: &Wants, happened: &Happened, _: &Snapshot) -> bool {
    matches!(happened, Happened::Node { change, .. } if change.added)
}

/// Since v1.35 the message names no taint, so that one event counts for many nodes.
pub fn taints(cycle: &Cycle, room: &Room) -> Result<(), Reasons> {
    let fine = tolerates_all(&room.node.taints, &cycle.wants.tolerations);
    verdict(fine, "node(s) had untolerated taint(s)", false)
}

pub fn taints_helps(_: &PodInfo, wants: &Wants, happened: &Happened, snapshot: &Snapshot) -> bool {
    let Happened::Node { slot, .. } = happened else { return false };
    tolerates_all(&snapshot.node(*slot).taints, &wants.tolerations)
}

/// The fewer of its soft taints are not tolerated, the better.
pub fn taint_scores(cycle: &Cycle, slots: &[usize]) -> Option<Vec<i64>> {
    let count = |slot: &usize| {
        let soft = cycle.snapshot.node(*slot).taints.iter().filter(|t| t.effect == "PreferNoSchedule");
        soft.map(|t| i64::from(!tolerated(t, &cycle.wants.tolerations))).sum()
    };
    Some(fewest(slots.iter().map(count).collect()))
}

pub fn affinity(cycle: &Cycle, room: &Room) -> Result<(), Reasons> {
    let added = &cycle.profile.args.added_affinity.required_during_scheduling_ignored_during_execution;
    if let Some(added) = added {
        let fine = added.node_selector_terms.iter().any(|t| term_matches(t, room.node));
        verdict(fine, "node(s) didn't match scheduler-enforced node affinity", false)?;
    }
    verdict(is_selected(cycle.wants, room.node), "node(s) didn't match Pod's node affinity/selector", false)
}

/// Whether node selector and required affinity allow the node.
#[must_use]
pub fn is_selected(wants: &Wants, node: &NodeInfo) -> bool {
    let selected = wants.node_selector.iter().all(|(k, v)| node.labels.get(k) == Some(v));
    selected && wants.affinity.as_ref().is_none_or(|terms| terms.iter().any(|t| term_matches(t, node)))
}

pub fn affinity_helps(_: &PodInfo, wants: &Wants, happened: &Happened, snapshot: &Snapshot) -> bool {
    matches!(happened, Happened::Node { slot, .. } if is_selected(wants, snapshot.node(*slot)))
}

/// The names of nodes that the required affinity is limited to; `None` for no limit.
#[must_use]
pub fn pinned(wants: &Wants) -> Option<BTreeSet<&str>> {
    let mut all = BTreeSet::new();
    for term in wants.affinity.as_ref().filter(|terms| !terms.is_empty())? {
        let fields = term.match_fields.iter().flatten();
        let named = fields.filter(|r| r.key == "metadata.name" && r.operator == "In");
        let names = named.map(|r| r.values.iter().flatten().map(String::as_str).collect::<BTreeSet<_>>());
        all.extend(names.reduce(|a, b| &a & &b)?);
    }
    Some(all)
}

pub fn affinity_scores(cycle: &Cycle, slots: &[usize]) -> Option<Vec<i64>> {
    let added = &cycle.profile.args.added_affinity.preferred_during_scheduling_ignored_during_execution;
    let preferred = || cycle.wants.preferred.iter().chain(added.iter().flatten());
    let weight = |slot: &usize| {
        let node = cycle.snapshot.node(*slot);
        preferred().filter(|p| term_matches(&p.preference, node)).map(|p| i64::from(p.weight)).sum()
    };
    preferred().next().is_some().then(|| most(slots.iter().map(weight).collect()))
}

pub fn ports(cycle: &Cycle, room: &Room) -> Result<(), Reasons> {
    let fine = are_free(&cycle.pod.host_ports, &room.ports);
    verdict(fine, "node(s) didn't have free ports for the requested pod ports", true)
}

pub fn ports_helps(pod: &PodInfo, _: &Wants, happened: &Happened, snapshot: &Snapshot) -> bool {
    match happened {
        Happened::Gone { slot, .. } => are_free(&pod.host_ports, &snapshot.node(*slot).ports),
        Happened::Node { change, .. } => change.added,
        _ => false,
    }
}
