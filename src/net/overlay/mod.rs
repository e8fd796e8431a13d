//! Loop: VXLAN to the other nodes. Watches Nodes; each change is planned against what the kernel has.
//!
//! The own Node object tells this node its pod network (`spec.podCIDR`); bridge, plugin configuration and tunnel device
//! follow from it.

mod apply;
pub mod plan;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::services::parse_cidr;
use crate::client::reflector::{self, Event, Source};
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

pub async fn run(
    client: kube::Client,
    mut settings: Settings,
    mut address: watch::Receiver<IpAddr>,
    stop: CancellationToken,
) {
    let mut events = std::pin::pin!(reflector::typed::<Node>(client, Source::of("nodes")));
    let mut nodes: Option<Nodes> = None;
    let mut retry = None;
    let mut pause = RETRY;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(retry), if retry.is_some() => None,
            Ok(()) = address.changed() => {
                if let IpAddr::V4(now) = *address.borrow_and_update() {
                    settings.node_ip = now;
                }
                None
            }
            event = events.next() => match event {
                Some(event) => Some(event),
                None => return,
            },
        };
        if let Some(event) = event
            && !take(&mut nodes, event)
        {
            continue;
        }
        let Some(nodes) = &nodes else { continue };
        match update(&settings, nodes).await {
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

/// Whether anything changed that matters here; heartbeats do not. `nodes` is none before the first list.
fn take(nodes: &mut Option<Nodes>, event: Event<Node>) -> bool {
    match (event, nodes) {
        (Event::Replace(all, _), nodes) => {
            let new = all.iter().map(|node| (node.name_any(), peer(node))).collect();
            let changed = nodes.as_ref() != Some(&new);
            *nodes = Some(new);
            changed
        }
        (Event::Set(node), Some(nodes)) => {
            let new = peer(&node);
            nodes.insert(node.name_any(), new).is_none_or(|old| old != new)
        }
        (Event::Gone(node), Some(nodes)) => nodes.remove(&node.name_any()).is_some(),
        _ => false,
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
        let mut nodes = None;
        let mut take = |event| take(&mut nodes, event);
        assert!(take(Event::Replace(Vec::new(), 1)), "an empty list is known to be empty");
        assert!(take(Event::Replace(vec![node("a", "192.0.2.1", None)], 2)));
        assert!(!take(Event::Replace(vec![node("a", "192.0.2.1", None)], 3)));
        assert!(!take(Event::Set(node("a", "192.0.2.1", None))), "a heartbeat");
        assert!(take(Event::Set(node("a", "192.0.2.1", Some("10.42.0.0/24")))));
        assert!(!take(Event::Set(node("a", "192.0.2.1", Some("10.42.0.0/24")))));
        assert!(take(Event::Set(node("a", "192.0.2.9", Some("10.42.0.0/24")))), "a new address");
        assert!(take(Event::Gone(node("a", "192.0.2.9", None))));
    }
}
