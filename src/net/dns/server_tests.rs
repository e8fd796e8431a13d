//! The server on loopback, with resolvers that the test plays.

use std::net::Ipv4Addr;

use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::*;
use crate::config::Cidr;
use crate::net::services::{Key, Service, View};

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

fn start() -> Running {
    let settings = Settings {
        address: Ipv4Addr::LOCALHOST,
        domain: "cluster.local".to_owned(),
        cluster_cidr: Cidr { address: Ipv4Addr::new(10, 42, 0, 0), prefix: 16 },
        service_cidr: Cidr { address: Ipv4Addr::new(10, 43, 0, 0), prefix: 16 },
        resolv_conf: "/nonexistent/resolv.conf".into(),
    };
    let mut view = View { complete: true, ..View::default() };
    let service = Service { cluster_ip: Some(Ipv4Addr::new(10, 43, 0, 80)), ..Service::default() };
    view.services.insert(Key::new("default", "web"), Arc::new(service));
    // UDP and TCP have to share a number that is free for both.
    let sockets = (0..20)
        .find_map(|_| {
            let free = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).unwrap();
            Sockets::bind(free).ok()
        })
        .expect("a free port");
    let address = sockets.address().unwrap();
    let stop = CancellationToken::new();
    let (publish, zone) = watch::channel(Arc::new(Zone::new(Arc::new(view), &settings)));
    let mut tasks = JoinSet::new();
    let stopped = stop.clone();
    tasks.spawn(async move {
        run(sockets, zone, settings, stopped).await;
        drop(publish);
    });
    Running { address, stop, tasks }
}

fn query(name: &str) -> Message {
    let mut request = Message::new(4711, MessageType::Query, OpCode::Query);
    request.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    request
}

async fn by_udp(server: SocketAddr, bytes: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(bytes, server).await.unwrap();
    let mut buffer = [0; 4096];
    let length = timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.unwrap().unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

#[tokio::test]
async fn udp_and_tcp_give_the_same_answer() {
    let mut running = start();
    let request = query("web.default.svc.cluster.local.");
    let bytes = request.to_vec().unwrap();
    let expected = Record::from_rdata(request.queries[0].name().clone(), 5, RData::A(A::new(10, 43, 0, 80)));
    let response = by_udp(running.address, &bytes).await;
    assert_eq!((response.metadata.id, response.answers.as_slice()), (4711, std::slice::from_ref(&expected)));

    let mut stream = TcpStream::connect(running.address).await.unwrap();
    for _ in 0..2 {
        stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(Message::from_vec(&answer).unwrap().answers, std::slice::from_ref(&expected));
    }
    running.stop.cancel();
    running.tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn nonsense_is_refused_and_responses_are_ignored() {
    let running = start();
    let mut garbage = query("web.default.svc.cluster.local.").to_vec().unwrap();
    garbage.truncate(20);
    let refusal = by_udp(running.address, &garbage).await;
    assert_eq!((refusal.metadata.id, refusal.metadata.response_code), (4711, ResponseCode::FormErr));
    assert!(parse(&[0; 3]).is_none());
    let mut response = query("web.default.svc.cluster.local.");
    response.metadata.message_type = MessageType::Response;
    assert!(parse(&response.to_vec().unwrap()).is_none());
}

#[tokio::test]
async fn names_of_others_fail_without_a_resolver() {
    let running = start();
    let response = by_udp(running.address, &query("example.org.").to_vec().unwrap()).await;
    assert_eq!(response.metadata.response_code, ResponseCode::ServFail);
}
