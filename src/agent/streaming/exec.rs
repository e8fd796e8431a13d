//! Effects: a command in a container, or its main process, with a client at the other end of a WebSocket
//! (`v5.channel.k8s.io` and `v4.channel.k8s.io`: the first byte of a message names its channel). The runtime is reached
//! through its streaming server, which speaks SPDY and knows no half-close by WebSocket; bytes are moved between the two
//! until the runtime says how it ended.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::Method;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::spdy::{self, Frame, Writer};
use super::{relay, websocket};
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

/// A session in which nothing happens for this long ends (`streamingConnectionIdleTimeout`).
const IDLE_TIME: Duration = Duration::from_secs(4 * 3600);
/// Pings of the runtime that wait to be answered.
const PINGS_MAX: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Open(#[from] relay::Error),
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

/// Connects to the URL that the runtime made for one session.
///
/// # Errors
/// When the server cannot be reached or does not switch to SPDY.
pub async fn connect(url: &str, options: StreamOptions) -> Result<Runtime, Error> {
    let switched = relay::open(url, Method::POST, relay::spdy(PROTOCOLS[1])).await?;
    let (reader, writer) = split(switched.stream);
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

/// The rank of a protocol that we speak.
#[must_use]
pub fn knows(protocol: &str) -> Option<u8> {
    PROTOCOLS.iter().zip(0..).find_map(|(known, rank)| (*known == protocol).then_some(rank))
}

/// Moves bytes until the runtime has said how it ended, or the client is gone.
///
/// # Errors
/// When either end breaks off.
pub async fn bridge<C>(client: C, protocol: &str, runtime: Runtime) -> Result<(), Error>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let socket = WebSocketStream::from_raw_socket(client, Role::Server, Some(websocket::limits())).await;
    let (mut to_client, mut from_client) = socket.split();
    let Runtime { mut reader, mut writer, streams } = runtime;
    let (pings, mut pinged) = mpsc::channel(PINGS_MAX);
    let half_close = protocol == PROTOCOLS[0];

    // An empty message tells the client that the session stands, as upstream does.
    let first = if streams.stdout != 0 { STDOUT } else { ERROR };
    to_client.send(Message::binary(vec![first])).await?;

    let output = AtomicBool::new(false);
    let inward = async {
        // A runtime that ends says so by itself; what it says last goes on, whether or not it still listens.
        let mut listens = true;
        loop {
            let message = tokio::select! {
                message = from_client.next() => message,
                Some(ping) = pinged.recv() => {
                    listens = listens && writer.pong(ping).await.is_ok();
                    continue;
                }
                () = tokio::time::sleep(IDLE_TIME) => match output.swap(false, Ordering::Relaxed) {
                    true => continue,
                    false => return Err(Error::Idle),
                },
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
            if listens && stream != 0 && (fin || !data.is_empty()) {
                listens = writer.data(stream, &data, fin).await.is_ok();
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
                        output.store(true, Ordering::Relaxed);
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
    let ended = tokio::select! {
        ended = inward => return ended,
        ended = outward => ended,
    };
    websocket::farewell(&mut from_client).await;
    ended
}
