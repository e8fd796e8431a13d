//! Loop: keeps the node usable when memory, disk, inodes or process numbers run short, as `pkg/kubelet/eviction` does:
//! conditions, reclaiming of what nobody needs, and in the end the eviction of one pod after the other.
//!
//! ```text
//! signals ──▶ decide ──▶ conditions ──▶ node status, admission of pods
//!               └─ starved ──▶ dead containers, unused images ──still starved──▶ rank ──▶ end one pod ──▶ signals
//! limits of pods (emptyDir, ephemeral-storage) ──▶ end the pod that is over
//! ```
//! A look costs three small files and a `statfs`. It happens when the kernel reports that memory is short (PSI), and
//! each [`PERIOD`]. Directories are walked only for pods that have a limit, and for the ranking when a disk is full.

pub mod admit;
mod decide;
mod limits;
pub(super) mod measure;
mod message;
mod rank;
pub mod signals;
#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::NodeContext;
use super::events::Kind as EventKind;
use super::gc;
use super::pod::ending::Ending;
use super::pod::table::PodEntry;
use super::pod::{describe, is_final, pod_spec, uid};
use crate::clock;
use crate::config::eviction::{Signal, Threshold};
use decide::{State, decide};
use measure::{Usage, Wanted};

/// Between two looks: the kubelet's `evictionMonitoringPeriod`.
const PERIOD: Duration = Duration::from_secs(10);
/// While there is little left above a threshold: memory goes quickly.
const WATCHFUL: Duration = Duration::from_secs(1);
/// Two reports of the kernel in this time are one.
const SETTLE: Duration = Duration::from_millis(250);
/// What pods get to end when the node cannot wait.
const AT_ONCE: Duration = Duration::from_secs(1);
/// An evicted pod's files are waited for, to see what its end brought.
const CLEANED_WITHIN: Duration = Duration::from_secs(30);
const CLEANED_CHECK: Duration = Duration::from_millis(200);
/// Measuring the limits of pods may take one part of so many of the time.
const EFFORT: u32 = 50;
/// From here on a pod is critical, whoever made it (`scheduling.SystemCriticalPriority`).
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

pub const REASON: &str = "Evicted";

/// Runs until `stop`.
pub async fn run(cx: Arc<NodeContext>, stop: CancellationToken) {
    let mut eviction =
        Eviction { cx, state: State::default(), limits_at: clock::instant(), images: None, is_stuck: false };
    tokio::select! {
        () = stop.cancelled() => {}
        () = eviction.follow() => {}
    }
}

struct Eviction {
    cx: Arc<NodeContext>,
    state: State,
    /// Limits of pods are looked at again then.
    limits_at: Instant,
    /// Where the runtime keeps images and the writable layers of containers, once it said so.
    images: Option<std::path::PathBuf>,
    /// Something is short, and nothing could be done about it.
    is_stuck: bool,
}

