//! Effects: connections to the runtime's streaming server, and clients that are connected with it as they are: the
//! runtime speaks SPDY/3.1 and the older WebSocket protocols itself, so whoever speaks these is passed through byte for
//! byte. `SPDY/3.1+…` is SPDY within a WebSocket (KEP-4006): the messages are unwrapped on the way.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::websocket::{self, BUFFER};
use crate::splice;

/// What a WebSocket that carries SPDY calls itself; the protocol inside comes after it.
pub const TUNNEL: &str = "SPDY/3.1+";
/// Of the streams of a connection: which protocol runs in them.
pub const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// How long the runtime's streaming server may take to accept the connection.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How much of the server's words is passed on when it refuses, in bytes.
const REFUSAL_MAX: usize = 4096;
/// Each direction of a relayed connection is moved in pieces of this size, in bytes.
const PIECE: usize = 64 * 1024;

/// What a handshake consists of, in either direction.
const HANDSHAKE: [HeaderName; 8] = [
    CONNECTION,
    UPGRADE,
    STREAM_PROTOCOL,
    http::header::SEC_WEBSOCKET_KEY,
    http::header::SEC_WEBSOCKET_VERSION,
    http::header::SEC_WEBSOCKET_PROTOCOL,
    http::header::SEC_WEBSOCKET_EXTENSIONS,
    http::header::SEC_WEBSOCKET_ACCEPT,
];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the runtime's streaming URL {0:?} is not one")]
    Url(String),
    #[error("cannot connect to the runtime's streaming server at {address}")]
    Connect { address: String, source: io::Error },
    #[error("the runtime's streaming server did not switch protocols")]
    Upgrade(#[source] hyper::Error),
    /// Its own words.
    #[error("{text}")]
    Refused { code: StatusCode, text: String },
}

/// A connection that the streaming server has switched to another protocol.
pub struct Switched {
    /// Its part of the handshake.
    pub headers: HeaderMap,
    pub stream: TokioIo<Upgraded>,
}

/// The headers of a handshake, and no others.
#[must_use]
pub fn handshake(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in HANDSHAKE {
        for value in headers.get_all(&name) {
            kept.append(&name, value.clone());
        }
    }
    kept
}

/// A handshake for SPDY/3.1 with this protocol in its streams.
#[must_use]
pub fn spdy(stream_protocol: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.extend(HeaderValue::from_str(stream_protocol).ok().map(|value| (STREAM_PROTOCOL, value)));
    headers
}

/// Connects to the URL that the runtime made for one session.
///
/// # Errors
/// When the server cannot be reached or does not switch protocols.
pub async fn open(url: &str, method: Method, handshake: HeaderMap) -> Result<Switched, Error> {
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
    let mut request = Request::builder().method(method).uri(uri.path_and_query().map_or("/", |p| p.as_str()));
    if let Some(headers) = request.headers_mut() {
        *headers = handshake;
    }
    let request = request.header(HOST, &address).body(Empty::<Bytes>::new()).map_err(|_| bad())?;
    // The connection's own future ends when it was upgraded.
    let upgraded = async {
        let mut response = sender.send_request(request).await.map_err(Error::Upgrade)?;
        let code = response.status();
        if code != StatusCode::SWITCHING_PROTOCOLS {
            let text = Limited::new(response.into_body(), REFUSAL_MAX).collect().await;
            let text = text.map_or_else(|_| code.to_string(), |t| String::from_utf8_lossy(&t.to_bytes()).into_owned());
            return Err(Error::Refused { code, text });
        }
        let headers = self::handshake(response.headers());
        let stream = hyper::upgrade::on(&mut response).await.map_err(Error::Upgrade)?;
        Ok(Switched { headers, stream: TokioIo::new(stream) })
    };
    let (upgraded, _) = tokio::join!(upgraded, connection.with_upgrades());
    upgraded
}

/// Moves bytes both ways until both ends are done.
///
/// # Errors
/// When either end breaks off.
pub async fn pass<C>(client: C, runtime: TokioIo<Upgraded>) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    splice::both(client, runtime, PIECE).await
}

/// Moves what comes in messages of a WebSocket, and back, until either end is done.
///
/// # Errors
/// When either end breaks off.
pub async fn tunnel<C, R>(client: C, runtime: R) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    R: AsyncRead + AsyncWrite + Unpin,
{
    let socket = WebSocketStream::from_raw_socket(client, Role::Server, Some(websocket::limits())).await;
    let (mut to_client, mut from_client) = socket.split();
    let (mut from_runtime, mut to_runtime) = split(runtime);
    let inward = async {
        // What a runtime that ends says last goes on, whether or not it still listens.
        let mut listens = true;
        while let Some(message) = from_client.next().await {
            match message.map_err(io::Error::other)? {
                Message::Binary(data) => listens = listens && to_runtime.write_all(&data).await.is_ok(),
                Message::Close(_) => break,
                _ => {}
            }
        }
        to_runtime.shutdown().await
    };
    let outward = async {
        let mut block = vec![0; BUFFER];
        loop {
            let count = from_runtime.read(&mut block).await?;
            if count == 0 {
                break;
            }
            let message = Message::Binary(Bytes::copy_from_slice(&block[..count]));
            to_client.send(message).await.map_err(io::Error::other)?;
        }
        let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        to_client.send(Message::Close(Some(normal))).await.map_err(io::Error::other)
    };
    // Each direction waits for its own reader only.
    let ended = tokio::select! {
        ended = inward => return ended,
        ended = outward => ended,
    };
    websocket::farewell(&mut from_client).await;
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tunnel_unwraps_and_wraps() {
        let (client, theirs) = tokio::io::duplex(1024);
        let (runtime, mut inside) = tokio::io::duplex(1024);
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let story = async {
            client.send(Message::binary(&b"to the runtime"[..])).await.unwrap();
            let mut block = [0; 14];
            inside.read_exact(&mut block).await.unwrap();
            assert_eq!(&block, b"to the runtime");
            inside.write_all(b"and back").await.unwrap();
            assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(&b"and back"[..]));
            drop(inside);
            let end = client.next().await.unwrap().unwrap();
            assert!(matches!(end, Message::Close(Some(frame)) if frame.code == CloseCode::Normal));
        };
        let (tunnelled, ()) = tokio::join!(tunnel(theirs, runtime), story);
        tunnelled.unwrap();
    }

    #[test]
    fn nothing_but_the_handshake_passes() {
        let given: HeaderMap = [
            (CONNECTION, HeaderValue::from_static("Upgrade")),
            (STREAM_PROTOCOL, HeaderValue::from_static("v4.channel.k8s.io")),
            (http::header::AUTHORIZATION, HeaderValue::from_static("Bearer secret")),
        ]
        .into_iter()
        .collect();
        let kept = handshake(&given);
        assert_eq!(kept.len(), 2);
        assert!(!kept.contains_key(http::header::AUTHORIZATION));
    }
}
