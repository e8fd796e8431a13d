//! Loop: keeps the Services of the cluster, reduced to what container environments say about them.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::reconnect::Reconnect;

/// One Service that has a cluster address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    pub namespace: String,
    pub name: String,
    pub cluster_ip: String,
    pub ports: Vec<PortEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortEntry {
    pub name: String,
    pub port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

type Key = (String, String);
type Map = BTreeMap<Key, ServiceEntry>;

/// Reading side; cheap to clone. `None` until the first list arrived.
#[derive(Clone)]
pub struct Services {
    current: watch::Receiver<Option<Arc<Map>>>,
}

pub struct Loop {
    client: kube::Client,
    sender: watch::Sender<Option<Arc<Map>>>,
}

#[must_use]
pub fn new(client: kube::Client) -> (Services, Loop) {
    let (sender, current) = watch::channel(None);
    (Services { current }, Loop { client, sender })
}

impl Services {
    /// Services whose variables a pod in `namespace` gets: its own namespace's, and the API server's.
    /// `None` when they are not known yet.
    #[must_use]
    pub fn visible(&self, namespace: &str) -> Option<Vec<ServiceEntry>> {
        let map = self.current.borrow().clone()?;
        let master = ("default".to_owned(), "kubernetes".to_owned());
        let mut found: Vec<ServiceEntry> = map.values().filter(|s| s.namespace == namespace).cloned().collect();
        if namespace != "default"
            && let Some(service) = map.get(&master)
        {
            found.push(service.clone());
        }
        Some(found)
    }

    /// Waits until the first list arrived.
    pub async fn known(&mut self) {
        // An error means that the loop is gone: the agent stops.
        let _ = self.current.wait_for(Option::is_some).await;
    }
}

impl Loop {
    pub async fn run(self, stop: CancellationToken) {
        let api = kube::Api::<Service>::all(self.client.clone());
        let mut stream = pin!(watcher(api, watcher::Config::default()).backoff(Reconnect::default()));
        let mut map = Map::new();
        let mut fresh = None;
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = stream.next() => event,
            };
            match event {
                None => return,
                Some(Err(error)) => {
                    tracing::debug!(%error, "watch of services failed");
                    continue;
                }
                Some(Ok(watcher::Event::Init)) => {
                    fresh = Some(Map::new());
                    continue;
                }
                Some(Ok(watcher::Event::InitApply(service))) => {
                    put(fresh.get_or_insert_default(), service);
                    continue;
                }
                Some(Ok(watcher::Event::InitDone)) => map = fresh.take().unwrap_or_default(),
                Some(Ok(watcher::Event::Apply(service))) => put(&mut map, service),
                Some(Ok(watcher::Event::Delete(service))) => {
                    map.remove(&key(&service));
                }
            }
            self.sender.send_replace(Some(Arc::new(map.clone())));
        }
    }
}

fn key(service: &Service) -> Key {
    (service.metadata.namespace.clone().unwrap_or_default(), service.metadata.name.clone().unwrap_or_default())
}

fn put(map: &mut Map, service: Service) {
    let key = key(&service);
    let spec = service.spec.unwrap_or_default();
    match spec.cluster_ip.filter(|ip| !ip.is_empty() && ip != "None") {
        None => {
            map.remove(&key);
        }
        Some(cluster_ip) => {
            let ports = spec.ports.unwrap_or_default().into_iter().map(|port| PortEntry {
                name: port.name.unwrap_or_default(),
                port: port.port,
                protocol: port.protocol.unwrap_or_else(|| "TCP".into()),
            });
            let (namespace, name) = key.clone();
            map.insert(key, ServiceEntry { namespace, name, cluster_ip, ports: ports.collect() });
        }
    }
}
