//! Types: the values that only functions can look into: those of the Kubernetes libraries.

use std::net::IpAddr;

use crate::api::quantity::Quantity;

pub use super::formats::Format;
pub use super::net::Cidr;
pub use super::semver::Version;
pub use super::url::Url;

pub const QUANTITY: &str = "kubernetes.Quantity";
pub const URL: &str = "kubernetes.URL";
pub const IP: &str = "net.IP";
pub const CIDR: &str = "net.CIDR";
pub const SEMVER: &str = "kubernetes.Semver";
pub const FORMAT: &str = "kubernetes.NamedFormat";
pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
pub const PATH_CHECK: &str = "kubernetes.authorization.PathCheck";
pub const GROUP_CHECK: &str = "kubernetes.authorization.GroupCheck";
pub const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
pub const DECISION: &str = "kubernetes.authorization.Decision";

#[derive(Clone, Debug, PartialEq)]
pub enum Opaque {
    Quantity(Quantity),
    Url(Url),
    Ip(IpAddr),
    Cidr(Cidr),
    Semver(Version),
    Format(Format),
}

impl Opaque {
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Quantity(_) => QUANTITY,
            Self::Url(_) => URL,
            Self::Ip(_) => IP,
            Self::Cidr(_) => CIDR,
            Self::Semver(_) => SEMVER,
            Self::Format(_) => FORMAT,
        }
    }

    /// How many bytes an address has, for the cost of comparing it; 1 for what has no size.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Ip(IpAddr::V4(_)) => 4,
            Self::Ip(IpAddr::V6(_)) => 16,
            Self::Cidr(cidr) => (cidr.prefix as usize).div_ceil(8),
            _ => 1,
        }
    }
}

/// The name of a type by how the table of functions writes it.
pub(super) fn full_name(short: &str) -> &'static str {
    match short {
        "quantity" => QUANTITY,
        "url" => URL,
        "ip" => IP,
        "cidr" => CIDR,
        "semver" => SEMVER,
        "format" => FORMAT,
        "authorizer" => AUTHORIZER,
        "path" => PATH_CHECK,
        "group" => GROUP_CHECK,
        "resource" => RESOURCE_CHECK,
        "decision" => DECISION,
        other => unreachable!("the table of functions has an unknown type {other:?}"),
    }
}

/// The names of types that an expression may say, as in `type(x) == net.IP`.
pub(in super::super) const NAMES: [&str; 17] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "type",
    "null_type",
    "optional_type",
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    QUANTITY,
    IP,
    CIDR,
    URL,
];
