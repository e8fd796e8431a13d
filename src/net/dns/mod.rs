//! Loop: the cluster's DNS, on every node, at the cluster DNS address.
//!
//! `zone` looks names up in Services and endpoints, `answer` makes messages of it, `server` speaks UDP and TCP,
//! `forward` asks the machine's own resolvers about everything else.

pub mod answer;
mod cache;
mod forward;
mod server;
pub mod zone;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::services::View;
use crate::config::Cidr;
use zone::Zone;

/// Wait before the address is tried again.
const RETRY: Duration = Duration::from_secs(5);
const PORT: u16 = 53;

#[derive(Clone, Debug)]
pub struct Settings {
    pub address: Ipv4Addr,
    /// `cluster.local`
    pub domain: String,
    pub cluster_cidr: Cidr,
    pub service_cidr: Cidr,
    /// Whose `nameserver` lines everything else goes to.
    pub resolv_conf: PathBuf,
}

pub async fn run(mut view: watch::Receiver<Arc<View>>, settings: Settings, stop: CancellationToken) {
    let address = SocketAddr::from((settings.address, PORT));
    let sockets = loop {
        match listen(&settings, address).await {
            Ok(sockets) => break sockets,
            Err(error) => {
                tracing::error!(%address, error, "cluster DNS cannot listen; is another DNS server on all addresses?");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    };
    tracing::info!(%address, "cluster DNS answers");
    let (publish, zone) = watch::channel(Arc::new(Zone::new(view.borrow_and_update().clone(), &settings)));
    let mut tasks = JoinSet::new();
    tasks.spawn(server::run(sockets, zone, settings.clone(), stop.clone()));
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            changed = view.changed() => if changed.is_err() { break },
        }
        let _ = publish.send(Arc::new(Zone::new(view.borrow_and_update().clone(), &settings)));
    }
    while tasks.join_next().await.is_some() {}
}

async fn listen(settings: &Settings, address: SocketAddr) -> Result<server::Sockets, String> {
    let own = settings.address;
    tokio::task::spawn_blocking(move || super::host::add_dns_address(own))
        .await
        .map_err(|e| e.to_string())?
        .map_err(|e| crate::supervisor::chain(&e))?;
    server::Sockets::bind(address).map_err(|e| e.to_string())
}
