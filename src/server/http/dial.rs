//! Effects: connections to what answers in the server's place: the kubelet endpoints of nodes, and what a proxy leads to.
//! One connection for each request, because such requests are few and long.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::Body;
use crate::pki::tls;
use crate::splice;

/// How long the other side may take to accept a connection.
const DIAL_TIME: Duration = Duration::from_secs(10);

/// Upgraded connections are moved in pieces of this size, in bytes.
const PIECE: usize = 32 * 1024;

/// Opens a connection to `host:port`. Tests lead addresses elsewhere.
pub type Dial = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<TcpStream>> + Send + Sync>;

/// The way to every node's kubelet endpoint, and to pods.
pub struct Nodes {
    /// Shows the server's client certificate.
    kubelets: TlsConnector,
    /// Believes everyone: nobody could vouch for the certificate of a pod.
    pods: Option<TlsConnector>,
    dial: Dial,
    tasks: TaskTracker,
}

/// How a connection is secured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    Plain,
    /// With a certificate that must be for this node.
    Node(String),
    /// With any certificate.
    Unverified,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host:port`
    pub address: String,
    pub security: Security,
}

/// Why there is no answer, in Go's words: clients look for them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("dial tcp {address}: {why}")]
    Dial { address: String, why: String },
    #[error("{0}")]
    Broken(String),
}

impl Nodes {
    /// `config` holds the server's client certificate.
    #[must_use]
    pub fn new(mut config: ClientConfig) -> Self {
        // Streams are upgraded connections, which HTTP/2 does not have.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let pods = tls::unverified().ok().map(|mut config| {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            TlsConnector::from(Arc::new(config))
        });
        let dial: Dial = Arc::new(|address| Box::pin(TcpStream::connect(address)));
        Self { kubelets: TlsConnector::from(Arc::new(config)), pods, dial, tasks: TaskTracker::new() }
    }

    /// The same by another way to open connections.
    #[must_use]
    pub fn through(self, dial: Dial) -> Self {
        Self { dial, ..self }
    }

    /// Returns when every connection to a node has ended. Call it after the stop of the backend.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// # Errors
    /// When the other side does not answer, in time.
    pub async fn send(&self, to: &Endpoint, request: Request<Body>) -> Result<Response<Incoming>, Error> {
        let failed = |why: String| Error::Dial { address: to.address.clone(), why };
        let opened = match tokio::time::timeout(DIAL_TIME, self.open(to)).await {
            Ok(opened) => opened.map_err(|e| failed(words(&e)))?,
            Err(_) => return Err(failed("i/o timeout".into())),
        };
        let broken =
            |e: hyper::Error| Error::Broken(if e.is_incomplete_message() { "EOF".into() } else { e.to_string() });
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(opened)).await.map_err(broken)?;
        self.tasks.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a node or a pod broke off");
            }
        });
        sender.send_request(request).await.map_err(broken)
    }

    async fn open(&self, to: &Endpoint) -> io::Result<Box<dyn Stream>> {
        let tcp = (self.dial)(to.address.clone()).await?;
        tcp.set_nodelay(true)?;
        let name = |host: &str| ServerName::try_from(host.to_owned()).map_err(io::Error::other);
        Ok(match &to.security {
            Security::Plain => Box::new(tcp),
            Security::Node(node) => Box::new(self.kubelets.connect(name(node)?, tcp).await?),
            Security::Unverified => {
                let host = to.address.rsplit_once(':').map_or(to.address.as_str(), |(host, _)| host);
                let connector = self.pods.as_ref().ok_or_else(|| io::Error::other("no TLS"))?;
                Box::new(connector.connect(name(host.trim_matches(['[', ']']))?, tcp).await?)
            }
        })
    }

    /// Passes bytes both ways between two connections that have been upgraded, until both have ended or the server stops.
    pub fn splice(&self, ours: OnUpgrade, theirs: OnUpgrade, stop: CancellationToken) {
        self.tasks.spawn(async move {
            let joined = async {
                let (theirs, ours) = tokio::try_join!(theirs, ours).map_err(io::Error::other)?;
                splice::both(TokioIo::new(theirs), TokioIo::new(ours), PIECE).await
            };
            if let Some(Err(error)) = stop.run_until_cancelled(joined).await {
                tracing::debug!(%error, "an upgraded connection broke off");
            }
        });
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What Go says of an error of the operating system.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        io::ErrorKind::TimedOut => "connect: connection timed out".into(),
        _ => error.to_string(),
    }
}
