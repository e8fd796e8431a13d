//! Loop: imports the image archives that lie in `<data-dir>/agent/images/` at start, and those that arrive later.
//! What was imported is remembered by size and time of change, so that a restart reads no archive again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Images;
use super::image_import::Importer;
use crate::inotify::{Flags, Watcher};

/// A writer that is still at work sends many events; the archive is looked at when they pause.
const SETTLE: Duration = Duration::from_millis(200);
/// An archive that could not be imported because containerd was away is tried again after this.
const RETRY: Duration = Duration::from_secs(10);

/// The files that are taken for archives.
const SUFFIXES: [&str; 6] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.zstd", ".tzst"];

#[derive(Debug, thiserror::Error)]
#[error("cannot watch the images directory {path}")]
pub struct WatchError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// What an archive was when it was imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    size: u64,
    /// Nanoseconds since the epoch.
    modified: i128,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Imported {
    archives: BTreeMap<String, (Stamp, Vec<String>)>,
}

pub struct ImagesDir {
    pub dir: PathBuf,
    /// Where the memory of earlier imports is kept.
    pub state: PathBuf,
    pub importer: Importer,
    pub images: Arc<dyn Images>,
    /// Of a containerd that we supervise: nothing is imported while it is away.
    pub problem: Option<watch::Receiver<Option<String>>>,
    /// Rounds of imports; 0 until what lay there at the start is imported: pods wait for it, as nothing else has their
    /// images.
    pub rounds: watch::Sender<u64>,
}

impl ImagesDir {
    /// Runs until `stop`. An archive that is broken is named in the log and left alone until it changes.
    ///
    /// # Errors
    /// When the directory cannot be watched.
    pub async fn run(self, stop: CancellationToken) -> Result<(), WatchError> {
        let fail = |source| WatchError { path: self.dir.clone(), source };
        fs::create_dir_all(&self.dir).map_err(fail)?;
        let watcher = Watcher::new().map_err(fail)?;
        watcher.add(&self.dir, Flags::IN_CLOSE_WRITE | Flags::IN_MOVED_TO).map_err(fail)?;

        let mut imported = self.remembered();
        let mut broken: BTreeMap<String, Stamp> = BTreeMap::new();
        let mut problem = self.problem.clone();
        loop {
            if let Some(problem) = &mut problem {
                tokio::select! {
                    // The supervisor ends only with everything else.
                    _ = problem.wait_for(Option::is_none) => {}
                    () = stop.cancelled() => return Ok(()),
                }
            }
            let (all_done, brought) = self.scan(&mut imported, &mut broken).await;
            self.rounds.send_if_modified(|rounds| {
                let counts = if *rounds == 0 { all_done } else { brought };
                *rounds += u64::from(counts);
                counts
            });
            let retry = async { if all_done { std::future::pending().await } else { tokio::time::sleep(RETRY).await } };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = retry => {}
                changed = watcher.changed() => {
                    changed.map_err(fail)?;
                    // Events of the pause wake the next round at once; it finds nothing new.
                    tokio::time::sleep(SETTLE).await;
                }
            }
        }
    }

    /// Imports what is new. Whether all is done, or else to be tried again; and whether it brought anything.
    async fn scan(&self, imported: &mut Imported, broken: &mut BTreeMap<String, Stamp>) -> (bool, bool) {
        let archives = archives(&self.dir);
        let present: BTreeSet<&String> = archives.keys().collect();
        imported.archives.retain(|name, _| present.contains(name));
        let (mut all_done, mut brought) = (true, false);
        for (name, stamp) in &archives {
            if broken.get(name) == Some(stamp) {
                continue;
            }
            if let Some((known, images)) = imported.archives.get(name)
                && known == stamp
                && self.all_there(images).await
            {
                continue;
            }
            let path = self.dir.join(name);
            match self.importer.archive(&path).await {
                Ok(images) => {
                    tracing::info!(archive = name, images = images.join(" "), "images imported");
                    imported.archives.insert(name.clone(), (stamp.clone(), images));
                    brought = true;
                }
                Err(error @ super::image_import::ImportError::Containerd { .. }) => {
                    tracing::warn!(archive = name, %error, retry_in = ?RETRY, "images not imported");
                    all_done = false;
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::error!(archive = name, %error, cause, "images not imported");
                    broken.insert(name.clone(), stamp.clone());
                }
            }
        }
        self.remember(imported);
        (all_done, brought)
    }

    async fn all_there(&self, names: &[String]) -> bool {
        for name in names {
            if !matches!(self.images.image(name).await, Ok(Some(_))) {
                return false;
            }
        }
        true
    }

    /// Losing the memory costs a second import, nothing else.
    fn remembered(&self) -> Imported {
        fs::read(&self.state).ok().and_then(|data| serde_json::from_slice(&data).ok()).unwrap_or_default()
    }

    fn remember(&self, imported: &Imported) {
        if *imported == self.remembered() {
            return;
        }
        let data = serde_json::to_vec(imported).unwrap_or_default();
        if let Err(error) = fs::write(&self.state, data) {
            tracing::warn!(path = %self.state.display(), %error, "imported archives will be read again after a restart");
        }
    }
}

/// The names of all images that were imported from archives of the images directory.
#[must_use]
pub fn imported(data_dir: &Path) -> BTreeSet<String> {
    let known = fs::read(data_dir.join("agent/images.json")).ok();
    let known: Imported = known.and_then(|data| serde_json::from_slice(&data).ok()).unwrap_or_default();
    known.archives.into_values().flat_map(|(_, names)| names).collect()
}

fn archives(dir: &Path) -> BTreeMap<String, Stamp> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let metadata = entry.metadata().ok()?;
            let is_archive = !name.starts_with('.') && SUFFIXES.iter().any(|s| name.ends_with(s));
            let modified = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
            (is_archive && metadata.is_file()).then_some((name, Stamp { size: metadata.len(), modified }))
        })
        .collect()
}
