//! Loop: feeds the scheduler's state from three watches. Objects are reduced at once; none is kept whole.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::client::reflector::{self, Sink, Source};
use crate::clock;

/// Watches that must have listed before the first attempt.
pub const SOURCES: usize = 3;

struct Pods(Arc<Shared>);
struct Nodes(Arc<Shared>);
struct Services(Arc<Shared>);

pub fn feed(
    client: &kube::Client,
    shared: &Arc<Shared>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> watch::Receiver<usize> {
    let (count, synced) = watch::channel(0);
    let count = Arc::new(count);
    let sources: [(&str, Box<dyn Sink>); SOURCES] = [
        ("nodes", Box::new(Nodes(Arc::clone(shared)))),
        ("services", Box::new(Services(Arc::clone(shared)))),
        ("pods", Box::new(Pods(Arc::clone(shared)))),
    ];
    for (storage, sink) in sources {
        let (client, stop, count) = (client.clone(), stop.clone(), Arc::clone(&count));
        tasks.spawn(async move {
            let synced = move || count.send_modify(|n| *n += 1);
            reflector::run(client, Source::of(storage), &*sink, synced, stop).await;
        });
    }
    synced
}

fn decode<T: DeserializeOwned>(raw: &RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).inspect_err(|error| tracing::error!(%error, "object cannot be decoded")).ok()
}

impl Sink for Pods {
    fn replace(&self, items: &[Box<RawValue>], _at: u64) {
        let pods: Vec<Pod> = items.iter().filter_map(|raw| decode(raw)).collect();
        let now = clock::instant();
        let mut state = self.0.state();
        let listed: HashSet<&str> = pods.iter().filter_map(|p| p.metadata.uid.as_deref()).collect();
        let gone: Vec<String> = state.pod_uids().into_iter().filter(|uid| !listed.contains(uid.as_str())).collect();
        for uid in gone {
            state.forget_pod(&uid, now);
        }
        for pod in pods {
            state.observe_pod(pod, now);
        }
        drop(state);
        self.0.changed.notify_one();
    }

    fn upsert(&self, raw: &RawValue) {
        if let Some(pod) = decode::<Pod>(raw) {
            self.0.state().observe_pod(pod, clock::instant());
            self.0.changed.notify_one();
        }
    }

    fn remove(&self, raw: &RawValue) {
        if let Some(uid) = decode::<Pod>(raw).and_then(|p| p.metadata.uid) {
            self.0.state().forget_pod(&uid, clock::instant());
            self.0.changed.notify_one();
        }
    }

    fn bookmark(&self, _at: u64) {}
}

impl Sink for Nodes {
    fn replace(&self, items: &[Box<RawValue>], _at: u64) {
        let nodes: Vec<Node> = items.iter().filter_map(|raw| decode(raw)).collect();
        let listed: HashSet<&str> = nodes.iter().filter_map(|n| n.metadata.name.as_deref()).collect();
        let mut state = self.0.state();
        let known: Vec<String> = state.snapshot.node_names().cloned().collect();
        for name in known.iter().filter(|n| !listed.contains(n.as_str())) {
            state.forget_node(name);
        }
        for node in nodes {
            state.observe_node(node, clock::instant());
        }
        drop(state);
        self.0.changed.notify_one();
    }

    fn upsert(&self, raw: &RawValue) {
        if let Some(node) = decode::<Node>(raw) {
            self.0.state().observe_node(node, clock::instant());
            self.0.changed.notify_one();
        }
    }

    fn remove(&self, raw: &RawValue) {
        if let Some(name) = decode::<Node>(raw).and_then(|n| n.metadata.name) {
            self.0.state().forget_node(&name);
        }
    }

    fn bookmark(&self, _at: u64) {}
}

impl Sink for Services {
    fn replace(&self, items: &[Box<RawValue>], _at: u64) {
        let mut state = self.0.state();
        state.forget_services();
        for service in items.iter().filter_map(|raw| decode(raw)) {
            state.observe_service(service);
        }
    }

    fn upsert(&self, raw: &RawValue) {
        if let Some(service) = decode::<Service>(raw) {
            self.0.state().observe_service(service);
        }
    }

    fn remove(&self, raw: &RawValue) {
        if let Some(service) = decode::<Service>(raw) {
            let meta = service.metadata;
            self.0.state().forget_service(&meta.namespace.unwrap_or_default(), &meta.name.unwrap_or_default());
        }
    }

    fn bookmark(&self, _at: u64) {}
}
