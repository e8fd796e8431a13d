//! Effects: thin verbs over rtnetlink, synchronous: the kernel answers a request before `send` returns, so a call takes
//! microseconds and the CNI plugin needs no runtime. A [`Socket`] keeps the network namespace it was opened in.

mod address;
mod conntrack;
mod link;
mod namespace;
mod neighbour;
mod route;
mod socket;
pub mod sysctl;

pub use address::Address;
pub use conntrack::{Conntrack, Flow};
pub use link::{Link, Mac, Vxlan};
pub use namespace::Namespace;
pub use neighbour::Neighbour;
pub use route::Route;
pub use socket::Socket;

/// Index of `lo` in every network namespace.
pub const LOOPBACK: u32 = 1;

/// A request to the kernel that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open a netlink socket")]
    Open(#[source] std::io::Error),
    #[error("cannot {step}")]
    Refused {
        step: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot {step}: the kernel's answer is not understood: {message}")]
    Malformed { step: String, message: String },
    #[error("cannot {step}: there is no such link")]
    NoLink { step: String },
    #[error("cannot {step} {path}")]
    File {
        step: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the kernel answered with this error number.
    #[must_use]
    pub fn is(&self, errno: nix::errno::Errno) -> bool {
        matches!(self, Self::Refused { source, .. } if source.raw_os_error() == Some(errno as i32))
    }

    /// Whether the thing asked for does not exist.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        use nix::errno::Errno;
        matches!(self, Self::NoLink { .. })
            || [Errno::ENODEV, Errno::ESRCH, Errno::ENOENT, Errno::EADDRNOTAVAIL].iter().any(|e| self.is(*e))
    }
}

pub type Result<T> = std::result::Result<T, Error>;
