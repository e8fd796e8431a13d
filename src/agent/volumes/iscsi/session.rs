//! Effects: a disk on its way to the node: its target is found, logged in to, and scanned for it; and the way back
//! (`AttachDisk`, `detachISCSIDisk` of `pkg/volume/iscsi/iscsi_util.go`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::Iscsi;
use super::command::{self, Secrets};
use super::device::Session;
use super::disk::{Disk, Wanted};
use super::records::Place;
use crate::agent::volumes::tools::Failed;

/// How long a disk takes to show once it was looked for, and several paths to be joined.
const DEVICE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);
/// So many paths do when the others were tried this often.
const ENOUGH_PATHS: usize = 2;
const ENOUGH_ATTEMPTS: u32 = 2;
const LAST_ATTEMPT: u32 = 5;

/// iscsiadm(8): what is to be made is there; what is to be ended is not.
const EXISTS: i32 = 15;
const NONE_FOUND: i32 = 21;

/// Whether the paths that are not there are tried again.
fn is_tried_again(attempt: u32, found: usize, wanted: usize) -> bool {
    let enough = found >= ENOUGH_PATHS && attempt >= ENOUGH_ATTEMPTS;
    found > 0 && found < wanted && !enough && attempt < LAST_ATTEMPT
}

/// The device of a disk. Its record is written before anything is logged in to.
pub(super) async fn attach(
    iscsi: &Iscsi,
    place: &Place,
    wanted: &Wanted,
    secrets: &Secrets,
) -> Result<PathBuf, String> {
    let disk = &wanted.disk;
    let target = iscsi.work.lock_of(&disk.iqn);
    // Another volume of the target may be about to log out.
    let held = target.lock().await;
    record(iscsi, place, disk)?;
    let mut paths: BTreeMap<&str, String> = BTreeMap::new();
    let mut last = String::new();
    let mut attempt = 1;
    loop {
        for portal in disk.portals.iter().map(String::as_str) {
            if paths.contains_key(portal) {
                continue;
            }
            match path(iscsi, place, wanted, portal, secrets).await {
                Ok(name) => drop(paths.insert(portal, name)),
                Err(why) => last = why,
            }
        }
        if !is_tried_again(attempt, paths.len(), disk.portals.len()) {
            break;
        }
        attempt += 1;
    }
    drop(held);
    let Some(first) = paths.values().next().cloned() else {
        return Err(format!("failed to get any path for iscsi disk, last err seen:\n{last}"));
    };
    if !last.is_empty() {
        tracing::warn!(volume = disk.volume, error = last, "not all paths of an iSCSI disk are there");
    }
    let names: Vec<String> = paths.into_values().collect();
    // Where one path is all there will be, nothing is waited for.
    let limit = if disk.portals.len() > 1 { DEVICE } else { Duration::ZERO };
    let joined = until(limit, || names.iter().find_map(|name| iscsi.kernel.multipath(name))).await;
    Ok(iscsi.kernel.device(&joined.unwrap_or(first)))
}

/// Asks again until there is an answer or the time is over; once at least.
async fn until<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    if let Some(found) = look() {
        return Some(found);
    }
    let again = async {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some(found) = look() {
                return found;
            }
        }
    };
    tokio::time::timeout(limit, again).await.ok()
}

/// What is known already of who logged in is kept. Under the target's lock.
fn record(iscsi: &Iscsi, place: &Place, disk: &Disk) -> Result<(), String> {
    let ours = place.read().map(|known| known.ours).unwrap_or_default();
    let others = iscsi.records.others(place);
    let is_ours = |portal: &&String| {
        others.iter().any(|(_, other)| other.ours.contains(portal) && disk.shares_session(portal, other))
    };
    let inherited = disk.portals.iter().filter(is_ours);
    let mut all: Vec<String> = inherited.cloned().chain(ours).collect();
    all.sort_unstable();
    all.dedup();
    place.write(&Disk { ours: all, ..disk.clone() }).map_err(|error| format!("iscsi: {error}"))
}

