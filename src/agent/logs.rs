//! Effects and loop: termination messages, and rotation of container logs.
//!
//! Sizes are looked at every ten seconds, and more often while a log grows quickly. The runtime writes the files; a full one is
//! renamed and the runtime told to open a new one.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio_util::sync::CancellationToken;

use super::context::NodeContext;
use crate::clock;
use crate::cri::State;

/// The API's limits for `terminated.message`.
const MESSAGE_BYTES: u64 = 4096;
const LOG_BYTES: u64 = 2048;
const LOG_LINES: usize = 80;
/// Between two looks at the sizes: as often as the log that grows most asks for, within these. The longest is upstream's
/// `containerLogMonitorInterval`: until then nobody knows how a new one grows.
const QUICKEST: Duration = Duration::from_secs(1);
const SLOWEST: Duration = Duration::from_secs(10);
/// Rotated logs but the newest are compressed, under this extension.
const COMPRESSED: &str = "gz";

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
    let limits = Limits { bytes: cx.config.kubelet.log_max_bytes, files: cx.config.kubelet.log_max_files };
    let (mut sizes, mut pause) = (HashMap::new(), SLOWEST);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let mut seen = HashMap::new();
        for entry in cx.pods.entries() {
            for container in entry.containers.iter().filter(|container| container.state == State::Running) {
                let bytes = size(&container.log_path);
                seen.insert(container.id.clone(), bytes);
                if bytes <= limits.bytes {
                    continue;
                }
                if let Err(error) = rotate_one(&cx, &container.id, &container.log_path, limits).await {
                    tracing::warn!(%error, log = %container.log_path.display(), "log not rotated");
                }
            }
        }
        pause = next_check(&sizes, &seen, limits.bytes, pause);
        sizes = seen;
    }
}

#[derive(Clone, Copy)]
struct Limits {
    bytes: u64,
    files: usize,
}

/// Half the time after which the log that grows most would be full, judging by the last `pause`.
fn next_check(before: &HashMap<String, u64>, now: &HashMap<String, u64>, limit: u64, pause: Duration) -> Duration {
    let full_in = now.iter().map(|(id, bytes)| {
        let known = before.get(id).copied().unwrap_or(0);
        // One that is smaller than it was has been rotated, and written to since.
        let grown = if *bytes >= known { bytes - known } else { *bytes };
        let left = if *bytes > limit { limit } else { limit - bytes };
        let pauses = left.checked_div(grown).unwrap_or(u64::MAX);
        pause.saturating_mul(u32::try_from(pauses).unwrap_or(u32::MAX))
    });
    full_in.min().map_or(SLOWEST, |soonest| soonest / 2).clamp(QUICKEST, SLOWEST)
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

async fn rotate_one(cx: &NodeContext, id: &str, log: &Path, limits: Limits) -> std::io::Result<()> {
    let old = rotated(log);
    // With the one that is made now, and the one that is written.
    for extra in old.iter().take((old.len() + 2).saturating_sub(limits.files)) {
        std::fs::remove_file(extra)?;
    }
    // The newest one stays as it is: whoever follows the log may still read it.
    let full: Vec<PathBuf> = rotated(log).into_iter().filter(|file| !is_compressed(file)).collect();
    tokio::task::spawn_blocking(move || full.iter().try_for_each(|file| compress(file))).await??;
    let target = PathBuf::from(format!("{}.{}", log.display(), clock::now().strftime("%Y%m%d-%H%M%S")));
    std::fs::rename(log, &target)?;
    if let Err(error) = cx.runtime.reopen_log(id).await {
        // The runtime keeps writing to the renamed file: it gets its name back.
        std::fs::rename(&target, log)?;
        return Err(std::io::Error::other(error));
    }
    Ok(())
}

fn is_compressed(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == COMPRESSED)
}

/// Replaces the file by a compressed one; what a crash leaves half-written is overwritten.
fn compress(file: &Path) -> std::io::Result<()> {
    let part = PathBuf::from(format!("{}.tmp", file.display()));
    if file.extension().is_some_and(|extension| extension == "tmp") {
        return std::fs::remove_file(file);
    }
    let mut encoder = GzEncoder::new(std::fs::File::create(&part)?, Compression::fast());
    std::io::copy(&mut std::fs::File::open(file)?, &mut encoder)?;
    encoder.finish()?;
    std::fs::set_permissions(&part, std::fs::metadata(file)?.permissions())?;
    std::fs::rename(&part, format!("{}.{COMPRESSED}", file.display()))?;
    std::fs::remove_file(file)
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
    #[test]
    fn a_log_that_grows_quickly_is_looked_at_more_often() {
        let sizes = |bytes: u64| HashMap::from([("c".to_owned(), bytes)]);
        for (before, now, pause, expect) in [
            (0, 0, SLOWEST, 10),
            // One and a half such pauses more, and it is full.
            (0, 400, SLOWEST, 5),
            (0, 600, SLOWEST, 1),
            (0, 100, Duration::from_secs(4), 10),
            (900, 1000, SLOWEST, 1),
            // Rotated: it grew by all that it has.
            (1000, 250, Duration::from_secs(2), 3),
            (0, 5000, SLOWEST, 1),
        ] {
            let found = next_check(&sizes(before), &sizes(now), 1000, pause);
            assert_eq!(found, Duration::from_secs(expect), "{before} {now}");
        }
        assert_eq!(next_check(&HashMap::new(), &HashMap::new(), 1000, QUICKEST), SLOWEST, "nothing runs");
    }

    #[test]
    fn an_old_log_is_compressed_in_place() {
        let root = tempfile::tempdir().expect("temporary directory");
        let (log, old) = (root.path().join("0.log"), root.path().join("0.log.20260101-000000"));
        std::fs::write(&old, "line\n".repeat(1000)).expect("written");
        compress(&old).expect("compressed");
        let found = rotated(&log);
        assert_eq!(found, [root.path().join("0.log.20260101-000000.gz")]);
        assert!(is_compressed(&found[0]) && size(&found[0]) < 500);
        let mut text = String::new();
        let file = std::fs::File::open(&found[0]).expect("there");
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("readable");
        assert_eq!(text.lines().count(), 1000);
    }
}
