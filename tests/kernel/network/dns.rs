//! Cluster DNS on a node, asked by a pod.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use skiff::net::dns;
use skiff::net::services::{Key, Service, View};
use tokio_util::sync::CancellationToken;

use super::machines::{CLUSTER, Machine, Node, PATIENCE, SERVICES, cable, possible};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 10);

fn ask(from: &Machine, name: &str) -> Message {
    let mut request = Message::new(7, MessageType::Query, OpCode::Query);
    request.metadata.recursion_desired = true;
    request.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let socket = from.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let bytes = request.to_vec().unwrap();
    let mut buffer = [0; 4096];
    // The server may still be starting; a question that is lost is asked again.
    for _ in 0..50 {
        from.run(|| socket.send_to(&bytes, (ADDRESS, 53)).unwrap());
        if let Ok(length) = socket.recv(&mut buffer) {
            return Message::from_vec(&buffer[..length]).unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("no answer");
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

/// A resolver that knows every name.
fn resolver(machine: &Machine) {
    let socket = machine.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let mut message = Message::from_vec(&buffer[..length]).unwrap();
            message.metadata.message_type = MessageType::Response;
            let name = message.queries[0].name().clone();
            message.add_answer(Record::from_rdata(name, 60, RData::A(A::new(198, 51, 100, 1))));
            let _ = socket.send_to(&message.to_vec().unwrap(), client);
        }
    });
}

#[test]
fn pods_ask_their_node() {
    if !possible() {
        return;
    }
    let node = Node::new("node", Ipv4Addr::new(192, 0, 2, 1), 0);
    let outside = Machine::new("outside");
    cable((&node.machine, "eth0", "192.0.2.1"), (&outside, "eth0", "192.0.2.9"));
    node.converge(&[]);
    let (pod, _) = node.pod("pod");

    let resolv_conf = node.data.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 10.43.0.10\n").unwrap();
    let settings = dns::Settings {
        address: ADDRESS,
        domain: "cluster.local".to_owned(),
        cluster_cidr: CLUSTER,
        service_cidr: SERVICES,
        resolv_conf: resolv_conf.clone(),
    };
    let mut view = View { complete: true, ..View::default() };
    let kubernetes = Service { cluster_ip: Some(Ipv4Addr::new(10, 43, 0, 1)), ..Service::default() };
    view.services.insert(Key::new("default", "kubernetes"), Arc::new(kubernetes.clone()));
    let (publish, receive) = tokio::sync::watch::channel(Arc::new(view.clone()));
    let stop = CancellationToken::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            node.machine.run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(dns::run(receive, settings, stop.clone()));
            });
        });
        // Stops the server also when an assertion fails.
        let _stopped = stop.clone().drop_guard();
        assert_eq!(addresses(&ask(&pod, "kubernetes.default.svc.cluster.local.")), ["10.43.0.1"]);
        assert_eq!(addresses(&ask(&node.machine, "kubernetes.default.svc.cluster.local.")), ["10.43.0.1"]);
        let refused = ask(&pod, "new.default.svc.cluster.local.");
        assert_eq!(refused.metadata.response_code, ResponseCode::NXDomain);

        let new = Service { cluster_ip: Some(Ipv4Addr::new(10, 43, 0, 2)), ..kubernetes };
        view.services.insert(Key::new("default", "new"), Arc::new(new));
        publish.send_replace(Arc::new(view));
        let until = (0..100).map(|_| ask(&pod, "new.default.svc.cluster.local.")).find(|m| !m.answers.is_empty());
        assert_eq!(addresses(&until.expect("a new Service has a name")), ["10.43.0.2"]);

        // Itself as resolver is as good as none.
        assert_eq!(ask(&pod, "example.org.").metadata.response_code, ResponseCode::ServFail);
        resolver(&outside);
        std::fs::write(&resolv_conf, "nameserver 192.0.2.9\n").unwrap();
        let until = (0..50)
            .map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(100));
                ask(&pod, "example.org.")
            })
            .find(|m| !m.answers.is_empty());
        assert_eq!(addresses(&until.expect("the changed file is read")), ["198.51.100.1"]);
    });
}
