//! Effects: tracked UDP connections: list and forget. Spoken by hand: the message library covers routes only.
//!
//! Layout (`linux/netfilter/nfnetlink_conntrack.h`): a header of the netfilter family, then nested attributes:
//! tuple of the first direction, tuple of the answers, each with addresses and ports in network order.

use std::io;
use std::net::Ipv4Addr;

use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NlasIterator};
use rtnetlink::sys::{Socket as Raw, SocketAddr, protocols::NETLINK_NETFILTER};

use super::{Error, Result};

const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
/// `struct nfgenmsg`: AF_INET, version 0, no resource.
const FAMILY: [u8; 4] = [2, 0, 0, 0];
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const NESTED: u16 = 0x8000;
const UDP: u8 = 17;
const HEADER: usize = 16;

/// One UDP connection: where it was sent, and who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    pub source: (Ipv4Addr, u16),
    pub destination: (Ipv4Addr, u16),
    pub answers_from: (Ipv4Addr, u16),
    /// The first tuple as the kernel wrote it: how it wants to be told which one to forget.
    tuple: Vec<u8>,
}

pub struct Conntrack {
    raw: Raw,
    sequence: u32,
}

impl Conntrack {
    /// In the namespace of the calling thread.
    pub fn open() -> Result<Self> {
        let mut raw = Raw::new(NETLINK_NETFILTER).map_err(Error::Open)?;
        raw.bind_auto().map_err(Error::Open)?;
        raw.connect(&SocketAddr::new(0, 0)).map_err(Error::Open)?;
        Ok(Self { raw, sequence: 0 })
    }

    pub fn udp_flows(&mut self) -> Result<Vec<Flow>> {
        let mut flows = Vec::new();
        let step = "list tracked connections";
        self.exchange(step, GET, NLM_F_REQUEST | NLM_F_DUMP, &[], &mut |payload| flows.extend(read(payload)))?;
        Ok(flows)
    }

    /// The next packet of the flow is a new connection.
    pub fn forget(&mut self, flow: &Flow) -> Result<()> {
        let mut attribute = Vec::new();
        let length = u16::try_from(flow.tuple.len() + 4).unwrap_or(u16::MAX);
        attribute.extend_from_slice(&length.to_ne_bytes());
        attribute.extend_from_slice(&(ORIGINAL | NESTED).to_ne_bytes());
        attribute.extend_from_slice(&flow.tuple);
        match self.exchange("forget a connection", DELETE, NLM_F_REQUEST | NLM_F_ACK, &attribute, &mut |_| ()) {
            // It ended meanwhile.
            Err(error) if error.is(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }

    fn exchange(
        &mut self,
        step: &str,
        kind: u16,
        flags: u16,
        attributes: &[u8],
        each: &mut dyn FnMut(&[u8]),
    ) -> Result<()> {
        self.sequence += 1;
        let length = u32::try_from(HEADER + FAMILY.len() + attributes.len()).unwrap_or(u32::MAX);
        let mut request = Vec::new();
        request.extend_from_slice(&length.to_ne_bytes());
        request.extend_from_slice(&kind.to_ne_bytes());
        request.extend_from_slice(&flags.to_ne_bytes());
        request.extend_from_slice(&self.sequence.to_ne_bytes());
        request.extend_from_slice(&[0; 4]);
        request.extend_from_slice(&FAMILY);
        request.extend_from_slice(attributes);
        let refused = |source| Error::Refused { step: step.to_owned(), source };
        self.raw.send(&request, 0).map_err(refused)?;
        loop {
            let (datagram, _) = self.raw.recv_from_full().map_err(refused)?;
            let mut rest = &datagram[..];
            while rest.len() >= HEADER {
                let word = |at: usize| u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
                let (length, sequence) = (word(0) as usize, word(8));
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                if length < HEADER || length > rest.len() {
                    let message = format!("message of {length} bytes");
                    return Err(Error::Malformed { step: step.to_owned(), message });
                }
                let payload = &rest[HEADER..length];
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
                if sequence != self.sequence {
                    continue;
                }
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = payload.get(..4).map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
                        return if code == 0 { Ok(()) } else { Err(refused(io::Error::from_raw_os_error(-code))) };
                    }
                    NEW => each(payload),
                    _ => {}
                }
            }
        }
    }
}

/// `None` for what is not UDP over IPv4.
fn read(payload: &[u8]) -> Option<Flow> {
    let attributes = payload.get(FAMILY.len()..)?;
    let (mut original, mut reply) = (None, None);
    for attribute in NlasIterator::new(attributes).flatten() {
        match attribute.kind() {
            ORIGINAL => original = Some(attribute.value().to_vec()),
            REPLY => reply = Some(attribute.value().to_vec()),
            _ => {}
        }
    }
    let tuple = original?;
    let (source, destination) = read_tuple(&tuple)?;
    let (answers_from, _) = read_tuple(&reply?)?;
    Some(Flow { source, destination, answers_from, tuple })
}

type End = (Ipv4Addr, u16);

/// Source and destination of a tuple.
fn read_tuple(tuple: &[u8]) -> Option<(End, End)> {
    const ADDRESSES: u16 = 1;
    const PORTS: u16 = 2;
    let (mut ips, mut ports, mut protocol) = ([None; 2], [None; 2], None);
    for part in NlasIterator::new(tuple).flatten() {
        for field in NlasIterator::new(part.value()).flatten() {
            let value = field.value();
            match (part.kind(), field.kind()) {
                (ADDRESSES, kind @ (1 | 2)) => {
                    ips[usize::from(kind - 1)] = <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from);
                }
                (PORTS, 1) => protocol = value.first().copied(),
                (PORTS, kind @ (2 | 3)) => {
                    ports[usize::from(kind - 2)] = <[u8; 2]>::try_from(value).ok().map(u16::from_be_bytes);
                }
                _ => {}
            }
        }
    }
    (protocol == Some(UDP)).then_some(())?;
    Some(((ips[0]?, ports[0]?), (ips[1]?, ports[1]?)))
}
