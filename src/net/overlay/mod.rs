//! Loop: VXLAN to the other nodes. Watches Nodes; each change is planned against what the kernel has.
//!
//! The own Node object tells this node its pod network (`spec.podCIDR`); bridge, plugin configuration and tunnel device
//! follow from it.

mod apply;
pub mod plan;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::services::parse_cidr;
use crate::config::Cidr;
pub use apply::converge;
use plan::Peer;

/// Wait after a failure; doubles up to the limit.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub node_name: String,
    pub node_ip: Ipv4Addr,
    pub cluster_cidr: Cidr,
    pub service_cidr: Cidr,
}

/// What the Nodes told, by name. A node without a network yet has none.
type Nodes = BTreeMap<String, Option<Peer>>;

pub async fn run(client: kube::Client, settings: Settings, stop: CancellationToken) {
    let config = watcher::Config::default().any_semantic();
    let mut events = std::pin::pin!(watcher(Api::<Node>::all(client), config).default_backoff());
    let mut nodes = Nodes::new();
    let mut listing: Option<Nodes> = None;
    let mut listed = false;
    let mut retry = None;
    let mut pause = RETRY;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(retry), if retry.is_some() => None,
            event = events.next() => match event {
                Some(Ok(event)) => Some(event),
                Some(Err(error)) => {
                    tracing::warn!(kind = "nodes", %error, "watch was interrupted");
                    continue;
                }
                None => return,
            },
        };
        if let Some(event) = event
            && !take(&mut nodes, &mut listing, &mut listed, event)
        {
            continue;
        }
        if !listed {
            continue;
        }
        match update(&settings, &nodes).await {
            Ok(()) => (retry, pause) = (None, RETRY),
            Err(error) => {
                let error = crate::supervisor::chain(&*error);
                tracing::error!(error, "the way to other nodes was not set up");
                retry = Some(pause);
                pause = (pause * 2).min(RETRY_LIMIT);
            }
        }
    }
}

async fn sleep(duration: Option<Duration>) {
    tokio::time::sleep(duration.unwrap_or_default()).await;
}

/// Whether anything changed that matters here; heartbeats do not.
fn take(nodes: &mut Nodes, listing: &mut Option<Nodes>, listed: &mut bool, event: watcher::Event<Node>) -> bool {
    match event {
        watcher::Event::Init => {
            *listing = Some(Nodes::new());
            false
        }
        watcher::Event::InitApply(node) => {
            listing.get_or_insert_default().insert(node.name_any(), peer(&node));
            false
        }
        watcher::Event::InitDone => {
            let new = listing.take().unwrap_or_default();
            let changed = !*listed || *nodes != new;
            *nodes = new;
            *listed = true;
            changed
        }
        watcher::Event::Apply(node) => {
            let new = peer(&node);
            nodes.insert(node.name_any(), new).is_none_or(|old| old != new)
        }
        watcher::Event::Delete(node) => nodes.remove(&node.name_any()).is_some(),
    }
}

fn peer(node: &Node) -> Option<Peer> {
    let spec = node.spec.as_ref()?;
    let all = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    let pod_cidr = all.filter_map(|text| parse_cidr(text)).next()?;
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    let address = addresses
        .into_iter()
        .flatten()
        .filter(|address| address.type_ == "InternalIP")
        .find_map(|address| address.address.parse().ok());
    Some(Peer { address, pod_cidr })
}

async fn update(settings: &Settings, nodes: &Nodes) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Some(own) = nodes.get(&settings.node_name).copied().flatten() else {
        tracing::debug!(node = settings.node_name, "the server has not given this node a pod network yet");
        return Ok(());
    };
    let peers: Vec<Peer> =
        nodes.iter().filter(|(name, _)| **name != settings.node_name).filter_map(|(_, peer)| *peer).collect();
    let settings = settings.clone();
    tokio::task::spawn_blocking(move || apply::converge(&settings, own.pod_cidr, &peers)).await??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, ip: &str, cidr: Option<&str>) -> Node {
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": name },
            "spec": { "podCIDR": cidr },
            "status": { "addresses": [
                { "type": "Hostname", "address": name }, { "type": "InternalIP", "address": ip } ] },
        }))
        .unwrap()
    }

    #[test]
    fn only_addresses_and_networks_matter() {
        let (mut nodes, mut listing, mut listed) = (Nodes::new(), None, false);
        let mut take = |event| take(&mut nodes, &mut listing, &mut listed, event);
        assert!(!take(watcher::Event::Init));
        assert!(!take(watcher::Event::InitApply(node("a", "192.0.2.1", None))));
        assert!(take(watcher::Event::InitDone));
        assert!(!take(watcher::Event::Apply(node("a", "192.0.2.1", None))), "a heartbeat");
        assert!(take(watcher::Event::Apply(node("a", "192.0.2.1", Some("10.42.0.0/24")))));
        assert!(!take(watcher::Event::Apply(node("a", "192.0.2.1", Some("10.42.0.0/24")))));
        assert!(take(watcher::Event::Apply(node("a", "192.0.2.9", Some("10.42.0.0/24")))), "a new address");
        assert!(take(watcher::Event::Delete(node("a", "192.0.2.9", None))));
    }
}