/// The disk's name by way of one portal.
async fn path(
    iscsi: &Iscsi,
    place: &Place,
    wanted: &Wanted,
    portal: &str,
    secrets: &Secrets,
) -> Result<String, String> {
    let disk = &wanted.disk;
    let session = match iscsi.kernel.session_at(disk, portal) {
        Some(session) => session,
        None => log_in(iscsi, place, wanted, portal, secrets).await?,
    };
    if let Some(name) = iscsi.kernel.disk(&session, disk.lun) {
        return Ok(name);
    }
    let (kernel, host, lun) = (iscsi.kernel.clone(), session.host, disk.lun);
    // The kernel asks the target, which may not answer.
    let scanned = tokio::task::spawn_blocking(move || kernel.scan(host, lun));
    let found = async {
        scanned
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("iscsi: scan of host {host}: {error}"))?;
        let name = until(DEVICE, || iscsi.kernel.disk(&session, disk.lun)).await;
        name.ok_or_else(|| "Could not attach disk: Timeout after 10s".to_owned())
    };
    let limit = DEVICE * 2;
    tokio::time::timeout(limit, found).await.unwrap_or_else(|_| Err("Could not attach disk: Timeout after 20s".into()))
}

async fn log_in(
    iscsi: &Iscsi,
    place: &Place,
    wanted: &Wanted,
    portal: &str,
    secrets: &Secrets,
) -> Result<Session, String> {
    let disk = &wanted.disk;
    own_interface(iscsi, disk).await?;
    // From here on there may be a session, and it is ours to end.
    let mut known = place.read().unwrap_or_else(|| disk.clone());
    if !known.ours.iter().any(|at| at == portal) {
        known.ours.push(portal.to_owned());
        place.write(&known).map_err(|error| format!("iscsi: {error}"))?;
    }
    find_target(iscsi, wanted, portal, secrets).await?;
    for call in command::node_settings(disk, portal) {
        if let Err(Failed { why, output }) = iscsi.runner.run(&call).await {
            tracing::warn!(error = %why, output, ?call, "a setting of an iSCSI target was not taken");
        }
    }
    if wanted.chap_session {
        for call in command::node_secrets(disk, portal, secrets) {
            iscsi.runner.run(&call).await.map_err(|Failed { why, output }| {
                format!("iscsi: failed to update iscsi node to portal {portal} error: {output} ({why})")
            })?;
        }
    }
    match iscsi.runner.run(&command::login(disk, portal)).await {
        Err(failed) if failed.status() != Some(EXISTS) => {
            // One that is half done must not go on.
            let _ = iscsi.runner.run(&command::logout(disk, portal)).await;
            let _ = iscsi.runner.run(&command::forget_node(disk, portal)).await;
            return Err(format!("iscsi: failed to attach disk: Error: {} ({})", failed.output, failed.why));
        }
        _ => {}
    }
    let session = until(DEVICE, || iscsi.kernel.session_at(disk, portal)).await;
    session.ok_or_else(|| format!("Could not get SCSI host number for portal {portal} after logging in"))
}

async fn find_target(iscsi: &Iscsi, wanted: &Wanted, portal: &str, secrets: &Secrets) -> Result<(), String> {
    let disk = &wanted.disk;
    // There may be one already.
    let _ = iscsi.runner.run(&command::discovery_record(disk, portal, "new")).await;
    if wanted.chap_discovery {
        for call in command::discovery_secrets(disk, portal, secrets) {
            iscsi.runner.run(&call).await.map_err(|Failed { why, output }| {
                format!("iscsi: failed to update discoverydb to portal {portal} error: {output} ({why})")
            })?;
        }
    }
    if let Err(Failed { why, output }) = iscsi.runner.run(&command::discover(disk, portal)).await {
        let _ = iscsi.runner.run(&command::discovery_record(disk, portal, "delete")).await;
        return Err(format!("iscsi: failed to sendtargets to portal {portal} output: {output}, err {why}"));
    }
    Ok(())
}

/// Makes the interface of a disk that has its own.
async fn own_interface(iscsi: &Iscsi, disk: &Disk) -> Result<(), String> {
    let Some(initiator) = &disk.initiator else { return Ok(()) };
    let name = disk.session_interface();
    let shown = iscsi.runner.run(&command::interface(&disk.interface, "show")).await;
    let shown =
        shown.map_err(|Failed { why, output }| format!("iscsi: failed to show iface records: {output} ({why})"))?;
    match iscsi.runner.run(&command::interface(&name, "new")).await {
        Err(failed) if failed.status() != Some(EXISTS) => {
            return Err(format!("iscsi: failed to create new iface: {} ({})", failed.output, failed.why));
        }
        _ => {}
    }
    for call in command::copy_interface(&name, &shown, initiator) {
        if let Err(Failed { why, output }) = iscsi.runner.run(&call).await {
            let _ = iscsi.runner.run(&command::interface(&name, "delete")).await;
            return Err(format!("iscsi: failed to update iface records: {output} ({why}). iface({name}) will be used"));
        }
    }
    Ok(())
}

