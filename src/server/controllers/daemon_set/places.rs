//! Decides: what each node lacks of a DaemonSet's pods, or has too many of (upstream's `manage`).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::{Node, Pod};

use super::backoff::Backoff;
use super::fit::{Fit, Verdict};
use super::{COMPONENT, View};
use crate::client::store::Meta as _;
use crate::server::controllers::action::{Action, Note, Plan};
use crate::server::controllers::stores::row;
use crate::server::controllers::{owners, pods};

/// A node, and the pods that are on it or for it.
#[derive(Default)]
pub struct Place<'a> {
    /// `None` for a node that does not exist.
    pub verdict: Option<Verdict>,
    /// Those with a node first, then the oldest.
    pub pods: Vec<&'a Arc<Pod>>,
}

impl Place<'_> {
    pub fn runs(&self) -> bool {
        self.verdict.is_some_and(|v| v.runs)
    }
}

/// Nodes by name: all that exist, and those that pods are for.
pub struct Places<'a>(pub BTreeMap<&'a str, Place<'a>>);

/// What is to be done about pods.
#[derive(Default)]
pub struct Step<'a> {
    pub remove: Vec<&'a Arc<Pod>>,
    /// Nodes that get a pod.
    pub make: Vec<&'a str>,
}

impl Step<'_> {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.make.is_empty()
    }
}

impl<'a> Places<'a> {
    /// `owned`: the pods of the DaemonSet.
    pub fn new(spec: &DaemonSetSpec, nodes: &'a [Arc<Node>], owned: &[&'a Arc<Pod>]) -> Self {
        let fit = Fit::of(spec);
        let mut places: BTreeMap<&str, Place<'_>> = BTreeMap::new();
        for node in nodes {
            places.entry(node.metadata.name()).or_default().verdict = Some(fit.on(node));
        }
        for pod in owned {
            // What has finished and is being deleted only waits for its finalizers.
            let over = pods::is_terminal(pod) && pod.metadata.deleting();
            if let Some(node) = target(pod).filter(|_| !over) {
                places.entry(node).or_default().pods.push(pod);
            }
        }
        for place in places.values_mut() {
            place.pods.sort_by_key(|pod| {
                let meta = &pod.metadata;
                (pods::node_name(pod).is_empty(), meta.creation_timestamp.as_ref().map(|t| t.0), meta.name())
            });
        }
        Self(places)
    }

    /// One pod where there should be one, none where there should be none.
    pub fn step(&self, set: &DaemonSet, view: View<'_>, failed: &mut Backoff, plan: &mut Plan) -> Step<'a> {
        let mut step = Step::default();
        for (name, place) in &self.0 {
            match place.verdict {
                Some(Verdict { runs: true, .. }) if place.pods.is_empty() => step.make.push(name),
                Some(verdict) if verdict.stays => {
                    let running = running(set, name, place, view, failed, &mut step, plan);
                    if view.surges() {
                        surplus_of_surge(&running, view, &mut step);
                        if running.is_empty() && verdict.runs {
                            step.make.push(name);
                        }
                    } else {
                        step.remove.extend(running.into_iter().skip(1));
                    }
                }
                Some(_) => step.remove.extend(place.pods.iter().filter(|p| !p.metadata.deleting())),
                // Neither scheduled nor, with its node, collected by anyone.
                None => step.remove.extend(place.pods.iter().filter(|p| pods::node_name(p).is_empty())),
            }
        }
        step
    }
}

/// The node that a pod is on, or was made for.
fn target(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        return Some(node);
    }
    let required = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &required.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let mut fields = terms.iter().flat_map(|t| t.match_fields.iter().flatten());
    match fields.find(|f| f.key == "metadata.name" && f.operator == "In")?.values.as_deref()? {
        [node] => Some(node),
        _ => None,
    }
}

/// The pods of a place that go on; those that have ended go, and are remade when they are gone.
fn running<'a>(
    set: &DaemonSet,
    node: &str,
    place: &Place<'a>,
    view: View<'_>,
    failed: &mut Backoff,
    step: &mut Step<'a>,
    plan: &mut Plan,
) -> Vec<&'a Arc<Pod>> {
    let mut running = Vec::new();
    for pod in place.pods.iter().filter(|p| !p.metadata.deleting()) {
        let which = format!("daemon pod {}/{} on node {node}", pod.metadata.namespace(), pod.metadata.name());
        match pods::phase(pod) {
            "Failed" => {
                let seen = set.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0);
                let key = (set.metadata.uid().to_owned(), seen, node.to_owned());
                if let Some(left) = failed.left(&key, view.now) {
                    plan.look_after(left);
                    continue;
                }
                failed.remade(key, view.now);
                let message = format!("Found failed {which}, will try to kill it");
                plan.push(Action::Event(note(set, true, "FailedDaemonPod", message)));
                step.remove.push(pod);
            }
            "Succeeded" => {
                let message = format!("Found succeeded {which}, will try to delete it");
                plan.push(Action::Event(note(set, false, "SucceededDaemonPod", message)));
                step.remove.push(pod);
            }
            _ => running.push(*pod),
        }
    }
    running
}

fn note(set: &DaemonSet, warning: bool, reason: &'static str, message: String) -> Note {
    let regarding = owners::object_reference(row("apps/daemonsets"), &set.metadata);
    Note { regarding, warning, reason, message, component: COMPONENT, action: "" }
}

/// Two pods may stay: an old one that is ready, until a new one is available.
fn surplus_of_surge<'a>(running: &[&'a Arc<Pod>], view: View<'_>, step: &mut Step<'a>) {
    let (new, old): (Vec<_>, Vec<_>) = running.iter().copied().partition(|p| view.is_updated(p));
    step.remove.extend(new.iter().skip(1).chain(old.iter().skip(1)));
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && (!pods::is_ready(old) || view.is_available(new))
    {
        step.remove.push(old);
    }
}
