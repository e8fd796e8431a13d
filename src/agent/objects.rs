//! Loop: ConfigMaps and Secrets that pods on this node refer to: one watch per object, shared by all its pods, started
//! with the first and ended with the last. A pod start after the first finds the object here without asking.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::pod::table::PodTable;
use crate::client::reflector::{self, Event, Source};

/// How long a pod waits for the first answer about an object.
const FIRST_ANSWER: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    /// As upstream's messages name it.
    #[must_use]
    pub fn lower(self) -> &'static str {
        match self {
            Kind::ConfigMap => "configmap",
            Kind::Secret => "secret",
        }
    }

    #[must_use]
    pub fn camel(self) -> &'static str {
        match self {
            Kind::ConfigMap => "ConfigMap",
            Kind::Secret => "Secret",
        }
    }
}

/// Keys and values of a ConfigMap (both its text and its binary data) or of a Secret.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Data {
    pub values: BTreeMap<String, Vec<u8>>,
    /// `type` of a Secret.
    pub secret_type: String,
    pub uid: String,
    /// It never changes: nothing is watched.
    pub immutable: bool,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("{} \"{name}\" not found", kind.lower())]
    NotFound { kind: Kind, name: String },
    #[error("failed to sync {} cache: timed out waiting for the condition", kind.lower())]
    NotKnown { kind: Kind },
}

type Key = (Kind, String, String);
/// Outer `None`: no answer yet. Inner `None`: there is no such object.
type Answer = Option<Option<Arc<Data>>>;

struct Entry {
    answer: watch::Receiver<Answer>,
    /// UIDs of the pods that refer to it.
    users: HashSet<String>,
    task: tokio::task::AbortHandle,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<Key, Entry>,
    tasks: JoinSet<()>,
}

#[derive(Clone)]
pub struct Objects {
    client: kube::Client,
    pods: PodTable,
    inner: Arc<Mutex<Inner>>,
}

impl Objects {
    #[must_use]
    pub fn new(client: kube::Client, pods: PodTable) -> Objects {
        Objects { client, pods, inner: Arc::default() }
    }

    /// The object's present data. From now on the pod is woken when it changes, until [`Objects::release`].
    pub async fn get(&self, kind: Kind, namespace: &str, name: &str, pod_uid: &str) -> Result<Arc<Data>, Error> {
        let mut answer = self.subscribe(kind, namespace, name, pod_uid);
        let known = tokio::time::timeout(FIRST_ANSWER, answer.wait_for(Option::is_some)).await;
        match known {
            Ok(Ok(found)) => match found.clone().flatten() {
                Some(data) => Ok(data),
                None => Err(Error::NotFound { kind, name: name.to_owned() }),
            },
            _ => Err(Error::NotKnown { kind }),
        }
    }

    /// The pod is gone; watches that nobody else needs end.
    pub fn release(&self, pod_uid: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.entries.retain(|_, entry| {
            let used = !entry.users.remove(pod_uid) || !entry.users.is_empty();
            if !used {
                entry.task.abort();
            }
            used
        });
        while inner.tasks.try_join_next().is_some() {}
    }

    fn subscribe(&self, kind: Kind, namespace: &str, name: &str, pod_uid: &str) -> watch::Receiver<Answer> {
        let key = (kind, namespace.to_owned(), name.to_owned());
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = inner.entries.get_mut(&key) {
            entry.users.insert(pod_uid.to_owned());
            return entry.answer.clone();
        }
        let (sender, answer) = watch::channel(None);
        let task = inner.tasks.spawn(self.clone().follow(key.clone(), sender));
        let users = HashSet::from([pod_uid.to_owned()]);
        inner.entries.insert(key, Entry { answer: answer.clone(), users, task });
        answer
    }

    async fn follow(self, key: Key, sender: watch::Sender<Answer>) {
        match key.0 {
            Kind::ConfigMap => self.pump(&key, "configmaps", config_map_data, sender).await,
            Kind::Secret => self.pump(&key, "secrets", secret_data, sender).await,
        }
    }

    async fn pump<K: DeserializeOwned + Send>(
        &self,
        key: &Key,
        storage: &str,
        data: fn(K) -> Data,
        sender: watch::Sender<Answer>,
    ) {
        let one = Source::of(storage).in_namespace(&key.1).fields(format!("metadata.name={}", key.2));
        let mut stream = pin!(reflector::typed(self.client.clone(), one));
        while let Some(event) = stream.next().await {
            let next = match event {
                Event::Replace(mut listed, _) => listed.pop(),
                Event::Set(object) => Some(object),
                Event::Gone(_) => None,
                Event::Bookmark(_) => continue,
            };
            let next = next.map(|object| Arc::new(data(object)));
            let is_final = next.as_ref().is_some_and(|data| data.immutable);
            let changed = sender.send_if_modified(|answer| {
                let next = Some(next);
                let differs = *answer != next;
                *answer = next;
                differs
            });
            if changed {
                self.wake_users(key);
            }
            // The answer stays; the connection ends here.
            if is_final {
                return;
            }
        }
    }

    fn wake_users(&self, key: &Key) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for uid in inner.entries.get(key).iter().flat_map(|entry| &entry.users) {
            self.pods.wake_for_objects(uid);
        }
    }
}

fn config_map_data(object: ConfigMap) -> Data {
    let text = object.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
    let immutable = object.immutable == Some(true);
    let binary = object.binary_data.unwrap_or_default().into_iter().map(|(key, ByteString(bytes))| (key, bytes));
    let uid = object.metadata.uid.unwrap_or_default();
    Data { values: text.chain(binary).collect(), secret_type: String::new(), uid, immutable }
}

fn secret_data(object: Secret) -> Data {
    let values = object.data.unwrap_or_default().into_iter().map(|(key, ByteString(bytes))| (key, bytes));
    let immutable = object.immutable == Some(true);
    let uid = object.metadata.uid.unwrap_or_default();
    Data { values: values.collect(), secret_type: object.type_.unwrap_or_default(), uid, immutable }
}
