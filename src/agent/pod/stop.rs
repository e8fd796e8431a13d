//! Effects: stops containers and sandboxes with grace: preStop hook, stop signal, time, kill.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, watch};

use super::observed::Observed;
use super::start::Progress;
use super::{Role, containers, describe, field_path, hooks, host_network, spec};
use crate::agent::context::NodeContext;
use crate::agent::events::Kind as EventKind;
use crate::clock;
use crate::cri::{self, State};

/// Left for the stop signal after a preStop hook, or others whose turn was before, used up the grace period.
const LEAST: Duration = Duration::from_secs(2);

/// How long this pod's containers get: what the deletion says, else the spec.
#[must_use]
pub fn grace(pod: &Pod) -> Duration {
    let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or_else(|| spec::grace_seconds(pod));
    // What is below zero is the least there is, as upstream has it.
    Duration::from_secs(u64::try_from(seconds).unwrap_or(1))
}

/// Stops everything of the pod: its containers, then its sandboxes.
pub async fn pod(
    cx: Arc<NodeContext>,
    pod: Arc<Pod>,
    observed: Observed,
    grace: Duration,
    progress: mpsc::Sender<Progress>,
) {
    all_containers(&cx, &pod, &observed, None, grace, &progress).await;
    for sandbox in observed.sandboxes.iter().filter(|sandbox| sandbox.ready) {
        stop_sandbox(&cx, &sandbox.id, &progress).await;
    }
}

/// Stops one sandbox and what runs in it.
pub async fn sandbox(
    cx: &NodeContext,
    pod: &Pod,
    observed: &Observed,
    id: &str,
    grace: Duration,
    progress: &mpsc::Sender<Progress>,
) {
    all_containers(cx, pod, observed, Some(id), grace, progress).await;
    stop_sandbox(cx, id, progress).await;
}

async fn stop_sandbox(cx: &NodeContext, id: &str, progress: &mpsc::Sender<Progress>) {
    match cx.runtime.stop_sandbox(id).await {
        Ok(()) | Err(cri::Error::NotFound(_)) => {
            let _ = progress.send(Progress::SandboxStopped(id.to_owned())).await;
        }
        Err(error) => tracing::warn!(%error, id, "sandbox not stopped"),
    }
}

/// Containers together; then sidecars, the last one first, with what is left of the time. Hooks of all run at once, as
/// upstream's do: only the signals wait for their turn.
async fn all_containers(
    cx: &NodeContext,
    pod: &Pod,
    observed: &Observed,
    sandbox: Option<&str>,
    grace: Duration,
    progress: &mpsc::Sender<Progress>,
) {
    let is_up = |c: &&cri::Container| c.state != State::Exited && c.state != State::Created;
    let in_scope = |c: &&cri::Container| sandbox.is_none_or(|id| c.sandbox_id == id);
    let mut sidecars: Vec<&str> = containers(pod)
        .filter(|(role, _)| *role == Role::Sidecar)
        .map(|(_, container)| container.name.as_str())
        .collect();
    sidecars.reverse();
    // The turn of each: all that is no sidecar first.
    let turn = |c: &cri::Container| sidecars.iter().position(|name| *name == c.name).map_or(0, |at| at + 1);
    let running: Vec<&cri::Container> = observed.containers.iter().filter(is_up).filter(in_scope).collect();
    // Each has one of its turn's senders until it has ended; the turn is over when all of them are dropped.
    let turns: Vec<(watch::Sender<()>, watch::Receiver<()>)> =
        (0..=sidecars.len()).map(|_| watch::channel(())).collect();
    let mut senders: Vec<watch::Sender<()>> = Vec::new();
    let mut before: Vec<Vec<watch::Receiver<()>>> = Vec::new();
    for record in &running {
        let own = turn(record);
        senders.push(turns[own].0.clone());
        before.push(turns[..own].iter().map(|(_, over)| over.clone()).collect());
    }
    drop(turns);
    let stops = running.iter().zip(senders).zip(before).map(|((record, own), before)| async move {
        let message = format!("Stopping container {}", record.name);
        let began = clock::instant();
        prepare(cx, pod, observed, record, grace, message).await;
        let over = async {
            for mut turn in before {
                while turn.changed().await.is_ok() {}
            }
        };
        let _ = tokio::time::timeout(grace.saturating_sub(began.elapsed()), over).await;
        signal(cx, record, left(grace, began.elapsed()), progress).await;
        drop(own);
    });
    join_all(stops).await;
}

