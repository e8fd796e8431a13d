//! The network of a node: pods on it, Services, DNS, and the way to other nodes.
//!
//! `cni` attaches pods, `overlay` leads to the pods of other nodes, `proxy` turns Services into rules, `dns` answers for
//! their names. Proxy and DNS read one [`services::View`], which `watch` keeps. `netlink` and `nft` are the thin
//! verbs below them. Everything acts in the network namespace of the process, and everything can be done again:
//! stopping the agent leaves all in place, so that traffic goes on.

pub mod address;
pub mod cni;
pub mod dns;
mod host;
pub mod netlink;
pub mod nft;
pub mod overlay;
pub mod proxy;
pub mod services;
pub mod watch;

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Agent, Cluster};

pub use host::cleanup;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the network needs an IPv4 address of the node, and --node-ip is {0}")]
    NodeAddress(IpAddr),
    #[error("the plugin could not be installed")]
    Install(#[source] std::io::Error),
}

/// Runs the network of this node until stopped, and publishes what it knows of Services. What can fail for a while (no server, no nft, a port in use) is logged
/// and tried again.
pub async fn run(
    config: &Agent,
    cluster: &Cluster,
    client: kube::Client,
    publish: Sender<Arc<services::View>>,
    address: Receiver<IpAddr>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let IpAddr::V4(node_ip) = config.node_ip else { return Err(Error::NodeAddress(config.node_ip)) };
    let binary = std::env::current_exe().map_err(Error::Install)?;
    cni::install(&config.data_dir, &binary).map_err(Error::Install)?;

    let node = proxy::Node {
        name: config.node_name.clone(),
        addresses: vec![node_ip],
        cluster_cidr: cluster.cluster_cidr,
        cluster_dns: cluster.cluster_dns,
    };
    let overlay = overlay::Settings {
        data_dir: config.data_dir.clone(),
        node_name: config.node_name.clone(),
        node_ip,
        cluster_cidr: cluster.cluster_cidr,
        service_cidr: cluster.service_cidr,
    };
    let dns = dns::Settings {
        address: cluster.cluster_dns,
        domain: cluster.cluster_domain.clone(),
        cluster_cidr: cluster.cluster_cidr,
        service_cidr: cluster.service_cidr,
        resolv_conf: config.resolv_conf.clone(),
    };
    let view = publish.subscribe();
    let (node_changes, node) = channel(node);
    let mut tasks = JoinSet::new();
    tasks.spawn(overlay::run(client.clone(), overlay, address.clone(), stop.clone()));
    tasks.spawn(follow(address, node_changes, stop.clone()));
    tasks.spawn(watch::run(client, publish, stop.clone()));
    tasks.spawn(proxy::run(view.clone(), node, stop.clone()));
    tasks.spawn(dns::run(view, dns, stop.clone()));
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// Tells the rules of Services when the node has another address; holds their sender until `stop`.
async fn follow(mut address: Receiver<IpAddr>, node: Sender<proxy::Node>, stop: CancellationToken) {
    let changes = async {
        while address.changed().await.is_ok() {
            if let IpAddr::V4(now) = *address.borrow_and_update() {
                node.send_modify(|node| node.addresses = vec![now]);
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = changes => stop.cancelled().await,
    }
}
