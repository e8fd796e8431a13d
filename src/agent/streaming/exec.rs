//! Effects: a command in a container, or its main process, with a client at the other end of a WebSocket
//! (`v5.channel.k8s.io` and `v4.channel.k8s.io`: the first byte of a message names its channel). The runtime is reached
//! through its streaming server, which speaks SPDY; bytes are moved between the two until the runtime says how it ended.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::spdy::{self, Frame, Writer};
use crate::cri::StreamOptions;

/// The protocols that we speak, the better one first.
pub const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5: the next byte names a channel that the client has closed.
const CLOSE: u8 = 255;

/// How long the runtime's streaming server may take to accept the connection.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// A session in which nothing happens for this long ends (`streamingConnectionIdleTimeout`).
const IDLE_TIME: Duration = Duration::from_secs(4 * 3600);
/// Largest message from a client, in bytes; kubectl sends at most 32 KiB.
const MESSAGE_MAX: usize = 1024 * 1024;
const BUFFER: usize = 32 * 1024;
/// Pings of the runtime that wait to be answered.
const PINGS_MAX: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the runtime's streaming URL {0:?} is not one")]
    Url(String),
    #[error("cannot connect to the runtime's streaming server at {address}")]
    Connect { address: String, source: io::Error },
    #[error("the runtime's streaming server did not switch to SPDY")]
    Upgrade(#[source] hyper::Error),
    #[error("the runtime's streaming server answered {0}")]
    Refused(StatusCode),
    #[error("the stream from the runtime broke off")]
    Runtime(#[source] io::Error),
    #[error("the stream to the client broke off")]
    Client(#[from] tokio_tungstenite::tungstenite::Error),
    #[error("nothing happened for {} s", IDLE_TIME.as_secs())]
    Idle,
}

/// A SPDY connection to the runtime, its streams open.
pub struct Runtime {
    reader: tokio::io::ReadHalf<TokioIo<Upgraded>>,
    writer: Writer<tokio::io::WriteHalf<TokioIo<Upgraded>>>,
    streams: Streams,
}

/// Stream numbers; 0 is none, as no stream of a client has that.
#[derive(Clone, Copy, Debug, Default)]
struct Streams {
    error: u32,
    stdin: u32,
    stdout: u32,
    stderr: u32,
    resize: u32,
}

impl Streams {
    fn channel(&self, stream: u32) -> Option<u8> {
        [(self.stdout, STDOUT), (self.stderr, STDERR), (self.error, ERROR)]
            .into_iter()
            .find_map(|(s, channel)| (s == stream && s != 0).then_some(channel))
    }
}

/// Connects to the URL that the runtime made for one session. The returned future drives the connection: it must run
/// beside everything that uses the [`Runtime`].
///
/// # Errors
/// When the server cannot be reached or does not switch to SPDY.
pub async fn connect(url: &str, options: StreamOptions) -> Result<Runtime, Error> {
    let bad = || Error::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let address = uri.authority().ok_or_else(bad)?.as_str().to_owned();
    let failed = |source| Error::Connect { address: address.clone(), source };
    let tcp = match tokio::time::timeout(CONNECT_TIME, TcpStream::connect(&address)).await {
        Ok(tcp) => tcp.map_err(failed)?,
        Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
    };
    tcp.set_nodelay(true).map_err(failed)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.map_err(Error::Upgrade)?;
    let request = Request::post(uri.path_and_query().map_or("/", |p| p.as_str()))
        .header(http::header::HOST, &address)
        .header(http::header::CONNECTION, "Upgrade")
        .header(http::header::UPGRADE, "SPDY/3.1")
        .header("x-stream-protocol-version", "v4.channel.k8s.io")
        .body(Empty::<Bytes>::new())
        .map_err(|_| bad())?;
    // The connection's own future ends when it was upgraded.
    let upgraded = async {
        let response = sender.send_request(request).await.map_err(Error::Upgrade)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::Refused(response.status()));
        }
        hyper::upgrade::on(response).await.map_err(Error::Upgrade)
    };
    let (upgraded, _) = tokio::join!(upgraded, connection.with_upgrades());
    let (reader, writer) = split(TokioIo::new(upgraded?));
    let mut runtime = Runtime { reader, writer: Writer::new(writer), streams: Streams::default() };
    runtime.open(options).await.map_err(Error::Runtime)?;
    Ok(runtime)
}

impl Runtime {
    /// The streams in the order in which upstream's client opens them. The server waits for all of them.
    async fn open(&mut self, options: StreamOptions) -> io::Result<()> {
        let Self { writer, streams, .. } = self;
        streams.error = writer.open(&[("streamtype", "error")]).await?;
        if options.stdin {
            streams.stdin = writer.open(&[("streamtype", "stdin")]).await?;
        }
        if options.stdout {
            streams.stdout = writer.open(&[("streamtype", "stdout")]).await?;
        }
        if options.stderr && !options.tty {
            streams.stderr = writer.open(&[("streamtype", "stderr")]).await?;
        }
        if options.tty {
            streams.resize = writer.open(&[("streamtype", "resize")]).await?;
        }
        // Nothing of ours goes out on these.
        writer.data(streams.error, b"", true).await
    }
}

/// Picks a protocol from the client's `Sec-WebSocket-Protocol` headers.
#[must_use]
pub fn protocol(offered: &[&str]) -> Option<&'static str> {
    let mut offered = offered.iter().flat_map(|line| line.split(',')).map(str::trim);
    let all: Vec<&str> = offered.by_ref().collect();
    PROTOCOLS.into_iter().find(|p| all.contains(p))
}