/// Stops one container; `message` is that of its `Killing` event.
pub async fn container(
    cx: &NodeContext,
    pod: &Pod,
    observed: &Observed,
    record: &cri::Container,
    grace: Duration,
    message: String,
    progress: &mpsc::Sender<Progress>,
) {
    let began = clock::instant();
    prepare(cx, pod, observed, record, grace, message).await;
    signal(cx, record, left(grace, began.elapsed()), progress).await;
}

/// Stops one container at once, with all of its grace for the signal.
pub async fn without_hook(cx: &NodeContext, pod: &Pod, record: &cri::Container, progress: &mpsc::Sender<Progress>) {
    let role = super::container(pod, &record.name).map_or(Role::App, |(role, _)| role);
    let message = format!("Stopping container {}", record.name);
    cx.events.container(pod, field_path(role, &record.name), EventKind::Normal, "Killing", message);
    signal(cx, record, grace(pod), progress).await;
}

/// What of the grace is left for the signal. The runtime counts whole seconds: moments are not taken away.
fn left(grace: Duration, spent: Duration) -> Duration {
    match spent.as_secs() {
        0 => grace,
        spent => grace.saturating_sub(Duration::from_secs(spent)).max(LEAST),
    }
}

/// Tells of it, and runs the preStop hook.
async fn prepare(
    cx: &NodeContext,
    pod: &Pod,
    observed: &Observed,
    record: &cri::Container,
    grace: Duration,
    message: String,
) {
    let spec = super::container(pod, &record.name);
    let role = spec.as_ref().map_or(Role::App, |(role, _)| *role);
    let field = || field_path(role, &record.name);
    cx.events.container(pod, field(), EventKind::Normal, "Killing", message);
    let hook = spec.as_ref().and_then(|(_, c)| Some((c, c.lifecycle.as_ref()?.pre_stop.as_ref()?)));
    let Some((spec, hook)) = hook.filter(|_| !grace.is_zero()) else { return };
    let ip = match observed.ready_sandbox().and_then(|sandbox| sandbox.ips.first()) {
        Some(ip) if !host_network(pod) => ip.clone(),
        _ => cx.node_ip().to_string(),
    };
    let run = hooks::run(cx, spec, &record.id, &ip, hook, grace);
    let failed = match tokio::time::timeout(grace, run).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(_) => Some(format!("it did not finish within its grace period of {}s", grace.as_secs())),
    };
    if let Some(error) = failed {
        // Not in the event: what a command prints may be secret.
        tracing::info!(error, pod = describe(pod), container = record.name, "preStop hook failed");
        cx.events.container(pod, field(), EventKind::Warning, "FailedPreStopHook", "PreStopHook failed");
    }
}

async fn signal(cx: &NodeContext, record: &cri::Container, grace: Duration, progress: &mpsc::Sender<Progress>) {
    match cx.runtime.stop_container(&record.id, grace).await {
        Ok(()) => look(cx, record, progress).await,
        Err(cri::Error::NotFound(_)) => {
            let _ = progress.send(Progress::Removed(record.id.clone())).await;
        }
        Err(error) => tracing::warn!(%error, container = record.name, id = record.id, "container not stopped"),
    }
}

async fn look(cx: &NodeContext, before: &cri::Container, progress: &mpsc::Sender<Progress>) {
    if let Ok(mut record) = cx.runtime.container_status(&before.id).await {
        record.sandbox_id = before.sandbox_id.clone();
        let _ = progress.send(Progress::Container(Box::new(record))).await;
    }
}
