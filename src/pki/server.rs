//! Effects and loop: the server's own certificates: made at first start, loaded at later ones, renewed while it runs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::authority::{Authority, Leaf, RENEW_BEFORE};
use super::live::{Live, Paths};
use super::peer::FRONT_PROXY;
use super::service_account::Keys;
use super::{Error, files, kubeconfig, tls, token};
use crate::api::signing::Order;
use crate::api::user::SYSTEM_MASTERS;
use crate::config;

/// Longest sleep between looks at the clock: a board without a battery-backed clock may learn the date late, and a
/// timer that was set before would then be years off.
const LONGEST_SLEEP: Duration = Duration::from_secs(12 * 60 * 60);
/// After a failed renewal (a full disk).
const RETRY: Duration = Duration::from_secs(10 * 60);

/// A leaf of ours: what it says, where it is and the current one.
struct Own {
    leaf: Mutex<Leaf>,
    paths: Paths,
    live: Arc<Live>,
}

impl Own {
    fn open(directory: &Path, name: &str, leaf: Leaf, authority: &Authority, now: Timestamp) -> Result<Self, Error> {
        let paths = Paths::new(directory, name);
        let live = Live::new(paths.open(authority, &leaf, now)?);
        Ok(Self { leaf: Mutex::new(leaf), paths, live })
    }

    fn renew(&self, authority: &Authority, now: Timestamp) -> Result<bool, Error> {
        let leaf = self.leaf().clone();
        let due = self.live.current().renewal_due(now);
        if due {
            self.live.swap(self.paths.open(authority, &leaf, now)?);
        }
        Ok(due)
    }

    /// Says something else from now on.
    fn change(&self, leaf: Leaf, authority: &Authority, now: Timestamp) -> Result<bool, Error> {
        let mut known = self.leaf();
        let other = *known != leaf;
        if other {
            self.live.swap(self.paths.open(authority, &leaf, now)?);
            *known = leaf;
        }
        Ok(other)
    }

    fn leaf(&self) -> MutexGuard<'_, Leaf> {
        self.leaf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything under `<data_dir>/server/tls`, and the join secret beside it.
pub struct ServerPki {
    pub server_ca: Authority,
    pub client_ca: Authority,
    /// Signs what kubelets show; see [`crate::pki`].
    pub kubelet_ca: Authority,
    /// Signs what may say who a request is from; see [`crate::pki`].
    pub request_header_ca: Authority,
    pub service_account_keys: Arc<Keys>,
    /// What agents prove to know when they join.
    pub join_secret: String,
    serving: Own,
    names: Names,
    admin: Own,
    apiserver: Own,
    proxy: Own,
    kubeconfig: PathBuf,
    kubeconfig_mode: u32,
    /// `https://127.0.0.1:6443`
    address: String,
}

impl ServerPki {
    /// # Errors
    /// When a file is damaged or can't be written; the error names it.
    pub fn open(config: &config::Server, now: Timestamp) -> Result<Self, Error> {
        let base = config.data_dir.join("server");
        let directory = base.join("tls");
        files::private_dir(&base)?;
        files::private_dir(&directory)?;
        let server_ca = Authority::open(&directory, "server-ca", now)?;
        let client_ca = Authority::open(&directory, "client-ca", now)?;
        let kubelet_ca = Authority::open(&directory, "kubelet-ca", now)?;
        let request_header_ca = Authority::open(&directory, "request-header-ca", now)?;
        let names = Names::new(config, &hostname());
        let serving = names.with(config.advertise_address);
        let admin = Leaf::client("system:admin", SYSTEM_MASTERS);
        let apiserver = Leaf::client("system:apiserver", SYSTEM_MASTERS);
        let proxy = Leaf::client(FRONT_PROXY, "");
        Ok(Self {
            service_account_keys: Arc::new(Keys::open(&directory)?),
            join_secret: token::open(&base, config.token.as_deref(), server_ca.pem())?,
            serving: Own::open(&directory, "serving-kube-apiserver", serving, &server_ca, now)?,
            admin: Own::open(&directory, "client-admin", admin, &client_ca, now)?,
            apiserver: Own::open(&directory, "client-kube-apiserver", apiserver, &client_ca, now)?,
            proxy: Own::open(&directory, "client-auth-proxy", proxy, &request_header_ca, now)?,
            names,
            server_ca,
            client_ca,
            kubelet_ca,
            request_header_ca,
            kubeconfig: config.kubeconfig.clone(),
            kubeconfig_mode: config.kubeconfig_mode,
            address: format!("https://{}", std::net::SocketAddr::new(loopback(config), config.listen.port())),
        })
    }

    /// For the API listener.
    ///
    /// # Errors
    /// When rustls can't be set up.
    pub fn serving_tls(&self) -> Result<ServerConfig, Error> {
        let clients = [self.client_ca.der().clone(), self.request_header_ca.der().clone()];
        tls::server(self.serving.live.clone(), &clients)
    }

    /// What is shown to extension servers, who believe what it says of others.
    #[must_use]
    pub fn front_proxy(&self) -> Arc<Live> {
        self.proxy.live.clone()
    }

    /// For connections to kubelets, as user `system:apiserver` in group `system:masters`. Verify the *node's name*: it is
    /// in every serving certificate, and node password pinning keeps others from having it signed.
    ///
    /// # Errors
    /// When rustls can't be set up.
    pub fn kubelet_tls(&self) -> Result<ClientConfig, Error> {
        tls::client(Some(self.apiserver.live.clone()), self.kubelet_ca.der(), &[b"http/1.1"])
    }