/// The answer to a WebSocket handshake.
///
/// # Errors
/// What is wrong with the request.
pub fn accept<B>(request: &Request<B>) -> Result<(Response<()>, &'static str), String> {
    let header = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !header(http::header::UPGRADE).eq_ignore_ascii_case("websocket") {
        return Err("unable to upgrade: this server streams over WebSocket only".into());
    }
    if header(http::header::SEC_WEBSOCKET_VERSION) != "13" {
        return Err("unable to upgrade: unsupported version of the WebSocket protocol".into());
    }
    let offered = request.headers().get_all(http::header::SEC_WEBSOCKET_PROTOCOL);
    let offered: Vec<&str> = offered.iter().filter_map(|v| v.to_str().ok()).collect();
    let Some(chosen) = protocol(&offered) else {
        return Err(format!(
            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {PROTOCOLS:?}"
        ));
    };
    let key = header(http::header::SEC_WEBSOCKET_KEY);
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(http::header::CONNECTION, "Upgrade")
        .header(http::header::UPGRADE, "websocket")
        .header(http::header::SEC_WEBSOCKET_ACCEPT, accept)
        .header(http::header::SEC_WEBSOCKET_PROTOCOL, chosen)
        .body(())
        .map_err(|e| e.to_string())?;
    Ok((response, chosen))
}

/// Moves bytes until the runtime has said how it ended, or the client is gone.
///
/// # Errors
/// When either end breaks off.
pub async fn bridge<C>(client: C, protocol: &str, runtime: Runtime) -> Result<(), Error>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let mut limits = WebSocketConfig::default();
    limits.read_buffer_size = BUFFER;
    limits.write_buffer_size = 0;
    limits.max_message_size = Some(MESSAGE_MAX);
    limits.max_frame_size = Some(MESSAGE_MAX);
    let socket = WebSocketStream::from_raw_socket(client, Role::Server, Some(limits)).await;
    let (mut to_client, mut from_client) = socket.split();
    let Runtime { mut reader, mut writer, streams } = runtime;
    let (pings, mut pinged) = mpsc::channel(PINGS_MAX);
    let half_close = protocol == PROTOCOLS[0];

    // An empty message tells the client that the session stands, as upstream does.
    let first = if streams.stdout != 0 { STDOUT } else { ERROR };
    to_client.send(Message::binary(vec![first])).await?;

    let inward = async {
        loop {
            let message = tokio::select! {
                message = from_client.next() => message,
                Some(ping) = pinged.recv() => {
                    writer.pong(ping).await.map_err(Error::Runtime)?;
                    continue;
                }
                () = tokio::time::sleep(IDLE_TIME) => return Err(Error::Idle),
            };
            let data = match message.transpose()? {
                Some(Message::Binary(data)) => data,
                Some(Message::Text(text)) => text.into(),
                Some(Message::Close(_)) | None => break,
                Some(_) => continue,
            };
            let (stream, data, fin) = match (data.first().copied(), data.get(1).copied()) {
                (Some(STDIN), _) => (streams.stdin, data.slice(1..), false),
                (Some(RESIZE), _) => (streams.resize, data.slice(1..), false),
                (Some(CLOSE), Some(STDIN)) if half_close => (streams.stdin, Bytes::new(), true),
                _ => continue,
            };
            if stream != 0 && (fin || !data.is_empty()) {
                writer.data(stream, &data, fin).await.map_err(Error::Runtime)?;
            }
        }
        // The client is gone: whoever reads its input sees the end of it.
        if streams.stdin != 0 {
            writer.data(streams.stdin, b"", true).await.map_err(Error::Runtime)?;
        }
        Ok(())
    };
    let outward = async {
        let mut open = [streams.error, streams.stdout, streams.stderr].iter().filter(|s| **s != 0).count();
        while open > 0 {
            match spdy::read(&mut reader).await.map_err(Error::Runtime)? {
                Some(Frame::Data { stream, data, fin }) => {
                    let Some(channel) = streams.channel(stream) else { continue };
                    if !data.is_empty() {
                        let mut message = BytesMut::with_capacity(data.len() + 1);
                        message.extend_from_slice(&[channel]);
                        message.extend_from_slice(&data);
                        to_client.send(Message::Binary(message.freeze())).await?;
                    }
                    open -= usize::from(fin);
                }
                Some(Frame::Reset { stream }) => open -= usize::from(streams.channel(stream).is_some()),
                // A full queue means pings faster than answers: the peer will ask again.
                Some(Frame::Ping(ping)) => drop(pings.try_send(ping)),
                Some(Frame::GoAway) | None => break,
                Some(Frame::Other) => {}
            }
        }
        let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        to_client.send(Message::Close(Some(normal))).await?;
        Ok(())
    };
    // Each direction waits for its own reader only; were they one loop, a full pipe in both would be a standstill.
    tokio::select! {
        ended = inward => ended,
        ended = outward => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshake_picks_the_best_common_protocol() {
        assert_eq!(protocol(&["v4.channel.k8s.io"]), Some(PROTOCOLS[1]));
        assert_eq!(protocol(&["v4.channel.k8s.io, v5.channel.k8s.io"]), Some(PROTOCOLS[0]));
        assert_eq!(protocol(&["channel.k8s.io"]), None);
        let request = Request::get("/exec/a/b/c")
            .header("upgrade", "websocket")
            .header("connection", "Upgrade")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", "v5.channel.k8s.io")
            .body(())
            .expect("a request");
        let (response, chosen) = accept(&request).expect("a handshake");
        // The example of RFC 6455.
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(chosen, PROTOCOLS[0]);
        let spdy = Request::post("/exec").header("upgrade", "SPDY/3.1").body(()).expect("a request");
        assert!(accept(&spdy).is_err());
    }
}
