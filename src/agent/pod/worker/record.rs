//! Effects: the worker keeps its record of the pod: what its operation reports, and what the runtime says when asked.

use jiff::SignedDuration;

use super::{Held, Worker};
use crate::agent::images::is_pull_failure;
use crate::agent::pod::plan::Waiting;
use crate::agent::pod::start::{Failed, Progress, retry_after};
use crate::agent::pod::table::Changes;
use crate::agent::pod::{container, containers, describe, name, namespace, spec, uid};
use crate::clock;
use crate::cri::{self, State};

/// A container whose configuration is wrong is tried again after this, or when an object it names changes.
const CONFIG_RETRY: SignedDuration = SignedDuration::from_secs(10);
/// As [`retry_after`] counts: a sandbox is tried at least every eight seconds.
const SANDBOX_RETRY: u32 = 4;

fn is_pull_error(reason: &str) -> bool {
    is_pull_failure(reason) || ["ImagePullBackOff", "ErrImageNeverPull", "ImageInspectError"].contains(&reason)
}

impl Worker {
    pub(super) fn take(&mut self, progress: Progress) {
        match progress {
            Progress::Sandbox(sandbox) => {
                self.sandbox_retry_at = None;
                self.setup_failures = 0;
                self.observed.put_sandbox(sandbox);
            }
            Progress::SandboxFailed(message) => {
                self.log_setup_failure(&message);
                let failures = self.setup_failures.min(SANDBOX_RETRY);
                self.sandbox_retry_at = Some(retry_after(failures, clock::now()));
                self.setup_failures += 1;
                // The runtime keeps a sandbox whose network it could not take down again, and its name with it.
                self.wake.report(|changes| changes.all = true);
            }
            Progress::SandboxStopped(id) => {
                for sandbox in self.observed.sandboxes.iter_mut().filter(|sandbox| sandbox.id == id) {
                    sandbox.ready = false;
                }
            }
            Progress::Volumes(mounted) => {
                self.setup_failures = 0;
                self.refresh_at = mounted.refresh_at;
                self.mounted = Some(mounted);
            }
            Progress::VolumesFailed(message) => {
                self.log_setup_failure(&message);
                let at = retry_after(self.setup_failures, clock::now());
                self.setup_failures += 1;
                for (_, container) in containers(&self.pod) {
                    self.retry_at.insert(container.name.clone(), at);
                }
            }
            Progress::Refused(why) => self.refuse(&why),
            Progress::Image(name) => self.image_arrived(&name),
            Progress::Container(record) => self.put_container(*record),
            Progress::Removed(id) => {
                self.observed.forget(&id);
                self.cx.pods.unregister(&id);
            }
            Progress::Hooking(name) => drop(self.hooking.insert(name)),
            Progress::Hooked(name) => drop(self.hooking.remove(&name)),
            Progress::Failed(failed) => {
                self.hooking.remove(&failed.name);
                self.start_failed(failed);
            }
            Progress::ContainerResized(update) => self.container_resized(update),
            Progress::PodResized(resources) => self.pod_resized(resources),
            Progress::ResizeFailed(error) => self.resize_failed(error),
        }
    }

    /// The 1st, 2nd, 4th, 8th… failure: a cause that stays for days must not fill the log.
    fn log_setup_failure(&self, message: &str) {
        if (self.setup_failures + 1).is_power_of_two() {
            tracing::info!(pod = describe(&self.pod), message, "pod not set up; trying again");
        }
    }

    /// Whatever keeps the container waiting from now on, it is not its image.
    fn image_arrived(&mut self, name: &str) {
        if self.held.get(name).is_some_and(|held| is_pull_error(&held.waiting.reason)) {
            self.held.remove(name);
        }
    }

    fn start_failed(&mut self, failed: Failed) {
        let now = clock::now();
        let Failed { name, reason, message } = failed;
        let retry = if is_pull_failure(&reason) {
            self.pulls.advance(&name, now, now);
            self.pulls.waiting(&name, now, now).map_or(now, |(_, until)| until)
        } else {
            now.checked_add(CONFIG_RETRY).unwrap_or(now)
        };
        tracing::info!(pod = describe(&self.pod), container = name, reason, message, "container not started");
        self.retry_at.insert(name.clone(), retry);
        // A container that the runtime could not start has a record, which says more than this.
        let recorded = reason == "RunContainerError"
            && self.observed.current(&name).is_some_and(|current| current.state == State::Exited);
        if recorded {
            self.retry_at.remove(&name);
        }
        self.held.insert(name, Held { waiting: Waiting { reason, message }, since: now });
    }

