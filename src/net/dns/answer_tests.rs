//! Questions to a small cluster, and the answers as `dig` would show them.

use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::config::Cidr;
use crate::net::dns::Settings;
use crate::net::nft::Protocol;
use crate::net::services::{Endpoint, Key, Port, Service, Slice, View};

fn settings() -> Settings {
    Settings {
        address: Ipv4Addr::new(10, 43, 0, 10),
        domain: "cluster.local".to_owned(),
        cluster_cidr: Cidr { address: Ipv4Addr::new(10, 42, 0, 0), prefix: 16 },
        service_cidr: Cidr { address: Ipv4Addr::new(10, 43, 0, 0), prefix: 16 },
        resolv_conf: PathBuf::from("/nonexistent"),
    }
}

fn port(name: &str, protocol: Protocol, port: u16) -> Port {
    Port { name: name.to_owned(), protocol, port, node_port: None }
}

fn endpoint(last: u8, hostname: Option<&str>, ready: bool) -> Endpoint {
    Endpoint {
        address: Ipv4Addr::new(10, 42, 0, last),
        ready,
        serving: ready,
        terminating: false,
        node: None,
        hostname: hostname.map(str::to_owned),
    }
}

fn zone() -> Zone {
    let mut view = View { complete: true, ..View::default() };
    let mut add = |name: &str, service: Service, endpoints: Vec<Endpoint>| {
        let key = Key::new("default", name);
        let ports = service.ports.iter().map(|p| (p.name.clone(), p.protocol, p.port + 8000)).collect();
        view.services.insert(key.clone(), Arc::new(service));
        view.slices.entry(key).or_default().insert(name.to_owned(), Arc::new(Slice { ports, endpoints }));
    };
    let kubernetes = Service {
        cluster_ip: Some(Ipv4Addr::new(10, 43, 0, 1)),
        ports: vec![port("https", Protocol::Tcp, 443)],
        ..Service::default()
    };
    add("kubernetes", kubernetes, vec![]);
    let web = Service {
        cluster_ip: Some(Ipv4Addr::new(10, 43, 0, 80)),
        ports: vec![port("http", Protocol::Tcp, 80), port("dns", Protocol::Udp, 53)],
        ..Service::default()
    };
    add("web", web, vec![endpoint(5, None, true)]);
    let db = Service { headless: true, ports: vec![port("sql", Protocol::Tcp, 5432)], ..Service::default() };
    add("db", db, vec![endpoint(7, Some("db-0"), true), endpoint(8, None, true), endpoint(9, Some("db-2"), false)]);
    add("idle", Service { headless: true, ..Service::default() }, vec![endpoint(9, None, false)]);
    let external = |target: &str| Service { external_name: Some(target.to_owned()), ..Service::default() };
    add("out", external("www.example.org"), vec![]);
    add("in", external("web.default.svc.cluster.local"), vec![]);
    add("circle", external("circle.default.svc.cluster.local"), vec![]);
    Zone::new(Arc::new(view), &settings())
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut request = Message::query();
    request.metadata.recursion_desired = true;
    request.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    request
}

/// Code, then sorted answers, then sorted additional records, then the type of the authority.
fn ask(name: &str, kind: RecordType) -> String {
    let (response, follow) = match answer(&zone(), &query(name, kind)) {
        Reply::Done(response) => (response, String::new()),
        Reply::Forward => return "forward".to_owned(),
        Reply::Follow(response, target) => (response, format!(" follow {target}")),
    };
    let shown = |records: &[Record]| {
        let mut lines: Vec<String> =
            records.iter().map(|r| format!("{} {} {}", r.name, r.record_type(), r.data)).collect();
        lines.sort();
        lines.join(", ")
    };
    let mut text = format!("{:?}: {}", response.metadata.response_code, shown(&response.answers));
    if !response.additionals.is_empty() {
        text = format!("{text} + {}", shown(&response.additionals));
    }
    for authority in &response.authorities {
        text = format!("{text} [{} {}]", authority.name, authority.record_type());
    }
    format!("{text}{follow}")
}

