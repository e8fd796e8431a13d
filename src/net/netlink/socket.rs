//! Effects: one blocking rtnetlink socket; a request and all of its answers.

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{Socket as Raw, SocketAddr, protocols::NETLINK_ROUTE};

use super::{Error, Namespace, Result};

/// Bound to the network namespace it was opened in, whichever thread uses it.
pub struct Socket {
    raw: Raw,
    sequence: u32,
}

impl Socket {
    /// A socket in the namespace of the calling thread.
    pub fn open() -> Result<Self> {
        let mut raw = Raw::new(NETLINK_ROUTE).map_err(Error::Open)?;
        raw.bind_auto().map_err(Error::Open)?;
        raw.connect(&SocketAddr::new(0, 0)).map_err(Error::Open)?;
        Ok(Self { raw, sequence: 0 })
    }

    /// A socket in another namespace.
    pub fn open_in(namespace: &Namespace) -> Result<Self> {
        namespace.run(Self::open)?
    }

    /// Sends a change and waits until the kernel confirmed it. `step` completes "cannot …".
    pub(super) fn change(&mut self, step: impl Fn() -> String, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.exchange(&step, message, NLM_F_REQUEST | NLM_F_ACK | flags).map(drop)
    }

    /// Asks for one object.
    pub(super) fn get(
        &mut self,
        step: impl Fn() -> String,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.exchange(&step, message, NLM_F_REQUEST | NLM_F_ACK)
    }

    /// Asks for all objects of a kind.
    pub(super) fn dump(
        &mut self,
        step: impl Fn() -> String,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.exchange(&step, message, NLM_F_REQUEST | NLM_F_DUMP)
    }

    fn exchange(
        &mut self,
        step: &dyn Fn() -> String,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        let refused = |source| Error::Refused { step: step(), source };
        self.raw.send(&bytes, 0).map_err(refused)?;

        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.raw.recv_from_full().map_err(refused)?;
            let mut rest = &datagram[..];
            while !rest.is_empty() {
                // A message this library cannot read (a newer kernel's attribute) is skipped, not fatal: its length is
                // in its header.
                let length = rest.get(..4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]) as usize);
                if length < 16 || length > rest.len() {
                    return Err(Error::Malformed { step: step(), message: format!("message of {length} bytes") });
                }
                let parsed = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length]);
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
                let Ok(answer) = parsed else { continue };
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => match error.code {
                        None => return Ok(answers),
                        Some(code) => return Err(refused(std::io::Error::from_raw_os_error(-code.get()))),
                    },
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    _ => {}
                }
            }
        }
    }
}
