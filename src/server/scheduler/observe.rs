//! Loop: feeds the scheduler's state from three watches. Objects are reduced at once; none is kept whole.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::state::State;
use crate::client::reflector::{self, Event, Source};
use crate::clock;

/// Watches that must have listed before the first attempt.
pub const SOURCES: usize = 3;

pub fn feed(
    client: &kube::Client,
    shared: &Arc<Shared>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> watch::Receiver<usize> {
    let (count, synced) = watch::channel(0);
    let count = Arc::new(count);
    let follower = || Follower {
        client: client.clone(),
        shared: Arc::clone(shared),
        count: Arc::clone(&count),
        stop: stop.clone(),
    };
    tasks.spawn(follower().follow("nodes", node));
    tasks.spawn(follower().follow("services", service));
    tasks.spawn(follower().follow("pods", pod));
    synced
}

struct Follower {
    client: kube::Client,
    shared: Arc<Shared>,
    /// How many have listed.
    count: Arc<watch::Sender<usize>>,
    stop: CancellationToken,
}

impl Follower {
    /// `take` puts an event into the state and says whether it can help a pod that waits.
    async fn follow<K: DeserializeOwned + Send>(self, storage: &'static str, take: fn(&mut State, Event<K>) -> bool) {
        let mut events = pin!(reflector::typed(self.client, Source::of(storage)));
        let mut listed = false;
        loop {
            let event = tokio::select! {
                () = self.stop.cancelled() => return,
                event = events.next() => event,
            };
            let Some(event) = event else { return };
            if take(&mut self.shared.state(), event) {
                self.shared.changed.notify_one();
            }
            if !std::mem::replace(&mut listed, true) {
                self.count.send_modify(|n| *n += 1);
            }
        }
    }
}

fn pod(state: &mut State, event: Event<Pod>) -> bool {
    let now = clock::instant();
    match event {
        Event::Replace(pods, _) => {
            let listed: HashSet<&str> = pods.iter().filter_map(|p| p.metadata.uid.as_deref()).collect();
            for uid in state.pod_uids().into_iter().filter(|uid| !listed.contains(uid.as_str())).collect::<Vec<_>>() {
                state.forget_pod(&uid, now);
            }
            for pod in pods {
                state.observe_pod(pod, now);
            }
        }
        Event::Set(pod) => state.observe_pod(pod, now),
        Event::Gone(pod) => state.forget_pod(pod.metadata.uid.as_deref().unwrap_or_default(), now),
        Event::Bookmark(_) => return false,
    }
    true
}

fn node(state: &mut State, event: Event<Node>) -> bool {
    let now = clock::instant();
    match event {
        Event::Replace(nodes, _) => {
            let listed: HashSet<&str> = nodes.iter().filter_map(|n| n.metadata.name.as_deref()).collect();
            let known: Vec<String> = state.snapshot.node_names().cloned().collect();
            for name in known.iter().filter(|n| !listed.contains(n.as_str())) {
                state.forget_node(name);
            }
            for node in nodes {
                state.observe_node(node, now);
            }
        }
        Event::Set(node) => state.observe_node(node, now),
        Event::Gone(node) => {
            state.forget_node(node.metadata.name.as_deref().unwrap_or_default());
            return false;
        }
        Event::Bookmark(_) => return false,
    }
    true
}

fn service(state: &mut State, event: Event<Service>) -> bool {
    match event {
        Event::Replace(services, _) => {
            state.forget_services();
            for service in services {
                state.observe_service(service);
            }
        }
        Event::Set(service) => state.observe_service(service),
        Event::Gone(service) => {
            let meta = service.metadata;
            state.forget_service(&meta.namespace.unwrap_or_default(), &meta.name.unwrap_or_default());
        }
        Event::Bookmark(_) => {}
    }
    false
}
