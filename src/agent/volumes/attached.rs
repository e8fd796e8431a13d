//! Effects: what is left to do for volumes that are attached to the node, those of drivers and of iSCSI, when their pods
//! go: they end by calls and commands, and nothing is deleted below them before.

use std::sync::Arc;
use std::time::Duration;

use super::teardown;
use crate::agent::context::NodeContext;
use crate::agent::csi;

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(122);

/// Whether a pod's folder has such volumes.
#[must_use]
pub fn has_volumes(cx: &NodeContext, uid: &str) -> bool {
    csi::has_volumes(cx, uid) || cx.iscsi.has_volumes(uid)
}

/// Takes all such volumes away from a pod whose containers are gone. Fine when there are none.
///
/// # Errors
/// What keeps one of them; the others are gone. To be tried again.
pub async fn release(cx: &Arc<NodeContext>, uid: &str) -> Result<(), String> {
    let (of_drivers, of_iscsi) = tokio::join!(csi::release(cx, uid), cx.iscsi.release(uid));
    of_drivers.and(of_iscsi)
}

/// A pod's folder that nobody knows the pod of any more: its volumes are undone first, however long that takes.
pub fn release_orphan(cx: &Arc<NodeContext>, uid: &str) {
    let (of_task, uid) = (Arc::clone(cx), uid.to_owned());
    cx.csi.begin(async move {
        let mut delay = FIRST_RETRY;
        while let Err(error) = release(&of_task, &uid).await {
            tracing::warn!(error, uid, "volumes of an old pod not unmounted; trying again");
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(LAST_RETRY);
        }
        let directory = of_task.paths.pod(&uid);
        match tokio::task::spawn_blocking(move || teardown::remove(&directory)).await {
            Ok(Ok(())) => of_task.users.release(&uid),
            Ok(Err(error)) => tracing::warn!(%error, uid, "directory of an old pod not removed"),
            Err(error) => tracing::warn!(%error, uid, "directory of an old pod not removed"),
        }
    });
}

/// Volumes that are attached for pods that are gone: an agent that was killed between two steps leaves them.
pub fn remove_unused(cx: &Arc<NodeContext>, is_known: impl Fn(&str) -> bool) {
    csi::remove_unused(cx);
    cx.iscsi.remove_unused(is_known);
}
