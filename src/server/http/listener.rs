//! Loop: accepts connections on the API port, one task each, with limits on everything a stranger can use up.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use super::body::Body;
use super::gather::{Gather, Polls};
use super::service::{Peer, Service};

/// Connections at once; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 4096;
/// A connection that has not finished its TLS handshake by then is closed.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// A request whose headers have not arrived by then ends its connection; also the life of an idle HTTP/1.1 one.
const HEADER_TIME: Duration = Duration::from_secs(90);
/// Size of all headers of one request, in bytes.
const HEADERS_MAX: u32 = 64 * 1024;
/// Number of headers of one request.
const HEADERS_COUNT_MAX: usize = 100;
/// Requests at once on one HTTP/2 connection; Go's server allows 250, upstream sets 100 to 1000 by load.
const STREAMS_MAX: u32 = 250;
/// HTTP/2 windows, in bytes: a whole request body may be under way on each stream, a few on a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Data waiting to be sent on one HTTP/2 stream, in bytes. A slow reader holds this much of our memory.
const SEND_BUFFER_MAX: usize = 256 * 1024;
/// A silent HTTP/2 peer is asked whether it is alive, and dropped when it does not answer.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// How long requests in flight may take to end when the server stops.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// How long to leave the port alone after the kernel refused a new connection (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub struct Listener {
    pub socket: TcpListener,
    /// Its certificate resolver and client verifier are renewed in place.
    pub tls: Arc<ServerConfig>,
    pub service: Service,
}

impl Listener {
    /// Serves until `stop`, then lets requests in flight finish. The service's own token ends the watches.
    ///
    /// # Errors
    /// Never at present; the signature is that of every component.
    pub async fn run(self, stop: CancellationToken) -> std::io::Result<()> {
        let acceptor = TlsAcceptor::from(self.tls);
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { break };
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, address)) => {
                    let (acceptor, service, stop) = (acceptor.clone(), self.service.clone(), stop.clone());
                    connections.spawn(async move {
                        let _slot = slot;
                        if let Err(error) = connection(stream, address, acceptor, service, stop).await {
                            tracing::debug!(peer = %address, error, "connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.socket);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_TIME, drained).await.is_err() {
            tracing::warn!(connections = connections.len(), "connections cut at the deadline");
            connections.shutdown().await;
        }
        Ok(())
    }
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    service: Service,
    stop: CancellationToken,
) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let tls = match tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await {
        Ok(tls) => tls.map_err(|e| format!("TLS handshake: {e}"))?,
        Err(_) => return Err("TLS handshake: timed out".into()),
    };
    let presented = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let authenticator = &service.backend().authenticator;
    let certificate =
        presented.map(|der| authenticator.peer(der)).transpose().map_err(|e| e.to_string())?.map(Arc::new);
    let peer = Peer { address, certificate };
    let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let service = service.clone();
        async move {
            let request = request.map(|body| -> Body { body.map_err(Into::into).boxed_unsync() });
            Ok::<_, std::convert::Infallible>(service.respond(request).await)
        }
    });
    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let (builder, polls) = (builder(http2), Polls::default());
    let gather = Gather::new(tls, http2.then(|| polls.clone()));
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(gather), service));
    let (mut stopped, mut stopping) = (pin!(stop.cancelled()), false);
    let ended = poll_fn(|cx| {
        if !stopping && stopped.as_mut().poll(cx).is_ready() {
            stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        polls.begin();
        connection.as_mut().poll(cx)
    });
    ended.await.map_err(|e| e.to_string())
}

/// The version comes from ALPN: guessing it from the first bytes would wait for them without a time limit.
fn builder(http2: bool) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if http2 { builder.http2_only() } else { builder.http1_only() };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADERS_MAX as usize)
        .max_headers(HEADERS_COUNT_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER_MAX)
        .max_header_list_size(HEADERS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