    /// Writes the administrator's kubeconfig where it differs from what it should say.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write_kubeconfig(&self) -> Result<(), Error> {
        let admin = self.admin.live.current();
        let text = kubeconfig::render(&self.address, self.server_ca.pem(), &admin.certificate_pem, &admin.key_pem);
        if files::read(&self.kubeconfig).ok().flatten().as_deref() == Some(text.as_str()) {
            return Ok(());
        }
        if let Some(directory) = self.kubeconfig.parent() {
            std::fs::create_dir_all(directory).map_err(|source| Error::File {
                step: "create the directory",
                path: directory.into(),
                source,
            })?;
        }
        files::replace(&self.kubeconfig, text.as_bytes(), self.kubeconfig_mode)
    }

    /// Signs in the name of one of the cluster's own signers.
    ///
    /// # Errors
    /// What keeps it from that.
    pub fn issue(&self, order: &Order<'_>) -> Result<String, Error> {
        let authority = match order.signer {
            "kubernetes.io/kube-apiserver-client" | "kubernetes.io/kube-apiserver-client-kubelet" => &self.client_ca,
            "kubernetes.io/kubelet-serving" => &self.kubelet_ca,
            other => return Err(Error::Request(format!("nobody here signs for {other:?}"))),
        };
        authority.issue(order.request, order.usages, order.life, order.now)
    }

    /// Renews what is due. New handshakes use the new certificates at once.
    ///
    /// # Errors
    /// When signing fails or a file can't be written.
    pub fn renew(&self, now: Timestamp) -> Result<bool, Error> {
        let serving = self.serving.renew(&self.server_ca, now)?;
        let apiserver = self.apiserver.renew(&self.client_ca, now)?;
        let proxy = self.proxy.renew(&self.request_header_ca, now)?;
        let admin = self.admin.renew(&self.client_ca, now)?;
        if admin {
            self.write_kubeconfig()?;
        }
        Ok(serving || apiserver || proxy || admin)
    }

    /// The certificate of the API is for another address of the machine from now on.
    ///
    /// # Errors
    /// When signing fails or a file can't be written.
    pub fn serve_at(&self, address: IpAddr, now: Timestamp) -> Result<bool, Error> {
        self.serving.change(self.names.with(address), &self.server_ca, now)
    }

    /// Renews certificates until stopped, and with each other address.
    pub async fn run(self: Arc<Self>, mut address: watch::Receiver<IpAddr>, stop: CancellationToken) {
        loop {
            let now = crate::clock::now();
            let current = *address.borrow_and_update();
            let sleep = match self.serve_at(current, now).and_then(|moved| Ok(self.renew(now)? || moved)) {
                Ok(renewed) => {
                    if renewed {
                        tracing::info!("renewed the server's certificates");
                    }
                    self.next(now)
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "cannot renew the server's certificates");
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = address.changed() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    fn next(&self, now: Timestamp) -> Duration {
        let ends =
            [&self.serving, &self.admin, &self.apiserver, &self.proxy].map(|own| own.live.current().facts.not_after);
        let first = ends.into_iter().min().unwrap_or(now) - RENEW_BEFORE;
        Duration::try_from(first.duration_since(now)).unwrap_or(RETRY).clamp(RETRY, LONGEST_SLEEP)
    }
}

/// Where clients on this machine reach the API.
fn loopback(config: &config::Server) -> IpAddr {
    if config.listen.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { config.listen.ip() }
}

/// Every name and address that a client may reach the API server by, but for the one that may change.
struct Names {
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Names {
    fn new(config: &config::Server, hostname: &str) -> Self {
        let domain = &config.cluster.cluster_domain;
        let mut names: Vec<String> = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
            .map(str::to_owned)
            .into_iter()
            .chain([format!("kubernetes.default.svc.{domain}"), hostname.to_owned()])
            .collect();
        let mut addresses: Vec<IpAddr> = vec![
            Ipv4Addr::LOCALHOST.into(),
            Ipv6Addr::LOCALHOST.into(),
            first_service_address(&config.cluster).into(),
            config.listen.ip(),
        ];
        // Where the machine's address is followed, it is the node's too.
        addresses.extend(config.agent.as_ref().filter(|_| !config.follow_address).map(|a| a.node_ip));
        names.extend(config.agent.as_ref().map(|a| a.node_name.clone()));
        for san in &config.tls_san {
            match san.parse() {
                Ok(address) => addresses.push(address),
                Err(_) => names.push(san.clone()),
            }
        }
        names.retain(|n| !n.is_empty());
        names.sort();
        names.dedup();
        Self { names, addresses }
    }

    /// What the certificate says while others reach the server at this address.
    fn with(&self, address: IpAddr) -> Leaf {
        let mut addresses = [self.addresses.as_slice(), &[address]].concat();
        addresses.retain(|a| !a.is_unspecified());
        addresses.sort();
        addresses.dedup();
        Leaf::server("kube-apiserver", self.names.clone(), addresses)
    }
}

/// The `kubernetes` Service: 10.43.0.1.
fn first_service_address(cluster: &config::Cluster) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(cluster.service_cidr.address) + 1)
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_lowercase()
}
