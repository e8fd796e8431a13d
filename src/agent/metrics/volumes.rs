//! Effects: how full the volumes of pods are (`pkg/kubelet/server/stats/volume_stat_calculator.go`,
//! `pkg/kubelet/metrics/collectors/volume_stats.go`), measured when somebody asks. Answers are remembered, so that whoever
//! asks often does not wear the disk.
//!
//! A server of files that is gone holds whoever asks it in the kernel, and nothing gets that thread back. So few volumes
//! are measured at once, none twice at once, and who asks waits only so long: an answer that comes later is for the next.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::figures::{Figures, Kind, number};
use crate::agent::context::NodeContext;
use crate::agent::pod::table::PodEntry;
use crate::agent::pod::{namespace, uid};
use crate::agent::volumes::{By, Filled, Measurable};
use crate::clock;

/// As upstream, which measures by the clock.
const REMEMBERED: Duration = Duration::from_secs(60);
/// For all volumes together: scrapers wait ten seconds.
const PATIENCE: Duration = Duration::from_secs(4);
/// For the answer of one driver.
const DRIVER_PATIENCE: Duration = Duration::from_secs(3);
/// Volumes that are measured at once in one way.
const AT_ONCE: usize = 2;

/// The UID of a pod, and a volume's name.
pub type Key = (String, String);

/// What was found of a volume, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub time: Timestamp,
    pub filled: Filled,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// When it was answered last, well or not.
    at: Option<Instant>,
    found: Option<Answer>,
    /// Somebody is still at it.
    busy: bool,
}

impl Known {
    fn is_due(&self, now: Instant) -> bool {
        !self.busy && self.at.is_none_or(|at| now.duration_since(at) >= REMEMBERED)
    }
}

/// Measures, and remembers. Nothing runs and little is kept on a node that nobody asks.
pub struct VolumeFigures {
    known: Arc<Mutex<HashMap<Key, Known>>>,
    /// Who asks meanwhile waits for the same answers.
    turn: tokio::sync::Mutex<()>,
    /// Those who walk files wait for the disk only, those who ask a file system perhaps for a machine that is gone.
    walks: Arc<Semaphore>,
    looks: Arc<Semaphore>,
    calls: Semaphore,
}

impl Default for VolumeFigures {
    fn default() -> Self {
        let few = || Semaphore::new(AT_ONCE);
        VolumeFigures {
            known: Arc::default(),
            turn: tokio::sync::Mutex::default(),
            walks: Arc::new(few()),
            looks: Arc::new(few()),
            calls: few(),
        }
    }
}

impl VolumeFigures {
    /// Of all volumes of these, which are all pods of the node, of which something is known.
    pub async fn measure(&self, cx: &NodeContext, entries: &[PodEntry]) -> HashMap<Key, Answer> {
        let _turn = self.turn.lock().await;
        let all: HashMap<Key, &Measurable> = entries.iter().flat_map(of_pod).collect();
        let now = clock::instant();
        let due: Vec<(Key, &Measurable)> = {
            let mut known = lock(&self.known);
            known.retain(|key, _| all.contains_key(key));
            let is_due = |key: &Key| known.get(key).is_none_or(|known| known.is_due(now));
            all.into_iter().filter(|(key, _)| is_due(key)).collect()
        };
        if !due.is_empty() {
            let asked = join_all(due.into_iter().map(|(key, volume)| self.one(cx, key, volume)));
            if timeout(PATIENCE, asked).await.is_err() {
                tracing::debug!("some volumes are not measured yet");
            }
        }
        lock(&self.known).iter().filter_map(|(key, known)| Some((key.clone(), known.found?))).collect()
    }

    async fn one(&self, cx: &NodeContext, key: Key, volume: &Measurable) {
        if let By::Driver { driver, handle } = &volume.by {
            let Ok(_permit) = self.calls.acquire().await else { return };
            let answer = timeout(DRIVER_PATIENCE, cx.csi.measure(driver, handle, &volume.path)).await;
            let answer = answer.unwrap_or_else(|_| Err(format!("{driver} does not answer")));
            return remember(&self.known, &key, answer);
        }
        let gate = if volume.by == By::Files { &self.walks } else { &self.looks };
        let Ok(permit) = Arc::clone(gate).acquire_owned().await else { return };
        lock(&self.known).entry(key.clone()).or_default().busy = true;
        let (known, by, path) = (Arc::clone(&self.known), volume.by.clone(), volume.path.clone());
        let work = tokio::task::spawn_blocking(move || {
            let answer = by.measure(&path).transpose().map_err(|error| format!("{}: {error}", path.display()));
            remember(&known, &key, answer);
            drop(permit);
        });
        if let Err(error) = work.await {
            tracing::debug!(%error, "a volume was not measured");
        }
    }
}

fn remember(all: &Mutex<HashMap<Key, Known>>, key: &Key, answer: Result<Option<Filled>, String>) {
    let filled = answer.unwrap_or_else(|error| {
        tracing::debug!(pod = key.0, volume = key.1, error, "Failed to calculate volume metrics");
        None
    });
    let found = filled.map(|filled| Answer { time: clock::now(), filled });
    lock(all).insert(key.clone(), Known { at: Some(clock::instant()), found, busy: false });
}