    fn put_container(&mut self, mut record: cri::Container) {
        if let Some(ended) = self.ended_early.remove(&record.id) {
            record = cri::Container { sandbox_id: record.sandbox_id, ..ended };
        }
        let known = self.observed.containers.iter().find(|known| known.id == record.id);
        // A container never runs again: a report from before its end came late.
        if record.state == State::Running && known.is_some_and(|known| known.state == State::Exited) {
            return;
        }
        if record.sandbox_id.is_empty()
            && let Some(known) = known
        {
            record.sandbox_id = known.sandbox_id.clone();
        }
        if record.state == State::Running {
            self.held.remove(&record.name);
            self.retry_at.remove(&record.name);
            self.pulls.forget(&record.name);
        }
        self.note_exit(&record);
        self.note_started(&record);
        self.observed.put_container(record);
    }

    /// Reads the termination message once, while its file is there.
    pub(super) fn note_exit(&mut self, record: &cri::Container) {
        if record.state != State::Exited || self.messages.contains_key(&record.id) {
            return;
        }
        self.cx.exclusive.ended(&record.id);
        let log = match record.log_path.as_str() {
            "" => {
                let logs = self.cx.paths.pod_logs(namespace(&self.pod), name(&self.pod), uid(&self.pod));
                logs.join(spec::log_path(&record.name, record.attempt))
            }
            path => path.into(),
        };
        let file = spec::termination_file(&self.cx, uid(&self.pod), &record.name, record.attempt);
        let policy = container(&self.pod, &record.name).and_then(|(_, c)| c.termination_message_policy.clone());
        let fallback = policy.as_deref() == Some("FallbackToLogsOnError") && record.exit_code != 0;
        let message = crate::agent::logs::termination_message(&file, fallback.then_some(log.as_path()));
        self.messages.insert(record.id.clone(), message.unwrap_or_else(|| record.message.clone()));
    }

    pub(super) async fn look(&mut self, changes: Changes) {
        if changes.all {
            match crate::agent::pod_source::observe(&*self.cx.runtime, uid(&self.pod)).await {
                Ok(observed) => {
                    for record in &observed.containers {
                        self.note_exit(record);
                    }
                    self.observed = observed;
                }
                Err(error) => tracing::debug!(%error, pod = describe(&self.pod), "runtime not asked"),
            }
        }
        for id in changes.ids {
            self.look_at(&id).await;
        }
        if changes.resources {
            self.allocate();
        }
        if let Some(ending) = changes.end {
            self.end(ending);
        }
        if changes.objects {
            // What failed for want of an object may work now.
            self.retry_at.retain(|name, _| self.held.get(name).is_some_and(|h| is_pull_failure(&h.waiting.reason)));
            self.refresh_at = Some(clock::now());
        }
    }

    async fn look_at(&mut self, id: &str) {
        let result = if self.observed.sandboxes.iter().any(|sandbox| sandbox.id == id) {
            self.cx.runtime.sandbox_status(id).await.map(|sandbox| self.observed.put_sandbox(sandbox))
        } else {
            self.cx.runtime.container_status(id).await.map(|record| {
                // One that is not known yet is reported by the operation that makes it, maybe as it was before.
                if self.observed.containers.iter().any(|known| known.id == record.id) {
                    self.put_container(record);
                } else if record.state == State::Exited {
                    self.ended_early.insert(record.id.clone(), record);
                }
            })
        };
        match result {
            Err(cri::Error::NotFound(_)) => {
                self.observed.forget(id);
                self.cx.pods.unregister(id);
            }
            Err(error) => tracing::debug!(%error, id, "runtime not asked"),
            Ok(()) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use tokio::sync::watch;

    use super::*;
    use crate::agent::pod::observed::Observed;
    use crate::agent::pod::worker::Desired;
    use crate::agent::tests::Node;

    #[tokio::test]
    async fn a_pull_error_gives_way_once_the_image_is_there() {
        let node = Node::new();
        let (_desired, pod) = watch::channel(Desired { pod: Pod::default().into(), gone: false, mirror: None });
        let mut worker = Worker::new(node.context(), pod, Observed::default());
        let failed = |reason: &str| {
            Progress::Failed(Failed { name: "web".into(), reason: reason.into(), message: String::new() })
        };
        for (reason, stays) in [("ErrImagePull", false), ("ErrImageNeverPull", false), ("CreateContainerError", true)] {
            worker.take(failed(reason));
            worker.take(Progress::Image("web".into()));
            assert_eq!(worker.held.contains_key("web"), stays, "{reason}");
        }
    }
}
