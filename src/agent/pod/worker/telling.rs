//! Effects: what a worker tells: the status to the API, the pod to whoever looks it up on this node.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Phase, Worker};
use crate::agent::mirror::is_static;
use crate::agent::pod::observed::Observed;
use crate::agent::pod::plan::Waiting;
use crate::agent::pod::table::{ContainerEntry, PodEntry};
use crate::agent::pod::{is_final, name, namespace, spec, status, uid};
use crate::clock;

impl Worker {
    /// What the runtime has, as others are to see it.
    fn shown(&self) -> Cow<'_, Observed> {
        match self.hooking.is_empty() || self.phase != Phase::Active {
            true => Cow::Borrowed(&self.observed),
            false => Cow::Owned(self.observed.not_yet(&self.hooking)),
        }
    }

    pub(super) fn render(&mut self) {
        if self.phase == Phase::Active && !self.terminal {
            let shown = (!self.hooking.is_empty()).then(|| self.shown().into_owned());
            self.probes.sync(&self.pod, shown.as_ref().unwrap_or(&self.observed));
        }
        if self.phase != Phase::Cleaning {
            self.render_status();
        }
        self.publish();
        self.tell();
    }

    /// For whoever looks it up on this node, or wants it to end.
    pub(super) fn publish(&self) {
        let logs = self.cx.paths.pod_logs(namespace(&self.pod), name(&self.pod), uid(&self.pod));
        let entries = self.observed.containers.iter().map(|record| ContainerEntry {
            name: record.name.clone(),
            id: record.id.clone(),
            attempt: record.attempt,
            state: record.state,
            exit_code: record.exit_code,
            log_path: match record.log_path.as_str() {
                "" => logs.join(spec::log_path(&record.name, record.attempt)),
                path => path.into(),
            },
        });
        let entry = PodEntry {
            pod: self.pod.clone(),
            status: self.status.clone(),
            sandbox_id: self.observed.ready_sandbox().map(|sandbox| sandbox.id.clone()),
            containers: entries.collect(),
            // Of one that has ended nothing is mounted any more.
            volumes: match &self.mounted {
                Some(mounted) if !self.released && self.phase == Phase::Active => mounted.measurable.clone(),
                _ => Arc::default(),
            },
        };
        let is_told = self.nobody_knows() || self.telling.has_told(&self.status);
        self.cx.pods.publish(uid(&self.pod), entry, is_told, &self.observed, &self.wake);
    }

    pub(super) fn render_status(&mut self) {
        let mut waiting: BTreeMap<String, Waiting> =
            self.held.iter().map(|(name, held)| (name.clone(), held.waiting.clone())).collect();
        waiting.extend(self.crash_loops.clone());
        if self.terminal {
            waiting.clear();
        }
        // Until then it may still do something: nobody must start another one in its place.
        let stopped = self.observed.running().next().is_none();
        let disruption = self.ending.as_ref().filter(|ending| stopped && ending.disruption);
        let host_ips = [self.cx.node_ip().to_string()];
        let input = status::Input {
            pod: &self.pod,
            previous: &self.status,
            observed: &self.shown(),
            verdicts: &self.probes.verdicts(),
            waiting: &waiting,
            messages: &self.messages,
            terminal: self.terminal && stopped,
            failure: self.failure.as_ref().filter(|_| stopped),
            disruption: disruption.map(|ending| ending.message.as_str()),
            host_ips: &host_ips,
            resizing: (&self.resizing.actual, &self.resizing.progress),
            now: clock::now(),
        };
        // What was told about a pod that had ended before is complete; files it was made from may be gone.
        if self.ended_before {
            return;
        }
        self.status = Arc::new(status::render(&input));
        if is_final(&self.status) {
            self.release_resources();
        }
    }

    /// A static pod without a mirror.
    fn nobody_knows(&self) -> bool {
        is_static(&self.pod) && !self.telling.is_mirrored()
    }

    fn tell(&mut self) {
        // All containers have stopped: the clean-up tells that as its first step.
        let last = matches!(self.phase, Phase::Terminating(_)) && self.observed.running().next().is_none();
        // Others would be given its devices while they are still prepared for it.
        let last = last || (is_final(&self.status) && self.cx.drivers.serve(uid(&self.pod)));
        if !last && !self.gone && !self.nobody_knows() && self.phase != Phase::Cleaning {
            self.telling.start(&self.cx.client, &self.pod, &self.status);
        }
    }
}