impl Eviction {
    async fn follow(&mut self) {
        loop {
            let pause = self.look().await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.cx.gauges.pressed(), if !self.is_stuck => tokio::time::sleep(SETTLE).await,
            }
        }
    }

    /// One round. Returns after how long the next one is due.
    async fn look(&mut self) -> Duration {
        if self.images.is_none() {
            self.images = self.cx.images.directory().await.ok();
        }
        let cx = self.cx.clone();
        let thresholds = &cx.config.kubelet.thresholds;
        let signals = self.cx.gauges.read(self.images.as_deref());
        let transition = self.cx.config.kubelet.pressure_transition;
        let decision = decide(&self.state, thresholds, &signals, transition, clock::instant());
        self.state = decision.state;
        self.cx.pressure.send_if_modified(|known| std::mem::replace(known, decision.pressure) != decision.pressure);
        if self.enforce_limits().await {
            return SETTLE;
        }
        let evicted = match decision.starved.first() {
            Some(threshold) => self.reclaim(*threshold, &decision.starved, &signals).await,
            None => false,
        };
        self.is_stuck = !evicted && !decision.starved.is_empty();
        match evicted {
            true => SETTLE,
            false if !self.is_stuck && decide::is_near(thresholds, &signals) => WATCHFUL,
            false => PERIOD,
        }
    }

    /// Frees what is short. `true` when a pod had to go, and the next look should not wait.
    async fn reclaim(&mut self, threshold: Threshold, starved: &[Threshold], signals: &signals::Signals) -> bool {
        let (node, resource) = (&self.cx.config.node_name, message::resource(threshold.signal));
        let dedicated = self.has_imagefs();
        tracing::warn!(resource, signal = threshold.signal.as_str(), "attempting to reclaim");
        let text = format!("Attempting to reclaim {resource}");
        self.cx.events.node(node, EventKind::Warning, "EvictionThresholdMet", text);
        if self.reclaim_from_node(threshold.signal, dedicated).await {
            tracing::info!(resource, "pressure is gone without evicting pods");
            return false;
        }
        let pods = self.active();
        if pods.is_empty() {
            tracing::warn!(resource, "nothing more can be reclaimed: no pods are active");
            return false;
        }
        let wanted = Wanted::for_signal(threshold.signal);
        let usage = measure::pods(&self.cx, &pods, wanted).await;
        let ranked = rank::rank(pods, &usage, threshold.signal, dedicated);
        let Some(victim) = ranked.iter().find(|entry| !is_critical(&entry.pod)) else {
            tracing::warn!(resource, "unable to evict any pods from the node");
            return false;
        };
        let of_pod = usage.get(uid(&victim.pod));
        let message = message::starved(&victim.pod, of_pod, threshold.signal, starved, signals);
        let grace = match threshold.is_hard() {
            true => AT_ONCE,
            false => Duration::from_secs(self.cx.config.kubelet.soft_grace_seconds.into()),
        };
        self.evict(victim, grace, message, true);
        self.cleaned(victim).await;
        true
    }

    /// Dead containers and unused images, where they lie on the disk that is full. `true` when that was enough.
    async fn reclaim_from_node(&mut self, signal: Signal, dedicated: bool) -> bool {
        let there = match signal {
            Signal::ImagefsAvailable | Signal::ImagefsInodesFree => true,
            Signal::NodefsAvailable | Signal::NodefsInodesFree => !dedicated,
            _ => false,
        };
        if !there {
            return false;
        }
        gc::remove_dead(&self.cx, true).await;
        if let Err(error) = self.cx.image_gc.remove_unused(&self.cx).await {
            tracing::warn!(error, "unused images not removed");
        }
        let signals = self.cx.gauges.read(self.images.as_deref());
        decide::met(&self.cx.config.kubelet.thresholds, &signals, true).is_empty()
    }

    fn has_imagefs(&self) -> bool {
        self.images.as_deref().is_some_and(|images| self.cx.gauges.has_imagefs(images))
    }

    /// Ends pods that use more than they may. `true` when there was one.
    async fn enforce_limits(&mut self) -> bool {
        if clock::instant() < self.limits_at {
            return false;
        }
        let mut pods = self.active();
        pods.retain(|entry| limits::has_any(&entry.pod));
        if pods.is_empty() {
            return false;
        }
        let began = clock::instant();
        let usage = measure::pods(&self.cx, &pods, Wanted::LIMITS).await;
        self.limits_at = clock::instant() + (began.elapsed() * EFFORT).saturating_sub(WATCHFUL);
        let mut ended = Vec::new();
        for entry in &pods {
            let Some(usage) = usage.get(uid(&entry.pod)) else { continue };
            let Some(message) = limits::exceeded(&entry.pod, usage, self.has_imagefs()) else { continue };
            if self.evict(entry, AT_ONCE, message, false) {
                ended.push(entry);
            }
        }
        for entry in &ended {
            self.cleaned(entry).await;
        }
        !ended.is_empty()
    }

    fn active(&self) -> Vec<PodEntry> {
        let mut pods = self.cx.pods.entries();
        pods.retain(|entry| !is_final(&entry.status));
        pods
    }

    fn evict(&self, entry: &PodEntry, grace: Duration, message: String, disruption: bool) -> bool {
        let pod: &Pod = &entry.pod;
        if is_critical(pod) {
            tracing::warn!(pod = describe(pod), message, "a critical pod is not evicted");
            return false;
        }
        tracing::warn!(pod = describe(pod), message, "pod evicted");
        self.cx.events.pod(pod, EventKind::Warning, REASON, message.clone());
        self.cx.pods.end(uid(pod), Ending { reason: REASON, message, grace, disruption });
        true
    }

    /// Waits until the pod is gone from the disk, or for a while.
    async fn cleaned(&self, entry: &PodEntry) {
        let directory = self.cx.paths.pod(uid(&entry.pod));
        let gone = async {
            while directory.exists() {
                tokio::time::sleep(CLEANED_CHECK).await;
            }
        };
        if tokio::time::timeout(CLEANED_WITHIN, gone).await.is_err() {
            tracing::warn!(pod = describe(&entry.pod), "an evicted pod is not cleaned up yet");
        }
    }
}

/// Such pods are never evicted: static ones, their mirrors, and those of the highest priorities.
#[must_use]
pub fn is_critical(pod: &Pod) -> bool {
    super::mirror::is_static(pod)
        || super::mirror::is_mirror(pod)
        || pod_spec(pod).priority.is_some_and(|priority| priority >= SYSTEM_CRITICAL)
}

/// What pods use, by uid; a pod of which nothing is known is not there.
type UsageByPod = std::collections::HashMap<String, Usage>;
