//! Loop: queries by UDP and TCP. What the cluster knows is answered in place; what has to be asked elsewhere gets a task.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::answer::{Reply, answer, encode, failure, udp_limit};
use super::forward::{Forwarder, Transport};
use super::zone::Zone;

/// Forwarded UDP queries; the forwarder has its own, smaller limit.
const TASKS: usize = 1024;
const CONNECTIONS: usize = 128;
/// Without a query (RFC 7766 asks for seconds).
const IDLE: Duration = Duration::from_secs(10);
/// Largest query by UDP, bytes.
const QUERY_LIMIT: usize = 4096;
const BACKLOG: i32 = 128;
const TCP_LIMIT: usize = u16::MAX as usize;

pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// Binds both, also where no device has the address (yet).
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let make = |kind: Type, protocol: Protocol| -> io::Result<Socket> {
            let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
            socket.set_freebind_v4(true)?;
            socket.set_nonblocking(true)?;
            if kind == Type::STREAM {
                socket.set_reuse_address(true)?;
            }
            socket.bind(&address.into())?;
            Ok(socket)
        };
        let udp = make(Type::DGRAM, Protocol::UDP)?;
        let tcp = make(Type::STREAM, Protocol::TCP)?;
        tcp.listen(BACKLOG)?;
        Ok(Self { udp: UdpSocket::from_std(udp.into())?, tcp: TcpListener::from_std(tcp.into())? })
    }

    #[cfg(test)]
    fn address(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }
}

struct Shared {
    zone: watch::Receiver<Arc<Zone>>,
    forwarder: Forwarder,
}

pub async fn run(sockets: Sockets, zone: watch::Receiver<Arc<Zone>>, settings: Settings, stop: CancellationToken) {
    let forwarder = Forwarder::new(settings.resolv_conf, settings.address);
    let shared = Arc::new(Shared { zone, forwarder });
    let udp = Arc::new(sockets.udp);
    let (mut queries, mut connections) = (JoinSet::new(), JoinSet::new());
    let mut buffer = vec![0; QUERY_LIMIT];
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            received = udp.recv_from(&mut buffer) => {
                // An error here is a client that went away (ICMP), not the socket.
                let Ok((length, client)) = received else { continue };
                datagram(&shared, &udp, &buffer[..length], client, &mut queries).await;
            }
            accepted = sockets.tcp.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(shared.clone(), stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "cluster DNS cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            _ = queries.join_next(), if !queries.is_empty() => {}
            _ = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn datagram(
    shared: &Arc<Shared>,
    udp: &Arc<UdpSocket>,
    bytes: &[u8],
    client: SocketAddr,
    queries: &mut JoinSet<()>,
) {
    let Some(request) = parse(bytes) else { return };
    let request = match request {
        Ok(request) => request,
        Err(refusal) => {
            let _ = udp.send_to(&refusal, client).await;
            return;
        }
    };
    let limit = udp_limit(&request);
    let zone = shared.zone.borrow().clone();
    match answer(&zone, &request) {
        Reply::Done(response) => {
            if let Some(bytes) = encode(response, limit) {
                let _ = udp.send_to(&bytes, client).await;
            }
        }
        reply if queries.len() < TASKS => {
            let (shared, udp) = (shared.clone(), udp.clone());
            queries.spawn(async move {
                let response = elsewhere(&shared.forwarder, &request, reply, Transport::Udp).await;
                if let Some(bytes) = encode(response, limit) {
                    let _ = udp.send_to(&bytes, client).await;
                }
            });
        }
        _ => {
            if let Some(bytes) = encode(failure(&request, ResponseCode::ServFail), limit) {
                let _ = udp.send_to(&bytes, client).await;
            }
        }
    }
}

async fn connection(shared: Arc<Shared>, mut stream: TcpStream) {
    // Ends with the connection, with silence, or with an error; the client cannot be told more.
    while let Ok(Ok(true)) = timeout(IDLE, exchange(&shared, &mut stream)).await {}
}

/// One query. Whether there may be another.
async fn exchange(shared: &Shared, stream: &mut TcpStream) -> io::Result<bool> {
    let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut bytes).await?;
    let Some(request) = parse(&bytes) else { return Ok(false) };
    let response = match request {
        Err(refusal) => Some(refusal),
        Ok(request) => {
            let zone = shared.zone.borrow().clone();
            let response = match answer(&zone, &request) {
                Reply::Done(response) => response,
                reply => elsewhere(&shared.forwarder, &request, reply, Transport::Tcp).await,
            };
            encode(response, TCP_LIMIT)
        }
    };
    let Some(response) = response else { return Ok(false) };
    let length = u16::try_from(response.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(&response);
    stream.write_all(&framed).await?;
    Ok(true)
}

/// The response to a query that the cluster cannot answer alone.
async fn elsewhere(forwarder: &Forwarder, request: &Message, reply: Reply, transport: Transport) -> Message {
    match reply {
        Reply::Done(response) => response,
        Reply::Forward => forwarder.ask(request, transport).await,
        Reply::Follow(mut response, target) => {
            let mut question = Message::query();
            question.metadata.recursion_desired = true;
            let kind = request.queries.first().map(Query::query_type).unwrap_or(hickory_proto::rr::RecordType::A);
            question.add_query(Query::query(target, kind));
            let found = forwarder.ask(&question, transport).await;
            response.metadata.response_code = found.metadata.response_code;
            response.metadata.truncation = found.metadata.truncation;
            response.answers.extend(found.answers);
            response.authorities.extend(found.authorities);
            response
        }
    }
}

/// A query, or the refusal of something that looks like one. `None` for what must not be answered: another response
/// could go round for ever.
fn parse(bytes: &[u8]) -> Option<Result<Message, Vec<u8>>> {
    match Message::from_vec(bytes) {
        Ok(message) if message.metadata.message_type == MessageType::Query => Some(Ok(message)),
        Ok(_) => None,
        Err(_) => {
            let [high, low, flags, ..] = *bytes else { return None };
            if bytes.len() < 12 || flags & 0x80 != 0 {
                return None;
            }
            let id = u16::from_be_bytes([high, low]);
            Some(Err(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok()?))
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
