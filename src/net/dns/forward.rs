//! Effects: asks the machine's own resolvers.
//!
//! Which ones is read from `resolv.conf` when a query comes and the file changed: nothing runs while nobody asks.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::answer::failure;
use super::cache::{Cache, Question};

/// Questions waiting for an answer at the same time.
const CONCURRENT: usize = 512;
/// For one resolver; each is asked twice.
const PATIENCE: Duration = Duration::from_secs(2);
/// For all of it: what clients wait themselves.
const DEADLINE: Duration = Duration::from_secs(5);
const ROUNDS: usize = 2;
/// As in the C library.
const RESOLVERS: usize = 3;
/// Least time between two looks at the file.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const RESOLV_CONF_LIMIT: u64 = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

pub struct Forwarder {
    path: PathBuf,
    own: Ipv4Addr,
    permits: Semaphore,
    resolvers: Mutex<Resolvers>,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Resolvers {
    looked: Option<Instant>,
    /// Inode, modification time and size of the file that was read.
    version: Option<(u64, i64, i64, u64)>,
    addresses: Vec<SocketAddr>,
}

impl Forwarder {
    #[must_use]
    pub fn new(path: PathBuf, own: Ipv4Addr) -> Self {
        Self { path, own, permits: Semaphore::new(CONCURRENT), resolvers: Mutex::default(), cache: Mutex::default() }
    }

    /// The resolvers' answer, or SERVFAIL.
    pub async fn ask(&self, request: &Message, transport: Transport) -> Message {
        let refuse = || failure(request, ResponseCode::ServFail);
        let Some(question) = Question::of(request) else { return failure(request, ResponseCode::FormErr) };
        let now = crate::clock::instant();
        if let Some(found) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&question, request, now) {
            return found;
        }
        let Ok(_permit) = self.permits.try_acquire() else { return refuse() };
        let resolvers = self.resolvers(now);
        let asked = timeout(DEADLINE, ask_in_turn(&resolvers, request, transport)).await;
        let Ok(Some((bytes, mut response))) = asked else { return refuse() };
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).put(question, &bytes, crate::clock::instant());
        response.metadata.id = request.metadata.id;
        response.queries.clone_from(&request.queries);
        response
    }

    fn resolvers(&self, now: Instant) -> Vec<SocketAddr> {
        let mut known = self.resolvers.lock().unwrap_or_else(PoisonError::into_inner);
        if known.looked.is_some_and(|looked| now < looked + LOOK_AGAIN) {
            return known.addresses.clone();
        }
        known.looked = Some(now);
        let version = std::fs::metadata(&self.path).ok().map(|m| (m.ino(), m.mtime(), m.mtime_nsec(), m.len()));
        if version != known.version || version.is_none() {
            let text = version
                .filter(|(.., length)| *length <= RESOLV_CONF_LIMIT)
                .and_then(|_| std::fs::read_to_string(&self.path).ok())
                .unwrap_or_default();
            known.addresses = parse(&text, self.own);
            known.version = version;
        }
        known.addresses.clone()
    }
}

/// `nameserver` lines, without this server itself.
fn parse(text: &str, own: Ipv4Addr) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then_some(())?;
            // A link-local address has its interface behind it: `fe80::1%eth0`. Those cannot be asked without a scope.
            words.next()?.parse::<IpAddr>().ok()
        })
        .filter(|address| *address != IpAddr::V4(own))
        .take(RESOLVERS)
        .map(|address| SocketAddr::new(address, 53))
        .collect()
}

async fn ask_in_turn(resolvers: &[SocketAddr], request: &Message, transport: Transport) -> Option<(Vec<u8>, Message)> {
    let mut last = None;
    for _ in 0..ROUNDS {
        for resolver in resolvers {
            let asked = timeout(PATIENCE, ask_one(*resolver, request, transport)).await;
            match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                // Another resolver may do better than one that failed.
                Ok((bytes, response)) if response.metadata.response_code == ResponseCode::ServFail => {
                    last = Some((bytes, response));
                }
                Ok(answer) => return Some(answer),
                Err(error) => tracing::debug!(%resolver, %error, "a resolver did not answer"),
            }
        }
        if last.is_some() {
            break;
        }
    }
    last
}

/// A fresh socket and identifier for each question: an attacker has to guess both.
async fn ask_one(resolver: SocketAddr, request: &Message, transport: Transport) -> io::Result<(Vec<u8>, Message)> {
    let id: u16 = rand::random();
    let mut outgoing = request.clone();
    outgoing.metadata.id = id;
    let bytes = outgoing.to_vec().map_err(io::Error::other)?;
    match transport {
        Transport::Udp => ask_udp(resolver, &outgoing, &bytes).await,
        Transport::Tcp => ask_tcp(resolver, &outgoing, &bytes).await,
    }
}

async fn ask_udp(resolver: SocketAddr, request: &Message, bytes: &[u8]) -> io::Result<(Vec<u8>, Message)> {
    let any: SocketAddr = if resolver.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(response) = belongs(&buffer[..length], request) {
            return Ok((buffer[..length].to_vec(), response));
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, request: &Message, bytes: &[u8]) -> io::Result<(Vec<u8>, Message)> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(bytes);
    stream.write_all(&framed).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    let response =
        belongs(&answer, request).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not our answer"))?;
    Ok((answer, response))
}

/// The response, if it is one to this request.
fn belongs(bytes: &[u8], request: &Message) -> Option<Message> {
    let response = Message::from_vec(bytes).ok()?;
    let ours = response.metadata.id == request.metadata.id
        && response.metadata.message_type == MessageType::Response
        && response.queries == request.queries;
    ours.then_some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_of_a_file() {
        let own = Ipv4Addr::new(10, 43, 0, 10);
        let text = "# comment\nsearch example.org\nnameserver 10.43.0.10\nnameserver\t192.0.2.53\n\
                    nameserver fe80::1%eth0\nnameserver 2001:db8::53\nnameserver nonsense\noptions edns0\n";
        let found: Vec<String> = parse(text, own).iter().map(SocketAddr::to_string).collect();
        assert_eq!(found, ["192.0.2.53:53", "[2001:db8::53]:53"]);
    }

    #[tokio::test]
    async fn without_a_resolver_the_answer_is_a_failure_at_once() {
        use hickory_proto::op::{OpCode, Query};
        use hickory_proto::rr::{Name, RecordType};
        let forwarder = Forwarder::new(PathBuf::from("/nonexistent/resolv.conf"), Ipv4Addr::LOCALHOST);
        let mut request = Message::new(9, MessageType::Query, OpCode::Query);
        request.add_query(Query::query(Name::from_ascii("example.org.").unwrap(), RecordType::A));
        let response = forwarder.ask(&request, Transport::Udp).await;
        assert_eq!((response.metadata.id, response.metadata.response_code), (9, ResponseCode::ServFail));
    }
}
