//! Loop: owns one pod on this node, from its first appearance until nothing of it is left.
//!
//! ```text
//! Active ──deleted, gone, out of time──▶ Terminating (containers stop) ──▶ Cleaning (record, volumes, DELETE) ──▶ end
//!    └── all containers done ──▶ Active, terminal: idle until the pod is deleted
//! ```
//! What it does takes its time (pulls, grace periods) and runs as one future beside the loop, so that a deletion or a
//! change is seen at once. The loop alone keeps the record; the operation reports to it.

mod fail;
mod record;
mod resize;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::ending::Ending;
use super::observed::Observed;
use super::plan::{self, Action, Waiting, plan};
use super::restart::Backoff;
use super::start::{Operation, Progress, retry_after};
use super::table::Wake;
use super::tell::Telling;
use super::{cleanup, container, describe, ended, field_path, stop, uid};
use crate::agent::context::NodeContext;
use crate::agent::events::Kind as EventKind;
use crate::agent::images::is_pull_failure;
use crate::agent::probes::Probes;
use crate::agent::volumes::{self, Mounted};
use crate::clock;

/// Reports of one operation that the loop has not taken yet.
const REPORTS: usize = 32;
/// After a failed pull the state says so for this long, then that the next one waits.
const PULL_ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(2);
/// As [`retry_after`] counts: half a minute.
const REFRESH_RETRY: u32 = 6;

/// The pod as the API has it; `gone` once it has it no more.
#[derive(Clone, Debug)]
pub struct Desired {
    pub pod: Arc<Pod>,
    pub gone: bool,
    /// What the API has of a static pod.
    pub mirror: Option<Arc<Pod>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Active,
    /// With this much grace.
    Terminating(Duration),
    Cleaning,
    Done,
}

/// A container that is not running, and since when for what reason.
struct Held {
    waiting: Waiting,
    since: Timestamp,
}

pub struct Worker {
    cx: Arc<NodeContext>,
    desired: watch::Receiver<Desired>,
    pod: Arc<Pod>,
    gone: bool,
    phase: Phase,
    observed: Observed,
    wake: Arc<Wake>,
    probes: Probes,
    mounted: Option<Mounted>,
    /// When the contents of volumes are to be looked at again.
    refresh_at: Option<Timestamp>,
    operation: Option<BoxFuture<'static, ()>>,
    reports: (mpsc::Sender<Progress>, mpsc::Receiver<Progress>),
    backoff: Backoff,
    pulls: Backoff,
    held: BTreeMap<String, Held>,
    crash_loops: BTreeMap<String, Waiting>,
    retry_at: BTreeMap<String, Timestamp>,
    sandbox_retry_at: Option<Timestamp>,
    setup_failures: u32,
    stopped_to_restart: BTreeSet<String>,
    messages: BTreeMap<String, String>,
    /// Containers whose postStart hook runs: they are running when it is through.
    hooking: BTreeSet<String>,
    /// Ends that were told before the operation that started the container told of it.
    ended_early: BTreeMap<String, crate::cri::Container>,
    terminal: bool,
    /// It had ended when this worker began.
    ended_before: bool,
    /// The volumes of an ended pod were removed.
    released: bool,
    failure: Option<Waiting>,
    /// Why the node ended it.
    ending: Option<Ending>,
    /// How often it was tried to stop what is left of an ended pod.
    stops: u32,
    wake_at: Option<Timestamp>,
    status: Arc<PodStatus>,
    telling: Telling,
    resizing: resize::Resizing,
}

