//! Effects: stops containers and sandboxes with grace: preStop hook, stop signal, time, kill.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

use super::observed::Observed;
use super::start::Progress;
use super::{Role, containers, field_path, hooks, host_network, spec};
use crate::agent::context::NodeContext;
use crate::agent::events::Kind as EventKind;
use crate::clock;
use crate::cri::{self, State};

/// Left for the stop signal after a preStop hook used up the grace period.
const LEAST: Duration = Duration::from_secs(2);

/// How long this pod's containers get: what the deletion says, else the spec.
#[must_use]
pub fn grace(pod: &Pod) -> Duration {
    let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or_else(|| spec::grace_seconds(pod));
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
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

/// Containers together; then sidecars, the last one first, with what is left of the time.
async fn all_containers(
    cx: &NodeContext,
    pod: &Pod,
    observed: &Observed,
    sandbox: Option<&str>,
    grace: Duration,
    progress: &mpsc::Sender<Progress>,
) {
    let began = clock::instant();
    let in_scope = |c: &&cri::Container| sandbox.is_none_or(|id| c.sandbox_id == id);
    let running: Vec<&cri::Container> =
        observed.containers.iter().filter(|c| c.state != State::Exited && c.state != State::Created).collect();
    let running: Vec<&cri::Container> = running.into_iter().filter(in_scope).collect();
    let sidecars: Vec<&str> = containers(pod)
        .filter(|(role, _)| *role == Role::Sidecar)
        .map(|(_, container)| container.name.as_str())
        .collect();
    let is_sidecar = |c: &cri::Container| sidecars.contains(&c.name.as_str());
    let message = |c: &cri::Container| format!("Stopping container {}", c.name);
    let first = running.iter().filter(|c| !is_sidecar(c));
    join_all(first.map(|c| container(cx, pod, observed, c, grace, message(c), progress))).await;
    for name in sidecars.iter().rev() {
        for record in running.iter().filter(|c| c.name == *name) {
            let left = grace.saturating_sub(began.elapsed());
            container(cx, pod, observed, record, left, message(record), progress).await;
        }
    }
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
    let spec = super::container(pod, &record.name);
    let role = spec.map_or(Role::App, |(role, _)| role);
    let field = || field_path(role, &record.name);
    cx.events.container(pod, field(), EventKind::Normal, "Killing", message);
    let began = clock::instant();
    let hook = spec.and_then(|(_, c)| Some((c, c.lifecycle.as_ref()?.pre_stop.as_ref()?)));
    if let Some((spec, hook)) = hook.filter(|_| !grace.is_zero()) {
        let ip = match observed.ready_sandbox().and_then(|sandbox| sandbox.ips.first()) {
            Some(ip) if !host_network(pod) => ip.clone(),
            _ => cx.config.node_ip.to_string(),
        };
        let run = hooks::run(cx, spec, &record.id, &ip, hook, grace);
        let ran = tokio::time::timeout(grace, run).await;
        let failed = match ran {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(format!("PreStop hook did not finish within its grace period of {}s", grace.as_secs())),
        };
        if let Some(error) = failed {
            let message = format!("PreStopHook failed: {error}");
            cx.events.container(pod, field(), EventKind::Warning, "FailedPreStopHook", message);
        }
    }
    // Only a hook takes time away: the runtime counts whole seconds, and would cut the grace period short otherwise.
    let left = match hook.is_some() && !grace.is_zero() {
        true => grace.saturating_sub(began.elapsed()).max(LEAST),
        false => grace,
    };
    match cx.runtime.stop_container(&record.id, left).await {
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
