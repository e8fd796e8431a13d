//! Loop: joins the cluster, then runs the node: containerd, network, pods and the kubelet endpoint.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::context::Paths;
use super::cpu::{self, Exclusive};
use super::join::{self, join};
use super::kubelet::{Kubelet, Parts};
use super::left_over::LeftOver;
use super::topology::machine::Topology;
use super::topology::{self, Aligner};
use super::volumes::memory::InMemory;
use super::volumes::propagation;
use crate::config::Agent;
use crate::cri::client::Client;
use crate::cri::containerd::{Containerd, Layout};
use crate::cri::image_import::Importer;
use crate::cri::images_dir::ImagesDir;
use crate::supervisor::{Failure, Supervisor, stop_signal};
use crate::{net, systemd};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot join the cluster")]
    Join(#[from] join::Error),
    #[error("cannot listen on {endpoint}: is another node running on this machine? (--kubelet-port)")]
    Listen {
        endpoint: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Cpus(#[from] cpu::Error),
    #[error(transparent)]
    Topology(#[from] topology::Error),
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// `skiff agent`: runs a node until SIGTERM.
///
/// # Errors
/// What kept it from joining, or the component that failed.
pub async fn command(config: Agent) -> Result<(), Error> {
    let stop = CancellationToken::new();
    let running = run(config, stop.clone());
    tokio::pin!(running);
    tokio::select! {
        result = &mut running => return result,
        () = stop_signal() => stop.cancel(),
    }
    running.await
}

/// Runs a node until `stop`; its containers go on after that.
///
/// # Errors
/// What kept it from joining, or the component that failed.
pub async fn run(config: Agent, stop: CancellationToken) -> Result<(), Error> {
    let (exclusive, aligner) = placement(&config)?;
    let mut supervisor = Supervisor::default();
    supervisor.stage();
    // containerd starts while we join.
    let layout = Layout::new(&config.data_dir);
    let (client, socket, problem) = match &config.runtime_endpoint {
        Some(socket) => (Client::new(socket), socket.clone(), None),
        None => {
            let (containerd, supervised) = Containerd::new(layout.clone(), config.search_path.clone());
            let containerd = containerd.with_registries(&config.images.registries);
            supervisor.add("containerd", |stop| async move {
                containerd.run(stop).await;
                Ok::<_, Infallible>(())
            });
            let (search_path, problem) = (config.search_path.clone(), supervised.problem.clone());
            let left_over = LeftOver { layout: layout.clone(), search_path, problem };
            supervisor.add("what containerd left", |stop| async move {
                left_over.run(stop).await;
                Ok::<_, Infallible>(())
            });
            (Client::supervised(&supervised), supervised.socket, Some(supervised.problem))
        }
    };
    let joined = tokio::select! {
        joined = join(&config) => Arc::new(joined?),
        () = stop.cancelled() => return Ok(supervisor.run(std::future::ready(())).await?),
    };
    let api = joined.client()?;
    let runtime = Arc::new(client);

    supervisor.stage();
    let (tell, address) = watch::channel(config.node_ip);
    if config.follow_address {
        supervisor.add("address", |stop| async move {
            net::address::run(tell, crate::config::check::address, stop).await;
            Ok::<_, Infallible>(())
        });
    }
    let (renewal, changes) = (joined.clone(), address.clone());
    supervisor.add("certificates", |stop| async move {
        renewal.run(changes, stop).await;
        Ok::<_, Infallible>(())
    });
    let (rounds, imports) = watch::channel(0);
    let images = ImagesDir {
        dir: layout.images(),
        state: config.data_dir.join("agent/images.json"),
        importer: Importer::new(&socket),
        images: runtime.clone(),
        problem,
        rounds,
    };
    supervisor.add("images", |stop| images.run(stop));
    let (publish, services) = watch::channel(Arc::default());
    let (net_config, cluster, net_api) = (config.clone(), joined.cluster.clone(), api.clone());
    let follow = address.clone();
    supervisor
        .add("network", |stop| async move { net::run(&net_config, &cluster, net_api, publish, follow, stop).await });

    supervisor.stage();
    let endpoint = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), config.kubelet_port);
    let socket = TcpListener::bind(endpoint).await.map_err(|source| Error::Listen { endpoint, source })?;
    let kubelet = Kubelet::new(Parts {
        config: config.clone(),
        cluster: joined.cluster.clone(),
        client: api,
        runtime: runtime.clone(),
        images: runtime.clone(),
        services,
        imports,
        exclusive,
        aligner,
        address,
        in_memory: InMemory::probe(&config.data_dir.join("agent")),
    });
    propagation::prepare(&kubelet.context().paths);
    let tls = Arc::new(joined.kubelet_tls()?);
    let api = Api { socket, tls, cx: kubelet.context() };
    supervisor.add("kubelet endpoint", |stop| api.run(stop));
    supervisor.patience(config.kubelet.longest_shutdown());
    supervisor.add("kubelet", |stop| async move {
        kubelet.run(stop).await;
        Ok::<_, Infallible>(())
    });
    systemd::ready(config.notify_socket.as_deref());
    let longest = supervisor.longest();
    let asked = async {
        stop.cancelled().await;
        systemd::stopping(config.notify_socket.as_deref(), longest);
    };
    Ok(supervisor.run(asked).await?)
}

/// Before anything is started: a node that cannot keep what its settings promise is not to run.
fn placement(config: &Agent) -> Result<(Exclusive, Aligner), Error> {
    let topology = || Topology::read(Path::new(topology::SYSTEM));
    let paths = Paths::new(&config.data_dir, config.kubelet_dir.as_deref());
    let exclusive = Exclusive::new(&config.kubelet, topology, &paths.kubelet)?;
    Ok((exclusive, Aligner::new(&config.kubelet.placement, topology)?))
}
