//! Types: the pods of this node, for whoever looks one up: the kubelet endpoint, runtime events, other loops.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::Notify;

use super::ending::Ending;
use super::observed::Observed;
use super::{is_final, name, namespace};
use crate::agent::volumes::AllMeasurable;
use crate::cri::State;

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct PodTable {
    inner: Arc<Mutex<Inner>>,
    /// Tells whoever waits that a pod has ended, or left.
    over: Arc<Notify>,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<String, Row>,
    /// Container and sandbox ids to pod UIDs.
    ids: HashMap<String, String>,
    /// UIDs of pods that were cleaned up since [`PodTable::take_departed`].
    departed: HashSet<String>,
}

struct Row {
    entry: PodEntry,
    /// The API has its status.
    is_told: bool,
    wake: Arc<Wake>,
}

/// One pod, as its worker last saw it.
#[derive(Clone)]
pub struct PodEntry {
    pub pod: Arc<Pod>,
    /// What the API is told.
    pub status: Arc<PodStatus>,
    /// The sandbox that is ready.
    pub sandbox_id: Option<String>,
    pub containers: Vec<ContainerEntry>,
    /// How full they are can be said.
    pub volumes: Arc<AllMeasurable>,
}

/// One container, running or not; several have the same name after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEntry {
    pub name: String,
    pub id: String,
    /// Counts restarts.
    pub attempt: u32,
    pub state: State,
    pub exit_code: i32,
    /// Absolute.
    pub log_path: PathBuf,
}

impl PodEntry {
    /// The pod with its current status.
    #[must_use]
    pub fn full(&self) -> Pod {
        Pod { status: Some((*self.status).clone()), ..(*self.pod).clone() }
    }

    /// The newest container of that name, or the one before.
    #[must_use]
    pub fn container(&self, name: &str, previous: bool) -> Option<&ContainerEntry> {
        let mut found: Vec<&ContainerEntry> = self.containers.iter().filter(|c| c.name == name).collect();
        found.sort_by_key(|c| std::cmp::Reverse(c.attempt));
        found.get(usize::from(previous)).copied()
    }
}

/// Rouses one worker and tells what it should look at. Reports add up until the worker takes them.
#[derive(Default)]
pub struct Wake {
    notify: Notify,
    changes: Mutex<Changes>,
}

#[derive(Debug, Default)]
pub struct Changes {
    /// Containers and sandboxes to look at again.
    pub ids: HashSet<String>,
    /// Events were lost: look at everything.
    pub all: bool,
    /// A ConfigMap or Secret that it uses changed.
    pub objects: bool,
    /// It has been granted resources that it waited for.
    pub resources: bool,
    /// The node ends the pod.
    pub end: Option<Ending>,
}

impl Wake {
    pub fn report(&self, change: impl FnOnce(&mut Changes)) {
        change(&mut lock(&self.changes));
        self.notify.notify_one();
    }

    /// Waits for the next report.
    pub async fn wait(&self) -> Changes {
        self.notify.notified().await;
        std::mem::take(&mut lock(&self.changes))
    }
}

impl PodTable {
    /// All pods, each with its current status.
    #[must_use]
    pub fn pods(&self) -> Vec<Pod> {
        lock(&self.inner).entries.values().map(|row| row.entry.full()).collect()
    }

    #[must_use]
    pub fn entries(&self) -> Vec<PodEntry> {
        lock(&self.inner).entries.values().map(|row| row.entry.clone()).collect()
    }

    /// A pod by name; the newest when one of that name is still going away.
    #[must_use]
    pub fn find(&self, pod_namespace: &str, pod_name: &str) -> Option<PodEntry> {
        let inner = lock(&self.inner);
        let named = inner.entries.values().map(|row| &row.entry);
        let named = named.filter(|e| name(&e.pod) == pod_name && namespace(&e.pod) == pod_namespace);
        named.max_by_key(|e| e.pod.metadata.creation_timestamp.as_ref().map(|time| time.0)).cloned()
    }

    #[must_use]
    pub fn by_uid(&self, uid: &str) -> Option<PodEntry> {
        lock(&self.inner).entries.get(uid).map(|row| row.entry.clone())
    }

    /// Which pod a container or sandbox belongs to.
    #[must_use]
    pub fn owner(&self, id: &str) -> Option<String> {
        lock(&self.inner).ids.get(id).cloned()
    }

    /// The runtime says that something about `id` changed.
    pub fn wake_for_id(&self, id: &str) {
        let inner = lock(&self.inner);
        if let Some(row) = inner.ids.get(id).and_then(|uid| inner.entries.get(uid)) {
            row.wake.report(|changes| {
                changes.ids.insert(id.to_owned());
            });
        }
    }

    /// Runtime events were lost.
    pub fn wake_all(&self) {
        for row in lock(&self.inner).entries.values() {
            row.wake.report(|changes| changes.all = true);
        }
    }

    pub fn wake_for_objects(&self, uid: &str) {
        if let Some(row) = lock(&self.inner).entries.get(uid) {
            row.wake.report(|changes| changes.objects = true);
        }
    }

    pub fn wake_for_resources(&self, uid: &str) {
        if let Some(row) = lock(&self.inner).entries.get(uid) {
            row.wake.report(|changes| changes.resources = true);
        }
    }

    /// The pod is to end; one that has ended, or is being deleted, is left as it is.
    pub fn end(&self, uid: &str, ending: Ending) {
        if let Some(row) = lock(&self.inner).entries.get(uid) {
            row.wake.report(|changes| changes.end = Some(ending));
        }
    }

    /// Waits until the pod has ended for good or is not here any more.
    pub async fn ended(&self, uid: &str) {
        self.over(uid, |_| true).await;
    }

    /// Waits until that has been told, too.
    pub async fn told_of_end(&self, uid: &str) {
        self.over(uid, |row| row.is_told).await;
    }

    async fn over(&self, uid: &str, enough: impl Fn(&Row) -> bool) {
        loop {
            let mut news = pin!(self.over.notified());
            // Listens before it looks: what ends in between must not be missed.
            news.as_mut().enable();
            let is_over = |row: &Row| is_final(&row.entry.status) && enough(row);
            if lock(&self.inner).entries.get(uid).is_none_or(is_over) {
                return;
            }
            news.await;
        }
    }

    pub fn take_departed(&self) -> HashSet<String> {
        std::mem::take(&mut lock(&self.inner).departed)
    }

    pub(super) fn publish(&self, uid: &str, entry: PodEntry, is_told: bool, observed: &Observed, wake: &Arc<Wake>) {
        let has_ended = is_final(&entry.status);
        let mut inner = lock(&self.inner);
        for id in observed.ids() {
            inner.ids.insert(id.to_owned(), uid.to_owned());
        }
        inner.entries.insert(uid.to_owned(), Row { entry, is_told, wake: wake.clone() });
        if has_ended {
            self.over.notify_waiters();
        }
    }

    /// Before a container runs, so that its first event finds the worker.
    pub(super) fn register(&self, id: &str, uid: &str) {
        lock(&self.inner).ids.insert(id.to_owned(), uid.to_owned());
    }

    pub(super) fn unregister(&self, id: &str) {
        lock(&self.inner).ids.remove(id);
    }

    pub(super) fn remove(&self, uid: &str) {
        let mut inner = lock(&self.inner);
        inner.entries.remove(uid);
        inner.ids.retain(|_, owner| owner != uid);
        inner.departed.insert(uid.to_owned());
        self.over.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
