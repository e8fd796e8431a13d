//! Decides: the answer to a query, as far as this node knows it itself.

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use rand::seq::SliceRandom;

use super::zone::{Found, Records, Reverse, Srv, Zone};

/// As CoreDNS: short, because endpoints come and go.
const TTL_SECONDS: u32 = 5;
/// Largest UDP answer for a client that does not say what it can take.
pub const PLAIN_UDP_LIMIT: u16 = 512;
/// What we tell clients, and most that is sent by UDP: fits into every overlay's packet.
const UDP_LIMIT: u16 = 1232;
/// Aliases that are followed from one Service to another.
const ALIASES: usize = 8;

/// What becomes of a query.
#[derive(Debug)]
pub enum Reply {
    Done(Message),
    /// Not ours: the machine's resolvers answer.
    Forward,
    /// An alias that leads out of the cluster. Its target's records are to be added.
    Follow(Message, Name),
}

/// The answer to a message, or what else to do with it.
#[must_use]
pub fn answer(zone: &Zone, request: &Message) -> Reply {
    if request.metadata.op_code != OpCode::Query {
        return Reply::Done(failure(request, ResponseCode::NotImp));
    }
    let [query] = request.queries.as_slice() else {
        return Reply::Done(failure(request, ResponseCode::FormErr));
    };
    if request.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        return Reply::Done(failure(request, ResponseCode::BADVERS));
    }
    let labels = labels(query.name());
    if query.query_class() != DNSClass::IN {
        return match zone.within(&labels) {
            Some(_) => Reply::Done(failure(request, ResponseCode::Refused)),
            None => Reply::Forward,
        };
    }
    if let Some(address) = reverse_address(&labels) {
        return reverse(zone, request, query, address);
    }
    match zone.within(&labels) {
        None => Reply::Forward,
        Some(_) if !zone.complete() => Reply::Done(failure(request, ResponseCode::ServFail)),
        Some(own) => forward_lookup(zone, request, query, own.to_vec()),
    }
}

/// A response without records.
#[must_use]
pub fn failure(request: &Message, code: ResponseCode) -> Message {
    let mut response = Message::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.response_code = code;
    response.queries.clone_from(&request.queries);
    if let Some(asked) = &request.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_LIMIT);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        response.edns = Some(edns);
    }
    response
}

/// Most bytes of an answer by UDP to whoever sent `request`.
#[must_use]
pub fn udp_limit(request: &Message) -> usize {
    let asked = request.edns.as_ref().map_or(PLAIN_UDP_LIMIT, Edns::max_payload);
    usize::from(asked.clamp(PLAIN_UDP_LIMIT, UDP_LIMIT))
}

/// The bytes of a response, shortened and marked as truncated where it is longer than `limit`.
#[must_use]
pub fn encode(mut response: Message, limit: usize) -> Option<Vec<u8>> {
    loop {
        let bytes = response.to_vec().ok()?;
        if bytes.len() <= limit {
            return Some(bytes);
        }
        // Additional records are a courtesy: leaving them out loses nothing.
        if !response.additionals.is_empty() {
            response.additionals.clear();
            continue;
        }
        response.metadata.truncation = true;
        if response.answers.is_empty() {
            if response.authorities.is_empty() {
                return None;
            }
            response.authorities.clear();
        }
        let keep = response.answers.len() * 3 / 4;
        response.answers.truncate(keep);
    }
}

fn authoritative(request: &Message) -> Message {
    let mut response = failure(request, ResponseCode::NoError);
    response.metadata.authoritative = true;
    response
}

fn forward_lookup(zone: &Zone, request: &Message, query: &Query, mut own: Vec<String>) -> Reply {
    let mut response = authoritative(request);
    let mut owner = query.name().clone();
    for _ in 0..ALIASES {
        match zone.find(&own) {
            Found::Nothing => {
                response.metadata.response_code = ResponseCode::NXDomain;
                response.authorities.push(soa(zone));
                return Reply::Done(response);
            }
            Found::Node(records) => {
                add(zone, &mut response, &owner, query.query_type(), records);
                if response.answers.is_empty() || only_aliases(&response) && query.query_type() != RecordType::CNAME {
                    response.authorities.push(soa(zone));
                }
                return Reply::Done(response);
            }
            Found::Alias(target) => {
                let Ok(mut target) = Name::from_ascii(&target) else {
                    return Reply::Done(failure(request, ResponseCode::ServFail));
                };
                target.set_fqdn(true);
                response.answers.push(record(owner, RData::CNAME(CNAME(target.clone()))));
                if query.query_type() == RecordType::CNAME {
                    return Reply::Done(response);
                }
                let next = labels(&target);
                match zone.within(&next) {
                    None => return Reply::Follow(response, target),
                    Some(inside) => own = inside.to_vec(),
                }
                owner = target;
            }
        }
    }
    Reply::Done(failure(request, ResponseCode::ServFail))
}

