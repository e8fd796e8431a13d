//! Loop: puts the server together and runs it. What a component needs is started before it and stopped after it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::aggregation::{self, Aggregator};
use super::authn::Authenticator;
use super::authn::issue::TokenIssuer;
use super::authn::join::JoinServer;
use super::authn::request_header;
use super::authn::verify::Verifier;
use super::authz::{Authorizer, bootstrap};
use super::cache::Cache;
use super::controllers::extension_authentication::Trusted;
use super::controllers::{self, ControllersConfig};
use super::crd::definitions;
use super::flow::Fairness;
use super::http::health::Check;
use super::http::metrics::Metrics;
use super::http::nodes::Nodes;
use super::http::{self, Address, Backend, Listener, Service};
use super::objects::SharedObjects;
use super::registry::Registry;
use super::store::Store;
use super::store::sqlite::Sqlite;
use super::{admission, registry, scheduler, webhook};
use crate::api::signing::Sign;
use crate::api::user::{SYSTEM_MASTERS, User};
use crate::config::{Agent, Server};
use crate::pki::peer::FRONT_PROXY;
use crate::pki::token::JoinToken;
use crate::pki::{self, server::ServerPki};
use crate::supervisor::{Failure, Supervisor, chain, stop_signal};
use crate::{clock, systemd};

/// Between two tries to write the default roles: a full disk may get room again.
const BOOTSTRAP_RETRY: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make {path}")]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot open the store")]
    Store(#[from] super::store::OpenError),
    #[error("cannot prepare the certificates")]
    Pki(#[from] pki::Error),
    #[error("cannot listen on {address}: is another server running? (--https-listen-port)")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Runs a whole cluster until SIGTERM. `address` tells the machine's address when it is another one; `agent` runs the node
/// beside the server, if the configuration has one: the server knows agents by their requests only.
///
/// # Errors
/// What kept it from starting, or the component that failed.
pub async fn run<E, F, A>(
    config: Server,
    address: impl FnOnce(watch::Sender<IpAddr>, CancellationToken) -> A,
    agent: impl FnOnce(Agent, CancellationToken) -> F + Send + 'static,
) -> Result<(), Error>
where
    E: std::error::Error,
    F: Future<Output = Result<(), E>> + Send + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let db = config.data_dir.join("server/db");
    std::fs::create_dir_all(&db).map_err(|source| Error::Folder { path: db.clone(), source })?;
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&db.join("state.db"))?);
    let cache = Cache::new();
    store.start(cache.clone())?;

    let pki = Arc::new(ServerPki::open(&config, clock::now())?);
    let objects: SharedObjects = cache.clone();
    let authorizer = Arc::new(Authorizer::new(objects.clone()));
    let verifier = Arc::new(Verifier::new(objects.clone(), pki.service_account_keys.clone()));
    let webhooks = webhook::Client::new(objects.clone());
    let chain_of_plugins = Arc::new(admission::default_chain(&objects, &authorizer, &webhooks));
    let strategies = registry::kinds::strategies(&config.cluster, &cache);
    let registry = Registry::new(store.clone(), cache.clone(), strategies, chain_of_plugins);
    definitions::load(&registry, &webhooks);
    let (expiry, defined) = (registry.clone(), registry.clone());

    let aggregator = Aggregator::new(objects.clone(), Some(pki.front_proxy()));

    let (bootstrapped, mut roles_written) = watch::channel(false);
    let roles = roles_written.clone();
    let roles_ready = move || match *roles.borrow() {
        true => Ok(()),
        false => Err("the default roles are not written yet".to_owned()),
    };
    let (tell, advertised) = watch::channel(config.advertise_address);
    let stop_watches = CancellationToken::new();
    let metrics = Metrics::default();
    let authenticator =
        Authenticator::new(verifier.clone(), pki.join_secret.clone()).believing(pki.request_header_ca.der());
    let service = Service::new(Backend {
        registry,
        authenticator: Arc::new(authenticator),
        authorizer,
        tokens: TokenIssuer(verifier),
        address: Address { ip: advertised.clone(), port: config.listen.port() },
        nodes: Nodes::new(pki.kubelet_tls()?),
        aggregator: aggregator.clone(),
        checks: vec![Check::new("poststarthook/rbac/bootstrap-roles", false, roles_ready)],
        fairness: Fairness::new(&objects, config.seats, metrics.flow()),
        metrics,
        join: OnceLock::new(),
        stop: stop_watches.clone(),
    });

    let socket =
        TcpListener::bind(config.listen).await.map_err(|source| Error::Listen { address: config.listen, source })?;
    let listener = Listener { socket, tls: Arc::new(pki.serving_tls()?), service: service.clone() };

    let mut supervisor = Supervisor::default();
    supervisor.stage();
    supervisor.add("store", move |stop| async move {
        stop.cancelled().await;
        store.close().await
    });
    supervisor.stage();
    supervisor.add("listener", |stop| listener.run(stop));
    if config.follow_address {
        supervisor.add("address", |stop| {
            let followed = address(tell, stop);
            async move {
                followed.await;
                Ok::<_, std::convert::Infallible>(())
            }
        });
    }
    let (renewal, changes) = (pki.clone(), advertised.clone());
    supervisor.add("certificates", |stop| async move {
        renewal.run(changes, stop).await;
        Ok::<_, std::convert::Infallible>(())
    });
    supervisor.add("expiry of events", |stop| async move {
        expiry.expire_events(stop).await;
        Ok::<_, std::convert::Infallible>(())
    });
    supervisor.add("definitions", |stop| async move {
        definitions::follow(defined, webhooks, stop).await;
        Ok::<_, std::convert::Infallible>(())
    });
    supervisor.stage();
    supervisor.add("watches", |stop| async move {
        stop.cancelled().await;
        stop_watches.cancel();
        Ok::<_, std::convert::Infallible>(())
    });
    let client = |name: &str| http::client(&service, User::new(name, &[SYSTEM_MASTERS]));
    let joining = JoinServer::new(pki.clone(), &config.cluster, client("system:apiserver"));
    // Empty until now: the cell was made above.
    let _ = service.backend().join.set(joining);
    let (roles, notify) = (client("system:apiserver"), config.notify_socket.clone());
    let kubeconfig = pki.clone();
    supervisor.add("default roles", move |stop| async move {
        write_roles(roles, &stop).await;
        kubeconfig.write_kubeconfig()?;
        bootstrapped.send_replace(true);
        systemd::ready(notify.as_deref());
        stop.cancelled().await;
        Ok::<_, pki::Error>(())
    });
    let controllers_config = ControllersConfig {
        cluster: config.cluster.clone(),
        advertised,
        port: config.listen.port(),
        root_ca_pem: pki.server_ca.pem().to_owned(),
        trusted: trusted(&pki),
        control_plane_node: config.agent.as_ref().map(|a| a.node_name.clone()),
        local_storage: config.local_storage,
        measure: service.backend().registry.measure(),
        type_check: service.backend().registry.type_check(),
        sign: sign(&pki),
    };
    let (for_controllers, for_scheduler) = (client("system:kube-controller-manager"), client("system:kube-scheduler"));
    supervisor.add("controllers", |stop| controllers::run(for_controllers, controllers_config, stop));
    let for_aggregation = client("system:apiserver");
    supervisor.add("extension servers", |stop| async move {
        aggregation::follow::follow(aggregator, cache, for_aggregation, stop).await;
        Ok::<_, std::convert::Infallible>(())
    });
    let profiles = config.scheduler;
    supervisor.add("scheduler", |stop| scheduler::run(for_scheduler, profiles, stop));
    tracing::info!(address = %config.listen, version = crate::api::version::git_version(), "API server listening");
    if let Some(mut node) = config.agent {
        node.token = JoinToken::render("node", &pki.join_secret, pki.server_ca.pem());
        supervisor.stage();
        supervisor.patience(node.kubelet.longest_shutdown());
        supervisor.add("agent", |stop| async move {
            // Joining needs the default roles and the system's namespaces.
            tokio::select! {
                _ = roles_written.wait_for(|written| *written) => {}
                () = stop.cancelled() => return Ok(()),
            }
            agent(node, stop).await
        });
    }
    let (longest, notify) = (supervisor.longest(), config.notify_socket);
    let asked = async {
        stop_signal().await;
        systemd::stopping(notify.as_deref(), longest);
    };
    Ok(supervisor.run(asked).await?)
}

