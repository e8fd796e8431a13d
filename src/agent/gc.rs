//! Loop: removes containers and sandboxes that nobody needs, and asks for images to be removed. Of each container the
//! newest dead one stays, for `kubectl logs --previous`. A sandbox whose pod was deleted while the runtime was making it may come to life
//! after its worker has ended: pods that departed lately are looked after once more. Pods that are merely unknown are
//! not touched: the server may be away.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::context::NodeContext;
use super::pod::is_final;
use super::pod::table::PodEntry;
use crate::cri::State;

/// The kubelet's `ContainerGCPeriod`.
const PERIOD: Duration = Duration::from_secs(60);
/// Images are looked at once in so many rounds (`ImageGCPeriod`).
const IMAGE_ROUNDS: u32 = 5;
/// Of the dead containers of one name (`maximum-dead-containers-per-container`).
const KEPT: usize = 1;

pub async fn run(cx: Arc<NodeContext>, stop: CancellationToken) {
    let (mut before, mut unknown) = (HashSet::new(), HashSet::new());
    let mut round: u32 = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        remove_dead(&cx, false).await;
        let departed = cx.pods.take_departed();
        remove_late(&cx, &before, &departed).await;
        before = departed;
        unknown = remove_groups(&cx, &unknown);
        if round.is_multiple_of(IMAGE_ROUNDS) {
            cx.image_gc.collect(&cx).await;
        }
        round += 1;
    }
}

/// Dead containers with their logs: of each name but the newest, and, when the disk is full, all of pods that have ended.
pub async fn remove_dead(cx: &NodeContext, also_of_ended: bool) {
    for entry in cx.pods.entries() {
        let all = also_of_ended && is_final(&entry.status);
        for (id, log) in superfluous(&entry, if all { 0 } else { KEPT }) {
            if let Err(error) = cx.runtime.remove_container(&id).await {
                tracing::debug!(%error, id, "old container not removed");
                continue;
            }
            for file in super::logs::rotated(&log).into_iter().chain([log]) {
                // It may never have written any.
                let _ = tokio::fs::remove_file(file).await;
            }
            cx.pods.wake_for_id(&id);
        }
    }
}

/// Sandboxes of pods that left in this period or the one before.
async fn remove_late(cx: &NodeContext, before: &HashSet<String>, departed: &HashSet<String>) {
    if before.is_empty() && departed.is_empty() {
        return;
    }
    let sandboxes = match cx.runtime.sandboxes(None).await {
        Ok(sandboxes) => sandboxes,
        Err(error) => return tracing::debug!(%error, "runtime not asked for its sandboxes"),
    };
    let late = |uid: &String| before.contains(uid) || departed.contains(uid);
    for sandbox in sandboxes.into_iter().filter(|sandbox| late(&sandbox.pod_uid)) {
        if cx.pods.by_uid(&sandbox.pod_uid).is_some() {
            continue;
        }
        tracing::info!(pod = sandbox.name, uid = sandbox.pod_uid, "sandbox outlived its pod");
        let removed = match cx.runtime.stop_sandbox(&sandbox.id).await {
            Ok(()) => cx.runtime.remove_sandbox(&sandbox.id).await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(%error, id = sandbox.id, "sandbox not removed");
        }
    }
}

/// Control groups of pods that nobody knows: what makes a container late makes them again. They are empty, or the kernel
/// keeps them; another kubelet may be about to use one, so that it has been there for a period. Returns those that are to
/// wait.
fn remove_groups(cx: &NodeContext, unknown: &HashSet<String>) -> HashSet<String> {
    let mut found = cx.cgroups.pods();
    found.retain(|uid| cx.pods.by_uid(uid).is_none() && !cx.paths.pod(uid).exists());
    found.iter().filter(|uid| unknown.contains(*uid)).for_each(|uid| cx.cgroups.remove_by_uid(uid));
    found
}

/// Dead containers beyond the newest ones, with their logs.
fn superfluous(entry: &PodEntry, kept: usize) -> Vec<(String, std::path::PathBuf)> {
    let mut by_name: HashMap<&str, Vec<_>> = HashMap::new();
    for container in entry.containers.iter().filter(|container| container.state == State::Exited) {
        by_name.entry(container.name.as_str()).or_default().push(container);
    }
    let mut found = Vec::new();
    for containers in by_name.values_mut() {
        containers.sort_by_key(|container| std::cmp::Reverse(container.attempt));
        found.extend(containers.iter().skip(kept).map(|container| (container.id.clone(), container.log_path.clone())));
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pod::table::ContainerEntry;

    #[test]
    fn the_newest_dead_one_of_each_name_stays() {
        let container = |name: &str, attempt, state| ContainerEntry {
            name: name.into(),
            id: format!("{name}{attempt}"),
            attempt,
            state,
            exit_code: 1,
            log_path: "/log".into(),
        };
        let containers = vec![
            container("a", 0, State::Exited),
            container("a", 1, State::Exited),
            container("a", 2, State::Exited),
            container("a", 3, State::Running),
            container("b", 0, State::Exited),
        ];
        let volumes = Arc::default();
        let entry = PodEntry { pod: Arc::default(), status: Arc::default(), sandbox_id: None, containers, volumes };
        let ids = |kept| -> Vec<String> { superfluous(&entry, kept).into_iter().map(|(id, _)| id).collect() };
        assert_eq!(ids(KEPT), ["a0", "a1"]);
        assert_eq!(ids(0), ["a0", "a1", "a2", "b0"]);
    }
}
