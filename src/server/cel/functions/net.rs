//! Decides: addresses and networks (`library.IP`, `library.CIDR`), as strictly as Go's `net/netip` reads them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::super::value::{Error, Value};
use super::cost::Cost;
use super::opaque::Opaque;
use super::{Row, failed, no_overload};

type Answer<'a> = Result<Value<'a>, Error>;

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub address: IpAddr,
    pub prefix: u8,
}

pub(super) const ROWS: &[Row] = &[
    ("ip", "(string) -> ip; cidr.() -> ip", Cost::Parse, |v| match &v[0] {
        Value::String(text) => parse_ip(text).map(ip_value),
        other => cidr_of(other).map_or_else(|| no_overload("ip", v), |cidr| Ok(ip_value(cidr.address))),
    }),
    ("isIP", "(string) -> bool", Cost::Parse, |v| match &v[0] {
        Value::String(text) => Ok(Value::Bool(parse_ip(text).is_ok())),
        _ => no_overload("isIP", v),
    }),
    ("ip.isCanonical", "(string) -> bool", Cost::Parse, |v| match &v[0] {
        Value::String(text) => Ok(Value::Bool(parse_ip(text)?.to_string() == **text)),
        _ => no_overload("ip.isCanonical", v),
    }),
    ("family", "ip.() -> int", Cost::One, |v| of_ip(v, "family", |ip| Value::Int(if ip.is_ipv4() { 4 } else { 6 }))),
    ("isUnspecified", "ip.() -> bool", Cost::One, |v| of_ip(v, "isUnspecified", |ip| Value::Bool(ip.is_unspecified()))),
    ("isLoopback", "ip.() -> bool", Cost::One, |v| of_ip(v, "isLoopback", |ip| Value::Bool(ip.is_loopback()))),
    ("isLinkLocalMulticast", "ip.() -> bool", Cost::One, |v| {
        of_ip(v, "isLinkLocalMulticast", |ip| {
            Value::Bool(match ip {
                IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
                IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
            })
        })
    }),
    ("isLinkLocalUnicast", "ip.() -> bool", Cost::One, |v| {
        of_ip(v, "isLinkLocalUnicast", |ip| {
            Value::Bool(match ip {
                IpAddr::V4(ip) => ip.is_link_local(),
                IpAddr::V6(ip) => ip.is_unicast_link_local(),
            })
        })
    }),
    ("isGlobalUnicast", "ip.() -> bool", Cost::One, |v| {
        of_ip(v, "isGlobalUnicast", |ip| Value::Bool(is_global_unicast(ip)))
    }),
    ("cidr", "(string) -> cidr", Cost::Parse, |v| match &v[0] {
        Value::String(text) => cidr_value(text),
        _ => no_overload("cidr", v),
    }),
    ("isCIDR", "(string) -> bool", Cost::Parse, |v| match &v[0] {
        Value::String(text) => Ok(Value::Bool(parse_cidr(text).is_ok())),
        _ => no_overload("isCIDR", v),
    }),
    ("containsIP", "cidr.(string) -> bool; cidr.(ip) -> bool", Cost::ContainsIp, |v| {
        let address = match &v[1] {
            Value::String(text) => Some(parse_ip(text)?),
            other => ip_of(other),
        };
        match (cidr_of(&v[0]), address) {
            (Some(cidr), Some(address)) => Ok(Value::Bool(cidr.contains(address))),
            _ => no_overload("containsIP", v),
        }
    }),
    ("containsCIDR", "cidr.(string) -> bool; cidr.(cidr) -> bool", Cost::ContainsCidr, |v| {
        let inner = match &v[1] {
            Value::String(text) => Some(parse_cidr(text).or_else(|e| failed(format!("{CIDR_ERROR}: {e}")))?),
            other => cidr_of(other),
        };
        match (cidr_of(&v[0]), inner) {
            (Some(outer), Some(inner)) => {
                Ok(Value::Bool(outer.prefix <= inner.prefix && outer.contains(inner.address)))
            }
            _ => no_overload("containsCIDR", v),
        }
    }),
    ("prefixLength", "cidr.() -> int", Cost::One, |v| {
        cidr_of(&v[0]).map_or_else(|| no_overload("prefixLength", v), |cidr| Ok(Value::Int(cidr.prefix.into())))
    }),
    ("masked", "cidr.() -> cidr", Cost::One, |v| {
        let masked = cidr_of(&v[0]).map(|cidr| Cidr { address: cidr.network(), ..cidr });
        masked.map_or_else(|| no_overload("masked", v), |cidr| Ok(Value::Opaque(Arc::new(Opaque::Cidr(cidr)))))
    }),
];