fn only_aliases(response: &Message) -> bool {
    response.answers.iter().all(|record| record.record_type() == RecordType::CNAME)
}

fn add(zone: &Zone, response: &mut Message, owner: &Name, wanted: RecordType, mut records: Records) {
    let asks = |kind: RecordType| wanted == kind || wanted == RecordType::ANY;
    if asks(RecordType::A) {
        records.addresses.shuffle(&mut rand::rng());
        for address in &records.addresses {
            response.answers.push(record(owner.clone(), RData::A(A(*address))));
        }
    }
    if asks(RecordType::SRV) {
        records.services.shuffle(&mut rand::rng());
        add_services(zone, response, owner, &records.services);
    }
    if asks(RecordType::TXT)
        && let Some(text) = records.text
    {
        response.answers.push(record(owner.clone(), RData::TXT(TXT::new(vec![text.to_owned()]))));
    }
    if records.apex && asks(RecordType::SOA) {
        response.answers.push(soa(zone));
    }
    if records.apex && asks(RecordType::NS) {
        let server = name(zone, "ns.dns");
        response.answers.push(record(owner.clone(), RData::NS(NS(server.clone()))));
        response.additionals.push(record(server, RData::A(A(zone.address))));
    }
}

fn add_services(zone: &Zone, response: &mut Message, owner: &Name, services: &[Srv]) {
    let weight = u16::try_from(100 / services.len().max(1)).unwrap_or(1).max(1);
    let mut told: Vec<(&str, Ipv4Addr)> = Vec::new();
    for srv in services {
        let target = name(zone, &srv.target);
        response.answers.push(record(owner.clone(), RData::SRV(SRV::new(0, weight, srv.port, target.clone()))));
        if !told.contains(&(&srv.target, srv.address)) {
            told.push((&srv.target, srv.address));
            response.additionals.push(record(target, RData::A(A(srv.address))));
        }
    }
}

fn reverse(zone: &Zone, request: &Message, query: &Query, address: Ipv4Addr) -> Reply {
    let mut response = authoritative(request);
    match zone.names(address) {
        Reverse::Foreign => return Reply::Forward,
        _ if !zone.complete() => return Reply::Done(failure(request, ResponseCode::ServFail)),
        Reverse::Nothing => {
            response.metadata.response_code = ResponseCode::NXDomain;
            response.authorities.push(soa(zone));
        }
        Reverse::Names(names) => {
            if matches!(query.query_type(), RecordType::PTR | RecordType::ANY) {
                for target in names {
                    response.answers.push(record(query.name().clone(), RData::PTR(PTR(name(zone, &target)))));
                }
            } else {
                response.authorities.push(soa(zone));
            }
        }
    }
    Reply::Done(response)
}

fn soa(zone: &Zone) -> Record {
    let data = SOA::new(name(zone, "ns.dns"), name(zone, "hostmaster"), zone.serial, 7200, 1800, 86_400, TTL_SECONDS);
    record(name(zone, ""), RData::SOA(data))
}

fn record(owner: Name, data: RData) -> Record {
    Record::from_rdata(owner, TTL_SECONDS, data)
}

/// A name of the cluster.
fn name(zone: &Zone, relative: &str) -> Name {
    let labels = relative.split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
    // Names of objects are checked when they are made; one that is too long has no name here.
    Name::from_labels(labels.chain(zone.domain.iter().map(String::as_bytes))).unwrap_or_default()
}

/// Lower-case labels.
fn labels(name: &Name) -> Vec<String> {
    name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect()
}

/// `5.0.42.10.in-addr.arpa`
fn reverse_address(labels: &[String]) -> Option<Ipv4Addr> {
    let [d, c, b, a, "in-addr", "arpa"] = labels.iter().map(String::as_str).collect::<Vec<_>>()[..] else {
        return None;
    };
    format!("{a}.{b}.{c}.{d}").parse().ok()
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
