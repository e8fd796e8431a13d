//! Decides: when a pod as a whole has failed, whatever its containers do.

use jiff::{SignedDuration, Timestamp};

use super::{Phase, Worker};
use crate::agent::events::Kind as EventKind;
use crate::agent::pod::admit::Refusal;
use crate::agent::pod::ending::Ending;
use crate::agent::pod::plan::Waiting;
use crate::agent::pod::pod_spec;

impl Worker {
    /// The node does not take the pod: it has failed before anything was made of it.
    pub fn refuse(&mut self, why: &Refusal) {
        self.reject(why.reason, &why.message);
    }

    pub(super) fn reject(&mut self, reason: &'static str, message: &str) {
        self.cx.events.pod(&self.pod, EventKind::Warning, reason, message);
        let message = format!("Pod was rejected: {message}");
        self.failure = Some(Waiting { reason: reason.into(), message });
        self.terminal = true;
    }

    /// The node ends the pod, whatever it is doing.
    pub(super) fn end(&mut self, ending: Ending) {
        if self.phase != Phase::Active || self.failure.is_some() || self.terminal || self.deleting() {
            return;
        }
        self.failure = Some(Waiting { reason: ending.reason.into(), message: ending.message.clone() });
        self.ending = Some(ending);
        self.terminal = true;
        self.operation = None;
        // What it was doing may have left something that nobody reported.
        self.wake.report(|changes| changes.all = true);
    }

    pub(super) fn check_deadline(&mut self, now: Timestamp) {
        let Some(limit) = pod_spec(&self.pod).active_deadline_seconds else { return };
        let began = self.status.start_time.as_ref().map_or(now, |time| time.0);
        let Ok(end) = began.checked_add(SignedDuration::from_secs(limit)) else { return };
        if now < end {
            self.wake_at = Some(self.wake_at.map_or(end, |at| at.min(end)));
        } else if self.failure.is_none() && !self.terminal {
            let message = "Pod was active on the node longer than the specified deadline";
            self.cx.events.pod(&self.pod, EventKind::Normal, "DeadlineExceeded", message);
            self.failure = Some(Waiting { reason: "DeadlineExceeded".into(), message: message.into() });
            self.terminal = true;
            self.operation = None;
            // What it was doing may have left something that nobody reported.
            self.wake.report(|changes| changes.all = true);
        }
    }
}