/// Takes the disk from the kernel and logs out, where no other volume needs it. Sessions of others stay.
pub(super) async fn detach(iscsi: &Iscsi, place: &Place, disk: &Disk) -> Result<(), String> {
    let target = iscsi.work.lock_of(&disk.iqn);
    let _held = target.lock().await;
    // As it is now: another volume that went may have left its sessions to this one.
    let disk = place.read().unwrap_or_else(|| disk.clone());
    let others = iscsi.records.others(place);
    let ours = disk.portals.iter().any(|portal| disk.ours.contains(portal));
    if ours && !others.iter().any(|(_, other)| disk.same_unit(other)) {
        delete_disks(iscsi, &disk).await?;
    }
    for portal in disk.portals.iter().filter(|portal| disk.ours.contains(portal)) {
        match others.iter().find(|(_, other)| disk.shares_session(portal, other)) {
            Some((place, other)) => hand_over(portal, place, other)?,
            None => log_out(iscsi, &disk, portal).await?,
        }
    }
    let interface = disk.session_interface();
    if disk.initiator.is_some() && !others.iter().any(|(_, other)| other.session_interface() == interface) {
        match iscsi.runner.run(&command::interface(&interface, "delete")).await {
            Err(failed) if ours && failed.status() != Some(NONE_FOUND) => {
                tracing::warn!(error = %failed, output = failed.output, interface, "iSCSI interface not removed");
            }
            _ => {}
        }
    }
    place.write(&Disk { ours: Vec::new(), ..disk }).map_err(|error| format!("iscsi: {error}"))
}

async fn delete_disks(iscsi: &Iscsi, disk: &Disk) -> Result<(), String> {
    let names = iscsi.kernel.all_disks(disk);
    let mut joined: Vec<String> = names.iter().filter_map(|name| iscsi.kernel.multipath(name)).collect();
    joined.sort_unstable();
    joined.dedup();
    // A path is held by what joins it.
    let on_top = if joined.is_empty() { &names } else { &joined };
    if let Some(name) = on_top.iter().find(|name| iscsi.kernel.is_busy(name)) {
        return Err(format!("iscsi: failed to detach disk: {} is in use", iscsi.kernel.device(name).display()));
    }
    for name in &joined {
        let device = iscsi.kernel.device(name).display().to_string();
        if let Err(error) = iscsi.runner.run(&command::forget_multipath(&device)).await {
            tracing::warn!(%error, output = error.output, device, "multipath device not removed");
        }
    }
    let (kernel, volume) = (iscsi.kernel.clone(), disk.volume.clone());
    let deleted = tokio::task::spawn_blocking(move || {
        for name in names {
            if let Err(error) = kernel.delete(&name) {
                tracing::warn!(%error, name, volume, "iSCSI disk not taken from the kernel");
            }
        }
    });
    deleted.await.map_err(|error| error.to_string())
}

/// Whoever goes last logs out.
fn hand_over(portal: &str, place: &Place, other: &Disk) -> Result<(), String> {
    if other.ours.iter().any(|at| at == portal) {
        return Ok(());
    }
    let mut other = other.clone();
    other.ours.push(portal.to_owned());
    place.write(&other).map_err(|error| format!("iscsi: {error}"))
}

async fn log_out(iscsi: &Iscsi, disk: &Disk, portal: &str) -> Result<(), String> {
    let out = iscsi.runner.run(&command::logout(disk, portal)).await;
    if iscsi.kernel.session_at(disk, portal).is_some() {
        let why = match out {
            Err(Failed { why, output }) => format!("{output} ({why})"),
            Ok(_) => "the session is still there".to_owned(),
        };
        return Err(format!("iscsi: failed to detach disk Error: {why}"));
    }
    if let Err(Failed { why, output }) = iscsi.runner.run(&command::forget_node(disk, portal)).await {
        tracing::debug!(error = %why, output, portal, "a record of open-iscsi was not removed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_tried_again;

    #[test]
    fn paths_are_tried_until_there_are_enough() {
        for (attempt, found, wanted, expect) in [
            (1, 0, 1, false),
            (1, 1, 1, false),
            (1, 0, 3, false),
            (1, 1, 3, true),
            (1, 2, 3, true),
            (2, 2, 3, false),
            (4, 1, 2, true),
            (5, 1, 2, false),
        ] {
            assert_eq!(is_tried_again(attempt, found, wanted), expect, "{found} of {wanted}, attempt {attempt}");
        }
    }
}