fn of_pod(entry: &PodEntry) -> impl Iterator<Item = (Key, &Measurable)> {
    entry.volumes.iter().map(|(name, volume)| (key(entry, name), volume))
}

/// What is known of a pod's volume is under this.
#[must_use]
pub fn key(entry: &PodEntry, volume: &str) -> Key {
    (uid(&entry.pod).to_owned(), volume.to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Of = fn(&Filled) -> u64;

const FAMILIES: [(&str, &str, Of); 6] = [
    ("kubelet_volume_stats_available_bytes", "Number of available bytes in the volume", |f| f.available_bytes),
    ("kubelet_volume_stats_capacity_bytes", "Capacity in bytes of the volume", |f| f.capacity_bytes),
    ("kubelet_volume_stats_inodes", "Maximum number of inodes in the volume", |f| f.inodes),
    ("kubelet_volume_stats_inodes_free", "Number of free inodes in the volume", |f| f.inodes_free),
    ("kubelet_volume_stats_inodes_used", "Number of used inodes in the volume", |f| f.inodes_used),
    ("kubelet_volume_stats_used_bytes", "Number of used bytes in the volume", |f| f.used_bytes),
];

/// One sample for each claim, however many pods have it.
pub(super) fn render(figures: &mut Figures, entries: &[PodEntry], found: &HashMap<Key, Answer>) {
    let mut told = BTreeSet::new();
    for entry in entries {
        for (name, volume) in entry.volumes.iter() {
            let (Some(claim), Some(answer)) = (&volume.claim, found.get(&key(entry, name))) else { continue };
            let namespace = namespace(&entry.pod);
            if !told.insert((namespace, claim)) {
                continue;
            }
            for (family, help, of) in FAMILIES {
                figures.family(family, Kind::Gauge, help);
                let labels = [("namespace", namespace), ("persistentvolumeclaim", claim)];
                figures.put(family, &labels, number(of(&answer.filled)), None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(uid: &str, path: &std::path::Path) -> PodEntry {
        let pod = json!({"metadata": {"name": uid, "namespace": "ns", "uid": uid}});
        let volume = |by, claim| Measurable { path: path.to_owned(), by, claim, ephemeral: false };
        let volumes = [
            ("data".to_owned(), volume(By::FileSystem, Some("c".to_owned()))),
            ("scratch".to_owned(), volume(By::Files, None)),
            ("lost".to_owned(), volume(By::Driver { driver: "d".into(), handle: "h".into() }, Some("e".to_owned()))),
        ];
        PodEntry {
            pod: Arc::new(serde_json::from_value(pod).expect("a pod")),
            status: Arc::default(),
            sandbox_id: None,
            containers: Vec::new(),
            volumes: Arc::new(volumes.into()),
        }
    }

    #[test]
    fn a_claim_is_told_once_and_other_volumes_are_not() {
        let entries = [entry("a", "/v".as_ref()), entry("b", "/v".as_ref())];
        let filled = Filled { capacity_bytes: 10, used_bytes: 4, ..Filled::default() };
        let answer = Answer { time: clock::now(), filled };
        let found = entries.iter().flat_map(|e| ["data", "scratch"].map(|name| (key(e, name), answer))).collect();
        let mut figures = Figures::default();
        render(&mut figures, &entries, &found);
        let text = figures.render();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples.len(), FAMILIES.len(), "{text}");
        let line = "kubelet_volume_stats_capacity_bytes{namespace=\"ns\",persistentvolumeclaim=\"c\"} 10";
        assert!(samples.contains(&line), "{text}");
    }

    #[test]
    fn an_answer_holds_for_a_minute_and_nothing_is_asked_twice_at_once() {
        let now = clock::instant();
        let known =
            |age: u64, busy| Known { at: Some(now), busy, ..Known::default() }.is_due(now + Duration::from_secs(age));
        assert!(Known::default().is_due(now));
        assert_eq!(
            [known(0, false), known(59, false), known(60, false), known(600, true)],
            [false, false, true, false]
        );
    }

    #[tokio::test]
    async fn files_are_walked_once_a_minute_however_often_somebody_asks() {
        let node = crate::agent::tests::Node::new();
        let cx = node.context();
        let folder = tempfile::tempdir().expect("temporary directory");
        let entry = &entry("a", folder.path());
        let ask = || cx.volume_figures.measure(&cx, std::slice::from_ref(entry));
        let first = ask().await;
        assert_eq!(first.len(), 2, "the driver is not there: {first:?}");
        std::fs::write(folder.path().join("file"), vec![1; 100_000]).expect("written");
        assert_eq!(ask().await, first);
        // As a minute later.
        for known in lock(&cx.volume_figures.known).values_mut() {
            known.at = None;
        }
        let (later, scratch) = (ask().await, key(entry, "scratch"));
        assert_eq!(later[&scratch].filled.inodes_used, first[&scratch].filled.inodes_used + 1);
        assert!(cx.volume_figures.measure(&cx, &[]).await.is_empty(), "nothing is kept of pods that are gone");
    }
}