#[test]
fn questions_and_answers() {
    const NODATA: &str = "NoError:  [cluster.local. SOA]";
    const NXDOMAIN: &str = "NXDomain:  [cluster.local. SOA]";
    use RecordType::{A, AAAA, CNAME, MX, NS, PTR, SOA, SRV, TXT};
    let cases: &[(&str, RecordType, &str)] = &[
        ("kubernetes.default.svc.cluster.local.", A, "NoError: kubernetes.default.svc.cluster.local. A 10.43.0.1"),
        ("KUBERNETES.default.SVC.cluster.local.", A, "NoError: KUBERNETES.default.SVC.cluster.local. A 10.43.0.1"),
        ("kubernetes.default.svc.cluster.local.", AAAA, NODATA),
        ("web.default.svc.cluster.local.", MX, NODATA),
        ("nothing.default.svc.cluster.local.", A, NXDOMAIN),
        ("web.other.svc.cluster.local.", A, NXDOMAIN),
        (
            "web.default.svc.cluster.local.",
            SRV,
            "NoError: web.default.svc.cluster.local. SRV 0 50 53 web.default.svc.cluster.local., web.default.svc.cluster.local. SRV 0 50 80 web.default.svc.cluster.local. + web.default.svc.cluster.local. A 10.43.0.80",
        ),
        (
            "_http._tcp.web.default.svc.cluster.local.",
            SRV,
            "NoError: _http._tcp.web.default.svc.cluster.local. SRV 0 100 80 web.default.svc.cluster.local. + web.default.svc.cluster.local. A 10.43.0.80",
        ),
        ("_http._udp.web.default.svc.cluster.local.", SRV, NXDOMAIN),
        ("_tcp.web.default.svc.cluster.local.", A, NODATA),
        ("_http._tcp.web.default.svc.cluster.local.", A, NODATA),
        (
            "db.default.svc.cluster.local.",
            A,
            "NoError: db.default.svc.cluster.local. A 10.42.0.7, db.default.svc.cluster.local. A 10.42.0.8",
        ),
        ("db-0.db.default.svc.cluster.local.", A, "NoError: db-0.db.default.svc.cluster.local. A 10.42.0.7"),
        ("10-42-0-8.db.default.svc.cluster.local.", A, "NoError: 10-42-0-8.db.default.svc.cluster.local. A 10.42.0.8"),
        ("db-2.db.default.svc.cluster.local.", A, NXDOMAIN),
        (
            "_sql._tcp.db.default.svc.cluster.local.",
            SRV,
            "NoError: _sql._tcp.db.default.svc.cluster.local. SRV 0 50 13432 10-42-0-8.db.default.svc.cluster.local., _sql._tcp.db.default.svc.cluster.local. SRV 0 50 13432 db-0.db.default.svc.cluster.local. + 10-42-0-8.db.default.svc.cluster.local. A 10.42.0.8, db-0.db.default.svc.cluster.local. A 10.42.0.7",
        ),
        ("idle.default.svc.cluster.local.", A, NXDOMAIN),
        ("10-42-0-77.default.pod.cluster.local.", A, "NoError: 10-42-0-77.default.pod.cluster.local. A 10.42.0.77"),
        ("10-42-0-77.default.pod.cluster.local.", AAAA, NODATA),
        ("10-42-0.default.pod.cluster.local.", A, NXDOMAIN),
        (
            "out.default.svc.cluster.local.",
            A,
            "NoError: out.default.svc.cluster.local. CNAME www.example.org. follow www.example.org.",
        ),
        ("out.default.svc.cluster.local.", CNAME, "NoError: out.default.svc.cluster.local. CNAME www.example.org."),
        (
            "in.default.svc.cluster.local.",
            A,
            "NoError: in.default.svc.cluster.local. CNAME web.default.svc.cluster.local., web.default.svc.cluster.local. A 10.43.0.80",
        ),
        ("circle.default.svc.cluster.local.", A, "ServFail: "),
        ("cluster.local.", A, NODATA),
        ("cluster.local.", NS, "NoError: cluster.local. NS ns.dns.cluster.local. + ns.dns.cluster.local. A 10.43.0.10"),
        ("ns.dns.cluster.local.", A, "NoError: ns.dns.cluster.local. A 10.43.0.10"),
        ("dns-version.cluster.local.", TXT, "NoError: dns-version.cluster.local. TXT 1.1.0"),
        ("svc.cluster.local.", A, NODATA),
        ("default.svc.cluster.local.", A, NODATA),
        ("nowhere.svc.cluster.local.", A, NXDOMAIN),
        ("example.org.default.svc.cluster.local.", A, NXDOMAIN),
        ("example.org.svc.cluster.local.", A, NXDOMAIN),
        ("example.org.cluster.local.", A, NXDOMAIN),
        ("example.org.", A, "forward"),
        ("local.", A, "forward"),
        ("80.0.43.10.in-addr.arpa.", PTR, "NoError: 80.0.43.10.in-addr.arpa. PTR web.default.svc.cluster.local."),
        ("7.0.42.10.in-addr.arpa.", PTR, "NoError: 7.0.42.10.in-addr.arpa. PTR db-0.db.default.svc.cluster.local."),
        ("99.0.42.10.in-addr.arpa.", PTR, NXDOMAIN),
        ("1.2.0.192.in-addr.arpa.", PTR, "forward"),
        ("80.0.43.10.in-addr.arpa.", SOA, NODATA),
    ];
    for (name, kind, expected) in cases {
        assert_eq!(ask(name, *kind), *expected, "{name} {kind}");
    }
}

#[test]
fn before_the_cluster_is_known_nothing_is_denied() {
    let zone = Zone::new(Arc::default(), &settings());
    let Reply::Done(response) = answer(&zone, &query("web.default.svc.cluster.local.", RecordType::A)) else {
        panic!("not answered")
    };
    assert_eq!(response.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn long_answers_are_truncated_to_what_the_client_takes() {
    let mut view = View { complete: true, ..View::default() };
    let key = Key::new("default", "many");
    let service = Service { headless: true, ports: vec![port("x", Protocol::Tcp, 1)], ..Service::default() };
    view.services.insert(key.clone(), Arc::new(service));
    let slice = Slice {
        ports: vec![("x".to_owned(), Protocol::Tcp, 1)],
        endpoints: (0..200).map(|n| endpoint(n, None, true)).collect(),
    };
    view.slices.entry(key).or_default().insert("many".to_owned(), Arc::new(slice));
    let zone = Zone::new(Arc::new(view), &settings());
    let response = |request: &Message| match answer(&zone, request) {
        Reply::Done(response) => response,
        other => panic!("{other:?}"),
    };
    let mut request = query("many.default.svc.cluster.local.", RecordType::A);
    let plain = encode(response(&request), udp_limit(&request)).unwrap();
    assert!(plain.len() <= 512);
    let read = Message::from_vec(&plain).unwrap();
    assert!(read.metadata.truncation && read.answers.len() > 10);

    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    request.set_edns(edns);
    let larger = encode(response(&request), udp_limit(&request)).unwrap();
    assert!(larger.len() > 512 && larger.len() <= 1232);
    let whole = encode(response(&request), usize::from(u16::MAX)).unwrap();
    let read = Message::from_vec(&whole).unwrap();
    assert_eq!((read.metadata.truncation, read.answers.len()), (false, 200));
}
