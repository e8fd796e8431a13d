//! Effects: takes a pod's volumes away again, and what nobody uses any more; from the records on disk, so that it does
//! not matter which agent mounted them.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::paths::{self, Found};
use super::v1::{NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest};
use super::{call, in_use};
use crate::agent::context::NodeContext;
use crate::agent::volumes::teardown;

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(122);

/// Before the first pod: what an agent before this one left is read.
pub fn begin(cx: &NodeContext) {
    cx.csi.restore(cx);
}

/// Whether a pod's folder has volumes of drivers.
#[must_use]
pub fn has_volumes(cx: &NodeContext, uid: &str) -> bool {
    !paths::of_pod(&cx.paths.kubelet, uid).is_empty()
}

/// Undoes all CSI volumes of a pod whose containers are gone. Fine when there are none.
///
/// # Errors
/// What keeps one of them; the others are gone. To be tried again.
pub async fn release(cx: &Arc<NodeContext>, uid: &str) -> Result<(), String> {
    let volumes = paths::of_pod(&cx.paths.kubelet, uid);
    let wanted = cx.csi.used_by(uid);
    if volumes.is_empty() && wanted.is_empty() {
        return Ok(());
    }
    let subpaths = cx.paths.pod(uid).join("volume-subpaths");
    tokio::task::spawn_blocking(move || teardown::unmount_below(&subpaths))
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("subPath not unmounted: {error}"))?;
    let mut first = Ok(());
    let on_disk: HashSet<String> = volumes.iter().map(|found| found.record.unique()).collect();
    for found in volumes {
        let (cx_of_task, uid_of_task) = (Arc::clone(cx), uid.to_owned());
        let result = cx.csi.finish(async move { one(&cx_of_task, &uid_of_task, &found).await }).await;
        first = first.and(result.unwrap_or_else(|| Err("the agent stops".into())));
    }
    // Volumes that it never got.
    for unique in wanted.iter().filter(|unique| !on_disk.contains(*unique)) {
        let (cx_of_task, uid, unique) = (Arc::clone(cx), uid.to_owned(), unique.clone());
        let result = cx.csi.finish(async move { never_published(&cx_of_task, &uid, &unique).await }).await;
        first = first.and(result.unwrap_or_else(|| Err("the agent stops".into())));
    }
    first.and(in_use::tell(cx).await)
}

/// One volume of one pod, and the volume itself when that was the last pod.
async fn one(cx: &Arc<NodeContext>, uid: &str, found: &Found) -> Result<(), String> {
    let Found { record, places } = found;
    let unique = record.unique();
    let held = cx.csi.lock_of(&unique);
    let _held = held.lock().await;
    let named = |error: &dyn std::fmt::Display| {
        format!("UnmountVolume.TearDown failed for volume {:?} pod {uid:?}: {error}", record.name)
    };
    let target = places.target(uid);
    let driver = cx.csi.driver(&record.driver_name).await.map_err(|error| named(&error))?;
    cx.csi.done().published.remove(&target);
    let request = NodeUnpublishVolumeRequest {
        volume_id: record.volume_handle.clone(),
        target_path: target.display().to_string(),
    };
    call::within(driver.node().node_unpublish_volume(request)).await.map_err(|error| named(&error))?;
    remove_target(&target).map_err(|error| named(&error))?;
    places.forget(uid).map_err(|error| named(&error))?;
    cx.csi.unused_by(&unique, uid);
    if record.volume_lifecycle_mode != "Ephemeral" {
        unstage(cx, found).await?;
    }
    Ok(())
}

/// What the driver left of the place: an empty folder or file, never a mount.
fn remove_target(target: &Path) -> std::io::Result<()> {
    if teardown::is_mount_point(target) {
        let text = format!("{} is still mounted after NodeUnpublishVolume", target.display());
        return Err(std::io::Error::new(std::io::ErrorKind::ResourceBusy, text));
    }
    match std::fs::symlink_metadata(target) {
        Ok(found) if found.is_dir() => std::fs::remove_dir(target),
        Ok(_) => std::fs::remove_file(target),
        Err(_) => Ok(()),
    }
}

async fn never_published(cx: &Arc<NodeContext>, uid: &str, unique: &str) -> Result<(), String> {
    let held = cx.csi.lock_of(unique);
    let _held = held.lock().await;
    cx.csi.unused_by(unique, uid);
    match paths::staged(&cx.paths.kubelet).into_iter().find(|found| found.record.unique() == unique) {
        Some(found) => unstage(cx, &found).await,
        None => Ok(()),
    }
}

/// With the volume's lock held. Does nothing while a pod has the volume, or wants it.
async fn unstage(cx: &Arc<NodeContext>, found: &Found) -> Result<(), String> {
    let unique = found.record.unique();
    if cx.csi.is_wanted(&unique) || !paths::users(&cx.paths.kubelet, &unique).is_empty() {
        return Ok(());
    }
    let Some(record) = paths::read(&found.places.staged_record()) else { return Ok(()) };
    let named =
        |error: &dyn std::fmt::Display| format!("UnmountDevice failed for volume {:?}: {error}", found.record.name);
    let driver = cx.csi.driver(&record.driver_name).await.map_err(|error| named(&error))?;
    cx.csi.done().staged.remove(&unique);
    let staging = found.places.staging();
    if driver.can.stage {
        let request = NodeUnstageVolumeRequest {
            volume_id: record.volume_handle.clone(),
            staging_target_path: staging.display().to_string(),
        };
        call::within(driver.node().node_unstage_volume(request)).await.map_err(|error| named(&error))?;
    }
    if teardown::is_mount_point(&staging) {
        return Err(named(&format!("{} is still mounted after NodeUnstageVolume", staging.display())));
    }
    found.places.forget_staged().map_err(|error| named(&error))?;
    cx.csi.unused_by(&unique, "");
    Ok(())
}

/// Volumes that were staged for pods that are gone: an agent that was killed between two calls leaves them.
pub fn remove_unused(cx: &Arc<NodeContext>) {
    for found in paths::staged(&cx.paths.kubelet) {
        let unique = found.record.unique();
        if cx.csi.is_wanted(&unique) || !paths::users(&cx.paths.kubelet, &unique).is_empty() {
            continue;
        }
        let of_task = Arc::clone(cx);
        let work = async move {
            let attempt = || async {
                let held = of_task.csi.lock_of(&unique);
                let _held = held.lock().await;
                unstage(&of_task, &found).await?;
                in_use::tell(&of_task).await
            };
            again(&unique, attempt).await;
        };
        cx.csi.begin(work);
    }
}

async fn again<F: Future<Output = Result<(), String>>>(volume: &str, attempt: impl Fn() -> F) {
    let mut delay = FIRST_RETRY;
    while let Err(error) = attempt().await {
        tracing::warn!(error, volume, "not unmounted; trying again");
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(LAST_RETRY);
    }
}
