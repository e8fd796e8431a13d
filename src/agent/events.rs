//! Loop: writes Events about pods and the node. Equal events become one with a count, as client-go's correlator does.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock;

/// Events waiting to be sent; what does not fit is dropped, events are best effort.
const QUEUE: usize = 1024;
/// Different events remembered for counting.
const REMEMBERED: usize = 2048;
/// Per object: this many at once, then one each [`REFILL`].
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Normal,
    Warning,
}

/// Hands events to the loop; never blocks.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    about: ObjectReference,
    kind: Kind,
    reason: &'static str,
    message: String,
    at: Time,
}

/// The receiving half.
pub struct Writer {
    client: kube::Client,
    node_name: String,
    queue: mpsc::Receiver<Entry>,
    seen: HashMap<Key, Seen>,
    buckets: HashMap<String, Bucket>,
}

type Key = (String, String, Kind, &'static str, String);

struct Seen {
    name: String,
    count: i32,
    used: u64,
}

struct Bucket {
    tokens: f64,
    at: tokio::time::Instant,
}

/// A recorder and the loop that serves it.
#[must_use]
pub fn new(client: kube::Client, node_name: &str) -> (Recorder, Writer) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let writer =
        Writer { client, node_name: node_name.to_owned(), queue, seen: HashMap::new(), buckets: HashMap::new() };
    (Recorder { queue: sender }, writer)
}

impl Recorder {
    pub fn pod(&self, pod: &Pod, kind: Kind, reason: &'static str, message: impl Into<String>) {
        self.send(pod_reference(pod, None), kind, reason, message.into());
    }

    /// About one container; `field` is such as `spec.containers{web}`.
    pub fn container(&self, pod: &Pod, field: String, kind: Kind, reason: &'static str, message: impl Into<String>) {
        self.send(pod_reference(pod, Some(field)), kind, reason, message.into());
    }

    /// About the node. The kubelet uses the node's name for its uid, and `kubectl describe node` looks for that.
    pub fn node(&self, name: &str, kind: Kind, reason: &'static str, message: impl Into<String>) {
        let about = ObjectReference {
            kind: Some("Node".into()),
            name: Some(name.into()),
            uid: Some(name.into()),
            ..ObjectReference::default()
        };
        self.send(about, kind, reason, message.into());
    }

    /// About anything else.
    pub fn about(&self, about: ObjectReference, kind: Kind, reason: &'static str, message: impl Into<String>) {
        self.send(about, kind, reason, message.into());
    }

    fn send(&self, about: ObjectReference, kind: Kind, reason: &'static str, message: String) {
        let entry = Entry { about, kind, reason, message, at: clock::time() };
        if self.queue.try_send(entry).is_err() {
            tracing::debug!(reason, "event dropped: queue full");
        }
    }
}

fn pod_reference(pod: &Pod, field_path: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path,
    }
}

impl Writer {
    /// Ends when `stop` is cancelled or every recorder is gone.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut turn = 0;
        loop {
            let entry = tokio::select! {
                () = stop.cancelled() => return,
                entry = self.queue.recv() => entry,
            };
            let Some(entry) = entry else { return };
            turn += 1;
            if !self.admit(&entry) {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.write(entry, turn) => {}
            }
        }
    }

    /// A token bucket per object, so that one crash loop does not fill the store.
    fn admit(&mut self, entry: &Entry) -> bool {
        let now = clock::instant();
        if self.buckets.len() >= REMEMBERED {
            self.buckets.retain(|_, bucket| now - bucket.at < REFILL);
        }
        let object = entry.about.uid.clone().unwrap_or_default();
        let bucket = self.buckets.entry(object).or_insert(Bucket { tokens: BURST, at: now });
        let refill = (now - bucket.at).as_secs_f64() / REFILL.as_secs_f64();
        bucket.tokens = (bucket.tokens + refill).min(BURST);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    async fn write(&mut self, entry: Entry, turn: u64) {
        let namespace = entry.about.namespace.clone().unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let key: Key = (
            entry.about.uid.clone().unwrap_or_default(),
            entry.about.field_path.clone().unwrap_or_default(),
            entry.kind,
            entry.reason,
            entry.message.clone(),
        );
        if let Some(seen) = self.seen.get_mut(&key) {
            seen.count += 1;
            seen.used = turn;
            let patch = serde_json::json!({ "count": seen.count, "lastTimestamp": entry.at });
            match api.patch(&seen.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return,
                // It expired: start a new one.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return tracing::debug!(%error, "event not updated"),
            }
        }
        let name = format!("{}.{:x}", entry.about.name.as_deref().unwrap_or("node"), clock::now().as_nanosecond());
        let event = self.event(&entry, &name, &namespace);
        for delay in [Duration::from_secs(1), Duration::from_secs(5), Duration::ZERO] {
            match api.create(&PostParams::default(), &event).await {
                Ok(_) => break,
                // The namespace is going away, or the like: trying again won't help.
                Err(kube::Error::Api(status)) => {
                    return tracing::debug!(reason = entry.reason, message = status.message, "event refused");
                }
                Err(error) if delay.is_zero() => return tracing::debug!(%error, "event lost"),
                Err(_) => tokio::time::sleep(delay).await,
            }
        }
        self.remember(key, Seen { name, count: 1, used: turn });
    }

    fn event(&self, entry: &Entry, name: &str, namespace: &str) -> Event {
        let kind = match entry.kind {
            Kind::Normal => "Normal",
            Kind::Warning => "Warning",
        };
        Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: entry.about.clone(),
            type_: Some(kind.into()),
            reason: Some(entry.reason.into()),
            message: Some(entry.message.clone()),
            count: Some(1),
            first_timestamp: Some(entry.at.clone()),
            last_timestamp: Some(entry.at.clone()),
            source: Some(EventSource { component: Some("kubelet".into()), host: Some(self.node_name.clone()) }),
            reporting_component: Some("kubelet".into()),
            reporting_instance: Some(self.node_name.clone()),
            ..Event::default()
        }
    }

    fn remember(&mut self, key: Key, seen: Seen) {
        if self.seen.len() >= REMEMBERED {
            let oldest = seen.used.saturating_sub(REMEMBERED as u64 / 2);
            self.seen.retain(|_, s| s.used > oldest);
        }
        self.seen.insert(key, seen);
    }
}