impl Worker {
    #[must_use]
    pub fn new(cx: Arc<NodeContext>, desired: watch::Receiver<Desired>, observed: Observed) -> Worker {
        let Desired { pod, gone, mirror } = desired.borrow().clone();
        let wake = Arc::new(Wake::default());
        let told = pod.status.clone().unwrap_or_default();
        let mut telling = Telling::new(told.clone());
        telling.mirrored(mirror.as_deref());
        let worker = Worker {
            probes: Probes::new(cx.clone(), wake.clone()),
            terminal: ended(&pod),
            ended_before: ended(&pod),
            status: Arc::new(told),
            reports: mpsc::channel(REPORTS),
            phase: Phase::Active,
            mounted: None,
            refresh_at: None,
            operation: None,
            backoff: Backoff::default(),
            pulls: Backoff::default(),
            held: BTreeMap::new(),
            crash_loops: BTreeMap::new(),
            retry_at: BTreeMap::new(),
            sandbox_retry_at: None,
            setup_failures: 0,
            stopped_to_restart: BTreeSet::new(),
            messages: BTreeMap::new(),
            hooking: BTreeSet::new(),
            ended_early: BTreeMap::new(),
            released: false,
            failure: None,
            ending: None,
            stops: 0,
            wake_at: None,
            cx,
            desired,
            pod,
            gone,
            observed,
            wake,
            telling,
            resizing: resize::Resizing::default(),
        };
        // From the beginning: the node may want it to end before it has done anything.
        worker.publish();
        worker
    }

    /// Nothing of the pod is started before that has ended. It can be deleted meanwhile, as in any other operation.
    pub fn begin_after(&mut self, others: BoxFuture<'static, ()>) {
        self.operation = Some(others);
    }