/// The keys stay here: controllers only ask.
fn sign(pki: &Arc<ServerPki>) -> Sign {
    let pki = Arc::clone(pki);
    Sign::new(move |order| pki.issue(order).map_err(|error| chain(&error)))
}

/// What extension servers are told of who is who.
fn trusted(pki: &ServerPki) -> Trusted {
    let one = |text: &str| vec![text.to_owned()];
    Trusted {
        client_ca: pki.client_ca.pem().to_owned(),
        request_header_ca: pki.request_header_ca.pem().to_owned(),
        allowed_names: one(FRONT_PROXY),
        username_headers: one(request_header::USER),
        uid_headers: one(request_header::UID),
        group_headers: one(request_header::GROUP),
        extra_headers_prefix: one(request_header::EXTRA),
    }
}

/// Tries until the default roles are there.
async fn write_roles(client: kube::Client, stop: &CancellationToken) {
    loop {
        let reconciled = tokio::select! {
            result = bootstrap::reconcile(client.clone()) => result,
            () = stop.cancelled() => return,
        };
        let Err(error) = reconciled else { return };
        tracing::error!(error = chain(&error), retry_in = ?BOOTSTRAP_RETRY, "default roles not written");
        tokio::select! {
            () = tokio::time::sleep(BOOTSTRAP_RETRY) => {}
            () = stop.cancelled() => return,
        }
    }
}
