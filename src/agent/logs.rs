//! Effects and loop: termination messages, and rotation of container logs.
//!
//! Sizes are looked at on a coarse timer while containers run, and not at all when none does. The runtime writes the
//! files; a full one is renamed and the runtime told to open a new one.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::context::NodeContext;
use crate::clock;
use crate::cri::State;

/// The API's limits for `terminated.message`.
const MESSAGE_BYTES: u64 = 4096;
const LOG_BYTES: u64 = 2048;
const LOG_LINES: usize = 80;
/// A log is rotated beyond this size, and this many files are kept of it.
const ROTATE_BYTES: u64 = 10 << 20;
const KEEP_FILES: usize = 5;
const CHECK: Duration = Duration::from_secs(60);

/// What the container wrote to its message file, or the end of its log.
#[must_use]
pub fn termination_message(file: &Path, fallback_log: Option<&Path>) -> Option<String> {
    let mut bytes = Vec::new();
    let open = std::fs::File::open(file).ok();
    open.and_then(|file| file.take(MESSAGE_BYTES).read_to_end(&mut bytes).ok());
    if !bytes.is_empty() {
        return Some(String::from_utf8_lossy(&bytes).into_owned());
    }
    fallback_log.and_then(tail).filter(|text| !text.is_empty())
}

/// The last lines of a CRI log, without their prefixes.
fn tail(log: &Path) -> Option<String> {
    let mut file = std::fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    // Prefixes of about 50 bytes each are read too.
    let window = LOG_BYTES + 64 * LOG_LINES as u64;
    file.seek(SeekFrom::Start(length.saturating_sub(window))).ok()?;
    let mut bytes = Vec::new();
    file.take(window).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    if length > window && !lines.is_empty() {
        lines.remove(0);
    }
    let from = lines.len().saturating_sub(LOG_LINES);
    let mut text: String = lines[from..].iter().map(|line| format!("{line}\n")).collect();
    while text.len() as u64 > LOG_BYTES {
        let cut = text.find('\n').map_or(text.len(), |at| at + 1);
        text.drain(..cut);
    }
    Some(text)
}

/// Rotates logs of running containers until `stop`.
pub async fn rotate(cx: Arc<NodeContext>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CHECK) => {}
        }
        for entry in cx.pods.entries() {
            for container in entry.containers.iter().filter(|container| container.state == State::Running) {
                if size(&container.log_path) <= ROTATE_BYTES {
                    continue;
                }
                if let Err(error) = rotate_one(&cx, &container.id, &container.log_path).await {
                    tracing::warn!(%error, log = %container.log_path.display(), "log not rotated");
                }
            }
        }
    }
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

async fn rotate_one(cx: &NodeContext, id: &str, log: &Path) -> std::io::Result<()> {
    let old = rotated(log);
    for extra in old.iter().take((old.len() + 2).saturating_sub(KEEP_FILES)) {
        std::fs::remove_file(extra)?;
    }
    let target = PathBuf::from(format!("{}.{}", log.display(), clock::now().strftime("%Y%m%d-%H%M%S")));
    std::fs::rename(log, &target)?;
    if let Err(error) = cx.runtime.reopen_log(id).await {
        // The runtime keeps writing to the renamed file: it gets its name back.
        std::fs::rename(&target, log)?;
        return Err(std::io::Error::other(error));
    }
    Ok(())
}

/// Rotated files of a log, the oldest first: their names end in a time.
#[must_use]
pub fn rotated(log: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name()) else { return Vec::new() };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut found: Vec<PathBuf> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_file_comes_before_the_log() {
        let root = tempfile::tempdir().expect("temporary directory");
        let (file, log) = (root.path().join("message"), root.path().join("0.log"));
        let lines: String = (0..200).map(|n| format!("2026-11-22T00:00:00.0Z stderr F line {n}\n")).collect();
        std::fs::write(&log, lines).expect("written");
        assert_eq!(termination_message(&file, None), None);
        let tail = termination_message(&file, Some(&log)).expect("the log's end");
        assert!(tail.starts_with("line 120\n") && tail.ends_with("line 199\n"), "{tail}");
        std::fs::write(&file, "it broke").expect("written");
        assert_eq!(termination_message(&file, Some(&log)).as_deref(), Some("it broke"));
    }
}