    /// Ends when nothing of the pod is left, or on `stop`: then its containers keep running.
    pub async fn run(mut self, stop: CancellationToken) {
        for record in self.observed.containers.clone() {
            self.note_exit(&record);
        }
        self.recall_resources();
        self.cx.exclusive.found(&self.cx.cgroups, &self.pod, &self.observed);
        // It ran before this agent started: its volumes are there, but are looked after again.
        if self.observed.running().next().is_some() && !self.deleting() {
            self.refresh_at = Some(clock::now());
            self.probes.remember(&self.pod, &self.observed);
        }
        loop {
            self.step();
            if self.phase == Phase::Done {
                break;
            }
            self.render();
            let tick = self.sleep_until();
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.desired.changed() => match changed {
                    Ok(()) => self.take_desired(),
                    // The source is gone: the agent stops.
                    Err(_) => return,
                },
                changes = self.wake.wait() => self.look(changes).await,
                Some(progress) = self.reports.1.recv() => self.take(progress),
                () = poll_option(&mut self.operation) => self.operation_ended(),
                result = self.telling.answer() => self.telling.answered(&self.pod, result),
                () = tick => {}
            }
        }
        self.release_resources();
        self.cx.pods.remove(uid(&self.pod));
    }

    fn deleting(&self) -> bool {
        self.gone || self.pod.metadata.deletion_timestamp.is_some()
    }

    fn take_desired(&mut self) {
        let Desired { pod, gone, mirror } = self.desired.borrow_and_update().clone();
        self.telling.seen(&pod);
        self.telling.mirrored(mirror.as_deref());
        let (old, new) = (&self.pod.metadata, &pod.metadata);
        if (old.labels != new.labels || old.annotations != new.annotations) && volumes::follow_metadata(&pod) {
            self.refresh_at = Some(clock::now());
        }
        self.pod = pod;
        self.gone |= gone;
        self.allocate();
    }

    fn sleep_until(&self) -> impl Future<Output = ()> + use<> {
        let now = clock::now();
        let for_plan = self.wake_at.map(|at| clock::instant() + at.duration_since(now).try_into().unwrap_or_default());
        let at = [for_plan, self.telling.at].into_iter().flatten().min();
        async move {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        }
    }

    // ---- deciding what to do ----

    fn step(&mut self) {
        let now = clock::now();
        self.wake_at = None;
        match self.phase {
            Phase::Active if self.deleting() => self.terminate(),
            Phase::Terminating(grace) if stop::grace(&self.pod) < grace => self.terminate(),
            Phase::Terminating(_) if self.operation.is_none() => self.clean(),
            Phase::Active => self.activate(now),
            _ => {}
        }
    }

    /// Drops whatever is under way: a pull or a start in the middle is found again by its record.
    fn terminate(&mut self) {
        let grace = stop::grace(&self.pod);
        self.probes.stop();
        self.phase = Phase::Terminating(grace);
        self.retry_at.clear();
        let interrupted = self.operation.take().is_some();
        let (cx, pod, reports) = (self.cx.clone(), self.pod.clone(), self.reports.0.clone());
        let known = self.observed.clone();
        self.operation = Some(Box::pin(async move {
            let observed = match interrupted {
                // The operation may have made something that it did not live to report.
                true => crate::agent::pod_source::observe(&*cx.runtime, uid(&pod)).await.unwrap_or(known),
                false => known,
            };
            for sandbox in &observed.sandboxes {
                let _ = reports.send(Progress::Sandbox(sandbox.clone())).await;
            }
            for container in &observed.containers {
                let _ = reports.send(Progress::Container(Box::new(container.clone()))).await;
            }
            stop::pod(cx, pod, observed, grace, reports).await;
        }));
    }

    fn clean(&mut self) {
        if self.observed.running().next().is_some() || self.observed.ready_sandbox().is_some() {
            // Not everything could be stopped: the runtime is away, or slow. Once more, in a while.
            let at = retry_after(self.setup_failures, clock::now());
            self.setup_failures += 1;
            self.wake_at = Some(at);
            let (cx, pod, observed) = (self.cx.clone(), self.pod.clone(), self.observed.clone());
            let (reports, grace) = (self.reports.0.clone(), stop::grace(&self.pod));
            self.operation = Some(Box::pin(async move {
                tokio::time::sleep(at.duration_since(clock::now()).try_into().unwrap_or_default()).await;
                stop::pod(cx, pod, observed, grace, reports).await;
            }));
            return;
        }
        self.phase = Phase::Cleaning;
        self.terminal = true;
        self.render_status();
        let work = cleanup::Cleanup {
            cx: self.cx.clone(),
            pod: self.pod.clone(),
            observed: self.observed.clone(),
            status: (!self.gone).then(|| self.status.clone()),
        };
        // Its patch is the last one; what was on the way is overtaken by it.
        self.telling.abandon();
        self.operation = Some(Box::pin(work.run()));
    }

    fn activate(&mut self, now: Timestamp) {
        self.check_deadline(now);
        if self.operation.is_some() {
            return;
        }
        if self.terminal {
            return self.settle();
        }
        self.age_pull_errors(now);
        let verdicts = self.probes.verdicts();
        let input = plan::Input {
            pod: &self.pod,
            observed: &self.observed,
            verdicts: &verdicts,
            backoff: &self.backoff,
            retry_at: &self.retry_at,
            sandbox_retry_at: self.sandbox_retry_at,
            stopped_to_restart: &self.stopped_to_restart,
            now,
        };
        let plan = plan(&input);
        for (name, waiting) in &plan.held {
            if !self.crash_loops.contains_key(name) {
                let message = format!("Back-off restarting failed container {name} in pod {}", describe(&self.pod));
                self.container_event(name, EventKind::Warning, "BackOff", message);
            }
            // A stale reason of an earlier try gives way.
            self.held.remove(name);
            tracing::debug!(pod = describe(&self.pod), container = name, reason = waiting.reason, "waiting");
        }
        self.crash_loops = plan.held;
        let refresh = self.refresh_at;
        self.wake_at = [plan.wake_at, refresh, self.wake_at].into_iter().flatten().min();
        if plan.finished && self.observed.running().next().is_none() {
            self.terminal = true;
        }
        let mut actions = plan.actions;
        if actions.is_empty() && !plan.finished && self.observed.ready_sandbox().is_some() {
            actions = self.resize_actions(now);
        }
        if actions.is_empty() {
            if refresh.is_some_and(|at| at <= now) {
                self.refresh(now);
            }
            return;
        }
        self.note_actions(&actions, now);
        let operation = Operation {
            cx: self.cx.clone(),
            pod: self.pod.clone(),
            observed: self.observed.clone(),
            actions,
            mounted: self.mounted.clone(),
            progress: self.reports.0.clone(),
        };
        self.operation = Some(Box::pin(operation.run()));
    }

    fn note_actions(&mut self, actions: &[Action], now: Timestamp) {
        for action in actions {
            match action {
                Action::CreateSandbox { .. } => self.note_sandbox(),
                Action::Start { name, restart_of: Some(ended), .. } => self.backoff.advance(name, *ended, now),
                Action::Stop { id, restart: true, .. } | Action::End { id, .. } => {
                    self.stopped_to_restart.insert(id.clone());
                }
                _ => {}
            }
        }
    }

    /// The pod ended by itself: its sandbox and volumes go, its containers stay for their logs.
    fn settle(&mut self) {
        self.probes.stop();
        if self.observed.sandboxes.iter().any(|sandbox| sandbox.ready) {
            let grace = self.ending.as_ref().map_or_else(|| stop::grace(&self.pod), |ending| ending.grace);
            let (cx, pod, observed) = (self.cx.clone(), self.pod.clone(), self.observed.clone());
            let (reports, tries) = (self.reports.0.clone(), self.stops);
            self.stops += 1;
            self.operation = Some(Box::pin(async move {
                if tries > 0 {
                    // The runtime is away, or slow: later and later.
                    let wait = retry_after(tries, clock::now()).duration_since(clock::now());
                    tokio::time::sleep(wait.try_into().unwrap_or_default()).await;
                }
                stop::pod(cx, pod, observed, grace, reports).await;
            }));
        } else if !self.released {
            self.released = true;
            self.operation = Some(Box::pin(cleanup::release(self.cx.clone(), self.pod.clone())));
        }
    }

    /// `ErrImagePull` becomes `ImagePullBackOff` while the next try waits.
    fn age_pull_errors(&mut self, now: Timestamp) {
        let mut aged = Vec::new();
        for (name, held) in &mut self.held {
            if !is_pull_failure(&held.waiting.reason) {
                continue;
            }
            let due = held.since.checked_add(PULL_ERROR_SHOWN).unwrap_or(now);
            if now < due {
                self.wake_at = Some(self.wake_at.map_or(due, |at| at.min(due)));
            } else if self.retry_at.get(name).is_some_and(|at| *at > now) {
                let image = container(&self.pod, name).and_then(|(_, c)| c.image.clone()).unwrap_or_default();
                let text = format!("Back-off pulling image {image:?}");
                let message = format!("{text}: {}: {}", held.waiting.reason, held.waiting.message);
                held.waiting = Waiting { reason: "ImagePullBackOff".into(), message };
                aged.push((name.clone(), text));
            }
        }
        for (name, text) in aged {
            self.container_event(&name, EventKind::Normal, "BackOff", text);
            self.container_event(&name, EventKind::Warning, "Failed", "Error: ImagePullBackOff".into());
        }
    }

    fn container_event(&self, name: &str, kind: EventKind, reason: &'static str, message: String) {
        let Some((role, _)) = container(&self.pod, name) else { return };
        self.cx.events.container(&self.pod, field_path(role, name), kind, reason, message);
    }

    // ---- its operations ----

    fn operation_ended(&mut self) {
        self.operation = None;
        // Its last reports may still be in the queue.
        while let Ok(progress) = self.reports.1.try_recv() {
            self.take(progress);
        }
        self.hooking.clear();
        if self.phase == Phase::Cleaning {
            self.phase = Phase::Done;
        }
    }

    /// Writes what changed in ConfigMaps, Secrets and tokens. Running containers see it; nothing restarts.
    fn refresh(&mut self, now: Timestamp) {
        // Until it succeeds, which sets the time that the tokens ask for.
        self.refresh_at = Some(retry_after(REFRESH_RETRY, now));
        let (cx, pod, reports) = (self.cx.clone(), self.pod.clone(), self.reports.0.clone());
        let before = self.mounted.clone();
        self.operation = Some(Box::pin(async move {
            let prepared = volumes::prepare(&cx, &pod, cx.allocatable).await;
            match prepared.map(|mounted| mounted.with_images(before.as_ref())) {
                Ok(mounted) => drop(reports.send(Progress::Volumes(mounted)).await),
                Err(error) => tracing::info!(%error, pod = describe(&pod), "volumes not brought up to date"),
            }
        }));
    }
}

/// Waits for the future if there is one, else for ever.
async fn poll_option<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