const CIDR_ERROR: &str = "network address parse error during conversion from string";

fn ip_value<'a>(ip: IpAddr) -> Value<'a> {
    Value::Opaque(Arc::new(Opaque::Ip(ip)))
}

fn ip_of(value: &Value<'_>) -> Option<IpAddr> {
    match value {
        Value::Opaque(opaque) => match &**opaque {
            Opaque::Ip(ip) => Some(*ip),
            _ => None,
        },
        _ => None,
    }
}

fn cidr_of(value: &Value<'_>) -> Option<Cidr> {
    match value {
        Value::Opaque(opaque) => match &**opaque {
            Opaque::Cidr(cidr) => Some(*cidr),
            _ => None,
        },
        _ => None,
    }
}

fn of_ip<'a>(v: &[Value<'a>], name: &str, answer: fn(IpAddr) -> Value<'a>) -> Answer<'a> {
    ip_of(&v[0]).map_or_else(|| no_overload(name, v), |ip| Ok(answer(ip)))
}

fn cidr_value<'a>(text: &str) -> Answer<'a> {
    match parse_cidr(text) {
        Ok(cidr) => Ok(Value::Opaque(Arc::new(Opaque::Cidr(cidr)))),
        Err(error) => failed(format!("{CIDR_ERROR}: {error}")),
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, Error> {
    if text.contains('%') {
        return failed(format!("IP address {text:?} with zone value is not allowed"));
    }
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
            failed(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        Ok(ip) => Ok(ip),
        Err(_) => failed(format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
        )),
    }
}

fn parse_cidr(text: &str) -> Result<Cidr, String> {
    let wrong = |why: &str| Err(format!("{CIDR_ERROR}: netip.ParsePrefix({text:?}): {why}"));
    let Some((address, bits)) = text.rsplit_once('/') else { return wrong("no '/'") };
    let Ok(address) = address.parse::<IpAddr>() else {
        return wrong(&format!("ParseAddr({address:?}): unable to parse IP"));
    };
    let digits =
        !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) && (bits.len() == 1 || !bits.starts_with('0'));
    let most = if address.is_ipv4() { 32 } else { 128 };
    match bits.parse::<u8>() {
        Ok(prefix) if digits && prefix <= most => match address {
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
                Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
            }
            _ => Ok(Cidr { address, prefix }),
        },
        _ if digits => wrong("prefix length out of range"),
        _ => wrong(&format!("bad bits after slash: {bits:?}")),
    }
}

/// As Go has it: nothing of the special blocks, private addresses included.
fn is_global_unicast(ip: IpAddr) -> bool {
    let special = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(special || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
}

impl Cidr {
    fn bits(address: IpAddr) -> (u128, u8) {
        match address {
            IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
            IpAddr::V6(ip) => (ip.to_bits(), 128),
        }
    }

    /// The address without the bits of the host.
    #[must_use]
    pub fn network(self) -> IpAddr {
        let (bits, width) = Self::bits(self.address);
        let host = width - self.prefix;
        let kept = if host == 128 { 0 } else { bits >> host << host };
        match self.address {
            IpAddr::V4(_) => IpAddr::V4((kept as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(kept.into()),
        }
    }

    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && Self { address, ..self }.network() == self.network()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}
