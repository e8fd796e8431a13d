//! Decides: when a running pod takes other resources: what the ledger gives it, and what the worker does about it.

use jiff::Timestamp;

use super::Worker;
use crate::agent::allocation::{Allocation, Answer};
use crate::agent::cgroups::{PodResources, pod_resources};
use crate::agent::events::Kind as EventKind;
use crate::agent::pod::plan::Action;
use crate::agent::pod::resize::{self, Changes, UnderWay};
use crate::agent::pod::start::retry_after;
use crate::agent::pod::{container, containers, uid};
use crate::clock;
use crate::cri::State;

/// The part of a worker's record that is about resources.
#[derive(Default)]
pub(super) struct Resizing {
    pub actual: resize::Actual,
    pub progress: resize::Progress,
    failures: u32,
    retry_at: Option<Timestamp>,
    /// The ledger counts this pod no more.
    released: bool,
}

impl Worker {
    /// Takes from the ledger what the pod is given now.
    pub(super) fn allocate(&mut self) {
        if self.gone || self.terminal {
            return self.release_resources();
        }
        // What the API asks for, not what the pod was given before.
        let asked = self.desired.borrow().pod.clone();
        let (given, answer) = self.cx.ledger.want(&asked);
        self.pod = given;
        let generation = asked.metadata.generation;
        match answer {
            Answer::Same => self.resizing.progress.pending = None,
            Answer::Granted => {
                self.resizing.progress.pending = None;
                self.resizing.progress.under_way = Some(UnderWay { generation, error: None });
                (self.resizing.retry_at, self.resizing.failures) = (None, 0);
                // Files that tell containers of their resources.
                self.refresh_at = Some(clock::now());
                self.resize_event(EventKind::Normal, "ResizeStarted", "Pod resize started", "");
                self.wake_waiting();
            }
            Answer::Pending(pending) => {
                if self.resizing.progress.pending.as_ref() != Some(&pending) {
                    let event = if pending.reason == "Deferred" { "ResizeDeferred" } else { "ResizeInfeasible" };
                    let says = format!("Pod resize {}: {}", pending.reason, resize::summary(&asked, &pending.message));
                    self.cx.events.pod(&asked, EventKind::Warning, event, says);
                }
                self.resizing.progress.pending = Some(pending);
            }
        }
    }

    fn resize_event(&self, kind: EventKind, reason: &'static str, first_words: &str, error: &str) {
        let message = format!("{first_words}: {}", resize::summary(&self.pod, error));
        self.cx.events.pod(&self.pod, kind, reason, message);
    }

    /// Nothing of the pod will run any more: others may have what it had.
    pub(super) fn release_resources(&mut self) {
        if !std::mem::replace(&mut self.resizing.released, true) {
            self.resizing.progress = resize::Progress::default();
            self.cx.ledger.release(uid(&self.pod));
            self.wake_waiting();
        }
    }

    fn wake_waiting(&self) {
        for other in self.cx.ledger.grant_waiting() {
            self.cx.pods.wake_for_resources(&other);
        }
    }

    /// What is missing of a resize, as actions. Empty while a try that failed is not due again.
    pub(super) fn resize_actions(&mut self, now: Timestamp) -> Vec<Action> {
        let changes = resize::changes(&self.pod, &self.observed, &self.resizing.actual);
        if changes.is_empty() {
            self.note_resized();
            return Vec::new();
        }
        let generation = self.pod.metadata.generation;
        self.resizing.progress.under_way.get_or_insert(UnderWay { generation, error: None });
        if let Some(at) = self.resizing.retry_at.filter(|at| *at > now) {
            self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
            return Vec::new();
        }
        let Changes { updates, restarts, .. } = changes;
        let stop = |(id, name): (String, String)| Action::Stop {
            message: format!("Container {name} resize requires restart"),
            id,
            name,
            restart: true,
            probe: None,
        };
        restarts.into_iter().map(stop).chain([Action::Resize { updates }]).collect()
    }

    /// All that runs has what it was given. One that was stopped for it is waited for.
    fn note_resized(&mut self) {
        let stopped = |c: &crate::cri::Container| c.state != State::Running && self.stopped_to_restart.contains(&c.id);
        let restarting =
            containers(&self.pod).filter_map(|(_, container)| self.observed.current(&container.name)).any(stopped);
        if self.resizing.progress.under_way.is_none() || restarting {
            return;
        }
        self.resizing.progress.under_way = None;
        self.resize_event(EventKind::Normal, "ResizeCompleted", "Pod resize completed", "");
    }

    pub(super) fn container_resized(&mut self, update: resize::Update) {
        self.resizing.actual.containers.insert(update.id, update.resources);
    }

    pub(super) fn pod_resized(&mut self, resources: PodResources) {
        self.resizing.actual.pod = Some(resources);
        (self.resizing.retry_at, self.resizing.failures) = (None, 0);
    }

    pub(super) fn resize_failed(&mut self, error: String) {
        self.resizing.retry_at = Some(retry_after(self.resizing.failures, clock::now()));
        self.resizing.failures += 1;
        let generation = self.pod.metadata.generation;
        let under_way = self.resizing.progress.under_way.get_or_insert(UnderWay { generation, error: None });
        if under_way.error.as_ref() != Some(&error) {
            under_way.error = Some(error.clone());
            self.resize_event(EventKind::Warning, "ResizeError", "Pod resize error", &error);
        }
    }

    /// A container that began runs with what the pod has now.
    pub(super) fn note_started(&mut self, record: &crate::cri::Container) {
        if record.state != State::Running || self.resizing.actual.containers.contains_key(&record.id) {
            return;
        }
        let Some((_, spec)) = container(&self.pod, &record.name) else { return };
        let made = record.annotations.iter().find(|(key, _)| key == resize::MADE_WITH);
        let made = made.and_then(|(_, text)| serde_json::from_str(text).ok());
        let with = made.or_else(|| spec.resources.clone()).unwrap_or_default();
        self.resizing.actual.containers.insert(record.id.clone(), with);
        let observed = &self.observed;
        self.resizing.actual.containers.retain(|id, _| *id == record.id || observed.ids().any(|known| known == id));
    }

    /// The sandbox is made with a control group that has what the pod is given now.
    pub(super) fn note_sandbox(&mut self) {
        self.resizing.actual.pod = Some(pod_resources(&self.pod));
    }

    /// What ran before this agent did has what it had; the rest is found out by looking.
    pub(super) fn recall_resources(&mut self) {
        if self.observed.running().next().is_none() || self.deleting() {
            return self.allocate();
        }
        self.resizing.actual = resize::recall(&self.pod, &self.observed);
        self.allocate();
        self.resizing.actual.pod = Some(pod_resources(&self.told_pod()));
        self.cx.cgroups.count(&self.pod);
    }

    fn told_pod(&self) -> std::sync::Arc<k8s_openapi::api::core::v1::Pod> {
        Allocation::told(&self.pod).apply(&self.pod)
    }
}
