//! Decides: which addresses and CIDRs are well formed, by the strict rules of v1.36
//! (`k8s.io/apimachinery/pkg/util/validation/ip.go`).
//!
//! Older releases took leading zeros and bits behind the prefix, so what they took has messages of its own.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::server::registry::format::{self, Problems};

const NO_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// An address and the length of its prefix, as they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub address: IpAddr,
    pub length: u8,
}

impl Block {
    /// Leading zeros and bits behind the prefix are let through.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let address = parse(address)?;
        let length = number(length)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (length <= longest).then_some(Self { address, length })
    }

    /// The first address of the block.
    #[must_use]
    pub fn network(self) -> IpAddr {
        let behind = |bits: u8| u32::from(bits.saturating_sub(self.length));
        match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(behind(32)).unwrap_or_default();
                Ipv4Addr::from_bits(v4.to_bits() & mask).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(behind(128)).unwrap_or_default();
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
        }
    }

    /// Whether `other` lies in this block and is smaller.
    #[must_use]
    pub fn strictly_contains(self, other: Self) -> bool {
        let start = Self { address: other.network(), length: self.length };
        self.address.is_ipv4() == other.address.is_ipv4()
            && self.length < other.length
            && start.network() == self.network()
    }
}

/// In canonical form, with the first address of the block.
impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.length)
    }
}

/// An address, which may have leading zeros.
#[must_use]
pub fn parse(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let parts: Vec<u8> = text.split('.').map(number).collect::<Option<_>>()?;
    let octets: [u8; 4] = parts.try_into().ok()?;
    Some(Ipv4Addr::from(octets).into())
}

/// Decimal digits only: `u8` would take a sign as well.
fn number(text: &str) -> Option<u8> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A CIDR of an older field, where an IPv6 address may be written in more than one way.
#[must_use]
pub fn cidr(text: &str) -> Problems {
    let Some(block) = Block::parse(text) else { return vec![NO_CIDR.into()] };
    let (address, length) = text.split_once('/').unwrap_or_default();
    let zeros = address.parse::<IpAddr>().is_err() || (length.len() > 1 && length.starts_with('0'));
    let mapped = matches!(block.address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let problem = if zeros {
        "must not have leading 0s in IP or prefix length"
    } else if mapped {
        "must not have an IPv4-mapped IPv6 address"
    } else if block.address != block.network() {
        "must not have bits set beyond the prefix length"
    } else {
        return Vec::new();
    };
    vec![problem.into()]
}

/// A CIDR in its canonical form.
#[must_use]
pub fn canonical_cidr(text: &str) -> Problems {
    let problems = cidr(text);
    if !problems.is_empty() {
        return problems;
    }
    not_canonical(text, Block::parse(text))
}

/// An address in its canonical form.
#[must_use]
pub fn canonical_ip(text: &str) -> Problems {
    let problems = format::ip(text);
    if !problems.is_empty() {
        return problems;
    }
    not_canonical(text, parse(text))
}

fn not_canonical(text: &str, parsed: Option<impl fmt::Display>) -> Problems {
    match parsed.map(|p| p.to_string()) {
        Some(canonical) if canonical != text => vec![format!("must be in canonical form ({canonical:?})")],
        _ => Vec::new(),
    }
}
